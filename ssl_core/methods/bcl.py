"""Boosted contrastive learning. Zhou, Yao, Wang, Han, Zhang: Contrastive Learning with Boosted Memorization, ICML 2022,
arXiv 2205.12693. §3: momentum loss and memorisation-boosted augmentation; an add-on to any method of two views."""

import torch

from ssl_core.methods.base import Wrapper
from ssl_core.randaugment import rand_augment


def momentum_loss(memory, loss, beta, inverted=False):
    """What is remembered of an image's loss: M ← β M + (1 − β) l, element by element.

    inverted: M ← 1 − β l + β M, from a misplaced parenthesis in the code of the LoTaR thesis: M falls as l rises.
    """
    return beta * memory + ((1 - beta * loss) if inverted else (1 - beta) * loss)


def strengths(memory, seen):
    """How strongly each image is augmented, 1 for the one farthest from the mean if it is above, 0 if it is below.

    m_i = ((M_i − M̄) / max_j |M_j − M̄| + 1) / 2,   over the images seen so far; 0 for the others.

    memory: (n,); seen: (n,) bool → (n,) in [0, 1]. Where all are equal, 1/2. The authors' code divides by the standard
    deviation first, which cancels.
    """
    above = torch.where(seen, memory - torch.where(seen, memory, torch.inf).min(), 0)  # exactly 0 where all are equal
    deviation = torch.where(seen, above - above.sum() / seen.sum().clamp_min(1), 0)
    farthest = deviation.abs().max().clamp_min(torch.finfo(memory.dtype).tiny)
    return torch.where(seen, (deviation / farthest + 1) / 2, 0)


class BCL(Wrapper):
    """The base's views, then RandAugment, stronger for images whose loss has stayed high: k operations, each applied
    with probability m at level + (30 − level) m of 30. The first epoch has none. Both views share an image's strength.

    The defaults are BCL-I's, to be put around SimCLR (authors' code; its first version had level 0 and `vary`). BCL-D,
    around SDCLR, has k 2, level 5 and `vary`: level + (30 − level) m u, where u is uniform in [0, 1) and the same for
    both views. inverted: see `momentum_loss`.

    An image that an epoch leaves out keeps its memory; one never seen has strength 0 and enters no mean.
    """

    def __init__(self, base, beta=0.97, k=1, level=10, vary=False, inverted=False):
        super().__init__(base)
        if self.n < 1:
            raise ValueError("bcl remembers the loss of each image; give build their number, n")
        if not (0 <= beta < 1 and k >= 1 and 0 <= level <= 30):
            raise ValueError(f"bcl: beta {beta}, k {k}, level {level}; give 0 <= beta < 1, k >= 1 and a level to 30")
        self.beta, self.k, self.level, self.vary, self.inverted = beta, k, level, vary, inverted
        self.register_buffer("memory", torch.zeros(self.n))
        self.register_buffer("seen", torch.zeros(self.n, dtype=torch.bool))
        self.register_buffer("strength", torch.zeros(self.n))
        self.refuse_other_views()

    def refuse_other_views(self):
        """Take the views of one blank image, so that an unfit base fails at once."""
        device, size = self.encoder.mean.device, self.encoder.spec["size"]
        image = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)
        views = self.base.views(image, torch.zeros(1, dtype=torch.long, device=device), torch.Generator(device))
        if [tuple(view.shape) for view in views] != [(1, 3, size, size)] * 2:
            raise ValueError(f"bcl: {type(self.base).__name__} does not see two views of an image; "
                             "wrap a method that compares two, as simclr or moco")

    def views(self, images, index, generator=None):
        x1, x2 = self.base.views(images, index, generator)
        m = self.strength[index]
        more = (30 - self.level) * m
        if self.vary:
            source = m.device if generator is None else generator.device
            more = more * torch.rand(len(m), generator=generator, device=source).to(m.device)
        return tuple(rand_augment(x, self.k, m, self.level + more, generator) for x in (x1, x2))

    @torch.no_grad()
    def update(self, step, index):
        super().update(step, index)
        loss, memory = step.loss.detach().to(self.memory.dtype), self.memory[index]
        new = momentum_loss(memory, loss, self.beta, self.inverted)
        self.memory[index] = torch.where(self.seen[index], new, loss)
        self.seen.index_fill_(0, index, True)

    def begin_epoch(self, epoch):
        super().begin_epoch(epoch)
        self.strength.copy_(strengths(self.memory, self.seen))
