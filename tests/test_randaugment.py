"""Each operation gives Pillow's pixels with one parameter per image; what is drawn follows probability and level."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from scipy.stats import binomtest, chisquare

from ssl_core import randaugment
from ssl_core.randaugment import OPS, SIGNED, apply, parameter, rand_augment

NAMES = list(OPS)


def shift(image, *coefficients):
    return image.transform(image.size, Image.Transform.AFFINE, coefficients)  # nearest neighbour, black from outside


def cut_out(image, v, centre):
    """As BCL's code places it: a side of v widths around the centre, both ends filled."""
    (w, h), image = image.size, image.copy()
    left, top = (int(max(0, share * size - v * w / 2)) for share, size in zip(centre, (w, h)))
    if v > 0:
        box = (left, top, min(w, left + v * w), min(h, top + v * w))
        ImageDraw.Draw(image).rectangle(box, (125, 123, 114))
    return image


PILLOW = {
    "shear_x": lambda image, v: shift(image, 1, v, 0, 0, 1, 0),
    "shear_y": lambda image, v: shift(image, 1, 0, 0, v, 1, 0),
    "translate_x": lambda image, v: shift(image, 1, 0, v * image.size[0], 0, 1, 0),
    "translate_y": lambda image, v: shift(image, 1, 0, 0, 0, 1, v * image.size[1]),
    "rotate": lambda image, v: image.rotate(v),
    "autocontrast": lambda image, v: ImageOps.autocontrast(image),
    "invert": lambda image, v: ImageOps.invert(image),
    "equalize": lambda image, v: ImageOps.equalize(image),
    "solarize": lambda image, v: ImageOps.solarize(image, v),
    "posterize": lambda image, v: ImageOps.posterize(image, int(v)),
    "contrast": lambda image, v: ImageEnhance.Contrast(image).enhance(v),
    "color": lambda image, v: ImageEnhance.Color(image).enhance(v),
    "brightness": lambda image, v: ImageEnhance.Brightness(image).enhance(v),
    "sharpness": lambda image, v: ImageEnhance.Sharpness(image).enhance(v),
    "cutout": cut_out,
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(kind, n, height, width):
    """uint8 (n, 3, height, width)."""
    noise = torch.rand(n, 3, height, width, generator=seeded(1))
    if kind == "smooth":  # 90 levels at most, none in the lowest and highest quarter
        coarse = torch.rand(n, 3, 4, 4, generator=seeded(2))
        noise = 0.3 + 0.35 * torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    images = noise.mul(256).byte()
    if kind == "grey":
        images = images[:, :1].expand(-1, 3, -1, -1).contiguous()
    if kind == "few levels":
        images = images // 64 * 64
    return images.fill_(77) if kind == "flat" else images


def by_pillow(name, image, *parameters):
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    return torch.from_numpy(np.asarray(PILLOW[name](picture, *parameters)).copy()).permute(2, 0, 1)


# --- pixels -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("height, width", [(32, 32), (24, 45), (96, 96)])
@pytest.mark.parametrize("kind", ["random", "smooth", "grey", "few levels", "flat"])
@pytest.mark.parametrize("name", NAMES)
def test_an_operation_gives_the_pixels_of_pillow(name, kind, height, width):
    """Over its range of 60 magnitudes, to one grey level; what moves pixels, to the pixel."""
    operation, low, high = OPS[name]
    images, values = pictures(kind, 60, height, width), torch.linspace(low, high, 60)
    if NAMES.index(name) < SIGNED:
        values = values * torch.tensor([1, -1]).repeat(30)
    more = [torch.rand(60, 2, generator=seeded(3))] if name == "cutout" else []
    ours = operation(images.float(), values, *more)
    theirs = torch.stack([by_pillow(name, image, float(value), *(m.tolist() for m in rest))
                          for image, value, *rest in zip(images, values, *more)])
    assert (ours - theirs).abs().max() <= 1
    assert torch.equal(ours, ours.round()) and ours.min() >= 0 and ours.max() <= 255
    assert torch.equal(ours, theirs.float()) or NAMES.index(name) >= SIGNED
    assert kind != "smooth" or not torch.equal(ours, images.float())


def test_the_table_lists_the_operations_and_ranges_of_the_authors():
    assert {name: tuple(entry[1:]) for name, entry in OPS.items()} == {
        "shear_x": (0, 0.6), "shear_y": (0, 0.6), "translate_x": (0, 0.66), "translate_y": (0, 0.66),
        "rotate": (0, 60), "autocontrast": (0, 1), "invert": (0, 1), "equalize": (0, 1), "solarize": (0, 110),
        "posterize": (4, 8), "contrast": (0.1, 1.9), "color": (0.1, 1.9), "brightness": (0.1, 1.9),
        "sharpness": (0.1, 1.9), "cutout": (0, 0.4)}
    assert NAMES[:SIGNED] == ["shear_x", "shear_y", "translate_x", "translate_y", "rotate"]


# --- one draw per image -----------------------------------------------------------------------------------------------

def test_each_image_gets_its_own_operation_and_value():
    op = torch.arange(-1, len(OPS)).repeat(3)
    x, u = pictures("smooth", len(op), 24, 24).float(), torch.rand(len(op), 4, generator=seeded(4))
    value, centre = parameter(op[:, None], 20 + 5 * u[:, :1], u[:, 1:2])[:, 0], u[:, 2:]
    together = apply(x.clone(), op, value, centre)
    for i in range(len(op)):
        alone = apply(x[i:i + 1].clone(), op[i:i + 1], value[i:i + 1], centre[i:i + 1])
        assert torch.equal(together[i], alone[0])
        assert torch.equal(together[i], x[i]) == (op[i] == -1)


def test_identical_images_come_out_different_and_a_seed_repeats_them():
    x, ones = pictures("random", 1, 24, 24).expand(64, -1, -1, -1) / 255, torch.ones(64)
    out = rand_augment(x.clone(), 2, ones, 20 * ones, seeded())
    assert len({image.numpy().tobytes() for image in out}) > 50
    assert torch.equal(out, rand_augment(x.clone(), 2, ones, 20 * ones, seeded()))
    assert out.min() >= 0 and out.max() <= 1


def test_at_probability_0_an_image_keeps_its_values():
    x, p = torch.rand(64, 3, 16, 16, generator=seeded(6)), torch.tensor([0.0, 1.0]).repeat(32)
    out = rand_augment(x.clone(), 2, p, torch.full((64,), 30.0), seeded())
    assert torch.equal(out[p == 0], x[p == 0])
    assert all(not torch.equal(a, b) for a, b in zip(out[p == 1], x[p == 1]))
    levels = 255 * out[p == 1]
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)


def record(monkeypatch, k, p, level, n=3000):
    """What rand_augment draws for n images: op and value, (drawn, k) each."""
    calls = []

    def listen(x, op, value, centre):
        calls.append((op, value, centre))
        return x

    monkeypatch.setattr(randaugment, "apply", listen)
    rand_augment(torch.zeros(n, 3, 2, 2), k, torch.full((n,), p), torch.full((n,), level), seeded())
    return [torch.stack(each, 1) for each in zip(*calls)]


@pytest.mark.parametrize("k, p, level", [(1, 0.1, 10.0), (2, 0.5, 5.0), (2, 1.0, 30.0)])
def test_operations_are_uniform_probability_counts_and_level_sets_the_value(monkeypatch, k, p, level):
    op, value, centre = record(monkeypatch, k, p, level)
    drawn = op[op >= 0]
    assert binomtest(len(drawn), 3000 * k, p).pvalue > 1e-3
    assert chisquare(torch.bincount(drawn, minlength=len(OPS))).pvalue > 1e-3
    low, high = (torch.tensor([entry[i] for entry in OPS.values()], dtype=torch.float) for i in (1, 2))
    torch.testing.assert_close(value[op >= 0].abs(), (low + level / 30 * (high - low))[drawn])
    negative = value[op >= 0] < 0
    assert not negative[drawn >= SIGNED].any()
    assert binomtest(int(negative.sum()), int((drawn < SIGNED).sum())).pvalue > 1e-3
    assert 0.45 < centre.mean() < 0.55 and centre.min() < 0.02 and centre.max() > 0.98
    if k == 2:  # with replacement, one round apart from the other
        both = op[(op >= 0).all(1)]
        assert binomtest(int((both[:, 0] == both[:, 1]).sum()), len(both), 1 / len(OPS)).pvalue > 1e-3


# --- on an accelerator ------------------------------------------------------------------------------------------------

def test_computing_all_and_choosing_gives_what_computing_the_drawn_gives(monkeypatch):
    x, m = torch.rand(48, 3, 16, 16, generator=seeded(7)), torch.rand(48, generator=seeded(8))
    expected = rand_augment(x.clone(), 2, m, 10 + 20 * m, seeded())
    monkeypatch.setattr(randaugment, "on_drawn", lambda mask, x, change: torch.where(
        mask.view(-1, 1, 1, 1), change(x, slice(None)), x))
    assert torch.equal(rand_augment(x.clone(), 2, m, 10 + 20 * m, seeded()), expected)


def test_nothing_asks_an_accelerator_for_a_value():
    """Tensors of the meta device have none to give: asking one raises."""
    x, m = torch.rand(4, 3, 16, 16, device="meta"), torch.rand(4, device="meta")
    assert rand_augment(x, 2, m, 30 * m).shape == x.shape
