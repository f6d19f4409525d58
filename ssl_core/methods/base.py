"""What a method of self-supervised learning must be able to do: four verbs and one value."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Step:
    """loss: (B,), one number per image; feats: one Features per view; z: the embeddings per view, each (B, D)."""

    loss: torch.Tensor
    feats: tuple = ()
    z: tuple = ()


class Method(nn.Module):
    """A pretraining method around an encoder. Labels never reach it, so they cannot leak into it.

    `forward` reads state and writes none (BatchNorm's running statistics are the one exception); what a method keeps
    between steps it writes in `update`, after the optimiser's step. What `begin_epoch` derives it keeps in buffers, so
    that a run resumed inside an epoch finds it in the checkpoint. `n` is the number of images, for methods that
    remember each.
    """

    def __init__(self, encoder, augment, n=0):
        super().__init__()
        self.encoder = encoder
        self.augment = augment
        self.n = n

    def views(self, images, index, generator=None):
        """images: uint8 (B, C, H, W); index: (B,) positions in the split → two views, float (B, 3, S, S)."""
        return self.augment(images, generator), self.augment(images, generator)

    def forward(self, *views) -> Step:
        raise NotImplementedError

    def update(self, step, index):
        """Write state after the optimiser's step: momentum encoder, queue, loss memory."""

    def begin_epoch(self, epoch):
        """Derive from saved state what holds for one epoch: pruning masks, augmentation strengths."""


def encode_pair(encoder, x1, x2):
    """Features of two views from one pass, as BatchNorm statistics over both views want it (SimCLR, §2.2)."""
    both = encoder(torch.cat([x1, x2]))
    halves = [type(both)(h, tuple(maps)) for h, *maps in zip(both.h.chunk(2), *(m.chunk(2) for m in both.maps))]
    return halves[0], halves[1]
