"""Every measured number of README and docs stands in a committed table, which says what made it.

outputs/reference/numbers.csv has a row for each number: the file and the words around it, the number as written, the
table, the row (a pandas query) and column that hold it (`rows`: how many there are), and a factor. Rows without a table
quote what was not measured, and say why. `python tests/test_numbers.py` writes docs/numbers.md, with a word on each
table whose code has changed.
"""

import json
import re
from pathlib import Path

import pandas as pd

from ssl_core.files import atomic_write, sha256_file
from ssl_core.keys import code_slice

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "outputs" / "reference"
GENERATED = {  # pages that other tests compare with what makes them
    "methods.md": "test_presets.py", "protocols.md": "test_presets.py", "claims.md": "test_claims.py",
    "coverage.md": "test_systems.py", "splits.md": "test_presets.py", "numbers.md": "test_numbers.py"}
UNIT = r"(?:%|points?\b|seconds?\b|minutes?\b|hours?\b|images/s|ms\b|s\b)"
NUMBER = re.compile(rf"(?<![\w.,-])[+−-]?\d[\d.,]*(?: to [+−-]?[\d.]+)?\s{UNIT}")
BLOCK = re.compile(r"<!-- (\w+) -->.*?<!-- end \1 -->", re.S)  # tables that a test compares with their CSV
TABLE = re.compile(r"<!-- table (\S+) -->\n((?:\|.*\n)+)")


def listed():
    return pd.read_csv(REFERENCE / "numbers.csv", dtype=str, keep_default_na=False)


def pages():
    """{file: text with single spaces} of README and docs, less what is compared elsewhere."""
    files = [ROOT / "README.md", *sorted(path for path in ROOT.glob("docs/*.md") if path.name not in GENERATED)]
    return {path.relative_to(ROOT).as_posix(): " ".join(TABLE.sub("", BLOCK.sub("", path.read_text("utf-8"))).split())
            for path in files}


def test_every_number_listed_is_that_of_its_table():
    texts, wrong = pages(), []
    for row in listed().itertuples():
        if row.text not in texts[row.file]:
            wrong.append(f"{row.file} does not say: {row.text}")
        if not row.table:
            assert row.why, f"{row.text}: neither table nor reason"
            continue
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
    return f"{float(row.factor or 1) * value:{sign}.{digits}f}".replace("-", "−")


def test_tables_of_a_page_are_those_that_are_kept():
    for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for name, text in TABLE.findall(path.read_text("utf-8")):
            head, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
            kept = pd.read_csv(ROOT / name, dtype=str, keep_default_na=False)
            assert [head, *lines] == [list(kept.columns), *kept.values.tolist()], f"{path.name}: {name}"


def test_no_number_with_a_unit_stands_in_no_table():
    rows, loose = listed(), []
    for file, text in pages().items():
        spans = [(at.start(), at.end()) for words in rows.text[rows.file == file]
                 for at in re.finditer(re.escape(words), text)]
        for number in NUMBER.finditer(text):
            if not any(start <= number.start() and number.end() <= end for start, end in spans):
                loose.append(f"{file}: {text[max(0, number.start() - 40):number.end() + 30]}")
    assert not loose, "add rows to outputs/reference/numbers.csv, or take the number out:\n" + "\n".join(loose)


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
