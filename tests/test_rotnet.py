"""RotNet: the loss against its equation, and that the label of a turn is the turn that was made."""

import math

import numpy as np
import pytest
import torch

from ssl_core.augment import RECIPES, Augment
from ssl_core.encoders import Encoder
from ssl_core.methods import build
from ssl_core.methods.rotnet import RotNet, quarter_turns, rotation_loss

SIZE = 16
PLAIN = {"scale": (0.08, 1.0), "flip": 0.5}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(recipe=PLAIN):
    torch.manual_seed(0)
    encoder = Encoder("resnet10t", {"channels": [8, 8, 16, 16]}, stem="cifar", size=SIZE)
    return build("rotnet", encoder, Augment(recipe, SIZE), 8)


def by_hand(logits):
    """Equation 3, image by image and turn by turn."""
    turns, images, _ = logits.shape
    losses = []
    for i in range(images):
        total = 0.0
        for k in range(turns):
            scores = [math.exp(v) for v in logits[k, i].tolist()]
            total += math.log(scores[k] / sum(scores))
        losses.append(-total / turns)
    return torch.tensor(losses, dtype=torch.float64)


def test_loss_is_known_when_nothing_is_told_and_when_all_is():
    nothing = torch.zeros(4, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(rotation_loss(nothing), torch.full((3,), math.log(4), dtype=torch.float64))
    told = 5 * torch.eye(4, dtype=torch.float64)[:, None].expand(4, 3, 4)  # right by 5 against three at 0
    torch.testing.assert_close(rotation_loss(told),
                               torch.full((3,), math.log(1 + 3 * math.exp(-5)), dtype=torch.float64))


def test_loss_equals_equation_3():
    logits = 3 * draw(4, 5, 4)
    torch.testing.assert_close(rotation_loss(logits), by_hand(logits), atol=1e-6, rtol=0)


def test_loss_follows_a_permutation_of_images_and_does_not_name_the_turns():
    logits, turned, named = draw(4, 6, 4), torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([2, 0, 3, 1])
    loss = rotation_loss(logits)
    torch.testing.assert_close(rotation_loss(logits[:, turned]), loss[turned])
    torch.testing.assert_close(rotation_loss(logits[named][:, :, named]), loss)  # the same turns in another order


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [65504.0, 6e-8])
def test_loss_is_finite_at_the_ends_of_half_precision(dtype, size):
    logits = (size * draw(4, 8, 4).sign()).to(dtype).requires_grad_()
    loss = rotation_loss(logits)
    loss.mean().backward()
    assert loss.dtype == torch.float32 and loss.isfinite().all() and logits.grad.isfinite().all()


def test_turns_are_counter_clockwise_and_leave_the_image_itself_first():
    x = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4)
    turns = quarter_turns(x)
    assert turns.shape == (4, 2, 3, 4, 4) and torch.equal(turns[0], x)
    for k in range(4):
        assert np.array_equal(turns[k, 1, 2].numpy(), np.rot90(x[1, 2].numpy(), k))
    assert torch.equal(turns[1, 0, 0, 0], x[0, 0, :, -1])  # the right edge comes to lie on top
    assert torch.equal(quarter_turns(turns[1])[3], x)


def test_the_label_of_each_image_is_its_turn():
    """With an encoder that says where the bright quarter lies, and a head that passes it on, the loss is 0."""
    method = make()
    x = torch.zeros(5, 3, SIZE, SIZE)
    x[:, :, :SIZE // 2, :SIZE // 2] = 1  # top left; a turn later bottom left, then bottom right, then top right

    class Bright(torch.nn.Module):
        width = 4

        def forward(self, x):
            quarters = torch.nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), 2).flatten(1)
            return type("F", (), {"h": 99 * quarters[:, [0, 2, 3, 1]], "maps": ()})

    method.encoder, method.head = Bright(), torch.nn.Identity()
    assert method(x).loss.max() < 1e-6
    assert method(x.rot90(1, (2, 3))).loss.min() > 50  # not upright to begin with: every answer is wrong


def test_the_loss_of_an_image_is_the_mean_over_its_own_turns():
    method = make().eval()
    x = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    step = method(x)
    with torch.no_grad():
        alone = [torch.nn.functional.cross_entropy(method.head(method.encoder(x.rot90(k, (2, 3))).h),
                                                   torch.full((3,), k), reduction="none") for k in range(4)]
        torch.testing.assert_close(step.loss, torch.stack(alone).mean(0), atol=1e-5, rtol=0)
        torch.testing.assert_close(step.feats[0].h, method.encoder(x).h, atol=1e-5, rtol=0)


def test_images_that_are_not_square_become_square_before_they_are_turned():
    method = make()
    images = torch.randint(0, 256, (4, 1, 20, 33), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x, = method.views(images, torch.arange(4), torch.Generator().manual_seed(0))
    assert x.shape == (4, 3, SIZE, SIZE) and method(x).loss.shape == (4,)


def test_it_learns_from_where_the_light_comes():
    method = make({"flip": 0.5}).train()
    bright = torch.linspace(255, 0, SIZE)[:, None].expand(SIZE, SIZE)  # light comes from above
    noise = torch.randint(-20, 20, (32, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    images = (bright + noise).clamp(0, 255).to(torch.uint8)
    optimiser = torch.optim.AdamW(method.parameters(), 1e-2)
    for step in range(30):
        loss = method(*method.views(images, torch.arange(32), torch.Generator().manual_seed(step))).loss.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.5 < math.log(4)


@pytest.mark.parametrize("recipe, name", [("medical", "vflip|rotate90"), ({"vflip": 0.5}, "vflip"),
                                          ({"rotate90": 1.0}, "rotate90")])
def test_a_recipe_that_turns_images_itself_is_refused(recipe, name):
    with pytest.raises(ValueError, match=f"RotNet tells which way up .* take one without ({name})"):
        make(recipe)


def test_recipes_of_its_own_differ_by_jitter_alone():
    jitter = {"jitter": (0.8, 0.8, 0.8, 0.2), "jitter_p": 0.8}
    assert RECIPES["rotnet_jitter"] == RECIPES["rotnet"] | jitter and not RECIPES["rotnet"].keys() & jitter.keys()
    assert RECIPES["rotnet"] == PLAIN
    assert isinstance(make("rotnet_jitter"), RotNet)
