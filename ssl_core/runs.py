"""Run folders: what a finished stage leaves, what is known of it, and the tidy table that gathers all of them.

outputs/<study>/runs/<stage>/<readable-name>-<key>/ holds run.json (what ran, on what, how far), done.json (the hashes
of every final file: only this says that a run is finished) and cells/ (the rows of one evaluated point each). The name
is for people, run.json for programs.
"""

import contextlib
import json
import os
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from ssl_core.data.others import pixels_of
from ssl_core.files import atomic_json, atomic_write, outputs, replacing, root, sha256_file
from ssl_core.keys import fingerprint, make_key
from ssl_core.provenance import circumstances, device_name, now, peak_memory_mb, portable
from ssl_core.table import arrange, read_text, to_csv

SPLIT_NAMES = {"long_tail": "lt", "category_ratio": "cr", "balanced": "bal", "natural": "nat"}
PATIENCE = 20  # seconds to wait for a run's lock: a killed process takes a moment to die


@dataclass
class Run:
    """One run folder, locked by this process until `finish` or its end; made by `open_run`."""

    folder: Path
    stage: str
    cfg: object
    key: str
    origin: dict  # run.json of the pretraining below a probe or a fine-tuning
    record: dict  # run.json of this one
    lock: FileLock
    started: float = field(default_factory=time.monotonic)

    def path(self, name) -> Path:
        return self.folder / name

    def is_done(self) -> bool:
        """Whether an earlier execution left all of this: every file and every wanted cell."""
        cells = [] if self.stage == "pretrain" else self.cfg.cells()
        return (self.record.get("status") == "done" and agree(self.folder, self.record.get("files", {}))
                and all(self.cell_done(cell.id) for cell in cells))

    def progress(self, **values):
        """How far it is, for the live line of a bulk run: {"cell": 3, "cells": 10} or as `train.pretrain` writes it."""
        temporary = self.path("progress.json.tmp")
        temporary.write_text(json.dumps(values), encoding="utf-8")
        with contextlib.suppress(PermissionError):  # Windows: somebody is reading it; the next one will do
            os.replace(temporary, self.path("progress.json"))

    def cell_done(self, cell_id) -> bool:
        return agree(self.folder, cell_files(self.folder, cell_id))

    def write_cell(self, cell_id, rows, arrays=None, history=None):
        """Keep the rows of one evaluated point, and arrays such as test probabilities, whole or not at all.

        rows: dicts, or a DataFrame, of the columns that differ within a cell (metric, value, low, high, n, …); the rest
        (study, split, arm, protocol, budget, key, …) the run knows. history: a DataFrame of its training, for
        models/<cell>/history.csv.
        """
        cells = {} if self.stage == "pretrain" else {cell.id: cell for cell in self.cfg.cells()}
        if cell_id not in cells:
            raise ValueError(f"{self.folder.name} has no cell {cell_id!r}; it has: {', '.join(cells)}")
        names = [f"cells/{cell_id}.csv"]
        if arrays:
            names.append(f"cells/{cell_id}.npz")
            with replacing(self.path(names[1])) as temporary:
                np.savez_compressed(temporary, **arrays)
        if history is not None:
            names.append(f"models/{cell_id}/history.csv")
            self.path(names[-1]).parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self.path(names[-1]), history.to_csv(index=False, lineterminator="\n"))
        atomic_write(self.path(names[0]), to_csv(rows, self._constants(cells[cell_id])))
        atomic_json(self.path(f"cells/{cell_id}.json"), {name: sha256_file(self.path(name)) for name in names})

    def finish(self, files=(), **facts):
        """Declare the run finished: `files` and all cells are final. Facts (n_unlabelled=…) go into run.json."""
        final = {name: sha256_file(self.path(name)) for name in files}
        for note in sorted(self.folder.glob("cells/*.json")):
            final |= {note.relative_to(self.folder).as_posix(): sha256_file(note)} | cell_files(self.folder, note.stem)
        if self.record["status"] != "done" or self.record.get("files") != final:  # else: only the report was remade
            seconds = round(self.record.get("seconds", 0) + time.monotonic() - self.started, 1)
            self.record |= {"status": "done", "reason": "", "device": device_name(self.cfg.device), "finished": now(),
                            "seconds": seconds, "peak_memory_mb": peak_memory_mb(), "files": final} | facts
            atomic_json(self.path("run.json"), self.record)
        atomic_json(self.path("done.json"), {"key": self.key, "files": final})
        self.path("progress.json").unlink(missing_ok=True)
        self._leave_loader()
        self.lock.release(force=True)

    def _leave_loader(self):
        """load_me.py, beside a model that it can load; declared nowhere, as results do not depend on it."""
        text = Path(__file__).with_name("load_me.py").read_text(encoding="utf-8")
        path = self.path("load_me.py")
        floors = self.stage == "probe" and not self.cfg.run
        if not floors and not (path.exists() and path.read_text(encoding="utf-8") == text):
            atomic_write(path, text)

    def _constants(self, cell):
        """The columns that are the same in all rows of a cell."""
        cfg, origin = self.cfg, self.origin.get("parameters", {})
        row = {"study": cfg.study, "dataset": Path(cfg.dataset).stem, "synthetic": self.record["synthetic"],
               "seed": origin.get("seed", cfg.seed), "draw_seed": origin.get("draw_seed", cfg.draw_seed),
               "stage": self.stage, "test_set": self.record.get("test_set", ""), "protocol": cell.protocol,
               "label_pool": cfg.label_pool, "budget": cell.budget, "budget_seed": cfg.budget_seed, "status": "done",
               "key": self.key}
        split = origin or (cfg.model_dump() if cfg.label_pool == "as_pretrain" else {})
        row |= {name: split.get(name, "") for name in ("split_kind", "twin", "ratio", "order_seed")}
        # labels that follow the other set's split: this is what pairs it
        if origin and cfg.label_pool == "as_pretrain" and origin["dataset"] != cfg.dataset:
            row |= {name: getattr(cfg, name) for name in ("draw_seed", "order_seed")}
        if origin:
            options = ",".join([*named(origin["method_args"]), *(add_on(**wrapper) for wrapper in origin["wrap"])])
            return row | {"pretrain_dataset": Path(origin["dataset"]).stem, "n_unlabelled": self.origin["n_unlabelled"],
                          "arm": arm_name(self.stage, cfg, origin), "method": origin["method"], "variant": options,
                          "encoder": origin["encoder"], "init": Path(origin["init"].rpartition("=")[2]).name,
                          "epochs": self.origin.get("epochs") or origin["epochs"] or ""}
        if self.stage == "finetune":
            start = {"method": "supervised", "encoder": cfg.encoder, "init": "random"} if not cfg.weights else {
                "method": "imagenet", "encoder": cfg.weights.partition("=")[0], "init": "imagenet"}
            return row | start | {"arm": arm_name(self.stage, cfg, origin),
                                  "variant": ",".join(named(cfg.correction or {"class_weight": "none"}))}
        network = {"random": {"encoder": cfg.encoder, "init": "random"},
                   "imagenet": {"encoder": cfg.weights.partition("=")[0], "init": "imagenet"}}
        return row | {"arm": cell.source, "method": cell.source} | network.get(cell.source, {})


def open_run(stage, cfg, inputs) -> Run:
    """The folder of the run that these parameters and inputs name, locked; what is sound in it is kept.

    stage: pretrain, probe or finetune. inputs: {"data": ImageSet, **vars(pools)}; what the stage uses enters its key.
    Raises RuntimeError when another process is making the same run.
    """
    key = make_key(stage, cfg, inputs)
    origin = read_run(root() / cfg.run) if getattr(cfg, "run", "") else {}
    folder = run_folder(cfg.study, stage, run_name(stage, cfg, origin.get("parameters")), key)
    locks = outputs() / cfg.study / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{stage}-{key}.lock", timeout=PATIENCE, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise RuntimeError(f"{folder.name} is being made by another process; wait for it or stop it") from None
    stored = read_run(folder)
    below = encoder_below(cfg)
    discard(folder, stored, everything=stored.get("below", below) != below)
    run = Run(folder, stage, cfg, str(key), origin, stored, lock)
    if not run.is_done():
        unlabelled = inputs.get("unlabelled", "")
        run.record = {"name": folder.name, "stage": stage, "key": run.key, "status": "running", "reason": "",
                      "started": stored.get("started") or now(),  # of the first attempt: tolerances are older or not
                      "parameters": portable(cfg.model_dump()), "parts": key.parts, "below": below,
                      "synthetic": getattr(inputs["data"], "synthetic", ""), "images": pixels_of(inputs["data"]),
                      "n_unlabelled": "" if isinstance(unlabelled, str) else len(unlabelled),
                      "test_set": fingerprint(inputs["test"])[:12] if "test" in inputs else "",
                      **circumstances(), "device": cfg.device, "threads": cfg.threads,
                      "seconds": stored.get("seconds", 0), "files": stored.get("files", {})}
        atomic_json(run.path("run.json"), run.record)
    return run


# --- names and folders ------------------------------------------------------------------------------------------------

def run_name(stage, cfg, origin=None) -> str:
    """What a person calls it: simclr-fashion-lt100.same_n-d0o0-s0; floors have no imbalance: floors-fashion-d0-s0."""
    values = cfg.model_dump() | {name: value for name, value in (origin or {}).items()
                                 if name in ("split_kind", "ratio", "twin", "draw_seed", "order_seed", "seed", "total")}
    parts = [arm_name(stage, cfg, origin), Path(cfg.dataset).stem]
    if stage == "pretrain" or origin or cfg.label_pool == "as_pretrain":
        ratio = f"{values['ratio']:g}" if values["split_kind"] in ("long_tail", "category_ratio") else ""
        ratio = str(values["total"]) if values["split_kind"] == "balanced" and values["total"] else ratio
        twin = "" if values["twin"] == "none" else f".{values['twin']}"
        parts += [f"{SPLIT_NAMES[values['split_kind']]}{ratio}{twin}", f"d{values['draw_seed']}o{values['order_seed']}"]
    else:
        parts.append(f"d{values['draw_seed']}")
    parts.append(f"s{values['seed']}")
    if getattr(cfg, "budget_seed", 0):
        parts.append(f"b{cfg.budget_seed}")
    return re.sub(r"[^\w.\-]", "_", "-".join(parts))


def arm_name(stage, cfg, origin=None) -> str:
    """The arm as the study names it; outside a study the method, or the floor."""
    if cfg.arm:
        return cfg.arm
    if stage == "pretrain":
        return cfg.method
    if origin:
        return origin["arm"] or origin["method"]
    return cfg.floor if stage == "finetune" else "floors"


def named(arguments) -> list:
    return [f"{name}={value}" for name, value in sorted(arguments.items())]


def add_on(name, **arguments) -> str:
    return f"{name}({','.join(named(arguments))})"


def run_folder(study, stage, name, key) -> Path:
    """The folder of a key; one that an arm's former name stands on is found again."""
    stage_folder = outputs() / study / "runs" / stage
    folder = stage_folder / f"{name}-{key}"
    return folder if folder.exists() else next(iter(sorted(stage_folder.glob(f"*-{key}"))), folder)


def read_run(folder) -> dict:
    """run.json of a run folder, {} when there is none."""
    return _read_json(Path(folder) / "run.json")


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}


def encoder_below(cfg) -> dict:
    """The encoder file that a run starts from, by content: made anew with other bits, what rests on it is made anew."""
    paths = {name: root() / getattr(cfg, name, "") / "done.json" for name in ("run", "init") if getattr(cfg, name, "")}
    return {name: _read_json(path)["files"]["encoder.safetensors"] for name, path in paths.items() if path.exists()}


# --- sound or not -----------------------------------------------------------------------------------------------------

def agree(folder, files) -> bool:
    """Whether every file is there with the hash it had; False when there are none."""
    return bool(files) and all((folder / name).is_file() and sha256_file(folder / name) == digest
                               for name, digest in files.items())


def cell_files(folder, cell_id) -> dict:
    return _read_json(folder / "cells" / f"{cell_id}.json")


def damage(folder) -> str:
    """The first final file of a finished run that is missing or changed, in words; "" when all is well."""
    for name, digest in _read_json(folder / "done.json").get("files", {"done.json": ""}).items():
        if not (folder / name).is_file():
            return f"{name} missing"
        if digest and sha256_file(folder / name) != digest:
            return f"{name} changed"
    return ""


def discard(folder, record, everything=False):
    """Remove the final files that are not what they were, so that nobody builds on them."""
    if everything:
        print(f"{folder.name}: the encoder below it was made anew; starting afresh")
        shutil.rmtree(folder / "cells", ignore_errors=True)
        for name in ("last.pt", "prev.pt"):
            (folder / name).unlink(missing_ok=True)
    for name, digest in record.get("files", {}).items():
        if (folder / name).is_file() and (everything or sha256_file(folder / name) != digest):
            print(f"{folder.name}: {name} is not what the run left; removed")
            (folder / name).unlink()


def mark_failed(folder, reason):
    """Note in run.json why a run ended early, which its kernel cannot do itself."""
    atomic_json(Path(folder) / "run.json", read_run(folder) | {"status": "failed", "reason": reason, "finished": now()})


def collect(jobs):
    """All rows of all sound cells of a plan's jobs: a DataFrame of text; the arm is named as the study names it now."""
    tables = []
    for job in jobs:
        for cell in job.cells:
            if agree(job.folder, cell_files(job.folder, cell.id)):
                table = read_text(job.folder / "cells" / f"{cell.id}.csv")
                if cell.source == "encoder":
                    table["arm"] = job.cfg.arm
                if job.older:
                    table["status"] = "older code"
                if job.adopted:
                    table.loc[table.status == "done", "status"] = "adopted"
                tables.append(table)
    return arrange(tables)
