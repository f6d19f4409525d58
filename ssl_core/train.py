"""The training loop a person can read, with exact resume.

Every random stream is a pure function of (seed, epoch, step), and the learning rate of the step, so that a run that was
killed and called again ends with the same bits as one that was not (on the same device and number of threads).
"""

import math
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.optim import create_optimizer_v2

from ssl_core.encoders import load_strictly, save_encoder
from ssl_core.files import atomic_json, atomic_write, replacing

# timm's names; its "sgd" would be Nesterov
OPTIMISERS = {"adam": "adam", "adamw": "adamw", "sgd": "momentum", "lars": "lars"}
CHECK_EVERY = 20  # steps between two looks at what the device has found, as each look waits for the device
SAVE_EVERY = 300  # seconds between two checkpoints inside an epoch


def use_device(device="auto", threads=1):
    """The torch device for a run: "auto" takes CUDA, then Apple's MPS, then the CPU. Sets this job's CPU threads."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, there in present.items() if there))
    if not present[device]:
        raise ValueError(f"device {device!r} is not there; this machine has: "
                         f"{', '.join(name for name, there in present.items() if there)}")
    return torch.device(device)


def autocast(device, precision):
    """bf16 on CUDA when `precision` is "auto" or "bf16"; elsewhere only when asked for by name."""
    enabled = precision == "bf16" or (precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported())
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def stream(*numbers):
    """One 63-bit seed from integers such as (seed, 1, step): always three of them, as missing ones count as 0."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def order(n, batch, seed, epoch):
    """The epoch's batches: a list of int64 arrays; the incomplete last one waits for another epoch's shuffle."""
    batch = min(batch, n)
    shuffled = np.random.Generator(np.random.PCG64(stream(seed, 0, epoch))).permutation(n)
    return [shuffled[i:i + batch] for i in range(0, n - batch + 1, batch)]


def learning_rate(step, total, peak, warmup, schedule="cosine"):
    """Linear warm-up over a share of the steps, then half a cosine to 0 (Loshchilov & Hutter 2017), or "constant"."""
    rise = warmup * total
    if step < rise:
        return peak * (step + 1) / (rise + 1)
    if schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


def on_device(images, device):
    """uint8 images on the device, or in main memory when they would fill more than half of what is free there."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # a memory map, only read here
        images = torch.from_numpy(np.ascontiguousarray(images))
    if device.type == "cuda" and images.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return images
    return images.to(device)


def spread(z):
    """√D × mean over dimensions of the standard deviation of normalised z: 1 when spread evenly, 0 when collapsed
    (Chen & He 2021, §4.1). z: (B, D) → scalar."""
    z = torch.nn.functional.normalize(z.detach().float(), dim=1)
    return z.std(0).mean() * z.shape[1] ** 0.5


def effective_rank(h):
    """exp of the entropy of the normalised singular values (Roy & Vetterli 2007; RankMe). h: (B, D) → scalar."""
    s = torch.linalg.svdvals(h.detach().float() - h.detach().float().mean(0))
    p = s / s.sum().clamp_min(1e-12)
    return torch.exp(-(p * p.clamp_min(1e-12).log()).sum())


def pretrain(method, images, cfg, folder, key=""):
    """Train `method` on images (n, C, S, S) uint8; return the history, one row per epoch.

    Streams history.csv and progress.json into `folder`, saves last.pt each epoch or five minutes, and leaves
    encoder.safetensors and method.safetensors (the layers that are not the encoder's). Called again it resumes; called
    when all is done it restores the method and returns the stored history.
    Raises FloatingPointError, naming the first tensor that was not finite.
    """
    folder = Path(folder)
    device = next(method.parameters()).device
    if finished := restore(method, folder, key):
        return pd.read_csv(finished)
    method.to(memory_format=torch.channels_last)
    images = on_device(images, device)
    n = len(images)
    per_epoch = len(order(n, cfg.batch, cfg.seed, 0))
    total = cfg.steps or cfg.epochs * per_epoch
    optimiser = create_optimizer_v2(method, OPTIMISERS[cfg.optimiser], lr=cfg.lr, weight_decay=cfg.weight_decay,
                                    **cfg.optimiser_args)
    at = resume(method, optimiser, folder, key, n, device)
    while at["step"] < total:
        train_epoch(method, images, optimiser, cfg, folder, key, at, total, per_epoch)
    with replacing(folder / "image_loss.npy") as path:
        np.save(path, at["image_loss"].cpu().numpy())
    save_encoder(method.encoder, folder / "encoder.safetensors", key)
    rest = {name: t.detach().cpu().contiguous() for name, t in method.state_dict().items()
            if not name.startswith(encoders_place(method))}
    with replacing(folder / "method.safetensors") as path:  # the last file: with it the run is finished
        save_file(rest, path, metadata={"key": key})
    for name in ("last.pt", "prev.pt"):
        (folder / name).unlink(missing_ok=True)
    return pd.DataFrame(at["history"])


def train_epoch(method, images, optimiser, cfg, folder, key, at, total, per_epoch):
    """One epoch from where `at` stands; writes into `at`: step, history, image_loss, first_bad, sums of the epoch."""
    device = at["image_loss"].device
    epoch = at["step"] // per_epoch
    method.train()
    if at["step"] % per_epoch == 0:  # inside an epoch the checkpoint holds what begin_epoch derived
        method.begin_epoch(epoch)
    batches = torch.from_numpy(np.stack(order(len(images), cfg.batch, cfg.seed, epoch))).to(images.device)
    started, seen, saved = time.perf_counter(), 0, time.monotonic()
    for index in batches[at["step"] % per_epoch:]:
        if at["step"] == total:
            break
        torch.manual_seed(stream(cfg.seed, 1, at["step"]))
        generator = torch.Generator(device).manual_seed(stream(cfg.seed, 2, at["step"]))
        lr = learning_rate(at["step"], total, cfg.lr, cfg.warmup)
        for group in optimiser.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)

        batch = images[index]
        if batch.device != device:
            batch = batch.pin_memory().to(device, non_blocking=True)
            index = index.to(device)
        with autocast(device, cfg.precision):
            views = method.views(batch, index, generator)
            step = method(*views)
        loss = step.loss.mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        method.update(step, index)

        at["step"] += 1
        at["loss_sum"] += loss.detach()
        at["image_loss"][index] = step.loss.detach().to(at["image_loss"].dtype)
        h = step.feats[0].h
        z = step.z[0] if step.z else h
        watch(at["first_bad"], (views[0], h, z, step.loss), at["step"])
        seen += len(index)
        if at["step"] % CHECK_EVERY == 0 or at["step"] == total:
            stop_if_bad(at["first_bad"], method, per_epoch)
            rate = seen / (time.perf_counter() - started)
            atomic_json(folder / "progress.json", {"epoch": epoch + 1, "epochs": math.ceil(total / per_epoch),
                        "step": at["step"], "steps": total, "images_per_s": round(rate, 1),
                        "seconds_left": round((total - at["step"]) * len(index) / rate, 1)})
        inside = at["step"] % per_epoch and at["step"] < total
        if inside and time.monotonic() - saved > SAVE_EVERY:
            save(method, optimiser, folder, key, at)
            saved = time.monotonic()
    stop_if_bad(at["first_bad"], method, per_epoch)
    steps = at["step"] - epoch * per_epoch
    even = float(spread(z)) if step.z else math.nan
    at["history"].append({"epoch": epoch + 1, "step": at["step"], "loss": float(at["loss_sum"]) / steps, "lr": lr,
                          "spread": even, "effective_rank": float(effective_rank(h)),
                          "images_per_s": seen / (time.perf_counter() - started)})
    at["loss_sum"] = torch.zeros((), device=device)
    atomic_write(folder / "history.csv", pd.DataFrame(at["history"]).to_csv(index=False, lineterminator="\n"))
    save(method, optimiser, folder, key, at)


# --- what is not finite -----------------------------------------------------------------------------------------------

WATCHED = ("the first view", "h, the encoder's output", "z, the projection", "the loss")


def watch(first_bad, tensors, step):
    """Note on the device, without waiting for it, the first step at which each watched tensor was not finite.

    What is not finite shows in a sum, which costs a tenth of looking at each number.
    """
    bad = torch.stack([~torch.isfinite(t.detach().sum(dtype=torch.float32)) for t in tensors])
    first_bad.copy_(torch.where((first_bad < 0) & bad, step, first_bad))


def stop_if_bad(first_bad, method, per_epoch):
    found = [(step, i) for i, step in enumerate(first_bad.tolist()) if step >= 0]
    if not found:
        return
    step, i = min(found)
    weights = next((name for name, p in method.named_parameters() if not torch.isfinite(p).all()), None)
    raise FloatingPointError(
        f"{WATCHED[i]} was not finite at step {step} (epoch {(step - 1) // per_epoch + 1})"
        + (f"; first weight that is not finite now: {weights}" if weights else "")
        + "; lower lr, lengthen warmup, or look at the images of that step")


# --- checkpoints ------------------------------------------------------------------------------------------------------

def save(method, optimiser, folder, key, at):
    """last.pt, whole or not at all; the one before stays as prev.pt."""
    last = folder / "last.pt"
    with replacing(last) as path:
        torch.save({"key": key, "method": method.state_dict(), "optimiser": optimiser.state_dict(), "at": at}, path)
        if last.exists():
            last.replace(folder / "prev.pt")


def resume(method, optimiser, folder, key, n, device):
    """Where training stands: from last.pt, or prev.pt when that is broken, or the start. Another key is not resumed."""
    for name in ("last.pt", "prev.pt"):
        if not (folder / name).exists():
            continue
        try:
            state = torch.load(folder / name, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a torn file raises; the older generation is tried, and said
            print(f"{folder / name} cannot be read ({type(error).__name__}); trying the checkpoint before it")
            continue
        refuse_other_key(folder / name, state["key"], key)
        method.load_state_dict(state["method"])
        optimiser.load_state_dict(state["optimiser"])
        return {name: value.to(device) if torch.is_tensor(value) else value for name, value in state["at"].items()}
    if (folder / "last.pt").exists():
        print(f"{folder}: no checkpoint can be read; training starts afresh")
    return beginning(n, device)


def beginning(n, device):
    """Where a training of n images starts; `pretrain` says what each value is for."""
    return {"step": 0, "history": [], "loss_sum": torch.zeros((), device=device),
            "image_loss": torch.full((n,), float("nan"), device=device),
            "first_bad": torch.full((len(WATCHED),), -1, device=device)}


def restore(method, folder, key):
    """Load a finished run into the method; return the path of its history, or None when it is not finished."""
    encoder, rest, history = (folder / name for name in ("encoder.safetensors", "method.safetensors", "history.csv"))
    if not rest.exists():
        return None
    with safe_open(rest, framework="pt") as file:
        refuse_other_key(rest, file.metadata()["key"], key)
    load_strictly(method.encoder.backbone, load_file(encoder), encoder)
    own = {name: t for name, t in method.state_dict().items() if name.startswith(encoders_place(method))}
    load_strictly(method, own | load_file(rest), rest)
    return history


def encoders_place(method):
    """What the names of the encoder's weights begin with; a wrapper holds it inside its base."""
    return next(name for name, module in method.named_modules() if module is method.encoder) + "."


def refuse_other_key(path, found, key):
    if found != key:
        raise ValueError(f"{path} belongs to key {found}, not {key}; move it away to start afresh")
