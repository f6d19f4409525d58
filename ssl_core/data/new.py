"""Write a card and a study for somebody's images, commented: from then on both files belong to their reader.

`python -m ssl_core new` and the notebook `02_your_images` write through this. Nothing here trains, and a file that says
something else is not overwritten.
"""

import os
import re
import textwrap
from pathlib import Path

import yaml

from ssl_core.config import ConfigError
from ssl_core.data.cards import card_names, card_path
from ssl_core.data.census import class_table, statement, usable_budgets
from ssl_core.data.draft import draft_card
from ssl_core.data.loading import load
from ssl_core.data.splits import is_labelled
from ssl_core.files import atomic_write, root
from ssl_core.study import Study

WIDTH = 100  # of the files, so that they read well in a terminal
SEEDS = [0, 1, 2]
IMBALANCED = 3  # largest over smallest class, from which on a probe weighs the classes alike


def write_study(study_path, data, name=None, label="", group="", image_size=0, test_fraction=0.2, replace=False,
                tell=True):
    """Write a study of one's own images, and their card where there is none → the paths written.

    data: a folder, a CSV, an npz (see `draft_card`), or the name or path of a card. The card goes to params/data, or to
    `data` beside the folder `studies` that the study is written to. Prints what the data can show, if `tell`.
    Raises ConfigError in one line: images that cannot be read, no labels to evaluate with, a file that says otherwise.
    """
    study_path = Path(study_path).absolute()
    name = name or study_path.stem
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name):
        raise ConfigError(f"name {name!r}: small letters, digits and _ only, as it becomes a folder's name")
    written = []
    if Path(data).suffix in (".yaml", ".yml") or (str(data) in card_names() and not Path(data).exists()):
        card = card_path(data)
    else:
        beside = study_path.parent.name == "studies"
        card = (study_path.parents[1] / "data" if beside else root() / "params" / "data") / f"{name}.yaml"
        written.append(write_card(card, draft_card(data, label, group, image_size), replace))
    try:
        images = load(card, image_size or None)
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from None
    text = study_text(name, images, card, study_path, test_fraction)
    Study(**yaml.safe_load(text))
    written.append(write_new(study_path, text, replace))
    if tell:
        print("\n".join(statement(images, test_fraction)))
    return written


def write_card(path, draft, replace=False):
    """Write a draft as a commented card → its path; refuses a file that says something else, unless `replace`."""
    path, values = Path(path).absolute(), dict(draft.values)
    values["root"] = seen_from(path.parent, draft.folder)
    lines = [f"# {path.stem}: a card. It says how images lie and what is known of each; all keys: docs/data.md",
             *commented([(key, value, draft.why.get(key, "")) for key, value in values.items()])]
    if values["kind"] in ("folder", "csv") and "group" not in values:
        lines.append("# group: nothing that names a patient or slide was recognised; every image is its own")
    lines += ["# rename: {HSIL: abnormal}        # would join classes", "# licence, source, citation: for people"]
    return write_new(path, "\n".join(lines) + "\n", replace)


def write_new(path, text, replace=False):
    """Write `text` to a path that is free, or holds the same → the path."""
    if path.exists() and path.read_text(encoding="utf-8") != text and not replace:
        raise ConfigError(f"{path}: is there and says something else, perhaps by your hand; move it away, take another "
                          "name, or ask for it to be replaced")
    atomic_write(path, text)
    return path


def seen_from(folder, path):
    """A folder for a card: relative inside the project or beside the card, below home with ~, else as it is."""
    if path.is_relative_to(root()) or path.is_relative_to(folder.parent):
        return Path(os.path.relpath(path, folder)).as_posix()
    return f"~/{path.relative_to(Path.home()).as_posix()}" if path.is_relative_to(Path.home()) else path.as_posix()


# --- the study --------------------------------------------------------------------------------------------------------

def study_text(name, data, card, path, test_fraction=0.2):
    """A study of the images as they are: what to see before it is run, then every key with its reason."""
    known = is_labelled(data.labels)
    table = class_table(data)
    if (table.n > 0).sum() < min(2, len(data.classes)) or not known.any():
        raise ConfigError(f"{card}: labels of fewer than two classes; a study has to evaluate something, so label some "
                          "images of each class")
    counts = data.counts()[data.counts() > 0]
    kept, dropped = usable_budgets(counts, int(known.sum()))
    uneven = data.task != "multilabel" and counts.max() >= IMBALANCED * counts.min()
    official = (data.part == "test").any()
    size = data.images.shape[-1]
    cards, cores = graphics_cards(), os.cpu_count() or 1
    steps, arms = arms_for(len(data), size, data.images.shape[1], cards)
    threads = max(1, min(4, cores // 2))
    aim = {"binary": f"find {data.classes[-1]!r}", "multiclass": f"tell the {len(data.classes)} classes apart",
           "multilabel": f"find the {len(data.classes)} labels"}[data.task]
    question = f"Does pretraining without labels on the images of {name!r} help to {aim} with few labels?"
    entries = [
        ("name", name, "its folder under outputs/"),
        ("question", question, ""),
        ("data", [
            ("dataset", card.stem if card.parent == root() / "params" / "data" else shown(card), "the card"),
            ("image_size", size, "pixels; time grows with its square"),
            ("label_pool", "natural", "budgets are shares of the labels as they are, not evened out"),
            ("test_fraction", test_fraction, "no part: the data bring their test part" if official else
             "of the labels, whole groups, set aside for the test"),
            ("part_seed", 0, "draws that part")], ""),
        ("splits", [("kind", "natural", "pretraining sees the images as they are")], ""),
        ("arms", arms, "ways to pretrain; what one leaves out stands in 10_pretrain"),
        ("seeds", SEEDS, "each arm once per seed: does a difference outlive another start?"),
        ("evaluate", [
            ("protocols", ["linear", "knn"], "on frozen features; finetune trains all weights"),
            ("budgets", list(kept), "shares of the labels" + "; above: what was left out, and why" * bool(dropped)),
            ("class_weight", "balanced" if uneven else "none", "balanced: a rare class weighs as much as a common one"),
            ("finetune", {"recipe": arms[0][-1][1], "steps": 1000 if cards else 200}, "of supervised floors")], ""),
        ("floors", ["majority", "colour", "pixels", "random", "supervised", *["supervised_weighted"] * bool(uneven)],
         "what needs no pretraining, beside every result"),
        ("resources", [
            ("device", "auto", "CUDA, then MPS, then CPU"), ("gpus", cards, "shared out, one to each job"),
            ("jobs", max(1, cards or cores // threads), "at a time"), ("threads", threads, "of each job")],
         "of this machine")]
    said = statement(data, test_fraction)
    head = {"Question": question, "Command": f"python -m ssl_core run {shown(path)}",
            "Cost": f"{len(arms)} arms × {len(SEEDS)} seeds of {steps:,} steps, then probes and floors at {len(kept)} "
                    "budgets; --dry-run --measure tells hours and memory on this machine", "Data": said[0],
            "Expect": " ".join(said[1:])}
    top = [line for word, text in head.items()
           for line in textwrap.wrap(text, WIDTH, initial_indent=f"# {word:<11}", subsequent_indent=f"#{'':<12}",
                                 break_on_hyphens=False)]
    return "\n".join([*top, *commented(entries)]) + "\n"


def arms_for(n, size, channels, cards):
    """(steps, arms): SimCLR, and MAE where patches fit, of a size that this machine can train."""
    batch = max(b for b in (16, 32, 64, 128, 256) if b <= max(16, min(n // 4, 256 if cards else 128)))
    steps = min(30_000, max(2000, round(100 * n / batch, -3))) if cards else 400
    recipe = "medical" if channels == 3 else "simclr" if size >= 64 else "simclr_small"
    about = "turns images, keeps stain; photographs: simclr" if channels == 3 else "keeps up and down as they are"
    small = ("resnet10t", {"channels": [32, 64, 128, 256]})
    network = small if not cards else ("resnet50" if size >= 128 else "resnet18", {})
    common = [("normalisation", "half", "pixels from -1 to 1"), ("optimiser", "adamw", "or sgd, lars"),
              ("lr", 0.001, "peak, after a warm-up"), ("batch", batch, "images at a time"),
              ("steps", steps, f"about {max(1, steps * batch // n):,} times each image; more may help")]
    arms = [[("name", "simclr", "in tables and figures"), ("method", "simclr", "others: python -m ssl_core methods"),
             ("method_args", {"tau": 0.2}, "temperature"), ("encoder", network[0], "a timm name"),
             ("encoder_args", network[1], "its arguments"),
             ("stem", "cifar" if cards and size < 64 else "default", "cifar keeps the resolution of small images"),
             *common, ("recipe", recipe, about)]]
    patch = next((p for p in range(min(16, size // 7), 1, -1) if size % p == 0 and size // p <= 16), None)
    if patch:
        vit = "vit_small_patch16_224" if cards else "vit_tiny_patch16_224"
        shape = {"patch_size": patch, "global_pool": "avg", "fc_norm": False} | ({} if cards else {"depth": 4})
        decoder = dict(zip(("decoder_width", "decoder_depth", "decoder_heads"), (256, 4, 8) if cards else (96, 2, 4)))
        arms.append([("name", "mae", "in tables and figures"), ("method", "mae", "rebuilds hidden patches"),
                     ("method_args", decoder, "this part is not kept"), ("encoder", vit, "a timm name"),
                     ("encoder_args", shape, "its arguments"), ("stem", "default", "has no other"), *common,
                     ("weight_decay", 0.05, "as its paper"), ("optimiser_args", {"betas": [0.9, 0.95]}, "as its paper"),
                     ("recipe", "mae", "crop and flip")])
    return steps, arms


def graphics_cards():
    import torch

    return torch.cuda.device_count()


def shown(path):
    """Relative to the project where it lies inside."""
    return path.relative_to(root()).as_posix() if path.is_relative_to(root()) else path.as_posix()


# --- YAML with reasons ------------------------------------------------------------------------------------------------

def commented(entries, indent=""):
    """Lines of YAML from (key, value, why); a value is plain, a section (list of entries), or a list of sections."""
    lines, section = [], False
    for key, value, why in entries:
        after, section = section, isinstance(value, list) and bool(value) and isinstance(value[0], (tuple, list))
        lines += [""] if lines and not indent and (section or after) else []
        text = f"{indent}{key}:" if section else f"{indent}{key}: {flow(value)}"
        beside = f"{text:<34}  # {why}" if why else text
        if len(beside) <= WIDTH:
            lines.append(beside)
        else:
            lines += [f"{indent}# {line}" for line in textwrap.wrap(why, WIDTH - 2 - len(indent))] + [text]
        for item in [] if not section else [value] if isinstance(value[0], tuple) else value:
            inner = commented(item, indent + "  ")
            if item is not value:
                inner[0] = f"{indent}- {inner[0].lstrip()}"
            lines += inner
    return lines


def flow(value):
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6
                          ).removesuffix("...\n").strip()
