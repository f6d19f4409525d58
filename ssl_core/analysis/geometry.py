"""How features lie: alignment and uniformity of views, spread within and between classes, and whether a number of each
image tells that its class is rare."""

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import pdist
from scipy.stats import norm, rankdata
from scipy.stats import t as student

from ssl_core.evaluate.features import class_token
from ssl_core.evaluate.neighbours import nearest, unit
from ssl_core.train import effective_rank

BATCH = 256
SPLIT = ("ratio", "twin", "draw_seed", "order_seed")


@torch.inference_mode()
def two_views(encoder, images, augment, seed=0, what="h"):
    """h, or the class token, of two draws of the augmentation of each image, two arrays (N, D), in eval mode.

    images: (N, C, S, S) uint8; what: "h" or "token".
    """
    encoder.eval()
    generator, found = torch.Generator().manual_seed(seed), ([], [])
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(np.array(images[start:start + BATCH]))
        for side in found:
            x = augment(batch, generator)
            side.append((encoder(x).h if what == "h" else class_token(encoder, x)).numpy())
    return tuple(map(np.concatenate, found))


def alignment(z1, z2, alpha=2):
    """Mean of ‖u_i − v_i‖^α, u and v the views' features at length 1: 0 where both views are one point.

    Wang & Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere, ICML 2020, arXiv 2005.10242. z1, z2: (n, D).
    """
    return float((np.linalg.norm(unit(z1) - unit(z2), axis=1) ** alpha).mean())


def uniformity(z, t=2):
    """log of the mean over pairs of exp(−t ‖u_i − u_j‖²), u at length 1: 0 where all are one point, lower is more even.

    Wang & Isola (2020). z: (n, D), n at least 2.
    """
    return float(np.log(np.exp(-t * pdist(unit(np.asarray(z, np.float64)), "sqeuclidean")).mean()))


def spread_of_features(h, other):
    """{metric: value} of one encoder. h, other: (n, D), features of two views of each image."""
    return {"alignment": alignment(h, other), "uniformity": uniformity(h),
            "effective_rank": float(effective_rank(torch.from_numpy(np.asarray(h))))}


def scatter(h, labels, classes, frequency=None):
    """Spread of the features of each class, and of many, medium and few classes: group_kind, group, within, between,
    spread, nc1, n.

    within: mean ‖h − μ_c‖² of a class; between: ‖μ_c − μ‖², μ the mean of all μ_c; spread: the one over the other;
    nc1: tr(Σ_c Σ_B⁺) / C, whose mean over classes is the NC1 of Papyan, Han & Donoho (PNAS 2020, arXiv 2008.08186),
    with classes weighted alike. A group has the means over its classes, and as spread their ratio. All fall as
    classes collapse to points. A class of fewer than two images is left out.

    h: (n, D); labels: (n,), −1 for none; frequency: many, medium or few for each class.
    """
    labels, h = np.asarray(labels), np.asarray(h, np.float64)
    there = [c for c in range(len(classes)) if (labels == c).sum() > 1]
    if len(there) < 2:
        return pd.DataFrame(columns="group_kind group within between spread nc1 n".split())
    means = np.stack([h[labels == c].mean(0) for c in there])
    off = means - means.mean(0)
    inverse = np.linalg.pinv(off.T @ off / len(there), rcond=1e-9, hermitian=True)
    rows = []
    for c, mean, away in zip(there, means, off):
        deviation = h[labels == c] - mean
        rows.append(("class", classes[c], (deviation ** 2).sum(1).mean(), (away ** 2).sum(),
                     ((deviation @ inverse) * deviation).sum(1).mean() / len(there), len(deviation)))
    found = pd.DataFrame(rows, columns="group_kind group within between nc1 n".split())
    groups = [("all", "all", found)]
    for name in ("many", "medium", "few") if frequency is not None else ():
        groups.append(("frequency", name, found[[frequency[c] == name for c in there]]))
    means = [(kind, name, *some[["within", "between", "nc1"]].mean(), some.n.sum()) for kind, name, some in groups
             if len(some)]
    found = pd.concat([found, pd.DataFrame(means, columns=found.columns)], ignore_index=True)
    return found.assign(spread=found.within / found.between)


def over_splits(rows, by, metric):
    """Mean of a column by series, with Student's t interval over splits: mean, low, high, n; NaN for one split."""
    per_split = rows.groupby([*by, "draw_seed", "order_seed"], sort=False, dropna=False)[metric].mean().reset_index()
    found = per_split.groupby(by, sort=False, dropna=False)[metric].agg(["mean", "sem", "size"]).reset_index()
    half = student.ppf(0.975, np.maximum(found["size"] - 1, 1)) * found.pop("sem")
    return found.assign(low=found["mean"] - half, high=found["mean"] + half).rename(columns={"size": "n"})


# --- neighbours -------------------------------------------------------------------------------------------------------

def neighbours(queries, bank, query_labels, bank_labels, k=5):
    """The k images of the bank nearest to each query by cosine: query, rank, neighbour, similarity, label, same.

    queries, bank: (n, D), (m, D); labels: (n,), (m,). query and neighbour are positions.
    """
    near, similar = nearest(unit(queries), unit(bank), k)
    query, rank = np.indices(near.shape)
    label = np.asarray(bank_labels)[near]
    return pd.DataFrame({"query": query.ravel(), "rank": rank.ravel() + 1, "neighbour": near.ravel(),
                         "similarity": similar.ravel(), "label": label.ravel(),
                         "same": (label == np.asarray(query_labels)[:, None]).ravel()})


# --- is a rare class told by a number of its images? ------------------------------------------------------------------

def rare_auroc(scores, rare):
    """Area under the ROC curve of "the higher the score, the rarer the class", with DeLong's 95 % interval (1988).

    scores: (n,); rare: (n,) bool → value, low, high; NaN where either kind is missing, and no interval where it is one.
    """
    x, y = np.asarray(scores)[rare], np.asarray(scores)[~rare]
    if not (len(x) and len(y)):
        return (float("nan"),) * 3
    ranks = rankdata(np.concatenate([x, y]))
    above = (ranks[:len(x)] - rankdata(x)) / len(y)  # share of common images below each rare one
    below = 1 - (ranks[len(x):] - rankdata(y)) / len(x)
    variance = sum(v.var(ddof=1) / len(v) if len(v) > 1 else np.nan for v in (above, below))
    half = norm.ppf(0.975) * variance ** 0.5
    return above.mean(), *np.clip([above.mean() - half, above.mean() + half], 0, 1)


def detection(kept, labels, frequency):
    """`rare_auroc` of few classes against all others, by what was recorded and epoch: quantity, epoch, value, low,
    high, n, n_rare.

    kept: of `methods.view_distance.recorded`; labels: (images,), −1 for none, which is left out.
    """
    rare, found = np.isin(labels, np.flatnonzero(np.asarray(frequency) == "few")), []
    for quantity in [name for name in ("distance", "memory", "loss") if name in kept]:
        for epoch, scores in zip(kept["epochs"], kept[quantity]):
            use = np.isfinite(scores) & (np.asarray(labels) >= 0)
            found.append((quantity, int(epoch), *rare_auroc(scores[use].astype(np.float64), rare[use]), use.sum(),
                          rare[use].sum()))
    return pd.DataFrame(found, columns="quantity epoch value low high n n_rare".split())
