"""Near duplicates: images that show the same thing again, re-encoded, flipped, with other contrast, or cropped.

Three steps, all on grey thumbnails of 28 × 28. The hash of an image is its 8 × 8 lowest DCT frequencies, as a
perceptual hash has them, but kept as numbers: normalised (brightness and contrast cancel) and divided by how far each
varies over the data, so that what all images share counts little. Flips only change signs. Hashes of every image are
compared with those of thirteen crops of every other, by products of matrices. The nearest eight of each image are then
aligned (Gauss-Newton over scale and shift of both axes), and scored by the correlation of 10 × 10 frequencies.
An encoder's features may be asked as well (`alike`); they see quarter turns, which the hash does not.

What passes for a copy follows from the data: see `cut`.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from scipy.fft import dct

T, LOW, FINE = 28, 8, 10  # pixels of a thumbnail; frequencies per axis of the search and of the score
NEAREST, ROWS, PAIRS = 8, 128, 256  # candidates per image; images and pairs at a time, so that a cache holds them
FLAT = 2.0  # grey levels: a thumbnail that varies less shows nothing that could be compared
STRICT, LOOSE = 0.985, 0.96  # the threshold stays between them
ALIKE = 0.5, 0.99  # and that of features between these
CROPS = np.array([(1, 0, 1, 0)] + [(side, (1 - side) * y, side, (1 - side) * x) for side, steps in
                 ((0.96, (0, 1)), (0.925, (0, 0.5, 1))) for y in steps for x in steps], np.float32)  # fmt: skip
# of rows, then of columns: scale and start, as shares of the side
AT = ((np.arange(T) + 0.5) / T).astype(np.float32)
BASIS = dct(np.eye(T), norm="ortho", axis=0).astype(np.float32)
ODD = np.arange(LOW * LOW) // LOW % 2 * 2 + np.arange(LOW * LOW) % LOW % 2  # 1 odd in x, 2 in y, 3 in both
ORDER = np.argsort(ODD, kind="stable")[1:]  # frequencies of one parity side by side, without the mean
PARITIES = [np.flatnonzero(ODD[ORDER] == odd) for odd in range(4)]
PARITIES = [slice(one[0], one[-1] + 1) for one in PARITIES]
SIGNS = np.array([[(-1.0) ** (flip & odd).bit_count() for odd in ODD[ORDER].tolist()] for flip in range(4)], np.float32)


def near_copies(images, groups=None, among=None, threshold=None):
    """uint8 (N, C, S, S) → DataFrame first, second, score of near duplicates, best first, and the threshold.

    groups: (N,), pairs within one are not looked for. among: positions of which one must be in each pair; None: all.
    threshold: None takes `cut` of the scores. Time grows with N · len(among).
    """
    small = thumbnails(images)
    groups = np.arange(len(small)) if groups is None else np.asarray(groups)
    shown = np.flatnonzero(small.std((1, 2)) >= FLAT)
    among = shown if among is None else np.intersect1d(among, shown)
    if len(shown) < 2 or not len(among):
        return pd.DataFrame(columns=["first", "second", "score"]), STRICT
    found = candidates(small, groups, shown, among)
    spread = spread_of(small[shown], FINE)
    blocks = [found[start:start + PAIRS] for start in range(0, len(found), PAIRS)]
    scores = np.concatenate(in_threads(lambda block: score(small, block, spread), blocks))
    return passing(found[:, :2], scores, among, threshold)


def passing(found, scores, among, threshold=None, low=LOOSE, high=STRICT):
    """Candidates (p, 2) with their scores (p,) → those that pass for copies, best first, and the threshold."""
    pairs = pd.DataFrame({"first": found.min(1), "second": found.max(1), "score": scores})
    pairs = pairs.sort_values(["score", "first", "second"], ascending=[False, True, True])
    pairs = pairs.drop_duplicates(["first", "second"])
    both = pd.concat([pairs.set_index("first").score, pairs.set_index("second").score])
    best = both.groupby(level=0).max().reindex(among).fillna(-1).to_numpy()
    threshold = cut(best, low, high) if threshold is None else threshold
    return pairs[pairs.score >= threshold].reset_index(drop=True), threshold


def alike(images, describe, groups=None, among=None, threshold=None):
    """As `near_copies`, by features: `describe` takes uint8 (n, C, S, S) to float (n, D), by a trained encoder.

    The score is the cosine of features that are centred and decorrelated over the data, as those of a network point
    much the same way. The images of `among` are looked at in eight orientations, quarter turns of both mirror images.
    """
    groups = np.arange(len(images)) if groups is None else np.asarray(groups)
    shown = np.flatnonzero(thumbnails(images).std((1, 2)) >= FLAT)
    among = shown if among is None else np.intersect1d(among, shown)
    if len(shown) < 2 or not len(among):
        return pd.DataFrame(columns=["first", "second", "score"]), ALIKE[1]
    h = describe(images[shown])
    values, vectors = np.linalg.eigh(np.cov(h.T))
    white, mean = vectors / np.sqrt(np.maximum(values, 1e-4 * values.max() + 1e-12)), h.mean(0)
    turned = [describe(np.ascontiguousarray(np.rot90(images[among][..., ::mirror], turn, (2, 3))))
              for mirror in (1, -1) for turn in range(4)]
    every, *turned = [unit((x - mean) @ white).astype(np.float32) for x in (h, *turned)]
    nearest = min(NEAREST, len(shown) - 1)

    def search(mine):
        """Nearest of the rows `mine` of `among`, by the orientation that is most alike: pairs (p, 2), scores (p,)."""
        score = np.max([one[mine] @ every.T for one in turned], 0)
        score[groups[among[mine]][:, None] == groups[shown]] = -2
        near = np.argpartition(-score, nearest - 1, axis=1)[:, :nearest]
        pairs = np.stack([np.repeat(among[mine], nearest), shown[near.ravel()]], 1)
        score = np.take_along_axis(score, near, 1).ravel()
        return pairs[score > -2], score[score > -2]

    found = in_threads(search, np.array_split(np.arange(len(among)), -(-len(among) // ROWS)))
    return passing(*map(np.concatenate, zip(*found)), among, threshold, *ALIKE)


def cut(best, low=LOOSE, high=STRICT):
    """Threshold of the score, from that of each image with the image most like it in another group, (n,).

    The logarithm of 1 − score is taken as normal, with mean and spread from the median and the tenth of the images that
    have the nearest neighbours, so that some copies among them change little; beyond the threshold lies one image in
    2,000. It stays between `low` and `high`; with fewer than 50 images it is `high`.
    """
    if len(best) < 50:
        return high
    middle, near = np.quantile(np.log(np.maximum(1 - best, 1e-6)), [0.5, 0.1])
    return float(np.clip(1 - np.exp(middle - 3.29 * (middle - near) / 1.2816), low, high))


def in_threads(work, items):
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        return list(threads.map(work, items))


# --- thumbnails and hashes --------------------------------------------------------------------------------------------

def thumbnails(images):
    """uint8 (N, C, S, S) → float32 (N, T, T), grey, each pixel the mean of the area below it."""
    n, channels, size, _ = images.shape
    edges, i = np.linspace(0, size, T + 1)[:, None], np.arange(size)
    area = (np.clip(np.minimum(edges[1:], i + 1) - np.maximum(edges[:-1], i), 0, 1) * T / size).astype(np.float32)
    grey = np.float32([1] if channels == 1 else [0.299, 0.587, 0.114])
    out = np.empty((n, T, T), np.float32)
    for start in range(0, n, ROWS):
        block = np.asarray(images[start:start + ROWS])
        out[start:start + ROWS] = area @ np.einsum("nchw,c->nhw", block, grey) @ area.T
    return out


def frequencies(small, rows, columns):
    """Thumbnails (n, T, T) → their frequencies after the maps `rows` and `columns`, (n, k²), unit norm without mean."""
    found = (rows @ small @ columns).reshape(len(small), -1)
    found[:, 0] = 0
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)


def spread_of(small, k):
    """How far each frequency varies over the data, (k²,), not below a fiftieth of the most."""
    spread = frequencies(small, BASIS[:k], BASIS[:k].T).std(0)
    return np.maximum(spread, 0.02 * spread.max()) + 1e-6


def unit(values):
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)


def sampling(scale, start):
    """Linear interpolation at `scale` · position + `start`: (p,), (p,) → (p, T, T), from pixels to samples."""
    at = np.clip((scale[:, None] * AT + start[:, None]) * T - 0.5, 0, T - 1)
    return np.maximum(0, 1 - np.abs(at[:, :, None] - np.arange(T, dtype=np.float32)))


# --- candidates -------------------------------------------------------------------------------------------------------

def candidates(small, groups, shown, among):
    """The NEAREST of each image of `among`: int (pairs, 4), which is the crop, of which, number in CROPS, and flip."""
    spread, maps = spread_of(small[shown], LOW), [sampling(CROPS[:, at], CROPS[:, at + 1]) for at in (0, 2)]
    crops = np.stack([unit((frequencies(small[shown], BASIS[:LOW] @ y, (BASIS[:LOW] @ x).T) / spread)[:, ORDER])
                      for y, x in zip(*maps)])
    rows, sides = np.searchsorted(shown, among), (0,) if len(among) == len(shown) else (0, 1)
    nearest = min(NEAREST, len(shown) - 1)

    def search(mine):
        """Nearest images of the rows `mine`: the larger of all crops and flips, with either image as the crop."""
        most = np.full((len(mine), len(shown)), -1, np.float32)
        for side in sides:
            for crop in range(side, len(CROPS)):
                pair = (crops[0, mine], crops[crop]) if side == 0 else (crops[crop, mine], crops[0])
                a, b, c, d = (pair[0][:, one] @ pair[1][:, one].T for one in PARITIES)
                np.maximum(most, a + b + np.abs(c + d), out=most)
                np.maximum(most, a - b + np.abs(c - d), out=most)
        most[groups[shown[mine]][:, None] == groups[shown]] = -2
        most[np.arange(len(mine)), mine] = -2
        near = np.argpartition(-most, nearest - 1, axis=1)[:, :nearest]
        one, other = np.repeat(mine, nearest), near.ravel()
        return np.stack([one, other], 1)[np.take_along_axis(most, near, 1).ravel() > 0]

    pairs = np.concatenate(in_threads(search, np.array_split(rows, -(-len(rows) // ROWS))))
    if len(sides) == 1:  # found from one side, to be looked at from both
        pairs = np.unique(np.sort(pairs, 1), axis=0)
    return np.concatenate([best_start(crops, pairs[start:start + 4 * PAIRS], shown)
                           for start in range(0, len(pairs), 4 * PAIRS)] or [np.empty((0, 4), int)])


def best_start(crops, pairs, shown):
    """(p, 2) places in `shown` → (p, 4): the one that is the crop, the other, and the crop and flip that fit best."""
    found = []
    for part, whole in (pairs.T, pairs.T[::-1]):
        fit = crops[0, part][:, None] * SIGNS @ crops[:, whole].transpose(1, 2, 0)  # (p, flips, crops)
        best = (fit := fit.reshape(len(pairs), -1)).argmax(1)
        found.append((fit[np.arange(len(pairs)), best], part, whole, best % len(CROPS), best // len(CROPS)))
    turned = found[1][0] > found[0][0]
    part, whole, crop, flip = (np.where(turned, b, a) for a, b in zip(found[0][1:], found[1][1:]))
    return np.stack([shown[part], shown[whole], crop, flip], 1)


# --- alignment --------------------------------------------------------------------------------------------------------

def score(small, found, spread):
    """Correlation, in [−1, 1], of aligned pairs: candidates (p, 4) → (p,)."""
    part, whole, flip = small[found[:, 0]], small[found[:, 1]], found[:, 3]
    part = np.where((flip & 1).astype(bool)[:, None, None], part[:, :, ::-1], part)
    part = np.where((flip & 2).astype(bool)[:, None, None], part[:, ::-1], part)
    window = align(part, whole, CROPS[found[:, 2]])
    maps = sampling(*window[:, :2].T), sampling(*window[:, 2:].T).transpose(0, 2, 1)
    one = frequencies(part, BASIS[:FINE], BASIS[:FINE].T)
    other = frequencies(whole, BASIS[:FINE] @ maps[0], maps[1] @ BASIS[:FINE].T)
    return (unit(one / spread) * unit(other / spread)).sum(1)


def align(part, whole, window, steps=4):
    """The window of `whole` (scale and start of rows, of columns; (p, 4)) in which it fits `part` best.

    Least squares over the window and a linear map of brightness, by Gauss-Newton with a little damping.
    """
    target = unit((part - part.mean((1, 2), keepdims=True)).reshape(len(part), -1))
    for _ in range(steps):
        now = sampling(*window[:, :2].T) @ whole @ sampling(*window[:, 2:].T).transpose(0, 2, 1)
        now = unit((now - now.mean((1, 2), keepdims=True)).reshape(len(now), -1)).reshape(now.shape)
        down, right = np.gradient(now, 1 / T, axis=(1, 2))
        down, right = down / window[:, 0, None, None], right / window[:, 2, None, None]
        slopes = np.stack([down * AT[:, None], down, right * AT, right, now, np.ones_like(now)], 1)
        slopes = slopes.reshape(len(now), 6, -1)
        normal = slopes @ slopes.transpose(0, 2, 1)
        normal += 1e-4 * np.trace(normal, axis1=1, axis2=2)[:, None, None] / 6 * np.eye(6, dtype=np.float32)
        left = (target - now.reshape(target.shape))[:, :, None]
        window = window + np.clip(np.linalg.solve(normal, slopes @ left)[:, :4, 0], -0.04, 0.04)
        window[:, 0::2] = np.clip(window[:, 0::2], 0.88, 1)
        window[:, 1::2] = np.clip(window[:, 1::2], 0, 1 - window[:, 0::2])
    return window
