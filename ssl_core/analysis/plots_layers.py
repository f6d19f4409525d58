"""What each layer of an encoder knows, and how much of it fine-tuning keeps: layer probes and CKA."""

import re

import matplotlib.pyplot as plt
import numpy as np

from ssl_core.analysis.layout import TALLEST
from ssl_core.analysis.plots import COLUMN, PAGE, axes, legend_below
from ssl_core.analysis.plots_study import across, looks, mean_over_splits, points, source, wrapped
from ssl_core.analysis.wording import budget_short, budget_words, words

KERNELS = {"cka_linear": "linear CKA", "cka_rbf": "CKA, RBF kernel"}
READ = ("balanced_accuracy", "roc_auc")  # what a layer probe is read by: the second for several labels an image
SERIES = ["dataset", "series", "arm", "ratio", "twin", "network", "protocol", "budget", "metric", "layer"]


def depth(layer):
    """Sorting key of a layer's name: by the first number in it; without one at the end, but for stem and input."""
    number = re.search(r"\d+", layer)
    return (1, int(number[0])) if number else (0, 0) if layer in ("stem", "input", "embed") else (2, 0)


# --- what is drawn ----------------------------------------------------------------------------------------------------

def by_layer(rows):
    """Rows that name a layer, as `mean_over_splits` gives them, layers from input to output."""
    rows = rows[(rows.layer != "") & rows.value.notna()]
    if not len(rows):
        return rows
    drawn = mean_over_splits(rows, SERIES)
    order = {layer: i for i, layer in enumerate(sorted(drawn.layer.unique(), key=depth))}
    return drawn.assign(place=drawn.layer.map(order)).sort_values(
        ["dataset", "protocol", "metric", "budget", "arm", "ratio", "twin", "network", "place"], kind="stable",
        ignore_index=True).drop(columns="place")


def layer_levels(table):
    """Balanced accuracy, or ROC area where images have several labels, of a probe on each layer.

    table: as `grid.told` gives it.
    """
    rows = table[table.metric.isin(READ) & (table.group_kind == "all") & (table.part == "test") & (table.layer != "")]
    metric = READ[0] if (rows.metric == READ[0]).any() else READ[1]
    return by_layer(rows[rows.metric == metric])


def cka_levels(table):
    """CKA of each layer before and after fine-tuning, without the protocols that left every encoder alone.

    table: as `grid.told` gives it.
    """
    rows = table[table.metric.isin(list(KERNELS))]
    return by_layer(rows[rows.groupby(["dataset", "protocol"]).value.transform("min") < 1 - 1e-6])


# --- figures ----------------------------------------------------------------------------------------------------------

def lines_over_layers(drawn, ax, scale, like):
    """A dodged line with intervals for each series; layers stand at equal distances. like: of all panels."""
    layers, style = sorted(drawn.layer.unique(), key=depth), looks(drawn, like)
    step = min(0.12, 0.6 / len(style))
    for i, (name, look) in enumerate(style.items()):
        rows = drawn[drawn.series == name]
        at = np.array([layers.index(layer) for layer in rows.layer]) + (i - (len(style) - 1) / 2) * step
        bars = scale * np.array([rows["mean"] - rows.low, rows.high - rows["mean"]])
        ax.errorbar(at, scale * rows["mean"], yerr=np.maximum(np.nan_to_num(bars), 0), label=name, elinewidth=0.8,
                    capsize=1.5, **look)
    ax.set_xticks(range(len(layers)), layers)
    ax.set(xlabel="layer, input to output", xlim=(-0.5, len(layers) - 0.5))
    return ax


def plot_layers(drawn, ax=None, like=None):
    """What a probe reads from each layer, in per cent. drawn: rows of `layer_levels` of one data set and budget."""
    ax = lines_over_layers(drawn, axes(ax, COLUMN, 2.6), 100, like)
    ax.set_ylabel(f"{words(drawn.metric.iloc[0])} in %")
    return ax


def plot_cka(drawn, ax=None, like=None):
    """CKA before against after fine-tuning, 1: unchanged. drawn: rows of `cka_levels` of one data set, metric, budget.
    """
    ax = lines_over_layers(drawn, axes(ax, COLUMN, 2.6), 1, like)
    ax.set(ylabel=KERNELS[drawn.metric.iloc[0]], ylim=(-0.03, 1.03))
    return ax


def plot_layer_panels(drawn, draw=plot_layers):
    """`draw` for each data set, protocol and metric (row) at the smallest and the largest budget, two panels in a row;
    many are drawn lower, so that a page holds them.

    draw: `plot_layers` with `layer_levels`, or `plot_cka` with `cka_levels`.
    """
    kinds = list(dict.fromkeys(zip(drawn.dataset, drawn.protocol, drawn.metric)))
    budgets = sorted({drawn.budget.min(), drawn.budget.max()})
    cells = [(kind, budget) for kind in kinds for budget in budgets]
    inches = PAGE if len(cells) > 1 else COLUMN * 1.3
    columns, wide = across(drawn.series.unique(), inches), min(2, len(cells))
    rows_of_legend, down = -(-drawn.series.nunique() // columns), -(-len(cells) // wide)
    fig, panels = plt.subplots(down, wide, squeeze=False, sharey="row" if len(budgets) > 1 else False,
                               figsize=(inches, min(TALLEST, 2.1 * down + 0.3 + 0.16 * rows_of_legend)))
    several = bool(drawn.groupby("dataset").protocol.nunique().max() > 1)
    for ax in panels.flat[len(cells):]:
        fig.delaxes(ax)
    for ax, ((dataset, protocol, metric), budget) in zip(panels.flat, cells):
        rows = drawn[(drawn.dataset == dataset) & (drawn.protocol == protocol) & (drawn.metric == metric)
                     & (drawn.budget == budget)]
        if not len(rows):
            ax.set_axis_off()
            continue
        draw(rows, ax, drawn)
        more = [dataset] * (drawn.dataset.nunique() > 1) + [words(protocol)] * several
        title = ", ".join([*more, budget_short(budget) if more else budget_words(budget)])
        ax.set_title(wrapped(title, inches / wide - 0.5))
        if len(budgets) > 1:
            ax.label_outer(remove_inner_ticks=False)
    legend_below(fig, columns)
    return fig


# --- captions ---------------------------------------------------------------------------------------------------------

def caption_layers(drawn, table):
    return (f"{words(drawn.metric.iloc[0]).capitalize()} of a linear model on the mean of each layer's map, the "
            f"encoder frozen, by layer. {points(drawn)}; {table.n.max():,.0f} test images. {source(table)}")


def caption_cka(drawn, table):
    n = drawn.n.max()
    images = table.n[table.metric.isin(list(KERNELS))].max()
    bars = f"Points: means over {n} splits; bars: 95 % intervals over splits (t)" if n > 1 else "One split, no interval"
    return ("Centred kernel alignment between what each layer gives before and after fine-tuning, for the same "
            f"{images:,.0f} test images: 1 where fine-tuning left a layer as it was, up to rotation and scale. {bars}. "
            f"{source(table)}")
