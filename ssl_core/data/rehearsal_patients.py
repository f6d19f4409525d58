"""Rehearsals of patients, of synthetic cells: chest films of 14 labels, both eyes of a patient, persons by file name.

Each writes a tree with the folders and file names of the original below `folder` and returns the counts that the
original's card should find. `n` is how many cells are drawn.
"""

import numpy as np

from ssl_core.data.cells import CELLS, NILM, SIGNS
from ssl_core.data.rehearsal_trees import counts, draw, grey, save, shared, write_list

FINDINGS = {name: sign for name, sign in SIGNS.items() if name != "multinucleate"} | {  # that one is in 1 of 200 cells
    "neighbouring cell": lambda t: t.neighbour,
    "debris": lambda t: t.debris > 0,
    "long nucleus": lambda t: t.elongation > 1.5,
    "small cell": lambda t: t.cell_area < 500,
    "pink cytoplasm": lambda t: t.pink > 0.5,
}  # read off the drawn truth, as a card's `classes` then names them
NIH = np.array(("Atelectasis Cardiomegaly Effusion Infiltration Mass Nodule Pneumonia Pneumothorax Consolidation Edema "
                "Emphysema Fibrosis Pleural_Thickening Hernia").split())  # fmt: skip  # what they stand for


def chestxray14(folder, size, *, n, seed=0, patients=600, difficulty=0.0):
    """images/PATIENT_K.png, grey, and three lists of name and 14 times 0 or 1, patients 7:1:2."""
    images, known = draw(n, size, seed, patients, difficulty)
    bits = np.stack([sign(known) for sign in FINDINGS.values()], 1).astype(int)
    group = [f"{patient + 1:08d}" for patient in known.slide]
    part = shared(patients, {"train": 7, "val": 1, "test": 2}, seed)[known.slide]
    names = [f"{g}_{k:03d}.png" for g, k in zip(group, known.k)]
    save(folder / "images", grey(images), names)
    for there in ("train", "val", "test"):
        rows = [f"{name} {' '.join(map(str, row))}" for name, row, p in zip(names, bits, part) if p == there]
        write_list(folder / f"chest_xray_14_{there}_list.txt", rows)
    return counts(["|".join(NIH[row > 0]) for row in bits], group, part)


def eyepacs(folder, size, *, n, seed=0, difficulty=0.0):
    """{train,validation,test}/CLASS/PATIENT_{left,right}.jpeg, class 1 being HSIL and SCC, patients 14:3:3.

    A patient is a slide with two cells or more; the eyes are its first cell and, where it has one, another of the same
    class, else its second. In the original every eye was dealt out by itself; here every eighth patient's right eye.
    """
    patients = n // 4
    images, known = draw(n, size, seed, patients, difficulty)
    known = known.assign(c=(known.kind >= CELLS.index("HSIL")).astype(int))
    known["odd"] = known.c != known.groupby("slide").c.transform("first")
    pairs = known.sort_values(["slide", "odd", "k"]).groupby("slide").head(2)
    pairs = pairs[pairs.groupby("slide").k.transform("size") == 2]
    right = pairs.groupby("slide").cumcount().to_numpy()
    slide = pairs.slide.to_numpy()
    parts = shared(patients, {"train": 14, "validation": 3, "test": 3}, seed)
    others = shared(patients, {"train": 14, "validation": 3, "test": 3}, seed, stream=1)
    part = np.where((right == 1) & (slide % 8 == 0), others[slide], parts[slide])
    paths = [f"{p}/{c}/{s}_{('left', 'right')[r]}.jpeg" for p, c, s, r in zip(part, pairs.c, slide, right)]
    save(folder, images[pairs.index], paths)
    part[part == "validation"] = "val"
    return counts(np.array(["not referable", "referable"])[pairs.c], slide, part)


def pneumonia(folder, size, *, n, seed=0, persons=400, difficulty=0.0):
    """{train,val,test}/CLASS/NAME.jpeg, grey: person1_bacteria_0004, person2_virus_…, IM-0003-0004, NORMAL2-IM-0004-….

    A person is ill or not as a whole; cells of the other class are dropped. Persons of train, val and test differ.
    """
    images, known = draw(n, size, seed, persons, difficulty)
    label = np.where(known.kind >= NILM, "PNEUMONIA", "NORMAL")
    keep = label == shared(persons, {"NORMAL": 0.4, "PNEUMONIA": 0.6}, seed)[known.slide]
    images, known, label = images[keep], known[keep], label[keep]
    part = shared(persons, {"train": 79, "val": 1, "test": 20}, seed, stream=1)[known.slide]
    ill = label == "PNEUMONIA"
    series = {True: ("person{}_bacteria", "person{}_virus"), False: ("IM-{:04d}", "NORMAL2-IM-{:04d}")}
    person = [series[i][slide % 2].format(slide + 1) for i, slide in zip(ill.tolist(), known.slide)]
    paths = [f"{p}/{c}/{name}{'_' if i else '-'}{k + 1:04d}.jpeg"
             for p, c, name, i, k in zip(part, label, person, ill, known.k)]  # fmt: skip
    save(folder, grey(images), paths)
    return counts(np.where(ill, "pneumonia", "normal"), person, np.where(part == "val", "train", part))
