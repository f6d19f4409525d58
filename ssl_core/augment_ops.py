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
# A and B of a blend, 3 x 3 each, as weighted sums: of the pixel itself, of its gray, of the mean gray
PARTS = ((1, 0, 0, 0, 1, 0, 0, 0, 1) + 9 * (0,), 3 * LUMA + 9 * (0,), 9 * (0,) + 3 * LUMA)


@cache
def constant(values, device):
    """A small float32 tensor on a device, sent once. values: a tuple."""
    return torch.tensor(values, dtype=torch.float32).to(device, non_blocking=True)


def on_drawn(mask, x, change):
    """x with change(x[rows], rows) where mask (n,) is true. Overwrites x.

    On a CPU only those images are computed; on an accelerator all are, since to ask which would be to wait for it.
    """
    if x.device.type != "cpu":
        return torch.where(mask.view(-1, 1, 1, 1), change(x, slice(None)), x)
    listed = [row for row, drawn in enumerate(mask.tolist()) if drawn]
    if listed and listed[-1] - listed[0] + 1 == len(listed):
        rows = slice(listed[0], listed[-1] + 1)   # spares two copies
        x[rows] = change(x[rows], rows)
    elif listed:
        rows = torch.tensor(listed)
        x[rows] = change(x.index_select(0, rows), rows)
    return x


def places(box, flip, vflip, size, height, width):
    """(n, 2, size) where the middles of the view's rows and columns lie in the image, its borders at -1 and 1.

    box: (n, 4) top, left, height, width in pixels; flip, vflip: (n,) bool. None lies nearer to a pixel outside the
    box than to one inside.
    """
    step = torch.arange(size, device=box.device) + 0.5
    start, length = box[:, :2, None], box[:, 2:, None]
    end, flipped = start + length, torch.stack((vflip, flip), 1)[:, :, None]
    first, pace = torch.where(flipped, end, start), torch.where(flipped, -length, length) / size
    middle = torch.addcmul(first, pace, step).clamp_(start + 0.5, end - 0.5)
    return middle.mul_(constant(((2 / height,), (2 / width,)), box.device)).sub_(1)


def crop_resize(x, box, place):
    """Cut a box out of each image and resize it to size x size: bilinear, antialiased where it shrinks.

    box: (n, 4) top, left, height, width; place: (n, 2, size), see places. Pixels outside the box do not count.
    """
    height, width = x.shape[2:]
    down, across = place.unbind(1)
    if max(height, width) > place.shape[2]:
        rows = triangle_weights(down, box[:, 0], box[:, 2], height)
        columns = triangle_weights(across, box[:, 1], box[:, 3], width)
        return rows[:, None] @ (x @ columns[:, None].mT)
    # No crop is larger than its image, so nothing shrinks here, and four neighbours are all that bilinear needs.
    grid = torch.stack(torch.broadcast_tensors(across[:, None], down[:, :, None]), 1).movedim(1, 3)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def triangle_weights(place, start, length, n):
    """(B, size, n) weights of the n pixels of a line in each pixel of its resized part [start, start + length)."""
    pixel = torch.arange(n, device=place.device) + 0.5
    start, length = start[:, None], length[:, None]
    inside = (pixel > start) & (pixel < start + length)
    reach = (length / place.shape[1]).clamp_min(1)[:, :, None]
    distance = (pixel - (place[:, :, None] + 1) * (n / 2)).abs()
    weights = (1 - distance / reach).clamp_min(0) * inside[:, None]
    return weights / weights.sum(2, keepdim=True)


def jitter_matrices(rounds, factors, hue_at):
    """(n, 6, 3, 3) matrices A and B of the blends x -> A x + B mean(x) before and after the hue.

    A blend is factor * x + (1 - factor) * other, where other is black for BRIGHTNESS, the image's mean gray for
    CONTRAST, each pixel's gray for SATURATION. rounds: (n, 4) the operation in each round; factors: (n, 4) by
    operation, 1 for HUE and without jitter; hue_at: (n,) round of the hue, -1 for no jitter. Rounds 0, 1, 2 may come
    before the hue and 1, 2, 3 after it; where they do not, the blend changes nothing.
    """
    k, hue_at = torch.arange(4, device=rounds.device), hue_at[:, None]
    operation = torch.cat((rounds[:, :3], rounds[:, 1:]), 1)
    acts = torch.cat(((k < hue_at)[:, :3], (k > hue_at)[:, 1:]), 1)
    factor = torch.where(acts, factors.gather(1, operation), 1)
    rest = 1 - factor
    parts = torch.stack((factor, rest * (operation == SATURATION), rest * (operation == CONTRAST)), 2)
    return (parts @ constant(PARTS, parts.device)).view(-1, 6, 2, 3, 3).unbind(2)


def color_jitter(x, matrix, offset, hue_at, shift):
    """Brightness, contrast, saturation and hue, each image in its own order, from jitter_matrices and hue_shifts.

    Hue is the dearest, so it runs once, after up to three blends and before up to three. One channel is treated as
    three equal ones, on which hue does nothing. Overwrites x.
    """
    if x.shape[1] == 1:
        matrix, offset = matrix.sum(3)[:, :, :1, None], offset.sum(3)[:, :, :1, None]
    first, last = 0, 3
    if x.device.type == "cpu":   # rounds in which no image blends are left out
        positions = hue_at.tolist()
        first, last = max(0, min(positions)), max(positions)
        if last < 0:
            return x
    pixels = x.flatten(2)
    spare = torch.empty_like(pixels)
    for k in range(last):
        pixels, spare = blend(pixels, matrix[:, k], offset[:, k], spare), pixels
    if x.shape[1] == 3:
        pixels = shift_hue(pixels, shift)
    for k in range(3 + first, 6):
        pixels, spare = blend(pixels, matrix[:, k], offset[:, k], spare), pixels
    return pixels.view_as(x)


def blend(pixels, a, b, out):
    """a x + b mean(x), cut to [0, 1], into out. pixels: (n, C, H * W); a, b: (n, C, C)."""
    return torch.baddbmm(torch.bmm(b, pixels.mean(2, keepdim=True)), a, pixels, out=out).clamp_(0, 1)


def hue_shifts(turns):
    """(n, 3) for shift_hue: turns (n,) seen from red, green and blue, in sixths of a turn within [-3, 3]."""
    shift = 6 * turns[:, None] + constant((0, -2, 2), turns.device)
    return shift - 6 * (shift / 6).round()


def shift_hue(pixels, shift):
    """Rotate the hue of HSV without a branch per sector. pixels: (n, 3, H * W), overwritten; shift: hue_shifts(turns).

    In sixths of a turn, hue lies at (green + blue - red + high - 2 low) / span from red, on green's side or on blue's.
    A channel becomes low + span * (clamp(d, 1, 2) - 1), where d is the distance to the hue opposite to its own.
    """
    red, green, blue = pixels.unbind(1)
    low = torch.minimum(red, green).minimum(blue)
    high = torch.maximum(red, green).maximum(blue)
    h = (green + blue).sub_(red).add_(high).sub_(low, alpha=2)
    span = high.sub_(low)
    h.div_(span + 1e-8).copysign_(green - blue)
    low.sub_(span)
    d = torch.add(h[:, None], shift[:, :, None], out=pixels).abs_().sub_(3).abs_().clamp_(1, 2)
    return torch.addcmul(low[:, None], span[:, None], d, out=d)


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


def gaussian_kernels(sigma, radius):
    """(n, radius + 1) weights at distances 0, 1, ... of normalised kernels with 2 * radius + 1 taps; sigma 0: none."""
    taps = torch.arange(radius + 1, device=sigma.device)
    kernel = (-0.5 * (taps / sigma.clamp_min(0.01)[:, None]) ** 2).exp()
    kernel = (kernel - 1e-8).clamp_min(0)   # denormal numbers would slow the products down tenfold
    return kernel / (2 * kernel.sum(1, keepdim=True) - 1)


def gaussian_blur(x, kernel):
    """Blur with gaussian_kernels (n, radius + 1), the border mirrored.

    A product with one band matrix per image for the rows, then for the columns, blocks of the band at a time.
    """
    n, channels, size, _ = x.shape
    radius = kernel.shape[1] - 1
    band = (kernel @ mirrored_taps(size, radius, x.device)).view(n, size, size)
    edges = [(i, min(size, i + BLOCK)) for i in range(0, size, BLOCK)]
    blocks = [(slice(first, last), slice(max(0, first - radius), min(size, last + radius))) for first, last in edges]
    across = [torch.bmm(x.flatten(1, 2)[..., near], band[:, to, near].mT) for to, near in blocks]
    x = (torch.cat(across, 2) if len(blocks) > 1 else across[0]).view_as(x)
    down = [band[:, None, to, near] @ x[:, :, near] for to, near in blocks]
    return torch.cat(down, 2) if len(blocks) > 1 else down[0]


def rotate(x, angle):
    """Rotate by angle (n,) in degrees about the centre, bilinear; what comes from outside is black."""
    c, s = torch.deg2rad(angle).cos(), torch.deg2rad(angle).sin()
    zero = torch.zeros_like(c)
    affine = torch.stack((c, -s, zero, s, c, zero), 1).view(-1, 2, 3)
    grid = F.affine_grid(affine, x.shape, align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
