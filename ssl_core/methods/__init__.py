"""One paper, one file. METHODS is the registry: a plain dict from the name in a study to the class."""

import torch

from ssl_core.methods.base import Method, Step
from ssl_core.methods.mae import MAE
from ssl_core.methods.simclr import SimCLR

METHODS = {
    "mae": MAE,
    "simclr": SimCLR,
}


def build(name, encoder, augment, n=0, seed=0, **method_args):
    """A method by name, its own layers initialised as a pure function of the seed; method_args override the paper's."""
    if name not in METHODS:
        raise ValueError(f"method {name!r} is unknown; there are: {', '.join(METHODS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return METHODS[name](encoder, augment, n, **method_args)
        except TypeError as error:
            problem = str(error).split("() ")[-1]
            raise ValueError(f"method {name!r}: {problem}; see ssl_core/methods/{name}.py") from None


__all__ = ["METHODS", "Method", "Step", "build"]
