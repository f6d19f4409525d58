"""What all writers of rehearsals share: cells drawn on slides, parts by whole groups, image files, counts."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ssl_core.data.cell_drawing import uniforms
from ssl_core.data.cells import make_cells

ORDER = 11  # a stream of uniforms that no cell uses
FORMATS = {".png": {"compress_level": 1}, ".tif": {}, ".jpeg": {"quality": 95, "subsampling": 0}}


def draw(n, size, seed, slides, difficulty, um_per_px=None, profile="balanced"):
    """n cells → (uint8 images (n, S, S, 3), what is known of each: `kind` as its label says, `slide`, the truth)."""
    data = make_cells(n, size, seed, difficulty, slides=slides, profile=profile, um_per_px=um_per_px)
    known = data.table.assign(kind=data.labels)
    return data.images.transpose(0, 2, 3, 1), known.assign(k=known.groupby("slide").cumcount())


def shared(n, shares, seed, stream=0):
    """{name: share} → n names in an order drawn by `seed`, met as closely as n allows."""
    rank = np.argsort(np.argsort(uniforms(seed, ORDER, stream, width=n)))
    ends = np.round(np.cumsum(list(shares.values())) / sum(shares.values()) * n)
    return np.array(list(shares), object)[np.searchsorted(ends, rank, side="right")]


def save(folder, images, paths):
    """Image files of uint8 arrays (S, S, 3), or (S, S) where grey, below `folder`; the suffix says which kind."""
    for parent in {Path(folder, path).parent for path in paths}:
        parent.mkdir(parents=True, exist_ok=True)
    for image, path in zip(images, paths):
        Image.fromarray(image).save(Path(folder, path), **FORMATS[Path(path).suffix])


def grey(images):
    """RGB → the luminance that Pillow gives, so that a file holds what a reader of grey images sees."""
    return [np.asarray(Image.fromarray(image).convert("L")) for image in images]


def write_list(path, lines):
    """A text file of these lines."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def counts(label, group, part=()):
    """What a card's `expected` says of images with these labels (class, "a|b" or ""), groups and parts."""
    words = pd.Series(label, dtype=object).str.split("|").explode()
    return {
        "images": len(label),
        "groups": len(set(group)),
        "parts": pd.Series(part, dtype=object).value_counts().to_dict(),
        "classes": words[words != ""].value_counts().to_dict(),
    }
