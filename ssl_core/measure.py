"""Whether a pretraining can be put together, and what it would cost here: some steps, timed, and their memory."""

import time
import warnings

import psutil
import timm
import torch
from timm.optim import create_optimizer_v2

from ssl_core import methods
from ssl_core.augment import Augment
from ssl_core.config import ConfigError
from ssl_core.encoders import build_encoder, load_strictly, pixel_statistics
from ssl_core.train import OPTIMISERS, autocast, on_device, use_device
from ssl_core.weights import fitted, start_from

WARM_UP = 2  # steps that are not counted
LARGEST = 8192  # batches are not tried beyond it


def refuse_unfit(plan) -> list:
    """Put the pretraining of each arm together once, without training it; what was warned of, a line each.

    So that a recipe, encoder, method, add-on, optimiser or init that cannot be had, or two that do not go together, end
    the plan and not a job. Raises ConfigError, one line.
    """
    jobs, notes = {}, {}
    for job in plan.to_run:
        if job.stage == "pretrain" and job.n_unlabelled < getattr(jobs.get(job.cfg.arm), "n_unlabelled", float("inf")):
            jobs[job.cfg.arm] = job
    for arm, job in jobs.items():
        cfg = job.cfg
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                encoder = build_encoder(cfg, cfg.seed, *((0.5,) * 3,) * 2 * (cfg.normalisation == "dataset"))
                check_init(cfg, encoder, job.needs)
                build_optimiser(cfg, build_method(cfg, encoder, job.n_unlabelled))
            except Exception as error:  # a class may meet what it cannot take in any way
                said = " ".join(str(error).split())
                told = said if isinstance(error, ValueError) else f"an argument does not fit: {said}"
                raise ConfigError(f"arms.{arm}: {told}") from error
        for text in dict.fromkeys(str(warning.message) for warning in warned if warning.category is UserWarning):
            notes.setdefault(text, []).append(f"arms.{arm}")
    return [f"{', '.join(arms)}: {text}" for text, arms in notes.items()]


def check_init(cfg, encoder, above):
    """ValueError where the weights that `init` names are another network's; ImageNet's are not fetched for that."""
    if above:
        if differ := [name for name in ("encoder", "encoder_args", "stem")
                      if getattr(cfg, name) != getattr(above[0].cfg, name)]:
            raise ValueError(f"init {above[0].cfg.arm!r}: that arm has another {differ[0]}; give both the same network")
    elif cfg.init == "imagenet":
        like = fitted(timm.create_model(cfg.encoder).state_dict(), encoder.backbone)
        load_strictly(encoder.backbone, like, f"init 'imagenet': with encoder_args {cfg.encoder_args} {cfg.encoder} is "
                      "not the network that ImageNet's weights belong to")
    else:
        start_from(encoder, cfg.init)


def build_method(cfg, encoder, n):
    return methods.build(cfg.method, encoder, Augment(cfg.recipe, cfg.image_size), n, cfg.seed, cfg.wrap,
                         **cfg.method_args)


def build_optimiser(cfg, method):
    return create_optimizer_v2(method, OPTIMISERS[cfg.optimiser], lr=cfg.lr, weight_decay=cfg.weight_decay,
                               **cfg.optimiser_args)


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
    method = build_method(cfg, encoder, len(images)).to(device, memory_format=torch.channels_last).train()
    optimiser = build_optimiser(cfg, method)
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
