"""How uneven is a pool of images whose classes nobody knows, judged by features alone, or with some labels.

With labels of at least five images in each class: the shares of classes in the unlabelled rest, by expectation and
maximisation over the scores of a linear discriminant (Saerens, Latinne, Decaestecker 2002), whose labelled images
need not be as uneven as the rest. Without labels: the weights of a mixture of Gaussians, which are classes only where
classes are clusters. Unevenness is told as a ratio: that of the long tail, over as many classes or clusters, whose
shares have the same entropy. The interval is a bootstrap of the images, turned round, as entropy is biased downwards;
it does not hold all errors of the discriminant, and is too narrow. How well either follows the truth is measured in
docs/audit.md: labels do, clusters of real images do not.
"""

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import adjusted_rand_score, balanced_accuracy_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import cross_val_predict

CLUSTERS, DIMENSIONS, ROWS, DRAWS = 12, 16, 2000, 20
WIDE, LABELS = 10, 5  # an interval that spans a factor more cannot tell; labels of each class
APART, STABLE = 0.6, 0.9  # nor can labels that others tell less well, or clusters that agree less
MOST = 1e4


def ratio_of(shares):
    """The ratio of the long tail whose shares have the entropy of these, from 1 to MOST."""
    steps, shares = np.linspace(0, 1, len(shares)), np.asarray(shares, float) / np.sum(shares)

    def excess(log_ratio):
        tail = np.exp(-log_ratio * steps)
        return entropy(tail / tail.sum()) - entropy(shares)

    top = np.log(MOST)
    return 1.0 if excess(0) <= 1e-9 else MOST if excess(top) >= 0 else float(np.exp(brentq(excess, 0, top)))


def entropy(shares):
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def tail(h, labels=None, seed=0):
    """Features (n, D), labels (n,) with −1 where not known, or None → dict ratio, low, high, agreement, sentence.

    agreement: of clusters in two bootstrap samples (adjusted Rand index), or of labels with what the others make of
    them (balanced accuracy, 0 at chance). ValueError, one line, where the features cannot be judged at all.
    """
    h, rng = np.asarray(h, np.float64), np.random.default_rng(seed)
    known = np.zeros(len(h), bool) if labels is None else np.asarray(labels) >= 0
    if h.ndim != 2 or not np.isfinite(h).all() or (~known).sum() < 100:
        raise ValueError(f"features are {h.shape}, {(~known).sum()} of them without a label; give at least 100 rows "
                         "of finite numbers")
    pool = np.flatnonzero(~known)
    pool = np.sort(rng.choice(pool, min(ROWS, len(pool)), replace=False))
    if known.any():
        classes, y = np.unique(labels[known], return_inverse=True)
        if len(classes) < 2 or np.bincount(y).min() < LABELS:
            raise ValueError(f"labels: {len(classes)} classes, the rarest with {np.bincount(y).min()} images; give at "
                             f"least {LABELS} of each of two or more")
        found, drawn, agreement = from_labels(h[known], y, h[pool], rng)
    else:
        found, drawn, agreement = from_clusters(h[pool], rng)
    logs = np.log([ratio_of(shares) for shares in drawn])
    middle = np.log(ratio_of(found))
    low, high = np.exp(np.clip(2 * middle - np.quantile(logs, [0.975, 0.025]), 0, np.log(MOST)))
    ratio = float(np.exp(max(0, 2 * middle - logs.mean())))
    return {"ratio": ratio, "low": low, "high": high, "agreement": agreement,
            "sentence": sentence(ratio, low, high, agreement, len(found), known.sum())}


def read(features, labels=""):
    """h of an .npz and, by a CSV with columns path and label, class numbers (−1 for others) or None."""
    with np.load(features, allow_pickle=False) as file:
        if "h" not in file.files:
            raise ValueError(f"{features}: no array h in it; give what `embed` wrote, or features.npz of a probe")
        h, paths = file["h"], file["paths"].tolist() if "paths" in file.files else []
        h, paths = h[usable := np.isfinite(h).all(1)], [p for p, good in zip(paths, usable) if good] if paths else []
    if not labels:
        return h, None
    table = pd.read_csv(labels, dtype=str)
    if missing := {"path", "label"} - set(table.columns):
        raise ValueError(f"{labels}: no column {min(missing)}")
    names = dict(zip(table.path, pd.factorize(table.label)[0]))
    found = np.array([names.get(path, -1) for path in paths], int)
    if not (found >= 0).any():
        raise ValueError(f"{labels}: none of its paths is among the {len(paths)} of {features}")
    return h, found


def from_labels(h, y, pool, rng):
    """Shares of classes in the pool, DRAWS bootstrap values of them, and how well held-out labels are told."""
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")

    def shares(own, rest):
        model.fit(h[own], y[own])
        likelihood = model.predict_proba(pool[rest]) / model.priors_
        found = np.full(likelihood.shape[1], 1 / likelihood.shape[1])
        for _ in range(200):
            joint = likelihood * found
            found = (joint / joint.sum(1, keepdims=True)).mean(0)
        return found

    members = [np.flatnonzero(y == c) for c in range(y.max() + 1)]
    drawn = [shares(np.concatenate([rng.choice(m, len(m)) for m in members]), rng.choice(len(pool), len(pool)))
             for _ in range(DRAWS)]
    told = balanced_accuracy_score(y, cross_val_predict(model, h, y, cv=LABELS), adjusted=True)
    return shares(np.arange(len(y)), np.arange(len(pool))), drawn, float(told)


def from_clusters(pool, rng):
    """Weights of clusters, DRAWS bootstrap values of them, and how well these clusterings agree."""
    z = PCA(min(DIMENSIONS, *pool.shape), random_state=0).fit_transform(pool)

    def mixture(rows):
        return GaussianMixture(CLUSTERS, covariance_type="diag", reg_covar=1e-3 * z.var() + 1e-12, max_iter=60,
                               random_state=int(rng.integers(2**31))).fit(z[rows])

    models = [mixture(rng.choice(len(z), len(z))) for _ in range(DRAWS)]
    named = [model.predict(z) for model in models]
    agreement = np.median([adjusted_rand_score(a, b) for a, b in zip(named, named[1:])])
    return mixture(np.arange(len(z))).weights_, [model.weights_ for model in models], float(agreement)


def sentence(ratio, low, high, agreement, parts, n_labels):
    """What may be said of it, or that it cannot be told and why."""
    if agreement < (asked := APART if n_labels else STABLE):
        why = (f"their features do not tell the labelled classes apart ({agreement:.2f} of the way from chance"
               if n_labels else f"their clusters do not hold (agreement {agreement:.2f} over bootstrap samples")
        more = "" if n_labels else " Labels of a few images of each class may tell."
        return f"Cannot tell how uneven these images are: {why}, {asked} is asked).{more}"
    if high / low > WIDE:
        return (f"Cannot tell how uneven these images are: the interval of the ratio, {low:.3g} to {high:.3g}, spans "
                f"more than a factor of {WIDE}.")
    of = f"{parts} classes, by {n_labels} labels" if n_labels else f"{parts} clusters, which need not be classes"
    return f"As uneven as a long tail of 1:{ratio:.3g} ({low:.3g} to {high:.3g}, a bootstrap of images) over {of}."
