"""Four pools, always named: what pretraining sees, what label budgets are drawn from, validation, test.

They are disjoint by image and by group, except that `unlabelled` may contain `labelled`. Validation and test depend on
the data and `part_seed` alone, so they are the same at every ratio, draw and class order of a study.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from ssl_core.data.lists import allowed
from ssl_core.data.splits import (
    Split,
    balanced_split,
    category_ratio_split,
    class_order,
    is_labelled,
    label_budget,
    long_tail_split,
    natural_split,
    single_labels,
)
from ssl_core.data.stratify import share_of_groups


@dataclass(frozen=True, eq=False)
class Pools:
    """Positions in the ImageSet (sorted int64) by role, the split behind `unlabelled`, and what was done, in words."""

    unlabelled: np.ndarray
    labelled: np.ndarray
    val: np.ndarray
    test: np.ndarray
    split: Split
    label_pool: str
    notes: tuple
    fingerprint: str


def pools(data, split_kind="long_tail", ratio=100, draw_seed=0, order_seed=0, twin="none", n_max=None, total=None,
          positive=1, label_pool="balanced", test_fraction=0.2, val_fraction=0.0, part_seed=0, overlap=True):
    """An ImageSet → Pools.

    Parts: official ones where the data has them; otherwise whole groups, drawn by `part_seed`, hold `test_fraction` of
    the labelled images and then `val_fraction` of the rest. A group with a test image leaves training whole.
    unlabelled: the split over the labelled training images ("long_tail", "category_ratio", "balanced", "natural";
    `ratio` acts on the first two) or its `twin`; under "natural" the unlabelled training images join.
    labelled: the training part, class-balanced ("balanced"), as it is ("natural"), or the split's ("as_pretrain").
    Where the card's `only` lists the images of one of the two, it is drawn from these alone.
    overlap=False: images of labelled groups leave `unlabelled`.
    """
    train, val, test, notes = parts(data, test_fraction, val_fraction, part_seed)
    free, labels = {}, {}
    for pool in ("unlabelled", "labelled"):
        free[pool] = narrow(data, pool, train, draw_seed, ratio, notes)
        labels[pool] = data.labels.copy()
        labels[pool][~free[pool]] = -1  # so that positions stay positions in the ImageSet
    split = draw_split(labels["unlabelled"], split_kind, ratio, draw_seed, order_seed, n_max, total, positive,
                       data.classes)
    if twin != "none":
        split = split.twin(twin)
    unlabelled = split.indices
    without = np.flatnonzero(free["unlabelled"] & ~is_labelled(data.labels))
    if split_kind == "natural" and twin == "none":
        unlabelled = np.union1d(unlabelled, without)
    elif len(without):
        notes.append(f"{len(without):,} training images without a label are left out of this {split_kind} split.")
    labelled = draw_labelled(labels["labelled"], label_pool, split, part_seed, data.classes)
    if not overlap:
        kept = unlabelled[~np.isin(data.groups[unlabelled], data.groups[labelled])]
        notes.append(f"Without overlap {len(unlabelled) - len(kept):,} of {len(unlabelled):,} images leave "
                     f"pretraining: they or their group are in the labelled pool.")
        unlabelled = kept
    if not len(unlabelled):
        raise ValueError(f"{data.name}: no image is left for pretraining, {len(labelled):,} are in the labelled pool")
    state = hashlib.sha256(data.fingerprint.encode())
    for positions in (unlabelled, labelled, val, test):
        state.update(len(positions).to_bytes(8, "little") + positions.astype("<i8").tobytes())
    return Pools(unlabelled, labelled, val, test, split, label_pool, tuple(notes), state.hexdigest())


def narrow(data, pool, train, draw_seed, ratio, notes):
    """Bool (N,): the training images that the card's list lets into `pool`."""
    listed = allowed(data, pool, draw_seed, ratio)
    if (outside := int((listed & ~train).sum())) and pool in data.only:
        notes.append(f"{outside:,} of {listed.sum():,} images listed for the {pool} pool are not in the training part "
                     f"or share a group with its test images, and are left out.")
    return train & listed


def draw_split(labels, kind, ratio, draw_seed, order_seed, n_max, total, positive, classes):
    """The split of `kind` over the labels of the training part (−1 elsewhere)."""
    numbers = {"long_tail": (), "category_ratio": ("n_max",), "balanced": (), "natural": ("n_max", "total")}
    if kind not in numbers:
        raise ValueError(f"split_kind {kind!r}: choose {', '.join(numbers)}")
    if odd := [name for name in numbers[kind] if {"n_max": n_max, "total": total}[name] is not None]:
        raise ValueError(f"a {kind} split takes no {odd[0]}; leave it out")
    if kind == "natural":
        return natural_split(labels, draw_seed, len(classes))
    need_every_class(labels, classes, f"a {kind} split")
    if kind == "long_tail":
        return long_tail_split(labels, ratio, draw_seed, n_max, class_order(len(classes), order_seed), total)
    if kind == "balanced":
        return balanced_split(labels, draw_seed, n_max, total)
    if total is None:
        raise ValueError("a category_ratio split needs `total`, the number of images at every ratio")
    return category_ratio_split(labels, ratio, total, draw_seed, positive)


def draw_labelled(labels, label_pool, split, seed, classes):
    """Positions that budgets are drawn from; the same at every ratio, unless "as_pretrain"."""
    if label_pool == "as_pretrain":
        return split.indices
    if label_pool == "natural":
        return np.flatnonzero(is_labelled(labels))
    if label_pool == "balanced" and not len(classes):  # images to pretrain on alone
        return np.zeros(0, np.int64)
    if label_pool == "balanced":
        need_every_class(labels, classes, "a balanced label pool")
        return balanced_split(labels, seed).indices
    raise ValueError(f"label_pool {label_pool!r}: choose balanced, natural or as_pretrain")


def need_every_class(labels, classes, what):
    """ValueError that names the classes without an image in the training part."""
    there = np.bincount(single_labels(labels)[labels >= 0], minlength=len(classes))
    if empty := [repr(name) for name, n in zip(classes, there) if n == 0]:
        raise ValueError(f"{what} needs every class in the training part; there is no image of {', '.join(empty)}")


# --- train, val, test -------------------------------------------------------------------------------------------------

def parts(data, test_fraction=0.2, val_fraction=0.0, seed=0):
    """Training part as bool (N,), positions of val and of test (labelled images only), and notes."""
    known, notes, held_out = is_labelled(data.labels), [], {}
    free = np.ones(len(data), bool)  # images of groups that belong to no part yet
    for name, fraction in (("test", test_fraction), ("val", val_fraction)):
        official = data.part == name
        if official.any():
            chosen = official & free
        else:
            chosen = choose_groups(data, free & known & (data.part != "val"), fraction, seed)
        members = free & np.isin(data.groups, data.groups[chosen])
        held_out[name] = np.flatnonzero(chosen & known)
        if len(held_out[name]) or name == "test":
            notes.append(describe(data, name, held_out[name], official.any(), seed))
        refuse_leak(data, name, members)
        if official.any() and (shared := int((members & ~official).sum())):
            notes.append(f"{shared:,} images outside the official {name} part share a group with it and are left out.")
        free &= ~members
    return free, held_out["val"], held_out["test"], notes


def refuse_leak(data, name, members):
    """ValueError when most official training images share a group with the official part `name`: nothing to mend."""
    train = data.part == "train"
    if (shared := int((members & train).sum())) > train.sum() / 2:
        raise ValueError(
            f"{data.name}: the official split leaks: {shared:,} of {train.sum():,} training images share a group with "
            f'the {name} part; in the card set `parts: {{train: "", val: "", test: ""}}`, and whole groups are drawn'
        )


def choose_groups(data, among, fraction, seed):
    """Bool (N,): images of whole groups that hold about `fraction` of each class, of the images `among`."""
    chosen = np.zeros(len(data), bool)
    rows = np.flatnonzero(among)
    if not fraction or not len(rows):
        return chosen
    labels = data.labels[rows]
    holds = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(len(data.classes))
    if data.grouped:
        names, item = np.unique(data.groups[rows], return_inverse=True)
        counts = np.zeros((len(names), holds.shape[1]))
        np.add.at(counts, item, holds)
        share = share_of_groups(counts, fraction, seed, tries=min(16, max(1, 20_000 // len(names))))
        chosen[rows[share[item]]] = True
    else:
        rows = rows[~holds[:, holds.sum(0) == 1].any(1)]  # the only image of a class stays in training
        chosen[rows[label_budget(data.labels[rows], fraction, seed)]] = True
    return chosen


def describe(data, name, positions, official, seed):
    """One sentence on a part: how many images of how many groups, whence, and which classes it lacks."""
    how = "official" if official else f"drawn by part_seed {seed}"
    groups = f" of {len(np.unique(data.groups[positions])):,} groups" if data.grouped else ""
    labels = data.labels[positions]
    counts = (labels == 1).sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=len(data.classes))
    lacks = ", ".join(repr(c) for c, n in zip(data.classes, counts) if n == 0)
    return f"The {name} part ({how}) has {len(positions):,} images{groups}" + (f", none of {lacks}." if lacks else ".")
