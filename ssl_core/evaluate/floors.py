"""Floors: what needs no encoder. A representation that does not beat them has shown nothing.

The two kinds of features go through the same linear probe as an encoder's. Images: uint8 (N, C, S, S).
"""

import numpy as np
import pandas as pd
from scipy.special import logit

from ssl_core.evaluate.probe import Probe

PIXELS = 32  # largest side of the raw-pixel floor
BINS = 16


def prior_probe(features, labels, groups=None, seed=0, task="multiclass", n_classes=None):
    """The majority floor as a `Probe`: every image gets the training prior, so the most frequent class always wins.

    Arguments as in `linear_probe`; multilabel: each label's prevalence where it is known, 0.5 where it never is.
    """
    labels, width = np.asarray(labels), np.shape(features)[1]
    with np.errstate(divide="ignore"):  # a class without an image has a bias of minus infinity
        if task == "multilabel":
            known = (labels >= 0).sum(0)
            bias = logit(np.where(known > 0, (labels == 1).sum(0) / np.maximum(known, 1), 0.5))
        else:
            bias = np.log(np.bincount(labels, minlength=n_classes or 0) / len(labels))
    arrays = {"mean": np.zeros(width), "scale": np.ones(width), "weight": np.zeros((len(bias), width)), "bias": bias}
    return Probe(arrays, task, None, pd.DataFrame(), None)


def colour_histogram(images):
    """Per channel the shares of 16 grey levels, mean and standard deviation: (N, 18 C) float32, blind to shape."""

    def histogram(batch):
        flat = batch.reshape(*batch.shape[:2], -1)
        shares = [(flat // (256 // BINS) == level).mean(2) for level in range(BINS)]
        return np.concatenate([*shares, flat.mean(2) / 255, flat.std(2) / 255], 1)

    return _in_batches(histogram, images)


def raw_pixels(images):
    """Pixels in [0, 1], averaged over areas down to 32 px where larger: (N, C s s) float32."""
    side = images.shape[-1]
    small = min(side, PIXELS)
    edges = np.linspace(0, side, small + 1)[:, None]  # of the new pixels, in old ones
    covered = np.clip(edges - np.arange(side), 0, 1)
    area = np.diff(covered, axis=0) * small / side  # (small, side): the share of each old pixel in each new one
    return _in_batches(lambda batch: (area @ (batch / 255) @ area.T).reshape(len(batch), -1), images)


def _in_batches(function, images, size=256):
    return np.concatenate([function(images[i:i + size]) for i in range(0, len(images), size)]).astype(np.float32)
