"""A folder for a paper out of a finished study: figures, tables, a macro for every number, methods, references.

Nothing is computed that the study did not compute. The folder compiles: `paper.tex` takes in all of it.
"""

import re
import shutil
from pathlib import Path

import pandas as pd

from ssl_core.analysis import attribution, contrasts, curves, figures, grid, plots
from ssl_core.analysis.plots_study import mean_over_splits, source
from ssl_core.analysis.tables import escaped
from ssl_core.analysis.wording import budget_short, metric_words, words
from ssl_core.files import atomic_write, outputs, root
from ssl_core.nb import parameters_of
from ssl_core.paper_words import fields, references, used_by
from ssl_core.table import read_plan, read_results

METRICS = ("balanced_accuracy", "accuracy", "roc_auc", "average_precision", "f1_macro")
DIGITS = dict(zip("0123456789", "Zero One Two Three Four Five Six Seven Eight Nine".split())) | {".": "Point",
                                                                                                 "%": "Percent"}
UNITS = "% Means in per cent, differences in percentage points, N splits or pairs; above each the keys of its runs.\n"
KINDS = ("pdf", "png", "csv", "txt", "alt.txt")


def told_of(study):
    """What the figures of a study that has run are made from. FileNotFoundError, one line, where it has not."""
    plan, path = read_plan(study), outputs() / study / "summary.csv"
    if not path.exists():
        raise FileNotFoundError(f"study {study!r} has no summary.csv yet; run it to its end, or 40_compare alone")
    jobs = grid.jobs_of(plan, {job["notebook"]: parameters_of(root() / job["notebook"]) for job in plan["jobs"]})
    table, summary = grid.told(read_results(study), jobs), pd.read_csv(path, keep_default_na=False, na_values=[""])
    if absent := sorted(set(contrasts.COLUMNS) - set(summary)):
        raise ValueError(f"{path}: no column {absent[0]}, older code wrote it; run the study again, which remakes it")
    plots.use_style()
    return figures.Told(path.parent, jobs, table, contrasts.cells_of(table, jobs), summary)


def figure(study, name, width="page"):
    """Make one figure of a study again → the PDFs. ValueError, one line, where there is nothing to draw it from."""
    if name not in figures.FIGURES:
        raise ValueError(f"no figure {name!r}; there are {', '.join(figures.FIGURES)}")
    told = told_of(study)
    made = figures.save(name, told, width)
    if not made:
        raise ValueError(f"{study} has no figure {name!r}: it is drawn from {figures.FIGURES[name].reads}, where there "
                         "is nothing for it")
    return [told.folder / "figures" / f"{file}.pdf" for file in made]


def write(study, to, width="page"):
    """Write the folder of a paper → its files. Raises as `told_of` does."""
    told, plan, to = told_of(study), read_plan(study), Path(to)
    drawn = [(name, *one) for name in figures.FIGURES for one in save(name, told, to, width)]
    found = means(told.table)
    images = source(told.table).split("Made by")[0]
    tables = grids(found, bold_in(told.folder), images) | contrast_tables(told.summary, images)
    for name, text in tables.items():
        atomic_write(to / "tables" / f"{name}.tex", text)
    macros = numbers(plan["study"], told.summary, found)
    atomic_write(to / "numbers.tex", UNITS + "".join(macros.values()))
    atomic_write(to / "figures.tex", "\n".join(figure_text(file, caption, alt) for _, file, caption, alt in drawn))
    atomic_write(to / "references.bib", references(used_by(told, study)))
    known = fields(told, plan, parameters_of(root() / "notebooks" / "10_pretrain.ipynb"))
    inputs = "\n".join(rf"\input{{{name}}}" for name in [*(f"tables/{name}" for name in tables), "figures"])
    for name in ("methods.md", "checklist.md", "paper.tex"):
        text = (root() / "params" / "paper" / name).read_text(encoding="utf-8")
        values = known if name.endswith("md") else {
            "study": study, "question": escaped(plan["question"]), "inputs": inputs, "first": first_sentence(macros)}
        for key, value in values.items():
            text = text.replace(f"<<{key}>>", value)
        atomic_write(to / name, text)
    return sorted(path.relative_to(to).as_posix() for path in to.rglob("*") if path.is_file())


# --- figures ----------------------------------------------------------------------------------------------------------

def save(name, told, to, width):
    """Save figures beside the study's others and copy them → (file name, caption, alt text) of each."""
    found, source = [], told.folder / "figures"
    for file in figures.save(name, told, width):
        for kind in KINDS:
            (to / "figures").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / f"{file}.{kind}", to / "figures" / f"{file}.{kind}")
        found.append((file, *((source / f"{file}.{kind}").read_text("utf-8").strip() for kind in KINDS[-2:])))
    return found


def figure_text(file, caption, alt):
    return "\n".join([r"\begin{figure}[p]", r"\centering", rf"\includegraphics[width=\linewidth,alt={{{escaped(alt)}}}]"
                      rf"{{figures/{file}.pdf}}", rf"\caption{{{escaped(caption)}}}", rf"\label{{fig:{file}}}",
                      r"\end{figure}", ""])


# --- tables -----------------------------------------------------------------------------------------------------------

def means(table):
    """Mean over splits of METRICS over all classes, with keys: a row for each series, protocol, budget and metric."""
    rows = table[table.metric.isin(METRICS) & (table.group_kind == "all") & (table.part == "test")
                 & (table.layer == "") & table.value.notna()]
    by = ["dataset", "protocol", "budget", "series", "metric", "label_pool", "test_set"]
    keys = rows.groupby(by).key.agg(lambda of: " ".join(sorted(set(of)))).rename("keys").reset_index()
    return mean_over_splits(rows, by).merge(keys, on=by, how="left")


def bold_in(folder):
    """(dataset, series, protocol, budget) of what is the best with probability 0.95, by tables/best.csv of the study.
    """
    path = folder / "tables" / "best.csv"
    if not path.exists():
        return set()
    rows = pd.read_csv(path)
    rows = rows[rows.bold & (rows.metric == "balanced_accuracy")]
    return set(zip(rows.dataset, rows.arm, rows.protocol, rows.budget))


def grids(found, bold, images=""):
    """{file: table} of one metric by series (row) and budget (column), for each data set and protocol; of what has no
    protocol, the majority class, there are macros alone. images: a sentence that says whether they are real.
    """
    tables = {}
    for (dataset, protocol), rows in found[found.protocol != "none"].groupby(["dataset", "protocol"], sort=False):
        metric = next(name for name in METRICS if name in set(rows.metric))
        rows = rows[rows.metric == metric]
        cells = [rf"\textbf{{{value}}}" if name in bold else value for value, name in
                 zip(rows.apply(interval, axis=1), zip(rows.dataset, rows.series, rows.protocol, rows.budget))]
        wide = rows.assign(cell=cells, series=rows.series.map(escaped)).pivot_table(
            "cell", "series", "budget", aggfunc=" / ".join, sort=False).fillna("--")
        wide = wide[sorted(wide)].rename(columns=lambda budget: escaped(budget_short(budget)))
        n = rows.n.max()
        over = f"{n} splits" if n > 1 else "test images, one split"
        said = (f"{words(metric).capitalize()} in %, {words(protocol)}, {dataset}: mean and 95 % interval over {over}, "
                f"by labels. Bold: the best with probability 0.95 or more. {images}").strip()
        tables[f"grid_{dataset}_{protocol}"] = latex(wide.reset_index(names="arm"), said, f"grid_{dataset}_{protocol}")
    return tables


def interval(row):
    ends = "" if pd.isna(row.low) else f" ({100 * row.low:.1f}--{100 * row.high:.1f})"
    return f"{100 * row['mean']:.1f}{ends}"


def contrast_tables(summary, images=""):
    """{file: table} of the contrasts of each family, of a chain's steps, and of the slopes of response curves."""
    tables = {}
    told = summary[summary.family.isin([*contrasts.FAMILIES, attribution.FAMILY, curves.FAMILIES[0]])]
    for family, rows in told.groupby("family", sort=False):
        slopes = family == curves.FAMILIES[0]
        name, text = "slopes" if slopes else "contrasts_" + family.replace(" ", "_"), {
            "what": rows.what, "for" if slopes else "against": rows.against, "read by": rows.protocol.map(words),
            **({"at": rows.apply(held, axis=1)} if slopes else {"labels": rows.budget.map(budget_short)}),
            "metric": list(map(metric_words, rows.metric, rows.group))}
        frame = pd.DataFrame({k: list(map(escaped, v)) for k, v in text.items()}).assign(
            effect=[f"{points(e)} ({points(low)}, {points(high)})" for e, low, high in
                    zip(rows.effect, rows.low, rows.high)], pairs=rows.n_pairs.tolist(),
            p=[probability(p) for p in rows.p_adjusted])
        if rows.dataset.nunique() > 1:
            frame.insert(0, "data", list(map(escaped, rows.dataset)))
        over = [f"{unit} and test images together" for unit in ("splits", "seeds")
                if rows.test.str.contains(f"over {unit}").any()]
        over += ["test images alone where there is one pair"] * bool(rows.n_pairs.eq(1).any())
        tables[name] = latex(frame, f"{family.capitalize()}: {'changes' if slopes else 'differences'} in percentage "
                             f"points with 95 % intervals over {', over '.join(over)}. p: adjusted by Holm's rule. "
                             f"{images}".strip(), name)
    return tables


def held(slope):
    """What does not vary along a response curve: ratio, images, labels."""
    said = {"ratio": "natural" if slope.split_kind == "natural" else f"1:{slope.ratio:g}",
            "n_unlabelled": f"N = {slope.n_unlabelled:,.0f}", "budget": budget_short(slope.budget)}
    return ", ".join(text for name, text in said.items() if slope[name] == slope[name])


def latex(frame, caption, label):
    text = frame.to_latex(index=False, longtable=True, caption=escaped(caption), label=f"tab:{label}",
                          column_format="p{26mm}" * min(2, len(frame.columns)) + "l" * max(0, len(frame.columns) - 2))
    return rf"{{\scriptsize\setlength{{\tabcolsep}}{{3pt}}{chr(10)}{text}}}" + "\n"


def points(value):
    return "--" if pd.isna(value) else rf"\ensuremath{{{100 * value:.1f}}}"


def probability(p):
    return "--" if pd.isna(p) else r"\ensuremath{<0.001}" if p < 0.001 else f"{p:.3f}"


# --- numbers ----------------------------------------------------------------------------------------------------------

def macro(*parts):
    """A name that LaTeX takes: letters alone, words with a capital, digits spelled."""
    found = re.findall(r"[A-Za-z]+|\d|(?<=\d)\.(?=\d)|%", " ".join(map(str, parts)))
    return "".join(DIGITS.get(part) or part[0].upper() + part[1:] for part in found)


def numbers(study, summary, found):
    """{name: its lines} of a macro for every mean and contrast, each with Low, High and N, contrasts with P, too.

    Above each stands the key of what it came from. Names that are the same are told apart by pools and totals;
    ValueError where that is not enough.
    """
    rows = []
    for row in found.itertuples():
        where = [row.dataset] * bool(found.dataset.nunique() > 1)
        rows.append((macro(study, *where, row.series, words(row.protocol), budget_short(row.budget), row.metric),
                     macro("pool", row.label_pool, "test", row.test_set), row.keys,
                     {"": row.mean, "Low": row.low, "High": row.high}, {"N": str(row.n)}))
    for row in summary.itertuples():
        where = [row.dataset] * bool(found.dataset.nunique() > 1)
        family = [row.family] * (row.family not in contrasts.FAMILIES)
        labels, group = [budget_short(row.budget)] * (row.budget == row.budget), [row.group] * (row.group != "all")
        rows.append((macro(study, *where, *family, row.what, "minus", row.against, words(row.protocol), *labels,
                           row.metric, *group),
                     macro("from", row.pretrain_dataset, row.split_kind, "ratio", row.ratio, "total", row.n_unlabelled,
                           "labels", row.n_labelled),
                     row.keys, {"": row.effect, "Low": row.low, "High": row.high},
                     {"N": str(row.n_pairs), "P": probability(row.p_adjusted)}))
    twice, macros = pd.Series([row[0] for row in rows], dtype=str).duplicated(keep=False), {}
    for double, (name, more, keys, shares, plain) in zip(twice, rows):
        name += more * double
        if name in macros:
            raise ValueError(f"numbers.tex: two numbers are called {name}; give the arms of {study} names that differ")
        values = {end: points(value) for end, value in shares.items()} | plain
        macros[name] = f"% {keys}\n" + "".join(rf"\newcommand{{\{name}{end}}}{{{value}}}" + "\n"
                                               for end, value in values.items())
    return macros


def first_sentence(macros):
    """How a number is cited, as an example that compiles."""
    name = next((name for name in macros if "Minus" in name), None) or next(iter(macros), None)
    return rf"For example: \{name}{{}} (\{name}Low{{}} to \{name}High{{}})." if name else ""
