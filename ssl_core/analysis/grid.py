"""The grid of a study: one small square for each cell, coloured by its state, linked to its executed notebook."""

import html

from ssl_core.analysis.plots import condition, words


def rows_of(plan, results):
    """[(row words, column words, value or None, state, link, alarm)] for every cell of a plan, in its order.

    plan: outputs/<study>/plan.json as a dict; results: the results table.
    """
    known = results[(results.metric == "balanced_accuracy") & (results.group_kind == "all") & (results.part == "test")]
    known = known.assign(source=known.method.where(known.pretrain_dataset == "", "encoder"))
    known.loc[known.stage == "finetune", "source"] = "encoder"
    values = known.set_index(["key", "source", "protocol", "budget"])
    found = []
    for job in plan["jobs"]:
        for cell in job["cells"]:
            place = (job["key"], cell["source"], cell["protocol"], cell["budget"])
            row = values.loc[[place]].iloc[0] if place in values.index else None
            floor = job["stage"] == "probe" and cell["source"] != "encoder"
            name = words(cell["source"]) if floor else words(job["arm"])
            seen = job["condition"]
            label = name if floor or not job["needs"] else f"{name}, {condition(seen_as_row(job, seen))}"
            state = "done" if row is not None and row.value == row.value else \
                "absent" if row is not None else "failed" if job["state"] == "failed" else "waiting"
            found.append({"row": label, "protocol": cell["protocol"], "budget": cell["budget"], "state": state,
                          "value": None if state != "done" else float(row.value), "status": "" if row is None else row.status,
                          "split": (seen["draw_seed"], seen["order_seed"], seen["seed"]), "key": job["key"],
                          "link": f"runs/{job['stage']}/{job['folder'].rsplit('/', 1)[-1]}/report.html"})
    return found


def seen_as_row(job, seen):
    import types

    return types.SimpleNamespace(method=job["arm"], **seen)


def grid_html(found, alarmed=()):
    """The squares as one HTML table: arms and conditions down, protocols and budgets across. alarmed: keys to mark."""
    columns = sorted({(c["protocol"] != "linear", c["protocol"], c["budget"]) for c in found if c["protocol"] != "none"})
    columns = [(protocol, budget) for _, protocol, budget in columns]
    head = "".join(f"<th>{html.escape(words(p))}<br>{100 * b:g} %</th>" for p, b in columns)
    lines = []
    for label in dict.fromkeys(c["row"] for c in found):
        squares = []
        for protocol, budget in columns:
            here = [c for c in found if c["row"] == label and c["budget"] == budget
                    and (c["protocol"] == protocol or (c["protocol"] == "none" and protocol == "linear"))]
            squares.append("<td>" + "".join(square(c, c["key"] in alarmed) for c in here) + "</td>")
        lines.append(f"<tr><th>{html.escape(label)}</th>{''.join(squares)}</tr>")
    return (f'<div class="scroll"><table class="grid"><thead><tr><th>balanced accuracy in %</th>{head}</tr></thead>'
            f"<tbody>{''.join(lines)}</tbody></table></div>")


def square(cell, alarm):
    draw, order, seed = cell["split"]
    tip = html.escape(f"split {draw}, class order {order}, seed {seed}: {cell['status'] or cell['state']}")
    kind = "alarm" if alarm and cell["state"] == "done" else cell["state"]
    text = f"{100 * cell['value']:.0f}" if cell["value"] is not None else {"absent": "–", "failed": "✕"}.get(kind, "·")
    if cell["state"] == "waiting":
        return f'<span class="cell {kind}" title="{tip}" data-cell>{text}</span>'
    return f'<a class="{kind}" href="{cell["link"]}" title="{tip}" data-cell>{text}</a>'
