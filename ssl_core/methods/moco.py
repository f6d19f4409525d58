"""MoCo. He, Fan, Wu, Xie, Girshick: Momentum Contrast for Unsupervised Visual Representation Learning, CVPR 2020,
arXiv 1911.05722. Equations 1 (InfoNCE) and 2 (momentum), §3.
MoCo v2. Chen, Fan, Girshick, He: Improved Baselines with Momentum Contrastive Learning, arXiv 2003.04297."""

import copy
import warnings

import torch
import torch.nn.functional as F

from ssl_core.encoders import mlp
from ssl_core.methods.base import Contrastive, Step, check


def moco_loss(q, k, queue, tau):
    """InfoNCE, equation 1: of one positive key and all keys of the queue, which is the positive?

    L = −log  exp(q·k₊ / τ) / ( exp(q·k₊ / τ) + Σ_{i = 1..K} exp(q·kᵢ / τ) )

    q, k: (B, D) raw projections, normalised here, k without gradient; queue: (K, D), rows of length 1; logits in
    float32 or wider → (B,).
    """
    q, k = (F.normalize(z.float() if z.dtype in (torch.float16, torch.bfloat16) else z, dim=1)
            for z in (q, k.detach()))
    with torch.autocast(q.device.type, enabled=False):
        positive, negative = (q * k).sum(1, keepdim=True), q @ queue.to(q.dtype).T
    logits = torch.cat([positive, negative], 1) / tau
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device), reduction="none")


def own_key_share(queue, n):
    """Of n images seen in shuffled epochs, the share that finds an older key of its own image among its negatives: the
    chance that two neighbouring views of an image, r · n images apart, have r < queue / n."""
    r = min(queue / n, 2)
    return r**2 / 2 if r < 1 else 1 - (2 - r)**2 / 2


class MoCo(Contrastive):
    """Queue of 65,536 keys, momentum .999, tau .07 and a linear layer to 128: the paper's values for ImageNet (§3.3,
    §4). v2 is head="mlp" (D → D → 128, ReLU, no BatchNorm) with tau .2.

    The key encoder follows the mode of the method: in training its BatchNorm uses the batch's statistics and keeps
    running ones of its own, as only parameters take part in the momentum update. Shuffling BN (§3.3) deals samples out
    to other devices, so that on one, as here, it does nothing: query and key batches hold the same images.

    A queue longer than a quarter of the images is warned of: up to there 3 % of them find an older key of their own
    image among the negatives, at queue = n it is half, from 2n on all.
    """

    def __init__(self, encoder, augment, n=0, tau=0.07, tau_cosine=None, queue=65536, momentum=0.999, head="linear",
                 dim=128):
        super().__init__(encoder, augment, n, tau, tau_cosine)
        check("[]", high=1, momentum=momentum)
        if head not in ("linear", "mlp"):
            raise ValueError(f'moco: head {head!r} is unknown; give "linear" (v1) or "mlp" (v2)')
        if queue < 1:
            raise ValueError(f"moco: a queue of {queue} keys holds no negative; give queue 1 or more")
        if 0 < n < 4 * queue:
            share = own_key_share(queue, n)
            warnings.warn(f"moco: of {n} images, {share:.0%} find an older key of their own image in a queue of {queue}"
                          f" and are pushed from it; give queue {max(1, n // 4)} or less", stacklevel=2)
        self.momentum = momentum
        self.head = mlp(*[encoder.width] * (2 if head == "mlp" else 1), dim, norm=False)
        self.key_encoder, self.key_head = (copy.deepcopy(part).requires_grad_(False) for part in (encoder, self.head))
        self.register_buffer("queue", F.normalize(torch.randn(queue, dim), dim=1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))  # the row that the next key replaces

    def forward(self, x1, x2):
        f1 = self.encoder(x1)
        q = self.head(f1.h)
        with torch.no_grad():
            f2 = self.key_encoder(x2)
            k = self.key_head(f2.h)
        return Step(moco_loss(q, k, self.queue, self.tau), (f1, f2), (q, k))

    @torch.no_grad()
    def update(self, step, index):
        """Equation 2, then the batch's keys take the place of the oldest. The authors' code does equation 2 at the
        start of the next step, which is the same: nothing lies between."""
        for key, query in ((self.key_encoder, self.encoder), (self.key_head, self.head)):
            for k, q in zip(key.parameters(), query.parameters()):
                k.lerp_(q, 1 - self.momentum)
        keys = F.normalize(step.z[1].to(self.queue.dtype), dim=1)[-len(self.queue):]
        rows = (self.oldest + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[rows] = keys
        self.oldest.add_(len(keys)).remainder_(len(self.queue))
