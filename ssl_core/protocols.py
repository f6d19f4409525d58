"""Ways to evaluate an encoder, by name: two frozen ones and a fine-tuning of ours, and the published ones.

The published ones stand in params/protocols/*.yaml: NAME: {stage, short, about, source, values}. `values` are, for
stage probe, the settings of a head (`evaluate.trained.Head`), and for stage finetune parameters of `30_finetune`.
"""

from difflib import get_close_matches
from functools import cache
from typing import NamedTuple

import yaml

from ssl_core.files import root

BUILT_IN = {"linear": "probe", "knn": "probe", "finetune": "finetune"}


class Protocol(NamedTuple):
    """`short` is what figures and the page call it; `values` is empty for the built-in ones."""

    name: str
    stage: str
    short: str = ""
    about: str = ""
    source: str = ""
    values: dict = {}


def protocol(name) -> Protocol:
    """A protocol by name; ValueError, one line, with the nearest name, for what is none."""
    if name in BUILT_IN:
        return Protocol(name, BUILT_IN[name])
    published = _published(root())
    if name not in published:
        near = get_close_matches(str(name), protocol_names(), 1)
        raise ValueError(f"no protocol {name!r}" + (f"; near it: {near[0]}" if near else "")
                         + f"; there are {', '.join(protocol_names())}")
    return published[name]


def protocol_names() -> list[str]:
    """The built-in protocols, then the published ones in the order of their files."""
    return [*BUILT_IN, *_published(root())]


@cache
def _published(folder):
    found = {}
    for path in sorted((folder / "params" / "protocols").glob("*.yaml")):
        for name, entry in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).items():
            try:
                found[name] = Protocol(name, **entry)
            except TypeError as error:
                raise ValueError(f"{path.name}: {name}: {error}") from None
            if found[name].stage not in ("probe", "finetune"):
                raise ValueError(f"{path.name}: {name}: stage {found[name].stage!r}; choose probe or finetune")
    return found
