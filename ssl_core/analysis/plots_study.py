"""What a study reached, by labels and by frequency: what is drawn, as a tidy frame; the figure; and its caption.

Every figure is of one data set.
"""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from ssl_core.analysis.plots import COLUMN, PAGE, PALETTE, axes, legend_below
from ssl_core.analysis.wording import budget_short, budget_words, in_order, words
from ssl_core.evaluate.heads import headline_rows

# colour and marker say which arm, so that no figure needs colour alone
LOOKS = {"simclr": (PALETTE[0], "o"), "mae": (PALETTE[1], "s"), "supervised": (PALETTE[2], "D"),
         "supervised_weighted": (PALETTE[2], "d"), "supervised_sampled": (PALETTE[2], "1"),
         "supervised_adjusted": (PALETTE[2], "2"), "supervised_imbalanced": (PALETTE[2], "3"),
         "imagenet": (PALETTE[4], "^"), "random": ("0.45", "v"),
         "pixels": ("0.45", "P"), "colour": ("0.45", "X"), "majority": ("0.45", "_")}
SPARE = [PALETTE[i] for i in (3, 9, 5, 4, 2, 0, 1)], "<>hp*8"  # colours and markers for arms of any other name
ACROSS = 3  # panels
ENDS = 3  # ratios; of more the smallest and the largest are drawn, and a figure of ratios shows the others
SEEN = (("full", "-"), ("none", "--"), ("left", "-."), ("bottom", ":"), ("right", (0, (5, 1))), ("top", (0, (1, 2))))


# --- short words ------------------------------------------------------------------------------------------------------

def wrapped(title, inches):
    """A title on as many lines as keep it within that width."""
    return textwrap.fill(title, max(8, int(inches / 0.066)))  # of a letter, on average


def across(names, inches=PAGE):
    """Columns of a legend, at most 3, whose longest name fits."""
    return max(1, min(3, len(names), int(inches / (0.057 * max(map(len, names)) + 0.5))))


def thousands(n):
    """A count of few letters for a tick: 119, 1.1k, 12k."""
    return f"{n:g}" if n < 1000 else f"{n / 1000:.1f}".removesuffix(".0") + "k" if n < 9950 else f"{n / 1000:.0f}k"


def ratio_below(ratio, n_pos):
    """A tick of two lines, 1:100 above its number of positives where that is known."""
    return f"1:{thousands(ratio)}" + (f"\n{thousands(n_pos)}" if n_pos == n_pos else "")


# --- means over splits ------------------------------------------------------------------------------------------------

def mean_over_splits(rows, by):
    """rows of one metric → one row per `by`: mean, low, high, n splits; seeds of a split are averaged first.

    The interval is Student's t over splits, cut at 0 and 1, and for a single split the one over test images.
    """
    split = [*by, "draw_seed", "order_seed"]
    per_split = rows.groupby(split, dropna=False, sort=False)[["value", "low", "high"]].mean().reset_index()
    found = per_split.groupby(by, dropna=False, sort=False).agg(
        mean=("value", "mean"), sd=("value", "std"), low=("low", "mean"), high=("high", "mean"), n=("value", "size"))
    half = stats.t.ppf(0.975, np.maximum(found.n - 1, 1)) * found.pop("sd") / np.sqrt(found.n)
    several = found.n > 1
    low, high = (found["mean"] - half).clip(lower=0), (found["mean"] + half).clip(upper=1)
    return found.assign(low=found.low.where(~several, low), high=found.high.where(~several, high)).reset_index()


def levels(table):
    """Balanced accuracy by protocol, budget and series, as `mean_over_splits` gives it. table: as `grid.told` does."""
    rows = headline_rows(table).dropna(subset="value")
    own = in_order(rows.protocol[rows.pretrain_dataset != ""]) or ["linear"]
    rows = ends(rows.assign(protocol=rows.protocol.where(rows.protocol.isin(own), own[0])))  # floors: beside the first
    drawn = mean_over_splits(rows, ["dataset", "protocol", "budget", "series", "arm", "ratio", "twin"])
    floors = list(LOOKS)[2:]
    rank = [floors.index(row.arm) if row.arm in floors and np.isnan(row.ratio) else -1 for row in drawn.itertuples()]
    labels = rows.groupby(["dataset", "budget"]).n_labelled.mean().rename("n_labelled").reset_index()
    return drawn.merge(labels, "left").assign(rank=rank, place=drawn.protocol.map(own.index)).sort_values(
        ["dataset", "place", "rank", "arm", "ratio", "twin", "n_labelled"],
        kind="stable").drop(columns=["rank", "place"])


def by_frequency(table):
    """Recall of many, medium and few classes with the fewest labels, read as the study does first, for arms with
    imbalance. table: as `grid.told` gives it, of one data set.
    """
    rows = table[(table.metric == "recall") & (table.group_kind == "frequency") & (table.part == "test")
                 & (table.layer == "")]
    rows = rows[rows.arm.isin(rows.arm[rows.ratio > 1])]
    if not len(rows):
        return rows
    rows = rows[rows.protocol == rows.protocol.iloc[0]]
    rows = ends(rows[rows.budget == rows.groupby("budget").n_labelled.mean().idxmin()])
    drawn = mean_over_splits(rows, ["dataset", "group", "series", "arm", "ratio", "twin", "protocol", "budget"])
    rank = drawn.group.map(["many", "medium", "few"].index)
    return drawn.assign(rank=rank).sort_values(["rank", "arm", "ratio", "twin"], kind="stable").drop(columns="rank")


def ends(rows):
    """Rows without those between the smallest and the largest ratio, where they are many."""
    ratios = rows.ratio.dropna().unique()
    return rows[rows.ratio.isna() | rows.ratio.isin([ratios.min(), ratios.max()])] if len(ratios) > ENDS else rows


# --- figures ----------------------------------------------------------------------------------------------------------

def look_of(arms):
    """{arm: (colour, marker)}, no two of up to 42 alike; those without a look of their own in the order of their names.
    """
    colours, markers = SPARE
    others = sorted(set(arms) - set(LOOKS))
    return LOOKS | {arm: (colours[i % len(colours)], markers[i % len(markers)]) for i, arm in enumerate(others)}


def looks(drawn, like=None):
    """How each series is drawn: colour and marker by arm, filling and dashes by what it was pretrained on.

    like: rows of all panels of a figure, in which a series looks the same.
    """
    mine, drawn = dict.fromkeys(drawn.series), drawn if like is None else like
    of_arm = look_of(drawn.arm)
    seen = list(dict.fromkeys(zip(drawn.ratio.fillna(0), drawn.twin)))
    pretrained = [s for s in sorted(seen, key=lambda s: (s[1] != "none", s[0])) if s[0] > 0]
    found, rows = {}, drawn.drop_duplicates("series")
    alike = rows.groupby(["arm", "ratio", "twin"], dropna=False).cumcount()  # of several totals, or without a ratio
    for row, nth in zip(rows.itertuples(), alike):
        colour, marker = of_arm[row.arm]
        place = pretrained.index((row.ratio, row.twin)) + nth * len(pretrained) if row.ratio > 0 else 0
        filling, dashes = SEEN[place % len(SEEN)] if row.ratio > 0 else (SEEN[nth % len(SEEN)][0], (0, (1, 1.5)))
        found[row.series] = {"color": colour, "marker": marker, "fillstyle": filling, "linestyle": dashes,
                             "markerfacecoloralt": "white", "linewidth": 1.1 if row.ratio > 0 else 0.7,
                             "markersize": 5 if row.ratio > 0 else 4}
    return {name: found[name] for name in mine}


def dodge(ax, drawn, x, places, joined=True, like=None):
    """In per cent, one dodged point with its interval for each series at each of the places of column x."""
    style = looks(drawn, like)
    step = min(0.12, 0.8 / len(style))
    for i, (name, look) in enumerate(style.items()):
        rows = drawn[drawn.series == name]
        at = np.array([places.index(value) for value in rows[x]]) + (i - (len(style) - 1) / 2) * step
        bars = 100 * np.array([rows["mean"] - rows.low, rows.high - rows["mean"]])
        ax.errorbar(at, 100 * rows["mean"], yerr=np.maximum(bars, 0), label=name, elinewidth=0.8, capsize=1.5,
                    **(look if joined and len(places) > 1 else look | {"linestyle": ""}))
    ax.set_xticks(range(len(places)), places)
    ax.set_xlim(-0.55, len(places) - 0.45)
    return ax


def plot_budgets(drawn):
    """A panel per protocol: balanced accuracy against the label budget, or for one budget a line for each series.

    drawn: the frame of `levels`.
    """
    protocols = list(dict.fromkeys(drawn.protocol))
    if drawn.budget.nunique() == 1:
        return levels_in_lines(drawn, protocols)
    wide = 2 if len(protocols) == 4 else min(ACROSS, len(protocols))
    down = -(-len(protocols) // wide)
    rows_of_legend = -(-drawn.series.nunique() // across(drawn.series.unique()))
    widths = [drawn.series[drawn.protocol == protocol].nunique() + 3 for protocol in protocols]
    fig, panels = plt.subplots(down, wide, figsize=(PAGE, 0.4 + 2.3 * down + 0.16 * rows_of_legend), sharey=True,
                               squeeze=False, width_ratios=widths if down == 1 else None)
    for ax, protocol in zip(panels.flat, protocols):
        plot_budget(drawn[drawn.protocol == protocol], ax, drawn)
        ax.set(title=wrapped(words(protocol), PAGE / wide - 0.4))
    for ax in panels.flat[len(protocols):]:
        fig.delaxes(ax)
    for ax in panels[:, 1:].flat:
        ax.set_ylabel("")
    legend_below(fig, across(drawn.series.unique()))
    return fig


def levels_in_lines(drawn, protocols):
    """A panel per protocol, at most four side by side, with the same lines in all."""
    names, wide = list(dict.fromkeys(drawn.series)), min(4, len(protocols))
    down = -(-len(protocols) // wide)
    fig, panels = plt.subplots(down, wide, figsize=(PAGE, (0.7 + 0.17 * len(names)) * down), sharex=True, sharey=True,
                               squeeze=False)
    for ax, protocol in zip(panels.flat, protocols):
        plot_level(drawn[drawn.protocol == protocol], ax, drawn)
        ax.set_title(wrapped(words(protocol), (PAGE - 0.06 * max(map(len, names))) / wide - 0.1))
    for ax in panels.flat[len(protocols):]:
        fig.delaxes(ax)
    return fig


def plot_level(drawn, ax=None, like=None):
    """Balanced accuracy with one budget, a line for each series. drawn: rows of `levels` of one protocol."""
    names = list(dict.fromkeys((drawn if like is None else like).series))
    ax = axes(ax, PAGE * 0.75, 0.7 + 0.17 * len(names))
    for name, look in looks(drawn, like).items():
        row = drawn[drawn.series == name].iloc[0]
        bars = 100 * np.array([[row["mean"] - row.low], [row.high - row["mean"]]])
        ax.errorbar(100 * row["mean"], names.index(name), xerr=np.maximum(np.nan_to_num(bars), 0), elinewidth=0.8,
                    capsize=1.5, **look | {"linestyle": ""})
    ax.set_yticks(range(len(names)), names)
    ax.set(ylim=(len(names) - 0.4, -0.6), xlabel=f"balanced accuracy in %\nwith {budget_words(drawn.budget.iloc[0])}")
    return ax


def plot_budget(drawn, ax=None, like=None):
    """Balanced accuracy against the label budget. drawn: rows of `levels` of one protocol; like: of all panels."""
    ax = axes(ax, COLUMN * 1.4, 2.6)
    budgets = (drawn if like is None else like).sort_values("n_labelled").budget.unique()
    tick = {budget: budget_short(budget).replace("per ", "per\n") for budget in budgets}
    dodge(ax, drawn.assign(label=drawn.budget.map(tick)), "label", list(tick.values()), like=like)
    ax.set(xlabel="share of the labels" if max(budgets) <= 1 else "labels", ylabel="balanced accuracy in %")
    return ax


def plot_frequency(drawn, ax=None):
    """Recall of many, medium and few classes, one series per condition. drawn: the frame of `by_frequency`."""
    ax = axes(ax, PAGE * 0.85, 2.5)
    dodge(ax, drawn, "group", list(dict.fromkeys(drawn.group)), joined=False)
    ax.set(ylabel="recall in %", xlabel="classes by their number of images in the imbalanced split")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


# --- captions ---------------------------------------------------------------------------------------------------------

def caption_budgets(drawn, table):
    between = "Of the ratios the smallest and the largest. " * (table.ratio.nunique() > ENDS)
    return (f"Balanced accuracy against the labels that a probe or a fine-tuning may use. {between}{points(drawn)}; "
            f"{table.n.max():,.0f} test images. {source(table)}")


def caption_frequency(drawn, table):
    return (f"Recall of classes by how frequent they are in the imbalanced split; "
            f"{words(drawn.protocol.iloc[0])}, {budget_words(drawn.budget.iloc[0])}. {points(drawn)}; "
            f"{table.n.max():,.0f} test images. Which classes are frequent differs between splits. {source(table)}")


def points(drawn):
    n, known = drawn.n.max(), drawn.low.notna()
    bars = f"bars{'' if known.all() else ', where an interval is known'}: 95 % intervals over " if known.any() else ""
    said, over = (f"Points: means over {n} splits", "splits (t)") if n > 1 else ("One split", "test images")
    return f"{said}; {bars}{over}" if bars else said


def source(table):
    """What a caption ends with: data, and the command that makes the figure."""
    kinds = {"Real": table[~table.synthetic.astype(bool)], "Synthetic": table[table.synthetic.astype(bool)]}
    data = " ".join(f"{kind} images ({', '.join(sorted(set(rows.dataset)))})."
                    for kind, rows in kinds.items() if len(rows))
    return f"{data} Made by: python -m ssl_core run params/studies/{table.study.iloc[0]}.yaml"

