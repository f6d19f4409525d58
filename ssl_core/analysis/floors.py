"""Whether what was pretrained beats what needs no pretraining: paired contrasts with the best floor, as alarms."""

import numpy as np

from ssl_core.analysis.alarms import arm_and_rest
from ssl_core.analysis.contrasts import BALANCED, START, drawn, summarise
from ssl_core.analysis.grid import cell_id
from ssl_core.analysis.wording import budget_words, span, words

FLOORS = ("majority", "colour", "pixels", *START)
PAIR = ["draw_seed", "seed", "budget_seed", "n_labelled", "test_set"]


def not_beaten(cells, resamples=1000):
    """Alarms of arms that lie below the best floor with the same labels, or are not shown to beat it, by the interval
    of balanced accuracy over splits and test images; without an interval by the mean.

    cells: of `contrasts.cells_of`. Each arm is probed, and fine-tuned, as the study does first; floors are of the same
    data set, and those with a network, untrained below a probe or trained from scratch as a fine-tuning is, have the
    same one.
    """
    floors = cells[(cells.pretrain_dataset == "") & cells.arm.isin(FLOORS)]
    by = ["dataset", "series", "network", "stage"]
    asked = []
    for (dataset, _, network, _), arm in cells[cells.pretrain_dataset != ""].groupby(by, sort=False):
        arm = arm[arm.protocol == arm.protocol.iloc[0]]
        same = floors[(floors.dataset == dataset) & (~floors.arm.isin(START) | (
            (floors.network == network) & (floors.protocol == arm.protocol.iloc[0])))]
        for budget, here in arm.groupby("budget"):
            pairs = here.merge(same[same.budget == budget], on=PAIR, suffixes=("", "_b")).assign(rare=None)
            if len(pairs):
                best = pairs.groupby("series_b").value_b.mean().idxmax()
                asked.append(("floor", pairs[pairs.series_b == best], 0, BALANCED))
    found, alarmed = drawn(asked, resamples), {}
    for one in asked:
        pairs, row = one[1], summarise(found, *one)
        if row["low"] > 0 or np.isnan(row["low"]) and row["effect"] > 0:
            continue
        first, within = pairs.iloc[0], "" if np.isnan(row["low"]) else f" ({span((row['low'], row['high']))})"
        said, cells_there = alarmed.setdefault(tuple(first[by]), (first, [], []))[1:]
        said.append(f"{'below' if row['high'] < 0 else 'not shown to beat'} {first.series_b} with "
                    f"{budget_words(first.budget)}, {100 * pairs.value.mean():.1f} against "
                    f"{100 * pairs.value_b.mean():.1f} %{within}")
        cells_there += pairs.itertuples()
    return [alarm_of(*one) for one in alarmed.values()]


def alarm_of(first, said, cells):
    """first: one of an arm's cells; said: of each budget; cells: all that it is about."""
    name, where = arm_and_rest(first)
    read, said = words(first.protocol), "; ".join(said)
    return {"key": first.key, "cells": {cell_id(row) for row in cells}, "which": (where, said),
            "sentence": f"{first.series}{first.on}, {read}: {said}.",
            "said": f"{name}{first.on}, {read}: a floor is not shown to be beaten.",
            "kind": f"A floor is not shown to be beaten{first.on}.", "who": f"{name}, {read}"}
