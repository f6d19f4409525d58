"""The audit before a study: does an image, or a patient, stand on both sides of the line between training and test?

Blocking: the same image (equal pixels) or the same group in two parts, a test image in pretraining. Warnings: near
duplicates across parts (`copies`), also by a trained encoder where one is given. Images are compared as stored, at the
card's size.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from ssl_core.data.pools import pools

COLUMNS = ["kind", "first", "second", "part_first", "part_second", "score"]


@dataclass(frozen=True)
class Audit:
    """What was found: sentences by weight, and `pairs`, one row for each two images that are the same or nearly so.

    pairs: kind ("identical", "near" or "embedding"), positions first and second, their parts, score (1 for identical).
    threshold: of near duplicates; alike: of features, NaN where no encoder was asked.
    """

    name: str
    blocking: tuple
    warnings: tuple
    notes: tuple
    pairs: pd.DataFrame
    threshold: float
    alike: float = np.nan

    @property
    def sentence(self):
        """The finding in one line."""
        if self.blocking:
            return f"{self.name}: BLOCKING: {' '.join(self.blocking + self.warnings)}"
        if self.warnings:
            return f"{self.name}: WARNING: {' '.join(self.warnings)}"
        return f"{self.name}: nothing found."


def parts_of(data, part_seed=0):
    """{part: positions}: the official parts where the data have a test part, else those that `pools` draws."""
    if (data.part == "test").any():
        parts = {"train": np.isin(data.part, ("train", "")), "val": data.part == "val", "test": data.part == "test"}
        return {name: np.flatnonzero(at) for name, at in parts.items()}
    drawn = pools(data, split_kind="natural", label_pool="natural", part_seed=part_seed)
    return {"train": np.union1d(drawn.unlabelled, drawn.labelled), "val": drawn.val, "test": drawn.test}


def audit(data, parts, describe=None):
    """An ImageSet and {part: positions} → Audit.

    describe: the features of a trained encoder, uint8 (n, C, S, S) → (n, D), by which images are compared once more.
    Parts may be "train", "val" and "test", or the pools of a study ("unlabelled" and "labelled" are one side).
    Near duplicates are looked for between the images of "val" and "test" and all others of the parts.
    """
    side = {name: "train" if name in ("unlabelled", "labelled") else name for name in parts}
    sides = {name: np.unique(np.concatenate([parts[p] for p in parts if side[p] == name]).astype(np.int64))
             for name in dict.fromkeys(side.values())}
    blocking = [text for one, other in combinations(sides, 2) for text in shared(data, sides, one, other)]
    role = np.full(len(data), "", object)
    for name, at in sides.items():
        role[at] = name
    equal = identical(data, role)
    for (one, other), some in equal.groupby(["part_first", "part_second"]):
        images = counted(some["second"].nunique(), "image")
        blocking.append(f"{images} of {other} equal to images of {one} in each pixel.")
    near, threshold = search(data, role, sides, equal)
    warnings = [f"{counted(len(some), 'pair')} of near duplicates across {one} and {other}."
                for (one, other), some in near.groupby(["part_first", "part_second"])]
    seen, alike = search(data, role, sides, pd.concat([equal, near]), describe) if describe else (near[:0], np.nan)
    warnings += [f"{counted(len(some), 'pair')} alike to the encoder across {one} and {other}."
                 for (one, other), some in seen.groupby(["part_first", "part_second"])]
    notes = [] if data.grouped else ["No groups are known: whether a patient stands in two parts cannot be told."]
    pairs = pd.concat([frame for frame in (equal, near, seen) if len(frame)] or [equal], ignore_index=True)
    return Audit(data.name, tuple(blocking), tuple(warnings), tuple(notes), pairs, threshold, alike)


def counted(n, what):
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def shared(data, sides, one, other):
    """Sentences on positions and groups that two sides share."""
    if twice := len(np.intersect1d(sides[one], sides[other])):
        yield f"{counted(twice, 'image')} in both {one} and {other}" + \
              (": test images in pretraining." if {one, other} == {"train", "test"} else ".")
    groups = np.intersect1d(data.groups[sides[one]], data.groups[sides[other]])
    if data.grouped and len(groups):
        names = ", ".join(repr(data.group_names[g]) for g in groups[:3]) + (", …" if len(groups) > 3 else "")
        yield f"{counted(len(groups), 'group')} in both {one} and {other}: {names}."


def identical(data, role):
    """Pairs of equal pixels across parts: each image beside the first one of every other part."""
    places, rows, used = {}, [], np.flatnonzero(role != "")
    numbers = pixel_numbers(data, used)
    _, first, times = np.unique(numbers, return_inverse=True, return_counts=True)
    for i in showing(data, used[times[first] > 1]):
        places.setdefault(data.hashes[i].tobytes(), {}).setdefault(role[i], []).append(int(i))
    order = ("train", "val", "test")
    for by_part in (found for found in places.values() if len(found) > 1):
        for one, other in combinations(sorted(by_part, key=lambda p: order.index(p) if p in order else 9), 2):
            rows += [("identical", by_part[one][0], i, one, other, 1.0) for i in by_part[other]]
    return pd.DataFrame(rows, columns=COLUMNS)


def pixel_numbers(data, positions):
    """uint64 (n,), equal where the pixels are: the start of their SHA-256."""
    return np.ascontiguousarray(data.hashes[positions, :8]).view("<u8").ravel()


def showing(data, positions):
    """Those of the positions whose image is not of one colour: empty tiles are equal, and tell nothing."""
    return [int(i) for i in positions if data.images[i].min() < data.images[i].max()]


def copied(data, positions, others, theirs):
    """Those of the positions of one ImageSet whose pixels are those of an image of another, at positions `theirs`."""
    equal = np.isin(pixel_numbers(data, positions), pixel_numbers(others, theirs))
    return showing(data, positions[equal]) if data.images.shape[1:] == others.images.shape[1:] else []


def search(data, role, sides, known, describe=None):
    """Near duplicates across parts, by `describe` where given, without those that are known, and the threshold."""
    from ssl_core.data.copies import STRICT, alike, near_copies

    used = np.flatnonzero(role != "")
    held_out = np.flatnonzero(np.isin(role[used], ("val", "test")))
    if not len(held_out):
        return pd.DataFrame(columns=COLUMNS), STRICT
    images = data.images if len(used) == len(data) else data.images[used]
    groups = data.groups[used] if data.grouped else None
    found, threshold = alike(images, describe, groups, held_out) if describe else near_copies(images, groups, held_out)
    known = {frozenset(pair) for pair in zip(known["first"], known["second"])}
    rank = {name: k for k, name in enumerate(("train", "val", "test"))}
    rows = []
    for a, b, score in zip(used[found["first"]], used[found["second"]], found["score"]):
        a, b = sorted((int(a), int(b)), key=lambda i: rank[role[i]])
        if role[a] != role[b] and frozenset((a, b)) not in known:
            rows.append(("embedding" if describe else "near", a, b, role[a], role[b], score))
    return pd.DataFrame(rows, columns=COLUMNS), threshold
