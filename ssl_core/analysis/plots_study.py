"""The figures of a study: what is drawn, as a tidy frame; the figure; and its caption."""

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from ssl_core.analysis.plots import PAGE, PALETTE, describe, metric_words, words

# colour and marker say which arm, so that no figure needs colour alone
LOOKS = {"simclr": (PALETTE[0], "o"), "mae": (PALETTE[1], "s"), "supervised": (PALETTE[2], "D"),
         "supervised_weighted": (PALETTE[2], "d"), "supervised_sampled": (PALETTE[2], "1"),
         "supervised_adjusted": (PALETTE[2], "2"), "imagenet": (PALETTE[4], "^"), "random": ("0.45", "v"),
         "pixels": ("0.45", "P"), "colour": ("0.45", "X"), "majority": ("0.45", "_")}
SPARE = list(zip([PALETTE[i] for i in (3, 9, 6, 5, 4, 2)], "<>hp*8"))  # for arms of any other name
SEEN = (("full", "-"), ("none", "--"), ("left", "-."), ("bottom", ":"), ("right", (0, (5, 1))), ("top", (0, (1, 2))))


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
    """Balanced accuracy by protocol, budget and series, as `mean_over_splits` gives it."""
    rows = table[(table.metric == "balanced_accuracy") & (table.group_kind == "all") & (table.part == "test")
                 & table.value.notna()]
    trained = set(rows.protocol[rows.pretrain_dataset != ""])
    own = [name for name in ("linear", "knn", "finetune") if name in trained] or ["linear"]
    rows = rows.assign(series=[describe(row) for row in rows.itertuples()],  # floors without a protocol of an encoder's
                       protocol=rows.protocol.where(rows.protocol.isin(own), own[0]))  # stand beside the first
    drawn = mean_over_splits(rows, ["protocol", "budget", "series", "arm", "ratio", "twin"])
    order = {name: i for i, name in enumerate(own)}
    floors = list(LOOKS)[2:]
    rank = [floors.index(row.arm) if row.arm in floors and np.isnan(row.ratio) else -1 for row in drawn.itertuples()]
    return drawn.assign(rank=rank, place=drawn.protocol.map(order)).sort_values(
        ["place", "rank", "arm", "ratio", "twin", "budget"], kind="stable").drop(columns=["rank", "place"])


def by_frequency(table):
    """Recall of many, medium and few classes by the linear probe at the smallest budget, for arms with imbalance."""
    rows = table[(table.metric == "recall") & (table.group_kind == "frequency") & (table.part == "test")
                 & (table.protocol == "linear")]
    rows = rows[(rows.budget == rows.budget.min()) & rows.arm.isin(rows.arm[rows.ratio > 1])]
    if not len(rows):
        return rows
    rows = rows.assign(series=[describe(row) for row in rows.itertuples()])
    drawn = mean_over_splits(rows, ["group", "series", "arm", "ratio", "twin", "budget"])
    rank = drawn.group.map(["many", "medium", "few"].index)
    return drawn.assign(rank=rank).sort_values(["rank", "arm", "ratio", "twin"], kind="stable").drop(columns="rank")


# --- figures ----------------------------------------------------------------------------------------------------------

def looks(drawn):
    """How each series is drawn: colour and marker by arm, filling and dashes by what it was pretrained on."""
    arms = list(dict.fromkeys(drawn.arm))
    others = [arm for arm in arms if arm not in LOOKS]
    seen = list(dict.fromkeys(zip(drawn.ratio.fillna(0), drawn.twin)))
    pretrained = [s for s in sorted(seen, key=lambda s: (s[1] != "none", s[0])) if s[0] > 0]
    found, rows = {}, drawn.drop_duplicates("series")
    for row, twice in zip(rows.itertuples(), rows.arm.duplicated()):
        colour, marker = LOOKS[row.arm] if row.arm in LOOKS else SPARE[others.index(row.arm) % len(SPARE)]
        place = pretrained.index((row.ratio, row.twin)) if row.ratio > 0 else 0
        filling, dashes = SEEN[place % len(SEEN)] if row.ratio > 0 else ("none" if twice else "full", (0, (1, 1.5)))
        found[row.series] = {"color": colour, "marker": marker, "fillstyle": filling, "linestyle": dashes,
                             "markerfacecoloralt": "white", "linewidth": 1.1 if row.ratio > 0 else 0.7,
                             "markersize": 5 if row.ratio > 0 else 4}
    return found


def dodge(ax, drawn, x, places, joined=True):
    """In per cent, one dodged point with its interval for each series at each of the places of column x."""
    style = looks(drawn)
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
    """A panel per protocol: balanced accuracy against the label budget. drawn: the frame of `levels`."""
    protocols = list(dict.fromkeys(drawn.protocol))
    rows_of_legend = -(-drawn.series.nunique() // 3)
    widths = [drawn.series[drawn.protocol == protocol].nunique() + 3 for protocol in protocols]
    fig, panels = plt.subplots(1, len(protocols), figsize=(PAGE, 2.7 + 0.16 * rows_of_legend), sharey=True,
                               squeeze=False, width_ratios=widths)
    drawn = drawn.assign(label=[f"{100 * budget:g} %" for budget in drawn.budget])
    places = list(dict.fromkeys(drawn.sort_values("budget").label))
    for ax, protocol in zip(panels[0], protocols):
        dodge(ax, drawn[drawn.protocol == protocol], "label", places)
        ax.set(title=words(protocol), xlabel="share of the labels")
    panels[0, 0].set_ylabel("balanced accuracy in %")
    handles = {label: handle for ax in panels[0] for handle, label in zip(*ax.get_legend_handles_labels())}
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(3, len(handles)))
    return fig


def draw_contrast(ax, at, row, above, below):
    """Effect and interval of a summary's row, in points, on line `at`: filled and coloured where zero is outside."""
    colour = above if row.low > 0 else below if row.high < 0 else "0.4"
    ax.hlines(at, 100 * row.low, 100 * row.high, color=colour, linewidth=1.8)
    ax.plot(100 * row.effect, at, "o", color=colour, markerfacecolor="white" if colour == "0.4" else colour)


def plot_costs(cost):
    """A panel per metric: balanced minus imbalanced in points, one line for each arm, protocol and budget, about zero.

    cost: rows of the summary: arm, ratio, protocol, budget, metric, group, effect, low, high.
    """
    kinds = list(dict.fromkeys(zip(cost.metric, cost.group)))
    lines = max(len(rows) for _, rows in cost.groupby(["metric", "group"]))
    fig, panels = plt.subplots(1, len(kinds), figsize=(PAGE, 0.85 + 0.24 * lines), sharex=True, sharey=True,
                               squeeze=False)
    many = cost.arm.nunique() > 1 or cost.ratio.nunique() > 1
    for ax, (metric, group) in zip(panels[0], kinds):
        rows = cost[(cost.metric == metric) & (cost.group == group)]
        for at, row in zip(range(len(rows) - 1, -1, -1), rows.itertuples()):
            draw_contrast(ax, at, row, above=PALETTE[3], below=PALETTE[0])
        ax.axvline(0, color="0.2", linewidth=0.8, zorder=1)
        names = [f"{words(row.protocol)}, {100 * row.budget:g} %" for row in rows.itertuples()]
        arms = [f"{words(row.arm)} 1:{row.ratio:g}, " if many else "" for row in rows.itertuples()]
        ax.set_yticks(range(len(rows) - 1, -1, -1), [arm + name for arm, name in zip(arms, names)])
        ax.set(title=metric_words(metric, group), ylim=(-0.7, len(rows) - 0.3),
               xlabel="balanced − imbalanced, percentage points")
        ax.grid(axis="y", visible=False)
    return fig


def plot_gains(gains):
    """A panel per protocol at the smallest and at the largest budget: what each arm adds to its network, in points.

    gains: rows of the summary: what, protocol, budget, effect, low, high; best arms on top, by the first panel.
    """
    ends = [gains.budget.min(), gains.budget.max()]
    gains = gains[gains.budget.isin(ends)]
    kinds = list(dict.fromkeys(zip(gains.protocol, gains.budget)))
    first = gains[(gains.protocol == kinds[0][0]) & (gains.budget == kinds[0][1])]
    arms = [*first.sort_values("effect").what, *sorted(set(gains.what) - set(first.what))]
    fig, panels = plt.subplots(1, len(kinds), figsize=(PAGE, 0.85 + 0.18 * len(arms)), sharex=True, sharey=True,
                               squeeze=False)
    for ax, (protocol, budget) in zip(panels[0], kinds):
        for row in gains[(gains.protocol == protocol) & (gains.budget == budget)].itertuples():
            draw_contrast(ax, arms.index(row.what), row, above=PALETTE[0], below=PALETTE[3])
        ax.axvline(0, color="0.2", linewidth=0.8, zorder=1)
        ax.set_yticks(range(len(arms)), arms)
        ax.set(title=f"{words(protocol)}, {100 * budget:g} %", xlabel="gain in points", ylim=(-0.7, len(arms) - 0.3))
        ax.grid(axis="y", visible=False)
    return fig


def plot_frequency(drawn):
    """Recall of many, medium and few classes, one series per condition. drawn: the frame of `by_frequency`."""
    fig, ax = plt.subplots(figsize=(PAGE * 0.85, 2.5))
    dodge(ax, drawn, "group", list(dict.fromkeys(drawn.group)), joined=False)
    ax.set(ylabel="recall in %", xlabel="classes by their number of images in the imbalanced split")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


# --- captions ---------------------------------------------------------------------------------------------------------

def caption_costs(cost, table):
    return ("What imbalance costs: balanced accuracy, and recall of the classes with fewest images, after pretraining "
            "on the balanced twin, minus the same after pretraining on as many imbalanced images. Right of zero, "
            "imbalance costs. Rows: how the representation was read, and with which share of the labels. Bars: 95 % "
            f"intervals over {doubt(cost)}; filled: zero is outside. {source(table)}")


def caption_gains(gains, table):
    return ("What pretraining adds: balanced accuracy of each arm, in percentage points, minus that of the same "
            "network without it, read in the same way, with the share of the labels above each panel. Arms in the "
            "order of the first panel, which is no ranking. Bars: 95 % intervals over "
            f"{doubt(gains)}; filled: zero is outside. {source(table)}")


def caption_budgets(drawn, table):
    return (f"Balanced accuracy against the share of the labels that a probe may use. {points(drawn)}; "
            f"{table.n.max():,.0f} test images. {source(table)}")


def caption_frequency(drawn, table):
    return (f"Recall of classes by how frequent they are in the imbalanced split; linear probe with "
            f"{100 * drawn.budget.iloc[0]:g} % of the labels. {points(drawn)}; {table.n.max():,.0f} test images. Which "
            f"classes are frequent differs between splits. {source(table)}")


def doubt(contrasts):
    """What the intervals of these contrasts are over."""
    images, n = f"{contrasts.n_images.max():,.0f}", contrasts.n_pairs.max()
    return (f"the test images ({images}) and {n} paired splits together" if n > 1
            else f"{images} test images, for one split")


def points(drawn):
    n = drawn.n.max()
    return (f"Points: means over {n} splits; bars: 95 % intervals over splits (t)" if n > 1
            else "One split; bars: 95 % intervals over test images")


def source(table):
    """What a caption ends with: data, and the command that makes the figure."""
    made = "synthetic images" if table.synthetic.any() else "real images"
    return (f"{made.capitalize()} ({', '.join(sorted(set(table.dataset)))}). "
            f"Made by: python -m ssl_core run params/studies/{table.study.iloc[0]}.yaml")
