"""What each factor adds on the way from one setting to another: a study's chain of arms, each of which differs from the
one before in one thing, as paired contrasts of neighbours, and their figure, a waterfall.

A factor's share depends on those that were changed before it. Steps add up to the whole where all have the same splits.
"""

import numpy as np
import pandas as pd

from ssl_core.analysis.contrasts import BALANCED, RUN, adjusted, drawn, summarise
from ssl_core.analysis.plots import PAGE, PALETTE, axes
from ssl_core.analysis.plots_contrasts import doubt
from ssl_core.analysis.plots_study import source, wrapped
from ssl_core.analysis.wording import budget_words, words

FAMILY = "step of the chain"
WITHIN = ["dataset", "test_set", "label_pool", "budget", "pretrain_dataset", "split_kind", "ratio", "total", "labels"]
LABEL = 2.6  # inches left of the axis
NOT_CHANGED = ("study", "arm", "device", "threads")


def steps_of(cells, chain, resamples=1000):
    """One row for each step of a chain and, last, one for all of it, in the columns of a study's summary.

    cells: of `contrasts.cells_of`; chain: of the study: ARM, or ARM/PROTOCOL where that is not the study's first.
    """
    trained = cells[(cells.pretrain_dataset != "") & (cells.twin == "none")]
    links = [link.partition("/")[::2] for link in chain]
    paired = []
    for _, rows in trained.groupby(WITHIN, sort=False):
        sides = [rows[(rows.arm == arm) & (rows.protocol == (read or rows.protocol.iloc[0]))] for arm, read in links]
        sides = [side.assign(series=side.series + f", {words(read)}" * bool(read))
                 for side, (_, read) in zip(sides, links)]
        for before, after in [*zip(sides, sides[1:]), *zip(sides[:1], sides[-1:])]:
            pairs = after.merge(before, on=RUN, suffixes=("", "_b")).assign(rare=None)
            if len(pairs):
                paired.append((FAMILY, pairs, len(before) + len(after) - 2 * len(pairs), BALANCED))
    found = drawn(paired, resamples)
    return adjusted([summarise(found, *one) for one in paired])


def waterfall(steps, jobs):
    """What is drawn of the steps on one data set, with most labels at the largest ratio: start and end in points beside
    the chain's beginning, and in `change` what a step changed. jobs: by key, as `grid.jobs_of` gives them.
    """
    steps = max(ways(steps), key=lambda way: (way.n_labelled.iloc[0], way.ratio.iloc[0]))
    keys = [row.split()[0].split("+")[0].split(":") for row in steps["keys"]]
    changes = [changed(jobs[before]["seen"], jobs[after]["seen"]) if before != after else f"probe: {words(protocol)}"
               for (after, before), protocol in zip(keys, steps.protocol)]
    end = 100 * steps.effect.cumsum()
    return steps.assign(change=[*changes[:-1], "all together"], start=[0, *end[:-2], 0],
                        end=[*end[:-1], 100 * steps.effect.iloc[-1]])


def changed(before, after):
    """Which parameters differ, in words: "weight decay 0.0005 → 0.0001". Arguments of an optimiser follow its name."""
    said = []
    for name in [name for name in after if after[name] != before[name] and name not in NOT_CHANGED]:
        a, b = before[name], after[name]
        if name == "optimiser_args" and before["optimiser"] != after["optimiser"]:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            said += [f"{part} {shown(a.get(part))} → {shown(b.get(part))}" for part in dict.fromkeys([*a, *b])
                     if a.get(part) != b.get(part)]
        else:
            said.append(f"{name} {shown(a)} → {shown(b)}")
    return ", ".join(said).replace("_", " ")


def shown(value):
    return ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)


def plot_attribution(frame, ax=None):
    """From the first setting, at 0, to the last: a bar for each step, from where the one before ended, and for all.

    frame: of `waterfall`. Bars: points of balanced accuracy; lines: the 95 % interval of a step, about its end.
    """
    names = [wrapped(change, LABEL) for change in frame.change]
    ax = axes(ax, PAGE, 0.9 + 0.15 * sum(name.count("\n") + 2 for name in names))
    for at, row in zip(range(len(frame) - 1, -1, -1), frame.itertuples()):
        low, high = 100 * row.low + row.start, 100 * row.high + row.start
        sure = row.low > 0 or row.high < 0
        colour = (PALETTE[0] if row.effect > 0 else PALETTE[3]) if sure else "0.45"
        ax.barh(at, row.end - row.start, left=row.start, height=0.6, facecolor=colour if sure else "0.85",
                edgecolor=colour)
        ax.hlines(at, low, high, color="0.1", linewidth=1.2)
        if at:
            ax.vlines(row.end, at - 1, at, color="0.4", linewidth=0.7, linestyle=":")
        text = f"{100 * row.effect:+.1f}".replace("-", "−")
        ax.annotate(text, (np.nanmax([high, row.start, row.end]), at), (4, 0), textcoords="offset points", va="center",
                    fontsize=7)
    ax.axvline(0, color="0.2", linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(frame) - 1, -1, -1), names)
    ax.set(xlabel=f"points of balanced accuracy beside {frame.against.iloc[0]}", ylim=(-0.6, len(frame) - 0.4))
    ax.margins(x=0.1)
    ax.grid(axis="y", visible=False)
    return ax


def caption_attribution(frame, table):
    first = frame.iloc[0]
    return (f"From {first.against} to {frame.what.iloc[-1]}, one factor at a time: what each adds to balanced accuracy "
            f"with {budget_words(first.budget)}, in points, in this order; another order may share it out otherwise. "
            f"Last: the whole way. Lines: 95 % intervals over {doubt(frame)}; coloured: zero is outside (blue above, "
            f"orange below), of each by itself, without Holm's rule. All contrasts: summary.csv. {source(table)}")


def with_steps(summary, steps):
    """A study's summary and below it the steps of its chain, if it has one."""
    return pd.concat([summary, steps], ignore_index=True) if len(steps) else summary


def ways(steps):
    """The steps of each data set, number of labels and split, the whole way last in each."""
    return [way for _, way in steps.groupby(["dataset", "budget", "ratio", "n_unlabelled"], sort=False, dropna=False)]


def answer(steps):
    """Sentences for the top of the page: the whole of each way, then its steps; [] without any."""
    found = [way.sentence.tolist() for way in ways(steps)]
    return [way[-1] for way in found] + [line for way in found for line in way[:-1]]
