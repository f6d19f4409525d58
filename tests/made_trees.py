"""Small trees of images and their cards: 3 groups × 2 classes × 4 images."""

import numpy as np
import yaml
from PIL import Image

SLIDES, CLASSES = ("s01", "s02", "s03"), ("HSIL", "NILM")


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
