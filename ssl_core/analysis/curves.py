"""Response curves: a metric against the logarithm of the ratio, of the number of images, or of the labels.

A straight line is fitted to each split by least squares. Its slope is a weighted sum of that split's values, as is the
error of predicting one level from the others, so both are judged as any paired effect is (`compare.contrast`): the
splits are the units, never the points, and one resample of the test images serves all levels. Classes are called few by
the most imbalanced split of the curve, at all its levels. Only splits with every level count.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ssl_core.analysis.compare import contrast
from ssl_core.analysis.contrasts import BALANCED, FEW, READ, SPLIT, adjusted, drawn, judged, predictions
from ssl_core.analysis.plots import COLUMN, PAGE, PALETTE, axes
from ssl_core.analysis.plots_study import look_of, source, thousands
from ssl_core.analysis.power import undecided_sentence
from ssl_core.analysis.wording import budget_words, metric_words, points, span, words

MIN_LEVELS = 3  # two are a contrast, and leave nothing to hold out
PROTOCOLS = 4  # that one figure has room for
ALONG = {"ratio": "largest class over smallest", "total": "unlabelled images", "budget": "labels"}
TIMES = ALONG | {"ratio": "imbalance"}
CURVE = ["pretrain_dataset", "arm", "split_kind", "labels", *READ]  # and of ALONG what is not varied
FAMILIES = "slope of a response curve", "prediction of a level left out"
COLUMNS = """dataset pretrain_dataset arm split_kind protocol along held metric group x mean low high predicted outside
    slope slope_low slope_high n_splits n_left_out n_images""".split()


def response_curves(cells, resamples=1000):
    """(one row for each level of each curve with at least three levels, for a figure; rows of summary.csv).

    cells: of `contrasts.cells_of`. The summary has the slope of each curve, per tenfold, and for each level the error
    of the line through the other levels: predicted minus measured. outside: the level is an end, so that the line was
    prolonged. Values are shares.
    """
    asked = [(None, rows.assign(path_b=rows.path, rare=rare if metric is FEW else None), (along, left), metric)
             for along, rows, left in chosen(cells) for rare in [few_classes(rows)] for metric in (BALANCED, FEW)
             if metric is BALANCED or rare is not None]
    found = drawn(asked, resamples)
    levels, summary = [], []
    for _, curve, about, metric in asked:
        of_curve, of_summary = fitted(found, curve, metric, *about)
        levels, summary = levels + of_curve, summary + of_summary
    return pd.DataFrame(levels, columns=COLUMNS), adjusted(summary)


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


def fitted(found, curve, metric, along, left):
    """(levels, rows of the summary) of one curve. found: of `contrasts.drawn`; left: splits that were left out."""
    each = [found[path, metric, rare] for path, rare in zip(curve.path, curve.rare)]
    if len({images for *_, images in each}) > 1:
        raise ValueError(f"cells of {curve.key.iloc[0]} and others of its curve were tested on different images; "
                         "draw one curve for each test set")
    size = "n_labelled" if along == "budget" else along  # 50 of each class may be fewer than all
    at = list(curve.groupby(along)[size].mean().sort_values().index)
    splits = curve[SPLIT].drop_duplicates().apply(tuple, axis=1).tolist()
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
    keys = curve.groupby(SPLIT, sort=False)["key"].agg(lambda names: "+".join(dict.fromkeys(names)))

    def judge(weights):
        return contrast(values @ weights, weights @ draws, units)

    x = curve.groupby(along).n_labelled.mean()[at].to_numpy() if along == "budget" else np.array(at, float)
    first, log_x, unit = curve.iloc[0], np.log10(x), np.eye(len(at))
    slope, several = judge(slope_weights(log_x)), len(splits) > 1
    where = "; ".join(filter(None, (f"{len(splits)} splits" if several else "one split, test images only",
                                    first.on.strip(), words(first.protocol), held(first, along))))
    about = {name: first[name] for name in ("dataset", "pretrain_dataset", "arm", "split_kind", "protocol")} | {
        "metric": metric[0], "group": metric[2], "n_left_out": left, "n_images": first.n}
    summary = about | {"study": first.study, "twin": first.twin, "what": words(first.arm),
                       "test": f"{'t over splits with ' * several}bootstrap over images"}
    levels, rows = [], [summary | common(curve) | judged(slope, values @ slope_weights(log_x), keys) | {
        "family": FAMILIES[0], "against": f"ten times the {TIMES[along]}",
        "sentence": slope_sentence(slope, metric, first.arm, along, where)}]
    for i, level in enumerate(x):
        others, here, outside = np.arange(len(at)) != i, judge(unit[i]), i in (0, len(at) - 1)
        weights = -unit[i]
        weights[others] = line_weights(log_x[others], log_x[i])
        error = judge(weights)
        levels.append(about | {"along": along, "held": held(first, along), "x": level, "mean": here.effect,
                               "low": here.interval[0], "high": here.interval[1], "outside": outside,
                               "predicted": here.effect + error.effect, "slope": slope.effect,
                               "slope_low": slope.interval[0], "slope_high": slope.interval[1],
                               "n_splits": len(splits)})
        rows.append(summary | common(curve[curve[along] == at[i]]) | judged(error, values @ weights, keys) | {
            "family": FAMILIES[1], "against": f"measured at {level_words(along, level)}",
            "sentence": error_sentence(error, metric, first.arm, level_words(along, level), outside, where)})
    return levels, rows


def common(rows):
    """What all cells have in common of ratio, images and labels; else NaN."""
    return {name: rows[name].iloc[0] if rows[name].nunique() == 1 else np.nan
            for name in ("ratio", "n_unlabelled", "budget", "n_labelled")}


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


def level_words(along, level):
    """One level of a curve in words."""
    return f"1:{level:,g}" if along == "ratio" else f"{level:,.0f} {ALONG[along]}"


def slope_sentence(found, metric, arm, along, where):
    """What ten times as much does to a metric, by the interval alone. found: Contrast of the slope."""
    what = f"{metric_words(metric[0], metric[2])} of {words(arm)}"
    size = f"{points(found.effect)} points"
    if found.verdict == "unknown":
        return f"{capital(what)}, for ten times the {TIMES[along]}: {size}, {undecided_sentence(found)} ({where})."
    if found.verdict == "undecided":
        said = undecided_sentence(found, what="slope")
        return f"{capital(what)}, for ten times the {TIMES[along]}: {said} ({size}; {where})."
    return f"{capital(what)} changes by {size} for ten times the {TIMES[along]} ({span(found.interval)}; {where})."


def error_sentence(found, metric, arm, level, outside, where):
    """How far the line through the other levels misses one level. found: Contrast of predicted minus measured."""
    what = f"{capital(metric_words(metric[0], metric[2]))} of {words(arm)} at {level}, predicted from the other "
    what += f"levels{', beyond them' * outside}"
    size = points(abs(found.effect)).lstrip("+")
    if found.verdict in ("higher", "lower"):
        too = {"higher": "high", "lower": "low"}[found.verdict]
        return f"{what}: {size} points too {too} ({span(found.interval)}; {where})."
    return f"{what}: {undecided_sentence(found, what='error')} ({points(found.effect)} points; {where})."


def capital(text):
    return text[:1].upper() + text[1:]


def to_draw(frame, along):
    """Of the balanced accuracy of one data set along ratio, total or budget what one figure has room for.

    The curves of the study's first protocols, where most is held at the smallest and at the largest value.
    """
    rows = frame[(frame.along == along) & (frame.metric == BALANCED[0])]
    rows = rows[rows.protocol.isin(rows.protocol.unique()[:PROTOCOLS])]
    return rows[rows.held.isin(rows.held.unique()[[0, -1]])] if rows.held.nunique() > 2 else rows


def plot_curve_panels(frame):
    """A row for each protocol, a panel for what is held: `plot_curves`, and the slopes beside. frame: of `to_draw`."""
    protocols, held_at = frame.protocol.unique(), frame.held.unique()
    arms = frame.groupby(["pretrain_dataset", "arm", "split_kind"]).ngroups
    below = len(held_at) > 1  # where a legend has room
    height = 2.1 + 0.15 * arms if below else max(1.8, 0.15 * arms)
    fig, panels = plt.subplots(len(protocols), len(held_at), figsize=(PAGE, height * len(protocols)), sharex=True,
                               sharey="row", squeeze=False)
    for line, protocol in zip(panels, protocols):
        for ax, at in zip(line, held_at):
            rows = frame[(frame.protocol == protocol) & (frame.held == at)]
            ax.set_title(f"{words(protocol)}, {at}")
            if len(rows):
                legend = plot_curves(rows, ax).get_legend()
                if below:
                    legend.set(loc="upper center", bbox_to_anchor=(0.5, -0.25))
            ax.label_outer()
    return fig


def plot_curves(frame, ax=None):
    """One metric in per cent against ratio, images or labels (log), with intervals and the fitted lines.

    frame: rows of `response_curves` of one dataset, metric, group and `along`. Slopes stand in the legend.
    """
    ax = axes(ax, COLUMN, 2.6)
    curves = list(frame.groupby(["pretrain_dataset", "arm", "split_kind", "protocol", "held"], sort=False))
    parts = [{name[i] for name, _ in curves} for i in range(5)]
    for i, (name, rows) in enumerate(curves):
        log_x, (colour, marker) = np.log10(rows.x), (PALETTE[i % len(PALETTE)], "osD^vP*"[i % 7])
        if len(parts[1]) == len(curves):  # each arm as all figures draw it
            colour, marker = look_of(parts[1])[name[1]]
        label = ", ".join([words(name[1]), *(words(part) if j == 3 else part.replace("_", " ") if j == 2 else part
                                             for j, part in enumerate(name) if j != 1 and len(parts[j]) > 1)])
        slope, low, high = rows.iloc[0][["slope", "slope_low", "slope_high"]]
        label += f": {points(slope)}" + (f" ({span((low, high))})" if low == low else "")
        bars = 100 * np.array([rows["mean"] - rows.low, rows.high - rows["mean"]])
        ax.errorbar(rows.x * 1.03 ** (i - (len(curves) - 1) / 2), 100 * rows["mean"], yerr=np.nan_to_num(bars),
                    color=colour, marker=marker, linestyle="none", elinewidth=0.8, capsize=1.5, label=label)
        line = rows["mean"].mean() + rows.slope * (log_x - log_x.mean())
        ax.plot(rows.x, 100 * line, color=colour, linestyle=("-", "--", "-.", ":", (0, (5, 1)))[i % 5])
    first = frame.iloc[0]
    ax.set_xscale("log")
    ticks = sorted(frame.x.unique())
    ticks = [ticks[i] for i in sorted({round(i) for i in np.linspace(0, len(ticks) - 1, min(5, len(ticks)))})]
    ax.set_xticks(ticks, [f"1:{thousands(x)}" if first.along == "ratio" else thousands(round(x)) for x in ticks])
    ax.xaxis.set_minor_locator(plt.NullLocator())
    ax.set(xlabel=ALONG[first.along], ylabel=f"{metric_words(first.metric, first.group)} in %")
    ax.legend(fontsize=6.5, title="slope per tenfold", title_fontsize=6.5, loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


def caption_curves(frame, table):
    """What `plot_curves` shows, over what the intervals are, and what was left out. table: the results drawn from."""
    n, left, first = frame.n_splits, frame.n_left_out.max(), frame.iloc[0]
    several = f"{n.min()} to {n.max()} splits" if n.nunique() > 1 else f"{n.min()} splits"
    drawn = f"means over {several}" if n.max() > 1 else "one split"
    bars = "" if frame.low.isna().all() else (
        f"; bars, and in brackets: 95 % intervals over test images{' and splits together' * bool(n.max() > 1)}")
    return (f"{capital(metric_words(first.metric, first.group))} against {ALONG[first.along]}: {drawn}{bars}; the "
            "least-squares line of each curve, with its slope, in points for ten times as much. "
            f"{f'Splits left out as a level is not there: at most {left} of a curve. ' if left else ''}"
            f"{first.n_images:,.0f} test images. All slopes, and errors at levels left out: summary.csv. "
            f"{source(table)}")
