"""Contrasts that published claims ask of a study beyond its own families: other metrics, two budgets of one arm, a
difference of differences. Each is a row of summary.csv, with the bootstrap over test images that the others have.
"""

from contextlib import suppress

import numpy as np

from ssl_core.analysis.claims import load_claims
from ssl_core.analysis.compare import contrast, sentence
from ssl_core.analysis.contrasts import adjusted, how_read, judged, predictions, units_behind
from ssl_core.analysis.evidence import ASKED, difference, in_pairs, keys_of, own_contrast, rehearsed_by, sides_of
from ssl_core.analysis.wording import budget_words, metric_words, words
from ssl_core.evaluate import weighted
from ssl_core.evaluate.intervals import resample
from ssl_core.evaluate.metrics import metric_values

CELL = ["key", "arm", "protocol", "budget", "budget_seed"]


def of_claims(table, cells, summary, resamples=1000):
    """Rows of summary.csv for what claims on these data, or on those that they rehearse, ask and `summary` lacks.

    table: as `grid.told` gives it; cells, summary: of `analysis.contrasts`. Levels are no contrasts; left out is also
    what test scores do not give again: the probe of a layer, ranks where a run has kept its decisions alone.
    """
    tested = table[(table.part == "test") & table.value.notna()].merge(cells[[*CELL, "path"]], on=CELL)
    rows = []
    for dataset, here in tested.groupby("dataset", sort=False):
        asked = []
        for claim in load_claims().values():
            sides = sides_of(claim, here)
            if (claim.contrast.against and claim.data in (dataset, rehearsed_by(dataset))
                    and all(len(side) for _, side in sides) and own_contrast(claim, sides, summary) is None):
                with suppress(ValueError):  # several numbers of one split: the evidence for the claim says so
                    asked.append((claim, *in_pairs(sides), sum(len(side) for _, side in sides)))
        found = drawn([side for _, sides, *_ in asked for _, side in sides], resamples)
        rows += [summarise(found, *one) for one in asked if len(one[1][0][1])
                 and all(name in found for _, side in one[1] for name in named(side))]
    return adjusted(rows)


def named(side):
    """(test set, path, (metric, kind of group, group)) of each row of results.csv."""
    columns = ["test_set", "path", "metric", "group_kind", "group"]
    return [(*row[:2], tuple(row[2:])) for row in side[columns].to_numpy()]


def drawn(sides, resamples):
    """{name: (bootstrap draws over test images, units behind the value)} of all rows whose values scores give again.

    One resample of the images of a test set serves all of its cells.
    """
    values = {name: value for side in sides for name, value in zip(named(side), side.value)}
    found, images = {}, None
    for name in sorted(values):
        _, path, (metric, *group) = name
        test, key = predictions(path), (*group, metric)
        if not np.isclose(metric_values(test, metric=metric).get(key, np.nan), values[name], atol=1e-6):
            continue
        if images != (images := (test.labels.tobytes(), test.groups.tobytes())):
            blocks = [block.astype(np.uint16) for block in resample(test, 0, resamples)]
        draws = [metric_values(test, weighted, block.astype(float), metric=metric)[key] for block in blocks]
        found[name] = np.concatenate(draws), units_behind(test, (metric, *group))
    return found


def summarise(found, claim, sides, seeds, n_cells):
    """One claim's contrast as a row of summary.csv. found: of `drawn`; sides, seeds: of `in_pairs`; n_cells: before."""
    differences, unit = difference(sides, "value"), "seed" if seeds else "split"
    draws = sum(sign * np.mean([np.mean([found[name][0] for name in named(split)], 0)
                                for _, split in rows.groupby("split")], 0) for sign, rows in sides)
    effect = contrast(differences, draws, min(found[name][1] for _, rows in sides for name in named(rows)))
    first, n, names = sides[0][1].iloc[0], len(differences), in_words([rows.iloc[0] for _, rows in sides])
    what, against = names if len(names) == 2 else (
        f"({' minus '.join(pair)})" for pair in (names[:2], names[2:]))
    alone = n_cells - sum(len(rows) for _, rows in sides)
    where = (f"{n} paired {unit}s{' of one split' * seeds}" if n > 1 else "one split, test images only") + (
        f", {alone} left out as only one side is there" * bool(alone)) + f"; {first.on.strip()}" * (first.on != "")
    said = sentence(effect, metric_words(first.metric, first.group), what, against, where + how_read(first),
                    unit if n > 1 else "split")
    return judged(effect, differences, keys_of(sides).split()) | {
        name: first[name] for name in ("study", "dataset", "pretrain_dataset", "arm", "split_kind", "ratio", "twin",
                                       "n_unlabelled", "protocol", "budget", "n_labelled", "metric", "group")} | {
        "family": ASKED + first.metric, "what": what, "against": against, "n_left_out": alone, "n_images": first.n,
        "test": f"paired t over {unit}s with bootstrap over images" if n > 1 else "paired bootstrap over images",
        "sentence": f"{claim.id}: {said}"}


def in_words(rows):
    """What figures call each side of a contrast, with labels, reading and classes where these differ."""
    parts = [(budget_words(row.budget), words(row.protocol), f"classes with {row.group} images") for row in rows]
    differ = [len(set(part)) > 1 for part in zip(*parts)]
    return [", ".join([row.series, *(text for text, told in zip(part, differ) if told)])
            for row, part in zip(rows, parts)]
