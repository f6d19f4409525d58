"""A study, run: Snakemake over its jobs with a live line for each, then the table, the comparison and the page."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import psutil
from filelock import FileLock, Timeout

from ssl_core.adopt import adopt
from ssl_core.files import atomic_json, atomic_write, outputs, root, sha256_file
from ssl_core.keys import PACKAGE, code_slice
from ssl_core.live import Live
from ssl_core.nb import cells_of, end_with_parent, failed_name, without_grammar
from ssl_core.plan import make_plan, shown
from ssl_core.runs import collect
from ssl_core.states import TO_RUN

COMPARE, LAYERS, CLAIMS = "40_compare", "41_layers", "43_claims"


def run_study(study, jobs=None, older_code=False, options=(), adopt_from="") -> int:
    """Make everything of a study that is not there; 0 when all is, 1 when something failed, and says what.

    jobs: at once, in place of the study's. options: handed on to Snakemake. adopt_from: a folder of finished cells.
    """
    if os.name == "nt":
        print("bulk runs need Linux, macOS or WSL; on Windows itself single notebooks run: see --dry-run --commands")
        return 1
    folder = outputs() / study.name
    (folder / ".locks").mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".locks" / "study.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        print(f"{study.name} is being run already; wait for that to end, or stop it, then start again")
        return 1
    try:
        plan, line = planned(study, older_code, adopt_from)
        tidy(plan)
        atomic_json(folder / "plan.json", plan.as_dict())
        print(line, end="")
        print(f"{study.name}: {len(plan.to_run)} of {len(plan.jobs)} jobs to run, "
              f"{plan.cells_there} of {plan.cells_in_all} cells there", *plan.notes, sep="\n", flush=True)
        if plan.to_run:
            execute(plan, folder, jobs or study.resources.jobs, options)
            plan, _ = planned(study, older_code, adopt_from)
        atomic_write(folder / "results.csv", collect(plan.jobs).to_csv(index=False, lineterminator="\n"))
        atomic_json(folder / "plan.json", plan.as_dict())
        compared = remake(COMPARE, folder, {"study": study.name})
        for name, parameters in ((LAYERS, {"study": study.name}), (CLAIMS, {"studies": [study.name]})):
            remake(name, folder, parameters)  # where it fails, that is told here and on the page, and the study is done
        page = show(folder, study.name)
    finally:
        lock.release()
    tell_failures(plan)
    print(f"{plan.cells_there} of {plan.cells_in_all} cells; {page}")
    return 0 if compared and not plan.to_run else 1


def planned(study, older_code, adopt_from):
    """The plan, and a line of what it adopts, or ""."""
    plan = make_plan(study, older_code, near=True)
    return plan, f"{adopt(plan, adopt_from, older_code)}\n" if adopt_from else ""


def tidy(plan):
    """Remove what does not hold, by name, so that exactly what is to run is missing; and what a killed run left."""
    for job in plan.to_run:
        if job.state == TO_RUN and (job.folder / "done.json").exists():
            print(f"{job.stage} {job.name}: {job.why}; it runs again")
            (job.folder / "done.json").unlink()
        for name in ("report.ipynb", "running.ipynb", "progress.json"):
            (job.folder / name).unlink(missing_ok=True)
    for left in (outputs() / plan.study.name).rglob("*.tmp*"):
        if time.time() - left.stat().st_mtime > 3600:
            left.unlink(missing_ok=True)


def execute(plan, folder, jobs, options):
    """Snakemake over the jobs to run; it and all it started end when this process is told to."""
    resources = plan.study.resources
    command = [sys.executable, "-m", "ssl_core.engine", "--snakefile", root() / "Snakefile", "--directory", root(),
               "--profile", root() / "params" / "profiles" / "local", "--cores", str(jobs * resources.threads),
               "--resources", f"gpu={resources.gpus}", "--config", f"plan={folder / 'plan.json'}", *options]
    environment = os.environ | {"SSL_CORE_ROOT": str(root()), "SSL_CORE_OUTPUTS": str(outputs()), "PYTHONUTF8": "1"}
    environment |= {name: str(resources.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    live = Live(plan, jobs)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # both then arrive as KeyboardInterrupt
    with open(folder / "engine.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   env=environment, cwd=root())
        try:
            while process.poll() is None:
                live.update()
                time.sleep(0.3)
            live.update()
        except KeyboardInterrupt:
            end(process)
            print("\nstopped; what is finished stays, and the same command goes on from here")
            raise SystemExit(1) from None
        finally:
            live.close()
            signal.signal(signal.SIGTERM, before)


def end(process):
    """End a process and all its descendants at once, itself first so that it starts no others; runs survive a kill."""
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=5)


# --- after the jobs ---------------------------------------------------------------------------------------------------

def remake(name, folder, parameters) -> bool:
    """Execute a notebook about the study when rows, states, claims, its text or its code are new; False when it failed.
    """
    notebook = root() / "notebooks" / f"{name}.ipynb"
    if not notebook.exists():
        return True
    analysis = [f"analysis.{path.stem}" for path in sorted((PACKAGE / "analysis").glob("[!_]*.py"))]
    claims = sorted((root() / "params" / "claims").glob("*.yaml")) if name in (COMPARE, CLAIMS) else []
    state = [*map(sha256_file, [folder / "results.csv", folder / "plan.json", *claims]), code_slice(analysis),
             [source for source, _ in cells_of(notebook)]]
    stamp = hashlib.sha256(json.dumps(state).encode()).hexdigest()
    noted = folder / ".locks" / f"{name.partition('_')[2]}.stamp"
    if (folder / f"{name}.ipynb").exists() and noted.exists() and noted.read_text() == stamp:
        return True
    print(f"{name} …", flush=True)
    command = [sys.executable, "-m", "ssl_core.nb", notebook, folder, "--report", f"{name}.ipynb",
               "--params", json.dumps(parameters)]
    done = subprocess.run(command, cwd=root(), stderr=subprocess.PIPE, text=True)
    if done.returncode:
        print(f"{name} failed: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}\n"
              f"    {shown(folder / failed_name(f'{name}.ipynb'))}")
        return False
    atomic_write(noted, stamp)
    return True


def show(folder, study):
    """The page, from whatever the comparison last put out → where it lies."""
    without_grammar()
    from ssl_core.report import build

    return shown(build(study)) if (folder / f"{COMPARE}.ipynb").exists() else "no page, as there is no comparison"


def tell_failures(plan):
    failed = [job for job in plan.to_run if not job.why.startswith("rests on")]
    for job in failed:
        print(f"{job.stage} {job.name}: {job.why}\n    {shown(job.folder)}")
    if waiting := len(plan.to_run) - len(failed):
        print(f"{waiting} more jobs rest on these")


if __name__ == "__main__":  # Snakemake, but ending with the process that started it
    end_with_parent()
    from snakemake.cli import main

    main(sys.argv[1:])
