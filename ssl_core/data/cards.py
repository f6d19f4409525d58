"""Cards: a data set is described in `params/data/NAME.yaml` and read by one loader, `load`."""

import dataclasses
import inspect
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import Field, model_validator

from ssl_core import files
from ssl_core.config import ConfigError, Values
from ssl_core.data import store
from ssl_core.data.cifar import list_cifar
from ssl_core.data.encode import check_counts, count, encode_groups, encode_labels, encode_parts
from ssl_core.data.images import ImageSet
from ssl_core.data.layouts import LAYOUTS
from ssl_core.data.lists import read_only
from ssl_core.data.pixels import arrange
from ssl_core.data.places import missing_images, package_folder

READERS = LAYOUTS | {"cifar": list_cifar}
Counts = dict[str, Annotated[int, Field(ge=0)]]

RULES = {  # the keys that only some kinds of data use
    "folder": {"root", "files", "label", "group", "split", "only"},
    "csv": {"root", "file", "columns", "path", "files", "lmdb", "label", "group", "split", "only"},
    "npz": {"root", "file", "only"}, "idx": {"root", "only"}, "cifar": {"root", "only"}, "cells": {"cells"},
}  # fmt: skip


class Expected(Values):
    """Published counts, compared with what is found before anything is decoded."""

    images: int | None = None
    groups: int | None = None
    parts: Counts = Field({})
    classes: Counts = Field({})


class Only(Values):
    """Files in root that list the images a pool may hold: paths, or .npy of positions (data/lists.py)."""

    unlabelled: str = ""
    labelled: str = ""


class Card(Values):
    """What a card may say. A pattern is a regular expression, searched in an image's path relative to `root`."""

    kind: Literal["folder", "csv", "npz", "idx", "cifar", "cells"]
    # where: relative to the card's own folder, ~, $VARIABLES and package:NAME/FOLDER allowed; of a list, the first that
    # exists
    root: str | list[str] = "."
    file: str | dict[Literal["train", "val", "test"], str | list[str]] = ""  # csv, npz: in root; csv: or one per part
    columns: list[str] = Field([])  # csv: their names, where the file has no header
    files: str = "**/*"  # folder: which files, as a glob; csv: among which to look for the names that `path` gives
    path: str = "path"  # csv: the column that names the file, a template "{image_id}.jpg", or pattern with (?P<path>…)
    lmdb: str = ""  # csv: the images are in this LMDB in root, under their paths as the list has them
    # what is said of an image
    label: str | list[str] = ""  # pattern with (?P<label>…), or CSV column(s); default: class folder, column label
    group: str = ""  # pattern with (?P<group>…), or CSV column: patient, slide; default: column group
    # pattern with (?P<split>…), or CSV column, or per part a file with an image's name in each line; default: folders
    # train, val, test, column split
    split: str | dict[Literal["train", "val", "test"], str] = ""
    rename: dict[str, str | None] = Field({})  # label as found → class; null = a finding of nothing (multilabel)
    parts: dict[str, Literal["train", "val", "test", ""]] = Field({})  # split as found → part
    only: Only = Only()  # published splits: the images that may enter a pool
    classes: list[str] = Field([])  # in their order; default: sorted names
    task: Literal["multiclass", "binary", "multilabel"] = "multiclass"
    ordered: bool = False  # the classes are grades
    # pixels
    image_size: Annotated[int, Field(ge=0, le=1024)] = 0  # 0: as they are, where all are square and alike
    channels: Literal[0, 1, 3] = 0  # 0: as they are
    geometry: Literal["resize_crop", "pad", "squash"] = "resize_crop"
    window: list[float] = Field([0.5, 99.5], min_length=2, max_length=2)  # above 8 bit: percentiles that become 0, 255
    skip_bad: bool = False  # leave unreadable images out instead of stopping
    # checked before anything is decoded
    expected: Expected = Expected()
    # for people
    title: str = ""
    get: str = ""  # where to get the files, how large they are, what to put where
    licence: str = ""
    source: str = ""
    citation: str = ""
    synthetic: bool = False
    cells: dict[str, Any] = Field({})  # cells: arguments of make_cells

    @model_validator(mode="after")
    def _agree(self):
        idle = self.model_fields_set & set().union(*RULES.values()) - RULES[self.kind]
        if idle:
            raise ValueError(
                f"{min(idle)}: a card of kind {self.kind} does not use it; of these it may say "
                f"{', '.join(sorted(RULES[self.kind]))}"
            )
        if self.kind in ("folder", "csv") and not (self.image_size and self.channels):
            raise ValueError(
                f"{'channels' if self.image_size else 'image_size'}: a {self.kind} card must give it "
                f"(image_size in pixels, channels 1 or 3)"
            )
        if isinstance(self.label, list) and (self.kind, self.task) != ("csv", "multilabel"):
            raise ValueError("label: a list of columns needs kind csv and task multilabel")
        if isinstance(self.split, dict) and self.kind != "csv":
            raise ValueError("split: files that list the parts need kind csv")
        if self.kind in ("csv", "npz") and not self.file:
            raise ValueError(f"file: a {self.kind} card must name it")
        if self.kind == "npz" and isinstance(self.file, dict):
            raise ValueError("file: an npz holds its own parts; name one file")
        return self

    def facts(self):
        """What the card says, for the records of a run: all but where the data lie on this machine."""
        return self.model_dump(exclude={"root"}, exclude_defaults=True)


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


def where_to_get(card):
    """What a card says to who lacks the data, to be put behind an error."""
    get = f"; {' '.join(card.get.split())}" if card.get else ""
    return get + (f"; licence: {' '.join(card.licence.split())}" if card.licence else "")


def data_folder(card, path):
    """The first folder of `root` that exists and holds the card's file, or a FileNotFoundError."""
    roots = [card.root] if isinstance(card.root, str) else card.root
    folders = [
        package_folder(root)
        if root.startswith("package:")
        else Path(os.path.normpath(path.parent / os.path.expandvars(os.path.expanduser(root))))
        for root in roots
    ]
    there = [folder.resolve() for folder in folders if folder.is_dir()]
    if not there:
        raise FileNotFoundError(f"root: there is no {' or '.join(map(str, folders))}")
    name = card.file if isinstance(card.file, str) else ""
    return next((folder for folder in there if (folder / name).exists()), there[0])


def check_files(folder, card, paths):
    """FileNotFoundError when files of a list are not there: known before hours of decoding."""
    if missing := missing_images(folder, card, paths):
        raise FileNotFoundError(
            f"path: {len(missing):,} of the {len(paths):,} files listed are not in {folder / card.lmdb}, the first is "
            f"{missing[0]}"
        )


def load(name_or_path, size=None):
    """The data set of a card, by name or path → ImageSet; `size` overrides the card's image_size.

    Images are in the order of their sorted paths. Folders and CSVs are decoded once into the store.
    """
    path = card_path(name_or_path)
    card = read_card(path)
    size, name = size or card.image_size, path.stem
    if card.kind == "cells":
        return load_cells(card, name, size)
    try:
        folder = data_folder(card, path)
        listing = READERS[card.kind](folder, card)
        labels, classes = encode_labels(listing.labels, card)
        group_names, groups = encode_groups(listing)
        part = encode_parts(listing, card)
        if not listing.paths:
            raise FileNotFoundError(f"root: no images in {folder}")
        check_counts(card, labels, classes, group_names, part, folder)
        only = read_only(folder, card, listing.paths)
        if card.kind == "csv" and not card.skip_bad:
            check_files(folder, card, listing.paths)
        images, hashes, bad = None if listing.images is None else arrange(listing.images, card, size), None, {}
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: {error}{where_to_get(card)}") from None
    except ValueError as error:
        said = " ".join(str(error).split())
        where = "" if str(folder) in said else f"; the data are in {folder}"
        raise ConfigError(f"{path}: {said}{where}") from None
    if images is None:
        images, hashes, bad = store.decoded(name, folder, listing.paths, card, size)
    keep = np.array([p not in bad for p in listing.paths])
    if bad:
        report_bad(name, bad, labels[~keep], classes, card)
    data = ImageSet(
        name=name,
        images=images,
        labels=labels[keep],
        classes=classes,
        groups=None if groups is None else groups[keep],
        group_names=group_names,
        part=part[keep],
        task=card.task,
        ordered=card.ordered,
        synthetic=card.synthetic,
        paths=tuple(p for p, k in zip(listing.paths, keep) if k),
        card=card.facts(),
        table=None if listing.table is None else listing.table[keep].reset_index(drop=True),
        only={pool: {name: mask[keep] for name, mask in masks.items()} for pool, masks in only.items()},
    )
    return data if hashes is None else data.keep_hashes(hashes)


def load_cells(card, name, size):
    """A card of the synthetic cells → ImageSet, drawn once for the same arguments and code."""
    from ssl_core.data import cell_drawing, cells

    arguments = card.cells | ({"size": size} if size else {})
    allowed = list(inspect.signature(cells.make_cells).parameters)
    unknown = sorted(set(arguments) - set(allowed))
    if unknown or "n" not in arguments:
        wrong = f"{unknown[0]}: unknown key" if unknown else "n: missing"
        raise ConfigError(f"{name}: cells: {wrong}; allowed are {', '.join(allowed)}, and n must be given")
    code = [files.sha256_file(module.__file__) for module in (cells, cell_drawing)]
    data = store.kept(name, repr((sorted(arguments.items()), code)), lambda: cells.make_cells(**arguments))
    return dataclasses.replace(data, name=name, card=card.facts()).keep_hashes(data.hashes)


def report_bad(name, bad, labels, classes, card):
    """List the images that cannot be read; stop, unless the card says `skip_bad: true`."""
    for path, reason in bad.items():
        print(f"{name}: cannot read {path}: {reason}")
    without = int(((labels if labels.ndim == 1 else labels.max(1)) < 0).sum())
    per_class = [*zip(classes, count(labels, classes)), ("no label", without)]
    counted = ", ".join(f"{c} {n}" for c, n in per_class if n)
    text = f"{name}: {len(bad)} images cannot be read ({counted})"
    if not card.skip_bad:
        first = ", ".join(list(bad)[:5]) + (", …" if len(bad) > 5 else "")
        raise ValueError(f"{text}: {first}; repair them, or set `skip_bad: true` in the card to leave them out")
    print(f"{text} and are left out")
