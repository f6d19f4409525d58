"""One thread, a cache of its own and no window for every test; `--slow` lets the slow ones run."""

import os
import tempfile
import time

import pytest

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
os.environ.update({name: "1" for name in THREADS}, MPLBACKEND="Agg", HF_HUB_OFFLINE="1", PYTHONUTF8="1")
for name in ("SSL_CORE_ROOT", "SSL_CORE_OUTPUTS"):
    os.environ.pop(name, None)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="let tests marked slow run, too")


def pytest_configure(config):
    config.cache_folder = tempfile.TemporaryDirectory(prefix="ssl_core_cache_", ignore_cleanup_errors=True)
    os.environ["SSL_CORE_CACHE"] = config.cache_folder.name


def pytest_unconfigure(config):
    config.cache_folder.cleanup()


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: give --slow"))


@pytest.fixture
def toy_tree(tmp_path, monkeypatch):
    """The folder of a toy project that is planned and executed in this process: its root, whose code makes the keys."""
    from toy_project import make_project  # after the environment above is set

    from ssl_core import keys

    make_project(tmp_path)
    monkeypatch.setenv("SSL_CORE_ROOT", str(tmp_path))
    monkeypatch.setattr(keys, "PACKAGE", tmp_path / "ssl_core")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return tmp_path
