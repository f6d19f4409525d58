"""Made trees with the patterns of published data sets, and copies of their cards that point there."""

from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from ssl_core.files import root


def copied(name, tree, **values):
    """The card of a data set with another root, tiny images and, unless given, no expected counts, beside the tree."""
    card = yaml.safe_load((root() / "params" / "data" / f"{name}.yaml").read_text(encoding="utf-8"))
    card |= {"root": str(tree), "expected": {}} | ({"image_size": 8} if "image_size" in card else {})
    path = Path(tree).parent / f"{name}.yaml"
    path.write_text(yaml.safe_dump(card | values, sort_keys=False), encoding="utf-8")
    return path


def published(name):
    """What the card itself expects."""
    return yaml.safe_load((root() / "params" / "data" / f"{name}.yaml").read_text(encoding="utf-8"))["expected"]


def picture(path, seed):
    """A file of 12 × 12 pixels of noise, another for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)).save(path)
    return path
