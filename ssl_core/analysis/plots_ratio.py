"""Accuracy against the category ratio of the pretraining images: a line for each label budget, and ratio × budget."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from ssl_core.analysis.plots import COLUMN, PAGE, axes
from ssl_core.analysis.plots_study import mean_over_splits, points, source
from ssl_core.analysis.wording import budget_short, words
from ssl_core.protocols import protocol_names

METRICS = ("balanced_accuracy", "accuracy")
PANEL = ["dataset", "arm", "protocol", "total"]
NO_VALUE = "0.88"  # grey of a grid's cell without one


# --- what is drawn ----------------------------------------------------------------------------------------------------

def ratio_levels(table):
    """Accuracy and balanced accuracy of pretrained arms by ratio and budget, as `mean_over_splits` gives them.

    table: as `grid.told` gives it → dataset, arm, protocol, total, metric, budget, ratio, n_pos, mean, low, high, n.
    n_pos: of a category ratio's total, round(total / (1 + ratio)) images are positive; NaN for long tails.
    """
    rows = table[table.metric.isin(METRICS) & (table.group_kind == "all") & (table.part == "test")
                 & table.value.notna() & (table.pretrain_dataset != "") & (table.twin == "none")
                 & table.split_kind.isin(["category_ratio", "long_tail"]) & (table.layer == "")]
    drawn = mean_over_splits(rows, [*PANEL, "split_kind", "metric", "budget", "ratio"])
    kind = drawn.pop("split_kind")
    n_pos = [round(total / (1 + ratio)) if kind == "category_ratio" else np.nan
             for total, ratio, kind in zip(drawn.total, drawn.ratio, kind)]
    drawn.insert(drawn.columns.get_loc("mean"), "n_pos", n_pos)
    return drawn.sort_values([*PANEL, "metric", "budget", "ratio"], kind="stable", ignore_index=True)


def ratio_ticks(drawn):
    """{ratio: its tick}: "1:100 (792)", the positives among the pretraining images in brackets where they are known."""
    known = drawn.drop_duplicates("ratio").sort_values("ratio")
    return {row.ratio: f"1:{row.ratio:,g}" + (f" ({row.n_pos:,.0f})" if row.n_pos == row.n_pos else "")
            for row in known.itertuples()}


def ratio_label(drawn):
    if drawn.n_pos.isna().all():
        return "largest class over smallest"
    return f"positives : negatives (positives of {drawn.total.max():,.0f} images)"


# --- figures ----------------------------------------------------------------------------------------------------------

def plot_ratios(drawn, ax=None):
    """One metric in per cent against the ratio (log), a line with intervals for each budget.

    drawn: rows of `ratio_levels` of one dataset, arm, protocol, total and metric.
    """
    ax = axes(ax, COLUMN, 3.0)
    budgets = sorted(drawn.budget.unique())
    for i, (budget, colour) in enumerate(zip(budgets, sns.color_palette("viridis", len(budgets) + 1))):
        rows = drawn[drawn.budget == budget]
        aside = 1.04 ** (i - (len(budgets) - 1) / 2)  # so that intervals stand beside one another
        bars = 100 * np.array([rows["mean"] - rows.low, rows.high - rows["mean"]])
        ax.errorbar(rows.ratio * aside, 100 * rows["mean"], yerr=np.maximum(np.nan_to_num(bars), 0), color=colour,
                    marker="osD^vP*"[i % 7], linestyle=("-", "--", "-.", ":", (0, (5, 1)))[i % 5], elinewidth=0.8,
                    capsize=1.5, label=budget_short(budget))
    ticks = ratio_ticks(drawn)
    ax.set_xscale("log")
    ax.set_xticks(list(ticks), list(ticks.values()), rotation=90, fontsize=6.5)
    ax.minorticks_off()
    ax.set(xlabel=ratio_label(drawn), ylabel=f"{words(drawn.metric.iloc[0])} in %")
    return ax


def plot_ratio_grid(drawn, ax=None, low=None, high=None):
    """One metric in per cent as numbers in a grid: a row for each budget, largest on top, a column for each ratio.

    drawn: as in `plot_ratios`; low, high: ends of the colours, in per cent, for grids that stand side by side.
    """
    ticks, budgets = ratio_ticks(drawn), sorted(drawn.budget.unique(), reverse=True)
    ax = axes(ax, COLUMN, 1.3 + 0.22 * len(budgets))
    values = 100 * drawn.pivot(index="budget", columns="ratio", values="mean").loc[budgets, list(ticks)]
    ax.set_facecolor(NO_VALUE)
    ax.grid(False)
    sns.heatmap(values, ax=ax, annot=True, fmt=".1f", cmap="cividis", cbar=False, linewidths=0.5, vmin=low, vmax=high,
                annot_kws={"size": 6})
    ax.set_xticks(np.arange(len(ticks)) + 0.5, list(ticks.values()), rotation=90, fontsize=6.5)
    ax.set_yticks(np.arange(len(budgets)) + 0.5, [budget_short(b) for b in budgets], rotation=0)
    ax.set(xlabel=ratio_label(drawn), ylabel="labels")
    return ax


def plot_ratio_panels(drawn, metric="balanced_accuracy", grid=False):
    """`plot_ratios`, or `plot_ratio_grid`, of every arm (row) and protocol (column), with a common scale."""
    drawn = drawn[drawn.metric == metric]
    lines = list(dict.fromkeys(zip(drawn.dataset, drawn.arm, drawn.total)))
    protocols = sorted(drawn.protocol.unique(), key=protocol_names().index)
    height = 1.2 + 0.22 * drawn.budget.nunique() if grid else 2.3
    fig, panels = plt.subplots(len(lines), len(protocols), squeeze=False, sharey=not grid,
                               figsize=(PAGE if len(protocols) > 1 else COLUMN, 0.4 + height * len(lines)))
    ends = {"low": 100 * drawn["mean"].min(), "high": 100 * drawn["mean"].max()} if grid else {}
    for row, (dataset, arm, total) in zip(panels, lines):
        for ax, protocol in zip(row, protocols):
            mine = (drawn.dataset == dataset) & (drawn.arm == arm) & (drawn.total == total)
            rows = drawn[mine & (drawn.protocol == protocol)]
            if not len(rows):
                ax.set_axis_off()
                continue
            (plot_ratio_grid if grid else plot_ratios)(rows, ax, **ends)
            several = drawn.dataset.nunique() > 1, drawn.total.nunique() > 1
            more = [text for text, needed in zip((dataset, f"N = {total:,.0f}"), several) if needed]
            ax.set_title(", ".join([words(arm), words(protocol), *more]))
            if drawn.total.nunique() == 1:  # else the ticks of each row hold other numbers
                ax.label_outer(remove_inner_ticks=False)
    if not grid:
        handles = {label: handle for ax in panels.flat for handle, label in zip(*ax.get_legend_handles_labels())}
        fig.legend(handles.values(), handles.keys(), title="labels", loc="outside lower center", ncols=5)
    return fig


# --- captions ---------------------------------------------------------------------------------------------------------

def caption_ratios(drawn, table, metric="balanced_accuracy"):
    return (f"{words(metric).capitalize()} against the ratio in the pretraining images, a line for each share of the "
            f"labels. {positives(drawn)}{points(drawn)}; {table.n.max():,.0f} test images. {source(table)}")


def caption_ratio_grid(drawn, table, metric="balanced_accuracy"):
    n = drawn.n.max()
    return (f"{words(metric).capitalize()} in %, by the ratio in the pretraining images and the share of the labels. "
            f"{positives(drawn)}{f'Means over {n} splits' if n > 1 else 'One split'}; {table.n.max():,.0f} test "
            f"images; the colour is the number's, on one scale; grey: not there. {source(table)}")


def positives(drawn):
    if drawn.n_pos.isna().all():
        return ""
    return (f"In brackets: positives among the {drawn.total.max():,.0f} images of a pretraining; with fewer positives "
            "there are also fewer different ones. ")
