"""Figures of stored test scores: ROC and precision–recall curves, and how far scores move with more labels."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from ssl_core.analysis.plots import COLUMN, PAGE, axes
from ssl_core.analysis.plots_curves import INKS
from ssl_core.analysis.plots_study import ENDS, ends, looks, source
from ssl_core.analysis.similarity import ks_distance
from ssl_core.analysis.wording import budget_short, budget_words, words
from ssl_core.evaluate.heads import numbers
from ssl_core.table import read_text

AREAS = {"roc": "roc_auc", "precision_recall": "average_precision"}
MOST = 10  # curves of one figure
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 2)))


# --- ROC and precision–recall -----------------------------------------------------------------------------------------

def cells_to_draw(cells, key=""):
    """{series: path} for one figure: first data set, protocol and split, fewest labels, at most MOST series.

    Of two classes the pretrained arms and floors; of more, and of labels, the cell of the run with that key, or the
    first. {} where classes are too many to tell apart. cells: rows of `contrasts.cells_of`.
    """
    if not len(cells):
        return {}
    first = cells.iloc[0]
    rows = cells[(cells.dataset == first.dataset) & (cells.protocol == first.protocol) & (cells.seed == first.seed)
                 & (cells.draw_seed == first.draw_seed) & (cells.budget_seed == first.budget_seed)]
    rows = ends(rows[rows.budget == rows.budget.min()]).drop_duplicates("series")
    with np.load(first.path, allow_pickle=False) as kept:
        n_classes, task = len(kept["classes"]), str(kept["task"])
    if task != "binary":
        own = rows[rows.key == key]
        rows = (own if len(own) else rows)[:1] if n_classes <= MOST else rows[:0]
    return dict(zip(rows.series[:MOST], rows.path[:MOST]))


def roc_frame(cells):
    """Curves of cells as one frame: series, part, group, curve, x, y, area, low, high, n, n_positive.

    cells: {series: path of a cell's .npz}; area and interval are those of the rows beside it. A binary cell has one
    curve, any other one for each class (against the rest) or label. Validation scores are drawn where a cell keeps
    val_probabilities and val_labels, without an interval. A class without both answers has no curve.
    """
    found = []
    for series, path in cells.items():
        with np.load(path, allow_pickle=False) as kept:
            parts = {"test": (kept["probabilities"], kept["labels"])}
            if "val_probabilities" in kept.files:
                parts["val"] = kept["val_probabilities"], kept["val_labels"]
            classes, task = kept["classes"].tolist(), str(kept["task"])
        rows = numbers(read_text(Path(path).with_suffix(".csv")))
        for part, (p, y) in parts.items():
            for c, name in [(1, "all")] if task == "binary" else enumerate(classes):
                answers = y[:, c] if task == "multilabel" else np.where(y < 0, -1, y == c)
                found += curves(answers[answers >= 0], p[answers >= 0, c], series, part, name, rows)
    return pd.DataFrame([point for curve in found for point in curve],
                        columns="series part group curve x y area low high n n_positive".split())


def curves(y, score, series, part, group, rows):
    """The points of both curves of one class, [] where only one answer is known."""
    if len(np.unique(y)) < 2:
        return []
    rate, hit, _ = roc_curve(y, score)
    precision, recall, _ = precision_recall_curve(y, score)
    recall, precision = recall[::-1], precision[::-1]
    plain = {"roc": np.trapezoid(hit, rate), "precision_recall": np.sum(np.diff(recall) * precision[1:])}
    found = []
    for curve, x, height in (("roc", rate, hit), ("precision_recall", recall, precision)):
        row = rows[(rows.metric == AREAS[curve]) & (rows.part == part) & (rows.group == group)]
        area = (plain[curve], np.nan, np.nan) if row.empty else tuple(row[["value", "low", "high"]].iloc[0])
        found.append([(series, part, group, curve, *at, *area, len(y), int(y.sum())) for at in zip(x, height)])
    return found


def plot_roc(frame, ax=None, curve="roc"):
    """ROC curves with AUC and its interval in the legend, or with curve "precision_recall" those. frame: `roc_frame`.
    """
    ax = axes(ax, COLUMN, 3.2)
    frame = frame[frame.curve == curve]
    several = frame.group.nunique() > 1
    alone = several + (frame.series.nunique() == 1)  # 2: every line is of one series, and the caption names it
    for i, ((series, part, group), rows) in enumerate(frame.groupby(["series", "part", "group"], sort=False)):
        one = rows.iloc[0]
        interval = f" [{one.low:.2f}, {one.high:.2f}]" if one.low == one.low else ""
        name = ", ".join([*[series] * (alone < 2), *[part] * (frame.part.nunique() > 1), *[group] * several])
        ax.plot(rows.x, rows.y, color=INKS[i % len(INKS)], linestyle=DASHES[i % len(DASHES)], linewidth=1.2,
                drawstyle="default" if curve == "roc" else "steps-pre", label=f"{name}: {one.area:.2f}{interval}")
    if curve == "roc":
        ax.plot([0, 1], [0, 1], color="0.5", linewidth=0.7)
        ax.set(xlabel="1 − specificity", ylabel="sensitivity", title="ROC, with its area")
    else:
        for chance in sorted(set(frame.n_positive / frame.n)):
            ax.axhline(chance, color="0.5", linewidth=0.7)
        ax.set(xlabel="recall", ylabel="precision", title="precision–recall, with average precision")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.set_box_aspect(1)
    return ax


def plot_rocs(frame):
    """ROC and precision–recall side by side, each with its legend below."""
    lines = frame.groupby(["series", "part", "group"]).ngroups
    fig, panels = plt.subplots(1, 2, figsize=(PAGE, 3.8 + 0.17 * lines))
    for ax, curve in zip(panels, AREAS):
        plot_roc(frame, ax, curve)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17))
    return fig


def caption_roc(frame, table):
    test = frame[frame.part == "test"]
    n, n_positive = test.n.max(), test.groupby(["series", "group"]).n_positive.first()
    count = f"{n_positive.min():,}" + (f" to {n_positive.max():,}" if n_positive.nunique() > 1 else "")
    areas = table.interval[table.metric.isin(AREAS.values()) & table.low.notna()]
    kinds = sorted({i for i in areas.unique() if i}) if frame.low.notna().any() else []
    how = f" in brackets its 95 % interval over {' and '.join(kinds)}" if kinds else " without intervals"
    each = "" if frame.group.nunique() == 1 else f", each class against the rest: {', '.join(frame.series.unique())}"
    return (f"ROC and precision–recall curves on {n:,} test images with {count} positives{each}. Legend: the area,"
            f"{how}. Grey lines: guessing. {source(table)}")


# --- Kolmogorov–Smirnov distance --------------------------------------------------------------------------------------

def ks_frame(cells):
    """How far the distribution of test scores with few labels is from that with all: a row for each pair of cells.

    cells: rows of `contrasts.cells_of`, with path. Of every arm, split and protocol the fewest and the most
    labels are compared, where the test images are the same; of many ratios the smallest and the largest → dataset,
    series, arm, ratio, twin, protocol, draw_seed, few, all, ks (mean over classes of the two-sample statistic), n.
    """
    cells = ends(cells)
    run = ["dataset", "series", "network", "protocol", "draw_seed", "order_seed", "seed", "budget_seed"]
    found = []
    for _, rows in cells[cells.protocol != "none"].groupby(run, dropna=False, sort=False):
        few, whole = (rows.loc[rows.n_labelled.idxmin()], rows.loc[rows.n_labelled.idxmax()])
        if few.budget == whole.budget or few.test_set != whole.test_set:
            continue
        p_few, p_all = (scores_of(row.path) for row in (few, whole))
        found.append({"series": few.series, "few": few.budget, "all": whole.budget, "n": len(p_few),
                      "ks": ks_distance(p_few, p_all)[0],
                      **{name: few[name] for name in ("dataset", "arm", "ratio", "twin", "protocol", "draw_seed")}})
    return pd.DataFrame(found, columns="series dataset arm ratio twin protocol draw_seed few all ks n".split())


def scores_of(path):
    with np.load(path, allow_pickle=False) as kept:
        return kept["probabilities"]


def plot_ks(frame, ax=None):
    """KS distance of each data set, arm and protocol: a point for each split and, of several, a bar at their mean."""
    lines = list(dict.fromkeys(zip(frame.dataset, frame.series, frame.protocol)))
    several = frame.dataset.nunique() > 1
    ax = axes(ax, PAGE * 0.75, 0.8 + 0.2 * len(lines))
    style = looks(frame)
    for at, (dataset, series, protocol) in zip(range(len(lines) - 1, -1, -1), lines):
        ks = frame.ks[(frame.dataset == dataset) & (frame.series == series) & (frame.protocol == protocol)]
        look = {name: style[series][name] for name in ("color", "marker", "fillstyle", "markerfacecoloralt")}
        ax.plot(ks, np.full(len(ks), at), linestyle="", markersize=4.5, **look)
        if len(ks) > 1:
            ax.plot([ks.mean()] * 2, [at - 0.3, at + 0.3], color="0.2", linewidth=1.2)
    ax.set_yticks(range(len(lines) - 1, -1, -1), [", ".join([*[dataset] * several, series, words(protocol)])
                                                    for dataset, series, protocol in lines])
    ax.set(xlabel="KS distance, mean over classes", xlim=(0, max(0.1, 1.1 * frame.ks.max())),
           ylim=(-0.7, len(lines) - 0.3))
    ax.grid(axis="y", visible=False)
    return ax


def caption_ks(frame, table):
    few, whole = budget_short(frame["few"].iloc[0]), budget_words(frame["all"].iloc[0])
    n, many = frame.draw_seed.nunique(), table.ratio.nunique() > ENDS
    spread = "Points: splits; bars: their mean" if n > 1 else "One split, so no interval"
    return (f"Kolmogorov–Smirnov distance between the predicted probabilities with {few} and with {whole}, "
            f"of each class over the same {frame.n.max():,} test images, averaged over classes. 0: the scores "
            f"are spread alike, which says nothing about being right. {spread}. "
            f"{'Of the ratios the smallest and the largest. ' * many}{source(table)}")
