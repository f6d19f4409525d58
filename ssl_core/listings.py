"""What there is here, as text: data sets, methods of pretraining, and this machine."""

import json
import os
import platform
import shutil
import sys
import textwrap
from inspect import signature

from ssl_core.data import load
from ssl_core.data.cards import card_names, read_card
from ssl_core.files import cache, free_bytes, outputs, root, size_text
from ssl_core.presets import named
from ssl_core.protocols import WIDTH
from ssl_core.provenance import circumstances, device_name


def data_sets():
    """Yield lines: every card, and how many images of each class each part holds."""
    for name in card_names():
        card = read_card(name)
        yield f"{name}: {card.title or name}"
        if card.kind == "rehearsal":
            yield f"    written when it is first used, in the layout of {card.rehearses}; made: {card.made}"
            continue
        try:
            data = load(name)
        except (OSError, ValueError) as error:
            yield f"    not here: {' '.join(str(error).split())}"
            continue
        frame = data.frame()
        counts = frame.assign(label=frame.label.astype(str)).groupby(["label", "part"]).size().unstack(fill_value=0)
        yield (f"    {len(data):,} images {data.images.shape[1]} × {data.images.shape[2]} × {data.images.shape[3]}, "
               f"{data.task}{', synthetic' if data.synthetic else ''}; {card.licence}")
        yield "    " + counts.to_string().replace("\n", "\n    ")


def methods():
    """Yield lines: methods and add-ons with paper, arguments and presets."""
    from ssl_core.methods import METHODS, WRAPPERS  # bring torch

    for what, table in (("methods, with their method_args", METHODS),
                        ("add-ons around a method that compares two views, for wrap", WRAPPERS)):
        yield f"{what}:"
        for name, cls in table.items():
            paper = " ".join(sys.modules[cls.__module__].__doc__.split("\n\n")[0].split())
            takes = ", ".join(f"{p.name} {json.dumps(p.default)}" for p in signature(cls).parameters.values()
                              if p.default is not p.empty and p.name != "n")
            for start, text in ((name, paper), ("", f"takes: {takes or 'nothing'}"), ("", f"presets: {named(name)}")):
                yield textwrap.fill(text, WIDTH, initial_indent=f"  {start:15}", subsequent_indent=" " * 17)
    yield ("Where each constant of a preset comes from: python -m ssl_core methods NAME. How an arm uses them: "
           "docs/studies.md")


def machine():
    """Yield lines: project, versions, device, threads, disk, cache, a browser for the page."""
    import torch  # noqa: F401  device_name asks it

    state, browsers = circumstances(), ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next(filter(None, map(shutil.which, browsers)), "none found")
    lines = {"project": root(), "commit": state["git"],
             "python": f"{platform.python_version()} on {platform.platform()}", "device": device_name("auto"),
             "cpu threads": os.cpu_count(), "outputs": f"{outputs()}, {size_text(free_bytes(outputs()))} free",
             "cache": f"{cache()}, {size_text(free_bytes(cache()))} free", "browser": browser, **state["packages"]}
    for name, value in lines.items():
        yield f"{name:14} {value}"
