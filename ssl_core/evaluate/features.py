"""Features of a frozen encoder: extracted once, in eval mode, and kept."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from ssl_core.augment import Augment
from ssl_core.files import replacing


def weights_hash(module):
    """SHA-256 over every tensor of a module, parameters and statistics; unchanged by a probe, or the probe is wrong."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
def extract(encoder, images, path=None, batch=512, what="h"):
    """Features of every image, (N, C, S, S) uint8, from the encoder in eval mode, which is left unchanged.

    what: "h", its output → (N, D) float32; "token", the class token of a transformer, normalised as h is but never
    pooled → (N, D); "taps", the mean over each stage's map → {name: (N, D_l)}, shallow first.
    path: an .npz that keeps the features; it is used again only when weights and images are the same.
    """
    encoder.eval()
    device = next(encoder.parameters()).device
    describe = {"h": lambda x: {"h": encoder(x).h}, "token": lambda x: {"token": class_token(encoder, x)},
                "taps": lambda x: tapped(encoder, x)}[what]
    origin = f"{weights_hash(encoder)} {hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()}"
    if path is not None and Path(path).exists():
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["origin"]) == origin:
                return stored[what] if what != "taps" else {n: stored[n] for n in stored.files if n != "origin"}
    resize = Augment("none", encoder.spec["size"])
    batches = []
    for start in range(0, len(images), batch):
        x = resize(torch.from_numpy(np.array(images[start:start + batch])).to(device))
        found = describe(x.contiguous(memory_format=torch.channels_last))
        batches.append({name: value.float().cpu().numpy() for name, value in found.items()})
    features = {name: np.concatenate([found[name] for found in batches]) for name in batches[0]}
    if path is not None:
        with replacing(path) as temporary:
            np.savez(temporary, origin=origin, **features)
    return features if what == "taps" else features[what]


def has_token(encoder) -> bool:
    """Whether a network has a class token."""
    return getattr(encoder.backbone, "cls_token", None) is not None


def class_token(encoder, x):
    """The class token after the last norm: (B, 3, S, S) → (B, D). A network that pools patches has its norm after the
    pooling, and the token gets that one. Raises ValueError for a network without a class token."""
    backbone = encoder.backbone
    if not has_token(encoder):
        raise ValueError(f"{encoder.spec['name']} has no class token; take features h, or a vision transformer")
    return backbone.fc_norm(backbone.forward_features(encoder.normalise(x))[:, 0])


def tapped(encoder, x):
    """{name: (B, D_l)}, the mean over the map of every stage (of a transformer, every block's patches), shallow first;
    the stem of a ResNet is no stage."""
    stages = [(i, info["module"]) for i, info in enumerate(encoder.backbone.feature_info)
              if not info["module"].startswith("act")]
    maps = encoder.backbone.forward_intermediates(encoder.normalise(x), indices=[i for i, _ in stages],
                                                  intermediates_only=True)
    return {name: m.mean((2, 3)) for (_, name), m in zip(stages, maps, strict=True)}


def by_layer(encoder, images, folder=None, what="h"):
    """What a probe is fitted on, by the name of the layer: {"": h or token}, or for taps every tap and then h as "h".

    folder: keeps them, in features.npz for h, else in token.npz or taps.npz.
    """
    def found(kind):
        path = None if folder is None else Path(folder) / f"{'features' if kind == 'h' else kind}.npz"
        return extract(encoder, images, path, what=kind)

    return found("taps") | {"h": found("h")} if what == "taps" else {"": found(what)}
