"""What imbalance costs and what pretraining adds, as rows of a study's summary: what is drawn; the figure; its caption.

Every figure is of one data set.
"""

import matplotlib.pyplot as plt
import numpy as np

from ssl_core.analysis.plots import COLUMN, PAGE, PALETTE, axes
from ssl_core.analysis.plots_study import ENDS, ends, look_of, ratio_below, source, wrapped
from ssl_core.analysis.wording import budget_short, metric_words, words

LINES, PANELS, BUDGETS = 24, 8, 6  # that one figure has room for
ALL = "All contrasts: summary.csv."


# --- what is drawn ----------------------------------------------------------------------------------------------------

def with_room(contrasts):
    """As many contrasts as a figure has room for: all, else by the outer budgets, else by the study's first protocol.

    The costs of many ratios are drawn against the ratio: for balanced accuracy, by every protocol.
    """
    costs, labels = contrasts.family.eq("cost of imbalance").all(), contrasts.groupby("budget").n_labelled.mean()
    if costs and contrasts.ratio.nunique() > ENDS:
        by_labels = labels.sort_values().index
        evenly = np.linspace(0, len(labels) - 1, min(BUDGETS, len(labels))).round().astype(int)
        return contrasts[(contrasts.group == "all") & contrasts.budget.isin(by_labels[evenly])]
    outer = contrasts.budget.isin([labels.idxmin(), labels.idxmax()])
    if not costs:
        contrasts, outer = contrasts[outer], True
        while len(set(zip(contrasts.protocol, contrasts.budget))) > PANELS:
            contrasts = contrasts[contrasts.protocol != contrasts.protocol.iloc[-1]]
        return ends(contrasts) if contrasts.what.nunique() > LINES else contrasts
    for fewer in (outer, contrasts.protocol == contrasts.protocol.iloc[0]):
        if contrasts.groupby(["metric", "group"]).size().max() > LINES:
            contrasts = contrasts[fewer]
    return contrasts


# --- figures ----------------------------------------------------------------------------------------------------------

def draw_contrast(ax, at, row, above, below):
    """Effect and interval of a summary's row, in points, on line `at`: filled and coloured where zero is outside."""
    colour = above if row.low > 0 else below if row.high < 0 else "0.4"
    ax.hlines(at, 100 * row.low, 100 * row.high, color=colour, linewidth=1.8)
    ax.plot(100 * row.effect, at, "o", color=colour, markerfacecolor="white" if colour == "0.4" else colour)


def plot_costs(cost):
    """Balanced minus imbalanced in points: a line for each arm, protocol and budget, or over the ratio where many.

    cost: rows of the summary, of `with_room`: arm, ratio, protocol, budget, metric, group, effect, low, high.
    """
    return costs_by_ratio(cost) if cost.ratio.nunique() > ENDS else costs_in_lines(cost)


def costs_in_lines(cost):
    """A panel per metric, about zero."""
    kinds = list(dict.fromkeys(zip(cost.metric, cost.group)))
    lines = max(len(rows) for _, rows in cost.groupby(["metric", "group"]))
    fig, panels = plt.subplots(1, len(kinds), figsize=(PAGE, 0.85 + 0.24 * lines), sharex=True, sharey=True,
                               squeeze=False)
    for ax, (metric, group) in zip(panels[0], kinds):
        plot_cost(cost[(cost.metric == metric) & (cost.group == group)], ax)
    return fig


def plot_cost(cost, ax=None):
    """Costs in points, a line each, about zero. cost: rows of the summary of one metric and group."""
    ax = axes(ax, COLUMN * 1.4, 0.85 + 0.24 * len(cost))
    many = cost.arm.nunique() > 1 or cost.ratio.nunique() > 1
    totals = cost.n_unlabelled.nunique() > cost.ratio.nunique()
    lines = range(len(cost) - 1, -1, -1)
    for at, row in zip(lines, cost.itertuples()):
        draw_contrast(ax, at, row, above=PALETTE[3], below=PALETTE[0])
    ax.axvline(0, color="0.2", linewidth=0.8, zorder=1)
    arms = [f"{words(row.arm)} 1:{row.ratio:g}{f', N = {row.n_unlabelled:,.0f}' * totals}, " if many or totals else ""
            for row in cost.itertuples()]
    ax.set_yticks(lines, [f"{arm}{words(row.protocol)}, {budget_short(row.budget)}"
                          for arm, row in zip(arms, cost.itertuples())])
    ax.set(title=metric_words(cost.metric.iloc[0], cost.group.iloc[0]), ylim=(-0.7, len(cost) - 0.3),
           xlabel="balanced − imbalanced, points")
    ax.grid(axis="y", visible=False)
    return ax


def costs_by_ratio(cost):
    """A row per protocol, with a scale of its own, a panel per budget: a line per arm against the ratio (log).

    Under a ratio of a category split stands how many positives it has.
    """
    protocols = list(dict.fromkeys(cost.protocol))
    budgets = list(cost.groupby("budget").n_labelled.mean().sort_values().index)
    series = list(dict.fromkeys(zip(cost.arm, cost.n_unlabelled.where(cost.split_kind == "category_ratio", 0))))
    fig, panels = plt.subplots(len(protocols), len(budgets), figsize=(PAGE, 1.1 + 1.15 * len(protocols)), sharex=True,
                               sharey="row", squeeze=False)
    seen, look = {}, look_of([arm for arm, _ in series])
    totals = len({total for _, total in series}) > 1
    for line, protocol in zip(panels, protocols):
        mine = cost[cost.protocol == protocol]
        inside = [(arm, total) for arm, total in series if len(of_series(mine, arm, total))]
        for ax, budget in zip(line, budgets):
            ax.axhline(0, color="0.2", linewidth=0.8, zorder=1)
            for i, (arm, total) in enumerate(inside):
                rows = of_series(mine[mine.budget == budget], arm, total).sort_values("ratio")
                colour, marker = look[arm]
                dashes = ("-", "--", ":")[series.index((arm, total)) % 3]
                at = rows.ratio * 1.25 ** (i - (len(inside) - 1) / 2)  # side by side
                ax.plot(at, 100 * rows.effect, color=colour, linewidth=0.8, linestyle=dashes)
                ax.vlines(at, 100 * rows.low, 100 * rows.high, color=colour, linewidth=0.8)
                sure = (rows.low > 0) | (rows.high < 0)
                for mask, face in ((sure, colour), (~sure, "white")):
                    ax.plot(at[mask], 100 * rows.effect[mask], marker, color=colour, markerfacecolor=face, markersize=3)
                seen[words(arm) + f", N = {total:,.0f}" * totals] = plt.Line2D(
                    [], [], marker=marker, color=colour, linestyle=dashes, markersize=4, linewidth=0.8)
            ax.set(xscale="log")
            ax.set_xticks(sorted(set(cost.ratio)), minor=True, labels=[""] * cost.ratio.nunique())
            ax.set_xticks(*zip(*ratio_ticks(cost, (PAGE - 0.6) / len(budgets))), fontsize=6.5)
        line[0].set_title(words(protocol), loc="left")
    for ax, budget in zip(panels[0], budgets):
        ax.set_title("\n".join([ax.get_title(loc="left"), budget_short(budget)]), loc="left")
    fig.supylabel("balanced − imbalanced, points", fontsize=8)
    category = (cost.split_kind == "category_ratio").any()
    fig.supxlabel("ratio (below: positives in the split)" if category else "ratio", fontsize=8)
    fig.legend(seen.values(), seen.keys(), loc="outside upper center", ncols=4)
    return fig


def of_series(cost, arm, total):
    return cost[(cost.arm == arm) & ((cost.n_unlabelled == total) | (total == 0))]


def ratio_ticks(cost, inches):
    """(ratio, its tick) for those that have room in so many inches, at most 5: the outer, and some between."""
    ratios = np.array(sorted(set(cost.ratio)))
    logs = np.log(ratios)
    even, room = np.linspace(logs[0], logs[-1], max(2, min(5, int(inches / 0.3))), retstep=True)
    kept, found = [0], []
    for i in [int(abs(logs - at).argmin()) for at in even[1:-1]]:
        if min(logs[i] - logs[kept[-1]], logs[-1] - logs[i]) > 0.7 * room:
            kept.append(i)
    for ratio in ratios[[*kept, -1]]:
        n = set(cost.n_unlabelled[(cost.ratio == ratio) & (cost.split_kind == "category_ratio")].dropna())
        found.append((ratio, ratio_below(ratio, round(min(n) / (1 + ratio)) if len(n) == 1 else np.nan)))
    return found


def plot_gains(gains):
    """A panel per protocol at the smallest and at the largest budget: what each arm adds to its network, in points.

    gains: rows of the summary, of `with_room`: what, protocol, budget, effect, low, high; best arms on top, by the
    first panel.
    """
    of = {kind: rows for kind, rows in gains.groupby(["protocol", "budget"], sort=False)}
    alike = {}  # panels with the same arms stand side by side
    for kind, rows in of.items():
        alike.setdefault(frozenset(rows.what), []).append(kind)
    across = min(4, max(map(len, alike.values())))
    lines = [kinds[i:i + across] for kinds in alike.values() for i in range(0, len(kinds), across)]
    inches = (PAGE - 0.06 * gains.what.str.len().max()) / across - 0.1
    titles = {kind: wrapped(f"{words(kind[0])}, {budget_short(kind[1])}", inches) for kind in of}
    heights = [0.7 + 0.15 * max(titles[kind].count("\n") + 1 for kind in line) + 0.18 * of[line[0]].what.nunique()
               for line in lines]
    fig, panels = plt.subplots(len(lines), across, figsize=(PAGE, sum(heights)), sharex=True, sharey="row",
                               squeeze=False, height_ratios=heights)
    for row, line in zip(panels, lines):
        first = of[alike[frozenset(of[line[0]].what)][0]]
        arms = list(dict.fromkeys(first.sort_values("effect").what))
        for ax, kind in zip(row, line):
            plot_gain(of[kind], ax, arms).set_title(titles[kind])
        for ax in row[len(line):]:
            fig.delaxes(ax)
    return fig


def plot_gain(gains, ax=None, arms=None):
    """Gains in points, a line each. gains: rows of the summary of one protocol and budget; arms: lines, from below."""
    arms = arms or list(gains.sort_values("effect").what)
    ax = axes(ax, COLUMN * 1.4, 0.85 + 0.18 * len(arms))
    for row in gains.itertuples():
        draw_contrast(ax, arms.index(row.what), row, above=PALETTE[0], below=PALETTE[3])
    ax.axvline(0, color="0.2", linewidth=0.8, zorder=1)
    ax.set_yticks(range(len(arms)), arms)
    ax.set(xlabel="gain in points", ylim=(-0.7, len(arms) - 0.3))
    ax.grid(axis="y", visible=False)
    return ax


# --- captions ---------------------------------------------------------------------------------------------------------

def caption_costs(cost, table, of=None):
    """of: the contrasts that `cost` was chosen from, so that it can be said which are not drawn."""
    left = not_drawn(cost, of)
    if cost.ratio.nunique() > ENDS:
        category = cost.split_kind.eq("category_ratio").any()
        positives = "below a ratio: its positives; " if category and cost.n_unlabelled.nunique() == 1 else ""
        return ("What imbalance costs, by its ratio: balanced accuracy after pretraining on as many balanced images, "
                "minus the same after the imbalanced split. A row for each way to read the representation, a column "
                f"for each share of the labels. Above zero, imbalance costs; {positives}{bars(cost)}. {left}{ALL} "
                f"{source(table)}")
    return ("What imbalance costs: balanced accuracy, and recall of the classes with fewest images, after pretraining "
            "on as many balanced images, minus the same after pretraining on the imbalanced split. Right of zero, "
            "imbalance costs. Rows: how the representation was read, and with which labels; "
            f"{bars(cost)}. {left}{ALL} {source(table)}")


def caption_gains(gains, table, of=None):
    """of: as in `caption_costs`."""
    return ("What pretraining adds: balanced accuracy of each arm, in percentage points, minus that of the same "
            "network without it, read in the same way, with the labels above each panel. Arms in the "
            "order of the first panel that has them, which is no ranking; "
            f"{bars(gains)}. {not_drawn(gains, of)}{ALL} {source(table)}")


def not_drawn(drawn, of):
    """Which protocols, labels and ratios of the contrasts `of` are not among those drawn; "" where none."""
    if of is None:
        return ""
    short = {"protocol": words, "budget": budget_short, "ratio": "1:{:g}".format}
    left = [short[name](value) for name in short for value in dict.fromkeys(of[name].dropna())
            if value not in set(drawn[name])]
    return f"Not drawn: {', '.join(left)}. " if left else ""


def bars(contrasts):
    """What the bars of these contrasts are, if any are drawn."""
    known = contrasts.low.notna()
    if not known.any():
        return "no bars, as there are too few independent test images for an interval"
    return (f"bars{'' if known.all() else ', where there are test images enough'}: 95 % intervals over "
            f"{doubt(contrasts)}; filled: zero is outside")


def doubt(contrasts):
    """What the intervals of these contrasts are over."""
    images, n = f"{contrasts.n_images.max():,.0f}", contrasts.n_pairs.max()
    return (f"the test images ({images}) and {n} paired splits together" if n > 1
            else f"{images} test images, for one split")
