"""The metrics of `point` under many weightings of the same images at once, which makes a bootstrap cheap.

weights: (n, R), one column for each resample, the number of times that an image was drawn. Every metric here is a
function of a few sums over images, so each family is one sparse product with the weights. Values are (R,).
"""

import numpy as np
from scipy.sparse import csr_array

from ssl_core.evaluate.point import BINS, TOP, confidence_bins


def decisions(y, guess, n_classes, ordered=False, weights=None):
    n = weights.sum(0)
    truth, called = _sums(y, n_classes, weights), _sums(guess, n_classes, weights)  # (C, R)
    hit = _sums(np.where(y == guess, y, n_classes), n_classes + 1, weights)[:-1]
    per_class = {"precision": np.where(truth > 0, _ratio(hit, called), np.nan), "recall": _ratio(hit, truth),
                 "f1": np.where(truth > 0, _ratio(2 * hit, truth + called), np.nan)}
    # Gorodkin (2004), from the marginals: no C x C table for each resample
    covariance = hit.sum(0) * n - (truth * called).sum(0)
    spread = (n**2 - (truth**2).sum(0)) * (n**2 - (called**2).sum(0))
    overall = {"accuracy": hit.sum(0) / n,
               "matthews_corrcoef": np.divide(covariance, np.sqrt(spread), out=np.zeros_like(n), where=spread > 0)}
    overall |= {f"{name}_weighted": (truth * np.nan_to_num(of)).sum(0) / n for name, of in per_class.items()}
    if ordered:
        grade = np.arange(n_classes)
        by_chance = np.einsum("ir,jr,ij->r", truth, called, (grade[:, None] - grade) ** 2.0, optimize=True) / n
        overall["cohen_kappa_quadratic"] = 1 - _ratio(((y - guess) ** 2.0) @ weights, by_chance)
    return overall, per_class


def top_k(p, y, weights=None):
    own = p[np.arange(len(y)), y][:, None]
    ahead = (p > own) | ((p == own) & (np.arange(p.shape[1]) > y[:, None]))
    return {f"top_{TOP}_accuracy": (ahead.sum(1) < TOP) @ weights / weights.sum(0)}


def ranking(positive, score, weights=None):
    # Only the distinct scores of positives are thresholds that matter: K levels, the highest score first.
    level = np.unique(-score[positive])
    at, k = np.searchsorted(level, -score), len(level)  # the first level with a score as low as this image's, or lower
    sums = _sums(np.where(positive, at, k + at), 2 * k + 1, weights)
    true, false = sums[:k], sums[k:]
    n_true, n_false = true.sum(0), false.sum(0)
    found, ahead = np.cumsum(true, 0), np.cumsum(false, 0)[:-1]  # at each level: scores as high or higher
    lost = (true * ahead).sum(0)
    tied = ~positive & np.isin(-score, level)
    if tied.any():
        lost = lost - (true * _sums(np.where(tied, at, k), k + 1, weights)[:k]).sum(0) / 2
    precision = np.divide(found, found + ahead, out=np.zeros_like(ahead), where=found > 0)
    both = np.where((n_true > 0) & (n_false > 0), 1.0, np.nan)
    return {"roc_auc": both * (1 - _ratio(lost, n_true * n_false)),
            "average_precision": both * _ratio((true * precision).sum(0), n_true),
            "average_precision_chance": n_true / (n_true + n_false)}


def at_thresholds(positive, score, thresholds, weights=None):
    n_true, n_false = positive @ weights, ~positive @ weights
    found = {}
    for s, t in thresholds.items():
        found[f"sensitivity_at_specificity_{s}"] = _ratio((positive & (score >= t)) @ weights, n_true)
        found[f"specificity_reached_{s}"] = _ratio((~positive & (score < t)) @ weights, n_false)
    return found


def calibration(p, y, weights=None):
    n, rows, top = weights.sum(0), np.arange(len(y)), p.max(1)
    squares = ((p - np.eye(p.shape[1])[y]) ** 2).sum(1) / (2 if p.shape[1] == 2 else 1)
    surprise = -np.log(np.clip(p[rows, y], np.finfo(float).eps, 1))
    gaps = csr_array(((p.argmax(1) == y) - top, (confidence_bins(top), rows)), shape=(BINS, len(y))) @ weights
    return {"brier": squares @ weights / n, "log_loss": surprise @ weights / n,
            "expected_calibration_error": np.abs(gaps).sum(0) / n}


def _sums(code, size, weights):
    """Weights summed by code: (n,) in 0..size-1 and (n, R) → (size, R)."""
    n = len(code)
    return csr_array((np.ones(n), (code, np.arange(n))), shape=(size, n)) @ weights


def _ratio(part, whole):
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)
