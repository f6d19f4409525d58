"""Tables of results over splits, as papers print them: mean ± standard deviation.

Runs of one split (seeds, draws of a budget) are averaged first, so a standard deviation is over splits (ddof 1).
"""

import json
import re

import numpy as np
import pandas as pd

from ssl_core.analysis.plots import words
from ssl_core.data.splits import frequency_groups
from ssl_core.evaluate.metrics import FREQUENCIES
from ssl_core.files import root
from ssl_core.runs import read_run

ARM = """dataset pretrain_dataset arm split_kind ratio twin n_unlabelled protocol label_pool budget layer""".split()
SPLIT = ["draw_seed", "order_seed"]
CELL = [*ARM, *SPLIT, "seed", "budget_seed", "key"]
RULES = {"official": "the rarest third few, the next third medium, the others many",
         "thesis": "the rarest third few, the most frequent third many, the others medium"}
PLAIN = ("log_loss", "brier", "matthews_corrcoef", "cohen_kappa_quadratic")  # not printed in per cent
LATEX = str.maketrans({
    "±": r"$\pm$", "–": "--", "“": "``", "”": "''", "−": r"$-$", "≥": r"$\geq$", "≤": r"$\leq$", "→": r"$\to$",
    "‖": r"$\|$", "₁": "$_1$", "₂": "$_2$", "ρ": r"$\rho$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"})
HEADS = {"within": "std within a split", "n_splits": "splits"}


def score_table(table, metrics):
    """Mean and standard deviation over splits of metrics over all test images: a row for each arm, protocol, budget.

    table: the results. Columns: those of ARM, then METRIC, METRIC_std (NaN for one split) for each, then n_splits.
    """
    rows = table[(table.part == "test") & (table.group_kind == "all") & table.metric.isin(metrics)]
    cells = [dict(zip(cell.metric, cell.value)) | about for about, cell in _cells(rows)]
    return over_splits(pd.DataFrame(cells, columns=[*CELL, *metrics]), list(metrics), ARM)


def group_table(table, orders):
    """Recall of many, medium and few classes and accuracy (total), by both rules of `frequency_groups`.

    table: the results; orders: {key: class names, most frequent first}, of `class_orders`. Columns as in `score_table`,
    and `within`: the standard deviation (ddof 0) of the three groups in one split, SDCLR's "Std", while many_std,
    medium_std, few_std and total_std are over splits, as the thesis of LoTaR has them.
    """
    rows = table[(table.part == "test") & table.key.isin(list(orders)) & (table.split_kind != "balanced")]
    cells = []
    for about, cell in _cells(rows):
        recalls = cell[(cell.group_kind == "class") & (cell.metric == "recall")].set_index("group").value
        total = cell[(cell.group_kind == "all") & (cell.metric == "accuracy")].value.squeeze()
        order = orders[about["key"]]
        for rule in RULES if len(recalls) else ():
            by_group = recalls[list(order)].groupby(np.array(frequency_groups(range(len(order)), rule))).mean()
            cells.append({**about, "rule": rule, **by_group, "total": total, "within": by_group.std(ddof=0)})
    names = [*FREQUENCIES, "total", "within"]
    return over_splits(pd.DataFrame(cells, columns=[*CELL, "rule", *names]), names, ["rule", *ARM])


def over_splits(cells, names, by):
    """A row for each of `by`: NAME, NAME_std for the columns `names` of cells, and n_splits."""
    each = cells.groupby([*by, *SPLIT], dropna=False, sort=False)[names].mean().reset_index()
    wanted = {f"{name}{end}": (name, how) for name in names for end, how in (("", "mean"), ("_std", "std"))}
    return each.groupby(by, dropna=False, sort=False).agg(**wanted, n_splits=(names[0], "size")).reset_index()


def class_orders(jobs):
    """{key: class names, most frequent first} of finished evaluations on what they were pretrained on, and of floors
    trained on the labels of a split, by that split.

    jobs: those of a plan, with `key`, `folder`, `needs`.
    """
    orders = {}
    for job in jobs:
        model = root() / job["folder"] / "model.json"
        record = read_run(root() / job["folder"])
        below = read_run(root() / job["needs"][0]) if job["needs"] else record
        if below.get("order") and model.exists():
            if record["parameters"]["dataset"] == below["parameters"]["dataset"]:
                classes = json.loads(model.read_text(encoding="utf-8"))["classes"]
                orders[job["key"]] = [classes[c] for c in below["order"]]
    return orders


def correct_counts(table):
    """Test images of each class, and how many were classified right: a row for each cell and class."""
    rows = table[(table.group_kind == "class") & (table.metric == "recall") & (table.part == "test")
                 & table.value.notna()]
    counts = rows[[*CELL, "group"]].rename(columns={"group": "class"})
    return counts.assign(correct=(rows.value * rows.n).round().astype(int), n=rows.n.astype(int))


def table_text(frame, style="markdown"):
    """A frame with columns NAME and NAME_std as text, Markdown or LaTeX (booktabs), its caption below it.

    Columns that are the same in all rows are left out; shares are in per cent. A value of one split has no ±.
    """
    if style not in ("markdown", "latex"):
        raise ValueError(f"style {style!r}: choose markdown or latex")
    means = [name for name in frame if f"{name}_std" in frame]
    plain = [name for name in frame if name not in means and name.removesuffix("_std") not in means]
    plain = [name for name in plain if frame[name].nunique(dropna=False) > 1 or name in ("arm", "n_splits")]
    shown = [name for name in plain if name != "n_splits"] + means + ["n_splits"]
    head = [HEADS.get(name, words(name)) for name in shown]
    body = [[_printed(row, name, name in means) for name in shown] for row in frame.to_dict("records")]
    if style == "markdown":
        lines = [head, ["---" if name not in means else "---:" for name in shown], *body]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{table_caption(frame)}\n"
    lines = [" & ".join(map(escaped, line)) + r" \\" for line in (head, *body)]
    columns = "".join("r" if name in means else "l" for name in shown)
    return "\n".join([r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0],
                      r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}",
                      rf"\caption{{{escaped(table_caption(frame))}}}", r"\end{table}"]) + "\n"


def table_caption(frame):
    """What the numbers of a table are, in sentences."""
    n = " or ".join(map(str, sorted(set(frame.n_splits))))
    said = [f"Mean ± standard deviation (ddof 1) over {n} split{'s' * (n != '1')}; shares in per cent; runs of one "
            "split are averaged first."]
    if (frame.filter(regex="_std$") == 0).any(axis=None):
        said += ["A deviation of 0 is of splits that hold the same images."]
    if "rule" in frame:
        said += [f"Groups by the rule “{rule}”: {RULES[rule]}." for rule in dict.fromkeys(frame.rule)]
        said += ["Std within a split: of the three groups (ddof 0)."]
    return " ".join(said)


def _cells(rows):
    """(what names a cell, its rows) for each cell."""
    for name, cell in rows.groupby(CELL, dropna=False, sort=False):
        yield dict(zip(CELL, name)), cell


def _printed(row, name, is_mean):
    value = row[name]
    if not is_mean:
        if pd.isna(value):
            return ""
        return f"{value:g}" if isinstance(value, float) else words(value) if name in ("arm", "protocol") else str(value)
    scale, digits = (1, 4) if name in PLAIN else (100, 2)
    if np.isnan(value):
        return "–"
    std = row[f"{name}_std"]
    return f"{scale * value:.{digits}f}" + ("" if np.isnan(std) else f" ± {scale * std:.{digits}f}")


def escaped(text):
    """Text as LaTeX writes it, also what its fonts lack."""
    return re.sub(r"([&%$#_{}])", r"\\\1", str(text).replace("\\", "/")).translate(LATEX)


def rows_text(rows):
    """Dicts as a Markdown table; a column that some lack is empty there."""
    head = list(dict.fromkeys(name for row in rows for name in row))
    body = [[f"{row.get(name, ''):,}" if isinstance(row.get(name), (int, np.integer)) else str(row.get(name, ""))
             for name in head] for row in rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |"
                     for line in (head, ["---"] * len(head), *body))
