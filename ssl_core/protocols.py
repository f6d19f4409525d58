"""Ways to evaluate an encoder, by name: two frozen ones and a fine-tuning of ours, and the published ones.

The published ones stand in params/protocols/*.yaml: NAME: {stage, short, about, source, values}. `values` are, for
stage probe, the settings of a head (`evaluate.trained.Head`), and for stage finetune parameters of `30_finetune`.
"""

import json
import textwrap
from difflib import get_close_matches
from functools import cache
from typing import NamedTuple

import yaml

from ssl_core.files import root

WIDTH = 120  # columns of a terminal
BUILT_IN = {"linear": "probe", "knn": "probe", "finetune": "finetune"}
OURS = {"linear": "Logistic regression on standardised features; its penalty by cross-validation inside the budget.",
        "knn": "Nearest neighbours by cosine similarity, weighted votes; their number by cross-validation inside the "
               "budget.",
        "finetune": "All weights for a fixed number of steps; the last step is the model."}
PAGE = """# Protocols

Made by `python -m ssl_core protocols --markdown > docs/protocols.md` from `params/protocols/`.

How an encoder is judged, by name, for `protocols` of a study or of one of its arms ([studies](studies.md)). The first
three are ours, the others do what a published system did; letters are those of [methods](methods.md). A probe is
trained on features of the frozen encoder, a fine-tuning moves its weights. Settings of probes are fields of `Head` in
`ssl_core/evaluate/trained.py`, those of fine-tunings parameters of `notebooks/30_finetune.ipynb`. Published schedules
were made for thousands of labels: with few, an epoch is a step or two, and a head may stay near its start.
"""


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
        return Protocol(name, BUILT_IN[name], about=OURS[name], source="this package")
    return of_name("protocol", name, BUILT_IN | _published(root()))


def protocol_names() -> list[str]:
    """The built-in protocols, then the published ones in the order of their files."""
    return [*BUILT_IN, *_published(root())]


@cache
def _published(folder):
    found = entries(folder / "params" / "protocols", Protocol)
    if odd := next((p for p in found.values() if p.stage not in ("probe", "finetune")), None):
        raise ValueError(f"params/protocols: {odd.name}: stage {odd.stage!r}; choose probe or finetune")
    return found


def entries(folder, kind) -> dict:
    """NAME → kind(NAME, what is said of it), of all .yaml files of a folder; ValueError for a key that it has not."""
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        for name, values in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).items():
            try:
                found[name] = kind(name, **values)
            except TypeError as error:
                raise ValueError(f"{path.name}: {name}: {error}") from None
    return found


def of_name(what, name, known):
    """One of the known; ValueError, one line, with the nearest name, for what is none."""
    if name not in known:
        near = get_close_matches(str(name), known, 1)
        raise ValueError(f"no {what} {name!r}" + (f"; near it: {near[0]}" if near else "")
                         + f"; there are {', '.join(known)}")
    return known[name]


def said(name) -> list:
    """(word, text) of what there is to say of a protocol."""
    p = protocol(name)
    settings = ", ".join(f"{key} {json.dumps(value)}" for key, value in p.values.items())
    rows = [("kind", p.stage), ("is", p.about), ("from", p.source), ("settings", settings), ("in figures", p.short)]
    return [(word, text) for word, text in rows if text]


def as_text(names, said=said) -> str:
    """Protocols, or what else is said so, for a terminal."""
    lines = []
    for name in names:
        lines.append(name)
        for word, text in said(name):
            lines += textwrap.wrap(text, WIDTH, initial_indent=f"  {word:11}", subsequent_indent=" " * 13)
    return "\n".join(lines)


def as_markdown(page=PAGE, names=None, said=said) -> str:
    """docs/protocols.md."""
    lines = [page]
    for name in names or protocol_names():
        lines += [f"## {name}", "", *(f"- **{word}**: {' '.join(text.split())}" for word, text in said(name)), ""]
    return "\n".join(lines).rstrip()
