"""The command line: quick to answer, one line for what is wrong, a plan that can be read."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from toy_project import make_project

from ssl_core import keys
from ssl_core.cli import main, papermill_command
from ssl_core.config import Study, load_study
from ssl_core.plan import make_plan

STUDIES = Path(__file__).parents[1] / "params" / "studies"
STUDY = {
    "name": "toy", "question": "Does it run?", "data": {"dataset": "toy"},
    "splits": {"kind": "long_tail", "ratios": [10]},
    "arms": [{"name": "simclr", "method": "simclr", "method_args": {"tau": 1e-05}}],
    "evaluate": {"budgets": [0.5, 1.0]}, "floors": ["majority"],
}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Writes a study file in a toy project; returns its path."""
    make_project(tmp_path)
    monkeypatch.setenv("SSL_CORE_ROOT", str(tmp_path))
    monkeypatch.setattr(keys, "PACKAGE", tmp_path / "ssl_core")

    def write(**changes):
        (tmp_path / "toy.yaml").write_text(yaml.safe_dump(STUDY | changes))
        return str(tmp_path / "toy.yaml")

    return write


def test_help_imports_nothing_heavy():
    code = ("import sys; from ssl_core.cli import main\ntry: main(['run', '--help'])\nexcept SystemExit: pass\n"
            "print([name for name in ('torch', 'numpy', 'pandas', 'pydantic', 'papermill') if name in sys.modules])")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.endswith("[]\n") and "--accept-older-code" in said and "STUDY.yaml" in said


@pytest.mark.parametrize("changes, message", [
    ({"arm": []}, "toy.yaml: arm: unknown key"),
    ({"seeds": ["a"]}, "toy.yaml: seeds.0: 'a' is text, not a number"),
    ({"data": {"dataset": "moon"}}, "arms.simclr: no data set 'moon'; params/data holds toy"),
    ({"arms": [{"name": "a", "method": "simclr", "lr": 0.0}]}, "lr"),
])
def test_a_wrong_study_is_one_line_and_exit_2(study, capsys, changes, message):
    assert main(["run", study(**changes), "--dry-run"]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.out == ""


def test_other_mistakes_are_one_line_too(study, capsys):
    assert main(["run", "nowhere.yaml"]) == 2
    assert "nowhere.yaml: no such study" in capsys.readouterr().err
    assert main(["run", study(), "--jobs", "0"]) == 2
    assert "--jobs 0: at least one" in capsys.readouterr().err


def test_a_dry_run_shows_the_plan_and_touches_nothing(study, tmp_path, capsys):
    assert main(["run", study(), "--dry-run", "--why"]) == 0
    said = capsys.readouterr().out
    assert "Does it run?" in said and "0 of 6 cells there" in said and "nothing alike has run here" in said
    assert "pretrain simclr-toy-lt10-d0o0-s0: new" in said
    assert not (tmp_path / "outputs").exists()


def test_a_printed_command_gives_papermill_the_same_values(study):
    job = make_plan(load_study(study())).jobs[0]
    words = shlex.split(papermill_command(job))
    assert words[:3] == ["papermill", "notebooks/10_pretrain.ipynb", "out.ipynb"]
    given, rest = {}, words[3:]
    while rest:
        if rest[0] == "-y":
            given |= yaml.safe_load(rest[1])
        else:
            given[rest[1]] = rest[2] if rest[0] == "-r" else float(rest[2])
        rest = rest[2 if rest[0] == "-y" else 3:]
    assert given == job.params and given["method_args"] == {"tau": 1e-05}


def test_the_schema_is_that_of_the_configuration():
    assert json.loads((STUDIES / "schema.json").read_text(encoding="utf-8")) == Study.model_json_schema(), (
        "make it again: python -m ssl_core schema > params/studies/schema.json")


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_is_valid(path):
    assert load_study(path).name == path.stem


def test_data_sets_are_counted(study, capsys):
    study()
    assert main(["datasets"]) == 0
    said = capsys.readouterr().out
    assert "200 images 1 × 8 × 8, multiclass" in said
