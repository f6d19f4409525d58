"""Files: a write is whole or not at all, and a failed one says what to do."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from ssl_core import files


def test_write_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "table.csv"
    files.atomic_write(path, "a\nb\n")
    files.atomic_write(path, "c\n")
    assert path.read_bytes() == b"c\n"
    assert os.listdir(path.parent) == ["table.csv"]


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "table.csv"
    files.atomic_write(path, "old")
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["table.csv"]


def test_full_disk_names_file_and_free_space(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"no room to write .*table\.csv: [\d.]+ \wB free") as caught:
        files.atomic_write(tmp_path / "table.csv", "x")
    assert caught.value.errno == errno.ENOSPC and os.listdir(tmp_path) == []


def test_json_takes_numpy_and_paths(tmp_path):
    value = {"n": np.int64(3), "x": np.float32(0.5), "v": np.arange(2), "p": Path("a") / "b", "ü": None}
    files.atomic_json(tmp_path / "run.json", value)
    assert json.loads((tmp_path / "run.json").read_text("utf-8")) == {
        "n": 3,
        "x": 0.5,
        "v": [0, 1],
        "p": "a/b",
        "ü": None,
    }
    with pytest.raises(TypeError, match="object cannot be written"):
        files.atomic_json(tmp_path / "run.json", {"x": object()})


def test_folders_follow_the_environment_then_the_tree(tmp_path, monkeypatch):
    for name in ("SSL_CORE_ROOT", "SSL_CORE_OUTPUTS", "SSL_CORE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "params").mkdir()
    (tmp_path / "notebooks" / "lessons").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "lessons")
    assert files.root() == tmp_path.resolve() and files.outputs() == tmp_path.resolve() / "outputs"
    assert files.cache().name == "ssl_core" and tmp_path not in files.cache().parents
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path / "elsewhere"))
    assert files.outputs() == (tmp_path / "elsewhere").resolve()
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path / "fast"))
    assert files.cache() == (tmp_path / "fast").resolve()


@pytest.mark.parametrize("n, text", [(999, "999 B"), (3_400_000, "3.4 MB"), (6e9, "6.0 GB"), (2e12, "2.0 TB")])
def test_sizes_read_as_a_person_writes_them(n, text):
    assert files.size_text(n) == text
