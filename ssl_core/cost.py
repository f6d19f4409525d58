"""What a plan costs, by what former runs on this machine took: seconds and bytes, or None where none was alike."""

import json
from dataclasses import dataclass
from statistics import median

from ssl_core.files import outputs
from ssl_core.runs import read_run
from ssl_core.states import TO_RUN

ALIKE = {
    "pretrain": ("method", "encoder", "encoder_args", "stem", "image_size", "precision", "device"),
    "probe": ("dataset", "image_size", "resamples"),
    "finetune": ("dataset", "encoder", "encoder_args", "image_size", "steps", "epochs", "batch", "train", "select"),
}


@dataclass(frozen=True)
class Cost:
    seconds: float | None
    n_bytes: float | None


def former_runs() -> dict:
    """By what makes runs alike, the seconds per unit of work (start-up included) and the bytes of each finished one."""
    found = {}
    for path in outputs().glob("*/runs/*/*/run.json"):
        record = read_run(path.parent)
        if record.get("status") == "done" and "job_seconds" in record:
            cells = sum(name.endswith(".csv") and name.startswith("cells/") for name in record["files"])
            amount = work(record["stage"], record["parameters"], record["n_unlabelled"], cells)
            size = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
            measured = (record["job_seconds"] / amount, size)
            found.setdefault(alike(record["stage"], record["parameters"]), []).append(measured)
    return found


def cost(job, former) -> Cost:
    """Of a job to run; of one that only remakes its report, next to nothing."""
    values = job.cfg.model_dump()
    runs = former.get(alike(job.stage, values))
    if not runs:
        return Cost(None, None)
    amount = work(job.stage, values, job.n_unlabelled, len(job.missing)) if job.state == TO_RUN else 0
    return Cost(median(seconds for seconds, _ in runs) * amount, median(size for _, size in runs))


def alike(stage, values):
    return json.dumps([stage, bool(values.get("run")), *(values.get(name) for name in ALIKE[stage])])


def work(stage, values, n_unlabelled, cells):
    """Images seen by a pretraining; cells of the other stages."""
    if stage != "pretrain":
        return max(cells, 1)
    return values["epochs"] * n_unlabelled + values["steps"] * min(values["batch"], n_unlabelled)
