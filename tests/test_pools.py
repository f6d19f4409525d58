"""Pools: no group on both sides, the same test set whatever the split, and every loss of images said."""

import itertools

import numpy as np
import pytest

from ssl_core.data.images import ImageSet
from ssl_core.data.pools import pools


def world(n=1200, n_classes=4, n_groups=60, unlabelled=0.4, official=False, multilabel=False, grouped=True, seed=0):
    """Tiny images on groups of uneven size; `unlabelled` of them without a label, in every group."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(n_classes, n, p=np.arange(n_classes, 0, -1) / sum(range(n_classes + 1)))
    if multilabel:
        labels = (rng.random((n, n_classes)) < np.geomspace(0.4, 0.03, n_classes)).astype(np.int64)
    labels[rng.random(n) < unlabelled] = -1
    groups = rng.choice(n_groups, n, p=rng.dirichlet(np.full(n_groups, 3.0)))
    part = np.full(n, "")
    if official:
        part = np.where(groups % 5 == 0, "test", np.where(groups % 5 == 1, "val", "train"))
    return ImageSet(name="made", images=rng.integers(0, 256, (n, 1, 4, 4), np.uint8), labels=labels,
                    classes=tuple("abcdefgh"[:n_classes]), groups=groups if grouped else None, part=part,
                    task="multilabel" if multilabel else "multiclass")


def groups_of(data, positions):
    return set(data.groups[positions].tolist())


def named(p):
    return {name: getattr(p, name) for name in ("unlabelled", "labelled", "val", "test")}


OPTIONS = [dict(zip(("split_kind", "label_pool", "overlap", "val_fraction"), values)) for values in itertools.product(
    ("long_tail", "balanced", "natural"), ("balanced", "natural", "as_pretrain"), (True, False), (0.0, 0.2))]


@pytest.mark.parametrize("official, grouped", [(False, True), (True, True), (False, False), (True, False)])
def test_pools_are_disjoint_by_image_and_by_group(official, grouped):
    data = world(official=official, grouped=grouped)
    for options in OPTIONS:
        if options["label_pool"] == "as_pretrain" and not options["overlap"] and options["split_kind"] != "natural":
            with pytest.raises(ValueError, match="no image is left for pretraining"):
                pools(data, ratio=5, **options)
            continue
        try:
            p = pools(data, ratio=5, **options)
        except ValueError as error:  # without overlap, labels may reach into every group
            assert "no image is left" in str(error) and not options["overlap"]
            continue
        members = named(p)
        for positions in members.values():
            assert positions.dtype == np.int64 and (np.diff(positions) > 0).all()
        for a, b in itertools.combinations(members, 2):
            if {a, b} == {"unlabelled", "labelled"} and options["overlap"]:
                continue
            assert not groups_of(data, members[a]) & groups_of(data, members[b]), (options, a, b)
        for name in ("labelled", "val", "test"):
            assert (data.labels[members[name]] >= 0).all()
        assert len(p.test) and bool(len(p.val)) == (official or options["val_fraction"] > 0)


def test_a_test_group_leaves_pretraining_with_its_unlabelled_images():
    data = world()
    p = pools(data, "natural", label_pool="natural")
    without = np.flatnonzero(data.labels < 0)
    in_test_groups = np.isin(data.groups[without], data.groups[p.test])
    assert in_test_groups.sum() > 20
    assert not np.isin(without[in_test_groups], p.unlabelled).any()
    assert np.isin(without[~in_test_groups], p.unlabelled).all()


def test_official_parts_lose_what_shares_a_group_with_them():
    data = world(official=True)
    part = data.part.copy()
    moved = np.flatnonzero(part == "test")[:7]
    part[moved] = "train"
    leaky = ImageSet(name="leaky", images=data.images, labels=data.labels, classes=data.classes, groups=data.groups,
                     part=part)
    p = pools(leaky, "natural", label_pool="natural")
    assert not np.isin(moved, p.unlabelled).any() and not np.isin(moved, p.test).any()
    assert any(note.startswith("7 images outside the official test part share a group") for note in p.notes)


def test_test_and_val_do_not_depend_on_the_split():
    data = world(n=3000, unlabelled=0.1)
    base = pools(data, ratio=2, val_fraction=0.1)
    for options in (dict(ratio=30), dict(draw_seed=5), dict(order_seed=3), dict(twin="same_n"),
                    dict(split_kind="natural"), dict(label_pool="natural")):
        p = pools(data, **{"ratio": 2, "val_fraction": 0.1} | options)
        assert (p.test == base.test).all() and (p.val == base.val).all()
        if p.label_pool == "balanced":  # nor do the labels that budgets are drawn from
            assert (p.labelled == base.labelled).all()
    assert (pools(data, ratio=2).test == base.test).all()  # asking for val leaves test alone
    assert not np.array_equal(pools(data, ratio=2, part_seed=1).test, base.test)


def test_the_test_part_is_stratified_as_far_as_groups_allow():
    data = world(n=4000, n_groups=150, unlabelled=0.2)
    for fraction in (0.1, 0.2, 0.35):
        p = pools(data, "natural", test_fraction=fraction)
        share = np.bincount(data.labels[p.test]) / data.counts()
        assert np.abs(share - fraction).max() < 0.02
    ungrouped = world(n=4000, unlabelled=0.2, grouped=False)
    test = pools(ungrouped, "natural", test_fraction=0.2).test
    assert np.bincount(ungrouped.labels[test]).tolist() == [round(0.2 * n) for n in ungrouped.counts()]


def test_a_class_of_one_group_stays_in_training_and_is_named():
    data = world(n=600, n_classes=3, n_groups=20)
    labels, groups = data.labels.copy(), data.groups.copy()
    labels[:6], groups[:6] = 3, 20  # class d: one patient
    rare = ImageSet(name="rare", images=data.images, labels=labels, classes=("a", "b", "c", "d"), groups=groups)
    p = pools(rare, "natural", label_pool="natural")
    assert set(range(6)) <= set(p.labelled) and any("none of 'd'" in note for note in p.notes)
    labels[1:6] = 0
    single = ImageSet(name="single", images=data.images, labels=labels, classes=("a", "b", "c", "d"))
    assert 0 in pools(single, "natural", label_pool="natural").labelled


def test_a_class_of_two_groups_is_in_training_and_in_test():
    data = world(n=600, n_classes=3, n_groups=20)
    labels, groups = data.labels.copy(), data.groups.copy()
    labels[:6], groups[:6] = 3, [20, 20, 20, 21, 21, 21]
    two = ImageSet(name="two", images=data.images, labels=labels, classes=("a", "b", "c", "d"), groups=groups)
    for part_seed in range(10):
        p = pools(two, "natural", label_pool="natural", part_seed=part_seed)
        assert (labels[p.test] == 3).sum() == (labels[p.labelled] == 3).sum() == 3


def test_multilabel_pools_are_natural():
    data = world(n=2000, multilabel=True, n_classes=5)
    p = pools(data, "natural", label_pool="natural")
    share = data.labels[p.test].sum(0) / (data.labels == 1).sum(0)
    assert np.abs(share - 0.2).max() < 0.03
    assert not groups_of(data, p.test) & groups_of(data, p.unlabelled)
    for options in (dict(split_kind="long_tail", label_pool="natural"), dict(split_kind="natural")):
        with pytest.raises(ValueError, match="one label per image is needed"):
            pools(data, **options)


def test_split_positions_are_positions_in_the_data():
    data = world()
    p = pools(data, ratio=10)
    assert (p.unlabelled == p.split.indices).all() and (data.labels[p.unlabelled] == p.split.labels).all()
    twin = pools(data, ratio=10, twin="same_n")
    assert len(twin.unlabelled) == len(p.unlabelled) and np.ptp(twin.split.counts) <= 1
    assert np.ptp(np.bincount(data.labels[p.labelled])) == 0  # class-balanced labels
    assert (pools(data, ratio=10, label_pool="as_pretrain").labelled == p.unlabelled).all()


def test_without_overlap_the_cost_is_said():
    data = world(n=2000, n_groups=400, unlabelled=0.9)
    p = pools(data, "natural", label_pool="balanced", overlap=False)
    whole = pools(data, "natural", label_pool="balanced")
    gone = len(whole.unlabelled) - len(p.unlabelled)
    assert gone > len(p.labelled)
    assert f"Without overlap {gone:,} of {len(whole.unlabelled):,} images leave pretraining" in p.notes[-1]


def test_the_fingerprint_follows_every_pool():
    data = world()
    prints = [pools(data, **options).fingerprint for options in (
        {}, dict(ratio=5), dict(draw_seed=1), dict(order_seed=1), dict(label_pool="natural"), dict(part_seed=1),
        dict(val_fraction=0.1))]
    assert len(set(prints)) == len(prints) and pools(data).fingerprint == prints[0]
    assert pools(world(seed=1)).fingerprint != prints[0]


@pytest.mark.parametrize("options, words", [
    (dict(split_kind="longtail"), "choose long_tail, category_ratio, balanced, natural"),
    (dict(split_kind="balanced", total=50), "a balanced split of 50 images in all: give a multiple of"),
    (dict(split_kind="natural", n_max=50), "a natural split takes no n_max"),
    (dict(split_kind="category_ratio"), "needs `total`"),
    (dict(label_pool="all"), "choose balanced, natural or as_pretrain"),
    (dict(twin="same_size"), "choose same_n or same_head"),
    (dict(n_max=5000), "5000 images of class"),
])
def test_messages(options, words):
    with pytest.raises(ValueError, match=words) as error:
        pools(world(), **options)
    assert "\n" not in str(error.value)


def test_a_class_without_training_images_is_named():
    data = world(n_classes=3)
    more = ImageSet(name="more", images=data.images, labels=data.labels, classes=("a", "b", "c", "HSIL"),
                    groups=data.groups)
    with pytest.raises(ValueError, match="no image of 'HSIL'"):
        pools(more)
    with pytest.raises(ValueError, match="no image of 'HSIL'"):
        pools(more, "natural")
    assert pools(more, "natural", label_pool="natural").split.counts[3] == 0
