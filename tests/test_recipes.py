"""Every recipe draws as torchvision's transforms do when they are built from the same values: two-sample tests."""

import numpy as np
import pytest
import torch
from scipy.stats import fisher_exact, ks_2samp
from torchvision.transforms import v2

from ssl_core.augment import OFF, RECIPES, Augment
from ssl_core.augment_ops import HUE

N, SIDE, SIZE = 4000, 64, 32
FACTORS = ("brightness_factor", "contrast_factor", "saturation_factor")


@pytest.fixture(params=RECIPES)
def name(request):
    return request.param


@pytest.fixture
def recipe(name):
    return OFF | RECIPES[name]


@pytest.fixture
def drawn(name):
    return Augment(name, SIZE).draw(N, SIDE, SIDE, torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def same(ours, theirs):
    """Neither sample is told from the other at 1 in 10,000; where nothing varies both hold one value."""
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    if len(np.unique(theirs)) == 1:
        return np.allclose(ours, theirs[0], atol=1e-6)
    return ks_2samp(ours, theirs).pvalue > 1e-4


def same_rate(ours, transform):
    """As often as a torchvision transform with a probability acts on an image of one bright pixel at its left edge."""
    mark = torch.zeros(3, 8, 8)
    mark[0, 0, 0] = 1
    acted = sum(not torch.equal(transform(mark), mark) for _ in range(N))
    return fisher_exact([[int(ours.sum()), N - int(ours.sum())], [acted, N - acted]])[1] > 1e-4


def sometimes(p):
    """A transform that is sure to be seen when it acts."""
    return v2.RandomApply([v2.Lambda(lambda x: x + 1)], p)


def test_crops_have_torchvisions_area_aspect_and_position(recipe, drawn):
    box = drawn["box"].double()
    if recipe["scale"] is None:
        assert torch.equal(box, torch.tensor([0.0, 0, SIDE, SIDE]).double().expand(N, 4))
        return
    crop = v2.RandomResizedCrop(SIZE, scale=recipe["scale"], ratio=recipe["ratio"])
    image = torch.zeros(3, SIDE, SIDE)
    theirs = np.array([[p[key] for key in ("top", "left", "height", "width")]
                       for p in (crop.make_params([image]) for _ in range(N))], float)
    ours = box.numpy()
    assert same(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])
    assert same(ours[:, 3] / ours[:, 2], theirs[:, 3] / theirs[:, 2])
    for axis in range(2):  # where the middle lies
        assert same(ours[:, axis] + ours[:, axis + 2] / 2, theirs[:, axis] + theirs[:, axis + 2] / 2)


def test_colours_are_jittered_by_torchvisions_factors(recipe, drawn):
    jittered = drawn["hue_at"] >= 0
    if not recipe["jitter_p"]:
        assert not jittered.any()
        return
    jitter = v2.ColorJitter(*recipe["jitter"])
    theirs = [jitter.make_params([]) for _ in range(N)]
    for k, factor in enumerate(FACTORS):
        assert same(drawn["factors"][jittered][:, k], [1.0 if p[factor] is None else p[factor] for p in theirs])
    assert same(drawn["hue"][jittered], [p["hue_factor"] for p in theirs])
    place = [p["fn_idx"].tolist().index(HUE) for p in theirs]
    assert same(drawn["hue_at"][jittered], place)  # the order is drawn per image
    assert same_rate(jittered, sometimes(recipe["jitter_p"]))


@pytest.mark.parametrize("event, transform", [
    ("flip", v2.RandomHorizontalFlip), ("vflip", v2.RandomVerticalFlip), ("gray", v2.RandomGrayscale)])
def test_flips_and_greys_are_as_frequent(recipe, drawn, event, transform):
    p = recipe[f"{event}_p" if event == "gray" else event]
    if recipe["rotate90"]:  # a quarter turn is made of flips: with it each of the eight symmetries is as likely
        p = {"flip": 0.5, "vflip": 0.5}.get(event, p)
    assert same_rate(drawn[event], transform(p))


def test_blurs_are_as_frequent_and_as_wide(recipe, drawn):
    blur = v2.GaussianBlur(3, sigma=recipe["blur_sigma"])
    assert same_rate(drawn["blur"], sometimes(recipe["blur_p"]))
    if recipe["blur_p"]:
        theirs = [blur.make_params([])["sigma"][0] for _ in range(N)]
        assert same(drawn["sigma"][drawn["blur"]], theirs)


def test_images_are_drawn_one_by_one(drawn, recipe):
    """Neighbours in a batch share nothing: no parameter that varies follows that of the image before."""
    for key in ("box", "hue", "sigma"):
        column = drawn[key].double().view(N, -1)[:, -1]
        if column.std() > 0:
            assert len(column.unique()) > 2
            assert abs(np.corrcoef(column[1:], column[:-1])[0, 1]) < 4.5 / N**0.5
