"""Splits: counts in closed form, nesting by construction, twins, budgets, and messages that hold the numbers."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from ssl_core.data.splits import (
    balanced_split,
    category_ratio_split,
    class_order,
    counts_of_total,
    frequency_groups,
    label_budget,
    long_tail_counts,
    long_tail_split,
    natural_split,
)

FINGERPRINT = "1be7aedd60a9644551cefc1ad5bd95e3315aa95708c360f8e4ef0130d2aa7378"


def balanced_labels(per_class=600, n_classes=10, unlabelled=0, seed=0):
    labels = np.r_[np.repeat(np.arange(n_classes), per_class), np.full(unlabelled, -1)]
    return np.random.default_rng(seed).permutation(labels)


def rare_labels(n=4000, n_labels=8, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((n, n_labels)) < np.geomspace(0.4, 0.005, n_labels)).astype(np.int64)


# --- counts -----------------------------------------------------------------------------------------------------------

def test_published_counts():
    assert long_tail_counts(5000, 10, 100) == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert sum(long_tail_counts(500, 100, 100)) == 10_847
    assert sum(long_tail_counts(4500, 10, 100)) == 11_165
    assert sum(long_tail_counts(450, 100, 100)) == 9_754
    assert long_tail_counts(600, 10, 50) == [600, 388, 251, 162, 105, 68, 44, 28, 18, 12]


@pytest.mark.parametrize("base, n_classes", list(itertools.product([2, 3, 5, 7, 10], [2, 3, 4, 5, 6])))
def test_whole_powers_are_not_lost_to_rounding(base, n_classes):
    ratio = base ** (n_classes - 1)  # each class is 1/base of the one before: whole numbers, exactly
    for factor in (1, 3, 7):
        expected = [factor * base ** (n_classes - 1 - i) for i in range(n_classes)]
        assert long_tail_counts(factor * ratio, n_classes, ratio) == expected


def test_counts_are_the_exact_floor():
    """k = floor(n·ρ^(−i/(C−1))) means k^(C−1)·ρ^i ≤ n^(C−1) < (k+1)^(C−1)·ρ^i, in whole numbers."""
    rng = np.random.default_rng(1)
    for _ in range(40):
        n, n_classes, ratio = int(rng.integers(20, 9000)), int(rng.integers(2, 30)), int(rng.integers(1, 400))
        for i, k in enumerate(long_tail_counts(n, n_classes, ratio)):
            power = n_classes - 1
            assert n**power < (k + 1) ** power * ratio**i
            assert k == 1 or k**power * ratio**i <= n**power


def test_the_tail_keeps_one_image():
    assert long_tail_counts(10, 4, 1000)[-1] == 1
    assert long_tail_counts(7, 1, 100) == [7]


def test_counts_of_a_total_are_exact_and_descend():
    for total, n_classes, ratio in [(1000, 10, 100), (1000, 10, 1), (13, 10, 50), (10_847, 100, 100), (999, 7, 3.3)]:
        counts = counts_of_total(total, n_classes, ratio)
        assert sum(counts) == total and counts == sorted(counts, reverse=True) and min(counts) >= 1


# --- splits -----------------------------------------------------------------------------------------------------------

def test_forty_random_splits_keep_their_promises():
    rng = np.random.default_rng(2)
    for _ in range(40):
        n_classes, seed = int(rng.integers(2, 8)), int(rng.integers(0, 1000))
        labels = rng.integers(-1, n_classes, int(rng.integers(200, 900)))
        ratio = float(rng.uniform(1, 60))
        split = long_tail_split(labels, ratio, seed)
        expected = long_tail_counts(np.bincount(labels[labels >= 0]).min(), n_classes, ratio)
        assert split.counts[split.order].tolist() == expected
        assert split.indices.dtype == np.int64 and (np.diff(split.indices) > 0).all()
        assert (labels[split.indices] == split.labels).all() and split.labels.min() >= 0
        assert np.bincount(split.labels, minlength=n_classes).tolist() == split.counts.tolist()
        assert split.fingerprint == long_tail_split(labels, ratio, seed).fingerprint
        fraction = float(rng.uniform(0.01, 1))
        budget = label_budget(labels, fraction, seed, groups=rng.integers(0, 40, len(labels)))
        for c in range(n_classes):
            assert (labels[budget] == c).sum() == max(1, round(fraction * (labels == c).sum()))


def test_ratios_nest_class_by_class():
    labels = balanced_labels()
    splits = [long_tail_split(labels, ratio, seed=3) for ratio in (100, 50, 10, 2, 1)]
    for small, large in itertools.pairwise(splits):
        assert set(small.indices) < set(large.indices)


def test_a_head_class_is_the_same_images_whatever_the_order():
    labels = balanced_labels()
    a = long_tail_split(labels, 100, 0, order=np.arange(10))
    b = long_tail_split(labels, 100, 0, order=np.arange(10)[::-1])
    for c in range(10):
        few, more = sorted([set(a.indices[a.labels == c]), set(b.indices[b.labels == c])], key=len)
        assert few <= more


def test_unlabelled_images_and_other_classes_do_not_move_a_draw():
    labels = balanced_labels(50, 4)
    with_unlabelled = np.r_[labels, np.full(100, -1)]
    assert long_tail_split(labels, 10, 0).fingerprint == long_tail_split(with_unlabelled, 10, 0).fingerprint
    merged = np.where(labels == 3, 2, labels)
    a, b = (long_tail_split(y, 10, 0, n_max=20, order=np.arange(y.max() + 1)) for y in (labels, merged))
    assert (a.indices[a.labels == 0] == b.indices[b.labels == 0]).all()


def test_default_order_is_permuted_by_the_seed_and_natural_on_request():
    labels = balanced_labels(20, 10)
    orders = {tuple(long_tail_split(labels, 10, seed).order.tolist()) for seed in range(6)}
    assert len(orders) == 6
    assert class_order(5, -1).tolist() == class_order(5, None).tolist() == [0, 1, 2, 3, 4]
    heads = [class_order(4, seed)[0] for seed in range(200)]
    assert np.bincount(heads, minlength=4).min() > 25  # each class is the head sometimes


def test_the_same_split_in_another_process():
    code = ("import numpy as np, sys; from ssl_core.data.splits import long_tail_split; "
            "print(long_tail_split(np.arange(2000) % 10, 20, 7).fingerprint); "
            "print(sorted({'torch', 'sklearn', 'iterstrat'} & set(sys.modules)))")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert out[0] == FINGERPRINT == long_tail_split(np.arange(2000) % 10, 20, 7).fingerprint
    assert out[1] == "[]"  # a split needs numpy alone


def test_constant_total_over_ratios():
    labels = balanced_labels(300, 10)
    assert {len(long_tail_split(labels, ratio, 0, total=700)) for ratio in (1, 10, 100)} == {700}


def test_category_ratio_counts():
    labels = np.r_[np.zeros(90_000, int), np.ones(41_000, int)]
    for ratio, positives in [(1, 40_000), (100, 792), (1000, 80), (10_000, 8)]:
        split = category_ratio_split(labels, ratio, 80_000, seed=0)
        assert split.counts.tolist() == [80_000 - positives, positives] and split.order.tolist() == [0, 1]
    rare = category_ratio_split(labels, 10_000, 80_000, seed=0)
    more = category_ratio_split(labels, 100, 80_000, seed=0)
    assert set(rare.indices[rare.labels == 1]) < set(more.indices[more.labels == 1])
    assert category_ratio_split(1 - labels, 100, 80_000, seed=0, positive=0).counts.tolist() == [792, 79_208]


def test_twins():
    labels = balanced_labels(600, 10)
    split = long_tail_split(labels, 100, seed=1)
    same_n, same_head = split.twin(), split.twin("same_head")
    assert len(same_n) == len(split) and np.ptp(same_n.counts) <= 1
    remainder = len(split) % 10
    assert (same_n.counts[split.order[:remainder]] == same_n.counts.max()).all()
    assert set(same_head.counts) == {600} and (same_n.order == split.order).all()
    for c in range(10):  # a twin takes the prefix too
        few, more = sorted((set(s.indices[s.labels == c]) for s in (split, same_n)), key=len)
        assert few <= more


def test_balanced_and_natural():
    labels = np.r_[np.zeros(50, int), np.ones(9, int), np.full(30, 2), np.full(11, -1)]
    assert balanced_split(labels, 0).counts.tolist() == [9, 9, 9]
    assert set(balanced_split(labels, 0, per_class=4).indices) < set(balanced_split(labels, 0).indices)
    natural = natural_split(labels)
    assert natural.indices.tolist() == list(range(89)) and natural.order.tolist() == [0, 2, 1]
    assert natural_split(labels, n_classes=5).counts.tolist() == [50, 9, 30, 0, 0]
    assert natural_split(rare_labels()).order.tolist() == list(range(8))
    assert len(natural_split(np.full(5, -1))) == 0


@pytest.mark.parametrize("make, words", [
    (lambda y: long_tail_split(y, 10, 0, n_max=61, order=np.arange(10)), "61 images of class 0 are needed"),
    (lambda y: long_tail_split(y, 10, 0, n_max=5, total=20), "n_max 5 and total 20"),
    (lambda y: long_tail_split(y, 10, 0, order=[0, 0, 1]), r"order \[0, 0, 1\] must name each of the 10"),
    (lambda y: long_tail_split(y, 0.5, 0), "ratio 0.5"),
    (lambda y: long_tail_split(y, 10, 0, total=9), "9 images cannot hold 10 classes"),
    (lambda y: category_ratio_split(y, 10, 100, 0), "here are 10"),
    (lambda y: category_ratio_split(y % 2, 99, 400, 0), "1:99: 396 images of class 0 are needed, there are 300"),
    (lambda y: category_ratio_split(y % 2, 1000, 100, 0), "1:1000 hold no positive; 1001 would"),
    (lambda y: category_ratio_split(np.c_[y, y], 10, 100, 0), "make a binary view"),
    (lambda y: balanced_split(np.array([0, 2, 2]), 0), "0 images per class is empty"),
    (lambda y: long_tail_split(y, 2, 0, n_max=60).twin("same_size"), "choose same_n or same_head"),
    (lambda y: category_ratio_split(np.r_[np.zeros(99, int), 1], 99, 100, 0).twin(), "50 images of class 1 are needed"),
    (lambda y: label_budget(y, 0, 0), "above 0 and up to 1, or a number of images per class, not 0"),
    (lambda y: frequency_groups(range(10), "paper"), "choose official or thesis"),
])
def test_messages_hold_the_numbers(make, words):
    with pytest.raises(ValueError, match=words) as error:
        make(balanced_labels(60, 10))
    assert "\n" not in str(error.value)


# --- budgets ----------------------------------------------------------------------------------------------------------

FRACTIONS = (0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.8, 0.93, 1)


@pytest.mark.parametrize("labels", [balanced_labels(70, 6, 200), rare_labels(2000)], ids=["single", "multilabel"])
@pytest.mark.parametrize("grouped", [False, True])
def test_budgets_nest_and_end_with_every_label(labels, grouped):
    groups = np.random.default_rng(5).integers(0, 60, len(labels)) if grouped else None
    budgets = [set(label_budget(labels, f, 4, groups).tolist()) for f in FRACTIONS]
    for small, large in itertools.pairwise(budgets):
        assert small < large
    known = labels >= 0 if labels.ndim == 1 else (labels >= 0).all(1)
    assert budgets[-1] == set(np.flatnonzero(known).tolist())


def test_budgets_differ_by_seed():
    labels = balanced_labels(100, 5)
    assert set(label_budget(labels, 0.05, 0)) != set(label_budget(labels, 0.05, 1))


def test_a_budget_by_group_takes_few_groups():
    labels = balanced_labels(300, 3)
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(90), 10))
    by_group = label_budget(labels, 0.1, 0, groups)
    assert len(np.unique(groups[by_group])) <= 15 < 50 < len(np.unique(groups[label_budget(labels, 0.1, 0)]))
    whole = [set(np.flatnonzero(groups == g)) <= set(by_group) for g in np.unique(groups[by_group])]
    assert sum(whole) >= 5


def test_multilabel_budgets_are_stratified():
    labels = rare_labels()
    for fraction in (0.05, 0.1, 0.5):
        budget = label_budget(labels, fraction, 0)
        assert len(budget) == round(fraction * len(labels))
        positives = labels[budget].sum(0)
        assert np.abs(positives - fraction * labels.sum(0)).max() <= 3 and positives.min() >= 1
    smallest = label_budget(labels, 0.0003, 0)
    assert labels[smallest].sum(0).min() >= 1 and len(smallest) <= labels.shape[1]


def test_a_missing_label_among_several_is_not_drawn():
    labels = rare_labels(400)
    labels[::3, 2] = -1
    assert (labels[label_budget(labels, 1, 0)] >= 0).all()


# --- many, medium, few ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("n, rule, sizes", [
    (10, "official", (4, 3, 3)), (100, "official", (34, 33, 33)), (10, "thesis", (3, 4, 3)),
    (100, "thesis", (33, 34, 33)), (3, "official", (1, 1, 1)), (2, "official", (1, 0, 1)), (1, "thesis", (1, 0, 0)),
])
def test_frequency_groups(n, rule, sizes):
    order = class_order(n, 3)
    names = frequency_groups(order, rule)
    assert tuple(names.count(g) for g in ("many", "medium", "few")) == sizes
    by_rank = [names[c] for c in order]
    assert by_rank == sorted(by_rank, key=("many", "medium", "few").index)
