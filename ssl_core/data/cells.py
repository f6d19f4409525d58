"""`cells`: a synthetic Pap-smear world in which everything about an image is known.

One cell per image, of eight kinds after the Bethesda criteria, on slides that differ in stain and optics. What tells
the kinds apart is nuclear area against an intermediate cell's 35 um² among mature cells, the nucleus-to-cytoplasm ratio
among immature ones, then chromatin, outline and colour. Everything else (slide, debris, neighbours, place, noise) is
drawn without regard to the kind. Image i depends on the arguments and (seed, i) alone: not on n, nor on the machine.
Results on these images say that a method recovers the rules below; they say nothing about patients.

Criteria: Nayar & Wilbur, The Bethesda System for Reporting Cervical Cytology, 3rd ed., 2015, as round numbers.
"""

import numpy as np
import pandas as pd
from scipy.special import factorial, gammaincinv, ndtri

from ssl_core.data.cell_drawing import draw_background, draw_cell, draw_debris, expose, uniforms
from ssl_core.data.images import ImageSet

FIELD = 57.6  # um across, at any size: 64 px of 0.9 um, 96 px of 0.6 um
CELLS = ("superficial", "intermediate", "parabasal", "ASC-US", "LSIL", "ASC-H", "HSIL", "SCC")
NILM = 3  # the first three kinds are normal

# Means per kind. area_sd is of the logarithm; halo to nucleolus are probabilities; cyan, pink, orange the shares of the
# stains, thickness their density in the cytoplasm; corners says how polygonal a cell is.
RECIPE = pd.DataFrame(
    [   # area    sd  diam sd  irreg    od  contr grain elong  halo    bi multi  nucl  cyan  pink orange thick corners
        (  22, 0.18, 46.0, 5, 0.030, 1.50, 0.05, 0.8, 1.15, 0.00, 0.01, 0.00, 0.00, 0.15, 0.80, 0.05, 0.30, 1.0),
        (  35, 0.18, 40.0, 5, 0.040, 0.85, 0.12, 0.8, 1.15, 0.00, 0.02, 0.00, 0.00, 0.75, 0.25, 0.00, 0.30, 1.0),
        (  50, 0.20, 20.0, 3, 0.040, 0.85, 0.14, 0.8, 1.10, 0.00, 0.02, 0.00, 0.00, 0.95, 0.05, 0.00, 0.50, 0.2),
        (  95, 0.20, 40.0, 5, 0.045, 1.00, 0.15, 0.9, 1.15, 0.08, 0.08, 0.00, 0.00, 0.60, 0.35, 0.05, 0.30, 1.0),
        ( 145, 0.25, 40.0, 5, 0.055, 1.20, 0.20, 1.0, 1.20, 0.45, 0.21, 0.04, 0.00, 0.55, 0.40, 0.05, 0.30, 1.0),
        (  95, 0.25, 22.0, 3, 0.055, 1.25, 0.20, 1.0, 1.20, 0.00, 0.05, 0.00, 0.01, 0.88, 0.10, 0.02, 0.50, 0.2),
        ( 120, 0.30, 18.5, 3, 0.075, 1.50, 0.30, 1.1, 1.25, 0.00, 0.05, 0.00, 0.02, 0.85, 0.10, 0.05, 0.50, 0.2),
        ( 150, 0.55, 26.0, 8, 0.100, 2.00, 0.50, 1.6, 2.20, 0.00, 0.05, 0.01, 0.25, 0.15, 0.35, 0.50, 0.70, 0.5),
    ],
    index=CELLS,
    columns="area area_sd diameter diameter_sd irregularity od contrast grain elongation halo binucleate multinucleate "
    "nucleolus cyan pink orange thickness corners".split(),
)  # fmt: skip
NEIGHBOURS = {  # kinds that a reader confuses: difficulty moves each towards the mean of its neighbours
    "superficial": ["intermediate"], "intermediate": ["superficial", "ASC-US"], "parabasal": ["ASC-H"],
    "ASC-US": ["intermediate", "LSIL"], "LSIL": ["ASC-US"], "ASC-H": ["parabasal", "HSIL"], "HSIL": ["ASC-H", "SCC"],
    "SCC": ["HSIL"],
}  # fmt: skip
GRADED_AS = np.array([0, 1, 2, 4, 3, 6, 5, 7])  # the kind that graders mistake each for: ASC-US/LSIL, ASC-H/HSIL

PROFILES = {  # images per kind; where a source counts NILM as one, 25 : 65 : 10
    "balanced": (1, 1, 1, 1, 1, 1, 1, 1),
    "cric": (1695, 4406, 678, 606, 1360, 925, 1703, 161),  # CRIC's 6,779 NILM to 161 SCC: ratio 42
    "screening": (23040, 59904, 9216, 4500, 2500, 300, 500, 40),  # of 100,000 screened: 92 % NILM
}
SIGNS = {  # the multilabel view: what a cytologist would tick, read off the drawn truth
    "large nucleus": lambda t: t.nuclear_area > 3 * 35,
    "high N:C": lambda t: t.nc > 0.25,  # the nucleus is wider than half the cell
    "hyperchromasia": lambda t: (t.nuclear_od > 1.35) & (t.nuclear_area > 35),  # pyknosis is dark, but small
    "irregular outline": lambda t: t.irregularity > 0.065,
    "coarse chromatin": lambda t: t.contrast > 0.40,
    "keratinised": lambda t: t.orange > 0.30,
    "halo": lambda t: t.halo,
    "binucleate": lambda t: t.n_nuclei > 1,
    "nucleolus": lambda t: t.nucleolus,
    "multinucleate": lambda t: t.n_nuclei > 2,
}
VIEWS = {  # classes, and the position of each kind among them
    "multiclass": (CELLS, range(8)),
    "bethesda": (("NILM", *CELLS[NILM:]), (0, 0, 0, 1, 2, 3, 4, 5)),
    "binary": (("NILM", "abnormal"), (0, 0, 0, 1, 1, 1, 1, 1)),
    "hsil": (("below HSIL", "HSIL+"), (0, 0, 0, 0, 0, 0, 1, 1)),
    "multilabel": (tuple(SIGNS), None),
}
NUISANCES = ("slide", "x", "y", "angle", "debris", "neighbour")  # columns of the truth that know nothing of the kind

# Uniform numbers that an image consumes, by stream and name: always the same count, in this order.
CELL, NEIGHBOUR, SCENE, SLIDE, PART = range(5)
OF_CELL = dict(
    area=1, diameter=1, irregularity=1, od=1, contrast=1, elongation=1, angle=1, thickness=1, nuclei=1, halo=1,
    halo_size=1, has_nucleolus=1, mix=3, place=2, texture=2, nucleolus=2, nucleus_outline=24, cell_outline=24,
)  # fmt: skip
OF_SCENE = dict(
    slide=1, x=1, y=1, debris=1, flip=1, neighbour=1, neighbour_kind=1, neighbour_turn=1, neighbour_far=1, mucus=2,
    sensor=6, specks=96,
)  # fmt: skip


def named_uniforms(seed, stream, index, widths):
    """Uniforms of one image, (width,) by name, or of many, (N, width); a width of 1 is dropped."""
    keys, width = np.atleast_1d(index), sum(widths.values())
    u = np.stack([uniforms(seed, stream, int(i), width=width) for i in keys]) if len(keys) else np.empty((0, width))
    pieces = np.split(u if np.ndim(index) else u[0], np.cumsum(list(widths.values()))[:-1], axis=-1)
    return {name: p[..., 0] if p.shape[-1] == 1 else p for name, p in zip(widths, pieces)}


def normal(u):
    """Standard normal deviates from uniforms, cut at 2.5 so that no cell is a freak."""
    return np.clip(ndtri(u), -2.5, 2.5)


def recipe(difficulty):
    """RECIPE with each mean moved towards its neighbours' (areas as logarithms), 60 % of the way at difficulty 1."""
    table = RECIPE.assign(area=np.log(RECIPE.area))
    near = pd.DataFrame({kind: table.loc[names].mean() for kind, names in NEIGHBOURS.items()}).T
    table = table + 0.6 * difficulty * (near - table)
    return table.assign(area=np.exp(table.area)).round(4)


def traits(kinds, u, difficulty=0.0):
    """What cells of these kinds, (N,) positions in CELLS, are like: one row each, areas in um². u: see OF_CELL.

    Rounded to four decimals, so that no label and no outline hangs on the last bit of a machine's exp.
    """
    r = recipe(difficulty).iloc[kinds].reset_index(drop=True)
    n_nuclei = 1 + (u["nuclei"] < r.binucleate + r.multinucleate) + (u["nuclei"] < r.multinucleate)
    nuclear_area = r.area * np.exp(r.area_sd * normal(u["area"]))
    diameter = np.maximum(r.diameter + r.diameter_sd * normal(u["diameter"]), 10)
    fits = np.where(n_nuclei == 1, 0.7, 0.45)  # of a cell's area; two discs side by side cover half of a third
    cell_area = np.maximum(np.pi / 4 * diameter**2, n_nuclei * nuclear_area / fits)
    halo = np.minimum((1.7 + 0.6 * u["halo_size"]) ** 2 * nuclear_area * (0.5 + 0.5 * n_nuclei), 0.5 * cell_area)
    elongation = 1 + (r.elongation - 1) * np.exp(0.35 * normal(u["elongation"]))
    alpha = 8 * r[["cyan", "pink", "orange"]].to_numpy()
    gamma = gammaincinv(np.maximum(alpha, 1e-3), u["mix"]) * (alpha > 0)  # three of them, normalised: a Dirichlet
    cyan, pink, orange = (gamma / gamma.sum(1, keepdims=True)).T
    return pd.DataFrame({
        "nuclear_area": nuclear_area, "cell_area": cell_area, "nc": n_nuclei * nuclear_area / cell_area,
        "nuclear_od": r.od * np.exp(0.12 * normal(u["od"])),
        "contrast": r.contrast * np.exp(0.2 * normal(u["contrast"])),
        "irregularity": r.irregularity * np.exp(0.25 * normal(u["irregularity"])), "elongation": elongation,
        "n_nuclei": n_nuclei, "halo": u["halo"] < r.halo, "nucleolus": u["has_nucleolus"] < r.nucleolus,
        "cyan": cyan, "pink": pink, "orange": orange, "thickness": r.thickness * np.exp(0.2 * normal(u["thickness"])),
        "grain": r.grain.round(1), "corners": r.corners, "stretch": 1 + 0.9 * (elongation - 1) / n_nuclei,
        "angle": 2 * np.pi * u["angle"], "halo_area": halo,
    }).round(4)  # fmt: skip


def kinds_of(n, seed, profile):
    """Which cell each image shows, (n,) positions in CELLS: the profile's shares, met to a few images at any n."""
    ends = np.cumsum(PROFILES[profile]).tolist()
    edges = np.array([end * 2**64 // ends[-1] for end in ends[:-1]], np.uint64)
    start, golden = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(), np.uint64(0x9E3779B97F4A7C15)
    turns = np.arange(n, dtype=np.uint64) * golden + np.uint64(start)  # golden steps around a circle of 2**64
    return np.searchsorted(edges, turns, side="right")


def slide_table(seed, slides):
    """What each slide does to its images: `slides` rows; `test` marks the quarter that is the official test part."""
    u = np.stack([uniforms(seed, SLIDE, k, width=9) for k in range(slides)])
    rank = np.argsort(np.argsort(uniforms(seed, PART, slides, width=slides)))
    gain, white = np.exp(0.15 * normal(u[:, 0:3])).round(4), (0.93 + 0.015 * normal(u[:, 3:6])).round(4)
    return pd.DataFrame({
        "gain": list(gain), "white": list(white),  # each (R, G, B)
        "blur": (0.18 + 0.42 * u[:, 6]).round(4), "noise": (0.008 + 0.017 * u[:, 7]).round(4),
        "debris": (-0.7 * np.log(u[:, 8])).round(4), "test": rank < max(1, round(slides / 4)),
    })  # fmt: skip


def describe(n, seed=0, difficulty=0.0, slides=40, profile="balanced"):
    """The truth about images 0 to n - 1 without drawing them: n rows.

    `kind` is what is drawn, `graded` what the label says (positions in CELLS); then the cell's traits and NUISANCES.
    """
    kind, u = kinds_of(n, seed, profile), named_uniforms(seed, SCENE, np.arange(n), OF_SCENE)
    slide = (u["slide"] * slides).astype(np.int64)
    rate = slide_table(seed, slides).debris.to_numpy()[slide, None]
    poisson = np.cumsum(np.exp(-rate) * rate ** np.arange(6) / factorial(np.arange(6)), axis=1)
    flipped = u["flip"] < round(0.2 * max(0.0, difficulty - 0.5), 4)  # 5 % at difficulty 0.75, 10 % at 1
    scene = pd.DataFrame({
        "kind": kind, "graded": np.where(flipped, GRADED_AS[kind], kind), "slide": slide,
        "x": 5.4 * (u["x"] - 0.5), "y": 5.4 * (u["y"] - 0.5), "debris": (u["debris"][:, None] > poisson).sum(1),
        "neighbour": u["neighbour"] < 0.3,
    })  # fmt: skip
    return scene.join(traits(kind, named_uniforms(seed, CELL, np.arange(n), OF_CELL), difficulty)).round(4)


def neighbours_of(n, seed):
    """Traits of a normal mature cell beside each image's own, its middle 26 to 42 um away: n rows."""
    u = named_uniforms(seed, SCENE, np.arange(n), OF_SCENE)
    cells = traits((u["neighbour_kind"] < 0.5).astype(int), named_uniforms(seed, NEIGHBOUR, np.arange(n), OF_CELL))
    turn, far = 2 * np.pi * u["neighbour_turn"], 26 + 16 * u["neighbour_far"]
    return cells.assign(x=(far * np.cos(turn)).round(4), y=(far * np.sin(turn)).round(4))


def make_cells(n, size=64, seed=0, difficulty=0.0, view="multiclass", slides=40, profile="balanced", um_per_px=None,
               background=False):  # fmt: skip
    """Draw n cells: an ImageSet of uint8 (n, 3, size, size) images, slides as groups, the truth in its `table`.

    difficulty: 0 is the recipe, 1 moves kinds together and has graders confuse ASC-US/LSIL and ASC-H/HSIL in 10 %.
    view: a key of VIEWS, what the labels say. profile: a key of PROFILES, how often each kind is met.
    um_per_px: by default the field is 57.6 um wide at any size.
    background: leave out the cell, all else equal to the bit: on these images nothing may be learned.
    """
    for name, value, allowed in (("view", view, VIEWS), ("profile", profile, PROFILES)):
        if value not in allowed:
            raise ValueError(f"cells: {name} is {value!r}; allowed are {', '.join(allowed)}")
    if not 0 <= difficulty <= 1:
        raise ValueError(f"cells: difficulty is {difficulty}; it runs from 0 (the recipe) to 1")
    if n < 0 or size < 16 or seed < 0 or slides < 2:
        raise ValueError(f"cells: n={n}, size={size}, seed={seed}, slides={slides}; at least 0, 16, 0 and 2")
    um_per_px = round(FIELD / size if um_per_px is None else um_per_px, 4)
    if not 0.1 <= um_per_px <= 4:
        raise ValueError(f"cells: um_per_px is {um_per_px}; a cell shows between 0.1 and 4")
    truth, table = describe(n, seed, difficulty, slides, profile), slide_table(seed, slides)
    beside, slide_rows = neighbours_of(n, seed), table.to_dict("records")
    axis = ((np.arange(size) - (size - 1) / 2) * um_per_px).astype(np.float32)
    images = np.empty((n, 3, size, size), np.uint8)
    for i, (cell, neighbour) in enumerate(zip(truth.itertuples(), beside.itertuples())):
        scene = named_uniforms(seed, SCENE, i, OF_SCENE)
        density = draw_background(axis, scene["mucus"])
        if cell.neighbour:
            draw_cell(density, axis, neighbour, named_uniforms(seed, NEIGHBOUR, i, OF_CELL))
        if not background:
            draw_cell(density, axis, cell, named_uniforms(seed, CELL, i, OF_CELL))
        draw_debris(density, axis, cell.debris, scene["specks"].reshape(6, 16))
        images[i] = expose(density, slide_rows[cell.slide], um_per_px, scene["sensor"])

    classes, position = VIEWS[view]
    signs = view == "multilabel"
    labels = np.stack([sign(truth) for sign in SIGNS.values()], 1) if signs else np.array(position)[truth.graded]
    slide = truth.slide.to_numpy()
    return ImageSet(
        name="cells", images=images, labels=labels.astype(np.int64), classes=classes,
        groups=slide, group_names=tuple(f"slide {k:02d}" for k in range(slides)),
        part=np.where(table.test.to_numpy()[slide], "test", "train"),
        task="multilabel" if signs else "binary" if len(classes) == 2 else "multiclass",
        ordered=view == "bethesda", synthetic=True, paths=tuple(f"seed{seed}/{i:06d}" for i in range(n)), table=truth,
    )  # fmt: skip
