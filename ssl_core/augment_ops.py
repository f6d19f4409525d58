"""Pixel operations with one parameter per image: x is (n, C, H, W) float32 in [0, 1], parameters are (n, ...) tensors.

Each agrees with the function of the same purpose in torchvision.transforms.v2.functional, which takes one parameter
for the batch. None of them waits for an accelerator. On a CPU the plain arithmetic used here is vectorised, while
torch.where, comparisons and aminmax cost ten times as much, which is why they are avoided on whole images.
"""

from functools import cache

import torch
import torch.nn.functional as F

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
LUMA = (0.2989, 0.587, 0.114)   # weights of red, green, blue in gray, ITU-R BT.601
BLOCK = 32                      # pixels blurred by one matrix product


def on_drawn(mask, x, change):
    """x with change(x[rows], rows) where mask (n,) is true.

    On a CPU only those images are computed; on an accelerator all are, since to ask which would be to wait for it.
    """
    if x.device.type != "cpu":
        return torch.where(mask.view(-1, 1, 1, 1), change(x, slice(None)), x)
    rows = mask.nonzero()[:, 0]
    if len(rows) == len(x):
        return change(x, rows)
    if len(rows):
        x[rows] = change(x.index_select(0, rows), rows)
    return x


def crop_resize(x, box, flip, vflip, size):
    """Cut a box out of each image, flip it, and resize it to size x size: bilinear, antialiased where it shrinks.

    box: (n, 4) top, left, height, width; flip, vflip: (n,) bool. Pixels outside the box do not count.
    """
    height, width = x.shape[2:]
    top, left, h, w = box.unbind(1)
    if max(height, width) > size:
        rows, columns = triangle_weights(top, h, vflip, size, height), triangle_weights(left, w, flip, size, width)
        return rows[:, None] @ (x @ columns[:, None].mT)
    # No crop is larger than its image, so nothing shrinks here, and four neighbours are all that bilinear needs.
    down, across = bilinear_positions(top, h, vflip, size, height), bilinear_positions(left, w, flip, size, width)
    grid = torch.stack((across[:, None].expand(-1, size, -1), down[:, :, None].expand(-1, -1, size)), 3)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def centres(start, length, flip, size):
    """(n, size) middles of size equal steps along [start, start + length), in pixels, backwards where flip."""
    step = torch.arange(size, device=start.device) + 0.5
    return start[:, None] + torch.where(flip[:, None], size - step, step) * (length / size)[:, None]


def triangle_weights(start, length, flip, size, n):
    """(B, size, n) weights of the n pixels of a line in each pixel of its resized part [start, start + length)."""
    centre = centres(start, length, flip, size)[:, :, None]
    start, end, step = start[:, None, None], (start + length)[:, None, None], (length / size)[:, None, None]
    pixel = torch.arange(n, device=start.device) + 0.5
    weights = (1 - (pixel - centre).abs() / step.clamp_min(1)).clamp_min(0) * ((pixel > start) & (pixel < end))
    return weights / weights.sum(2, keepdim=True)


def bilinear_positions(start, length, flip, size, n):
    """(B, size) where to sample a line of n pixels, in grid_sample's [-1, 1], never nearer to a pixel outside."""
    inside = centres(start, length, flip, size).clamp(start[:, None] + 0.5, (start + length)[:, None] - 0.5)
    return inside * (2 / n) - 1


def jitter_matrices(rounds, factors, hue_at):
    """(n, 6, 3, 3) matrices A and B of the blends x -> A x + B mean(x) before and after the hue.

    A blend is factor * x + (1 - factor) * other, where other is black for BRIGHTNESS, the image's mean gray for
    CONTRAST, each pixel's gray for SATURATION. rounds: (n, 4) the operation in each round; factors: (n, 4) by
    operation, 1 for HUE; hue_at: (n,) round of the hue, -1 for no jitter. Rounds 0, 1, 2 may come before the hue and
    1, 2, 3 after it; where they do not, the blend changes nothing.
    """
    k = torch.arange(4, device=rounds.device)
    factor, hue_at = factors.gather(1, rounds), hue_at[:, None]
    before, after = torch.where(k < hue_at, factor, 1), torch.where((k > hue_at) & (hue_at >= 0), factor, 1)
    factor = torch.cat((before[:, :3], after[:, 1:]), 1)
    operation = torch.cat((rounds[:, :3], rounds[:, 1:]), 1)[..., None, None]
    rest = (1 - factor)[..., None, None] * torch.tensor(LUMA).to(factor.device, non_blocking=True).expand(3, 3)
    keep = torch.diag_embed(factor[..., None].expand(-1, -1, 3))
    return keep + rest * (operation == SATURATION), rest * (operation == CONTRAST)


def blend(x, matrix, offset):
    """matrix x + offset mean(x), cut to [0, 1]; (n, 3, 3) each. One channel is treated as three equal ones."""
    if x.shape[1] == 1:
        matrix, offset = matrix.sum(2)[:, :1, None], offset.sum(2)[:, :1, None]
    pixels = x.flatten(2)
    return torch.baddbmm(offset @ pixels.mean(2, keepdim=True), matrix, pixels).clamp_(0, 1).view_as(x)


def color_jitter(x, matrix, offset, hue_at, hue):
    """Brightness, contrast, saturation and hue, each image in its own order, from jitter_matrices.

    Hue is the dearest, so it runs once, after up to three blends and before up to three. hue: (n,) shift in turns.
    """
    first, last = (int(hue_at.min()), int(hue_at.max())) if x.device.type == "cpu" else (-1, 3)
    for k in range(last):
        x = blend(x, matrix[:, k], offset[:, k])
    if last >= 0 and x.shape[1] == 3:
        x = shift_hue(x, hue)
    for k in range(max(first, 0) + 1, 4 if last >= 0 else 0):
        x = blend(x, matrix[:, k + 2], offset[:, k + 2])
    return x


def shift_hue(x, turns):
    """Rotate the hue of HSV by turns (n,), x (n, 3, H, W), without a branch per sector. Overwrites x.

    In sixths of a turn, hue lies at 1 + (green + blue - red - low) / span from red, on green's side or on blue's.
    A channel centred at c is then low + span * (clamp(d, 1, 2) - 1), d the distance from the hue opposite to c.
    """
    red, green, blue = x.unbind(1)
    low = torch.minimum(red, green).minimum(blue)
    span = torch.maximum(red, green).maximum(blue).sub_(low)
    h = (green + blue).sub_(red).sub_(low).div_(span + 1e-8).add_(1).copysign_(green - blue)
    h.add_(6 * turns[:, None, None])
    h.sub_((h / 6).round_().mul_(6))
    low.sub_(span)
    for channel, centre in ((red, 0), (green, 2), (blue, -2)):
        torch.addcmul(low, span, (h - centre).abs_().sub_(3).abs_().clamp_(1, 2), out=channel)
    return x


def gray(x):
    """(n, 3, ...) -> (n, 1, ...) luma."""
    return (LUMA[0] * x[:, :1]).add_(x[:, 1:2], alpha=LUMA[1]).add_(x[:, 2:], alpha=LUMA[2])


def solarize(x):
    """Invert what is at or above 128 of 255."""
    return torch.where(x >= 128 / 255, 1 - x, x)


@cache
def mirrored_taps(size, radius, device):
    """(radius + 1, size * size): how often pixel j is at distance d from pixel i of a line mirrored at both ends."""
    here = torch.arange(size)
    there = torch.arange(-radius, size + radius)
    pixel = (size - 1) - ((size - 1) - there.abs()).abs()
    taps = torch.zeros(radius + 1, size, size)
    for distance in range(radius + 1):
        near = ((there[None] - here[:, None]).abs() == distance).float()
        taps[distance].index_add_(1, pixel, near)
    return taps.flatten(1).to(device)


def gaussian_blur(x, sigma, radius):
    """Gaussian blur with sigma (n,) in pixels (0: none) and 2 * radius + 1 taps, the border mirrored.

    A product with one band matrix per image for the rows, then for the columns, blocks of the band at a time.
    """
    size = x.shape[3]
    taps = torch.arange(radius + 1, device=x.device)
    kernel = (-0.5 * (taps / sigma.clamp_min(0.01)[:, None]) ** 2).exp()
    kernel = kernel / (2 * kernel.sum(1, keepdim=True) - 1)
    band = (kernel @ mirrored_taps(size, radius, x.device)).view(-1, size, size)
    blocks = [(slice(i, i + BLOCK), slice(max(0, i - radius), i + BLOCK + radius)) for i in range(0, size, BLOCK)]
    pixels = x.flatten(1, 2)
    x = torch.cat([pixels[:, :, near] @ band[:, to, near].mT for to, near in blocks], 2).view_as(x)
    return torch.cat([band[:, None, to, near] @ x[:, :, near] for to, near in blocks], 2)


def rotate(x, angle):
    """Rotate by angle (n,) in degrees about the centre, bilinear; what comes from outside is black."""
    c, s = torch.deg2rad(angle).cos(), torch.deg2rad(angle).sin()
    zero = torch.zeros_like(c)
    affine = torch.stack((c, -s, zero, s, c, zero), 1).view(-1, 2, 3)
    grid = F.affine_grid(affine, x.shape, align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
