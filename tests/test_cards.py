"""Cards: made trees with the patterns of real data sets, and what is said when they fail.

The trees hold 3 groups × 2 classes × 4 images or more.
"""

import gzip
import shutil

import numpy as np
import pytest
from made_trees import CLASSES, SLIDES, make_csv, make_tree, picture, rows_of_csv, write_card

from ssl_core.data import cards, load, pixels


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path / "cache"))


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
    ({"files": "*.bmp"}, "root: there is no image that fits .*bmp in .*, which holds HSIL, NILM"),
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
