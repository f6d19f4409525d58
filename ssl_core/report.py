"""The page of a study: it only gathers what executed notebooks put out, and computes nothing.

A cell of `40_compare` tagged `page-NAME` gives its outputs to the section NAME; every executed report becomes a plain
HTML file beside it, so that the grid's links open in a browser without a server or a network.
"""

import html
import json
import os
from functools import cache
from pathlib import Path
from urllib.parse import quote

import nbformat
from nbconvert import HTMLExporter
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from ssl_core.files import atomic_write, outputs
from ssl_core.runs import read_run

SECTIONS = {"answer": "", "look": "Worth a look", "grid": "Every cell, one click from its notebook",
            "about": "How this was made"}
MORE = ("41_layers", "43_claims")  # executed after the comparison
STYLE = (Path(__file__).parent / "analysis" / "page.css")


def build(study):
    """Write outputs/<study>/index.html from the executed 40_compare, and report.html beside each report → its path.

    Other notebooks about the study are linked; one that failed is named, with the reason.
    """
    folder = outputs() / study
    compare = folder / "40_compare.ipynb"
    if not compare.exists():
        raise FileNotFoundError(f"{compare}: the comparison was not executed; run the study first")
    executed = [path for name in ("report", "failed") for path in folder.glob(f"runs/*/*/{name}.ipynb")]
    for report in [compare, *more(folder).values(), *executed]:
        page = report.with_suffix(".html")
        newest = max(path.stat().st_mtime for path in (report, STYLE, Path(__file__)))
        if not page.exists() or page.stat().st_mtime < newest:
            write_notebook_page(report, page, home=os.path.relpath(folder / "index.html", page.parent))
    notebook, parts = nbformat.read(compare, as_version=4), []
    question = json.loads((folder / "plan.json").read_text(encoding="utf-8"))["question"]
    for name, heading in SECTIONS.items():
        cells = [c for c in notebook.cells if f"page-{name}" in c.metadata.get("tags", [])]
        if cells:
            body = render(cells, inputs=False)
            parts.append(f'<section id="{name}">{f"<h2>{heading}</h2>" if heading else ""}{body}</section>')
    links = "".join(f"<li>{said_of(name, path)}</li>" for name, path in more(folder).items())
    parts.append(f'<section id="more"><h2>More about this study</h2><ul>{links}</ul></section>' if links else "")
    parts.append('<footer>Every number and figure above is an output of <a href="40_compare.html">40_compare</a>, '
                 'executed from what the runs left in this folder.</footer>')
    atomic_write(folder / "index.html", shell(f"{study}: {question}", "\n".join(parts), "page"))
    return folder / "index.html"


def more(folder):
    """{name: path} of the other notebooks about the study that were executed; of one that failed, its failed copy."""
    found = {name: [folder / f"{name}.failed.ipynb", folder / f"{name}.ipynb"] for name in MORE}
    return {name: next(filter(Path.exists, paths)) for name, paths in found.items() if any(map(Path.exists, paths))}


def said_of(name, path):
    """The title of an executed notebook as a link; of a failed one, that it failed, and why."""
    notebook = nbformat.read(path, as_version=4)
    title = html.escape(notebook.cells[0].source.splitlines()[0].lstrip("# ")) if notebook.cells else name
    link = f'<a href="{quote(path.stem)}.html">{name}</a>'
    errors = [f"{output.ename}: {output.evalue}" for cell in notebook.cells for output in cell.get("outputs", ())
              if output.output_type == "error"]
    return f"{link}: failed. {html.escape(errors[0])}" if errors else f"{link}: {title}"


def write_notebook_page(report, page, home):
    """An executed notebook as one HTML file that needs nothing else."""
    notebook = nbformat.read(report, as_version=4)
    cells = [c for c in notebook.cells if c.get("source") or c.get("outputs")]
    name, below = report.parent.name, Path(read_run(report.parent).get("parameters", {}).get("run", "")).name
    links = [f'<a href="{html.escape(home)}">all cells</a>', html.escape(name)]
    if below and (report.parent / "../../pretrain" / below / "report.ipynb").exists():
        links.append(f'its encoder: <a href="../../pretrain/{quote(below)}/report.html">{html.escape(below)}</a>')
    atomic_write(page, shell(name, f"<nav>{' · '.join(links)}</nav>{render(cells, inputs=True)}", "notebook"))


def render(cells, inputs):
    """Cells as an HTML fragment: Markdown, outputs with images embedded and, where `inputs`, code that unfolds."""
    fragments = []
    for cell in cells:
        code = cell.cell_type == "code"
        body, _ = exporter(code).from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
        if code and inputs and cell.source:
            given = "injected-parameters" in cell.metadata.get("tags", [])
            source = highlight(cell.source, PythonLexer(), HtmlFormatter())
            fragments.append(f"<details{' open' if given else ''}><summary>{'given parameters' if given else 'code'}"
                             f"</summary>{source}</details>")
        fragments.append(body)
    return "\n".join(fragments)


@cache
def exporter(code):
    return HTMLExporter(template_name="basic", embed_images=True, exclude_input=code, exclude_input_prompt=True,
                        exclude_output_prompt=True, exclude_anchor_links=True)


def shell(title, body, kind):
    colours = HtmlFormatter(style="default").get_style_defs(".highlight")
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{html.escape(title)}</title>'
            f"<style>{STYLE.read_text(encoding='utf-8')}\n{colours}</style></head>\n"
            f'<body class="{kind}"><main>{body}</main></body></html>\n')
