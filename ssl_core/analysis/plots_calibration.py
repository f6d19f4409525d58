"""Calibration by rarity: is a model as sure as it is right where it names a rare class, and a frequent one?"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ssl_core.analysis.contrasts import predictions
from ssl_core.analysis.plots import COLUMN, GROUPS, PAGE, axes, legend_below
from ssl_core.analysis.plots_study import ends, source, wrapped
from ssl_core.analysis.wording import budget_words, words
from ssl_core.evaluate.intervals import wilson
from ssl_core.evaluate.point import confidence_bins


def reliability_frame(cells):
    """How often the class that is named is right, by how sure the model is and how frequent the named class is.

    cells: rows of `contrasts.cells_of`, with scores; arms pretrained on a long tail are taken, each by its first
    protocol, most labels, the smallest and the largest ratio; images of all splits together. Columns series, arm,
    ratio, twin, protocol, budget, dataset, group, bin, confidence, accuracy, low, high (Wilson), n; and, of the whole
    group, ece, over (mean confidence less accuracy), over_low, over_high (1.96 standard errors over images).

    By the named class, not the true one: of a perfect model's images of a rare class many are rightly unsure.
    """
    rows = cells[(cells.pretrain_dataset != "") & (cells.stage == "probe") & (cells.ratio > 1)]
    found = []
    if len(rows):
        rows = ends(rows[rows.dataset == rows.dataset.iloc[0]])
        rows = rows[(rows.budget == rows.budget[rows.n_labelled.idxmax()])
                    & (rows.protocol == rows.groupby("series").protocol.transform("first"))]
    for _, some in rows.groupby("series", sort=False):
        one, parts = some.iloc[0], [predictions(path) for path in some.path]
        parts = [part for part in parts if part.task != "multilabel" and part.frequency is not None]
        if parts:
            top = np.concatenate([part.probabilities.max(1) for part in parts])
            named = np.concatenate([part.probabilities.argmax(1) for part in parts])
            right = named == np.concatenate([part.labels for part in parts])
            rarity = np.concatenate([np.asarray(part.frequency)[part.probabilities.argmax(1)] for part in parts])
            common = {name: one[name] for name in ("series", "arm", "ratio", "twin", "protocol", "budget", "dataset")}
            for group in GROUPS:
                found += [common | {"group": group, "n_splits": len(parts)} | line
                          for line in bins_of(top[rarity == group], right[rarity == group], len(parts))]
    return pd.DataFrame(found)


def bins_of(top, right, times=1):
    """A dict for each bin of confidence that holds images; ece and over are of all of them.

    times: how often each image is among them, once for each split; intervals count it once.
    """
    if not len(top):
        return []
    at, gap = confidence_bins(top), top - right
    half = 1.96 * gap.std(ddof=1) / (len(gap) / times) ** 0.5 if len(gap) > 1 else np.nan
    whole = {"ece": abs(np.bincount(at, weights=gap)).sum() / len(gap), "over": gap.mean(),
             "over_low": gap.mean() - half, "over_high": gap.mean() + half}
    lines = []
    for b in np.unique(at):
        low, high = wilson(right[at == b].mean(), (at == b).sum() / times)
        lines.append({"bin": int(b), "confidence": top[at == b].mean(), "accuracy": right[at == b].mean(), "low": low,
                      "high": high, "n": int((at == b).sum()), **whole})
    return lines


def plot_reliability(frame, ax=None):
    """Accuracy against confidence, a line each for images called a many, a medium or a few class.

    frame: rows of `reliability_frame` of one series.
    """
    ax = axes(ax, COLUMN, COLUMN)
    ax.plot([0, 1], [0, 1], color="0.5", linewidth=0.7)
    for (group, colour), marker, dashes in zip(GROUPS.items(), "osD", ("-", "--", ":")):
        rows = frame[frame.group == group]
        if len(rows):
            ax.errorbar(rows.confidence, rows.accuracy, yerr=[rows.accuracy - rows.low, rows.high - rows.accuracy],
                        label=group, elinewidth=0.6, capsize=1, markersize=3, linewidth=1, color=colour, marker=marker,
                        linestyle=dashes)
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 0.5, 1),
           yticks=(0, 0.5, 1))
    ax.set_box_aspect(1)
    return ax


def plot_reliabilities(frame):
    """A panel for each series."""
    names = list(dict.fromkeys(frame.series))
    wide = min(len(names), 4 if len(names) <= 12 else 5)
    inches, down = min(PAGE / wide, 2.3), -(-len(names) // wide)
    fig, panels = plt.subplots(down, wide, figsize=(max(COLUMN, inches * wide), (inches + 0.35) * down + 0.5),
                               squeeze=False, sharex=True, sharey=True)
    for ax, name in zip(panels.flat, names):
        plot_reliability(frame[frame.series == name], ax).set_title(wrapped(name, inches - 0.5), fontsize=7)
        ax.label_outer(remove_inner_ticks=False)
    for ax in panels.flat[len(names):]:
        fig.delaxes(ax)
    legend_below(fig, title="the class that is named")
    return fig


def reliability_table(frame):
    """Calibration error and over-confidence of each series and group, a row each."""
    by = ["series", "group"]
    whole = frame.groupby(by, sort=False)[["ece", "over", "over_low", "over_high"]].first()
    return whole.assign(n=frame.groupby(by, sort=False).n.sum()).reset_index()


def caption_reliability(frame, table):
    protocols, splits = " and ".join(map(words, frame.protocol.unique())), frame.n_splits.max()
    of_each = f" in each of {splits} splits" * bool(splits > 1)
    return (f"Reliability of {protocols} with {budget_words(frame.budget.iloc[0])}, by how "
            "frequent the class that is named was in pretraining. Below the line a model is surer than it is right. "
            f"{frame.groupby('series').n.sum().max() / splits:,.0f} test images{of_each}, in 15 bins of equal width; "
            f"bars: Wilson's 95 % intervals over images, each counted once, whatever its group. {source(table)}")
