"""Each arm against the first that the study names, on one data set: what is drawn; the figure; its caption."""

import matplotlib.pyplot as plt

from ssl_core.analysis.plots import COLUMN, PAGE, PALETTE, axes
from ssl_core.analysis.plots_contrasts import ALL, bars, draw_contrast, not_drawn, with_room
from ssl_core.analysis.plots_study import source, wrapped
from ssl_core.analysis.wording import budget_short, metric_words, words

ACROSS = 4  # panels side by side
LABELS = {1: 3.6, 2: 2.9}  # inches that the name of a line may take beside so many panels; beside more, 2.2


def against_first(contrasts):
    """Of the rows of summary.csv "between arms", those against the first arm each is held against, as many as fit.

    Adds `line`: what is subtracted from what.
    """
    first = contrasts.groupby("what").against.transform("first")
    chosen = with_room(contrasts[contrasts.against == first])
    while len(set(zip(chosen.protocol, chosen.budget))) > ACROSS:  # by the study's first protocols
        chosen = chosen[chosen.protocol != chosen.protocol.iloc[-1]]
    return chosen.assign(line=[line_of(*both) for both in zip(chosen.what, chosen.against)])


def line_of(what, against):
    """"A (x)", "B (x)" → "A − B (x)"."""
    (arm, _, seen), other = what.partition(" ("), against.partition(" (")[2]
    return f"{arm if seen == other else what} − {against}"


def plot_arms(differences):
    """A row for each metric, a column for each protocol and budget. differences: of `against_first`."""
    metrics = list(dict.fromkeys(zip(differences.metric, differences.group)))
    ways = list(dict.fromkeys(zip(differences.protocol, differences.budget)))
    lines = list(dict.fromkeys(differences.line))[::-1]
    label = LABELS.get(len(ways), 2.2)
    named = [wrapped(line, label) for line in lines]
    inches = (PAGE - min(label, 0.06 * max(map(len, lines)))) / len(ways) - 0.1
    height = 1.1 + len(lines) * (0.08 + 0.12 * max(name.count("\n") + 1 for name in named))
    fig, panels = plt.subplots(len(metrics), len(ways), figsize=(PAGE, len(metrics) * height), sharex="row",
                               sharey=True, squeeze=False)
    for row, (metric, group) in zip(panels, metrics):
        of = differences[(differences.metric == metric) & (differences.group == group)]
        for ax, (protocol, budget) in zip(row, ways):
            plot_arm(of[(of.protocol == protocol) & (of.budget == budget)], ax, lines)
            ax.set_title(wrapped(f"{words(protocol)}, {budget_short(budget)}", inches))
            ax.set_yticks(range(len(lines)), named)
            ax.set_xlabel(wrapped(f"{metric_words(metric, group)}, points", inches))
    return fig


def plot_arm(differences, ax=None, lines=None):
    """Differences in points, a line each (`lines`, from below), about zero, of one metric, protocol and budget."""
    lines = lines or list(differences.line)[::-1]
    ax = axes(ax, COLUMN * 1.4, 0.85 + 0.2 * len(lines))
    for row in differences.itertuples():
        draw_contrast(ax, lines.index(row.line), row, above=PALETTE[0], below=PALETTE[3])
    ax.axvline(0, color="0.2", linewidth=0.8, zorder=1)
    ax.set_yticks(range(len(lines)), lines)
    ax.set(ylim=(-0.7, len(lines) - 0.3), xlabel="points")
    ax.grid(axis="y", visible=False)
    return ax


def caption_arms(differences, table, of):
    """of: the contrasts that the differences were chosen from."""
    return ("Arms against the first that the study names: differences in percentage points, read in the same way and "
            "with the labels above each panel. Right of zero, the arm named first is better; "
            f"{bars(differences)}. Each interval stands by itself, without Holm's rule. {not_drawn(differences, of)}"
            f"{ALL} {source(table)}")
