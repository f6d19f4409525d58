"""Rehearsals of slides and tissue, of synthetic cells: cytology lists, PNU, PAIP, BHI, BreaKHis, Kather's tiles.

Each writes a tree with the folders and file names of the original below `folder` and returns the counts that the
original's card should find. `n` is how many cells are drawn.
"""

import numpy as np

from ssl_core.data.cells import CELLS, NILM
from ssl_core.data.rehearsal_trees import counts, draw, save, shared, write_list

HIGH = [CELLS.index(kind) for kind in ("ASC-H", "HSIL", "SCC")]
TISSUES = ("tumour", "stroma", "complex", "lymphocytes", "debris", "mucosa", "adipose", "empty")
FOLDERS = ("01_TUMOR", "02_STROMA", "03_COMPLEX", "04_LYMPHO", "05_DEBRIS", "06_MUCOSA", "07_ADIPOSE", "08_EMPTY")


def cytology(folder, size, *, n, seed=0, slides=120, difficulty=0.0):
    """neg/ and pos/ (abnormal kinds), SLIDE_NUMBER.png, and three lists of whole slides, 8:1:1."""
    images, known = draw(n, size, seed, slides, difficulty, profile="cric")
    label = np.where(known.kind >= NILM, "pos", "neg")
    group = [f"slide{slide:03d}" for slide in known.slide]
    part = shared(slides, {"train": 8, "val": 1, "test": 1}, seed)[known.slide]
    paths = [f"{c}/{g}_{k:04d}.png" for c, g, k in zip(label, group, known.k)]
    save(folder, images, paths)
    for name, there in (("train_8", "train"), ("val_1", "val"), ("lineProb_unified_test", "test")):
        write_list(folder / f"{name}.txt", [f"E:/tiles/{path}" for path, p in zip(paths, part) if p == there])
    return counts(label, group, part)


def pnu(folder, size, *, n, seed=0, cases=60, difficulty=0.0):
    """CLASS/SLIDE/x40/SLIDE x40(K).png. A case has two slides, A and B, each of one class; of the cells drawn those of
    these classes are kept. Two of the others stand in each x5 and x10, which the card passes over."""
    images, known = draw(n, size, seed, cases, difficulty)
    classes = ("Normal", "ADH", "DCIS")  # for normal, ASC-US to ASC-H, and HSIL with SCC
    found = np.digitize(known.kind, [NILM, CELLS.index("HSIL")])
    first = known.slide.to_numpy() % 3
    keep = found != (first + 2) % 3
    slide = [f"S15-{3100 + case}_{'A' if c == f else 'B'}" for case, c, f in zip(known.slide, found, first)]
    paths = np.array([f"{classes[c]}/{s}/x40/{s} x40({k}).png" for c, s, k in zip(found, slide, known.k)], object)
    save(folder, images[keep], paths[keep])
    spare = np.flatnonzero(~keep)
    for times, few in (("x5", spare[:cases]), ("x10", spare[cases : 2 * cases])):
        save(folder, images[few], [path.replace("x40", times) for path in paths[few]])
    return counts(np.array(classes)[found[keep]], [f"S15-{3100 + case}" for case in known.slide[keep]])


def paip(folder, size, *, n, seed=0, slides=30, difficulty=0.0, um_per_px=None):
    """SLIDE/NUMBER.png, without labels; with another scale (`um_per_px`) and seed, another organ."""
    images, known = draw(n, size, seed, slides, difficulty, um_per_px)
    group = [f"PAIP_{slide:03d}" for slide in known.slide]
    save(folder, images, [f"{g}/{k:04d}.png" for g, k in zip(group, known.k)])
    return counts([""] * n, group)


def bhi(folder, size, *, n, seed=0, patients=60, difficulty=0.0):
    """PATIENT/CLASS/PATIENT_idx5_xX_yY_classCLASS.png, class 1 being ASC-H, HSIL and SCC; three lists, 3:1:1."""
    images, known = draw(n, size, seed, patients, difficulty)
    c = known.kind.isin(HIGH).astype(int)
    group = [str(8863 + patient) for patient in known.slide]
    part = shared(patients, {"train": 3, "val": 1, "test": 1}, seed)[known.slide]
    paths = [f"{g}/{y}/{g}_idx5_x{51 + 50 * k}_y1251_class{y}.png" for g, y, k in zip(group, c, known.k)]
    save(folder, images, paths)
    for there in ("train", "val", "test"):
        rows = [f"{path},{y}" for path, y, p in zip(paths, c, part) if p == there]
        write_list(folder / f"{there}_split.csv", ["img_path,labels", *rows])
    return counts(np.array(["no IDC", "IDC"])[c], group, part)


def breakhis(folder, size, *, n, seed=0, cases=80, difficulty=0.0):
    """{train,test}/CLASS/SOB_CODE-400-K.png. A case is benign or malignant as a whole; cells of the other class are
    dropped. Parts by image, as in Kaggle's copy, so that they leak and the card forgets them."""
    images, known = draw(n, size, seed, cases, difficulty)
    of_case = shared(cases, {"benign": 0.45, "malignant": 0.55}, seed)
    label = np.where(known.kind >= NILM, "malignant", "benign")
    keep = label == of_case[known.slide]
    images, known, label = images[keep], known[keep], label[keep]
    codes = {"benign": ("B_A", "B_F", "B_PT", "B_TA"), "malignant": ("M_DC", "M_LC", "M_MC", "M_PC")}
    part = shared(len(label), {"train": 7, "test": 3}, seed, stream=1)
    paths = [
        f"{p}/{c}/SOB_{codes[c][case % 4]}-14-{10000 + case}{'AB' if k % 2 else 'CD'}-400-{k:03d}.png"
        for p, c, case, k in zip(part, label, known.slide, known.k)
    ]
    save(folder, images, paths)
    return counts(label, known.slide)


def kather(folder, size, *, n, seed=0, difficulty=0.0):
    """0N_TISSUE/NAME_CRC-Prim-HE-SLIDE_REGION.tif_Row_R_Col_C.tif: the eight kinds as tissues, on ten slides."""
    images, known = draw(n, size, seed, 10, difficulty)
    paths = [
        f"{FOLDERS[kind]}/{i:X}_CRC-Prim-HE-{slide + 1:02d}_{k % 7:03d}.tif_Row_{1 + 150 * k}_Col_1.tif"
        for i, (kind, slide, k) in enumerate(zip(known.kind, known.slide, known.k), 4096)
    ]
    save(folder, images, paths)
    return counts(np.array(TISSUES)[known.kind], known.slide)
