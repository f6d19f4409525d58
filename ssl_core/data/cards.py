"""Cards: a data set is described in `params/data/NAME.yaml`, one `key: value` a line."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from ssl_core import files
from ssl_core.config import ConfigError, Values

Counts = dict[str, Annotated[int, Field(ge=0)]]

RULES = {  # the keys that only some kinds of data use
    "folder": {"root", "files", "label", "group", "split", "only"},
    "csv": {"root", "file", "columns", "path", "files", "lmdb", "label", "group", "split", "only"},
    "npz": {"root", "file", "only"}, "idx": {"root", "only"}, "cifar": {"root", "only"}, "cells": {"cells"},
    "rehearsal": {"rehearses", "made"},
}  # fmt: skip
OF_REHEARSAL = {"kind", "rehearses", "made", "image_size", "channels", "classes", "synthetic", "title", "licence",
                "source", "citation"}  # fmt: skip


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

    kind: Literal["folder", "csv", "npz", "idx", "cifar", "cells", "rehearsal"]
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
    rehearses: str = ""  # rehearsal: the card whose layout and rules it borrows
    made: dict[str, Any] = Field({})  # rehearsal: `from` what its images are made, and arguments of their writer

    @model_validator(mode="after")
    def _agree(self):
        idle = self.model_fields_set & set().union(*RULES.values()) - RULES[self.kind]
        if idle:
            raise ValueError(
                f"{min(idle)}: a card of kind {self.kind} does not use it; of these it may say "
                f"{', '.join(sorted(RULES[self.kind]))}"
            )
        if self.kind == "rehearsal" and (idle := self.model_fields_set - OF_REHEARSAL):
            raise ValueError(f"{min(idle)}: a rehearsal takes it from the card that it rehearses; leave it out")
        if self.kind == "rehearsal" and not self.image_size:
            raise ValueError("image_size: a rehearsal must give it, in pixels")
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
