"""Images in an LMDB under their paths: the same set as from files, and one line when something is missing."""

import sys

import lmdb
import pytest
import yaml
from PIL import Image

from ssl_core.data import load, store
from ssl_core.data.census import exact_duplicates
from ssl_core.data.store import read_image

PLACE = "/disk/lab data/class2/data5/"
SLIDES = ("190312601", "190312602", "190312603")
TILES = [f"{label}/{slide}_45_{10 * k}_64641_417_417_ASC-US.tif.jpg"
         for label in ("neg", "pos") for slide in SLIDES for k in range(4)]  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path / "cache"))


def make_tiles(folder, subdir=True, lacking=(), broken=()):
    """The tiles as files, as an LMDB under their old absolute paths, and as a list of these; the second copies the
    first."""
    for i, tile in enumerate(TILES):
        path = folder / tile
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((12, 10), 40 + max(i, 1)).convert("RGB").save(path)
    (folder / TILES[1]).write_bytes((folder / TILES[0]).read_bytes())
    (folder / "train_8.txt").write_text("".join(f"{PLACE}{tile}\n" for tile in reversed(TILES)), encoding="utf-8")
    name = folder / ("tiles_lmdb" if subdir else "tiles.mdb")
    with lmdb.open(str(name), subdir=subdir, map_size=2**22) as file, file.begin(write=True) as transaction:
        transaction.put(b"__len__", b"24")
        for tile in TILES:
            data = (folder / tile).read_bytes()
            if tile not in lacking:
                transaction.put((PLACE + tile).encode(), data[:50] if tile in broken else data)
    return name.name


def card(tmp_path, **values):
    values = {
        "kind": "csv", "root": "tiles", "file": "train_8.txt", "columns": ["path"], "image_size": 8, "channels": 3,
        "path": "class2/data5/(?P<path>.+)$", "label": "^(?P<label>neg|pos)/", "group": r"/(?P<group>\d+)_",
        "task": "binary", "get": "ask the authors",
    } | values  # fmt: skip
    path = tmp_path / "tiles.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.mark.parametrize("subdir", [True, False])
def test_tiles_under_their_paths_are_those_of_the_files(tmp_path, subdir, monkeypatch):
    name = make_tiles(tmp_path / "tiles", subdir)
    expected = {"images": 24, "groups": 3, "classes": {"neg": 12, "pos": 12}}
    files = load(card(tmp_path, expected=expected))
    for tile in TILES:
        (tmp_path / "tiles" / tile).unlink()
    data = load(card(tmp_path, lmdb=name, expected=expected))
    assert data.fingerprint == files.fingerprint and data.paths == tuple(TILES) and data.counts().tolist() == [12, 12]
    assert data.group_names == SLIDES
    assert exact_duplicates(data).positions.tolist() == [(0, 1)]
    monkeypatch.setattr(store, "read_image", None)  # the second time nothing is decoded
    assert load(card(tmp_path, lmdb=name)).fingerprint == data.fingerprint


@pytest.mark.parametrize("subdir", [True, False])
def test_another_lmdb_of_the_same_name_is_decoded_anew(tmp_path, subdir):
    name = make_tiles(tmp_path / "tiles", subdir)
    first = load(card(tmp_path, lmdb=name))
    make_tiles(tmp_path / "tiles", subdir)  # noise is drawn anew
    assert load(card(tmp_path, lmdb=name)).fingerprint != first.fingerprint


def test_missing_and_unreadable_tiles_are_named(tmp_path):
    name = make_tiles(tmp_path / "tiles", lacking=TILES[3:5])
    message = rf"path: 2 of the 24 files listed are not in .*{name}, the first is {TILES[3]}; ask the authors"
    with pytest.raises(FileNotFoundError, match=message):
        load(card(tmp_path, lmdb=name))
    data = load(card(tmp_path, lmdb=name, skip_bad=True))
    assert len(data) == 22 and data.paths[3] == TILES[5]


def test_misplaced_tiles_and_the_lmdb_of_another_set_are_told(tmp_path):
    name = make_tiles(tmp_path / "tiles")
    with lmdb.open(str(tmp_path / "tiles" / name), map_size=2**22) as file, file.begin(write=True) as transaction:
        moved = transaction.pop((PLACE + TILES[2]).encode())
        transaction.put((PLACE + TILES[2].replace("neg/", "pos/")).encode(), moved)
    with pytest.raises(FileNotFoundError, match=f"path: 1 of the 24 files .*, the first is {TILES[2]}"):
        load(card(tmp_path, lmdb=name))
    with open(tmp_path / "tiles" / "train_8.txt", "a", encoding="utf-8") as file:
        file.write(f"{PLACE}unsure/{SLIDES[0]}_1.jpg\n")
    with pytest.raises(ValueError, match="label: the pattern .* fits 24 of 25 paths; the first it misses is unsure/"):
        load(card(tmp_path, lmdb=name))
    other = make_tiles(tmp_path / "other", lacking=TILES)
    with pytest.raises(FileNotFoundError, match=f"path: 24 of the 24 files listed are not in .*{other}, the first is"):
        load(card(tmp_path, root="other", lmdb=other))


def test_a_broken_value_is_a_bad_image(tmp_path, capsys):
    name = make_tiles(tmp_path / "tiles", broken=TILES[6:7])
    with pytest.raises(ValueError, match=rf"tiles: 1 images cannot be read \(neg 1\): {TILES[6]}; repair"):
        load(card(tmp_path, lmdb=name))
    said = capsys.readouterr().out
    assert f"cannot read {TILES[6]}: " in said and "0x" not in said  # the same words every time


def test_what_is_no_lmdb_and_what_has_no_library(tmp_path, monkeypatch):
    name = make_tiles(tmp_path / "tiles")
    with pytest.raises(FileNotFoundError, match="lmdb: there is no .*other_lmdb; ask the authors"):
        load(card(tmp_path, lmdb="other_lmdb"))
    (tmp_path / "tiles" / "text.mdb").write_text("no database" * 1000)
    with pytest.raises(ValueError, match="lmdb: .*text.mdb cannot be opened: "):
        load(card(tmp_path, lmdb="text.mdb"))
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ImportError, match=f"^{name}: LMDB needs lmdb: pip install lmdb$"):
        load(card(tmp_path, lmdb=name))


def test_an_open_file_is_read_as_its_path_is(tmp_path):
    make_tiles(tmp_path / "tiles")
    with open(tmp_path / "tiles" / TILES[0], "rb") as file:
        assert (read_image(file, 3, 8) == read_image(str(tmp_path / "tiles" / TILES[0]), 3, 8)).all()
