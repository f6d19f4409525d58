"""Cards of array files: CIFAR in both of its forms, the published lists that narrow its pools, and MedMNIST."""

import gzip
import pickle

import numpy as np
import pytest
from made_data import card_values, copied, published
from published_arrays import (
    COLOUR,
    FORMS,
    LT,
    MEDMNIST,
    made_cifar,
    make_array,
    make_cifar,
    make_idx,
    make_medmnist,
    python_2_pickle,
    with_lists,
)

from ssl_core.data import load
from ssl_core.data.census import exact_duplicates
from ssl_core.data.pools import pools
from ssl_core.data.splits import long_tail_split

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


@pytest.mark.parametrize("name, form, n", [("cifar10", FORMS[0], 20), ("cifar100", FORMS[2], 100)])
def test_cifar_broken_missing_wrong_and_doubled(tmp_path, name, form, n):
    tree = tmp_path / "data"
    tree.mkdir()
    card = copied(name, tree, expected=published(name))
    message = rf"root: there is no folder {form} or .*, which is empty; get .*-binary.tar.gz \(.*; licence: none"
    with pytest.raises(FileNotFoundError, match=message):
        load(card)
    made = make_cifar(tree, form, n)
    with pytest.raises(ValueError, match=f"expected: images should be 60000, found {n * len(made)} in "):
        load(card)
    train, test = (tree / form / f"{name}.bin" for name in (("data_batch_1", "test_batch") if n == 20 else
                                                            ("train", "test")))
    record = len(test.read_bytes()) // n
    train.write_bytes(test.read_bytes()[:record] + train.read_bytes()[record:])
    copies = exact_duplicates(load(copied(name, tree)))
    assert copies.n.tolist() == [2] and copies.across_parts.tolist() == [True]
    train.write_bytes(train.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{train.name} has [\d,]+ bytes, no multiple of {record}; fetch it again"):
        load(card)
    train.unlink()
    with pytest.raises(FileNotFoundError, match=f"root: there is no {train.name} in .*{form}"):
        load(card)
    other = FORMS[3] if n == 20 else FORMS[1]  # misplaced: the other CIFAR, whose counts are the same
    make_cifar(tmp_path / "other", other, 100)
    with pytest.raises(FileNotFoundError, match=f"root: there is no folder {form} or .*, which holds {other}; get "):
        load(copied(name, tmp_path / "other"))


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


@pytest.mark.parametrize("name", LT)
def test_a_broken_a_misplaced_and_a_doubled_list_are_told(tmp_path, name):
    make_array(name, tmp_path / "data")
    for file in card_values(name)["only"].values():
        path = tmp_path / "data" / file.format(draw_seed=1)
        whole, positions = path.read_bytes(), np.load(path)
        path.write_bytes(whole[:-3])
        with pytest.raises(ValueError, match=f"{name}.yaml: only: {path.relative_to(tmp_path / 'data')} is broken"):
            load(copied(name, tmp_path / "data"))
        for wrong, message in ((np.arange(50_000), "holds 0 to 49999, and there are "),
                               (np.append(positions, positions[:2]), "names 2 images twice")):
            np.save(path, wrong)
            with pytest.raises(ValueError, match=f"{name}.yaml: only: .*{path.name} {message}"):
                load(copied(name, tmp_path / "data"))
        path.write_bytes(whole)


# MedMNIST and MNIST

@pytest.mark.parametrize("name", MEDMNIST)
def test_medmnist(tmp_path, name):
    tree = tmp_path / "medmnist"
    card = card_values(name)
    n, several, colour = len(card["classes"]), card["task"] == "multilabel", name in COLOUR
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


@pytest.mark.parametrize("name", MEDMNIST)
def test_medmnist_broken_misplaced_and_doubled(tmp_path, name):
    path, classes = tmp_path / "medmnist" / f"{name}.npz", card_values(name)["classes"]
    n, several, colour = len(classes), card_values(name)["task"] == "multilabel", name in COLOUR
    arrays = make_medmnist(path, n, several, colour)
    arrays["test_images"][0] = arrays["train_images"][0]
    np.savez_compressed(path, **arrays)
    assert exact_duplicates(load(copied(name, path.parent))).across_parts.tolist() == [True]
    whole = path.read_bytes()
    for broken in (whole[:-100], whole[:400] + bytes(100) + whole[500:], whole[:80] + b"x" * 9 + whole[89:], b"<html>"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=rf"{name}.npz is broken \(.*\); fetch it again"):
            load(copied(name, path.parent))
    make_medmnist(path, n + 1, several, colour)  # another of these sets under its name
    message = f"{n} names for {n + 1} labels" if several else f"label '{n}' is none of "
    with pytest.raises(ValueError, match=f"classes: {message}"):
        load(copied(name, path.parent))
    make_medmnist(path, n + 1, not several, colour)
    message = f"classes: label '{n}' is none of " if several else f"label: {n + 1} labels per image need `task: mult"
    with pytest.raises(ValueError, match=message):
        load(copied(name, path.parent))


def test_fashion_mnist_broken_missing_misplaced_and_doubled(tmp_path):
    folder = tmp_path / "data"
    make_idx(folder)
    data = load(copied("fashion_full", folder, expected={"images": 60, "parts": {"train": 30, "test": 30}}))
    assert data.counts().tolist() == [6] * 10 and data.label_names()[9] == "ankle boot"
    with pytest.raises(ValueError, match="expected: images should be 70000, found 60 in "):
        load(copied("fashion_full", folder, expected=published("fashion_full")))
    train, test, labels = (folder / f"{name}-ubyte.gz" for name in ("train-images-idx3", "t10k-images-idx3",
                                                                    "t10k-labels-idx1"))
    whole = train.read_bytes()
    test.write_bytes(whole)
    assert exact_duplicates(load(copied("fashion_full", folder))).across_parts.tolist() == [True] * 30
    for broken in (whole[:-100], b"<html>", gzip.compress(gzip.decompress(whole)[:-9]), labels.read_bytes()):
        train.write_bytes(broken)
        with pytest.raises(ValueError, match=f"file: .*{train.name} is broken .*; fetch it again") as caught:
            load(copied("fashion_full", folder))
        assert "\n" not in str(caught.value)
    train.unlink()
    with pytest.raises(FileNotFoundError, match=f"file: there is no {train.name} in .*data, which holds t10k-images"):
        load(copied("fashion_full", folder))
