"""LoTaR, long-tailed reweighting. A Reweighting Based Self-supervised Learning Method for Long-tailed Recognition,
master's thesis and code, 2023, github.com/andrew15818/SimCLR. The formula of w_i in its README."""

import torch
import torch.nn.functional as F

from ssl_core.methods.simclr import SimCLR

OPTIONS = {"sign": ("+", "-"), "distance": ("l2", "sq_l2"), "space": ("raw", "unit")}


def refuse_unknown(**given):
    for name, value in given.items():
        if value not in OPTIONS[name]:
            raise ValueError(f"LoTaR: {name} is {value!r}; give {' or '.join(OPTIONS[name])}")


def lotar_weights(z1, z2, sign="+", distance="l2", space="raw", detach=True):
    """The weight of each image by how far apart its two views lie, among those of the batch.

    w_i = 1 ± (d_i − mean d) / (max d − min d),   d_i = ‖z1_i − z2_i‖ ("l2") or its square ("sq_l2").

    So the mean is 1, max − min is 1 and 0 < w_i < 2; all are 1 when all distances are equal. sign "+": far pairs, taken
    for the tail's, count more. space: projections as they are ("raw") or normalised ("unit"). detach: w is a constant
    for the gradient. z1, z2: (B, D) raw projections; in float32 or wider → (B,).
    """
    refuse_unknown(sign=sign, distance=distance, space=space)
    z1, z2 = (z.float() if z.dtype in (torch.float16, torch.bfloat16) else z for z in (z1, z2))
    if space == "unit":
        z1, z2 = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
    gap = z1 - z2
    d = torch.linalg.vector_norm(gap, dim=1) if distance == "l2" else gap.square().sum(1)
    if detach:
        d = d.detach()
    spread = d.max() - d.min()
    place = torch.where(spread > 0, (d - d.mean()) / spread.where(spread > 0, 1), 0)
    return 1 + place if sign == "+" else 1 - place


class LoTaR(SimCLR):
    """w · NT-Xent, both anchors of an image with the same w. tau .2 and a projector D → 128 → 128 without BatchNorm are
    the thesis's (its training script and model).

    Formula and code disagree: the README has sign "+" of "the distance", the thesis's figure a squared one; the code
    for CIFAR takes sign "-", that for iNaturalist "+", both "l2" of raw projections and neither detached. An older
    version of the CIFAR code has "-" in front of the cosine, detached, which is "+" with "sq_l2" on "unit". Here: the
    README's sign, the distance of the code, and weights that only weigh (detach).
    """

    def __init__(self, encoder, augment, n=0, sign="+", distance="l2", space="raw", detach=True,
                 tau=0.2, tau_cosine=None, projector=(128, 128), projector_norm=False):
        super().__init__(encoder, augment, n, tau, tau_cosine, projector, projector_norm)
        refuse_unknown(sign=sign, distance=distance, space=space)
        self.sign, self.distance, self.space, self.detach = sign, distance, space, detach

    def loss(self, z1, z2):
        return lotar_weights(z1, z2, self.sign, self.distance, self.space, self.detach) * super().loss(z1, z2)
