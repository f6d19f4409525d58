"""Rehearsals: trees in the layout of published sets, read through their cards, honest about what they are."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from ssl_core.config import ConfigError
from ssl_core.data import cells, load, pixel_hashes, rehearsal, rehearsal_cifar, rehearsal_tissue, rehearsal_trees
from ssl_core.data.cards import card_names, card_path, read_card
from ssl_core.data.pools import pools

SMALL = {  # arguments that make little of each
    "rehearsal_cytology": {"n": 160, "slides": 20}, "rehearsal_pnu": {"n": 150, "cases": 6},
    "rehearsal_paip": {"n": 40, "slides": 4}, "rehearsal_cifar10": {"train": 20, "test": 10},
    "rehearsal_cifar100": {"train": 40, "test": 20}, "rehearsal_chestxray14": {"n": 160, "patients": 30},
    "rehearsal_bhi": {"n": 160, "patients": 10}, "rehearsal_eyepacs": {"n": 240},
    "rehearsal_breakhis": {"n": 160, "cases": 10}, "rehearsal_kather": {"n": 160},
    "rehearsal_pneumonia": {"n": 200, "persons": 20},
}  # fmt: skip
KINDS = {  # how a label follows from the kind that is drawn
    "rehearsal_cytology": lambda kind: kind >= 3, "rehearsal_pnu": lambda kind: (kind >= 3) * 1 + (kind >= 6),
    "rehearsal_bhi": lambda kind: kind >= 5, "rehearsal_breakhis": lambda kind: kind >= 3,
    "rehearsal_kather": lambda kind: kind,
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path / "cache"))


def small(tmp_path, name, made=(), **changes):
    """A copy of a rehearsal's card that makes little; a change to None leaves a key out."""
    values = yaml.safe_load(card_path(name).read_text(encoding="utf-8")) | changes
    values["made"] = values["made"] | SMALL[name] | dict(made)
    path = tmp_path / f"{name}.yaml"
    for mapping in (values, values["made"]):
        for key in [key for key, value in mapping.items() if value is None]:
            del mapping[key]
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def drawn(name):
    """The set that make_cells draws with the arguments of the small card."""
    made = read_card(name).made | SMALL[name]
    slides = next((made[key] for key in ("slides", "cases", "patients", "persons") if key in made), 10)
    profile = "cric" if name == "rehearsal_cytology" else "balanced"
    size = read_card(name).image_size
    return cells.make_cells(made["n"], size, made["seed"], made["difficulty"], slides=slides, profile=profile)


def test_every_rehearsal_is_tested():
    assert set(SMALL) == {name for name in card_names() if read_card(name).kind == "rehearsal"}
    assert {read_card(name).rehearses for name in SMALL} == set(rehearsal.WRITERS)


@pytest.mark.parametrize("name", SMALL)
def test_a_rehearsal_is_read_through_the_original_card_and_bears_its_own_name(name, tmp_path, capsys):
    path, card = small(tmp_path, name), read_card(name)
    original, data = read_card(card.rehearses), load(path)
    said = capsys.readouterr().out
    assert f"{name}: a rehearsal, {len(data):,} images in the layout of {card.rehearses}, made of " in said
    assert data.name == name and data.card["title"] == card.title and data.card["rehearses"] == card.rehearses
    assert "citation" not in data.card or data.card["citation"] == card.citation
    assert data.synthetic == (card.made["from"] == "cells") == card.synthetic
    assert data.task == original.task and data.images.shape[1] == (card.channels or original.channels or 3)
    assert data.images.shape[2] == card.image_size and data.grouped == bool(original.group)
    if original.classes:
        assert data.classes == tuple(card.classes or original.classes) and len(data.classes) == len(original.classes)
        assert (data.counts() > 0).all() and data.labels.min() == 0  # no image is without a label
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache" / "rehearsals").rglob("*")}
    again = load(path, size=16)
    assert again.images.shape[2] == 16 and len(again) == len(data)
    assert before == {file: file.stat().st_mtime_ns for file in before} and "writing" not in capsys.readouterr().out


@pytest.mark.parametrize("name", KINDS)
def test_labels_and_groups_are_those_of_the_cells_in_the_pictures(name, tmp_path):
    data, truth = load(small(tmp_path, name)), drawn(name)
    at = {row.tobytes(): i for i, row in enumerate(pixel_hashes(truth.images))}
    found = np.array([at[row.tobytes()] for row in data.hashes])  # PNG and TIFF lose nothing
    assert len(set(found)) == len(found)
    assert np.array_equal(data.labels, KINDS[name](truth.labels[found]))
    pairs = set(zip(data.groups.tolist(), truth.groups[found].tolist()))
    assert len(pairs) == len(data.group_names) == len({group for _, group in pairs})


def test_findings_are_those_of_the_cells_in_the_pictures(tmp_path):
    data, truth = load(small(tmp_path, "rehearsal_chestxray14")), drawn("rehearsal_chestxray14")
    flat = np.array(rehearsal_trees.grey(truth.images.transpose(0, 2, 3, 1)))[:, None]
    at = {row.tobytes(): i for i, row in enumerate(pixel_hashes(flat))}
    found = [at[row.tobytes()] for row in data.hashes]
    for name in ("halo", "high N:C", "binucleate"):
        column = data.labels[:, data.classes.index(name)]
        assert np.array_equal(column, cells.SIGNS[name](truth.table.iloc[found]).astype(int))
    assert np.array_equal(data.labels[:, data.classes.index("neighbouring cell")], truth.table.neighbour.iloc[found])


@pytest.mark.parametrize("name", ["cytology", "bhi", "chestxray14", "pneumonia"])
def test_no_group_is_in_two_parts_where_the_original_keeps_them_apart(name, tmp_path):
    frame = load(small(tmp_path, f"rehearsal_{name}")).frame()
    assert (frame.groupby("group").part.nunique() == 1).all() and {"train", "test"} <= set(frame.part)


def test_traps_of_the_originals_are_there(tmp_path):
    eyes = load(small(tmp_path, "rehearsal_eyepacs")).frame()
    assert (eyes.groupby("group").size() == 2).all()
    assert 0 < (eyes.groupby("group").part.nunique() == 2).mean() < 0.2
    cases = load(small(tmp_path, "rehearsal_breakhis"))
    assert (cases.frame().groupby("group").label.nunique() == 1).all() and not cases.part.any()
    persons = load(small(tmp_path, "rehearsal_pneumonia")).frame()
    assert (persons.groupby("group").label.nunique() == 1).all()
    pnu = load(small(tmp_path, "rehearsal_pnu"))
    tree, = (tmp_path / "cache" / "rehearsals").glob("rehearsal_pnu-*/")
    assert list(tree.glob("*/*/x5/*.png")) and list(tree.glob("*/*/x10/*.png"))
    assert all("/x40/" in path for path in pnu.paths) and len(pools(pnu, "natural").test)


def test_cytology_at_its_full_size_holds_every_ratio(tmp_path, monkeypatch):
    def without_pixels(n, size, seed, difficulty, slides, profile, um_per_px):
        truth = cells.describe(n, seed, difficulty, slides, profile)
        return SimpleNamespace(images=np.empty((n, 3, 1, 1), np.uint8), table=truth, labels=truth.graded.to_numpy())

    monkeypatch.setattr(rehearsal_trees, "make_cells", without_pixels)
    monkeypatch.setattr(rehearsal_tissue, "save", lambda *_: None)
    made = {key: value for key, value in read_card("rehearsal_cytology").made.items() if key != "from"}
    wanted = rehearsal_tissue.cytology(tmp_path, 32, **made)
    lines = {part: (tmp_path / f"{name}.txt").read_text().splitlines() for part, name in
             (("train", "train_8"), ("val", "val_1"), ("test", "lineProb_unified_test"))}  # fmt: skip
    assert {part: len(there) for part, there in lines.items()} == wanted["parts"] and wanted["groups"] == 600
    pos = {part: sum("/pos/" in line for line in there) for part, there in lines.items()}
    assert pos["train"] >= 6000 and len(lines["train"]) - pos["train"] >= 12000
    assert len(lines["test"]) >= 1500 and pos["test"] >= 500


def test_batches_of_cifar_are_what_python_would_read(tmp_path):
    data = load(small(tmp_path, "rehearsal_cifar10"))
    assert data.counts().tolist() == [30] * 10 and np.array_equal(data.images[:, 0], data.images[:, 2])
    assert (data.part == "train").sum() == 200
    tree, = (tmp_path / "cache" / "rehearsals").glob("rehearsal_cifar10-*/")
    with open(tree / "cifar-10-batches-py" / "test_batch", "rb") as file:
        there = pickle.load(file, encoding="latin1")
    assert np.array_equal(there["data"].reshape(-1, 3, 32, 32), data.images[data.part == "test"])
    assert there["labels"] == data.labels[data.part == "test"].tolist()
    fashion = load("fashion")
    first = fashion.images[(fashion.part == "test") & (fashion.labels == 8)][0]
    ours = data.images[(data.part == "test") & (data.labels == 8)][0]
    assert np.array_equal(ours[:1, 2:-2, 2:-2], first) and not ours[:, :2].any()


def test_sub_clusters_are_equal_in_size_within_one_class_and_alike(tmp_path):
    data = load(small(tmp_path, "rehearsal_cifar100"))
    train = data.part == "train"
    assert (np.bincount(data.labels[train]) == 4).all() and (np.bincount(data.labels[~train]) == 2).all()
    fashion = [name.replace(" ", "_") for name in load("fashion").classes]
    assert data.classes == tuple(f"{name}_{i}" for name in fashion for i in range(10))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10, 1, 5)) * 20 + rng.normal(size=(10, 6, 5))  # ten clear clusters of six
    found = rehearsal_cifar.equal_assignment(x.reshape(60, 5), rehearsal_cifar.equal_clusters(x.reshape(60, 5)))
    assert (np.bincount(found) == 6).all() and (np.ptp(found.reshape(10, 6), axis=1) == 0).mean() >= 0.8


def test_a_rehearsal_is_the_same_wherever_it_is_written(tmp_path, monkeypatch):
    path = small(tmp_path, "rehearsal_kather")
    one = load(path).fingerprint
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path / "elsewhere"))
    assert load(path).fingerprint == one
    assert load(small(tmp_path, "rehearsal_kather", {"seed": 99})).fingerprint != one


def test_a_writer_that_is_stopped_leaves_nothing_that_would_be_read(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    path, save = small(tmp_path, "rehearsal_cytology"), rehearsal_trees.save
    with monkeypatch.context() as patch:
        patch.setattr(rehearsal_tissue, "save", lambda *a: save(*a) or killed())
        with pytest.raises(KeyboardInterrupt):
            load(path)
    assert not list((tmp_path / "cache" / "rehearsals").glob("rehearsal_cytology-*/"))
    assert len(load(path)) == 160 and not list((tmp_path / "cache" / "rehearsals").glob(".*.tmp"))


@pytest.mark.parametrize("made, changes, message", [
    ({"from": None}, {}, "made: from is None; breakhis is made from cells"),
    ({"from": "fashion"}, {}, "made: from is 'fashion'; breakhis is made from cells"),
    ({"n": None}, {}, "made: n: missing; allowed are from, n, seed, cases, difficulty"),
    ({"slides": 9}, {}, "made: slides: unknown key; allowed are from, n, seed, cases, difficulty"),
    ({"difficulty": 2}, {}, "made: cells: difficulty is 2; it runs from 0"),
    ({}, {"rehearses": "herlev"}, "rehearses: 'herlev' is none of cytology_lists, "),
    ({}, {"synthetic": None}, "synthetic: made from cells, so it is true"),
    ({}, {"task": "binary"}, "task: a rehearsal takes it from the card that it rehearses; leave it out"),
    ({}, {"image_size": None}, "image_size: a rehearsal must give it, in pixels"),
    ({}, {"root": "somewhere"}, "root: a card of kind rehearsal does not use it; of these it may say made, rehearses"),
    ({}, {"classes": ["a", "b", "c"]}, "classes: 3 names for the 2 classes of breakhis"),
])  # fmt: skip
def test_what_is_wrong_in_a_card_is_said_in_one_line(made, changes, message, tmp_path):
    with pytest.raises(ConfigError, match="rehearsal_breakhis.*: " + message) as caught:
        load(small(tmp_path, "rehearsal_breakhis", made, **changes))
    assert "\n" not in str(caught.value)


def test_wrong_numbers_of_a_rehearsed_cifar_are_said(tmp_path):
    for made, message in (({"train": 25}, "give multiples of 10"),
                          ({"train": 700}, "train is 700; fashion has 600 train images of a class")):
        with pytest.raises(ConfigError, match=message):
            load(small(tmp_path, "rehearsal_cifar100", made))
