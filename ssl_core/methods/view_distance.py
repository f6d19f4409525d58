"""A record of how far the two views of each image lie apart while training, and which weight LoTaR's rule gives that.
The curves of A Reweighting Based Self-supervised Learning Method for Long-tailed Recognition (see lotar.py)."""

import torch

from ssl_core.methods.base import Wrapper
from ssl_core.methods.bcl import BCL
from ssl_core.methods.lotar import LoTaR, lotar_weights

KEPT = 32  # epochs; when all are taken every second one is given up, so that a long training is kept as well


class ViewDistance(Wrapper):
    """Notes ‖z1_i − z2_i‖ of raw projections and the weight of every image; trains as the base would without it.

    distance, weight: (33, n) float16 after the epochs numbered in `epochs` (0: none), NaN for an image that an epoch
    left out; the last row is scratch. Weights are those of the LoTaR it wraps, or what its defaults would give. Around
    BCL memory (33, n) is what it remembers of each image's loss; around SDCLR, whose second view goes through the
    pruned network, the distance is also the gap between the two networks.
    """

    def __init__(self, base):
        super().__init__(base)
        if self.n < 1:
            raise ValueError("view_distance records each image; give build their number, n")
        self.kept = ("distance", "weight", "memory")[:2 + any(isinstance(module, BCL) for module in base.modules())]
        for name in self.kept:
            self.register_buffer(name, torch.full((KEPT + 1, self.n), torch.nan, dtype=torch.float16))
        self.register_buffer("epochs", torch.zeros(KEPT + 1, dtype=torch.long))
        self.register_buffer("stride", torch.ones((), dtype=torch.long))
        self.register_buffer("row", torch.full((), KEPT))  # where this epoch is written
        lotar = next((module for module in base.modules() if isinstance(module, LoTaR)), None)
        self.options = {} if lotar is None else {"sign": lotar.sign, "distance": lotar.distance, "space": lotar.space}

    def begin_epoch(self, epoch):
        super().begin_epoch(epoch)
        if epoch >= KEPT * self.stride:
            for kept, empty in ((self.epochs, 0), *((getattr(self, name), torch.nan) for name in self.kept)):
                kept[:KEPT // 2] = kept[:KEPT:2].clone()
                kept[KEPT // 2:] = empty
            self.stride.mul_(2)
        taken = epoch % self.stride == 0
        self.row.fill_(epoch // self.stride if taken else KEPT)
        if taken:
            self.epochs[self.row] = epoch + 1

    @torch.no_grad()
    def update(self, step, index):
        super().update(step, index)
        if len(step.z) != 2 or step.z[0].shape != step.z[1].shape:
            raise ValueError(f"view_distance: {type(self.base).__name__} gives no two embeddings of an image; wrap a "
                             "method that compares two views, as simclr or lotar")
        z1, z2 = (z.detach().float() for z in step.z)
        self.distance[self.row, index] = torch.linalg.vector_norm(z1 - z2, dim=1).half()
        self.weight[self.row, index] = lotar_weights(z1, z2, **self.options).half()
        if "memory" in self.kept:
            boosted = next(module for module in self.base.modules() if isinstance(module, BCL))
            self.memory[self.row, index] = boosted.memory[index].half()


def recorded(state):
    """epochs (K,), and distance, weight and, of BCL, memory (K, n) as arrays from the tensors of a method.safetensors;
    None without."""
    if "epochs" not in state or "distance" not in state:
        return None
    there = state["epochs"] > 0
    return {name: state[name][there].numpy() for name in ("epochs", "distance", "weight", "memory") if name in state}
