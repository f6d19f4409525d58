"""What is particular to cards of tissue and of lists of paths, on their made trees; of all: test_datasets_trees.py."""

import shutil

import numpy as np
import pytest
from made_data import copied, picture
from published_trees import (
    CYTOLOGY,
    CYTOLOGY_LISTS,
    cytology_folders,
    cytology_lists,
    cytology_ratio_lists,
    inat18,
    paip,
    pnu,
    write_list,
)

from ssl_core.data import load
from ssl_core.data.pools import pools


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where the data lie, the cache being beside it."""
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines()


# cytology


def test_cytology_lists(folder):
    cytology_lists(folder)
    wanted = {"images": 40, "groups": 5, "parts": {"train": 24, "val": 8, "test": 8}, "classes": {"neg": 20, "pos": 20}}
    data = load(copied("cytology_lists", folder, expected=wanted))
    assert data.task == "binary" and data.classes == ("neg", "pos") and data.group_names == tuple(CYTOLOGY)
    assert data.paths[:2] == ("neg/s01_0000.png", "neg/s01_0001.png") and data.paths == tuple(sorted(data.paths))
    frame = data.frame()
    assert (frame.label == frame.path.str[:3]).all() and (frame.group == frame.path.str[4:7]).all()
    assert set(frame.part[frame.group == "s04"]) == {"val"} and set(frame.part[frame.group == "s05"]) == {"test"}
    p = pools(data, "category_ratio", ratio=3, total=16, label_pool="natural")
    assert p.split.counts.tolist() == [12, 4] and len(p.val) == 8 and len(p.test) == 8


def test_cytology_tiles_of_a_test_slide_leave_training(folder):
    cytology_lists(folder)
    train, test = folder / CYTOLOGY_LISTS["train"], folder / CYTOLOGY_LISTS["test"]
    moved, *kept = lines_of(train)  # of slide s01
    write_list(train, kept)
    write_list(test, [*lines_of(test), moved])
    p = pools(load(copied("cytology_lists", folder)), "natural", label_pool="natural")
    assert len(p.test) == 9 and len(p.unlabelled) == len(p.labelled) == 16
    assert any(note.startswith("7 images outside the official test part share a group") for note in p.notes)


def test_cytology_lists_of_ones_own_per_ratio(folder):
    cytology_lists(folder)
    paths = lines_of(folder / CYTOLOGY_LISTS["train"])  # per slide 4 neg, 4 pos
    for ratio, chosen in (("1", paths[:8]), ("1,000", [*paths[:4], *paths[8:12], paths[4]])):
        write_list(folder / "MAE_pretrain" / f"ratio_1-{ratio}.txt", chosen)
    only = {"unlabelled": "MAE_pretrain/ratio_1-{ratio:,}.txt", "labelled": "train_8.txt"}
    data = load(copied("cytology_lists", folder, only=only))
    even, uneven = (pools(data, "natural", ratio=r, label_pool="natural") for r in (1, 1000))
    assert even.split.counts.tolist() == [4, 4] and uneven.split.counts.tolist() == [8, 1]
    assert np.array_equal(even.labelled, uneven.labelled) and len(even.labelled) == 24
    with pytest.raises(ValueError, match=r"only: there is no MAE_pretrain/ratio_1-50.txt; there are MAE_pretrain/"):
        pools(data, "natural", ratio=50)


def test_cytology_tiles_to_pretrain_on_are_others_than_those_with_labels(folder):
    cytology_ratio_lists(folder)
    data = load(copied("cytology_ratio_lists", folder))
    p = pools(data, "category_ratio", ratio=3, total=16, label_pool="natural")
    assert p.split.counts.tolist() == [12, 4] and len(p.labelled) == 24 and (len(p.val), len(p.test)) == (8, 8)
    assert {data.paths[i][4:7] for i in p.labelled} == {"s01", "s02", "s03"}
    assert all(data.paths[i].split("_")[1] >= "0004.png" for i in p.unlabelled)  # of pretrain.txt alone
    write_list(folder / "ratio_1-3.txt", [f"/disk/{data.paths[i]}" for i in p.unlabelled])
    own = load(copied("cytology_ratio_lists", folder,
                      only={"unlabelled": "ratio_1-{ratio:,}.txt", "labelled": "train_8.txt"}))
    assert np.array_equal(pools(own, "category_ratio", ratio=3, total=16, draw_seed=5).unlabelled, p.unlabelled)


def test_cytology_a_tile_of_another_class_and_one_that_is_listed_twice_are_told(folder):
    cytology_lists(folder)
    train, test = folder / CYTOLOGY_LISTS["train"], folder / CYTOLOGY_LISTS["test"]
    whole, card = lines_of(train), copied("cytology_lists", folder)
    write_list(train, [*whole, "/disk/tiles/unsure/s01_0009.png"])
    with pytest.raises(ValueError, match="path: the pattern .* fits 40 of 41 paths; the first it misses is .*unsure/s"):
        load(card)
    write_list(train, whole)
    write_list(test, [*lines_of(test), "/elsewhere/neg/s01_0000.png"])
    with pytest.raises(ValueError, match="neg/s01_0000.png stands in line 1 of train_8.txt and line 9 of lineProb_"):
        load(card)


def test_cytology_folders(folder, tmp_path):
    cytology_folders(folder)
    cytology_lists(tmp_path / "listed")
    folders, lists = load(copied("cytology_folders", folder)), load(copied("cytology_lists", tmp_path / "listed"))
    known = ["label", "group", "part"]
    assert folders.frame()[known].value_counts().to_dict() == lists.frame()[known].value_counts().to_dict()
    assert sorted(map(bytes, folders.hashes)) == sorted(map(bytes, lists.hashes))


# PNU, PAIP


def test_pnu_patches_of_one_case_stay_together(folder):
    pnu(folder)
    data = load(copied("pnu", folder))
    assert data.classes == ("Normal", "ADH", "DCIS") and data.counts().tolist() == [12, 12, 12]
    assert data.group_names == ("S15-3188", "S16-0001", "S16-0002", "S17-12", "S17-13", "S18-7", "S18-8")
    assert all("/x40/" in path for path in data.paths) and not data.part.any()
    p = pools(data, "natural", label_pool="natural", test_fraction=0.3)
    assert not set(data.groups[p.test]) & set(data.groups[p.unlabelled])
    coarse = load(copied("pnu", folder, files="*/*/x5/*.png"))
    assert len(coarse) == 36 and not set(coarse.paths) & set(data.paths)


def test_pnu_in_folders_of_parts_is_refused(folder):
    picture(folder / "train" / "ADH" / "S18-7_A x40(1).png", 0)  # as for torchvision's ImageFolder
    with pytest.raises(FileNotFoundError, match="root: there is no image that fits .*, which holds train; the image"):
        load(copied("pnu", folder))


def test_paip_has_groups_and_nothing_to_test_on(folder):
    paip(folder)
    data = load(copied("paip", folder))
    assert data.classes == () and (data.labels == -1).all() and len(data.counts()) == 0
    assert data.group_names == ("PAIP_1", "PAIP_2", "PAIP_3")
    for label_pool in ("natural", "balanced"):
        p = pools(data, "natural", label_pool=label_pool)
        assert len(p.unlabelled) == 24 and not len(p.labelled) and not len(p.test)


# iNaturalist


def test_inaturalist_lists(folder):
    inat18(folder)
    data = load(copied("inat18", folder, expected={"parts": {"train": 24, "test": 12}}))
    assert data.classes == ("3", "20", "7477") and data.counts().tolist() == [12, 12, 12]
    assert all(path.split("/")[2] == label for path, label in zip(data.paths, data.label_names()))
    assert len(pools(data, "long_tail", ratio=4, n_max=8).test) == 12


def test_inaturalist_a_line_without_label_an_image_in_both_lists_and_lists_without_images_are_told(folder):
    inat18(folder)
    train, val = (folder / f"iNaturalist18_{part}.txt" for part in ("train", "val"))
    whole, card = lines_of(val), copied("inat18", folder)
    write_list(val, [*whole, "train_val2018/Aves/3/0.jpg"])
    with pytest.raises(ValueError, match="columns: line 13 of iNaturalist18_val.txt has 1 of path, label"):
        load(card)
    write_list(val, [*whole, lines_of(train)[0]])
    with pytest.raises(ValueError, match="stands in line 1 of iNaturalist18_train.txt and line 13 of iNaturalist18_"):
        load(card)
    write_list(val, whole)
    shutil.rmtree(folder / "train_val2018")
    message = r"path: 36 of the 36 files listed are not in .*; get train_val2018.tar.gz \(120 GB\).*; licence: iNatural"
    with pytest.raises(FileNotFoundError, match=message):
        load(card)
