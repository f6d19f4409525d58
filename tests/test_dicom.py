"""DICOM: what the header says of the grey values is done, in its order; what cannot be read is told in one line."""

import numpy as np
import pydicom
import pytest
from PIL import Image

from ssl_core.data import pixels, store
from ssl_core.data.cards import Card

RAMP = np.linspace(0, 4095, 64).round().reshape(8, 8)


def write_dicom(path, values=RAMP, bits=12, signed=False, photometric="MONOCHROME2", syntax="ExplicitVRLittleEndian",
                **elements):
    """A secondary capture with these stored values and header elements."""
    kind = ("i" if signed else "u") + str(1 if bits <= 8 else 2)
    header = pydicom.Dataset()
    header.Rows, header.Columns = values.shape[:2]
    header.SamplesPerPixel = 3 if values.ndim == 3 else 1
    header.PhotometricInterpretation = photometric
    header.BitsAllocated, header.BitsStored = 8 * int(kind[1]), bits
    header.HighBit, header.PixelRepresentation = bits - 1, int(signed)
    if values.ndim == 3:
        header.PlanarConfiguration = 0
    for name, value in elements.items():
        setattr(header, name, value)
    header.PixelData = values.astype(f"<{kind}").tobytes()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.save_as(path, enforce_file_format=True)
    return path


def read(path, **arguments):
    return pixels.read_image(path, 1, 8, **arguments)[0].astype(int)


def share(values, low, high):
    """Values as 0 to 255 between two bounds, not rounded."""
    return np.clip((values - low) / (high - low), 0, 1) * 255


def test_rescale_comes_before_the_window(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RescaleSlope=0.5, RescaleIntercept=-1000, WindowCenter=0, WindowWidth=1000)
    hounsfield = RAMP * 0.5 - 1000
    assert np.abs(read(path) - share(hounsfield, -500, 499)).max() <= 0.51
    assert read(path).min() == 0 and read(path).max() == 255 and 0 < (read(path) == 0).mean() < 0.5


def test_signed_values_stay_negative(tmp_path):
    values = np.linspace(-1024, 1023, 64).round().reshape(8, 8)
    path = write_dicom(tmp_path / "a.dcm", values, signed=True, WindowCenter=0, WindowWidth=2048)
    assert np.abs(read(path) - share(values, -1024, 1023)).max() <= 0.51


@pytest.mark.parametrize("elements", [
    {"WindowCenter": 2048, "WindowWidth": 4096}, {"WindowCenter": 1000, "WindowWidth": 500}, {},
    {"RescaleSlope": 2, "RescaleIntercept": -7, "WindowCenter": 3000, "WindowWidth": 999},
])  # fmt: skip
def test_monochrome1_is_turned_to_bright_for_high(tmp_path, elements):
    plain = read(write_dicom(tmp_path / "a.dcm", **elements))
    inverse = read(write_dicom(tmp_path / "b.dcm", photometric="MONOCHROME1", **elements))
    assert np.array_equal(inverse, 255 - plain) and plain[0, 0] == 0 and inverse[0, 0] == 255


@pytest.mark.parametrize("shape, wanted", [
    ("LINEAR", lambda x: share(x, 1500, 2499)),
    ("LINEAR_EXACT", lambda x: share(x, 1500, 2500)),
    ("SIGMOID", lambda x: 255 / (1 + np.exp(-4 * (x - 2000) / 1000))),
    (None, lambda x: share(x, 1500, 2499)),
])  # fmt: skip
def test_window_takes_the_function_that_the_header_names(tmp_path, shape, wanted):
    elements = {"VOILUTFunction": shape} if shape else {}
    path = write_dicom(tmp_path / "a.dcm", WindowCenter=2000, WindowWidth=1000, **elements)
    assert np.abs(read(path) - wanted(RAMP)).max() <= 0.51


def test_of_several_windows_the_first_and_of_an_empty_one_none(tmp_path):
    several = write_dicom(tmp_path / "a.dcm", WindowCenter=[1000, 40], WindowWidth=[2000, 400])
    assert np.abs(read(several) - share(RAMP, 0, 1999)).max() <= 0.51
    empty = write_dicom(tmp_path / "b.dcm", WindowCenter=None, WindowWidth=None)
    assert np.array_equal(read(empty), read(write_dicom(tmp_path / "c.dcm")))
    assert np.abs(read(empty, window=(0, 100)) - share(RAMP, 0, 4095)).max() <= 0.51


@pytest.mark.parametrize("kind", ["US", "OW", "OW, packed"])
def test_voi_table_goes_before_a_window(tmp_path, kind):
    table, entries = pydicom.Dataset(), np.repeat([0, 100, 255], [1024, 1024, 2048])
    pack = {"US": entries.tolist(), "OW": entries.astype("<u2").tobytes(), "OW, packed": entries.astype("u1").tobytes()}
    table.LUTDescriptor, table.LUTData = [4096, 0, 8], pack[kind]
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", kind[:2]
    elements = {"VOILUTSequence": [table], "WindowCenter": 100, "WindowWidth": 10, "RescaleSlope": 1,
                "RescaleIntercept": 0}
    found = read(write_dicom(tmp_path / "a.dcm", **elements))
    assert np.array_equal(found, np.select([RAMP < 1024, RAMP < 2048], [0, 100], 255))
    inverse = read(write_dicom(tmp_path / "b.dcm", photometric="MONOCHROME1", **elements))
    assert np.array_equal(inverse, 255 - found)


def test_padding_does_not_shift_the_percentiles(tmp_path):
    padded = RAMP - 1000
    padded[:4] = -2000
    said = write_dicom(tmp_path / "a.dcm", padded, signed=True, bits=16, PixelPaddingValue=-2000)
    found = read(said)
    inside = padded[4:]
    assert np.abs(found[4:] - share(inside, *np.percentile(inside, (0.5, 99.5)))).max() <= 0.51
    assert (found[:4] == 0).all() and read(said)[4, 0] < 5
    unsaid = read(write_dicom(tmp_path / "b.dcm", padded, signed=True, bits=16))
    assert unsaid[4, 0] > 100  # what the rule is there to prevent


def test_colour_of_eight_and_of_more_bits(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (8, 8, 3))
    colour = pixels.read_image(write_dicom(tmp_path / "a.dcm", values, 8, photometric="RGB"), 3, 8)
    assert np.array_equal(colour, values.transpose(2, 0, 1))
    dark = write_dicom(tmp_path / "b.dcm", values, 12, photometric="RGB")  # 255 of 4095 is dark, and stays so
    assert np.abs(pixels.read_image(dark, 3, 8) - values.transpose(2, 0, 1) / 4095 * 255).max() <= 0.51


def test_what_cannot_be_read_is_a_reason_in_a_few_words(tmp_path):
    card = Card(kind="folder", image_size=8, channels=1)
    movie = write_dicom(tmp_path / "a.dcm", NumberOfFrames=2)
    assert store.attempt(movie, card, 8) == "it holds 2 frames; write those you need as images of their own"
    (tmp_path / "b.dcm").write_bytes(b"\0" * 128 + b"no picture")
    assert "DICOM" in store.attempt(tmp_path / "b.dcm", card, 8)
    cut = write_dicom(tmp_path / "c.dcm")
    cut.write_bytes(cut.read_bytes()[:-20])
    reason = store.attempt(cut, card, 8)
    assert isinstance(reason, str) and "\n" not in reason


def test_a_compression_without_its_decoder_ends_at_once_and_says_what_to_install(tmp_path, monkeypatch):
    def lacks(*_, **__):
        raise RuntimeError("Unable to decompress because all plugins are\nmissing dependencies:\n\tpylibjpeg")

    monkeypatch.setattr(pydicom.pixels, "pixel_array", lacks)
    with pytest.raises(ImportError, match=r"^a.dcm: Explicit VR Little Endian needs a decoder: pip install 'pylibjpeg"):
        store.attempt(write_dicom(tmp_path / "a.dcm"), Card(kind="folder", image_size=8, channels=1), 8)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_of_other_formats_use_the_percentiles_of_the_card(tmp_path, suffix):
    values = RAMP.astype(np.uint16) + 1000
    values[0, 0] = 60000  # a hot pixel
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    for window in ((0.5, 99.5), (5, 95), (0, 100)):
        found = read(tmp_path / f"a{suffix}", window=window)
        assert np.abs(found - share(values, *np.percentile(values, window))).max() <= 0.51


def test_a_dicom_and_a_png_of_the_same_values_are_the_same_image(tmp_path):
    dicom = read(write_dicom(tmp_path / "a.DCM"))
    Image.fromarray(RAMP.astype(np.uint16)).save(tmp_path / "a.png")
    assert np.array_equal(dicom, read(tmp_path / "a.png"))
