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
def extract(encoder, images, path=None, batch=512):
    """h of every image: (N, C, S, S) uint8 → (N, D) float32, from the encoder in eval mode, which is left unchanged.

    path: an .npz that keeps the features; it is used again only when weights and images are the same.
    """
    encoder.eval()
    device = next(encoder.parameters()).device
    origin = f"{weights_hash(encoder)} {hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()}"
    if path is not None and Path(path).exists():
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["origin"]) == origin:
                return stored["h"]
    resize = Augment("none", encoder.spec["size"])
    h = []
    for start in range(0, len(images), batch):
        x = torch.from_numpy(np.array(images[start:start + batch])).to(device)
        h.append(encoder(resize(x).contiguous(memory_format=torch.channels_last)).h.float().cpu().numpy())
    h = np.concatenate(h)
    if path is not None:
        with replacing(path) as temporary:
            np.savez(temporary, h=h, origin=origin)
    return h
