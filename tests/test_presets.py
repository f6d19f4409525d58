"""Presets: each can be run, agrees with the method's class, says where it comes from; what an arm says wins."""

import inspect
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from timm.optim import Lars, create_optimizer_v2
from toy_configs import pretrain
from toy_project import edit

from ssl_core import plan, presets
from ssl_core.augment import RECIPES, Augment
from ssl_core.cli import main
from ssl_core.config import ConfigError, PretrainConfig
from ssl_core.encoders import Encoder
from ssl_core.methods import METHODS, WRAPPERS, build
from ssl_core.presets import about, all_presets, as_markdown, as_text, preset, preset_files, read_presets
from ssl_core.study import Study
from ssl_core.train import OPTIMISERS

ROOT = Path(__file__).parents[1]
ALL = all_presets()
KNOWN = {
    "simclr": "paper a b c e official temperature", "mae": "paper a small", "lotar": "readme code",
    "bcl": "bcl_i bcl_d thesis",
    "sdclr": "official thesis", "dcl": "paper", "dclw": "paper e", "simsiam": "paper e no_predictor",
    "moco": "v1 v2 d_chest d_breast d_retina d_chest_mse d_breast_mse d_retina_mse d_chest_barlow d_breast_barlow "
            "d_retina_barlow",
    "vicreg": "paper e", "barlow": "paper e", "tico": "paper e", "rotnet": "paper b b_jitter",
}
RESNET = {"name": "resnet10t", "args": {"channels": [8, 8, 16, 16]}, "stem": "cifar", "size": 16}
VIT = {"name": "vit_tiny_patch16_224", "size": 16,
       "args": {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "fc_norm": False}}
FILE = """
method: simclr
paper: A paper.
presets:
  one:
    about: A recipe.
    constants:
      method_args.tau: [0.1, "§1", "ours is better"]
      method_args.temperature: [2, "§2"]
      encoder: [resnet18, "§3"]
      encoder_args.depth: [3, "§3"]
      wrap.add.k: [1, "§4"]
      wrap.add.strength: [[1, 2], "§4"]
      wrap.more.k: [2, "§4"]
      optimiser: [sgd, "§5"]
      lr: [0.5, "§5"]
      epochs: [7, "§5"]
  of_mae:
    about: Another.
    method: mae
    constants: {lr: [0.25, "§6"], encoder: [resnet10t, "§6"]}
"""

every_preset = pytest.mark.parametrize("p", ALL, ids=lambda p: f"{p.file}/{p.name}")


@pytest.fixture
def project(toy_tree):
    """A toy project whose presets are FILE, as params/presets/simclr.yaml."""
    with open(toy_tree / "ssl_core" / "methods" / "__init__.py", "a") as registry:
        registry.write("WRAPPERS = {'add': MAE, 'more': MAE}\n")
    write(toy_tree, FILE)
    return toy_tree


def write(project, text, name="simclr"):
    (project / "params" / "presets").mkdir(exist_ok=True)
    (project / "params" / "presets" / f"{name}.yaml").write_text(text, encoding="utf-8")


def planned(*arms):
    """The configurations of a study's pretrainings, by arm."""
    study = Study(name="toy", question="?", data={"dataset": "toy"}, splits={"kind": "natural"}, floors=["majority"],
                  arms=[{"name": f"arm{i}", "method": "simclr"} | arm for i, arm in enumerate(arms)])
    return {job.cfg.arm: job.cfg for job in plan.make_plan(study).jobs if job.stage == "pretrain"}


def planned_arm(**arm):
    return planned(arm)["arm0"]


# What comes with the project

def test_the_published_recipes_are_there():
    there = {file: " ".join(p.name for p in read_presets(file)) for file in preset_files()}
    assert there == KNOWN
    assert {p.method for p in ALL} <= set(METHODS)
    assert {add_on["name"] for p in ALL for add_on in p.values["wrap"]} <= set(WRAPPERS)


@every_preset
def test_a_preset_is_an_arm_that_can_run(p):
    arm = {"name": "a", "method": p.method, "preset": p.name if p.file == p.method else f"{p.file}/{p.name}"}
    study = Study(name="s", question="?", data={"dataset": "fashion"}, splits={"kind": "natural"}, arms=[arm])
    values = presets.values_of(study.arms[0])
    cfg = PretrainConfig(**pretrain().model_dump() | {"steps": 0} | values)
    assert cfg.epochs and cfg.recipe in RECIPES

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an ImageNet stem at a small size
        Encoder(cfg.encoder, cfg.encoder_args, cfg.stem, 32 if p.name == "small" or cfg.stem == "cifar" else 224)
    create_optimizer_v2([torch.nn.Parameter(torch.ones(2, 2))], OPTIMISERS[cfg.optimiser], lr=cfg.lr,
                        weight_decay=cfg.weight_decay, **cfg.optimiser_args)
    encoder = Encoder(**VIT if "vit" in cfg.encoder else RESNET)
    method_args, wrap = shrunk(cfg.method_args), [shrunk(add_on) for add_on in cfg.wrap]
    assert isinstance(build(cfg.method, encoder, Augment(cfg.recipe, 16), 64, 0, wrap, **method_args), torch.nn.Module)


def shrunk(arguments):
    """The same arguments for layers that a test can afford."""
    small = {"projector": lambda widths: [8] * len(widths), "queue": lambda n: 8, "decoder_depth": lambda n: 1,
             "decoder_width": lambda n: 64, "prune_share": lambda share: 0.5}
    return {name: small.get(name, lambda value: value)(value) for name, value in arguments.items()}


def constants(method, name, *of, **wanted):
    """What a preset says of these arguments of its method, and of the fields that are wanted."""
    found = preset(method, name)
    assert {key: found[key] for key in wanted} == wanted
    return tuple(found["method_args"][key] for key in of)


def test_system_a_hides_half_of_the_patches_and_has_simclr_at_a_low_temperature():
    mae = constants("mae", "a", "mask_ratio", "norm_pix", "decoder_width", "decoder_depth", "decoder_heads",
                    encoder="vit_base_patch16_224", batch=2 * 192, lr=1.5e-4 * 2 * 192 / 256, epochs=200)
    assert mae == (0.5, False, 512, 8, 16)
    assert constants("simclr", "a", "tau", "projector", encoder="resnet50", stem="default", batch=128, lr=3e-4) == (
        0.07, [2048, 128])


def test_simclr_of_systems_b_c_and_e_differs_in_temperature_network_and_optimiser():
    for name, tau, encoder, stem, optimiser in (("b", 0.5, "resnet50", "default", "lars"),
                                                ("c", 0.2, "resnet18", "cifar", "lars"),
                                                ("e", 0.5, "resnet50", "default", "sgd")):
        assert constants("simclr", name, "tau", encoder=encoder, stem=stem, optimiser=optimiser) == (tau,)
    assert constants("simclr", "e", "projector", "projector_norm") == ([512, 128], "hidden")


@pytest.mark.parametrize("said, network, width, kind, lr", [
    ({}, "resnet50", 2048, Lars, 0.3 * 128 / 256),
    ({"encoder": "resnet18", "optimiser": "adamw", "weight_decay": 0.0, "lr": 3e-4}, "resnet18", 512, torch.optim.Adam,
     3e-4)])
def test_simclr_of_system_b_takes_either_network_and_lars_or_adam(said, network, width, kind, lr):
    """Adam is AdamW without its decay: the same weights after some steps, whatever the gradients."""
    arm = {"name": "a", "method": "simclr", "preset": "b"} | said
    study = Study(name="s", question="?", data={"dataset": "fashion"}, splits={"kind": "natural"}, arms=[arm])
    cfg = PretrainConfig(**pretrain().model_dump() | {"steps": 0} | presets.values_of(study.arms[0]))
    assert (cfg.method_args["tau"], cfg.method_args["projector"], cfg.batch) == (0.5, [2048, 64], 128)
    with torch.device("meta"):
        encoder = Encoder(cfg.encoder, cfg.encoder_args, cfg.stem, 224)
    assert (encoder.spec["name"], encoder.width) == (network, width)
    weights = [torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2)]
    made = create_optimizer_v2(weights[:1], OPTIMISERS[cfg.optimiser], lr=cfg.lr, weight_decay=cfg.weight_decay,
                               **cfg.optimiser_args)
    there = kind(weights[1:], lr, **dict(momentum=0.9, weight_decay=1e-6, trust_coeff=0.001) if kind is Lars else {})
    for step in range(3):
        for weight, optimiser in zip(weights, (made, there)):
            weight.grad = torch.randn(4, 4, generator=torch.Generator().manual_seed(step))
            optimiser.step()
    assert torch.allclose(*weights, rtol=0, atol=1e-7) and not torch.equal(weights[0], torch.ones(4, 4))


@pytest.mark.parametrize("method", [p.method for p in ALL if p.name == "paper"])
def test_the_paper_s_preset_and_the_defaults_of_the_class_agree(method):
    given = preset(method, "paper")["method_args"]
    defaults = {name: parameter.default for name, parameter in inspect.signature(METHODS[method]).parameters.items()
                if parameter.default is not inspect.Parameter.empty and name not in ("n", "tau_cosine")}
    assert json.loads(json.dumps(given)) == json.loads(json.dumps(defaults))


@every_preset
def test_every_row_says_where_it_comes_from(p):
    assert p.about and p.paper and all(len(row.source) > 1 for row in p.constants)
    said = {row.field.split(".")[0] for row in p.constants}
    assert said >= {"encoder", "stem", "normalisation", "recipe", "optimiser", "lr", "weight_decay", "batch", "epochs",
                    "warmup"}


@pytest.mark.parametrize("file", preset_files())
def test_no_row_is_written_twice(file):
    """YAML would take the last, in silence."""
    todo = [yaml.compose((ROOT / "params" / "presets" / f"{file}.yaml").read_text("utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, yaml.MappingNode):
            names = [key.value for key, _ in node.value]
            assert len(set(names)) == len(names), names
            todo += [value for _, value in node.value]


# An arm and its preset

def test_a_preset_gives_what_the_arm_does_not_say(project):
    cfg = planned_arm(preset="one", lr=0.125, method_args={"temperature": 3})
    assert (cfg.lr, cfg.epochs, cfg.steps, cfg.encoder, cfg.optimiser) == (0.125, 7, 0, "resnet18", "sgd")
    assert cfg.method_args == {"tau": 0.1, "temperature": 3} and cfg.encoder_args == {"depth": 3}
    assert cfg.wrap == [{"name": "add", "k": 1, "strength": [1, 2]}, {"name": "more", "k": 2}]


def test_what_the_arm_replaces_leaves_no_argument_behind(project):
    cfg = planned_arm(preset="one", encoder="resnet34", steps=5, wrap=[], optimiser_args={"momentum": 0.5})
    assert (cfg.encoder_args, cfg.wrap, cfg.epochs, cfg.steps) == ({}, [], 0, 5)
    assert cfg.optimiser_args == {"momentum": 0.5}


def test_arguments_of_the_cell_do_not_leak_into_a_preset_or_another_encoder(project):
    notebook = plan.notebook_of("pretrain")
    edit(notebook, "method_args = {}", "method_args = {'tau': 9, 'other': 1}")
    edit(notebook, "encoder_args = {}", "encoder_args = {'depth': 9, 'other': 1}")
    edit(notebook, "nepochs = 2\\nsteps = 0", "nepochs = 0\\nsteps = 4")
    plain, one = planned({"steps": 3}, {"preset": "one"}).values()
    assert (plain.method_args, plain.encoder_args) == ({"tau": 9, "other": 1}, {"depth": 9, "other": 1})
    assert (one.method_args, one.encoder_args) == ({"tau": 0.1, "temperature": 2}, {"depth": 3})
    assert (one.epochs, one.steps) == (7, 0)
    assert planned_arm(encoder="resnet34").encoder_args == {}
    other = planned_arm(method="mae", preset="simclr/of_mae")  # of the cell's encoder, in the length of the cell
    assert (other.method_args, other.encoder_args, other.steps) == ({}, {}, 4)


def test_a_run_does_not_know_that_it_came_from_a_preset(project):
    said = preset("simclr", "one")
    with pytest.raises(ConfigError, match="arms arm0 and arm1 are the same in all that counts"):
        planned({"preset": "one"}, said)


def test_a_preset_of_another_file_belongs_to_a_method_too(project):
    cfg = planned_arm(method="mae", preset="simclr/of_mae")
    assert (cfg.method, cfg.lr, cfg.method_args) == ("mae", 0.25, {})
    for arm, message in (
            ({"preset": "two"}, "arms.arm0: preset 'two' is unknown; for method simclr there are: one"),
            ({"method": "mae", "preset": "one"}, "arms.arm0: preset 'one' is unknown; .* mae there are: simclr/of_mae"),
            ({"preset": "of_mae"}, "arms.arm0: preset 'of_mae' is one of method mae, not of simclr")):
        with pytest.raises(ConfigError, match=message):
            planned_arm(**arm)


@pytest.mark.parametrize("old, new, message", [
    ('lr: [0.5, "§5"]', 'lrr: [0.5, "§5"]', "simclr.yaml: one: lrr: unknown key"),
    ('lr: [0.5, "§5"]', 'lr: [1e-3, "§5"]', "simclr.yaml: one: lr: '1e-3' is text, not a number"),
    ('lr: [0.5, "§5"]', "lr: [0.5]", "simclr.yaml: presets.one: constants.lr: list should have at least 2 items"),
    ('lr: [0.5, "§5"]', "lr: [0.5, '']", r"simclr.yaml: one.lr: a row is \[value, source\]"),
    ("wrap.add.k", "wrap.add", "simclr.yaml: one.wrap.add: a row is named after a field of an arm"),
    ('lr: [0.5, "§5"]', 'name: [b, "§5"]', "simclr.yaml: one.name: a row is named after a field of an arm"),
    ("paper: A paper.", "", "simclr.yaml: paper: missing"),
    ("presets:", "presets: [", "simclr.yaml: not readable as presets"),
])
def test_a_wrong_file_is_one_line(project, old, new, message):
    assert old in FILE
    write(project, FILE.replace(old, new))
    with pytest.raises(ConfigError, match=message) as error:
        planned_arm(preset="one")
    assert "\n" not in str(error.value)


# The fidelity table

def test_the_table_fits_a_terminal_and_loses_no_word():
    for name in [*preset_files(), *(WRAPPERS.keys() - {"view_distance"})]:
        text = as_text(about(name))
        assert max(map(len, text.splitlines())) <= 120
        letters = re.sub(r"\s", "", text)
        for p in about(name):
            for row in p.constants:
                assert row.field in text
            assert re.sub(r"\s", "", p.about) in letters


def test_the_page_is_that_of_the_files():
    assert (ROOT / "docs" / "methods.md").read_text("utf-8") == as_markdown() + "\n", (
        "make it again: python -m ssl_core methods --markdown > docs/methods.md")


def test_methods_answers_for_one_method_and_add_on(capsys):
    assert main(["methods", "mae"]) == 0
    said = capsys.readouterr().out
    assert "method_args.mask_ratio" in said and "main_pretrain.py of (a), not the" in said
    assert main(["methods", "intermediate"]) == 0
    assert "wrap.intermediate.pools" in capsys.readouterr().out
    assert main(["methods", "mea"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("no presets of 'mea'; there are some of barlow, bcl,") and said.err.count("\n") == 1
    assert "intermediate" in said.err


def test_all_methods_and_add_ons_are_listed(capsys):
    assert main(["methods"]) == 0
    said = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\w", said, re.M) for name in [*METHODS, *WRAPPERS])
    assert max(map(len, said.splitlines())) <= 120
    assert "takes: mask_ratio 0.75, norm_pix true" in said and "presets: paper, a, small\n" in said
    assert "method simclr: bcl/bcl_i, bcl/thesis; method sdclr: bcl/bcl_d" in said


def test_the_table_needs_no_torch():
    code = ("import sys; from ssl_core.cli import main; main(['methods', 'simclr'])\n"
            "print([name for name in ('torch', 'numpy', 'pandas', 'timm') if name in sys.modules])")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
                          encoding="utf-8").stdout
    assert said.endswith("[]\n")
