"""One papermill execution: python -m ssl_core.nb NOTEBOOK FOLDER --params JSON

The notebook runs into FOLDER/running.ipynb, which becomes FOLDER/report.ipynb when all went well and
FOLDER/failed.ipynb when not. Whether a run is finished is never read out of a notebook: done.json says it.
"""

import argparse
import ast
import contextlib
import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

from ssl_core import keys
from ssl_core.files import root

STARTS = 3  # a kernel that never came up has run nothing: it is safe to start it again


def cells_of(notebook):
    """(source, tags) of every cell of a notebook file."""
    for cell in json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]:
        yield "".join(cell["source"]), cell["metadata"].get("tags", [])


def parameters_of(notebook) -> dict:
    """Name → default of the cell tagged `parameters`, read as text: only literals may stand there."""
    source = next((source for source, tags in cells_of(notebook) if "parameters" in tags), "")
    found = {}
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        found[target.id] = ast.literal_eval(node.value)
    return found


SHOWN = ["analysis.plots", "analysis.panel", "analysis.compare", "analysis.alarms", "notebook"]


def stamp(notebook) -> str:
    """What an executed report shows besides the result: the notebook's own cells and the code of the figures."""
    state = json.dumps([[source for source, _ in cells_of(notebook)], keys.code_slice(SHOWN)])
    return hashlib.sha256(state.encode()).hexdigest()[:12]


def execute(notebook, folder, parameters, report="report.ipynb"):
    """Run a notebook with papermill into a folder; raises RuntimeError with one line when it fails.

    The failed copy stays as failed.ipynb, or as NAME.failed.ipynb of the report NAME.ipynb. Unknown parameters are
    refused before a kernel starts.
    """
    known = parameters_of(notebook)
    if unknown := [name for name in parameters if name not in known]:
        raise RuntimeError(f"{notebook.name} has no parameter {unknown[0]!r}; it takes: {', '.join(known)}")
    folder.mkdir(parents=True, exist_ok=True)
    running = folder / "running.ipynb"
    try:
        _papermill(notebook, running, parameters)
    except RuntimeError:
        with contextlib.suppress(FileNotFoundError):
            os.replace(running, folder / failed_name(report))
        raise
    with open(running, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(running, folder / report)
    (folder / failed_name(report)).unlink(missing_ok=True)


def failed_name(report):
    """What a notebook is called that failed on its way to this report."""
    return "failed.ipynb" if report == "report.ipynb" else report.replace(".ipynb", ".failed.ipynb")


def without_grammar():
    """Spare imports of nbformat a second each: a grammar that jsonschema builds to check addresses no notebook has."""
    sys.modules.setdefault("rfc3987_syntax", None)


def _papermill(notebook, running, parameters):
    without_grammar()
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    for start in range(1, STARTS + 1):
        try:
            papermill.execute_notebook(str(notebook), str(running), parameters, progress_bar=False, cwd=str(root()),
                                       kernel_name="python3", config=_kernel_config())
            return
        except PapermillExecutionError as error:
            message = " ".join(str(error.evalue).split())
            raise RuntimeError(f"{notebook.name}, cell {error.exec_count}: {error.ename}: {message}") from None
        except DeadKernelError:
            raise RuntimeError(f"{notebook.name}: the kernel died (out of memory?)") from None
        except RuntimeError as error:
            if "before replying" not in str(error) or start == STARTS:
                raise RuntimeError(f"{notebook.name}: {' '.join(str(error).split())}") from None


def _kernel_config():
    """Unix sockets where there are some: kernels that start together then cannot race for a TCP port."""
    from traitlets.config import Config

    config = Config()
    if os.name == "posix":
        config.KernelManager.transport = "ipc"
        config.KernelManager.ip = f"{tempfile.gettempdir()}/k-{uuid.uuid4().hex[:12]}"  # a socket's path is ≤ 108 bytes
    return config


def end_with_parent():
    """End this process when the one that started it is gone, so that a kill leaves nobody working behind its back."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()


def lease_graphics_card(locks, count):
    """Show this process one of `count` cards that no other job of the study holds; the lease ends with the process."""
    from filelock import FileLock, Timeout

    while "CUDA_VISIBLE_DEVICES" not in os.environ:  # a cluster has set it
        for card in range(count):
            lock = FileLock(locks / f"card{card}.lock", timeout=0)
            with contextlib.suppress(Timeout):
                lock.acquire()
                os.environ["CUDA_VISIBLE_DEVICES"] = str(card)
                return lock
        time.sleep(1)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m ssl_core.nb", description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--params", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--gpus", type=int, default=0, help="graphics cards that the study shares out, one per job")
    parser.add_argument("--report", default="report.ipynb", help="another name: a notebook that makes no run")
    arguments, started = parser.parse_args(argv), time.monotonic()
    end_with_parent()
    from ssl_core.files import atomic_json
    from ssl_core.runs import mark_failed, read_run

    os.environ["SSL_CORE_BATCH"] = "1"  # static figures, no widgets, no progress bars
    notebook, folder = arguments.notebook.resolve(), arguments.folder.resolve()
    makes_run = arguments.report == "report.ipynb"
    lease = lease_graphics_card(folder.parents[2] / ".locks", arguments.gpus) if arguments.gpus else None
    before = stamp(notebook)
    try:
        execute(notebook, folder, arguments.params, arguments.report)
        if makes_run and not (folder / "done.json").exists():
            raise RuntimeError(f"{notebook.name} made another run than {folder.name}; was code edited meanwhile?")
    except RuntimeError as error:
        finished = (folder / "done.json").exists()  # then only its report failed to be made again
        if makes_run and not finished and "is being made by another process" not in str(error):
            mark_failed(folder, str(error))
        sys.exit(str(error))
    if makes_run:
        record = read_run(folder)
        seconds = max(record.get("job_seconds", 0), round(time.monotonic() - started, 1))  # a remade report is quicker
        atomic_json(folder / "run.json", record | {"report": before, "job_seconds": seconds})
    if lease:
        lease.release()


if __name__ == "__main__":
    main()
