"""What of a plan is done already, and in a word why the rest is not."""

from dataclasses import replace

from ssl_core.runs import agree, cell_files, damage, encoder_below, read_run

DONE, STALE, TO_RUN = "done", "report stale", "to run"


def assess(job, stamp, older_code=False):
    """Set a job's state, why, and the ids of the cells it misses; the jobs it needs were assessed before.

    stamp: what its executed report should show. older_code: a finished run of the same parameters and inputs is taken
    though other code made it; job.key and job.folder become that run's.
    """
    job.older = any(need.older for need in job.needs)
    job.state, job.why = _state(job, stamp)
    if job.state == TO_RUN and older_code and (other := _made_by_older_code(job)):
        job.key, job.folder, job.older = other.key, other.folder, True
        job.state, job.why = DONE, "made by older code"
    job.missing = {cell.id for cell in job.cells if not agree(job.folder, cell_files(job.folder, cell.id))}


def _state(job, stamp):
    record = read_run(job.folder)
    if above := [need for need in job.needs if need.state == TO_RUN]:
        return TO_RUN, f"rests on {above[0].name}, which runs" + (" again" if record else "")
    if not record:
        return TO_RUN, "run.json missing" if (job.folder / "done.json").exists() else difference(job)
    problem = damage(job.folder)
    if problem == "done.json missing" and record.get("status") != "done":
        return TO_RUN, f"failed: {record['reason']}" if record.get("status") == "failed" else "interrupted"
    if problem:
        return TO_RUN, problem
    if record.get("below") != encoder_below(job.cfg):
        return TO_RUN, "the encoder below it was made anew"
    if why := _missing_cell(job):
        return TO_RUN, why
    if stamp and not (job.folder / "report.ipynb").exists():
        return STALE, "report.ipynb missing"
    if stamp and record.get("report") != stamp:
        return STALE, "the notebook's text or a figure changed"
    return DONE, ""


def _missing_cell(job):
    """The first cell that a finished job does not have, by what is new about it; "" when all are there."""
    there = [cell for cell in job.cells if cell_files(job.folder, cell.id)]
    for cell in job.cells:
        if cell in there:
            continue
        for name, what in (("source", "floor"), ("protocol", "protocol"), ("budget", "budget")):
            if getattr(cell, name) not in [getattr(other, name) for other in there]:
                return f"{what} {getattr(cell, name)} added"
        return f"cell {cell.id} missing"
    return ""


def _made_by_older_code(job):
    """The newest finished run of the same parameters and inputs, as a job, or None."""
    found = (replace(job, key=folder.name.rpartition("-")[2], folder=folder)
             for folder in alike(job.folder.parent, job.parts["parameters"], job.parts["inputs"]))
    return next((other for other in found if _state(other, None)[0] == DONE), None)


def alike(place, parameters, inputs):
    """Folders below `place` of finished runs of these parts of a key, whatever code made them, the newest first."""
    for done in sorted(place.glob("*/done.json"), key=lambda path: -path.stat().st_mtime):
        parts = read_run(done.parent).get("parts", {})
        if (parts.get("parameters"), parts.get("inputs")) == (parameters, inputs):
            yield done.parent


def difference(job) -> str:
    """What separates a job that never ran from the run of its readable name that is most alike: 'lr 0.001 → 0.01'."""
    former = [path.parent for path in job.folder.parent.glob(f"{job.name}-*/run.json")
              if path.parent.name.rpartition("-")[0] == job.name]
    parts = filter(None, (read_run(folder).get("parts") for folder in sorted(former, key=lambda f: -f.stat().st_mtime)))
    return ", ".join(min((_words(old, job.parts) for old in parts), key=len, default=[])) or "new"


def _words(old, new):
    """What differs between the parts of two keys."""
    words = [f"{name} {before!r} → {after!r}" for name, before, after in _changes(old, new, "parameters")]
    words += [f"{'the encoder below' if name == 'run' else name} changed" for name, *_ in _changes(old, new, "inputs")]
    return words + [f"{name.replace('.', '/')}.py changed" for name, *_ in _changes(old, new, "code")]


def _changes(old, new, part):
    old, new = old[part], new[part]
    return [(name, old.get(name), new.get(name)) for name in sorted(old | new) if old.get(name) != new.get(name)]
