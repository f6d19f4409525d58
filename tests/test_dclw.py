"""DCL and DCLW: the decoupled loss, with and without weights, one- and two-directional."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from test_methods import draw_views, make

from ssl_core.methods.dclw import dclw_loss
from ssl_core.methods.simclr import nt_xent

SIGMAS = [None, 0.5]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dclw_by_hand(z1, z2, tau, sigma, symmetric=True):
    """Equation 6, anchor by anchor; with sigma each attraction times the weight of its image."""
    views = [[[a / math.sqrt(sum(b * b for b in row)) for a in row] for row in z.tolist()] for z in (z1, z2)]
    n = len(z1)

    def dot(u, v):
        return sum(a * b for a, b in zip(u, v))

    def anchor(k, i):
        attraction = dot(views[0][i], views[1][i])
        w = 1.0
        if sigma is not None:
            expectation = sum(math.exp(dot(views[0][j], views[1][j]) / sigma) for j in range(n)) / n
            w = 2 - math.exp(attraction / sigma) / expectation
        others = sum(math.exp(dot(views[k][i], views[other][j]) / tau) for other in (0, 1) for j in range(n) if j != i)
        return -w * attraction / tau + math.log(others)

    return [sum(anchor(k, i) for k in (0, 1)) / 2 if symmetric else anchor(0, i) for i in range(n)]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("tau", [0.07, 0.5, 2.0])
def test_dclw_is_known_when_images_are_orthogonal(tau, symmetric):
    z1 = 7.0 * torch.eye(4, dtype=torch.float64)
    expected = torch.full((4,), math.log(6) - 1 / tau, dtype=torch.float64)  # six others at 0 in both views
    for sigma in SIGMAS:  # views agree: every weight is 1
        torch.testing.assert_close(dclw_loss(z1, 3 * z1, tau, sigma, symmetric), expected)

    z1, z2 = (F.pad(z1, (0, 1)) for _ in range(2))  # a fifth direction, so that no positive is another's negative
    z2[3] = torch.tensor([0, 0, 0, 0, 1.0])  # the views of the last image are orthogonal
    near, far = (2 - 4 * math.exp(s / 0.5) / (3 * math.exp(2) + 1) for s in (1, 0))
    expected = torch.tensor([math.log(6) - near / tau] * 3 + [math.log(6)], dtype=torch.float64)
    torch.testing.assert_close(dclw_loss(z1, z2, tau, 0.5, symmetric), expected)
    assert far > 1 > near


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("sigma", [None, 0.3, 0.5])
@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_dclw_equals_equation_6(tau, sigma, symmetric):
    z1, z2 = draw(5, 3, seed=1), draw(5, 3, seed=2)
    expected = torch.tensor(dclw_by_hand(z1, z2, tau, sigma, symmetric), dtype=torch.float64)
    torch.testing.assert_close(dclw_loss(z1, z2, tau, sigma, symmetric), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_dclw_follows_a_permutation_of_images_and_both_directions_make_the_symmetric_one(sigma):
    z1, z2 = draw(6, 4, seed=1), draw(6, 4, seed=2)
    loss, turned = partial(dclw_loss, tau=0.1, sigma=sigma), torch.tensor([3, 0, 5, 1, 4, 2])
    for symmetric in (True, False):
        torch.testing.assert_close(loss(z1[turned], z2[turned], symmetric=symmetric),
                                   loss(z1, z2, symmetric=symmetric)[turned])
    torch.testing.assert_close(loss(z2, z1), loss(z1, z2))
    one, other = loss(z1, z2, symmetric=False), loss(z2, z1, symmetric=False)
    torch.testing.assert_close((one + other) / 2, loss(z1, z2))
    assert (one - other).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [65504.0, 6e-8])
@pytest.mark.parametrize("sigma, detach", [(None, True), (0.5, True), (0.01, False)])
def test_dclw_is_finite_at_the_ends_of_half_precision(dtype, size, sigma, detach):
    z1, z2 = ((size * draw(8, 512, seed=s).sign()).to(dtype).requires_grad_() for s in (1, 2))
    loss = dclw_loss(z1, z2, 0.05, sigma, detach=detach)
    loss.mean().backward()
    assert loss.dtype == torch.float32 and loss.isfinite().all()
    assert z1.grad.isfinite().all() or size < 1  # the gradient of a normalisation grows as 1 / size


def test_dclw_stays_exact_under_autocast():
    z1, z2 = draw(6, 4, seed=1).float(), draw(6, 4, seed=2).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = dclw_loss(z1, z2, 0.07, 0.5)
    torch.testing.assert_close(inside, dclw_loss(z1, z2, 0.07, 0.5))


def test_dcl_is_nt_xent_without_the_positive_in_the_denominator():
    z1, z2, tau = draw(5, 3, seed=1), draw(5, 3, seed=2), 0.5
    pull = F.cosine_similarity(z1, z2) / tau
    per_anchor = [nt_xent_of_one(a, b, tau) for a, b in ((z1, z2), (z2, z1))]
    decoupled = [((one + pull).exp() - pull.exp()).log() - pull for one in per_anchor]
    torch.testing.assert_close(sum(decoupled) / 2, dclw_loss(z1, z2, tau, None))
    torch.testing.assert_close(sum(per_anchor) / 2, nt_xent(z1, z2, tau))


def nt_xent_of_one(z1, z2, tau):
    """NT-Xent with the first view as the only anchor: −pull + log(denominator with the positive)."""
    z1, z = F.normalize(z1, dim=1), F.normalize(torch.cat([z1, z2]), dim=1)
    logits = z1 @ z.T / tau
    others = logits.exp().sum(1) - logits.diagonal().exp()
    return others.log() - logits.diagonal(offset=len(z1))


def test_the_weights_have_mean_1_and_leave_the_gradient_unless_asked():
    z1, z2 = draw(6, 4, seed=1), draw(6, 4, seed=2)
    pull = F.cosine_similarity(z1, z2) / 0.1
    w = 1 - (dclw_loss(z1, z2, 0.1, 0.5) - dclw_loss(z1, z2, 0.1, None)) / pull
    torch.testing.assert_close(w.mean(), torch.ones((), dtype=torch.float64))
    assert w.argmax() == pull.argmin() and w.max() < 2

    def gradient(loss):
        z = z1.clone().requires_grad_()
        loss(z).mean().backward()
        return z.grad

    by_hand = gradient(lambda z: dclw_loss(z, z2, 0.1, None) + (1 - w) * F.cosine_similarity(z, z2) / 0.1)
    torch.testing.assert_close(gradient(lambda z: dclw_loss(z, z2, 0.1, 0.5)), by_hand)
    through = gradient(lambda z: dclw_loss(z, z2, 0.1, 0.5, detach=False))
    assert (through - by_hand).abs().max() > 1e-3
    assert torch.autograd.gradcheck(lambda z: dclw_loss(z, z2, 0.1, 0.5, detach=False), z1.clone().requires_grad_())


@pytest.mark.parametrize("name, changes, arguments", [
    ("dcl", {}, (0.1, None, True, True)), ("dclw", {}, (0.1, 0.5, True, True)),
    ("dcl", {"tau": 0.5, "symmetric": False}, (0.5, None, False, True)),
    ("dclw", {"sigma": 0.2, "symmetric": False, "detach": False}, (0.1, 0.2, False, False)),
])
def test_the_methods_pass_their_arguments_to_the_loss(name, changes, arguments):
    method = make(name, **changes)
    step = method(*draw_views(method))
    torch.testing.assert_close(step.loss, dclw_loss(*step.z, *arguments))

    def gradients(loss):
        z = [one.detach().requires_grad_() for one in step.z]
        return torch.autograd.grad(loss(*z).sum(), z)

    given = gradients(method.loss), gradients(lambda z1, z2: dclw_loss(z1, z2, *arguments))
    assert all(torch.equal(one, other) for one, other in zip(*given))


def test_the_projector_has_batchnorm_everywhere_inside_only_or_nowhere():
    def layers(norm):
        return " ".join(type(layer).__name__ for layer in make("dclw", projector_norm=norm).projector)

    assert layers(True) == "Linear BatchNorm1d ReLU Linear BatchNorm1d"
    assert layers("hidden") == "Linear BatchNorm1d ReLU Linear"
    assert layers(False) == "Linear ReLU Linear"
    with pytest.raises(ValueError, match="projector_norm is 'none'; give true, false or hidden"):
        layers("none")


def test_dclw_refuses_what_it_cannot_weigh():
    with pytest.raises(ValueError, match="batch of 1; it needs 2 images or more"):
        dclw_loss(draw(1, 3), draw(1, 3, seed=1), 0.1, 0.5)
    with pytest.raises(ValueError, match="sigma is 0; give a number above 0$"):
        make("dclw", sigma=0)
    with pytest.raises(ValueError, match="method 'dcl': .*'sigma'"):
        make("dcl", sigma=0.5)
