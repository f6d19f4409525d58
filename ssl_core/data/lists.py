"""Published lists that narrow a pool: a card's `only` names a file for `unlabelled`, for `labelled`, or for both.

A .npy file holds positions in the data set's own order, which for array files begins with the training part; any other
holds paths, one a line, read as the card's own list is. In its name {draw_seed} and {ratio} stand for those of a split
(`split{draw_seed}_D_i.npy`, `ratio_1-{ratio:,}.txt`), so that one card serves all splits of a publication.
"""

import re

import numpy as np

from ssl_core.data.layouts import paths_of, read_table
from ssl_core.data.places import absent

FIELD = re.compile(r"{(draw_seed|ratio)(:[^}]*)?}")


def read_only(folder, card, paths):
    """{pool: {file: bool (N,), the images of `paths` that it names}}; every file that fits the card's name is read."""
    place, only = None, {}
    for pool, name in card.only:
        if not name:
            continue
        files = sorted(path.relative_to(folder).as_posix() for path in folder.glob(FIELD.sub("*", name)))
        if not files:
            raise absent("only", name, folder)
        place = place or {path: i for i, path in enumerate(paths)}
        only[pool] = {file: read_list(folder, file, card, place) for file in files}
    return only


def read_list(folder, name, card, place):
    """One list as bool (N,). place: {path: position} of all images."""
    mask = np.zeros(len(place), bool)
    if name.endswith(".npy"):
        try:
            positions = np.load(folder / name, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"only: {name} is broken ({error}); fetch it again") from None
        if positions.ndim != 1 or positions.dtype.kind not in "iu":
            raise ValueError(f"only: {name} is {positions.dtype} {positions.shape}; expected positions, integers (n,)")
        low, high = positions.min(initial=0), positions.max(initial=0)
        if not 0 <= low <= high < len(mask):
            raise ValueError(f"only: {name} holds {low} to {high}, and there are {len(mask)} images")
    else:
        card = card if card.kind == "csv" else card.model_copy(update={"columns": ["path"], "path": "path"})
        named = paths_of(read_table(folder, name, card), card, name)
        odd = [path for path in named if path not in place]
        if odd:
            raise ValueError(f"only: {len(odd)} of {len(named)} paths in {name} are no images of this set, as {odd[0]}")
        positions = np.array([place[path] for path in named], np.int64)
    mask[positions] = True
    if mask.sum() < len(positions):
        raise ValueError(f"only: {name} names {len(positions) - mask.sum()} images twice")
    return mask


def allowed(data, pool, draw_seed, ratio):
    """Bool (N,): the images that the card lets into a pool; all where it names no list."""
    if pool not in data.only:
        return np.ones(len(data), bool)
    ratio = int(ratio) if ratio == int(ratio) else ratio
    name = data.card["only"][pool].format(draw_seed=draw_seed, ratio=ratio)
    if name not in data.only[pool]:
        raise ValueError(f"{data.name}: only: there is no {name}; there are {', '.join(sorted(data.only[pool]))}")
    return data.only[pool][name]
