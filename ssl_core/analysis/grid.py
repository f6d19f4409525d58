"""The cells of a study, named from its plan, and their grid: one small square each, linked to its executed notebook."""

import html
import json
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

from ssl_core.analysis.wording import budget_short, condition, describe, in_order, words
from ssl_core.evaluate.heads import headline_rows
from ssl_core.files import root

NETWORK = ("encoder", "encoder_args", "stem", "normalisation")
SIGNS = {"absent": "–", "failed": "✕", "waiting": "·", "done": "✓"}
SAID = {"failed": "failed", "waiting": "not there yet"}


def jobs_of(plan, defaults):
    """The jobs of a plan by key, each with all parameters: `own`, and `seen` of the pretraining below it, or its own.

    plan: outputs/<study>/plan.json as a dict, where a job's `params` are what differs from its notebook's parameters
    cell; defaults: that cell's values by the notebook's name.
    """
    values = {job["folder"]: defaults[job["notebook"]] | job["params"] for job in plan["jobs"]}
    below = {job["key"]: job["needs"][0] for job in plan["jobs"] if job["needs"] and job["stage"] != "pretrain"}
    return {job["key"]: job | {"own": values[job["folder"]], "seen": values[below.get(job["key"], job["folder"])]}
            for job in plan["jobs"]}


def network_of(job):
    """The network of a job as text that is the same for the same network."""
    return json.dumps([job["seen"][part] for part in NETWORK], sort_keys=True)


def amounts_of(jobs):
    """By job key "N = IMAGES" where the data set it was pretrained on is cut to several totals, else ""."""
    totals = {}
    for job in jobs.values():
        totals.setdefault(job["seen"]["dataset"], set()).update([job["seen"]["total"]] if job["needs"] else [])
    return {key: f"N = {job['seen']['total']:,}" if len(totals[job["seen"]["dataset"]]) > 1 and job["needs"] else ""
            for key, job in jobs.items()}


def names_of(jobs):
    """What every arm and floor of a study is called, by job key and source; names differ where what they name does.

    Of networks that timm calls the same it is said whose they are.
    """
    networks, amounts, names = {}, amounts_of(jobs), {}
    for job in jobs.values():
        networks.setdefault(job["seen"]["encoder"], {}).setdefault(network_of(job), words(job["arm"]))
    several = sum(map(len, networks.values())) > 1
    for key, job in jobs.items():
        seen = job["seen"]
        same = networks[seen["encoder"]]
        network = seen["encoder"] + (f" of {same[network_of(job)]}" if len(same) > 1 else "")
        for source in {cell["source"] for cell in job["cells"]}:
            about = seen | {"arm": job["arm"] if source == "encoder" else source, "encoder": network,
                            "dataset": Path(job["own"]["dataset"]).stem,
                            "pretrain_dataset": Path(seen["dataset"]).stem if job["needs"] else ""}
            whose = f" ({network})" if job["arm"].startswith("supervised") and several else ""
            names[key, source] = describe(SimpleNamespace(**about), f", {amounts[key]}" * (amounts[key] != "")) + whose
    return names


def told(table, jobs):
    """A results table with what the plan knows of each row, in the order of the study's protocols.

    series: what figures call it; on: " on DATASET" where the study has several, else ""; network; total: images in all
    that its split was cut to, and amount, the same in words where it differs; labels: the split that its labels follow,
    which series says where it is evaluated with those of several.
    """
    amounts = amounts_of(jobs)
    names, rows = names_of(jobs), [jobs[key] for key in table.key]
    several = len({Path(job["own"]["dataset"]).stem for job in jobs.values() if job["cells"]}) > 1
    order = in_order(cell["protocol"] for job in jobs.values() for cell in job["cells"])
    followed = [" ".join(str(job["own"][name]) for name in ("split_kind", "ratio", "twin", "total")) for job in rows]
    labels = [split if pool == "as_pretrain" else "" for split, pool in zip(followed, table.label_pool)]
    series = [names[cell_id(row)[:2]] for row in table.itertuples()]
    more = labels_apart(list(zip(series, table.dataset)), labels)
    return table.assign(
        series=[name + text for name, text in zip(series, more)], network=[network_of(job) for job in rows],
        total=[job["seen"]["total"] for job in rows], amount=[amounts[key] for key in table.key],
        on=[f" on {dataset}" if several else "" for dataset in table.dataset], labels=labels,
    ).sort_values("protocol", key=lambda names: names.map(order.index), kind="stable")


def labels_apart(names, labels):
    """For each row ", labels N = 600" or the like: what sets apart the splits that labels follow, "" where one does.

    names: what rows of one name share; labels: the split of each row as text, "" where labels follow none.
    """
    followed = {}
    for name, split in zip(names, labels):
        followed.setdefault(name, set()).update([split] * (split != ""))
    differ = {name: [len(set(part)) > 1 for part in zip(*map(said_of, splits))] for name, splits in followed.items()}
    said = [", ".join(text for text, kept in zip(said_of(split), differ[name]) if kept) if split else ""
            for name, split in zip(names, labels)]
    return [f", labels {text}" if text else "" for text in said]


def said_of(split):
    """Condition and total of a split that labels follow, in words."""
    kind, ratio, twin, total = split.split()
    seen = SimpleNamespace(pretrain_dataset="-", dataset="-", split_kind=kind, ratio=float(ratio), twin=twin)
    return condition(seen), f"N = {int(total):,}"


def cell_id(row):
    """What names a cell, from one of its rows in the results table: key, source, protocol, budget."""
    floor = row.stage == "probe" and not row.pretrain_dataset
    return row.key, row.arm if floor else "encoder", row.protocol, row.budget


def rows_of(jobs, results):
    """A dict for every cell of a plan, in its order, with the keys of its job and of the pretraining below.

    Its state is "done", "absent" (it cannot be run here; status says why), "failed" or "waiting". value is None where
    there is no number, also for a cell that is done and has one for each layer.
    """
    layers = results[results.layer != ""].drop_duplicates(["key", "protocol", "budget"])
    values = {cell_id(row): row for rows in (layers, headline_rows(results)) for row in rows.itertuples()}
    keys, names, found = {job["folder"]: job["key"] for job in jobs.values()}, names_of(jobs), []
    for job in jobs.values():
        seen = job["seen"]
        for cell in job["cells"]:
            name = (job["key"], cell["source"], cell["protocol"], cell["budget"])
            row = values.get(name)
            if row is not None:
                state = "done" if row.value == row.value or row.layer else "absent"
            else:
                state = "failed" if job["why"].startswith("failed") else "waiting"
            found.append({"id": name, "row": names[name[:2]], "dataset": Path(job["own"]["dataset"]).stem,
                          "protocol": cell["protocol"], "budget": cell["budget"], "state": state, "link": link_of(job),
                          "value": float(row.value) if state == "done" and not row.layer else None,
                          "status": SAID[state] if row is None else row.status,
                          "split": (seen["draw_seed"], seen["order_seed"], seen["seed"]),
                          "keys": {job["key"], *(keys[folder] for folder in job["needs"])}})
    return found


def link_of(job):
    """A job's executed notebook, or the one that failed, as the page in outputs/<study>/ links it; "" without one."""
    folder = root() / job["folder"]
    for name in ("report", "failed"):
        if (folder / f"{name}.ipynb").exists():
            return quote(f"runs/{job['stage']}/{folder.name}/{name}.html")
    return ""


def left_out(found):
    """What no comparison could use, as sentences: cells by row and reason."""
    several, reasons, of = len({cell["dataset"] for cell in found}) > 1, {}, {}
    for cell in found:
        name = cell["row"] + (f" on {cell['dataset']}" if several else "")
        of[name] = of.get(name, 0) + 1
        if cell["state"] != "done":
            reasons[name, cell["status"]] = reasons.get((name, cell["status"]), 0) + 1
    return [f"{name}: {n} of {of[name]} cells {status}" for (name, status), n in reasons.items()]


def marked(found, alarmed):
    """The ids of the cells that alarms are about: those they name, or all that rest on the run they name."""
    ids = set().union(*(alarm.get("cells", ()) for alarm in alarmed))
    keys = {alarm["key"] for alarm in alarmed if "cells" not in alarm}
    return {cell["id"] for cell in found if cell["id"] in ids or cell["keys"] & keys}


def grid_html(found, alarmed=()):
    """The squares as HTML, a table for each data set: arms and conditions down, protocols and budgets across.

    alarmed: ids to mark.
    """
    sets = list(dict.fromkeys(cell["dataset"] for cell in found))
    tables = [table_html([cell for cell in found if cell["dataset"] == name], alarmed) for name in sets]
    return "".join((f"<h3>{html.escape(name)}</h3>" if len(sets) > 1 else "") + table
                   for name, table in zip(sets, tables))


def table_html(found, alarmed):
    protocols = in_order(cell["protocol"] for cell in found)
    of_column, labels = {}, list(dict.fromkeys(cell["row"] for cell in found))
    for cell in found:  # the majority class, which needs no probe, stands below the first protocol
        name = cell["protocol"] if cell["protocol"] != "none" else protocols[0]
        of_column.setdefault((name, cell["budget"]), {}).setdefault(cell["row"], []).append(cell)
    columns = sorted(of_column, key=lambda c: (protocols.index(c[0]), c[1]))
    spans = [name for name, _ in columns]
    above = "".join(f'<th colspan="{spans.count(name)}">{html.escape(words(name))}</th>'
                    for name in dict.fromkeys(spans))
    head = "".join(f"<th>{budget_short(budget)}</th>" for _, budget in columns)
    lines = []
    for label in labels:
        squares = ("".join(square(cell, cell["id"] in alarmed) for cell in of_column[column].get(label, ()))
                   for column in columns)
        lines.append(f"<tr><th>{html.escape(label)}</th>{''.join(f'<td>{s}</td>' for s in squares)}</tr>")
    return ('<div class="scroll"><table class="grid"><thead><tr><th rowspan="2">balanced accuracy in %</th>'
            f"{above}</tr><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>")


def square(cell, alarm):
    draw, order, seed = cell["split"]
    tip = html.escape(f"split {draw}, class order {order}, seed {seed}: {cell['status']}")
    kind = "alarm" if alarm and cell["state"] == "done" else cell["state"]
    kind += {"older code": " older", "adopted": " adopted"}.get(cell["status"], "")
    text = SIGNS[cell["state"]] if cell["value"] is None else f"{100 * cell['value']:.0f}"
    if not cell["link"]:
        return f'<span class="cell {kind}" title="{tip}" data-cell>{text}</span>'
    return f'<a class="{kind}" href="{cell["link"]}" title="{tip}" data-cell>{text}</a>'
