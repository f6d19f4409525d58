"""Cut `fashion.npz` from the four original idx files: `python -m ssl_core.data.make_fashion FOLDER`.

Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747), MIT licence, copyright 2017 Zalando SE.
The first 600 images of each class of the training file and the first 200 of each class of the test file, in file order.
"""

import sys
from pathlib import Path

import numpy as np

from ssl_core.data.layouts import read_idx

SHA256 = {  # of the unpacked files: packers differ in their gzip headers
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def first_of_each_class(labels, n):
    """Sorted positions of the first `n` images of every class."""
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:n] for c in np.unique(labels)]))


def main(folder, target):
    arrays = {}
    for part, prefix, n in (("train", "train", 600), ("test", "t10k", 200)):
        images, labels = read_idx(folder, prefix, "images", SHA256), read_idx(folder, prefix, "labels", SHA256)
        keep = first_of_each_class(labels, n)
        arrays |= {f"{part}_images": images[keep], f"{part}_labels": labels[keep]}
    np.savez_compressed(target, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).with_name("fashion.npz"))
