"""What a pretraining would cost on this machine: a few steps of it, timed, and the memory they need."""

import time
import warnings

import psutil
import torch
from timm.optim import create_optimizer_v2

from ssl_core import methods
from ssl_core.augment import Augment
from ssl_core.encoders import build_encoder, pixel_statistics
from ssl_core.train import OPTIMISERS, autocast, on_device, use_device

WARM_UP = 2  # steps that are not counted
LARGEST = 8192  # batches are not tried beyond it


def measure(cfg, images, steps=10):
    """Seconds per step, images per second, memory and the largest batch (a power of 2) that fits, as a dict.

    cfg: PretrainConfig; images: (n, C, S, S) uint8. Steps run on real images and leave nothing behind. On CUDA memory
    is the allocator's peak and batches are tried; elsewhere both follow from the bytes that a step keeps for its
    backward pass, against the memory that is free now.
    """
    device = use_device(cfg.device, cfg.threads)
    statistics = pixel_statistics(images) if cfg.normalisation == "dataset" else ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the notebook says what is to be said of the stem
        encoder = build_encoder(cfg, cfg.seed, *statistics)
    method = methods.build(cfg.method, encoder, Augment(cfg.recipe, cfg.image_size), len(images), cfg.seed,
                           cfg.wrap, **cfg.method_args).to(device, memory_format=torch.channels_last).train()
    optimiser = create_optimizer_v2(method, OPTIMISERS[cfg.optimiser], lr=cfg.lr, weight_decay=cfg.weight_decay,
                                    **cfg.optimiser_args)
    images, batch = on_device(images, device), min(cfg.batch, len(images))
    for done in range(WARM_UP + steps):
        if done == WARM_UP:
            wait(device)
            started = time.perf_counter()
        one_step(method, optimiser, images, batch, cfg)
    wait(device)
    seconds = (time.perf_counter() - started) / steps
    kept = bytes_kept(method, images, batch, cfg)
    if device.type == "cuda":
        memory, largest = torch.cuda.max_memory_allocated(device), try_batches(method, optimiser, images, cfg)
    else:
        memory = kept + sum(t.nbytes for t in method.state_dict().values()) * 4
        fits = int(psutil.virtual_memory().available / 2 / max(1, kept / batch))
        largest = min(LARGEST, 2 ** (fits.bit_length() - 1)) if fits else 0
    return {"seconds_per_step": seconds, "images_per_s": batch / seconds, "memory_mb": round(memory / 1e6),
            "largest_batch": largest}


def one_step(method, optimiser, images, batch, cfg):
    index = torch.randint(len(images), (batch,))
    device = next(method.parameters()).device
    with autocast(device, cfg.precision):
        step = method(*method.views(images[index.to(images.device)].to(device), index.to(device), None))
    optimiser.zero_grad(set_to_none=True)
    step.loss.mean().backward()
    optimiser.step()
    method.update(step, index.to(device))


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bytes_kept(method, images, batch, cfg):
    """Bytes of the tensors that one forward pass keeps for backward, each storage once."""
    kept = {}

    def count(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    index = torch.arange(batch)
    device = next(method.parameters()).device
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor), autocast(device, cfg.precision):
        method(*method.views(images[index.to(images.device)].to(device), index.to(device), None)).loss.mean()
    return sum(kept.values())


def try_batches(method, optimiser, images, cfg):
    """The largest power of two at which a step fits into the memory of the CUDA device."""
    largest, batch = 0, 2
    while batch <= LARGEST:
        try:
            one_step(method, optimiser, images, batch, cfg)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        largest, batch = batch, 2 * batch
    return largest
