"""Every card of images in folders or lists, on a made tree with the original's names: what is found in it, and what is
said of a misplaced, an unreadable and a doubled file, of an incomplete tree, and of another set in its place."""

import shutil

import numpy as np
import pytest
from made_data import copied, published
from published_trees import TREES, covid, kather2016

from ssl_core.data import load
from ssl_core.data.cards import card_names, card_path, read_card
from ssl_core.data.census import exact_duplicates
from ssl_core.data.pools import pools
from ssl_core.files import root


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=TREES)
def tree(request, tmp_path):
    """(name, folder, rows, expected counts) of a made tree."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = TREES[request.param][0](folder)
    _, labels, groups, parts = zip(*rows)
    words = [word for label in labels for word in label.split("|") if word]
    expected = {
        "images": len(rows),
        "groups": len(set(groups) - {None}),
        "parts": {part: parts.count(part) for part in {*parts} - {""}},
        "classes": {word: words.count(word) for word in {*words}},
    }
    return request.param, folder, rows, expected


def refused(card, message, folder):
    """Loading ends in one line that names the folder, before anything is decoded."""
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load(card)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    assert not (folder.parent / "cache").exists()
    return str(caught.value)


def test_every_card_of_folders_or_lists_is_here():
    assert set(TREES) == {name for name in card_names() if read_card(name).kind in ("folder", "csv")}


def test_every_image_has_its_label_group_and_part(tree):
    name, folder, rows, expected = tree
    data = load(copied(name, folder, expected=expected))
    frame = data.frame()
    found = list(zip(frame.path, frame.label, frame.group if data.grouped else [None] * len(rows), frame.part))
    assert found == rows
    assert len(rows) >= 24 and len(expected["classes"]) >= 2 * bool(data.classes)
    assert expected["groups"] >= 3 if data.grouped else expected["groups"] == 0
    assert data.task == read_card(name).task and data.images.shape[2] == 8
    assert data.labels.min() == (0 if data.classes else -1)  # none lacks a label; no finding is a finding


def test_a_copied_file_is_found(tree):
    name, folder, rows, _ = tree
    copies = exact_duplicates(load(copied(name, folder)))
    assert copies.n.tolist() == [2] and not copies.across_parts[0]
    test = next((row[0] for row in rows if row[3] == "test"), None)
    train = next((row[0] for row in rows[2:] if row[3] == "train"), None)
    if test and train:
        shutil.copy(folder / train, folder / test)
        copies = exact_duplicates(load(copied(name, folder)))
        assert copies.across_parts[0] and {*copies.positions[0]} >= {[row[0] for row in rows].index(test)}


def test_no_group_is_on_two_sides_of_the_pools(tree):
    name, folder, *_ = tree
    data = load(copied(name, folder))
    drawn = pools(data, split_kind="natural", label_pool="natural", test_fraction=0.3)
    train = np.union1d(drawn.unlabelled, drawn.labelled)
    sides = [set(data.groups[positions]) for positions in (train, drawn.val, drawn.test)]
    assert len(train) and bool(len(drawn.test)) == bool(data.classes)
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_an_unreadable_image_is_named_or_left_out(tree):
    name, folder, rows, expected = tree
    path, label, *_ = rows[5]
    (folder / path).write_bytes((folder / path).read_bytes()[:40])
    counted = [f"{word} 1" for word in label.split("|") if word]
    message = rf"{name}: 1 images cannot be read .*: .*\.\w+; repair them, or set"
    with pytest.raises(ValueError, match=message) as caught:
        load(copied(name, folder, expected=expected))
    assert all(word in str(caught.value) for word in [*counted, f": {path}; "])
    data = load(copied(name, folder, expected=expected, skip_bad=True))
    assert data.paths == tuple(row[0] for row in rows if row[0] != path)


def test_a_misplaced_file_is_told(tree):
    name, folder, _, expected = tree
    _, (old, new), message = TREES[name]
    (folder / new).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder / old, folder / new)
    refused(copied(name, folder, expected=expected), f"{name}.yaml: {message}", folder)


def test_an_incomplete_tree_is_refused_with_the_counts_of_the_card(tree):
    """Published ones; of a template, those that its user wrote."""
    name, folder, rows, _ = tree
    wanted = published(name) or {"images": len(rows) + 1}
    message = f"expected: images should be {wanted['images']}, found {len(rows)} in "
    refused(copied(name, folder, expected=wanted), message, folder)


@pytest.mark.parametrize("name", TREES)
def test_another_set_is_refused_and_missing_data_say_where_to_get_them(name, tmp_path):
    folder, card = tmp_path / "data", read_card(name)
    said = refused(copied(name, folder), "root: there is no .*data; .*; licence: ", folder)
    assert " ".join(card.get.split()) in said and card.licence in said
    folder.mkdir()
    (kather2016 if name == "covid" else covid)(folder)
    refused(copied(name, folder, expected=published(name)), f"{name}.yaml: ", folder)


def test_a_card_without_counts_says_why():
    templates = {name for name in TREES if not published(name)}
    assert templates == {"cytology_lists", "cytology_ratio_lists", "cytology_folders", "paip"}
    assert all("rite your own counts" in card_path(name).read_text(encoding="utf-8") for name in templates)
    assert all(f"`{name}`" in (root() / "docs" / "data.md").read_text(encoding="utf-8") for name in templates)


@pytest.mark.parametrize("name", card_names())
def test_published_counts_agree_with_each_other(name):
    """Counts of all classes of one label, and of all parts, sum to the images."""
    card, expected = read_card(name), published(name)
    if set(expected.get("classes", {})) == {*card.classes} and card.classes and card.task != "multilabel":
        assert sum(expected["classes"].values()) == expected["images"]
    if {"train", "test"} <= {*expected.get("parts", {})}:
        assert sum(expected["parts"].values()) == expected["images"]
