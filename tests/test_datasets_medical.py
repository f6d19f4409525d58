"""What is particular to single public sets of medical images, each on its made tree; of all: test_datasets_trees.py."""

import shutil
from pathlib import Path

import pytest
from made_data import card_values, copied
from published_trees import bhi_lists, breakhis, chestxray14, chestxray14_official, elpv, eyepacs, herlev

from ssl_core.data import load
from ssl_core.data.pools import pools


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where the data lie, the cache being beside it."""
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def test_breakhis_with_its_published_split_is_refused_as_a_leak(folder):
    rows = breakhis(folder)
    official = load(copied("breakhis", folder, parts={}))
    assert [(official.part == part).sum() for part in ("train", "test")] == [32, 16]
    message = (r"the official split leaks: 32 of 32 training images share a group with the test part; in the card set "
               r"`parts: \{train: \"\", val: \"\", test: \"\"\}`, and whole groups are drawn")  # fmt: skip
    with pytest.raises(ValueError, match=message):
        pools(official)
    by_group = load(copied("breakhis", folder, parts={"train": "", "val": "", "test": ""}))
    assert not by_group.part.any() and len(by_group) == len(rows)
    assert "drawn by part_seed" in " ".join(pools(by_group, split_kind="balanced").notes)


def test_letters_of_a_breakhis_case_and_its_two_carcinomas_stay_together(folder):
    breakhis(folder)
    data = load(copied("breakhis", folder))
    assert data.group_names == ("14-10147", "14-13412", "14-16184", "14-22549", "14-9133", "15-190")
    published = load(copied("breakhis", folder, group=r"(?P<group>\d+-[0-9A-Z]+)-400-"))
    assert {"14-22549AB", "14-22549CD", "15-190EF"} < set(published.group_names)


def test_both_eyes_leave_training_when_one_is_tested(folder):
    eyepacs(folder)
    data = load(copied("eyepacs", folder))
    drawn = pools(data, split_kind="natural", label_pool="natural")
    trained = {data.paths[i] for i in drawn.unlabelled}
    assert {"train/1/7_left.jpeg", "train/1/107_right.jpeg", "train/1/207_right.jpeg"} <= set(data.paths) - trained
    assert len(trained) == 24 * 2 - 2 and "share a group with it and are left out" in " ".join(drawn.notes)


def test_a_film_in_two_lists_or_in_two_folders_is_told(folder):
    chestxray14(folder)
    lines = (folder / "chest_xray_14_test_list.txt").read_text().splitlines()
    with open(folder / "chest_xray_14_val_list.txt", "a") as file:
        file.write(lines[0] + "\n")
    message = r"path: 00030805_007.png stands in line 9 of chest_xray_14_val_list.txt and line 1 of chest_xray_14"
    with pytest.raises(ValueError, match=message):
        load(copied("chestxray14", folder))
    shutil.rmtree(folder)
    chestxray14_official(folder)
    shutil.copy(folder / "images_002/images/00000001_000.png", folder / "images_003/images/00000001_000.png")
    with pytest.raises(ValueError, match="files: 00000001_000.png is there twice, as .*images_002.* and .*images_003"):
        load(copied("chestxray14_official", folder))


def test_official_lists_of_nih_have_to_be_of_the_table_and_disjoint(folder):
    chestxray14_official(folder)
    card = copied("chestxray14_official", folder)
    with open(folder / "test_list.txt", "a") as file:
        file.write("00099999_000.png\n")
    with pytest.raises(ValueError, match="split: 1 of the 49 images in train_val_list.txt, test_list.txt are no "):
        load(card)
    with open(folder / "test_list.txt", "a") as file:
        file.write("00000001_000.png\n")
    with pytest.raises(ValueError, match="split: 00000001_000.png is listed for train and, in test_list.txt, for test"):
        load(card)
    (folder / "test_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match="split: there is no test_list.txt in "):
        load(card)


def test_equal_lists_of_bhi_are_refused(folder):
    """As they were before the authors mended them: val_split.csv and test_split.csv the same file."""
    bhi_lists(folder)
    shutil.copy(folder / "val_split.csv", folder / "test_split.csv")
    with pytest.raises(ValueError, match="stands in line 2 of val_split.csv and line 2 of test_split.csv; one row per"):
        load(copied("bhi_lists", folder))


def test_drawings_of_herlev_are_never_images(folder):
    rows = herlev(folder)
    drawings = [path for path in folder.rglob("*") if path.name.endswith("-d.bmp")]
    data = load(copied("herlev", folder))
    assert len(drawings) == len(rows) == len(data) and not any("-d" in Path(path).stem for path in data.paths)


def test_elpv_is_found_as_a_package_and_its_probabilities_become_classes(folder, tmp_path, monkeypatch):
    package = tmp_path / "site" / "elpv_dataset"
    elpv(package / "data")
    (package / "__init__.py").write_text("raise RuntimeError('only found, never imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    card = copied("elpv", folder, root=card_values("elpv")["root"])
    data = load(card)
    assert data.classes == ("functional", "defective") and data.counts().tolist() == [12, 12] and not data.grouped
    probabilities = data.table["probability"].astype(float)
    assert (data.labels == (probabilities > 0.5)).all() and data.images.shape == (24, 1, 8, 8)
    assert data.table["type"].tolist() == ["mono"] * 12 + ["poly"] * 12
    monkeypatch.undo()
    monkeypatch.setattr("ssl_core.data.places.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="root: there is no .*; get it .* with `pip install elpv-dataset`"):
        load(card)
