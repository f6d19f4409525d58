"""Four families of metrics on one test set, through scikit-learn where it has them; `weighted` has their twins."""

import numpy as np

RANKING = ("roc_auc", "average_precision", "average_precision_chance")
CALIBRATION = ("brier", "log_loss", "expected_calibration_error")
BINS = 15  # of the calibration error, equal widths
TOP = 5


def decisions(y, guess, n_classes, ordered=False, weights=None):
    """Metrics of the chosen class, y and guess (n,): {name: value} overall and {name: (C,)}, NaN for absent classes.

    The precision of a class that was never chosen is NaN, and 0 in the weighted mean, as in a classification report.
    """
    from sklearn import metrics as sk

    names = range(n_classes)
    per_class = {"precision": sk.precision_score(y, guess, labels=names, average=None, zero_division=np.nan),
                 "recall": sk.recall_score(y, guess, labels=names, average=None, zero_division=0),
                 "f1": sk.f1_score(y, guess, labels=names, average=None, zero_division=0)}
    report = sk.precision_recall_fscore_support(y, guess, average="weighted", zero_division=0)
    overall = {"accuracy": sk.accuracy_score(y, guess), "matthews_corrcoef": sk.matthews_corrcoef(y, guess),
               "precision_weighted": report[0], "recall_weighted": report[1], "f1_weighted": report[2]}
    if ordered:
        constant = len(np.union1d(y, guess)) == 1
        overall["cohen_kappa_quadratic"] = (
            np.nan if constant else sk.cohen_kappa_score(y, guess, labels=names, weights="quadratic"))
    return overall, {name: np.where(np.isin(names, y), value, np.nan) for name, value in per_class.items()}


def top_k(p, y, weights=None):
    """The share of images (n, C) whose class is among the 5 with the highest scores, of equal ones the later."""
    from sklearn import metrics as sk

    return {f"top_{TOP}_accuracy": sk.top_k_accuracy_score(y, p, k=TOP, labels=range(p.shape[1]))}


def ranking(positive, score, weights=None):
    """Areas under the ROC and the precision-recall curve, and the latter's chance level: the share of positives.

    positive: (n,) bool; score: (n,). The areas are NaN with one class only.
    """
    from sklearn import metrics as sk

    one_class = positive.all() or not positive.any()
    return {"roc_auc": np.nan if one_class else sk.roc_auc_score(positive, score),
            "average_precision": np.nan if one_class else sk.average_precision_score(positive, score),
            "average_precision_chance": positive.mean()}


def at_thresholds(positive, score, thresholds, weights=None):
    """Sensitivity at thresholds fixed elsewhere for 90 and 95 % specificity, and the specificity reached here."""
    found = {}
    for s, t in thresholds.items():
        found[f"sensitivity_at_specificity_{s}"] = (score[positive] >= t).mean() if positive.any() else np.nan
        found[f"specificity_reached_{s}"] = (score[~positive] < t).mean() if (~positive).any() else np.nan
    return found


def calibration(p, y, weights=None):
    """Brier score, cross-entropy in nats, and the top label's expected calibration error over 15 bins of equal width.

    p: (n, C); y: (n,). The Brier score is the mean of (p1 - y)^2 for two classes, in [0, 1]; for more the mean over
    images of the sum of squares, in [0, 2] (Brier 1950).
    """
    from sklearn import metrics as sk

    top, correct = p.max(1), p.argmax(1) == y
    gaps = np.bincount(confidence_bins(top), weights=correct - top, minlength=BINS)
    return {"brier": sk.brier_score_loss(y, p, labels=range(p.shape[1])),
            "log_loss": sk.log_loss(y, p, labels=range(p.shape[1])),
            "expected_calibration_error": np.abs(gaps).sum() / len(y)}


def confidence_bins(top):
    """The bin of each confidence, (n,) in 0..14; a bin holds its left edge, the last one also 1."""
    return np.clip(np.digitize(top, np.linspace(0, 1, BINS + 1)) - 1, 0, BINS - 1)
