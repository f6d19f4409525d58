"""The tree as git holds it: clean files, stripped notebooks, imports that point one way."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(p for p in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
NUMBERED = [p for p in NOTEBOOKS if re.match(r"\d\d_", p.name)]
MODULES = sorted((ROOT / "ssl_core").rglob("*.py"))

# A module imports from its own layer and from those before it, never from those after it.
LAYERS = ("files", "protocols", "split_presets", "config", "study", "presets", "table", "data", "augment_ops",
          "augment", "randaugment", "encoders", "foreign", "weights", "methods", "train", "evaluate", "keys",
          "provenance", "load_me", "runs", "finished", "predict", "analysis", "notebook", "nb", "last_table", "states",
          "leaks", "plan", "cost", "measure", "dry_run", "listings", "paper_words", "paper", "report", "as_timm",
          "export", "archive", "adopt", "live", "engine", "cli", "__main__")


def git(*arguments):
    try:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("git is not installed")


def texts():
    """(name, text) of every text file that is in git or would be added."""
    listed = git("ls-files", "--cached", "--others", "--exclude-standard")
    if listed.returncode:
        pytest.skip("not a git repository")
    for name in sorted(filter(None, listed.stdout.split("\n"))):
        data = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b"\0"
        if b"\0" not in data and not name.endswith((".pdf", ".png")):
            yield name, data.decode("utf-8")


def test_no_file_names_a_place_on_one_machine():
    place = re.compile(r"(?<![\w.~])/(home|root|Users|work|mnt|opt|farm|tmp)/[\w.]|[A-Z]:\\\\?Users\\")
    found = [f"{name}: {m[0]}" for name, text in texts() for m in [place.search(text)] if m]
    assert not found, "\n".join(found)


def test_no_file_is_unfinished_or_speaks_of_its_making():
    words = "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK", "lorem " + "ipsum", r"the " + "issue",
                      r"issue " + r"#?\d", "as " + "requested", "as an " + "AI", "DESIGN" + r"\.md"))
    found = [f"{name}: {m[0]}" for name, text in texts() for m in [re.search(rf"\b({words})\b", text)] if m]
    assert not found, "\n".join(found)


def test_text_files_end_lines_as_unix_does():
    assert not [name for name, text in texts() if "\r\n" in text]


@pytest.mark.parametrize("path, ignored", [
    ("outputs/quick/results.csv", True), ("outputs/bench/bench.csv", True), (".venv/bin/python", True),
    ("outputs/README.md", False), ("outputs/reference/quick/results.csv", False),
    ("outputs/reference/quick/figures/cost.png", False), ("params/data/mine.yaml", False),
])
def test_git_keeps_reference_results_and_ignores_the_others(path, ignored):
    code = git("check-ignore", "-q", path).returncode
    if code == 128:
        pytest.skip("not a git repository")
    assert code == (0 if ignored else 1)


def test_ruff_finds_nothing():
    """Includes E722, S110 and S112: no exception is swallowed."""
    found = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", str(ROOT)],
                           capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_no_exception_is_suppressed_wholesale():
    wide = re.compile(r"suppress\((Base)?Exception\b|except\s*(\(?(Base)?Exception[^:]*)?:\s*(pass|\.\.\.|continue)\b")
    assert not [name for name, text in texts() if name.endswith((".py", ".ipynb", "Snakefile")) and wide.search(text)]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "outputs/README.md",
                                  *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_pages_link_and_name_only_what_is_there(page):
    text = re.sub("(?s)```.*?```", "", (ROOT / page).read_text("utf-8"))
    links = {link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link}
    paths = set(re.findall(r"`((?:ssl_core|notebooks|params|docs|tests)/[\w./]*\w)`", text))
    absent = {link for link in links if not (ROOT / page).parent.joinpath(link).exists()} | {
        path for path in paths if not (ROOT / path).exists() and not re.search("[A-Z]{4}|mine", path)}
    assert not absent


def test_readme_has_a_row_for_every_method():
    from ssl_core.methods import METHODS, WRAPPERS

    readme = (ROOT / "README.md").read_text("utf-8")
    for what, table in (("", METHODS), ("add-on ", WRAPPERS)):
        rows = re.findall(rf"^\| {what}\[`(\w+)`\]\(ssl_core/methods/(\w+)\.py\) \|", readme, re.M)
        assert sorted(rows) == sorted((name, cls.__module__.split(".")[-1]) for name, cls in table.items())


# Notebooks

@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_stripped_and_short_of_cell(path):
    notebook = json.loads(path.read_text("utf-8"))
    nbformat.validate(nbformat.from_dict(notebook))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3" and "widgets" not in notebook["metadata"]
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            assert cell["outputs"] == [] and cell["execution_count"] is None, f"{cell['id']} holds an output"
            if "parameters" not in cell["metadata"].get("tags", []):  # one value a line, as papermill reads them
                assert len(source.splitlines()) <= 20, f"{cell['id']} is longer than 20 lines"
            assert source.strip(), f"{cell['id']} is empty"
            assert not set(cell["metadata"]) & {"execution", "papermill", "ExecuteTime"}, cell["id"]


@pytest.mark.parametrize("path", NUMBERED, ids=lambda p: p.stem)
def test_numbered_notebook_has_its_parameters_and_measure(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    assert 12 <= len(cells) <= 25
    assert sum("parameters" in cell["metadata"].get("tags", ()) for cell in cells) == 1
    assert cells[0]["cell_type"] == "markdown" and "".join(cells[0]["source"]).startswith("# ")


# Imports

def imports():
    """{module: modules of ssl_core that it imports}, names relative to ssl_core, at whatever depth they stand."""
    dotted = {p: ["ssl_core", *p.relative_to(ROOT / "ssl_core").with_suffix("").parts] for p in MODULES}
    named = {".".join(parts).removesuffix(".__init__"): path for path, parts in dotted.items()}
    graph = {}
    for name, path in named.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                origin = ".".join(dotted[path][:-node.level] * bool(node.level) + [node.module] * bool(node.module))
                modules = {f"{origin}.{alias.name}" for alias in node.names} & set(named)
                found |= modules if len(modules) == len(node.names) else modules | {origin}
        graph[name.removeprefix("ssl_core.")] = {f.removeprefix("ssl_core.") for f in found & set(named)} - {name}
    del graph["ssl_core"]  # opens names on demand, from anywhere
    return graph


def test_imports_point_left_only():
    graph, wrong = imports(), []
    unknown = {name.split(".")[0] for name in graph} - set(LAYERS)
    assert not unknown, f"say in LAYERS where these stand in the flow: {unknown}"
    for name, others in graph.items():
        wrong += [f"{name} imports {other}" for other in sorted(others)
                  if LAYERS.index(other.split(".")[0]) > LAYERS.index(name.split(".")[0])]
    assert not wrong, "\n".join(wrong)


def test_imports_have_no_circle():
    left = imports()
    while ready := [name for name, others in left.items() if not others & set(left)]:
        for name in ready:
            del left[name]
    assert not left, f"these import each other: {left}"


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"torch", "torchvision", "timm", "pandas", "sklearn", "scipy", "snakemake", "papermill", "matplotlib"}
    code = f"import sys, ssl_core, ssl_core.cli; print(*sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == ""
