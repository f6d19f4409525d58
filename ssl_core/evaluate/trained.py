"""Heads trained by gradient descent on features of a frozen encoder: the probes of published systems.

Each is a `Head`, a set of values; params/protocols names them. Features are cached and not augmented, the encoder is
in eval mode. An epoch leaves out its incomplete last batch. What a head normalises by is folded into its arrays, so
that a linear head stays linear.
"""

import copy
import math
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from ssl_core.evaluate.classes import accuracy, class_weights, cost
from ssl_core.evaluate.probe import LEAK, Probe, apply_probe, checked
from ssl_core.evaluate.selection import inner_val
from ssl_core.train import order, stream

OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
CHOICES = {"head": ("linear", "mlp", "cv", "knn"), "features": ("h", "token", "taps"),
           "norm": ("none", "batch", "batch_affine"), "optimiser": tuple(OPTIMISERS),
           "schedule": ("constant", "cosine", "steps", "exponential"), "select": ("last", "lowest_val_loss"),
           "val": ("none", "inner", "fixed")}
POINTS = 100  # of a curve that is kept


@dataclass(frozen=True)
class Head:
    """How a head is made; ValueError for what cannot be.

    head: linear; mlp, with one hidden layer, BatchNorm and LeakyReLU; or, with no more to say than features and k, cv,
    our linear probe, and knn, uniform votes. norm: BatchNorm of the features, with weights of its own or without.
    init_std: of the last layer's normal start, its biases 0; 0 is torch's default. per_256: lr is for 256 images and
    grows with the batch. schedule: by epochs, cosine by steps; warmup: epochs of linear rise from 0. milestones: epochs
    before which lr is multiplied by gamma; final_lr: the end of cosine and exponential.
    select: last epoch, or the one of the lowest loss on val: inner, a fifth of the labels, or fixed, the data's part.
    """

    head: str = "linear"
    features: str = "h"
    k: int = 200
    hidden: int = 512
    norm: str = "none"
    norm_eps: float = 1e-5
    init_std: float = 0.0
    optimiser: str = "adam"
    momentum: float = 0.0
    lr: float = 1e-3
    per_256: bool = False
    weight_decay: float = 0.0
    batch: int = 256
    epochs: int = 100
    schedule: str = "constant"
    warmup: int = 0
    milestones: tuple = ()
    gamma: float = 0.1
    final_lr: float = 0.0
    select: str = "last"
    val: str = "none"

    def __post_init__(self):
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; choose {', '.join(allowed)}")
        for name, field in self.__dataclass_fields__.items():
            value = getattr(self, name)
            if field.type in (int, float) and (not isinstance(value, (int, float)) or value < 0):
                raise ValueError(f"{name} {value!r} is no number from 0 on (in YAML write 1.0e-3, not 1e-3)")
        for name in ("k", "hidden", "lr", "batch", "epochs"):
            if not getattr(self, name):
                raise ValueError(f"{name} is 0; give more")
        if self.select == "lowest_val_loss" and self.val == "none":
            raise ValueError("select lowest_val_loss needs images to select on; give val inner or fixed")


def learning_rate(how, epoch, batch):
    """The learning rate at an epoch, counted from 0 and with fractions, for batches of a size."""
    peak = how.lr * batch / 256 if how.per_256 else how.lr
    if epoch < how.warmup:
        return peak * epoch / how.warmup
    if how.schedule == "cosine":
        share = (epoch - how.warmup) / (how.epochs - how.warmup)
        return how.final_lr + (peak - how.final_lr) * 0.5 * (1 + math.cos(math.pi * share))
    if how.schedule == "steps":
        return peak * how.gamma ** sum(epoch >= milestone for milestone in how.milestones)
    if how.schedule == "exponential":
        return peak * (how.final_lr / peak) ** (math.floor(epoch) / how.epochs)
    return peak


def train_head(features, labels, how, groups=None, val=None, seed=0, task="multiclass", n_classes=None, device="cpu"):
    """Train a head → Probe: `chosen` is the epoch kept; `table` has epoch, step, loss, accuracy, val_loss, val_accuracy
    and lr. Of training they are means over the epoch's batches; of val, NaN without one, as the epoch ends.

    features: (n, D); labels: (n,), multilabel (n, L) with -1 where unknown, which costs nothing; groups: (n,) or None.
    val: (features, labels) of the data's own validation part, for `how.val` fixed. `out_of_fold` holds the scores of
    an inner val. Exact for a seed. Raises FloatingPointError when the head diverges.
    """
    x, y, _ = checked(features, labels, groups, task)
    if how.val == "fixed" and (val is None or not len(val[0])):
        raise ValueError("val fixed selects on the data set's own part val, which is empty; take a protocol with "
                         "val inner, or data with that part")
    n_classes = y.shape[1] if task == "multilabel" else n_classes or int(y.max()) + 1
    train, held, note = np.arange(len(y)), np.zeros(0, int), []
    if how.val == "inner":
        train, held, said = inner_val(y, groups, seed, task)
        note.append(said)
        val = (x[held], y[held]) if len(held) else None
    batch = min(how.batch, len(train))
    if batch < how.batch:
        note.append(f"batches of {batch}, all there is, and not {how.batch}")
    if task != "multilabel" and (absent := n_classes - len(np.unique(y[train]))):
        note.append(f"{absent} of {n_classes} classes have no training image")
    model = build(how, x.shape[1], n_classes, seed).to(device)
    if batch < 2 and any(isinstance(layer, nn.BatchNorm1d) for layer in model):
        raise ValueError("a head with BatchNorm needs at least 2 labelled images; take a larger budget")
    val = val if how.val != "none" else None
    table, kept = fit(model, x[train], y[train], val, how, batch, seed, task, device)
    arrays, chosen = folded(kept), how.epochs
    if selecting := how.select == "lowest_val_loss" and val is not None:
        chosen = int(table.val_loss.fillna(np.inf).argmin()) + 1
    if not all(np.isfinite(a).all() for a in arrays.values()) or selecting and not np.isfinite(table.val_loss).any():
        raise FloatingPointError(f"the head diverged at lr {how.lr:g}; lower it")
    scores = None
    if len(held):
        scores = np.full((len(y), n_classes), np.nan)
        scores[held] = apply_probe(arrays, task, x[held])
    return Probe(arrays, task, chosen, table, scores, "; ".join(filter(None, note)))


def build(how, width, n_classes, seed):
    """The head as a torch module, features (B, D) → logits (B, C); its weights are a pure function of the seed."""
    layers = OrderedDict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, 3, 0))
        if how.norm != "none":
            layers["norm"] = nn.BatchNorm1d(width, how.norm_eps, affine=how.norm == "batch_affine")
        if how.head == "mlp":
            layers["hidden"] = nn.Linear(width, how.hidden)
            layers["hidden_norm"] = nn.BatchNorm1d(how.hidden)
            layers["activation"] = nn.LeakyReLU(LEAK)
        layers["last"] = nn.Linear(how.hidden if how.head == "mlp" else width, n_classes)
        if how.init_std:
            nn.init.trunc_normal_(layers["last"].weight, std=how.init_std)
            nn.init.zeros_(layers["last"].bias)
    return nn.Sequential(layers)


def fit(model, x, y, val, how, batch, seed, task, device):
    """Train a module → (the table of epochs, the module to keep, in eval mode). Nothing waits for the device before
    the end, not even the choice of the epoch."""
    weights = class_weights(y, model.last.out_features, task, "none").to(device)
    x, y, *val = (torch.as_tensor(a, dtype=kind, device=device) for a, kind in zip(
        (x, y, *(val or ())), (torch.float32, torch.int64) * 2, strict=False))
    momentum = {"momentum": how.momentum} if how.optimiser == "sgd" else {}
    optimiser = OPTIMISERS[how.optimiser](model.parameters(), lr=how.lr, weight_decay=how.weight_decay, **momentum)
    best, lowest = copy.deepcopy(model), torch.full((), math.inf, device=device)
    found, rates = [], []
    for epoch in range(how.epochs):
        model.train()
        batches = torch.from_numpy(np.stack(order(len(x), batch, seed, epoch))).to(device)
        total = torch.zeros(2, device=device)
        for step, index in enumerate(batches):
            rate = learning_rate(how, epoch + step / len(batches), batch)
            for group in optimiser.param_groups:
                group["lr"] = rate
            logits = model(x[index])
            loss = cost(logits, y[index], weights, 0.0, task)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += torch.stack([loss.detach(), accuracy(logits, y[index], task)])
        on_val = torch.full((2,), math.nan, device=device)
        if val:
            with torch.no_grad():
                logits = model.eval()(val[0])
                on_val = torch.stack([cost(logits, val[1], weights, 0.0, task), accuracy(logits, val[1], task)])
            better = on_val[0] < lowest
            lowest = torch.where(better, on_val[0], lowest)
            for old, new in zip(best.state_dict().values(), model.state_dict().values(), strict=True):
                old.copy_(torch.where(better, new, old))
        found.append(torch.cat([total / len(batches), on_val]))
        rates.append(rate)
    table = pd.DataFrame(torch.stack(found).cpu().numpy(), columns=["loss", "accuracy", "val_loss", "val_accuracy"])
    table.insert(0, "epoch", np.arange(1, how.epochs + 1))
    table.insert(1, "step", table.epoch * len(batches))
    return table.assign(lr=rates), (best if val and how.select == "lowest_val_loss" else model).eval()


def curve(probe):
    """A trained head's table at every epoch, of many at about POINTS, the last and the chosen among them; None for a
    probe that has no epochs."""
    if "epoch" not in probe.table:
        return None
    back = len(probe.table) - probe.table.epoch
    return probe.table[(back % -(-len(back) // POINTS) == 0) | (probe.table.epoch == probe.chosen)]


def folded(model):
    """A head's arrays for `apply_probe`: what BatchNorm does in eval mode stands in mean and scale and in the weights
    of the layer beside it."""
    numbers = {name: tensor.detach().cpu().double().numpy() for name, tensor in model.state_dict().items()}
    first = "hidden" if hasattr(model, "hidden") else "last"
    weight, bias = numbers[f"{first}.weight"], numbers[f"{first}.bias"]
    mean, scale = np.zeros(weight.shape[1]), np.ones(weight.shape[1])
    if hasattr(model, "norm"):
        mean, scale = numbers["norm.running_mean"], np.sqrt(numbers["norm.running_var"] + model.norm.eps)
        if model.norm.affine:
            bias = bias + weight @ numbers["norm.bias"]
            weight = weight * numbers["norm.weight"]
    if first == "last":
        return {"mean": mean, "scale": scale, "weight": weight, "bias": bias}
    by = numbers["hidden_norm.weight"] / np.sqrt(numbers["hidden_norm.running_var"] + model.hidden_norm.eps)
    shift = numbers["hidden_norm.bias"] - numbers["hidden_norm.running_mean"] * by
    return {"mean": mean, "scale": scale, "hidden_weight": weight * by[:, None], "hidden_bias": bias * by + shift,
            "weight": numbers["last.weight"], "bias": numbers["last.bias"]}
