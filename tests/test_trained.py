"""Trained heads: folding, schedules and selection against torch; what is held out; published constants."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from ssl_core.data.splits import label_budget
from ssl_core.encoders import Encoder
from ssl_core.evaluate.features import by_layer, extract
from ssl_core.evaluate.fit import fit_probe, head_of, selection_scores
from ssl_core.evaluate.heads import headline_rows, rows_of, stored
from ssl_core.evaluate.metrics import Predictions
from ssl_core.evaluate.probe import apply_probe, linear_probe
from ssl_core.evaluate.selection import HELD_OUT, inner_val
from ssl_core.evaluate.trained import Head, build, folded, learning_rate, train_head
from ssl_core.load_me import Model
from ssl_core.protocols import protocol, protocol_names
from ssl_core.split_presets import split_preset
from ssl_core.train import order

ROOT = Path(__file__).parents[1]
SHORT = dict(epochs=5, batch=32)


def blobs(counts, seed=0, dim=8, distance=1.0):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(counts)), counts)
    centres = np.random.default_rng(99).normal(size=(len(counts), dim)) * distance
    return (3 * (centres[y] + rng.normal(size=(len(y), dim))) + 2).astype(np.float32), y


# --- equations --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("norm", ["none", "batch", "batch_affine"])
def test_folded_arrays_are_the_module_in_eval_mode(head, norm):
    model = build(Head(head=head, hidden=16, norm=norm, norm_eps=1e-2), 8, 3, 0)
    for i, layer in enumerate(model):  # as training would leave them, not at their start
        torch.manual_seed(i)
        if isinstance(layer, nn.BatchNorm1d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.1, 4)
            if layer.affine:
                nn.init.normal_(layer.weight)
                nn.init.normal_(layer.bias)
    x = torch.randn(50, 8)
    with torch.inference_mode():
        wanted = model.eval()(x).softmax(1).numpy()
        labels = model(x).sigmoid().numpy()
    assert np.abs(apply_probe(folded(model), "multiclass", x.numpy()) - wanted).max() < 1e-6
    assert np.abs(apply_probe(folded(model), "multilabel", x.numpy()) - labels).max() < 1e-6
    assert ("hidden_weight" in folded(model)) == (head == "mlp") and len(folded(model)) == (6 if head == "mlp" else 4)


def test_a_linear_head_is_that_of_a_plain_torch_loop():
    x, y = blobs([40, 30, 26])
    how = Head(optimiser="sgd", lr=0.05, momentum=0.9, weight_decay=1e-3, schedule="steps", milestones=[3], **SHORT)
    probe = train_head(x, y, how, seed=4)
    model = build(how, 8, 3, 4)
    optimiser = torch.optim.SGD(model.parameters(), 0.05, 0.9, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [3], 0.1)
    for epoch in range(5):
        for index in order(96, 32, 4, epoch):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(torch.from_numpy(x[index])), torch.from_numpy(y[index])).backward()
            optimiser.step()
        schedule.step()
    assert np.abs(probe.arrays["weight"] - model.last.weight.detach().numpy()).max() < 1e-6
    assert np.abs(probe.predict_proba(x) - model(torch.from_numpy(x)).softmax(1).detach().numpy()).max() < 1e-5
    assert probe.chosen == 5 and probe.table.lr.tolist() == pytest.approx([0.05] * 3 + [0.005] * 2)
    assert probe.table.val_loss.isna().all() and probe.out_of_fold is None


def test_multilabel_heads_learn_from_what_is_known():
    x, y = blobs([60, 60], distance=2)
    labels = np.stack([y, 1 - y, np.zeros_like(y)], 1)
    labels[::3, 0] = -1
    probe = train_head(x, labels, Head(lr=0.05, epochs=30, batch=32), task="multilabel")
    p = probe.predict_proba(x)
    assert ((p[:, 0] > 0.5) == y).mean() > 0.95 and p[:, 2].max() < 0.2
    labels[:, 1] = -1  # known for none: its row stays at its start
    fitted, start = train_head(x, labels, Head(lr=0.05, **SHORT), task="multilabel"), build(Head(), 8, 3, 0).last
    moved = np.abs(fitted.arrays["weight"] - start.weight.detach().numpy()).max(1)
    assert moved[1] == 0 and moved[[0, 2]].min() > 0.01


@pytest.mark.parametrize("how, values", [
    (dict(schedule="constant"), {0: 1, 99: 1}),
    (dict(schedule="cosine", warmup=5), {0: 0, 2.5: 0.5, 5: 1, 52.5: 0.5, 100: 0}),
    (dict(schedule="cosine", final_lr=0.2), {0: 1, 50: 0.6, 100: 0.2}),
    (dict(schedule="steps", milestones=[10, 20]), {9.9: 1, 10: 0.1, 19: 0.1, 20: 0.01, 29: 0.01}),
    (dict(schedule="exponential", final_lr=1e-4), {0: 1, 25: 0.1, 25.9: 0.1, 50: 0.01, 75: 0.001}),
])
def test_schedules(how, values):
    for epoch, wanted in values.items():
        assert learning_rate(Head(lr=1.0, **how), epoch, 256) == pytest.approx(wanted), epoch
    assert learning_rate(Head(lr=1.0, per_256=True), 0, 128) == 0.5


def test_decay_of_the_two_layer_head_is_that_of_its_authors_scheduler():
    how = head_of("mlp_head_published", protocol("mlp_head_published").values)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimiser, 25, 0.5)
    for epoch in range(200):
        assert learning_rate(how, epoch, 64) == pytest.approx(optimiser.param_groups[0]["lr"]), epoch
        optimiser.step()
        if epoch > 25:
            scheduler.step()


# --- what is held out, and what is kept -------------------------------------------------------------------------------

def overfitted():
    """Few images, many features, some labels wrong: the loss on new images falls, and then rises far."""
    rng = np.random.default_rng(0)
    y = np.arange(100) % 2
    x = rng.normal(size=(100, 100)) + 0.8 * y[:, None] * (np.arange(100) < 8)
    return x.astype(np.float32), np.where(rng.random(100) < 0.15, 1 - y, y)


@pytest.mark.parametrize("val", ["inner", "fixed"])
def test_the_epoch_of_the_lowest_loss_is_reloaded(val):
    x, y = overfitted()
    new = (x[60:], y[60:])
    x, y = (x, y) if val == "inner" else (x[:60], y[:60])
    how = dict(lr=0.01, epochs=150, batch=16, val=val)
    probe = train_head(x, y, Head(select="lowest_val_loss", **how), val=new, n_classes=2)
    last = train_head(x, y, Head(**how), val=new, n_classes=2)
    losses = probe.table.val_loss
    assert 1 < probe.chosen < 100 and losses.iloc[-1] > 1.3 * losses.min()  # it was needed
    assert probe.chosen == losses.argmin() + 1 and last.chosen == 150
    held = np.flatnonzero(np.isfinite(probe.out_of_fold[:, 0])) if val == "inner" else None
    there, truth = (x[held], y[held]) if val == "inner" else new

    def loss(fitted):
        return -np.log(fitted.predict_proba(there)[np.arange(len(truth)), truth]).mean()

    assert loss(probe) == pytest.approx(losses.min(), abs=1e-5) and loss(last) == pytest.approx(losses.iloc[-1], 1e-4)
    stopped = train_head(x, y, Head(**how | {"epochs": probe.chosen}), val=new, n_classes=2)
    assert all((stopped.arrays[name] == probe.arrays[name]).all() for name in probe.arrays)


def test_held_out_images_take_no_part_in_the_weights():
    x, y = blobs([40, 40])
    how = Head(val="inner", **SHORT)
    probe = train_head(x, y, how)
    held = np.isfinite(probe.out_of_fold).all(1)
    assert held.sum() == 16 and (probe.predict_proba(x)[held] == probe.out_of_fold[held]).all()
    changed = x.copy()
    changed[held] += 100
    assert (train_head(changed, y, how).arrays["weight"] == probe.arrays["weight"]).all()
    scores, labels = selection_scores(probe, y)
    assert scores is probe.out_of_fold and labels is y


def test_a_fixed_val_part_gives_thresholds_their_scores():
    x, y = blobs([40, 40])
    val = blobs([20, 10], seed=1)
    probe = fit_probe("p", {"val": "fixed", **SHORT}, x, y, val=val)
    scores, labels = selection_scores(probe, y, val)
    assert (scores == probe.predict_proba(val[0])).all() and (labels == val[1]).all()
    assert selection_scores(train_head(x, y, Head(**SHORT)), y)[0] is None
    with pytest.raises(ValueError, match="own part val, which is empty"):
        fit_probe("p", {"val": "fixed"}, x, y, val=(x[:0], y[:0]))


def test_inner_val_is_a_fifth_of_every_class_and_whole_groups():
    y = np.repeat([0, 1, 2], [100, 50, 3])
    train, held, note = inner_val(y, None, 0, "multiclass")
    assert np.bincount(y[held]).tolist() == [20, 10, 1] and "31 of the 153" in note
    assert sorted([*train, *held]) == list(range(153))
    assert not np.array_equal(held, inner_val(y, None, 1, "multiclass")[1])
    who = np.arange(153) % 30
    train, held, _ = inner_val(y, who, 0, "multiclass")
    assert not set(who[train]) & set(who[held]) and 0.1 < len(held) / 153 < 0.3
    labels = (np.random.default_rng(0).random((100, 4)) < [0.5, 0.2, 0.1, 0.05]).astype(int)
    assert len(inner_val(labels, None, 0, "multilabel")[1]) == 20
    train, held, _ = inner_val(labels, np.arange(100) // 4, 0, "multilabel")
    assert 10 <= len(held) <= 30 and not set(train // 4) & set(held // 4)


@pytest.mark.parametrize("labels, groups, why", [
    ([0, 0, 0, 0, 1], None, "fewer than 2 images"),
    ([0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1], "too few images or groups")])
def test_with_too_few_labels_to_hold_any_out_the_last_epoch_is_kept_and_said(labels, groups, why):
    y = np.array(labels)
    x = np.random.default_rng(0).normal(size=(len(y), 4))
    probe = train_head(x, y, Head(select="lowest_val_loss", val="inner", **SHORT), groups)
    assert why in probe.note and "last epoch" in probe.note and probe.chosen == 5 and probe.out_of_fold is None


def test_small_budgets_are_said_in_the_note():
    x, y = blobs([6, 6])
    probe = train_head(x, y, Head(epochs=3, batch=512), n_classes=4)
    assert probe.note == "batches of 12, all there is, and not 512; 2 of 4 classes have no training image"
    assert probe.predict_proba(x).shape == (12, 4)
    assert train_head(x, y, Head(epochs=3, batch=512, lr=0.1, per_256=True)).table.lr[0] == pytest.approx(
        0.1 * 12 / 256)
    with pytest.raises(ValueError, match="BatchNorm needs at least 2"):
        train_head(x[:1], y[:1], Head(norm="batch"), n_classes=2)


def test_same_seed_same_bytes():
    x, y = blobs([40, 30])
    a, b, c = (train_head(x, y, Head(head="mlp", val="inner", **SHORT), seed=seed) for seed in (3, 3, 4))
    assert all(a.arrays[name].tobytes() == b.arrays[name].tobytes() for name in a.arrays) and a.table.equals(b.table)
    assert not np.array_equal(a.arrays["weight"], c.arrays["weight"])


def test_a_head_that_diverges_is_refused():
    x, y = blobs([20, 20])
    with pytest.raises(FloatingPointError, match="diverged at lr 1e\\+38"):
        train_head(x, y, Head(optimiser="sgd", lr=1e38, **SHORT))
    with pytest.raises(FloatingPointError, match="diverged"):
        train_head(x, y, Head(optimiser="sgd", lr=1e38, val="inner", select="lowest_val_loss", **SHORT))


@pytest.mark.parametrize("how, said", [
    ({"lr": "1e-3"}, "p: lr '1e-3' is no number"), ({"batch": 0}, "p: batch is 0"), ({"norm": "layer"}, "p: norm"),
    ({"widht": 3}, "p: .*unexpected keyword argument 'widht'"), ({"select": "lowest_val_loss"}, "p: select")])
def test_wrong_settings_are_named(how, said):
    with pytest.raises(ValueError, match=said):
        head_of("p", how)


# --- the published ones -----------------------------------------------------------------------------------------------

PUBLISHED = {  # optimiser, lr, batch, epochs, weight decay, schedule, select, val
    "linear_token_bn": ("adam", 1.5e-3, 512, 100, 0, "cosine", "last", "none"),
    "linear_pooled_sgd": ("sgd", 0.1, 128, 100, 1e-4, "cosine", "last", "none"),
    "linear_lowest_val_loss": ("adam", 3e-4, 64, 100, 0, "constant", "lowest_val_loss", "inner"),
    "linear_last_epoch": ("adam", 3e-4, 512, 90, 0, "constant", "last", "none"),
    "linear_sgd30": ("sgd", 30, 128, 30, 0, "steps", "last", "none"),
    "linear_sgd30_few": ("sgd", 30, 128, 100, 0, "steps", "last", "none"),
    "linear_adam_decay": ("adam", 1e-2, 1000, 500, 5e-6, "exponential", "last", "none"),
    "layers_adam": ("adam", 1e-3, 16, 100, 0, "constant", "lowest_val_loss", "fixed"),
    "mlp_head": ("adam", 1e-3, 64, 200, 0, "steps", "lowest_val_loss", "inner"),
    "mlp_head_published": ("adam", 1.0, 64, 200, 0, "steps", "last", "none"),
}


def settings(name):
    return head_of(name, protocol(name).values)


def test_presets_hold_the_published_constants():
    for name, wanted in PUBLISHED.items():
        how = settings(name)
        assert (how.optimiser, how.lr, how.batch, how.epochs, how.weight_decay, how.schedule, how.select,
                how.val) == wanted, name
    token, few = settings("linear_token_bn"), settings("linear_sgd30_few")
    assert (token.features, token.norm, token.norm_eps, token.init_std, token.warmup, token.per_256) == (
        "token", "batch", 1e-6, 0.01, 5, True)
    assert (settings("linear_pooled_sgd").warmup, settings("linear_pooled_sgd").momentum) == (5, 0)
    assert (settings("linear_sgd30").milestones, few.milestones, few.momentum, few.gamma) == ([10, 20], [40, 60], 0.9,
                                                                                             0.1)
    assert settings("linear_adam_decay").final_lr == 1e-6
    assert (settings("mlp_head").head, settings("mlp_head").hidden, settings("mlp_head").gamma) == ("mlp", 512, 0.5)
    assert (settings("knn_200").head, settings("knn_200").k) == ("knn", 200)
    assert settings("layers").features == settings("layers_adam").features == "taps"


@pytest.mark.parametrize("name", [n for n in protocol_names() if n != "finetune" and protocol(n).stage == "probe"])
def test_every_protocol_fits_and_says_where_it_is_from(name):
    x, y = blobs([30, 30], distance=2)
    new, truth = blobs([100, 100], seed=1, distance=2)
    probe = fit_probe(name, protocol(name).values, x, y, task="binary", n_classes=2, val=(new, truth))
    p = probe.predict_proba(new)
    assert p.shape == (200, 2) and p.sum(1) == pytest.approx(np.ones(200))
    if name in PUBLISHED:  # some hardly leave their start on so few images
        assert probe.table.loss.iloc[-1] < probe.table.loss[0] and len(probe.table) == settings(name).epochs
    entry = protocol(name)
    assert name in ("linear", "knn") or (entry.short and entry.about.endswith(".") and entry.source.endswith("."))


def test_two_hundred_neighbours_are_those_of_scikit_learn():
    x, y = blobs([150, 120, 60], distance=0.5)
    new, _ = blobs([30, 30, 30], seed=1)
    how = protocol("knn_200").values
    probe = fit_probe("knn_200", how, x, y)
    assert probe.note == "" and probe.chosen == 200
    assert np.abs(probe.predict_proba(new) - KNeighborsClassifier(200).fit(x, y).predict_proba(new)).max() < 1e-9
    few = fit_probe("knn_200", how, x[::11], y[::11])
    assert few.chosen == 30 and "all labelled images, and not 200" in few.note
    assert np.abs(few.predict_proba(new) - np.bincount(y[::11]) / 30).max() < 1e-9
    labels = np.stack([y == 0, y == 1], 1).astype(int)
    labels[::2, 0] = -1
    p = fit_probe("knn_200", {"head": "knn", "k": 5}, x, labels, task="multilabel").predict_proba(new)
    near = KNeighborsClassifier(5).fit(x, y).kneighbors(new, return_distance=False)
    assert p[:, 1] == pytest.approx((labels[near, 1] == 1).mean(1))
    have = (labels[near, 0] >= 0).sum(1)
    assert p[have > 0, 0] == pytest.approx((labels[near, 0] == 1).sum(1)[have > 0] / have[have > 0])


# --- features ---------------------------------------------------------------------------------------------------------

def images(n=6, size=32):
    return np.random.default_rng(0).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


def test_taps_are_means_over_the_maps_of_every_stage(tmp_path):
    net = Encoder("resnet10t", {"channels": [8, 8, 16, 16]}, "cifar", 32, taps=(1, 2, 3, 4)).eval()
    found = extract(net, images(), tmp_path / "taps.npz", what="taps")
    with torch.inference_mode():
        out = net(torch.from_numpy(images()).float() / 255)
    assert list(found) == ["layer1", "layer2", "layer3", "layer4"]
    for got, feature_map in zip(found.values(), out.maps, strict=True):
        assert np.abs(got - feature_map.mean((2, 3)).numpy()).max() < 1e-5
    assert net.taps == (1, 2, 3, 4)
    again = extract(net, images(), tmp_path / "taps.npz", what="taps")
    assert all((again[name] == found[name]).all() for name in found) and list(again) == list(found)
    layers = by_layer(net, images(), tmp_path, "taps")
    assert list(layers) == [*found, "h"] and (layers["h"] == extract(net, images())).all()
    assert sorted(p.name for p in tmp_path.glob("*.npz")) == ["features.npz", "taps.npz"]


def test_the_class_token_is_h_where_h_is_the_token(tmp_path):
    args = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    token = Encoder("vit_tiny_patch16_224", args, size=32)
    found = extract(token, images(), tmp_path / "token.npz", what="token")
    assert np.abs(found - extract(token, images())).max() < 1e-6
    assert (extract(token, images(), tmp_path / "token.npz", what="token") == found).all()
    pooled = Encoder("vit_tiny_patch16_224", args | {"global_pool": "avg"}, size=32)
    named = dict(token.backbone.state_dict())  # the norm has another name there
    pooled.backbone.load_state_dict({name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: value
                                     for name, value in named.items()})
    assert np.abs(extract(pooled, images(), what="token") - found).max() < 1e-5
    assert np.abs(extract(pooled, images()) - found).max() > 1e-2
    assert list(by_layer(token, images(), None, "token")) == [""]
    with pytest.raises(ValueError, match="resnet10t has no class token"):
        extract(Encoder("resnet10t", {"channels": [8, 8, 8, 8]}, "cifar", 32), images(), what="token")


def test_the_loader_applies_a_two_layer_head_to_class_tokens():
    args = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "global_pool": "avg"}
    net, pictures = Encoder("vit_tiny_patch16_224", args, size=32).eval(), images(40)
    tokens, y = extract(net, pictures, what="token"), np.arange(40) % 2
    head = {name: torch.from_numpy(a) for name, a in fit_probe("p", {"head": "mlp", **SHORT}, tokens, y).arrays.items()}
    with torch.inference_mode():
        alone = Model(net.backbone, net.spec, head, "binary", ("a", "b"), "token")(
            torch.from_numpy(pictures).float() / 255)
    wanted = apply_probe({name: a.numpy() for name, a in head.items()}, "binary", tokens)
    assert np.abs(alone.numpy() - wanted).max() < 1e-6


def test_rows_of_single_layers_sum_no_cell_up():
    row = {"metric": "balanced_accuracy", "group_kind": "all", "part": "test"}
    table = pd.DataFrame([row | {"layer": layer} for layer in ("layer1", "", "h")])
    assert headline_rows(table).layer.tolist() == [""]


def test_every_layer_is_probed_as_ours_is():
    x, y = blobs([30, 30])
    a, b = fit_probe("layers", protocol("layers").values, x, y, seed=2), linear_probe(x, y, seed=2)
    assert (a.predict_proba(x) == b.predict_proba(x)).all()
    assert HELD_OUT == 0.2 and math.isclose(settings("layers_adam").lr, 1e-3)


# --- rows of the inventory --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, epochs, falls, budgets", [
    ("linear_sgd30", 30, [10, 20], [1.0]), ("linear_sgd30_few", 100, [40, 60], [0.01, 50, 100])])
def test_all_labels_and_few_shots_are_trained_at_a_rate_of_30_that_falls_twice(name, epochs, falls, budgets):
    how, study = settings(name), yaml.safe_load((ROOT / "params/studies/c_longtail.yaml").read_text("utf-8"))
    assert (how.optimiser, how.momentum, how.weight_decay, how.select) == ("sgd", 0.9, 0, "last")
    assert set(budgets) <= {*split_preset("shots").budgets, *study["evaluate"]["budgets"]}
    x, y = blobs([200, 200, 200], distance=2)
    for budget in budgets:
        at = label_budget(y, budget, 0)
        assert np.bincount(y[at]).tolist() == [budget if budget > 1 else 200 * budget] * 3
        probe = fit_probe(name, protocol(name).values, x[at], y[at])
        wanted = [30.0] * falls[0] + [3.0] * (falls[1] - falls[0]) + [0.3] * (epochs - falls[1])
        assert probe.table.lr.tolist() == pytest.approx(wanted) and probe.chosen == epochs
        assert (probe.predict_proba(x).argmax(1) == y).mean() > 0.8


def test_features_of_the_layers_scores_labels_and_intervals_are_kept(tmp_path):
    net = Encoder("resnet10t", {"channels": [8, 8, 16, 16]}, "cifar", 32, taps=(1, 2, 3, 4)).eval()
    found, y = by_layer(net, images(80), tmp_path, "taps"), np.arange(80) % 2
    with np.load(tmp_path / "taps.npz") as kept:
        assert all(len(kept[name]) == 80 and (kept[name] == found[name]).all()
                   for name in ("layer1", "layer2", "layer3", "layer4"))
    h, there = found["layer4"], slice(40, 80)
    probe = fit_probe("layers", protocol("layers").values, h[:40], y[:40], task="binary")
    test = Predictions(probe.predict_proba(h[there]), y[there], ("a", "b"), "binary", np.arange(40) // 2)
    np.savez(tmp_path / "cell.npz", **stored(test, probe.head_arrays(), {}))
    with np.load(tmp_path / "cell.npz") as kept:
        scores = kept["probabilities"]
        assert (kept["labels"] == y[there]).all() and (kept["groups"] == test.groups).all()
        head = {name.removeprefix("head/"): kept[name] for name in kept.files if name.startswith("head/")}
    assert np.abs(apply_probe(head, "binary", h[there]) - scores).max() < 1e-12  # so that logits are at hand, too
    auc = next(row for row in rows_of(test, 0, 200) if (row["metric"], row["group_kind"]) == ("roc_auc", "all"))
    assert auc["value"] == pytest.approx(roc_auc_score(y[there], scores[:, 1]))
    assert auc["low"] < auc["value"] < auc["high"]
