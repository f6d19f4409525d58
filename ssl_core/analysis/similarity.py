"""How alike two models are: representations by centred kernel alignment, outputs by the Kolmogorov-Smirnov distance.

Kornblith, Norouzi, Lee, Hinton: Similarity of Neural Network Representations Revisited, ICML 2019, arXiv 1905.00414.
Kaku, Upadhya, Razavian, NeurIPS 2021, arXiv 2110.14805, compare with both a network before and after fine-tuning, and
networks that were fine-tuned with few labels and with all.
"""

import numpy as np
import pandas as pd
from scipy.spatial.distance import pdist, squareform
from scipy.stats import ks_2samp

ROWS, DRAWS = 1000, 50  # images of a subset, and subsets, in Kaku et al.


def linear_cka(x, y):
    """‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) of centred features, Frobenius norms; Kornblith et al., section 3.

    x: (n, D), y: (n, E), the same images in the same order → in [0, 1], the same after any rotation or scaling of
    either; NaN where the images all have the same features. Taken from the two n × n kernels XXᵀ and YYᵀ, it is biased
    upwards where n is not far above D: compare values of one n and one network only.
    """
    return alignment(*(z @ z.T for z in (centred(x), centred(y))))


def rbf_cka(x, y, sigma="median"):
    """The same with kernels K_ij = exp(−‖x_i − x_j‖² / 2σ²) in place of XXᵀ; Kornblith et al., section 3 → in [0, 1].

    sigma: "median", of the distances between two images, of x and of y each its own; or one number for both. Kaku et
    al. took 0.8 on features as they are. Where all distances are far larger, K is nearly the identity, and the value
    close to 1 whatever the two networks are.
    """
    return alignment(*(gaussian(z, sigma) for z in (x, y)))


def gaussian(z, sigma):
    distances = pdist(np.asarray(z, np.float64))
    width = np.median(distances) if sigma == "median" else sigma
    return np.exp(-(squareform(distances) / (width or 1)) ** 2 / 2)


def alignment(k1, k2):
    """HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)), HSIC(K, L) = tr(KHLH) / (n − 1)², H = I − 1/n; kernels (n, n)."""
    k1, k2 = (centred(centred(k).T) for k in (k1, k2))
    norms = np.linalg.norm(k1) * np.linalg.norm(k2)
    return float(np.clip((k1 * k2).sum() / norms, 0, 1)) if norms > 0 else float("nan")


def centred(z):
    z = np.asarray(z, np.float64)
    return z - z.mean(0)


def subset(n, rows=ROWS, seed=0):
    """Sorted positions of at most `rows` of n images, drawn by the seed (or generator)."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:rows])


def over_subsets(measure, x, y, rows=ROWS, draws=DRAWS, seed=0):
    """A measure on random subsets of at most `rows` images: mean and standard deviation over the draws.

    The subsets overlap, so the deviation says how much the choice of images moves the value, and is no interval of it;
    NaN of one draw, as of all images where there are no more than `rows`.
    """
    rng, n = np.random.default_rng(seed), len(x)
    subsets = [np.arange(n)] if n <= rows else [subset(n, rows, rng) for _ in range(draws)]
    values = np.array([measure(x[at], y[at]) for at in subsets])
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def cka_rows(before, after, **constants):
    """Rows of the results table, cka_linear and cka_rbf of each layer, without interval.

    before, after: {layer: (n, D)}, features of the same test images; constants: columns such as n_labelled.
    """
    common = {"part": "test", "group_kind": "all", "group": "all", "interval": "", **constants}
    return [{**common, "layer": layer, "metric": metric, "value": measure(x, after[layer]), "n": len(x)}
            for layer, x in before.items() for metric, measure in (("cka_linear", linear_cka), ("cka_rbf", rbf_cka))]


def ks_distance(few, many):
    """max |F(p) − G(p)|, F and G the empirical distributions of one class's probability; then the mean over classes.

    few, many: (n, C) and (m, C) probabilities of two models → the mean and the C distances, all in [0, 1].
    """
    distances = np.array([ks_2samp(p, q).statistic for p, q in zip(np.transpose(few), np.transpose(many), strict=True)])
    return float(distances.mean()), distances


def ks_rows(cells):
    """Distances of each budget's test probabilities from those of the largest budget, as a DataFrame.

    cells: {budget: cell}, each with "probabilities" (n, C) and "classes" as the arrays of a finished cell; all of the
    same encoder and test images. Columns budget, against, group_kind ("all", or "class"), group, metric, value, n.
    """
    largest, rows = max(cells), []
    for budget in sorted(set(cells) - {largest}):
        few, many = cells[budget]["probabilities"], cells[largest]["probabilities"]
        mean, distances = ks_distance(few, many)
        common = {"budget": budget, "against": largest, "metric": "ks_distance", "n": len(few)}
        rows += [{**common, "group_kind": "all", "group": "all", "value": mean}]
        rows += [{**common, "group_kind": "class", "group": str(name), "value": float(value)}
                 for name, value in zip(cells[budget]["classes"], distances, strict=True)]
    return pd.DataFrame(rows)
