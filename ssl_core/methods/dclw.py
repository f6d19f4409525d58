"""DCL and DCLW. Yeh, Hong, Hsu, Liu, Chen, LeCun: Decoupled Contrastive Learning, ECCV 2022, arXiv 2110.06848.
Equation 6 (DCL) and §3, its weighted form (DCLW)."""

import torch
import torch.nn.functional as F

from ssl_core.methods.base import check
from ssl_core.methods.simclr import SimCLR


def dclw_loss(z1, z2, tau, sigma, symmetric=True, detach=True):
    """NT-Xent without the positive in the denominator; far pairs pull more. Mean of the two anchors k of image i:

    L_i^k = −w_i ⟨z_i^1, z_i^2⟩ / τ + log Σ_{l ∈ {1, 2}, j ≠ i} exp(⟨z_i^k, z_j^l⟩ / τ),
    w_i = 2 − exp(⟨z_i^1, z_i^2⟩ / σ) / mean_j exp(⟨z_j^1, z_j^2⟩ / σ);   DCL, with sigma None: w_i = 1.

    symmetric False: view 1 is the only anchor. detach: w is a constant for the gradient. z1, z2: (B, D) raw
    projections, normalised here, B ≥ 2; logits in float32 or wider → (B,).
    """
    n = len(z1)
    if n < 2:
        raise ValueError("dclw_loss got a batch of 1; it needs 2 images or more, as negatives are other images")
    z1, z2 = (F.normalize(z.float() if z.dtype in (torch.float16, torch.bfloat16) else z, dim=1) for z in (z1, z2))
    anchors = torch.cat([z1, z2]) if symmetric else z1
    with torch.autocast(z1.device.type, enabled=False):
        logits = anchors @ torch.cat([z1, z2]).T / tau
    own = torch.eye(n, dtype=torch.bool, device=z1.device).repeat(len(anchors) // n, 2)  # i itself and its positive
    away = logits.masked_fill(own, -torch.inf).logsumexp(1).view(-1, n)
    similarity = (z1 * z2).sum(1)
    # the paper does not say whether w is a constant; the public code lets the gradient through it
    w = 1 if sigma is None else 2 - n * F.softmax((similarity.detach() if detach else similarity) / sigma, dim=0)
    return (away - w * similarity / tau).mean(0)


class DCL(SimCLR):
    """tau .1: the public code's default (raminnakhli/Decoupled-Contrastive-Learning, run_simclr.sh). The paper sums
    the two anchors, here is their mean, as for the other losses: half its gradient. The projector is SimCLR's."""

    sigma, detach = None, True

    def __init__(self, encoder, augment, n=0, symmetric=True,
                 tau=0.1, tau_cosine=None, projector=(512, 128), projector_norm=True):
        super().__init__(encoder, augment, n, tau, tau_cosine, projector, projector_norm)
        self.symmetric = symmetric

    def loss(self, z1, z2):
        return dclw_loss(z1, z2, self.tau, self.sigma, self.symmetric, self.detach)


class DCLW(DCL):
    """sigma .5: the public code's default, with DCL's tau .1."""

    def __init__(self, encoder, augment, n=0, sigma=0.5, symmetric=True, detach=True,
                 tau=0.1, tau_cosine=None, projector=(512, 128), projector_norm=True):
        super().__init__(encoder, augment, n, symmetric, tau, tau_cosine, projector, projector_norm)
        check("()", sigma=sigma)  # without weights it is method dcl
        self.sigma, self.detach = sigma, detach
