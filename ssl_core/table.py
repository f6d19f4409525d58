"""The tidy table: one row per number, the same columns everywhere, equal bytes for equal content, no times."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from ssl_core.files import outputs, root

COLUMNS = """study pretrain_dataset dataset synthetic split_kind twin ratio order_seed draw_seed n_unlabelled
    arm method variant encoder init epochs seed stage protocol label_pool budget budget_seed n_labelled test_set part
    layer group_kind group metric threshold value low high interval n n_groups n_positive status key""".split()
NUMBERS = """ratio order_seed draw_seed n_unlabelled epochs seed budget budget_seed n_labelled threshold value low high
    n n_groups n_positive""".split()


def to_csv(rows, constants=None) -> str:
    """Rows (dicts, or a DataFrame) as text in the table's column order; `constants` fill the columns they leave open.

    Raises ValueError on a column that does not exist.
    """
    rows = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows
    lines = []
    for row in rows:
        row = (constants or {}) | dict(row)
        if odd := sorted(set(row) - set(COLUMNS)):
            raise ValueError(f"the results table has no column {odd[0]!r}; it has: {', '.join(COLUMNS)}")
        lines.append([_text(row.get(name)) for name in COLUMNS])
    return pd.DataFrame(lines, columns=COLUMNS).to_csv(index=False, lineterminator="\n")


def _text(value):
    if pd.isna(value):
        return ""
    if isinstance(value, (bool, np.bool_)):
        return str(value).lower()
    return f"{value:.9g}" if isinstance(value, (float, np.floating)) else str(value)


def read_text(path) -> pd.DataFrame:
    """A table as it was written: every value as text, empty where nothing is."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def arrange(tables) -> pd.DataFrame:
    """Tables of text below one another, sorted by what names a number, as numbers where those are numbers."""
    rows = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    names = COLUMNS[:COLUMNS.index("value")]
    order = pd.DataFrame({name: pd.to_numeric(rows[name]) if name in NUMBERS else rows[name] for name in names})
    return rows.loc[order.sort_values(names, kind="stable").index].reset_index(drop=True)


def read_results(study) -> pd.DataFrame:
    """outputs/<study>/results.csv with numbers as numbers."""
    table = read_text(outputs() / study / "results.csv")
    return table.assign(synthetic=table.synthetic == "true", **{name: pd.to_numeric(table[name]) for name in NUMBERS})


def read_plan(study) -> dict:
    """outputs/<study>/plan.json: the jobs and cells of a study that was started here.

    Folders of jobs are those that it names; where they are gone, as after an archive was opened, those of the same name
    below outputs/<study>/.
    """
    path = outputs() / study / "plan.json"
    if not path.exists():
        raise FileNotFoundError(f"study {study!r} has not run here: python3 start.py report runs the quick one, "
                                "python -m ssl_core run STUDY.yaml any other")
    plan = json.loads(path.read_text(encoding="utf-8"))
    own = {job["folder"]: path.parent / "runs" / job["stage"] / Path(job["folder"]).name for job in plan["jobs"]}
    moved = {named: here.as_posix() for named, here in own.items() if here.exists() and not (root() / named).exists()}
    for job in plan["jobs"]:
        job["folder"] = moved.get(job["folder"], job["folder"])
        job["needs"] = [moved.get(need, need) for need in job["needs"]]
    return plan
