"""TiCo. Zhu, Moraes, Karakulak, Sobol, Canziani, LeCun: TiCo: Transformation Invariance and Covariance Contrast for
Self-Supervised Visual Representation Learning, 2022, arXiv 2206.10698. Its loss and its pseudo-code."""

from copy import deepcopy

import torch
import torch.nn.functional as F

from ssl_core.encoders import mlp
from ssl_core.methods.base import Method, Step, check


def unit(z):
    """Rows of length 1, in float32 or wider."""
    return F.normalize(z.float() if z.dtype in (torch.float16, torch.bfloat16) else z, dim=1)


@torch.no_grad()
def second_moment(z1, C, beta):
    """C_t = β C_{t−1} + (1 − β) / B Σ_b z_b z_bᵀ of normalised z, not centred. z1: (B, D); C: (D, D) → (D, D)."""
    z = unit(z1)
    with torch.autocast(z.device.type, enabled=False):
        return beta * C + (1 - beta) * z.T @ z / len(z)


def tico_loss(z1, z2, C, rho):
    """Transformation invariance and covariance contrast; C and the target z2 count as constants.

    L_b = −z_b · z'_b + ρ z_bᵀ C z_b,   z and z' normalised.

    z1: (B, D) raw projections of the encoder; z2: those of the momentum encoder; C: (D, D), of this step → (B,).
    """
    z1, z2 = unit(z1), unit(z2.detach())
    with torch.autocast(z1.device.type, enabled=False):
        contrast = (z1 @ C.detach() * z1).sum(1)
    return rho * contrast - (z1 * z2).sum(1)


class TiCo(Method):
    """beta .9, rho 8, momentum .99 and a projector D → 4096 → 256 with BatchNorm and ReLU on its hidden layer: the
    paper's choices. The momentum stays as it is; with BYOL's schedule it would rise to 1 over the training.

    The memory C enters the loss with the current batch already in it, through which no gradient passes.
    """

    def __init__(self, encoder, augment, n=0, beta=0.9, rho=8.0, momentum=0.99, projector=(4096, 256)):
        super().__init__(encoder, augment, n)
        check("[]", high=1, beta=beta, momentum=momentum)
        check(rho=rho)
        self.beta, self.rho, self.momentum = beta, rho, momentum
        self.projector = mlp(encoder.width, *projector)
        self.momentum_encoder = deepcopy(encoder).requires_grad_(False)
        self.momentum_projector = deepcopy(self.projector).requires_grad_(False)
        self.register_buffer("C", torch.zeros(projector[-1], projector[-1]))

    def forward(self, x1, x2):
        f1, f2 = self.encoder(x1), self.momentum_encoder(x2)
        z1, z2 = self.projector(f1.h), self.momentum_projector(f2.h)
        C = second_moment(z1, self.C, self.beta)
        return Step(tico_loss(z1, z2, C, self.rho), (f1, f2), (z1, z2))

    @torch.no_grad()
    def update(self, step, index):
        self.C.copy_(second_moment(step.z[0], self.C, self.beta))
        for slow, fast in ((self.momentum_encoder, self.encoder), (self.momentum_projector, self.projector)):
            for s, f in zip(slow.parameters(), fast.parameters()):
                s.lerp_(f, 1 - self.momentum)
