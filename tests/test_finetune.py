"""Fine-tuning: what is copied, weighted, masked, decayed; that it is exact, resumes, and reloads from its files."""

import math

import numpy as np
import pytest
import torch
import toy_configs

from ssl_core import train
from ssl_core.encoders import Encoder
from ssl_core.evaluate import finetune as module
from ssl_core.evaluate.features import weights_hash
from ssl_core.evaluate.finetune import class_weights, cost, finetune, load_classifier, predict

SIZE, N = 16, 30
VIT = {"name": "vit_tiny_patch16_224", "args": {"patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2}}
RESNET = {"name": "resnet10t", "args": {"channels": [8, 8, 16, 16]}, "stem": "cifar"}


def encoder(spec=RESNET, seed=0):
    torch.manual_seed(seed)
    return Encoder(**spec, size=SIZE)


def config(**changes):
    return toy_configs.finetune(**{"batch": 8, "steps": 9, "lr": 3e-3} | changes)


def striped(n=N, seed=0):
    """Noise, and over it 0 rows, 1 columns or 2 nothing."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % 3
    across = np.tile(np.arange(SIZE) % 4 < 2, (SIZE, 1))
    patterns = 150 * np.stack([across.T, across, np.zeros_like(across)])
    return (rng.integers(0, 100, (n, 1, SIZE, SIZE)) + patterns[labels][:, None]).astype(np.uint8), labels


@pytest.mark.parametrize("spec", [RESNET, VIT])
def test_it_learns_leaves_the_given_encoder_alone_and_is_exact(spec):
    images, labels = striped()
    given = encoder(spec)
    before = weights_hash(given)
    cfg = config(steps=40, lr=1e-2, drop_path=0.1, label_smoothing=0.1, layer_decay=0.75, weight_decay=0.05)
    model, history = finetune(given, images, labels, cfg, 3)
    probabilities = predict(model, striped(seed=1)[0])
    assert (probabilities.argmax(1) == labels).mean() > 0.9
    assert probabilities.dtype == np.float64 and np.abs(probabilities.sum(1) - 1).max() < 1e-12
    assert weights_hash(given) == before != weights_hash(model.encoder) and not model.training
    assert history["step"].iloc[-1] == 40 and history["loss"].iloc[-1] < history["loss"].iloc[0]

    torch.rand(3)
    again, _ = finetune(given, images, labels, cfg, 3)
    assert weights_hash(again) == weights_hash(model)
    other, _ = finetune(given, images, labels, config(**{**cfg.model_dump(), "seed": 1}), 3)
    assert weights_hash(other) != weights_hash(model)


def test_it_stops_at_the_last_step_and_a_small_set_makes_a_small_batch():
    images, labels = striped(5)
    _, history = finetune(encoder(), images, labels, config(batch=64, steps=7), 3)
    assert history["step"].tolist() == list(range(1, 8))
    assert history["lr"].tolist() == [train.learning_rate(s, 7, 3e-3, 0.1) for s in range(7)]


@pytest.mark.parametrize("stop_after", [4, 7])
def test_a_killed_run_ends_with_the_same_bits_and_a_finished_one_is_read(stop_after, tmp_path, monkeypatch):
    images, labels = striped()
    whole, history = finetune(encoder(), images, labels, config(), 3, folder=tmp_path / "whole", key="a")
    watch, calls = train.watch, []

    def watch_or_die(*args):
        calls.append(1)
        if len(calls) > stop_after:
            raise KeyboardInterrupt
        watch(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "watch", watch_or_die)
        patch.setattr(train, "SAVE_EVERY", -1)
        finetune(encoder(), images, labels, config(), 3, folder=tmp_path / "killed", key="a")
    assert torch.load(tmp_path / "killed" / "last.pt", weights_only=True)["at"]["step"] == stop_after
    with pytest.raises(ValueError, match="last.pt belongs to key a, not b"):
        finetune(encoder(), images, labels, config(), 3, folder=tmp_path / "killed", key="b")
    resumed, rest = finetune(encoder(), images, labels, config(), 3, folder=tmp_path / "killed", key="a")
    assert weights_hash(resumed) == weights_hash(whole) and rest.equals(history)
    assert sorted(p.name for p in (tmp_path / "killed").iterdir()) == ["encoder.safetensors", "head.safetensors",
                                                                       "history.csv"]

    monkeypatch.setattr(module, "prepare", None)  # nothing is trained
    read, stored = finetune(encoder(), images, labels, config(), 3, folder=tmp_path / "whole", key="a")
    assert weights_hash(read) == weights_hash(whole) and stored.equals(history)
    with pytest.raises(ValueError, match="head.safetensors belongs to key a, not b"):
        finetune(encoder(), images, labels, config(), 3, folder=tmp_path / "whole", key="b")


def test_files_alone_give_the_same_probabilities(tmp_path):
    images, labels = striped()
    model, _ = finetune(encoder(VIT), images, labels, config(drop_path=0.2), 3, folder=tmp_path)
    np.testing.assert_allclose(predict(load_classifier(tmp_path), images), predict(model, images), rtol=1e-5)
    model.encoder.to(memory_format=torch.contiguous_format)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(predict(load_classifier(tmp_path), mapped), predict(model, images))


def test_images_without_a_label_are_refused_where_a_label_is_one_class():
    images, labels = striped()
    labels[:4] = -1
    with pytest.raises(ValueError, match="4 of 30 images have no label"):
        finetune(encoder(), images, labels, config(), 3)


# --- multilabel -------------------------------------------------------------------------------------------------------

def test_multilabel_learns_each_label_from_the_images_where_it_is_known():
    images, labels = striped(60)
    answers = np.stack([labels == 0, labels == 1], 1).astype(np.int64)
    answers[::2, 0] = -1
    answers[7] = -1
    model, _ = finetune(encoder(), images, answers, config(steps=40, lr=1e-2), 2, "multilabel")
    probabilities = predict(model, images)
    assert probabilities.shape == (60, 2) and not np.allclose(probabilities.sum(1), 1)
    assert ((probabilities > 0.5) == np.stack([labels == 0, labels == 1], 1)).mean() > 0.9


def test_unknown_answers_cost_nothing_and_the_known_are_averaged():
    logits = torch.tensor([[0.0, 3.0], [2.0, -5.0]], requires_grad=True)
    y = torch.tensor([[1, -1], [0, -1]])
    ones = torch.ones(2, 2)
    loss = cost(logits, y, ones, 0.0, "multilabel")
    assert loss.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(2))) / 2)
    loss.backward()
    assert not logits.grad[:, 1].any()
    assert cost(logits, torch.full((2, 2), -1), ones, 0.0, "multilabel") == 0
    smooth = cost(logits[:, :1], y[:, :1], ones[:, :1], 0.2, "multilabel").item()  # targets 0.9 and 0.1
    assert smooth == pytest.approx((math.log(2) + math.log(1 + math.exp(2)) - 0.1 * 2) / 2)


def test_balanced_weights_are_n_over_c_n_c():
    labels = np.array([0] * 6 + [1] * 3 + [3])
    weights = class_weights(labels, 4, "multiclass", "balanced")
    torch.testing.assert_close(weights, torch.tensor([10 / 24, 10 / 12, 0, 10 / 4]))
    assert class_weights(labels, 4, "multiclass", "none").tolist() == [1, 1, 1, 1]
    answers = np.array([[1, 1], [0, 1], [0, -1], [0, -1]])
    torch.testing.assert_close(class_weights(answers, 2, "multilabel", "balanced"),
                               torch.tensor([[4 / 6, 0], [4 / 2, 2 / 4]]))


def test_balanced_weights_make_a_rare_class_cost_as_much_as_a_frequent_one():
    y = torch.tensor([0] * 9 + [1])
    weights = class_weights(y.numpy(), 2, "multiclass", "balanced")
    for logits in ([[4.0, 0.0]] * 10, [[0.0, 4.0]] * 10):
        assert cost(torch.tensor(logits), y, weights, 0.0, "multiclass").item() == pytest.approx(
            (math.log(1 + math.exp(4)) + math.log(1 + math.exp(-4))) / 2)


# --- optimiser --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("spec, deepest, shallowest", [
    (VIT, "blocks.2.attn.qkv.weight", "patch_embed.proj.weight"), (RESNET, "layer4.0.conv1.weight", "conv1.weight")])
def test_learning_rates_shrink_towards_the_pixels(spec, deepest, shallowest):
    model = module.prepare(encoder(spec), 3, "multiclass", config(drop_path=0.1))
    groups = module.layerwise_optimiser(model, config(layer_decay=0.5, weight_decay=0.05)).param_groups
    of = {id(p): group for group in groups for p in group["params"]}
    assert len(of) == len(list(model.parameters())) == sum(len(g["params"]) for g in groups)
    parameters = dict(model.encoder.backbone.named_parameters())
    scale = {name: of[id(p)]["lr_scale"] for name, p in parameters.items()}
    assert of[id(model.head.weight)]["lr_scale"] == 1 >= scale[deepest] > scale[shallowest] == min(scale.values())
    if spec is VIT:
        assert [scale[f"blocks.{i}.attn.qkv.weight"] for i in (2, 1, 0)] == [0.5, 0.25, 0.125]
        assert scale[shallowest] == scale["pos_embed"] == 0.0625
    decayed = {name for name, p in parameters.items() if of[id(p)]["weight_decay"] > 0}
    assert {deepest, shallowest} <= decayed and not {n for n in decayed if "norm" in n or "bias" in n or "pos_" in n}


def test_drop_path_reaches_the_blocks_and_the_saved_spec():
    model = module.prepare(encoder(VIT), 3, "multiclass", config(drop_path=0.2))
    assert model.encoder.backbone.blocks[2].drop_path1.drop_prob == pytest.approx(0.2)
    assert model.encoder.spec["args"]["drop_path_rate"] == 0.2
    assert "drop_path_rate" not in module.prepare(encoder(VIT), 3, "multiclass", config()).encoder.spec["args"]
