"""Probes of frozen features: logistic regression ("linear probe") and nearest neighbours.

The one value that a probe chooses, C or k, is chosen by cross-validation inside the labels that it is given, whole
groups together, by log-loss; then it is fitted on all of them. No test image has a part in it.
"""

import warnings
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import expit, logit, softmax, xlogy

from ssl_core.evaluate.neighbours import nearest, prior_of, share, unit, vote

C_GRID = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of scikit-learn: the inverse strength of the L2 penalty
K_GRID = (1, 5, 20, 200)
DEFAULT_C, DEFAULT_K = 0.1, 5  # where a class has too few labels to choose
FOLDS = 5
PATH_TOLERANCE, TOLERANCE, MAX_ITER = 1e-3, 1e-4, 5000  # largest gradient entry, on the way to C and at the end
ABSENT = -30.0  # bias of a class without a training image
LEAK = 0.01  # slope below 0 of a hidden layer, as in torch


@dataclass(frozen=True)
class Probe:
    """A fitted probe.

    arrays: all that `apply_probe` needs. chosen: C or k, a tuple of C for multilabel. table: the candidates with their
    out-of-fold log-loss. out_of_fold: (n, C) probabilities of the given images by models that had not seen them, NaN
    where unlabelled; None where nothing could be chosen. note: what a reader has to know, or "".
    """

    arrays: dict = field(repr=False)
    task: str
    chosen: float | tuple
    table: pd.DataFrame = field(repr=False)
    out_of_fold: np.ndarray | None = field(repr=False)
    note: str = ""

    def predict_proba(self, features):
        return apply_probe(self.arrays, self.task, features)

    def head_arrays(self):
        """Plain arrays by name, to be saved; linear: mean, scale (D,), weight (C, D), bias (C,); with a hidden layer
        also hidden_weight (H, D), hidden_bias (H,), and weight is (C, H)."""
        return dict(self.arrays)


def apply_probe(arrays, task, features):
    """Probabilities (n, C) for features (n, D), from the arrays of a probe alone."""
    features = np.asarray(features, np.float64)
    if "bank" in arrays:
        k, votes = int(arrays["k"]), (arrays["targets"], arrays["known"], arrays["prior"])
        if "uniform" in arrays:
            return share(features, arrays["bank"], k, *votes)
        return vote(*nearest(unit(features), arrays["bank"], k), *votes)
    z = (features - arrays["mean"]) / arrays["scale"]
    if "hidden_weight" in arrays:
        z = z @ arrays["hidden_weight"].T + arrays["hidden_bias"]
        z = np.where(z > 0, z, LEAK * z)
    z = z @ arrays["weight"].T + arrays["bias"]
    return expit(z) if task == "multilabel" else softmax(z, axis=1)


def linear_probe(features, labels, groups=None, seed=0, class_weight=None, task="multiclass", n_classes=None):
    """Multinomial logistic regression on standardised features; multilabel: one logistic for each label.

    features: (n, D); labels: (n,) in 0..n_classes-1, multilabel (n, L) with -1 where unknown; groups: (n,) or None.
    class_weight: "balanced" weighs images by the inverse of their class's number, in the fit and in the choice of C.
    """
    x, y, groups = checked(features, labels, groups, task)
    if task == "multilabel":
        return _label_probes(x, y, groups, seed, class_weight)
    n_classes = n_classes or int(y.max()) + 1
    present, code = np.unique(y, return_inverse=True)
    mean, scale = _moments(x)
    arrays = {"mean": mean, "scale": scale, "weight": np.zeros((n_classes, x.shape[1])),
              "bias": np.full(n_classes, ABSENT)}
    note = [f"{n_classes - len(present)} of {n_classes} classes have no training image"] * (len(present) < n_classes)
    c, table, held_out = DEFAULT_C, pd.DataFrame(columns=["C", "log_loss", "folds"]), None
    if len(present) == 1:
        arrays["bias"][present] = 0
        return Probe(arrays, task, c, table, None, "all training images are of one class")
    if folds := make_folds(code, groups, seed):
        c, table, scores, start = _choose_c(x.astype(np.float32), code, folds, class_weight)
        held_out = np.zeros((len(y), n_classes))
        held_out[:, present] = scores
    else:
        note.append(f"C is {DEFAULT_C:g}, not chosen: a class has images in fewer than 2 folds")
    model = _logistic(class_weight, TOLERANCE)
    if folds:
        model.coef_, model.intercept_ = start
    if not _fit(model, ((x - mean) / scale).astype(np.float32), code, c):
        note.append(f"the solver stopped at {MAX_ITER} iterations, before it had converged")
    binary = len(present) == 2  # scikit-learn then keeps the difference of the two
    arrays["weight"][present[-len(model.coef_):]] = model.coef_
    arrays["bias"][present] = [0, model.intercept_[0]] if binary else model.intercept_
    return Probe(arrays, task, c, table, held_out, "; ".join(note))


def knn_probe(features, labels, groups=None, seed=0, task="multiclass", n_classes=None):
    """Nearest neighbours by cosine similarity s, with votes exp(s / 0.07) relative to the nearest one's.

    One more vote, spread as the training labels are, keeps probabilities above 0. Arguments as in `linear_probe`.
    """
    x, y, groups = checked(features, labels, groups, task)
    x, (targets, known) = unit(x), _targets(y, task, n_classes)
    candidates = sorted({min(k, len(x)) for k in K_GRID})
    folds = make_folds(None if task == "multilabel" else y, groups, seed)
    k, held_out, note, losses = min(DEFAULT_K, len(x)), None, "", []
    if folds:
        scores = {k: np.zeros(targets.shape) for k in candidates}
        for train, test in folds:
            order, similarity = nearest(x[test], x[train], candidates[-1])
            for k in candidates:
                scores[k][test] = vote(order[:, :k], similarity[:, :k], targets[train], known[train],
                                       prior_of(targets[train], known[train], task))
        losses = [_log_loss(scores[k], targets, known, task) for k in candidates]
        k = candidates[int(np.argmin(losses))]
        held_out = np.where(known > 0, scores[k], np.nan)
    else:
        note = f"k is {k}, not chosen: a class has images in fewer than 2 folds"
    table = pd.DataFrame({"k": candidates[:len(losses)], "log_loss": losses, "folds": len(folds)})
    arrays = {"bank": x.astype(np.float32), "targets": targets, "known": known, "k": np.array(k),
              "prior": prior_of(targets, known, task)}
    return Probe(arrays, task, k, table, held_out, note)


def uniform_knn_probe(features, labels, k=200, task="multiclass", n_classes=None):
    """The k nearest by Euclidean distance, every vote alike, nothing chosen; k is at most the number of images."""
    x, y, _ = checked(features, labels, None, task)
    targets, known = _targets(y, task, n_classes)
    note = f"k is {len(x)}, all labelled images, and not {k}" if k > len(x) else ""
    arrays = {"bank": x, "targets": targets, "known": known, "k": np.array(min(k, len(x))), "uniform": np.array(1),
              "prior": prior_of(targets, known, task)}
    return Probe(arrays, task, min(k, len(x)), pd.DataFrame(), None, note)


def _targets(y, task, n_classes):
    """Who carries which label, and for whom that is known: two (n, C) float32."""
    targets = (y == 1) if task == "multilabel" else y[:, None] == np.arange(n_classes or int(y.max()) + 1)
    known = (y >= 0) if task == "multilabel" else np.ones_like(targets)
    return targets.astype(np.float32), known.astype(np.float32)


def make_folds(labels, groups, seed):
    """[(train, test)] positions for cross-validation; [] where no two folds can both hold every class.

    At most 5 folds, stratified by class (labels None: not), whole groups together.
    """
    from sklearn import model_selection as ms

    labels = np.zeros(len(groups), int) if labels is None else labels
    classes, grouped = np.unique(labels), len(np.unique(groups)) < len(groups)
    fewest = min(len(np.unique(groups[labels == c])) for c in classes)
    split = ms.StratifiedGroupKFold if grouped else ms.StratifiedKFold
    for k in range(min(FOLDS, fewest), 1, -1):
        folds = list(split(k, shuffle=True, random_state=seed).split(labels, labels, groups if grouped else None))
        if all(len(test) and len(np.unique(labels[train])) == len(classes) for train, test in folds):
            return folds
    return []


def _choose_c(x, y, folds, class_weight):
    """C, the table, the out-of-fold probabilities (n, C) at that C, and the folds' mean coefficients and intercepts.

    The path runs from strong to weak penalty, each fit starting from the last one, and ends when the loss has risen.
    x: (n, D) float32, which halves the time and moves no probability by more than the solver's tolerance does.
    """
    models = [_logistic(class_weight, PATH_TOLERANCE) for _ in folds]
    targets = np.eye(y.max() + 1)[y]
    weights = 1 / targets.sum(0)[y] if class_weight == "balanced" else np.ones(len(y))
    moments = [_moments(x[train]) for train, _ in folds]
    rows, best = [], (np.inf,)
    for c in C_GRID:
        scores = np.zeros(targets.shape)
        for model, (train, test), (mean, scale) in zip(models, folds, moments, strict=True):
            _fit(model, (x[train] - mean) / scale, y[train], c)
            scores[test] = model.predict_proba((x[test] - mean) / scale)
        loss = _log_loss(scores, targets, weights[:, None])
        rows.append({"C": c, "log_loss": loss, "folds": len(folds)})
        if loss >= best[0]:
            break
        best = loss, c, scores, [np.mean([getattr(model, name) for model in models], 0)
                                 for name in ("coef_", "intercept_")]
    _, c, scores, start = best
    return c, pd.DataFrame(rows), scores, start


def _label_probes(x, y, groups, seed, class_weight):
    mean, scale = _moments(x)
    weight, bias = np.zeros((y.shape[1], x.shape[1])), np.zeros(y.shape[1])
    held_out, chosen, tables, notes = np.full(y.shape, np.nan), [], [], []
    for label in range(y.shape[1]):
        known = y[:, label] >= 0
        positives = int((y[known, label] == 1).sum())
        if positives in (0, known.sum()):
            bias[label] = logit((positives + 0.5) / (known.sum() + 1))
            chosen.append(float("nan"))
            notes.append(f"label {label} has one class only: its prevalence is its score")
            continue
        one = linear_probe(x[known], y[known, label], groups[known], seed, class_weight, "binary", 2)
        a = one.arrays  # from its own standardisation to the common one
        weight[label] = a["weight"][1] / a["scale"] * scale
        bias[label] = a["bias"][1] + a["weight"][1] @ ((mean - a["mean"]) / a["scale"])
        held_out[known, label] = np.nan if one.out_of_fold is None else one.out_of_fold[:, 1]
        chosen.append(one.chosen)
        tables.append(one.table.assign(label=label))
        notes += [f"label {label}: {one.note}"] if one.note else []
    empty = pd.DataFrame(columns=["C", "log_loss", "folds", "label"])
    table = pd.concat(tables, ignore_index=True) if tables else empty
    return Probe({"mean": mean, "scale": scale, "weight": weight, "bias": bias}, "multilabel", tuple(chosen), table,
                 None if np.isnan(held_out).all() else held_out, "; ".join(notes))


def checked(features, labels, groups, task):
    """The three as arrays, groups 0..n-1 where None; ValueError where they do not fit or cannot be learnt from."""
    x, y = np.asarray(features, np.float64), np.asarray(labels)
    groups = np.arange(len(y)) if groups is None else np.asarray(groups)
    if x.ndim != 2 or not len(x) == len(y) == len(groups) > 0 or y.ndim != 1 + (task == "multilabel"):
        raise ValueError(f"features are {x.shape}, labels {y.shape}, groups {groups.shape}; "
                         "give one row for each image")
    if not np.isfinite(x).all():
        raise ValueError(f"{(~np.isfinite(x)).any(1).sum()} of {len(x)} images have features that are not finite; "
                         "look at the encoder's weights")
    if task != "multilabel" and y.min() < 0:
        raise ValueError(f"{(y < 0).sum()} of {len(y)} images have no label; give a probe labelled images only")
    return x, y, groups


def _moments(x):
    """Mean and standard deviation (D,); 1 where a feature is constant."""
    scale = x.std(0)
    return x.mean(0), np.where(scale > 1e-8 * (1 + np.abs(x).max(0)), scale, 1)


def _logistic(class_weight, tol):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(tol=tol, max_iter=MAX_ITER, warm_start=True,
                              class_weight=None if class_weight in (None, "none") else class_weight)


def _fit(model, x, y, c):
    """Fit in place; whether the solver converged. With one BLAS thread: its products are long and thin, and more
    threads made a fit three times slower on two cores and its last digits depend on their number."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # the caller says it in the note
        model.set_params(C=c).fit(x, y)
    return model.n_iter_.max() < MAX_ITER


def _log_loss(p, targets, weights, task="multiclass"):
    """Cross-entropy, averaged with weights (n, 1) or (n, C); multilabel: over the labels that are known."""
    p = np.clip(p, np.finfo(float).eps, 1 - np.finfo(float).eps)
    surprise = -xlogy(targets, p)
    if task == "multilabel":
        surprise -= xlogy(1 - targets, 1 - p)
    else:
        surprise, weights = surprise.sum(1, keepdims=True), weights[:, :1]
    return float((surprise * weights).sum() / weights.sum())
