"""Notebooks that analyse, executed for what they print last: the audit of a data set, the verdicts on claims."""

from pathlib import Path

from ssl_core.config import ConfigError
from ssl_core.data.cards import card_path
from ssl_core.files import outputs, root
from ssl_core.nb import execute


def audit(name, size=0, study="", embedding=""):
    """Execute 42_audit on a data set → its last table with what it comes to, and whether something blocks.

    name: of a card, or its file. size: pixels of a side, 0 for the card's. study: whose finished cells are also scored
    without the copies. embedding: a run, or an encoder file, whose features are compared, too.
    """
    card = card_path(name)
    given = name if card.parent == root() / "params" / "data" else str(card.resolve())
    folder = outputs() / "audit" / card.stem
    if embedding:
        from ssl_core.finished import encoder_below

        embedding = str(Path(encoder_below(embedding)).resolve())
    shown = [one for one in put_out("42_audit", folder, {"data": given, "size": size, "study": study,
                                                         "embedding": embedding})
             if one.get("data")]
    said = shown[-2].data["text/markdown"]
    return "\n".join([shown[-1].data["text/plain"], said, f"pairs and figure: {folder}"]), "BLOCKING" in said


def claims(studies):
    """Execute 43_claims on studies, by name, or without names on all that have results → its last table."""
    from ssl_core.analysis.claims_table import nothing_here  # an audit needs no statistics
    from ssl_core.analysis.evidence import studies_here

    there = studies_here()
    if absent := sorted(set(studies) - set(there)):
        raise ConfigError(f"{absent[0]}: no results here; {', '.join(there) or 'no study'} has some")
    if not there:
        return nothing_here()
    return [one.text for one in put_out("43_claims", outputs() / "claims", {"studies": studies})
            if one.output_type == "stream"][-1].rstrip()


def put_out(name, folder, parameters):
    """Execute a notebook into a folder → what its cells put out, in order; ConfigError, one line, where it fails."""
    try:
        execute(root() / "notebooks" / f"{name}.ipynb", folder, parameters, report=f"{name}.ipynb")
    except RuntimeError as error:
        raise ConfigError(str(error)) from None
    import nbformat  # after `execute`, which spares it a second

    cells = nbformat.read(folder / f"{name}.ipynb", as_version=4).cells
    return [output for cell in cells for output in cell.get("outputs", ())]
