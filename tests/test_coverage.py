"""docs/coverage.md: every feature of the published systems is where the table says, and a test that runs serves it."""

import ast
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
ROWS = [[cell.strip().strip("`") for cell in line.strip("| \n").split(" | ")]
        for line in (ROOT / "docs" / "coverage.md").read_text("utf-8").splitlines() if re.match(r"\| \d+ \|", line)]
SERVED = [row for row in ROWS if row[4] != "—"]
LOCKED = {Requirement(line).name for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines()}


def test_the_table_has_the_73_rows_of_the_inventory():
    assert [row[0] for row in ROWS] == [str(i + 1) for i in range(73)]
    assert all(row[1] and set(row[2].split(", ")) <= set("abcde") for row in ROWS)


def test_what_is_not_served_says_why_in_a_sentence():
    for _, _, _, where, test, *note in ROWS:
        assert (where == "—") == (test == "—")
        assert test != "—" or re.fullmatch(r"[A-Z][^.]+\.", *note)


@pytest.mark.parametrize("number, where", [(row[0], row[3]) for row in SERVED])
def test_what_is_named_is_there(number, where):
    path, symbol = where.split("::")
    assert (ROOT / path).is_file()
    if path.endswith(".py"):
        assert hasattr(import_module(path[:-3].replace("/", ".")), symbol)
    else:
        values = yaml.safe_load((ROOT / path).read_text("utf-8"))
        assert symbol in values.get("presets", values)


def test_no_test_serves_more_than_three_rows():
    assert max(Counter(row[4] for row in SERVED).values()) <= 3


@cache
def collected():
    """The tests of the table's files, as pytest finds them, without their parameters."""
    files = sorted({row[4].split("::")[0] for row in SERVED})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout[-2000:]
    return {line.partition("[")[0] for line in found.stdout.splitlines()}


def test_every_test_is_collected():
    assert not {row[4] for row in SERVED} - collected()


@pytest.mark.parametrize("file", sorted({row[4].split("::")[0] for row in SERVED}))
def test_no_test_is_skipped(file):
    """None is slow, needs a machine of a kind (but for POSIX), or a package that the lock does not install."""
    text = (ROOT / file).read_text("utf-8")
    assert set(re.findall(r"importorskip\(\W*(\w+)", text)) <= LOCKED
    tree, named = ast.parse(text), {row[4].split("::")[1] for row in SERVED if row[4].startswith(file)}
    marks = [node.value for node in tree.body if isinstance(node, ast.Assign) and "pytestmark" in ast.unparse(node)]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in named:
            assert "pytest.skip" not in ast.unparse(node)
            marks += node.decorator_list
    odd = [mark for mark in map(ast.unparse, marks) if re.search("skip|slow", mark) and "os.name" not in mark]
    assert not odd
