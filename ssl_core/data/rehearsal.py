"""Rehearsals: stand-ins for published data sets, written in the original's layout and read through its real card.

A card of kind `rehearsal` names the card that it rehearses and what the images are made of. The tree is written once,
to `rehearsals/NAME-KEY/` in the cache folder, and the published card then reads it as it would read the original. What
is read bears the rehearsal's name, never the original's, and its counts are those that were written.
"""

import hashlib
import inspect
import json
import shutil

from filelock import FileLock

from ssl_core.config import ConfigError
from ssl_core.data import cell_drawing, cells, rehearsal_cifar, rehearsal_patients, rehearsal_tissue, rehearsal_trees
from ssl_core.files import atomic_json, cache, naming_full_disk, sha256_file

CELLS, FASHION = ("cells",), ("fashion", "fashion_full")
WRITERS = {  # card that is rehearsed: what writes its tree, and what the images may be made of
    "cytology_lists": (rehearsal_tissue.cytology, CELLS),
    "pnu": (rehearsal_tissue.pnu, CELLS),
    "paip": (rehearsal_tissue.paip, CELLS),
    "bhi_lists": (rehearsal_tissue.bhi, CELLS),
    "breakhis": (rehearsal_tissue.breakhis, CELLS),
    "kather2016": (rehearsal_tissue.kather, CELLS),
    "chestxray14": (rehearsal_patients.chestxray14, CELLS),
    "eyepacs": (rehearsal_patients.eyepacs, CELLS),
    "pneumonia": (rehearsal_patients.pneumonia, CELLS),
    "cifar10": (rehearsal_cifar.cifar10, FASHION),
    "cifar100": (rehearsal_cifar.cifar100, FASHION),
}
CODE = (cells, cell_drawing, rehearsal_trees, rehearsal_tissue, rehearsal_patients, rehearsal_cifar)


def check(card, path):
    """A ConfigError of one line where a card's `rehearses`, `made` or `synthetic` is amiss."""
    if card.rehearses not in WRITERS:
        raise ConfigError(f"{path}: rehearses: {card.rehearses!r} is none of {', '.join(WRITERS)}")
    write, sources = WRITERS[card.rehearses]
    source = card.made.get("from")
    if source not in sources:
        raise ConfigError(f"{path}: made: from is {source!r}; {card.rehearses} is made from {' or '.join(sources)}")
    parameters = inspect.signature(write).parameters.items()
    allowed = {"from": "", **{name: p.default for name, p in parameters if p.kind is p.KEYWORD_ONLY}}
    unknown = [name for name in card.made if name not in allowed]
    missing = [name for name in allowed if allowed[name] is inspect.Parameter.empty and name not in card.made]
    if unknown or missing:
        wrong = f"{unknown[0]}: unknown key" if unknown else f"{missing[0]}: missing"
        raise ConfigError(f"{path}: made: {wrong}; allowed are {', '.join(allowed)}")
    if card.synthetic != (source == "cells"):
        raise ConfigError(f"{path}: synthetic: made from {source}, so it is {str(source == 'cells').lower()}")


def written(name, card, images=None):
    """The folder that holds a rehearsal's tree, and its counts, as a card's `expected` has them.

    images: the ImageSet that it is made from, where that is not drawn. Written whole or not at all.
    """
    write, _ = WRITERS[card.rehearses]
    arguments = {key: value for key, value in card.made.items() if key != "from"}
    state = [card.rehearses, card.image_size, sorted(card.made.items()), "" if images is None else images.fingerprint]
    state += [sha256_file(module.__file__) for module in CODE]
    folder = cache() / "rehearsals" / f"{name}-{hashlib.sha256(repr(state).encode()).hexdigest()[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            print(f"{name}: writing its images in the layout of {card.rehearses}, once", flush=True)
            half = folder.with_name(f".{folder.name}.tmp")
            shutil.rmtree(half, ignore_errors=True)  # of a process that was killed
            half.mkdir()
            try:
                with naming_full_disk(half):
                    atomic_json(half / "expected.json", write(half, card.image_size if images is None else images,
                                                              **arguments))  # fmt: skip
                    half.rename(folder)
            except ValueError as error:
                raise ConfigError(f"{name}: made: {error}") from None
    return folder, json.loads((folder / "expected.json").read_text(encoding="utf-8"))
