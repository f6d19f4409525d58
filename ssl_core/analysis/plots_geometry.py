"""Figures of how features lie: alignment against uniformity, spread of classes by frequency, nearest neighbours, and
how well a number of each image tells that its class is rare."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ssl_core.analysis import geometry
from ssl_core.analysis.plots import COLUMN, GROUPS, PAGE, as_text, axes, legend_below, plot_pictures
from ssl_core.analysis.plots_curves import INKS, MARKERS
from ssl_core.analysis.plots_study import across, looks, source, wrapped

SERIES = ["dataset", "series", "arm", "ratio", "twin", "network"]
MARKS = {"all": ("0.2", "o"), **{group: (GROUPS[group], mark) for group, mark in zip(GROUPS, "sDv")}}
SHOWN = {"spread": "within / between", "nc1": "NC1, tr(Σ_c Σ_B⁺) / C"}
QUANTITIES = {"distance": "view distance", "memory": "memory of the loss", "loss": "last loss"}


# --- alignment and uniformity -----------------------------------------------------------------------------------------

def plot_alignment(frame, ax=None):
    """Alignment against uniformity, lower left is better: a small dot for each split, a large one for their mean.

    frame: a row for each encoder, with the columns SERIES, draw_seed, order_seed, alignment, uniformity.
    """
    columns = across(frame.series.unique(), COLUMN * 1.3)
    ax = axes(ax, COLUMN * 1.3, COLUMN + 0.16 * -(-frame.series.nunique() // columns))
    for name, look in looks(frame).items():
        rows, look = frame[frame.series == name], look | {"linestyle": ""}
        if len(rows) > 1:
            ax.plot(rows.uniformity, rows.alignment, **look | {"markersize": 2, "alpha": 0.6})
        ax.plot(rows.uniformity.mean(), rows.alignment.mean(), label=name, **look | {"markersize": 6})
    ax.set(xlabel="uniformity, log mean exp(−2 ‖u − v‖²)", ylabel="alignment, mean ‖u − v‖² of views")
    legend_below(ax.figure, columns)
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
    """Spread within classes over that between them: a line for each series, a mark for all, many, medium and few.

    drawn: of `scatter_levels`.
    """
    names, groups = list(dict.fromkeys(drawn.series)), [group for group in MARKS if (drawn.group == group).any()]
    ax = axes(ax, PAGE * 0.75, 0.8 + 0.22 * len(names))
    for i, group in enumerate(groups):
        rows, (colour, marker) = drawn[drawn.group == group], MARKS[group]
        at = np.array([names.index(name) for name in rows.series]) + 0.16 * (i - (len(groups) - 1) / 2)
        ax.errorbar(rows["mean"], at, xerr=np.nan_to_num(rows.high - rows["mean"]), label=group, elinewidth=0.8,
                    capsize=1.5, color=colour, marker=marker, markersize=4, linestyle="")
    ax.set_yticks(range(len(names)), names)
    ax.set(xlabel=SHOWN[drawn.metric.iloc[0]], xlim=(0, None), ylim=(len(names) - 0.5, -0.5))
    return ax


def plot_scatters(found):
    """The plain ratio and NC1, side by side under one legend."""
    fig, panels = plt.subplots(1, 2, figsize=(PAGE, 1.1 + 0.22 * found.series.nunique()), sharey=True)
    for ax, metric in zip(panels, SHOWN):
        plot_scatter(scatter_levels(found, metric), ax)
    legend_below(fig, 4, title="classes, by images in pretraining")
    return fig


def caption_scatter(found, table):
    n = found.groupby(["series", "group"]).size().max()
    many = found.n[found.group == "all"].max()
    bars = f"Points: means over {n} splits; bars: 95 % intervals over splits (t)" if n > 1 else "One split, no interval"
    return ("Spread of features within classes against that between their means, lower is more compact: the plain "
            "ratio, and its NC1 form, which looks along the directions that tell classes apart. "
            f"{many:,} test images, classes weighted alike; which classes are few differs between splits, and is for a "
            f"balanced arm as in the imbalanced one of the same seeds. {bars}. {source(table)}")


# --- neighbours -------------------------------------------------------------------------------------------------------

def queries(labels, frequency=None, most=8, seed=0):
    """Positions of one image each of at most `most` classes, rare classes first where their frequency is known."""
    rng, labels = np.random.default_rng(seed), np.asarray(labels)
    rank = {"few": 0, "medium": 1, "many": 2}
    order = sorted(np.unique(labels[labels >= 0]), key=lambda c: rank[frequency[c]] if frequency is not None else 0)
    return np.array([rng.choice(np.flatnonzero(labels == c)) for c in order[:most]])


def neighbour_frame(near, at, data, parts, frequency=None):
    """What the figure is drawn from: the queries `at`, as rank 0, and their neighbours, with class and picture.

    near: of `geometry.neighbours`, of test images among the labelled ones; data: an ImageSet; parts: its pools.
    """
    asked = pd.DataFrame({"query": at, "rank": 0, "neighbour": at, "label": data.labels[parts.test[at]], "same": True})
    rows = pd.concat([asked, near[near["query"].isin(at)]], ignore_index=True)
    places = [(parts.labelled if rank else parts.test)[i] for rank, i in zip(rows["rank"], rows.neighbour)]
    named = {c: str(name) for c, name in enumerate(data.classes)}
    return rows.assign(**{"query": rows["query"].map(list(at).index), "class": rows.label.map(named).fillna("no label"),
                          "frequency": [frequency[c] if frequency is not None and c >= 0 else "" for c in rows.label],
                          "picture": [as_text(data.images[i]) for i in places]}).sort_values(["query", "rank"])


def plot_neighbours(frame, ax=None):
    """Query images, each before its neighbours; framed, with its class below, where that is another.

    frame: of `neighbour_frame`.
    """
    gap, names = 0.4, frame[frame["rank"] == 0].fillna({"frequency": ""})
    ax = axes(ax, PAGE * 0.75, 1.05 * len(names) + 0.3)
    pictures = frame.pivot(index="query", columns="rank", values="picture").to_numpy()
    said = [wrapped(name, 0.8) + f"\n({rare})" * bool(rare) for name, rare in zip(names["class"], names.frequency)]
    plot_pictures(pictures, ax, ["query", *range(1, pictures.shape[1])], said, gap)
    for row in frame[~frame.same].to_dict("records"):
        at = row["query"] * (1 + gap)
        ax.add_patch(plt.Rectangle((row["rank"] - 0.475, at - 0.475), 0.95, 0.95, fill=False, edgecolor=INKS[3],
                                   linewidth=1.8))
        ax.text(row["rank"], at + 0.52, wrapped(row["class"], 0.66), fontsize=6, ha="center", va="top")
    return ax


def caption_neighbours(found, shares, table):
    """shares: {group: share of neighbours of the query's own class over all test images}."""
    said = ", ".join(f"{name} {100 * value:.0f} %" for name, value in shares.items())
    return (f"Test images and the {found['rank'].max()} labelled images nearest to them by the angle between features. "
            "Framed, with its class: a neighbour of another class. Over all test images, neighbours of the same "
            f"class: {said}. {source(table)}")


# --- is a rare class told? --------------------------------------------------------------------------------------------

def plot_detections(frame):
    """A panel for each arm and data set, four in a row; of one epoch, one panel with a line for each of them.

    frame: of `geometry.detection`, with run and series.
    """
    each = list(frame.groupby("series", sort=False))
    if frame.epoch.nunique() == 1:
        return plot_detection(frame).figure
    wide = min(4, len(each))
    down, inches = -(-len(each) // wide), PAGE if wide > 1 else COLUMN * 1.3
    fig, panels = plt.subplots(down, wide, figsize=(inches, 0.5 + 1.9 * down), sharey=True, squeeze=False)
    for ax in panels.flat[len(each):]:
        fig.delaxes(ax)
    for ax, (series, rows) in zip(panels.flat, each):
        plot_detection(rows, ax).set_title(wrapped(series, (inches - 0.5) / wide))
    for ax in panels[:, 1:].flat:
        ax.set_ylabel("")
    legend_below(fig, len(QUANTITIES))
    return fig


def plot_detection(frame, ax=None):
    """AUROC of telling few classes from the others, 0.5: not told, a line, or at one epoch a point, for each run."""
    at_end = frame.epoch.nunique() == 1
    kinds = list(frame.groupby(["series", "quantity"], sort=False))
    ax = axes(ax, *((PAGE * 0.75, 0.7 + 0.2 * len(kinds)) if at_end else (COLUMN * 1.3, 2.4)))
    for i, ((_, quantity), rows) in enumerate(kinds):
        which = list(QUANTITIES).index(quantity)
        look = {"color": INKS[which], "marker": MARKERS[which], "markersize": 3.5, "capsize": 1.5, "elinewidth": 0.6}
        whole = rows[rows.n >= rows.groupby("run").n.transform("max") / 2]  # not the few of an epoch cut short
        for j, (_, one) in enumerate(whole.groupby("run", sort=False)):
            bars = [one.value - one.low, one.high - one.value]
            if at_end:
                ax.errorbar(one.value, [i + 0.12 * (j - (rows.run.nunique() - 1) / 2)], xerr=bars, **look)
            else:
                every = max(1, len(one) // 5)
                ax.errorbar(one.epoch, one.value, yerr=bars, linewidth=1, errorevery=every, markevery=every,
                            label=QUANTITIES[quantity] if j == 0 else None, **look)
    if at_end:
        ax.axvline(0.5, color="0.5", linewidth=0.7)
        ax.set_yticks(range(len(kinds)), [f"{name}, {QUANTITIES[quantity]}" for (name, quantity), _ in kinds])
        ax.set(xlabel="AUROC, few against others, after the last epoch", ylim=(len(kinds) - 0.4, -0.6))
    else:
        ax.axhline(0.5, color="0.5", linewidth=0.7)
        ax.set(xlabel="epoch", ylabel="AUROC, few against others")
    return ax


def caption_detection(frame, table):
    rare = " to ".join(f"{n:,}" for n in sorted({frame.n_rare.min(), frame.n_rare.max()}))
    return (f"Does an image's own number tell that its class is rare? Area under the ROC curve over {frame.n.max():,} "
            f"pretraining images, {rare} of them of few classes; above 0.5 the number is larger for rare classes, "
            "below it smaller. A line, or a point, for each run, without a last epoch that saw less than half of the "
            "images; bars: DeLong's 95 % intervals over images, none where one is rare. Labels serve only this "
            f"picture. {source(table)}")


def shares(found, labels, frequency=None):
    """{group: share of neighbours of the query's own class}, over all queries and by frequency."""
    same = found.groupby("query").same.mean()
    groups = pd.Series([frequency[c] for c in np.asarray(labels)[same.index]] if frequency is not None else [],
                       dtype=object)
    means = same.reset_index(drop=True).groupby(groups).mean() if frequency is not None else {}
    return {"all": same.mean()} | {name: means[name] for name in GROUPS if name in means}
