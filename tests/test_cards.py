"""Cards: made trees with the patterns of real data sets, the store that decodes them, and what is said when they fail.

The trees hold 3 groups × 2 classes × 4 images or more.
"""

import functools
import gzip
import shutil
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from ssl_core.data import cards, load, pixels, store

SLIDES, CLASSES = ("s01", "s02", "s03"), ("HSIL", "NILM")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path / "cache"))


def picture(seed, mode="RGB", size=(12, 10)):
    shape = size[::-1] + ((3,) if mode == "RGB" else ())
    values = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return Image.fromarray(values)


def make_tree(folder, mode="RGB", parts=("",)):
    """[part/]class/slide_k.png"""
    for i, (part, label, slide, k) in enumerate(
        (p, c, s, k) for p in parts for c in CLASSES for s in SLIDES for k in range(4)
    ):
        path = folder / part / label / f"{slide}{part}_{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(i, mode).save(path)
    return folder


def write_card(folder, name="mine", **values):
    values = {"kind": "folder", "root": "images", "image_size": 8, "channels": 3} | values
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}), encoding="utf-8")
    return path


def make_csv(folder, rows, name="images.csv"):
    make_tree(folder / "images")
    (folder / "images" / name).write_text("\n".join(rows) + "\n", encoding="utf-8")


def rows_of_csv(**extra):
    lines = ["path,label,group,split,age" + "".join(f",{name}" for name in extra)]
    for label in CLASSES:
        for slide in SLIDES:
            part = "test" if slide == "s03" else "train"
            for k in range(4):
                tail = "".join(f",{value}" for value in extra.values())
                lines.append(f"{label}/{slide}_{k}.png,{label},{slide},{part},{40 + k}{tail}")
    return lines


# folders


def test_class_folders_in_sorted_order(tmp_path):
    make_tree(tmp_path / "images")
    data = load(write_card(tmp_path, group=r"/(?P<group>s\d+)_"))
    assert data.images.shape == (24, 3, 8, 8) and data.paths == tuple(sorted(data.paths))
    assert data.classes == CLASSES and data.counts().tolist() == [12, 12]
    assert data.grouped and data.group_names == SLIDES and np.bincount(data.groups).tolist() == [8, 8, 8]
    expected = pixels.fit(picture(0), 3, 8, "resize_crop")
    assert np.array_equal(data.images[data.paths.index("HSIL/s01_0.png")], expected)


def test_official_parts_and_unlabelled_folders(tmp_path):
    root = make_tree(tmp_path / "images", parts=("training", "val", "test"))
    shutil.copytree(root / "val" / "HSIL", root / "unlabelled" / "deep" / "er")
    shutil.copytree(root / "val" / "NILM", root / "test" / "unlabelled")
    (root / "HSIL.txt").write_text("no image")
    (root / "val" / "HSIL" / "._s01.png").write_text("a ghost that macOS leaves")
    data = load(write_card(tmp_path, parts={"training": "train"}))
    frame = data.frame().groupby(["part", "label"]).size().to_dict()
    assert frame == {
        ("train", "HSIL"): 12,
        ("train", "NILM"): 12,
        ("val", "HSIL"): 12,
        ("val", "NILM"): 12,
        ("test", "HSIL"): 12,
        ("test", "NILM"): 12,
        ("train", ""): 12,
        ("test", ""): 12,
    }


def test_label_from_the_path_joined_into_two_classes(tmp_path):
    root = tmp_path / "images"
    for i, name in enumerate(
        f"SOB_{c}-14-{p}-40-{k}.png" for c in ("B_A", "M_DC", "M_LC") for p in "123" for k in range(4)
    ):
        root.mkdir(exist_ok=True)
        picture(i).save(root / name)
    card = write_card(
        tmp_path,
        label="_(?P<label>[A-Z]+)-14",
        group="14-(?P<group>\\d+)-",
        task="binary",
        files="SOB*.png",
        rename={"A": "benign", "DC": "malignant", "LC": "malignant"},
    )
    data = load(card)
    assert data.classes == ("benign", "malignant") and data.counts().tolist() == [12, 24] and len(data.group_names) == 3


@pytest.mark.parametrize("values, message", [
    ({"colour": "red"}, "colour: unknown key; allowed are kind, root, file"),
    ({"task": "regression"}, "task: input should be 'multiclass', 'binary' or 'multilabel', got 'regression'"),
    ({"channels": None}, "channels: a folder card must give it"),
    ({"image_size": "32"}, "image_size: '32' is text, not a number"),
    ({"path": "file"}, "path: a card of kind folder does not use it; of these it may say files, group, label"),
    ({"label": ["a", "b"]}, "label: a list of columns needs kind csv and task multilabel"),
    ({"kind": "npz", "image_size": None}, "file: a npz card must name it"),
    ({"kind": "npz", "file": {"train": "a.npz"}}, "file: an npz holds its own parts; name one file"),
    ({"columns": ["path", "label"]}, "columns: a card of kind folder does not use it"),
    ({"only": {"val": "list.txt"}}, "only.val: unknown key|only: val: unknown key"),
    ({"root": "elsewhere", "get": "ask the\nauthors", "licence": "CC BY 4.0"},
     r"root: there is no .*elsewhere; ask the authors; licence: CC BY 4.0"),
    ({"files": "*.bmp"}, "root: no images in "),
    ({"group": r"/(?P<slide>s\d+)"}, r"group: the pattern .* has no group named \(\?P<group>…\)"),
    ({"group": r"/(?P<group>s0[12])"}, "group: .* fits 16 of 24 paths; the first it misses is HSIL/s03_0.png"),
    ({"group": r"(?P<group>"}, "group: .* is not a regular expression"),
    ({"group": r"/(?P<group>s01)?"}, "group: 16 images have none, the first is HSIL/s02_0.png"),
    ({"classes": ["NILM", "LSIL"]}, "classes: label 'HSIL' is none of NILM, LSIL; add it, or map it under `rename:`"),
    ({"split": r"(?P<split>s\d+)"}, "split: 's01' is none of train, val, test and empty; say which under `parts:`"),
    ({"task": "binary", "rename": {"HSIL": "NILM"}}, "task: binary needs 2 classes, found NILM"),
    ({"expected": {"images": 25}}, "expected: images should be 25, found 24"),
    ({"expected": {"classes": {"HSIL": 12, "LSIL": 3}}}, "expected: classes should be .*'LSIL': 3.* found .*'LSIL': 0"),
    ({"expected": {"patients": 4}}, "expected: patients: unknown key"),
])  # fmt: skip
def test_a_wrong_card_is_told_in_one_line_with_file_and_key(tmp_path, values, message):
    make_tree(tmp_path / "images")
    with pytest.raises((ValueError, FileNotFoundError), match="mine.yaml: " + message) as caught:
        load(write_card(tmp_path, **values))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()  # nothing was decoded


def test_unknown_names_and_broken_yaml(tmp_path):
    with pytest.raises(cards.ConfigError, match="no data set 'fashon'; params/data holds .*fashion"):
        load("fashon")
    (tmp_path / "broken.yaml").write_text("kind: [folder\n")
    with pytest.raises(cards.ConfigError, match="broken.yaml: not YAML: ") as caught:
        load(tmp_path / "broken.yaml")
    assert "\n" not in str(caught.value)


def test_the_card_of_every_set_here_is_read_and_says_where_it_is_from():
    for name in cards.card_names():
        card = cards.read_card(name)
        assert card.synthetic or (card.licence and card.source), name


# CSV


def test_csv_with_empty_labels_and_more_columns(tmp_path):
    rows = rows_of_csv()
    rows[1] = rows[1].replace(",HSIL,", ",,")
    make_csv(tmp_path, [rows[0], *reversed(rows[1:])])  # the order of the file means nothing
    data = load(write_card(tmp_path, kind="csv", file="images.csv"))
    assert data.paths == tuple(sorted(data.paths)) and data.labels[0] == -1 and data.counts().tolist() == [11, 12]
    assert data.group_names == SLIDES and (data.part == "test").sum() == 8
    assert data.table["age"].tolist()[:4] == ["40", "41", "42", "43"]
    assert list(data.frame().columns) == ["path", "label", "group", "part", "split", "age"]


def test_csv_with_names_of_its_own(tmp_path):
    rows = [
        row.replace(".png", "").replace("path,label,group,split", "image,diagnosis,slide,fold") for row in rows_of_csv()
    ]
    make_csv(tmp_path, rows)
    card = {"kind": "csv", "file": "images.csv", "path": "{image}.png", "label": "diagnosis", "group": "slide"}
    data = load(write_card(tmp_path, **card, split="fold", classes=["NILM", "HSIL"], ordered=True))
    assert data.classes == ("NILM", "HSIL") and data.ordered and data.labels[0] == 1 and data.part[0] == "train"


def test_csv_several_labels_in_one_column(tmp_path):
    rows = rows_of_csv(findings="A|C")
    rows[1:5] = [row.replace("A|C", text) for row, text in zip(rows[1:5], ("", "none", "C", "B"))]
    make_csv(tmp_path, rows)
    data = load(
        write_card(tmp_path, kind="csv", file="images.csv", label="findings", task="multilabel", rename={"none": None})
    )
    assert data.classes == ("A", "B", "C")
    assert data.labels[:5].tolist() == [[-1, -1, -1], [0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 1]]


def test_csv_one_column_per_label(tmp_path):
    rows = rows_of_csv(halo="1", mitosis="0")
    rows[2] = rows[2].replace(",1,0", ",,1.0")
    make_csv(tmp_path, rows)
    data = load(write_card(tmp_path, kind="csv", file="images.csv", label=["halo", "mitosis"], task="multilabel"))
    assert data.labels[:3].tolist() == [[1, 0], [-1, 1], [1, 0]] and data.classes == ("halo", "mitosis")


@pytest.mark.parametrize("change, values, message", [
    (None, {"group": "patient"}, "group: no column 'patient' in images.csv; its columns are path, label, group, split"),
    (None, {"path": "{folder}/{id}"}, "path: no column 'folder' in images.csv"),
    (None, {"file": "labels.csv"}, "file: there is no labels.csv in "),
    (("s01_1.png", "s01_0.png"), {}, "path: HSIL/s01_0.png stands in lines 2 and 3 of images.csv; one row"),
    (("HSIL/s01_0.png", "/data/s01_0.png"), {}, "path: '/data/s01_0.png' in line 2 of images.csv; write paths"),
    ((",HSIL,s01,train,41", ",HSIL,,train,41"), {}, "group: 1 images have none, the first is HSIL/s01_1.png"),
    ((",train,41", ",fold1,41"), {}, "split: 'fold1' is none of train, val, test and empty"),
    (None, {"label": ["label"], "task": "multilabel"}, "label: 'HSIL' in column 'label' of images.csv; allowed are 0"),
])  # fmt: skip
def test_a_wrong_csv_is_told_with_column_and_line(tmp_path, change, values, message):
    rows = rows_of_csv()
    make_csv(tmp_path, [row.replace(*change) if change and i < 4 else row for i, row in enumerate(rows)])
    with pytest.raises((ValueError, FileNotFoundError), match="mine.yaml: " + message):
        load(write_card(tmp_path, **({"kind": "csv", "file": "images.csv"} | values)))


# arrays


def make_npz(path, label_shape=(), **extra):
    arrays = {}
    for i, (part, n) in enumerate((("train", 12), ("val", 6), ("test", 6))):
        rng = np.random.default_rng(i)
        arrays[f"{part}_images"] = rng.integers(0, 256, (n, 28, 28), np.uint8)
        arrays[f"{part}_labels"] = (
            (np.arange(n * int(np.prod(label_shape))) % 2).reshape(n, *label_shape).astype(np.uint8)
        )
    np.savez_compressed(path, **arrays | extra)


def test_npz_of_the_medmnist_kind(tmp_path):
    make_npz(tmp_path / "a.npz", (1,))
    card = {"kind": "npz", "root": ".", "file": "a.npz", "channels": None, "image_size": None}
    data = load(write_card(tmp_path, **card, classes=["benign", "malignant"]))
    assert (
        data.images.shape == (24, 1, 28, 28) and data.counts().tolist() == [12, 12] and data.classes[1] == "malignant"
    )
    assert [(data.part == p).sum() for p in ("train", "val", "test")] == [12, 6, 6] and not data.grouped
    assert load(write_card(tmp_path, **card | {"channels": 3}), size=16).images.shape == (24, 3, 16, 16)
    np.savez(tmp_path / "a.npz", train_images=np.zeros((12, 8, 8), np.uint8), train_labels=np.arange(12)[:, None])
    assert load(write_card(tmp_path, **card)).classes[9:] == ("9", "10", "11")
    make_npz(
        tmp_path / "a.npz", (3,), train_groups=np.arange(12) // 4, val_groups=np.arange(6) + 3, test_groups=[9] * 6
    )
    with pytest.raises(ValueError, match="label: 3 labels per image need `task: multilabel`"):
        load(write_card(tmp_path, **card))
    data = load(write_card(tmp_path, **card, task="multilabel"))
    assert (
        data.labels.shape == (24, 3)
        and data.classes == ("0", "1", "2")
        and data.grouped
        and len(data.group_names) == 10
    )


def test_npz_that_could_execute_code_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", train_images=np.array([{"a": 1}], object))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        load(write_card(tmp_path, kind="npz", root=".", file="a.npz", image_size=None, channels=None))


def test_idx_files_packed_or_not(tmp_path):
    for prefix, n in (("train", 12), ("t10k", 6)):
        images = np.random.default_rng(n).integers(0, 256, (n, 28, 28), np.uint8)
        header = bytes([0, 0, 8, 3]) + np.array(images.shape, ">u4").tobytes()
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
        header = bytes([0, 0, 8, 1]) + np.array([n], ">u4").tobytes()
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(header + bytes(i % 2 for i in range(n)))
    card = write_card(tmp_path, kind="idx", root=".", image_size=None, channels=None, classes=["a", "b"])
    data = load(card)
    assert (
        data.images.shape == (18, 1, 28, 28)
        and data.counts().tolist() == [9, 9]
        and np.array_equal(data.images[12:, 0], images)
    )
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="there is no t10k-labels-idx1-ubyte.gz in "):
        load(card)


# pixels


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
    pydicom = pytest.importorskip("pydicom")
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


# the store


def count_decodes(monkeypatch, stop_at=None):
    seen = []

    def read(path, *arguments):
        seen.append(f"{path.parent.name}/{path.name}")
        if len(seen) == stop_at:
            raise KeyboardInterrupt
        return pixels.read_image(path, *arguments)

    monkeypatch.setattr(store, "read_image", read)
    return seen


def test_unreadable_images_stop_by_name_and_can_be_left_out(tmp_path, capsys, monkeypatch):
    root = make_tree(tmp_path / "images")
    (root / "HSIL" / "s01_1.png").write_bytes(b"this is no picture")
    whole = (root / "NILM" / "s02_0.png").read_bytes()
    (root / "NILM" / "s02_0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError,
        match=r"mine: 2 images cannot be read \(HSIL 1, NILM 1\): HSIL/s01_1.png, NILM/s02_0.png; "
        r"repair them, or set `skip_bad: true`",
    ):
        load(write_card(tmp_path))
    assert "mine: cannot read HSIL/s01_1.png: cannot identify image file" in capsys.readouterr().out
    seen = count_decodes(monkeypatch)
    data = load(write_card(tmp_path, skip_bad=True, group=r"/(?P<group>s\d+)_"))
    assert sorted(set(seen)) == ["HSIL/s01_1.png", "NILM/s02_0.png"]  # the rest was decoded before
    assert len(data) == 22 and data.counts().tolist() == [11, 11] and np.bincount(data.groups).tolist() == [7, 7, 8]
    alone = [pixels.read_image(root / path, 3, 8) for path in data.paths]
    assert np.array_equal(data.images, alone)


def test_images_of_a_csv_that_are_not_there(tmp_path):
    make_csv(tmp_path, rows_of_csv())
    (tmp_path / "images" / "HSIL" / "s01_2.png").unlink()
    with pytest.raises(FileNotFoundError, match="path: 1 of the 24 files listed are not .*first is HSIL/s01_2"):
        load(write_card(tmp_path, kind="csv", file="images.csv"))
    assert not (tmp_path / "cache").exists()  # nothing was decoded
    assert len(load(write_card(tmp_path, kind="csv", file="images.csv", skip_bad=True))) == 23


def test_a_mended_image_takes_its_place(tmp_path, monkeypatch):
    make_tree(tmp_path / "images")

    def hiccup(path, *arguments):
        if path.name == "s01_1.png":
            raise OSError("Input/output error")
        return pixels.read_image(path, *arguments)

    monkeypatch.setattr(store, "read_image", hiccup)
    assert len(load(write_card(tmp_path, skip_bad=True))) == 22
    monkeypatch.setattr(store, "read_image", pixels.read_image)  # the disk is well again, the file never changed
    data = load(write_card(tmp_path))
    assert len(data) == 24 and data.paths[1] == "HSIL/s01_1.png"
    assert np.array_equal(data.images[1], pixels.read_image(tmp_path / "images" / data.paths[1], 3, 8))


def test_a_killed_decode_goes_on_where_it_stopped(tmp_path, monkeypatch):
    make_tree(tmp_path / "images")
    (tmp_path / "images" / "HSIL" / "s01_1.png").write_bytes(b"this is no picture")
    card = write_card(tmp_path, skip_bad=True)
    monkeypatch.setattr(store, "BLOCK", 4)
    count_decodes(monkeypatch, stop_at=15)
    with pytest.raises(KeyboardInterrupt):
        load(card)
    [target] = (tmp_path / "cache" / "images").iterdir()
    with open(target / "pixels.u8", "ab") as file:  # half a block, as a kill leaves it
        file.write(b"half")
    seen = count_decodes(monkeypatch)
    data = load(card)
    assert len([name for name in seen if name != "HSIL/s01_1.png"]) == 24 - 12
    assert np.array_equal(data.images, [pixels.read_image(tmp_path / "images" / path, 3, 8) for path in data.paths])
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path / "other"))
    assert load(card).fingerprint == data.fingerprint


def test_the_store_is_shared_read_only_and_knows_its_hashes(tmp_path, monkeypatch, capsys):
    root = make_tree(tmp_path / "images")
    data = load(write_card(tmp_path))
    assert "mine: decoding 24 of 24 images to 3×8×8, once: 5.4 kB in the cache folder" in capsys.readouterr().out
    assert isinstance(data.images, np.memmap) and not data.images.flags.writeable
    seen = count_decodes(monkeypatch)
    monkeypatch.setattr("ssl_core.data.images.pixel_hashes", None)  # the fingerprint needs no pixel
    again = load(write_card(tmp_path, title="other words", group=r"/(?P<group>s\d+)_", rename={"HSIL": "abnormal"}))
    assert seen == [] and capsys.readouterr().out == "" and again.fingerprint != data.fingerprint
    picture(99).save(root / "HSIL" / "s01_0.png")
    load(write_card(tmp_path))
    assert len(seen) == 24


def test_moving_the_data_changes_nothing(tmp_path, monkeypatch):
    make_tree(tmp_path / "images")
    data = load(write_card(tmp_path))
    (tmp_path / "there").mkdir()
    shutil.move(tmp_path / "images", tmp_path / "there" / "pictures")
    seen = count_decodes(monkeypatch)
    moved = load(write_card(tmp_path, root=["nowhere", "there/pictures"]))
    assert moved.fingerprint == data.fingerprint and seen == []
    monkeypatch.setenv("PICTURES", str(tmp_path / "there"))
    assert load(write_card(tmp_path, root="$PICTURES/pictures")).paths == data.paths


def test_too_small_a_disk_is_told_before_decoding(tmp_path, monkeypatch):
    make_tree(tmp_path / "images")
    monkeypatch.setattr(store, "free_bytes", lambda path: 1000)
    seen = count_decodes(monkeypatch)
    with pytest.raises(OSError, match="need 5.4 kB, 1.0 kB are free at .*cache; set SSL_CORE_CACHE"):
        load(write_card(tmp_path))
    assert seen == []


# cells


def test_cells_are_drawn_once_and_come_back_whole(tmp_path, monkeypatch):
    from ssl_core.data import cells

    card = write_card(
        tmp_path,
        kind="cells",
        root=None,
        channels=None,
        image_size=None,
        synthetic=True,
        cells={"n": 8, "size": 24, "slides": 4},
    )
    load(card)
    drawn = cells.make_cells(n=8, size=24, slides=4)

    @functools.wraps(cells.make_cells)
    def again(**arguments):
        raise AssertionError("drawn a second time")

    monkeypatch.setattr(cells, "make_cells", again)
    data = load(card)
    assert data.name == "mine" and data.synthetic and data.fingerprint == drawn.fingerprint
    assert data.frame().equals(drawn.frame()) and data.group_names == drawn.group_names
    with pytest.raises(AssertionError, match="a second time"):
        load(card, size=32)


def test_cells_take_only_what_they_know(tmp_path):
    values = {"kind": "cells", "root": None, "channels": None, "image_size": None}
    with pytest.raises(ValueError, match="mine: cells: colour: unknown key; allowed are n, size"):
        load(write_card(tmp_path, **values, cells={"n": 8, "colour": "red"}))
    with pytest.raises(ValueError, match="n: missing"):
        load(write_card(tmp_path, **values))
