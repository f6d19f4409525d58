"""CIFAR-10 and CIFAR-100 in either of the forms they are published in, the pickles read without unpickling.

A pickle is a program, and running one runs what its author wished. Here its instructions are listed, never run: what is
needed stands among their arguments, the one long string of pixels and the numbers behind the key of the labels.
"""

import pickletools

import numpy as np

from ssl_core.data.layouts import from_arrays
from ssl_core.data.places import absent

PIXELS = 3 * 32 * 32  # red, green, blue, row by row
BATCHES = [f"data_batch_{i}" for i in range(1, 6)]
FORMS = {  # folder as the archives unpack: files of the training and of the test part
    "cifar-10-batches-bin": ([f"{name}.bin" for name in BATCHES], ["test_batch.bin"]),
    "cifar-10-batches-py": (BATCHES, ["test_batch"]),
    "cifar-100-binary": (["train.bin"], ["test.bin"]),
    "cifar-100-python": (["train"], ["test"]),
}


def list_cifar(folder, card):
    """The training part in the order of its batches, then the test part, as torchvision counts them."""
    forms = [name for name in FORMS if name.startswith(f"cifar-{len(card.classes)}-")] or list(FORMS)
    form = next((name for name in forms if (folder / name).is_dir()), None)
    if form is None:
        raise absent("root", f"folder {' or '.join(forms)}", folder)
    pieces = []
    for part, names in zip(("train", "test"), FORMS[form]):
        missing = [name for name in names if not (folder / form / name).is_file()]
        if missing:
            raise absent("root", missing[0], folder / form)
        read = read_binary if names[0].endswith(".bin") else read_pickled
        batches = [read(folder / form / name) for name in names]
        images = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        pieces.append((part, images, np.concatenate([labels for _, labels in batches]), None))
    return from_arrays(pieces)


def read_binary(path):
    """A .bin file: one label a record (CIFAR-10), or a coarse and a fine one, then the pixels → (n, 3072), (n,)."""
    before = 1 if "batch" in path.name else 2
    data = np.fromfile(path, np.uint8)
    if not len(data) or len(data) % (before + PIXELS):
        raise ValueError(f"root: {path} has {len(data):,} bytes, no multiple of {before + PIXELS}; fetch it again")
    records = data.reshape(-1, before + PIXELS)
    return records[:, before:], records[:, before - 1]


def read_pickled(path):
    """A batch pickled by Python 2 → (n, 3072), (n,): its data, and its labels or fine_labels."""
    key, labels, pixels = "", [], b""
    try:
        with open(path, "rb") as file:
            for code, value, _ in pickletools.genops(file):
                if code.name in ("SHORT_BINSTRING", "BINSTRING"):
                    key = value[:20]
                    pixels = value.encode("latin-1") if len(value) >= PIXELS else pixels  # only they are so long
                elif code.name == "BININT1" and key in ("labels", "fine_labels"):
                    labels.append(value)
    except ValueError as error:
        raise ValueError(f"root: {path} is no pickled batch of CIFAR: {error}; fetch it again") from None
    if not labels or len(pixels) != len(labels) * PIXELS:
        found = f"{len(labels):,} labels and {len(pixels):,} bytes of pixels"
        raise ValueError(f"root: {path} holds {found}, not {PIXELS:,} bytes a label; fetch it again")
    return np.frombuffer(pixels, np.uint8).reshape(-1, PIXELS), np.array(labels, np.uint8)
