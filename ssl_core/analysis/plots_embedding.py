"""t-SNE of features, coloured by class. van der Maaten & Hinton, Visualizing Data using t-SNE, JMLR 9, 2008."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.manifold import TSNE

from ssl_core.analysis.plots import COLUMN, PAGE, axes
from ssl_core.analysis.plots_curves import INKS
from ssl_core.analysis.plots_study import source

MOST, STEPS = 2000, 1000  # images, and iterations, of one embedding
MARKERS = "osD^v<>Php*X"
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


def largest_head(folder, cells):
    """Arrays of the trained head on h with the most labels that a run's cells keep, by name; {} where there is none.

    folder: of a run; cells: dicts with id and budget, as a plan has them.
    """
    for cell in sorted(cells, key=lambda cell: -cell["budget"]):
        path = folder / "cells" / f"{cell['id']}.npz"
        if not path.exists():
            continue
        with np.load(path, allow_pickle=False) as kept:
            if "head/scale" in kept.files and json.loads(str(kept["about"])).get("features", "h") == "h":
                return {name[5:]: kept[name] for name in kept.files if name.startswith("head/")}
    return {}


def embed_2d(features, labels, seed=0, perplexity=30, classes=None, most=MOST):
    """t-SNE of L2-normalised rows from a PCA start, 1,000 iterations → DataFrame(x, y, label).

    Its attrs hold kl, the divergence reached, perplexity and n. features: (n, D); labels: (n,); classes: their names.
    perplexity is cut to a third of the images, as it counts neighbours. ValueError where there is nothing to embed.
    """
    if np.ndim(labels) != 1:
        raise ValueError("t-SNE colours one class an image; for several labels give the column of one of them")
    at = balanced_sample(labels, most, seed)
    x = np.asarray(features, np.float64)[at]
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    if len(at) < 4 or np.ptp(x, axis=0).max() < 1e-9:
        raise ValueError(f"t-SNE: {len(at)} images, " + ("give at least 4" if len(at) < 4 else "all features alike"))
    perplexity = min(perplexity, (len(at) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", max_iter=STEPS, random_state=seed)
    placed = tsne.fit_transform(x)
    names = np.asarray(labels)[at] if classes is None else np.asarray(classes)[np.asarray(labels)[at]]
    frame = pd.DataFrame({"x": placed[:, 0], "y": placed[:, 1], "label": names})
    frame.attrs = {"kl": float(tsne.kl_divergence_), "perplexity": float(perplexity), "n": len(at)}
    return frame


def plot_embedding(frame, ax=None, title=""):
    """Points by class, with the KL divergence. frame: of `embed_2d`. Axes have no unit: only nearness means something.
    """
    ax = axes(ax, COLUMN, COLUMN)
    for i, (label, rows) in enumerate(frame.groupby("label", sort=True)):
        ax.scatter(rows.x, rows.y, s=5, marker=MARKERS[i % len(MARKERS)], color=INKS[i % len(INKS)], alpha=0.7,
                   linewidths=0, label=str(label), rasterized=True)
    kl = f"KL {frame.attrs['kl']:.2f}, n = {frame.attrs['n']:,}"
    ax.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2", title=f"{title}\n{kl}" if title else kl)
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
        found = {label: handle for ax in panels.flat for handle, label in zip(*ax.get_legend_handles_labels())}
        fig.legend(found.values(), found.keys(), loc="outside lower center", ncols=min(6, len(found)), markerscale=2)
    return fig


def embedding_data(frames):
    """The points of several panels below one another, with panel, kl and perplexity: what is saved beside the figure.
    """
    return pd.concat([frame.assign(panel=title, kl=frame.attrs["kl"], perplexity=frame.attrs["perplexity"])
                      for title, frame in frames.items()], ignore_index=True)


def caption_embedding(frames, table, seed=0):
    of = list(frames.values())
    n_classes = max(frame.label.nunique() for frame in of)
    sizes = " and ".join(f"{n:,}" for n in sorted({frame.attrs["n"] for frame in of}))
    return (f"t-SNE of L2-normalised features, {sizes} images a panel, {n_classes} classes equally often as far as "
            f"they reach{'' if n_classes <= NAMED else ' (colours repeat)'}; PCA start, perplexity "
            f"{of[0].attrs['perplexity']:g}, {STEPS:,} iterations, seed {seed}. KL: divergence reached, lower is a "
            "closer fit; distances between far groups mean nothing, and no number was read off this picture. "
            f"{source(table)}")
