"""What a study compares with what: balanced twin and imbalance, pretraining and none, one arm and another, all paired.

Only cells that are there on both sides enter; how many pairs that left, and how many it left out, is part of every
sentence. Splits are what an interval over splits is over: seeds and budget seeds of one split are averaged first.
"""

import json
from functools import lru_cache
from itertools import combinations

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from ssl_core.analysis.compare import contrast, cost_sentence, sentence
from ssl_core.analysis.plots import PROTOCOLS, describe, metric_words, words
from ssl_core.evaluate.intervals import MIN_GROUPS, MIN_POSITIVES, paired_draws
from ssl_core.evaluate.metrics import Predictions, support
from ssl_core.files import root

SPLIT = ["draw_seed", "order_seed"]
RUN = [*SPLIT, "seed", "budget_seed"]
CELL = ["protocol", "budget"]
BALANCED = ("balanced_accuracy", "all", "all")
FEW = ("recall", "frequency", "few")
NETWORK = ("encoder", "encoder_args", "stem", "normalisation")
START = {"random": "the same network, untrained", "supervised": "the same network, supervised from scratch"}
COLUMNS = """study family what against arm ratio twin protocol budget metric group test effect low high low_images
    high_images low_splits high_splits n_pairs n_left_out n_images p p_adjusted differences keys sentence""".split()
LINES = 8  # sentences on the page; summary.csv has all


def cells_of(table, jobs):
    """One row for each evaluated cell of a results table, with the path of its test scores and its network.

    jobs: by key, with `folder` and `seen`, as `grid.jobs_of` gives them.
    """
    rows = table[(table.metric == "balanced_accuracy") & (table.group_kind == "all") & (table.part == "test")
                 & table.value.notna()].copy()
    paths, networks = [], []
    for row in rows.itertuples():
        job = jobs[row.key]
        floor = f"{row.method}." if job["stage"] == "probe" and not job["needs"] else ""
        name = f"{floor}{row.protocol}-b{row.budget:g}-s{row.budget_seed:g}.npz"
        paths.append(root() / job["folder"] / "cells" / name)
        networks.append(json.dumps([job["seen"][part] for part in NETWORK], sort_keys=True))
    return rows.assign(path=paths, network=networks).sort_values("protocol", key=lambda p: p.map(PROTOCOLS.index),
                                                                 kind="stable")


@lru_cache(maxsize=512)
def predictions(path):
    """Test scores of one cell as Predictions."""
    with np.load(path, allow_pickle=False) as kept:
        frequency = tuple(kept["frequency"].tolist()) or None
        return Predictions(kept["probabilities"], kept["labels"], tuple(kept["classes"].tolist()), str(kept["task"]),
                           groups=kept["groups"], frequency=frequency)


# --- what is compared: (cells of one side, cells of the other, what makes a pair) -------------------------------------

def cost_of_imbalance(cells):
    """The balanced twin of as many images against the imbalanced split, for every arm and ratio."""
    trained = cells[(cells.pretrain_dataset != "") & (cells.ratio > 1)]
    for _, rows in trained.groupby(["arm", "ratio", *CELL], sort=False):
        yield rows[rows.twin == "same_n"], rows[rows.twin == "none"], RUN


def gain_of_pretraining(cells):
    """Pretrained against the same network without: untrained below a frozen probe, from scratch below fine-tuning."""
    floors = cells[(cells.pretrain_dataset == "") & cells.arm.isin(START)]
    trained = cells[cells.pretrain_dataset != ""]
    by = ["arm", "ratio", "twin", "network", *CELL]
    for (_, ratio, twin, network, *cell), rows in trained.groupby(by, sort=False):
        same = (floors.network == network) & (floors[CELL] == cell).all(axis=1)
        same &= floors.ratio.isna() | ((floors.ratio == ratio) & (floors.twin == twin))  # labels may follow the split
        yield rows, floors[same], ["draw_seed", "seed", "budget_seed"]


def between_arms(cells):
    """One arm against another on the same images, for every two arms."""
    trained = cells[cells.pretrain_dataset != ""]
    for _, rows in trained.groupby(["ratio", "twin", *CELL], sort=False):
        for first, second in combinations(dict.fromkeys(rows.arm), 2):
            yield rows[rows.arm == first], rows[rows.arm == second], RUN


FAMILIES = {"cost of imbalance": (cost_of_imbalance, (BALANCED, FEW)),
            "gain of pretraining": (gain_of_pretraining, (BALANCED,)),
            "between arms": (between_arms, (BALANCED,))}


def summary_of(cells, resamples=1000):
    """One row for each contrast of a study: what against what, effect with its intervals, p by Holm, a sentence."""
    rows = []
    for family, (choose, metrics) in FAMILIES.items():
        for a, b, on in choose(cells):
            pairs = a.merge(b, on=on, suffixes=("", "_b"))
            alone = len(set(map(tuple, a[on].values)) ^ set(map(tuple, b[on].values))) if len(b) else 0
            if len(pairs):
                test = predictions(pairs.path.iloc[0])
                rows += [summarise(family, pairs, alone, metric, resamples) for metric in metrics
                         if metric is not FEW or (test.frequency and test.task != "multilabel")]
    summary = pd.DataFrame(rows, columns=COLUMNS)
    return summary.assign(p_adjusted=summary.groupby("family").p.transform(holm))


def holm(p):
    """p-values of one family, adjusted by Holm's rule; NaN stays NaN."""
    known = p.notna()
    return p.where(~known, pd.Series(multipletests(p[known], method="holm")[1], p.index[known])) if known.any() else p


def summarise(family, pairs, alone, metric, resamples):
    """One contrast as a row of summary.csv. pairs: both sides of each pair in one row; alone: cells without another."""
    name, kind, group = metric
    loaded = [(predictions(a), predictions(b)) for a, b in zip(pairs.path, pairs.path_b)]
    each, draws = paired_draws(loaded, name, kind, group, seed=0, resamples=resamples)
    by, unit = (SPLIT, "splits") if len(pairs[SPLIT].drop_duplicates()) > 1 else (["seed"], "seeds")
    averaged = pairs.assign(difference=each, keys=pairs.key + ":" + pairs.key_b).groupby(by)
    differences = averaged.difference.mean()
    found = contrast(differences, draws, units_behind(loaded[0][0], metric))
    first, n = pairs.iloc[0], len(differences)
    where = f"{n} paired {unit}" if n > 1 else "one split, test images only"
    where += f", {alone} left out as only one side is there" if alone else ""
    where += how_read(first)
    measured = metric_words(name, group)
    if family == "cost of imbalance":
        what, against = f"{words(first.arm)}, balanced", f"{words(first.arm)}, 1:{first.ratio:g}"
        text = cost_sentence(found, measured, words(first.arm), first.ratio, where)
    else:
        what, against = describe(first), START.get(first.arm_b) or describe(other_side(first))
        text = sentence(found, measured, what, against, where)
    test = f"paired t over {unit} with bootstrap over images" if n > 1 else "paired bootstrap over images"
    ends = {f"{end}{over}": limits[i] for over, limits in (("", found.interval), ("_images", found.over_images),
                                                           ("_splits", found.over_splits))
            for i, end in enumerate(("low", "high"))}
    return {"study": first.study, "family": family, "what": what, "against": against, "arm": first.arm,
            "ratio": first.ratio, "twin": first.twin, "protocol": first.protocol, "budget": first.budget,
            "metric": name, "group": group, "test": test, "effect": found.effect, **ends, "n_pairs": n,
            "n_left_out": alone, "n_images": len(loaded[0][0].labels),
            "differences": " ".join(f"{d:.5f}" for d in differences),
            "keys": " ".join(averaged["keys"].agg("+".join)), "p": found.p, "sentence": text}


def how_read(row):
    return f"; {words(row.protocol)}, {100 * row.budget:g} % of the labels"


def units_behind(test, metric):
    """Images, or clusters, of the rarest class behind a value; 0 where they are too few for an interval."""
    name, kind, group = metric
    over, _ = support(test, kind, group, name)
    columns = test.labels.T if test.task == "multilabel" else [test.labels]
    members = [test.groups[over & (y == c)] for y in columns for c in np.unique(y[over & (y >= 0)])]
    units = min(len(np.unique(groups)) for groups in members)
    return units if units >= MIN_GROUPS and min(map(len, members)) >= MIN_POSITIVES else 0


def other_side(row):
    """The right-hand side of a merged pair, under its own column names."""
    return pd.Series({name.removesuffix("_b"): value for name, value in row.items() if name.endswith("_b")})


def answer(summary):
    """Sentences for the top of the page: the cost of imbalance at the smallest budget first, then what frames it.

    How the representation was read is the same for all, and said in the first only.
    """
    if not len(summary):
        return ["No pair of cells is complete yet, so nothing can be compared."]
    protocol = min(summary.protocol, key=PROTOCOLS.index)
    least = summary[(summary.budget == summary.budget.min()) & (summary.protocol == protocol)]
    rank = least.family.map(list(FAMILIES).index)
    least = least.assign(rank=rank, part=least.group != "all", twinned=least.twin != "none")
    first, *others = least.sort_values(["rank", "part", "twinned"], kind="stable").sentence
    return [first, *(line.replace(how_read(least.iloc[0]), "") for line in others[:LINES])]
