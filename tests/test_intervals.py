"""Intervals over test images: how often they hold the truth, what they are over, and when there is none."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from ssl_core.evaluate import weighted
from ssl_core.evaluate.intervals import paired_draws, paired_interval, resample, wilson, wilson_mean, with_intervals
from ssl_core.evaluate.metrics import Predictions, metric_rows, metric_values


def draw(counts, seed, separation=1.5, n_groups=0, group_effect=0.0, pure=False, **more):
    """Noisy scores of images with these class counts; a group shifts the scores of all its images.

    pure: all images of a group are of one class, as of patients with one diagnosis.
    """
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(counts)), counts)
    z = rng.normal(size=(len(y), len(counts)))
    z[np.arange(len(y)), y] += separation
    groups = None
    if n_groups:
        groups = rng.integers(n_groups, size=len(y))
        groups = groups - groups % len(counts) + y if pure else groups
        z += group_effect * rng.normal(size=(n_groups, len(counts)))[groups]
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    task = "binary" if len(counts) == 2 else "multiclass"
    return Predictions(p, y, tuple(f"c{i}" for i in range(len(counts))), task, groups, **more)


def rows_of(test, seed=0, resamples=200, part="test"):
    rows = with_intervals(metric_rows(test, part), test, seed, resamples)
    return {(r["group_kind"], r["group"], r["metric"]): r for r in rows}


def coverage(counts, keys, repeats=200, resamples=200, **how):
    """The share of test sets whose interval holds the value of a test set 200 times as large."""
    large = {**how, "n_groups": how.get("n_groups", 0) * 200}
    truth, inside = metric_values(draw(np.array(counts) * 200, 10**6, **large)), {key: [] for key in keys}
    for seed in range(repeats):
        rows = rows_of(draw(counts, seed, **how), seed, resamples)
        for key in keys:
            if rows[key]["interval"]:  # a perfect score has none
                inside[key].append(rows[key]["low"] <= truth[key] <= rows[key]["high"])
    return {key[-1]: np.mean(found) for key, found in inside.items()}


def overall(*metrics):
    return [("all", "all", metric) for metric in metrics]


def test_coverage_of_independent_images():
    found = coverage([80] * 5, overall("accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "log_loss"))
    assert all(0.92 <= share <= 0.98 for share in found.values()), found


def test_coverage_with_ten_positives_where_percentiles_fail():
    keys = overall("balanced_accuracy", "roc_auc", "average_precision")
    found = coverage([100, 10], keys)
    assert all(share >= 0.92 for share in found.values()), found
    truth = metric_values(draw([20000, 2000], 10**6))["all", "all", "roc_auc"]
    inside = []
    for seed in range(200):
        test = draw([100, 10], seed)
        draws = np.concatenate([metric_values(test, weighted, w, "roc_auc")["all", "all", "roc_auc"]
                                for w in resample(test, seed, 200)])
        inside.append(np.quantile(draws, 0.025) <= truth <= np.quantile(draws, 0.975))
    assert np.mean(inside) < 0.90  # the plain percentile interval; ours is here for this reason


def test_coverage_and_width_on_groups():
    keys = overall("accuracy", "balanced_accuracy", "roc_auc")
    found = coverage([60, 60], keys, n_groups=10, group_effect=0.7)
    assert all(0.91 <= share <= 0.99 for share in found.values()), found
    test = draw([200, 200], 0, n_groups=40, group_effect=1.0, pure=True)
    grouped, alone = rows_of(test), rows_of(replace(test, groups=None))
    for key in keys:
        assert grouped[key]["interval"] == "clusters" and alone[key]["interval"] == "images"
        assert grouped[key]["high"] - grouped[key]["low"] > 1.3 * (alone[key]["high"] - alone[key]["low"])


def test_wilson_and_the_mean_of_shares():
    for hits, n in ((0, 7), (3, 7), (7, 7), (150, 200)):
        expected = binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert wilson_mean([0.3], [10]) == pytest.approx(wilson(0.3, 10))
    low, high = wilson_mean([1.0, 0.5], [4, 1000])
    assert low < 0.75 < high and 0.75 - low > 3 * (high - 0.75)  # four of four says little downwards


def test_too_few_positives_or_groups_have_no_interval():
    rare = rows_of(draw([100, 60, 5], 0))
    assert rare["class", "c2", "roc_auc"]["interval"] == rare["all", "all", "roc_auc"]["interval"] == "too few"
    assert rare["class", "c2", "roc_auc"]["low"] is None
    assert rare["class", "c2", "recall"]["interval"] == rare["all", "all", "balanced_accuracy"]["interval"] == "images"
    assert rare["class", "c0", "roc_auc"]["interval"] == "images"
    few = rows_of(draw([100, 100], 0, n_groups=7))
    assert {row["interval"] for row in few.values()} == {"too few", ""}
    assert few["all", "all", "accuracy"]["n_groups"] == 7


def test_no_interval_where_no_resample_changes_the_value():
    constant = Predictions(np.tile([0.5, 0.3, 0.2], (90, 1)), np.repeat([0, 1, 2], 30), ("a", "b", "c"))
    rows = rows_of(constant)
    assert rows["all", "all", "roc_auc"]["interval"] == rows["class", "a", "average_precision_chance"]["interval"] == ""
    perfect = rows_of(draw([40, 40], 0, separation=30))
    assert perfect["all", "all", "roc_auc"]["value"] == 1 and perfect["all", "all", "roc_auc"]["low"] is None
    assert perfect["all", "all", "balanced_accuracy"]["low"] < 1  # Wilson knows how much 80 of 80 says


def test_same_seed_same_bits_and_rows_in_blocks_are_complete(monkeypatch):
    test = draw([50, 30, 20], 0, frequency=("many", "medium", "few"))
    assert rows_of(test, seed=(1, 2)) == rows_of(test, seed=(1, 2)) != rows_of(test, seed=(1, 3))
    monkeypatch.setattr("ssl_core.evaluate.intervals.BLOCK", 700)
    weights = list(resample(test, 0, 20))
    assert [w.shape for w in weights] == [(100, 7), (100, 7), (100, 6)]
    for w in weights:  # within each class as many as there are
        assert [w[test.labels == c].sum(0).tolist() for c in range(3)] == [[n] * w.shape[1] for n in (50, 30, 20)]


def test_whole_groups_are_drawn():
    test = draw([50, 50], 0, n_groups=9)
    (w,) = resample(test, 0, 30)
    for g in range(9):
        assert (w[test.groups == g] == w[test.groups == g][0]).all()
    by_slide = draw([20, 20], 0)
    assert rows_of(by_slide, part="test_by_group")["all", "all", "accuracy"]["interval"] == "clusters"


def test_labels_of_a_multilabel_set():
    rng = np.random.default_rng(0)
    y = (rng.random((300, 3)) < (0.5, 0.2, 0.01)).astype(int)
    y[:30, 0] = -1
    p = 1 / (1 + np.exp(-rng.normal(size=y.shape) - 2 * y + 1))
    test = Predictions(p, y, ("a", "b", "c"), "multilabel", thresholds={"a": {90: 0.6, 95: 0.7}})
    rows = rows_of(test)
    assert rows["label", "c", "roc_auc"]["interval"] == rows["all", "all", "roc_auc"]["interval"] == "too few"
    row = rows["label", "a", "sensitivity_at_specificity_95"]
    assert (row["low"], row["high"]) == pytest.approx(wilson(row["value"], row["n_positive"]))
    row = rows["label", "a", "specificity_reached_95"]
    assert (row["low"], row["high"]) == pytest.approx(wilson(row["value"], row["n"] - row["n_positive"]))
    assert rows["label", "b", "roc_auc"]["low"] < rows["label", "b", "roc_auc"]["value"]


@pytest.mark.parametrize("n_groups", [0, 20])
def test_paired_differences_cover_and_are_narrower_than_unpaired_ones(n_groups):
    inside, widths = [], []

    def pair(seed, scale=1):
        test = draw(np.array([80, 80, 80]) * scale, seed, n_groups=n_groups * scale, group_effect=0.7)
        better = test.probabilities.copy()
        better[np.arange(len(better)), test.labels] *= np.random.default_rng((seed, 1)).choice([1, 3], len(better))
        return replace(test, probabilities=better / better.sum(1, keepdims=True)), test

    truth = paired_interval([pair(10**6, 200)], resamples=2)["value"]
    for seed in range(200):
        found = paired_interval([pair(seed)], seed=seed, resamples=200)
        inside.append(found["low"] <= truth <= found["high"])
        widths.append(found["high"] - found["low"])
    assert 0.92 <= np.mean(inside) <= 0.98
    each = [rows_of(test)["all", "all", "balanced_accuracy"] for test in pair(0)]
    assert np.mean(widths) < 0.8 * np.hypot(*(row["high"] - row["low"] for row in each))
    assert found["interval"] == ("clusters" if n_groups else "images")


def test_pairs_are_averaged_over_the_same_resamples():
    a, b, c = (draw([60, 60], 0), draw([60, 60], 1), draw([60, 60], 2))
    values, draws = paired_draws([(a, b), (c, b)], "roc_auc", seed=3, resamples=50)
    expected = [metric_values(x)["all", "all", "roc_auc"] - metric_values(b)["all", "all", "roc_auc"] for x in (a, c)]
    assert values == pytest.approx(expected)
    first, second = (paired_draws([(x, b)], "roc_auc", seed=3, resamples=50)[1] for x in (a, c))
    assert draws == pytest.approx((first + second) / 2)
    same = paired_interval([(a, a)])
    assert (same["value"], same["interval"]) == (0, "")
    with pytest.raises(ValueError, match="different test images"):
        paired_draws([(a, draw([61, 59], 0))])
