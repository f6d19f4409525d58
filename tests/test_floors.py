"""What the floors see of an image, and what they do not."""

import numpy as np
import pytest

from ssl_core.evaluate.floors import colour_histogram, prior_probe, raw_pixels
from ssl_core.evaluate.probe import apply_probe


def images(n=5, channels=3, side=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, channels, side, side), dtype=np.uint8)


def test_prior_probe_gives_every_image_the_training_prior():
    nothing = np.zeros((5, 0))
    p = prior_probe(nothing[:4], np.array([0, 0, 0, 2]), n_classes=4).predict_proba(nothing)
    assert p == pytest.approx(np.tile([0.75, 0, 0.25, 0], (5, 1)))
    labels = np.array([[1, -1, 0], [0, -1, 0], [1, -1, -1]])
    probe = prior_probe(np.ones((3, 7)), labels, task="multilabel")
    p = probe.predict_proba(np.ones((2, 7)))
    assert p[0] == pytest.approx([2 / 3, 0.5, 0])
    assert (apply_probe(probe.head_arrays(), "multilabel", np.ones((2, 7))) == p).all()


def test_colour_histogram_is_blind_to_shape_but_not_to_colour():
    x = images()
    shuffled = np.random.default_rng(1).permuted(x.reshape(5, 3, -1), axis=2).reshape(x.shape)
    assert colour_histogram(x).shape == (5, 54)
    assert np.allclose(colour_histogram(x), colour_histogram(shuffled), atol=1e-6)
    assert np.abs(colour_histogram(x) - colour_histogram(255 - x // 2)).max() > 0.1
    assert colour_histogram(x)[:, :48].sum(1) == pytest.approx(np.full(5, 3.0))


@pytest.mark.parametrize("side", [20, 32, 48, 64, 100])
def test_raw_pixels_average_areas(side):
    x = images(300 if side == 64 else 2, 1, side)
    small = raw_pixels(x)
    assert small.shape == (len(x), min(side, 32) ** 2) and small.dtype == np.float32
    assert small.mean(1) == pytest.approx(x.mean((1, 2, 3)) / 255, abs=1e-5)
    if side == 64:
        blocks = x.reshape(300, 32, 2, 32, 2).mean((2, 4)).reshape(300, -1) / 255
        assert np.allclose(small, blocks, atol=1e-6)
