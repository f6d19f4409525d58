"""Figures of how features lie: alignment against uniformity, spread of classes by frequency, nearest neighbours, and
how well a number of each image tells that its class is rare."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ssl_core.analysis import geometry
from ssl_core.analysis.plots import COLUMN, GROUPS, PAGE, axes, show_image
from ssl_core.analysis.plots_curves import INKS, MARKERS
from ssl_core.analysis.plots_study import across, looks, source, wrapped

SERIES = ["dataset", "series", "arm", "ratio", "twin", "network"]
SHOWN = {"spread": "within / between", "nc1": "NC1, tr(Σ_c Σ_B⁺) / C"}
QUANTITIES = {"distance": "view distance", "memory": "memory of the loss", "loss": "last loss"}


# --- alignment and uniformity -----------------------------------------------------------------------------------------

def plot_alignment(frame, ax=None):
    """Alignment against uniformity, lower left is better: a small dot for each split, a large one for their mean.

    frame: a row for each encoder, with the columns SERIES, draw_seed, order_seed, alignment, uniformity.
    """
    ax = axes(ax, COLUMN * 1.3, COLUMN)
    for name, look in looks(frame).items():
        rows, look = frame[frame.series == name], look | {"linestyle": ""}
        if len(rows) > 1:
            ax.plot(rows.uniformity, rows.alignment, **look | {"markersize": 2, "alpha": 0.6})
        ax.plot(rows.uniformity.mean(), rows.alignment.mean(), label=name, **look | {"markersize": 6})
    ax.set(xlabel="uniformity, log mean exp(−2 ‖u − v‖²)", ylabel="alignment, mean ‖u − v‖² of views")
    ax.figure.legend(loc="outside lower center", ncols=across(frame.series.unique(), ax.figure.get_figwidth()))
    return ax


def caption_alignment(frame, table, recipe):
    n = frame.groupby("series").size().max()
    return (f"Alignment and uniformity of h at length 1, two views of {frame.n.max():,} test images by the recipe "
            f"{recipe}, the same for every encoder. Lower is better in both, and either alone is met by a useless "
            f"encoder. {f'Large: mean over {n} splits; small: splits' if n > 1 else 'One split'}. {source(table)}")


# --- spread of classes ------------------------------------------------------------------------------------------------

def scatter_levels(found, metric="spread"):
    """Spread by frequency, and over all classes, averaged over splits. found: rows of `geometry.scatter` with SERIES,
    draw_seed and order_seed."""
    rows = found[found.group_kind.isin(["all", "frequency"])]
    return geometry.over_splits(rows, [*SERIES, "group"], metric).assign(metric=metric)


def plot_scatter(drawn, ax=None):
    """Spread within classes over that between them, of all, many, medium and few classes. drawn: `scatter_levels`."""
    ax = axes(ax, PAGE * 0.75, 2.4)
    style, groups = looks(drawn), [g for g in ("all", *GROUPS) if (drawn.group == g).any()]
    step = min(0.12, 0.8 / len(style))
    for i, (name, look) in enumerate(style.items()):
        rows = drawn[drawn.series == name]
        at = np.array([groups.index(group) for group in rows.group]) + (i - (len(style) - 1) / 2) * step
        ax.errorbar(at, rows["mean"], yerr=np.nan_to_num(rows.high - rows["mean"]), label=name, elinewidth=0.8,
                    capsize=1.5, **look | {"linestyle": ""})
    ax.set_xticks(range(len(groups)), groups)
    ax.set(xlabel="classes, by images in pretraining", ylabel=SHOWN[drawn.metric.iloc[0]],
           xlim=(-0.55, len(groups) - 0.45), ylim=(0, None))
    return ax


def plot_scatters(found):
    """The plain ratio and NC1, side by side under one legend."""
    fig, panels = plt.subplots(1, 2, figsize=(PAGE, 2.6 + 0.16 * -(-found.series.nunique() // 2)))
    for ax, metric in zip(panels, SHOWN):
        plot_scatter(scatter_levels(found, metric), ax)
    fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center",
               ncols=across(found.series.unique()))
    return fig


def caption_scatter(found, table):
    n = found.groupby(["series", "group"]).size().max()
    many = found.n[found.group == "all"].max()
    bars = f"Points: means over {n} splits; bars: 95 % intervals over splits (t)" if n > 1 else "One split, no interval"
    return ("Spread of h within classes against that between their means, lower is more compact: the plain ratio, and "
            f"its NC1 form, which looks along the directions that tell classes apart. {many:,} test images, classes "
            "weighted alike; which classes are few differs between splits, and is for a balanced arm as in the "
            f"imbalanced one of the same seeds. {bars}. {source(table)}")


# --- neighbours -------------------------------------------------------------------------------------------------------

def queries(labels, frequency=None, most=8, seed=0):
    """Positions of one image each of at most `most` classes, rare classes first where their frequency is known."""
    rng, labels = np.random.default_rng(seed), np.asarray(labels)
    rank = {"few": 0, "medium": 1, "many": 2}
    order = sorted(np.unique(labels[labels >= 0]), key=lambda c: rank[frequency[c]] if frequency is not None else 0)
    return np.array([rng.choice(np.flatnonzero(labels == c)) for c in order[:most]])


def plot_neighbours(found, images, near, labels, classes, frequency=None):
    """Query images, each before its neighbours; a name under a neighbour, framed, where its class is another.

    found: of `geometry.neighbours`; images: (Q, C, S, S), near: {position in the bank: image}; labels: (Q,).
    """
    k = found["rank"].max()
    fig, grid = plt.subplots(len(images), k + 1, figsize=(PAGE * 0.75, 0.9 * len(images) + 0.3), squeeze=False)
    for i, row in enumerate(grid):
        rare = "" if frequency is None else f"\n({frequency[labels[i]]})"
        for ax, place in zip(row, [None, *found[found["query"] == i].itertuples()]):
            show_image(ax, images[i] if place is None else near[place.neighbour])
            ax.set_axis_on()
            ax.set(xticks=[], yticks=[])
            wrong = place is not None and not place.same
            for side in ax.spines.values():
                side.set(visible=wrong, color=INKS[3], linewidth=1.8)
            if wrong:
                ax.set_xlabel(wrapped(str(classes[place.label]) if place.label >= 0 else "no label", 1.0), fontsize=6,
                              labelpad=1)
        row[0].set_ylabel(wrapped(str(classes[labels[i]]), 0.8) + rare, fontsize=6, rotation=0, ha="right", va="center")
    for ax, title in zip(grid[0], ["query", *map(str, range(1, k + 1))]):
        ax.set_title(title, loc="center", fontsize=7)
    return fig


def caption_neighbours(found, shares, table):
    """shares: {group: share of neighbours of the query's own class over all test images}."""
    said = ", ".join(f"{name} {100 * value:.0f} %" for name, value in shares.items())
    return (f"Test images and the {found['rank'].max()} labelled images nearest to them by the angle between their h. "
            "Framed, with its class: a neighbour of another class. Over all test images, neighbours of the same "
            f"class: {said}. {source(table)}")


# --- is a rare class told? --------------------------------------------------------------------------------------------

def plot_detection(frame, ax=None):
    """AUROC of telling few classes from the others over epochs, 0.5: not told. frame: of `geometry.detection`, with run
    and series."""
    ax, at_end = axes(ax, COLUMN * 1.3, 2.4), frame.epoch.nunique() == 1
    for i, ((name, quantity), rows) in enumerate(frame.groupby(["series", "quantity"], sort=False)):
        for j, (_, one) in enumerate(rows.groupby("run", sort=False)):
            at = i + 0.1 * j + 0 * one.epoch if at_end else one.epoch
            ax.errorbar(at, one.value, yerr=[one.value - one.low, one.high - one.value], linewidth=1,
                        color=INKS[i % len(INKS)], marker=MARKERS[i % len(MARKERS)], markersize=3.5, capsize=1.5,
                        elinewidth=0.6, errorevery=max(1, len(one) // 6), markevery=max(1, len(one) // 6),
                        label=f"{name}, {QUANTITIES[quantity]}" if j == 0 else None)
    ax.axhline(0.5, color="0.5", linewidth=0.7)
    ax.set(xlabel="runs, after the last epoch" if at_end else "epoch", ylabel="AUROC, few against others")
    if at_end:
        ax.set(xticks=[], xlim=(-0.5, i + 1))
    ax.figure.legend(loc="outside lower center", ncols=across(ax.get_legend_handles_labels()[1],
                                                              ax.figure.get_figwidth()))
    return ax


def caption_detection(frame, table):
    rare = " to ".join(f"{n:,}" for n in sorted({frame.n_rare.min(), frame.n_rare.max()}))
    return (f"Does an image's own number tell that its class is rare? Area under the ROC curve over {frame.n.max():,} "
            f"pretraining images, {rare} of them of few classes; above 0.5 the number is larger for rare classes, "
            "below it smaller. A line, or a point, for each run; bars: DeLong's 95 % intervals over images. Labels "
            f"serve only this picture. {source(table)}")


def shares(found, labels, frequency=None):
    """{group: share of neighbours of the query's own class}, over all queries and by frequency."""
    same = found.groupby("query").same.mean()
    groups = pd.Series([frequency[c] for c in np.asarray(labels)[same.index]] if frequency is not None else [],
                       dtype=object)
    means = same.reset_index(drop=True).groupby(groups).mean() if frequency is not None else {}
    return {"all": same.mean()} | {name: means[name] for name in GROUPS if name in means}
