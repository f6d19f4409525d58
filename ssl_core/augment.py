"""Random views of a batch: one draw per image, on the images' device, without a host synchronisation.

    view = Augment("simclr", 96)(images, generator)      # (B, C, H, W) uint8 -> (B, 3, 96, 96) float in [0, 1]

The distributions are torchvision's (RandomResizedCrop, ColorJitter, RandomGrayscale, GaussianBlur, ...), whose
batched form draws once for the whole batch; here every random number is a (B,) tensor. All of them are drawn first,
then applied chunk by chunk: on a CPU a chunk stays in the cache, and images are sorted by what happens to them, so
that a chunk can leave out what none of its images drew. Resizing is bilinear (the code of SimCLR and MAE: bicubic).
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
_CIFAR = {**_SIMCLR, "jitter": (0.4, 0.4, 0.4, 0.1), "blur_p": 0.0}
_MOCO = {"jitter": (0.4, 0.4, 0.4, 0.1), "jitter_p": 0.8, "gray_p": 0.2, "blur_p": 0.5, "blur_kernel": 1.0}
_SMALL = {"scale": (0.08, 1.0), "flip": 0.5, "jitter": (0.4, 0.4, 0.2, 0.1), "jitter_p": 1.0, "gray_p": 0.2,
          "blur_p": 0.5, "solarize_p": 0.1}

RECIPES = {
    "none": {},                                                # evaluation: resize only
    "weak": {"flip": 0.5},                                     # (a) for its MAE: flip, no crop
    "mae": {"scale": (0.2, 1.0), "flip": 0.5},                 # He et al. 2022, section 4
    "simclr": _SIMCLR,                                         # Chen et al. 2020, appendix A, colour strength 1
    "simclr_small": _CIFAR,                                    # the same for 32 px: colour strength 0.5, no blur
    # Tissue and cells have no up; stain colour carries the diagnosis, so hue moves little and nothing turns grey.
    "medical": {"scale": (0.2, 1.0), "flip": 0.5, "vflip": 0.5, "rotate90": 1.0, "jitter": (0.3, 0.3, 0.2, 0.04),
                "jitter_p": 0.8, "blur_p": 0.2},
    # RotNet, as the code of Gidaris et al. 2018 crops ImageNet; and with the jitter of (b)'s SimCLR.
    "rotnet": {"scale": (0.08, 1.0), "flip": 0.5},
    "rotnet_jitter": {"scale": (0.08, 1.0), "flip": 0.5, "jitter": (0.8, 0.8, 0.8, 0.2), "jitter_p": 0.8},
    # As the code of the papers has it, where that is none of the above.
    "moco_v1": {"scale": (0.2, 1.0), "flip": 0.5, "jitter": (0.4, 0.4, 0.4, 0.4), "jitter_p": 1.0, "gray_p": 0.2},
    "moco_v2": {**_MOCO, "scale": (0.2, 1.0), "flip": 0.5},    # SimSiam's, too
    "vicreg": {**_SMALL, "jitter_p": 0.8},                     # BYOL's two kinds of view made one
    "sdclr": {**_CIFAR, "scale": (0.1, 1.0)},                  # SDCLR and BCL on CIFAR-LT
    # The five systems that this package re-implements, as their code has it.
    "a": {**_SIMCLR, "blur_p": 1.0},                           # cervical tiles, SimCLR; its crop bound is not published
    "b": {**_SIMCLR, "blur_p": 0.0},                           # breast histopathology
    "c": _CIFAR,                                               # CIFAR-LT thesis
    "d_chest": {**_MOCO, "rotate": 30.0},                      # ChestX-ray14: no crop, no flip
    "d_breast": {**_MOCO, "scale": (0.4, 1.0), "flip": 0.5},   # breast histopathology patches
    "d_retina": {**_MOCO, "rotate": 30.0, "flip": 0.5},        # diabetic retinopathy
    "d_retina_labels": {"jitter": (0, 0.4, 0, 0.1), "jitter_p": 0.8, "flip": 0.5, "vflip": 0.5},  # its fine-tuning
    "e": _SMALL,                                               # small medical sets, upper crop bound corrected
    "e_published": {**_SMALL, "scale": (0.08, 0.1)},           # as published: a view shows under a tenth of the image
}

EVENTS = ("flip", "vflip", "rotate90", "jitter_p", "gray_p", "blur_p", "solarize_p")
CHUNK = 2**18   # values that a CPU's thread works on at a time: 1 MB of float32, half a usual second-level cache


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
        # Half the width of the blur's kernel; beyond 4 sigma its taps would be under 1e-4.
        widest = math.ceil(4 * self.recipe["blur_sigma"][1])
        self.radius = min(max(1, int(self.recipe["blur_kernel"] * self.size) // 2), widest, self.size - 1)

    def __repr__(self):
        said = ", ".join(f"{key}={value}" for key, value in self.recipe.items() if value != OFF[key])
        return f"Augment({self.name}, {self.size} px: {said or 'resize only'})"

    def dropped(self, channels):
        """Names of the recipe's operations that cannot act on images with that many channels."""
        jitter, p = self.recipe["jitter"], self.recipe["jitter_p"]
        acts = {"saturation": jitter[SATURATION] * p, "hue": jitter[HUE] * p, "grayscale": self.recipe["gray_p"]}
        return tuple(name for name, amount in acts.items() if channels == 1 and amount)

    def __call__(self, images, generator=None, strength=None):
        """images: (B, C, H, W) uint8, C 1 or 3. Returns (B, 3, size, size) float32 in [0, 1].

        generator: source of all random numbers, on any device. strength: (B,) in [0, 1], by which each image's
        magnitudes and probabilities are multiplied: 0 no change, 1 the recipe.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"Augment takes uint8 images (B, 1 or 3, H, W) as stored, got {images.dtype} "
                             f"{tuple(images.shape)}: pass them before any scaling or normalising")
        n, channels, height, width = images.shape
        views = torch.empty(n, 3, self.size, self.size, device=images.device)   # out here: autograd may keep it
        with torch.inference_mode(), torch.autocast(images.device.type, enabled=False):
            draw = self.draw(n, height, width, generator, strength, images.device)
            if images.device.type == "cpu":
                chunk = CHUNK * torch.get_num_threads() // (channels * max(height * width, self.size**2))
                self.apply_sorted(images, draw, max(1, chunk), views)
            else:
                torch.clamp(self.apply(images, draw).expand(-1, 3, -1, -1), 0, 1, out=views)
        return views

    def draw(self, n, height, width, generator=None, strength=None, device="cpu"):
        """Everything random about n views, and what follows from it alone, as a dict of (n, ...) tensors.

        The random numbers are the same for every recipe, but that "none" takes none from the generator.
        """
        r, size = self.recipe, self.size
        source = generator.device if generator is not None else device
        u = torch.rand(n, 40, generator=generator, device=source) if r != OFF else torch.zeros(n, 40)
        u = u.to(device, non_blocking=True)
        area, aspect, corner, amount, order, chance, single = u.split((10, 10, 2, 4, 4, 7, 3), 1)
        quarter, sigma, angle = single.unbind(1)
        s = torch.ones(n, device=u.device)
        if strength is not None:
            if tuple(strength.shape) != (n,):
                raise ValueError(f"strength needs one number per image, ({n},), got {tuple(strength.shape)}")
            s = strength.to(u.device, torch.float32, non_blocking=True)
        happens = chance < s[:, None] * ops.constant(tuple(r[name] for name in EVENTS), u.device)
        flip, vflip, turn, jittered, grayed, blurred, solarized = happens.unbind(1)

        turns = (4 * quarter).floor() * turn
        # a quarter turn is a flip, then a transposition
        flip, vflip = flip ^ (turns == 1) ^ (turns == 2), vflip ^ (turns >= 2)
        box = crop_boxes(area, aspect, corner, s[:, None], height, width, r["scale"], r["ratio"])

        amplitude = s * jittered
        spread = amplitude[:, None] * ops.constant((*r["jitter"][:HUE], 0), u.device)   # hue has nothing to blend
        low = (1 - spread).clamp_min(0)
        factors = low + (1 + spread - low) * amount
        hue = r["jitter"][HUE] * amplitude * (2 * amount[:, HUE] - 1)
        rounds = order.argsort(1)
        hue_at = torch.where(jittered, (rounds == HUE).int().argmax(1), -1)
        matrix, offset = ops.jitter_matrices(rounds, factors, hue_at)

        low, high = r["blur_sigma"]
        sigma = (low + (high - low) * sigma) * s * blurred
        kernel = {"kernel": ops.gaussian_kernels(sigma, self.radius)} if r["blur_p"] else {}
        return {
            "box": box, "flip": flip, "vflip": vflip, "place": ops.places(box, flip, vflip, size, height, width),
            "transpose": turns % 2 == 1,
            "rounds": rounds, "factors": factors, "hue_at": hue_at, "matrix": matrix, "offset": offset,
            "hue": hue, "shift": ops.hue_shifts(hue),
            "gray": grayed,
            "blur": blurred, "sigma": sigma, **kernel,
            "solarize": solarized,
            "angle": (2 * angle - 1) * s * r["rotate"],
        }

    def apply_sorted(self, images, draw, chunk, views):
        """Fill views (B, 3, size, size) chunk by chunk, in another order than the images'."""
        # Images that shift their hue in the same round go together, within them those that turn gray and those with
        # blur (neither, gray, both, blur), so that each operation acts on a slice.
        order = (4 * draw["hue_at"] + 2 * draw["blur"] + (draw["blur"] ^ draw["gray"])).argsort()
        counts = torch.unique_consecutive(draw["hue_at"][order], return_counts=True)[1].tolist()
        sizes = [min(chunk, count - start) for count in counts for start in range(0, count, chunk)]
        chunks = [value.index_select(0, order).split(sizes) for value in draw.values()]
        filled = views.numpy()   # numpy copies whole images to their rows, torch value by value
        for rows, *values in zip(order.split(sizes), *chunks, strict=True):
            x = self.apply(images.index_select(0, rows), dict(zip(draw, values, strict=True)))
            filled[rows.numpy()] = x.clamp_(0, 1).numpy()

    def apply(self, images, draw):
        """The recipe with given draws: (n, C, H, W) uint8 -> (n, C, size, size) float32, in [0, 1] but for rounding."""
        r, size = self.recipe, self.size
        x = images.float().mul_(1 / 255)
        if r["scale"] is not None or r["flip"] or r["vflip"] or r["rotate90"] or x.shape[2:] != (size, size):
            x = ops.crop_resize(x, draw["box"], draw["place"])
        if r["rotate90"]:
            x = ops.on_drawn(draw["transpose"], x, lambda x, rows: x.mT.clone())
        if r["jitter_p"] and any(r["jitter"]):
            x = ops.color_jitter(x, draw["matrix"], draw["offset"], draw["hue_at"], draw["shift"])
        if r["gray_p"] and x.shape[1] == 3:
            x = ops.on_drawn(draw["gray"], x, lambda x, rows: ops.gray(x))
        if r["blur_p"]:
            x = ops.on_drawn(draw["blur"], x, lambda x, rows: ops.gaussian_blur(x, draw["kernel"][rows]))
        if r["solarize_p"]:
            x = ops.on_drawn(draw["solarize"], x, lambda x, rows: ops.solarize(x))
        if r["rotate"]:
            x = ops.rotate(x, draw["angle"])
        return x


def crop_boxes(area, aspect, corner, s, height, width, scale, ratio):
    """(n, 4) of top, left, height, width, in whole pixels, as torchvision's RandomResizedCrop draws them.

    Ten tries of area and aspect; the first that fits counts; if none does, the largest central crop whose aspect
    ratio is allowed. area, aspect: (n, 10), corner: (n, 2), uniform in [0, 1); s: (n, 1) strength.
    """
    limit = ops.constant((height, width), s.device)
    if scale is None:
        return torch.cat((limit * 0, limit)).expand(len(s), 4)
    area = (1 - s * (1 - scale[0] - (scale[1] - scale[0]) * area)) * (height * width)
    aspect = (s * (math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * aspect)).exp()
    sides = torch.stack((area / aspect, area * aspect), 1).sqrt().round()   # (n, 2, 10)
    fits = ((sides > 0) & (sides <= limit[:, None])).all(1)
    first, found = fits.int().argmax(1)[:, None, None], fits.any(1)[:, None]
    central = min(max(width / height, ratio[0]), ratio[1])
    largest = ops.constant((min(height, round(width / central)), min(width, round(height * central))), s.device)
    side = torch.where(found, sides.gather(2, first.expand(-1, 2, 1))[:, :, 0], largest)
    room = limit - side
    # corner * (room + 1) can round up to room + 1 in float32, hence the minimum
    start = torch.where(found, torch.minimum((corner * (room + 1)).floor(), room), (room / 2).floor())
    return torch.cat((start, side), 1)
