"""Finished runs to be used on other images: their encoder, their head, and how their images came to their pixels."""

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

from ssl_core.config import CONFIGS, ConfigError
from ssl_core.data import load
from ssl_core.data.cards import Card, read_card
from ssl_core.data.pools import pools
from ssl_core.evaluate.features import extract, weights_hash
from ssl_core.files import root, sha256_file
from ssl_core.keys import fingerprint
from ssl_core.runs import damage, read_run
from ssl_core.table import read_text

USE = "research use only"
ENOUGH = 5000  # of the study's images, where features have to be computed anew


def encoder_file(path):
    """An encoder file, or the folder of the run that left one → (file, run.json or {})."""
    path = Path(path)
    file = path / "encoder.safetensors" if path.is_dir() else path
    if not file.is_file():
        hint = "; it is a probe: give its pretraining, or use predict" if (path / "model.json").exists() else ""
        raise ConfigError(f"{path}: no encoder there; give an encoder.safetensors, or a run's folder that holds "
                          f"one{hint}")
    return file, next(filter(None, map(read_run, file.resolve().parents[:3])), {})


def encoder_below(run):
    """The encoder that a run left, or that a finished probe or fine-tuning rests on; a file is one already."""
    return open_head(run)["encoder"] if (Path(run) / "model.json").exists() else encoder_file(run)[0]


def pixels_for(record, size):
    """How a run's images came to their pixels → (size, channels, geometry, window, group as a dict, how it is known).

    record: run.json, or {}; size: what the encoder was made for. Runs of before this was recorded take it from the
    card as it is now; where there is no card either, images are cropped to a square and read as colour.
    """
    if record.get("images"):
        return record["images"], "as the run's images"
    parameters = record.get("parameters", {})
    card, said = {}, "not known from a run: short side to size, centre kept, in colour"
    if dataset := parameters.get("dataset", ""):
        try:
            card = read_card(root() / dataset if dataset.endswith((".yaml", ".yml")) else dataset).model_dump()
            said = f"as the card {Path(dataset).stem} says now"
        except ConfigError:
            pass  # the card is gone, which is said
    plain = {key: card.get(key, Card.model_fields[key].default) for key in ("geometry", "window", "group")}
    return {"size": parameters.get("image_size", size), "channels": card.get("channels") or 3, **plain}, said


def header_key(file):
    """The key of the run that made an encoder file."""
    with safe_open(file, framework="np") as opened:
        header = opened.metadata()
    return json.loads(header["encoder"]).get("key", header.get("key", ""))  # earlier files have an entry of its own


def open_head(folder, protocol="", budget=None):
    """The head of a finished run → dict: cell, arrays for `apply_probe`, encoder (a path), record, model.

    protocol: by default linear, where the run has it, else its first; budget: by default the largest. `features` says
    what the head takes, h or token. Raises ConfigError.
    """
    folder = Path(folder)
    record, wrong = read_run(folder), damage(folder)
    if wrong or not (folder / "model.json").exists() or record.get("stage") not in ("probe", "finetune"):
        raise ConfigError(f"{folder}: no finished probe or fine-tuning ({wrong or 'no model.json'}); give its folder "
                          "under outputs/STUDY/runs/probe or runs/finetune")
    if record["stage"] == "probe" and not record["parameters"]["run"]:
        raise ConfigError(f"{folder.name}: floors rest on no encoder; give the probe of a pretraining")
    model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    tensors, found = load_file(folder / "head.safetensors"), {}
    for cell in {name.rpartition("/")[0] for name in tensors}:
        row = read_text(folder / "cells" / f"{cell}.csv").iloc[0]
        found.setdefault(row.protocol, {})[float(row.budget)] = cell
    protocols = record["parameters"].get("protocols", [*found])
    if protocol in protocols and protocol not in found:
        raise ConfigError(f"{folder.name}: {protocol} has no head, its model would be all labelled images; take "
                          f"--protocol {', '.join(sorted(found)) or 'linear in the study'}")
    heads = found.get(protocol or next((name for name in ["linear", *protocols] if name in found), ""), {})
    if not heads:
        raise ConfigError(f"{folder.name}: no head of {protocol or 'any protocol'}; its protocols are "
                          f"{', '.join(protocols)}, and neighbours have none")
    budget = max(heads) if budget is None else budget
    if budget not in heads:
        raise ConfigError(f"--budget {budget:g}: {folder.name} has {', '.join(f'{b:g}' for b in sorted(heads))}")
    cell = heads[budget]
    arrays = {name.rpartition("/")[2]: tensors[name] for name in tensors if name.rpartition("/")[0] == cell}
    return {"cell": cell, "arrays": {"mean": 0.0, "scale": 1.0} | arrays, "model": model, "record": record,
            "features": {"token": "token"}.get(model["cells"][cell].get("features"), "h"),
            "encoder": encoder_of(folder, record, model["cells"][cell])}


def encoder_of(folder, record, about):
    """The encoder file that a head was fitted on; ConfigError when it is gone, or another by now."""
    if "encoder" in about:
        return folder / about["encoder"]
    run = record["parameters"]["run"]
    places = [root() / run, folder.resolve().parents[1] / "pretrain" / Path(run).name]
    file = next((place / "encoder.safetensors" for place in places if (place / "encoder.safetensors").is_file()), None)
    if file is None:
        raise ConfigError(f"{folder.name}: its encoder is not there: {run}/encoder.safetensors")
    if sha256_file(file) != record["below"].get("run", sha256_file(file)):
        raise ConfigError(f"{folder.name}: {run} holds another encoder than the one that was probed; run the study "
                          "again")
    return file


def study_features(folder, record, encoder, what="h"):
    """h, or the class token, of a run's labelled images (and those it selects on) and of its test images, from
    features.npz or token.npz or else from the data; ConfigError in words where neither is at hand."""
    folder = Path(folder)
    stored = folder / ("features.npz" if what == "h" else f"{what}.npz")
    if stored.exists():
        with np.load(stored, allow_pickle=False) as kept:
            h, origin = kept[what], str(kept["origin"])
        with np.load(next(iter(sorted(folder.glob("cells/*.npz")))), allow_pickle=False) as kept:
            n_test = len(kept["labels"])
        if origin.split()[0] == weights_hash(encoder):
            return h[:-n_test], h[-n_test:]
    cfg = CONFIGS[record["stage"]](**record["parameters"])
    try:
        data = load(root() / cfg.dataset if cfg.dataset.endswith((".yaml", ".yml")) else cfg.dataset, cfg.image_size)
    except (ValueError, OSError) as error:
        raise ConfigError(f"its images are not at hand ({' '.join(str(error).split())})") from None
    parts = pools(data, **cfg.pool_arguments())
    if [fingerprint(at) for at in (parts.labelled, parts.test)] != [record["parts"]["inputs"][name]
                                                                     for name in ("labelled", "test")]:
        raise ConfigError("its images are others by now")
    some = [at[::-(-len(at) // ENOUGH)] for at in (parts.labelled, parts.test)]
    return tuple(extract(encoder, data.images[at], what=what) for at in some)
