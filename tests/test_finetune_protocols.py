"""Published ways to fine-tune: the head alone, two learning rates, epochs, the state that a validation set chooses."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toy_configs
from test_finetune import VIT, config, encoder, striped

from ssl_core import train
from ssl_core.augment import RECIPES
from ssl_core.data.splits import label_budget
from ssl_core.evaluate import finetune as module
from ssl_core.evaluate.features import weights_hash
from ssl_core.evaluate.finetune import finetune, load_classifier, predict
from ssl_core.evaluate.selection import chosen, log_loss, selection_parts, threshold_part
from ssl_core.protocols import protocol, protocol_names

# --- what is trained --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("spec", [{"name": "resnet10t", "args": {"channels": [8, 8, 16, 16]}, "stem": "cifar"}, VIT])
@pytest.mark.parametrize("select", ["last", "best_val"])
def test_training_the_head_leaves_every_tensor_of_the_encoder_and_learns(spec, select, monkeypatch):
    images, labels = striped(60)
    given, modes = encoder(spec), set()
    with monkeypatch.context() as patch:
        watch = train.watch
        patch.setattr(train, "watch", lambda *args: modes.add(models[0].encoder.training) or watch(*args))
        models, prepare = [], module.prepare
        patch.setattr(module, "prepare", lambda *args: models.append(prepare(*args)) or models[0])
        cfg = config(train="head", steps=60, lr=0.3, optimiser="adam", drop_path=0.1, recipe="weak", select=select)
        model, _ = finetune(given, images, labels, cfg, 3, judge=striped(9, seed=1))
    assert modes == {False}
    kept = encoder(spec).backbone.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.encoder.backbone.state_dict().items())
    assert weights_hash(model.encoder) == weights_hash(given)
    assert log_loss(predict(model, images), labels) < np.log(3) - 0.05


def test_two_learning_rates_reach_their_weights_and_shrink_together():
    cfg = config(lr=1e-3, head_lr=0.1, weight_decay=5e-4, optimiser="adam", layer_decay=0.5)
    model = module.prepare(encoder(VIT), 3, "multiclass", cfg)
    optimiser = module.layerwise_optimiser(model, cfg)
    assert type(optimiser) is torch.optim.Adam and optimiser.defaults["decoupled_weight_decay"] is False
    of = {id(p): group for group in optimiser.param_groups for p in group["params"]}
    assert [1e-3 * of[id(p)]["lr_scale"] for p in model.head.parameters()] == pytest.approx([0.1, 0.1])
    assert [of[id(p)]["weight_decay"] for p in model.head.parameters()] == [5e-4, 0]
    last = model.encoder.backbone.blocks[2].attn.qkv.weight
    assert of[id(last)]["lr_scale"] == 0.5 and of[id(last)]["weight_decay"] == 5e-4


def test_adam_adds_weight_decay_to_the_gradient():
    """The first step of Adam is −lr · sign(gradient + wd · weight); AdamW's would shrink the weight beside it."""
    cfg = config(optimiser="adam", lr=0.01, weight_decay=0.5, train="head")
    model = module.prepare(encoder(), 3, "multiclass", cfg)
    model.encoder.requires_grad_(False)
    optimiser = module.layerwise_optimiser(model, cfg)
    assert sum(len(group["params"]) for group in optimiser.param_groups) == 2
    before = torch.linspace(-1, 1, model.head.weight.numel()).view_as(model.head.weight)
    model.head.weight.data.copy_(before)
    model.head.weight.grad, model.head.bias.grad = torch.full_like(before, 0.1), torch.zeros(3)
    optimiser.step()
    torch.testing.assert_close(model.head.weight.data, before - 0.01 * (0.1 + 0.5 * before).sign(), atol=1e-5, rtol=0)


def test_a_constant_rate_stays_at_its_peak_after_the_warm_up():
    rates = [train.learning_rate(step, 10, 0.3, 0.2, "constant") for step in range(10)]
    assert rates == pytest.approx([0.1, 0.2] + [0.3] * 8)
    assert train.learning_rate(9, 10, 0.3, 0, "constant") == 0.3
    images, labels = striped()
    _, history = finetune(encoder(), images, labels, config(schedule="constant", warmup=0.0), 3)
    assert set(history["lr"]) == {3e-3}


@pytest.mark.parametrize("n, batch, epochs, steps", [(30, 8, 4, 12), (30, 30, 4, 4), (5, 64, 7, 7), (17, 16, 3, 3)])
def test_epochs_count_the_given_images_and_leave_out_an_incomplete_batch(n, batch, epochs, steps):
    images, labels = striped(n)
    model, history = finetune(encoder(), images, labels, config(epochs=epochs, steps=0, batch=batch), 3)
    assert history["step"].iloc[-1] == steps
    by_steps, rows = finetune(encoder(), images, labels, config(steps=steps, batch=batch), 3)
    assert weights_hash(by_steps) == weights_hash(model) and rows.equals(history)


def test_epochs_or_steps_are_given_and_not_both():
    for both in ({"epochs": 2, "steps": 2}, {"epochs": 0, "steps": 0}):
        with pytest.raises(ValueError, match="give either epochs or steps"):
            config(**both)


# --- what is kept -----------------------------------------------------------------------------------------------------

RISING = dict(epochs=6, steps=0, batch=10, lr=2e-2, schedule="constant", warmup=0.0, select="best_val")


def misleading():
    """Images of three patterns, and others with each label one further: the better learnt, the worse judged."""
    images, labels = striped(60)
    return images, labels, (striped(30, seed=1)[0], (striped(30)[1] + 1) % 3)


def test_the_state_of_least_validation_loss_is_reloaded(tmp_path):
    images, labels, judge = misleading()
    model, history = finetune(encoder(), images, labels, config(**RISING), 3, folder=tmp_path, judge=judge)
    assert history["step"].tolist() == [6, 12, 18, 24, 30, 36]  # every epoch
    losses, best = history["val_loss"], history["val_loss"].idxmin()
    assert losses.iloc[-1] > losses[best] + 0.1 and best < 5
    assert log_loss(predict(model, judge[0]), judge[1]) == losses[best]
    assert log_loss(predict(load_classifier(tmp_path), judge[0]), judge[1]) == losses[best]
    last, rows = finetune(encoder(), images, labels, config(**RISING | {"select": "last"}), 3)
    assert log_loss(predict(last, judge[0]), judge[1]) == losses.iloc[-1]  # judging leaves the training alone
    shorter = RISING | {"epochs": int(best) + 1, "select": "last"}
    assert weights_hash(finetune(encoder(), images, labels, config(**shorter), 3)[0]) == weights_hash(model)
    about = {"select": "least log-loss", "of": "the validation part", "images": 30,
             "step": 6 * (int(best) + 1), "val_log_loss": losses[best]}
    assert chosen(history, np.arange(30), np.arange(30)) == about
    assert chosen(history, np.arange(30), np.arange(0))["of"] == "a fifth of the budget"
    assert chosen(rows, np.arange(0), np.arange(0)) == {"select": "last step", "step": 36}


def test_steps_are_judged_at_every_twentieth_and_at_the_last():
    images, labels, judge = misleading()
    _, history = finetune(encoder(), images, labels, config(steps=41, select="best_val"), 3, judge=judge)
    assert history["step"].tolist() == [*range(2, 41, 2), 41] and history["val_loss"].notna().all()


def test_where_nothing_can_judge_the_last_state_is_the_model():
    images, labels = striped()
    model, history = finetune(encoder(), images, labels, config(select="best_val"), 3, judge=(images[:0], labels[:0]))
    assert "val_loss" not in history
    assert weights_hash(model) == weights_hash(finetune(encoder(), images, labels, config(), 3)[0])


@pytest.mark.parametrize("stop_after", [13, 29])
def test_a_killed_run_keeps_the_best_state_it_had(stop_after, tmp_path, monkeypatch):
    images, labels, judge = misleading()
    whole, history = finetune(encoder(), images, labels, config(**RISING), 3, tmp_path / "whole", key="a", judge=judge)
    assert history["val_loss"].idxmin() < 2  # so that what is kept was found before the killing
    watch, calls = train.watch, []

    def watch_or_die(*args):
        calls.append(1)
        if len(calls) > stop_after:
            raise KeyboardInterrupt
        watch(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "watch", watch_or_die)
        patch.setattr(train, "SAVE_EVERY", -1)
        finetune(encoder(), images, labels, config(**RISING), 3, folder=tmp_path / "killed", key="a", judge=judge)
    resumed, rest = finetune(encoder(), images, labels, config(**RISING), 3, folder=tmp_path / "killed", key="a",
                             judge=judge)
    assert weights_hash(resumed) == weights_hash(whole) and rest.equals(history)


# --- what judges ------------------------------------------------------------------------------------------------------

def grouped(n_groups=30, per_group=4, classes=("a", "b", "c")):
    groups = np.repeat(np.arange(n_groups), per_group)
    return SimpleNamespace(labels=groups % len(classes), groups=groups, classes=classes, grouped=True,
                           task="multiclass")


def test_an_inner_fifth_holds_whole_groups_of_every_class_and_is_seeded():
    data, budget = grouped(), np.arange(8, 120)
    cfg = toy_configs.finetune(select="best_val")
    fit, judge = selection_parts(cfg, data, budget, np.arange(0))
    np.testing.assert_array_equal(np.sort(np.concatenate([fit, judge])), budget)
    assert not set(data.groups[fit]) & set(data.groups[judge])
    assert 0.1 <= len(judge) / len(budget) <= 0.3 and set(data.labels[judge]) == set(data.labels[fit]) == {0, 1, 2}
    np.testing.assert_array_equal(selection_parts(cfg, data, budget, np.arange(0))[1], judge)
    others = [selection_parts(toy_configs.finetune(select="best_val", budget_seed=s), data, budget, np.arange(0))[1]
              for s in (1, 2)]
    assert any(set(other) != set(judge) for other in others)


def test_the_validation_part_judges_where_there_is_one_and_nothing_judges_the_last_step():
    data, budget, val = grouped(), np.arange(8, 120), np.arange(8)
    fit, judge = selection_parts(toy_configs.finetune(select="best_val"), data, budget, val)
    assert fit is budget and judge is val
    fit, judge = selection_parts(toy_configs.finetune(), data, budget, val)
    assert fit is budget and len(judge) == 0


def test_thresholds_are_fixed_on_images_that_are_not_trained_on_and_the_rule_says_which():
    data, budget, none = grouped(), np.arange(8, 120), np.arange(0)
    for select in ("last", "best_val"):
        cfg = toy_configs.finetune(select=select)
        at, rule = threshold_part(selection_parts(cfg, data, budget, np.arange(8))[1], np.arange(8))
        assert at.tolist() == [*range(8)] and rule.endswith("on the validation part")
        fit, judge = selection_parts(cfg, data, budget, none)
        at, rule = threshold_part(judge, none)
        assert at is judge and not set(at) & set(fit) and not set(data.groups[at]) & set(data.groups[fit])
        assert rule.endswith("on the fifth of the budget that chose the state") == (select == "best_val")
    assert threshold_part(none, none)[1] == "none: no selection data"


def test_a_class_with_one_group_is_trained_on():
    data = grouped()
    data.labels[:] = np.where(data.groups == 5, 2, data.groups % 2)
    cfg = toy_configs.finetune(select="best_val")
    fit, judge = selection_parts(cfg, data, np.arange(120), np.arange(0))
    assert 5 in data.groups[fit] and set(data.labels[judge]) == {0, 1}
    one_each = np.array([0, 4, 20])
    fit, judge = selection_parts(cfg, data, one_each, np.arange(0))
    assert set(fit) == {0, 4, 20} and not len(judge)


def test_log_loss_is_minus_log_of_the_true_class_and_skips_unknown_answers():
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    assert log_loss(p, np.array([0, 2])) == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 2)
    answers = np.array([[1, 0, -1], [-1, -1, 1]])
    assert log_loss(p, answers) == pytest.approx(-(np.log(0.5) + np.log(0.7) + np.log(0.1)) / 3)
    assert np.isfinite(log_loss(np.array([[0.0, 1.0]]), np.array([0])))


# --- the published settings -------------------------------------------------------------------------------------------

PUBLISHED = [name for name in protocol_names() if name.startswith("finetune_")]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings_are_a_configuration_that_says_its_source(name):
    found = protocol(name)
    cfg = toy_configs.finetune(**{"steps": 0} | found.values, protocol=name)
    assert found.stage == "finetune" and found.about and found.source and found.short
    assert cfg.recipe in RECIPES and cfg.steps == 0
    assert [cell.id for cell in cfg.cells()] == [f"{name}-b0.1-s0", f"{name}-b1-s0"]


@pytest.mark.parametrize("name, values", [
    ("finetune_mae", dict(optimiser="adamw", lr=1e-3 * 64 / 256, batch=64, epochs=50, warmup=5 / 50, weight_decay=0.05,
                          layer_decay=0.75, drop_path=0.1, label_smoothing=0.1, recipe="weak", select="last")),
    ("finetune_sgd", dict(optimiser="sgd", batch=128, epochs=100, warmup=5 / 100, weight_decay=1e-4, layer_decay=1.0,
                          drop_path=0.0, label_smoothing=0.0, recipe="weak", select="last")),
    ("finetune_adam_best_val", dict(optimiser="adam", lr=1e-3, schedule="constant", batch=16, epochs=100, warmup=0.0,
                                    weight_decay=0.0, recipe="d_chest", train="all", select="best_val")),
    ("finetune_last_layer", dict(optimiser="adam", lr=1e-3, schedule="constant", batch=16, epochs=100, warmup=0.0,
                                 weight_decay=0.0, recipe="d_chest", train="head", select="best_val")),
    ("finetune_two_rates", dict(optimiser="adam", lr=1e-3, head_lr=0.1, schedule="constant", batch=64, epochs=100,
                                weight_decay=5e-4, recipe="none", train="all", select="best_val")),
])
def test_published_constants(name, values):
    found = protocol(name).values
    assert {key: found[key] for key in values} == pytest.approx(values)


def test_fine_tuning_as_mae_shrinks_rates_drops_paths_and_smooths_labels(monkeypatch):
    cfg = config(**protocol("finetune_mae").values | {"epochs": 0, "steps": 2, "batch": 8})
    model = module.prepare(encoder(VIT), 3, "multiclass", cfg)
    scale = {id(p): g["lr_scale"] for g in module.layerwise_optimiser(model, cfg).param_groups for p in g["params"]}
    network = model.encoder.backbone
    layers = [model.head, *(block.attn.qkv for block in reversed(network.blocks)), network.patch_embed.proj]
    assert [scale[id(layer.weight)] for layer in layers] == pytest.approx([0.75 ** i for i in range(5)])
    assert [getattr(block.drop_path1, "drop_prob", 0) for block in network.blocks] == pytest.approx([0, 0.05, 0.1])
    cost, seen = module.cost, []
    monkeypatch.setattr(module, "cost", lambda *args: seen.append(args) or cost(*args))
    finetune(encoder(VIT), *striped(), cfg, 3)
    assert len(seen) == 2
    for logits, y, *how in seen:  # the logits of a new head tell nothing apart, so others are given
        logits = torch.linspace(-3, 3, logits.numel()).sin().view_as(logits)
        p = logits.log_softmax(1)
        torch.testing.assert_close(cost(logits, y, *how), -(0.9 * p[range(8), y] + 0.1 * p.mean(1)).mean())


@pytest.mark.parametrize("name, part", [("finetune_adam_best_val", "all"), ("finetune_last_layer", "head")])
def test_all_layers_or_the_last_are_trained_on_a_fraction_of_the_labels(name, part):
    values, given, (images, labels) = protocol(name).values, encoder(), striped(120)
    assert [values[key] for key in ("train", "optimiser", "lr", "batch", "epochs")] == [part, "adam", 1e-3, 16, 100]
    tenth = label_budget(labels, 0.1, 0)
    assert np.bincount(labels[tenth]).tolist() == [4, 4, 4]
    cfg = config(**values | {"epochs": 5, "steps": 0})
    model, history = finetune(given, images[tenth], labels[tenth], cfg, 3)
    assert history["step"].iloc[-1] == 5  # of one batch, which is the tenth
    before = dict(given.backbone.named_parameters())
    moved = {name for name, p in model.encoder.backbone.named_parameters() if not torch.equal(p, before[name])}
    assert moved == (set(before) if part == "all" else set())
    assert (model.head.weight - module.prepare(given, 3, "multiclass", cfg).head.weight).abs().max() > 4e-3


def test_variants_of_one_protocol_differ_in_their_augmentation_alone():
    recipes = {"": "d_chest", "_breast": "moco_v2", "_retina": "d_retina_labels"}
    for base in ("finetune_adam_best_val", "finetune_last_layer"):
        for suffix, recipe in recipes.items():
            assert protocol(base + suffix).values == protocol(base).values | {"recipe": recipe}
