"""docs/coverage.md: every feature of the published systems is where the table says, and a test that runs serves it."""

import contextlib
import inspect
import io
import os
import re
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from _pytest.skipping import evaluate_skip_marks

from ssl_core.protocols import protocol
from ssl_core.table import COLUMNS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "coverage.md").read_text("utf-8")
ROWS = [[cell.strip().strip("`") for cell in line.strip("| \n").split(" | ")]
        for line in PAGE.splitlines() if re.match(r"\| \d+ \|", line)]
SERVED = [row for row in ROWS if row[4] != "—"]


def test_the_table_has_the_73_rows_of_the_inventory():
    assert [row[0] for row in ROWS] == [str(i + 1) for i in range(73)]
    assert all(row[1] and set(row[2].split(", ")) <= set("abcde") for row in ROWS)


def test_what_is_not_served_says_why_in_a_sentence():
    for _, _, _, where, test, *note in ROWS:
        assert (where == "—") == (test == "—")
        assert test != "—" or re.fullmatch(r"[A-Z][^.]+\.", *note)


def entry(values, keys):
    """What stands in a YAML file under keys joined by dots, numbers being places in lists; KeyError where nothing."""
    for key in keys.split("."):
        values = values[int(key)] if isinstance(values, list) else values[key]
    return values


@pytest.mark.parametrize("number, where", [(row[0], row[3]) for row in SERVED])
def test_what_is_named_is_there(number, where):
    """Of a card or study a value, as its keys are those of others, too; else the entry of that name."""
    path, symbol = where.split("::")
    if path.endswith(".py"):
        assert hasattr(import_module(path[:-3].replace("/", ".")), symbol)
        return
    values, (keys, _, value) = yaml.safe_load((ROOT / path).read_text("utf-8")), symbol.partition("=")
    if path.startswith(("params/data/", "params/studies/")):
        assert value and str(entry(values, keys)) == value
    else:
        assert isinstance(entry(values.get("presets", values), symbol), dict)


def test_no_test_serves_more_than_three_rows():
    assert max(Counter(row[4].partition("[")[0] for row in SERVED).values()) <= 3


class Seen:
    """A plugin of pytest that keeps what is collected, and why it would be skipped."""

    def pytest_collection_finish(self, session):
        self.items = {item.nodeid: item for item in session.items}
        self.skipped = {name for name, item in self.items.items() if evaluate_skip_marks(item)}


@pytest.fixture(scope="module")
def seen():
    """The files of the table, imported by a pytest of their own within this process, with its marks evaluated."""
    files, before, found = sorted({row[4].split("::")[0] for row in SERVED}), dict(os.environ), Seen()
    command = ["--collect-only", "-qq", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            assert pytest.main([*command, *(str(ROOT / file) for file in files)], plugins=[found]) == 0, said.getvalue()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return found


@pytest.mark.parametrize("test", sorted({row[4] for row in SERVED}))
def test_every_test_is_collected_and_not_skipped(seen, test):
    """Neither by a mark, `slow` among them, nor for want of a package, nor by itself or by a fixture in tests/."""
    items = [item for name, item in seen.items.items() if test in (name, name.partition("[")[0])]
    assert items and not {item.nodeid for item in items} & seen.skipped
    fixtures = [definition.func for found in items[0]._fixtureinfo.name2fixturedefs.values() for definition in found]
    own = [function for function in fixtures if ROOT / "tests" in Path(inspect.getfile(function)).parents]
    assert not [f.__name__ for f in [items[0].function, *own] if re.search(r"skip\(", inspect.getsource(f))]


def test_the_logs_name_columns_protocols_and_metrics_that_there_are():
    filters = re.findall(r"`(\w+)=(\w+)`", PAGE[PAGE.index("## Where the published systems' logs are"):])
    code = "".join(path.read_text("utf-8") for path in (ROOT / "ssl_core").rglob("*.py"))
    assert len(filters) > 20 and {key for key, _ in filters} <= {*COLUMNS}
    for key, value in filters:
        assert protocol(value) if key == "protocol" else re.search(rf"\b{value}", code), value
