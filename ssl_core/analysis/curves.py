"""Response curves: a metric against the logarithm of the ratio, of the number of images, or of the labels.

A straight line is fitted to each split by least squares. Its slope is a weighted sum of that split's values, as is the
error of predicting one level from the others, so both are judged as any paired effect is (`compare.contrast`): the
splits are the units, never the points, and one resample of the test images serves all levels. Classes are called few by
the most imbalanced split of the curve, at all its levels. Only splits with every level count.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ssl_core.analysis.compare import contrast, points, span
from ssl_core.analysis.contrasts import BALANCED, FEW, READ, SPLIT, drawn, predictions
from ssl_core.analysis.plots import COLUMN, PALETTE, axes
from ssl_core.analysis.wording import budget_words, metric_words, words

MIN_LEVELS = 3  # two are a contrast, and leave nothing to hold out
ALONG = {"ratio": "largest class over smallest", "total": "unlabelled images", "budget": "labels"}
CURVE = ["pretrain_dataset", "arm", "split_kind", "labels", *READ]  # and of ALONG what is not varied
COLUMNS = """dataset pretrain_dataset arm split_kind protocol along held metric group x mean low high predicted error
    error_low error_high outside slope slope_low slope_high n_splits n_left_out n_images""".split()


def response_curves(cells, resamples=1000):
    """One row for each level of each curve with at least three levels; slopes are per tenfold and stand in each row.

    cells: of `contrasts.cells_of`. error: the line through the other levels minus what was measured; outside: the level
    is an end, so that the line was prolonged. Values are shares.
    """
    asked = [(None, rows.assign(path_b=rows.path, rare=rare if metric is FEW else None), (along, left), metric)
             for along, rows, left in chosen(cells) for rare in [few_classes(rows)] for metric in (BALANCED, FEW)
             if metric is BALANCED or rare is not None]
    found = drawn(asked, resamples)
    rows = [row for _, curve, about, metric in asked for row in levels_of(found, curve, metric, *about)]
    return pd.DataFrame(rows, columns=COLUMNS)


def chosen(cells):
    """(what varies, the cells of one curve, splits left out as a level is not there), for every curve of a study."""
    trained = cells[(cells.pretrain_dataset != "") & (cells.twin == "none")]
    for along in ALONG:
        rows = trained[trained.split_kind != "natural"] if along == "ratio" else trained
        rows = rows[rows[along] > 0]
        by = list(dict.fromkeys([*CURVE, *ALONG]))
        for _, curve in rows.groupby([name for name in by if name != along], dropna=False, sort=False):
            n_levels = curve.groupby(SPLIT)[along].transform("nunique")
            whole = curve[n_levels == curve[along].nunique()]
            if curve[along].nunique() >= MIN_LEVELS and len(whole):
                left = len(curve[SPLIT].drop_duplicates()) - len(whole[SPLIT].drop_duplicates())
                yield along, whole, left


def few_classes(curve):
    """How frequent each class is, for each cell, by the largest ratio of its split; None where no class is few."""
    of_split = {}
    for row in curve.sort_values("ratio").itertuples():
        of_split[row.draw_seed, row.order_seed] = predictions(row.path)
    if any(test.task == "multilabel" or "few" not in (test.frequency or ()) for test in of_split.values()):
        return None
    return pd.Series([of_split[split].frequency for split in zip(curve.draw_seed, curve.order_seed)], curve.index)


def levels_of(found, curve, metric, along, left):
    """The rows of one curve. found: of `contrasts.drawn`; left: splits that were left out."""
    each = [found[path, metric, rare] for path, rare in zip(curve.path, curve.rare)]
    if len({images for *_, images in each}) > 1:
        raise ValueError(f"cells of {curve.key.iloc[0]} and others of its curve were tested on different images; "
                         "draw one curve for each test set")
    at, splits = sorted(curve[along].unique()), curve[SPLIT].drop_duplicates().apply(tuple, axis=1).tolist()
    of_cell = [(splits.index(split), at.index(level))
               for split, level in zip(zip(curve.draw_seed, curve.order_seed), curve[along])]
    values, n = np.zeros((2, len(splits), len(at)))
    draws = np.zeros((len(at), len(each[0][1])))
    for place in of_cell:  # seeds and draws of labels are averaged first
        n[place] += 1
    for (s, i), (value, resampled, *_) in zip(of_cell, each):
        values[s, i] += value / n[s, i]
        draws[i] += resampled / n[s, i] / len(splits)
    units = min(cell[2] for cell in each)

    def judged(weights):
        return contrast(values @ weights, weights @ draws, units)

    x = curve.groupby(along).n_labelled.mean()[at].to_numpy() if along == "budget" else np.array(at, float)
    first, log_x, unit = curve.iloc[0], np.log10(x), np.eye(len(at))
    slope = judged(slope_weights(log_x))
    about = {name: first[name] for name in ("dataset", "pretrain_dataset", "arm", "split_kind", "protocol")} | {
        "along": along, "held": held(first, along), "metric": metric[0], "group": metric[2], "slope": slope.effect,
        "slope_low": slope.interval[0], "slope_high": slope.interval[1], "n_splits": len(splits), "n_left_out": left,
        "n_images": first.n}
    for i, level in enumerate(x):
        others, here = np.arange(len(at)) != i, judged(unit[i])
        weights = np.zeros(len(at))
        weights[others] = line_weights(log_x[others], log_x[i])
        error = judged(weights - unit[i])
        yield about | {"x": level, "mean": here.effect, "low": here.interval[0], "high": here.interval[1],
                       "predicted": here.effect + error.effect, "error": error.effect,
                       "error_low": error.interval[0], "error_high": error.interval[1],
                       "outside": i in (0, len(at) - 1)}


def slope_weights(x):
    """(L,) that make the least-squares slope over x out of the values there."""
    return (x - x.mean()) / ((x - x.mean()) ** 2).sum()


def line_weights(x, to):
    """(L,) that make the height at `to` of the least-squares line out of the values at x."""
    return 1 / len(x) + slope_weights(x) * (to - x.mean())


def held(row, along):
    """What does not vary along a curve, in words."""
    said = {"ratio": "natural" if row.split_kind == "natural" else f"1:{row.ratio:g}",
            "total": f"N = {row.total:,.0f}" if row.total else "", "budget": budget_words(row.budget)}
    return ", ".join(text for name, text in said.items() if name != along and text)


def slopes(frame):
    """One row for each curve of `response_curves`, with the mean size of its held-out error inside and outside."""
    by = COLUMNS[:COLUMNS.index("x")] + COLUMNS[COLUMNS.index("slope"):]
    sizes = frame.assign(inside=frame.error.abs().where(~frame.outside), outside=frame.error.abs().where(frame.outside))
    curves = sizes.groupby(by, sort=False, dropna=False)
    found = curves[["inside", "outside"]].mean().rename(columns="error_{}".format).reset_index()
    return found.assign(sentence=[slope_sentence(row) for row in found.itertuples()])


def slope_sentence(row):
    """What ten times as much does to a metric, by the interval alone. row: of `slopes`."""
    times = {"ratio": "imbalance", "total": "unlabelled images", "budget": "labels"}[row.along]
    change = (f"changes by {points(row.slope)} points" if row.slope_low > 0 or row.slope_high < 0
              else f"has no detectable slope: {points(row.slope)} points")
    over = f"{row.n_splits} splits" if row.n_splits > 1 else "one split, test images only"
    interval = "too few independent test images for an interval" if np.isnan(row.slope_low) else span(
        (row.slope_low, row.slope_high))
    known = words(row.arm)
    return (f"{metric_words(row.metric, row.group).capitalize()} of {known} {change} for ten times the {times} "
            f"({interval}; {over}; {words(row.protocol)}, {row.held}). A level left out is predicted to within "
            f"{100 * row.error_inside:.1f} points between the others and {100 * row.error_outside:.1f} beyond them.")


def plot_curves(frame, ax=None):
    """One metric in per cent against ratio, images or labels (log), with intervals and the fitted lines.

    frame: rows of `response_curves` of one dataset, metric, group and `along`.
    """
    ax = axes(ax, COLUMN, 2.6)
    curves = list(frame.groupby(["pretrain_dataset", "arm", "split_kind", "protocol", "held"], sort=False))
    parts = [{name[i] for name, _ in curves} for i in range(5)]
    for i, (name, rows) in enumerate(curves):
        colour, log_x = PALETTE[i % len(PALETTE)], np.log10(rows.x)
        label = ", ".join([words(name[1]), *(words(part) if j == 3 else part.replace("_", " ") if j == 2 else part
                                             for j, part in enumerate(name) if j != 1 and len(parts[j]) > 1)])
        bars = 100 * np.array([rows["mean"] - rows.low, rows.high - rows["mean"]])
        ax.errorbar(rows.x * 1.03 ** (i - (len(curves) - 1) / 2), 100 * rows["mean"], yerr=np.nan_to_num(bars),
                    color=colour, marker="osD^vP*"[i % 7], linestyle="none", elinewidth=0.8, capsize=1.5, label=label)
        line = rows["mean"].mean() + rows.slope * (log_x - log_x.mean())
        ax.plot(rows.x, 100 * line, color=colour, linestyle=("-", "--", "-.", ":", (0, (5, 1)))[i % 5])
    first = frame.iloc[0]
    ax.set_xscale("log")
    ticks = sorted(frame.x.unique())
    ax.set_xticks(ticks, [f"1:{x:,g}" if first.along == "ratio" else f"{x:,.0f}" for x in ticks])
    ax.xaxis.set_minor_locator(plt.NullLocator())
    ax.set(xlabel=ALONG[first.along], ylabel=f"{metric_words(first.metric, first.group)} in %")
    ax.legend(fontsize=6.5)
    return ax


def caption_curves(frame):
    """What `plot_curves` shows, over what the intervals are, and what was left out."""
    n, left, first = frame.n_splits, frame.n_left_out.max(), frame.iloc[0]
    splits = f"{n.min()} to {n.max()} splits" if n.nunique() > 1 else f"{n.min()} split{'s' * bool(n.min() > 1)}"
    return (f"{metric_words(first.metric, first.group).capitalize()} against {ALONG[first.along]}: means over "
            f"{splits} with 95 % intervals over test images and splits together, and the least-squares line of each "
            f"curve. {f'Splits left out as a level is not there: at most {left} of a curve. ' if left else ''}"
            f"{first.n_images:,.0f} test images of {first.dataset}.")
