"""The command line: quick to answer, one line for what is wrong, a plan that can be read."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml

from ssl_core.cli import main
from ssl_core.config import Floor
from ssl_core.dry_run import papermill_command
from ssl_core.plan import make_plan
from ssl_core.study import Arm, Data, Evaluate, Resources, Splits, Study, load_study

STUDIES = Path(__file__).parents[1] / "params" / "studies"
STUDY = {
    "name": "toy", "question": "Does it run?", "data": {"dataset": "toy"},
    "splits": {"kind": "long_tail", "ratios": [10]},
    "arms": [{"name": "simclr", "method": "simclr", "method_args": {"tau": 1e-05}}],
    "evaluate": {"budgets": [0.5, 1.0]}, "floors": ["majority"],
}


@pytest.fixture
def study(toy_tree):
    """Writes a study file in a toy project; returns its path."""
    def write(**changes):
        (toy_tree / "toy.yaml").write_text(yaml.safe_dump(STUDY | changes))
        return str(toy_tree / "toy.yaml")

    return write


def test_help_imports_nothing_heavy():
    code = ("import sys; from ssl_core.cli import main\ntry: main(['run', '--help'])\nexcept SystemExit: pass\n"
            "print([name for name in ('torch', 'numpy', 'pandas', 'pydantic', 'papermill') if name in sys.modules])")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.endswith("[]\n") and "--accept-older-code" in said and "STUDY.yaml" in said


@pytest.mark.parametrize("changes, message", [
    ({"arm": []}, "toy.yaml: arm: unknown key"),
    ({"seeds": ["a"]}, "toy.yaml: seeds.0: 'a' is text, not a number"),
    ({"data": {"dataset": "moon"}}, "data: no data set 'moon'; params/data holds toy"),
    ({"arms": [{"name": "a", "method": "simclr", "lr": 0.0}]}, "lr"),
])
def test_a_wrong_study_is_one_line_and_exit_2(study, capsys, changes, message):
    assert main(["run", study(**changes), "--dry-run"]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.out == ""


@pytest.mark.parametrize("arm, message", [
    ({"stpes": 3}, "toy.yaml: arms.a: stpes: unknown key; near it: steps"),
    ({"lr": "1e-3"}, "arms.a: lr: '1e-3' is text, not a number (in YAML write 1.0e-3"),
    ({"optimiser_args": {"betas": [0.9, "95e-2"]}}, "arms.a: optimiser_args: betas: '95e-2' is text, not a number"),
    ({"encoder_args": "avg"}, "arms.a: encoder_args: 'avg' is text, not a mapping; write {NAME: VALUE}"),
    ({"ratios": "10"}, "arms.a: ratios: '10' is text, not a list; write [10]"),
    ({"wrap": "bcl"}, "arms.a: wrap: 'bcl' is no list of add-ons, each with its name; write [{name: bcl}]"),
    ({"wrap": [{"k": 2}]}, "arms.a: wrap: [{'k': 2}] is no list of add-ons"),
    ({"preset": "papr"}, "arms.a: preset 'papr' is unknown; for method simclr there are: "),
    ({"init": "imagnet"}, "arms.a: init: there is no run and no file imagnet; give random, imagenet, TIMM_NAME=FILE"),
    ({"init": "imagenet", "stem": "default", "encoder_args": {"channels": [8, 8, 8, 8]}},
     "arms.a: init 'imagenet': with encoder_args {'channels': [8, 8, 8, 8]} resnet10t is not the network"),
    ({"init": "b", "encoder": "resnet18"}, "arms.a: init 'b': that arm has another encoder; give both the same"),
    ({"recipe": "simclr_smal"}, "arms.a: recipe 'simclr_smal' is unknown: choose one of none, weak,"),
    ({"encoder": "resnet1O"}, "arms.a: encoder 'resnet1O' is not a timm model; near it: "),
    ({"encoder_args": {"chanels": 8}}, "arms.a: encoder 'resnet10t' does not take these encoder_args"),
    ({"optimiser_args": {"beta": 1}}, "arms.a: an argument does not fit: AdamW"),
    ({"method_args": {"projector": 128}}, "arms.a: an argument does not fit: "),
    ({"method": "mae"}, "arms.a: MAE needs a vision transformer"),
])
def test_an_arm_that_cannot_be_put_together_ends_the_plan_in_one_line(study, capsys, arm, message):
    arms = [{"name": "a", "method": "simclr"} | arm, {"name": "b", "method": "simclr", "lr": 0.5}]
    assert main(["run", study(arms=arms), "--dry-run"]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.out == ""


def test_a_dry_run_passes_on_what_a_network_is_warned_of(study, capsys):
    arms = [{"name": name, "method": "simclr", "stem": "default", "lr": lr} for name, lr in (("a", 0.1), ("b", 0.2))]
    assert main(["run", study(arms=arms), "--dry-run"]) == 0
    assert "\narms.a, arms.b: resnet10t keeps its ImageNet stem at 8 px" in capsys.readouterr().out


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


def test_the_page_of_studies_has_every_key_and_arms_that_are_valid():
    page = (STUDIES.parents[1] / "docs" / "studies.md").read_text("utf-8")
    rows = {name for line in page.splitlines() if line.startswith("| `")
            for name in re.findall(r"`(\w+)`", line.split(" | ")[0])}
    keys = {name for model in (Study, Data, Splits, Arm, Evaluate, Resources) for name in model.model_fields}
    assert not (keys | set(get_args(Floor))) - rows - {"method"}
    arms, = re.findall(r"(?s)```yaml\n(arms:.*?)```", page)
    assert len(Study(**STUDY | yaml.safe_load(arms)).arms) == 5


def test_data_sets_are_counted(study, capsys):
    study()
    assert main(["datasets"]) == 0
    said = capsys.readouterr().out
    assert "200 images 1 × 8 × 8, multiclass" in said
