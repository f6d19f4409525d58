"""The uint8 store: every image decoded once to (C, S, S), memory-mapped, resumable, shared by all studies.

It lies in the cache folder as `images/NAME-KEY/`: images.npy, hashes.npy (SHA-256 of each image's pixels) and state.json
(how many files are done, which cannot be read). The key is made of the file list with sizes and times, and of what
shapes the pixels; moving the data, or another word in the card, decodes nothing again.
"""

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from filelock import FileLock

from ssl_core.data.images import pixel_hashes
from ssl_core.data.pixels import fit, read_image
from ssl_core.files import atomic_json, cache, free_bytes, size_text

BLOCK = 256  # files between two records of progress: what a kill can cost
VERSION = 1  # raise when the same file would be decoded to other pixels


def arrange(images, card, size):
    """uint8 arrays (N, H, W[, 3]) → (N, C, S, S) by the card's geometry; no copy where nothing changes."""
    from PIL import Image

    if images.dtype != np.uint8 or not (images.ndim == 3 or images.ndim == 4 and images.shape[3] in (1, 3)):
        raise ValueError(f"images are {images.dtype} {images.shape}; they must be uint8 (N, H, W) or (N, H, W, 3)")
    images = images[..., None] if images.ndim == 3 else images
    n, height, width, depth = images.shape
    size, channels = size or min(height, width), card.channels or depth
    if (height, width, depth) == (size, size, channels):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    out = np.empty((n, channels, size, size), np.uint8)
    for i in range(n):
        out[i] = fit(Image.fromarray(images[i].squeeze()), channels, size, card.geometry)
    return out


def decoded(name, folder, paths, card, size):
    """Images of the files `paths` below `folder`, from the store, which is filled first where it is not complete.

    Returns read-only uint8 (n, C, S, S), their hashes (n, 32), and {path: reason} of those that cannot be read and are
    not among the n.
    """
    shape = (len(paths), card.channels, size, size)
    target = cache() / "images" / f"{name}-{store_key(folder, paths, card, size)}"
    state = read_state(target)
    if state["next"] < len(paths) or any(readable(folder / path, card, size) for path in state["bad"]):
        target.mkdir(parents=True, exist_ok=True)
        with FileLock(target / "lock"):
            state = fill(name, target, folder, paths, card, size, shape)
    n = len(paths) - len(state["bad"])
    images = np.load(target / "images.npy", mmap_mode="r", allow_pickle=False)
    return images[:n], np.load(target / "hashes.npy", allow_pickle=False)[:n], state["bad"]


def store_key(folder, paths, card, size):
    """12 hexadecimal digits of everything that decides the pixels."""
    state = hashlib.sha256(repr((VERSION, card.channels, size, card.geometry, card.window)).encode())
    for path in paths:
        try:
            stat = os.stat(folder / path)
            state.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        except OSError:
            state.update(f"{path}\0missing\n".encode())
    return state.hexdigest()[:12]


def read_state(target):
    """{"next": first file not decoded yet, "bad": {path: reason}}."""
    try:
        return json.loads((target / "state.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"next": 0, "bad": {}}


def readable(path, card, size):
    return not isinstance(attempt(path, card, size), str)


def attempt(path, card, size):
    """The decoded image, or in a few words why there is none."""
    try:
        return read_image(path, card.channels, size, card.geometry, card.window)
    except (ImportError, MemoryError):
        raise
    except FileNotFoundError:
        return "no such file"
    except Exception as error:  # decoders raise whatever a broken file makes them stumble over
        return " ".join(str(error).replace(f"{path}", path.name).split()) or type(error).__name__


def fill(name, target, folder, paths, card, size, shape):
    """Decode what is missing, in order, recording progress after every block; returns the final state."""
    state = read_state(target)  # again: another process may have filled it while we waited for the lock
    if any(readable(folder / path, card, size) for path in state["bad"]):
        state = {"next": 0, "bad": {}}  # rows lie one after the other, so a repaired image moves all behind it
    if state["next"] == len(paths):
        return state
    create = state["next"] == 0
    if create:
        need, free = int(np.prod(shape, dtype=np.int64)) + 32 * len(paths), free_bytes(target)
        print(f"{name}: decoding {len(paths):,} images to {shape[1]}×{size}×{size}, once: {size_text(need)} in the cache "
              f"folder, {size_text(free)} free")
        if need > free:
            raise OSError(f"{name}: the decoded images need {size_text(need)}, but {size_text(free)} are free at {cache()}; "
                          f"set SSL_CORE_CACHE to a folder on a larger disk, or take a smaller image_size")
    else:
        print(f"{name}: decoding goes on after {state['next']:,} of {len(paths):,} images")
    mode = "w+" if create else "r+"
    open_memmap = np.lib.format.open_memmap
    images = open_memmap(target / "images.npy", mode, np.uint8, shape if create else None)
    hashes = open_memmap(target / "hashes.npy", mode, np.uint8, (len(paths), 32) if create else None)
    said = time.monotonic()
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for start in range(state["next"], len(paths), BLOCK):
            block = paths[start:start + BLOCK]
            row = start - len(state["bad"])
            found = list(threads.map(lambda path: attempt(folder / path, card, size), block))
            good = [image for image in found if not isinstance(image, str)]
            if good:
                images[row:row + len(good)] = good
                hashes[row:row + len(good)] = pixel_hashes(good)
            images.flush()
            hashes.flush()
            bad = {path: image for path, image in zip(block, found) if isinstance(image, str)}
            state = {"next": start + len(block), "bad": state["bad"] | bad}
            atomic_json(target / "state.json", state)
            if time.monotonic() - said > 10:
                said = time.monotonic()
                print(f"{name}: {state['next']:,} of {len(paths):,} images decoded", flush=True)
    return state
