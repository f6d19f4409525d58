"""The worked example in CONTRIBUTING, done as it says in a copy of the tree: one file, one line, one row."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def tree(tmp_path):
    """A copy of package, tests and README in which the method of the example was added."""
    for name in ("ssl_core", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    file, line, row = re.findall(r"```(?:python)?\n(.*?)```", text, re.S)[:3]
    (tmp_path / "ssl_core" / "methods" / "uniformity.py").write_text(file, "utf-8")
    registry = tmp_path / "ssl_core" / "methods" / "__init__.py"
    added = registry.read_text("utf-8").replace("METHODS = {\n", f"METHODS = {{\n{line}")
    imported = "from ssl_core.methods.uniformity import Uniformity\n"
    registry.write_text(added.replace("from ssl_core.methods.base", f"{imported}from ssl_core.methods.base"), "utf-8")
    readme = tmp_path / "README.md"
    simclr = "| [`simclr`](ssl_core/methods/simclr.py)"
    readme.write_text(readme.read_text("utf-8").replace(simclr, row + simclr), "utf-8")
    return tmp_path


def test_the_new_method_keeps_the_contract_and_stands_in_the_readme(tree):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_methods.py",
               "tests/test_tree.py", "-k", "uniformity or has_a_row"]
    done = subprocess.run(command, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree), "SSL_CORE_ROOT": str(ROOT)},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed >= 9, done.stdout  # the contract's tests for one method, and the README's


def test_the_new_method_is_listed_with_its_paper(tree):
    done = subprocess.run([sys.executable, "-m", "ssl_core", "methods"], cwd=tree, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(tree), "SSL_CORE_ROOT": str(ROOT)})
    assert done.returncode == 0 and re.search("^ *uniformity +Alignment and uniformity. Wang, Isola", done.stdout, re.M)
