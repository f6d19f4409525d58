"""Every measured number of README and docs stands in a committed table, which says what made it.

outputs/reference/numbers.csv has a row for each number: the file and the words around it, the number as written, the
table, the row (a pandas query) and column that hold it (`rows`: how many there are; `bytes`: how large a file is),
and a factor. Rows without a table quote what was not measured, and say why. `python tests/test_numbers.py` writes
docs/numbers.md, with a word on each table whose code has changed.
"""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from ssl_core.files import atomic_write, sha256_file
from ssl_core.keys import code_slice

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "outputs" / "reference"
GENERATED = {  # pages that other tests compare with what makes them
    "methods.md": "test_presets.py", "protocols.md": "test_presets.py", "claims.md": "test_claims.py",
    "coverage.md": "test_systems.py", "splits.md": "test_presets.py", "numbers.md": "test_numbers.py"}
UNIT = r"(?:%|points?\b|seconds?\b|minutes?\b|hours?\b|images/s|ms\b|s\b|[kKMGT]i?B\b)"
COUNTED = "(?:images|pools|studies|pairs|simulations|sets|runs|jobs|slides|patients|train|val|test|neg|pos)"
COUNT = r"(?<![\w.,:/-])\d+(?:,\d{3})*"
NUMBER = re.compile("|".join((
    rf"(?<![\w.,-])[+−-]?\d[\d.,]*(?: to [+−-]?[\d.]+)?\s{UNIT}", rf"{COUNT} (?:out )?of (?:the )?\d[\d,]*\b",
    rf"{COUNT} (?:test |independent |held-out |pretraining )?{COUNTED}\b")))
SHARE = re.compile(r"(?<![\w.,`])[+−-]?0\.\d\d\b(?![\w.`])")  # looked for in running text, outside tables and code
BLOCK = re.compile(r"<!-- (\w+) -->.*?<!-- end \1 -->", re.S)  # tables that a test compares with their CSV
CODE, ROW = re.compile(r"```.*?```|`[^`]*`", re.S), re.compile(r"(?m)^\|.*$")
TABLE = re.compile(r"<!-- table (\S+) -->\n((?:\|.*\n)+)")


def listed():
    return pd.read_csv(REFERENCE / "numbers.csv", dtype=str, keep_default_na=False)


def pages(drop=(BLOCK, TABLE)):
    """{file: text with single spaces} of README and docs, less what is compared elsewhere."""
    files = [ROOT / "README.md", *sorted(path for path in ROOT.glob("docs/*.md") if path.name not in GENERATED)]
    return {path.relative_to(ROOT).as_posix(): without(path.read_text("utf-8"), drop) for path in files}


def without(text, drop):
    for pattern in drop:
        text = pattern.sub("", text)
    return " ".join(text.split())


def test_every_number_listed_is_that_of_its_table():
    texts, wrong = pages(), []
    for row in listed().itertuples():
        if row.text not in texts[row.file]:
            wrong.append(f"{row.file} does not say: {row.text}")
        if not row.table:
            assert row.why, f"{row.text}: neither table nor reason"
            continue
        if row.column == "bytes":
            found = pd.DataFrame({"bytes": [str((ROOT / row.table).stat().st_size)]})
        else:
            found = pd.read_csv(REFERENCE / row.table, dtype=str, keep_default_na=False)
        rows = found.apply(numbers_of).query(row.row, engine="python")
        values = [len(rows)] if row.column == "rows" else list(rows[row.column].unique())
        if len(values) != 1 or row.number not in row.text or shown(values[0], row) != row.number:
            wrong.append(f"{row.file}: {row.number} in {row.text!r}, but {row.table} has {values}")
    assert not wrong, "\n".join(wrong)


def numbers_of(column):
    """A column of text as numbers, where all of it that is not empty are some."""
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().sum() == (column != "").sum() else column


def shown(value, row):
    """A table's value with the digits and sign of the number in the text."""
    if isinstance(value, str):
        return value
    digits = len(row.number.partition(".")[2])
    sign = "+" if row.number[0] in "+−" else ""
    comma = "," * ("," in row.number)
    return f"{float(row.factor or 1) * value:{sign}{comma}.{digits}f}".replace("-", "−")


def test_tables_of_a_page_are_those_that_are_kept():
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for name, text in TABLE.findall(path.read_text("utf-8")):
            head, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
            kept = pd.read_csv(ROOT / name, dtype=str, keep_default_na=False)
            assert [head, *lines] == [list(kept.columns), *kept.values.tolist()], f"{path.name}: {name}"


def loose(pattern, text, listed_words):
    """The words around each number that none of the listed words hold."""
    spans = [(at.start(), at.end()) for words in listed_words for at in re.finditer(re.escape(words), text)]
    return [text[max(0, number.start() - 40):number.end() + 30] for number in pattern.finditer(text)
            if not any(start <= number.start() and number.end() <= end for start, end in spans)]


KINDS = [(NUMBER, (BLOCK, TABLE)), (SHARE, (BLOCK, CODE, ROW))]


@pytest.mark.parametrize("pattern, drop", KINDS, ids=["unit", "share"])
def test_no_measured_number_stands_in_no_table(pattern, drop):
    rows = listed()
    found = [f"{file}: {words}" for file, text in pages(drop).items()
             for words in loose(pattern, text, rows.text[rows.file == file])]
    assert not found, "add rows to outputs/reference/numbers.csv, or take the number out:\n" + "\n".join(found)


@pytest.mark.parametrize("text, found", [
    ("takes 12 s", 1), ("about 6 GB, and 377 MB", 2), ("in 192 of 200 pools", 1), ("8,000 images were seen", 1),
    ("(1,482 train, 460 val)", 2), ("fell by −1.2 to +0.3 points", 1), ("`steps: 100` of `lr`", 0),
    ("ICML 2020, of 2021", 0), ("1:100 on 5 classes", 0), ("see 42_audit, row 7", 0)])
def test_a_measured_number_is_found_and_a_year_a_ratio_or_a_name_is_not(text, found):
    assert len(loose(NUMBER, text, [])) == found
    assert loose(NUMBER, text, [text]) == []


def test_shares_are_found_in_running_text_alone():
    text = without("| 0.25 | 0.50 |\n\nan area of 0.81, `lr: 0.05`, at 0.960 and 1.25\n```\n0.33\n```\n", (CODE, ROW))
    assert [number[0] for number in SHARE.finditer(text)] == ["0.81"]


# --- what made the tables ---------------------------------------------------------------------------------------------

def origins():
    """{what: its provenance} of all reference folders."""
    return {path.relative_to(REFERENCE).as_posix(): json.loads(path.read_text("utf-8"))
            for path in sorted(REFERENCE.glob("**/provenance*.json"))}


def test_every_table_says_commit_lock_and_keys():
    known = origins()
    tables = {path.relative_to(REFERENCE).parts[0] for path in REFERENCE.glob("*/*.csv")}
    assert tables == {name.split("/")[0] for name in known}
    for name, made in known.items():
        assert made["n_keys"] == len(made["keys"]) and made["commits"], name
        assert re.fullmatch("[0-9a-f]{64}", made["lock"]), name
        results = (REFERENCE / name).with_name("results.csv")
        if made["study"] and results.exists():
            assert set(pd.read_csv(results, dtype=str).key) <= set(made["keys"]), name


def stale(made):
    """What of the code and the study behind a table has changed since, in words, or ""."""
    gone = [module for module in made["code"] if not module_file(module).is_file()]
    now = code_slice([module for module in made["code"] if module not in gone])
    changed = [f"{module.replace('.', '/')}.py" for module in made["code"] if made["code"][module] != now.get(module)]
    study = ROOT / "params" / "studies" / f"{made['study']}.yaml"
    if made["study"] and made.get("study_file") and (not study.exists() or sha256_file(study) != made["study_file"]):
        changed.append(study.name)
    return ", ".join(changed)


def module_file(module):
    return ROOT.joinpath("ssl_core", *module.split(".")).with_suffix(".py")


def test_a_change_of_code_is_told(tmp_path):
    code = code_slice(["evaluate.point"])
    made = {"study": "", "code": code}
    assert stale(made) == ""
    assert stale(made | {"code": code | {"evaluate.point": "0" * 12, "gone": "1"}}) == "evaluate/point.py, gone.py"


def page():
    """docs/numbers.md."""
    rows, lines = listed(), []
    for name, made in origins().items():
        folder, what = name.split("/")[0], made["study"] or made["command"]
        used = rows[rows.table.str.startswith(folder + "/")]
        keys = f"{len(made['keys'])} keys" if made["keys"] else "no keys"
        commits = ", ".join(f"`{commit[:7]}`" for commit in made["commits"])
        changed = stale(made)
        state = f"stale since its code changed: {changed}" if changed else "as its code makes it"
        link = f"[{name}](../outputs/reference/{name})"
        lines.append(f"| {link} | `{what}` | {commits} | {keys} | {len(used)} | {state} |")
    return PAGE + "\n".join(lines) + "\n"


PAGE = """# Where the numbers come from

Each measured number of README and these pages has a row in
[`outputs/reference/numbers.csv`](../outputs/reference/numbers.csv): the words around it, the table, the row and the
column. `tests/test_numbers.py` compares them, and finds numbers that have none. Beside each table stands what made it:
commit, hash of the lock file, keys of the runs, and the code that shapes them. *Stale* means that this code, or the
study, has changed since: the same command may give other numbers today. This page was written by
`python tests/test_numbers.py`.

| made by | study or command | commit | runs | numbers quoted | state |
|---|---|---|---|--:|---|
"""


def test_the_page_names_every_table():
    text = (ROOT / "docs" / "numbers.md").read_text("utf-8")
    assert all(f"| [{name}](" in text for name in origins())


if __name__ == "__main__":
    atomic_write(ROOT / "docs" / "numbers.md", page())
