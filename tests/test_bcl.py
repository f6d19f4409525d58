"""Boosted contrastive learning: what is remembered of each image's loss, and what its views get for it."""

import math
import statistics

import pytest
import torch

from ssl_core.augment import Augment
from ssl_core.encoders import Encoder
from ssl_core.methods import bcl as bcl_module
from ssl_core.methods import build
from ssl_core.methods.base import Step
from ssl_core.methods.bcl import momentum_loss, strengths

SIZE, N = 16, 12
SMALL = {"name": "resnet10t", "args": {"channels": [8, 8, 16, 16]}, "stem": "cifar"}
VIT = {"name": "vit_tiny_patch16_224", "args": {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}}


def make(method="simclr", n=N, encoder=SMALL, **options):
    torch.manual_seed(0)
    return build(method, Encoder(**encoder, size=SIZE), Augment("simclr", SIZE), n, wrap=[{"name": "bcl"} | options])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draw_images(n=N):
    return torch.randint(0, 256, (n, 3, SIZE, SIZE), generator=seeded(9), dtype=torch.uint8)


# --- the memory -------------------------------------------------------------------------------------------------------

def test_the_momentum_loss_is_known_after_equal_losses():
    """From M_0 = a, after t losses l: M = l + β^t (a − l). Inverted, M goes to (1 − β l) / (1 − β)."""
    memory, other = torch.tensor([5.0, 0.0]), torch.tensor([5.0, 0.0])
    loss = torch.tensor([1.0, 2.0])
    for _ in range(50):
        memory, other = momentum_loss(memory, loss, 0.9), momentum_loss(other, loss, 0.9, inverted=True)
    torch.testing.assert_close(memory, torch.tensor([1 + 4 * 0.9**50, 2 - 2 * 0.9**50]))
    torch.testing.assert_close(other, torch.tensor([1.0, -8.0]) + 0.9**50 * torch.tensor([4.0, 8.0]))


def test_strengths_are_known_for_four_losses():
    expected = torch.tensor([1 / 6, 1 / 3, 1 / 2, 1])  # mean 2, farthest 5
    torch.testing.assert_close(strengths(torch.tensor([0.0, 1, 2, 5]), torch.ones(4, dtype=torch.bool)), expected)
    seen = torch.tensor([True, False, True, True, True, False])
    apart = strengths(torch.tensor([0.0, 99, 1, 2, 5, -99]), seen)
    torch.testing.assert_close(apart[seen], expected)
    assert not apart[~seen].any()


def strengths_by_hand(memory):
    """The authors' code: z-scores with the unbiased standard deviation, over their largest size, moved to [0, 1]."""
    mean, std = statistics.mean(memory.values()), statistics.stdev(memory.values())
    z = {i: (m - mean) / std for i, m in memory.items()}
    largest = max(abs(v) for v in z.values())
    return {i: v / largest / 2 + 1 / 2 for i, v in z.items()}


@pytest.mark.parametrize("inverted", [False, True])
def test_memory_and_strengths_equal_a_slow_transcription_over_epochs(inverted):
    """Three batches of three of twelve images in each epoch: each leaves three out, one image is never seen."""
    method, memory, beta = make(inverted=inverted).double(), {}, 0.97
    for epoch in range(6):
        method.begin_epoch(epoch)
        expected = {i: 0.0 for i in range(N)} | (strengths_by_hand(memory) if memory else {})
        torch.testing.assert_close(method.strength, torch.tensor([expected[i] for i in range(N)], dtype=torch.double),
                                   atol=1e-6, rtol=0)
        for index in torch.randperm(N - 1, generator=seeded(epoch))[:9].split(3):
            loss = torch.rand(3, generator=seeded(100 * epoch + int(index[0])), dtype=torch.double) * 4
            method.update(Step(loss), index)
            for i, value in zip(index.tolist(), loss.tolist()):
                if i not in memory:
                    memory[i] = value
                elif inverted:
                    memory[i] = 1 - beta * value + beta * memory[i]
                else:
                    memory[i] = (1 - beta) * value + beta * memory[i]
    assert method.seen.tolist() == [i in memory for i in range(N)] and N - 1 not in memory
    torch.testing.assert_close(method.memory, torch.tensor([memory.get(i, 0.0) for i in range(N)], dtype=torch.double),
                               atol=1e-6, rtol=0)


def test_an_image_left_out_keeps_its_memory():
    method = make()
    method.update(Step(torch.arange(12.0)), torch.arange(12))
    method.update(Step(torch.full((4,), 2.0)), torch.tensor([1, 3, 5, 7]))
    for i in range(N):
        assert float(method.memory[i]) == pytest.approx(0.97 * i + 0.03 * 2 if i in (1, 3, 5, 7) else i)


def train(method, images, batches):
    for epoch in range(3):
        method.begin_epoch(epoch)
        for i, index in enumerate(batches):
            step = method(*method.views(images[index], index, seeded(10 * epoch + i)))
            method.update(step, index)


def test_permuting_the_split_permutes_the_memory():
    images, turned = draw_images(), torch.randperm(N, generator=seeded(3))
    place = turned.argsort()  # where each image of the first split is in the other
    batches = torch.randperm(N, generator=seeded(4)).split(4)
    one, other = make().train(), make().train()
    train(one, images, batches)
    train(other, images[turned], [place[index] for index in batches])
    assert one.memory.unique().numel() == N and one.strength.any()
    assert torch.equal(other.memory, one.memory[turned])
    torch.testing.assert_close(other.strength, one.strength[turned])


def test_the_published_inversion_remembers_easy_images_as_hard():
    true = torch.linspace(1, 5, 200)

    def remembered(**options):
        method = make(n=200, **options)
        for epoch in range(300):
            noise = 0.5 * torch.randn(200, generator=seeded(epoch))
            method.update(Step(true + noise), torch.arange(200))
        method.begin_epoch(300)
        return float(torch.corrcoef(torch.stack([method.memory, true]))[0, 1]), method.strength

    correlation, strength = remembered()
    assert correlation > 0.99 and strength[-1] > 0.9 and strength[0] < 0.1
    correlation, strength = remembered(inverted=True)
    assert correlation < -0.99 and strength[-1] < 0.1 and strength[0] > 0.9


@pytest.mark.parametrize("value", [0.0, 2.3, -1e-30, 65504.0])
def test_equal_losses_give_the_middle_strength(value):
    method = make()
    method.update(Step(torch.full((10,), value)), torch.arange(10))
    method.begin_epoch(1)
    assert method.strength.tolist() == [0.5] * 10 + [0.0] * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_memory_and_strengths_are_finite_at_the_ends_of_half_precision(dtype):
    method, index = make(), torch.arange(4)
    for epoch in range(3):
        method.update(Step(torch.tensor([65504.0, -65504.0, 6e-8, 0], dtype=dtype)), index)
        method.begin_epoch(epoch)
    assert method.memory.dtype == torch.float32 and method.memory.isfinite().all()
    assert method.strength.isfinite().all() and method.strength.min() == 0 and method.strength.max() == 1
    near = strengths(torch.tensor([1.0, 1 + 2**-23, 1.0]), torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(near, torch.tensor([0.25, 1.0, 0.25]))


# --- the views --------------------------------------------------------------------------------------------------------

def set_strengths(method, strength):
    method.strength.copy_(strength)
    return method


def test_the_first_epoch_sees_the_views_of_the_base():
    method, images, index = make(), draw_images(), torch.arange(N)
    method.begin_epoch(0)
    assert not method.strength.any()
    for ours, base in zip(method.views(images, index, seeded()), method.base.views(images, index, seeded())):
        assert torch.equal(ours, base)


@pytest.mark.parametrize("k, level, vary", [(1, 10, False), (2, 5, True)])
def test_both_views_share_the_strength_of_their_image(monkeypatch, k, level, vary):
    strength, index = torch.linspace(0, 1, N), torch.tensor([7, 0, 11, 3])
    method, calls = set_strengths(make(k=k, level=level, vary=vary), strength), []
    monkeypatch.setattr(bcl_module, "rand_augment", lambda x, *given: calls.append(given) or x)
    method.views(draw_images()[index], index, seeded())
    (k1, p1, level1, _), (k2, p2, level2, _) = calls
    assert k1 == k2 == k and torch.equal(p1, strength[index]) and torch.equal(p2, p1)
    assert torch.equal(level1, level2)
    if vary:
        shares = (level1 - level)[[0, 2, 3]] / ((30 - level) * strength[index])[[0, 2, 3]]
        assert len(set(shares.tolist())) == 3 and shares.min() >= 0 and shares.max() < 1 and level1[1] == level
    else:
        torch.testing.assert_close(level1, level + (30 - level) * strength[index])


def test_stronger_images_are_changed_and_others_left():
    strength = torch.tensor([0.0, 1.0]).repeat(N // 2)
    method, images, index = set_strengths(make(), strength), draw_images(), torch.arange(N)
    for ours, base in zip(method.views(images, index, seeded()), method.base.views(images, index, seeded())):
        assert [torch.equal(a, b) for a, b in zip(ours, base)] == [True, False] * (N // 2)


def test_views_come_from_the_generator_alone():
    method, images, index = set_strengths(make(vary=True), torch.ones(N)), draw_images(), torch.arange(N)
    torch.manual_seed(1)
    one = method.views(images, index, seeded())
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(one, method.views(images, index, seeded())))


def test_inside_an_epoch_a_checkpoint_holds_the_strengths_that_it_began_with():
    method = make()
    method.update(Step(torch.arange(12.0)), torch.arange(12))
    method.begin_epoch(1)
    method.update(Step(torch.arange(12.0).flip(0) * 90), torch.arange(12))
    other = make()
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.strength, method.strength)
    assert not torch.allclose(strengths(other.memory, other.seen), other.strength)
    assert torch.equal(other.memory, method.memory) and other.seen.all()


# --- what is refused --------------------------------------------------------------------------------------------------

def test_a_base_without_two_views_is_refused():
    for method, encoder in (("mae", VIT), ("rotnet", SMALL)):
        with pytest.raises(ValueError, match="bcl: .* does not see two views of an image"):
            make(method, encoder=encoder)


def test_wrong_arguments_are_refused_in_one_line():
    with pytest.raises(ValueError, match="bcl remembers the loss of each image; give build their number"):
        make(n=0)
    for wrong in ({"beta": 1.0}, {"beta": -0.1}, {"k": 0}, {"level": 31}, {"level": -1}, {"beta": math.nan}):
        with pytest.raises(ValueError, match="bcl: beta .*, k .*, level .*; give"):
            make(**wrong)
    with pytest.raises(ValueError, match="wrap 'bcl': .*'strength'.*methods/bcl.py"):
        make(strength=1)
