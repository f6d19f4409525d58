"""SDCLR. Jiang, Chen, Mortazavi, Wang: Self-Damaging Contrastive Learning, ICML 2021, arXiv 2106.02990. §3.2: NT-Xent
(equation 1 of SimCLR) between a network and the same network without its smallest weights."""

import warnings
from copy import deepcopy

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd

from ssl_core.methods.base import Step, check
from ssl_core.methods.simclr import SimCLR

PRUNABLE = {"conv": (_ConvNd,), "matrices": (_ConvNd, nn.Linear)}


def magnitude_mask(weights, share):
    """Global magnitude pruning: m_i = 0 where |w_i| is one of the round(share · n) smallest, else 1.

    weights: (n,), all that can be pruned; among equal ones at the border some go, some stay → bool (n,).
    """
    # The authors prune ceil(share · n), and none at the border where some are equal.
    smallest = weights.abs().topk(round(share * len(weights)), largest=False, sorted=False).indices
    return torch.ones_like(weights, dtype=torch.bool).index_fill(0, smallest, False)


def prunable(encoder, prune):
    """{name: weight} of the layers that `prune` speaks of."""
    return {f"{place}.weight": layer.weight for place, layer in encoder.named_modules()
            if isinstance(layer, PRUNABLE[prune])}


def copy_norms(network):
    """Copies of its norm layers, under their places in it with "/" for ".", which names in a ModuleDict cannot hold.

    Known by their class name, as timm has kinds of its own, and by having no layers with weights inside.
    """
    norms = {place: layer for place, layer in network.named_modules() if "Norm" in type(layer).__name__}
    own = {place: layer.state_dict().keys() for place, layer in norms.items()}
    return nn.ModuleDict({place.replace(".", "/"): deepcopy(layer) for place, layer in norms.items()
                          if own[place] and not any("." in key for key in own[place])})


def tensors(norms):
    """{name in the network: tensor} of what `copy_norms` returned: not copies, so that they are trained and updated."""
    return {name.replace("/", "."): tensor for name, tensor in norms.state_dict(keep_vars=True).items()}


class SDCLR(SimCLR):
    """View 1 goes through the network, view 2 through its pruned competitor: weights shared, norm layers its own.

    prune_share .9 and tau .2: the authors' commands for CIFAR (on ImageNet-100 .3 and .3). prune: "conv", as published,
    takes the convolutions of the encoder; "matrices" its linear layers too, for transformers. The projector is never
    pruned. Masks are made anew from the dense weights at the start of each epoch (§3.2). What downstream work keeps is
    the dense network. Loss and gradients equal those of the three passes in the authors' code; only the competitor's
    running statistics move once a step here, and twice there.
    """

    def __init__(self, encoder, augment, n=0, prune="conv", prune_share=0.9, tau=0.2, tau_cosine=None,
                 projector=(512, 128), projector_norm=True):  # two layers, as the name of the authors' runs says and
        # as their SimCLR has; the class they run with own norms makes three, (512, 512, 128)
        super().__init__(encoder, augment, n, tau, tau_cosine, projector, projector_norm)
        if prune not in PRUNABLE:
            raise ValueError(f"prune {prune!r} is unknown; there are: {', '.join(PRUNABLE)}")
        check(high=1, prune_share=prune_share)
        total = sum(p.numel() for p in encoder.parameters())
        sizes = {kind: sum(w.numel() for w in prunable(encoder, kind).values()) for kind in PRUNABLE}
        if sizes[prune] < total / 2:
            raise ValueError(f"SDCLR needs an encoder of which half or more can be pruned; of {encoder.spec['name']} "
                             + ", ".join(f"prune {kind!r} reaches {size / total:.0%}" for kind, size in sizes.items()))
        self.prune, self.prune_share = prune, prune_share
        self.norms = nn.ModuleDict({"encoder": copy_norms(encoder), "projector": copy_norms(self.projector)})
        self.register_buffer("mask", torch.ones(sizes[prune], dtype=torch.bool))
        self.begin_epoch(0)

    @torch.no_grad()
    def begin_epoch(self, epoch):
        super().begin_epoch(epoch)
        weights = prunable(self.encoder, self.prune)
        self.mask.copy_(magnitude_mask(torch.cat([w.flatten() for w in weights.values()]), self.prune_share))
        name, first = next(iter(weights.items()))
        if not self.mask[:first.numel()].any():  # in narrow networks one threshold for all layers can do that
            warnings.warn(f"pruning takes all of {name} in epoch {epoch + 1}: the competitor sees nothing of the "
                          "images; lower prune_share, or widen the encoder", stacklevel=2)

    def masked(self):
        """{name: weight · mask} of what is pruned; the gradient of a pruned weight is 0."""
        weights = prunable(self.encoder, self.prune)
        masks = self.mask.split([w.numel() for w in weights.values()])
        return {name: w * mask.view_as(w) for (name, w), mask in zip(weights.items(), masks)}

    def forward(self, x1, x2):
        f1 = self.encoder(x1)
        f2 = functional_call(self.encoder, self.masked() | tensors(self.norms["encoder"]), x2)
        z1 = self.projector(f1.h)
        z2 = functional_call(self.projector, tensors(self.norms["projector"]), f2.h)
        return Step(self.loss(z1, z2), (f1, f2), (z1, z2))
