"""Features in the plane, coloured by class: t-SNE (van der Maaten & Hinton, Visualizing Data using t-SNE, JMLR 9, 2008)
and UMAP (McInnes, Healy & Melville, arXiv 1802.03426)."""

import json
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.manifold import TSNE

from ssl_core.analysis.plots import COLUMN, PAGE, axes, legend_below
from ssl_core.analysis.plots_curves import INKS
from ssl_core.analysis.plots_study import source

MOST, STEPS = 2000, 1000  # images, and iterations, of one embedding
MARKERS = "osD^v<>Php*X"
STORED = {"h": "features", "token": "token"}  # of a probe, by what it reads
NAMED = 12  # classes; more than these get no legend


def balanced_sample(labels, most=MOST, seed=0):
    """Sorted positions of at most `most` images, each class as often as another; a rare class gives what it has.

    labels: (n,); −1, no label, is left out.
    """
    rng, labels = np.random.default_rng(seed), np.asarray(labels)
    classes = np.unique(labels[labels >= 0])
    each = most // max(len(classes), 1)
    drawn = [rng.permutation(np.flatnonzero(labels == c))[:each] for c in classes]
    return np.sort(np.concatenate(drawn)) if drawn else np.zeros(0, np.int64)


def first_linear(arrays, features):
    """What the first linear layer of a stored probe puts out, before any bend: (n, D) → (n, C).

    arrays: head arrays of a cell by name: mean, scale (D,), weight (C, D), bias (C,); or hidden_weight, hidden_bias of
    a head with a hidden layer, which then is the first.
    """
    weight, bias = ("hidden_weight", "hidden_bias") if "hidden_weight" in arrays else ("weight", "bias")
    return (np.asarray(features, np.float64) - arrays["mean"]) / arrays["scale"] @ arrays[weight].T + arrays[bias]


def stored(folder):
    """("h", (n, D)): the features in a probe's folder; "token" of one that reads the class token alone."""
    paths = {what: folder / f"{name}.npz" for what, name in STORED.items()}
    what = next(what for what, path in paths.items() if path.exists())
    with np.load(paths[what], allow_pickle=False) as kept:
        return what, kept[what]


def largest_head(folder, cells, what="h"):
    """Arrays of the trained head with the most labels that a run's cells keep, by name; {} where there is none.

    folder: of a run; cells: dicts with id and budget, as a plan has them; what: the features it reads.
    """
    for cell in sorted(cells, key=lambda cell: -cell["budget"]):
        path = folder / "cells" / f"{cell['id']}.npz"
        if not path.exists():
            continue
        with np.load(path, allow_pickle=False) as kept:
            if "head/scale" in kept.files and json.loads(str(kept["about"])).get("features", "h") == what:
                return {name[5:]: kept[name] for name in kept.files if name.startswith("head/")}
    return {}


def embed_2d(features, labels, seed=0, perplexity=30, classes=None, most=MOST, how="t-SNE"):
    """t-SNE of L2-normalised rows from a PCA start, 1,000 iterations, or UMAP of them → DataFrame(x, y, label).

    Its attrs hold how, kl, the divergence reached, perplexity and n; UMAP has no kl, and perplexity neighbours.
    features: (n, D); labels: (n,); classes: their names. perplexity is cut to a third of the images, as it counts
    neighbours. ValueError where there is nothing to embed.
    """
    if np.ndim(labels) != 1:
        raise ValueError(f"{how} colours one class an image; for several labels give the column of one of them")
    at = balanced_sample(labels, most, seed)
    x = np.asarray(features, np.float64)[at]
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    if len(at) < 4 or np.ptp(x, axis=0).max() < 1e-9:
        raise ValueError(f"{how}: {len(at)} images, " + ("give at least 4" if len(at) < 4 else "all features alike"))
    perplexity = min(perplexity, (len(at) - 1) / 3)
    if how == "UMAP":
        placed, kl = umap_of(x, round(perplexity), seed), float("nan")
    else:
        tsne = TSNE(perplexity=perplexity, init="pca", max_iter=STEPS, random_state=seed)
        placed, kl = tsne.fit_transform(x), float(tsne.kl_divergence_)
    names = np.asarray(labels)[at] if classes is None else np.asarray(classes)[np.asarray(labels)[at]]
    frame = pd.DataFrame({"x": placed[:, 0], "y": placed[:, 1], "label": names})
    frame.attrs = {"how": how, "kl": kl, "perplexity": float(perplexity), "n": len(at)}
    return frame


def umap_of(x, neighbours, seed):
    """UMAP of rows (n, D) on one thread, so that the seed decides it: (n, 2)."""
    with warnings.catch_warnings():  # of Tensorflow, which a part of it that is not used here would want
        warnings.simplefilter("ignore", ImportWarning)
        from umap import UMAP  # only here: it compiles as it is imported
    return UMAP(n_neighbors=max(2, neighbours), metric="euclidean", random_state=seed, n_jobs=1).fit_transform(x)


def plot_embedding(frame, ax=None, title=""):
    """Points by class, with the KL divergence. frame: of `embed_2d`. Axes have no unit: only nearness means something.
    """
    ax = axes(ax, COLUMN, COLUMN)
    for i, (label, rows) in enumerate(frame.groupby("label", sort=True)):
        ax.scatter(rows.x, rows.y, s=5, marker=MARKERS[i % len(MARKERS)], color=INKS[i % len(INKS)], alpha=0.7,
                   linewidths=0, label=str(label), rasterized=True)
    of = frame.attrs
    kl = f"KL {of['kl']:.2f}, " * bool(of["kl"] == of["kl"]) + f"n = {of['n']:,}"
    ax.set(xticks=[], yticks=[], xlabel=f"{of['how']} 1", ylabel=f"{of['how']} 2",
           title=f"{title}\n{kl}" if title else kl)
    ax.set_box_aspect(1)
    return ax


def plot_embeddings(frames):
    """Panels of several embeddings, two a row, under one legend. frames: {title: frame of `embed_2d`}."""
    n_rows = -(-len(frames) // 2)
    named = sorted({str(label) for frame in frames.values() for label in frame.label})
    fig, panels = plt.subplots(n_rows, 2, figsize=(PAGE * 0.8, 3.2 * n_rows + 0.5), squeeze=False)
    for ax in panels.flat[len(frames):]:
        ax.set_axis_off()
    for ax, (title, frame) in zip(panels.flat, frames.items()):
        plot_embedding(frame, ax, title)
    if len(named) <= NAMED:
        legend_below(fig, min(6, len(named)), markerscale=2)
    return fig


def embedding_data(frames):
    """The points of several panels below one another, with how, kl and perplexity: what is saved beside the figure."""
    return pd.concat([frame.assign(panel=title, **{name: frame.attrs[name] for name in ("how", "kl", "perplexity")})
                      for title, frame in frames.items()], ignore_index=True)


def frames_of(data):
    """The panels of `embedding_data` again: {title: frame}."""
    frames = {title: rows.drop(columns="panel") for title, rows in data.groupby("panel", sort=False)}
    for rows in frames.values():
        rows.attrs = {"n": len(rows)} | {name: rows[name].iloc[0] for name in ("how", "kl", "perplexity")}
    return frames


def caption_embedding(frames, table, seed=0):
    of = list(frames.values())
    n_classes = max(frame.label.nunique() for frame in of)
    sizes = " and ".join(f"{n:,}" for n in sorted({frame.attrs["n"] for frame in of}))
    how, near = of[0].attrs["how"], of[0].attrs["perplexity"]
    made = f"{near:.0f} neighbours, seed {seed}. Distances" if how == "UMAP" else (
        f"PCA start, perplexity {near:g}, {STEPS:,} iterations, seed {seed}. KL: divergence reached, lower is a closer "
        "fit; distances")
    return (f"{how} of L2-normalised features, {sizes} images a panel, {n_classes} classes equally often as far as "
            f"they reach{'' if n_classes <= NAMED else ' (colours repeat)'}; {made} between far groups mean nothing, "
            f"and no number was read off this picture. {source(table)}")
