"""What notebooks share: parameters into a configuration, one-line warnings, a headline, sliders that also print."""

import os
import warnings
from difflib import get_close_matches

import pandas as pd
from IPython.display import Markdown, display

from ssl_core.analysis.plots import use_style
from ssl_core.config import ConfigError


def parameters(model, names):
    """The configuration `model` from the names of a notebook, which its parameters cell has set.

    Raises ConfigError, naming the value, when one is missing, of another type, or nearly the name of a parameter.
    """
    for name, value in list(names.items()):
        near = get_close_matches(name, model.model_fields, 1, 0.85)
        if near and name not in model.model_fields and isinstance(value, (str, int, float, list, dict)):
            raise ConfigError(f"parameter {name!r} is unknown; did you mean {near[0]!r}?")
    use_style()
    warnings.showwarning = lambda message, *where, **more: print(f"Note: {message}")
    return model(**{name: names[name] for name in model.model_fields if name in names})


def headline():
    """Markdown at the top of a notebook that a later cell replaces: `.update(Markdown(…))`."""
    return display(Markdown("*The result stands here when the notebook has run.*"), display_id=True)


def bullets(sentences, otherwise=""):
    """Sentences as a Markdown list, or one other sentence when there are none."""
    return Markdown("\n".join(f"- {sentence}" for sentence in sentences) or otherwise)


def explore(draw, **choices):
    """Call `draw` with the first of each list of values; where somebody may be looking, below it again with sliders."""
    draw(**{name: values[0] for name, values in choices.items()})
    if os.environ.get("SSL_CORE_BATCH"):
        return None
    import ipywidgets  # only where there is somebody to move a slider
    return ipywidgets.interact(draw, **{name: ipywidgets.SelectionSlider(options=values, description=name)
                                        for name, values in choices.items()})


FACTS = ("key", "device", "threads", "seconds", "peak_memory_mb", "images_per_s", "steps", "n_unlabelled", "git")


def conclude(headline, sentence, alarms, run):
    """Write the result and its alarms on top of the report, and show what is known of the run."""
    text = " ".join(f"**Alarm:** {alarm}" for alarm in alarms) or "No alarms."
    headline.update(Markdown(f"{sentence} {text}"))
    display(Markdown(text))
    known = {name: run.record[name] for name in FACTS if run.record.get(name) not in (None, "")}
    return pd.Series(known, name=run.folder.name).to_frame()
