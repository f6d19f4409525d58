"""SimSiam. Chen, He: Exploring Simple Siamese Representation Learning, CVPR 2021, arXiv 2011.10566.
Equations 1 to 4 and Algorithm 1."""

import torch
import torch.nn.functional as F
from torch import nn

from ssl_core.encoders import mlp
from ssl_core.methods.base import Method, Step


def simsiam_loss(p1, p2, z1, z2):
    """Symmetrised negative cosine similarity to targets that count as constants, equations 1 and 4.

    L = D(p1, stopgrad(z2)) / 2 + D(p2, stopgrad(z1)) / 2,   D(p, z) = −(p / ‖p‖) · (z / ‖z‖).

    p1, p2: (B, D) predictions; z1, z2: (B, D) projections; raw, normalised here in float32 or wider → (B,).
    """
    p1, p2, z1, z2 = (t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in (p1, p2, z1, z2))
    return -(F.cosine_similarity(p1, z2.detach()) + F.cosine_similarity(p2, z1.detach())) / 2


class SimSiam(Method):
    """A projector of three layers with BatchNorm on each, the last without weights of its own, and a predictor with a
    bottleneck, 2048 → 512 → 2048 (§3, "Baseline settings"; the authors' builder.py). For CIFAR-10 the paper takes two
    layers, (2048, 2048) (§D).

    projector: widths after the encoder's; projector_norm: BatchNorm on its output; predictor: its hidden width, or None
    for no predictor: then p is z and nothing keeps z from collapsing (§4.2) but BatchNorm, for a while. Without both it
    collapses at once: the setting of a published system, kept to show.
    """

    def __init__(self, encoder, augment, n=0, projector=(2048, 2048, 2048), projector_norm=True, predictor=512):
        super().__init__(encoder, augment, n)
        width = projector[-1]
        self.projector = mlp(encoder.width, *projector, bias=not projector_norm)
        if projector_norm:
            self.projector.append(nn.BatchNorm1d(width, affine=False))
        self.predictor = mlp(width, predictor, width) if predictor else nn.Identity()

    def forward(self, x1, x2):
        f1, f2 = self.encoder(x1), self.encoder(x2)  # one view at a time, each with its own BatchNorm statistics
        z1, z2 = self.projector(f1.h), self.projector(f2.h)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        return Step(simsiam_loss(p1, p2, z1, z2), (f1, f2), (z1, z2))
