"""Barlow Twins. Zbontar, Jing, Misra, LeCun, Deny: Barlow Twins: Self-Supervised Learning via Redundancy Reduction,
ICML 2021, arXiv 2103.03230. Equations 1 and 2."""

import torch

from ssl_core.encoders import mlp
from ssl_core.methods.base import Method, Step, check


def cross_correlation(z1, z2, eps=1e-5):
    """C_ij = Σ_b z1_bi z2_bj / B, each column of z standardised over the batch as BatchNorm does (biased variance, eps
    under the root): equation 2 but for eps. z1, z2: (B, D), statistics in float32 or wider → (D, D)."""
    z1, z2 = (z.float() if z.dtype in (torch.float16, torch.bfloat16) else z for z in (z1, z2))
    z1, z2 = ((z - z.mean(0)) / (z.var(0, correction=0) + eps).sqrt() for z in (z1, z2))
    with torch.autocast(z1.device.type, enabled=False):
        return z1.T @ z2 / len(z1)


def barlow_loss(z1, z2, lam):
    """Distance of the cross-correlation from the identity, equation 1, the same for every image of the batch.

    L = Σ_i (1 − C_ii)² + λ Σ_i Σ_{j ≠ i} C_ij².

    z1, z2: (B, D) raw projections, standardised here → (B,).
    """
    c = cross_correlation(z1, z2)
    loss = (1 - c.diagonal()).square().sum() + lam * (c - c.diagonal().diag()).square().sum()
    return loss.expand(len(z1))


class BarlowTwins(Method):
    """lam .005 (§2.2; the authors' code has .0051) and a projector of three layers, 8192 wide, without biases, with
    BatchNorm and ReLU between them (§2.2). `projector` gives other widths."""

    def __init__(self, encoder, augment, n=0, lam=0.005, projector=(8192, 8192, 8192)):
        super().__init__(encoder, augment, n)
        check(lam=lam)
        self.lam = lam
        self.projector = mlp(encoder.width, *projector, bias=False)

    def forward(self, x1, x2):
        f1, f2 = self.encoder(x1), self.encoder(x2)  # one view at a time, each with its own BatchNorm statistics
        z1, z2 = self.projector(f1.h), self.projector(f2.h)
        return Step(barlow_loss(z1, z2, self.lam), (f1, f2), (z1, z2))
