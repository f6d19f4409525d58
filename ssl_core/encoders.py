"""Encoders: a timm backbone with named input, stem and taps, saved so that one file rebuilds it."""

import json
import warnings
from dataclasses import dataclass

import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ssl_core.files import replacing

NORMALISATIONS = {
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


@dataclass(frozen=True)
class Features:
    """h: (B, D) pooled representation; maps: one (B, C, H, W) per tap, shallow first."""

    h: torch.Tensor
    maps: tuple = ()


class Encoder(nn.Module):
    """The network that downstream work keeps: images (B, 3, S, S) in [0, 1] → Features.

    name: a timm model; args: its keyword arguments (`channels`, `patch_size`, `depth`, `global_pool`, …).
    stem: "default", or "cifar": 3 × 3 convolution, stride 1, no max-pool (He et al. 2016, §4.2), for ResNets.
    normalisation: a layer of the network, so that it travels with the weights: "none", "half", "imagenet", or
    "dataset" with `mean` and `std`, three numbers each. taps: numbers of the stages whose maps are returned.
    """

    def __init__(self, name, args=None, stem="default", size=32, normalisation="none", mean=None, std=None, taps=()):
        super().__init__()
        args = dict(args or {})
        self.backbone = create_backbone(name, args, size)
        if stem == "cifar":
            use_cifar_stem(self.backbone, name)
        elif size < 64 and hasattr(self.backbone, "maxpool") and self.backbone.maxpool is not None:
            warnings.warn(f"{name} keeps its ImageNet stem at {size} px: the first map is {-(-size // 4)} px wide; "
                          'stem "cifar" keeps the resolution and costs more time', stacklevel=2)
        if normalisation != "dataset":
            mean, std = NORMALISATIONS[normalisation]
        elif mean is None or std is None:
            raise ValueError('normalisation "dataset" needs the mean and std of the images, three numbers each')
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.taps = tuple(taps)
        self.width = self.backbone.num_features
        pool = getattr(self.backbone, "global_pool", "avg")
        self.spec = {"name": name, "args": args, "stem": stem, "channels": 3, "size": size,
                     "normalisation": normalisation, "mean": [float(m) for m in mean], "std": [float(s) for s in std],
                     "pooling": str(args.get("global_pool", getattr(pool, "pool_type", pool)))}

    def normalise(self, x):
        return (x - self.mean) / self.std

    def forward(self, x):
        x = self.normalise(x)
        if self.taps:
            x, maps = self.backbone.forward_intermediates(x, indices=list(self.taps))
        else:
            x, maps = self.backbone.forward_features(x), ()
        return Features(self.backbone.forward_head(x, pre_logits=True), tuple(maps))

    def extra_repr(self):
        return ", ".join(f"{key}={self.spec[key]!r}" for key in ("name", "stem", "size", "normalisation"))


def create_backbone(name, args, size):
    """The timm model without its classifier; a transformer is told the image size, as its positions depend on it."""
    try:
        if "vit" in name or "deit" in name:
            args = {"img_size": size} | args
        return timm.create_model(name, pretrained=False, num_classes=0, **args)
    except RuntimeError as error:
        if "Unknown model" not in str(error):
            raise
        close = ", ".join(timm.list_models(f"*{name[:6]}*")[:5]) or "see timm.list_models()"
        raise ValueError(f"encoder {name!r} is not a timm model; near it: {close}") from None
    except TypeError as error:
        raise ValueError(f"encoder {name!r} does not take these encoder_args: {error}") from None


def use_cifar_stem(backbone, name):
    """Replace a ResNet's 7 × 7 stride-2 stem (or three-layer stem) and max-pool by one 3 × 3 stride-1 convolution."""
    if not (hasattr(backbone, "conv1") and hasattr(backbone, "maxpool")):
        raise ValueError(f'stem "cifar" is for ResNets; {name!r} has none: use stem "default"')
    width = backbone.bn1.num_features
    backbone.conv1 = nn.Conv2d(3, width, 3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(backbone.conv1.weight, mode="fan_out", nonlinearity="relu")
    backbone.maxpool = nn.Identity()


def mlp(*widths, norm=True, last_norm=False, bias=True):
    """Linear layers of the given widths with BatchNorm (`norm`) and ReLU between them."""
    layers = []
    for i, (fan_in, fan_out) in enumerate(zip(widths, widths[1:])):
        last = i == len(widths) - 2
        layers.append(nn.Linear(fan_in, fan_out, bias=bias))
        if (last and last_norm) or (not last and norm):
            layers.append(nn.BatchNorm1d(fan_out))
        if not last:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def build_encoder(cfg, seed, mean=None, std=None, taps=()):
    """The encoder a configuration names, with initial weights that are a pure function of the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(cfg.encoder, cfg.encoder_args, cfg.stem, cfg.image_size, cfg.normalisation, mean, std, taps)


def pixel_statistics(images):
    """Mean and standard deviation per channel, in [0, 1], three numbers each. images: (N, C, S, S) uint8, C 1 or 3."""
    per_channel = images.reshape(len(images), images.shape[1], -1).astype("float64") / 255
    repeat = 3 // images.shape[1]
    return tuple(per_channel.mean((0, 2)).tolist() * repeat), tuple(per_channel.std((0, 2)).tolist() * repeat)


def save_encoder(encoder, path, key=""):
    """Write weights and, in the header, all that rebuilds the network; the file replaces an older one at once."""
    header = {"encoder": json.dumps(encoder.spec | {"key": key, "use": "research only"})}  # one entry: of several the
    # order, and with it the file's hash, would be left to chance
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.backbone.state_dict().items()}
    with replacing(path) as partial:
        save_file(state, partial, metadata=header)


def load_encoder(path, taps=()):
    """The encoder of a file written by `save_encoder`, in eval mode; no other file is needed.

    Raises ValueError when a tensor is missing, is left over, or has another shape.
    """
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        state = {name: file.get_tensor(name) for name in file.keys()}
    if "encoder" not in header:
        raise ValueError(f"{path}: no encoder header; it was not written by save_encoder")
    encoder = rebuild(json.loads(header["encoder"]), taps)
    load_strictly(encoder.backbone, state, path)
    return encoder.eval()


def rebuild(spec, taps=(), **more_args):
    """The encoder of a `spec`, its weights still to be loaded; `more_args` are added to its encoder_args."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # the stem was warned of when the encoder was made
        return Encoder(spec["name"], spec["args"] | more_args, spec["stem"], spec["size"], spec["normalisation"],
                       spec["mean"], spec["std"], taps)


def load_strictly(module, state, where):
    """Load weights of which none may be missing, left over or of another shape."""
    own = module.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [name for name in own.keys() & state.keys() if own[name].shape != state[name].shape]
    if missing or extra or shapes:
        raise ValueError(f"{where}: {len(missing)} tensors missing, {len(extra)} left over, {len(shapes)} of another "
                         f"shape; first: {(missing + extra + shapes)[0]}")
    module.load_state_dict(state)
