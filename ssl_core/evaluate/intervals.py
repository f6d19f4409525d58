"""95 % intervals over test images: how a value would vary had other images, or other patients, been drawn.

Where every image is its own group, shares of images (accuracy, recall, specificity, precision) have Wilson's interval
(1927), and means of recalls have Wilson's intervals combined (Zou and Donner 2008): both hold for few images and for
shares of 0 and 1. Every other value has Student's t interval on the logit scale, with the standard error of a bootstrap
of whole groups, or, without groups, of images within each class; its degrees of freedom are the groups (images) of the
rarest class that enters, less one. In simulation this covers 93 to 99 % down to 10 positives or 8 groups (average
precision over groups from 90 %), where plain percentiles cover 82 % for ROC-AUC. Below, no interval is given, and the
row says "too few". Another split, seed or training set is not accounted for.
"""

import numpy as np
from scipy.special import expit, logit, ndtri, stdtrit

from ssl_core.evaluate import weighted
from ssl_core.evaluate.metrics import AT_THRESHOLD, OF_POSITIVES, label_view, metric_values, support
from ssl_core.evaluate.point import CALIBRATION, TOP

RESAMPLES = 1000
MIN_GROUPS, MIN_POSITIVES = 8, 10
BLOCK = 2**21  # weights in memory at once
SHARES = ("accuracy", "recall_weighted", f"top_{TOP}_accuracy")  # of all images; the second is the first
WHOLE = (*SHARES, *CALIBRATION, "precision")  # no class has a part of its own in them


def resample(test, seed, resamples=RESAMPLES):
    """Yield blocks (n, r) of weights, how often each image is in a resample; the r add up to `resamples`."""
    rng, n = np.random.default_rng(seed), len(test.labels)
    strata = [np.arange(test.groups.max() + 1)]
    if not test.clustered and test.task != "multilabel":
        strata = [test.groups[test.labels == c] for c in np.unique(test.labels)]
    size = max(1, BLOCK // n)
    for start in range(0, resamples, size):
        r = min(size, resamples - start)
        drawn = np.zeros((test.groups.max() + 1, r))
        for members in strata:
            k = len(members)
            cells = rng.integers(k, size=(k, r)) * r + np.arange(r)
            drawn[members] = np.bincount(cells.ravel(), minlength=k * r).reshape(k, r)
        yield drawn[test.groups]


def with_intervals(rows, test, seed, resamples=RESAMPLES):
    """The rows of `metric_rows(test)` with low, high, and what the interval is over: "images", "clusters", "too few".

    seed: an int or a sequence of ints that belongs to the cell. The interval stays "" where there is no value, for a
    chance level, and for a value at the end of its range or that no resample changes, which t knows nothing about.
    """
    blocks = [metric_values(test, weighted, weights) for weights in resample(test, seed, resamples)]
    filled = []
    for row in rows:
        kind, group, metric = key = row["group_kind"], row["group"], row["metric"]
        low, high, interval = None, None, "clusters" if test.clustered or row["part"] == "test_by_group" else "images"
        if np.isnan(row["value"]) or metric == "average_precision_chance":
            interval = ""
        elif (shares := _shares(test, *key, row["value"])) is not None:
            low, high = wilson_mean(*shares)
        elif (units := _units(test, kind, group, metric)) == 0:
            interval = "too few"
        else:
            draws = np.concatenate([block[key] for block in blocks])
            low, high = _t_interval(row["value"], np.nanstd(draws, ddof=1), units, *_range(test, metric))
            interval = interval if low is not None else ""
        filled.append({**row, "low": low, "high": high, "interval": interval})
    return filled


def paired_draws(pairs, metric="balanced_accuracy", group_kind="all", group="all", seed=0, resamples=RESAMPLES):
    """Differences a - b of one metric: (n_pairs,) values, and (resamples,) draws of their mean over pairs.

    pairs: [(a, b), ...], Predictions on the same test images in the same order, one pair for each split, say. One
    resample of the images serves both sides of all pairs, so that what makes an image hard cancels.
    """
    first, key = pairs[0][0], (group_kind, group, metric)
    for test in (test for pair in pairs for test in pair):
        if not (np.array_equal(test.labels, first.labels) and np.array_equal(test.groups, first.groups)):
            raise ValueError("the predictions to compare are of different test images; pair runs that share a test set")

    def differences(*weighting):
        return [metric_values(a, *weighting, metric=metric)[key] - metric_values(b, *weighting, metric=metric)[key]
                for a, b in pairs]

    draws = [np.mean(differences(weighted, weights), 0) for weights in resample(first, seed, resamples)]
    return np.array(differences(), np.float64), np.concatenate(draws)


def paired_interval(pairs, metric="balanced_accuracy", group_kind="all", group="all", seed=0, resamples=RESAMPLES):
    """{value, low, high, interval, n, n_groups} of the mean difference a - b: t, with the draws' standard error."""
    differences, draws = paired_draws(pairs, metric, group_kind, group, seed, resamples)
    test, value, low, high, interval = pairs[0][0], float(differences.mean()), None, None, "too few"
    if units := _units(test, group_kind, group, metric):
        low, high = _t_interval(value, np.nanstd(draws, ddof=1), units, -np.inf, np.inf)
        interval = "" if low is None else "clusters" if test.clustered else "images"
    return {"value": value, "low": low, "high": high, "interval": interval, "n": len(test.labels),
            "n_groups": int(test.groups.max()) + 1}


def wilson(share, n):
    """Wilson's 95 % interval of a share of n independent images."""
    z = ndtri(0.975)
    centre, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)
    return low if share > 0 else 0.0, high if share < 1 else 1.0


def wilson_mean(shares, sizes):
    """95 % interval of the mean of independent shares: the distances to Wilson's limits, added in squares."""
    shares, limits = np.array(shares), np.array([wilson(share, n) for share, n in zip(shares, sizes, strict=True)])
    low, high = np.sqrt(((limits - shares[:, None]) ** 2).sum(0)) / len(shares)
    return float(shares.mean() - low), float(shares.mean() + high)


def _shares(test, kind, group, metric, value):
    """(shares, sizes) of independent images whose mean the value is, or None."""
    if test.clustered or (test.task == "multilabel" and kind != "label"):
        return None
    if kind == "label":
        test, kind = label_view(test, group), "all"
    y, right = test.labels, test.probabilities.argmax(1) == test.labels
    if metric.startswith(AT_THRESHOLD):
        n = (y == int(metric.startswith("sensitivity"))).sum()
        return [value], [n]
    if metric in SHARES or (kind == "all" and metric in OF_POSITIVES):
        return [value], [support(test, kind, group, metric)[0].sum()]
    if metric not in ("recall", "balanced_accuracy"):
        return None
    classes = np.unique(y[support(test, kind, group, metric)[0]])
    return [right[y == c].mean() for c in classes], [(y == c).sum() for c in classes]


def _units(test, kind, group, metric):
    """Groups (or images) of the rarest class that enters a value, which its t interval rests on; 0: too few."""
    over, positive = support(test, kind, group, metric)
    y = test.labels
    if metric in WHOLE or (test.task == "multiclass" and metric in ("matthews_corrcoef", "cohen_kappa_quadratic")):
        entering = [over]
    elif positive is not None:
        entering = [over & positive, over & ~positive]
    elif test.task == "multilabel":
        chosen = [c for c in range(y.shape[1]) if kind == "all" or test.frequency[c] == group]
        entering = [y[:, c] == v for c in chosen if (y[:, c] == 0).any() and (y[:, c] == 1).any() for v in (0, 1)]
    else:
        entering = [y == c for c in np.unique(y[over])]
    entering = [test.groups[mask] for mask in entering if mask.any()]
    images, units = min(map(len, entering), default=0), min((len(np.unique(g)) for g in entering), default=0)
    return units if units >= MIN_GROUPS and images >= MIN_POSITIVES else 0


def _range(test, metric):
    if metric == "brier":
        return 0, 2 if test.task == "multiclass" else 1
    return {"log_loss": (0, np.inf), "matthews_corrcoef": (-1, 1), "cohen_kappa_quadratic": (-1, 1)}.get(metric, (0, 1))


def _t_interval(value, se, units, start, end):
    """Student's t interval of a value in (start, end): on the logit scale; log or plain where the range has no end."""
    if not (se > 0 and start < value < end):
        return None, None
    half = stdtrit(units - 1, 0.975) * se * np.sqrt(units / (units - 1))
    sides = np.array([-half, half])
    if np.isinf(start):
        low, high = value + sides
    elif np.isinf(end):
        low, high = start + (value - start) * np.exp(sides / (value - start))
    else:
        share = (value - start) / (end - start)
        low, high = start + (end - start) * expit(logit(share) + sides / (end - start) / (share * (1 - share)))
    return float(low), float(high)
