"""What an evaluated cell leaves: its rows with intervals, its test scores, and the head that gave them."""

import json

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from ssl_core.evaluate.intervals import with_intervals
from ssl_core.evaluate.metrics import by_group, metric_rows
from ssl_core.files import atomic_json, replacing
from ssl_core.table import NUMBERS, read_text


def rows_of(test, seed, resamples, **constants):
    """All rows of one cell: over images, and over whole groups (patients, slides) where each has one label.

    test: Predictions; seed: integers from the cell; constants: columns such as n_labelled.
    """
    seed = tuple(seed) if isinstance(seed, (tuple, list)) else (seed,)
    rows = with_intervals(metric_rows(test), test, seed, resamples)
    if whole := by_group(test):
        rows += with_intervals(metric_rows(whole, "test_by_group"), whole, (*seed, 1), resamples)
    return [{**row, **constants} for row in rows]


def stored(test, head, about, val=(None, None)):
    """The arrays of a cell: test probabilities with what judges them, the head's arrays, and notes as JSON text.

    val: probabilities and labels of the validation part, where the data set has one that was scored.
    """
    scored = {} if val[0] is None else {"val_probabilities": val[0], "val_labels": val[1]}
    return {**scored, "probabilities": test.probabilities, "labels": test.labels, "groups": test.groups,
            "classes": np.array(test.classes, str), "frequency": np.array(test.frequency or (), str),
            "task": np.array(test.task), "about": np.array(json.dumps(about, default=str)),
            **{f"head/{name}": array for name, array in head.items()}}


def save_heads(run, about):
    """Write head.safetensors (tensors named CELL/NAME) and model.json from all cells of a run → the two names."""
    tensors, cells = {}, {}
    for cell in run.cfg.cells():
        path = run.path(f"cells/{cell.id}.npz")
        if not path.exists():
            continue
        with np.load(path, allow_pickle=False) as kept:
            cells[cell.id] = json.loads(str(kept["about"]))
            tensors |= {f"{cell.id}/{name[5:]}": np.ascontiguousarray(kept[name]) for name in kept.files
                        if name.startswith("head/")}
    with replacing(run.path("head.safetensors")) as path:
        save_file(tensors, path, metadata={"key": run.key})  # of several entries the order would be left to chance
    atomic_json(run.path("model.json"), {**about, "key": run.key, "use": "research only", "cells": cells})
    return ["head.safetensors", "model.json"]


def cell_table(run):
    """The rows of all cells that a run has, as a DataFrame with the cell's id in `cell`."""
    tables = [read_text(run.path(f"cells/{cell.id}.csv")).assign(cell=cell.id) for cell in run.cfg.cells()
              if run.path(f"cells/{cell.id}.csv").exists()]
    return numbers(pd.concat(tables, ignore_index=True))


def numbers(table):
    return table.assign(**{name: pd.to_numeric(table[name]) for name in NUMBERS})


def headline_rows(table):
    """The rows that sum a cell up: balanced accuracy over all test images, and not that of a single layer."""
    return table[(table.metric == "balanced_accuracy") & (table.group_kind == "all") & (table.part == "test")
                 & (table.layer == "")]


def beside(run):
    """Headline rows of what other runs of the study have left for the same draw: the floors, and the twin's encoder.

    What has not run yet is not in it. Nothing is read by the name of a folder.
    """
    own = run.origin.get("parameters", {})
    split = {name: own.get(name) for name in ("arm", "ratio", "order_seed")}
    found = []
    for path in sorted(run.folder.parent.parent.glob("*/*/cells/*.csv")):
        if path.parent.parent != run.folder:
            rows = headline_rows(numbers(read_text(path)))
            rows = rows[(rows.draw_seed == run.cfg.draw_seed) & (rows.budget_seed == run.cfg.budget_seed)]
            wanted = rows.pretrain_dataset == ""
            if own:
                wanted &= (rows.method != "random") | (rows.encoder == own["encoder"])
                wanted |= (rows[list(split)] == pd.Series(split)).all(axis=1) & (rows.twin != own["twin"])
            found.append(rows[wanted])
    return pd.concat(found, ignore_index=True) if found else headline_rows(cell_table(run)).iloc[:0]
