"""Made trees of published data sets, with the originals' folders, file names and lists.

Each function makes its files in `folder` and returns the rows (path, label, group, part), sorted, that the card finds;
at least 3 groups × 2 classes × 4 images, the second image being a copy of the first.
"""

import shutil

import yaml
from made_data import picture

from ssl_core.data import cards

SEXES_AND_AGES = "58,M,PA,2682,2749,0.143,0.143,"
NIH_HEADER = ("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
              "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],")  # fmt: skip


def make(folder, rows):
    """Write an image per row (path, label, group, part), the second a copy of the first; returns the rows, sorted."""
    for seed, (path, *_) in enumerate(rows):
        picture(folder / path, seed)
    shutil.copy(folder / rows[0][0], folder / rows[1][0])
    return sorted(rows, key=lambda row: row[0])


def write_list(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


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
    picture(folder / "__MACOSX" / "val" / "NORMAL" / "._x.jpeg", 0)
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
        picture(folder / f"im_{kind}/im_{kind}/001.bmp", 1)
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
        picture(folder / path.replace(".BMP", "-d.bmp"), 3)
    return make(folder, rows)


CYTOLOGY = {"s01": "train", "s02": "train", "s03": "train", "s04": "val", "s05": "test"}
CYTOLOGY_LISTS = {"train": "train_8.txt", "val": "val_1.txt", "test": "lineProb_unified_test.txt"}


def tiles(place):
    """Of five slides four tiles of each class, below the folder that `place` makes of part and label."""
    return [(f"{place.format(part=part, label=label)}/{slide}_{k:04}.png", label, slide, part)
            for slide, part in CYTOLOGY.items() for label in ("neg", "pos") for k in range(4)]


def cytology_lists(folder):
    """Three lists of paths as they were on somebody's disk, those of one slide on Windows."""
    for part, name in CYTOLOGY_LISTS.items():
        paths = [(path, slide) for path, _, slide, there in tiles("{label}") if there == part]
        write_list(folder / name, ["E:\\lab data\\tiles\\" + path.replace("/", "\\") if slide == "s02" else
                                   f"/disk/lab data/tiles/{path}" for path, slide in paths])
    return make(folder, tiles("{label}"))


def cytology_ratio_lists(folder):
    """The lists of `cytology_lists`, and one of two further slides to pretrain on."""
    more = [(f"{label}/{slide}_{k:04}.png", label, slide, "train")
            for slide in ("s02", "s06", "s07") for label in ("neg", "pos") for k in range(4, 8)]
    write_list(folder / "pretrain.txt", [f"/disk/lab data/tiles/{path}" for path, *_ in more])
    cytology_lists(folder)
    return make(folder, [*tiles("{label}"), *more])


def cytology_folders(folder):
    return make(folder, tiles("{part}/{label}"))


PNU = {"Normal": ("S15-3188_A", "S16-0001_A", "S17-12_C"), "ADH": ("S15-3188_B", "S16-0002_A", "S18-7_A"),
       "DCIS": ("S16-0002_B", "S17-13_A", "S18-8_A")}


def pnu(folder):
    """class/slide/magnification, some cases of two slides; a card reads one magnification."""
    rows = [(f"{label}/{slide}/{times}/{slide} {times}({k}).png", label, slide.split("_")[0], "")
            for times in ("x40", "x5") for label in PNU for slide in PNU[label] for k in range(1, 5)]
    return [row for row in make(folder, rows) if "/x40/" in row[0]]


def paip(folder):
    """A folder per slide, no labels."""
    return make(folder, [(f"PAIP_{i}/{k}_{k}.png", "", f"PAIP_{i}", "") for i in (1, 2, 3) for k in range(8)])


def inat18(folder):
    """Lists of "path label", the classes numbers."""
    rows = [(f"train_val2018/{'Aves' if species < 9 else 'Plantae'}/{species}/{i:032x}.jpg", str(species), None, part)
            for species in (3, 20, 7477) for i, part in enumerate(["train"] * 8 + ["test"] * 4, 100 * species)]
    for part, name in (("train", "train"), ("test", "val")):
        lines = [f"{path} {label}" for path, label, _, there in rows if there == part]
        write_list(folder / f"iNaturalist18_{name}.txt", lines)
    return make(folder, rows)


GRADES = {"0.0": "functional", "0.3333333333333333": "functional", "0.6666666666666666": "defective",
          "1.0": "defective"}


def elpv(folder):
    """A list that aligns its columns by blanks: path, probability of a defect, kind of module."""
    rows = [(f"images/cell{i:04d}.png", list(GRADES)[i % 4], None, "") for i in range(1, 25)]
    lines = [f"{path}  {grade:<20}{('mono', 'poly')[i // 12]}" for i, (path, grade, *_) in enumerate(rows)]
    write_list(folder / "labels.csv", lines)
    return [(path, GRADES[grade], *more) for path, grade, *more in make(folder, rows)]


# what happens to a file that lies where it should not: (from, to) and the message, or None where it is passed over

TREES = {
    "cytology_lists": (cytology_lists, ("pos/s01_0003.png", "unsure/s01_0003.png"),
                       "path: 1 of the 40 files listed are not in .*data, the first is pos/s01_0003.png"),
    "cytology_ratio_lists": (cytology_ratio_lists, ("pos/s06_0005.png", "unsure/s06_0005.png"),
                             "path: 1 of the 64 files listed are not in .*data, the first is pos/s06_0005.png"),
    "cytology_folders": (cytology_folders, ("train/pos/s01_0003.png", "s01_0003.png"),
                         "group: .* fits 39 of 40 paths; the first it misses is s01_0003.png"),
    "pnu": (pnu, ("ADH/S18-7_A/x40/S18-7_A x40(1).png", "ADH/S16-0002_A/x40/S18-7_A x40(1).png"),
            "group: .* fits 35 of 36 paths; the first it misses is ADH/S16-0002_A/x40/S18-7_A x40"),
    "paip": (paip, ("PAIP_2/3_3.png", "3_3.png"), "group: .* fits 23 of 24 paths; the first it misses is 3_3.png"),
    "inat18": (inat18, (f"train_val2018/Aves/3/{300:032x}.jpg", f"train_val2018/Plantae/20/{300:032x}.jpg"),
               "path: 1 of the 36 files listed are not in .*data, the first is train_val2018/Aves/3/0"),
    "elpv": (elpv, ("images/cell0003.png", "cell0003.png"),
             "path: 1 of the 24 files listed are not in .*data, the first is images/cell0003.png"),
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
