"""What a method of self-supervised learning must be able to do: four verbs and one value."""

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Step:
    """loss: (B,), one number per image; feats: one Features per view; z: the embeddings per view, each (B, D)."""

    loss: torch.Tensor
    feats: tuple = ()
    z: tuple = ()


def check(ends="[)", low=0, high=math.inf, **given):
    """ValueError, one line, for a given value that is no number from `low` to `high`; `ends` says by bracket whether
    they themselves will do, as intervals are written."""
    for name, value in given.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (number and (low < value < high or (value, ends[0]) == (low, "[") or (value, ends[1]) == (high, "]"))):
            above, below = ("from" if ends[0] == "[" else "above"), ("to" if ends[1] == "]" else "and below")
            limits = f"{above} {low}" + ("" if high == math.inf else f" {below} {high}")
            raise ValueError(f"{name} is {value!r}; give a number {limits}")


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


class Contrastive(Method):
    """A method with a temperature: `tau`, or, with `tau_cosine` = (low, high, period in epochs), one that goes from
    high to low and back in each period: Kukleva et al., Temperature Schedules for Self-Supervised Contrastive Methods
    on Long-Tail Data, ICLR 2023, arXiv 2303.13664.

    Theirs for CIFAR-LT and ImageNet-100-LT is (0.1, 1.0, 400): their code has cos(π epoch / t_max) with t_max 200, half
    a period. It counts epochs from 1; here the first is 0 and has exactly `high`.
    """

    def __init__(self, encoder, augment, n, tau, tau_cosine=None):
        super().__init__(encoder, augment, n)
        if tau_cosine is not None and not (isinstance(tau_cosine, (list, tuple)) and len(tau_cosine) == 3
                                           and 0 < tau_cosine[0] <= tau_cosine[1] and tau_cosine[2] > 0):
            raise ValueError(f"tau_cosine is {tau_cosine}; give [low, high, period in epochs] with 0 < low ≤ high")
        check("()", tau=tau)
        self.tau_cosine = tau_cosine
        if tau_cosine is None:
            self.tau = tau
        else:
            self.register_buffer("tau", torch.tensor(cosine_tau(0, *tau_cosine)))

    def begin_epoch(self, epoch):
        if self.tau_cosine is not None:
            self.tau.fill_(cosine_tau(epoch, *self.tau_cosine))


def cosine_tau(epoch, low, high, period):
    """low + (high − low) (1 + cos(2π epoch / period)) / 2."""
    return low + (high - low) * (1 + math.cos(2 * math.pi * epoch / period)) / 2


class Wrapper(Method):
    """An add-on around a method, `base`: passes every verb on, so that a subclass writes only what it changes."""

    def __init__(self, base):
        nn.Module.__init__(self)
        self.base, self.n = base, base.n

    @property
    def encoder(self):
        return self.base.encoder

    @property
    def augment(self):
        return self.base.augment

    def views(self, images, index, generator=None):
        return self.base.views(images, index, generator)

    def forward(self, *views) -> Step:
        return self.base(*views)

    def update(self, step, index):
        self.base.update(step, index)

    def begin_epoch(self, epoch):
        self.base.begin_epoch(epoch)


def encode_pair(encoder, x1, x2):
    """Features of two views from one pass, as BatchNorm statistics over both views want it (SimCLR, §2.2)."""
    both = encoder(torch.cat([x1, x2]))
    halves = [type(both)(h, tuple(maps)) for h, *maps in zip(both.h.chunk(2), *(m.chunk(2) for m in both.maps))]
    return halves[0], halves[1]
