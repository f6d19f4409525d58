"""The study `smoke`, run once a session by the real commands in a copy of the project, for the tests that read it."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STUDY = "params/studies/smoke.yaml"
MADE = []  # a fixture that two files import is made twice; the study is run once


@dataclass(frozen=True)
class Smoke:
    """A copy of the project, and where its outputs go, which is elsewhere."""

    project: Path
    outputs: Path
    said: str = ""

    @property
    def folder(self):
        return self.outputs / "smoke"

    def environment(self):
        return os.environ | {"SSL_CORE_ROOT": str(self.project), "PYTHONPATH": str(self.project),
                             "SSL_CORE_OUTPUTS": str(self.outputs)}

    def start(self, *words, **options):
        return subprocess.Popen([sys.executable, "-m", *map(str, words)], cwd=self.project, env=self.environment(),
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)

    def do(self, *words):
        """What a command said; it has to succeed."""
        process = self.start(*words)
        said = process.communicate()[0]
        assert process.returncode == 0, said
        return said


def copy_project(source, folder):
    """The tree that a study needs, without what was made in it."""
    for name in ("ssl_core", "notebooks", "params"):
        shutil.copytree(source / name, folder / name,
                        ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    shutil.copy(source / "Snakefile", folder)
    return folder


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    if os.name != "posix":
        pytest.skip("bulk runs need a POSIX system")
    if not MADE:
        place = tmp_path_factory.mktemp("smoke")
        made = Smoke(copy_project(ROOT, place / "project"), place / "out")
        MADE.append(Smoke(made.project, made.outputs, made.do("ssl_core", "run", STUDY)))
    return MADE[0]
