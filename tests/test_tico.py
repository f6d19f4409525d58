"""TiCo, Zhu et al. 2022: the loss four ways, its memory of second moments, and its momentum encoder."""

import math

import pytest
import torch
from test_losses import HALVES, draw
from test_methods import draw_views, make

from ssl_core.methods.tico import second_moment, tico_loss

NOTHING = torch.zeros(3, 3, dtype=torch.float64)


def unit_by_hand(row):
    length = math.sqrt(sum(a * a for a in row))
    return [a / length for a in row]


def tico_by_hand(z1, z2, C, beta, rho):
    """The pseudo-code, entry by entry: (losses, new C)."""
    z1, z2 = [unit_by_hand(row) for row in z1], [unit_by_hand(row) for row in z2]
    n, dims = len(z1), range(len(z1[0]))
    C = [[beta * C[i][j] + (1 - beta) * sum(z[i] * z[j] for z in z1) / n for j in dims] for i in dims]
    return [-sum(a[i] * b[i] for i in dims) + rho * sum(a[i] * C[i][j] * a[j] for i in dims for j in dims)
            for a, b in zip(z1, z2)], C


@pytest.mark.parametrize("rho", [0.0, 8.0])
def test_loss_is_known_for_orthogonal_and_for_collapsed_embeddings(rho):
    z = 7.0 * torch.eye(3, dtype=torch.float64)
    C = second_moment(z, NOTHING, 0)
    torch.testing.assert_close(C, torch.eye(3, dtype=torch.float64) / 3)
    torch.testing.assert_close(tico_loss(z, 2 * z, C, rho), torch.full((3,), -1 + rho / 3, dtype=torch.float64))
    point = z[:1].expand(4, 3)
    C = second_moment(point, NOTHING, 0)
    torch.testing.assert_close(tico_loss(point, point, C, rho), torch.full((4,), -1 + rho, dtype=torch.float64))


def test_loss_and_memory_equal_the_pseudo_code_over_three_steps():
    C = NOTHING
    by_hand = C.tolist()
    for t in range(3):
        z1, z2 = draw(5, 3, seed=2 * t), draw(5, 3, seed=2 * t + 1)
        C = second_moment(z1, C, 0.9)
        losses, by_hand = tico_by_hand(z1.tolist(), z2.tolist(), by_hand, 0.9, 8)
        losses = torch.tensor(losses, dtype=torch.float64)
        torch.testing.assert_close(C, torch.tensor(by_hand, dtype=torch.float64), atol=1e-6, rtol=0)
        torch.testing.assert_close(tico_loss(z1, z2, C, 8), losses, atol=1e-6, rtol=0)


def test_loss_follows_a_permutation_of_images_of_which_the_memory_sees_nothing():
    z1, z2, turned = draw(6, 3, seed=1), draw(6, 3, seed=2), torch.tensor([3, 0, 5, 1, 4, 2])
    C = second_moment(z1, NOTHING, 0.9)
    torch.testing.assert_close(second_moment(z1[turned], NOTHING, 0.9), C)
    torch.testing.assert_close(tico_loss(z1[turned], z2[turned], C, 8), tico_loss(z1, z2, C, 8)[turned])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [65504.0, 6e-8])
def test_loss_is_finite_at_the_ends_of_half_precision(dtype, size):
    z1, z2 = ((size * draw(8, 512, seed=s).sign()).to(dtype).requires_grad_() for s in (1, 2))
    loss = tico_loss(z1, z2, second_moment(z1, torch.zeros(512, 512), 0.9), 8)
    loss.mean().backward()
    assert loss.dtype == torch.float32 and loss.isfinite().all()
    assert z1.grad.isfinite().all() or size < 1  # the gradient of a normalisation grows as 1 / size


def test_neither_the_memory_nor_the_momentum_encoder_gets_a_gradient():
    z1, z2, C = (draw(n, 3, seed=n).requires_grad_() for n in (4, 4, 3))
    assert not second_moment(z1, C, 0.9).requires_grad
    tico_loss(z1, z2, C, 8).sum().backward()
    assert z1.grad.any() and z2.grad is None and C.grad is None
    method = make("tico").train()
    step = method(*draw_views(method))
    step.loss.mean().backward()
    assert not step.z[1].requires_grad and not step.feats[1].h.requires_grad
    assert all(p.grad is None for part in (method.momentum_encoder, method.momentum_projector)
               for p in part.parameters())


def test_the_batch_is_in_the_memory_of_its_own_step_and_update_keeps_it():
    method = make("tico", beta=0.6).train()
    views, before = draw_views(method), torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    method.C.copy_(before)
    step = method(*views)
    assert torch.equal(method.C, before)
    method.update(step, None)
    z = torch.nn.functional.normalize(step.z[0].detach(), dim=1)
    torch.testing.assert_close(method.C, 0.6 * before + 0.4 * z.T @ z / 8)
    torch.testing.assert_close(step.loss, tico_loss(*step.z, method.C, 8))


def test_the_momentum_encoder_starts_equal_and_follows():
    method = make("tico").train()
    pairs = [pair for slow, fast in ((method.momentum_encoder, method.encoder),
                                     (method.momentum_projector, method.projector))
             for pair in zip(slow.parameters(), fast.parameters())]
    assert all(torch.equal(slow, fast) for slow, fast in pairs)
    step, start = method(*draw_views(method)), [slow.clone() for slow, _ in pairs]
    with torch.no_grad():
        for _, fast in pairs:
            fast.add_(1)
    method.update(step, None)
    for (slow, fast), old in zip(pairs, start):
        torch.testing.assert_close(slow, 0.99 * old + 0.01 * fast.detach())
    assert method.encoder is not method.momentum_encoder and method.C.any()
