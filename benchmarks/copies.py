"""How many planted copies the audit finds, and how many pairs it takes for copies that are none.

`python -m benchmarks.copies fashion|cells|textures [--copies N]` prints a table and the processor's seconds; with
`--embedding RUN` it looks by the features of that run's encoder, as the audit does: held-out images against all.
"""

import argparse
import io
import time
from functools import partial

import numpy as np
from PIL import Image

from ssl_core.data import load
from ssl_core.data.audit import parts_of
from ssl_core.data.copies import alike, near_copies


def picture(image):
    return Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))


def pixels(picture):
    array = np.asarray(picture)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def jpeg(image, quality):
    file = io.BytesIO()
    picture(image).save(file, "JPEG", quality=int(quality))
    return pixels(Image.open(file))


def contrast(image, factor):
    return np.clip((image - image.mean()) * factor + image.mean(), 0, 255).astype(np.uint8)


def crop(image, area, aspect, right, down):
    """A window of `area` (share) and `aspect` (width by height), at shares of the free way, back to full size."""
    size = image.shape[1]
    width, height = min(size, size * (area * aspect) ** 0.5), min(size, size * (area / aspect) ** 0.5)
    box = right * (size - width), down * (size - height)
    return pixels(picture(image).resize((size, size), Image.Resampling.BICUBIC,
                                        (*box, box[0] + width, box[1] + height)))


PLANTED = {
    "JPEG, quality 50": lambda x, r: jpeg(x, 50),
    "JPEG, quality 50 to 95": lambda x, r: jpeg(x, r.integers(50, 96)),
    "flipped left to right": lambda x, r: x[:, :, ::-1],
    "flipped upside down": lambda x, r: x[:, ::-1],
    "contrast 0.8": lambda x, r: contrast(x, 0.8),
    "contrast 1.2": lambda x, r: contrast(x, 1.2),
    "crop of 85 % of the area": lambda x, r: crop(x, 0.85, 1, *r.random(2)),
    "crop of 85 to 100 %": lambda x, r: crop(x, r.uniform(0.85, 1), 1, *r.random(2)),
    "crop of 87 %, aspect 0.93 to 1.08": lambda x, r: crop(x, 0.87, r.uniform(0.93, 1.08), *r.random(2)),
    "crop, contrast, flip and JPEG": lambda x, r: jpeg(
        contrast(crop(x, r.uniform(0.85, 1), 1, *r.random(2)), r.uniform(0.8, 1.2))[:, :, ::-1], r.integers(50, 96)),
}

UNSEEN = {  # by the hash
    "turned by 90°": lambda x, r: np.rot90(x, 1, (1, 2)),
    "turned by 90°, JPEG of quality 75": lambda x, r: jpeg(np.rot90(x, 1, (1, 2)), 75),
    "turned by 90°, contrast 0.8": lambda x, r: contrast(np.rot90(x, 1, (1, 2)), 0.8),
    "crop of 70 % of the area": lambda x, r: crop(x, 0.7, 1, *r.random(2)),
    "colours exchanged": lambda x, r: x[::-1],
}


def textures(n, size=300):
    """Grey textures (n, 1, size, size): noise whose spectrum falls with a power of the frequency between 0.5 and 2."""
    out = np.empty((n, 1, size, size), np.uint8)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)) + 0.01
    for i in range(n):
        rng = np.random.default_rng((0, i))
        steep = rng.uniform(0.5, 2)
        noise = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(size, size))) / frequency**steep, (size, size))
        out[i, 0] = np.clip(128 + rng.uniform(20, 50) * (noise - noise.mean()) / noise.std(), 0, 255)
    return out


def recall(images, copies, threshold=None, seed=0, kinds=PLANTED, look=near_copies):
    """{kind: share of planted copies that are found beside their original, of as many images for each kind}."""
    rng, n = np.random.default_rng(seed), len(images)
    copies = min(copies, n // len(kinds))
    source = rng.permutation(n)[:copies * len(kinds)]
    made = [change(images[i], rng) for change, some in zip(kinds.values(), source.reshape(len(kinds), -1))
            for i in some]
    pairs, _ = look(np.concatenate([images, made]), among=np.arange(n, n + len(made)), threshold=threshold)
    there = set(zip(pairs["first"], pairs["second"]))
    hit = np.array([(i, n + k) in there for k, i in enumerate(source.tolist())]).reshape(len(kinds), -1)
    return dict(zip(kinds, hit.mean(1).tolist()))


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.copies", description=__doc__.splitlines()[0])
    parser.add_argument("data", help="textures, or the name of a card")
    parser.add_argument("--copies", type=int, default=200, help="planted copies of each kind")
    parser.add_argument("--size", type=int, help="pixels of a side, instead of the card's")
    parser.add_argument("--embedding", metavar="RUN", help="look by the features of its encoder")
    given = parser.parse_args()
    data = None if given.data == "textures" else load(given.data, given.size)
    images = textures(1000) if data is None else np.asarray(data.images)
    kinds, look, among = PLANTED, near_copies, {}
    if given.embedding:
        from ssl_core.encoders import load_encoder
        from ssl_core.evaluate.features import extract
        from ssl_core.finished import encoder_below

        kinds = UNSEEN if images.shape[1] == 3 else {kind: UNSEEN[kind] for kind in list(UNSEEN)[:-1]}
        look = partial(alike, describe=partial(extract, load_encoder(encoder_below(given.embedding))))
        parts = parts_of(data)
        among = {"among": np.concatenate([parts["val"], parts["test"]]),
                 "groups": data.groups if data.grouped else None}
    wall, processor = time.perf_counter(), time.process_time()
    pairs, threshold = look(images, **among)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(f"{given.data}: {len(images):,} images, threshold {threshold:.4f}; {len(pairs)} pairs as they are; "
          f"{processor:.0f} s of processor, {wall:.0f} s by the clock", flush=True)
    print(pairs.head(10).to_string(), flush=True)
    for kind, share in recall(images, given.copies, threshold, kinds=kinds, look=look).items():
        print(f"| {kind} | {share:.1%} |")


if __name__ == "__main__":
    main()
