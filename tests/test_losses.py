"""Losses, each tested four ways: a value known in closed form, a literal transcription of the paper with loops,
the symmetries of the (B,) vector, and finite values at the extremes of half precision."""

import math

import pytest
import torch

from ssl_core.methods.mae import mae_loss, patchify, unpatchify
from ssl_core.methods.simclr import nt_xent

HALVES = (torch.float16, torch.bfloat16)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- NT-Xent, Chen et al. 2020, equation 1 ----------------------------------------------------------------------------

def nt_xent_by_hand(z1, z2, tau):
    """Equation 1, embedding by embedding: 2k − 1 and 2k are the two views of image k."""
    z = [row for pair in zip(z1.tolist(), z2.tolist()) for row in pair]

    def sim(u, v):
        dot = sum(a * b for a, b in zip(u, v))
        return dot / math.sqrt(sum(a * a for a in u)) / math.sqrt(sum(b * b for b in v))

    def anchor(i, j):
        others = sum(math.exp(sim(z[i], z[k]) / tau) for k in range(len(z)) if k != i)
        return -math.log(math.exp(sim(z[i], z[j]) / tau) / others)

    return [(anchor(2 * k, 2 * k + 1) + anchor(2 * k + 1, 2 * k)) / 2 for k in range(len(z1))]


@pytest.mark.parametrize("tau", [0.07, 0.5, 2.0])
def test_nt_xent_is_known_when_views_agree_and_images_are_orthogonal(tau):
    z = 7.0 * torch.eye(4, dtype=torch.float64)  # one positive at similarity 1, six negatives at 0
    expected = math.log(math.exp(1 / tau) + 6) - 1 / tau
    torch.testing.assert_close(nt_xent(z, 3 * z, tau), torch.full((4,), expected, dtype=torch.float64))


@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_nt_xent_equals_equation_1(tau):
    z1, z2 = draw(5, 3, seed=1), draw(5, 3, seed=2)
    torch.testing.assert_close(nt_xent(z1, z2, tau), torch.tensor(nt_xent_by_hand(z1, z2, tau), dtype=torch.float64),
                               atol=1e-6, rtol=0)


def test_nt_xent_follows_a_permutation_of_images_and_ignores_the_order_of_views():
    z1, z2 = draw(6, 4, seed=1), draw(6, 4, seed=2)
    loss, turned = nt_xent(z1, z2, 0.5), torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(nt_xent(z1[turned], z2[turned], 0.5), loss[turned])
    torch.testing.assert_close(nt_xent(z2, z1, 0.5), loss)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [65504.0, 6e-8])
def test_nt_xent_is_finite_at_the_ends_of_half_precision(dtype, size):
    z1, z2 = ((size * draw(8, 512, seed=s).sign()).to(dtype).requires_grad_() for s in (1, 2))
    loss = nt_xent(z1, z2, 0.05)
    loss.mean().backward()
    assert loss.dtype == torch.float32 and loss.isfinite().all()
    assert z1.grad.isfinite().all() or size < 1  # the gradient of a normalisation grows as 1 / size


def test_nt_xent_stays_exact_under_autocast():
    z1, z2 = draw(6, 4, seed=1).float(), draw(6, 4, seed=2).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = nt_xent(z1, z2, 0.07)
    torch.testing.assert_close(inside, nt_xent(z1, z2, 0.07))


# --- masked autoencoder, He et al. 2022, §3 ---------------------------------------------------------------------------

def mae_loss_by_hand(pred, images, mask, p, norm_pix):
    """Patch by patch: rows of patches, then columns; inside a patch row, column, channel."""
    losses = []
    for b, image in enumerate(images.tolist()):
        channels, size, removed = len(image), len(image[0]), []
        for place in range((size // p) ** 2):
            top, left = p * (place // (size // p)), p * (place % (size // p))
            target = [image[c][top + r][left + q] for r in range(p) for q in range(p) for c in range(channels)]
            if norm_pix:
                mean = sum(target) / len(target)
                variance = sum((t - mean) ** 2 for t in target) / (len(target) - 1)
                target = [(t - mean) / math.sqrt(variance + 1e-6) for t in target]
            if mask[b, place] == 1:
                removed.append(sum((u - t) ** 2 for u, t in zip(pred[b, place].tolist(), target)) / len(target))
        losses.append(sum(removed) / len(removed))
    return losses


def random_mask(batch=3, length=9, seed=5):
    """About 60 % of patches removed, another share in each image; the first always, the second never."""
    mask = (torch.rand(batch, length, generator=torch.Generator().manual_seed(seed)) < 0.6).double()
    mask[:, 0], mask[:, 1] = 1, 0
    return mask


def test_patches_are_ordered_row_column_channel_and_come_back():
    images = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    patches = patchify(images, 2)
    assert patches.shape == (2, 6, 12)
    assert torch.equal(patches[1, 4].view(2, 2, 3), images[1, :, 2:4, 2:4].permute(1, 2, 0))  # row 2, column 2
    square = torch.arange(2 * 3 * 36).view(2, 3, 6, 6)
    assert torch.equal(unpatchify(patchify(square, 2), 2), square)


def test_mae_loss_is_known_for_a_constant_error_and_for_normalised_pixels():
    images, mask = draw(3, 3, 6, 6).abs(), random_mask()
    off = patchify(images, 2) + 0.5 * mask[:, :, None] + 100 * (1 - mask[:, :, None])  # visible patches do not count
    torch.testing.assert_close(mae_loss(off, images, mask, 2, False), torch.full((3,), 0.25, dtype=torch.float64))
    # against 0, a patch of D values with unbiased variance v has mean square (D − 1)/D · v/(v + 1e-6)
    expected = torch.full((3,), 11 / 12, dtype=torch.float64)
    nothing = torch.zeros(3, 9, 12, dtype=torch.float64)
    torch.testing.assert_close(mae_loss(nothing, images, mask, 2, True), expected, atol=1e-4, rtol=0)
    flat = torch.full((3, 3, 6, 6), 0.7, dtype=torch.float64)  # no variance: the target is 0, not NaN
    assert mae_loss(nothing, flat, mask, 2, True).abs().max() < 1e-12


@pytest.mark.parametrize("norm_pix", [False, True])
def test_mae_loss_equals_its_definition(norm_pix):
    images, pred, mask = draw(3, 3, 6, 6, seed=1), draw(3, 9, 12, seed=2), random_mask()
    expected = torch.tensor(mae_loss_by_hand(pred, images, mask, 2, norm_pix), dtype=torch.float64)
    torch.testing.assert_close(mae_loss(pred, images, mask, 2, norm_pix), expected, atol=1e-6, rtol=0)


def test_mae_loss_follows_a_permutation_and_does_not_see_other_images():
    images, pred, mask = draw(4, 3, 6, 6, seed=1), draw(4, 9, 12, seed=2), random_mask(4)
    loss, turned = mae_loss(pred, images, mask, 2, True), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(mae_loss(pred[turned], images[turned], mask[turned], 2, True), loss[turned])
    torch.testing.assert_close(mae_loss(pred[1:2], images[1:2], mask[1:2], 2, True), loss[1:2])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("norm_pix", [False, True])
@pytest.mark.parametrize("size", [65504.0, 6e-8])
def test_mae_loss_is_finite_at_the_ends_of_half_precision(dtype, norm_pix, size):
    images, mask = draw(3, 3, 6, 6, seed=1).sign() * size, random_mask()
    pred = (size * draw(3, 9, 12, seed=2).sign()).to(dtype).requires_grad_()
    loss = mae_loss(pred, images.to(dtype), mask.to(dtype), 2, norm_pix)
    loss.mean().backward()
    assert loss.dtype == torch.float32 and loss.isfinite().all() and pred.grad.isfinite().all()
