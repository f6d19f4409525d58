"""What deserves a look: plain sentences about runs and results that should not be believed as they stand."""

import html
import re

import numpy as np

from ssl_core.analysis.grid import cell_id
from ssl_core.analysis.wording import budget_short, budget_words, describe, metric_words, points, words

SHOWN, NAMES = 8, 6  # sentences before the rest is folded; classes that one names
SHORT = 4  # epochs: in fewer, a loss that does not fall may be a warm-up, or a queue that fills


def of_history(history):
    """Alarms of one pretraining from its history, one row per epoch with epoch, loss, spread, effective_rank.

    spread is NaN where a method has no embeddings, as MAE and RotNet."""
    found = []
    last, collapsed = history.iloc[-1], history.spread < 0.1
    fell = history[collapsed & ~collapsed.cummin()]  # not a first stretch that rises
    if len(fell) or collapsed.iloc[-1]:
        first = (fell if len(fell) else history).iloc[0]
        found.append(f"embeddings collapsed in epoch {first.epoch:.0f} of {last.epoch:.0f}: their spread (1 = even, "
                     f"0 = one point) was {first.spread:.2f} then and is {last.spread:.2f} at the end")
    if last.effective_rank < 3:
        found.append(f"h uses {last.effective_rank:.1f} directions: the representation is nearly a line")
    fall, lately = (loss - last.loss for loss in (history.loss.iloc[0], history.loss.iloc[-2:].iloc[0]))
    short = len(history) < SHORT
    if fall <= 0 and not short:
        found.append(f"the loss did not fall: {history.loss.iloc[0]:.3f} at first, {last.loss:.3f} at last")
    elif fall <= 0 or lately > 0.1 * fall:
        found.append(f"under-trained: epochs {len(history)}, too few to see the loss level off" if short else
                     "under-trained: the last epoch brought more than a tenth of the whole fall of the loss")
    return found


def of_features(h):
    """Alarms of a trained encoder by its features (N, D) of images: dimensions that are the same for all of them."""
    dead = int((h.std(0) <= 1e-6 * max(float(np.abs(h).max()), 1e-30)).sum())
    if 2 * dead <= h.shape[1]:
        return []
    return [f"{dead} of {h.shape[1]} dimensions of h are dead: the same for all of {len(h):,} images"]


def of_runs(records, names):
    """Runs that failed, and alarms of those that trained: two lists. records: run.json by key; names: of runs, by key.
    """
    failed = [(key, record.get("reason", "")) for key, record in records.items() if record.get("status") == "failed"]
    trained = [(key, alarm) for key, record in records.items() if record.get("stage") == "pretrain"
               for alarm in record.get("alarms", [])]
    heads = [alarm.partition(": ")[0] if re.search(r"\d", alarm) else alarm for _, alarm in trained]
    rests = [alarm[len(head):] for (_, alarm), head in zip(trained, heads)]
    return ([{"key": key, "sentence": f"{names[key]} failed: {reason}", "said": f"Failed: {reason}",
              "which": ("", names[key])} for key, reason in failed],
            [{"key": key, "sentence": f"{names[key]}: {alarm}.", "said": f"Pretraining: {head}.",
              "which": ("", names[key] + rest)} for (key, alarm), head, rest in zip(trained, heads, rests)])


def of_cells(table):
    """Alarms of evaluated cells from their rows: [{key, cells, sentence, said, which, kind, who}].

    For predictors that are constant, which come first, classes that are never found, and predictors that are no better
    than a constant one, by the interval of their balanced accuracy, or without one by its value. The majority floor is
    constant by its nature and raises none.

    said, which: what `as_list` writes once for the alarms that share it, and what tells each of them apart; kind, who:
    the same of all arms, where that would be too many sentences.
    table: as `grid.told` gives it for a study, or the rows of one job, where nothing else needs telling apart.
    """
    found = []
    if "series" not in table:
        table = table.assign(series=[describe(row) for row in table.itertuples()], on="")
    found_at_all = table.group_kind.eq("class") & table.metric.eq("recall")
    found_at_all |= table.group_kind.eq("label") & table.metric.eq("f1")  # 0 without a true positive
    recalls = table[found_at_all & (table.part == "test") & (table.layer == "") & (table.method != "majority")
                    & table.value.notna()]
    of_all = table[(table.metric == "balanced_accuracy") & (table.group_kind == "all") & (table.part == "test")
                   & (table.layer == "")] if "low" in table else table[:0].assign(low=np.nan)
    lows = of_all.set_index(["key", "arm", "protocol", "budget"]).low.to_dict()
    for (key, _, protocol, budget), rows in recalls.groupby(["key", "arm", "protocol", "budget"], sort=False):
        never, first = list(rows.group[rows.value == 0]), rows.iloc[0]
        chance, score, short = 1 / len(rows), rows.value.mean(), budget_short(budget)
        low, constant = lows.get((key, first.arm, protocol, budget), np.nan), False
        if not never:
            if first.group_kind != "class" or len(rows) < 2 or (score if np.isnan(low) else low) > chance:
                continue
            kind, which = "no better than a constant predictor", f"{short}: {100 * score:.1f} %"
            text = f"{kind} (balanced accuracy {100 * score:.1f} %, of a constant {100 * chance:.1f} %)"
        elif first.group_kind == "class" and len(never) == len(rows) - 1 and rows.value.max() == 1:
            text = kind = f"every test image is called {rows.group[rows.value == 1].iloc[0]}"
            which, constant = short, True
        else:
            kinds = {"class": "classes", "label": "labels"}[first.group_kind]
            some = ", ".join(never[:NAMES]) + f" and {len(never) - NAMES} more" * (len(never) > NAMES)
            kind, which = f"{kinds} that are never found", f"{short}: {len(never)} of {len(rows)} ({some})"
            text = f"{len(never)} of {len(rows)} {kinds} are never found ({some})"
        name, where = arm_and_rest(first)
        read = words(protocol)
        found.append({"key": key, "cells": {cell_id(first)}, "constant": constant,
                      "sentence": f"{first.series}{first.on}, {read} with {budget_words(budget)}: {text}.",
                      "said": f"{name}{first.on}, {read}: {kind}.", "which": (where, which),
                      "kind": f"{kind[0].upper()}{kind[1:]}{first.on}.", "who": f"{name}, {read}"})
    return sorted(found, key=lambda alarm: not alarm.pop("constant"))


def arm_and_rest(row):
    """("MAE", "1:5") of what figures call "MAE (1:5)"; rest "" where a name has none."""
    name = words(row.arm)
    if not row.series.startswith(f"{name} ("):
        return row.series, ""
    return name, row.series.removeprefix(f"{name} (").replace(")", "", 1)


def largest_surprise(summary):
    """The split that lies farthest from its contrast's other splits, measured by the doubt over test images.

    {key, sentence}, the key being that of the run to open; None where no contrast has two splits.
    """
    worst, found, several = 0.0, None, summary.dataset.nunique() > 1
    for row in summary.itertuples():
        differences = np.array([float(d) for d in row.differences.split()])
        if len(differences) > 1 and row.high_images > row.low_images:
            others = (differences.sum() - differences) / (len(differences) - 1)
            surprise = np.abs(differences - others) / (row.high_images - row.low_images)
            i = int(surprise.argmax())
            if surprise[i] > worst:
                rest = "the others average" if len(differences) > 2 else "the other has"
                worst, found = surprise[i], {"key": row.keys.split()[i].split(":")[0], "sentence": (
                    f"Largest surprise: {row.what} against {row.against}{f' on {row.dataset}' if several else ''} "
                    f"({words(row.protocol)}, {budget_words(row.budget)}) differs by {points(differences[i])} points "
                    f"of {metric_words(row.metric, row.group)} in one split, where {rest} {points(others[i])}.")}
    return found


def as_list(alarmed, links):
    """Alarms as an HTML list, the first few unfolded, each linked to the report of its run.

    Those that say the same of an arm are one sentence with a link for each; where these would be many, those that say
    the same of any arm. links: by key, "" for none.
    """
    if not alarmed:
        return "<p>Nothing failed, nothing collapsed, no predictor is degenerate, and floors, if any, are beaten.</p>"
    groups = joined(alarmed)
    if len(groups) > SHOWN:
        groups = joined([alarm | {"said": alarm["kind"], "which": (", ".join(filter(None, (
            alarm["who"], alarm["which"][0]))), alarm["which"][1])} if "kind" in alarm else alarm for alarm in alarmed])
    items = [one_item(group, links) for group in groups.values()]
    rest = "".join(items[SHOWN:])
    folded = f'<details><summary>{len(items) - SHOWN} more</summary><ul class="alarms">{rest}</ul></details>'
    return f'<ul class="alarms">{"".join(items[:SHOWN])}</ul>' + folded * (rest != "")


def joined(alarmed):
    """{what is said: the alarms that say it}."""
    groups = {}
    for i, alarm in enumerate(alarmed):
        groups.setdefault(alarm.get("said", i), []).append(alarm)
    return groups


def one_item(group, links):
    """Alarms that say the same as one <li>."""
    if len(group) == 1:
        opened = linked("open", links.get(group[0]["key"]))
        return f"<li>{' '.join(filter(None, (html.escape(group[0]['sentence']), opened)))}</li>"
    by_where = {}
    for alarm in group:
        where, which = alarm["which"]
        by_where.setdefault(where, []).append(linked(which, links.get(alarm["key"]), alarm["sentence"]))
    listed = "".join(f"<li>{html.escape(where)}{': ' * (where != '')}{', '.join(found)}</li>"
                     for where, found in by_where.items())
    cells = set().union(*(alarm.get("cells", ()) for alarm in group))
    count = f"{len(cells)} cells" if cells else f"{len(group)} runs"
    return (f"<li>{html.escape(group[0]['said'])}<details{' open' * (len(group) <= SHOWN)}><summary>{count}</summary>"
            f"<ul>{listed}</ul></details></li>")


def linked(text, link, tip=""):
    """Text as a link; without one as it is, and nothing of "open"."""
    if not link:
        return html.escape(text) * (text != "open")
    tip = f' title="{html.escape(tip)}"' if tip else ""
    return f'<a href="{link}"{tip}>{html.escape(text)}</a>'
