"""Verdicts as tables, and how often they would be right: simulated studies with effects that are planted."""

import html
from collections import Counter
from dataclasses import replace
from textwrap import wrap

import numpy as np
import pandas as pd

from ssl_core.analysis.claims import VERDICTS, Claim, Evidence, judge, load_claims
from ssl_core.analysis.compare import contrast
from ssl_core.analysis.wording import points, span
from ssl_core.protocols import WIDTH

COLOURS = {"reproduced": "#1b7837", "not reproduced": "#b35806", "inconclusive": "#555555", "not tested": "#999999",
           "source gone": "#999999"}
COLUMNS = """claim verdict decides study dataset metric group protocol budget says published tolerance effect low high
    low_images high_images low_splits high_splits p n_pairs contrast keys lacking""".split()
HERE = "#4575b4"  # of a direction, which counts for nothing
PLANTED = (-3.0, 0.0, 0.5, 1.0, 2.0, 3.0)  # in standard deviations of the pairs
SAYS = (("higher", 0.5), ("no_lower", 0.5), ("number", 2.0))


def verdict_table(verdicts) -> pd.DataFrame:
    """One row for each Verdict, in their order; numbers in points."""
    rows = []
    for one in verdicts:
        claim, found = one.claim, one.evidence
        number = "" if claim.published is None else f"{claim.published:g}{'?' * claim.unverified}"
        measured = ""
        if found:
            limits = f" ({span(found.effect.interval)})" if np.isfinite(found.effect.interval[0]) else ""
            measured = f"{points(found.effect.effect)}{limits}, {found.effect.n_pairs} pairs, {found.study}"
        rows.append({"claim": claim.id, "verdict": one.verdict, "statement": claim.statement, "published": number,
                     "here": measured, "why": one.why, "direction": one.direction})
    return pd.DataFrame(rows, columns="claim verdict statement published here why direction".split())


def evidence_table(verdicts, found) -> pd.DataFrame:
    """claims.csv: one row for each claim and what a study says on it, also where no study says anything.

    found: {claim id: [Evidence]}. Effects are shares, as in summary.csv; contrast: whether that table has it; decides:
    whether the verdict is of this row; lacking: why it is not.
    """
    rows = []
    for one in verdicts:
        claim, first = one.claim, one.claim.contrast.what
        about = {"claim": claim.id, "verdict": one.verdict, "metric": claim.metric, "group": first.group or claim.group,
                 "protocol": first.protocol or claim.protocol, "budget": first.budget or claim.budget,
                 "says": claim.says, "published": claim.published, "tolerance": claim.tolerance}
        for said in found[claim.id] or [Evidence("", "", None)]:
            row = about | {"study": said.study, "dataset": said.dataset, "decides": said is one.evidence,
                           "lacking": "; ".join(said.lacking)}
            if effect := said.effect:
                row |= {"effect": effect.effect, "n_pairs": effect.n_pairs, "p": effect.p, "keys": said.keys,
                        "contrast": "a level" if not claim.contrast.against else
                        "formed here" if said.formed else "in summary.csv"}
                row |= {f"{end}{over}": limits[i] for over, limits in (
                    ("", effect.interval), ("_images", effect.over_images), ("_splits", effect.over_splits))
                    for i, end in enumerate(("low", "high"))}
            rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def counts(verdicts) -> str:
    """How many verdicts of each kind; what is not tested is no verdict."""
    of = Counter(one.verdict for one in verdicts)
    here = sum("direction here: " in one.direction for one in verdicts)
    text = ", ".join(f"{of[name]} {name}" for name in VERDICTS)
    return f"{len(verdicts)} claims: {text}." + (f" {here} of those not tested show a direction here, which counts for "
                                                 "nothing." if here else "")


def table_text(verdicts) -> str:
    """For a terminal: claim, verdict, published, what was found, and why."""
    lines = []
    for row in verdict_table(verdicts).itertuples():
        said = "; ".join(filter(None, [row.here, row.why, row.direction]))
        lines += wrap(f"{row.claim:32} {row.verdict:15} {row.published:>7}  {said}", WIDTH, subsequent_indent=58 * " ")
    head = f"{'claim':32} {'verdict':15} {'publ.':>7}  found here, in points; ? a number recalled, not read"
    return "\n".join([head, *lines, counts(verdicts)])


def nothing_here() -> str:
    return f"no study has run here: {len(load_claims())} claims wait; python -m ssl_core run STUDY.yaml"


def table_html(verdicts) -> str:
    """For a page: each verdict in its colour, directions that count for nothing in another."""
    lines = []
    for row in verdict_table(verdicts).itertuples():
        said = "<br>".join(html.escape(text) for text in (row.here, row.why) if text)
        if row.direction:
            said += f'<br><span style="color:{HERE};font-style:italic">{html.escape(row.direction)}</span>'
        lines.append(f"<tr><td><code>{row.claim}</code></td><td>{html.escape(row.statement)}</td>"
                     f"<td>{row.published}</td><td style='color:{COLOURS[row.verdict]}'><b>{row.verdict}</b></td>"
                     f"<td>{said}</td></tr>")
    head = "".join(f"<th>{name}</th>" for name in ("claim", "statement", "published", "verdict", "found here, and why"))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


# --- are verdicts right? ----------------------------------------------------------------------------------------------

def planted_claim(says="higher", tolerance=0.5, published=3.0):
    """A claim in which a point is a standard deviation of the pairs."""
    return Claim(id="c_planted", statement="planted", source="none", data="made", metric="balanced_accuracy",
                 contrast={"what": {"arm": "a"}, "against": {"arm": "b"}}, protocol="linear", budget=1.0, says=says,
                 published=published, tolerance=tolerance, control="plateau")


def noise(n_pairs=5, repeats=2000, images=0.0, seed=0) -> list:
    """Contrasts of simulated studies without an effect, whose pairs are normal with a standard deviation of a point.

    images: standard deviation, in the same unit, of the doubt over test images, common to all pairs.
    """
    rng, found = np.random.default_rng(seed), []
    for _ in range(repeats):
        differences = (rng.normal(0, images) + rng.normal(size=n_pairs)) / 100
        found.append(contrast(differences, differences.mean() + np.array([-1, 1]) * images / np.sqrt(2) / 100))
    return found


def planted_verdicts(found, effect, claim) -> dict:
    """Shares of verdicts when a true effect, in points, is added to each of these contrasts: all shift with it."""
    shift, said = effect / 100, Counter()
    for one in found:
        low, high = one.interval
        said[judge(claim, replace(one, effect=one.effect + shift, interval=(low + shift, high + shift)))[0]] += 1
    return {name: said[name] / len(found) for name in VERDICTS[:3]}


def simulated() -> pd.DataFrame:
    """Shares of verdicts for effects planted in five pairs, on three kinds of claims of +3 standard deviations."""
    found = noise()
    return pd.DataFrame([{"says": says, "tolerance": tolerance, "planted": effect}
                         | planted_verdicts(found, effect, planted_claim(says, tolerance))
                         for says, tolerance in SAYS for effect in PLANTED])


def as_markdown() -> str:
    """docs/claims.md."""
    lines = [f"| claim says | tolerance | planted effect | {' | '.join(VERDICTS[:3])} |", "|---|--:|--:|--:|--:|--:|"]
    for row in simulated().to_dict("records"):
        shares = " | ".join(f"{100 * row[name]:.1f} %" for name in VERDICTS[:3])
        lines.append(f"| {row['says']} | {row['tolerance']:g} | {row['planted']:+g} | {shares} |".replace("-", "−"))
    claims = load_claims().values()
    listed = []
    for claim in claims:
        number = "" if claim.published is None else f"{claim.published:+g}" if claim.contrast.against else (
            f"{claim.published:g}")
        number += " (recalled)" * bool(number and claim.unverified)
        against = f"; contradicts {', '.join(f'`{name}`' for name in claim.contradicts)}" * bool(claim.contradicts)
        study = f"`{claim.study}`" if claim.study else "none yet"
        listed.append(f"| `{claim.id}` | {claim.statement}{against} | {claim.data} | {claim.says} | {number} | "
                      f"{claim.tolerance:g} | {study} |")
    shaken = noise(repeats=4000, images=0.3)
    doubtful, sure = (f"{100 * planted_verdicts(shaken, effect, planted_claim())['reproduced']:.1f} %"
                      for effect in (0, 3))
    return PAGE.format(simulated="\n".join(lines), n=len(listed), claims="\n".join(listed), doubtful=doubtful,
                       sure=sure)


PAGE = """# Claims and verdicts

`params/claims/` holds what the five systems have published and a program can test: {n} claims. `python -m ssl_core
claims [STUDY …]` reads `results.csv` and `summary.csv` of finished studies and gives each claim a verdict; notebook
`43_claims` is what it executes. No verdict has been reached in this repository: the studies on the claims' own data
were not run by us.

## What a verdict needs

- **The claim's own data**, at its ratio. On anything else, rehearsals included, a claim is *not tested*; a "direction
  here" is printed in another colour and never counted.
- **A tolerance that is older than the results**: every line that a verdict rests on (data, contrast, metric, what it
  says, number, tolerance, control) was committed to git before the first run it uses, those of the control among
  them, had started.
- **A positive control**: the baseline lies in its published range, or every pretraining was on its plateau: the last
  tenth of it brought at most 2 % of the fall of its loss. Where the learning rate decays, a loss levels off by itself,
  so that the plateau is the weaker control; it stands where no range is known.
- **Equal tuning budgets**, as far as records tell: every pretraining below the sides has the same schedule (epochs or
  steps, batch), and sides that are read by one protocol have the same values of it (a probe's head; a fine-tuning's
  optimiser, rates, schedule, regularisation and way to select). What a protocol tries inside a budget, as the penalties
  of the linear probe, follows from its name and values and is then the same. An arm is one setting, which the claim
  names before it has run; none is chosen among several by its score. What the authors of a method, or we, tried
  elsewhere to arrive at that setting no record holds, and it is not checked.
- **Two splits or more**, paired: one split says nothing of others, however many seeds it has.

The interval is that of the study's contrast in `summary.csv`, which holds the doubt over splits and over test images.
What claims on a study's data (or on those that its data rehearse) ask and its own families do not hold is a row there,
too, with the same paired bootstrap: other metrics, two budgets of one arm, a difference of differences. For each metric
these are a family of their own, "asked by claims", so that p-values of the others are as without them. What test scores
do not give again, as the probe of a layer, CKA, or ranks where a run kept its decisions alone, is paired from
`results.csv`, and the doubt over test images is then the sum of that of both sides: never too small, mostly too large.

`claims.csv`, in the folder of the study or, for several, in `outputs/claims/`, has a row for each claim and each data
set that says something on it: verdict, effect with its intervals (over both sources, over test images, over splits),
pairs, whether `summary.csv` has the contrast or it was formed here, the keys of the runs on both sides, and what is
lacking.

## What a claim may say of an effect

Numbers are points. The tolerance is how near two values must lie to count as the same.

| says | reproduced | not reproduced |
|---|---|---|
| higher (lower: mirrored) | interval above 0, effect above the tolerance | nothing in it exceeds the tolerance |
| no_lower | it lies above −tolerance | it lies below −tolerance |
| same | it lies within ± tolerance of 0 | it lies outside |
| number | it lies within ± tolerance of the published number | it lies outside |

All else is *inconclusive*, with what would decide: so many more splits, or a larger test set. Beside a direction it is
said whether the size agrees with the published one. *Source gone* is what nobody can test any more.
Two claims that contradict each other may both be reproduced: each is judged by its own contrast or number, not against
the other.

## How often verdicts are right

Simulated studies of five pairs, 2,000 of them, each with every effect. The claim is of +3; unit: the standard deviation
of the pairs.

{simulated}

Where other test images could shift all pairs alike, by a standard deviation of 0.3, an effect of 0 passes as "higher"
in {doubtful} of 4,000 studies, and one of +3 in {sure}.

## The claims

"Recalled": from memory of the paper, not read again. Numbers are points of the metric; a level where no sign stands.

| claim | statement | data | says | published | tolerance | study |
|---|---|---|---|--:|--:|---|
{claims}
"""
