"""Pixels: channels, bit depth, geometry, orientation, DICOM."""

import sys

import numpy as np
import pydicom
import pytest
from made_trees import make_tree, write_card
from PIL import Image

from ssl_core.data import load, pixels


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path / "cache"))


def test_grey_stays_one_channel_and_becomes_three_when_asked(tmp_path):
    make_tree(tmp_path / "images", mode="L")
    one, three = load(write_card(tmp_path, channels=1)), load(write_card(tmp_path, channels=3))
    assert one.images.shape[1] == 1 and np.array_equal(three.images, one.images.repeat(3, axis=1))
    make_tree(tmp_path / "images", mode="RGB")
    assert load(write_card(tmp_path, channels=1)).images.shape[1] == 1


def test_sixteen_bit_uses_a_percentile_window(tmp_path):
    values = np.linspace(1000, 3000, 64 * 64).reshape(64, 64).astype(np.uint16)
    values[0, 0] = 65535  # one hot pixel must not make the rest black
    Image.fromarray(values).save(tmp_path / "a.png")
    read = pixels.read_image(tmp_path / "a.png", 1, 64)[0].astype(int)
    assert read.min() == 0 and read.max() == 255 and read[0, 0] == 255
    assert abs(read[32, 32] - 128) <= 3 and np.all(np.diff(read.ravel()[1:]) >= 0)
    wide = pixels.read_image(tmp_path / "a.png", 1, 64, window=(0, 100))
    assert wide[0, 32, 32] < 20
    Image.fromarray(np.full((8, 8), 900, np.uint16)).save(tmp_path / "flat.png")
    assert pixels.read_image(tmp_path / "flat.png", 1, 8).max() == 0


def test_geometries_keep_what_they_promise():
    wide = np.zeros((20, 40), np.uint8)
    wide[:, 10:30] = 200  # the central square
    image = Image.fromarray(wide)
    crop, pad, squash = (pixels.fit(image, 1, 20, g)[0] for g in ("resize_crop", "pad", "squash"))
    assert crop.min() == 200
    assert pad[:5].max() == 0 and pad[15:].max() == 0 and pad[10, 10] == 200 and pad[10, 0] == 0
    assert squash[0, 10] == 200 and squash[10, 0] == 0 and abs(int((squash > 100).sum()) - 200) <= 20
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    assert np.abs(pixels.fit(Image.fromarray(stripes), 1, 16, "squash").astype(int) - 128).max() <= 12  # antialiased


def test_a_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # taken with the camera on its side
    values = np.zeros((16, 16), np.uint8)
    values[:8] = 255
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    upright = pixels.read_image(tmp_path / "a.png", 1, 16)[0]
    assert upright[:, 8:].min() == 255 and upright[:, :8].max() == 0


def test_dicom_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    make_tree(tmp_path / "images")
    (tmp_path / "images" / "HSIL" / "s01_9.dcm").write_bytes(b"DICM")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match="s01_9.dcm: DICOM needs pydicom: pip install pydicom"):
        load(write_card(tmp_path, skip_bad=True))


def test_dicom_window_and_inverted_grey(tmp_path):
    values = np.linspace(0, 4095, 64).reshape(8, 8).astype(np.uint16)
    header = pydicom.Dataset()
    header.Rows, header.Columns, header.SamplesPerPixel, header.PhotometricInterpretation = 8, 8, 1, "MONOCHROME1"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.RescaleSlope, header.RescaleIntercept, header.WindowCenter, header.WindowWidth = 1, -1000, 1000, 2000
    header.PixelData = values.tobytes()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    read = pixels.read_image(tmp_path / "a.dcm", 1, 8)[0]
    wanted = 255 - np.clip((values.astype(float) - 1000) / 2000, 0, 1) * 255  # window 0 to 2000 after the intercept
    assert np.abs(read - wanted).max() <= 1
