"""Splits: which labelled images a run may see. Imbalanced splits, their balanced twins, and label budgets.

Everything nests by construction. A class has one permutation of its images per seed, a function of (seed, class) alone,
and every split, twin and budget takes a prefix of it: ratio 100 lies inside ratio 10 class by class wherever the head
counts agree, and 1 % of the labels inside 5 %. Labels are int64 (N,), -1 = no label, which is never drawn.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from ssl_core.data.stratify import stratified_prefix, stream


@dataclass(frozen=True, eq=False)
class Split:
    """A drawn subset of labelled images; two splits are the same when their fingerprints are.

    indices: sorted int64 positions in the labels it was drawn from; labels: theirs; counts: images per class, (C,);
    order: the classes, head first; ratio: as asked (`counts` has what came).
    """

    indices: np.ndarray
    labels: np.ndarray
    counts: np.ndarray
    order: np.ndarray
    seed: int
    kind: str
    ratio: float
    source: np.ndarray = field(repr=False)  # all labels, which a twin is drawn from

    @property
    def fingerprint(self):
        """SHA-256 (hex) of positions and labels."""
        state = hashlib.sha256(self.indices.astype("<i8").tobytes())
        state.update(np.ascontiguousarray(self.labels, "<i8").tobytes())
        return state.hexdigest()

    def __len__(self):
        return len(self.indices)

    def twin(self, kind="same_n"):
        """The balanced control: as many images in all ("same_n", a remainder goes to the head), or per class as the
        head has ("same_head"). ValueError when a class has too few images."""
        if kind not in ("same_n", "same_head"):
            raise ValueError(f"twin {kind!r}: choose same_n or same_head")
        n_classes, total = len(self.counts), int(self.counts.sum())
        counts = [int(self.counts.max())] * n_classes
        if kind == "same_n":
            counts = [total // n_classes + (rank < total % n_classes) for rank in range(n_classes)]
        return draw(self.source, counts, self.order, self.seed, "balanced", 1.0, f"its {kind} twin")


# --- how many ---------------------------------------------------------------------------------------------------------

def long_tail_counts(n_max, n_classes, ratio):
    """Images per class, head first: floor(n_max · ratio^(−i/(C−1))), i = 0 … C−1, and at least 1."""
    if n_max < 1 or n_classes < 1 or ratio < 1:
        raise ValueError(f"long tail of {n_classes} classes from {n_max} images at ratio {ratio:g}: all must be ≥ 1")
    steps = max(n_classes - 1, 1)
    # a power that should be whole may come out just below it: the factor lifts it over, and is far below 1/n_max
    return [max(1, int(n_max * ratio ** (-i / steps) * (1 + 1e-12))) for i in range(n_classes)]


def counts_of_total(total, n_classes, ratio):
    """The long tail that holds exactly `total` images: the largest that fits, one more for the first classes."""
    if total < n_classes:
        raise ValueError(f"a long tail of {total} images cannot hold {n_classes} classes")
    low, high = 1, total  # bisection: largest n_max whose tail is not above total
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(long_tail_counts(middle, n_classes, ratio)) <= total else (low, middle - 1)
    counts = long_tail_counts(low, n_classes, ratio)
    missing = total - sum(counts)
    return [n + (rank < missing) for rank, n in enumerate(counts)]


# --- which ------------------------------------------------------------------------------------------------------------

def class_order(n_classes, order_seed):
    """Which class is head, …, tail: a permutation int64 (C,); natural order 0 … C−1 for order_seed None or −1."""
    if order_seed is None or order_seed == -1:
        return np.arange(n_classes)
    return stream(order_seed, 0, 2).permutation(n_classes)


def class_permutation(labels, c, seed):
    """All positions of class c in the order in which splits, twins and budgets take them."""
    return stream(seed, c).permutation(np.flatnonzero(labels == c))


def draw(labels, counts, order, seed, kind, ratio, what):
    """`counts[i]` images of class `order[i]`, each a prefix of the class's permutation → Split."""
    labels, order = single_labels(labels), np.asarray(order, np.int64)
    if sorted(order.tolist()) != list(range(len(order))) or labels.max(initial=-1) >= len(order):
        raise ValueError(f"order {order.tolist()} must name each of the {int(labels.max()) + 1} classes once")
    there = np.bincount(labels[labels >= 0], minlength=len(order))
    for c, n in zip(order.tolist(), counts):
        if n > there[c]:
            raise ValueError(f"{what}: {n} images of class {c} are needed, there are {there[c]}")
    taken = [class_permutation(labels, c, seed)[:n] for c, n in zip(order.tolist(), counts)]
    indices = np.sort(np.concatenate(taken)) if taken else np.zeros(0, np.int64)
    by_class = np.bincount(labels[indices], minlength=len(order))
    return Split(indices, labels[indices], by_class, order, seed, kind, float(ratio), labels)


def single_labels(labels):
    """Labels as int64 (N,); several per image are refused."""
    labels = np.asarray(labels, np.int64)
    if labels.ndim != 1:
        raise ValueError(f"labels {labels.shape}: one label per image is needed; make a binary view, or take natural")
    return labels


def class_counts(labels):
    """Images per class, int64 (C,), C = largest label + 1."""
    labels = single_labels(labels)
    return np.bincount(labels[labels >= 0])


def long_tail_split(labels, ratio, seed, n_max=None, order=None, total=None):
    """Exponential long tail of ratio `ratio` between the largest and the smallest class → Split.

    n_max: images of the head; default: the size of the smallest class, so that any class can be the head.
    total: instead of n_max, the number of images in all (the same N at every ratio).
    order: classes, head first; default: permuted by `seed`, as the published CIFAR-LT splits are, so that over several
    seeds the difficulty of a class is not confounded with its frequency.
    """
    there = class_counts(labels)
    order = class_order(len(there), seed) if order is None else np.asarray(order, np.int64)
    if n_max is not None and total is not None:
        raise ValueError(f"n_max {n_max} and total {total}: give one, it fixes the other")
    if total is not None:
        counts = counts_of_total(total, len(order), ratio)
    else:
        counts = long_tail_counts(int(min(there, default=0)) if n_max is None else n_max, len(order), ratio)
    return draw(labels, counts, order, seed, "long_tail", ratio, f"a long tail of ratio {ratio:g}")


def category_ratio_split(labels, ratio, total, seed, positive=1):
    """One positive to `ratio` negatives among `total` images of two classes; round(total / (1 + ratio)) positives."""
    n_classes = len(class_counts(labels))
    if n_classes > 2 or positive not in (0, 1):
        raise ValueError(f"a category ratio needs classes 0 and 1, here are {max(n_classes, positive + 1)}: "
                         "make a binary view")
    if ratio <= 0:
        raise ValueError(f"category ratio 1:{ratio:g} must be above 0")
    n_positive = round(total / (1 + ratio))
    if n_positive < 1:
        raise ValueError(f"{total} images at 1:{ratio:g} hold no positive; {int(ratio) + 1} would hold one")
    counts = [total - n_positive, n_positive]
    order = np.array([1 - positive, positive])
    if counts[0] < counts[1]:
        counts, order = counts[::-1], order[::-1]
    return draw(labels, counts, order, seed, "category_ratio", ratio, f"{total} images at 1:{ratio:g}")


def balanced_split(labels, seed, per_class=None, total=None):
    """The same number of images of every class: `per_class`, or as many as the smallest class has; `total`, a multiple
    of the classes' number, instead of `per_class`."""
    there = class_counts(labels)
    if total is not None and (total % len(there) or per_class is not None):
        raise ValueError(f"a balanced split of {total} images in all: give a multiple of {len(there)} classes, "
                         "and no n_max beside it")
    per_class = per_class if total is None else total // len(there)
    n = int(min(there, default=0)) if per_class is None else per_class
    if n < 1:
        raise ValueError(f"a balanced split of {n} images per class is empty; the classes have {there.tolist()}")
    return draw(labels, [n] * len(there), np.arange(len(there)), seed, "balanced", 1.0, "a balanced split")


def natural_split(labels, seed=0, n_classes=None):
    """All labelled images as they are, the most frequent class first in `order`. Labels (N,) or (N, L)."""
    labels = np.asarray(labels, np.int64)
    indices = np.flatnonzero(is_labelled(labels))
    taken = labels[indices]
    counts = (taken == 1).sum(0) if labels.ndim == 2 else np.bincount(taken, minlength=n_classes or 0)
    ratio = max(counts, default=1) / max(min(counts, default=1), 1)
    return Split(indices, taken, counts, np.argsort(-counts, kind="stable"), seed, "natural", float(ratio), labels)


def is_labelled(labels):
    """Bool (N,): the image has its label; with several labels, all of them (a probe cannot train on a missing one)."""
    return (labels >= 0).all(1) if labels.ndim == 2 else labels >= 0


# --- label budgets ----------------------------------------------------------------------------------------------------

def label_budget(labels, fraction, seed, groups=None):
    """Positions of a share of the labelled images, sorted int64; per class max(1, round(fraction · n_c)), or, where
    `fraction` is above 1, that many images of each class.

    groups (N,): whole groups are taken in one seeded order, for all classes the same; in each class the group that
    reaches the class's count is cut. Counts come first: a class rare in the first groups takes images of later ones.
    Labels (N, L): round(fraction · N) images by iterative stratification, and at least one positive per label.
    """
    labels = np.asarray(labels, np.int64)
    if fraction <= 0 or fraction > 1 and fraction != int(fraction):
        raise ValueError(f"a budget is a share above 0 and up to 1, or a number of images per class, not {fraction:g}")
    if fraction > 1:
        return shots(labels, int(fraction), seed, groups)
    if labels.ndim == 2:
        return multilabel_budget(labels, fraction, seed, groups)
    members = class_queues(labels, seed, groups)
    return np.sort(np.concatenate([m[:max(1, round(fraction * len(m)))] for m in members]))


def shots(labels, n, seed, groups=None):
    """Positions of `n` images of each class, sorted int64, in the order of `label_budget`; ValueError for too few."""
    members = class_queues(single_labels(labels), seed, groups)
    fewest = min(map(len, members))
    if fewest < n:
        raise ValueError(f"a budget of {n} images per class: class {[*map(len, members)].index(fewest)} has {fewest}")
    return np.sort(np.concatenate([m[:n] for m in members]))


def class_queues(labels, seed, groups):
    """Positions of each class in the order in which budgets take them, whole groups one after the other."""
    ranks = np.zeros(len(labels), int) if groups is None else group_ranks(labels, np.asarray(groups), seed)
    members = [class_permutation(labels, c, seed) for c in range(labels.max(initial=-1) + 1)]
    return [np.zeros(0, np.int64)] * (not members) + [m[np.argsort(ranks[m], kind="stable")] for m in members]


def group_ranks(labels, groups, seed):
    """Per image the rank of its group in a seeded order of the groups that hold labels (−1: it holds none)."""
    known, place = np.unique(groups[labels >= 0], return_inverse=True)
    ranks = np.full(len(labels), -1)
    ranks[labels >= 0] = stream(seed, 0, 1).permutation(len(known))[place]
    return ranks


def multilabel_budget(labels, fraction, seed, groups=None):
    """One positive of each label, then a prefix of a stratified order of the groups (of the images, without groups)."""
    rows = np.flatnonzero(is_labelled(labels))
    rows = stream(seed, 0, 3).permutation(rows)
    positive = labels[rows] == 1
    first = []  # rarest label first: its image may carry others
    for label in np.argsort(positive.sum(0), kind="stable"):
        if positive[:, label].any() and not positive[first, label].any():
            first.append(int(positive[:, label].argmax()))
    chosen, rest = rows[first], np.delete(rows, first)
    n = max(1, round(fraction * len(rows))) - len(first)
    if n <= 0:
        return np.sort(chosen)
    item = np.unique(rest if groups is None else np.asarray(groups)[rest], return_inverse=True)[1]
    holds = np.zeros((item.max() + 1, labels.shape[1]), bool)
    np.logical_or.at(holds, item, labels[rest] == 1)
    taken = stratified_prefix(holds, np.bincount(item), n, seed)
    place = np.full(len(holds), len(taken))
    place[taken] = np.arange(len(taken))
    return np.sort(np.concatenate([chosen, rest[np.argsort(place[item], kind="stable")][:n]]))


# --- many, medium, few ------------------------------------------------------------------------------------------------

def frequency_groups(order, rule="official"):
    """"many", "medium" or "few" for each class, a tuple (C,); two classes are many and few.

    "official" (SDCLR): the rarest third are few, the next third medium, the rest many: 4/3/3 and 34/33/33.
    "thesis" (LoTaR): the rest is medium: 3/4/3 and 33/34/33.
    """
    if rule not in ("official", "thesis"):
        raise ValueError(f"rule {rule!r}: choose official or thesis")
    n, third = len(order), len(order) // 3
    sizes = (n - 2 * third, third, third) if rule == "official" else (third, n - 2 * third, third)
    if n < 3:
        sizes = (min(n, 1), 0, max(n - 1, 0))
    by_rank = np.repeat(("many", "medium", "few"), sizes)
    names = np.empty(n, by_rank.dtype)
    names[np.asarray(order, np.int64)] = by_rank
    return tuple(names.tolist())
