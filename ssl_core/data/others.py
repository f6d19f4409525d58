"""Images that no study has seen, in a folder or a CSV, of any size: found, grouped, and decoded as a run's were."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np

from ssl_core.config import ConfigError
from ssl_core.data.cards import Card
from ssl_core.data.layouts import LAYOUTS
from ssl_core.data.store import attempt

BLOCK_BYTES = 2**27  # of decoded pixels at once


def pixels_of(data):
    """How the images of a set came to their pixels and groups, for records, so that others can be brought to the same;
    {} for what is no ImageSet."""
    if not hasattr(data, "card"):
        return {}
    _, channels, size, _ = data.images.shape
    said = {key: data.card.get(key, Card.model_fields[key].default) for key in ("geometry", "window", "group")}
    return {"size": size, "channels": channels, **said}


def find_images(source, pixels, group=""):
    """The images below a folder, or those that the column `path` of a CSV names.

    pixels: size, channels, geometry, window and group, as run.json has them. group: a CSV's column or a pattern with
    (?P<group>…); "" takes the rule of `pixels` where it fits, a CSV's column `group`, or the images' folders.
    Returns (folder, card, paths, groups, what the groups are, in words). Raises ConfigError.
    """
    source = Path(source).expanduser()
    if not source.exists():
        raise ConfigError(f"--images {source}: there is no such folder or file")
    if source.is_file() and source.suffix.lower() not in (".csv", ".tsv"):
        raise ConfigError(f"--images {source}: not a folder, nor a .csv or .tsv with a column path")
    kind, folder = ("folder", source) if source.is_dir() else ("csv", source.parent)
    values = {"kind": kind, "image_size": pixels["size"], "channels": pixels["channels"],
              "geometry": pixels["geometry"], "window": pixels["window"]} | ({"file": source.name} if kind == "csv"
                                                                             else {})
    for rule in [group] if group else [*filter(None, [pixels["group"]]), ""]:
        card = Card(**values, group=rule)
        try:
            found = LAYOUTS[kind](folder, card)
            break
        except ValueError as error:
            if rule == group:
                raise ConfigError(f"--images {source}: {' '.join(str(error).split())}") from None
    if not found.paths:
        raise ConfigError(f"--images {source}: no images in it, at any depth")
    said = f"rule {rule}" if rule else "the column group"
    if found.groups is None:
        said, top = "the images' folders", folder.resolve().name
        found_in = [PurePosixPath(path).parent.as_posix() for path in found.paths]
        return folder, card, found.paths, [top if place == "." else place for place in found_in], said
    return folder, card, found.paths, found.groups, said


def decode(folder, card, paths):
    """Block by block: the positions of images that can be read, their pixels uint8 (n, C, S, S), and {position: why
    not} of the others."""
    block = max(16, BLOCK_BYTES // (card.channels * card.image_size**2))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for start in range(0, len(paths), block):
            places = range(start, min(start + block, len(paths)))
            found = list(threads.map(lambda i: attempt(folder / paths[i], card, card.image_size), places))
            bad = {i: image for i, image in zip(places, found) if isinstance(image, str)}
            good = [image for image in found if not isinstance(image, str)]
            shape = (len(good), card.channels, card.image_size, card.image_size)
            yield [i for i in places if i not in bad], np.array(good, np.uint8).reshape(shape), bad
