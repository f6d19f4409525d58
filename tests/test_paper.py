"""What a paper takes from a study: figures by name, macros that name their source, tables that compile."""

import inspect
import re
import shutil
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from made_study import BALANCED, IMBALANCED, with_cost
from test_plots_systems import drawn_well

from ssl_core import nb, paper, paper_words
from ssl_core.analysis import best, contrasts, curves, figures, layout, plots
from ssl_core.cli import main
from ssl_core.data.cards import card_names, read_card
from ssl_core.files import root
from ssl_core.methods import METHODS, WRAPPERS

PANEL = {"cost": ["metric", "group"], "gains": ["protocol", "budget"], "budgets": ["protocol"], "frequency": [],
         "ratios": ["arm", "metric", "protocol"], "ratio_curves": ["arm", "metric", "protocol"], "ks": [], "roc": []}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Of a made study with a cost, and curves over four ratios and two budgets."""
    tmp_path, monkeypatch = tmp_path_factory.mktemp("outputs"), pytest.MonkeyPatch()
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(paper, "parameters_of", lambda notebook: nb.parameters_of(
        root() / "notebooks" / "10_pretrain.ipynb") | {"dataset": "made", "split_kind": "long_tail"})
    made = with_cost(tmp_path, 0.1)
    for draw in (0, 1, 2):
        for seen in (BALANCED, {"ratio": 10}, {"ratio": 30}, IMBALANCED):
            made.trained("mae", seen, 0.6 - 0.001 * seen["ratio"], draw, budgets=(0.1, 1.0),
                         protocols=("linear", "knn"))
    jobs, table = made.write()
    cells = contrasts.cells_of(table, jobs)
    summary = pd.concat([contrasts.summary_of(cells, 50), curves.response_curves(cells, 50)[1]])
    (made.folder / "tables").mkdir()
    best.best_in(cells, 50).to_csv(made.folder / "tables" / "best.csv", index=False)
    summary.to_csv(made.folder / "summary.csv", index=False)
    with plt.rc_context():
        yield paper.told_of("made")
    monkeypatch.undo()
    plt.close("all")


# --- figures ----------------------------------------------------------------------------------------------------------

def test_figures_are_made_again_by_name_from_tables_alone(told, capsys):
    assert main(["report", "made", "--figure", "cost"]) == 0
    assert capsys.readouterr().out.strip() == str(told.folder / "figures" / "cost.pdf")
    endings = {"alt.txt", "csv", "pdf", "png", "txt"}
    assert {path.name for path in (told.folder / "figures").iterdir()} == {f"cost.{ending}" for ending in endings}
    pdf = (told.folder / "figures" / "cost.pdf").read_bytes()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf  # TrueType, embedded
    alt = (told.folder / "figures" / "cost.alt.txt").read_text("utf-8")
    assert alt.startswith("What imbalance costs.") and "balanced accuracy" in alt and "points" in alt


@pytest.mark.parametrize("name, line", [("costs", "no figure 'costs'; there are chain, cost, gains, arms, "),
                                        ("cka", "made has no figure 'cka': it is drawn from results.csv, ")])
def test_a_figure_that_is_none_ends_in_one_line(told, capsys, name, line):
    assert main(["report", "made", "--figure", name]) == 2
    said = capsys.readouterr().err
    assert said.startswith(line) and said.count("\n") == 1


def test_every_panel_is_a_function_of_a_frame_and_axes(told):
    for name, figure in figures.FIGURES.items():
        frame, ax, *others = inspect.signature(figure.panel).parameters.values()
        assert ax.name == "ax" and ax.default is None and all(o.default is not o.empty for o in others), name
    for name, of_one in PANEL.items():
        figure = figures.FIGURES[name]
        frame = next(iter(figure.frames(told).values()))[0]
        for column in of_one:
            frame = frame[frame[column] == frame[column].iloc[0]]
        fig, ax = plt.subplots()
        assert figure.panel(frame, ax) is ax and fig.axes == [ax] and ax.has_data(), name


def test_in_a_column_nothing_is_cut_off_and_names_keep_their_marks(told):
    for name in ("cost", "gains", "budgets", "frequency", "ratio_curves", "ks", "roc"):
        for file, fig, _, caption in figures.drawings(name, told, "column"):
            assert file == f"{name}_column" and fig.get_figwidth() == plots.COLUMN
            drawn_well(fig)
            if name == "budgets":
                marks = {line.get_marker() for line in fig.legends[0].findobj(plt.Line2D)}
                assert {"o", "s", "v"} <= marks
            assert layout.alt_text(fig, caption).count("Horizontal") >= 1, name


# --- numbers ----------------------------------------------------------------------------------------------------------

def test_every_number_is_a_macro_of_letters_that_names_the_runs_behind_it(told):
    found = paper.means(told.table)
    macros = paper.numbers("made", told.summary, found)
    assert len(macros) == len(found) + len(told.summary)
    names = re.findall(r"\\newcommand\{\\(\w+)\}", "".join(macros.values()))
    assert len(names) == len(set(names)) and all(re.fullmatch("[A-Za-z]+", name) for name in names)
    cost = told.summary[(told.summary.family == "cost of imbalance") & (told.summary.arm == "simclr")].iloc[0]
    said = macros["MadeSimCLRBalancedMinusSimCLROneOneZeroZeroLinearProbeOneZeroZeroPercentBalancedAccuracy"]
    assert said.startswith(f"% {cost['keys']}\n") and rf"{{\ensuremath{{{100 * cost.effect:.1f}}}}}" in said
    assert [line.split("}")[0][-3:] for line in said.splitlines()[1:]][1:] == ["Low", "igh", "acyN"[1:], "acyP"[1:]]
    assert set(found["keys"].str.split().sum()) <= set(told.table.key)


@pytest.mark.parametrize("parts, name", [(("a_b", "1:100"), "ABOneOneZeroZero"), (("0.5 %",), "ZeroPointFivePercent"),
                                         (("MAE (1:1)",), "MAEOneOne")])
def test_digits_are_spelled(parts, name):
    assert paper.macro(*parts) == name


def test_numbers_of_one_name_are_told_apart_or_refused(told):
    found = paper.means(told.table)
    two = found.iloc[[0, 0]].assign(label_pool=["balanced", "natural"])
    assert len(paper.numbers("made", told.summary[:0], two)) == 2
    with pytest.raises(ValueError, match="two numbers are called Made"):
        paper.numbers("made", told.summary[:0], found.iloc[[0, 0]])


# --- the folder -------------------------------------------------------------------------------------------------------

def test_the_folder_is_whole_and_compiles(told, tmp_path, monkeypatch):
    keys = set(re.findall(r"<<(\w+)>>", "".join((root() / "params" / "paper" / f"{name}.md").read_text("utf-8")
                                                for name in ("methods", "checklist"))))
    assert keys <= set(re.findall(r'"(\w+)":', inspect.getsource(paper_words.fields)))
    monkeypatch.setattr(paper, "fields", lambda *_: dict.fromkeys(keys, "said"))
    monkeypatch.setattr(paper, "used_by", lambda *_: {"simclr", "mae", "numpy"})
    to = tmp_path / "paper"
    files = paper.write("made", to)
    assert {"paper.tex", "numbers.tex", "figures.tex", "references.bib", "methods.md", "checklist.md",
            "tables/grid_made_linear.tex", "tables/contrasts_cost_of_imbalance.tex", "figures/cost.pdf"} <= set(files)
    for path in to.rglob("*.tex"):
        text = re.sub(r"\\[{}%]", "", path.read_text("utf-8"))
        text = re.sub("%.*", "", text)
        assert text.count("{") == text.count("}"), path.name
        assert re.findall(r"\\begin\{(\w+\*?)\}", text).sort() == re.findall(r"\\end\{(\w+\*?)\}", text).sort()
        for name in re.findall(r"\\input\{([\w/]+)\}", text):
            assert (to / f"{name}.tex").exists(), name
        for name in re.findall(r"\]\{(figures/\w+\.pdf)\}", text):
            assert (to / name).exists(), name
    assert "<<" not in (to / "paper.tex").read_text("utf-8") + (to / "methods.md").read_text("utf-8")
    grid = (to / "tables" / "grid_made_knn.tex").read_text("utf-8")
    assert r"\toprule" in grid and "MAE (1:10) & " in grid
    slopes = (to / "tables" / "slopes.tex").read_text("utf-8")
    rows = told.summary[told.summary.family == curves.FAMILIES[0]]
    assert slopes.count("MAE & ten times the imbalance & ") == len(rows) == 8
    assert all(paper.points(effect) in slopes for effect in rows.effect) and r" & 10 \% & " in slopes
    bold = pd.read_csv(told.folder / "tables" / "best.csv").query("bold and metric == 'balanced_accuracy'")
    tables = "".join(path.read_text("utf-8") for path in to.glob("tables/grid_*"))
    assert tables.count(r"\textbf") == len(bold) > 0
    if shutil.which("pdflatex"):
        made = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper"], cwd=to,
                              capture_output=True, text=True, encoding="utf-8", errors="replace")
        assert made.returncode == 0, made.stdout[-2000:]


# --- references -------------------------------------------------------------------------------------------------------

def test_whatever_a_study_may_use_has_a_reference_and_only_what_it_used_is_cited():
    text = (root() / "params" / "references.bib").read_text("utf-8")
    known = set(re.split(r"[,\s]+", " ".join(re.findall(r"usedby = \{([^}]*)\}", text))))
    sets = {name for name in card_names() if read_card(name).citation}
    assert not (set(METHODS) | (set(WRAPPERS) - {"view_distance"}) | sets) - known
    labels = re.findall(r"(?m)^@\w+\{(\w+),", text)
    assert len(labels) == len(set(labels)) and text.count("{") == text.count("}")
    cited = paper_words.references({"simclr", "fashion", "torch"})
    assert re.findall(r"(?m)^@\w+\{(\w+),", cited) == ["chen2020simclr", "xiao2017fashion", "paszke2019pytorch"]
    assert "usedby" not in cited and cited.count("{") == cited.count("}")


def test_a_reference_is_whole_or_says_what_nobody_checked():
    for entry in re.findall(r"(?ms)^@.*?\}\}$", (root() / "params" / "references.bib").read_text("utf-8")):
        needs = "title year usedby" + " journal volume pages" * entry.startswith("@article")
        given = set(re.findall(r"(\w+) = \{", entry))
        assert set(needs.split()) <= given and given & {"author", "editor"}, entry
        assert "not checked" in entry or "to be filled" not in entry, entry


def test_the_checklist_says_of_near_copies_what_was_looked_for_and_no_more():
    near = {"a": "2 pairs of near duplicates across train and test. Look at them: python -m ssl_core audit a",
            "b": "near duplicates among 70,000 images were not looked for: python -m ssl_core audit b"}
    assert paper_words.near_copies({"near": near}, dict.fromkeys("abc")) == (
        "a: 2 pairs of near duplicates across train and test; b: near duplicates among 70,000 images were not looked "
        "for; c: none found across parts by the search of thumbnails")
    assert paper_words.near_copies({}, {"a": None}).startswith("[to be filled by the authors")


def test_the_checklist_has_each_item_of_both_statements():
    rows = [line.split("|") for line in (root() / "params" / "paper" / "checklist.md").read_text("utf-8").splitlines()
            if line.startswith("| ")]
    claim, tripod = (re.findall(pattern, " ".join(row[i] for row in rows)) for i, pattern in
                     ((2, r"\d+"), (3, r"(\d+)[a-g]?")))
    assert set(map(int, claim)) == set(range(1, 45)) and set(map(int, tripod)) == set(range(1, 28))


@pytest.mark.parametrize("tests, pairs, says", [
    (["paired t over splits with bootstrap over images"], [5], "by whole groups); their half widths"),
    (["paired t over splits with bootstrap over images", "paired bootstrap over images"], [5, 1], "a single pair is"),
    (["paired t over seeds with bootstrap over images"], [3], "There is one split, and pairs are its seeds."),
    (["paired bootstrap over images"], [1], "There is one split and one seed. The interval")])
def test_methods_say_of_other_splits_only_what_was_asked(tests, pairs, says):
    said = paper_words.doubts(pd.DataFrame({"test": tests, "n_pairs": pairs}), "5 splits", True)
    assert says in said and ("unit of replication" in said) == ("over splits" in tests[0])


def test_a_user_s_data_set_is_cited_as_its_card_says(tmp_path):
    card = Path(tmp_path / "mine.yaml")
    card.write_text("kind: npz\nfile: mine.npz\ntitle: Mine\ncitation: A. Author. A Set, 2025.\n", encoding="utf-8")
    assert "note = {A. Author. A Set, 2025.}" in paper_words.references({str(card)})


def test_what_tex_cannot_print_is_escaped():
    assert paper.escaped("5 % of a_b −1 ‖z‖ ~ ^") == (
        r"5 \% of a\_b $-$1 $\|$z$\|$ \textasciitilde{} \textasciicircum{}")
