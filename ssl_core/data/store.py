"""The uint8 store: every image decoded once to (C, S, S), memory-mapped, resumable, shared by all studies.

It lies in the cache folder as `images/NAME-KEY/`: pixels.u8 and hashes.u8 (SHA-256 of each image's pixels), rows
without a header, and state.json (how many files are done, which cannot be read). The key is made of the list of files
with their sizes and times and of what shapes the pixels: moving the data, or another word in the card, decodes nothing
again.
"""

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from filelock import FileLock

from ssl_core.data.images import ImageSet, pixel_hashes
from ssl_core.data.pixels import read_image
from ssl_core.data.places import opened
from ssl_core.files import atomic_json, cache, free_bytes, naming_full_disk, replacing, size_text

BLOCK = 256  # files between two records of progress: what a kill can cost
VERSION = 2  # raise when the same file would be decoded to other pixels


def decoded(name, folder, paths, card, size):
    """Images of the files `paths` below `folder`, from the store, which is filled first where it is not complete.

    Returns read-only uint8 (n, C, S, S), their hashes (n, 32), and {path: reason} of the files that cannot be read and
    have no row among the n.
    """
    target = cache() / "images" / f"{name}-{store_key(folder, paths, card, size)}"
    state = read_state(target)
    with opened(folder, card) as place:
        if state["next"] < len(paths) or repaired(state, place, card, size):
            target.mkdir(parents=True, exist_ok=True)
            with FileLock(target / "lock"):
                state = fill(name, target, place, paths, card, size)
    shape = (len(paths) - len(state["bad"]), card.channels, size, size)
    if shape[0] == 0:  # nothing can be mapped
        return np.empty(shape, np.uint8), np.empty((0, 32), np.uint8), state["bad"]
    images = np.memmap(target / "pixels.u8", np.uint8, "r", shape=shape)
    return images, np.fromfile(target / "hashes.u8", np.uint8).reshape(-1, 32), state["bad"]


def store_key(folder, paths, card, size):
    """12 hexadecimal digits of everything that decides the pixels."""
    state = hashlib.sha256(repr((VERSION, card.channels, size, card.geometry, card.window)).encode())
    for path in [card.lmdb, f"{card.lmdb}/data.mdb", *paths] if card.lmdb else paths:
        try:
            stat = os.stat(folder / path)
            state.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        except OSError:
            state.update(f"{path}\0missing\n".encode())
    return state.hexdigest()[:12]


def read_state(target):
    """{"next": first file not decoded yet, "bad": {path: reason}}."""
    if not (target / "state.json").is_file() or not (target / "pixels.u8").is_file():
        return {"next": 0, "bad": {}}
    return json.loads((target / "state.json").read_text(encoding="utf-8"))


def attempt(path, card, size):
    """The decoded image, or in a few words why there is none."""
    try:
        return read_image(path, card.channels, size, card.geometry, card.window)
    except (ImportError, MemoryError):
        raise
    except FileNotFoundError:
        return "no such file"
    except Exception as error:  # noqa: BLE001  decoders raise whatever a broken file makes them stumble over
        return " ".join(str(error).replace(str(path), path.name).split()) or type(error).__name__


def repaired(state, place, card, size):
    """Whether a file that could not be read can be now: a network disk hiccuped, or someone mended it."""
    return any(not isinstance(attempt(place(path), card, size), str) for path in state["bad"])


def fill(name, target, place, paths, card, size):
    """Decode what is missing, in order, recording progress after every block; `place` says where a path is. Returns the
    final state."""
    state = read_state(target)  # again: another process may have filled it while we waited for the lock
    if repaired(state, place, card, size):
        state = {"next": 0, "bad": {}}  # rows follow one another, so a mended image moves all behind it
    row_bytes = card.channels * size * size
    need, free = (len(paths) - state["next"]) * (row_bytes + 32), free_bytes(target)
    if state["next"] < len(paths):
        print(
            f"{name}: decoding {len(paths) - state['next']:,} of {len(paths):,} images to "
            f"{card.channels}×{size}×{size}, once: {size_text(need)} in the cache folder, {size_text(free)} free",
            flush=True,
        )
    if need > free:
        raise OSError(
            f"{name}: the decoded images need {size_text(need)}, {size_text(free)} are free at {cache()}; "
            f"set SSL_CORE_CACHE to a folder on a larger disk, or take a smaller image_size"
        )
    rows, said = state["next"] - len(state["bad"]), time.monotonic()
    with (
        naming_full_disk(target / "pixels.u8"),
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads,
        open_at(target / "pixels.u8", rows * row_bytes) as pixels,
        open_at(target / "hashes.u8", rows * 32) as hashes,
    ):
        for start in range(state["next"], len(paths), BLOCK):
            block = paths[start : start + BLOCK]
            found = list(threads.map(lambda path: attempt(place(path), card, size), block))
            good = [image for image in found if not isinstance(image, str)]
            for file, array in ((pixels, np.array(good, np.uint8)), (hashes, pixel_hashes(good))):
                file.write(array.tobytes())
                file.flush()
                os.fsync(file.fileno())
            bad = {path: image for path, image in zip(block, found) if isinstance(image, str)}
            state = {"next": start + len(block), "bad": state["bad"] | bad}
            atomic_json(target / "state.json", state)
            if time.monotonic() - said > 10:
                said = time.monotonic()
                print(f"{name}: {state['next']:,} of {len(paths):,} images decoded", flush=True)
    return state


def open_at(path, n_bytes):
    """Open for writing after the first `n_bytes`; what a killed process wrote behind them is cut off."""
    file = open(path, "r+b" if path.exists() else "w+b")
    file.truncate(n_bytes)
    file.seek(n_bytes)
    return file


def kept(name, key, make):
    """The ImageSet that `make()` computes, kept in the cache under `key` (any text) and read back the next time."""
    path = cache() / "images" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            write_set(path, make())
    return read_set(path)


WORDS = ("name", "task")
FLAGS = ("grouped", "ordered", "synthetic")
ARRAYS = ("images", "labels", "groups", "part", "hashes")
NAMES = ("classes", "group_names", "paths")


def write_set(path, data):
    """An ImageSet as one npz without pickles; columns of `table` as `table.NAME`."""
    arrays = {key: np.asarray(getattr(data, key)) for key in WORDS + FLAGS + ARRAYS + NAMES}
    if data.table is not None:
        arrays |= {f"table.{column}": data.table[column].to_numpy() for column in data.table}
    with replacing(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)


def read_set(path):
    """The ImageSet that `write_set` wrote, without its card."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    columns = {key[6:]: arrays.pop(key) for key in list(arrays) if key.startswith("table.")}
    hashes = arrays.pop("hashes")
    values = arrays | {key: arrays[key].item() for key in WORDS + FLAGS}
    values |= {key: tuple(arrays[key].tolist()) for key in NAMES}
    if columns:
        import pandas as pd

        values["table"] = pd.DataFrame(columns)
    return ImageSet(**values).keep_hashes(hashes)
