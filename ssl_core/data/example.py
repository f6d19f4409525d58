"""An example of what a first folder of images often looks like: synthetic cells, few labels, names, and two mishaps."""

from pathlib import Path

import numpy as np
from PIL import Image

from ssl_core.data.cells import make_cells


def write_example(folder, n=480, positives=15, negatives=225) -> Path:
    """Class folders and `unlabelled/` with n synthetic cells, named by slide, and two copies too many → the folder.

    One copy lies under the other class, one under another slide and without its label: mishaps for a census to find.
    """
    folder = Path(folder)
    data = make_cells(n, size=64, seed=0, view="hsil", slides=24, profile="cric")
    home = np.full(n, "unlabelled", object)
    for c, k in ((0, negatives), (1, positives)):
        home[np.flatnonzero(data.labels == c)[:k]] = data.classes[c]
    names = [f"{place}/slide{slide:02d}_{i:04d}.png" for i, (place, slide) in enumerate(zip(home, data.groups))]
    common, rare = np.flatnonzero(home == data.classes[0]), np.flatnonzero(home == data.classes[1])
    files = [*zip(names, data.images), (names[rare[0]].replace(data.classes[1], data.classes[0]), data.images[rare[0]]),
             (f"unlabelled/slide{(data.groups[common[0]] + 1) % 24:02d}_copy.png", data.images[common[0]])]
    for name, image in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / name)
    return folder
