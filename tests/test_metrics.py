"""Point values against closed forms and scikit-learn; thresholds; what degenerate predictions and labels give."""

import numpy as np
import pytest
from sklearn import metrics as sk

from ssl_core.evaluate import weighted
from ssl_core.evaluate.metrics import (
    Predictions,
    by_group,
    fix_thresholds,
    metric_rows,
    metric_values,
    threshold_at_specificity,
)


def draw(counts=(60, 30, 15, 8), seed=0, decimals=2, **more):
    """Noisy scores with ties (rounded to `decimals`) of images whose classes have these counts."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    z = rng.normal(size=(len(y), len(counts)))
    z[np.arange(len(y)), y] += 1.2
    p = np.round(np.exp(z) / np.exp(z).sum(1, keepdims=True), decimals) + 1e-3
    return Predictions(p / p.sum(1, keepdims=True), y, tuple(f"c{i}" for i in range(len(counts))), **more)


def draw_labels(n=150, prevalence=(0.5, 0.2, 0.06), seed=0, **more):
    rng = np.random.default_rng(seed)
    y = (rng.random((n, len(prevalence))) < prevalence).astype(int)
    p = np.round(1 / (1 + np.exp(-rng.normal(size=y.shape) - 2 * y + 1)), 2)
    y[rng.random(y.shape) < 0.15] = -1
    return Predictions(p, y, tuple("abcdefg"[:len(prevalence)]), task="multilabel", **more)


@pytest.mark.parametrize("weighting", ["ones", "integers"])
@pytest.mark.parametrize("counts", [(60, 30, 15, 8), (80, 40)])
def test_both_kits_equal_scikit_learn(counts, weighting):
    test = draw(counts, ordered=True, task="binary" if len(counts) == 2 else "multiclass",
                frequency=("many", "few") * (len(counts) // 2), thresholds={"c1": {90: 0.5, 95: 0.7}})
    p, y, n = test.probabilities, test.labels, len(test.labels)
    w = np.ones(n) if weighting == "ones" else np.random.default_rng(1).integers(0, 4, n).astype(float)
    found = {key: value[0] for key, value in metric_values(test, weighted, w[:, None]).items()}
    guess, rare = p.argmax(1), y == len(counts) - 1
    expected = {
        "accuracy": sk.accuracy_score(y, guess, sample_weight=w),
        "balanced_accuracy": sk.balanced_accuracy_score(y, guess, sample_weight=w),
        "f1_macro": sk.f1_score(y, guess, average="macro", sample_weight=w),
        "matthews_corrcoef": sk.matthews_corrcoef(y, guess, sample_weight=w),
        "cohen_kappa_quadratic": sk.cohen_kappa_score(y, guess, weights="quadratic", sample_weight=w),
        "brier": sk.brier_score_loss(y, p if len(counts) > 2 else p[:, 1], sample_weight=w),
        "log_loss": sk.log_loss(y, p, sample_weight=w),
    }
    if len(counts) == 2:
        expected |= {
            "roc_auc": sk.roc_auc_score(y, p[:, 1], sample_weight=w),
            "average_precision": sk.average_precision_score(y, p[:, 1], sample_weight=w),
            "average_precision_chance": w[y == 1].sum() / w.sum(), "f1": sk.f1_score(y, guess, sample_weight=w),
            "sensitivity_at_specificity_95": sk.recall_score(y, p[:, 1] >= 0.7, sample_weight=w),
            "specificity_reached_95": sk.recall_score(y, p[:, 1] >= 0.7, sample_weight=w, pos_label=0),
        }
    else:
        key, column = ("class", "c3"), p[:, 3]
        assert found[*key, "roc_auc"] == pytest.approx(sk.roc_auc_score(rare, column, sample_weight=w), abs=1e-12)
        assert found[*key, "average_precision"] == pytest.approx(
            sk.average_precision_score(rare, column, sample_weight=w), abs=1e-12)
        assert found["all", "all", "roc_auc"] == pytest.approx(np.mean(
            [sk.roc_auc_score(y == c, p[:, c], sample_weight=w) for c in range(4)]), abs=1e-12)
    for name, value in expected.items():
        assert found["all", "all", name] == pytest.approx(value, abs=1e-12), name
    recalls = sk.recall_score(y, guess, average=None, sample_weight=w)
    assert [found["class", c, "recall"] for c in test.classes] == pytest.approx(list(recalls), abs=1e-12)
    assert found["frequency", "few", "recall"] == pytest.approx(recalls[1::2].mean(), abs=1e-12)
    if weighting == "ones":
        values = metric_values(test)
        assert list(values) == list(found)
        assert [float(v) for v in values.values()] == pytest.approx(list(found.values()), abs=1e-12)


def test_integer_weights_are_repetitions_also_where_scikit_learn_has_no_weights():
    test = draw(ordered=True)
    w = np.random.default_rng(2).integers(0, 3, len(test.labels))
    again = np.repeat(np.arange(len(w)), w)
    repeated = metric_values(Predictions(test.probabilities[again], test.labels[again], test.classes, ordered=True))
    found = metric_values(test, weighted, w[:, None].astype(float))
    assert [v[0] for v in found.values()] == pytest.approx(list(repeated.values()), abs=1e-12)


@pytest.mark.parametrize("kit", ["point", "weighted"])
def test_labels_are_binary_tasks_on_known_images_and_their_mean_skips_one_class_labels(kit):
    test = draw_labels(frequency=("many", "few", "few", "few"), prevalence=(0.5, 0.2, 0.1, 0.0))
    weights = (weighted, np.ones((150, 1))) if kit == "weighted" else ()
    found = {key: np.ravel(v)[0] for key, v in metric_values(test, *weights).items()}
    known = test.labels >= 0
    areas = [sk.roc_auc_score(test.labels[k, i], test.probabilities[k, i]) for i, k in enumerate(known.T[:3])]
    assert found["label", "b", "roc_auc"] == pytest.approx(areas[1], abs=1e-12)
    assert found["all", "all", "roc_auc"] == pytest.approx(np.mean(areas), abs=1e-12)
    assert found["frequency", "few", "roc_auc"] == pytest.approx(np.mean(areas[1:]), abs=1e-12)
    assert np.isnan(found["label", "d", "roc_auc"])
    hits = [sk.f1_score(test.labels[k, i], test.probabilities[k, i] > 0.5) for i, k in enumerate(known.T[:3])]
    assert found["all", "all", "f1_macro"] == pytest.approx(np.mean(hits), abs=1e-12)
    row = next(r for r in metric_rows(test) if (r["group"], r["metric"]) == ("b", "roc_auc"))
    assert (row["n"], row["n_positive"]) == (known[:, 1].sum(), (test.labels[:, 1] == 1).sum())


def test_calibration_error_equals_torchmetrics():
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    test = draw(decimals=6)
    theirs = multiclass_calibration_error(torch.tensor(test.probabilities), torch.tensor(test.labels), 4, n_bins=15)
    assert metric_values(test)["all", "all", "expected_calibration_error"] == pytest.approx(float(theirs), abs=1e-6)


def test_closed_forms():
    half = Predictions(np.full((4, 2), 0.5), np.array([0, 1, 0, 1]), ("no", "yes"), "binary")
    values = metric_values(half)
    assert values["all", "all", "brier"] == pytest.approx(0.25)
    assert values["all", "all", "log_loss"] == pytest.approx(np.log(2))
    assert values["all", "all", "roc_auc"] == values["all", "all", "average_precision"] == pytest.approx(0.5)
    third = Predictions(np.full((6, 3), 1 / 3), np.repeat([0, 1, 2], 2), ("a", "b", "c"))
    assert metric_values(third)["all", "all", "brier"] == pytest.approx(2 / 3)
    # grades 0, 1, 2 taken for 0, 1, 1: squared disagreement 1/3, by chance (2 + 1 + 4 + 2) / 9
    graded = Predictions(np.eye(3)[[0, 1, 1]], np.array([0, 1, 2]), ("a", "b", "c"), ordered=True)
    assert metric_values(graded)["all", "all", "cohen_kappa_quadratic"] == pytest.approx(2 / 3)


def test_a_constant_prediction_is_at_chance_everywhere():
    y = np.repeat([0, 1, 2], [50, 30, 20])
    values = metric_values(Predictions(np.tile([0.5, 0.3, 0.2], (100, 1)), y, ("a", "b", "c")))
    assert values["all", "all", "balanced_accuracy"] == pytest.approx(1 / 3)
    assert values["all", "all", "roc_auc"] == 0.5
    assert values["all", "all", "matthews_corrcoef"] == 0
    assert [values["class", c, "recall"] for c in "abc"] == [1, 0, 0]
    assert values["class", "c", "average_precision"] == values["class", "c", "average_precision_chance"] == 0.2


def test_a_class_that_the_test_set_lacks_is_nan_and_leaves_the_means():
    test = draw((30, 20, 10, 0))
    for kit in ((), (weighted, np.ones((60, 1)))):
        found = metric_values(test, *kit)
        assert np.isnan(found["class", "c3", "recall"]) and np.isnan(found["class", "c3", "roc_auc"])
        seen = np.mean([found["class", c, "recall"] for c in ("c0", "c1", "c2")])
        assert found["all", "all", "balanced_accuracy"] == pytest.approx(seen)


@pytest.mark.parametrize("target", [0.5, 0.9, 0.95])
def test_threshold_is_the_lowest_with_that_specificity(target):
    rng = np.random.default_rng(0)
    for n in (7, 20, 200):
        scores, y = np.round(rng.random(n), 2), rng.integers(0, 2, n)
        y[:2] = 0, 1
        t = threshold_at_specificity(scores, y, target)
        assert (scores[y == 0] < t).mean() >= target - 1e-12
        lower = scores[scores < t].max()
        assert (scores[y == 0] < lower).mean() < target
    assert np.isnan(threshold_at_specificity(scores, np.zeros(n), target))


def test_thresholds_come_from_selection_data_and_skip_what_is_unknown():
    selection = draw_labels(400, seed=1)
    p = selection.probabilities.copy()
    p[:10, 0] = np.nan
    fixed = fix_thresholds(p, selection.labels, selection.classes, "multilabel")
    test = draw_labels(400, seed=2, thresholds=fixed)
    rows = {(r["group"], r["metric"]): r for r in metric_rows(test) if r["group_kind"] == "label"}
    row = rows["a", "sensitivity_at_specificity_90"]
    known = test.labels[:, 0] == 1
    assert row["threshold"] == fixed["a"][90]
    assert row["value"] == (test.probabilities[known, 0] >= fixed["a"][90]).mean()
    assert rows["a", "specificity_reached_90"]["value"] != 0.9
    assert fix_thresholds(None, selection.labels, selection.classes, "multilabel") == {}


def test_by_group_averages_scores_and_needs_one_label_in_each_group():
    p = np.array([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8]])
    test = Predictions(p, np.array([0, 0, 1]), ("a", "b"), "binary", groups=np.array([7, 7, 3]))
    slides = by_group(test)
    assert slides.probabilities == pytest.approx(np.array([[0.2, 0.8], [0.6, 0.4]]))
    assert slides.labels.tolist() == [1, 0]
    assert {r["part"] for r in metric_rows(slides, "test_by_group")} == {"test_by_group"}
    mixed = Predictions(p, np.array([0, 1, 1]), ("a", "b"), "binary", groups=np.array([7, 7, 3]))
    assert by_group(mixed) is None and by_group(Predictions(p, test.labels, ("a", "b"))) is None


@pytest.mark.parametrize("change, says", [
    ({"probabilities": np.full((3, 2), 2.0)}, "softmax or sigmoid"),
    ({"probabilities": np.full((3, 2), 0.4)}, "sum to 1"),
    ({"probabilities": np.full((3, 2), np.nan)}, "look for NaN"),
    ({"labels": np.array([0, 1, -1])}, "leave images without a label out"),
    ({"labels": np.array([0, 1])}, "one row for each image"),
    ({"groups": np.array([0, 1])}, "one for each image"),
    ({"frequency": ("many",)}, "give one each"),
    ({"task": "regression"}, "use multiclass"),
])
def test_bad_input_is_named_in_one_line(change, says):
    good = {"probabilities": np.full((3, 2), 0.5), "labels": np.array([0, 1, 1]), "classes": ("a", "b")}
    with pytest.raises(ValueError, match=says) as error:
        Predictions(**good | change)
    assert "\n" not in str(error.value)
