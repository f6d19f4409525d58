"""Barlow Twins, Zbontar et al. 2021: the loss four ways, and its statistics, which are BatchNorm's."""

import math

import pytest
import torch
from test_losses import HALVES, draw
from test_methods import draw_views, make
from test_vicreg import orthogonal

from ssl_core.augment import Augment
from ssl_core.encoders import Encoder
from ssl_core.methods import build
from ssl_core.methods.barlow import barlow_loss, cross_correlation


def barlow_by_hand(z1, z2, lam, eps=1e-5):
    """Equations 1 and 2, entry by entry, with BatchNorm's eps beside each variance."""
    n, d = len(z1), len(z1[0])

    def standardised(z, j):
        x = [z[b][j] for b in range(n)]
        mean = sum(x) / n
        scale = math.sqrt(sum((a - mean) ** 2 for a in x) / n + eps)
        return [(a - mean) / scale for a in x]

    loss = 0
    for i in range(d):
        for j in range(d):
            c = sum(a * b for a, b in zip(standardised(z1, i), standardised(z2, j))) / n
            loss += (1 - c) ** 2 if i == j else lam * c**2
    return [loss] * n


@pytest.mark.parametrize("size", [1.0, 30.0])
def test_cross_correlation_is_the_identity_for_equal_decorrelated_views(size):
    z = orthogonal(size)  # biased variance size²
    kept = size**2 / (size**2 + 1e-5)
    torch.testing.assert_close(cross_correlation(z, z), kept * torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(barlow_loss(z, z, 0.005), torch.full((4,), 3 * (1 - kept) ** 2, dtype=torch.float64))


def test_loss_is_known_for_opposite_unrelated_redundant_and_collapsed_views():
    z, point = orthogonal(1e4), torch.full((4, 3), 7.0, dtype=torch.float64)

    def known(value):
        return torch.full((4,), value, dtype=torch.float64)

    torch.testing.assert_close(barlow_loss(z, -z, 0.1), known(3 * 4.0))
    torch.testing.assert_close(barlow_loss(z, z.roll(1, 1), 0.1), known(3 * 1.0 + 0.1 * 3))
    torch.testing.assert_close(barlow_loss(z[:, [0, 0]], z[:, [0, 0]], 0.1), known(0.1 * 2))
    torch.testing.assert_close(barlow_loss(point, point, 0.1), known(3.0))


@pytest.mark.parametrize("lam", [0.0051, 1.0])
def test_loss_equals_equations_1_and_2(lam):
    z1, z2 = draw(5, 3, seed=1), draw(5, 3, seed=2)
    expected = torch.tensor(barlow_by_hand(z1.tolist(), z2.tolist(), lam), dtype=torch.float64)
    torch.testing.assert_close(barlow_loss(z1, z2, lam), expected, atol=1e-6, rtol=0)


def test_loss_is_of_the_batch_ignores_the_order_of_images_and_views_and_each_dimensions_scale_and_origin():
    z1, z2 = 100 * draw(6, 4, seed=1), 100 * draw(6, 4, seed=2)
    loss, turned = barlow_loss(z1, z2, 0.005), torch.tensor([3, 0, 5, 1, 4, 2])
    assert loss.shape == (6,) and len(loss.unique()) == 1
    torch.testing.assert_close(barlow_loss(z1[turned], z2[turned], 0.005), loss)
    torch.testing.assert_close(barlow_loss(z2, z1, 0.005), loss)
    scale = torch.tensor([2.0, 3, 4, 5], dtype=torch.float64)
    torch.testing.assert_close(barlow_loss(z1 * scale + scale, z2, 0.005), loss, rtol=1e-6, atol=1e-7)  # but for eps


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [65504.0, 6e-8])
def test_loss_is_finite_at_the_ends_of_half_precision(dtype, size):
    z1, z2 = ((size * draw(8, 512, seed=s).sign()).to(dtype).requires_grad_() for s in (1, 2))
    loss = barlow_loss(z1, z2, 0.005)
    loss.mean().backward()
    assert loss.dtype == torch.float32 and loss.isfinite().all()
    assert z1.grad.isfinite().all() and z2.grad.isfinite().all()


def test_statistics_are_those_of_batchnorm():
    z1, z2 = draw(6, 4, seed=1).float(), 0.01 * draw(6, 4, seed=2).float()
    bn = torch.nn.BatchNorm1d(4, affine=False).train()
    torch.testing.assert_close(cross_correlation(z1, z2), bn(z1).T @ bn(z2) / 6)


def test_constants_reach_the_loss():
    method = make("barlow", lam=0.7).train()
    step = method(*draw_views(method))
    torch.testing.assert_close(step.loss, barlow_loss(*step.z, 0.7))


def test_projector_is_that_of_the_paper():
    method = build("barlow", Encoder("resnet10t", {"channels": [8, 8, 8, 16]}, size=64), Augment("simclr", 64))
    names = [type(m).__name__ for m in method.projector]
    assert names == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    linear = [m for m in method.projector if hasattr(m, "out_features")]
    assert all(m.out_features == 8192 and m.bias is None for m in linear) and method.lam == 0.005
