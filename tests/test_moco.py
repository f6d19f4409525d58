"""MoCo: its loss, its queue, and a key encoder that only momentum moves."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ssl_core.augment import Augment
from ssl_core.encoders import Encoder
from ssl_core.methods import build
from ssl_core.methods.moco import moco_loss, own_key_share
from ssl_core.train import order

HALVES = (torch.float16, torch.bfloat16)
RESNET = {"name": "resnet10t", "args": {"channels": [8, 8, 16, 16]}, "stem": "cifar"}
SIZE = 16


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(*shape, seed=0):
    return F.normalize(draw(*shape, seed=seed), dim=1)


# --- the loss, He et al. 2020, equation 1 -----------------------------------------------------------------------------

def moco_loss_by_hand(q, k, queue, tau):
    losses = []
    for query, key in zip(q.tolist(), k.tolist()):
        query, key = ([v / math.sqrt(sum(u * u for u in row)) for v in row] for row in (query, key))
        positive = math.exp(sum(a * b for a, b in zip(query, key)) / tau)
        negatives = sum(math.exp(sum(a * b for a, b in zip(query, row)) / tau) for row in queue.tolist())
        losses.append(-math.log(positive / (positive + negatives)))
    return losses


@pytest.mark.parametrize("tau", [0.07, 0.2, 1.0])
def test_moco_loss_is_known_when_the_keys_agree_and_the_queue_is_orthogonal(tau):
    eye = torch.eye(8, dtype=torch.float64)  # one positive at similarity 1, five negatives at 0
    expected = torch.full((3,), math.log(math.exp(1 / tau) + 5) - 1 / tau, dtype=torch.float64)
    torch.testing.assert_close(moco_loss(2 * eye[:3], 5 * eye[:3], eye[3:], tau), expected)
    opposite = torch.full((3,), math.log(math.exp(-1 / tau) + 5) + 1 / tau, dtype=torch.float64)
    torch.testing.assert_close(moco_loss(eye[:3], -eye[:3], eye[3:], tau), opposite)


@pytest.mark.parametrize("tau", [0.07, 0.2])
def test_moco_loss_equals_equation_1(tau):
    q, k, queue = draw(5, 3, seed=1), draw(5, 3, seed=2), unit(7, 3, seed=3)
    expected = torch.tensor(moco_loss_by_hand(q, k, queue, tau), dtype=torch.float64)
    torch.testing.assert_close(moco_loss(q, k, queue, tau), expected, atol=1e-6, rtol=0)


def test_moco_loss_follows_a_permutation_of_images_and_ignores_one_of_the_queue_and_the_other_images():
    q, k, queue, turned = draw(4, 3, seed=1), draw(4, 3, seed=2), unit(7, 3, seed=3), torch.tensor([2, 0, 3, 1])
    loss = moco_loss(q, k, queue, 0.07)
    torch.testing.assert_close(moco_loss(q[turned], k[turned], queue, 0.07), loss[turned])
    torch.testing.assert_close(moco_loss(q, k, queue.roll(3, 0), 0.07), loss)
    torch.testing.assert_close(moco_loss(q[:1], k[:1], queue, 0.07), loss[:1])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [65504.0, 6e-8])
def test_moco_loss_is_finite_at_the_ends_of_half_precision(dtype, size):
    q, k = ((size * draw(8, 512, seed=s).sign()).to(dtype).requires_grad_() for s in (1, 2))
    loss = moco_loss(q, k, unit(32, 512, seed=3).float(), 0.05)
    loss.mean().backward()
    assert loss.dtype == torch.float32 and loss.isfinite().all()
    assert q.grad.isfinite().all() or size < 1  # the gradient of a normalisation grows as 1 / size
    assert k.grad is None


def test_moco_loss_stays_exact_under_autocast():
    q, k, queue = draw(6, 4, seed=1).float(), draw(6, 4, seed=2).float(), unit(9, 4, seed=3).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = moco_loss(q, k, queue, 0.07)
    torch.testing.assert_close(inside, moco_loss(q, k, queue, 0.07))


# --- the queue and the key encoder ------------------------------------------------------------------------------------

def make(n=0, seed=0, **changes):
    torch.manual_seed(0)
    return build("moco", Encoder(**RESNET, size=SIZE), Augment("simclr", SIZE), n, seed,
                 **{"queue": 11, "dim": 6} | changes).train()


def draw_views(method, n=4, seed=0):
    images = torch.randint(0, 256, (n, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return method.views(images, torch.arange(n), torch.Generator().manual_seed(seed))


def train_steps(method, n_steps, **options):
    """Optimiser steps as the loop makes them; yields the Step before `update` has seen it."""
    optimiser = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    for i in range(n_steps):
        step = method(*draw_views(method, seed=i, **options))
        optimiser.zero_grad()
        step.loss.mean().backward()
        optimiser.step()
        yield step
        method.update(step, torch.arange(len(step.loss)))


def of_query(method):
    return [*method.encoder.parameters(), *method.head.parameters()]


def of_key(method):
    return [*method.key_encoder.parameters(), *method.key_head.parameters()]


def test_the_key_encoder_gets_no_gradient_and_moves_by_momentum_alone():
    method = make(momentum=0.9)
    before = [p.clone() for p in of_key(method)]
    assert all(torch.equal(k, q) for k, q in zip(before, of_query(method)))  # it starts as a copy
    for step in train_steps(method, 1):
        assert all(torch.equal(p, old) for p, old in zip(of_key(method), before))  # the optimiser left it alone
        assert not step.z[1].requires_grad and not step.feats[1].h.requires_grad
    assert not any(p.requires_grad or p.grad is not None for p in of_key(method))
    assert all(p.grad is not None for p in of_query(method))
    for key, old, query in zip(of_key(method), before, of_query(method)):
        torch.testing.assert_close(key, 0.9 * old + 0.1 * query)
    assert sum(not torch.equal(key, old) for key, old in zip(of_key(method), before)) > len(before) / 2


def test_the_key_encoder_keeps_batch_statistics_of_its_own():
    method, frozen = make(momentum=1.0), make()
    list(train_steps(method, 2))
    statistics = [(module.running_mean, other.running_mean) for module, other
                  in zip(method.key_encoder.modules(), frozen.key_encoder.modules()) if hasattr(module, "running_mean")]
    assert statistics and not any(torch.equal(moved, start) for moved, start in statistics)
    method.eval()
    assert not any(module.training for module in method.key_encoder.modules())


def test_keys_enter_the_queue_in_order_and_wrap_around():
    method = make()
    expected = [*method.queue.clone()]
    torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(11))
    place = 0
    for step in train_steps(method, 7):  # 28 keys, four at a time, into 11 rows
        expected_before = torch.stack(expected)
        assert torch.equal(method.queue, expected_before)  # nothing is written before `update`
        for key in step.z[1]:
            expected[place % 11] = key / key.norm()
            place += 1
    torch.testing.assert_close(method.queue, torch.stack(expected))
    assert int(method.oldest) == 28 % 11


def test_of_a_batch_longer_than_the_queue_the_last_keys_stay():
    method = make(queue=3)
    step, = train_steps(method, 1)
    torch.testing.assert_close(method.queue, F.normalize(step.z[1][-3:], dim=1))
    assert int(method.oldest) == 0


def test_a_query_meets_its_own_key_as_positive_only():
    method = make()
    for step in train_steps(method, 3):
        keys = F.normalize(step.z[1], dim=1)
        assert (keys @ method.queue.T).max() < 1 - 1e-6
        expected = moco_loss_by_hand(*(z.detach().double() for z in step.z), method.queue.double(), method.tau)
        torch.testing.assert_close(step.loss.detach().double(), torch.tensor(expected, dtype=torch.float64),
                                   atol=1e-5, rtol=1e-5)
    assert (keys @ method.queue.T).max(1).values.min() > 1 - 1e-6  # after it, its key is there


def test_forward_in_training_writes_nothing_but_batch_statistics():
    method = make()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method(*draw_views(method))
    changed = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in changed)


def test_the_queue_starts_as_a_function_of_the_seed():
    assert torch.equal(make(seed=1).queue, make(seed=1).queue)
    assert not torch.equal(make(seed=1).queue, make(seed=2).queue)


@pytest.mark.parametrize("head, layers", [("linear", [(16, 6)]), ("mlp", [(16, 16), (16, 6)])])
def test_the_head_is_that_of_v1_or_of_v2(head, layers):
    method = make(head=head)
    found = [module for module in method.head.modules() if isinstance(module, torch.nn.Linear)]
    assert [(m.in_features, m.out_features) for m in found] == layers and all(m.bias is not None for m in found)
    assert sum(isinstance(module, torch.nn.ReLU) for module in method.head) == len(layers) - 1
    assert len(method.head) == 2 * len(layers) - 1  # and no BatchNorm


@pytest.mark.parametrize("queue", [25, 100, 150, 250])
def test_the_share_of_images_that_meet_their_own_key_is_as_said(queue):
    n = 100
    seen = np.concatenate([np.concatenate(order(n, 1, 0, epoch)) for epoch in range(200)])
    last, found = np.full(n, -10**6), []
    for at, image in enumerate(seen):
        found.append(at - last[image] <= queue)
        last[image] = at
    assert np.mean(found[2 * n:]) == pytest.approx(own_key_share(queue, n), abs=0.02)


def test_a_queue_too_long_for_the_images_is_warned_of_and_nonsense_refused():
    make(n=44)
    with pytest.warns(UserWarning, match="moco: of 43 images, 3% .* queue of 11 .*give queue 10 or less"):
        make(n=43)
    with pytest.warns(UserWarning, match="of 11 images, 50% "):
        make(n=11)
    with pytest.warns(UserWarning, match="of 5 images, 100% "):
        make(n=5)
    with pytest.raises(ValueError, match='head \'conv\' is unknown; give "linear"'):
        make(head="conv")
    with pytest.raises(ValueError, match="queue of 0 keys"):
        make(queue=0)
