"""A study as its runs would have left it: plan, cells with test scores, table, with effects that are planted."""

import json

import numpy as np

from ssl_core.analysis.grid import jobs_of, told
from ssl_core.evaluate.heads import rows_of, stored
from ssl_core.evaluate.metrics import Predictions
from ssl_core.files import atomic_json
from ssl_core.table import COLUMNS, arrange, read_results, read_text, to_csv

CLASSES = ("ant", "bee", "cat", "dog", "eel")
FREQUENCY = ("many", "many", "medium", "few", "few")
PER_CLASS = 80
LABELS = np.repeat(np.arange(len(CLASSES)), PER_CLASS)
DEFAULTS = {"dataset": "made", "split_kind": "long_tail", "ratio": 1, "twin": "none", "draw_seed": 0, "order_seed": 0,
            "total": 0, "seed": 0, "encoder": "resnet10t", "encoder_args": {}, "stem": "default",
            "normalisation": "half"}
BALANCED, IMBALANCED, TWIN = {"ratio": 1}, {"ratio": 100}, {"ratio": 100, "twin": "same_n"}


def scores(accuracy, seed):
    """Probabilities that are right for exactly that share of each class, and mostly for the same, easy images."""
    rng = np.random.default_rng(seed)
    ease = np.random.default_rng(99).random(len(LABELS)) + 0.3 * rng.random(len(LABELS))
    called = (LABELS + rng.integers(1, len(CLASSES), len(LABELS))) % len(CLASSES)
    for c, share in enumerate(np.broadcast_to(accuracy, len(CLASSES))):
        mine = np.flatnonzero(LABELS == c)
        called[mine[np.argsort(-ease[mine])[:round(share * PER_CLASS)]]] = c
    return np.full((len(LABELS), len(CLASSES)), 0.05) + 0.75 * np.eye(len(CLASSES))[called]


class MadeStudy:
    """Collects jobs; `write` puts plan.json and results.csv where the comparison looks for them."""

    def __init__(self, outputs, name="made"):
        self.folder, self.name, self.jobs, self.tables = outputs / name, name, [], []

    def trained(self, arm, seen, accuracy, draw=0, seed=0, budgets=(1.0,), protocols=("linear",), why="",
                evaluate_on="", layers=(), **more):
        """A pretraining and its evaluation. accuracy: of all classes, of each, or a function of protocol and budget.

        why: the state of an evaluation that is not there. evaluate_on: another data set. layers: of a layer probe.
        more: parameters such as another encoder.
        """
        stage = "finetune" if protocols == ("finetune",) else "probe"
        seen = {"draw_seed": draw, "order_seed": draw, "seed": seed} | more | seen
        below = self._job(arm, [], "pretrain", seen)
        cells = [(f"{p}-b{b:g}-s0", "encoder", p, b) for p in protocols for b in budgets]
        about = DEFAULTS | seen
        own = {"draw_seed": draw, "seed": seed, "dataset": evaluate_on or about["dataset"]}
        job = self._job(arm, cells, stage, own, [below["folder"]], why)
        self._cells(job, accuracy, {name: about[name] for name in COLUMNS if name in about} | {
            "arm": arm, "method": arm.partition("_")[0], "pretrain_dataset": about["dataset"],
            "dataset": own["dataset"], "n_unlabelled": about["total"] or ""}, layers)
        return job

    def floor(self, arm, accuracy, draw=0, seed=0, budgets=(1.0,), protocols=("linear",), **more):
        """A floor; accuracy None: it cannot be run here."""
        stage = "finetune" if protocols == ("finetune",) else "probe"
        source, prefix = ("encoder", "") if stage == "finetune" else (arm, f"{arm}.")
        cells = [(f"{prefix}{p}-b{b:g}-s0", source, p, b) for p in protocols for b in budgets]
        job = self._job(arm, cells, stage, {"draw_seed": draw, "seed": seed} | more)
        encoder = (DEFAULTS | more)["encoder"] if arm in ("random", "supervised") else ""
        self._cells(job, accuracy, {"arm": arm, "method": arm.partition("_")[0], "encoder": encoder, "draw_seed": draw,
                                    "seed": seed, "dataset": (DEFAULTS | more)["dataset"]})
        return job

    def _job(self, arm, cells, stage, params, needs=(), why=""):
        key = f"{len(self.jobs):012x}"
        self.jobs.append({"stage": stage, "name": arm, "arm": arm, "key": key, "needs": list(needs), "why": why,
                          "folder": (self.folder / "runs" / stage / f"{arm}-{key}").as_posix(), "notebook": "n",
                          "state": "to run" if why else "done", "params": params | {"arm": arm},
                          "cells": [dict(zip(("id", "source", "protocol", "budget"), cell)) for cell in cells]})
        return self.jobs[-1]

    def _cells(self, job, accuracy, about, layers=()):
        folder = self.folder / "runs" / job["stage"] / f"{job['arm']}-{job['key']}"
        (folder / "cells").mkdir(parents=True)
        (folder / ("report.ipynb" if not job["why"] else "failed.ipynb" if "failed" in job["why"] else "none")).touch()
        for number, cell in enumerate(job["cells"] if not job["why"] else []):
            share = accuracy(cell["protocol"], cell["budget"]) if callable(accuracy) else accuracy
            row = about | {"study": self.name, "synthetic": True, "stage": job["stage"],
                           "protocol": cell["protocol"], "budget": cell["budget"], "budget_seed": 0, "status": "done",
                           "key": job["key"],
                           "n_labelled": cell["budget"] * (500 if cell["budget"] <= 1 else len(CLASSES))}
            if share is None:
                rows = [{"metric": "balanced_accuracy", "group_kind": "all", "group": "all", "part": "test",
                         "status": "not run: no weights at hand"}]
            else:
                test = Predictions(scores(share, (int(job["key"], 16), number)), LABELS, CLASSES, frequency=FREQUENCY)
                rows = rows_of(test, 0, 20)
                rows = [one | {"layer": layer} for layer in layers for one in rows] if layers else rows
                np.savez(folder / "cells" / f"{cell['id']}.npz", **stored(test, {}, {}))
            text = folder / "cells" / f"{cell['id']}.csv"
            text.write_text(to_csv(rows, row), encoding="utf-8")
            self.tables.append(read_text(text))

    def write(self):
        """(jobs with what they saw, the results table told of them), both as the comparison reads them."""
        plan = {"study": self.name, "question": "What does imbalance cost?", "threads": 1, "jobs": self.jobs}
        atomic_json(self.folder / "plan.json", plan)
        arrange(self.tables).to_csv(self.folder / "results.csv", index=False, lineterminator="\n")
        plan = json.loads((self.folder / "plan.json").read_text("utf-8"))
        jobs = jobs_of(plan, {"n": DEFAULTS})
        return jobs, told(read_results(self.name), jobs)


def with_cost(outputs, cost, draws=(0, 1, 2), name="made"):
    """A study of one arm whose balanced twin is `cost` above the imbalanced split, give or take 1.25 points a split."""
    made = MadeStudy(outputs, name)
    for draw in draws:
        jitter = 0.0125 * (draw % 3 - 1)
        made.trained("simclr", BALANCED, 0.7 + jitter, draw)
        made.trained("simclr", IMBALANCED, 0.6 - cost / 2 + jitter, draw)
        made.trained("simclr", TWIN, 0.6 + cost / 2, draw)
        made.floor("random", 0.4 + jitter, draw)
        made.floor("majority", [1, 0, 0, 0, 0], draw, protocols=("none",))
    return made
