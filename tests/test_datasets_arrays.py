"""Cards of array files: CIFAR in both of its forms, the published lists that narrow its pools, and MedMNIST."""

import pickle
import struct

import numpy as np
import pytest
import yaml
from made_data import copied, published

from ssl_core.data import load
from ssl_core.data.census import exact_duplicates
from ssl_core.data.pools import pools
from ssl_core.data.splits import long_tail_split
from ssl_core.files import root

CARDS = sorted(path.stem for path in (root() / "params" / "data").glob("*.yaml"))
LT = [name for name in CARDS if name.startswith("cifar") and "_lt" in name]
MEDMNIST = [name for name in CARDS if "mnist" in name]
FORMS = ("cifar-10-batches-bin", "cifar-10-batches-py", "cifar-100-binary", "cifar-100-python")


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


# CIFAR

def test_the_made_pickles_are_what_python_would_read():
    [(pixels, labels), *_] = made_cifar(10, 20)
    there = pickle.loads(python_2_pickle(pixels, labels, "labels"), encoding="latin1")
    assert np.array_equal(there["data"], pixels) and there["labels"] == labels.tolist()


@pytest.mark.parametrize("form", FORMS)
def test_cifar_in_the_order_of_its_batches(tmp_path, form):
    name, n = ("cifar10", 20) if "10-" in form else ("cifar100", 100)
    batches = make_cifar(tmp_path / "data", form, n)
    train = n * (len(batches) - 1)
    data = load(copied(name, tmp_path / "data", expected={"images": train + n, "parts": {"train": train, "test": n}}))
    assert data.images.shape == (train + n, 3, 32, 32) and np.ptp(data.counts()) == 0 and not data.grouped
    assert np.array_equal(data.images.reshape(-1, 3072), np.concatenate([pixels for pixels, _ in batches]))
    assert np.array_equal(data.labels, np.concatenate([labels for _, labels in batches]))
    assert data.classes[0] == ("airplane" if n == 20 else "apple") and len(data.classes) == len(np.unique(data.labels))
    assert (data.part[:train] == "train").all() and (data.part[train:] == "test").all()


def test_cifar_broken_missing_wrong_and_doubled(tmp_path):
    tree = tmp_path / "data"
    tree.mkdir()
    card = copied("cifar10", tree, expected=published("cifar10"))
    message = (r"root: there is no folder cifar-10-batches-bin or .*, which is empty; "
               r"get cifar-10-binary.tar.gz \(170 MB\).*; licence: none")
    with pytest.raises(FileNotFoundError, match=message):
        load(card)
    make_cifar(tree, "cifar-10-batches-bin")
    with pytest.raises(ValueError, match="expected: images should be 60000, found 120"):
        load(card)
    first, second = (tree / "cifar-10-batches-bin" / f"data_batch_{i}.bin" for i in (1, 2))
    first.write_bytes(second.read_bytes())
    assert exact_duplicates(load(copied("cifar10", tree))).n.tolist() == [2] * 20
    first.write_bytes(second.read_bytes()[:-1])
    with pytest.raises(ValueError, match="data_batch_1.bin has 61,459 bytes, no multiple of 3073; fetch it again"):
        load(card)
    first.unlink()
    with pytest.raises(FileNotFoundError, match="root: there is no data_batch_1.bin in .*cifar-10-batches-bin"):
        load(card)
    make_cifar(tmp_path / "other", "cifar-100-python", 100)  # misplaced: the other CIFAR
    with pytest.raises(ValueError, match="classes: label '10' is none of airplane, "):
        load(copied("cifar10", tmp_path / "other"))


def test_a_pickle_of_cifar_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path / "ran").mkdir, ()

    make_cifar(tmp_path / "data", "cifar-10-batches-py")
    path = tmp_path / "data" / "cifar-10-batches-py" / "data_batch_3"
    evil = pickle.dumps({"data": Evil(), "labels": [1, 2]}, protocol=2)
    for content in (evil, path.read_bytes()[:9000], b"no pickle"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="data_batch_3 (holds|is no pickled batch).*fetch it again") as caught:
            load(copied("cifar10", tmp_path / "data"))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_long_tails_of_cifar_have_the_published_counts():
    ten = long_tail_split(np.arange(50_000) % 10, 100, seed=1)
    assert ten.counts[ten.order].tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert len(long_tail_split(np.arange(50_000) % 100, 100, seed=1)) == 10_847


# published lists of positions

def with_lists(tree, name, n_train, sizes=(9, 4)):
    """Lists under the names that a card gives, for draw seeds 1 and 2; returns {pool: {seed: positions}}."""
    only = yaml.safe_load((root() / "params" / "data" / f"{name}.yaml").read_text(encoding="utf-8"))["only"]
    rng, lists = np.random.default_rng(0), {}
    for (pool, file), size in zip(only.items(), sizes):
        lists[pool] = {}
        for seed in (1, 2):
            path = tree / file.format(draw_seed=seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            positions = lists[pool][1] if path.exists() else rng.permutation(n_train)[:size]
            lists[pool][seed] = positions
            np.save(path, positions)
    return lists


@pytest.mark.parametrize("name", LT)
def test_published_lists_become_pools(tmp_path, name):
    form, n, n_train = ("cifar-10-batches-bin", 20, 100) if "cifar10_" in name else ("cifar-100-binary", 100, 100)
    make_cifar(tmp_path / "data", form, n)
    lists = with_lists(tmp_path / "data", name, n_train)
    data = load(copied(name, tmp_path / "data"))
    for seed in (1, 2):
        p = pools(data, "natural", draw_seed=seed, label_pool="natural")
        assert p.unlabelled.tolist() == sorted(lists["unlabelled"][seed])
        assert p.labelled.tolist() == sorted(lists["labelled"][seed])
        assert p.test.tolist() == list(range(n_train, n_train + n))
        assert p.split.counts[p.split.order].tolist() == sorted(p.split.counts.tolist(), reverse=True)
    with pytest.raises(ValueError, match=r"only: there is no split/\S*_D_i.npy; there are split/.*split1_D_i.npy, "):
        pools(data, "natural", draw_seed=3)
    few = data.subset(lists["unlabelled"][1])
    assert [int(mask.sum()) for mask in few.only["unlabelled"].values()][0] == len(few)


def test_lists_bound_every_split_and_lose_what_is_no_training_image(tmp_path):
    make_cifar(tmp_path / "data", "cifar-10-batches-bin")
    card = copied("cifar10", tmp_path / "data", only={"unlabelled": "list.npy"})
    np.save(tmp_path / "data" / "list.npy", np.arange(110))  # of 120, the last 20 are the test part
    p = pools(load(card), "long_tail", ratio=5, label_pool="balanced")
    assert len(p.labelled) == 100 and set(p.unlabelled) <= set(range(100))
    assert any(note.startswith("10 of 110 images listed for the unlabelled pool are not in") for note in p.notes)
    np.save(tmp_path / "data" / "list.npy", np.arange(40))
    assert set(pools(load(card), "long_tail", ratio=2).unlabelled) <= set(range(40))


@pytest.mark.parametrize("positions, message", [
    (np.arange(5.0), r"list.npy is float64 \(5,\); expected positions, integers"),
    (np.zeros((2, 2), int), r"list.npy is int64 \(2, 2\); expected positions"),
    (np.array([0, 120]), "list.npy holds 0 to 120, and there are 120 images"),
    (np.array([-1, 3]), "list.npy holds -1 to 3, and there are 120 images"),
    (np.array([7, 7, 3]), "list.npy names 1 images twice"),
    (np.array([{}], object), "Object arrays cannot be loaded when allow_pickle=False"),
    (None, "there is no list.npy in .*data"),
])  # fmt: skip
def test_a_wrong_list_is_told(tmp_path, positions, message):
    make_cifar(tmp_path / "data", "cifar-10-batches-bin")
    if positions is not None:
        np.save(tmp_path / "data" / "list.npy", positions, allow_pickle=True)
    with pytest.raises((ValueError, FileNotFoundError), match="cifar10.yaml: .*" + message):
        load(copied("cifar10", tmp_path / "data", only={"labelled": "list.npy"}))


# MedMNIST

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


@pytest.mark.parametrize("name", MEDMNIST)
def test_medmnist(tmp_path, name):
    tree = tmp_path / "medmnist"
    card = yaml.safe_load((root() / "params" / "data" / f"{name}.yaml").read_text(encoding="utf-8"))
    n, several = len(card["classes"]), card["task"] == "multilabel"
    colour = name in ("pathmnist", "dermamnist", "retinamnist", "bloodmnist")
    tree.mkdir()
    with pytest.raises(FileNotFoundError, match=f"there is no {name}.npz in .*; get it .*zenodo.*; licence: CC BY"):
        load(copied(name, tree))
    arrays = make_medmnist(tree / f"{name}.npz", n, several, colour)
    wanted = {"images": 7 * n, "parts": {"train": 3 * n, "val": 2 * n, "test": 2 * n}}
    wanted["classes"] = dict.fromkeys(card["classes"], 7)
    data = load(copied(name, tree, expected=wanted))
    assert data.images.shape == (7 * n, 3 if colour else 1, 28, 28) and data.task == card["task"] and not data.grouped
    assert data.ordered == (name == "retinamnist") and set(published(name)["parts"]) == {"train", "val", "test"}
    found = arrays["train_labels"] if several else arrays["train_labels"][:, 0]
    if name == "breastmnist":
        assert data.label_names()[0] == "malignant" and data.classes[1] == "malignant"
        found = 1 - found
    assert np.array_equal(data.labels[data.part == "train"], found)
    total = sum(published(name)["parts"].values())
    assert published(name)["images"] == total == sum(published(name).get("classes", {"": total}).values())
    with pytest.raises(ValueError, match=f"expected: images should be {total}, found {7 * n}"):
        load(copied(name, tree, expected=published(name)))


def test_medmnist_broken_misplaced_and_doubled(tmp_path):
    path = tmp_path / "medmnist" / "bloodmnist.npz"
    arrays = make_medmnist(path, 8, False, True)
    arrays["test_images"][0] = arrays["train_images"][0]
    np.savez_compressed(path, **arrays)
    assert exact_duplicates(load(copied("bloodmnist", path.parent))).across_parts.tolist() == [True]
    whole = path.read_bytes()
    for broken in (whole[:-100], whole[:400] + bytes(100) + whole[500:], whole[:80] + b"x" * 9 + whole[89:], b"<html>"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"bloodmnist.npz is broken \(.*\); fetch it again"):
            load(copied("bloodmnist", path.parent))
    make_medmnist(path, 9, False, True)
    with pytest.raises(ValueError, match="classes: label '8' is none of basophil, "):
        load(copied("bloodmnist", path.parent))
    make_medmnist(path, 14, True, False)
    with pytest.raises(ValueError, match="label: 14 labels per image need `task: multilabel`"):
        load(copied("bloodmnist", path.parent))
