"""A linear probe on 10,000 images: ours, and a linear layer trained behind the frozen encoder for 90 epochs.

    python -m benchmarks.probe

The peer is the probe of a thesis (SimCLR on CIFAR-10-LT): Adam at 3e-4, batches of 512, no augmentation, the last
epoch counts. One of its epochs is timed and taken 90 times. Its accuracy comes from 90 epochs on stored features: in
eval mode the encoder gives the same numbers in every epoch. The encoder is the small ResNet that `10_pretrain` takes by
default, with the stem for small images that the thesis has.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.timing import medians
from benchmarks.training import config, our_loop, simclr
from ssl_core.augment import Augment
from ssl_core.data import load
from ssl_core.evaluate.features import extract
from ssl_core.evaluate.probe import linear_probe

ENCODER = {"name": "resnet10t", "args": {"channels": [32, 64, 128, 256]}, "stem": "cifar"}
IMAGES, EPOCHS, BATCH, RATE = 10_000, 90, 512, 3e-4


def repeated(images, labels, n):
    """n images with labels and groups: the given ones, then flipped copies of the first; a pair is one group."""
    origin = np.arange(n) % len(images)
    images = images[origin].copy()
    flipped = np.arange(n) >= len(labels)
    images[flipped] = images[flipped][..., ::-1]
    return images, labels[origin], origin


def behind(encoder):
    """uint8 images (B, C, H, W) → h (B, D) of the frozen encoder, as the peer's every step computes it."""
    resize = Augment("none", encoder.spec["size"])
    encoder.eval()

    @torch.no_grad()
    def encode(x):
        return encoder(resize(x).contiguous(memory_format=torch.channels_last)).h

    return encode


def adam_probe(encode, inputs, labels, width, n_classes, epochs, seed=0):
    """A linear layer trained by Adam on encode(inputs), which runs anew for every batch."""
    torch.manual_seed(seed)
    linear = nn.Linear(width, n_classes)
    optimiser = torch.optim.Adam(linear.parameters(), RATE)
    for _ in range(epochs):
        for index in torch.randperm(len(inputs)).split(BATCH):
            loss = F.cross_entropy(linear(encode(inputs[index])), labels[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return linear


def trained_encoder(images, network):
    """An encoder after a few steps of SimCLR on the images, which settle its BatchNorm statistics."""
    method, cfg = simclr(**network), config(steps=len(images) // 256)
    with tempfile.TemporaryDirectory() as folder:
        our_loop(method, torch.from_numpy(images), cfg, Path(folder))()
    return method.encoder


def rows(rounds=3, network=ENCODER, n=IMAGES):
    """(name, ours, peer, ratio, unit): seconds until a probe is fitted, and its accuracy on 2,000 test images."""
    data = load("fashion", size=32)
    train, test = (np.flatnonzero(data.part == part) for part in ("train", "test"))
    encoder = trained_encoder(data.images[train[:2048]], network)
    images, labels, groups = repeated(data.images[train], data.labels[train], n)
    tensors, targets, classes = torch.from_numpy(images), torch.from_numpy(labels), len(data.classes)
    kept = {}

    def ours():
        kept["h"] = extract(encoder, images)
        kept["probe"] = linear_probe(kept["h"], labels, groups)

    taken = medians({"ours": ours, "epoch": lambda: adam_probe(behind(encoder), tensors, targets, encoder.width,
                                                               classes, epochs=1)}, rounds)
    h_test = extract(encoder, data.images[test])
    linear = adam_probe(lambda h: h, torch.from_numpy(kept["h"]), targets, encoder.width, classes, EPOCHS)
    found = {"ours": kept["probe"].predict_proba(h_test).argmax(1),
             "peer": linear(torch.from_numpy(h_test)).argmax(1).numpy()}
    right = {side: float((y == data.labels[test]).mean()) for side, y in found.items()}
    peer = EPOCHS * taken["epoch"]
    return [(f"linear probe, {n:,} images, against {EPOCHS} epochs of the encoder", taken["ours"], peer,
             peer / taken["ours"], "s"),
            ("linear probe, accuracy on test images, against the same", right["ours"], right["peer"],
             right["ours"] / right["peer"], "share")]


if __name__ == "__main__":
    for name, ours, peer, ratio, unit in rows():
        print(f"{name:66} {ours:9.3f} {peer:9.3f} {unit}  {ratio:5.2f} x")
