"""What imbalance costs and what pretraining adds, as rows of a study's summary: what is drawn; the figure; its caption.

Every figure is of one data set.
"""

import matplotlib.pyplot as plt

from ssl_core.analysis.plots import PAGE, PALETTE
from ssl_core.analysis.plots_study import ENDS, LOOKS, SPARE, ends, source
from ssl_core.analysis.wording import budget_short, metric_words, words

LINES, PANELS = 24, 8  # that one figure has room for
ALL = "All contrasts: summary.csv."


# --- what is drawn ----------------------------------------------------------------------------------------------------

def with_room(contrasts):
    """As many contrasts as a figure has room for: all, else by the outer budgets, else by the study's first protocol.

    The costs of many ratios are drawn against the ratio: for balanced accuracy, by the first two protocols.
    """
    costs = contrasts.family.eq("cost of imbalance").all()
    if costs and contrasts.ratio.nunique() > ENDS:
        first = list(dict.fromkeys(contrasts.protocol))[:2]
        return contrasts[(contrasts.group == "all") & contrasts.protocol.isin(first)]
    labels = contrasts.groupby("budget").n_labelled.mean()
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
    many = cost.arm.nunique() > 1 or cost.ratio.nunique() > 1
    totals = cost.n_unlabelled.nunique() > cost.ratio.nunique()
    for ax, (metric, group) in zip(panels[0], kinds):
        rows = cost[(cost.metric == metric) & (cost.group == group)]
        for at, row in zip(range(len(rows) - 1, -1, -1), rows.itertuples()):
            draw_contrast(ax, at, row, above=PALETTE[3], below=PALETTE[0])
        ax.axvline(0, color="0.2", linewidth=0.8, zorder=1)
        names = [f"{words(row.protocol)}, {budget_short(row.budget)}" for row in rows.itertuples()]
        arms = [f"{words(row.arm)} 1:{row.ratio:g}{f', N = {row.n_unlabelled:,.0f}' * totals}, " if many or totals
                else "" for row in rows.itertuples()]
        ax.set_yticks(range(len(rows) - 1, -1, -1), [arm + name for arm, name in zip(arms, names)])
        ax.set(title=metric_words(metric, group), ylim=(-0.7, len(rows) - 0.3),
               xlabel="balanced − imbalanced, points")
        ax.grid(axis="y", visible=False)
    return fig


def costs_by_ratio(cost):
    """A panel per protocol (down) and budget (across), a line per arm against the ratio (log), filled as elsewhere.

    Under each ratio of a category split stands how many positives it has.
    """
    protocols, budgets = list(dict.fromkeys(cost.protocol)), sorted(set(cost.budget))
    series = list(dict.fromkeys(zip(cost.arm, cost.n_unlabelled.where(cost.split_kind == "category_ratio", 0))))
    fig, panels = plt.subplots(len(protocols), len(budgets), figsize=(PAGE, 0.9 + 1.5 * len(protocols)), sharex=True,
                               sharey=True, squeeze=False)
    others = [arm for arm, _ in series if arm not in LOOKS]
    totals = len({total for _, total in series}) > 1
    for line, protocol in zip(panels, protocols):
        for ax, budget in zip(line, budgets):
            here = cost[(cost.protocol == protocol) & (cost.budget == budget)]
            ax.axhline(0, color="0.2", linewidth=0.8, zorder=1)
            for i, (arm, total) in enumerate(series):
                rows = here[(here.arm == arm) & ((here.n_unlabelled == total) | (total == 0))].sort_values("ratio")
                colour, marker = LOOKS[arm] if arm in LOOKS else SPARE[others.index(arm) % len(SPARE)]
                at = rows.ratio * 1.25 ** (i - (len(series) - 1) / 2)  # side by side
                ax.plot(at, 100 * rows.effect, color=colour, linewidth=0.8, linestyle=("-", "--", ":")[i % 3])
                ax.vlines(at, 100 * rows.low, 100 * rows.high, color=colour, linewidth=0.8)
                sure = (rows.low > 0) | (rows.high < 0)
                for mask, face in ((sure, colour), (~sure, "white")):
                    ax.plot(at[mask], 100 * rows.effect[mask], marker, color=colour, markerfacecolor=face, markersize=4)
                name = words(arm) + f", N = {total:,.0f}" * totals
                ax.plot([], [], marker, color=colour, linestyle=("-", "--", ":")[i % 3], markersize=4, label=name)
            ax.set(xscale="log", title=f"{words(protocol)}, {budget_short(budget)}")
            ax.set_xticks(*zip(*ratio_ticks(cost)), rotation=90, fontsize=6)
            ax.minorticks_off()
    fig.supylabel("balanced − imbalanced, points", fontsize=8)
    category = (cost.split_kind == "category_ratio").any()
    fig.supxlabel("ratio (positives in the split)" if category else "ratio", fontsize=8)
    fig.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig


def ratio_ticks(cost):
    """(ratio, its tick): 1:100, and for a category ratio of one total its positives in brackets."""
    found = []
    for ratio, rows in cost.groupby("ratio"):
        n = set(rows.n_unlabelled[rows.split_kind == "category_ratio"].dropna())
        found.append((ratio, f"1:{ratio:,g}" + (f" ({round(min(n) / (1 + ratio)):,})" if len(n) == 1 else "")))
    return found


def plot_gains(gains):
    """A panel per protocol at the smallest and at the largest budget: what each arm adds to its network, in points.

    gains: rows of the summary, of `with_room`: what, protocol, budget, effect, low, high; best arms on top, by the
    first panel.
    """
    kinds = list(dict.fromkeys(zip(gains.protocol, gains.budget)))
    first = gains[(gains.protocol == kinds[0][0]) & (gains.budget == kinds[0][1])]
    arms = [*first.sort_values("effect").what, *sorted(set(gains.what) - set(first.what))]
    across = min(4, len(kinds))
    down = -(-len(kinds) // across)
    fig, panels = plt.subplots(down, across, figsize=(PAGE, (0.85 + 0.18 * len(arms)) * down), sharex=True,
                               sharey=True, squeeze=False)
    for ax, (protocol, budget) in zip(panels.flat, kinds):
        for row in gains[(gains.protocol == protocol) & (gains.budget == budget)].itertuples():
            draw_contrast(ax, arms.index(row.what), row, above=PALETTE[0], below=PALETTE[3])
        ax.axvline(0, color="0.2", linewidth=0.8, zorder=1)
        ax.set_yticks(range(len(arms)), arms)
        ax.set(title=f"{words(protocol)}, {budget_short(budget)}", xlabel="gain in points",
               ylim=(-0.7, len(arms) - 0.3))
        ax.grid(axis="y", visible=False)
    for ax in panels.flat[len(kinds):]:
        fig.delaxes(ax)
    return fig


# --- captions ---------------------------------------------------------------------------------------------------------

def caption_costs(cost, table):
    if cost.ratio.nunique() > ENDS:
        positives = "in brackets: its positives; " if cost.split_kind.eq("category_ratio").any() else ""
        return ("What imbalance costs, by its ratio: balanced accuracy after pretraining on as many balanced images, "
                f"minus the same after the imbalanced split. Above zero, imbalance costs; {positives}bars: 95 % "
                f"intervals over {doubt(cost)}; filled: zero is outside. {ALL} {source(table)}")
    return ("What imbalance costs: balanced accuracy, and recall of the classes with fewest images, after pretraining "
            "on as many balanced images, minus the same after pretraining on the imbalanced split. Right of zero, "
            "imbalance costs. Rows: how the representation was read, and with which labels. Bars: 95 % "
            f"intervals over {doubt(cost)}; filled: zero is outside. {ALL} {source(table)}")


def caption_gains(gains, table):
    return ("What pretraining adds: balanced accuracy of each arm, in percentage points, minus that of the same "
            "network without it, read in the same way, with the labels above each panel. Arms in the "
            "order of the first panel, which is no ranking. Bars: 95 % intervals over "
            f"{doubt(gains)}; filled: zero is outside. {ALL} {source(table)}")


def doubt(contrasts):
    """What the intervals of these contrasts are over."""
    images, n = f"{contrasts.n_images.max():,.0f}", contrasts.n_pairs.max()
    return (f"the test images ({images}) and {n} paired splits together" if n > 1
            else f"{images} test images, for one split")


FIGURES = {"cost": (plot_costs, caption_costs), "gains": (plot_gains, caption_gains)}
