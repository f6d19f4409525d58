"""Cards of public medical data sets, each on a made tree with the original's folders and file names."""

import functools
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ssl_core.data import cards, load
from ssl_core.data.census import exact_duplicates
from ssl_core.data.pools import pools

SEXES_AND_AGES = "58,M,PA,2682,2749,0.143,0.143,"
NIH_HEADER = ("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
              "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],")  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path / "cache"))


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 10, 3), np.uint8)).save(path)


def make(folder, rows):
    """Write an image per row (path, label, group, part), the second a copy of the first; returns the rows, sorted."""
    for seed, (path, *_) in enumerate(rows):
        draw(folder / path, seed)
    shutil.copy(folder / rows[0][0], folder / rows[1][0])
    return sorted(rows)


def write_list(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def card_of(tmp_path, name, expected=None, **changes):
    """A copy of the card of a data set that points to tmp_path/data, of small images."""
    values = yaml.safe_load(cards.card_path(name).read_text(encoding="utf-8"))
    values |= {"root": "data", "image_size": 16} | changes
    if expected is not None:
        values["expected"] = expected
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


# the trees: each makes its files in `folder` and returns the rows (path, label, group, part) that a card must find

NIH_PATIENTS = {1: "train", 2: "train", 3: "train", 4: "val", 15: "test", 30805: "test"}
FINDINGS = ("", "Atelectasis", "Hernia", "Atelectasis|Hernia")


def nih(parts):
    """[(name, finding, patient, part)]: eight films of each patient, of each finding two."""
    return [(f"{p:08d}_{k:03d}.png", FINDINGS[k % 4], p, parts[p]) for p in NIH_PATIENTS for k in range(8)]


def chestxray14(folder):
    rows = make(folder, [(f"images/{n}", label, f"{p:08d}", part) for n, label, p, part in nih(NIH_PATIENTS)])
    names = yaml.safe_load(cards.card_path("chestxray14").read_text(encoding="utf-8"))["label"]
    for part in ("train", "val", "test"):
        bits = {path: " ".join(str(int(n in label.split("|"))) for n in names) for path, label, _, _ in rows}
        lines = [f"{path.split('/')[1]} {bits[path]}" for path, _, _, there in reversed(rows) if there == part]
        write_list(folder / f"chest_xray_14_{part}_list.txt", lines)
    return rows


def chestxray14_official(folder):
    parts = {p: "test" if part == "test" else "train" for p, part in NIH_PATIENTS.items()}
    films = nih(parts)
    rows = make(folder, [(f"images_{1 + p % 3:03d}/images/{n}", label, str(p), part) for n, label, p, part in films])
    lines = [f"{n},{label or 'No Finding'},0,{p},{SEXES_AND_AGES}" for n, label, p, _ in films]
    write_list(folder / "Data_Entry_2017.csv", [NIH_HEADER, *lines])
    for name, part in (("train_val_list.txt", "train"), ("test_list.txt", "test")):
        write_list(folder / name, [n for n, _, _, there in films if there == part])
    return rows


def patches(part_of):
    return [
        (f"{p}/{c}/{p}_idx5_x{51 + 50 * k}_y1251_class{c}.png", ("no IDC", "IDC")[c], str(p), part)
        for p, part in part_of.items() for c in (0, 1) for k in range(4)
    ]  # fmt: skip


def bhi(folder):
    rows = make(folder, patches(dict.fromkeys((8863, 8864, 9044, 10253), "")))
    for path, *_ in rows:  # Kaggle's archive holds all files twice
        (folder / "IDC_regular_ps50_idx5" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / path, folder / "IDC_regular_ps50_idx5" / path)
    return rows


def bhi_lists(folder):
    rows = make(folder, patches({8863: "train", 8864: "train", 8865: "train", 9044: "val", 10253: "test"}))
    for part in ("train", "val", "test"):
        lines = [f"{path},{int(label == 'IDC')}" for path, label, _, there in rows if there == part]
        write_list(folder / f"{part}_split.csv", ["img_path,labels", *lines])
    return rows


def eyepacs(folder):
    """Patients 7, 107 and 207 have one eye in training and one elsewhere."""
    rows = []
    for part, first, n in (("train", 0, 24), ("validation", 100, 8), ("test", 200, 8)):
        for i in range(n):
            for eye in ("left", "right"):
                grade, there = i % 2, part
                if i == 7 and eye == "right":
                    there = {"train": "test"}.get(part, "train")
                path = f"bin2/{there}/{grade}/{first + i}_{eye}.jpeg"
                rows.append((path.removeprefix("bin2/"), ("not referable", "referable")[grade], str(first + i),
                             {"validation": "val"}.get(there, there)))  # fmt: skip
    return make(folder, rows)


CODES = {"benign": ("B_A-14-22549AB", "B_A-14-22549CD", "B_F-14-9133", "B_TA-14-16184"),
         "malignant": ("M_DC-14-13412", "M_LC-14-13412", "M_MC-14-10147", "M_PC-15-190EF")}  # fmt: skip


def breakhis(folder):
    """Every slide has images in train and in test, as in Kaggle's copy."""
    rows = [
        (f"{part}/{label}/SOB_{code}-400-{k:03d}.png", label, code.split("-", 1)[1].rstrip("ABCDEF"), "")
        for part, numbers in (("train", range(1, 5)), ("test", range(5, 7)))
        for label, codes in CODES.items() for code in codes for k in numbers
    ]  # fmt: skip
    return make(folder, rows)


TISSUES = {"01_TUMOR": "tumour", "02_STROMA": "stroma", "03_COMPLEX": "complex", "04_LYMPHO": "lymphocytes",
           "05_DEBRIS": "debris", "06_MUCOSA": "mucosa", "07_ADIPOSE": "adipose", "08_EMPTY": "empty"}  # fmt: skip


def kather2016(folder):
    sources = ("CRC-Prim-HE-07_022", "CRC-Prim-HE-02_003b", "CRC-Prim-HE-10c")
    rows = [
        (f"{place}/{i:X}{k}F_{source}.tif_Row_{1 + 150 * k}_Col_151.tif", label, source[:14], "")
        for i, (place, label) in enumerate(TISSUES.items(), 160) for source in sources for k in range(4)
    ]  # fmt: skip
    return make(folder, rows)


def pneumonia(folder):
    persons = {"train": ("person1_bacteria", "person2_bacteria", "person86_virus",
                         "IM-0115", "IM-0117", "NORMAL2-IM-0501"),
               "val": ("person1946_bacteria", "NORMAL2-IM-1427"),
               "test": ("person1_virus", "person78_bacteria", "IM-0001", "NORMAL2-IM-0115")}  # fmt: skip
    rows = []
    for part, names in persons.items():
        for person in names:
            ill = person.startswith("person")
            for k in range(4):
                name = f"{person}_{k + 6}.jpeg" if ill else f"{person}-0001{f'-000{k}' if k else ''}.jpeg"
                path = f"{part}/{'PNEUMONIA' if ill else 'NORMAL'}/{name}"
                rows.append((path, "pneumonia" if ill else "normal", person, {"val": "train"}.get(part, part)))
    rows = make(folder, rows)
    shutil.copytree(folder / "val", folder / "chest_xray" / "val")
    draw(folder / "__MACOSX" / "val" / "NORMAL" / "._x.jpeg", 0)
    return rows


def covid(folder):
    rows = [
        (f"{part}/{label}/{'' if part == 'train' else '0'}{k:02d}.{suffix}", label, None, part)
        for part, n in (("train", 12), ("test", 6)) for label in ("Covid", "Normal", "Viral Pneumonia")
        for k, suffix in zip(range(n), ("jpeg", "jpg", "png") * 4)
    ]  # fmt: skip
    return make(folder, rows)


def sipakmed(folder):
    kinds = ("Dyskeratotic", "Koilocytotic", "Metaplastic", "Parabasal", "Superficial-Intermediate")
    rows = [
        (f"im_{kind}/im_{kind}/CROPPED/{i:03d}_{k:02d}.bmp", kind, f"im_{kind}/CROPPED/{i:03d}", "")
        for kind in kinds for i in (1, 2, 17) for k in range(1, 5)
    ]  # fmt: skip
    for kind in kinds:
        draw(folder / f"im_{kind}/im_{kind}/001.bmp", 1)
        (folder / f"im_{kind}/im_{kind}/CROPPED").mkdir()
        (folder / f"im_{kind}/im_{kind}/CROPPED/001_01_cyt.dat").write_text("1 2")
    return make(folder, rows)


def herlev(folder):
    kinds = {"normal_superficiel": "superficial", "normal_columnar": "columnar",
             "carcinoma_in_situ": "carcinoma in situ"}  # fmt: skip
    rows = [
        (f"{place}/{slide}-{int(slide) + 8 * (1 + k // 2)}-{1 + k % 2:03d}.BMP", label, slide, "")
        for place, label in kinds.items() for slide in ("149056321", "149143370", "153826035") for k in range(4)
    ]  # fmt: skip
    for path, *_ in rows:
        draw(folder / path.replace(".BMP", "-d.bmp"), 3)
    return make(folder, rows)


# what happens to a file that lies where it should not: (from, to) and the message, or None where it is passed over

TREES = {
    "chestxray14": (chestxray14, ("images/00000001_002.png", "elsewhere/00000001_002.png"),
                    r"files: 1 of the 48 images listed are not among the 47 files .* the first is 00000001_002.png"),
    "chestxray14_official": (chestxray14_official, ("images_002/images/00000001_002.png", "images_002/1_002.png"),
                             "files: 1 of the 48 images listed are not among the 48 files"),
    "bhi": (bhi, ("8863/0/8863_idx5_x151_y1251_class0.png", "8864/0/8863_idx5_x151_y1251_class0.png"),
            "group: the pattern .* fits 31 of 32 paths; the first it misses is 8864/0/8863_idx5"),
    "bhi_lists": (bhi_lists, ("8863/0/8863_idx5_x151_y1251_class0.png", "8863/1/8863_idx5_x151_y1251_class0.png"),
                  "path: 1 of the 40 files listed are not in .*data, the first is 8863/0/8863_idx5_x151"),
    "eyepacs": (eyepacs, ("train/0/2_left.jpeg", "train/2_left.jpeg"), "expected: images should be 80, found 79 in "),
    "breakhis": (breakhis, ("train/malignant/SOB_M_MC-14-10147-400-001.png",
                            "train/benign/SOB_M_MC-14-10147-400-001.png"),
                 "group: .* fits 47 of 48 paths; the first it misses is train/benign/SOB_M_MC-14-10147-400-001.png"),
    "kather2016": (kather2016, ("01_TUMOR/A00F_CRC-Prim-HE-07_022.tif_Row_1_Col_151.tif", "09_ELSE/CRC-Prim-HE-07.tif"),
                   "classes: label '09_ELSE' is none of tumour, stroma"),
    "pneumonia": (pneumonia, ("train/NORMAL/IM-0117-0001.jpeg", "train/PNEUMONIA/IM-0117-0001.jpeg"),
                  "group: .* fits 47 of 48 paths; the first it misses is train/PNEUMONIA/IM-0117-0001.jpeg"),
    "covid": (covid, ("train/Covid/03.jpeg", "train/Else/03.jpeg"), "classes: label 'Else' is none of Normal, Viral"),
    "sipakmed": (sipakmed, ("im_Parabasal/im_Parabasal/001.bmp", "im_Parabasal/im_Parabasal/CROPPED/001.bmp"),
                 "group: .* fits 60 of 61 paths; the first it misses is im_Parabasal/im_Parabasal/CROPPED/001.bmp"),
    "herlev": (herlev, ("carcinoma_in_situ/149056321-149056329-001-d.bmp", "drawings/149056321-149056329-001.bmp"),
               "classes: label 'drawings' is none of superficial"),
}  # fmt: skip
MULTILABEL = ("chestxray14", "chestxray14_official")


@pytest.fixture(params=TREES)
def tree(request, tmp_path):
    """(name, folder, rows, expected counts) of a made tree."""
    build, folder = TREES[request.param][0], tmp_path / "data"
    folder.mkdir()
    rows = build(folder)
    _, labels, groups, parts = zip(*rows)
    words = [word for label in labels for word in label.split("|") if word]
    expected = {
        "images": len(rows),
        "groups": len(set(groups) - {None}),
        "parts": {part: parts.count(part) for part in {*parts} - {""}},
        "classes": {word: words.count(word) for word in {*words}},
    }
    return request.param, folder, rows, expected


def test_every_image_has_its_label_group_and_part(tree, tmp_path):
    name, _, rows, expected = tree
    data = load(card_of(tmp_path, name, expected))
    frame = data.frame()
    found = list(zip(frame.path, frame.label, frame.group if data.grouped else [None] * len(rows), frame.part))
    assert found == rows
    assert len({row[2] for row in rows if row[2]}) >= 3 or not data.grouped
    assert data.task == ("multilabel" if name in MULTILABEL else data.task) and data.images.shape[2] == 16
    assert data.labels.min() == 0  # none is without a label; no finding is a finding
    copies = exact_duplicates(data)
    assert copies.n.tolist() == [2]


def test_no_group_is_on_two_sides_of_the_pools(tree, tmp_path):
    name, *_ = tree
    data = load(card_of(tmp_path, name, {}))
    drawn = pools(data, split_kind="natural", label_pool="natural", test_fraction=0.3)
    train = np.union1d(drawn.unlabelled, drawn.labelled)
    sides = [set(data.groups[positions]) for positions in (train, drawn.val, drawn.test)]
    assert len(train) and len(drawn.test)
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_an_unreadable_image_is_named_or_left_out(tree, tmp_path):
    name, folder, rows, expected = tree
    path, label, *_ = rows[5]
    (folder / path).write_bytes((folder / path).read_bytes()[:40])
    counted = [f"{word} 1" for word in label.split("|") if word]
    with pytest.raises(ValueError, match=rf"{name}: 1 images cannot be read .*: {path}; repair them, or set") as caught:
        load(card_of(tmp_path, name, expected))
    assert all(word in str(caught.value) for word in counted)
    data = load(card_of(tmp_path, name, expected, skip_bad=True))
    assert data.paths == tuple(row[0] for row in rows if row[0] != path)


def test_a_misplaced_file_is_told(tree, tmp_path):
    name, folder, _, expected = tree
    _, (old, new), message = TREES[name]
    (folder / new).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder / old, folder / new)
    with pytest.raises((ValueError, FileNotFoundError), match=f"{name}.yaml: {message}") as caught:
        load(card_of(tmp_path, name, expected))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_an_incomplete_tree_is_refused_with_the_published_counts(tree, tmp_path):
    name, folder, rows, _ = tree
    published = cards.read_card(name).expected.images
    with pytest.raises(ValueError, match=f"expected: images should be {published}, found {len(rows)} in ") as caught:
        load(card_of(tmp_path, name))
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()  # told before anything was decoded


@pytest.mark.parametrize("name", TREES)
def test_another_set_is_refused_and_missing_data_say_where_to_get_them(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="root: there is no .*data; get .*; licence: ") as caught:
        load(card_of(tmp_path, name))
    card = cards.read_card(name)
    assert "\n" not in str(caught.value) and card.licence in str(caught.value)
    assert " MB" in card.get or " GB" in card.get or "as the card bhi says" in card.get
    (tmp_path / "data").mkdir()
    (kather2016 if name == "covid" else covid)(tmp_path / "data")
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load(card_of(tmp_path, name))
    assert "\n" not in str(caught.value) and str(tmp_path / "data") in str(caught.value)


# what is particular to one


def test_breakhis_with_its_published_split_is_refused_as_a_leak(tmp_path):
    rows = breakhis(tmp_path / "data")
    official = load(card_of(tmp_path, "breakhis", {}, parts={}))
    assert [(official.part == part).sum() for part in ("train", "test")] == [32, 16]
    message = (r"the official split leaks: 32 of 32 training images share a group with the test part; in the card set "
               r"`parts: \{train: \"\", val: \"\", test: \"\"\}`, and whole groups are drawn")  # fmt: skip
    with pytest.raises(ValueError, match=message):
        pools(official)
    by_group = load(card_of(tmp_path, "breakhis", {}, parts={"train": "", "val": "", "test": ""}))
    assert not by_group.part.any() and len(by_group) == len(rows)
    assert "drawn by part_seed" in " ".join(pools(by_group, split_kind="balanced").notes)


def test_letters_of_a_breakhis_case_and_its_two_carcinomas_stay_together(tmp_path):
    breakhis(tmp_path / "data")
    data = load(card_of(tmp_path, "breakhis", {}))
    assert data.group_names == ("14-10147", "14-13412", "14-16184", "14-22549", "14-9133", "15-190")
    published = load(card_of(tmp_path, "breakhis", {}, group=r"(?P<group>\d+-[0-9A-Z]+)-400-"))
    assert {"14-22549AB", "14-22549CD", "15-190EF"} < set(published.group_names)


def test_both_eyes_leave_training_when_one_is_tested(tmp_path):
    eyepacs(tmp_path / "data")
    data = load(card_of(tmp_path, "eyepacs", {}))
    drawn = pools(data, split_kind="natural", label_pool="natural")
    trained = {data.paths[i] for i in drawn.unlabelled}
    assert {"train/1/7_left.jpeg", "train/1/107_right.jpeg", "train/1/207_right.jpeg"} <= set(data.paths) - trained
    assert len(trained) == 24 * 2 - 2 and "share a group with it and are left out" in " ".join(drawn.notes)


def test_a_film_in_two_lists_or_in_two_folders_is_told(tmp_path):
    folder = tmp_path / "data"
    chestxray14(folder)
    lines = (folder / "chest_xray_14_test_list.txt").read_text().splitlines()
    with open(folder / "chest_xray_14_val_list.txt", "a") as file:
        file.write(lines[0] + "\n")
    message = r"path: 00030805_007.png stands in line 9 of chest_xray_14_val_list.txt and line 1 of chest_xray_14"
    with pytest.raises(ValueError, match=message):
        load(card_of(tmp_path, "chestxray14", {}))
    shutil.rmtree(folder)
    chestxray14_official(folder)
    shutil.copy(folder / "images_002/images/00000001_000.png", folder / "images_003/images/00000001_000.png")
    with pytest.raises(ValueError, match="files: 00000001_000.png is there twice, as .*images_002.* and .*images_003"):
        load(card_of(tmp_path, "chestxray14_official", {}))


def test_official_lists_of_nih_have_to_be_of_the_table_and_disjoint(tmp_path):
    folder, build = tmp_path / "data", functools.partial(card_of, tmp_path, "chestxray14_official", {})
    chestxray14_official(folder)
    with open(folder / "test_list.txt", "a") as file:
        file.write("00099999_000.png\n")
    with pytest.raises(ValueError, match="split: 1 of the 49 images in train_val_list.txt, test_list.txt are no "):
        load(build())
    with open(folder / "test_list.txt", "a") as file:
        file.write("00000001_000.png\n")
    with pytest.raises(ValueError, match="split: 00000001_000.png is listed for train and, in test_list.txt, for test"):
        load(build())
    (folder / "test_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match="split: there is no test_list.txt in "):
        load(build())


def test_equal_lists_of_bhi_are_refused(tmp_path):
    """As they were before the authors mended them: val_split.csv and test_split.csv the same file."""
    folder = tmp_path / "data"
    bhi_lists(folder)
    shutil.copy(folder / "val_split.csv", folder / "test_split.csv")
    with pytest.raises(ValueError, match="stands in line 2 of val_split.csv and line 2 of test_split.csv; one row per"):
        load(card_of(tmp_path, "bhi_lists", {}))


def test_drawings_of_herlev_are_never_images(tmp_path):
    rows = herlev(tmp_path / "data")
    drawings = [path for path in (tmp_path / "data").rglob("*") if path.name.endswith("-d.bmp")]
    data = load(card_of(tmp_path, "herlev", {}))
    assert len(drawings) == len(rows) == len(data) and not any("-d" in Path(path).stem for path in data.paths)


def test_elpv_is_found_as_a_package_and_its_probabilities_become_classes(tmp_path, monkeypatch):
    package = tmp_path / "site" / "elpv_dataset"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('only found, never imported')")
    grades = ("0.0", "0.3333333333333333", "0.6666666666666666", "1.0")
    rows = [(f"images/cell{1 + i:04d}.png", grades[i % 4], ("mono", "poly")[i // 12]) for i in range(24)]
    make(package / "data", rows)
    write_list(package / "data" / "labels.csv", [f"{path}  {grade:<20}{kind}" for path, grade, kind in rows])
    monkeypatch.syspath_prepend(tmp_path / "site")
    roots = yaml.safe_load(cards.card_path("elpv").read_text(encoding="utf-8"))["root"]
    data = load(card_of(tmp_path, "elpv", {"images": 24}, root=roots))
    assert data.classes == ("functional", "defective") and data.counts().tolist() == [12, 12] and not data.grouped
    assert data.labels[:4].tolist() == [0, 0, 1, 1] and data.images.shape == (24, 1, 16, 16)
    assert data.table["type"].tolist() == ["mono"] * 12 + ["poly"] * 12
    monkeypatch.undo()
    monkeypatch.setattr("ssl_core.data.places.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="root: there is no .*; get it .* with `pip install elpv-dataset`"):
        load(card_of(tmp_path, "elpv", root=roots))
