"""start.py: what it refuses before a download, what it makes anew, what it repairs, and what it then runs."""

import ast
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

START = Path(__file__).parents[1] / "start.py"
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and exec")
Usage = namedtuple("Usage", "total used free")
DISK_GB = 9.4 if sys.platform.startswith("linux") else 3
VERSION = "{}.{}".format(*sys.version_info[:2])

# A project whose set-up needs no network: its build backend is part of it.
BACKEND = """
import os, time, zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    time.sleep(float(os.environ.get("TOY_SLEEP", 0)))
    if os.environ.get("TOY_FAIL"):
        raise OSError("no room for the toy")
    info = "toy-1.0.dist-info/"
    with zipfile.ZipFile(os.path.join(folder, "toy-1.0-py3-none-any.whl"), "w") as wheel:
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: toy\\nVersion: 1.0\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return "toy-1.0-py3-none-any.whl"
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "toy"
version = "1.0"
[project.optional-dependencies]
bench = ["kornia==0.9.0"]
"""
PACKAGE = """
import os, pathlib, sys
print("ran", *sys.argv[1:], sys.prefix)
page = pathlib.Path("outputs/quick/index.html")
page.parent.mkdir(parents=True, exist_ok=True)
page.write_text("page")
sys.exit(int(os.environ.get("TOY_EXIT", 0)))
"""


@pytest.fixture
def toy(tmp_path):
    root = tmp_path / "my project"
    (root / "ssl_core").mkdir(parents=True)
    shutil.copy(START, root)
    pins = "one==1 ; sys_platform == 'none'\ntwo==1 ; sys_platform == 'none'\n"
    for name, text in {"backend.py": BACKEND, "pyproject.toml": PROJECT, "requirements.lock": pins,
                       "ssl_core/__main__.py": PACKAGE}.items():
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def start(toy, monkeypatch):
    """The module, with `step` replaced by one that records the command and makes what `python -m venv` would make."""
    spec = importlib.util.spec_from_file_location("start", toy / "start.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.steps = []

    def step(command, log):
        module.steps.append(command[command.index("-m") + 1])
        if module.steps[-1] == "venv":
            make_environment(module)

    monkeypatch.setattr(module, "step", step)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: Usage(1e12, 0, 1e12))
    monkeypatch.setattr(module.signal, "signal", lambda *_: None)
    return module


def make_environment(start, version=VERSION):
    start.PYTHON.parent.mkdir(parents=True, exist_ok=True)
    start.PYTHON.touch()
    (start.VENV / "pyvenv.cfg").write_text(f"version = {version}.7\n")


def refusal(start):
    with pytest.raises(SystemExit) as stopped:
        start.main(["report"])
    message = str(stopped.value)
    assert message.startswith("error: ") and "\n" not in message and start.steps == []
    return message


def test_an_old_python_is_told_what_it_lacks(start, monkeypatch):
    with monkeypatch.context() as old:
        old.setattr(sys, "version_info", (3, 9, 18))
        message = refusal(start)
    assert "Python 3.11 or newer is needed and this is 3.9.18" in message


def test_an_old_python_can_read_the_file():
    ast.parse(START.read_text("utf-8"), feature_version=(3, 7))
    START.read_text("ascii")  # Python 3.6 on some systems reads nothing else


def test_missing_ensurepip_names_the_package(start, monkeypatch):
    monkeypatch.setattr(start.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else name)
    message = refusal(start)
    assert "no module `ensurepip`" in message and "apt install python3-venv" in message


def test_little_disk_is_told_in_numbers(start, monkeypatch):
    monkeypatch.setattr(start.shutil, "disk_usage", lambda path: Usage(1e12, 1e12, 1.26e9))
    message = refusal(start)
    assert f"needs about {start.DISK_GB:.0f} GB" in message and "has 1.3 GB free" in message


def test_a_folder_that_cannot_be_written(start):
    start.VENV.write_text("in the way")
    assert "cannot write to" in refusal(start)


@posix
def test_two_set_ups_at_once_are_refused(start):
    with start.locked_log():
        assert "another start.py is setting up" in refusal(start)
    start.set_up()
    assert start.steps == ["venv", "pip"]


def test_ready_is_left_alone(start):
    start.set_up()
    start.set_up()
    assert start.steps == ["venv", "pip"]


@pytest.mark.parametrize("change, steps", [
    ("lock", ["pip"]),
    ("pyproject", ["pip"]),
    ("python", ["venv", "pip"]),
    ("moved", ["venv", "pip"]),
    ("interrupted", ["venv", "pip"]),
    ("interpreter gone", ["venv", "pip"]),
])
def test_what_is_repaired_and_what_is_made_anew(start, change, steps):
    start.set_up()
    rest = start.VENV / "lib" / "half"
    rest.mkdir(parents=True)
    start.steps.clear()
    stamp = start.STAMP.read_text()
    if change in ("lock", "pyproject"):
        path = start.LOCK if change == "lock" else start.ROOT / "pyproject.toml"
        path.write_text(path.read_text() + "\n# changed\n")
    elif change == "python":
        start.STAMP.write_text(stamp.replace(VERSION, "3.8"))
    elif change == "moved":
        start.STAMP.write_text(stamp.replace(str(start.ROOT), "elsewhere"))
    elif change == "interrupted":
        start.STAMP.unlink()
    else:
        start.PYTHON.unlink()
    start.set_up()
    assert start.steps == steps and rest.exists() == (steps == ["pip"])
    assert start.STAMP.read_text() == start.wanted_stamp()


@pytest.mark.parametrize("version, steps", [(VERSION, ["pip"]), ("3.8", ["venv", "pip"])])
def test_an_environment_made_by_hand_is_completed(start, version, steps):
    make_environment(start, version)
    start.set_up()
    assert start.steps == steps


def test_a_failed_step_leaves_no_stamp(start, monkeypatch):
    start.set_up()
    start.LOCK.write_text("three==1\n")

    def fail(command, log):
        raise SystemExit("pip failed")

    monkeypatch.setattr(start, "step", fail)
    with pytest.raises(SystemExit):
        start.set_up()
    assert not start.STAMP.exists()


def test_usage(start, capsys):
    assert start.main([]) == 0 and capsys.readouterr().out.startswith("usage: python3 start.py COMMAND")
    assert start.main(["reprot"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "error: start.py has no command `reprot`" and told[2].startswith("usage:") and start.steps == []


@posix
@pytest.mark.parametrize("arguments, expected", [
    (["test"], "pytest"),
    (["test", "-k", "splits"], "pytest -k splits"),
    (["test", "tests/x.py", "--slow"], "pytest --slow -m slow tests/x.py"),
    (["lab", "--no-browser"], "jupyterlab --LabApp.default_url=/lab/tree/notebooks/00_tour.ipynb --no-browser"),
    (["bench"], "benchmarks"),
])
def test_each_command_runs_its_module_in_the_environment(start, monkeypatch, arguments, expected):
    class Ran(Exception):
        pass

    def execve(program, command, environment):
        raise Ran(program, command, environment)

    monkeypatch.setattr(start.os, "execve", execve)
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.delenv("MPLBACKEND")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.chdir(start.ROOT.parent)
    with pytest.raises(Ran) as ran:
        start.main(arguments)
    program, command, environment = ran.value.args
    assert program == command[0] == str(start.PYTHON) and command[1] == "-m"
    assert " ".join(a for a in command[2:] if "root_dir" not in a) == expected
    assert environment["PATH"].startswith(str(start.PYTHON.parent)) and "PYTHONPATH" not in environment
    assert (environment["HF_HUB_OFFLINE"], environment["PYTHONUTF8"]) == ("1", "1")
    assert environment.get("MPLBACKEND") == (None if arguments[0] == "lab" else "Agg")
    assert Path.cwd() == start.ROOT
    assert start.steps == ["venv", "pip"] + ["pip"] * (arguments[0] == "bench")


def call(root, *arguments, cwd=None, **environment):
    clean = {k: v for k, v in os.environ.items() if k != "SSL_CORE_OUTPUTS"}
    return subprocess.Popen([sys.executable, str(root / "start.py"), *arguments], cwd=cwd or root, text=True,
                            env=clean | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            preexec_fn=hear_interrupts if os.name == "posix" else None)


def hear_interrupts():
    """A job in the background of a shell ignores Ctrl-C, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.slow
@posix
def test_from_nothing_through_failure_and_ctrl_c_to_a_report(toy):
    """The whole path with a real `.venv` and a real pip, for a project that needs no package."""
    free = shutil.disk_usage(toy).free / 1e9
    if free < DISK_GB:
        pytest.skip(f"start.py wants {DISK_GB:.0f} GB of free disk here, there are {free:.1f}")
    log, stamp = toy / ".venv" / "setup.log", toy / ".venv" / "ready"

    failed = call(toy, "report", TOY_FAIL="1")
    out, err = failed.communicate()
    assert failed.returncode == 1 and out.startswith("Setting up: up to 2 packages") and out.count("\n") == 1
    assert err.startswith("error: set-up failed; the last lines of .venv/setup.log:") and "What to do:" in err
    assert "no room for the toy" in log.read_text() and not stamp.exists()

    stopped, seen = call(toy, "report", TOY_SLEEP="60"), log.stat().st_size
    patience = time.monotonic() + 60
    while "ditable" not in log.read_text()[seen:] and time.monotonic() < patience:
        time.sleep(0.1)
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate()
    assert stopped.returncode == 130 and err.strip().startswith("Stopped.") and not stamp.exists()

    made = call(toy, "report", "--jobs", "2", cwd=toy.parent, TOY_EXIT="1")
    out, err = made.communicate()
    page = os.path.join("outputs", "quick", "index.html")
    assert made.returncode == 1 and err == "" and out.splitlines()[1:] == [
        f"ran run params/studies/quick.yaml --jobs 2 {toy / '.venv'}", os.path.join("my project", page)]
    assert stamp.exists() and not (toy / ".venv" / "tmp").exists()

    again = call(toy, "report")
    out, err = again.communicate()
    assert again.returncode == 0 and "Setting up" not in out and out.splitlines()[-1] == page
