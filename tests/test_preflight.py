"""Data that are missing, incomplete or laid out otherwise end a study before anything of it is made: one line says the
folder, what was expected there, what was found, and where to get it."""

import shutil

import pytest
import test_datasets_medical as medical
from made_data import copied
from test_datasets_arrays import make_cifar
from test_datasets_tissue import make_cytology, make_pnu

from ssl_core.config import ConfigError, Study, load_study
from ssl_core.data import load
from ssl_core.data.cards import read_card
from ssl_core.files import root
from ssl_core.plan import make_plan


def cytology(tree):
    make_cytology(tree.parent)[0].rename(tree)


def pnu(tree):
    make_pnu(tree.parent).rename(tree)


def cifar10(tree):
    make_cifar(tree, "cifar-10-batches-bin")


# the tree of each card, as published; what is then taken out of it, and what is said
CASES = {
    "cytology_lists": (cytology, "val_1.txt", "no val_1.txt in .*, which holds lineProb_unified_test.txt, neg, p"),
    "pnu": (pnu, "ADH/S18-7_A/x40/S18-7_A x40(2).png", "images should be 36, found 35 in "),
    "cifar10": (cifar10, "cifar-10-batches-bin/data_batch_4.bin", "no data_batch_4.bin in .*, which holds data_batch"),
    "chestxray14": (medical.chestxray14, "chest_xray_14_val_list.txt", "no chest_xray_14_val_list.txt in .*, which h"),
    "bhi_lists": (medical.bhi_lists, "test_split.csv", "no test_split.csv in .*, which holds 10253, 8863, "),
    "eyepacs": (medical.eyepacs, "test", "images should be 80, found 64 in "),
    "breakhis": (medical.breakhis, "test/benign", "images should be 48, found 40 in "),
    "kather2016": (medical.kather2016, "08_EMPTY", "images should be 96, found 84 in "),
    "pneumonia": (medical.pneumonia, "test/NORMAL/IM-0001-0001.jpeg", "images should be 48, found 47 in "),
    "sipakmed": (medical.sipakmed, "im_Koilocytotic", "images should be 60, found 48 in "),
    "herlev": (medical.herlev, "normal_columnar", "images should be 36, found 24 in "),
}


@pytest.fixture(params=CASES)
def name(request):
    return request.param


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path / "outputs"))


def made(name, tree):
    """A tree as published in all but its size, and a card that expects just that; returns the card."""
    CASES[name][0](tree)
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
    lacking = tree / CASES[name][1]
    shutil.rmtree(lacking) if lacking.is_dir() else lacking.unlink()
    refused(card, tree, CASES[name][2])


def test_everything_lies_one_folder_too_deep(name, tmp_path):
    tree = tmp_path / "data"
    card = made(name, tree)
    tree.rename(tmp_path / "deep")
    tree.mkdir()
    (tmp_path / "deep").rename(tree / "unpacked")
    refused(card, tree, "there is no .* in .*, which holds unpacked; |label: the pattern .* fits 0 of 60 paths; ")


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
