"""Calibration by rarity: is a model as sure as it is right where it names a rare class, and a frequent one?"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ssl_core.analysis.contrasts import predictions
from ssl_core.analysis.plots import COLUMN, GROUPS, PAGE, axes
from ssl_core.analysis.plots_study import across, ends, looks, source
from ssl_core.analysis.wording import budget_words, words
from ssl_core.evaluate.intervals import wilson
from ssl_core.evaluate.point import confidence_bins


def reliability_frame(cells):
    """How often the class that is named is right, by how sure the model is and how frequent the named class is.

    cells: rows of `contrasts.cells_of`; pretrained arms are taken, each by its first protocol, most labels, the
    smallest and the largest ratio; images of all splits together. Columns series, arm, ratio, twin, protocol, budget,
    dataset, group, bin, confidence, accuracy, low, high (Wilson), n; and, of the whole group, ece, over (mean
    confidence less accuracy), over_low, over_high (1.96 standard errors over images).

    By the named class, not the true one: of a perfect model's images of a rare class many are rightly unsure.
    """
    rows = cells[(cells.pretrain_dataset != "") & (cells.stage == "probe")]
    found = []
    if len(rows):
        rows = ends(rows[rows.dataset == rows.dataset.iloc[0]])
        rows = rows[(rows.budget == rows.budget.max())
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
                found += [common | {"group": group} | line for line in bins_of(top[rarity == group],
                                                                               right[rarity == group])]
    return pd.DataFrame(found)


def bins_of(top, right):
    """A dict for each bin of confidence that holds images; ece and over are of all of them."""
    if not len(top):
        return []
    at, gap = confidence_bins(top), top - right
    half = 1.96 * gap.std(ddof=1) / len(gap) ** 0.5 if len(gap) > 1 else np.nan
    whole = {"ece": abs(np.bincount(at, weights=gap)).sum() / len(gap), "over": gap.mean(),
             "over_low": gap.mean() - half, "over_high": gap.mean() + half}
    lines = []
    for b in np.unique(at):
        low, high = wilson(right[at == b].mean(), (at == b).sum())
        lines.append({"bin": int(b), "confidence": top[at == b].mean(), "accuracy": right[at == b].mean(), "low": low,
                      "high": high, "n": int((at == b).sum()), **whole})
    return lines


def plot_reliability(frame, ax=None, group="few"):
    """Accuracy against confidence in images called a many, medium or few class. frame: of `reliability_frame`."""
    ax = axes(ax, COLUMN, COLUMN)
    for name, look in looks(frame).items():
        rows = frame[(frame.series == name) & (frame.group == group)]
        ax.errorbar(rows.confidence, rows.accuracy, yerr=[rows.accuracy - rows.low, rows.high - rows.accuracy],
                    label=name, elinewidth=0.6, capsize=1, **look | {"markersize": 3.5})
    ax.plot([0, 1], [0, 1], color="0.5", linewidth=0.7)
    ax.set(xlabel="confidence", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=f"called a {group} class")
    ax.set_box_aspect(1)
    return ax


def plot_reliabilities(frame):
    """A panel each for many, medium and few."""
    there = [group for group in GROUPS if (frame.group == group).any()]
    rows_of_legend = -(-frame.series.nunique() // across(frame.series.unique()))
    fig, panels = plt.subplots(1, len(there), figsize=(PAGE, 2.8 + 0.16 * rows_of_legend), squeeze=False, sharey=True)
    for ax, group in zip(panels[0], there):
        plot_reliability(frame, ax, group)
    panels[0, 0].set_ylabel("accuracy")
    handles = {label: handle for ax in panels.flat for handle, label in zip(*ax.get_legend_handles_labels())}
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=across(handles))
    return fig


def reliability_table(frame):
    """Calibration error and over-confidence of each series and group, a row each."""
    by = ["series", "group"]
    whole = frame.groupby(by, sort=False)[["ece", "over", "over_low", "over_high"]].first()
    return whole.assign(n=frame.groupby(by, sort=False).n.sum()).reset_index()


def caption_reliability(frame, table):
    protocols = " and ".join(map(words, frame.protocol.unique()))
    return (f"Reliability of {protocols} with {budget_words(frame.budget.iloc[0])}, by how "
            "frequent the class that is named was in pretraining. Below the line a model is surer than it is right. "
            "Test images of all splits together, in 15 bins of equal width; bars: Wilson's 95 % intervals over images. "
            f"{source(table)}")
