"""Fine-tuning: an encoder and a linear head on its h, or the head alone, trained with labels.

The weights after the last step are the model, or those of the least log-loss on images that are not trained on. From an
encoder at its initialisation, the same function gives the supervised floor. The means for transformers (layer-wise
decay of the learning rate, drop path, label smoothing, a head that starts near 0) are those of He et al. 2022, §A.1,
after Bao et al. 2022 (BEiT). `classes` has what may be done about uneven classes.
"""

import json
import time
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.optim import create_optimizer_v2, param_groups_layer_decay
from torch import nn

from ssl_core import train
from ssl_core.augment import Augment
from ssl_core.encoders import load_encoder, load_strictly, rebuild, save_encoder
from ssl_core.evaluate.classes import accuracy, balanced_order, class_weights, cost, log_prior
from ssl_core.evaluate.features import extract
from ssl_core.evaluate.selection import keep_best, log_loss
from ssl_core.files import atomic_write, replacing
from ssl_core.train import autocast, learning_rate, on_device, order, stream

ROWS = 20  # of the history


class Classifier(nn.Module):
    """An encoder and a linear head on its h: images (B, 3, S, S) in [0, 1] → logits (B, C)."""

    def __init__(self, encoder, n_classes, task="multiclass"):
        super().__init__()
        self.encoder, self.task = encoder, task
        self.head = nn.Linear(encoder.width, n_classes)
        nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        return self.head(self.encoder(x).h)


def finetune(encoder, images, labels, cfg, n_classes, task="multiclass", folder=None, key="", judge=None):
    """Train a copy of `encoder` and a head → (Classifier in eval mode, history of epoch, step, loss, accuracy and lr,
    and with judges val_loss and val_accuracy; loss and accuracy are means over the batches since the row before).

    images: (n, C, S, S) uint8; labels: int64 (n,), or (n, L) for multilabel with −1 = unknown, which costs nothing.
    judge: images and labels that with cfg.select "best_val" choose the state that is kept, from those after each epoch
    (where cfg.epochs is 0: each twentieth of the steps); with none, it is the last. An epoch leaves out its incomplete
    last batch, and a batch is no larger than the set. With cfg.train "head" the encoder stays as it is, in eval mode.
    folder: keeps a checkpoint each five minutes, then encoder.safetensors, head.safetensors and history.csv; called
    again, it resumes, or returns what is there. Exact for a seed. Raises FloatingPointError as `pretrain` does.
    """
    labels = np.asarray(labels)
    cfg.refuse_task(task)
    if task != "multilabel" and labels.min() < 0:
        raise ValueError(f"{(labels < 0).sum()} of {len(labels)} images have no label; fine-tuning takes labelled ones")
    device, n, batch = next(encoder.parameters()).device, len(labels), min(cfg.batch, len(labels))
    if folder and all((Path(folder) / name).exists() for name in ("head.safetensors", "history.csv")):
        return load_classifier(folder, key).to(device), pd.read_csv(Path(folder) / "history.csv")
    model = prepare(encoder, n_classes, task, cfg).to(device, memory_format=torch.channels_last).train()
    learning = model.head if cfg.train == "head" else model
    model.encoder.requires_grad_(learning is model).train(learning is model)
    optimiser = layerwise_optimiser(model, cfg)
    weights = class_weights(labels, n_classes, task, cfg.class_weight).to(device)
    adjustment = cfg.logit_adjustment * log_prior(labels, n_classes, task, cfg.label_smoothing).to(device)
    batches = lru_cache(1)(partial(order, n, batch, cfg.seed) if cfg.sampling == "uniform" else
                           partial(balanced_order, labels, batch, cfg.seed))
    augment = Augment(cfg.recipe, encoder.spec["size"])
    images, labels = on_device(images, device), torch.from_numpy(labels).to(device)
    at = train.resume(model, optimiser, Path(folder), key, n, device) if folder else train.beginning(n, device)
    at.setdefault("accuracy_sum", torch.zeros((), device=device))
    per_epoch = n // batch
    steps = cfg.steps or cfg.epochs * per_epoch
    choosing = cfg.select == "best_val" and judge is not None and len(judge[1]) > 0
    every = per_epoch if choosing and cfg.epochs else max(1, steps // ROWS)
    saved = time.monotonic()

    for step in range(at["step"], steps):
        epoch, place = divmod(step, per_epoch)
        index = torch.from_numpy(batches(epoch)[place])
        torch.manual_seed(stream(cfg.seed, 1, step))
        generator = torch.Generator(device).manual_seed(stream(cfg.seed, 2, step))
        lr = learning_rate(step, steps, cfg.lr, cfg.warmup, cfg.schedule)
        for group in optimiser.param_groups:
            group["lr"] = lr * group["lr_scale"]

        index = index.to(device)
        x = augment(images[index.to(images.device)].to(device), generator)
        with autocast(device, cfg.precision):
            h = model.encoder(x).h
            logits = model.head(h).float()
        loss = cost(logits + adjustment, labels[index], weights, cfg.label_smoothing, task)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

        at["step"] += 1
        at["loss_sum"] += loss.detach()
        at["accuracy_sum"] += accuracy(logits.detach(), labels[index], task)
        train.watch(at["first_bad"], (x, h, h, loss), at["step"])
        if at["step"] % every == 0 or at["step"] == steps:
            train.stop_if_bad(at["first_bad"], model, per_epoch)
            since = at["step"] - (at["history"][-1]["step"] if at["history"] else 0)
            at["history"].append({"epoch": epoch + 1, "step": at["step"], "loss": float(at["loss_sum"]) / since,
                                  "accuracy": float(at["accuracy_sum"]) / since, "lr": lr})
            at["loss_sum"].zero_()
            at["accuracy_sum"].zero_()
            if choosing:
                scores, truth = predict(model, judge[0]), torch.from_numpy(judge[1])
                right = float(accuracy(torch.from_numpy(scores), truth, task, 0.5))
                at["history"][-1] |= {"val_loss": log_loss(scores, judge[1]), "val_accuracy": right}
                keep_best(at, model)
                learning.train()
        if folder and time.monotonic() - saved > train.SAVE_EVERY and at["step"] < steps:
            train.save(model, optimiser, Path(folder), key, at)
            saved = time.monotonic()

    if "best" in at:
        model.load_state_dict(at["best"])
    history = pd.DataFrame(at["history"])
    if folder:
        save_classifier(model, history, Path(folder), key)
    return model.eval(), history


def prepare(encoder, n_classes, task, cfg):
    """A classifier around a copy of the encoder with drop path; the head's weights are a pure function of the seed."""
    copy = rebuild(encoder.spec, **({"drop_path_rate": cfg.drop_path} if cfg.drop_path else {}))
    load_strictly(copy.backbone, encoder.backbone.state_dict(), "the encoder to fine-tune")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(cfg.seed, 3, 0))
        return Classifier(copy, n_classes, task)


def layerwise_optimiser(model, cfg):
    """Learning rates that shrink by `layer_decay` with each layer below the head, whose own may be `head_lr`; weight
    decay, but not of biases, norms and positions. Weights that take no gradient are left out."""
    backbone = model.encoder.backbone
    exempt = backbone.no_weight_decay() if hasattr(backbone, "no_weight_decay") else ()
    groups = param_groups_layer_decay(backbone, cfg.weight_decay, exempt, layer_decay=cfg.layer_decay)
    for group in groups:
        group["lr_scale"] *= cfg.layer_decay  # timm counts from the last layer it knows; the head lies above that
    scale = (cfg.head_lr or cfg.lr) / cfg.lr
    groups += [{"params": [model.head.weight], "weight_decay": cfg.weight_decay, "lr_scale": scale},
               {"params": [model.head.bias], "weight_decay": 0.0, "lr_scale": scale}]
    return create_optimizer_v2(groups, train.OPTIMISERS[cfg.optimiser], lr=cfg.lr, weight_decay=cfg.weight_decay,
                               **cfg.optimiser_args)


def predict(model, images):
    """Probabilities in float64: (N, C, S, S) uint8 → (N, C), rows that sum to 1, or one probability per label."""
    h = torch.from_numpy(extract(model.encoder, images)).double()
    logits = h @ model.head.weight.detach().cpu().double().T + model.head.bias.detach().cpu().double()
    return (logits.sigmoid() if model.task == "multilabel" else logits.softmax(1)).numpy()


def save_classifier(model, history, folder, key=""):
    """encoder.safetensors, history.csv and, last, head.safetensors: `weight` (C, D) and `bias` (C,) on h."""
    save_encoder(model.encoder, folder / "encoder.safetensors", key)
    atomic_write(folder / "history.csv", history.to_csv(index=False, lineterminator="\n"))
    head = {name: tensor.detach().cpu().contiguous() for name, tensor in model.head.state_dict().items()}
    with replacing(folder / "head.safetensors") as path:
        save_file(head, path, metadata={"head": json.dumps({"task": model.task, "key": key})})
    for name in ("last.pt", "prev.pt"):
        (folder / name).unlink(missing_ok=True)


def load_classifier(folder, key=None):
    """The classifier that `save_classifier` left in a folder, in eval mode; a `key` that is given must agree."""
    folder = Path(folder)
    with safe_open(folder / "head.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["head"])
    if key is not None:
        train.refuse_other_key(folder / "head.safetensors", header["key"], key)
    head = load_file(folder / "head.safetensors")
    model = Classifier(load_encoder(folder / "encoder.safetensors"), len(head["bias"]), header["task"])
    load_strictly(model.head, head, folder / "head.safetensors")
    return model.eval()
