"""Published ways to make data uneven and to budget labels, as presets for the `splits` of a study.

They stand in params/splits/*.yaml: NAME: {about, source, splits, budgets, data}. `splits` are values of `Splits`,
`budgets` those of `Evaluate`, `data` values of `Data`; each holds where the study is silent.
"""

import json
from functools import cache
from typing import NamedTuple

from ssl_core import protocols
from ssl_core.files import root

PAGE = """# Splits

Made by `python -m ssl_core splits --markdown > docs/splits.md` from `params/splits/`.

A preset says how data are made uneven, how many labels heads are trained on, and how parts are drawn. A study takes it
by name, and what it says itself wins ([studies](studies.md)):

```yaml
data: {dataset: mine, image_size: 96}
splits: {preset: constant_total, total: 12000}    # instead of 80,000
```

`splits` are filled in key by key; `budgets` of `evaluate`, and keys of a data set, where the study has none of its own.
A preset of the study's `splits` speaks of all data sets without splits of their own.

Parts that files give are in the card of a data set, and need no preset. To make your own, copy one of these:

| parts and pools by | card that shows it |
|---|---|
| folders | [cytology_folders](../params/data/cytology_folders.yaml); with folders of the classes alone [kather2016]\
(../params/data/kather2016.yaml) |
| lists of paths, a file for each part | [cytology_lists](../params/data/cytology_lists.yaml) |
| the same, with other tiles to pretrain on | [cytology_ratio_lists](../params/data/cytology_ratio_lists.yaml) |
| lists with labels | [chestxray14](../params/data/chestxray14.yaml), [inat18](../params/data/inat18.yaml) |
| a CSV for each part | [bhi_lists](../params/data/bhi_lists.yaml) |
| index files, one for each draw | [cifar10_lt](../params/data/cifar10_lt.yaml), [cifar100_lt]\
(../params/data/cifar100_lt.yaml) |
| index files of few labels, 1 %, 100 or 50 a class | [cifar10_lt_1percent](../params/data/cifar10_lt_1percent.yaml), \
[cifar100_lt_100shot](../params/data/cifar100_lt_100shot.yaml), [cifar100_lt_50shot]\
(../params/data/cifar100_lt_50shot.yaml) |

Letters are those of [methods](methods.md).
"""


class SplitPreset(NamedTuple):
    name: str
    about: str
    source: str
    splits: dict
    budgets: list
    data: dict


def split_preset(name) -> SplitPreset:
    """A preset by name; ValueError, one line, with the nearest name, for what is none."""
    return protocols.of_name("preset of splits", name, _presets(root()))


def split_preset_names() -> list[str]:
    return [*_presets(root())]


@cache
def _presets(folder):
    return protocols.entries(folder / "params" / "splits", SplitPreset)


def with_preset(splits):
    """Values of `splits`, with those of the preset that they name, where they name one."""
    return split_preset(splits["preset"]).splits | splits if names_one(splits) else splits


def names_one(splits):
    return isinstance(splits, dict) and isinstance(splits.get("preset"), str)


def with_presets(study):
    """Values of a study, with what the presets of its splits say of data and budgets where it says nothing itself."""
    rows, evaluate = study.get("data"), study.get("evaluate", {})
    if not isinstance(evaluate, dict):
        return study  # and it is told what is wrong
    filled, budgets = [], []
    for row in rows if isinstance(rows, list) else [rows]:
        splits = isinstance(row, dict) and (row.get("splits") or study.get("splits"))
        preset = _presets(root()).get(splits["preset"]) if names_one(splits) else None
        filled.append(preset.data | row if preset else row)
        budgets += [preset.budgets] if preset and preset.budgets not in budgets else []
    if budgets and "budgets" not in evaluate:
        if len(budgets) > 1:
            raise ValueError(f"evaluate.budgets: presets of splits say {' and '.join(map(str, budgets))}; give one")
        study = study | {"evaluate": evaluate | {"budgets": budgets[0]}}
    return study | ({"data": filled} if rows else {})


def said(name) -> list:
    """(word, text) of what there is to say of a preset."""
    p = split_preset(name)
    splits, data = (", ".join(f"{key} {json.dumps(value)}" for key, value in values.items())
                    for values in (p.splits, p.data))
    return [("is", p.about), ("from", p.source), ("splits", splits), ("budgets", json.dumps(p.budgets)), ("data", data)]


def as_text(names) -> str:
    """Presets for a terminal."""
    return protocols.as_text(names, said)


def as_markdown() -> str:
    """docs/splits.md."""
    return protocols.as_markdown(PAGE, split_preset_names(), said)
