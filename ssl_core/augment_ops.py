"""Pixel operations with one parameter per image: x is (n, C, H, W) float32 in [0, 1], parameters are (n, ...) tensors.

Each agrees with the function of the same purpose in torchvision.transforms.v2.functional, which takes one parameter
for the batch. None of them waits for an accelerator.
"""

import torch
import torch.nn.functional as F

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def is_drawn(mask):
    """Whether any image of the chunk drew it. An accelerator would have to be waited for, so there always yes."""
    return mask.device.type != "cpu" or bool(mask.any())


def where_drawn(mask, x, changed):
    return torch.where(mask.view(-1, 1, 1, 1), changed(), x) if is_drawn(mask) else x


def crop_resize(x, box, size):
    """Cut a box out of each image and resize it to size x size: bilinear, antialiased where it shrinks.

    x: (n, C, H, W); box: (n, 4) top, left, height, width. Pixels outside the box do not count.
    """
    height, width = x.shape[2:]
    top, left, h, w = box.unbind(1)
    if max(height, width) > size:
        rows, columns = triangle_weights(top, h, size, height), triangle_weights(left, w, size, width)
        return rows[:, None] @ (x @ columns[:, None].mT)
    # No crop is larger than its image, so nothing shrinks here, and four neighbours are all that bilinear needs.
    y, x_ = bilinear_positions(top, h, size, height), bilinear_positions(left, w, size, width)
    grid = torch.stack((x_[:, None].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)), 3)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def triangle_weights(start, length, size, n):
    """(B, size, n) weights of n pixels on a line in each of size pixels that share [start, start + length)."""
    step = (length / size)[:, None, None]
    start, end = start[:, None, None], (start + length)[:, None, None]
    centre = start + (torch.arange(size, device=step.device) + 0.5)[:, None] * step
    pixel = torch.arange(n, device=step.device) + 0.5
    weights = (1 - (pixel - centre).abs() / step.clamp_min(1)).clamp_min(0) * ((pixel > start) & (pixel < end))
    return weights / weights.sum(2, keepdim=True)


def bilinear_positions(start, length, size, n):
    """(B, size) where to sample a line of n pixels, in grid_sample's [-1, 1], never nearer to a pixel outside."""
    position = start[:, None] + (torch.arange(size, device=start.device) + 0.5) * (length / size)[:, None]
    return position.clamp(start[:, None] + 0.5, (start + length)[:, None] - 0.5) * (2 / n) - 1


def color_jitter(x, rounds, hue_at, factors, hue):
    """Brightness, contrast, saturation and hue, each image in its own order. Changes x in place.

    rounds: (n, 4) operation in each round; hue_at: (n,) round of the hue, -1 for none; factors: (n, 4) with 1 for
    the hue; hue: (n,) shift in turns. Hue is the dearest, so it runs once: rounds before it, itself, rounds after.
    """
    for k in (0, 1, 2):
        blend(x, torch.where(hue_at > k, rounds[:, k], HUE), factors)
    if x.shape[1] == 3 and is_drawn(hue_at >= 0):
        shift_hue(x, hue)
    for k in (1, 2, 3):
        blend(x, torch.where((hue_at >= 0) & (hue_at < k), rounds[:, k], HUE), factors)
    return x


def blend(x, operation, factors):
    """factor * x + (1 - factor) * other, cut to [0, 1], in place; other is black, the mean gray, or the gray image.

    operation: (n,) BRIGHTNESS, CONTRAST, SATURATION, or HUE for none (its factor is 1).
    """
    if not is_drawn(operation != HUE):
        return
    factor = factors.gather(1, operation[:, None])[:, :, None, None]
    rest = 1 - factor
    operation = operation[:, None, None, None]
    other = 0.0
    if is_drawn(operation == CONTRAST):
        other = torch.where(operation == CONTRAST, rest, 0) * gray(x.mean((2, 3), keepdim=True))
    if is_drawn(operation == SATURATION):
        other = other + torch.where(operation == SATURATION, rest, 0) * gray(x)
    x.mul_(factor).add_(other).clamp_(0, 1)


def gray(x):
    """(n, 3, ...) -> (n, 1, ...) luma of ITU-R BT.601; one channel is gray already."""
    return x if x.shape[1] == 1 else 0.2989 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]


def shift_hue(x, turns):
    """Rotate the hue of HSV by turns (n,) in place, x (n, 3, H, W).

    Along the hue h in [0, 6) each channel is a trapezoid between low and high, the least and greatest of the three:
    red = low + span * (clamp(|h - 3|, 1, 2) - 1), green = low + span * (2 - clamp(|h - 2|, 1, 2)), blue same at 4.
    """
    red, green, blue = x.unbind(1)
    low, high = x.aminmax(dim=1)
    span = high - low
    scale = span.clamp_min(1e-8).reciprocal_()
    h = torch.where(red == high, (green - blue).mul_(scale),
                    torch.where(green == high, (blue - red).mul_(scale).add_(2), (red - green).mul_(scale).add_(4)))
    h.add_(6 * turns[:, None, None])
    h.sub_((h / 6).floor_().mul_(6))
    torch.addcmul(low - span, span, (h - 3).abs_().clamp_(1, 2), out=red)
    top = low.add_(span, alpha=2)
    torch.addcmul(top, span, (h - 2).abs_().clamp_(1, 2), value=-1, out=green)
    torch.addcmul(top, span, (h - 4).abs_().clamp_(1, 2), value=-1, out=blue)
    return x


def gaussian_blur(x, sigma, radius):
    """Gaussian blur with sigma (n,) in pixels (0: none) and 2 * radius + 1 taps, the border mirrored.

    Written as products with small band matrices, one per image: rows and columns in blocks of 32.
    """
    size = x.shape[3]
    block = 32 if size % 32 == 0 else size
    span = block + 2 * radius
    taps = torch.arange(-radius, radius + 1, device=x.device)
    kernel = (-0.5 * (taps / sigma.clamp_min(0.01)[:, None]) ** 2).softmax(1)
    # each row of the band is the one above, moved right by one
    band = F.pad(kernel, (0, block)).repeat(1, block)[:, : block * span].view(-1, 1, 1, block, span)
    x = F.pad(x, (radius, radius, radius, radius), mode="reflect")
    x = (band @ x.unfold(2, span, block).mT).flatten(2, 3)
    return (x.unfold(3, span, block).transpose(2, 3) @ band.mT).transpose(2, 3).flatten(3)


def rotate(x, angle):
    """Rotate by angle (n,) in degrees about the centre, bilinear; what comes from outside is black."""
    c, s = torch.deg2rad(angle).cos(), torch.deg2rad(angle).sin()
    zero = torch.zeros_like(c)
    affine = torch.stack((c, -s, zero, s, c, zero), 1).view(-1, 2, 3)
    grid = F.affine_grid(affine, x.shape, align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
