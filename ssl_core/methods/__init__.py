"""One paper, one file. METHODS is the registry: a plain dict from the name in a study to the class; WRAPPERS holds the
add-ons that go around any of them."""

from inspect import signature

import torch

from ssl_core.methods.barlow import BarlowTwins
from ssl_core.methods.base import Contrastive, Method, Step, Wrapper
from ssl_core.methods.bcl import BCL
from ssl_core.methods.dclw import DCL, DCLW
from ssl_core.methods.intermediate import Intermediate
from ssl_core.methods.lotar import LoTaR
from ssl_core.methods.mae import MAE
from ssl_core.methods.moco import MoCo
from ssl_core.methods.rotnet import RotNet
from ssl_core.methods.sdclr import SDCLR
from ssl_core.methods.simclr import SimCLR
from ssl_core.methods.simsiam import SimSiam
from ssl_core.methods.tico import TiCo
from ssl_core.methods.vicreg import VICReg
from ssl_core.methods.view_distance import ViewDistance

METHODS = {
    "barlow": BarlowTwins,
    "dcl": DCL,
    "dclw": DCLW,
    "lotar": LoTaR,
    "mae": MAE,
    "moco": MoCo,
    "rotnet": RotNet,
    "sdclr": SDCLR,
    "simclr": SimCLR,
    "simsiam": SimSiam,
    "tico": TiCo,
    "vicreg": VICReg,
}


WRAPPERS = {
    "bcl": BCL,
    "intermediate": Intermediate,
    "view_distance": ViewDistance,
}


def build(name, encoder, augment, n=0, seed=0, wrap=(), **method_args):
    """A method by name, its own layers initialised as a pure function of the seed; method_args override the paper's.

    wrap: add-ons around it, innermost first, each {"name": a key of WRAPPERS, its arguments}.
    """
    if name not in METHODS:
        raise ValueError(f"method {name!r} is unknown; there are: {', '.join(METHODS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = construct(METHODS[name], "method", name, encoder, augment, n, **method_args)
        for wrapper in wrap:
            options = dict(wrapper)
            kind = options.pop("name", None)
            if kind not in WRAPPERS:
                raise ValueError(f"wrap {kind!r} is unknown; there are: {', '.join(WRAPPERS)}")
            method = construct(WRAPPERS[kind], "wrap", kind, method, **options)
    return method


def construct(cls, what, name, *given, **arguments):
    """The object, or one line that names the argument which the class does not take."""
    try:
        signature(cls).bind(*given, **arguments)
    except TypeError as error:
        raise ValueError(f"{what} {name!r}: {error}; see {cls.__module__.replace('.', '/')}.py") from None
    return cls(*given, **arguments)


__all__ = ["METHODS", "WRAPPERS", "Contrastive", "Method", "Step", "Wrapper", "build"]
