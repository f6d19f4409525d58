"""The numbers that the five published systems report, each against scikit-learn, numpy or a closed form."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import correlate1d
from sklearn import metrics as sk

from ssl_core.analysis import panel, tables
from ssl_core.data.splits import frequency_groups
from ssl_core.evaluate import weighted
from ssl_core.evaluate.intervals import resample, wilson, with_intervals
from ssl_core.evaluate.metrics import Predictions, metric_rows, metric_values
from ssl_core.table import COLUMNS


def draw(counts, seed=0, decimals=2, **more):
    """Noisy scores with ties of images whose classes have these counts."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    z = rng.normal(size=(len(y), len(counts)))
    z[np.arange(len(y)), y] += 1.2
    p = np.round(np.exp(z) / np.exp(z).sum(1, keepdims=True), decimals) + 1e-3
    task = "binary" if len(counts) == 2 else "multiclass"
    return Predictions(p / p.sum(1, keepdims=True), y, tuple(f"c{i}" for i in range(len(counts))), task, **more)


def overall(test, *weighting):
    return {name: np.ravel(v)[0] for (kind, _, name), v in metric_values(test, *weighting).items() if kind == "all"}


def rows_of(test, seed=0, resamples=200):
    return {(r["group_kind"], r["group"], r["metric"]): r
            for r in with_intervals(metric_rows(test), test, seed, resamples)}


def both_kits_equal(test, expected):
    """expected(sample_weight) → {metric: value} holds for the point values, and under any weights for the twins."""
    w = np.random.default_rng(1).integers(0, 4, len(test.labels)).astype(float)
    for weights, found in ((None, overall(test)), (w, overall(test, weighted, w[:, None]))):
        for name, value in expected(weights).items():
            assert found[name] == pytest.approx(value, abs=1e-12), name


def test_two_classes_have_sensitivity_specificity_precision_and_areas():
    """Row 50: at the score 0.5, which is argmax; recall is the sensitivity."""
    test = draw((90, 30))
    y, p, guess = test.labels, test.probabilities[:, 1], test.probabilities.argmax(1)
    both_kits_equal(test, lambda w: {
        "accuracy": sk.accuracy_score(y, guess, sample_weight=w), "recall": sk.recall_score(y, guess, sample_weight=w),
        "specificity": sk.recall_score(y, guess, sample_weight=w, pos_label=0),
        "precision": sk.precision_score(y, guess, sample_weight=w), "f1": sk.f1_score(y, guess, sample_weight=w),
        "roc_auc": sk.roc_auc_score(y, p, sample_weight=w),
        "average_precision": sk.average_precision_score(y, p, sample_weight=w)})
    rows = rows_of(test)
    for metric, n in (("recall", 30), ("specificity", 90), ("precision", guess.sum()), ("accuracy", 120)):
        row = rows["all", "all", metric]
        assert (row["n"], row["n_positive"]) == (n, 30)
        assert (row["low"], row["high"]) == pytest.approx(wilson(row["value"], n)), metric
    row = rows["all", "all", "balanced_accuracy"]
    assert row["n"] == 120 and row["low"] < row["value"] == np.mean(
        [rows["all", "all", name]["value"] for name in ("recall", "specificity")]) < row["high"]


def test_precision_without_a_positive_call_is_not_a_number():
    """Row 50: 0 of 0 is no share; specificity is 1 and recall 0."""
    test = Predictions(np.tile([0.7, 0.3], (20, 1)), np.repeat([0, 1], 10), ("neg", "pos"), "binary")
    for found in (overall(test), overall(test, weighted, np.ones((20, 1)))):
        assert np.isnan(found["precision"]) and (found["recall"], found["specificity"], found["f1"]) == (0, 1, 0)
    row = rows_of(test)["all", "all", "precision"]
    assert (row["n"], row["low"], row["interval"]) == (0, None, "")


def test_cross_entropy_is_the_mean_over_images_not_over_batches():
    """Row 51: 3,782 test images in batches of 64 would let the last six weigh as much as 64."""
    test = draw((60, 50, 29), decimals=6)
    y, p = test.labels, test.probabilities
    both_kits_equal(test, lambda w: {"accuracy": sk.accuracy_score(y, p.argmax(1), sample_weight=w),
                                     "log_loss": sk.log_loss(y, p, sample_weight=w)})
    loss = torch.nn.functional.cross_entropy(torch.tensor(np.log(p)), torch.tensor(y))
    assert overall(test)["log_loss"] == pytest.approx(float(loss), abs=1e-12)
    row = rows_of(test)["all", "all", "log_loss"]
    assert row["low"] < row["value"] < row["high"]


def results(values):
    """A results table of one arm on several splits: {split: (recalls by class, accuracy)}, each of two seeds."""
    rows = []
    for split, (recalls, accuracy) in values.items():
        for seed, shift in ((0, -0.01), (1, 0.01)):
            about = {"dataset": "d", "pretrain_dataset": "d", "arm": "simclr", "split_kind": "long_tail",
                     "ratio": 100.0, "twin": "none", "n_unlabelled": 1000, "protocol": "linear",
                     "label_pool": "balanced", "budget": 1.0, "layer": "", "draw_seed": split, "order_seed": split,
                     "seed": seed, "budget_seed": 0, "part": "test", "key": f"k{split}{seed}"}
            rows += [{**about, "group_kind": "class", "group": f"c{c}", "metric": "recall", "value": r + shift,
                      "n": 100} for c, r in enumerate(recalls)]
            rows.append({**about, "group_kind": "all", "group": "all", "metric": "accuracy", "value": accuracy + shift})
            rows.append({**about, "group_kind": "all", "group": "all", "metric": "log_loss", "value": 2 - accuracy})
    return pd.DataFrame(rows, columns=COLUMNS)


RECALLS = np.random.default_rng(0).uniform(0.2, 0.9, (3, 10))
ORDERS = [np.random.default_rng(s).permutation(10) for s in range(3)]


def test_many_medium_few_and_total_by_both_rules_with_both_kinds_of_std():
    """Row 52: 4/3/3 and 3/4/3; over splits (ddof 1, the thesis) and of the groups in a split (ddof 0, SDCLR)."""
    for n, official, thesis in ((10, (4, 3, 3), (3, 4, 3)), (100, (34, 33, 33), (33, 34, 33))):
        for rule, sizes in (("official", official), ("thesis", thesis)):
            names = frequency_groups(np.arange(n), rule)
            assert names == ("many",) * sizes[0] + ("medium",) * sizes[1] + ("few",) * sizes[2]
    table = results({s: (RECALLS[s], RECALLS[s].mean()) for s in range(3)})
    orders = {f"k{s}{seed}": [f"c{c}" for c in ORDERS[s]] for s in range(3) for seed in (0, 1)}
    found = tables.group_table(table, orders).set_index("rule")
    for rule, (many, few) in {"official": (4, 3), "thesis": (3, 3)}.items():
        ranked = [RECALLS[s][ORDERS[s]] for s in range(3)]
        groups = np.array([[r[:many].mean(), r[many:10 - few].mean(), r[10 - few:].mean()] for r in ranked])
        row = found.loc[rule]
        assert row.n_splits == 3
        assert [row.many, row.medium, row.few] == pytest.approx(groups.mean(0))
        assert [row.many_std, row.medium_std, row.few_std] == pytest.approx(groups.std(0, ddof=1))
        assert (row.total, row.total_std) == pytest.approx((RECALLS.mean(), RECALLS.mean(1).std(ddof=1)))
        within = groups.std(1, ddof=0)
        assert (row.within, row.within_std) == pytest.approx((within.mean(), within.std(ddof=1)))
    assert tables.group_table(table, {}).empty


def test_the_order_of_classes_is_read_from_the_pretraining_below(tmp_path, monkeypatch):
    """Row 52: by names, and only where the labels are those of the images pretrained on."""
    monkeypatch.setenv("SSL_CORE_ROOT", str(tmp_path))
    files = {"pre/run.json": {"order": [2, 0, 1], "parameters": {"dataset": "d"}},
             "probe/run.json": {"parameters": {"dataset": "d"}}, "probe/model.json": {"classes": ["a", "b", "c"]},
             "other/run.json": {"parameters": {"dataset": "e"}}, "other/model.json": {"classes": ["x", "y", "z"]},
             "split/run.json": {"order": [1, 0], "parameters": {"dataset": "d"}},
             "split/model.json": {"classes": ["a", "b"]},
             "floors/run.json": {"order": None}, "floors/model.json": {"classes": ["a", "b"]}}
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    jobs = [{"key": name, "folder": name, "needs": needs}
            for name, needs in (("pre", []), ("probe", ["pre"]), ("other", ["pre"]), ("floors", []), ("split", []))]
    assert tables.class_orders(jobs) == {"probe": ["c", "a", "b"], "split": ["b", "a"]}


def test_top_5_and_the_correct_images_of_each_class():
    """Row 53."""
    test = draw((40, 30, 20, 20, 10, 9, 8))
    y, p = test.labels, test.probabilities
    both_kits_equal(test, lambda w: {
        "accuracy": sk.top_k_accuracy_score(y, p + 1e-9 * np.arange(7)[::-1], k=1, sample_weight=w),
        "top_5_accuracy": sk.top_k_accuracy_score(y, p, k=5, sample_weight=w)})
    rows = rows_of(test)
    row = rows["all", "all", "top_5_accuracy"]
    assert (row["low"], row["high"]) == pytest.approx(wilson(row["value"], len(y)))
    assert "top_5_accuracy" not in overall(draw((20, 20, 20, 20, 20)))  # where it would be 1
    table = pd.DataFrame(rows.values(), columns=COLUMNS)
    found = tables.correct_counts(table).set_index("class")
    confusion = sk.confusion_matrix(y, p.argmax(1))
    assert found.correct[list(test.classes)].tolist() == np.diag(confusion).tolist()
    assert found.n[list(test.classes)].tolist() == confusion.sum(1).tolist()


def patients(task, n_patients=40, seed=0):
    """Images of patients; a patient's images share a shift of their scores."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(n_patients), rng.integers(2, 12, n_patients))
    y = (rng.random((len(who), 14)) < np.linspace(0.1, 0.5, 14)).astype(int)
    score = 1 / (1 + np.exp(-(rng.normal(size=y.shape) + 2 * y - 1 + 1.5 * rng.normal(size=(n_patients, 14))[who])))
    if task == "multilabel":
        return Predictions(score, y, tuple(f"l{i}" for i in range(14)), task, who)
    return Predictions(np.stack([1 - score[:, 9], score[:, 9]], 1), y[:, 9], ("no", "yes"), task, who)


@pytest.mark.parametrize("task, metric", [("multilabel", "roc_auc"), ("binary", "roc_auc"), ("binary", "f1_macro")])
def test_macro_auroc_of_14_labels_and_macro_f1_with_intervals_over_patients(task, metric):
    """Row 54: whole patients are drawn, and a width does not shrink with the number of resamples."""
    test = patients(task)
    y, p = test.labels, test.probabilities

    def expected(at):
        if metric == "f1_macro":
            return sk.f1_score(y[at], p[at].argmax(1), average="macro")
        return sk.roc_auc_score(y[at], p[at] if task == "multilabel" else p[at, 1], average="macro")

    row = rows_of(test)["all", "all", metric]
    assert row["value"] == pytest.approx(expected(np.arange(len(y))), abs=1e-12)
    assert (row["interval"], row["n_groups"], row["n"]) == ("clusters", 40, len(y))
    (weights,) = resample(test, 0, 5)
    found = metric_values(test, weighted, weights, metric)["all", "all", metric]
    for column, value in zip(weights.T.astype(int), found):
        assert all(len(set(column[test.groups == g])) == 1 for g in range(40))
        assert value == pytest.approx(expected(np.repeat(np.arange(len(y)), column)), abs=1e-12)
    more = rows_of(test, resamples=1000)["all", "all", metric]
    assert more["high"] - more["low"] == pytest.approx(row["high"] - row["low"], rel=0.25)


def test_weighted_averages_are_those_of_a_classification_report():
    """Row 55: a class that is never chosen has precision 0 in them, and weighted recall is accuracy."""
    test = draw((60, 30, 15, 3))
    p = test.probabilities.copy()
    p[:, 3] = 0
    test = Predictions(p / p.sum(1, keepdims=True), test.labels, test.classes)
    y, guess = test.labels, test.probabilities.argmax(1)

    def expected(w):
        report = sk.classification_report(y, guess, sample_weight=w, output_dict=True, zero_division=0)
        average = report["weighted avg"]
        return {"precision_weighted": average["precision"], "recall_weighted": average["recall"],
                "f1_weighted": average["f1-score"], "accuracy": average["recall"]}

    both_kits_equal(test, expected)
    rows = rows_of(draw((60, 30, 15)))
    for metric in ("precision_weighted", "recall_weighted", "f1_weighted"):
        row = rows["all", "all", metric]
        assert row["low"] < row["value"] < row["high"] and row["n"] == 105
    assert not [key for key in rows if key[0] == "class" and key[2].startswith("precision")]
    labels = metric_values(patients("multilabel"))
    assert not [key for key in labels if key[2] in ("precision", "recall", "f1_weighted")]


def similarity(x, y):
    """SSIM of one channel by its formula: 11 × 11 Gaussian window, σ = 1.5, K = (0.01, 0.03), whole windows only."""
    window = np.exp(-np.arange(-5, 6) ** 2 / (2 * 1.5**2))
    window /= window.sum()

    def mean(a):
        return correlate1d(correlate1d(a, window, 0), window, 1)[5:-5, 5:-5]

    mx, my, c1, c2 = mean(x), mean(y), 0.01**2, 0.03**2
    vx, vy, both = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    return ((2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()


def test_psnr_and_ssim_of_pasted_images_and_of_reconstructions():
    """Row 56: against their formulas, for whole images, and said below the panel."""
    rng = np.random.default_rng(0)
    x = rng.random((3, 3, 24, 24))
    y = np.clip(x + 0.1 * rng.normal(size=x.shape), 0, 1)
    assert panel.psnr(x, y) == pytest.approx(-10 * np.log10(((x - y) ** 2).mean((1, 2, 3))))
    assert panel.ssim(x, y) == pytest.approx([np.mean([similarity(*c) for c in zip(a, b)]) for a, b in zip(x, y)])
    assert panel.ssim(x, x) == pytest.approx(1) and np.isinf(panel.psnr(x, x)).all()

    class Half(torch.nn.Linear):
        """A method that sees the left half of an image and makes the right one grey."""
        encoder, positions = SimpleNamespace(spec={"size": 16}), range(4)

        def reconstruct(self, x, noise):
            removed = torch.zeros(len(x), 1, 16, 16)
            removed[..., 8:] = 1
            grey = torch.full_like(x, 0.5)
            pasted = torch.where(removed > 0, grey, x)
            return {"original": x, "masked": pasted, "reconstruction": grey, "floor": pasted, "removed": removed,
                    "pasted": pasted}

    images = rng.integers(0, 256, (2, 3, 16, 16), dtype=np.uint8)
    made, quality = panel.reconstructions(Half(1, 1), images)
    errors = (made["original"] - 0.5) ** 2
    assert quality.psnr_reconstruction.tolist() == pytest.approx(list(-10 * np.log10(errors.mean((1, 2, 3)))), rel=1e-5)
    halves = errors[..., 8:].sum((1, 2, 3)) / errors[0].size
    assert quality.psnr_pasted.tolist() == pytest.approx(list(-10 * np.log10(halves)), rel=1e-5)
    assert (quality.ssim_reconstruction < quality.ssim_pasted).all() and (quality.ssim < quality.ssim_pasted).all()
    said, mean = panel.quality_sentence(quality, False), quality.mean()
    assert (f"Over whole images: {mean.psnr_pasted:.1f} dB and SSIM {mean.ssim_pasted:.2f} for the pasted ones, "
            f"{mean.psnr_reconstruction:.1f} dB and {mean.ssim_reconstruction:.2f}") in said


def test_result_tables_print_mean_and_deviation_over_splits():
    """Row 63: runs of one split count once; per cent, but for a loss; Markdown and LaTeX say what ± is."""
    table = results({s: (RECALLS[s], accuracy) for s, accuracy in enumerate((0.70, 0.74, 0.81))})
    scores = tables.score_table(table, ["accuracy", "log_loss"])
    assert (scores.accuracy[0], scores.accuracy_std[0], scores.n_splits[0]) == pytest.approx(
        (0.75, np.std([0.70, 0.74, 0.81], ddof=1), 3))
    text = tables.table_text(scores)
    assert text.splitlines()[0] == "| arm | accuracy | log loss | splits |"
    assert "| SimCLR | 75.00 ± 5.57 | 1.2500 ± 0.0557 | 3 |" in text
    assert "standard deviation (ddof 1) over 3 splits" in text
    latex = tables.table_text(scores.assign(arm="my_arm"), "latex")
    assert r"75.00 $\pm$ 5.57 & 1.2500 $\pm$ 0.0557 & 3 \\" in latex and r"\toprule" in latex
    assert "my_arm" not in latex and latex.count(r"\begin") == latex.count(r"\end") == 2
    one = tables.score_table(table[table.draw_seed == 0], ["accuracy"])
    assert np.isnan(one.accuracy_std[0]) and "| SimCLR | 70.00 | 1 |" in tables.table_text(one)
    with pytest.raises(ValueError, match="markdown or latex"):
        tables.table_text(scores, "html")
