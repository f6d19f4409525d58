"""A study's networks and numbers as files that need only torch and timm, in the layouts of two published systems.

Layout a is the checkpoint tree of the study of cervical cytology (Liu et al. 2026, doi 10.34133/csbj.0048), layout c
the run folders of the thesis on LoTaR. Both are written from plan.json, results.csv and run.json; no path is parsed.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ssl_core.analysis.plots import words
from ssl_core.as_timm import network
from ssl_core.config import ConfigError
from ssl_core.files import atomic_json, atomic_write, outputs, root
from ssl_core.finished import USE
from ssl_core.runs import damage, read_run
from ssl_core.table import read_plan, read_results


@dataclass(frozen=True)
class Job:
    """A finished run: `seen` are the parameters of the pretraining below it, its own, or {} where there is none."""

    folder: Path
    record: dict
    arm: str
    cells: list
    seen: dict
    below: Path | None

    @property
    def own(self):
        return self.record["parameters"]


def export(study, to, layout):
    """Write a study's finished runs below `to` → (paths written, {reason: what was left out for it}).

    layout: "a" or "c". Raises FileNotFoundError where the study has not run, ConfigError where nothing is finished.
    """
    jobs, left = finished_jobs(study)
    if not jobs:
        raise ConfigError(f"study {study!r} has no finished run yet; run it first")
    written = {"a": checkpoints, "c": run_folders}[layout](study, jobs, Path(to), left)
    atomic_write(Path(to) / "README.txt", readme(study, written, left))
    return written, left


def layouts(study):
    """The layouts that fit a study: a, and c where classes of a long tail are many, medium and few."""
    if not (outputs() / study / "results.csv").exists():
        return ["a"]
    rows = read_results(study)
    return ["a", *["c"] * bool(((rows.split_kind == "long_tail") & (rows.group_kind == "frequency")).any())]


def finished_jobs(study):
    """The sound runs of a study's plan, and those that are not, by what is wrong with them."""
    jobs, left = [], {}
    for job in read_plan(study)["jobs"]:
        folder, needs = root() / job["folder"], job["needs"]
        record = read_run(folder)
        wrong = "" if record.get("status") == "done" else record.get("status", "has not run")
        if wrong := wrong or damage(folder):
            left.setdefault(wrong, []).append(f"{job['stage']} {job['name']}")
            continue
        below = root() / needs[0] if needs and job["stage"] != "pretrain" else None
        seen = record if job["stage"] == "pretrain" else read_run(below) if below else {}
        jobs.append(Job(folder, record, job["arm"], job["cells"], seen.get("parameters", {}), below))
    return jobs, left


# --- layout a: METHOD/pretrained and METHOD/downstream tasks ----------------------------------------------------------

def checkpoints(study, jobs, to, left):
    """METHOD/pretrained/ratio_1-R.pth and METHOD/downstream tasks/PROTOCOL/ratio_B-100.pth, as named by `place`."""
    levels, written = varying(jobs), []
    ways = {(job.arm, kind(job, cell), cell["protocol"]) for job in jobs for cell in job.cells}
    for job in jobs:
        base = to / words(job.arm)
        if job.record["stage"] == "pretrain":
            path = base.joinpath("pretrained", *place(job.seen, levels), f"{condition(job.seen)}.pth")
            write_network(path, job, None, study, written, left)
            write_course(path.with_suffix(""), job)
            continue
        for cell in job.cells:
            several = sum(way[:2] == (job.arm, kind(job, cell)) for way in ways) > 1
            names = [kind(job, cell), *[cell["protocol"]] * several]
            above = [condition(job.seen)] if job.seen and "condition" in levels else []
            more = [f"labels_{job.own['budget_seed']}"] if "budget_seed" in levels else []
            path = base.joinpath("downstream tasks", *names, *place(job.seen or job.own, levels), *above, *more,
                                 f"{budget_name(cell['budget'])}.pth")
            write_network(path, job, cell, study, written, left)
    return written


def kind(job, cell):
    """The folder of a protocol; an arm that has several of a kind gets one below it for each."""
    if job.record["stage"] == "finetune":
        return "fine-tune"
    return "linear probing" if cell["protocol"].startswith("linear") else "other"


def varying(jobs):
    """Which of data set, split, condition, seed and draw of labels differ between a study's runs."""
    found = {}
    for job in jobs:
        values = {"dataset": job.own["dataset"], "split": draw(job.own), "seed": job.own["seed"]}
        if job.seen:
            values |= {"dataset": job.seen["dataset"], "split": draw(job.seen), "seed": job.seen["seed"],
                       "condition": condition(job.seen)}
        if "budget_seed" in job.own:
            values["budget_seed"] = job.own["budget_seed"]
        for name, value in values.items():
            found.setdefault(name, set()).add(value)
    return {name for name, values in found.items() if len(values) > 1}


def draw(values):
    """Which draw of a split, and where it has another number, which order of its classes."""
    order = f"_order_{values['order_seed']}" if values["order_seed"] != values["draw_seed"] else ""
    return f"split_{values['draw_seed']}{order}"


def place(values, levels):
    """The folders that tell runs apart, only those that a study needs: DATASET/split_K/seed_S."""
    named = {"dataset": Path(values["dataset"]).stem, "split": draw(values), "seed": f"seed_{values['seed']}"}
    return [text for name, text in named.items() if name in levels]


def condition(values):
    """What was pretrained on, as a file is called: ratio_1-5, ratio_1-10,000_same_n, natural."""
    if values["split_kind"] not in ("long_tail", "category_ratio"):
        return values["split_kind"]
    ratio = values["ratio"]
    twin = "" if values["twin"] == "none" else f"_{values['twin']}"
    return f"ratio_1-{f'{ratio:,.0f}' if ratio == int(ratio) else f'{ratio:g}'}{twin}"


def budget_name(budget):
    """ratio_5-100 for 5 % of the labels; above 1 a budget is a number of images per class."""
    return f"ratio_{100 * budget:g}-100" if budget <= 1 else f"{budget:g}_per_class"


def write_course(folder, job):
    """args.txt, the resolved parameters as JSON, and log.txt, one JSON object for each row of the history."""
    atomic_json(folder / "args.txt", job.own)
    path = job.folder / "history.csv"
    if path.exists():
        rows = pd.read_csv(path).rename(columns={"loss": "train_loss", "lr": "train_lr"})
        atomic_write(folder / "log.txt", rows.to_json(orient="records", lines=True, double_precision=15))


# --- layout c: runs/STUDY/METHOD_DATA_ARCH_ratioR_splitK --------------------------------------------------------------

def run_folders(study, jobs, to, left):
    """The encoder and results.txt of every pretraining, in one folder each."""
    table, written = read_results(study), []
    seeds = "seed" in varying(jobs)
    for job in jobs:
        if job.record["stage"] != "pretrain":
            continue
        seen = job.seen
        ratio = condition(seen).replace("ratio_1-", "ratio").replace(",", "")
        name = "_".join([job.arm, Path(seen["dataset"]).stem, seen["encoder"], ratio,
                         draw(seen).replace("split_", "split"), *[f"seed{seen['seed']}"] * seeds])
        folder = to / "runs" / study / name
        write_network(folder / "model.pth.tar", job, None, study, written, left)
        cells = [(evaluated, cell) for evaluated in jobs if evaluated.below == job.folder for cell in evaluated.cells]
        for number, (evaluated, cell) in enumerate(sorted(cells, key=lambda pair: rank(pair[1]))):
            about = json.loads((evaluated.folder / "model.json").read_text(encoding="utf-8"))
            rows = table[(table.key == evaluated.record["key"]) & (table.protocol == cell["protocol"])
                         & (table.budget == cell["budget"]) & (table.part == "test")]
            text = results_text(seen["draw_seed"], rows, about["classes"])
            path = folder / ("results.txt" if not number else f"results_{cell['id']}.txt")
            if text:
                atomic_write(path, text)
                written.append(path)
            else:
                left.setdefault("no results.txt, as no class has a share of right answers", []).append(
                    f"{evaluated.record['name']}, {cell['id']}")
    return written


def rank(cell):
    """A linear probe with all labels comes first, ours before others: its numbers are what results.txt holds."""
    name = cell["protocol"]
    return name != "linear", not name.startswith("linear"), cell["budget"] > 1, -cell["budget"], cell["id"]


def results_text(split, rows, classes):
    """Three lines: the split; {Many, Medium, Few: accuracy}; {class number: test images that were called right}.

    rows: of results.csv, one cell's. The accuracy of a frequency is its recall over images; "" without any.
    """
    recalls = rows[(rows.metric == "recall") & (rows.layer == "")]
    frequency = recalls[recalls.group_kind == "frequency"].set_index("group").value
    by_class = recalls[recalls.group_kind == "class"].set_index("group")
    right = {number: round(by_class.value[name] * by_class.n[name]) for number, name in enumerate(classes)
             if name in by_class.index and np.isfinite(by_class.value[name])}
    if not right:
        return ""
    shares = {name.capitalize(): float(frequency[name]) for name in ("many", "medium", "few") if name in frequency}
    return f"{split}\n{shares}\n{right}\n"


# --- both -------------------------------------------------------------------------------------------------------------

def write_network(path, job, cell, study, written, left):
    """PATH, a plain state dict, and beside it JSON that says how to load and use it; or a line in `left`."""
    try:
        if path in written:
            raise ConfigError(f"another run has the name {path.parent.name}/{path.name}")
        if not any(job.folder.rglob("*.safetensors")):
            raise ConfigError("adopted, rows only: their networks are where they were trained")
        state, about = network(job.folder, job.record, cell, path.name)
    except ConfigError as error:
        what = f"{job.record['stage']} {job.record['name']}" + (f", {cell['id']}" if cell else "")
        left.setdefault(str(error), []).append(what)
        return
    buffer = io.BytesIO()  # in a file, torch writes the file's name into it
    torch.save(state, buffer)
    atomic_write(path, buffer.getvalue())
    origin = {"study": study, "arm": job.arm, "run": job.record["name"], "key": job.record["key"]}
    origin |= {name: cell[name] for name in ("protocol", "budget")} if cell else {}
    origin |= {name: job.seen[name] for name in ("method", "dataset", "split_kind", "ratio", "twin", "draw_seed",
                                                 "order_seed", "seed")} if job.seen else {}
    atomic_json(path.with_suffix(".json"), about | {"from": origin, "images": job.record.get("images", {})})
    written.append(path)


def readme(study, written, left):
    """What the files are, and what is not among them."""
    lines = [line for reason, what in left.items() for line in ("", f"Left out, {reason}:", *(f"  {w}" for w in what))]
    return "\n".join([
        f"Networks and numbers of the study {study}; {USE}.", "",
        "Each .pth (or model.pth.tar) is a plain state dict. The .json beside it says how timm makes the network, how",
        "to load the file, how large the images are, and the mean and std that have to be applied first, as these are",
        "no part of the file.", "", f"{len(written)} files written.", *lines, ""])
