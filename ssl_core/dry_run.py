"""What a dry run prints of a plan: jobs, cells, hours and GB by stage, what to be told of its arms, and commands."""

import shlex

import pandas as pd
import yaml

from ssl_core.cost import alike, cost, former_runs, work
from ssl_core.data import load
from ssl_core.data.pools import pools
from ssl_core.plan import notebook_of, shown
from ssl_core.states import STALE, TO_RUN


def unfit(plan) -> list:
    """What is to be said of pretrainings that are to run; ConfigError where one cannot be put together."""
    if not any(job.stage == "pretrain" for job in plan.to_run):
        return []
    from ssl_core.measure import refuse_unfit  # brings torch

    return refuse_unfit(plan)


def plan_table(plan, at_once) -> str:
    """The plan by stage: jobs, cells, what is to run, hours of work and GB on disk."""
    former, rows = former_runs(), []
    for stage in dict.fromkeys(job.stage for job in plan.jobs):
        jobs = [job for job in plan.jobs if job.stage == stage]
        costs = [cost(job, former) for job in jobs if job.state == TO_RUN]
        seconds, sizes = [c.seconds for c in costs], [c.n_bytes for c in costs]
        rows.append({"stage": stage, "jobs": len(jobs), "to run": len(costs),
                     "only report": sum(job.state == STALE for job in jobs),
                     "cells": sum(len(job.cells) for job in jobs),
                     "cells there": sum(len(job.cells) - len(job.missing) for job in jobs),
                     "hours": "?" if None in seconds else f"{sum(seconds) / 3600:.2f}",
                     "GB": "?" if None in sizes else f"{sum(sizes) / 1e9:.2f}"})
    lines = [f"{plan.study.name}: {plan.study.question}", pd.DataFrame(rows).to_string(index=False),
             f"{plan.cells_there} of {plan.cells_in_all} cells there"]
    hours = [row["hours"] for row in rows]
    if "?" in hours:
        lines.append("hours marked ? are not known: nothing alike has run here; --measure tries ten steps "
                     "of each pretraining")
    else:
        lines.append(f"about {sum(map(float, hours)) / at_once:.2f} hours with {at_once} jobs at once")
    return "\n".join(lines)


def papermill_command(job) -> str:
    """What makes the same run by hand, from the project's folder."""
    words = ["papermill", shown(notebook_of(job.stage)), "out.ipynb"]
    for name, value in job.params.items():
        if isinstance(value, (dict, list)):  # as YAML writes it: 1.0e-05, which it also reads as a number
            words += ["-y", yaml.safe_dump({name: value}, default_flow_style=True, width=10**6).strip()]
        else:
            words += ["-r" if isinstance(value, str) else "-p", name, str(value)]
    return shlex.join(words)


def measured_table(plan) -> str:
    """Ten steps of each distinct pretraining configuration on this machine, and what they mean for the plan."""
    from ssl_core.measure import measure  # brings torch

    rows = {}
    for job in plan.jobs:
        if job.stage == "pretrain":
            cfg = job.cfg
            same = alike("pretrain", cfg.model_dump() | {"precision": (cfg.precision, cfg.batch)})
            if same not in rows:
                data = load(cfg.dataset, cfg.image_size)
                found = measure(cfg, data.images[pools(data, **cfg.pool_arguments()).unlabelled])
                rows[same] = {"first arm": cfg.arm, "jobs": 0, "hours": 0.0, **found}
            row, batch = rows[same], min(cfg.batch, job.n_unlabelled)
            row["jobs"] += 1
            steps = work("pretrain", cfg.model_dump(), job.n_unlabelled, 0) / batch
            row["hours"] += steps * row["seconds_per_step"] / 3600
    return pd.DataFrame(list(rows.values())).to_string(index=False, float_format="%.3g")
