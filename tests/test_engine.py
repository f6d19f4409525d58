"""Studies run for real, by Snakemake and papermill: killed, refused, failing, repeated, on one job or two."""

import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml
from toy_project import edit, make_project, write_notebook

from ssl_core import nb, report
from ssl_core.runs import read_run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="bulk runs need a POSIX system")
STUDY = {
    "name": "toy", "question": "Does it run?", "data": {"dataset": "toy"},
    "splits": {"kind": "long_tail", "ratios": [10]},
    "arms": [{"name": "simclr", "method": "simclr"}], "evaluate": {"budgets": [0.5, 1.0]}, "floors": ["majority"],
}
FAILING = {"name": "mae", "method": "mae", "method_args": {"fail": 1}}


def start(project, *words, **changes):
    """A run of the toy study as a process group of its own."""
    (project / "toy.yaml").write_text(yaml.safe_dump(STUDY | changes))
    environment = os.environ | {"SSL_CORE_ROOT": str(project), "PYTHONPATH": str(project)}
    environment.pop("SSL_CORE_OUTPUTS", None)
    return subprocess.Popen([sys.executable, "-m", "ssl_core", "run", "toy.yaml", *words], cwd=project, env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def run(project, *words, **changes):
    """Exit code and what was said."""
    process = start(project, *words, **changes)
    return process.communicate(timeout=150)[0], process.returncode


def computed(project):
    return sorted((project / "log.txt").read_text().split())


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project whose study ran once, with an arm that fails: (project, what was said, exit code)."""
    project = make_project(tmp_path_factory.mktemp("project"))
    said, code = run(project, arms=[*STUDY["arms"], FAILING])
    return project, said, code


def test_a_failing_job_stops_only_what_rests_on_it(finished):
    project, said, code = finished
    assert code == 1
    reason = "10_pretrain.ipynb, cell 4: FloatingPointError: the loss was not finite at step 7"
    assert re.search(rf"\[./5\] pretrain mae-toy-lt10-d0o0-s0  failed: {re.escape(reason)}", said)
    assert re.search(r"\[./5\] probe simclr-toy-lt10-d0o0-s0  \d+ s\n", said)
    assert "1 more jobs rest on these" in said and said.endswith("6 of 10 cells; outputs/toy/index.html\n")
    folder = next(project.glob("outputs/toy/runs/pretrain/mae-*"))
    assert read_run(folder)["reason"] == reason and (folder / "failed.ipynb").exists()
    assert not list(folder.glob("done.json")) and not list(folder.glob("report.ipynb"))
    assert len((project / "outputs" / "toy" / "results.csv").read_text().splitlines()) == 1 + 6


def test_repeated_it_finds_nothing_to_do(finished):
    project, _, _ = finished
    said, code = run(project)
    assert code == 0 and "0 of 3 jobs to run, 6 of 6 cells there" in said and "40_compare …" in said
    rows, log = (project / "outputs" / "toy" / "results.csv").read_bytes(), computed(project)
    report = (project / "outputs" / "toy" / "40_compare.ipynb").stat().st_mtime_ns
    said, code = run(project)
    assert code == 0 and "40_compare" not in said and log == computed(project)
    assert (project / "outputs" / "toy" / "results.csv").read_bytes() == rows
    assert (project / "outputs" / "toy" / "40_compare.ipynb").stat().st_mtime_ns == report


def test_what_is_damaged_is_named_and_made_again(finished):
    project, _, _ = finished
    run(project)
    before = len(computed(project))
    next(project.glob("outputs/toy/runs/probe/simclr-*/cells/knn-b1-s0.csv")).write_text("bent")
    edit(project / "notebooks" / "40_compare.ipynb", "rows", "lines")
    said, code = run(project)
    assert code == 0 and "probe simclr-toy-lt10-d0o0-s0: cells/knn-b1-s0.csv changed; it runs again" in said
    assert len(computed(project)) == before + 1 and "40_compare …" in said


def test_other_notebooks_follow_the_comparison_and_where_one_fails_the_study_has_not(finished):
    project, _, _ = finished
    folder = project / "outputs" / "toy"
    write_notebook(project / "notebooks" / "41_layers.ipynb", {"study": ""}, ["raise ValueError('a <bent> layer')"])
    write_notebook(project / "notebooks" / "43_claims.ipynb", {"studies": []}, ["print(studies)"])
    said, code = run(project)
    failed = ("41_layers failed: 41_layers.ipynb, cell 3: ValueError: a <bent> layer\n"
              "    outputs/toy/41_layers.failed.ipynb")
    assert code == 0 and failed in said and "43_claims …" in said
    assert "['toy']" in (folder / "43_claims.ipynb").read_text()
    lines = [report.said_of(name, path) for name, path in report.more(folder).items()]
    assert lines == ['<a href="41_layers.failed.html">41_layers</a>: failed. ValueError: a &lt;bent&gt; layer',
                     '<a href="43_claims.html">43_claims</a>: 43_claims']
    edit(project / "notebooks" / "41_layers.ipynb", "raise", "error =")
    said, code = run(project)
    assert code == 0 and "41_layers …" in said and "failed" not in said and "43_claims" not in said
    assert list(report.more(folder).values()) == [folder / "41_layers.ipynb", folder / "43_claims.ipynb"]


def test_a_second_start_is_refused_and_a_stop_ends_everything(tmp_path):
    project = make_project(tmp_path)
    first = start(project, arms=[{"name": "simclr", "method": "simclr", "epochs": 500}])
    running = project / "outputs" / "toy" / "runs" / "pretrain"
    wait_for(lambda: list(running.glob("*/progress.json")))
    said, code = run(project)
    assert code == 1 and said == "toy is being run already; wait for that to end, or stop it, then start again\n"
    family = psutil.Process(first.pid).children(recursive=True)
    assert len(family) >= 3  # Snakemake, papermill, a kernel
    first.send_signal(signal.SIGTERM)
    assert "the same command goes on from here" in first.communicate(timeout=30)[0] and first.returncode == 1
    assert not [member for member in family if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]

    first = start(project, arms=[{"name": "simclr", "method": "simclr", "epochs": 500}])
    wait_for(lambda: list(running.glob("*/progress.json")))
    family = psutil.Process(first.pid).children(recursive=True)
    os.kill(first.pid, signal.SIGKILL)  # of the driver alone: nobody goes on working behind its back
    first.communicate()
    wait_for(lambda: not [member for member in family if member.is_running()], seconds=15)


@pytest.mark.slow
def test_killed_at_any_moment_and_on_any_number_of_jobs_the_rows_are_the_same(tmp_path):
    (tmp_path / "undisturbed").mkdir()
    project = make_project(tmp_path / "undisturbed")
    assert run(project, "--jobs", "2")[1] == 0
    rows = (project / "outputs" / "toy" / "results.csv").read_bytes()
    (tmp_path / "killed").mkdir()
    project = make_project(tmp_path / "killed")
    for seconds in (3.0, 6.5, 9.0, 11.5):
        process = start(project, "--jobs", "1")
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert run(project, "--jobs", "1")[1] == 0
    assert (project / "outputs" / "toy" / "results.csv").read_bytes() == rows
    assert len(computed(project)) <= 7 + 4  # one at most was lost a kill


def execute(tmp_path, monkeypatch, body, parameters):
    monkeypatch.setenv("SSL_CORE_ROOT", str(tmp_path))
    write_notebook(tmp_path / "note.ipynb", {"a": 1, "b": "x"}, [body])
    nb.execute(tmp_path / "note.ipynb", tmp_path / "out", parameters)


def test_an_unknown_parameter_never_starts_a_kernel(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="note.ipynb has no parameter 'c'; it takes: a, b"):
        execute(tmp_path, monkeypatch, "", {"c": 1})
    assert not (tmp_path / "out").exists()


def test_a_dead_kernel_is_said_to_be_dead(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="note.ipynb: the kernel died"):
        execute(tmp_path, monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", {"a": 2})
    assert (tmp_path / "out" / "failed.ipynb").exists() and not (tmp_path / "out" / "report.ipynb").exists()


def test_parameters_arrive_as_they_are(tmp_path, monkeypatch):
    values = {"a": 1e-05, "b": [0.5, {"deep": "text", "none": None}]}
    execute(tmp_path, monkeypatch, f"assert (a, b) == ({values['a']!r}, {values['b']!r})", values)
    assert (tmp_path / "out" / "report.ipynb").exists()


def test_jobs_share_out_graphics_cards(tmp_path, monkeypatch):
    held = []
    for card in ("0", "1"):
        monkeypatch.setattr(os, "environ", {})
        held.append(nb.lease_graphics_card(tmp_path, 2))
        assert os.environ == {"CUDA_VISIBLE_DEVICES": card}
    assert nb.lease_graphics_card(tmp_path, 2) is None  # a cluster has chosen already
    held[0].release()
    monkeypatch.setattr(os, "environ", {})
    held[0] = nb.lease_graphics_card(tmp_path, 2)
    assert os.environ == {"CUDA_VISIBLE_DEVICES": "0"}
    for lease in held:
        lease.release()
