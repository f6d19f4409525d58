"""Probes: what they choose and on what, against scikit-learn and closed forms; leaks; degenerate budgets."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from ssl_core.evaluate.probe import C_GRID, apply_probe, knn_probe, linear_probe, make_folds


def blobs(counts, seed=0, dim=12, distance=1.0, scale=1.0):
    """Gaussian classes; features with very different units."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(counts)), counts)
    centres = np.random.default_rng(99).normal(size=(len(counts), dim)) * distance
    x = centres[y] + rng.normal(size=(len(y), dim))
    return (x * np.geomspace(1, 100, dim) * scale + 5).astype(np.float32), y


def test_linear_probe_is_scikit_learn_on_standardised_features():
    x, y = blobs([50, 40, 30])
    probe = linear_probe(x, y)
    z = (x - x.mean(0, dtype=float)) / x.std(0, dtype=float)
    model = LogisticRegression(C=probe.chosen, tol=1e-8, max_iter=10000).fit(z, y)
    assert probe.predict_proba(x) == pytest.approx(model.predict_proba(z), abs=2e-3)
    assert probe.note == "" and probe.chosen in C_GRID


def test_c_has_the_least_out_of_fold_loss_of_an_exact_path():
    x, y = blobs([60, 60, 60], distance=0.5)
    probe, folds = linear_probe(x, y, seed=4), make_folds(y, np.arange(180), 4)
    exact = {}
    for c in C_GRID:
        p = np.zeros((180, 3))
        for train, test in folds:
            mean, std = x[train].mean(0, dtype=float), x[train].std(0, dtype=float)
            model = LogisticRegression(C=c, tol=1e-8, max_iter=10000).fit((x[train] - mean) / std, y[train])
            p[test] = model.predict_proba((x[test] - mean) / std)
        exact[c] = -np.log(p[np.arange(180), y]).mean()
        if c == probe.chosen:
            assert probe.out_of_fold == pytest.approx(p, abs=0.02)
    assert probe.chosen == min(exact, key=exact.get)
    tried = probe.table.set_index("C")["log_loss"]
    assert tried.to_dict() == pytest.approx({c: exact[c] for c in tried.index}, abs=5e-3)


@pytest.mark.parametrize("probe", [linear_probe, knn_probe])
def test_out_of_fold_scores_do_not_see_their_image_or_its_group(probe):
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(40), 5)  # 40 patients with a signature of their own, labels at random
    y = rng.integers(0, 2, 40)[who]
    x = rng.normal(size=(40, 30))[who] + 0.05 * rng.normal(size=(200, 30))
    grouped, blind = probe(x, y, groups=who), probe(x, y)
    assert (blind.out_of_fold.argmax(1) == y).mean() > 0.95  # memory of the patient
    assert (grouped.out_of_fold.argmax(1) == y).mean() < 0.7
    for train, test in make_folds(y, who, 0):
        assert not set(who[train]) & set(who[test])


@pytest.mark.parametrize("probe", [linear_probe, knn_probe])
def test_permuted_labels_are_at_chance_on_new_images(probe):
    x, y = blobs([100] * 4)
    new, truth = blobs([250] * 4, seed=1)
    assert (probe(x, y).predict_proba(new).argmax(1) == truth).mean() > 0.6
    permuted = probe(x, np.random.default_rng(0).permutation(y))
    assert abs((permuted.predict_proba(new).argmax(1) == truth).mean() - 0.25) < 0.12
    assert abs((permuted.out_of_fold.argmax(1) == y).mean() - 0.25) < 0.12


@pytest.mark.parametrize("probe", [linear_probe, knn_probe])
@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_plain_arrays_are_the_whole_probe(probe, task):
    x, y = blobs([30, 30] if task == "binary" else [20, 20, 20])
    labels = np.eye(3, dtype=int)[y] if task == "multilabel" else y
    fitted = probe(x, labels, task=task)
    arrays = fitted.head_arrays()
    assert all(isinstance(a, np.ndarray) and a.dtype.kind in "fi" for a in arrays.values())
    p = fitted.predict_proba(x)
    assert (apply_probe(arrays, task, x) == p).all() and p.shape == (len(x), 2 if task == "binary" else 3)
    if task != "multilabel":
        assert p.sum(1) == pytest.approx(np.ones(len(x)))


def test_same_seed_same_bits():
    x, y = blobs([40, 30])
    a, b = (linear_probe(x, y, seed=3, task="binary") for _ in range(2))
    assert (a.predict_proba(x) == b.predict_proba(x)).all() and a.table.equals(b.table)


def test_fewer_than_two_images_or_groups_in_a_class_leave_nothing_to_choose():
    x, y = blobs([5, 5, 1])
    for probe, name in ((linear_probe, "C is 0.1"), (knn_probe, "k is 5")):
        fitted = probe(x, y)
        assert name in fitted.note and fitted.out_of_fold is None and len(fitted.table) == 0
        assert fitted.predict_proba(x).shape == (11, 3)
    x, y = blobs([6, 6])
    one_patient = np.array([0, 1, 2, 3, 4, 5] + [6] * 6)
    assert "not chosen" in linear_probe(x, y, one_patient).note
    assert linear_probe(x, y, np.array([0, 1] * 6)).table["folds"].tolist()[0] == 2


def test_classes_without_a_training_image():
    x, y = blobs([20, 20, 20])
    keep = y != 1
    fitted = linear_probe(x[keep], y[keep], n_classes=4)
    p = fitted.predict_proba(x)
    assert p.shape == (60, 4) and p[:, [1, 3]].max() < 1e-9 and "2 of 4 classes" in fitted.note
    assert (p[keep].argmax(1) == y[keep]).mean() > 0.9
    only = linear_probe(x[:20], y[:20], n_classes=2, task="binary")
    assert only.predict_proba(x)[:, 0].min() > 0.99 and "one class" in only.note
    assert (knn_probe(x[keep], y[keep], n_classes=4).predict_proba(x) > 0).all()


def test_balanced_weights_raise_the_recall_of_the_rare_class():
    x, y = blobs([300, 20], distance=0.3)
    new, truth = blobs([300, 300], seed=1, distance=0.3)
    plain, balanced = (linear_probe(x, y, class_weight=w).predict_proba(new).argmax(1) for w in ("none", "balanced"))
    assert (balanced[truth == 1] == 1).mean() > (plain[truth == 1] == 1).mean() + 0.2


def test_each_label_is_a_binary_probe_on_the_images_where_it_is_known():
    x, y = blobs([40, 40, 40])
    labels = np.stack([y == 0, y > 0, np.zeros(120), y == 2], 1).astype(int)
    labels[::3, 0] = -1
    fitted = linear_probe(x, labels, task="multilabel")
    known = labels[:, 0] >= 0
    alone = linear_probe(x[known], labels[known, 0], np.arange(120)[known], task="binary")
    assert fitted.predict_proba(x)[:, 0] == pytest.approx(alone.predict_proba(x)[:, 1], abs=1e-9)
    assert np.isnan(fitted.out_of_fold[~known, 0]).all() and np.isfinite(fitted.out_of_fold[known, 0]).all()
    assert fitted.predict_proba(x)[:, 2] == pytest.approx(np.full(120, 0.5 / 121))
    assert "label 2 has one class" in fitted.note and np.isnan(fitted.chosen[2])
    near = knn_probe(x, labels, task="multilabel")
    assert ((near.predict_proba(x)[known, 0] > 0.5) == labels[known, 0]).mean() > 0.9


def test_nearest_neighbour_votes():
    x, y = blobs([30, 30], scale=1.0)
    fitted = knn_probe(x, y)
    assert fitted.table["k"].tolist() == [1, 5, 20, 60]
    one = {**fitted.arrays, "k": np.array(1)}
    new, _ = blobs([50, 50], seed=1)
    theirs = KNeighborsClassifier(1, metric="cosine").fit(x, y).predict(new)
    p = apply_probe(one, "binary", new)
    assert (p.argmax(1) == theirs).all()
    assert p.max(1) == pytest.approx(np.full(100, 0.75))  # one vote, and one split evenly
    # three neighbours at similarities 1, 0.93, 0.93 vote 1, 1/e, 1/e; the prior adds 0.4 and 0.6
    angle = np.arccos([1, 0.93, 0.93])
    bank = np.stack([np.cos(angle), np.sin(angle) * [1, 1, -1]], 1)
    arrays = {"bank": bank, "targets": np.eye(2)[[0, 1, 1]], "known": np.ones((3, 2)), "prior": np.array([0.4, 0.6]),
              "k": np.array(3)}
    w = np.exp(-1)
    expected = np.array([1 + 0.4, 2 * w + 0.6]) / (2 + 2 * w)
    assert apply_probe(arrays, "binary", np.array([[2.0, 0.0]]))[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("probe", [linear_probe, knn_probe])
def test_bad_input_is_named_in_one_line(probe):
    x, y = blobs([5, 5])
    with pytest.raises(ValueError, match="2 of 10 images have no label"):
        probe(x, np.where(np.arange(10) < 2, -1, y))
    with pytest.raises(ValueError, match="1 of 10 images have features that are not finite"):
        probe(np.where(np.arange(10)[:, None] == 3, np.nan, x), y)
    with pytest.raises(ValueError, match="one row for each image"):
        probe(x, y[:5])
