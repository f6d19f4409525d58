"""ImageSet: what a fingerprint covers, what a subset keeps, what may not be an image set."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from ssl_core.data import ImageSet, load, pixel_hashes


def small(**changes):
    rng = np.random.default_rng(0)
    values = {
        "name": "small", "images": rng.integers(0, 256, (6, 1, 8, 8), np.uint8),
        "labels": np.array([0, 1, -1, 1, 0, 1]), "classes": ("a", "b"),
        "groups": np.array([0, 0, 1, 1, 2, 2]), "group_names": ("x", "y", "z"),
        "part": np.array(["train"] * 4 + ["test"] * 2), "table": pd.DataFrame({"age": range(6)}),
    }  # fmt: skip
    return ImageSet(**(values | changes))


def test_fashion_is_real_balanced_and_offline():
    data = load("fashion")
    assert data.images.shape == (8000, 1, 28, 28) and not data.synthetic and not data.grouped
    for part, per_class in (("train", 600), ("test", 200)):
        assert data.subset(np.flatnonzero(data.part == part)).counts().tolist() == [per_class] * 10
    assert data.classes[9] == "ankle boot" and data.labels[0] == 9  # as the first training image is known to be


def test_fashion_has_one_fingerprint_everywhere_and_loads_without_torch():
    code = """if True:
        import sys
        from ssl_core.data import load
        print(load("fashion").fingerprint, [m for m in ("torch", "sklearn", "pandas") if m in sys.modules])"""
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split(maxsplit=1) == [load("fashion").fingerprint, "[]\n"]


def test_fingerprint_sees_every_kind_of_change_and_nothing_else():
    data = small()
    pixel = data.images.copy()
    pixel[3, 0, 2, 2] ^= 1
    changed = [
        small(images=pixel), small(labels=np.array([0, 1, -1, 1, 0, 0])), small(classes=("a", "c")),
        small(groups=np.array([0, 0, 1, 1, 1, 2])), small(part=np.array(["train"] * 3 + ["test"] * 3)),
        data.subset([1, 0, 2, 3, 4, 5]),
    ]  # fmt: skip
    prints = {d.fingerprint for d in changed}
    assert len(prints) == len(changed) and data.fingerprint not in prints
    same = [small(name="other", paths=tuple("uvwxyz"), table=None, card={"licence": "MIT"}), data.subset(np.arange(6))]
    assert {d.fingerprint for d in same} == {data.fingerprint}


def test_fingerprint_does_not_depend_on_memory_layout():
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8).transpose(0, 3, 1, 2)
    assert small(images=images).fingerprint == small(images=np.ascontiguousarray(images)).fingerprint


def test_subset_keeps_order_names_and_hashes():
    data = small()
    hashes = data.hashes
    part = data.subset([5, 0])
    assert part.labels.tolist() == [1, 0] and part.groups.tolist() == [2, 0] and part.paths == ("000005", "000000")
    assert part.frame().to_dict("list") == {
        "path": ["000005", "000000"], "label": ["b", "a"], "group": ["z", "x"], "part": ["test", "train"],
        "age": [5, 0],
    }  # fmt: skip
    assert np.array_equal(part.hashes, hashes[[5, 0]]) and np.array_equal(part.hashes, pixel_hashes(part.images))


def test_duplicates_share_a_hash():
    images = small().images.copy()
    images[4] = images[1]
    _, first = np.unique(pixel_hashes(images), axis=0, return_index=True)
    assert len(first) == 5


def test_counts_leave_out_what_has_no_label():
    assert small().counts().tolist() == [2, 3] and small().labelled.tolist() == [0, 1, 3, 4, 5]
    several = small(task="multilabel", labels=np.array([[1, 1], [0, 1], [-1, -1], [0, 0], [1, -1], [0, 1]]))
    assert several.counts().tolist() == [2, 3] and several.labelled.tolist() == [0, 1, 3, 4, 5]
    assert several.label_names() == ["a|b", "b", "", "", "a", "b"]


def test_without_groups_every_image_is_its_own():
    data = small(groups=None, group_names=())
    assert not data.grouped and data.groups.tolist() == list(range(6)) and data.group_names == data.paths
    assert not data.subset([4, 2]).grouped


@pytest.mark.parametrize("change, message", [
    ({"images": np.zeros((6, 1, 8, 8), np.float32)}, "images are float32"),
    ({"images": np.zeros((6, 2, 8, 8), np.uint8)}, "C 1 or 3"),
    ({"images": np.zeros((6, 1, 8, 9), np.uint8)}, r"\(N, C, S, S\)"),
    ({"labels": np.array([0, 1, 2, 1, 0, 1])}, "labels run from 0 to 2 for 2 classes"),
    ({"labels": np.zeros((6, 2), int)}, r"labels are \(6, 2\)"),
    ({"task": "regression"}, "allowed are multiclass, binary, multilabel"),
    ({"task": "binary", "classes": ("a", "b", "c")}, "a binary task has 2 classes, here are 3"),
    ({"part": np.array(["training"] * 6)}, "part 'training'; allowed are train, val, test and empty"),
    ({"groups": np.arange(6)}, "3 group names"),
    ({"paths": ("a",)}, "1 paths"),
])  # fmt: skip
def test_what_is_no_image_set_says_so_in_one_line(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        small(**change)
    assert str(caught.value).startswith("small: ") and "\n" not in str(caught.value)
