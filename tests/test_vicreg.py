"""VICReg, Bardes, Ponce & LeCun 2022: the loss four ways, and which part of it belongs to an image."""

import math

import pytest
import torch
from test_losses import HALVES, draw
from test_methods import draw_views, make

from ssl_core.augment import Augment
from ssl_core.encoders import Encoder
from ssl_core.methods import build
from ssl_core.methods.vicreg import covariance, variance, vicreg_loss
from ssl_core.presets import preset

PAPER = (25.0, 25.0, 1.0)


def vicreg_by_hand(z1, z2, lam, mu, nu, halve, eps=1e-4):
    """Equations 1 to 6, entry by entry, with the mean over D in equation 5."""
    n, d = len(z1), len(z1[0])

    def column(z, j):
        return [z[b][j] for b in range(n)]

    def cov(x, y):
        mx, my = sum(x) / n, sum(y) / n
        return sum((a - mx) * (b - my) for a, b in zip(x, y)) / (n - 1)

    def v(z):
        return sum(max(0, 1 - math.sqrt(cov(column(z, j), column(z, j)) + eps)) for j in range(d)) / d

    def c(z):
        return sum(cov(column(z, i), column(z, j)) ** 2 for i in range(d) for j in range(d) if i != j) / d

    s = [sum((a - b) ** 2 for a, b in zip(z1[b], z2[b])) / d for b in range(n)]
    return [lam * s[b] + mu * (v(z1) + v(z2)) / (2 if halve else 1) + nu * (c(z1) + c(z2)) for b in range(n)]


def orthogonal(size):
    """Four images, three dimensions that are centred, uncorrelated and of variance size² · 4/3."""
    return size * torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)


@pytest.mark.parametrize("halve", [True, False])
def test_loss_is_known_for_spread_collapsed_shifted_and_redundant_embeddings(halve):
    def loss(z1, z2):
        return vicreg_loss(z1, z2, *PAPER, halve=halve)

    def known(value):
        return torch.full((4,), value, dtype=torch.float64)

    spread, point = orthogonal(2), torch.full((4, 3), 7.0, dtype=torch.float64)
    torch.testing.assert_close(loss(spread, spread), known(0.0))
    torch.testing.assert_close(loss(spread, spread + 0.1), known(25 * 0.01))
    torch.testing.assert_close(loss(point, point), known(25 * (1 - 0.01) * (1 if halve else 2)))
    twice = spread[:, [0, 0]]  # two equal dimensions of variance 16/3: C is 16/3 everywhere
    torch.testing.assert_close(loss(twice, twice), known(2 * (16 / 3) ** 2))


@pytest.mark.parametrize("halve", [True, False])
def test_loss_equals_equations_1_to_6(halve):
    z1, z2 = 0.8 * draw(5, 3, seed=1), draw(5, 3, seed=2)
    expected = torch.tensor(vicreg_by_hand(z1.tolist(), z2.tolist(), 25, 24, 1.5, halve), dtype=torch.float64)
    torch.testing.assert_close(vicreg_loss(z1, z2, 25, 24, 1.5, halve), expected, atol=1e-6, rtol=0)


def test_loss_follows_a_permutation_of_images_and_ignores_the_order_of_views_and_the_origin():
    z1, z2 = draw(6, 4, seed=1), draw(6, 4, seed=2)
    loss, turned = vicreg_loss(z1, z2, *PAPER), torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(vicreg_loss(z1[turned], z2[turned], *PAPER), loss[turned])
    torch.testing.assert_close(vicreg_loss(z2, z1, *PAPER), loss)
    torch.testing.assert_close(vicreg_loss(z1 + 3, z2 + 3, *PAPER), loss)  # so a last bias changes nothing


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [65504.0, 6e-8])
def test_loss_is_finite_at_the_ends_of_half_precision(dtype, size):
    raw = [(size * draw(8, 512, seed=s).sign()).to(dtype) for s in (1, 2)]
    assert vicreg_loss(*raw, *PAPER).dtype == torch.float32
    z1, z2 = (z.float().requires_grad_() for z in raw)  # a gradient of fourth powers: finite, but beyond fp16's range
    loss = vicreg_loss(z1, z2, *PAPER)
    loss.mean().backward()
    assert loss.isfinite().all() and torch.equal(loss, vicreg_loss(*raw, *PAPER))
    assert z1.grad.isfinite().all() and z2.grad.isfinite().all()


def test_only_the_invariance_differs_between_images_and_the_mean_is_the_loss_of_the_authors():
    z1, z2 = draw(6, 4, seed=1), draw(6, 4, seed=2)
    loss = vicreg_loss(z1, z2, *PAPER)
    of_batch = loss - 25 * (z1 - z2).square().mean(1)
    torch.testing.assert_close(of_batch, of_batch[:1].expand(6))
    std = sum(torch.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() for z in (z1, z2)) / 2
    cov = sum((z.T.cov().square().sum() - z.T.cov().diagonal().square().sum()) / 4 for z in (z1, z2))
    torch.testing.assert_close(loss.mean(), 25 * torch.nn.functional.mse_loss(z1, z2) + 25 * std + cov)


def test_variance_pushes_up_to_1_and_no_further_and_covariance_ignores_variances():
    torch.testing.assert_close(variance(orthogonal(0.3**0.5)), 1 - torch.tensor(0.4001, dtype=torch.float64).sqrt())
    assert variance(orthogonal(1)) == variance(orthogonal(50)) == 0
    assert covariance(orthogonal(1)) == covariance(orthogonal(50)) == 0


def test_constants_reach_the_loss():
    method = make("vicreg", lam=2.0, mu=3.0, nu=4.0, halve=False).train()
    step = method(*draw_views(method))
    torch.testing.assert_close(step.loss, vicreg_loss(*step.z, 2, 3, 4, halve=False))


def test_system_e_weighs_by_25_25_and_1_and_halves_no_variance():
    given = preset("vicreg", "e")["method_args"]
    assert given == {"lam": 25, "mu": 25, "nu": 1, "halve": False, "projector": [4096, 4096]}
    method = make("vicreg", **given | {"projector": [6, 6]}).train()
    step = method(*draw_views(method))
    expected = torch.tensor(vicreg_by_hand(*(z.tolist() for z in step.z), 25, 25, 1, halve=False))
    torch.testing.assert_close(step.loss, expected, atol=0, rtol=1e-4)


def test_projector_is_that_of_the_paper():
    method = build("vicreg", Encoder("resnet10t", {"channels": [8, 8, 8, 16]}, size=64), Augment("simclr", 64))
    names = [type(m).__name__ for m in method.projector]
    assert names == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert {m.out_features for m in method.projector if hasattr(m, "out_features")} == {8192}
    assert (method.lam, method.mu, method.nu, method.halve) == (25, 25, 1, True)
