"""RotNet. Gidaris, Singh, Komodakis: Unsupervised Representation Learning by Predicting Image Rotations, ICLR 2018,
arXiv 1803.07728. Equation 3 with the four turns of §3.1."""

import torch
from torch import nn

from ssl_core.encoders import Features
from ssl_core.methods.base import Method, Step


def quarter_turns(x):
    """Each image turned by 0, 90, 180 and 270 degrees, counter-clockwise: (B, C, S, S) → (4, B, C, S, S)."""
    return torch.stack([x.rot90(k, (2, 3)) for k in range(4)])


def rotation_loss(logits):
    """Cross entropy of telling by how much an image was turned, mean of its K = 4 turns, equation 3.

    l(i) = −1/K Σ_k log softmax(logits of image i turned k times)_k.

    logits: (4, B, 4), first the turn that was made, last the turn that is told; in float32 or wider → (B,).
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    return -logits.log_softmax(2).diagonal(dim1=0, dim2=2).mean(1)


class RotNet(Method):
    """A linear classifier of four turns on h; all four of an image are in the batch (the paper's and the code's way).

    Nothing to set: "RotNet" and "RotNet + jitter" differ by the recipe alone, `rotnet` and `rotnet_jitter`; colours
    that vary tell less of which way up an image is. A recipe that itself turns images, or flips them upside down,
    leaves nothing to tell and is refused. Step.feats holds the image as it was.
    """

    def __init__(self, encoder, augment, n=0):
        super().__init__(encoder, augment, n)
        for name in ("rotate90", "vflip"):
            if augment.recipe[name]:
                raise ValueError(f"RotNet tells which way up an image is, and recipe {augment.name!r} changes that "
                                 f"({name} {augment.recipe[name]:g}); take one without {name}, such as simclr")
        self.head = nn.Linear(encoder.width, 4)

    def views(self, images, index, generator=None):
        """One view; what is told is made in `forward`: float (B, 3, S, S), always square."""
        return (self.augment(images, generator),)

    def forward(self, x):
        f = self.encoder(quarter_turns(x).flatten(0, 1))  # one pass: BatchNorm sees all turns
        upright = Features(f.h[:len(x)], tuple(m[:len(x)] for m in f.maps))
        return Step(rotation_loss(self.head(f.h).unflatten(0, (4, -1))), (upright,))
