"""Load the model that lies beside this file, with torch, timm and safetensors alone. Research use only.

    from load_me import load

    model = load()           # where a folder holds several heads: load("linear-b1-s0"), as model.json names them
    out = model(images)      # float (B, 3, S, S) in [0, 1], S = model.size, grey repeated; normalising is done inside

A pretraining gives features (B, D). A probe or a fine-tuning gives probabilities (B, C) in float64, columns as in
`model.classes`; of a probe, the folder of its pretraining has to lie where it was, seen from here. Heads of nearest
neighbours are not kept. This file is the same in every run's folder and may be copied along with it.
"""

import csv
import hashlib
import json
from pathlib import Path

import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

HERE = Path(__file__).resolve().parent


class Model(nn.Module):
    """A backbone with its normalisation, and the head on its features if there is one."""

    def __init__(self, backbone, spec, head=None, task="", classes=(), features="h"):
        super().__init__()
        self.backbone, self.size, self.task, self.classes = backbone, spec["size"], task, tuple(classes)
        self.features = features
        self.register_buffer("mean", torch.tensor(spec["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(spec["std"]).view(1, 3, 1, 1))
        # weight (C, D), bias (C,); of a probe mean and scale (D,), too, and of two layers the hidden one's
        for name, tensor in (head or {}).items():
            self.register_buffer(f"head_{name}", tensor.double())

    def forward(self, x):
        h = self.backbone.forward_features((x - self.mean) / self.std)
        h = (self.backbone.fc_norm(h[:, 0]) if self.features == "token" else
             self.backbone.forward_head(h, pre_logits=True))
        if not self.task:
            return h
        z = h.double()
        if hasattr(self, "head_mean"):
            z = (z - self.head_mean) / self.head_scale
        if hasattr(self, "head_hidden_weight"):
            z = nn.functional.leaky_relu(z @ self.head_hidden_weight.T + self.head_hidden_bias)
        z = z @ self.head_weight.T + self.head_bias
        return z.sigmoid() if self.task == "multilabel" else z.softmax(1)


def load(cell="", folder=HERE):
    """The model of a run's folder, in eval mode; of its heads `cell`, or that with most labels, of the linear probe if
    there is one."""
    folder = Path(folder)
    if not (folder / "model.json").exists():
        return Model(*load_backbone(folder / "encoder.safetensors")).eval()
    about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    heads = load_file(folder / "head.safetensors")
    cells = sorted({name.rpartition("/")[0] for name in heads}, key=lambda name: largest_last(folder, name))
    if not cells or cell not in ("", *cells):
        raise ValueError(f"{folder.name}: no head {cell!r}; there are: {', '.join(cells) or 'none'}")
    cell = cell or cells[-1]
    own = about["cells"][cell].get("encoder")
    path = folder / own if own else encoder_below(folder, about["run"])
    head = {name.rpartition("/")[2]: heads[name] for name in heads if name.rpartition("/")[0] == cell}
    return Model(*load_backbone(path), head, about["task"], about["classes"],
                 about["cells"][cell].get("features", "h")).eval()


def largest_last(folder, cell):
    """What cells are sorted by: our linear probe after all others, then their share of the labels."""
    with open(folder / "cells" / f"{cell}.csv", encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    return row["protocol"] == "linear", float(row["budget"]), cell


def encoder_below(folder, run):
    """The encoder that a probe rests on: `run` is its pretraining's folder, seen from the project."""
    if not run:
        raise ValueError(f"{folder.name}: floors rest on no encoder")
    places = [*(above / run for above in folder.parents), folder.parents[1] / "pretrain" / Path(run).name]
    path = next((p / "encoder.safetensors" for p in places if (p / "encoder.safetensors").is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{folder.name}: its encoder is not there: {run}/encoder.safetensors")
    wanted = json.loads((folder / "run.json").read_text(encoding="utf-8"))["below"].get("run")
    if wanted and hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
        raise ValueError(f"{folder.name}: {run} holds another encoder than the one that was probed")
    return path


def load_backbone(path):
    """(timm model, what its file says of it); every tensor has to be there, and no other."""
    with safe_open(path, framework="pt") as file:
        spec = json.loads(file.metadata()["encoder"])
        state = {name: file.get_tensor(name) for name in file.keys()}
    args = spec["args"]
    if "vit" in spec["name"] or "deit" in spec["name"]:
        args = {"img_size": spec["size"]} | args
    backbone = timm.create_model(spec["name"], pretrained=False, num_classes=0, **args)
    if spec["stem"] == "cifar":
        backbone.conv1 = nn.Conv2d(3, backbone.bn1.num_features, 3, stride=1, padding=1, bias=False)
        backbone.maxpool = nn.Identity()
    backbone.load_state_dict(state)
    return backbone, spec
