"""The grid of a study: one small square for each cell, coloured by its state, linked to its executed notebook."""

import html
from types import SimpleNamespace
from urllib.parse import quote

from ssl_core.analysis.plots import PROTOCOLS, describe, words
from ssl_core.files import root

SIGNS = {"absent": "–", "failed": "✕", "waiting": "·"}
SAID = {"failed": "failed", "waiting": "not there yet"}


def jobs_of(plan, defaults):
    """The jobs of a plan by key, each with `seen`: all parameters of the pretraining below it, or else its own.

    plan: outputs/<study>/plan.json as a dict, where a job's `params` are what differs from its notebook's parameters
    cell; defaults: that cell's values by the notebook's name.
    """
    values = {job["folder"]: defaults[job["notebook"]] | job["params"] for job in plan["jobs"]}
    below = {job["key"]: job["needs"][0] for job in plan["jobs"] if job["needs"] and job["stage"] != "pretrain"}
    return {job["key"]: job | {"seen": values[below.get(job["key"], job["folder"])]} for job in plan["jobs"]}


def cell_id(row):
    """What names a cell, from one of its rows in the results table: key, source, protocol, budget."""
    floor = row.stage == "probe" and not row.pretrain_dataset
    return row.key, row.arm if floor else "encoder", row.protocol, row.budget


def rows_of(jobs, results):
    """A dict for every cell of a plan, in its order, with the keys of its job and of the pretraining below.

    Its state is "done", "absent" (it cannot be run here; status says why), "failed" or "waiting".
    """
    known = results[(results.metric == "balanced_accuracy") & (results.group_kind == "all") & (results.part == "test")]
    values = {cell_id(row): row for row in known.itertuples()}
    keys = {job["folder"]: job["key"] for job in jobs.values()}
    found = []
    for job in jobs.values():
        seen = job["seen"]
        for cell in job["cells"]:
            name = (job["key"], cell["source"], cell["protocol"], cell["budget"])
            row = values.get(name)
            if row is not None:
                state = "done" if row.value == row.value else "absent"
            else:
                state = "failed" if job["why"].startswith("failed") else "waiting"
            arm = job["arm"] if cell["source"] == "encoder" else cell["source"]
            about = seen | {"arm": arm, "pretrain_dataset": seen["dataset"] if job["needs"] else ""}
            found.append({"id": name, "row": describe(SimpleNamespace(**about)), "protocol": cell["protocol"],
                          "budget": cell["budget"], "state": state, "link": link_of(job),
                          "value": float(row.value) if state == "done" else None,
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
    reasons = {}
    for cell in found:
        if cell["state"] != "done":
            reasons.setdefault((cell["row"], cell["status"]), []).append(cell)
    of = {name: sum(cell["row"] == name for cell in found) for name, _ in reasons}
    return [f"{name}: {len(cells)} of {of[name]} cells {status}" for (name, status), cells in reasons.items()]


def marked(found, alarmed):
    """The ids of the cells that alarms are about: those they name, or all that rest on the run they name."""
    ids = set().union(*(alarm.get("cells", ()) for alarm in alarmed))
    keys = {alarm["key"] for alarm in alarmed if "cells" not in alarm}
    return {cell["id"] for cell in found if cell["id"] in ids or cell["keys"] & keys}


def grid_html(found, alarmed=()):
    """The squares as one HTML table: arms and conditions down, protocols and budgets across. alarmed: ids to mark."""
    columns = sorted({(place(c, found), c["budget"]) for c in found}, key=lambda c: (PROTOCOLS.index(c[0]), c[1]))
    protocols = [protocol for protocol, _ in columns]
    above = "".join(f'<th colspan="{protocols.count(name)}">{html.escape(words(name))}</th>'
                    for name in dict.fromkeys(protocols))
    head = "".join(f"<th>{100 * budget:g} %</th>" for _, budget in columns)
    lines = []
    for label in dict.fromkeys(c["row"] for c in found):
        here = [c for c in found if c["row"] == label]
        squares = ("".join(square(c, c["id"] in alarmed) for c in here if (place(c, found), c["budget"]) == column)
                   for column in columns)
        lines.append(f"<tr><th>{html.escape(label)}</th>{''.join(f'<td>{s}</td>' for s in squares)}</tr>")
    return ('<div class="scroll"><table class="grid"><thead><tr><th rowspan="2">balanced accuracy in %</th>'
            f"{above}</tr><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>")


def place(cell, found):
    """The column of a cell; the majority class, which needs no probe, stands below the first protocol."""
    return cell["protocol"] if cell["protocol"] != "none" else next(
        (c["protocol"] for c in found if c["protocol"] != "none"), "linear")


def square(cell, alarm):
    draw, order, seed = cell["split"]
    tip = html.escape(f"split {draw}, class order {order}, seed {seed}: {cell['status']}")
    kind = "alarm" if alarm and cell["state"] == "done" else cell["state"]
    kind += " older" if cell["status"] == "older code" else ""
    text = f"{100 * cell['value']:.0f}" if cell["state"] == "done" else SIGNS[cell["state"]]
    if not cell["link"]:
        return f'<span class="cell {kind}" title="{tip}" data-cell>{text}</span>'
    return f'<a class="{kind}" href="{cell["link"]}" title="{tip}" data-cell>{text}</a>'
