"""How uneven is a pool of images whose classes nobody knows, by some labels; without any it cannot be told.

The shares of classes among the images without a label, by Bayesian quantification (A. Ziegler, P. Czyż. Bayesian
Quantification with Black-Box Estimators. TMLR 2024): a linear discriminant tells the class of every image; how often it
takes one class for another is known from the labelled images it was not fitted to, as far as so few can tell, and both
that and the shares are drawn from what is then likely. So the interval holds the doubt about the discriminant's errors,
which images of a large class among those told as a small one are. Unevenness is a ratio: that of the long tail, over as
many classes, whose shares have the same entropy.

It takes for granted that all classes of the pool have labels, and that the labelled images of a class are drawn like
those in the pool; how many there are of each need not be. How well it follows the truth is measured in docs/audit.md.
"""

import numpy as np
import pandas as pd
from scipy.special import entr, gammaln
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedKFold

LABELS, FOLDS, DIMENSIONS = 20, 5, 128  # labels of each class at least: with 5 the interval was too narrow
WIDE, UNEVEN = 10, 2  # an interval that spans a factor more tells but its low end, and nothing when that is below 1:2
CHAINS, STEPS, EVERY = 10, 1500, 10  # of the sampler: a third of the steps is thrown away, and every tenth kept
EVEN = np.append(np.logspace(-0.5, 2, 16), np.inf)  # of the shares' Dirichlet prior: from about 1:300 to even
MOST = 1e4
BLIND = ("Cannot tell how uneven these images are: features alone do not say what a class is, and clusters of them do "
         f"not follow its size (docs/audit.md). Labels of {LABELS} or more images of each class may tell (--labels).")


def ratio_of(shares):
    """The ratio of the long tail whose shares have the entropy of these, (..., C) → (...), from 1 to MOST."""
    logs = np.linspace(0, np.log(MOST), 2000)
    tails = np.exp(-logs[:, None] * np.linspace(0, 1, np.shape(shares)[-1]))
    evenness = entr(tails / tails.sum(1, keepdims=True)).sum(1)
    return np.exp(np.interp(-entr(shares / np.sum(shares, -1, keepdims=True)).sum(-1), -evenness, logs))


def tail(h, labels=None, seed=0):
    """Features (n, D), labels (n,) with −1 where not known, or None → dict ratio, low, high, sentence.

    ratio: the posterior median; low, high: its 95 % credible interval. Without labels nothing is known, 1 to infinity.
    ValueError, one line, where the features or labels cannot be judged at all.
    """
    h, rng = np.asarray(h, np.float64), np.random.default_rng(seed)
    known = np.zeros(len(h), bool) if labels is None else np.asarray(labels) >= 0
    if h.ndim != 2 or not np.isfinite(h).all() or (~known).sum() < 100:
        raise ValueError(f"features are {h.shape}, {(~known).sum()} of them without a label; give at least 100 rows "
                         "of finite numbers")
    if not known.any():
        return {"ratio": np.nan, "low": 1.0, "high": np.inf, "sentence": BLIND}
    classes, y = np.unique(labels[known], return_inverse=True)
    if len(classes) < 2 or np.bincount(y).min() < LABELS:
        raise ValueError(f"labels: {len(classes)} classes, the rarest with {np.bincount(y).min()} images; give at "
                         f"least {LABELS} of each of two or more")
    if h.shape[1] > DIMENSIONS:
        h = PCA(min(DIMENSIONS, len(h)), random_state=0).fit_transform(h)
    drawn = ratio_of(shares(*told(h[known], y, h[~known], rng), rng))
    low, ratio, high = np.quantile(drawn, [0.025, 0.5, 0.975])
    span = f"{like(low)} to {like(high)} over {len(classes)} classes, a 95 % credible interval from {len(y)} labels"
    said = (f"As uneven as a long tail of {like(ratio)} ({span})." if high <= WIDE * low else
            f"At least as uneven as a long tail of {like(low)} ({span})." if low >= UNEVEN else
            f"Cannot tell how uneven these images are ({span}).")
    return {"ratio": float(ratio), "low": float(low), "high": float(high), "sentence": said}


def like(ratio):
    return f"1:{float(f'{ratio:.3g}'):,g}"


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


def told(h, y, pool, rng):
    """How many labelled images of each class are told as which, (C, C), and how many of the pool as which, (C,).

    Each of the folds' discriminants tells the labelled images it has not seen, and its share of the pool, so that both
    are told alike.
    """
    labelled, unlabelled = np.zeros((y.max() + 1,) * 2), np.zeros(y.max() + 1, int)
    even = np.full(len(labelled), 1 / len(labelled))
    fold = rng.permutation(len(pool)) % FOLDS
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=int(rng.integers(2**31))).split(h, y)
    for k, (own, rest) in enumerate(folds):
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=even)
        model.fit(h[own], y[own])
        np.add.at(labelled, (y[rest], model.predict(h[rest])), 1)
        unlabelled += np.bincount(model.predict(pool[fold == k]), minlength=len(labelled))
    return labelled, unlabelled


def shares(labelled, unlabelled, rng):
    """Draws (n, C) of the shares of classes in the pool, given both counts of `told`, by Gibbs sampling."""
    n_classes, n, finite = len(unlabelled), unlabelled.sum(), EVEN[:-1]
    prior, kept = labelled + 1 / n_classes, []
    p, told_as = rng.dirichlet(np.ones(n_classes), CHAINS), dirichlet(np.stack([prior] * CHAINS), rng)
    for step in range(STEPS):
        joint = told_as * p[..., None]
        z = rng.multinomial(unlabelled, (joint / joint.sum(1, keepdims=True)).swapaxes(1, 2)).swapaxes(1, 2)
        told_as = dirichlet(prior + z, rng)
        counts = z.sum(2)[:, None]  # of each class in the pool, (chains, 1, C)
        fit = (gammaln(counts + finite[:, None]) - gammaln(finite)[:, None]).sum(2)
        fit = np.append(fit + gammaln(n_classes * finite) - gammaln(n_classes * finite + n),
                        np.full((CHAINS, 1), -n * np.log(n_classes)), 1)
        even = EVEN[(fit + rng.gumbel(size=fit.shape)).argmax(1)][:, None]
        p = np.where(np.isinf(even), 1 / n_classes, dirichlet(np.minimum(even, 1e9) + counts[:, 0], rng))
        if step >= STEPS // 3 and step % EVERY == 0:
            kept.append(p)
    return np.concatenate(kept)


def dirichlet(weights, rng):
    """Draws (..., C) for weights (..., C)."""
    drawn = rng.standard_gamma(weights) + 1e-300
    return drawn / drawn.sum(-1, keepdims=True)
