"""Published recipes: params/presets/FILE.yaml, one row per constant with its source and where we differ from it.

An arm that says `preset: NAME` starts from that preset in the file of its method; `preset: FILE/NAME` is one of the
same method in another file, as `bcl/bcl_i` for method simclr. What the arm says itself wins.
"""

import json
import textwrap
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import Field

from ssl_core.config import ConfigError, Values
from ssl_core.files import root
from ssl_core.protocols import WIDTH
from ssl_core.study import Arm

ARGUMENTS = {"method": "method_args", "encoder": "encoder_args", "optimiser": "optimiser_args"}
DEPTH = {"method_args": 1, "encoder_args": 1, "optimiser_args": 1, "wrap": 2}  # names that a row has after its field
PAGE = """# Methods and their presets

Made by `python -m ssl_core methods --markdown > docs/methods.md` from `params/presets/`.

An arm of a study may start from a preset, and what it says beside that wins ([studies](studies.md) has the other keys):

```yaml
arms:
  - {name: short, method: simclr, preset: paper, epochs: 20}
  - {name: boosted, method: simclr, preset: bcl/bcl_i}
```

`NAME` is looked for in the file of the arm's method, `FILE/NAME` in another file. Arguments are merged key by key,
`wrap` is replaced as a whole. A learning rate is that of the batch beside it: an arm that changes `batch` has to say
its `lr`, too. What a table leaves out comes from the defaults of the method's class and from the parameters cell of
`notebooks/10_pretrain.ipynb`. The size of images is the study's. Most presets are meant for hundreds of epochs on a
GPU: give `epochs` or `steps` of your own for a first look.

{index}

Letters are five published systems that this package re-implements:

| letter | what it studied | paper | code |
|---|---|---|---|
| a | cervical cytology, positive to negative 1:1 to 1:10,000 | Liu, Chang, Bai, Chen, Zeng, Quan, Liu, Cheng, \
Comput. Struct. Biotechnol. J. 2026, doi 10.34133/csbj.0048 | LGBluesky/ICISSRL |
| b | breast histology: Normal, ADH, DCIS | Kim, Cho, Korea Multimedia Society, spring 2023 | \
posts of YeongJin96; YeongJin96/SimCLR |
| c | CIFAR with long tails | the LoTaR thesis, 2023 | andrew15818/SimCLR |
| d | chest X-rays, fundus, breast histology | Kaku, Upadhya, Razavian, NeurIPS 2021, arXiv 2110.14805 | \
aakashrkaku/intermdiate_layer_matter_ssl |
| e | small medical sets | Chattopadhyay et al., ICIP 2023, arXiv 2303.02245 | soumitri2001/SmallDataSSL |

How to read a table: § is a section of the method's paper, `--word` an option of its authors' command, `name.py` a file
of their code. "*not verified*" marks what was recalled from a paper or inferred and not read in a source. The last
column is empty where nothing differs that we know of.

Everywhere here: the learning rate rises linearly for the share `warmup` of all steps and then follows half a cosine
to 0; an epoch leaves out its incomplete last batch; crops are resized bilinearly; one process sees the whole batch,
so that negatives and BatchNorm statistics are never split over devices. Rows say so only where it changes much.
"""
NOT_ROWS = ("name", "method", "preset", "data", "protocols", "ratios")  # fields of an arm that no preset gives
COLUMNS = ("constant", "value", "where it comes from", "where we differ, and why")


class Constant(NamedTuple):
    """One row: `field` is a field of Arm, or method_args.KEY, encoder_args.KEY, optimiser_args.KEY, wrap.ADD_ON.KEY."""

    field: str
    value: Any
    source: str
    differs: str = ""


class Recipe(Values):
    about: str
    method: str = ""  # where it is not that of the file
    constants: dict[str, Annotated[list[Any], Field(min_length=2, max_length=3)]]


class File(Values):
    method: str
    paper: str
    presets: dict[str, Recipe]


@dataclass(frozen=True)
class Preset:
    file: str
    name: str
    paper: str
    method: str
    about: str
    constants: tuple

    @property
    def values(self) -> dict:
        """The fields of an arm. Arguments of the method, encoder and optimiser that it names are all said: none is
        left to what stood there before."""
        found = {"method": self.method, "method_args": {}, "wrap": {}}
        for field, value, *_ in self.constants:
            field, *keys = field.split(".")
            if field == "wrap":
                found["wrap"].setdefault(keys[0], {"name": keys[0]})[keys[1]] = value
            elif keys:
                found.setdefault(field, {})[keys[0]] = value
            else:
                found[field] = value
        for what, arguments in ARGUMENTS.items():
            if what in found:
                found.setdefault(arguments, {})
        return found | {"wrap": list(found["wrap"].values())}

    @property
    def topics(self) -> set:
        """What it is about: the method or add-on of its file, and the add-ons that it puts around the method."""
        return {self.file, *(add_on["name"] for add_on in self.values["wrap"])}


def preset_files() -> list:
    """Names of the files in params/presets, without .yaml."""
    return sorted(path.stem for path in (root() / "params" / "presets").glob("*.yaml"))


def all_presets() -> list:
    return [p for file in preset_files() for p in read_presets(file)]


def read_presets(file) -> tuple:
    """The presets of params/presets/`file`.yaml, checked. Raises ConfigError, one line, with the place in the file."""
    path = root() / "params" / "presets" / f"{file}.yaml"
    return _read(path, path.stat().st_mtime_ns)


@cache
def _read(path, _modified):
    file, where = path.stem, f"params/presets/{path.name}"
    try:
        content = File(**yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (yaml.YAMLError, TypeError) as error:
        raise ConfigError(f"{where}: not readable as presets: {' '.join(str(error).split())}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    presets = []
    for name, recipe in content.presets.items():
        rows = tuple(Constant(field, *row) for field, row in recipe.constants.items())
        made = Preset(file, name, content.paper, recipe.method or content.method, recipe.about, rows)
        for row in rows:
            field, *keys = row.field.split(".")
            if len(keys) != DEPTH.get(field, 0) or field in NOT_ROWS:
                raise ConfigError(f"{where}: {name}.{row.field}: a row is named after a field of an arm, such as lr, "
                                  "method_args.KEY or wrap.ADD_ON.KEY")
            if not all(isinstance(text, str) for text in row[2:]) or not row.source:
                raise ConfigError(f"{where}: {name}.{row.field}: a row is [value, source] or [value, source, "
                                  "where we differ and why], the last two in words")
        try:
            Arm(name="preset", **made.values)
        except ConfigError as error:
            raise ConfigError(f"{where}: {name}: {error}") from None
        presets.append(made)
    return tuple(presets)


def preset(method, name) -> dict:
    """The values of an arm of `method` by a preset: "NAME" in the file of the method, or "FILE/NAME" in another."""
    file, _, short = name.rpartition("/")
    for found in all_presets():
        if (found.file, found.name) == (file or method, short):
            if found.method != method:
                raise ConfigError(f"preset {name!r} is one of method {found.method}, not of {method}")
            return found.values
    raise ConfigError(f"preset {name!r} is unknown; for method {method} there are: {named(method)}")


def named(name) -> str:
    """What arms of a method may give as `preset`, those in its file first; for an add-on, what has it, by method."""
    mine = sorted((p for p in all_presets() if p.method == name), key=lambda p: p.file != name)
    if mine:
        return ", ".join(map(given, mine))
    found = [p for p in all_presets() if name in p.topics]
    return "; ".join(f"method {method}: {', '.join(given(p) for p in found if p.method == method)}"
                     for method in dict.fromkeys(p.method for p in found)) or "none"


def given(p) -> str:
    return p.name if p.file == p.method else f"{p.file}/{p.name}"


def values_of(arm) -> dict:
    """What an arm says of its pretraining: the values of its preset, and over them its own.

    Arguments are merged key by key, but those of an encoder or optimiser that the arm replaces are left behind.
    """
    own = arm.model_dump(exclude={*NOT_ROWS} - {"method"}, exclude_none=True)
    if arm.preset is None:
        return own
    given = preset(arm.method, arm.preset)
    values = given | own
    for what, arguments in ARGUMENTS.items():
        if arguments in given:
            kept = given[arguments] if values.get(what) == given.get(what) else {}
            values[arguments] = kept | own.get(arguments, {})
    if arm.steps:
        values.pop("epochs", None)
    return values


# --- the fidelity table -----------------------------------------------------------------------------------------------

def about(name) -> list:
    """The presets in the file of that name, and those of other files that have an add-on of that name."""
    found = [p for p in all_presets() if name in p.topics]
    if not found:
        there = ", ".join(sorted(set().union(*(p.topics for p in all_presets()))))
        raise ConfigError(f"no presets of {name!r}; there are some of {there}")
    return found


def cells(row) -> tuple:
    value = row.value if isinstance(row.value, str) else json.dumps(row.value, ensure_ascii=False)
    return row.field, value, row.source, row.differs


def as_text(presets) -> str:
    """Tables for a terminal."""
    lines, names = [], [len(row.field) for p in presets for row in p.constants]
    first, value = max(names), 20
    rest = (WIDTH - first - value - 8) // 2
    widths = (first, value, rest, rest)
    for file in dict.fromkeys(p.file for p in presets):
        mine = [p for p in presets if p.file == file]
        lines += textwrap.wrap(f"{file}: {mine[0].paper}", WIDTH)
        for p in mine:
            lines += ["", *textwrap.wrap(f"method: {p.method}, preset: {given(p)} · {p.about}", WIDTH)]
            for row in (COLUMNS, *map(cells, p.constants)):
                columns = [textwrap.wrap(text, w) for text, w in zip(row, widths)]
                for parts in zip_longest(*columns, fillvalue=""):
                    lines.append("  " + "  ".join(f"{part:{w}}" for part, w in zip(parts, widths)).rstrip())
        lines.append("")
    return "\n".join(lines).rstrip()


def as_markdown() -> str:
    """docs/methods.md: the tables of all files."""
    index = ["| method or add-on | presets |", "|---|---|"]
    for name in sorted(set().union(*(p.topics for p in all_presets()))):
        index.append(f"| {f'[{name}](#{name})' if name in preset_files() else f'{name} (add-on)'} | {named(name)} |")
    lines = [PAGE.replace("{index}", "\n".join(index))]
    for file in preset_files():
        mine = read_presets(file)
        lines += [f"## {file}", "", mine[0].paper, ""]
        for p in mine:
            title = f"### {given(p)}" + f" (method: {p.method})" * (p.file != p.method)
            lines += [title, "", p.about, "", f"| {' | '.join(COLUMNS)} |", "|---|---|---|---|"]
            lines += [f"| {' | '.join(text.replace('|', '&#124;') for text in cells(row))} |" for row in p.constants]
            lines.append("")
    return "\n".join(lines).rstrip()
