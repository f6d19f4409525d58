"""Cards: a data set is described in `params/data/NAME.yaml` and read by one loader, `load`."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import Field, model_validator

from ssl_core import files
from ssl_core.config import ConfigError, Values
from ssl_core.data import store
from ssl_core.data.images import PARTS, ImageSet
from ssl_core.data.layouts import LAYOUTS

Counts = dict[str, Annotated[int, Field(ge=0)]]


class Card(Values):
    """What a card may say. A pattern is a regular expression, searched in an image's path relative to `root`."""

    kind: Literal["folder", "csv", "npz", "idx", "cells"]
    # where: relative to the card's own folder, ~ and $VARIABLES allowed; of a list, the first that exists
    root: str | list[str] = "."
    file: str = ""  # csv, npz: the file in root
    files: str = "**/*"  # folder: which files, as a glob
    path: str = "path"  # csv: the column that names the file, or a template such as "{image_id}.jpg"
    # what is said of an image
    label: str | list[str] = ""  # pattern with (?P<label>…), or CSV column(s); default: class folder, column label
    group: str = ""  # pattern with (?P<group>…), or CSV column: patient, slide; default: column group
    split: str = ""  # pattern with (?P<split>…), or CSV column; default: folders train, val, test, column split
    rename: dict[str, str | None] = {}  # label as found → class; null = a finding of nothing (multilabel)
    parts: dict[str, Literal["train", "val", "test", ""]] = {}  # split as found → part
    classes: list[str] = []  # in their order; default: sorted names
    task: Literal["multiclass", "binary", "multilabel"] = "multiclass"
    ordered: bool = False  # the classes are grades
    # pixels
    image_size: Annotated[int, Field(ge=0, le=1024)] = 0  # 0: as they are, where all are square and alike
    channels: Literal[0, 1, 3] = 0  # 0: as they are
    geometry: Literal["resize_crop", "pad", "squash"] = "resize_crop"
    window: Annotated[list[float], Field(min_length=2, max_length=2)] = [0.5, 99.5]  # percentiles → 0, 255, above 8 bit
    skip_bad: bool = False  # leave unreadable images out instead of stopping
    # checked before anything is decoded
    expected: dict[Literal["images", "groups", "parts", "classes"], int | Counts] = {}
    # for people
    title: str = ""
    get: str = ""  # where to get the files, how large they are, what to put where
    licence: str = ""
    source: str = ""
    citation: str = ""
    synthetic: bool = False
    cells: dict[str, Any] = {}  # cells: arguments of make_cells

    @model_validator(mode="after")
    def _agree(self):
        if self.kind in ("folder", "csv") and not (self.image_size and self.channels):
            raise ValueError(f"{'channels' if self.image_size else 'image_size'}: a {self.kind} card must give it "
                             f"(image_size in pixels, channels 1 or 3)")
        if isinstance(self.label, list) and (self.kind, self.task) != ("csv", "multilabel"):
            raise ValueError("label: a list of columns needs kind csv and task multilabel")
        if self.kind in ("csv", "npz") and not self.file:
            raise ValueError(f"file: a {self.kind} card must name it")
        return self


def card_names():
    """The data sets that have a card, sorted."""
    return sorted(path.stem for path in (files.root() / "params" / "data").glob("*.yaml"))


def card_path(name_or_path):
    """`fashion` → params/data/fashion.yaml; a path stays what it is."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = files.root() / "params" / "data" / f"{name_or_path}.yaml"
        if not path.is_file():
            raise ConfigError(f"no data set {str(name_or_path)!r}; params/data holds {', '.join(card_names())}")
    if not path.is_file():
        raise ConfigError(f"{path}: no such card")
    return path


def read_card(name_or_path):
    """A card by name or path → Card; every error is one line that names file, key and what is allowed."""
    path = card_path(name_or_path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a card is a list of `key: value` lines")
    unknown = [str(key) for key in values if key not in Card.model_fields]
    if unknown:
        raise ConfigError(f"{path}: {unknown[0]}: unknown key; allowed are {', '.join(Card.model_fields)}")
    try:
        return Card(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def data_folder(card, path):
    """The first folder of `root` that exists, or a FileNotFoundError that says where to get the data."""
    roots = [card.root] if isinstance(card.root, str) else card.root
    folders = [path.parent / os.path.expandvars(os.path.expanduser(root)) for root in roots]
    for folder in folders:
        if folder.is_dir():
            return folder.resolve()
    where = f"; {' '.join(card.get.split())}" if card.get else ""
    licence = f"; licence: {card.licence}" if card.licence else ""
    raise FileNotFoundError(f"{path.stem}: the data are not at {' or '.join(roots)} (from {path.parent}){where}{licence}")


def load(name_or_path, size=None):
    """The data set of a card, by name or path → ImageSet; `size` overrides the card's image_size.

    Images are in the order of their sorted paths. Folders and CSVs are decoded once into the store.
    """
    path = card_path(name_or_path)
    card = read_card(path)
    size, name = size or card.image_size, path.stem
    if card.kind == "cells":
        return load_cells(card, name, size)
    folder = data_folder(card, path)
    try:
        listing = LAYOUTS[card.kind](folder, card)
        labels, classes = encode_labels(listing.labels, card)
        group_names, groups = encode_groups(listing)
        part = np.array([card.parts.get(word, word) for word in listing.parts], str)
        odd = sorted(set(part.tolist()) - set(PARTS))
        if odd:
            raise ValueError(f"split: {odd[0]!r} is none of train, val, test and empty; "
                             f"say which under `parts:`, as in `parts: {{{odd[0]}: train}}`")
        if not listing.paths:
            raise FileNotFoundError(f"root: no images in {folder}; {' '.join(card.get.split())}")
        check_counts(card, labels, classes, groups, group_names, part)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{path}: {error}") from None
    if listing.images is None:
        images, hashes, bad = store.decoded(name, folder, listing.paths, card, size)
    else:
        images, hashes, bad = store.arrange(listing.images, card, size), None, {}
    keep = np.array([p not in bad for p in listing.paths])
    if bad:
        report_bad(name, bad, labels[~keep], classes, card)
    data = ImageSet(
        name=name, images=images, labels=labels[keep], classes=classes,
        groups=None if groups is None else groups[keep], group_names=group_names,
        part=part[keep], task=card.task, ordered=card.ordered, synthetic=card.synthetic,
        paths=tuple(p for p, k in zip(listing.paths, keep) if k), card=card.model_dump(exclude_defaults=True),
        table=None if listing.table is None else listing.table[keep].reset_index(drop=True),
    )
    return data if hashes is None else data.keep_hashes(hashes)


def load_cells(card, name, size):
    """A card of the synthetic cells → ImageSet."""
    from ssl_core.data.cells import make_cells

    try:
        return make_cells(**card.cells, **({"size": size} if size else {}))
    except TypeError as error:
        raise ConfigError(f"{name}: cells: {error}") from None


def encode_labels(labels, card):
    """Words → (int64 (N,), or (N, L) for multilabel, -1 = no label; the classes)."""
    if isinstance(labels, np.ndarray):
        if card.task != "multilabel":
            raise ValueError(f"label: {labels.shape[1]} labels per image need `task: multilabel`")
        names = card.classes or (card.label if isinstance(card.label, list) else [str(i) for i in range(labels.shape[1])])
        if len(names) != labels.shape[1]:
            raise ValueError(f"classes: {len(names)} names for {labels.shape[1]} labels")
        return labels, tuple(names)
    rename = card.rename
    if not rename and card.kind in ("npz", "idx"):  # files that hold numbers: the card's classes are their names
        rename = {str(i): name for i, name in enumerate(card.classes)}
    several = card.task == "multilabel"
    found = [[rename.get(word, word) for word in (text.split("|") if several else [text]) if word] for text in labels]
    names = card.classes or sorted({name for row in found for name in row if name is not None})
    position = {name: i for i, name in enumerate(names)}
    odd = sorted({name for row in found for name in row if name not in position and not (several and name is None)}, key=str)
    if odd:
        raise ValueError(f"classes: label {odd[0]!r} is none of {', '.join(names)}; add it, or map it under `rename:`")
    if not several:
        return np.array([position[row[0]] if row else -1 for row in found], np.int64), tuple(names)
    matrix = np.zeros((len(found), len(names)), np.int64)
    for i, row in enumerate(found):
        matrix[i] = 0 if row else -1
        matrix[i, [position[name] for name in row if name is not None]] = 1
    return matrix, tuple(names)


def encode_groups(listing):
    """Words → (sorted names, int64 (N,)); ((), None) where nothing is known."""
    if listing.groups is None:
        return (), None
    nameless = [path for path, group in zip(listing.paths, listing.groups) if not group]
    if nameless:
        raise ValueError(f"group: {len(nameless)} images have none, the first is {nameless[0]}; "
                         f"without it the same patient could be trained and tested on")
    names, groups = np.unique(np.array(listing.groups, str), return_inverse=True)
    return tuple(names.tolist()), groups.astype(np.int64)


def check_counts(card, labels, classes, groups, group_names, part):
    """Compare with the card's `expected`, before anything is decoded."""
    positives = (labels == 1).sum(0) if labels.ndim == 2 else [(labels == i).sum() for i in range(len(classes))]
    found = {
        "images": len(labels), "groups": len(group_names),
        "parts": {name: int((part == name).sum()) for name in PARTS if name},
        "classes": dict(zip(classes, map(int, positives))),
    }
    for key, wanted in card.expected.items():
        there = {k: found[key].get(k, 0) for k in wanted} if isinstance(wanted, dict) else found[key]
        if there != wanted:
            raise ValueError(f"expected: {key} should be {wanted}, found {there}; is something missing below {card.root}?")


def report_bad(name, bad, labels, classes, card):
    """List the images that cannot be read; stop, unless the card says `skip_bad: true`."""
    per_class = {c: int((labels == i).sum() if labels.ndim == 1 else (labels[:, i] == 1).sum()) for i, c in enumerate(classes)}
    per_class["no label"] = int(((labels if labels.ndim == 1 else labels.max(1)) < 0).sum())
    for path, reason in bad.items():
        print(f"{name}: cannot read {path}: {reason}")
    counted = ", ".join(f"{c} {n}" for c, n in per_class.items() if n)
    text = f"{name}: {len(bad)} images cannot be read ({counted})"
    if not card.skip_bad:
        first = ", ".join(list(bad)[:5]) + (", …" if len(bad) > 5 else "")
        raise ValueError(f"{text}: {first}; repair them, or set `skip_bad: true` in the card to leave them out")
    print(f"{text} and are left out")
