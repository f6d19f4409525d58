"""Made files of published sets of arrays: CIFAR in both of its forms, lists that narrow it, MedMNIST, MNIST's four."""

import gzip
import struct

import numpy as np
from made_data import card_values

from ssl_core.data.cards import card_names, read_card

LT = [name for name in card_names() if name.startswith("cifar") and "_lt" in name]
MEDMNIST = [name for name in card_names() if read_card(name).kind == "npz" and name != "fashion"]
FORMS = ("cifar-10-batches-bin", "cifar-10-batches-py", "cifar-100-binary", "cifar-100-python")
COLOUR = ("pathmnist", "dermamnist", "retinamnist", "bloodmnist")


def made_cifar(n_classes, n):
    """Pixels (n, 3072) and labels (n,) of each batch, the test batch last; a class `n / n_classes` times in each."""
    rng = np.random.default_rng(0)
    batches = 6 if n_classes == 10 else 2
    return [(rng.integers(0, 256, (n, 3072), np.uint8), rng.permutation(np.arange(n) % n_classes).astype(np.uint8))
            for _ in range(batches)]


def python_2_pickle(pixels, labels, key):
    """The instructions, as cPickle of Python 2 wrote them, of {"batch_label": …, key: […], "data": array, …}."""
    def word(text):
        return b"U" + bytes([len(text)]) + text.encode()

    numbers = b"".join(b"K" + bytes([y]) for y in labels)
    shape = b"M" + struct.pack("<H", len(pixels)) + b"M" + struct.pack("<H", 3072) + b"\x86"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + word("b") + b"\x87R"
    array = (made + b"(K\x01" + shape + b"cnumpy\ndtype\n" + word("u1") + b"K\x00K\x01\x87R(K\x03" + word("|")
             + b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb\x89T" + struct.pack("<I", pixels.size))
    array += pixels.tobytes() + b"tb"
    coarse = word("coarse_labels") + b"](" + b"K\x07" * len(labels) + b"e" if key == "fine_labels" else b""
    names = word("filenames") + b"](" + word("leptodactylus_pentadactylus_s_000004.png") * len(labels) + b"e"
    return (b"\x80\x02}(" + word("batch_label") + word("training batch 1 of 5") + coarse + word(key) + b"](" + numbers
            + b"e" + word("data") + array + names + b"u.")


def make_cifar(folder, form, n=20):
    """The files of one form; returns the batches."""
    n_classes = 10 if "10-" in form else 100
    batches = made_cifar(n_classes, n)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"] if n_classes == 10 else ["train", "test"]
    (folder / form).mkdir(parents=True)
    for name, (pixels, labels) in zip(names, batches):
        if "py" not in form:
            before = labels[:, None] if n_classes == 10 else np.stack([labels // 5, labels], 1)
            content = np.concatenate([before, pixels], 1).tobytes()
        else:
            content = python_2_pickle(pixels, labels, "labels" if n_classes == 10 else "fine_labels")
        (folder / form / (name if "py" in form else f"{name}.bin")).write_bytes(content)
    return batches


def with_lists(tree, name, n_train, sizes=(9, 4)):
    """Lists under the names that a card gives, for draw seeds 1 and 2; returns {pool: {seed: positions}}."""
    rng, lists = np.random.default_rng(0), {}
    for (pool, file), size in zip(card_values(name)["only"].items(), sizes):
        lists[pool] = {}
        for seed in (1, 2):
            path = tree / file.format(draw_seed=seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            positions = lists[pool][1] if path.exists() else rng.permutation(n_train)[:size]
            lists[pool][seed] = positions
            np.save(path, positions)
    return lists


def make_medmnist(path, classes, several, colour, n=(3, 2, 2)):
    """Each class n times in train, val, test; several labels per image cycle through all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng, arrays = np.random.default_rng(0), {}
    for part, times in zip(("train", "val", "test"), n):
        labels = np.repeat(np.arange(classes), times)[:, None]
        labels = (labels == np.arange(classes)).astype(int) if several else labels
        arrays[f"{part}_images"] = rng.integers(0, 256, (len(labels), 28, 28) + (3,) * colour, np.uint8)
        arrays[f"{part}_labels"] = labels.astype(np.uint8)
    np.savez_compressed(path, **arrays)
    return arrays


def make_idx(folder, n=30):
    """The four files of the MNIST family, ten classes."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for prefix in ("train", "t10k"):
        images, labels = rng.integers(0, 256, (n, 28, 28), np.uint8), np.arange(n, dtype=np.uint8) % 10
        for what, array in (("images", images), ("labels", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            name = f"{prefix}-{what}-idx{array.ndim}-ubyte.gz"
            (folder / name).write_bytes(gzip.compress(header + array.tobytes()))


def make_array(name, folder):
    """The files of any card of this kind, small."""
    card = read_card(name)
    if card.kind == "cifar":
        make_cifar(folder, FORMS[0] if len(card.classes) == 10 else FORMS[2], max(20, len(card.classes)))
        if name in LT:
            with_lists(folder, name, 100)
    elif card.kind == "npz":
        make_medmnist(folder / card.file, len(card.classes), card.task == "multilabel", name in COLOUR)
    else:
        make_idx(folder)


ARRAYS = [name for name in card_names() if read_card(name).kind in ("cifar", "npz", "idx")]
