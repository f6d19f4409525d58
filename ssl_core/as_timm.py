"""A finished network as timm alone knows it: a plain state dict, the call that makes its model, and how to use it."""

import json

import numpy as np
import timm
import torch
from safetensors.numpy import load_file
from torch import nn

from ssl_core.config import ConfigError
from ssl_core.encoders import load_encoder, load_strictly, use_cifar_stem
from ssl_core.finished import USE, encoder_of

LINEAR = {"mean", "scale", "weight", "bias"}
TOLERANCE = 1e-4  # of a probability, between the study's own scores and those of the exported head


def network(folder, record, cell, name):
    """(state dict, what a reader has to know) of a pretraining's encoder, or of an evaluated cell's network and head.

    cell: None, or as plan.json has it; name: what the file is called. ConfigError says what timm cannot express.
    """
    head, about, what = {}, {}, "h"
    if cell is None:
        encoder, n_classes = load_encoder(folder / "encoder.safetensors"), 0
    else:
        model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        encoder = load_encoder(encoder_of_cell(folder, record, cell, model))
        what = "token" if model["cells"][cell["id"]].get("features") == "token" else "h"
        weight, bias = folded(head_of(folder, cell["id"]), encoder.width)
        off = difference(folder, cell["id"], weight, bias, model["task"], what)
        if off is not None and off > TOLERANCE:
            raise ConfigError(f"a linear layer does not give its scores: off by up to {off:.2g}")
        n_classes, head = len(weight), {"weight": weight, "bias": bias}
        last = "sigmoid" if model["task"] == "multilabel" else "softmax"
        about = {"classes": model["classes"], "task": model["task"], "probabilities": f"{last} of the output"}
    spec = encoder.spec
    sized = "vit" in spec["name"] or "deit" in spec["name"]  # as `create_backbone` does
    args = {"img_size": spec["size"]} | spec["args"] if sized else spec["args"]
    if what == "token":  # under the norm that the network has, as `class_token` does
        args = args | {"global_pool": "token", "fc_norm": not isinstance(encoder.backbone.fc_norm, nn.Identity)}
    net, state = timm.create_model(spec["name"], num_classes=n_classes, **args), encoder.backbone.state_dict()
    stem = []
    if spec["stem"] == "cifar":
        use_cifar_stem(net, spec["name"])
        width = net.bn1.num_features
        stem = [f"model.conv1 = torch.nn.Conv2d(3, {width}, 3, stride=1, padding=1, bias=False)",
                "model.maxpool = torch.nn.Identity()"]
    if head:
        last = net.get_classifier()
        if not isinstance(last, nn.Linear) or last.weight.shape != head["weight"].shape:
            raise ConfigError(f"the classifier of {spec['name']} in timm is no single linear layer on its features")
        where = next(place for place, module in net.named_modules() if module is last)
        state |= {f"{where}.{part}": tensor for part, tensor in head.items()}
    load_strictly(net, state, name)
    call = ", ".join([repr(spec["name"]), f"num_classes={n_classes}", *(f"{key}={args[key]!r}" for key in args)])
    load = [f"model = timm.create_model({call})", *stem,
            f"model.load_state_dict(torch.load({name!r}, weights_only=True))", "model.eval()"]
    return {key: tensor.cpu().clone() for key, tensor in state.items()}, {
        "use": USE, "load": load, "timm": {"name": spec["name"], "num_classes": n_classes, **args},
        "stem": spec["stem"], "input": f"(B, 3, {spec['size']}, {spec['size']}), pixels in [0, 1], grey repeated, "
        "then minus mean, divided by std", "mean": spec["mean"], "std": spec["std"],
        "output": f"logits (B, {n_classes})" if n_classes else f"features (B, {encoder.width})", **about}


def encoder_of_cell(folder, record, cell, model):
    """The file of the network below a cell; ConfigError where none was kept."""
    if cell["source"] != "encoder" or cell["id"] not in model["cells"]:
        raise ConfigError("a floor, which rests on no stored network")
    return encoder_of(folder, record, model["cells"][cell["id"]])


def head_of(folder, cell):
    tensors = load_file(folder / "head.safetensors")
    return {name[len(cell) + 1:]: tensors[name] for name in tensors if name.startswith(f"{cell}/")}


def folded(head, width):
    """float32 weight (C, D) and bias (C,) that also do what a probe does to features first, (h − mean) / scale."""
    if not head:
        raise ConfigError("no head was kept, as of nearest neighbours, whose model would be all labelled images")
    if set(head) - LINEAR or head["weight"].ndim != 2:
        raise ConfigError(f"its head is more than one linear layer ({', '.join(sorted(head))})")
    if head["weight"].shape[1] != width:
        raise ConfigError(f"its head is on {head['weight'].shape[1]} features, the network gives {width}")
    weight, bias = head["weight"].astype(np.float64), head["bias"].astype(np.float64)
    if "mean" in head:
        weight = weight / head["scale"]
        bias = bias - weight @ head["mean"]
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()


def difference(folder, cell, weight, bias, task, what):
    """The largest difference between a cell's test probabilities and those of weight and bias on the features that the
    run kept, h or token; None where it kept none."""
    stored = folder / ("features.npz" if what == "h" else "token.npz")
    if not stored.exists():
        return None
    with np.load(folder / f"cells/{cell}.npz", allow_pickle=False) as kept:
        p = torch.from_numpy(kept["probabilities"])
    with np.load(stored, allow_pickle=False) as kept:
        z = torch.from_numpy(kept[what][-len(p):]).float() @ weight.T + bias
    return float(((z.sigmoid() if task == "multilabel" else z.softmax(1)) - p).abs().max())
