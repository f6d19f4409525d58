"""VICReg. Bardes, Ponce, LeCun: VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning,
ICLR 2022, arXiv 2105.04906. Equations 1 to 6."""

import torch

from ssl_core.encoders import mlp
from ssl_core.methods.base import Method, Step, check


def variance(z, eps=1e-4):
    """v(Z) = 1/D Σ_j max(0, 1 − √(Var(z_j) + ε)), unbiased variance over the batch, equations 1 and 2. (B, D) → ()."""
    return torch.relu(1 - (z.var(0) + eps).sqrt()).mean()


def covariance(z):
    """c(Z) = 1/D Σ_{i ≠ j} C_ij²,  C = Σ_b (z_b − z̄)(z_b − z̄)ᵀ / (B − 1), equations 3 and 4. (B, D) → ()."""
    z = z - z.mean(0)
    with torch.autocast(z.device.type, enabled=False):
        c = z.T @ z / (len(z) - 1)
    return (c - c.diagonal().diag()).square().sum() / z.shape[1]


def vicreg_loss(z1, z2, lam, mu, nu, halve=True, eps=1e-4):
    """Invariance of each image, with variance and covariance of the batch added to every entry, equation 6.

    L = λ s(Z, Z') + μ (v(Z) + v(Z')) / 2 + ν (c(Z) + c(Z')),   s_b = 1/D ‖z_b − z'_b‖².

    z1, z2: (B, D) raw projections, never normalised; statistics in float32 or wider; halve: the / 2 → (B,).
    """
    z1, z2 = (z.float() if z.dtype in (torch.float16, torch.bfloat16) else z for z in (z1, z2))
    s = (z1 - z2).square().mean(1)  # the mean over D of Algorithm 1 and the authors' code; equation 5 has the sum
    v = variance(z1, eps) + variance(z2, eps)
    if halve:  # as the authors' code; equation 6 and Algorithm 1 do not
        v = v / 2
    return lam * s + mu * v + nu * (covariance(z1) + covariance(z2))


class VICReg(Method):
    """lam 25, mu 25, nu 1 and a projector ("expander") of three layers, 8192 wide, BatchNorm and ReLU between them
    (§4.2). Its last layer has no bias in the authors' code; the loss cannot see one. `projector` gives other widths.
    """

    def __init__(self, encoder, augment, n=0, lam=25.0, mu=25.0, nu=1.0, halve=True, projector=(8192, 8192, 8192)):
        super().__init__(encoder, augment, n)
        check(lam=lam, mu=mu, nu=nu)
        self.lam, self.mu, self.nu, self.halve = lam, mu, nu, halve
        self.projector = mlp(encoder.width, *projector)

    def forward(self, x1, x2):
        f1, f2 = self.encoder(x1), self.encoder(x2)  # one view at a time, each with its own BatchNorm statistics
        z1, z2 = self.projector(f1.h), self.projector(f2.h)
        return Step(vicreg_loss(z1, z2, self.lam, self.mu, self.nu, self.halve), (f1, f2), (z1, z2))
