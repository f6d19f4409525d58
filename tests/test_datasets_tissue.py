"""Cards of tissue and of lists of paths: cytology, PNU, PAIP, iNaturalist, on made trees with the originals' names."""

import shutil

import numpy as np
import pytest
from made_data import copied, picture, published

from ssl_core.data import load
from ssl_core.data.census import exact_duplicates
from ssl_core.data.pools import pools

SLIDES = ("s01", "s02", "s03", "s04", "s05")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path / "cache"))


def refused(card, message, tree):
    """Loading ends in one line, before anything is decoded."""
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load(card)
    assert "\n" not in str(caught.value) and str(tree) in str(caught.value)
    assert not (tree.parent / "cache").exists()


# cytology: neg/ and pos/ of 5 slides × 4 tiles, three lists of paths as they were on somebody's disk

def make_cytology(tmp_path):
    tree = tmp_path / "tiles"
    lines = {"train_8.txt": [], "val_1.txt": [], "lineProb_unified_test.txt": []}
    lists = dict(zip(SLIDES, ["train_8.txt"] * 3 + ["val_1.txt", "lineProb_unified_test.txt"]))
    for i, (slide, label, k) in enumerate((s, c, k) for s in SLIDES for c in ("neg", "pos") for k in range(4)):
        picture(tree / label / f"{slide}_{k:04}.png", i)
        before = "E:\\lab data\\tiles\\" if slide == "s02" else "/disk/lab data/tiles/"
        lines[lists[slide]].append(before + f"{label}{before[-1]}{slide}_{k:04}.png")
    for name, paths in lines.items():
        write_list(tree / name, paths)
    return tree, lines


def write_list(path, lines):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_cytology_lists(tmp_path):
    tree, _ = make_cytology(tmp_path)
    wanted = {"images": 40, "groups": 5, "parts": {"train": 24, "val": 8, "test": 8}, "classes": {"neg": 20, "pos": 20}}
    data = load(copied("cytology_lists", tree, expected=wanted))
    assert data.task == "binary" and data.classes == ("neg", "pos") and data.group_names == SLIDES
    assert data.paths[:2] == ("neg/s01_0000.png", "neg/s01_0001.png") and data.paths == tuple(sorted(data.paths))
    frame = data.frame()
    assert (frame.label == frame.path.str[:3]).all() and (frame.group == frame.path.str[4:7]).all()
    assert set(frame.part[frame.group == "s04"]) == {"val"} and set(frame.part[frame.group == "s05"]) == {"test"}
    p = pools(data, "category_ratio", ratio=3, total=16, label_pool="natural")
    assert p.split.counts.tolist() == [12, 4] and len(p.val) == 8 and len(p.test) == 8


def test_cytology_tiles_of_a_test_slide_leave_training(tmp_path):
    tree, lines = make_cytology(tmp_path)
    moved = lines["train_8.txt"].pop(0)  # of slide s01
    write_list(tree / "train_8.txt", lines["train_8.txt"])
    write_list(tree / "lineProb_unified_test.txt", [*lines["lineProb_unified_test.txt"], moved])
    p = pools(load(copied("cytology_lists", tree)), "natural", label_pool="natural")
    assert len(p.test) == 9 and len(p.unlabelled) == len(p.labelled) == 16
    assert any(note.startswith("7 images outside the official test part share a group") for note in p.notes)


def test_cytology_lists_of_ones_own_per_ratio(tmp_path):
    tree, lines = make_cytology(tmp_path)
    paths = lines["train_8.txt"]  # per slide 4 neg, 4 pos
    for ratio, chosen in (("1", paths[:8]), ("1,000", [*paths[:4], *paths[8:12], paths[4]])):
        write_list(tree / "MAE_pretrain" / f"ratio_1-{ratio}.txt", chosen)
    only = {"unlabelled": "MAE_pretrain/ratio_1-{ratio:,}.txt", "labelled": "train_8.txt"}
    data = load(copied("cytology_lists", tree, only=only))
    even, uneven = (pools(data, "natural", ratio=r, label_pool="natural") for r in (1, 1000))
    assert even.split.counts.tolist() == [4, 4] and uneven.split.counts.tolist() == [8, 1]
    assert np.array_equal(even.labelled, uneven.labelled) and len(even.labelled) == 24
    with pytest.raises(ValueError, match=r"only: there is no MAE_pretrain/ratio_1-50.txt; there are MAE_pretrain/"):
        pools(data, "natural", ratio=50)


def test_cytology_a_misplaced_a_doubled_an_unreadable_and_a_copied_tile(tmp_path, capsys):
    tree, lines = make_cytology(tmp_path)
    train, test = tree / "train_8.txt", tree / "lineProb_unified_test.txt"
    write_list(train, [*lines["train_8.txt"], "/disk/tiles/unsure/s01_0009.png"])
    card = copied("cytology_lists", tree)
    with pytest.raises(ValueError, match="path: the pattern .* fits 40 of 41 paths; the first it misses is .*unsure/s"):
        load(card)
    write_list(train, lines["train_8.txt"])
    write_list(test, [*lines["lineProb_unified_test.txt"], "/elsewhere/neg/s01_0000.png"])
    with pytest.raises(ValueError, match="neg/s01_0000.png stands in line 1 of train_8.txt and line 9 of lineProb_"):
        load(card)
    write_list(test, lines["lineProb_unified_test.txt"])
    (tree / "pos" / "s01_0003.png").write_bytes(b"this is no picture")
    shutil.copy(tree / "neg" / "s05_0000.png", tree / "neg" / "s01_0000.png")
    with pytest.raises(ValueError, match=r"1 images cannot be read \(pos 1\): pos/s01_0003.png; repair them"):
        load(card)
    data = load(copied("cytology_lists", tree, skip_bad=True))
    assert len(data) == 39 and data.counts().tolist() == [20, 19]
    assert "cannot read pos/s01_0003.png: cannot identify image file" in capsys.readouterr().out
    copies = exact_duplicates(data)
    assert len(copies) == 1 and copies.across_parts[0] and copies.across_groups[0]


def test_cytology_what_is_missing_is_said_with_what_to_put_where(tmp_path):
    tree, lines = make_cytology(tmp_path)
    (tree / "val_1.txt").unlink()
    card = copied("cytology_lists", tree)
    refused(card, "file: there is no val_1.txt in .*; the published tiles are not released; put .*; licence: ", tree)
    write_list(tree / "val_1.txt", lines["val_1.txt"])
    (tree / "neg" / "s03_0001.png").unlink()
    refused(card, "path: 1 of the 40 files listed are not in .*, the first is neg/s03_0001.png", tree)
    refused(copied("cytology_lists", tree, expected={"parts": {"test": 9}}),
            r"expected: parts should be {'test': 9}, found {'test': 8}", tree)
    refused(copied("cytology_lists", tmp_path / "nowhere"), "root: there is no .*nowhere; the published", tmp_path)


def test_cytology_folders(tmp_path):
    tree, _ = make_cytology(tmp_path)
    for part, slides in (("train", SLIDES[:3]), ("val", SLIDES[3:4]), ("test", SLIDES[4:])):
        for label in ("neg", "pos"):
            for path in [q for s in slides for q in tree.glob(f"{label}/{s}_*.png")]:
                (tree / "folders" / part / label).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, tree / "folders" / part / label / path.name)
    lists, folders = load(copied("cytology_lists", tree)), load(copied("cytology_folders", tree / "folders"))
    known = ["label", "group", "part"]
    assert folders.frame()[known].value_counts().to_dict() == lists.frame()[known].value_counts().to_dict()
    assert sorted(map(bytes, folders.hashes)) == sorted(map(bytes, lists.hashes))
    shutil.copy(tree / "neg" / "s01_0000.png", tree / "folders" / "s01_0000.png")
    with pytest.raises(ValueError, match="group: .* fits 40 of 41 paths; the first it misses is s01_0000.png"):
        load(copied("cytology_folders", tree / "folders"))


# PNU: class/slide/magnification, two slides of one case

PNU = {"Normal": ("S15-3188_A", "S16-0001_A", "S17-12_C"), "ADH": ("S15-3188_B", "S16-0002_A", "S18-7_A"),
       "DCIS": ("S16-0002_B", "S17-13_A", "S18-8_A")}


def make_pnu(tmp_path):
    tree = tmp_path / "PNU"
    for i, (label, slide, times, k) in enumerate((c, s, t, k) for c in PNU for s in PNU[c] for t in ("x5", "x40")
                                                 for k in range(1, 5)):
        picture(tree / label / slide / times / f"{slide} {times}({k}).png", i)
    return tree


def test_pnu_patches_of_one_case_stay_together(tmp_path):
    tree = make_pnu(tmp_path)
    wanted = {"images": 36, "groups": 7, "classes": {"Normal": 12, "ADH": 12, "DCIS": 12}}
    data = load(copied("pnu", tree, expected=wanted))
    assert data.classes == ("Normal", "ADH", "DCIS") and data.counts().tolist() == [12, 12, 12]
    assert data.group_names == ("S15-3188", "S16-0001", "S16-0002", "S17-12", "S17-13", "S18-7", "S18-8")
    assert all("/x40/" in path for path in data.paths) and not data.part.any()
    p = pools(data, "natural", label_pool="natural", test_fraction=0.3)
    assert not set(data.groups[p.test]) & set(data.groups[p.unlabelled])
    coarse = load(copied("pnu", tree, files="*/*/x5/*.png"))
    assert len(coarse) == 36 and not set(coarse.paths) & set(data.paths)


def test_pnu_misplaced_unreadable_copied_and_wrong(tmp_path):
    tree = make_pnu(tmp_path)
    stray = tree / "ADH" / "S18-7_A" / "x40" / "S16-0002_A x40(9).png"
    shutil.copy(tree / "ADH" / "S16-0002_A" / "x40" / "S16-0002_A x40(1).png", stray)
    with pytest.raises(ValueError, match=r"group: .* fits 36 of 37 paths; the first it misses is ADH/S18-7_A/x40/S16"):
        load(copied("pnu", tree))
    stray.rename(stray.with_name("S18-7_A x40(9).png"))
    copies = exact_duplicates(load(copied("pnu", tree)))
    assert copies.n.tolist() == [2] and copies.across_groups[0] and not copies.across_classes[0]
    stray.with_name("S18-7_A x40(9).png").write_bytes(b"this is no picture")
    with pytest.raises(ValueError, match=r"1 images cannot be read \(ADH 1\): ADH/S18-7_A/x40/S18-7_A x40\(9\).png"):
        load(copied("pnu", tree))
    with pytest.raises(ValueError, match="expected: images should be 18908, found 37.* in .*PNU"):
        load(copied("pnu", tree, expected=published("pnu")))
    picture(tmp_path / "split" / "PNU" / "train" / "ADH" / "S18-7_A x40(1).png", 0)  # as for torchvision's ImageFolder
    refused(copied("pnu", tmp_path / "split" / "PNU"),
            "root: there is no image that fits .* in .*PNU, which holds train; the images are private", tmp_path)


# PAIP: a folder per slide, no labels

def test_paip_has_groups_and_nothing_to_test_on(tmp_path):
    tree = tmp_path / "PAIP"
    for i, (slide, k) in enumerate((s, k) for s in ("PAIP_1", "PAIP_2", "PAIP_3") for k in range(8)):
        picture(tree / slide / f"{k}_{k}.png", i)
    data = load(copied("paip", tree, expected={"images": 24, "groups": 3}))
    assert data.classes == () and (data.labels == -1).all() and len(data.counts()) == 0
    assert data.group_names == ("PAIP_1", "PAIP_2", "PAIP_3")
    for label_pool in ("natural", "balanced"):
        p = pools(data, "natural", label_pool=label_pool)
        assert len(p.unlabelled) == 24 and not len(p.labelled) and not len(p.test)
    shutil.copy(tree / "PAIP_1" / "0_0.png", tree / "PAIP_2" / "9_9.png")
    assert exact_duplicates(load(copied("paip", tree))).across_groups.tolist() == [True]
    (tree / "PAIP_2" / "9_9.png").write_bytes(b"this is no picture")
    with pytest.raises(ValueError, match=r"1 images cannot be read \(no label 1\): PAIP_2/9_9.png"):
        load(copied("paip", tree))
    (tree / "PAIP_2" / "9_9.png").rename(tree / "9_9.png")
    with pytest.raises(ValueError, match="group: the pattern .* fits 24 of 25 paths; the first it misses is 9_9.png"):
        load(copied("paip", tree))


# iNaturalist: lists of "path label", the classes numbers

def make_inat(tmp_path):
    tree, lines = tmp_path / "inat18", {"train": [], "val": []}
    for i, (species, part) in enumerate((s, p) for s in (3, 20, 7477) for p in ["train"] * 8 + ["val"] * 3):
        path = f"train_val2018/{'Aves' if species < 9 else 'Plantae'}/{species}/{i:032x}.jpg"
        picture(tree / path, i)
        lines[part].append(f"{path} {species}")
    for part, rows in lines.items():
        write_list(tree / f"iNaturalist18_{part}.txt", rows)
    return tree, lines


def test_inaturalist_lists(tmp_path):
    tree, lines = make_inat(tmp_path)
    data = load(copied("inat18", tree, expected={"images": 33, "parts": {"train": 24, "test": 9}}))
    assert data.classes == ("3", "20", "7477") and data.counts().tolist() == [11, 11, 11]
    assert all(path.split("/")[2] == label for path, label in zip(data.paths, data.label_names()))
    assert len(pools(data, "long_tail", ratio=4, n_max=8).test) == 9
    refused_card = copied("inat18", tree, expected=published("inat18"))
    with pytest.raises(ValueError, match="expected: images should be 461939, found 33"):
        load(refused_card)
    write_list(tree / "iNaturalist18_val.txt", [*lines["val"], "train_val2018/Aves/3/0.jpg"])
    with pytest.raises(ValueError, match="columns: line 10 of iNaturalist18_val.txt has 1 of path, label"):
        load(copied("inat18", tree))
    write_list(tree / "iNaturalist18_val.txt", [*lines["val"], lines["train"][0]])
    with pytest.raises(ValueError, match="stands in line 1 of iNaturalist18_train.txt and line 10 of iNaturalist18_"):
        load(copied("inat18", tree))
    write_list(tree / "iNaturalist18_val.txt", lines["val"])
    (tree / lines["val"][0].split()[0]).write_bytes(b"this is no picture")
    with pytest.raises(ValueError, match=r"1 images cannot be read \(3 1\): train_val2018/Aves/3/"):
        load(copied("inat18", tree))
    shutil.rmtree(tree / "train_val2018")
    message = r"path: 33 of the 33 files listed are not in .*; get train_val2018.tar.gz \(120 GB\).*; licence: iNatural"
    with pytest.raises(FileNotFoundError, match=message):
        load(copied("inat18", tree))
