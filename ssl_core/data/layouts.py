"""How data sets lie on disk: each reader takes the data's folder and card and lists the images with what is known.

A `Listing` holds what the files say, in words; `loading.load` turns words into numbers.
"""

import gzip
import hashlib
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_core.data.pixels import DICOM
from ssl_core.data.places import absent, find_named

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm", *DICOM}
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


def read_table(folder, name, card):
    """A CSV or TSV with a header or, where the card names `columns`, a list without one → DataFrame of str, its index
    the lines. In a list only the first column may hold spaces; commas separate those of a .csv, tabs of a .tsv, white
    space all others."""
    import pandas as pd

    source = folder / name
    if not source.is_file():
        raise absent("file", name or "CSV", folder)
    separator = {".csv": ",", ".tsv": "\t"}.get(source.suffix)
    if card.columns:
        text = source.read_text(encoding="utf-8-sig")
        separator = separator if separator and separator in text else None
        lines = enumerate(text.splitlines(), 1)
        rows = {i: line.strip().rsplit(separator, len(card.columns) - 1) for i, line in lines if line.strip()}
        for i, row in rows.items():
            if len(row) < len(card.columns):
                raise ValueError(f"columns: line {i} of {name} has {len(row)} of {', '.join(card.columns)}")
        table = pd.DataFrame(list(rows.values()), index=list(rows), columns=card.columns, dtype=object)
    else:
        table = pd.read_csv(source, dtype=str, keep_default_na=False, encoding="utf-8-sig", sep=separator or ",")
        table.index += 2
    return table.apply(lambda column: column.str.strip())


def column_of(table, key, name, source):
    """A column as a list; ValueError that names the key of the card and the columns there are."""
    if name not in table:
        raise ValueError(f"{key}: no column {name!r} in {source}; its columns are {', '.join(table.columns)}")
    return table[name].tolist()


def paths_of(table, card, source):
    """The paths in a table, by the card's `path`: a column, a template of columns, or a pattern that cuts them."""
    cut = "(?P<" in card.path
    if not cut and "{" in card.path:  # such as "{image_id}.jpg"
        for name in re.findall(r"{([^}]+)}", card.path):
            column_of(table, "path", name, source)
        paths = [card.path.format_map(row) for row in table.to_dict("records")]
    else:
        paths = column_of(table, "path", "path" if cut else card.path, source)
    paths = [path.replace("\\", "/") for path in paths]
    return by_pattern(card.path, "path", paths) if cut else paths


def list_csv(folder, card):
    """One row per image: the column `path`, and as the card says label(s), group, split; an empty label = none. Several
    files are parts, train, val, test."""
    import pandas as pd

    files = card.file.items() if isinstance(card.file, dict) else [("", card.file)]
    files = [(part, name) for part, names in files for name in ([names] if isinstance(names, str) else names)]
    tables = [read_table(folder, name, card) for _, name in files]
    places = [(part, name, line) for (part, name), table in zip(files, tables) for line in table.index]
    shown = ", ".join(name for _, name in files)
    odd = [name for (_, name), table in zip(files, tables) if list(table.columns) != list(tables[0].columns)]
    if odd:
        raise ValueError(f"file: {odd[0]} has other columns than {files[0][1]}")
    table = pd.concat(tables, ignore_index=True)
    paths, seen = paths_of(table, card, shown), {}
    for path, (_, name, line) in zip(paths, places):
        if not path or Path(path).is_absolute():
            raise ValueError(
                f"path: {path!r} in line {line} of {name}; write paths relative to {card.root}, or cut them by a "
                f"pattern with (?P<path>…)"
            )
        if (first := seen.setdefault(path, (name, line))) != (name, line):
            where = f"lines {first[1]} and {line} of {name}"
            where = where if first[0] == name else f"line {first[1]} of {first[0]} and line {line} of {name}"
            raise ValueError(f"path: {path} stands in {where}; one row per image")
    if "files" in card.model_fields_set:
        paths = find_named(folder, card.files, paths)
    order = np.argsort(np.array(paths, object), kind="stable")
    table, paths = table.iloc[order].reset_index(drop=True), [paths[i] for i in order]

    def column(key, name):
        return column_of(table, key, name, shown)

    def words(key, rule):
        if "(?P<" in rule:
            return by_pattern(rule, key, paths)
        return column(key, rule or key) if rule or key in table else None

    if isinstance(card.label, list):
        values = {"": -1, "0": 0, "1": 1, "0.0": 0, "1.0": 1}
        for name in card.label:
            odd = [value for value in column("label", name) if value not in values]
            if odd:
                raise ValueError(f"label: {odd[0]!r} in column {name!r} of {shown}; allowed are 0, 1 and empty")
        labels = np.array([[values[v] for v in column("label", name)] for name in card.label], np.int64).T
    else:
        labels = words("label", card.label) or [""] * len(paths)
    if isinstance(card.split, dict):
        parts = parts_of_lists(folder, card.split, paths)
    else:
        parts = words("split", card.split) if card.split or not files[0][0] else [places[i][0] for i in order]
    return Listing(paths, labels, words("group", card.group), parts or [""] * len(paths), table=table)


def parts_of_lists(folder, lists, paths):
    """The part of each image by {part: file that lists the names of its images}; "" for those in none."""
    part_of = {}
    for part, name in lists.items():
        source = folder / name
        if not source.is_file():
            raise absent("split", name, folder)
        for image in filter(None, map(str.strip, source.read_text(encoding="utf-8-sig").splitlines())):
            if part_of.setdefault(image, part) != part:
                raise ValueError(f"split: {image} is listed for {part_of[image]} and, in {name}, for {part}")
    parts = [part_of.get(path, part_of.get(path.rpartition("/")[2], "")) for path in paths]
    if len(part_of) > (found := sum(map(bool, parts))):
        unknown = f"{len(part_of) - found:,} of the {len(part_of):,} images in {', '.join(lists.values())}"
        raise ValueError(f"split: {unknown} are no images of this set")
    return parts


def list_npz(folder, card):
    """Arrays `train_images`, `train_labels`, `val_…`, `test_…`: images (n, H, W[, 3]), labels (n,), (n, 1), (n, L)."""
    source = folder / card.file
    if not source.is_file():
        raise absent("file", card.file or "npz", folder)
    try:
        with zipfile.ZipFile(source):  # which an npz is; of anything else numpy would say that it holds pickles
            pass
        with np.load(source, allow_pickle=False) as arrays:
            arrays = {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"file: {source} is broken ({error}); fetch it again") from None
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
        raise absent("file", f"{name}.gz", folder)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256[name]:
            raise ValueError("not the published file: its SHA-256 differs")
        shape = np.frombuffer(data, ">u4", 3 if what == "images" else 1, offset=4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"file: {path} is broken ({error}); fetch it again") from None


LAYOUTS = {"folder": list_folder, "csv": list_csv, "npz": list_npz, "idx": list_idx}
