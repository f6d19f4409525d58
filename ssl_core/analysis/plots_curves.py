"""Curves over training: loss, learning rate and accuracy of runs, and view distance by class."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ssl_core.analysis.plots import COLUMN, GROUPS, PAGE, PALETTE, axes, legend_below
from ssl_core.analysis.plots_study import source, wrapped
from ssl_core.analysis.wording import budget_words, words

QUANTITIES = {"loss": "loss", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "lr": "learning rate"}
INKS = [PALETTE[i] for i in (0, 1, 2, 3, 4, 5, 9)]  # of the palette what is dark enough on white, and no grey
MARKERS, DASHES = "osD^v<>", ("-", "--", "-.", ":")
LEGIBLE = 12  # lines of classes; more than these get no legend
FREQUENCY = ["many", "medium", "few"]
VIEWED = {"distance": "view distance ‖z₁ − z₂‖", "weight": "weight", "memory": "memory of the loss"}


# --- loss, learning rate, accuracy ------------------------------------------------------------------------------------

def training_frame(histories, series=None):
    """Histories as one tidy frame: series, run, step, quantity, part, value.

    histories: {run: DataFrame} as the runs leave them: step, or else epoch, and any of loss, lr, accuracy, log_loss,
    balanced_accuracy, plain or with train_ or val_ before. series: {run: what to call it}; by default each its own.
    """
    found = []
    for run, history in histories.items():
        clock = "step" if "step" in history else "epoch"
        for column in history.columns:
            part, _, rest = column.partition("_")
            part, quantity = (part, rest) if part in ("train", "val") else ("train", column)
            quantity = "loss" if quantity == "log_loss" else quantity
            if quantity in QUANTITIES:
                found.append(pd.DataFrame({"series": (series or {}).get(run, run), "run": run, clock: history[clock],
                                           "quantity": quantity, "part": part, "value": history[column]}))
    columns = ["series", "run", "step", "quantity", "part", "value"]
    if not found:
        return pd.DataFrame(columns=columns)
    whole = pd.concat([one.rename(columns={"epoch": "step"}) for one in found], ignore_index=True)
    return whole[columns].dropna(subset="value")


def by_share(jobs, root):
    """What cells kept of training with labels, of each protocol the first run of a pretrained encoder that has any, or
    else of a floor: {protocol: (what it is, in words, {share of labels: history})}. jobs: of a plan."""
    runs, found = {}, {}
    for job in sorted(jobs, key=lambda job: not job["needs"]):
        for cell in job["cells"]:
            path = root / job["folder"] / "models" / cell["id"] / "history.csv"
            if path.exists() and runs.setdefault(cell["protocol"], (job["key"], cell["source"])) == (
                    job["key"], cell["source"]):
                what = f"{words(cell['protocol'])}, {job['name']},"
                learnt = found.setdefault(cell["protocol"], (what, {}))[1]
                learnt[budget_words(cell["budget"])] = pd.read_csv(path)
    return found


def training_table(histories):
    """The last row of every history under its run's name, with the lowest loss and where it was: the data table."""
    rows = []
    for run, history in histories.items():
        lowest = history.loc[history.loss.idxmin()] if history.loss.notna().any() else history.iloc[-1]
        rows.append({"run": run, **history.iloc[-1].to_dict(), "lowest_loss": lowest.loss, "at_epoch": lowest.epoch})
    return pd.DataFrame(rows)


def plot_curve(frame, ax=None, quantity="loss", like=None):
    """One quantity by step: a look for each series, thin lines for several runs of one; where there is validation, it
    is dashed, with open dots, and training is not. like: rows of all panels, in which a series looks the same."""
    ax, like = axes(ax, COLUMN, 2.3), frame if like is None else like
    names, judged = list(dict.fromkeys(like.series)), (like.part == "val").any()
    for (name, _, part), rows in frame[frame.quantity == quantity].groupby(["series", "run", "part"], sort=False):
        i, alone = names.index(name), frame[frame.series == name].run.nunique() == 1
        dash = DASHES[part == "val"] if judged else DASHES[i // 3 % len(DASHES)]
        ax.plot(rows.step, rows.value, color=INKS[i % len(INKS)], linestyle=dash,
                marker=MARKERS[(i + i // len(INKS)) % len(MARKERS)], markevery=max(1, len(rows) // 8),
                markerfacecolor="none" if part == "val" else None, linewidth=1.3 if alone else 0.7,
                markersize=4.5 if alone else 2.5, label=name if part == "train" else f"{name}, validation")
    ax.set(xlabel="step", ylabel=QUANTITIES[quantity])
    if quantity != "loss":
        ax.set_ylim(0, 1.02 if "accuracy" in quantity else None)
    return ax


def plot_training(frame):
    """A panel for each quantity that the runs recorded. frame: of `training_frame`."""
    there = [quantity for quantity in QUANTITIES if (frame.quantity == quantity).any()]
    fig, panels = plt.subplots(1, len(there), figsize=(min(PAGE, COLUMN * len(there)), 2.6), squeeze=False)
    for ax, quantity in zip(panels[0], there):
        plot_curve(frame, ax, quantity)
    legend_below(fig)
    return fig


def plot_pretraining(frame):
    """The loss of each series on a panel and scale of its own, as losses of different methods are different numbers;
    then each other quantity of all of them. frame: of `training_frame`."""
    names = list(dict.fromkeys(frame.series[frame.quantity == "loss"]))
    others = [quantity for quantity in QUANTITIES if quantity != "loss" and (frame.quantity == quantity).any()]
    wide = min(4, len(names) + len(others))
    down = -(-(len(names) + len(others)) // wide)
    fig, panels = plt.subplots(down, wide, figsize=(min(PAGE, COLUMN * wide), 1.7 * down), squeeze=False)
    for ax, name in zip(panels.flat, names):
        plot_curve(frame[frame.series == name], ax, "loss", frame)
        ax.set_title(wrapped(name, PAGE / wide - 0.5))
    for ax, quantity in zip(panels.flat[len(names):], others):
        plot_curve(frame, ax, quantity, frame).set_title("all, drawn as their losses are")
    for ax in panels.flat[len(names) + len(others):]:
        fig.delaxes(ax)
    return fig


def caption_training(frame, table, what="pretraining"):
    n = frame.run.nunique()
    dashed = "dashed: images that are not trained on; " * bool((frame.part == "val").any())
    scales = ", each on a scale of its own" * (what == "pretraining")
    return (f"Curves of {what} by step, {n} run{'s' if n > 1 else ''}; {dashed}loss and accuracy of training are means "
            f"over the batches since the point before, all else is as it was at that step. Losses of different methods "
            f"are different numbers{scales}. {source(table)}")


# --- how far two views lie apart --------------------------------------------------------------------------------------

def view_frame(kept, labels, classes, frequency=None):
    """Mean view distance, weight and, of BCL, memory by class, and by frequency, over epochs: quantity, by, group,
    epoch, mean, low, high, n; the interval is over images, 1.96 standard errors.

    kept: of `methods.view_distance.recorded`: epochs (K,), and distance, weight, memory (K, images). labels: (images,);
    frequency: many, medium or few for each class.
    """
    groups = [("class", name, labels == c) for c, name in enumerate(classes)]
    for name in FREQUENCY if frequency is not None else ():
        members = np.flatnonzero(np.asarray(frequency) == name)
        groups.append(("frequency", name, np.isin(labels, members)))
    found = []
    for quantity in [name for name in VIEWED if name in kept]:
        for at, epoch in enumerate(kept["epochs"]):
            for by, group, mask in groups:
                values = np.asarray(kept[quantity][at], np.float64)[mask]
                values = values[np.isfinite(values)]
                if len(values):
                    half = 1.96 * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
                    found.append((quantity, by, group, int(epoch), values.mean(), values.mean() - half,
                                  values.mean() + half, len(values)))
    return pd.DataFrame(found, columns="quantity by group epoch mean low high n".split())


def plot_views(frame, ax=None, quantity="distance", by="frequency"):
    """Mean distance, weight or memory over epochs: a line with its band for each class, or for many, medium and few."""
    ax = axes(ax, COLUMN, 2.3)
    rows = frame[(frame.quantity == quantity) & (frame.by == by)]
    for i, (group, line) in enumerate(rows.groupby("group", sort=False)):
        colour, few = GROUPS[group] if by == "frequency" else INKS[i % len(INKS)], rows.group.nunique() <= LEGIBLE
        ax.plot(line.epoch, line["mean"], color=colour, linestyle=DASHES[i // 7 % len(DASHES)], label=group,
                marker=MARKERS[i % len(MARKERS)] if few else None, markevery=max(1, len(line) // 8),
                linewidth=1.2 if few else 0.5)
        if by == "frequency":
            ax.fill_between(line.epoch, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
    ax.set(xlabel="epoch", ylabel=VIEWED[quantity])
    return ax


def plot_view_panels(frame):
    """What was recorded (column) by frequency, where it is known, and by class (row), each row with its legend."""
    kinds = [by for by in ("frequency", "class") if (frame.by == by).any()]
    there = [quantity for quantity in VIEWED if (frame.quantity == quantity).any()]
    fig, panels = plt.subplots(len(kinds), len(there), figsize=(PAGE, 2.1 * len(kinds)), squeeze=False)
    for line, by in zip(panels, kinds):
        for ax, quantity in zip(line, there):
            plot_views(frame, ax, quantity, by)
        if frame.group[frame.by == by].nunique() <= LEGIBLE:
            line[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return fig


def caption_views(frame, table, pruned=False):
    """pruned: the second view went through a pruned network, as in SDCLR."""
    n = frame[(frame.by == "class") & (frame.epoch == frame.epoch.max()) & (frame.quantity == "distance")].n
    memory = ", and the memory of its loss" * ("memory" in set(frame.quantity))
    gap = "The second view went through the pruned network: the distance is also its gap. " * pruned
    return (f"Distance between the projections of an image's two views, the weight 1 ± (d − mean) / (max − min) of "
            f"its batch{memory}, averaged over the {n.sum():,} pretraining images by class ({n.min():,} to "
            f"{n.max():,} each) and by how frequent the class is. {gap}Bands by frequency: 95 % intervals over images. "
            f"Labels serve only this picture. {source(table)}")
