# The jobs of one study as a graph: each makes its folder's done.json and report.ipynb by one papermill execution.
# `python -m ssl_core run STUDY.yaml` writes the plan read here and says what is to run: a job is named by its key, so
# that neither times nor parameters have to be compared. Folders are wildcards; everything else stands in the plan.
import json
import sys
from pathlib import Path

PLAN = json.loads(Path(config["plan"]).read_text(encoding="utf-8"))
JOBS = {job["folder"]: job for job in PLAN["jobs"] if job["state"] != "done"}


rule all:
    input:
        [f"{folder}/{name}" for folder in JOBS for name in ("done.json", "report.ipynb")],


rule job:
    input:
        ancient(lambda wildcards: [f"{need}/done.json" for need in JOBS[wildcards.folder]["needs"] if need in JOBS]),
    output:
        "{folder}/done.json",
        "{folder}/report.ipynb",
    params:
        notebook=lambda wildcards: JOBS[wildcards.folder]["notebook"],
        values=lambda wildcards: json.dumps(JOBS[wildcards.folder]["params"]),
    priority: lambda wildcards: JOBS[wildcards.folder]["priority"]
    threads: PLAN["threads"]
    resources:
        gpu=min(1, PLAN["gpus"]),
    shell:
        "exec {sys.executable} -m ssl_core.nb {params.notebook:q} {wildcards.folder:q} --params {params.values:q}"
        " --gpus {PLAN[gpus]}"
