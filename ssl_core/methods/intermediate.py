"""Intermediate layers. Kaku, Upadhya, Razavian: Intermediate Layers Matter in Momentum Contrastive Self Supervised
Learning, NeurIPS 2021, arXiv 2110.14805. MoCo + MSE and MoCo + Barlow Twins; an add-on to any method of two views."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from ssl_core.encoders import Encoder, mlp
from ssl_core.methods.barlow import barlow_loss
from ssl_core.methods.base import Step, Wrapper, check

WEIGHTS = {"mse": 0.25, "barlow": 5e-5}  # λ of every layer in the authors' code


def mse_distance(map1, map2, pool):
    """Mean squared difference of two maps, averaged first over a pool × pool grid.

    d(a, b) = mean over c, i, j of (P(a)_cij − P(b)_cij)²,   P: adaptive average pooling to pool × pool.

    map1, map2: (B, C, H, W), neither normalised nor projected; in float32 or wider → (B,).
    """
    map1, map2 = (m.float() if m.dtype in (torch.float16, torch.bfloat16) else m for m in (map1, map2))
    return (F.adaptive_avg_pool2d(map1, pool) - F.adaptive_avg_pool2d(map2, pool)).square().mean((1, 2, 3))


def barlow_distance(z1, z2, lam):
    """How far the cross-correlation C of two views is from the identity, the same number for every image.

    d = λ / 32 · ( Σ_i (C_ii − 1)² + Σ_{i ≠ j} C_ij² ).

    Barlow Twins weighs the second sum alone; here λ weighs both, as in the authors' code, whose 1/32 this is.
    z1, z2: (B, D) raw projections, standardised over the batch here → (B,).
    """
    return lam / 32 * barlow_loss(z1, z2, 1)


class Intermediate(Wrapper):
    """loss = base's + Σ_l λ_l · distance(map_l of view 1, map_l of view 2).

    distance: "mse", over a grid of `pools` cells a side for each layer, or "barlow", of each layer's mean over the map
    after a projector of its own (widths `projector`, no biases, BatchNorm and ReLU but after the last), which both
    views share. taps: numbers of the maps in timm's feature_info; of a ResNet 0 is the stem and 1 to 4 are layer1 to
    layer4. weights: λ_l; by default .25 each for mse and 5e-5 each for barlow.

    The defaults are the authors' code for chest X-rays and fundus images; for histology it pools to 1 × 1. In MoCo
    the maps of view 2 are those of the key encoder and carry no gradient, but the projector's.
    """

    def __init__(self, base, distance="mse", taps=(1, 2, 3, 4), weights=None, pools=(16, 16, 4, 4),
                 projector=(2048, 2048, 2048)):
        super().__init__(base)
        if distance not in WEIGHTS:
            raise ValueError(f'intermediate: distance {distance!r} is unknown; give "mse" or "barlow"')
        if weights is None:
            weights = [WEIGHTS[distance]] * len(taps)
        for weight in weights:
            check(weights=weight)
        for name, given in (("weights", weights), *([("pools", pools)] if distance == "mse" else [])):
            if len(given) != len(taps):
                raise ValueError(f"intermediate: {len(taps)} taps and {len(given)} {name}; give one for each tap")
        for encoder in self.modules():
            if isinstance(encoder, Encoder):  # that of the queries and, where there is one, that of the keys
                stages = len(getattr(encoder.backbone, "feature_info", ()))
                if list(taps) != sorted(set(taps) & set(range(stages))):
                    raise ValueError(f"intermediate: {encoder.spec['name']} has {stages} maps, numbered from 0, and "
                                     f"taps is {list(taps)}; give numbers of them, each once, in rising order")
                encoder.taps = tuple(taps)
        self.distance, self.weights, self.pools = distance, tuple(weights), tuple(pools)
        if distance == "barlow":
            widths = [self.encoder.backbone.feature_info[tap]["num_chs"] for tap in taps]
            self.projectors = nn.ModuleList(mlp(width, *projector, bias=False) for width in widths)
        self.refuse_one_view()

    @torch.no_grad()
    def refuse_one_view(self):
        """Run two blank images through, which in eval mode leaves no trace, so that an unfit base fails at once."""
        device, size = self.encoder.mean.device, self.encoder.spec["size"]
        images = torch.zeros(2, 3, size, size, dtype=torch.uint8, device=device)
        self.eval()(*self.views(images, torch.arange(2, device=device), torch.Generator(device).manual_seed(0)))
        self.train()

    def distance_at(self, tap, map1, map2):
        """λ_l · distance for the tap-th pair of maps → (B,)."""
        if self.distance == "mse":
            return self.weights[tap] * mse_distance(map1, map2, self.pools[tap])
        z1, z2 = (self.projectors[tap](m.mean((2, 3))) for m in (map1, map2))  # one by one: BatchNorm of each view
        return barlow_distance(z1, z2, self.weights[tap])

    def forward(self, *views) -> Step:
        step = self.base(*views)
        maps = [f.maps for f in step.feats]
        if [len(m) for m in maps] != [len(self.weights)] * 2:
            raise ValueError(f"intermediate: {type(self.base).__name__} does not give the maps of two views of an "
                             "image; wrap a method that compares two views, as simclr or moco")
        added = sum(self.distance_at(tap, *pair) for tap, pair in enumerate(zip(*maps)))
        return replace(step, loss=step.loss + added)
