"""A card inferred from files: what a folder, a CSV or an npz says of itself, each value with its reason."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_core.config import ConfigError
from ssl_core.data.cards import Card
from ssl_core.data.census import GroupRule, propose_group_rule
from ssl_core.data.layouts import LAYOUTS
from ssl_core.data.pixels import read_dicom

KINDS = {".csv": "csv", ".tsv": "csv", ".npz": "npz"}
SIDES = (28, 32, 48, 64, 96, 128, 160, 224)  # pixels that are proposed
LARGEST = {False: 64, True: 224}  # of them, without and with a graphics card
OBLONG = 1.25  # long over short side, from which on a central crop loses much
SAMPLE = 32  # images that are opened to learn their size and colour


@dataclass(frozen=True)
class Draft:
    """A card before it is written: values, why by key, the data's folder, and the group rules that were weighed."""

    values: dict
    why: dict
    folder: Path
    rules: list


def draft_card(data, label="", group="", image_size=0, synthetic=False) -> Draft:
    """What a card would say of a folder of class folders, a CSV with a column `path`, or a MedMNIST-style npz.

    label: a CSV's column, or a list of 0/1 columns, or a pattern; "" takes the class folder or the column `label`.
    group: a column or pattern; "" takes the best proposal of the census that fits every image, "none" takes none.
    image_size: pixels; 0 proposes them. Raises ConfigError in one line: what, where, what to do.
    """
    source = Path(data).expanduser().absolute()
    if not source.exists():
        raise ConfigError(f"{data}: there is no such folder or file")
    kind = "folder" if source.is_dir() else KINDS.get(source.suffix.lower())
    if kind is None:
        raise ConfigError(f"{data}: not a folder of class folders, a .csv or .tsv with a column path, or an .npz")
    if kind == "npz" and (label or group):
        raise ConfigError(f"{source.name}: an npz brings its own labels and groups; leave label and group out")
    folder = source if kind == "folder" else source.parent
    values = {"kind": kind, "root": "."} | ({} if kind == "folder" else {"file": source.name})
    values |= ({"label": label} if label else {}) | ({"task": "multilabel"} if isinstance(label, list) else {})
    found = listed(source, folder, values)
    if kind == "csv" and not label and "label" not in found.table:
        raise ConfigError(f"{source}: no column 'label'; say which of its columns holds the classes: "
                          f"{', '.join(found.table)}")
    rules = proposals(found, values)
    best = next((rule for rule in rules if rule.fits == 1), None)
    if group:
        best = None if group == "none" else GroupRule(group, 0, 1.0, "as given")
    if best:
        found = listed(source, folder, values := values | {"group": best.rule})
    why = {"kind": f"{len(found.paths):,} images", "root": "where they lie, seen from this file", "label": "as given",
           "group": f"which images belong together: {best.reason}" if best else "", "synthetic": "made, not taken"}
    values |= describe_pixels(found, folder, image_size, why) | describe_labels(found, why)
    return Draft(values | ({"synthetic": True} if synthetic else {}), why, folder, rules)


def listed(source, folder, values):
    """What the reader of that layout finds; its errors name the source."""
    try:
        found = LAYOUTS[values["kind"]](folder, Card(**values, **{} if values["kind"] == "npz" else PIXELS))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{source}: {' '.join(str(error).split())}") from None
    if not found.paths:
        raise ConfigError(f"{source}: no images in it, at any depth; give the folder that holds the class folders")
    return found


PIXELS = {"image_size": 32, "channels": 3}  # a card must say them; no image is decoded yet


def proposals(found, values):
    """Group rules that the names of files and the columns of a CSV suggest, the best first."""
    if found.images is not None:
        return []
    columns, labels = found.table, found.labels
    if columns is not None:
        taken = ["path", "split", *np.atleast_1d(values.get("label", "label"))]
        columns = columns.drop(columns=taken, errors="ignore").replace("", None)
    return propose_group_rule(found.paths, labels if isinstance(labels, list) else labels.max(1), columns)


def describe_labels(found, why):
    """task, classes and the counts that are expected from now on."""
    groups = {} if found.groups is None else {"groups": len(set(found.groups))}
    expected = {"images": len(found.paths)} | groups
    why["expected"] = "what is there today; loading stops when it changes"
    if not isinstance(found.labels, list):
        return {"task": "multilabel", "expected": expected}
    words = Counter(word for text in found.labels for word in text.split("|") if word)
    names = sorted(words, key=int if all(map(str.isdecimal, words)) else None)
    task = "multilabel" if any("|" in text for text in found.labels) else "binary" if len(names) == 2 else "multiclass"
    if task == "binary" and found.images is None:  # the numbers of an npz keep their order
        names.sort(key=lambda name: -words[name])
    why["task"] = "the class that stands last is the positive one" if task == "binary" else ""
    counts = ", ".join(f"{words[name]:,}" for name in names)
    why["classes"] = f"with {counts} images" if names else "no image has a label"
    return {"task": task, "classes": names, "expected": expected | {"classes": {name: words[name] for name in names}}}


def describe_pixels(found, folder, image_size, why):
    """image_size, channels and geometry, from a sample of the images."""
    import torch  # only to ask for a graphics card

    shapes, colour = look(found, folder)
    short, long = np.median(np.sort(shapes, axis=1), axis=0)
    side = max((s for s in SIDES if s <= min(short, LARGEST[torch.cuda.is_available()])), default=int(short))
    geometry = "pad" if long > OBLONG * short else "resize_crop"
    why["image_size"] = f"pixels; the images are about {np.median(shapes[:, 0]):.0f} × {np.median(shapes[:, 1]):.0f}"
    why["channels"] = "3 colour, 1 grey"
    why["geometry"] = {"pad": "keeps all of oblong images", "resize_crop": "keeps the centre; pad keeps all"}[geometry]
    return {"image_size": image_size or side, "channels": 3 if colour else 1, "geometry": geometry}


def look(found, folder):
    """Width and height of a sample of the images, (n, 2), and whether any of it has colour."""
    if found.images is not None:
        return np.array([found.images.shape[2:0:-1]]), found.images.ndim == 4 and found.images.shape[3] == 3
    shapes, colour = [], False
    for path in found.paths[::-(-len(found.paths) // SAMPLE)]:
        if not (folder / path).is_file():
            raise ConfigError(f"{folder / path}: listed, but not there; write paths as seen from the folder of the CSV")
        if path.lower().endswith(".dcm"):
            image = Image.fromarray(read_dicom(folder / path, Card.model_fields["window"].default))
        else:
            image = Image.open(folder / path)
        with image:
            shapes.append(image.size)
            if image.mode not in ("1", "L", "I", "F") and not image.mode.startswith("I;16"):
                pixels = np.asarray(image.convert("RGB"))
                colour = colour or bool((pixels != pixels[..., :1]).any())
    return np.array(shapes), colour
