"""Figures of data before any training: images, counts, copies, and how splits are cut."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap, LogNorm

from ssl_core.analysis.plots import GROUPS, PAGE, PALETTE, axes, show_image
from ssl_core.data.census import class_table, holds
from ssl_core.data.splits import class_permutation, frequency_groups, is_labelled

READABLE = 40  # columns whose names and numbers still fit on a page


# --- what is there ----------------------------------------------------------------------------------------------------

def show_classes(data, columns=10, rows=8, seed=0):
    """A row of images for each class, the rarest first (at most `rows` of them), and one for images without a label."""
    table, mine = class_table(data), dict(zip(data.classes, holds(data).T))
    members = {name: mine[name] for name in table["class"][table.n > 0][:rows]}
    members |= {"no label": absent} if (absent := ~is_labelled(data.labels)).any() else {}
    fig, grid = plt.subplots(len(members), columns, squeeze=False, figsize=(PAGE, PAGE * len(members) / (columns + 2)))
    for (name, these), row in zip(members.items(), grid):
        for ax in row:
            ax.set_axis_off()
        for ax, i in zip(row, np.random.default_rng(seed).permutation(np.flatnonzero(these))):
            show_image(ax, data.images[i])
        row[0].text(-0.15, 0.5, f"{name}\n{these.sum():,}", transform=row[0].transAxes, ha="right", va="center")
    if data.synthetic:
        fig.suptitle("synthetic images", x=0.01, ha="left", fontsize=8.5)
    return grid


def plot_class_by_group(table, ax=None):
    """Images of each class (row) in each group (column), those with most of the rarest class first.

    table: of `census.class_by_group`. Names and numbers are written while they can be read.
    """
    totals = table.sum().drop("no label")
    names = totals[totals > 0].sort_values(kind="stable").index.tolist() + ["no label"] * bool(table["no label"].sum())
    counts = table.sort_values(names, ascending=False, kind="stable")[names].T.to_numpy(float)
    n, readable = len(table), len(table) <= READABLE
    ax = axes(ax, PAGE, 0.9 + 0.24 * len(names) + 0.4 * readable)
    norm = LogNorm(0.5, max(10, counts.max()))
    picture = ax.imshow(np.where(counts > 0, counts, np.nan), cmap="Blues", norm=norm, aspect="auto",
                        interpolation="nearest")
    bare(ax).set_yticks(range(len(names)), [f"{name} ({total:,.0f})" for name, total in zip(names, counts.sum(1))])
    if readable:
        ax.set_xticks(range(n), table.sort_values(names, ascending=False, kind="stable").index, rotation=60, ha="right",
                      rotation_mode="anchor")
        for (row, column), k in np.ndenumerate(counts):
            ax.text(column, row, f"{k:.0f}" if k else "", ha="center", va="center", fontsize=6,
                    color="white" if norm(max(k, 0.5)) > 0.6 else "0.15")
    else:
        bar = ax.figure.colorbar(picture, ax=ax, label="images", pad=0.01, ticks=[1, 10, 100, 1000], format="%d")
        bar.minorticks_off()
        ax.set_xlabel("groups, those with most of the rarest class first")
    ax.set_title(f"{n:,} groups; {(counts[0] > 0).sum():,} of them hold {names[0]!r}, the rarest class")
    return ax


def bare(ax):
    """Axes without grid lines and ticks, for pictures of tables."""
    ax.grid(visible=False)
    ax.tick_params(length=0)
    return ax


def show_copies(data, copies, sets=4):
    """Sets of identical images, two of each, their class and group beneath. copies: of `census.exact_duplicates`."""
    chosen, names = copies.head(sets), data.label_names()
    fig, grid = plt.subplots(1, 2 * len(chosen), squeeze=False,
                             figsize=(PAGE * len(chosen) / sets, PAGE / sets / 2 + 0.75))
    for at, row in enumerate(chosen.itertuples()):
        for ax, i in zip(grid[0, 2 * at:2 * at + 2], row.positions):
            show_image(ax, data.images[i])
            ax.text(0.5, -0.05, f"{names[i] or 'no label'}\n{data.group_names[data.groups[i]] if data.grouped else ''}",
                    transform=ax.transAxes, ha="center", va="top", fontsize=6.5)
        crossed = [what for what in ("parts", "groups", "classes") if getattr(row, f"across_{what}")]
        grid[0, 2 * at].set_title(f"{row.n} alike" + (f", across {', '.join(crossed)}" if crossed else ""), fontsize=7)
    return grid


# --- how it is cut ----------------------------------------------------------------------------------------------------

def plot_curves(counts, ax=None):
    """Images per class, head first, one line for each ratio. counts: {ratio: images per class, in that order}."""
    ax = axes(ax, PAGE * 0.72, 2.6)
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.75, len(counts)))
    for (ratio, n), shade in zip(counts.items(), shades):
        ax.plot(range(1, len(n) + 1), n, marker="o", color=shade)
        ax.annotate(f"1:{ratio:g}  ({sum(n):,} images)", (len(n), n[-1]), xytext=(7, 0), textcoords="offset points",
                    va="center", color=shade, fontsize=7.5, annotation_clip=False)
    ax.set(yscale="log", xlabel="class, the most frequent first", ylabel="images")
    ax.set_xticks(range(1, max(map(len, counts.values())) + 1))
    return ax


def plot_orders(counts, classes, seeds):
    """Images of each class (column) under each order seed (row), coloured many, medium, few. counts: (S, C)."""
    ax = axes(None, PAGE, 0.7 + 0.25 * len(seeds))
    names = list(GROUPS)
    codes = [[names.index(g) for g in frequency_groups(np.argsort(-row, kind="stable"))] for row in counts]
    shades = ListedColormap([(*GROUPS[name][:3], 0.45) for name in names])
    bare(ax).imshow(codes, cmap=shades, vmin=0, vmax=len(names) - 1, aspect="auto")
    for (r, c), n in np.ndenumerate(counts):
        ax.text(c, r, f"{n:,}", ha="center", va="center", fontsize=7)
    ax.set_xticks(range(len(classes)), classes, rotation=30, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(seeds)), [f"order_seed {s}" for s in seeds])
    handles = [plt.Rectangle((0, 0), 1, 1, color=shades(i)) for i in range(len(names))]
    ax.figure.legend(handles, names, loc="outside upper right", ncols=len(names))
    return ax


def plot_nested(drawn, names, classes, ax=None):
    """One row per split: which images it holds, class by class, head first, in the order in which they are drawn."""
    first = drawn[0]
    runs = [class_permutation(first.source, c, first.seed) for c in first.order]
    ax = axes(ax, PAGE, 0.9 + 0.24 * len(drawn))
    inside = np.stack([np.isin(np.concatenate(runs), split.indices) for split in drawn])
    bare(ax).imshow(inside, cmap=ListedColormap(["0.93", PALETTE[0]]), aspect="auto", interpolation="nearest")
    ends = np.cumsum([len(run) for run in runs])
    ax.vlines(ends[:-1] - 0.5, -0.5, len(drawn) - 0.5, color="white", linewidth=1.5)
    ax.hlines(np.arange(len(drawn) - 1) + 0.5, -0.5, ends[-1] - 0.5, color="white", linewidth=1.5)
    ax.set_yticks(range(len(drawn)), [f"{name} ({len(split):,})" for name, split in zip(names, drawn)])
    ax.set_xticks(ends - np.diff(ends, prepend=0) / 2, [classes[c] for c in first.order], rotation=30, ha="right",
                  rotation_mode="anchor")
    return ax


def plot_confounding(recall, gaps, classes):
    """Recall by class after balanced training, and what it does to "many minus few" under each class order.

    recall: (C,); gaps: (S,), mean recall of the classes called many minus those called few.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 2.5), width_ratios=[1.35, 1])
    at = np.argsort(recall)
    left.barh([classes[c] for c in at], 100 * recall[at], color="0.65")
    left.set(xlabel="recall, %", title="nothing is rare here: classes differ all the same")
    right.axvline(0, color="0.2", linewidth=0.8)
    right.plot(100 * np.asarray(gaps), range(len(gaps)), "o", color=PALETTE[0], label="one order each")
    right.axvline(100 * np.mean(gaps), color=PALETTE[3], linestyle="--", label="mean over orders")
    right.set(xlabel="recall, many − few, points", ylabel="order_seed", title="a gap that frequency did not make")
    right.set_yticks(range(0, len(gaps), max(1, len(gaps) // 6)))
    right.set_ylim(-0.6, len(gaps) * 1.3)
    right.legend(loc="upper center", ncols=2, fontsize=6.5, columnspacing=1)
    return left, right


def show_similarities(similarity, images, ax=None):
    """A square table of similarities with the view that each row and column stands for. images: (n, C, H, W)."""
    n = len(images)
    fig, grid = plt.subplots(n + 1, n + 1, figsize=(PAGE * 0.62, PAGE * 0.62))
    shade = plt.get_cmap("RdBu_r")
    for (r, c), cell in np.ndenumerate(grid):
        cell.set_axis_off()
        if r and c:
            value = float(similarity[r - 1, c - 1])
            cell.set_xlim(0, 1)
            cell.add_patch(plt.Rectangle((0, 0), 1, 1, color=shade(0.5 + 0.5 * value) if r != c else "0.9"))
            cell.text(0.5, 0.5, f"{value:.2f}" if r != c else "", ha="center", va="center", fontsize=7,
                      fontweight="bold" if abs(r - c) == n // 2 else "normal")
        elif r or c:
            show_image(cell, images[max(r, c) - 1])
    return grid
