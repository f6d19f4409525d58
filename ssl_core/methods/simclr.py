"""SimCLR. Chen, Kornblith, Norouzi, Hinton: A Simple Framework for Contrastive Learning of Visual Representations,
ICML 2020, arXiv 2002.05709. Equation 1 (NT-Xent) and §2.1."""

import torch
import torch.nn.functional as F

from ssl_core.encoders import mlp
from ssl_core.methods.base import Contrastive, Step, encode_pair


def nt_xent(z1, z2, tau):
    """Normalised temperature-scaled cross entropy, equation 1, mean of the two anchors of an image.

    l(i, j) = −log  exp(sim(z_i, z_j) / τ) / Σ_{k ≠ i} exp(sim(z_i, z_k) / τ),   k over all 2B embeddings.

    z1, z2: (B, D) raw projections, normalised here; logits in float32 or wider → (B,).
    """
    z = torch.cat([z1, z2])
    z = F.normalize(z.float() if z.dtype in (torch.float16, torch.bfloat16) else z, dim=1)
    n = len(z1)
    with torch.autocast(z.device.type, enabled=False):
        logits = z @ z.T / tau
    logits = logits.masked_fill(torch.eye(2 * n, dtype=torch.bool, device=z.device), -torch.inf)
    positive = torch.arange(2 * n, device=z.device).roll(n)
    return F.cross_entropy(logits, positive, reduction="none").view(2, n).mean(0)


class SimCLR(Contrastive):
    """tau .5 and a two-layer projector with BatchNorm: the paper's choice for CIFAR-10 (§B.9); its projector is
    D → D → 128. `projector` gives other widths after the encoder's; `projector_norm` is BatchNorm after each layer
    (True), after all but the last ("hidden") or after none (False). A subclass writes another `loss`."""

    def __init__(self, encoder, augment, n=0, tau=0.5, tau_cosine=None, projector=(512, 128), projector_norm=True):
        super().__init__(encoder, augment, n, tau, tau_cosine)
        if projector_norm not in (True, False, "hidden"):
            raise ValueError(f"projector_norm is {projector_norm!r}; give true, false or hidden")
        self.projector = mlp(encoder.width, *projector, norm=bool(projector_norm), last_norm=projector_norm is True)

    def forward(self, x1, x2):
        f1, f2 = encode_pair(self.encoder, x1, x2)
        z1, z2 = self.projector(torch.cat([f1.h, f2.h])).chunk(2)
        return Step(self.loss(z1, z2), (f1, f2), (z1, z2))

    def loss(self, z1, z2):
        return nt_xent(z1, z2, self.tau)
