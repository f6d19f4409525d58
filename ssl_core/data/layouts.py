"""How data sets lie on disk: each reader takes the data's folder and card and lists the images with what is known.

A `Listing` holds what the files say, in words; `cards.load` turns words into numbers.
"""

import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm", ".dcm"}
UNLABELLED = ("unlabelled", "unlabeled")
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Listing:
    """paths (N,) relative to the data's folder, sorted; labels (N,) of str ("" = none) or int array (N, L) of 0, 1, -1;
    groups (N,) of str or None; parts (N,) of str; images uint8 (N, H, W[, 3]) or None (then `paths` are files);
    table: a DataFrame of all columns of a CSV, or None."""

    paths: list
    labels: object
    groups: list
    parts: list
    images: np.ndarray = None
    table: object = None


def by_pattern(pattern, key, paths):
    """The named group `key` of a regular expression in each path; "" where that group is optional and absent."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{key}: {pattern!r} is not a regular expression: {error}") from None
    if key not in compiled.groupindex:
        raise ValueError(f"{key}: the pattern {pattern!r} has no group named (?P<{key}>…)")
    found = [compiled.search(path) for path in paths]
    missed = [path for path, match in zip(paths, found) if match is None]
    if missed:
        raise ValueError(
            f"{key}: the pattern {pattern!r} fits {len(paths) - len(missed)} of {len(paths)} paths; "
            f"the first it misses is {missed[0]}"
        )
    return [match[key] or "" for match in found]


def list_folder(folder, card):
    """Class folders `[train|val|test/]CLASS/…/image`, images without a label in `unlabelled/` or in no class folder."""
    files = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.glob(card.files)
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    files = [f for f in files if not any(piece.startswith((".", "__MACOSX")) for piece in f.split("/"))]
    parts, labels = [], []
    for file in files:
        *folders, _ = file.split("/")
        first = card.parts.get(folders[0], folders[0]) if folders else ""
        parts.append(first if first in PARTS else "")
        folders = folders[1:] if first in PARTS else folders
        labels.append("" if not folders or folders[0] in UNLABELLED else folders[0])
    if any(parts):  # what lies outside the parts and has no label is there to pretrain on
        parts = [part or ("train" if label == "" else "") for part, label in zip(parts, labels)]
    if card.label:
        labels = by_pattern(card.label, "label", files)
    if card.split:
        parts = by_pattern(card.split, "split", files)
    groups = by_pattern(card.group, "group", files) if card.group else None
    return Listing(files, labels, groups, parts)


def list_csv(folder, card):
    """One row per image: the column `path`, and as the card says label(s), group, split; an empty label = none."""
    import pandas as pd

    source = folder / card.file
    if not source.is_file():
        raise FileNotFoundError(f"file: there is no {card.file or 'CSV'} in {folder}")
    table = pd.read_csv(
        source, dtype=str, keep_default_na=False, encoding="utf-8-sig", sep="\t" if source.suffix == ".tsv" else ","
    )
    table = table.apply(lambda column: column.str.strip())

    def column(key, name):
        if name not in table:
            raise ValueError(f"{key}: no column {name!r} in {card.file}; its columns are {', '.join(table.columns)}")
        return table[name].tolist()

    if "{" in card.path:  # such as "{image_id}.jpg"
        for name in re.findall(r"{([^}]+)}", card.path):
            column("path", name)
        paths = [card.path.format_map(row) for row in table.to_dict("records")]
    else:
        paths = column("path", card.path)
    paths = [path.replace("\\", "/") for path in paths]
    lines = {}
    for line, path in enumerate(paths, 2):
        if not path or Path(path).is_absolute():
            raise ValueError(f"path: {path!r} in line {line} of {card.file}; write paths relative to {card.root}")
        if lines.setdefault(path, line) != line:
            raise ValueError(f"path: {path} stands in lines {lines[path]} and {line} of {card.file}; one row per image")
    order = np.argsort(np.array(paths, object), kind="stable")
    table, paths = table.iloc[order].reset_index(drop=True), [paths[i] for i in order]

    def words(key, rule):
        if "(?P<" in rule:
            return by_pattern(rule, key, paths)
        return column(key, rule or key) if rule or key in table else None

    if isinstance(card.label, list):
        values = {"": -1, "0": 0, "1": 1, "0.0": 0, "1.0": 1}
        for name in card.label:
            odd = [value for value in column("label", name) if value not in values]
            if odd:
                raise ValueError(f"label: {odd[0]!r} in column {name!r} of {card.file}; allowed are 0, 1 and empty")
        labels = np.array([[values[v] for v in column("label", name)] for name in card.label], np.int64).T
    else:
        labels = words("label", card.label) or [""] * len(paths)
    parts = words("split", card.split) or [""] * len(paths)
    return Listing(paths, labels, words("group", card.group), parts, table=table)


def list_npz(folder, card):
    """Arrays `train_images`, `train_labels`, `val_…`, `test_…`: images (n, H, W[, 3]), labels (n,), (n, 1), (n, L)."""
    source = folder / card.file
    if not source.is_file():
        raise FileNotFoundError(f"file: there is no {card.file or 'npz'} in {folder}")
    with np.load(source, allow_pickle=False) as arrays:
        arrays = {name: arrays[name] for name in arrays.files}
    pieces = [part for part in PARTS if f"{part}_images" in arrays]
    if not pieces:
        raise ValueError(f"file: {card.file} holds {', '.join(arrays)}; expected train_images, train_labels, test_…")
    return from_arrays(
        [
            (part, arrays[f"{part}_images"], arrays.get(f"{part}_labels"), arrays.get(f"{part}_groups"))
            for part in pieces
        ]
    )


def list_idx(folder, card):
    """The four idx files of the MNIST family, packed with gzip or not."""
    return from_arrays(
        [
            (part, read_idx(folder, prefix, "images"), read_idx(folder, prefix, "labels"), None)
            for part, prefix in (("train", "train"), ("test", "t10k"))
        ]
    )


def from_arrays(pieces):
    """(part, images, labels or None, groups or None) per part → Listing; numbers become words, paths are made up."""
    paths = [f"{part}/{i:06d}" for part, images, _, _ in pieces for i in range(len(images))]
    parts = [part for part, images, _, _ in pieces for _ in range(len(images))]
    images = np.concatenate([images for _, images, _, _ in pieces])
    labels = [np.full(len(x), -1) if y is None else np.asarray(y, np.int64) for _, x, y, _ in pieces]
    labels = np.concatenate([y.reshape(len(y), -1) for y in labels])
    if labels.shape[1] == 1:
        labels = [str(y) if y >= 0 else "" for y in labels[:, 0].tolist()]
    groups = [str(g) for _, _, _, group in pieces if group is not None for g in group.tolist()]
    return Listing(paths, labels, groups or None, parts, images=images)


def read_idx(folder, prefix, what, sha256=None):
    """One idx file as a uint8 array; `sha256` maps the unpacked file's name to the digest it must have."""
    name = f"{prefix}-{what}-idx{3 if what == 'images' else 1}-ubyte"
    path = next((p for p in (Path(folder, name + ".gz"), Path(folder, name)) if p.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"there is no {name}.gz in {folder}")
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256[name]:
        raise ValueError(f"{path}: not the published file (SHA-256 differs); fetch it again")
    shape = np.frombuffer(data, ">u4", data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


LAYOUTS = {"folder": list_folder, "csv": list_csv, "npz": list_npz, "idx": list_idx}
