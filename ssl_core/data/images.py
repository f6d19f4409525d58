"""ImageSet: images, labels, groups and official parts, in one frozen value that knows its own fingerprint."""

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

PARTS = ("train", "val", "test", "")  # "" where the data set names no official split
TASKS = ("multiclass", "binary", "multilabel")


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """A set of square images that a study can draw pools from.

    images: uint8 (N, C, S, S), C 1 or 3, an array or a read-only memory map.
    labels: int64 (N,), or (N, L) for multilabel; -1 = no label.
    groups: int64 (N,), positions in `group_names` (patient, slide, …); None = every image its own (`grouped` False).
    part: str (N,), "train", "val", "test" or "" (no official split).
    paths: (N,) names of the images, relative to the data's folder or made up.
    table: what else is known of each image (other CSV columns, planted facts), a DataFrame of N rows or None.
    only: pool → {list: bool (N,), the images it names}, where the card narrows a pool to published lists.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple
    groups: np.ndarray = None
    grouped: bool = None
    group_names: tuple = ()
    part: np.ndarray = None
    task: str = "multiclass"
    ordered: bool = False
    synthetic: bool = False
    paths: tuple = ()
    card: dict = field(default_factory=dict)
    table: object = None
    only: dict = field(default_factory=dict)

    def __post_init__(self):
        n = len(self.images)
        fill = {
            "labels": np.asarray(self.labels, np.int64),
            "classes": tuple(self.classes),
            "paths": tuple(self.paths) or tuple(f"{i:06d}" for i in range(n)),
            "part": np.full(n, "") if self.part is None else np.asarray(self.part, str),
            "groups": np.arange(n) if self.groups is None else np.asarray(self.groups, np.int64),
            "grouped": self.groups is not None if self.grouped is None else bool(self.grouped),
        }
        names = fill["paths"] if self.groups is None else map(str, range(int(fill["groups"].max(initial=-1)) + 1))
        fill["group_names"] = tuple(self.group_names) or tuple(names)
        for name, value in fill.items():
            object.__setattr__(self, name, value)
        self._check(n)

    def _check(self, n):
        shape, top = self.images.shape, len(self.classes)
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[1] not in (1, 3) or shape[2] != shape[3]:
            raise ValueError(
                f"{self.name}: images are {self.images.dtype} {shape}; they must be uint8 (N, C, S, S) with C 1 or 3"
            )
        if self.task not in TASKS:
            raise ValueError(f"{self.name}: task is {self.task!r}; allowed are {', '.join(TASKS)}")
        if self.task == "binary" and top != 2:
            raise ValueError(f"{self.name}: a binary task has 2 classes, here are {top}")
        if self.labels.shape != ((n, top) if self.task == "multilabel" else (n,)):
            raise ValueError(f"{self.name}: labels are {self.labels.shape} for {n} images, {top} classes, {self.task}")
        if n and not -1 <= self.labels.min() <= self.labels.max() < (2 if self.task == "multilabel" else top):
            low, high = self.labels.min(), self.labels.max()
            raise ValueError(f"{self.name}: labels run from {low} to {high} for {top} classes")
        if not len(self.groups) == len(self.part) == len(self.paths) == n:
            raise ValueError(
                f"{self.name}: {n} images, but {len(self.groups)} groups, {len(self.part)} parts, "
                f"{len(self.paths)} paths"
            )
        if n and not 0 <= self.groups.min() <= self.groups.max() < len(self.group_names):
            raise ValueError(f"{self.name}: group numbers must point into the {len(self.group_names)} group names")
        if not set(self.part.tolist()) <= set(PARTS):
            odd = sorted(set(self.part.tolist()) - set(PARTS))
            raise ValueError(f"{self.name}: part {odd[0]!r}; allowed are train, val, test and empty")

    def __len__(self):
        return len(self.images)

    def __repr__(self):
        n, c, s, _ = self.images.shape
        groups = f", {len(np.unique(self.groups)):,} groups" if self.grouped else ""
        made = ", synthetic" if self.synthetic else ""
        return f"{self.name}: {n:,} images {c}×{s}×{s}, {len(self.classes)} classes ({self.task}){groups}{made}"

    @cached_property
    def hashes(self):
        """SHA-256 of each image's pixels, uint8 (N, 32): equal rows are exact duplicates."""
        return pixel_hashes(self.images)

    @cached_property
    def fingerprint(self):
        """SHA-256 (hex) of pixels, labels, classes, groups and parts: the same wherever the files lie."""
        state = hashlib.sha256(repr((self.images.shape, self.task, self.classes)).encode())
        for array in (self.hashes, self.labels.astype("<i8"), self.groups.astype("<i8")):
            state.update(np.ascontiguousarray(array))
        state.update("\n".join(self.part.tolist()).encode())
        return state.hexdigest()

    @property
    def labelled(self):
        """Positions of the images with a label (multilabel: with any), int64, sorted."""
        known = self.labels >= 0
        return np.flatnonzero(known.any(1) if known.ndim == 2 else known)

    def counts(self):
        """Labelled images per class, int64 (C,); multilabel: positives per label."""
        if self.task == "multilabel":
            return (self.labels == 1).sum(0)
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.classes))

    def subset(self, positions):
        """The images at `positions`, in that order; group numbers keep their names. Copies pixels into memory."""
        positions = np.asarray(positions, np.int64)
        data = replace(
            self,
            images=self.images[positions],
            labels=self.labels[positions],
            groups=self.groups[positions],
            part=self.part[positions],
            paths=tuple(self.paths[i] for i in positions),
            table=None if self.table is None else self.table.iloc[positions].reset_index(drop=True),
            only={pool: {name: mask[positions] for name, mask in masks.items()} for pool, masks in self.only.items()},
        )
        return data.keep_hashes(self.hashes[positions]) if "hashes" in vars(self) else data

    def keep_hashes(self, hashes):
        """Take `hashes` as computed before (by the store, by a parent set) instead of reading all pixels again."""
        vars(self)["hashes"] = np.asarray(hashes)
        return self

    def label_names(self):
        """What a person calls each image's label: a class, "a|b" for multilabel, "" where there is none."""
        if self.task == "multilabel":
            return ["|".join(c for c, y in zip(self.classes, row) if y == 1) for row in self.labels.tolist()]
        return [self.classes[y] if y >= 0 else "" for y in self.labels.tolist()]

    def frame(self):
        """One row per image: path, label (name), group (name), part, then the columns of `table`."""
        import pandas as pd

        columns = {
            "path": self.paths,
            "label": self.label_names(),
            "group": [self.group_names[g] for g in self.groups.tolist()],
            "part": self.part,
        }
        frame = pd.DataFrame(columns)
        if self.table is None:
            return frame
        return frame.join(self.table[[c for c in self.table.columns if c not in frame.columns]])


def pixel_hashes(images):
    """SHA-256 of each image's pixels: uint8 (N, C, S, S) → uint8 (N, 32)."""
    hashes = np.empty((len(images), 32), np.uint8)
    for i in range(len(images)):
        hashes[i] = np.frombuffer(hashlib.sha256(np.ascontiguousarray(images[i])).digest(), np.uint8)
    return hashes
