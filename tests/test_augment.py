"""Views are drawn once per image, from torchvision's distributions, with torchvision's pixels."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, ks_2samp, kstest
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from ssl_core import augment_ops as ops
from ssl_core.augment import OFF, RECIPES, Augment

GREY_LEVEL = 1 / 255


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def photo(n=1, channels=3, size=40, seed=0):
    """n different smooth pictures with some noise: uint8 (n, channels, size, size)."""
    coarse = torch.rand(n, channels, 6, 6, generator=seeded(seed))
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")
    noise = 0.1 * torch.randn(n, channels, size, size, generator=seeded(seed + 1))
    return (smooth + noise).clamp(0, 1).mul(255).byte()


def same_picture(n, **kwargs):
    return photo(1, **kwargs).expand(n, -1, -1, -1).contiguous()


# One draw per image

EACH = {
    "crop": {"scale": (0.2, 1.0)}, "flip": {"flip": 0.5}, "vflip": {"vflip": 0.5}, "turns": {"rotate90": 1.0},
    "brightness": {"jitter": (0.8, 0, 0, 0), "jitter_p": 1.0}, "contrast": {"jitter": (0, 0.8, 0, 0), "jitter_p": 1.0},
    "saturation": {"jitter": (0, 0, 0.8, 0), "jitter_p": 1.0}, "hue": {"jitter": (0, 0, 0, 0.4), "jitter_p": 1.0},
    "jitter_p": {"jitter": (0.8, 0.8, 0.8, 0.2), "jitter_p": 0.5}, "gray": {"gray_p": 0.5},
    "blur": {"blur_p": 1.0}, "blur_p": {"blur_p": 0.5}, "solarize": {"solarize_p": 0.5}, "rotate": {"rotate": 90.0}}
BINARY = {"flip": 2, "vflip": 2, "turns": 4, "gray": 2, "solarize": 2}


@pytest.mark.parametrize("name", EACH)
def test_identical_images_get_different_views(name):
    views = Augment(EACH[name], 32)(same_picture(24, size=32), seeded())
    different = len({view.numpy().tobytes() for view in views})
    if name in BINARY:
        assert different == BINARY[name]
    else:
        assert different >= (8 if name.endswith("_p") else 24)


def test_views_of_a_pair_differ_and_a_seed_repeats_them():
    images, augment = photo(12, size=32), Augment("simclr", 32)
    generator = seeded(3)
    first, second = augment(images, generator), augment(images, generator)
    assert not torch.equal(first, second)
    again = seeded(3)
    assert torch.equal(first, augment(images, again)) and torch.equal(second, augment(images, again))


def test_an_image_does_not_depend_on_its_chunk(monkeypatch):
    """A chunk of one leaves out all that was not drawn; in one chunk it is computed, to no change."""
    images, augment = photo(50, size=32), Augment("e", 32)
    views = []
    for chunk in (1, 7, 50):
        monkeypatch.setattr("ssl_core.augment.CHUNK", chunk * 3 * 32 * 32)
        views.append(augment(images, seeded()))
    torch.testing.assert_close(views[1], views[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(views[2], views[0], atol=1e-5, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["e", "medical", "d_retina"])
def test_cuda_gives_the_same_views_and_is_never_waited_for(name):
    images, augment = photo(40, size=32), Augment(name, 32)
    there = images.cuda()
    augment(there, seeded())   # constants are moved once
    torch.cuda.set_sync_debug_mode("error")
    try:
        views = augment(there, seeded())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(views.cpu(), augment(images, seeded()), atol=1e-4, rtol=0)


# Distributions

N = 6000


def draws(recipe, height=64, width=64, n=N, strength=None):
    return Augment(recipe, 32).draw(n, height, width, seeded(1), strength)


def same_distribution(ours, theirs):
    return ks_2samp(np.asarray(ours, float), np.asarray(theirs, float)).pvalue > 1e-3


@pytest.mark.parametrize("scale, ratio, shape", [
    ((0.08, 1.0), (3 / 4, 4 / 3), (64, 64)), ((0.2, 1.0), (3 / 4, 4 / 3), (48, 96)),
    ((0.9, 1.0), (3 / 4, 4 / 3), (32, 160)), ((0.9, 1.0), (3 / 4, 4 / 3), (160, 32)),
    ((0.08, 0.1), (1.0, 1.0), (64, 64))])
def test_crops_are_those_of_torchvision(scale, ratio, shape):
    torch.manual_seed(0)
    image = torch.zeros(3, *shape, dtype=torch.uint8)
    crop = v2.RandomResizedCrop(32, scale=scale, ratio=ratio)
    theirs = torch.tensor([[p["top"], p["left"], p["height"], p["width"]]
                           for p in (crop.make_params([image]) for _ in range(N))]).double()
    ours = draws({"scale": scale, "ratio": ratio}, *shape)["box"].double()
    assert (ours[:, :2] >= 0).all() and (ours[:, 2:] >= 1).all()
    assert (ours[:, 0] + ours[:, 2] <= shape[0]).all() and (ours[:, 1] + ours[:, 3] <= shape[1]).all()
    for k in range(4):
        assert same_distribution(ours[:, k], theirs[:, k])
    assert same_distribution(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])
    assert same_distribution(ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3])


def test_jitter_is_that_of_torchvision():
    torch.manual_seed(0)
    jitter = v2.ColorJitter(0.8, 1.5, 0.4, 0.2)
    theirs = [jitter.make_params([]) for _ in range(N)]
    ours = draws({"jitter": (0.8, 1.5, 0.4, 0.2), "jitter_p": 1.0})
    names = ("brightness_factor", "contrast_factor", "saturation_factor")
    for k, name in enumerate(names):
        assert same_distribution(ours["factors"][:, k], [p[name] for p in theirs])
    assert same_distribution(ours["hue"], [p["hue_factor"] for p in theirs])
    orders = np.unique(ours["rounds"].numpy(), axis=0, return_counts=True)[1]
    assert len(orders) == 24 and chisquare(orders).pvalue > 1e-3


def test_rates_and_widths_are_the_recipes():
    drawn = draws("e")
    for name, rate in (("flip", 0.5), ("gray", 0.2), ("blur", 0.5), ("solarize", 0.1)):
        assert abs(drawn[name].double().mean() - rate) < 4 * (rate * (1 - rate) / N) ** 0.5, name
    assert abs((draws("simclr")["hue_at"] >= 0).double().mean() - 0.8) < 4 * (0.8 * 0.2 / N) ** 0.5
    assert kstest(drawn["sigma"][drawn["blur"]].numpy(), "uniform", (0.1, 1.9)).pvalue > 1e-3
    assert kstest(draws("d_chest")["angle"].numpy(), "uniform", (-30, 60)).pvalue > 1e-3


def test_quarter_turns_and_flips_are_uniform_over_the_symmetries():
    picture = same_picture(4000, size=8)
    turned = [picture[0].rot90(k, (1, 2)) for k in range(4)]
    for recipe, symmetries in (({"rotate90": 1.0}, turned),
                               ({"flip": 0.5, "vflip": 0.5, "rotate90": 1.0}, turned + [x.flip(2) for x in turned])):
        views = Augment(recipe, 8)(picture, seeded()).mul(255).round().byte()
        counts = [(views == symmetry).all((1, 2, 3)).sum().item() for symmetry in symmetries]
        assert sum(counts) == 4000 and chisquare(counts).pvalue > 1e-3


def test_draws_are_independent():
    """No two random numbers of an image share a source: all pairs uncorrelated."""
    drawn = draws("e")
    columns = [drawn["box"][:, 2], (drawn["box"][:, 0] + 0.5) / (65 - drawn["box"][:, 2]), drawn["flip"], drawn["gray"],
               *drawn["factors"][:, :3].unbind(1), drawn["hue"], drawn["hue_at"], drawn["blur"], drawn["solarize"]]
    correlation = np.corrcoef(torch.stack([column.float() for column in columns]).numpy())
    assert np.abs(correlation - np.eye(len(columns))).max() < 4.5 / N**0.5


# Pixels

def close(ours, theirs, levels=1.0):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= levels * GREY_LEVEL, (ours - theirs).abs().max() / GREY_LEVEL


BOXES = [(0, 0, 40, 40), (5, 9, 20, 28), (31, 3, 9, 6), (2, 0, 1, 40), (7, 7, 33, 33)]


@pytest.mark.parametrize("size", [12, 24, 40, 56])
def test_crop_resize_is_antialiased_as_torchvisions(size):
    x = photo(len(BOXES)).float() / 255
    flip, vflip = torch.tensor([0, 1, 1, 0, 0], dtype=torch.bool), torch.tensor([0, 0, 1, 1, 0], dtype=torch.bool)
    box = torch.tensor(BOXES).float()
    ours = ops.crop_resize(x, box, ops.places(box, flip, vflip, size, 40, 40))
    for row, (image, box) in enumerate(zip(x, BOXES, strict=True)):
        theirs = tv.resized_crop(image, *box, [size, size], antialias=True)
        theirs = tv.hflip(theirs) if flip[row] else theirs
        close(ours[row], tv.vflip(theirs) if vflip[row] else theirs, 0.1)


@pytest.mark.parametrize("operation", ["brightness", "contrast", "saturation"])
def test_blends_are_torchvisions(operation):
    x, values = photo(6).float() / 255, torch.tensor([0.0, 0.2, 0.7, 1.0, 1.4, 1.8])
    k = ("brightness", "contrast", "saturation").index(operation)
    factors = torch.ones(6, 4)
    factors[:, k] = values
    rounds, hue_at = torch.tensor([3, k, (k + 1) % 3, (k + 2) % 3]).expand(6, 4), torch.zeros(6, dtype=torch.long)
    matrix, offset = ops.jitter_matrices(rounds, factors, hue_at)
    theirs = torch.stack([getattr(tv, f"adjust_{operation}")(image, value.item())
                          for image, value in zip(x, values, strict=True)])
    close(ops.blend(x.flatten(2), matrix[:, 3], offset[:, 3], torch.empty(6, 3, 1600)).view_as(x), theirs, 0.1)


def test_hue_is_torchvisions_on_every_colour():
    levels = torch.linspace(0, 1, 16)
    cube = torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij")).reshape(1, 3, 64, 64)
    shifts = (-0.5, -0.2, -0.01, 0.0, 0.1, 0.33, 0.5)
    ours = ops.shift_hue(cube.repeat(len(shifts), 1, 1, 1).flatten(2), ops.hue_shifts(torch.tensor(shifts)))
    theirs = torch.cat([tv.adjust_hue(cube, shift) for shift in shifts])
    close(ours.view_as(theirs), theirs, 0.1)


def test_jitter_applies_the_four_in_the_order_drawn():
    x = photo(24).float() / 255
    drawn = draws({"jitter": (0.8, 0.8, 0.8, 0.2), "jitter_p": 0.8}, n=24)
    ours = ops.color_jitter(x.clone(), *(drawn[name] for name in ("matrix", "offset", "hue_at", "shift")))
    adjust = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for row, image in enumerate(x):
        for k in drawn["rounds"][row].tolist() if drawn["hue_at"][row] >= 0 else ():
            image = adjust[k](image, (drawn["hue"] if k == ops.HUE else drawn["factors"][:, k])[row].item())
        close(ours[row], image, 0.2)


@pytest.mark.parametrize("size, radius", [(32, 1), (64, 4), (40, 4), (8, 7)])
def test_blur_is_torchvisions(size, radius):
    x = photo(4, size=size).float() / 255
    sigma = torch.tensor([0.1, 0.6, 2.0, 0.0])
    ours = ops.gaussian_blur(x, ops.gaussian_kernels(sigma, radius))
    close(ours[:3], torch.stack([tv.gaussian_blur(image, 2 * radius + 1, [value])
                                 for image, value in zip(x, sigma[:3].tolist())]), 0.1)
    assert torch.equal(ours[3], x[3])


def test_taps_left_out_of_a_wide_kernel_do_not_show():
    """SimCLR's kernel at 224 px has 23 taps; 4 sigma are 17."""
    image = photo(1, size=224).float() / 255
    kernel = ops.gaussian_kernels(torch.tensor([2.0]), 8)
    close(ops.gaussian_blur(image, kernel), tv.gaussian_blur(image, 23, [2.0]), 0.2)


def test_gray_solarize_and_rotate_are_torchvisions():
    images = photo(3, size=33)
    x = images.float() / 255
    close(ops.gray(x), tv.rgb_to_grayscale(x), 0.1)
    close(Augment({"solarize_p": 1.0}, 33)(images, seeded()), tv.solarize(images, 128).float() / 255, 0.1)
    angles = torch.tensor([-30.0, 0.0, 17.0])
    theirs = torch.stack([tv.rotate(image, angle, interpolation=v2.InterpolationMode.BILINEAR)
                          for image, angle in zip(x, angles.tolist())])
    close(ops.rotate(x, angles)[..., 8:-8, 8:-8], theirs[..., 8:-8, 8:-8], 0.1)


# Recipes, grey stores, strength, messages

@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("channels, shape, size", [(3, (32, 32), 32), (1, (28, 28), 32), (3, (40, 30), 24)])
def test_every_recipe_gives_three_channels_between_0_and_1(name, channels, shape, size):
    images = torch.randint(0, 256, (20, channels, *shape), generator=seeded(), dtype=torch.uint8)
    views = Augment(name, size)(images, seeded())
    assert views.shape == (20, 3, size, size) and views.dtype == torch.float32 and views.is_contiguous()
    assert views.min() >= 0 and views.max() <= 1 and torch.isfinite(views).all()


def test_resize_only_is_exact_and_takes_no_random_number():
    images, generator = photo(4, size=32), seeded()
    before = generator.get_state(), torch.get_rng_state()
    torch.testing.assert_close(Augment("none", 32)(images, generator), images.float() / 255, atol=1e-7, rtol=0)
    Augment("none", 32)(images)
    assert torch.equal(generator.get_state(), before[0]) and torch.equal(torch.get_rng_state(), before[1])


def test_views_are_full_precision_under_autocast_and_may_enter_a_graph():
    images, augment = photo(8, size=32), Augment("simclr", 32)
    with torch.autocast("cpu", torch.bfloat16):
        views = augment(images, seeded())
    assert torch.equal(views, augment(images, seeded()))
    weight = torch.ones((), requires_grad=True)
    (views * weight).sum().backward()
    assert weight.grad == views.sum()


def test_grey_store_is_the_colour_recipe_without_what_cannot_act():
    """One channel gives what three equal channels would: same draws, nothing lost but what did nothing."""
    grey = photo(30, channels=1, size=32)
    ours = Augment("e", 32)(grey, seeded())
    three = Augment("e", 32)(grey.expand(-1, 3, -1, -1).contiguous(), seeded())
    torch.testing.assert_close(ours, three, atol=1e-3, rtol=0)


def test_what_is_dropped_is_said():
    assert Augment("simclr", 32).dropped(1) == ("saturation", "hue", "grayscale")
    assert Augment("simclr", 32).dropped(3) == () and Augment("mae", 32).dropped(1) == ()


@pytest.mark.parametrize("name", RECIPES)
def test_strength_0_changes_nothing(name):
    images = photo(16, size=32)
    views = Augment(name, 32)(images, seeded(), strength=torch.zeros(16))
    close(views, images.float() / 255, 0.1)


def test_strength_is_per_image_and_grows():
    images = same_picture(600, size=32)
    strength = torch.linspace(0, 1, 3).repeat_interleave(200)
    change = (Augment("simclr", 32)(images, seeded(), strength) - images.float() / 255).abs().mean((1, 2, 3))
    none, half, full = change.view(3, 200).mean(1)
    assert none < 1e-4 < half < full
    recipe = Augment("simclr", 32)
    assert torch.equal(recipe(images, seeded(), torch.ones(600)), recipe(images, seeded()))


def test_recipes_are_plain_and_may_be_given_as_a_dict():
    for recipe in RECIPES.values():
        assert set(recipe) <= set(OFF)
    images = photo(4, size=32)
    assert torch.equal(Augment(dict(RECIPES["simclr"]), 32)(images, seeded()), Augment("simclr", 32)(images, seeded()))


@pytest.mark.parametrize("call, words", [
    (lambda: Augment("simclrr", 32), ["simclrr", *RECIPES]),
    (lambda: Augment({"colour": 1}, 32), ["colour", *OFF]),
    (lambda: Augment("mae", 32)(torch.rand(2, 3, 32, 32)), ["uint8", "torch.float32", "(2, 3, 32, 32)"]),
    (lambda: Augment("mae", 32)(torch.zeros(3, 32, 32, dtype=torch.uint8)), ["uint8", "(3, 32, 32)"]),
    (lambda: Augment("mae", 32)(torch.zeros(2, 4, 32, 32, dtype=torch.uint8)), ["1 or 3", "(2, 4, 32, 32)"]),
    (lambda: Augment("mae", 32)(photo(2), strength=torch.ones(3)), ["strength", "(2,)", "(3,)"])])
def test_wrong_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message
