"""Data that are missing, incomplete or laid out otherwise end a study before anything of it is made: one line says the
folder, what was expected there, what was found, and where to get it."""

import shutil

import numpy as np
import pytest
from made_data import copied
from published_arrays import ARRAYS, LT, MEDMNIST, make_array
from published_trees import TREES

from ssl_core.config import ConfigError
from ssl_core.data import load
from ssl_core.data.cards import card_names, read_card
from ssl_core.files import root
from ssl_core.plan import make_plan
from ssl_core.study import Study, load_study


def without_test(path):
    """An npz that lacks the arrays of its test part."""
    with np.load(path) as arrays:
        kept = {name: arrays[name] for name in arrays.files if not name.startswith("test")}
    np.savez_compressed(path, **kept)


def images(wanted, found):
    return f"images should be {wanted}, found {found} in "


# what is taken out of the tree of each card (of an npz: its test part), and what is said
CASES = {
    "cytology_lists": ("val_1.txt", "no val_1.txt in .*, which holds lineProb_unified_test.txt, neg, p"),
    "cytology_ratio_lists": ("pretrain.txt", "no pretrain.txt in .*, which holds lineProb_unified_test.txt, neg, p"),
    "cytology_folders": ("test/neg", images(40, 36)),
    "pnu": ("ADH/S18-7_A/x40/S18-7_A x40(2).png", images(36, 35)),
    "paip": ("PAIP_2", images(24, 16)),
    "inat18": ("iNaturalist18_val.txt", "no iNaturalist18_val.txt in .*, which holds iNaturalist18_train.txt, train_v"),
    "elpv": ("images/cell0007.png", "path: 1 of the 24 files listed are not in .*, the first is images/cell0007.png"),
    "chestxray14": ("chest_xray_14_val_list.txt", "no chest_xray_14_val_list.txt in .*, which h"),
    "chestxray14_official": ("test_list.txt", "no test_list.txt in .*, which holds Data_Entry_2017.csv, images_0"),
    "bhi": ("8864", images(32, 24)),
    "bhi_lists": ("test_split.csv", "no test_split.csv in .*, which holds 10253, 8863, "),
    "eyepacs": ("test", images(80, 64)),
    "breakhis": ("test/benign", images(48, 40)),
    "kather2016": ("08_EMPTY", images(96, 84)),
    "pneumonia": ("test/NORMAL/IM-0001-0001.jpeg", images(48, 47)),
    "covid": ("test/Covid", images(54, 48)),
    "sipakmed": ("im_Koilocytotic", images(60, 48)),
    "herlev": ("normal_columnar", images(36, 24)),
    "cifar10": ("cifar-10-batches-bin/data_batch_4.bin", "no data_batch_4.bin in .*, which holds data_batch"),
    "cifar100": ("cifar-100-binary/test.bin", "no test.bin in .*, which holds train.bin"),
    "fashion_full": ("t10k-labels-idx1-ubyte.gz", "no t10k-labels-idx1-ubyte.gz in .*, which holds t10k-images-idx3"),
    **{name: ("split", "only: there is no split/.*.npy in .*, which holds cifar-") for name in LT},
    **{name: (f"{name}.npz", r"images should be \d+, found \d+ in ") for name in [*MEDMNIST, "fashion"]},
}


def test_every_card_of_real_data_is_here():
    cards = {name: read_card(name) for name in card_names()}
    assert set(CASES) == {name for name, card in cards.items() if card.kind != "rehearsal" and not card.synthetic}
    assert set(CASES) == {*TREES, *ARRAYS}


@pytest.fixture(params=CASES)
def name(request):
    return request.param


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path / "outputs"))


def made(name, tree):
    """A tree as published in all but its size, and a card that expects just that; returns the card."""
    TREES[name][0](tree) if name in TREES else make_array(name, tree)
    data = load(copied(name, tree))
    parts = {part: int((data.part == part).sum()) for part in ("train", "val", "test")}
    counts = dict(zip(data.classes, data.counts().tolist()))
    shutil.rmtree(tree.parent / "cache", ignore_errors=True)
    return copied(name, tree, expected={"images": len(data), "parts": parts, "classes": counts})


def refused(card, folder, said):
    """The study of this card is not planned; nothing of it, and no image in the cache, was written."""
    study = Study(name="s", question="?", data={"dataset": str(card), "image_size": 32}, splits={"kind": "natural"},
                  arms=[{"name": "a", "method": "simclr"}])
    with pytest.raises(ConfigError, match=said) as caught:
        make_plan(study)
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    assert " ".join(read_card(card).get.split()) in message and "; licence: " in message
    assert not (folder.parent / "outputs").exists() and not (folder.parent / "cache").exists()


def test_a_complete_tree_is_planned(tmp_path):
    card = made("kather2016", tmp_path / "data")
    study = Study(name="s", question="?", data={"dataset": str(card), "image_size": 32}, splits={"kind": "natural"},
                  arms=[{"name": "a", "method": "simclr"}])
    assert make_plan(study).jobs


def test_no_data_at_all(name, tmp_path):
    refused(copied(name, tmp_path / "data"), tmp_path / "data", f"{name}.yaml: root: there is no {tmp_path / 'data'}; ")


def test_an_empty_folder(name, tmp_path):
    (tmp_path / "data").mkdir()
    refused(copied(name, tmp_path / "data"), tmp_path / "data", r"there is no .* in .*, which is empty; ")


def test_something_is_lacking(name, tmp_path):
    tree = tmp_path / "data"
    card = made(name, tree)
    lacking, said = CASES[name]
    if lacking.endswith(".npz"):
        without_test(tree / lacking)
    elif (tree / lacking).is_dir():
        shutil.rmtree(tree / lacking)
    else:
        (tree / lacking).unlink()
    refused(card, tree, said)


def test_everything_lies_one_folder_too_deep(name, tmp_path):
    tree = tmp_path / "data"
    card = made(name, tree)
    tree.rename(tmp_path / "deep")
    tree.mkdir()
    (tmp_path / "deep").rename(tree / "unpacked")
    refused(card, tree, "there is no .* in .*, which holds unpacked; |: the pattern .* fits 0 of (24|60) paths; "
            "|classes: label 'unpacked' is none of neg, pos; ")


@pytest.mark.parametrize("study", ["a_cytology", "b_breast", "c_longtail", "d_intermediate", "e_small",
                                   "public_cytology", "public_medmnist"])
def test_a_published_study_names_all_data_that_it_lacks(study, tmp_path, monkeypatch):
    for folder in ("params", "notebooks"):
        shutil.copytree(root() / folder, tmp_path / folder)
    monkeypatch.setenv("SSL_CORE_ROOT", str(tmp_path))
    study = load_study(tmp_path / "params" / "studies" / f"{study}.yaml")
    with pytest.raises(ConfigError) as caught:
        make_plan(study)
    message = str(caught.value)
    assert "\n" not in message and not (tmp_path / "outputs").exists()
    for data in study.data:
        assert f"{data.dataset}.yaml: root: there is no {tmp_path / 'data'}" in message
