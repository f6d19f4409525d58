"""Loading: the one way from a card to an ImageSet, `load`."""

import dataclasses
import inspect
import os
from pathlib import Path

import numpy as np

from ssl_core import files
from ssl_core.config import ConfigError
from ssl_core.data import store
from ssl_core.data.cards import Expected, card_path, read_card
from ssl_core.data.cifar import list_cifar
from ssl_core.data.encode import check_counts, count, encode_groups, encode_labels, encode_parts
from ssl_core.data.images import ImageSet
from ssl_core.data.layouts import LAYOUTS
from ssl_core.data.lists import read_only
from ssl_core.data.pixels import arrange
from ssl_core.data.places import absent, missing_images, package_folder

READERS = LAYOUTS | {"cifar": list_cifar}
FOR_PEOPLE = ("title", "get", "licence", "source", "citation", "synthetic")


def where_to_get(card):
    """What a card says to who lacks the data, to be put behind an error."""
    get = f"; {' '.join(card.get.split())}" if card.get else ""
    return get + (f"; licence: {' '.join(card.licence.split())}" if card.licence else "")


def data_folder(card, path):
    """The first folder of `root` that exists and holds the card's file, or a FileNotFoundError."""
    roots = [card.root] if isinstance(card.root, str) else card.root
    folders = [
        package_folder(root)
        if root.startswith("package:")
        else Path(os.path.normpath(path.parent / os.path.expandvars(os.path.expanduser(root))))
        for root in roots
    ]
    there = [folder.resolve() for folder in folders if folder.is_dir()]
    if not there:
        raise FileNotFoundError(f"root: there is no {' or '.join(map(str, folders))}")
    name = card.file if isinstance(card.file, str) else ""
    return next((folder for folder in there if (folder / name).exists()), there[0])


def check_files(folder, card, paths):
    """FileNotFoundError when files of a list are not there: known before hours of decoding."""
    if missing := missing_images(folder, card, paths):
        raise FileNotFoundError(
            f"path: {len(missing):,} of the {len(paths):,} files listed are not in {folder / card.lmdb}, the first is "
            f"{missing[0]}"
        )


def load(name_or_path, size=None):
    """The data set of a card, by name or path → ImageSet; `size` overrides the card's image_size.

    Images are in the order of their sorted paths. Folders and CSVs are decoded once into the store.
    """
    path = card_path(name_or_path)
    card = read_card(path)
    if card.kind == "cells":
        return load_cells(card, path.stem, size or card.image_size)
    if card.kind == "rehearsal":
        return load_rehearsal(card, path, size or card.image_size)
    return read_images(card, path, size or card.image_size)


def read_images(card, path, size):
    """The data set of a card that says how files lie → ImageSet, named after the card's file `path`."""
    name = path.stem
    try:
        folder = data_folder(card, path)
        listing = READERS[card.kind](folder, card)
        labels, classes = encode_labels(listing.labels, card)
        group_names, groups = encode_groups(listing)
        part = encode_parts(listing, card)
        if not listing.paths:
            raise absent("root", f"image that fits {card.files}", folder)
        check_counts(card, labels, classes, group_names, part, folder)
        only = read_only(folder, card, listing.paths)
        if card.kind == "csv" and not card.skip_bad:
            check_files(folder, card, listing.paths)
        images, hashes, bad = None if listing.images is None else arrange(listing.images, card, size), None, {}
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: {error}{where_to_get(card)}") from None
    except ValueError as error:
        said = " ".join(str(error).split())
        where = "" if str(folder) in said else f"; the data are in {folder}"
        raise ConfigError(f"{path}: {said}{where}{where_to_get(card)}") from None
    if images is None:
        images, hashes, bad = store.decoded(name, folder, listing.paths, card, size)
    keep = np.array([p not in bad for p in listing.paths])
    if bad:
        report_bad(name, bad, labels[~keep], classes, card)
    data = ImageSet(
        name=name,
        images=images,
        labels=labels[keep],
        classes=classes,
        groups=None if groups is None else groups[keep],
        group_names=group_names,
        part=part[keep],
        task=card.task,
        ordered=card.ordered,
        synthetic=card.synthetic,
        paths=tuple(p for p, k in zip(listing.paths, keep) if k),
        card=card.facts(),
        table=None if listing.table is None else listing.table[keep].reset_index(drop=True),
        only={pool: {name: mask[keep] for name, mask in masks.items()} for pool, masks in only.items()},
    )
    return data if hashes is None else data.keep_hashes(hashes)


def load_cells(card, name, size):
    """A card of the synthetic cells → ImageSet, drawn once for the same arguments and code."""
    from ssl_core.data import cell_drawing, cells

    arguments = card.cells | ({"size": size} if size else {})
    allowed = list(inspect.signature(cells.make_cells).parameters)
    unknown = sorted(set(arguments) - set(allowed))
    if unknown or "n" not in arguments:
        wrong = f"{unknown[0]}: unknown key" if unknown else "n: missing"
        raise ConfigError(f"{name}: cells: {wrong}; allowed are {', '.join(allowed)}, and n must be given")
    code = [files.sha256_file(module.__file__) for module in (cells, cell_drawing)]
    data = store.kept(name, repr((sorted(arguments.items()), code)), lambda: cells.make_cells(**arguments))
    return dataclasses.replace(data, name=name, card=card.facts()).keep_hashes(data.hashes)


def load_rehearsal(card, path, size):
    """A card of a rehearsal → ImageSet: images written once, in the layout of another card, and read through that one.

    Where the rehearsal names `classes`, they replace the original's names, in the original's order.
    """
    from ssl_core.data import rehearsal

    rehearsal.check(card, path)
    original, source = read_card(card.rehearses), card.made["from"]
    images = load(source) if source != "cells" else None
    folder, expected = rehearsal.written(path.stem, card, images)
    print(f"{path.stem}: a rehearsal, {expected['images']:,} images in the layout of {card.rehearses}, made of {source}"
          f"{' (synthetic)' if card.synthetic else ''}; nothing of the original is in it", flush=True)  # fmt: skip
    stand_in = original.model_copy(update={
        "root": str(folder), "expected": Expected(**expected), "image_size": card.image_size,
        "channels": card.channels or original.channels, **{key: getattr(card, key) for key in FOR_PEOPLE},
    })  # fmt: skip
    data = read_images(stand_in, path, size)
    classes = tuple(card.classes) or data.classes
    if len(classes) != len(data.classes):
        names = f"{len(classes)} names for the {len(data.classes)} classes of {card.rehearses}"
        raise ConfigError(f"{path}: classes: {names}")
    facts = data.card | {"rehearses": card.rehearses, "made": card.made}
    return dataclasses.replace(data, classes=classes, card=facts).keep_hashes(data.hashes)


def report_bad(name, bad, labels, classes, card):
    """List the images that cannot be read; stop, unless the card says `skip_bad: true`."""
    for path, reason in bad.items():
        print(f"{name}: cannot read {path}: {reason}")
    without = int(((labels if labels.ndim == 1 else labels.max(1)) < 0).sum())
    per_class = [*zip(classes, count(labels, classes)), ("no label", without)]
    counted = ", ".join(f"{c} {n}" for c, n in per_class if n)
    text = f"{name}: {len(bad)} images cannot be read ({counted})"
    if not card.skip_bad:
        first = ", ".join(list(bad)[:5]) + (", …" if len(bad) > 5 else "")
        raise ValueError(f"{text}: {first}; repair them, or set `skip_bad: true` in the card to leave them out")
    print(f"{text} and are left out")
