"""What deserves a look: plain sentences about runs and results that should not be believed as they stand."""

import html

import numpy as np

from ssl_core.analysis.compare import points
from ssl_core.analysis.plots import condition, words


def of_history(history):
    """Alarms of one pretraining from its history, one row per epoch with loss, spread and effective_rank."""
    found = []
    last = history.iloc[-1]
    if last.spread < 0.1:
        found.append(f"embeddings have collapsed: their spread is {last.spread:.2f} (1 = even, 0 = one point)")
    if last.effective_rank < 3:
        found.append(f"h uses {last.effective_rank:.1f} directions: the representation is nearly a line")
    if len(history) >= 4:
        before, fall = history.loss.iloc[-2], history.loss.iloc[0] - last.loss
        if fall <= 0:
            found.append(f"the loss did not fall: {history.loss.iloc[0]:.3f} at first, {last.loss:.3f} at last")
        elif before - last.loss > 0.1 * fall:
            found.append("under-trained: the last epoch brought more than a tenth of the whole fall of the loss")
    return found


def of_cells(table):
    """Alarms of evaluated cells from their rows: [{key, sentence}], for predictors that are constant and classes that
    are never found. The majority floor is constant by its nature and raises none.
    """
    found = []
    recalls = table[(table.metric == "recall") & (table.group_kind == "class") & (table.part == "test")
                    & (table.method != "majority")]
    for (key, method, protocol, budget), rows in recalls.groupby(["key", "method", "protocol", "budget"], sort=False):
        never = list(rows.group[rows.value == 0])
        name = f"{words(method)}, {words(protocol)} with {100 * budget:g} % of the labels"
        if len(never) == len(rows) - 1:
            found.append({"key": key, "sentence": f"{name}: every test image is called "
                                                  f"{rows.group[rows.value > 0].iloc[0]}."})
        elif never:
            found.append({"key": key, "sentence": f"{name}: {len(never)} of {len(rows)} classes are never found "
                                                  f"({', '.join(never)})."})
    return found


def of_floors(table):
    """Arms that do not beat a floor with the same labels, by the mean over splits of balanced accuracy."""
    rows = table[(table.metric == "balanced_accuracy") & (table.group_kind == "all") & (table.part == "test")]
    floors = rows[rows.method.isin(["majority", "colour", "pixels", "random"])]
    trained = rows[(rows.pretrain_dataset != "") & (rows.protocol == "linear")].dropna(subset="value")
    found = []
    for (arm, ratio, twin, budget), cells in trained.groupby(["arm", "ratio", "twin", "budget"], sort=False):
        same = floors[(floors.budget == budget) & floors.protocol.isin(["linear", "none"])]
        best = same.groupby("method").value.mean().sort_values()
        if len(best) and best.iloc[-1] >= cells.value.mean():
            found.append({"key": "", "sentence": f"{words(arm)} ({condition(cells.iloc[0])}), linear probe with "
                          f"{100 * budget:g} % of the labels, does not beat {words(best.index[-1])}: "
                          f"{100 * cells.value.mean():.1f} % against {100 * best.iloc[-1]:.1f} % balanced accuracy."})
    return found


def largest_surprise(summary):
    """The pair that lies farthest from the mean of its contrast's other pairs, in a sentence; "" with fewer than two."""
    worst, text = 0.0, ""
    for row in summary[summary.n_pairs > 1].itertuples():
        differences = np.array([float(d) for d in row.differences.split()])
        away = np.abs(differences - (differences.sum() - differences) / (len(differences) - 1))
        if away.max() > worst:
            worst, i = away.max(), int(away.argmax())
            text = (f"Largest surprise among splits: pair {i + 1} of {row.what} against {row.against} ({words(row.metric)}"
                    f"{'' if row.group == 'all' else ', ' + row.group + ' classes'}, {words(row.protocol)}, "
                    f"{100 * row.budget:g} % of the labels) differs by {points(differences[i])} points where the others "
                    f"average {points((differences.sum() - differences[i]) / (len(differences) - 1))}.")
    return text


def as_list(alarmed, links):
    """Alarms as an HTML list, each that belongs to one run linked to its report. links: run folder by key."""
    if not alarmed:
        return "<p>Nothing failed, nothing collapsed, no predictor is degenerate and every floor is beaten.</p>"
    items = []
    for alarm in alarmed:
        text = html.escape(alarm["sentence"])
        link = links.get(alarm["key"])
        items.append(f'<li>{text} <a href="{link}/report.html">open</a></li>' if link else f"<li>{text}</li>")
    return f'<ul class="alarms">{"".join(items)}</ul>'
