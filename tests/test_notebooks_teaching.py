"""The notebooks that teach: each runs from top to bottom as it stands, tells a story, and leaves the tree as it was."""

import json
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
import yaml

from ssl_core.nb import execute
from ssl_core.study import load_study

ROOT = Path(__file__).parents[1]
NAMES = ("00_tour", "01_long_tails", "02_your_images")


def cells_of(name):
    cells = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text("utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in cells]


def run(notebook, folder, monkeypatch, **parameters):
    """Execute a notebook in bulk manner with outputs below `folder` → (texts that its cells put out, the notebook)."""
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(folder / "outputs"))
    monkeypatch.setenv("SSL_CORE_BATCH", "1")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # figures go into the notebook
    execute(ROOT / "notebooks" / f"{notebook}.ipynb", folder, parameters)
    notebook = nbformat.read(folder / "report.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    texts = [output.get("text") or output.data.get("text/markdown") or output.data.get("text/plain", "")
             for output in outputs if output.output_type != "error"]
    return "\n".join(texts), notebook


def pictures(notebook):
    return sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", ()))


@pytest.fixture
def untouched():
    """Fails when a notebook changes what git sees."""
    def seen():
        found = subprocess.run(["git", "-C", str(ROOT), "status", "--porcelain", "params", "outputs"],
                               capture_output=True, text=True)
        return found.stdout

    before = seen()
    yield
    assert seen() == before


@pytest.mark.parametrize("name", NAMES)
def test_prose_outweighs_code_and_needs_no_network(name):
    cells = cells_of(name)
    prose = " ".join(text for kind, text, _ in cells if kind == "markdown")
    code = [text.splitlines() for kind, text, tags in cells if kind == "code" and "parameters" not in tags]
    assert len(prose.split()) >= 2 * sum(map(len, code))
    assert max(map(len, code[1:])) <= 10, "after the imports, ten lines a cell"
    assert "$" not in prose and "http" not in prose
    assert "?" in cells[0][1] and "?" in cells[-1][1], "it begins and ends with a question"


@pytest.mark.parametrize("name", NAMES)
def test_prose_types_no_number_that_a_parameter_decides(name):
    cells = cells_of(name)
    source = next(text for _, text, tags in cells if "parameters" in tags)
    chosen = {value for value in re.findall(r"= ([\d.]+) ", source) if float(value) >= 10}
    prose = " ".join(text for kind, text, _ in cells[:-1] if kind == "markdown")
    assert not chosen & set(re.findall(r"(?<![\w:])\d[\d.,]*\b(?!_)", prose))


@pytest.mark.slow
def test_the_tour(tmp_path, monkeypatch, untouched):
    said, notebook = run("00_tour", tmp_path, monkeypatch)
    spread = dict(re.findall(r"- (.+?): .*spread [\d.]+ → ([\d.]+)", said))
    assert float(spread["only pulling together"]) < 0.2 < 0.5 < float(spread["NT-Xent"]), "it collapses, and only there"
    assert re.search(r"[Tt]he trained network.*raw pixels.*\n.*[Tt]he trained network.*the untrained network", said)
    assert pictures(notebook) == 4


def test_long_tails(tmp_path, monkeypatch, untouched):
    said, notebook = run("01_long_tails", tmp_path, monkeypatch)
    assert "part of the one above it? yes" in said and "**no**" not in said
    assert pictures(notebook) >= 6


def test_the_example_of_your_images(tmp_path, monkeypatch, untouched):
    said, notebook = run("02_your_images", tmp_path, monkeypatch)
    assert re.search(r"15 positives.* ±\d+ points by grouped cross-validation, ±\d+ with a 20 % test set", said)
    assert "hold no positive in" in said and "are left out" in said and "with different labels" in said
    study = load_study(tmp_path / "outputs" / "your_images" / "studies" / "mine.yaml")
    assert study.splits.kind == "natural" and 0.01 not in study.evaluate.budgets
    assert "synthetic" in said and pictures(notebook) == 3


def test_your_images_with_a_users_csv(tmp_path, monkeypatch):
    from ssl_core.data.example import write_example

    folder = write_example(tmp_path / "tiles", n=80, positives=8, negatives=40)
    rows = [f"{path.relative_to(tmp_path).as_posix()},{path.parent.name.replace('unlabelled', '')},"
            f"{int(path.name[5:7]) // 2}"
            for path in sorted(folder.rglob("*.png"))]
    (tmp_path / "table.csv").write_text("\n".join(["path,diagnosis,patient", *rows]), "utf-8")
    said, _ = run("02_your_images", tmp_path / "run", monkeypatch, images=str(tmp_path / "table.csv"),
                  label_column="diagnosis", name="smears", params_folder=str(tmp_path / "params"))
    card = yaml.safe_load((tmp_path / "params" / "data" / "smears.yaml").read_text("utf-8"))
    assert card["label"] == "diagnosis" and card["group"] == "patient" and "synthetic" not in card
    study = load_study(tmp_path / "params" / "studies" / "smears.yaml")
    assert study.data[0].dataset.endswith("params/data/smears.yaml")
    assert "HSIL+" in said


def test_your_images_ends_in_one_line_when_there_are_none(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="there is no such folder or file") as error:
        run("02_your_images", tmp_path, monkeypatch, images=str(tmp_path / "nothing"))
    assert "\n" not in str(error.value)
