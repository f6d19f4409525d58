"""Data: cards → ImageSet → pools and splits. A data set is a card in `params/data/`; `load(name)` reads it."""

from ssl_core.data.images import ImageSet, pixel_hashes
from ssl_core.data.loading import load

__all__ = ["ImageSet", "load", "pixel_hashes"]
