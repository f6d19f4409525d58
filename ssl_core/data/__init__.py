"""Data: cards → ImageSet → pools and splits. A data set is a card in `params/data/`; `load(name)` reads it."""

from ssl_core.data.cards import load
from ssl_core.data.images import ImageSet, pixel_hashes

__all__ = ["ImageSet", "load", "pixel_hashes"]
