"""RandAugment with one draw per image: Cubuk, Zoph, Shlens, Le: RandAugment, NeurIPS 2020, arXiv 1909.13719.

The 15 operations and their ranges are those of the code of BCL (Zhou et al. 2022). As there, they act on 8-bit images:
x is (n, 3, H, W) float32 with whole grey levels 0 to 255, a parameter is (n,), and each result is that of Pillow.
Nothing waits for an accelerator.
"""

import torch
import torch.nn.functional as F

from ssl_core.augment_ops import constant, on_drawn

HOLE = (125, 123, 114)   # the colour that cutout fills in, near the mean of natural images


# --- geometry: nearest neighbour, black from outside ------------------------------------------------------------------

def affine(x, a=1, b=0, c=0, d=0, e=1, f=0):
    """Pixel (column, row) from (a column + b row + c, d column + e row + f), in Pillow's 16.16 fixed-point numbers."""
    height, width = x.shape[2:]
    column, row = torch.arange(width, device=x.device), torch.arange(height, device=x.device)[:, None]
    across = (fixed(a) * column + fixed(b) * row + fixed(c + (a + b) / 2)) >> 16
    down = (fixed(d) * column + fixed(e) * row + fixed(f + (d + e) / 2)) >> 16
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    pixel = (down.clamp(0, height - 1) * width + across.clamp(0, width - 1)).expand(len(x), height, width)
    found = x.flatten(2).gather(2, pixel.flatten(1)[:, None].expand(-1, x.shape[1], -1))
    return found.view_as(x) * inside[:, None]


def fixed(v):
    """v · 65536, rounded: an int from a number, (n, 1, 1) int64 from (n,)."""
    return (65536 * v + 0.5).floor().long()[:, None, None] if torch.is_tensor(v) else int(65536 * v + 0.5)


def precise(v):
    # MPS has no float64; in float32 one pixel of a turned image in some thousands is that of the neighbour.
    return v if v.device.type == "mps" else v.double()


def shear_x(x, v):
    return affine(x, b=precise(v))


def shear_y(x, v):
    return affine(x, d=precise(v))


def translate_x(x, v):
    """To the left by v, as a share of the width."""
    return affine(x, c=(precise(v) * x.shape[3] + 0.5).floor())


def translate_y(x, v):
    """Upwards by v, as a share of the height."""
    return affine(x, f=(precise(v) * x.shape[2] + 0.5).floor())


def rotate(x, v):
    """Anticlockwise by v degrees about the centre."""
    cos, sin = torch.deg2rad(precise(v)).cos(), torch.deg2rad(precise(v)).sin()
    y, z = x.shape[2] / 2, x.shape[3] / 2
    return affine(x, cos, -sin, z - cos * z + sin * y, sin, cos, y - sin * z - cos * y)


# --- grey levels ------------------------------------------------------------------------------------------------------

def autocontrast(x, _):
    """Stretch each channel from its lowest and highest level to 0 and 255."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, ((x - low) * 255 / (high - low).clamp_min(1)).floor(), x)


def invert(x, _):
    return 255 - x


def equalize(x, _):
    """Spread the levels of each channel so that each is about as frequent."""
    level = x.long().flatten(2)
    count = torch.zeros(*x.shape[:2], 256, dtype=torch.long, device=x.device)
    count.scatter_add_(2, level, torch.ones_like(level))
    step = (level.shape[2] - count.gather(2, level.amax(2, keepdim=True))) // 255   # without the highest level
    below = count.cumsum(2) - count
    table = ((step // 2 + below) // step.clamp_min(1)).clamp_max(255)
    return torch.where((step > 0)[..., None], table.gather(2, level).view_as(x), x).float()


def solarize(x, v):
    """Invert what is at or above v, a level."""
    return torch.where(x < at_pixels(v), x, 255 - x)


def posterize(x, v):
    """Keep the highest floor(v) bits."""
    step = 2 ** (8 - at_pixels(v).floor().clamp_min(1))
    return (x / step).floor() * step


# --- enhancement: v · x + (1 − v) · other, 1 changes nothing ----------------------------------------------------------

def blend(other, x, v):
    return (other + at_pixels(v) * (x - other)).clamp(0, 255).floor()


def contrast(x, v):
    return blend((luma(x).mean((2, 3), keepdim=True) + 0.5).floor(), x, v)


def color(x, v):
    return blend(luma(x), x, v)


def brightness(x, v):
    return blend(torch.zeros_like(x), x, v)


def sharpness(x, v):
    """Away from the image smoothed by a kernel of 5 amid 1s; pixels of the border have no such neighbourhood."""
    smooth, inner = x.clone(), (..., slice(1, -1), slice(1, -1))
    smooth[inner] = ((9 * F.avg_pool2d(x, 3, 1) + 4 * x[inner]) / 13 + 0.5).floor()
    return blend(smooth, x, v)


def luma(x):
    """(n, 3, H, W) → (n, 1, H, W) in Pillow's whole numbers, all exact in float32."""
    return ((19595 * x[:, :1] + 38470 * x[:, 1:2] + 7471 * x[:, 2:] + 32768) / 65536).floor()


def cutout(x, v, centre):
    """Fill a square, v of the width wide, around centre (n, 2), the shares of width and height at which it lies."""
    height, width = x.shape[2:]
    side = v * width
    start = [(centre[:, i] * size - side / 2).clamp_min(0).floor()[:, None] for i, size in ((0, width), (1, height))]
    end = [(first + side[:, None]).floor() for first in start]   # the last pixel that is filled
    column, row = (torch.arange(size, device=x.device) for size in (width, height))
    hole = (((column >= start[0]) & (column <= end[0]))[:, None, None, :]
            & ((row >= start[1]) & (row <= end[1]))[:, None, :, None])
    return torch.where(hole & at_pixels(v > 0), constant(HOLE, x.device).view(1, 3, 1, 1), x)


def at_pixels(v):
    return v.view(-1, 1, 1, 1)


# Each operation with its parameter at levels 0 and 30. Not each grows stronger with the level: posterize and solarize
# grow weaker, and the enhancements pass through 1, where they change nothing, at level 15.
OPS = {
    "shear_x": (shear_x, 0, 0.6), "shear_y": (shear_y, 0, 0.6),
    "translate_x": (translate_x, 0, 0.66), "translate_y": (translate_y, 0, 0.66), "rotate": (rotate, 0, 60),
    "autocontrast": (autocontrast, 0, 1), "invert": (invert, 0, 1), "equalize": (equalize, 0, 1),
    "solarize": (solarize, 0, 110), "posterize": (posterize, 4, 8),
    "contrast": (contrast, 0.1, 1.9), "color": (color, 0.1, 1.9), "brightness": (brightness, 0.1, 1.9),
    "sharpness": (sharpness, 0.1, 1.9), "cutout": (cutout, 0, 0.4),
}
SIGNED = 5     # the first ones go either way, with equal chances
NOTHING = -1   # the number of no operation


def rand_augment(x, k, p, level, generator=None):
    """k operations on each image, each drawn from OPS with replacement and applied with probability p.

    x: (B, 3, H, W) float32 in [0, 1], overwritten; p, level: (B,), the level from 0 to 30. An image to which something
    is applied is rounded to 8 bits first; one to which nothing is keeps its values. generator: on any device.
    """
    source = x.device if generator is None else generator.device
    which, chance, sign, *centre = torch.rand(5, len(x), k, generator=generator, device=source).to(x.device)
    op = torch.where(chance < p[:, None], (which * len(OPS)).long(), NOTHING)
    value, centre = parameter(op, level[:, None], sign), torch.stack(centre, 2)

    def change(x, rows):
        x = (255 * x).round()
        for j in range(k):
            x = apply(x, op[rows, j], value[rows, j], centre[rows, j])
        return x / 255

    return on_drawn((op != NOTHING).any(1), x, change)


def parameter(op, level, sign):
    """The value at a level (B, 1) for each operation op (B, k), made negative by the upper half of sign (B, k)."""
    low, high = (constant(tuple(entry[i] for entry in OPS.values()), level.device)[op.clamp_min(0)] for i in (1, 2))
    value = low + level / 30 * (high - low)
    return torch.where((op < SIGNED) & (sign > 0.5), -value, value)


def apply(x, op, value, centre):
    """To each of the images, in grey levels, its own operation op (n,). Overwrites x."""
    for i, (operation, _, _) in enumerate(OPS.values()):
        def change(x, rows, operation=operation):
            return operation(x, value[rows], *([centre[rows]] if operation is cutout else []))
        x = on_drawn(op == i, x, change)
    return x
