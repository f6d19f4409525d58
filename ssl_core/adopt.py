"""Finished cells without their networks, for git to keep: written into a folder, and counted as done where keys agree.

FOLDER/runs/<stage>/<name>-<key>/ is the folder of a run, less its networks and its notebook. Of the scores of a test
image only the class that was chosen remains, on which tables and contrasts rest; labels that may hold together keep
theirs. Beside runs/ stand results.csv and summary.csv, and provenance.json, which says what they come from.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ssl_core.archive import without_places
from ssl_core.config import ConfigError
from ssl_core.files import atomic_json, atomic_write, outputs, replacing, root, sha256_file
from ssl_core.provenance import provenance
from ssl_core.runs import agree, cell_files, damage, read_run
from ssl_core.states import DONE, TO_RUN, alike, difference
from ssl_core.table import arrange, read_plan, read_text

RECORDS = ("run.json", "history.csv", "model.json")
WHY = "adopted: rows only, without weights"


def write_cells(study, to, study_file=None):
    """Add the finished runs of a study to the folder `to`, and make its tables anew → (runs added, cells there).

    What is there stays as it is. study_file: by default params/studies/STUDY.yaml. Raises FileNotFoundError where the
    study has not run, ConfigError where nothing of it is finished.
    """
    to, added, tables, records = Path(to), 0, [], {}
    for job in read_plan(study)["jobs"]:
        source = root() / job["folder"]
        target = to / "runs" / job["stage"] / source.name
        if damage(target):
            if read_run(source).get("status") != "done" or damage(source):
                continue
            write_run(source, target)
            added += 1
        records[f"{job['stage']}/{source.name}"] = read_run(target)
        tables += map(read_text, sorted(target.glob("cells/*.csv")))
    if not records:
        raise ConfigError(f"study {study!r} has no finished run yet; run it first")
    rows = arrange(tables)
    atomic_write(to / "results.csv", rows.to_csv(index=False, lineterminator="\n"))
    (to / "summary.csv").unlink(missing_ok=True)  # of fewer cells
    compared = outputs() / study / "results.csv"
    if compared.exists() and set(read_text(compared).key) == set(rows.key) and (summary := compared.with_name(
            "summary.csv")).exists():
        atomic_write(to / "summary.csv", summary.read_bytes())
    given = Path(study_file or root() / "params" / "studies" / f"{study}.yaml")
    atomic_json(to / "provenance.json", provenance(study, given, records))
    return added, len(tables)


def write_run(source, target):
    """One run's records, rows and chosen classes; done.json comes last."""
    names = [*RECORDS, *(path.relative_to(source).as_posix() for kind in ("cells/*.csv", "models/*/history.csv")
                         for path in sorted(source.glob(kind)))]
    written = [name for name in names if (source / name).exists()]
    for name in written:
        atomic_write(target / name, without_places(source / name))
    for path in sorted(source.glob("cells/*.npz")):
        with np.load(path, allow_pickle=False) as kept, replacing(target / "cells" / path.name) as temporary:
            np.savez_compressed(temporary, **chosen(kept))
        written.append(f"cells/{path.name}")
    files = {name: sha256_file(target / name) for name in written}
    for path in sorted(target.glob("cells/*.csv")):
        own = {name: digest for name, digest in files.items() if Path(name).stem == path.stem}
        atomic_json(path.with_suffix(".json"), own)
    atomic_json(target / "done.json", {"key": read_run(target)["key"], "adopted": True, "files": files})


def chosen(kept):
    """Of a cell's arrays those that contrasts read, as small as they can be."""
    arrays = {name: kept[name] for name in ("classes", "task", "frequency")}
    arrays |= {name: small(kept[name]) for name in ("labels", "groups")}
    if "predicted" in kept:
        return arrays | {"predicted": kept["predicted"]}
    if str(kept["task"]) == "multilabel":
        return arrays | {"probabilities": kept["probabilities"]}
    return arrays | {"predicted": small(kept["probabilities"].argmax(1))}


def small(numbers):
    """Whole numbers in the smallest type that holds them."""
    return numbers.astype(np.result_type(np.min_scalar_type(numbers.min()), np.min_scalar_type(numbers.max())))


# --- and back ---------------------------------------------------------------------------------------------------------

def adopt(plan, folder, older_code=False):
    """Count as done what a folder of `write_cells` holds under a plan's keys → one line: how much, and why not more.

    A pretraining is adopted when nothing that is to run needs its network. Nothing in the folder is changed.
    older_code: also what other code made from the same parameters and inputs; job.key becomes that run's.
    """
    folder, refused, found = Path(folder).resolve(), {}, {}
    if not (folder / "runs").is_dir():
        raise ConfigError(f"--adopt {folder.name}: no runs/ in it; give a folder that `export STUDY --cells` wrote")
    for job in plan.jobs:
        found[job.key] = held_run(job, folder / "runs" / job.stage, older_code, found)
    for job in reversed(plan.jobs):
        place, held = folder / "runs" / job.stage, found[job.key]
        needed = any(need is job for other in plan.to_run for need in other.needs)
        if job.state != TO_RUN or held and needed:
            continue
        if held is None:
            why = difference(replace(job, folder=place / job.folder.name))
        elif wrong := damage(held) or lacking(job, held):
            why = f"{wrong} in {held.name}"
        else:
            job.state, job.why, job.folder, job.missing, job.adopted = DONE, WHY, held, set(), True
            job.older, job.key = job.older or not held.name.endswith(job.key), held.name.rpartition("-")[2]
            continue
        if why != "new":
            refused[why] = refused.get(why, 0) + 1
            job.why = why if job.why == "new" else job.why
    adopted = [job for job in plan.jobs if job.adopted]
    line = f"{len(adopted)} of {len(plan.jobs)} jobs adopted from {folder.name}"
    if older := sum(job.older for job in adopted):
        line += f", {older} made by older code"
    return "; ".join([line, *(f"{n} not: {why}" for why, n in refused.items())])


def held_run(job, place, older_code, found):
    """The folder of a run that stands for a job, or None. found: those of the jobs before it, by key."""
    exact = next(place.glob(f"*-{job.key}"), None)
    if exact or not older_code:
        return exact
    inputs = {name: found[of].name.rpartition("-")[2] if found.get(of) else of
              for name, of in job.parts["inputs"].items()}
    return next(alike(place, job.parts["parameters"], inputs), None)


def lacking(job, held):
    """A cell of a job that a run's folder does not hold, in words, or ""."""
    absent = next((cell.id for cell in job.cells if not agree(held, cell_files(held, cell.id))), None)
    return f"cell {absent} missing" if absent else ""
