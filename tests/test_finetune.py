"""Fine-tuning: what is copied, weighted, masked, decayed; that it is exact, resumes, and reloads from its files."""

import math

import numpy as np
import pytest
import torch
import toy_configs

from ssl_core import train
from ssl_core.encoders import Encoder
from ssl_core.evaluate import finetune as module
from ssl_core.evaluate.classes import balanced_order, class_weights, cost, log_prior
from ssl_core.evaluate.features import weights_hash
from ssl_core.evaluate.finetune import finetune, load_classifier, predict

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


@pytest.mark.parametrize("stop_after, changes", [
    (4, {}), (7, {}), (4, {"sampling": "balanced"}), (4, {"logit_adjustment": 1.0})])
def test_a_killed_run_ends_with_the_same_bits_and_a_finished_one_is_read(stop_after, changes, tmp_path, monkeypatch):
    images, labels, cfg = *striped(), config(**changes)
    labels[labels == 2] = 0  # two thirds and one third
    whole, history = finetune(encoder(), images, labels, cfg, 3, folder=tmp_path / "whole", key="a")
    if changes:
        assert weights_hash(whole) != weights_hash(finetune(encoder(), images, labels, config(), 3)[0])
    watch, calls = train.watch, []

    def watch_or_die(*args):
        calls.append(1)
        if len(calls) > stop_after:
            raise KeyboardInterrupt
        watch(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "watch", watch_or_die)
        patch.setattr(train, "SAVE_EVERY", -1)
        finetune(encoder(), images, labels, cfg, 3, folder=tmp_path / "killed", key="a")
    assert torch.load(tmp_path / "killed" / "last.pt", weights_only=True)["at"]["step"] == stop_after
    with pytest.raises(ValueError, match="last.pt belongs to key a, not b"):
        finetune(encoder(), images, labels, cfg, 3, folder=tmp_path / "killed", key="b")
    resumed, rest = finetune(encoder(), images, labels, cfg, 3, folder=tmp_path / "killed", key="a")
    assert weights_hash(resumed) == weights_hash(whole) and rest.equals(history)
    assert sorted(p.name for p in (tmp_path / "killed").iterdir()) == ["encoder.safetensors", "head.safetensors",
                                                                       "history.csv"]

    monkeypatch.setattr(module, "prepare", None)  # nothing is trained
    read, stored = finetune(encoder(), images, labels, cfg, 3, folder=tmp_path / "whole", key="a")
    assert weights_hash(read) == weights_hash(whole) and stored.equals(history)
    with pytest.raises(ValueError, match="head.safetensors belongs to key a, not b"):
        finetune(encoder(), images, labels, cfg, 3, folder=tmp_path / "whole", key="b")


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


# --- uneven classes: adjusted logits, balanced draws ------------------------------------------------------------------

def adjusted_by_hand(logits, labels, counts, tau):
    """Menon et al. 2021, equation 10, image by image; a class without images is not in the sum."""
    prior, losses = [n / sum(counts) for n in counts], []
    for f, y in zip(logits.tolist(), labels):
        there = [c for c in range(len(f)) if prior[c] > 0]
        others = sum(math.exp(f[c] + tau * math.log(prior[c])) for c in there)
        losses.append(-math.log(math.exp(f[y] + tau * math.log(prior[y])) / others))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_the_adjusted_loss_is_equation_10_with_the_prior_of_the_training_labels(tau):
    labels = np.array([0] * 7 + [1] * 2 + [3])  # class 2 has no image
    logits = torch.randn(10, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prior = log_prior(labels, 4, "multiclass")
    assert prior.exp().tolist() == pytest.approx([0.7, 0.2, 0, 0.1], abs=1e-6) and prior.isfinite().all()
    loss = cost(logits + tau * prior, torch.from_numpy(labels), torch.ones(4, dtype=torch.float64), 0.0, "multiclass")
    assert loss.item() == pytest.approx(adjusted_by_hand(logits, labels, [7, 2, 0, 1], tau), abs=1e-6)


def test_the_adjusted_loss_of_a_label_is_that_of_its_two_answers():
    answers = np.array([[1, 1, 0], [0, -1, 0], [0, -1, -1], [0, 0, 0]])
    odds = log_prior(answers, 3, "multilabel")
    assert odds[:2].tolist() == pytest.approx([math.log(1 / 3), 0], abs=1e-6) and odds.isfinite().all()
    two = log_prior(answers[:, 0], 2, "binary")
    f = torch.tensor([0.3, -1.0, 2.0, 0.1])
    as_two = torch.stack([torch.zeros(4), f], 1) + two
    y = torch.from_numpy(answers[:, 0])
    assert cost((f + odds[0])[:, None], y[:, None], torch.ones(2, 1), 0.0, "multilabel").item() == pytest.approx(
        cost(as_two, y, torch.ones(2), 0.0, "binary").item(), abs=1e-6)


def fit(x, y, n_classes, tau, smoothing=0.0):
    """A linear softmax at the minimum of the loss over all images."""
    head = torch.nn.Linear(x.shape[1], n_classes).double()
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    prior = tau * log_prior(y.numpy(), n_classes, "multiclass", smoothing).double()
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def closure():
        optimiser.zero_grad()
        loss = cost(head(x) + prior, y, torch.ones(n_classes).double(), smoothing, "multiclass")
        loss.backward()
        return loss

    optimiser.step(closure)
    return head


def gaussians(counts, seed):
    """Classes around three corners of a triangle, 2 from its middle, with deviation 1."""
    angle = 2 * math.pi * torch.arange(3) / 3
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    noise = torch.randn(len(y), 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 2 * torch.stack([angle.cos(), angle.sin()], 1).double()[y] + noise, y


def sectors(x):
    """In which of 15 directions x lies: a linear softmax on this can be any function of the direction."""
    turn = torch.atan2(x[:, 1], x[:, 0]) / (2 * math.pi) + 0.5
    return torch.nn.functional.one_hot((15 * turn).long().clamp(max=14), 15).double()


def balanced_error(head, x, y):
    wrong = (head(x).argmax(1) != y).double()
    return np.mean([wrong[y == c].mean().item() for c in y.unique()])


def test_adjustment_moves_a_linear_model_s_bias_by_the_log_prior():
    x, y = gaussians([3000, 300, 30], seed=0)
    prior = log_prior(y.numpy(), 3, "multiclass").double()
    gap = fit(x, y, 3, 0.0).bias - prior - fit(x, y, 3, 1.0).bias
    torch.testing.assert_close(gap - gap.mean(), torch.zeros(3).double(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_adjustment_lowers_the_balanced_error_of_uneven_classes(smoothing):
    """As far as labels that are even, with label smoothing, too."""
    (x, y), (new, truth) = gaussians([3000, 300, 30], seed=0), gaussians([2000] * 3, seed=1)
    even, labels = gaussians([1000] * 3, seed=2)
    best = balanced_error(fit(sectors(even), labels, 3, 0.0), sectors(new), truth)
    plain, adjusted = (balanced_error(fit(sectors(x), y, 3, tau, smoothing), sectors(new), truth) for tau in (0.0, 1.0))
    assert plain > best + 0.1 and adjusted < best + 0.02


def test_adjustment_does_not_make_a_class_without_images_win():
    (x, y), (new, _) = gaussians([3000, 300], seed=0), gaussians([500, 500], seed=1)
    for smoothing in (0.0, 0.1):
        assert (fit(sectors(x), y, 3, 1.0, smoothing)(sectors(new)).argmax(1) < 2).all()


@pytest.mark.parametrize("counts, batch", [([90, 9, 1], 10), ([50, 50], 7), ([4, 0, 3], 7), ([200, 20, 5, 5, 1], 3)])
def test_balanced_order_draws_classes_and_their_images_equally_often(counts, batch):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    seen = []
    for epoch in range(4):
        batches = balanced_order(labels, batch, 3, epoch)
        drawn = np.stack(batches)
        assert drawn.shape == (len(labels) // batch, batch) and drawn.dtype == np.int64
        drawn = drawn.ravel()
        per_class = np.bincount(labels[drawn])[np.array(counts) > 0]
        assert per_class.max() - per_class.min() <= 1
        for c in np.unique(labels):
            per_image = np.bincount(drawn[labels[drawn] == c], minlength=len(labels))[labels == c]
            assert per_image.max() - per_image.min() <= 2  # one for the last round, which is cut
        seen.append(drawn)
        np.testing.assert_array_equal(drawn, np.concatenate(balanced_order(labels, batch, 3, epoch)))
    assert not np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], np.concatenate(balanced_order(labels, batch, 4, 0)))


def test_a_batch_of_balanced_order_holds_every_class():
    labels = np.repeat(np.arange(3), [60, 6, 2])
    for one in balanced_order(labels, 9, 0, 0):
        assert (np.bincount(labels[one], minlength=3) >= 2).all()


def test_balanced_sampling_of_multilabel_sets_is_refused():
    images, labels = striped()
    with pytest.raises(ValueError, match="sampling balanced draws a class .* use class_weight balanced"):
        finetune(encoder(), images, np.stack([labels == 0, labels == 1], 1).astype(int), config(sampling="balanced"), 2,
                 "multilabel")


def test_one_correction_of_uneven_classes_is_enough():
    with pytest.raises(ValueError, match="class_weight and sampling each make up for uneven classes"):
        config(class_weight="balanced", sampling="balanced")
    with pytest.raises(ValueError, match="sampling and logit_adjustment each make up"):
        config(sampling="balanced", logit_adjustment=1)


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
