"""What a study's tables say on a claim, and whether a verdict may rest on it.

The effect is that of the study's contrast in summary.csv, found by the runs it pairs: its own, or one that the claim
asked for (`analysis.asked`). Where there is none, as of a layer's probe, pairs are formed here from results.csv; the
doubt over test images is then bounded by the sum of that of every side, as if what makes an image hard had nothing in
common between them, or worse.
"""

import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from ssl_core.analysis.claims import Evidence, Side
from ssl_core.analysis.compare import Contrast, contrast
from ssl_core.analysis.contrasts import FAMILIES, START
from ssl_core.data.cards import read_card
from ssl_core.files import outputs, root
from ssl_core.runs import read_run
from ssl_core.table import read_plan, read_results

DECIDE = ("data", "contrast", "metric", "group", "protocol", "budget", "says", "published", "tolerance", "control")
SPLIT, REPEATS = ["draw_seed", "order_seed"], ["seed", "budget_seed"]
ASKED = "asked by claims, "  # a family of summary.csv for each metric
SCHEDULE = ("epochs", "steps", "batch")
# values of a fine-tuning; those of a probe are its head's
TUNED = """optimiser optimiser_args lr head_lr schedule weight_decay layer_decay drop_path label_smoothing batch epochs
    steps warmup select train class_weight sampling logit_adjustment""".split()
PLATEAU = 0.02  # of the whole fall of the loss, that the last tenth of a pretraining may still bring


def evidence(claim, study, folder=None) -> list:
    """Evidence of one study of outputs/ on a claim: from the claim's own data, else from each other data set it has.

    Of several, those that rehearse the claim's data count alone. folder: of the claims, if not params/claims.
    """
    results, summary = tables_of(study, (outputs() / study / "results.csv").stat())
    found = {dataset: of_dataset(claim, study, dataset, results, summary, folder)
             for dataset in sorted(set(results.dataset))}
    found = {dataset: one for dataset, one in found.items() if one}
    for chosen in (lambda name: name == claim.data, lambda name: rehearsed_by(name) == claim.data, lambda name: True):
        if some := [one for dataset, one in found.items() if chosen(dataset)]:
            return some
    return []


@lru_cache(maxsize=32)
def tables_of(study, _):
    """results.csv and summary.csv of a study, read once for all claims; _: of the file, so that a newer one is read."""
    path = outputs() / study / "summary.csv"
    summary = pd.read_csv(path, keep_default_na=False, na_values=[""]) if path.exists() else pd.DataFrame()
    return read_results(study), summary


def studies_here():
    """Names of the studies in outputs/ that have results."""
    return sorted(path.parent.name for path in outputs().glob("*/results.csv"))


def rehearsed_by(dataset):
    """The data set whose layout and rules a rehearsal borrows; "" of another, and where there is no card."""
    try:
        return read_card(dataset).rehearses
    except (OSError, ValueError):
        return ""


def of_dataset(claim, study, dataset, results, summary, folder):
    """Evidence from one data set of a study; None where it has not both sides."""
    sides = sides_of(claim, results[(results.dataset == dataset) & (results.part == "test") & results.value.notna()])
    if any(len(rows) == 0 for _, rows in sides):
        return None
    try:
        effect = own_contrast(claim, sides, summary) or asked_contrast(claim, sides, summary)
        formed, effect = effect is None, effect or paired(sides)
    except ValueError as error:
        return Evidence(study, dataset, None, (f"{study}: {error}",))
    if effect is None:
        return None
    lacking = [f"made of {dataset}, not of {claim.data}"] if dataset != claim.data else []
    lacking += ["made of synthetic images"] if any(rows.synthetic.any() for _, rows in sides) else []
    if not lacking:
        lacking = missing(claim, study, sides, results[results.dataset == dataset], folder)
    return Evidence(study, dataset, effect, tuple(lacking), formed, keys_of(in_pairs(sides)[0]))


# --- the effect -------------------------------------------------------------------------------------------------------

def sides_of(claim, rows):
    """[(sign, rows of results.csv)] of what, against and, with `minus`, the same two with its values."""
    of = claim.contrast
    chosen = [(1, [of.what])] + [(-1, [of.against])] * (of.against is not None)
    if of.minus:
        chosen += [(-1, [of.what, of.minus]), (1, [of.against, of.minus])]
    return [(sign, select(claim, rows, *side)) for sign, side in chosen]


def select(claim, rows, *sides):
    """The rows that a claim names, its own values overruled by those of sides, the last first; twins only by name."""
    wanted = {"metric": claim.metric, "group": claim.group, "protocol": claim.protocol, "budget": claim.budget,
              "layer": ""}
    for side in sides:
        wanted |= side.model_dump(exclude_defaults=True)
    kept = ~rows.twin.isin(["same_n", "same_head"])
    for column, value in wanted.items():
        kept &= rows[column] == value
    return rows[kept]


def in_pairs(sides):
    """(sides, cut to the splits that all have, which `split` names; whether these are seeds of one split).

    Raises ValueError where a side holds several numbers of one run's kind, so that it is not clear which is meant.
    """
    by = [name for name in SPLIT if all(rows[name].notna().all() for _, rows in sides)]
    for _, rows in sides:
        if rows.duplicated([*SPLIT, *REPEATS]).any():
            raise ValueError(f"{rows.arm.iloc[0]} has several numbers of one split; the claim must say which")
    if seeds := all(rows[by].drop_duplicates().shape[0] < 2 for _, rows in sides):
        by = [*by, "seed"]
    named = [(sign, rows.assign(split=[tuple(row) for row in rows[by].to_numpy()])) for sign, rows in sides]
    shared = set.intersection(*(set(rows.split) for _, rows in named))
    return [(sign, rows[rows.split.isin(shared)]) for sign, rows in named], seeds


def difference(sides, column):
    """By split: the sum of the sides of `in_pairs`, each with its sign; seeds of one split are averaged."""
    return sum(sign * rows.groupby("split")[column].mean() for sign, rows in sides)


def keys_of(sides):
    """The runs behind each split of `in_pairs` as text: those of one side, then of the next."""
    each = [rows.groupby("split").key.agg(lambda of: "+".join(sorted(set(of)))) for _, rows in sides]
    return " ".join(map(":".join, zip(*each)))


def paired(sides):
    """Contrast of sides over the splits that all have; None where they share none. Seeds of one split are one pair."""
    sides, seeds = in_pairs(sides)
    if not len(sides[0][1]):
        return None
    differences = difference(sides, "value")
    error = difference([(1, rows.assign(error=(rows.high - rows.low).fillna(0) / 3.92)) for _, rows in sides],
                       "error").mean()
    around = differences.mean() + np.array([-1, 1]) * error / np.sqrt(2)  # two draws that have just this deviation
    known = len(differences) > 1 or error > 0  # else one number without an interval, such as CKA
    found = contrast(differences, around, np.inf if known else 0)
    return replace(found, n_pairs=1) if seeds else found


def own_contrast(claim, sides, summary):
    """The Contrast of the row of summary.csv that pairs the same runs, either way round; None without one."""
    if len(sides) != 2 or not len(summary):
        return None
    what, against = (rows for _, rows in sides)
    floor = claim.contrast.against.arm in START
    first = claim.contrast.what
    rows = summary[(summary.metric == claim.metric) & (summary.group == (first.group or claim.group))
                   & (summary.protocol == (first.protocol or claim.protocol))
                   & (summary.budget == (first.budget or claim.budget))
                   & ((summary.family == "gain of pretraining") == floor) & summary.family.isin(FAMILIES)]
    by = [name for name in SPLIT if what[name].notna().all() and against[name].notna().all()]
    mine, theirs = (set(side.merge(other[by].drop_duplicates(), on=by).key) for side, other in ((what, against),
                                                                                               (against, what)))
    for row in rows.itertuples():
        pairs = [pair.split(":") for pair in re.split(r"[ +]", row.keys)]
        a, b = ({pair[i] for pair in pairs} for i in (0, 1))
        for sign, one, other in ((1, a, b), (-1, b, a)):
            if one == mine and (other == theirs or floor and other <= theirs):
                return as_contrast(row, sign)
    return None


def asked_contrast(claim, sides, summary):
    """The Contrast of the row of summary.csv that this claim asked for, of these runs; None without one."""
    sides, _ = in_pairs(sides)
    if len(summary) and len(sides[0][1]):
        asked = summary.family.str.startswith(ASKED) & summary.sentence.str.startswith(f"{claim.id}: ")
        for row in summary[asked & (summary["keys"] == keys_of(sides))].itertuples():
            return as_contrast(row)
    return None


def as_contrast(row, sign=1):
    """A row of summary.csv as a Contrast, either way round. Seeds of one split say nothing of others: they are 1."""
    def ends(over):
        limits = getattr(row, f"low{over}"), getattr(row, f"high{over}")
        return limits if sign == 1 else (-limits[1], -limits[0])
    n_pairs = 1 if "over seeds" in row.test else int(row.n_pairs)
    return Contrast(sign * row.effect, ends(""), ends("_images"), ends("_splits"), row.p, n_pairs)


# --- whether it may decide --------------------------------------------------------------------------------------------

def missing(claim, study, sides, results, folder):
    """What a verdict still needs, as reasons."""
    control = control_rows(claim, results)
    used = [*(rows for _, rows in sides), *([] if control is None else [control])]
    groups = [runs_of(study, set(rows.key)) for rows in used]
    if any(not records and len(rows) for (records, _), rows in zip(groups, used)):
        return [f"{study} has numbers, but not run.json, or history.csv, of the runs that made them"]
    starts = [record["started"] for records, below in groups for record in [*records, *(r for r, _ in below)]]
    groups = groups[:len(sides)]
    copies = read_plan(study).get("copies", {})
    allowed = [f"test images of {name} are in training, which {study} allows"
               for name in sorted(set(pd.concat(used).dataset) & set(copies))]
    return [*allowed, *filter(None, [too_young(claim, min(starts), folder), uncontrolled(claim, groups, control),
                                     uneven(groups, [rows.protocol.iloc[0] for _, rows in sides])])]


def runs_of(study, keys):
    """(records, [(record, folder) of all pretrainings below]) of runs by key, wherever the study's plan says that they
    are; ([], []) where one is not there."""
    try:
        every = read_plan(study)["jobs"]
    except FileNotFoundError:
        return [], []
    jobs, needs = [job for job in every if job["key"] in keys], {job["folder"]: job["needs"] for job in every}
    records, found = [read_run(root() / job["folder"]) for job in jobs], set()
    todo = [need for job in jobs for need in job["needs"]]
    while todo:  # a pretraining may start from another
        found.add(folder := todo.pop())
        todo += needs.get(folder, [])
    below = [root() / folder for folder in sorted(found)]
    trained = [(read_run(folder), folder) for folder in below if (folder / "history.csv").exists()]
    whole = len(jobs) == len(keys) and len(trained) == len(below) and all(records) and all(run for run, _ in trained)
    return (records, trained) if whole else ([], [])


def too_young(claim, first_start, folder=None):
    """Why the claim's tolerance may follow the results; "" where it was committed before the first run began."""
    path = next(Path(folder or root() / "params" / "claims").glob(f"{claim.id[0]}_*.yaml"))
    when = committed(path, claim.id)
    if when is None:
        return "git cannot say that its tolerance is older than the runs"
    late = when >= datetime.fromisoformat(first_start)
    return f"its tolerance was committed on {when:%Y-%m-%d}, after the first run had started" if late else ""


def control_rows(claim, results):
    """Rows of results.csv that a positive control by a range is read from; None where the control is the plateau."""
    if claim.control == "plateau":
        return None
    of = claim.control
    asked = claim.model_copy(update={"metric": of.metric, "group": of.group})
    return select(asked, results[results.part == "test"], Side(arm=of.arm, ratio=claim.contrast.what.ratio))


def uncontrolled(claim, groups, control):
    """Why the positive control does not hold, or "". groups: (records, pretrainings) of each side; control: rows."""
    if control is None:
        trained = sorted({path for _, below in groups for _, path in below})
        if not trained:
            return "no positive control: nothing was pretrained whose loss could level off"
        falling = [path.name for path in trained if not on_plateau(path)]
        return f"no positive control: the loss of {falling[0]} was still falling at its end" if falling else ""
    of = claim.control
    if not len(control):
        return f"no positive control: {of.arm} has no {of.metric} with {claim.protocol}"
    value = 100 * control.value.mean()
    text = f"no positive control: {of.arm} has {value:.1f} % {of.metric}, published are {of.low:g} to {of.high:g}"
    return "" if of.low <= value <= of.high else text


def on_plateau(folder):
    """Whether the last tenth of a pretraining brought next to nothing of the whole fall of its loss."""
    history = pd.read_csv(folder / "history.csv")
    late = history.loss[history.step <= 0.9 * history.step.max()]
    fall = history.loss.max() - history.loss.iloc[-1]
    return bool(len(late) and fall > 0 and late.iloc[-1] - history.loss.iloc[-1] <= PLATEAU * fall)


def uneven(groups, protocols):
    """Why the sides were not tuned alike, or "". groups: (records, pretrainings) of each side; protocols: of each.

    An arm is one setting, so that schedules of pretraining, and the values of a protocol that both share, can differ.
    """
    schedules = [{name: record["parameters"].get(name) for name in SCHEDULE} for _, below in groups
                 for record, _ in below]
    if found := differing(schedules):
        return f"unequal tuning budgets: {found}"
    for protocol in dict.fromkeys(protocols):
        values = [reading(record.get("parameters", {}), protocol)
                  for (records, _), name in zip(groups, protocols) if name == protocol for record in records]
        if found := differing(values):
            return f"unequal tuning budgets: {protocol} with {found}"
    return ""


def reading(parameters, protocol):
    """What a run's parameters say of how it probed by a protocol, or fine-tuned."""
    own = {name: parameters[name] for name in TUNED if name in parameters}
    return own | parameters.get("heads", {}).get(protocol, {})


def differing(values):
    """Dicts in which some value differs, as text: "steps 10, batch 8; steps 20, batch 8"; "" where all are alike."""
    names = [name for name in dict.fromkeys(name for one in values for name in one)
             if len({str(one.get(name)) for one in values}) > 1]
    said = sorted({", ".join(f"{name} {one.get(name)}" for name in names) for one in values})
    return "; ".join(said) if names else ""


# --- when a tolerance was committed -----------------------------------------------------------------------------------

def deciding_lines(path, claim_id):
    """Numbers, from 1, of the lines of a claims file that a verdict on this claim rests on."""
    for entry in yaml.compose(Path(path).read_text(encoding="utf-8")).value:
        values = {key.value: (key, value) for key, value in entry.value}
        if values["id"][1].value == claim_id:
            return sorted(set().union(*(lines_of(node) for name in DECIDE for node in values.get(name, ()))))
    raise ValueError(f"{path}: no claim {claim_id!r}")


def lines_of(node):
    if isinstance(node, yaml.ScalarNode):
        return set(range(node.start_mark.line + 1, node.end_mark.line + 2))
    inner = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
    return set().union(*map(lines_of, inner)) if inner else {node.start_mark.line + 1}


def committed(path, claim_id):
    """When git last took in a line that a verdict on this claim rests on; None where one is not committed."""
    path, lines = Path(path), deciding_lines(path, claim_id)
    try:
        said = subprocess.run(["git", "blame", "--line-porcelain", "--", path.name], cwd=path.parent,
                              capture_output=True, text=True, check=True, encoding="utf-8").stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    of_line, number = {}, 0
    for line in said.splitlines():
        if head := re.match(r"(\^?[0-9a-f]{40}) \d+ (\d+)", line):
            number = 0 if set(head[1]) == {"0"} else int(head[2])
        elif line.startswith("committer-time "):
            of_line[number] = int(line.split()[1])
    times = [of_line.get(line) for line in lines]
    return None if None in times else datetime.fromtimestamp(max(times), UTC)
