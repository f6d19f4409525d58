"""Random views of a batch: one draw per image, on the images' device, without a host synchronisation.

    view = Augment("simclr", 96)(images, generator)      # (B, C, H, W) uint8 -> (B, 3, 96, 96) float in [0, 1]

The distributions are torchvision's (RandomResizedCrop, ColorJitter, RandomGrayscale, GaussianBlur, ...), whose
batched form draws once for the whole batch; here every random number is a (B,) tensor. All of them are drawn first,
then applied chunk by chunk: on a CPU a chunk stays in the cache, and images are sorted by what happens to them, so
that a chunk can leave out the operations that none of its images drew.
"""

import math

import torch

from ssl_core import augment_ops as ops
from ssl_core.augment_ops import HUE, SATURATION

# What a recipe may say, each key at the value that does nothing.
OFF = {
    "scale": None,              # area of the crop over area of the image (low, high); None: the whole image
    "ratio": (3 / 4, 4 / 3),    # width over height of the crop, log-uniform
    "flip": 0.0,                # probability of a left-right flip
    "vflip": 0.0,               # probability of a top-bottom flip
    "rotate90": 0.0,            # probability of a uniform quarter turn (0, 90, 180 or 270 degrees)
    "jitter": (0, 0, 0, 0),     # half-widths of brightness, contrast, saturation, hue; order drawn per image
    "jitter_p": 0.0,
    "gray_p": 0.0,
    "blur_p": 0.0,
    "blur_sigma": (0.1, 2.0),   # pixels, uniform
    "blur_kernel": 0.1,         # width of the kernel over the size of the view, made odd
    "solarize_p": 0.0,          # probability of inverting what is at or above 128
    "rotate": 0.0,              # degrees, uniform in +-rotate; corners become black
}

_SIMCLR = {"scale": (0.08, 1.0), "flip": 0.5, "jitter": (0.8, 0.8, 0.8, 0.2), "jitter_p": 0.8, "gray_p": 0.2,
           "blur_p": 0.5}
_MOCO = {"jitter": (0.4, 0.4, 0.4, 0.1), "jitter_p": 0.8, "gray_p": 0.2, "blur_p": 0.5, "blur_kernel": 1.0}
_SMALL = {"scale": (0.08, 1.0), "flip": 0.5, "jitter": (0.4, 0.4, 0.2, 0.1), "jitter_p": 1.0, "gray_p": 0.2,
          "blur_p": 0.5, "solarize_p": 0.1}

RECIPES = {
    "none": {},                                                     # evaluation: resize only
    "weak": {"flip": 0.5},                                          # (a) its MAE: flip, no crop
    "mae": {"scale": (0.2, 1.0), "flip": 0.5},                      # He et al. 2022, section 4
    "simclr": _SIMCLR,                                              # Chen et al. 2020, appendix A, strength 1
    "simclr_small": {**_SIMCLR, "jitter": (0.4, 0.4, 0.4, 0.1), "blur_p": 0.0},   # 32 px: strength 0.5, no blur
    # Tissue and cells have no up; stain colour carries the diagnosis, so hue moves little and nothing turns grey.
    "medical": {"scale": (0.2, 1.0), "flip": 0.5, "vflip": 0.5, "rotate90": 1.0, "jitter": (0.3, 0.3, 0.2, 0.04),
                "jitter_p": 0.8, "blur_p": 0.2},
    # The five systems that this package re-implements, as their code has it.
    "a": {**_SIMCLR, "blur_p": 1.0},                                # cervical tiles; lower crop bound not published
    "b": {**_SIMCLR, "blur_p": 0.0},                                # breast histopathology
    "c": {**_SIMCLR, "jitter": (0.4, 0.4, 0.4, 0.1), "blur_p": 0.0},   # CIFAR-LT thesis
    "d_chest": {**_MOCO, "rotate": 30.0},                           # ChestX-ray14: no crop, no flip
    "d_breast": {**_MOCO, "scale": (0.4, 1.0), "flip": 0.5},        # breast histopathology patches
    "d_retina": {**_MOCO, "rotate": 30.0, "flip": 0.5},             # diabetic retinopathy
    "e": _SMALL,                                                    # small medical sets, crop bound corrected
    "e_published": {**_SMALL, "scale": (0.08, 0.1)},                # as published: views share under 10 % of the image
}

CHUNK = 2**18   # values worked on at a time on a CPU: 1 MB of float32, half a usual second-level cache


class Augment:
    """A recipe at a size. recipe: a name in RECIPES, or a dict with keys of OFF. size: side of the view in pixels."""

    def __init__(self, recipe, size):
        if isinstance(recipe, str) and recipe not in RECIPES:
            raise ValueError(f"recipe {recipe!r} is unknown: choose one of {', '.join(RECIPES)}")
        given = RECIPES[recipe] if isinstance(recipe, str) else recipe
        for key in given:
            if key not in OFF:
                raise ValueError(f"recipe key {key!r} is unknown: a recipe may say {', '.join(OFF)}")
        self.name = recipe if isinstance(recipe, str) else "custom"
        self.recipe = {**OFF, **given}
        self.size = int(size)

    def __repr__(self):
        said = ", ".join(f"{key}={value}" for key, value in self.recipe.items() if value != OFF[key])
        return f"Augment({self.name}, {self.size} px: {said or 'resize only'})"

    def dropped(self, channels):
        """Names of the recipe's operations that cannot act on images with that many channels."""
        jitter, p = self.recipe["jitter"], self.recipe["jitter_p"]
        acts = {"saturation": jitter[SATURATION] * p, "hue": jitter[HUE] * p, "grayscale": self.recipe["gray_p"]}
        return tuple(name for name, amount in acts.items() if channels == 1 and amount)

    @torch.no_grad()
    def __call__(self, images, generator=None, strength=None):
        """images: (B, C, H, W) uint8, C 1 or 3. Returns (B, 3, size, size) float32 in [0, 1].

        generator: source of all random numbers, on any device. strength: (B,) in [0, 1], how far an image goes
        from no change (0) to the recipe (1): magnitudes and the probabilities of all-or-nothing operations shrink.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"Augment takes uint8 images (B, 1 or 3, H, W) as stored, got {images.dtype} "
                             f"{tuple(images.shape)}: pass them before any scaling or normalising")
        n, channels, height, width = images.shape
        draw = self.draw(n, height, width, generator, strength, images.device)
        if images.device.type != "cpu":
            return self.apply(images, draw).expand(-1, 3, -1, -1).contiguous()
        views = torch.empty(n, 3, self.size, self.size)
        order = draw["hue_at"].argsort(stable=True)
        draw = {name: value.index_select(0, order) for name, value in draw.items()}
        step = max(1, CHUNK // (channels * max(height * width, self.size**2)))
        for start in range(0, n, step):
            rows = slice(start, start + step)
            images_ = images.index_select(0, order[rows])
            views[order[rows]] = self.apply(images_, {name: value[rows] for name, value in draw.items()})
        return views

    def draw(self, n, height, width, generator=None, strength=None, device="cpu"):
        """Everything random about n views, as a dict of (n, ...) tensors. The same numbers for every recipe."""
        r = self.recipe
        source = generator.device if generator is not None else device
        u = torch.rand(n, 40, generator=generator, device=source).to(device, non_blocking=True)
        area, aspect, corner, amount, order, single = u.split((10, 10, 2, 4, 4, 10), 1)
        flip, vflip, turn, quarter, jitter, gray_, blur, sigma, solarize, angle = single.unbind(1)
        s = torch.ones(n, device=u.device)
        if strength is not None:
            if tuple(strength.shape) != (n,):
                raise ValueError(f"strength needs one number per image, ({n},), got {tuple(strength.shape)}")
            s = strength.to(u.device, torch.float32, non_blocking=True)

        spread = [value * s for value in r["jitter"]]
        factors = [torch.lerp((1 - spread[k]).clamp_min(0), 1 + spread[k], amount[:, k]) for k in range(HUE)]
        factors = torch.stack((*factors, torch.ones_like(s)), 1)
        rounds = order.argsort(1)
        jittered = jitter < r["jitter_p"]
        hue_at = torch.where(jittered, (rounds == HUE).int().argmax(1), -1)
        matrix, offset = ops.jitter_matrices(rounds, factors, hue_at)
        turns = torch.where(turn < r["rotate90"] * s, (4 * quarter).floor(), 0)
        blurred = blur < r["blur_p"]
        sigma_low, sigma_high = r["blur_sigma"]
        return {
            "box": crop_boxes(area, aspect, corner, s, height, width, r["scale"], r["ratio"]),
            # a quarter turn is a flip, then a transposition
            "flip": (flip < r["flip"] * s) ^ (turns == 1) ^ (turns == 2),
            "vflip": (vflip < r["vflip"] * s) ^ (turns >= 2),
            "transpose": turns % 2 == 1,
            "rounds": rounds,
            "factors": factors,
            "hue": torch.where(jittered, spread[HUE] * (2 * amount[:, HUE] - 1), 0),
            "hue_at": hue_at,
            "matrix": matrix,
            "offset": offset,
            "gray": gray_ < r["gray_p"] * s,
            "blur": blurred,
            "sigma": torch.where(blurred, (sigma_low + (sigma_high - sigma_low) * sigma) * s, 0),
            "solarize": solarize < r["solarize_p"] * s,
            "angle": (2 * angle - 1) * r["rotate"] * s,
        }

    def apply(self, images, draw):
        """The recipe with given draws. images: (n, C, H, W) uint8. Returns (n, C, size, size) float32 in [0, 1]."""
        r, size = self.recipe, self.size
        x = images.float().mul_(1 / 255)
        if r["scale"] is not None or r["flip"] or r["vflip"] or r["rotate90"] or x.shape[2:] != (size, size):
            x = ops.crop_resize(x, draw["box"], draw["flip"], draw["vflip"], size)
        if r["rotate90"]:
            x = ops.on_drawn(draw["transpose"], x, lambda x, rows: x.mT)
        if r["jitter_p"] and any(r["jitter"]):
            x = ops.color_jitter(x, draw["matrix"], draw["offset"], draw["hue_at"], draw["hue"])
        if r["gray_p"] and x.shape[1] == 3:
            x = ops.on_drawn(draw["gray"], x, lambda x, rows: ops.gray(x).repeat(1, 3, 1, 1))
        if r["blur_p"]:
            # SimCLR's kernel; beyond 4 sigma its taps are under 1e-4
            radius = min(max(1, int(r["blur_kernel"] * size) // 2), math.ceil(4 * r["blur_sigma"][1]), size - 1)
            x = ops.on_drawn(draw["blur"], x, lambda x, rows: ops.gaussian_blur(x, draw["sigma"][rows], radius))
        if r["solarize_p"]:
            x = ops.on_drawn(draw["solarize"], x, lambda x, rows: ops.solarize(x))
        if r["rotate"]:
            x = ops.rotate(x, draw["angle"])
        return x.clamp_(0, 1)   # sums of weights round


def crop_boxes(area, aspect, corner, s, height, width, scale, ratio):
    """(n, 4) of top, left, height, width, in whole pixels, as torchvision's RandomResizedCrop draws them.

    Ten tries of area and aspect; the first that fits counts; if none does, the largest central crop whose aspect
    ratio is allowed. area, aspect: (n, 10), corner: (n, 2), uniform in [0, 1); s: (n,) strength.
    """
    if scale is None:
        return torch.stack([torch.full_like(s, value) for value in (0, 0, height, width)], 1)
    s = s[:, None]
    area = (1 - s * (1 - scale[0] - (scale[1] - scale[0]) * area)) * (height * width)
    aspect = (s * (math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * aspect)).exp()
    h, w = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fits = (h > 0) & (h <= height) & (w > 0) & (w <= width)
    first, found = fits.int().argmax(1, keepdim=True), fits.any(1)
    central = min(max(width / height, ratio[0]), ratio[1])
    h = torch.where(found, h.gather(1, first)[:, 0], min(height, round(width / central)))
    w = torch.where(found, w.gather(1, first)[:, 0], min(width, round(height * central)))
    room = torch.stack((height - h, width - w), 1)
    # corner * (room + 1) can round up to room + 1 in float32, hence the minimum
    start = torch.where(found[:, None], torch.minimum((corner * (room + 1)).floor(), room), (room / 2).floor())
    return torch.stack((start[:, 0], start[:, 1], h, w), 1)
