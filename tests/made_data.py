"""Copies of the cards of published data sets that point to made trees, and small images."""

from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from ssl_core.data.cards import card_path


def card_values(name):
    return yaml.safe_load(card_path(name).read_text(encoding="utf-8"))


def copied(name, tree, **values):
    """The card of a data set with another root, tiny images and, unless given, no expected counts, beside the tree."""
    card = card_values(name)
    card |= {"root": str(tree), "expected": {}} | ({"image_size": 8} if "image_size" in card else {})
    path = Path(tree).parent / f"{name}.yaml"
    path.write_text(yaml.safe_dump(card | values, sort_keys=False), encoding="utf-8")
    return path


def published(name):
    """What the card itself expects; {} for a template, whose counts are its user's."""
    return card_values(name).get("expected", {})


def picture(path, seed):
    """A file of 12 × 12 pixels of noise, another for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)).save(path)
    return path
