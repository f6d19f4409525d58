"""The store of decoded images: unreadable files, resume, sharing, disk; and drawn cells in it."""

import functools
import shutil

import numpy as np
import pytest
from made_trees import make_csv, make_tree, picture, rows_of_csv, write_card

from ssl_core.data import load, pixels, store


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path / "cache"))


def count_decodes(monkeypatch, stop_at=None):
    seen = []

    def read(path, *arguments):
        seen.append(f"{path.parent.name}/{path.name}")
        if len(seen) == stop_at:
            raise KeyboardInterrupt
        return pixels.read_image(path, *arguments)

    monkeypatch.setattr(store, "read_image", read)
    return seen


def test_unreadable_images_stop_by_name_and_can_be_left_out(tmp_path, capsys, monkeypatch):
    root = make_tree(tmp_path / "images")
    (root / "HSIL" / "s01_1.png").write_bytes(b"this is no picture")
    whole = (root / "NILM" / "s02_0.png").read_bytes()
    (root / "NILM" / "s02_0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError,
        match=r"mine: 2 images cannot be read \(HSIL 1, NILM 1\): HSIL/s01_1.png, NILM/s02_0.png; "
        r"repair them, or set `skip_bad: true`",
    ):
        load(write_card(tmp_path))
    assert "mine: cannot read HSIL/s01_1.png: cannot identify image file" in capsys.readouterr().out
    seen = count_decodes(monkeypatch)
    data = load(write_card(tmp_path, skip_bad=True, group=r"/(?P<group>s\d+)_"))
    assert sorted(set(seen)) == ["HSIL/s01_1.png", "NILM/s02_0.png"]  # the rest was decoded before
    assert len(data) == 22 and data.counts().tolist() == [11, 11] and np.bincount(data.groups).tolist() == [7, 7, 8]
    alone = [pixels.read_image(root / path, 3, 8) for path in data.paths]
    assert np.array_equal(data.images, alone)


def test_images_of_a_csv_that_are_not_there(tmp_path):
    make_csv(tmp_path, rows_of_csv())
    (tmp_path / "images" / "HSIL" / "s01_2.png").unlink()
    with pytest.raises(FileNotFoundError, match="path: 1 of the 24 files listed are not .*first is HSIL/s01_2"):
        load(write_card(tmp_path, kind="csv", file="images.csv"))
    assert not (tmp_path / "cache").exists()  # nothing was decoded
    assert len(load(write_card(tmp_path, kind="csv", file="images.csv", skip_bad=True))) == 23


def test_a_mended_image_takes_its_place(tmp_path, monkeypatch):
    make_tree(tmp_path / "images")

    def hiccup(path, *arguments):
        if path.name == "s01_1.png":
            raise OSError("Input/output error")
        return pixels.read_image(path, *arguments)

    monkeypatch.setattr(store, "read_image", hiccup)
    assert len(load(write_card(tmp_path, skip_bad=True))) == 22
    monkeypatch.setattr(store, "read_image", pixels.read_image)  # the disk is well again, the file never changed
    data = load(write_card(tmp_path))
    assert len(data) == 24 and data.paths[1] == "HSIL/s01_1.png"
    assert np.array_equal(data.images[1], pixels.read_image(tmp_path / "images" / data.paths[1], 3, 8))


def test_a_killed_decode_goes_on_where_it_stopped(tmp_path, monkeypatch):
    make_tree(tmp_path / "images")
    (tmp_path / "images" / "HSIL" / "s01_1.png").write_bytes(b"this is no picture")
    card = write_card(tmp_path, skip_bad=True)
    monkeypatch.setattr(store, "BLOCK", 4)
    count_decodes(monkeypatch, stop_at=15)
    with pytest.raises(KeyboardInterrupt):
        load(card)
    [target] = (tmp_path / "cache" / "images").iterdir()
    with open(target / "pixels.u8", "ab") as file:  # half a block, as a kill leaves it
        file.write(b"half")
    seen = count_decodes(monkeypatch)
    data = load(card)
    assert len([name for name in seen if name != "HSIL/s01_1.png"]) == 24 - 12
    assert np.array_equal(data.images, [pixels.read_image(tmp_path / "images" / path, 3, 8) for path in data.paths])
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path / "other"))
    assert load(card).fingerprint == data.fingerprint


def test_the_store_is_shared_read_only_and_knows_its_hashes(tmp_path, monkeypatch, capsys):
    root = make_tree(tmp_path / "images")
    data = load(write_card(tmp_path))
    assert "mine: decoding 24 of 24 images to 3×8×8, once: 5.4 kB in the cache folder" in capsys.readouterr().out
    assert isinstance(data.images, np.memmap) and not data.images.flags.writeable
    seen = count_decodes(monkeypatch)
    monkeypatch.setattr("ssl_core.data.images.pixel_hashes", None)  # the fingerprint needs no pixel
    again = load(write_card(tmp_path, title="other words", group=r"/(?P<group>s\d+)_", rename={"HSIL": "abnormal"}))
    assert seen == [] and capsys.readouterr().out == "" and again.fingerprint != data.fingerprint
    picture(99).save(root / "HSIL" / "s01_0.png")
    load(write_card(tmp_path))
    assert len(seen) == 24


def test_moving_the_data_changes_nothing(tmp_path, monkeypatch):
    make_tree(tmp_path / "images")
    data = load(write_card(tmp_path))
    (tmp_path / "there").mkdir()
    shutil.move(tmp_path / "images", tmp_path / "there" / "pictures")
    seen = count_decodes(monkeypatch)
    moved = load(write_card(tmp_path, root=["nowhere", "there/pictures"]))
    assert moved.fingerprint == data.fingerprint and seen == []
    monkeypatch.setenv("PICTURES", str(tmp_path / "there"))
    assert load(write_card(tmp_path, root="$PICTURES/pictures")).paths == data.paths


def test_too_small_a_disk_is_told_before_decoding(tmp_path, monkeypatch):
    make_tree(tmp_path / "images")
    monkeypatch.setattr(store, "free_bytes", lambda path: 1000)
    seen = count_decodes(monkeypatch)
    with pytest.raises(OSError, match="need 5.4 kB, 1.0 kB are free at .*cache; set SSL_CORE_CACHE"):
        load(write_card(tmp_path))
    assert seen == []


# cells


def test_cells_are_drawn_once_and_come_back_whole(tmp_path, monkeypatch):
    from ssl_core.data import cells

    card = write_card(
        tmp_path,
        kind="cells",
        root=None,
        channels=None,
        image_size=None,
        synthetic=True,
        cells={"n": 8, "size": 24, "slides": 4},
    )
    load(card)
    drawn = cells.make_cells(n=8, size=24, slides=4)

    @functools.wraps(cells.make_cells)
    def again(**arguments):
        raise AssertionError("drawn a second time")

    monkeypatch.setattr(cells, "make_cells", again)
    data = load(card)
    assert data.name == "mine" and data.synthetic and data.fingerprint == drawn.fingerprint
    assert data.frame().equals(drawn.frame()) and data.group_names == drawn.group_names
    with pytest.raises(AssertionError, match="a second time"):
        load(card, size=32)


def test_cells_take_only_what_they_know(tmp_path):
    values = {"kind": "cells", "root": None, "channels": None, "image_size": None}
    with pytest.raises(ValueError, match="mine: cells: colour: unknown key; allowed are n, size"):
        load(write_card(tmp_path, **values, cells={"n": 8, "colour": "red"}))
    with pytest.raises(ValueError, match="n: missing"):
        load(write_card(tmp_path, **values))
