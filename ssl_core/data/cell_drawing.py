"""How a synthetic cell looks: closed outlines with soft edges, stained by Beer-Lambert, seen through a microscope.

Densities of four stains add up along the light path, so overlapping cytoplasm darkens as on a smear, and
rgb = white * exp(-density @ stain). Lengths are in um, the origin is the middle of the image, angles are in radians.
Every random choice is a uniform number handed in: nothing here draws.
"""

from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import ndtri

HAEMATOXYLIN, CYAN, PINK, ORANGE = range(4)
STAINS = np.float32([[0.65, 0.70, 0.29], [0.80, 0.35, 0.30], [0.10, 0.95, 0.25], [0.10, 0.45, 0.88]])  # OD in R, G, B

ANGLES = np.linspace(0, 2 * np.pi, 256, endpoint=False, dtype=np.float32)
HARMONICS = np.arange(2, 8)
WAVES = np.exp(1j * HARMONICS[:, None] * ANGLES)
CROPS = 256  # a noise field is this much wider than an image: so many places along an axis to cut it from


def uniforms(*key, width):
    """`width` numbers in (0, 1) that belong to a key of integers, the same on every machine and NumPy release.

    The raw PCG64 stream is fixed for good; what Generator makes of it may change between releases, so it is not asked.
    """
    raw = np.random.PCG64(np.random.SeedSequence(key)).random_raw(width)
    return ((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


@lru_cache(maxsize=64)
def noise_field(grain, um_per_px, size):
    """Gaussian noise with blobs of about `grain` um as a camera samples it, (size + CROPS)² float32; grain 0 is white.

    A pixel averages over its area: grain finer than a pixel loses contrast instead of becoming pixel noise.
    """
    side = size + CROPS
    field = ndtri(uniforms(7, width=side * side)).reshape(side, side).astype(np.float32)
    if grain:
        sigma, pixel = 0.4 * grain, um_per_px / 12**0.5
        field = gaussian_filter(field, np.hypot(sigma, pixel) / um_per_px, mode="wrap")
        field *= sigma / np.hypot(sigma, pixel) / field.std()
    return field


def crop(field, size, u):
    """The size × size piece of a noise field at the place that two uniforms name."""
    y, x = int(u[0] * CROPS), int(u[1] * CROPS)
    return field[y : y + size, x : x + size]


@lru_cache(maxsize=256)
def blur_matrix(size, sigma):
    """Gaussian blur along one axis, (S, S), rows summing to 1; sigma in pixels."""
    distance = np.subtract.outer(np.arange(size), np.arange(size))
    weight = np.exp(-0.5 * (distance / sigma) ** 2)
    return (weight / weight.sum(1, keepdims=True)).astype(np.float32)


def outline(u, irregularity, notch=0.0, corners=0.0):
    """Radius by angle (256,), of mean square 1, so that the area is exactly what the caller asks for.

    u: (24,) uniforms. Harmonics 2 to 7 of amplitude `irregularity`, one dent of depth `notch`, and `corners` in [0, 1]
    blends in a rounded polygon of 5 to 7 sides.
    """
    amplitude = irregularity * np.clip(ndtri(u[:6]), -2, 2) / np.sqrt(HARMONICS - 1)
    radius = 1 + ((amplitude * np.exp(2j * np.pi * u[6:12])) @ WAVES).real
    if notch > 0:
        turn = (ANGLES - 2 * np.pi * u[12] + np.pi) % (2 * np.pi) - np.pi
        radius *= 1 - notch * np.exp(-((turn / 0.45) ** 2))
    if corners > 0:
        sides = 5 + int(3 * u[13])
        normals = 2 * np.pi * (np.arange(sides) + 0.6 * u[14 : 14 + sides]) / sides
        inside = np.maximum(np.cos(ANGLES - normals[:, None]), 0) / (0.85 + 0.3 * u[17 : 17 + sides, None])
        radius *= 1 - corners + corners * (inside**14).sum(0) ** (-1 / 14)
    return (radius / np.sqrt((radius**2).mean())).astype(np.float32)


def blob(axis, x, y, area, radius, stretch=1.0, angle=0.0, edge=0.6):
    """A closed outline of `area` um² around (x, y): (window, depth, coverage), computed in its window only.

    depth is the distance to the outline in um, positive inside; coverage rises from 0 to 1 across `edge` um, or across
    a pixel where that is more.
    """
    scale, long = np.sqrt(area / np.pi), np.sqrt(stretch)
    reach = scale * radius.max() * long + 4
    rows, columns = (slice(*np.searchsorted(axis, (at - reach, at + reach))) for at in (y, x))
    dy, dx = axis[rows, None] - np.float32(y), axis[None, columns] - np.float32(x)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = (cos * dx + sin * dy) / np.float32(long), (cos * dy - sin * dx) * np.float32(long)
    turn = (np.arctan2(across, along) * np.float32(len(ANGLES) / (2 * np.pi))).astype(np.int32) % len(ANGLES)
    depth = np.float32(scale) * radius[turn] - np.hypot(along, across)
    return (rows, columns), depth, np.clip(0.5 + depth / np.float32(max(edge, axis[1] - axis[0])), 0, 1)


def ridge(depth, at, width):
    """A line of Gaussian profile that runs `at` um inside an outline."""
    return np.exp(-(((depth - np.float32(at)) / np.float32(width)) ** 2))


def draw_background(axis, u):
    """Stain densities (4, S, S) of an empty field: a trace of uneven mucus."""
    density = np.zeros((4, len(axis), len(axis)), np.float32)
    mucus = 0.02 + 0.012 * crop(noise_field(6.0, round(float(axis[1] - axis[0]), 4), len(axis)), len(axis), u)
    density[CYAN] += np.maximum(mucus, 0)
    density[PINK] += np.maximum(mucus, 0)
    return density


def draw_cell(density, axis, cell, u):
    """Add a cell's cytoplasm, halo and nuclei to the densities (4, S, S).

    cell: a row of `cells.traits` with the place x, y of its middle; u: its uniforms by name.
    """

    def noise(grain):
        return crop(noise_field(grain, round(float(axis[1] - axis[0]), 4), len(axis)), len(axis), u["texture"])

    shape = outline(u["cell_outline"], 0.03 + 0.3 * cell.irregularity, corners=cell.corners)
    window, depth, coverage = blob(axis, cell.x, cell.y, cell.cell_area, shape, cell.stretch, cell.angle)
    thinner = 1 - 0.3 * np.clip(depth / np.float32(np.sqrt(cell.cell_area / np.pi)), 0, 1)
    body = np.zeros_like(density[0])
    body[window] = cell.thickness * coverage * (thinner + 0.15 * ridge(depth, 0.5, 1.2))
    body *= 1 + 0.18 * noise(3.0)

    nuclei = nucleus_places(cell, u)
    if cell.halo:
        shape = outline(u["nucleus_outline"][::-1], 0.07)
        window, depth, clear = blob(axis, *np.mean(nuclei, axis=0), cell.halo_area, shape)
        body[window] *= 1 - 0.8 * clear + 0.9 * ridge(depth, -1.0, 1.3) * (1 - clear)
    for stain, share in ((CYAN, cell.cyan), (PINK, cell.pink), (ORANGE, cell.orange)):
        density[stain] += np.float32(share) * body

    notch = min(0.5, 4 * max(0.0, cell.irregularity - 0.04))
    shape = outline(u["nucleus_outline"], cell.irregularity, notch)
    for k, (x, y) in enumerate(nuclei):
        window, depth, coverage = blob(
            axis, x, y, cell.nuclear_area, np.roll(shape, 85 * k), cell.elongation, cell.angle, edge=0.3
        )
        chromatin = 1 + 0.25 * ridge(depth, 0.5, 0.7) + cell.contrast * noise(cell.grain)[window]
        density[HAEMATOXYLIN][window] += cell.nuclear_od * coverage * np.maximum(chromatin, 0.25)
        if cell.nucleolus:
            spot = (u["nucleolus"] - 0.5) * np.sqrt(cell.nuclear_area / cell.elongation / np.pi)
            window, _, coverage = blob(axis, x + spot[0], y + spot[1], 3.0, np.ones_like(shape), edge=0.3)
            density[PINK][window] += 1.2 * coverage


def nucleus_places(cell, u):
    """[(x, y)] of a cell's nuclei: one somewhat off centre, as far as it has room; two or three around the centre."""
    room = np.sqrt(cell.cell_area / np.pi) - np.sqrt(cell.n_nuclei * cell.nuclear_area / np.pi)
    x, y = np.array([cell.x, cell.y]) + 0.5 * room * (u["place"] - 0.5)
    if cell.n_nuclei == 1:
        return [(x, y)]
    apart = (1.0 + 0.15 * (cell.n_nuclei - 2)) * 1.16 * np.sqrt(cell.nuclear_area / cell.elongation / np.pi)
    turns = cell.angle + np.pi / 2 + 2 * np.pi * np.arange(cell.n_nuclei) / cell.n_nuclei
    return [(x + apart * np.cos(turn), y + apart * np.sin(turn)) for turn in turns]


def draw_debris(density, axis, count, u):
    """Add `count` dark specks 4 to 7 um wide (leucocytes, bare nuclei) anywhere in the field. u: (6, 16) uniforms."""
    for v in u[:count]:
        x, y = (v[:2] - 0.5) * (axis[-1] - axis[0])
        shape = outline(np.roll(np.resize(v, 24), 5), 0.10)
        window, _, coverage = blob(axis, x, y, np.pi / 4 * (4 + 3 * v[2]) ** 2, shape, 1 + 0.8 * v[3], 7 * v[4])
        density[HAEMATOXYLIN][window] += (0.9 + 0.9 * v[5]) * coverage


def expose(density, slide, um_per_px, u):
    """The photograph of a stained field: densities (4, S, S) → uint8 (3, S, S).

    slide: `gain` and `white` per channel, `blur` (sd, um), `noise` (sd of a channel that runs from 0 to 1).
    """
    size = density.shape[-1]
    light = np.exp(-np.tensordot(STAINS * np.float32(slide["gain"]), density, axes=(0, 0)))
    light *= np.float32(slide["white"])[:, None, None]
    blur = blur_matrix(size, round(max(0.2, slide["blur"] / um_per_px), 2))
    light = blur @ light @ blur.T
    for channel, place in zip(light, u.reshape(3, 2)):
        channel += np.float32(slide["noise"]) * crop(noise_field(0, um_per_px, size), size, place)
    return np.rint(255 * np.clip(light, 0, 1)).astype(np.uint8)
