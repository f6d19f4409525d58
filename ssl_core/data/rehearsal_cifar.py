"""Rehearsals of CIFAR, of Fashion-MNIST: padded to 32 pixels, three equal channels, in batches pickled as Python 2 did.

CIFAR-100's classes are 100 sub-clusters of Fashion-MNIST, ten of each of its classes and all of one size.
"""

import struct

import numpy as np

BATCHES = 5


def cifar10(folder, data, *, train, test):
    """cifar-10-batches-py/: five batches and a test batch, `train` and `test` images of each class."""
    parts = [first_of_each_class(data, part, k) for part, k in (("train", train), ("test", test))]
    (images, labels), held_out = parts
    for i in range(BATCHES):
        write_batch(folder / "cifar-10-batches-py" / f"data_batch_{i + 1}", images[i::BATCHES], labels[i::BATCHES])
    write_batch(folder / "cifar-10-batches-py" / "test_batch", *held_out)
    return expected(parts)


def cifar100(folder, data, *, train, test):
    """cifar-100-python/: train and test, of `train` and `test` images of each of the ten classes, multiples of ten."""
    if train % 10 or test % 10:
        raise ValueError(f"train is {train}, test {test}; each class is cut into ten, so give multiples of 10")
    parts = [first_of_each_class(data, part, k) for part, k in (("train", train), ("test", test))]
    fine = [np.empty_like(labels) for _, labels in parts]
    for c in range(10):
        pixels = [images[labels == c].reshape(-1, images[0].size)[:, : 32 * 32] / 255.0 for images, labels in parts]
        centres = equal_clusters(pixels[0])
        for (_, labels), numbers, x in zip(parts, fine, pixels):
            numbers[labels == c] = 10 * c + equal_assignment(x, centres)
    parts = [(images, numbers) for (images, _), numbers in zip(parts, fine)]
    for name, (images, labels) in zip(("train", "test"), parts):
        write_batch(folder / "cifar-100-python" / name, images, labels, "fine_labels")
    return expected(parts)


def first_of_each_class(data, part, k):
    """The first k images of every class of a part, in file order → uint8 (10 k, 3, 32, 32), uint8 (10 k,)."""
    at = [np.flatnonzero((data.labels == c) & (data.part == part))[:k] for c in range(10)]
    if min(map(len, at)) < k:
        raise ValueError(f"{part} is {k}; {data.name} has {min(map(len, at))} {part} images of a class")
    at = np.sort(np.concatenate(at))
    padded = np.pad(data.images[at], ((0, 0), (0, 0), (2, 2), (2, 2)))
    return padded.repeat(3, axis=1), data.labels[at].astype(np.uint8)


def equal_clusters(x, k=10, rounds=20):
    """Centres (k, D) of k-means on the rows of x, every cluster given as many; begun at quantiles of the first axis."""
    axis = np.linalg.svd(x - x.mean(0), full_matrices=False)[2][0]
    order = np.argsort((x - x.mean(0)) @ axis, kind="stable")
    centres = np.stack([x[rows].mean(0) for rows in np.array_split(order, k)])
    for _ in range(rounds):
        cluster = equal_assignment(x, centres)
        centres = np.stack([x[cluster == j].mean(0) for j in range(k)])
    return centres


def equal_assignment(x, centres):
    """A centre for each row of x, each as often: who would lose most by the second best chooses first."""
    k = len(centres)
    distance = (x**2).sum(1)[:, None] - 2 * x @ centres.T + (centres**2).sum(1)
    best = np.sort(distance, axis=1)
    left, cluster = np.full(k, len(x) // k), np.empty(len(x), np.int64)
    for i in np.argsort(best[:, 0] - best[:, 1], kind="stable"):
        cluster[i] = np.argmin(np.where(left > 0, distance[i], np.inf))
        left[cluster[i]] -= 1
    return cluster


def expected(parts):
    """Counts as a card's `expected` has them."""
    sizes = dict(zip(("train", "test"), (len(labels) for _, labels in parts)))
    return {"images": sum(sizes.values()), "parts": sizes}


def write_batch(path, images, labels, key="labels"):
    """{"batch_label": …, key: [labels], "data": uint8 (n, 3072)} in the instructions that Python 2's pickle wrote.

    Written by hand, because Python 3 has no other words for bytes than a call, which the reader of these files refuses.
    """
    def word(text):
        return b"U" + bytes([len(text)]) + text.encode()

    pixels = images.reshape(len(labels), -1)
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + word("b") + b"\x87R"
    kind = b"cnumpy\ndtype\n" + word("u1") + b"K\x00K\x01\x87R(K\x03" + word("|") + b"NNN" + 2 * b"J\xff\xff\xff\xff"
    shape = b"J" + struct.pack("<i", len(pixels)) + b"J" + struct.pack("<i", pixels.shape[1]) + b"\x86"
    data = made + b"(K\x01" + shape + kind + b"K\x00tb\x89T" + struct.pack("<I", pixels.size) + pixels.tobytes() + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([y]) for y in labels.tolist()) + b"e"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\x80\x02}(" + word("batch_label") + word(path.name) + word(key) + numbers + word("data") + data
                     + b"u.")  # fmt: skip
