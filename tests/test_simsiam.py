"""SimSiam, Chen & He 2021: the loss four ways, whose gradient is stopped, and what happens without a predictor."""

import math
import re

import pytest
import torch
import toy_configs
from test_losses import HALVES, draw
from test_methods import draw_views, make
from torch import nn

from ssl_core.analysis import alarms
from ssl_core.augment import Augment
from ssl_core.data import load
from ssl_core.encoders import Encoder, build_encoder
from ssl_core.methods import build
from ssl_core.methods.simsiam import simsiam_loss
from ssl_core.train import pretrain, use_device


def simsiam_by_hand(p1, p2, z1, z2):
    """Equations 1 and 2, image by image."""
    def distance(p, z):
        dot = sum(a * b for a, b in zip(p, z))
        return -dot / math.sqrt(sum(a * a for a in p)) / math.sqrt(sum(b * b for b in z))

    return [distance(p1[b], z2[b]) / 2 + distance(p2[b], z1[b]) / 2 for b in range(len(p1))]


def test_loss_is_known_for_given_angles():
    angles = torch.tensor([0.0, 60.0, 90.0, 180.0], dtype=torch.float64).deg2rad()
    z = torch.tensor([[2.0, 0.0]], dtype=torch.float64).expand(4, 2)
    p = 5 * torch.stack([angles.cos(), angles.sin()], 1)
    torch.testing.assert_close(simsiam_loss(p, p, z, z), torch.tensor([-1, -0.5, 0, 1], dtype=torch.float64))
    torch.testing.assert_close(simsiam_loss(p, z, z, z), torch.tensor([-1, -0.75, -0.5, 0], dtype=torch.float64))


def test_loss_equals_equation_2():
    p1, p2, z1, z2 = (draw(5, 3, seed=s) for s in range(4))
    expected = torch.tensor(simsiam_by_hand(*(t.tolist() for t in (p1, p2, z1, z2))), dtype=torch.float64)
    torch.testing.assert_close(simsiam_loss(p1, p2, z1, z2), expected, atol=1e-6, rtol=0)


def test_loss_follows_a_permutation_of_images_and_ignores_the_order_of_views():
    p1, p2, z1, z2 = (draw(6, 4, seed=s) for s in range(4))
    loss, turned = simsiam_loss(p1, p2, z1, z2), torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(simsiam_loss(p1[turned], p2[turned], z1[turned], z2[turned]), loss[turned])
    torch.testing.assert_close(simsiam_loss(p2, p1, z2, z1), loss)
    torch.testing.assert_close(simsiam_loss(p1[2:3], p2[2:3], z1[2:3], z2[2:3]), loss[2:3])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [65504.0, 6e-8])
def test_loss_is_finite_at_the_ends_of_half_precision(dtype, size):
    p1, p2, z1, z2 = ((size * draw(8, 512, seed=s).sign()).to(dtype).requires_grad_() for s in range(4))
    loss = simsiam_loss(p1, p2, z1, z2)
    loss.mean().backward()
    assert loss.dtype == torch.float32 and loss.isfinite().all()
    assert p1.grad.isfinite().all() or size < 1  # the gradient of a normalisation grows as 1 / size


def test_no_gradient_passes_through_a_target():
    p1, p2, z1, z2 = (draw(4, 3, seed=s).requires_grad_() for s in range(4))
    simsiam_loss(p1, p2, z1, z2).sum().backward()
    assert z1.grad is None and z2.grad is None and p1.grad.any() and p2.grad.any()


def test_without_a_predictor_the_stopped_gradient_only_halves_the_step():
    """Why it collapses: the direction is that of −cos(z1, z2), which the same point for all images makes least."""
    z1, z2 = draw(4, 3, seed=1).requires_grad_(), draw(4, 3, seed=2).requires_grad_()
    stopped = torch.autograd.grad(simsiam_loss(z1, z2, z1, z2).sum(), (z1, z2))
    free = torch.autograd.grad(-nn.functional.cosine_similarity(z1, z2).sum(), (z1, z2))
    for one, other in zip(stopped, free):
        torch.testing.assert_close(2 * one, other)


def test_heads_are_those_of_the_paper():
    method = build("simsiam", Encoder("resnet10t", {"channels": [8, 8, 8, 16]}, size=64), Augment("simclr", 64))
    assert [(m.in_features, m.out_features) for m in method.projector if isinstance(m, nn.Linear)] \
        == [(16, 2048), (2048, 2048), (2048, 2048)]
    assert [type(m) for m in method.projector[-2:]] == [nn.Linear, nn.BatchNorm1d] and not method.projector[-1].affine
    assert all(m.bias is None for m in method.projector if isinstance(m, nn.Linear))
    assert [(m.in_features, m.out_features) for m in method.predictor if isinstance(m, nn.Linear)] \
        == [(2048, 512), (512, 2048)]
    assert isinstance(method.predictor[-1], nn.Linear)  # neither BatchNorm nor ReLU on the prediction
    bare = make("simsiam", predictor=None, projector_norm=False)
    assert isinstance(bare.projector[-1], nn.Linear) and bare.projector[-1].bias is not None
    step = bare(*draw_views(bare))
    torch.testing.assert_close(step.loss, simsiam_loss(*step.z, *step.z))


@pytest.mark.parametrize("name", ["simsiam", "vicreg", "barlow", "tico"])
def test_a_view_is_normalised_by_its_own_batch(name):
    method = make(name).train()
    x1, x2 = draw_views(method)
    torch.testing.assert_close(method(x1, x2).z[0], method(x1, 1 - x2).z[0])
    assert not torch.allclose(method(x1, x2).z[0], method(x1.roll(1, 3), x2).z[0])


@pytest.mark.slow  # 2 × 300 steps
@pytest.mark.parametrize("predictor", [None, 128])
def test_the_gauge_flags_a_missing_predictor_in_the_first_tenth_of_training(predictor, tmp_path):
    """A published projector, 2048 → 512 without BatchNorm on its output, with and without a predictor. Learning rate,
    warm-up and optimiser are the notebook's; the network and the batch are small to be quick."""
    use_device("cpu", 1)
    cfg = toy_configs.pretrain(method="simsiam", dataset="fashion", image_size=28, recipe="simclr_small", lr=0.001,
                               encoder_args={"channels": [8, 16, 32, 64]}, stem="default", normalisation="half",
                               weight_decay=0.0001, epochs=30, warmup=0.1, batch=32)
    images = load(cfg.dataset, cfg.image_size).images[:320]
    with pytest.warns(UserWarning, match="keeps its ImageNet stem"):
        net = build_encoder(cfg, cfg.seed)
    method = build("simsiam", net, Augment(cfg.recipe, cfg.image_size), len(images), cfg.seed,
                   projector=(2048, 512), projector_norm=False, predictor=predictor)
    history = pretrain(method, images, cfg, tmp_path, key="k")
    assert history.step.iloc[-1] == 300
    epoch = [int(found[1]) for text in alarms.of_history(history)
             if (found := re.match(r"embeddings collapsed in epoch (\d+) of 30", text))]
    if predictor:
        assert not epoch and history.spread.min() > 0.5
    else:
        assert epoch and epoch[0] <= 3 and history.spread.iloc[-1] < 0.05
