"""Accuracy against the category ratio of the pretraining images: a line for each label budget, and ratio × budget."""

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from ssl_core.analysis.plots import COLUMN, PAGE, axes, legend_below
from ssl_core.analysis.plots_study import mean_over_splits, points, ratio_below, source, wrapped
from ssl_core.analysis.wording import budget_short, words

METRICS = ("balanced_accuracy", "accuracy")
PANEL = ["dataset", "arm", "total", "protocol"]
NO_VALUE = "0.88"  # grey of a grid's cell without one


# --- what is drawn ----------------------------------------------------------------------------------------------------

def ratio_levels(table):
    """Accuracy and balanced accuracy of pretrained arms by ratio and budget, as `mean_over_splits` gives them.

    table: as `grid.told` gives it → dataset, arm, total, protocol, metric, budget, ratio, n_pos, mean, low, high, n.
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
    order = list(dict.fromkeys(rows.protocol))  # of the study
    return drawn.sort_values([*PANEL, "metric", "budget", "ratio"], kind="stable", ignore_index=True,
                             key=lambda column: column.map(order.index) if column.name == "protocol" else column)


def ratio_ticks(drawn):
    """{ratio: its tick}: "1:100 (792)", the positives among the pretraining images in brackets where they are known."""
    known = drawn.drop_duplicates("ratio").sort_values("ratio")
    return {row.ratio: f"1:{row.ratio:,g}" + (f" ({row.n_pos:,.0f})" if row.n_pos == row.n_pos else "")
            for row in known.itertuples()}


def ratio_label(drawn):
    if drawn.n_pos.isna().all():
        return "largest class over smallest"
    of = f" of {drawn.total.max():,.0f} images" if drawn.total.nunique() == 1 else ""
    return f"positives : negatives (positives{of})"


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


def plot_ratio_grid(drawn, ax=None, like=None):
    """One metric in whole per cent as numbers in a grid: a row for each budget, largest on top, a column for each
    ratio.

    drawn: as in `plot_ratios`; like: rows of all grids that stand side by side, with equal rows, columns and colours.
    Below each ratio stands its number of positives.
    """
    like = drawn if like is None else like
    budgets, ratios = sorted(like.budget.unique(), reverse=True), sorted(like.ratio.unique())
    ax = axes(ax, COLUMN, 1.3 + 0.22 * len(budgets))
    values = 100 * drawn.pivot(index="budget", columns="ratio", values="mean").reindex(budgets, columns=ratios)
    ax.set_facecolor(NO_VALUE)
    ax.grid(False)
    sns.heatmap(values, ax=ax, cmap="cividis", cbar=False, linewidths=0.5, vmin=100 * like["mean"].min(),
                vmax=100 * like["mean"].max())
    colours = ax.collections[0]
    for (line, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            luminance = np.array(colours.to_rgba(value)[:3]) ** 2.2 @ (0.2126, 0.7152, 0.0722)
            ax.text(column + 0.5, line + 0.5, f"{value:.0f}", size=7, ha="center", va="center",
                    color="white" if luminance < 0.18 else "black")  # whichever differs more from its ground
    n_pos = drawn.groupby("ratio").n_pos.first().reindex(ratios)
    if like.total.nunique() == 1:
        n_pos = like.groupby("ratio").n_pos.first()
    ax.set_xticks(np.arange(len(ratios)) + 0.5, [ratio_below(r, n_pos[r]) for r in ratios], rotation=0, fontsize=6)
    ax.set_yticks(np.arange(len(budgets)) + 0.5, [budget_short(b) for b in budgets], rotation=0)
    ax.set(xlabel=ratio_label(drawn), ylabel="labels")
    return ax


def plot_ratio_panels(drawn, metric="balanced_accuracy", grid=False):
    """`plot_ratios`, or `plot_ratio_grid`, of every arm and protocol that it is read by, two across, on one scale."""
    drawn = drawn[drawn.metric == metric]
    several = drawn.dataset.nunique() > 1, drawn.total.nunique() > 1
    panels = list(drawn.groupby(["dataset", "arm", "total", "protocol"], sort=False))
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    height = 0.55 + 0.22 * drawn.budget.nunique() if grid else 2.3
    fig, found = plt.subplots(down, across, squeeze=False, sharey=not grid,
                              figsize=(PAGE if across > 1 else COLUMN, 0.7 + height * down))
    for i, (ax, ((dataset, arm, total, protocol), rows)) in enumerate(zip(found.flat, panels)):
        plot_ratio_grid(rows, ax, drawn) if grid else plot_ratios(rows, ax)
        more = [text for text, needed in zip((dataset, f"N = {total:,.0f}"), several) if needed]
        ax.set_title(wrapped(", ".join([words(arm), words(protocol), *more]), PAGE / 2 - 0.6))
        below = i + across < len(panels) and not several[1]  # of several totals, the ticks of each hold other numbers
        ax.set(xlabel="", ylabel="" if i % across else ax.get_ylabel())
        ax.tick_params(labelbottom=not below, labelleft=i % across == 0, length=0 if grid else 3)
    for ax in found.flat[len(panels):]:
        fig.delaxes(ax)
    fig.supxlabel(ratio_label(drawn), fontsize=8)
    if grid:
        fig.colorbar(found[0, 0].collections[0], ax=found, label=f"{words(metric)} in %", aspect=12 * down, pad=0.02)
    else:
        legend_below(fig, 5, title="labels", loc="outside upper center")
    return fig


# --- captions ---------------------------------------------------------------------------------------------------------

def caption_ratios(drawn, table, metric="balanced_accuracy"):
    return (f"{words(metric).capitalize()} against the ratio in the pretraining images, a line for each share of the "
            f"labels. {positives(drawn, 'in brackets')}{points(drawn)}; {table.n.max():,.0f} test images. "
            f"{source(table)}")


def caption_ratio_grid(drawn, table, metric="balanced_accuracy"):
    n = drawn.n.max()
    return (f"{words(metric).capitalize()} in %, by the ratio in the pretraining images and the share of the labels. "
            f"{positives(drawn, 'below each ratio')}{f'Means over {n} splits' if n > 1 else 'One split'}; "
            f"{table.n.max():,.0f} test images; the colour is the number's, on one scale; grey: not there. "
            f"{source(table)}")


def positives(drawn, where):
    if drawn.n_pos.isna().all():
        return ""
    of = " and ".join(f"{total:,.0f}" for total in sorted(drawn.total.unique()))
    return (f"{where.capitalize()}: positives among the {of} images of a pretraining; with fewer positives there are "
            "also fewer different ones. ")
