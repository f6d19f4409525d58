"""What a study compares with what: balanced twin and imbalance, pretraining and none, one arm and another, all paired.

Only cells that are there on both sides enter; how many pairs that left is part of every sentence.
"""

from functools import lru_cache
from itertools import combinations

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from ssl_core.analysis.compare import contrast, cost_sentence, sentence
from ssl_core.analysis.plots import condition, mean_over_splits, words
from ssl_core.evaluate.intervals import paired_draws
from ssl_core.evaluate.metrics import Predictions

SPLIT = ["draw_seed", "order_seed", "seed"]
CELL = ["protocol", "budget", "budget_seed"]
BALANCED = ("balanced_accuracy", "all", "all")
FEW = ("recall", "frequency", "few")


def cells_of(table, folders):
    """One row for each evaluated cell of a results table, with the path of its test scores.

    folders: run folder (Path) of each key.
    """
    rows = table[(table.metric == "balanced_accuracy") & (table.group_kind == "all") & (table.part == "test")
                 & table.value.notna()].copy()
    floor = rows.stage.eq("probe") & rows.pretrain_dataset.eq("")
    name = [f"{row.protocol}-b{row.budget:g}-s{row.budget_seed:g}" for row in rows.itertuples()]
    rows["path"] = [folders[row.key] / "cells" / (f"{row.method}.{n}.npz" if is_floor else f"{n}.npz")
                    for row, n, is_floor in zip(rows.itertuples(), name, floor)]
    return rows


@lru_cache(maxsize=512)
def predictions(path):
    """Test scores of one cell as Predictions."""
    with np.load(path, allow_pickle=False) as kept:
        frequency = tuple(kept["frequency"].tolist()) or None
        return Predictions(kept["probabilities"], kept["labels"], tuple(kept["classes"].tolist()), str(kept["task"]),
                           groups=kept["groups"], frequency=frequency)


def cost_of_imbalance(cells):
    """(twin, imbalanced) for every arm and ratio with a twin of as many images: what imbalance itself costs."""
    for _, rows in cells[cells.ratio > 1].groupby(["arm", "ratio", *CELL], sort=False):
        yield rows[rows.twin == "same_n"], rows[rows.twin == "none"], SPLIT


def gain_of_pretraining(cells):
    """(pretrained, the same network at its initialisation) for every arm and condition."""
    floors = cells[cells.method == "random"]
    for _, rows in cells[cells.pretrain_dataset != ""].groupby(["arm", "ratio", "twin", *CELL], sort=False):
        one = rows.iloc[0]
        same = (floors.encoder == one.encoder) & (floors.protocol == one.protocol) & (floors.budget == one.budget)
        yield rows, floors[same], ["draw_seed", "seed", "budget_seed"]


def between_arms(cells):
    """(one arm, another) on the same images, for every two arms."""
    trained = cells[cells.pretrain_dataset != ""]
    for _, rows in trained.groupby(["ratio", "twin", *CELL], sort=False):
        for first, second in combinations(dict.fromkeys(rows.arm), 2):
            yield rows[rows.arm == first], rows[rows.arm == second], SPLIT


FAMILIES = {"cost of imbalance": (cost_of_imbalance, (BALANCED, FEW)),
            "gain of pretraining": (gain_of_pretraining, (BALANCED,)),
            "between arms": (between_arms, (BALANCED,))}


def summary_of(cells, resamples=1000):
    """One row for each contrast of a study: what against what, effect with its intervals, p by Holm, a sentence."""
    rows = []
    for family, (choose, metrics) in FAMILIES.items():
        for a, b, on in choose(cells):
            pairs = a.merge(b, on=on, suffixes=("", "_b"))
            if len(pairs):
                rows += [summarise(family, pairs, metric, resamples) for metric in metrics if available(pairs, metric)]
    summary = pd.DataFrame([row for row in rows if row])
    if len(summary):
        adjusted = summary.groupby("family", sort=False).p.transform(lambda p: multipletests(p, method="holm")[1])
        summary.insert(summary.columns.get_loc("p") + 1, "p_adjusted", adjusted)
    return summary


def available(pairs, metric):
    """Whether the metric exists: groups of classes by frequency need three classes and single labels."""
    return metric is not FEW or predictions(pairs.path.iloc[0]).frequency is not None


def summarise(family, pairs, metric, resamples):
    name, kind, group = metric
    loaded = [(predictions(a), predictions(b)) for a, b in zip(pairs.path, pairs.path_b)]
    differences, draws = paired_draws(loaded, name, kind, group, seed=0, resamples=resamples)
    found = contrast(differences, draws)
    first = pairs.iloc[0]
    second = opposite(first)
    metric_words = words(name) if group == "all" else f"{name} of {group} classes"
    if family == "cost of imbalance":
        what, against = f"{words(first.arm)}, balanced", f"{words(first.arm)}, 1:{first.ratio:g}"
        text = cost_sentence(found, metric_words, words(first.arm), first.ratio)
    else:
        what, against = describe(first), describe(second)
        text = sentence(found, metric_words, what, against)
    text = f"{text[:-1]}, {words(first.protocol)} with {100 * first.budget:g} % of the labels."
    low, high = found.interval
    return {"study": first.study, "family": family, "what": what, "against": against, "arm": first.arm,
            "ratio": first.ratio, "twin": first.twin, "protocol": first.protocol, "budget": first.budget,
            "metric": name, "group": group, "test": "paired t over splits with bootstrap over images" if len(pairs) > 1
            else "paired bootstrap over images", "effect": found.effect, "low": low, "high": high,
            "low_images": found.over_images[0], "high_images": found.over_images[1],
            "low_splits": found.over_splits[0], "high_splits": found.over_splits[1], "n_pairs": found.n_pairs,
            "differences": " ".join(f"{d:.5f}" for d in differences), "p": found.p, "sentence": text}


def opposite(row):
    """The right-hand side of a merged pair, under its own column names."""
    return pd.Series({name.removesuffix("_b"): value for name, value in row.items() if name.endswith("_b")}
                     | {name: row[name] for name in SPLIT if name in row})


def describe(row):
    """An arm and what it saw, in words."""
    seen = condition(row)
    return f"{words(row.arm)} ({seen})" if seen else words(row.method)


# --- what the page says and draws -------------------------------------------------------------------------------------

def answer(summary):
    """Sentences for the top of the page: the cost of imbalance at the smallest budget first, then what frames it."""
    if not len(summary):
        return ["No pair of cells is complete yet, so nothing can be compared."]
    least = summary[(summary.budget == summary.budget.min()) & (summary.protocol == summary.protocol.iloc[0])]
    order = {"cost of imbalance": 0, "gain of pretraining": 1, "between arms": 2}
    least = least.assign(rank=least.family.map(order), all=least.group != "all",
                         own=(least.twin != "none")).sort_values(["rank", "all", "own"], kind="stable")
    return list(least.sentence)


def levels(table):
    """Balanced accuracy by protocol, budget and series: mean, half-width of the t interval over splits, n."""
    rows = table[(table.metric == "balanced_accuracy") & (table.group_kind == "all") & (table.part == "test")
                 & table.value.notna()]
    rows = rows.assign(series=[describe(row) for row in rows.itertuples()])
    shown = {"none": "linear", "finetune": "linear"}  # floors without a protocol of their own stand beside the linear probe
    rows = rows.assign(protocol=[shown.get(p, p) for p in rows.protocol])
    drawn = mean_over_splits(rows, ["protocol", "budget", "series", "method", "ratio", "twin"])
    return drawn.assign(hollow=drawn.twin.eq("same_n"))


def by_frequency(table):
    """Recall of many, medium and few classes by the linear probe at the smallest budget, for every arm with imbalance."""
    rows = table[(table.metric == "recall") & (table.group_kind == "frequency") & (table.part == "test")
                 & (table.protocol == "linear")]
    if not len(rows):
        return rows
    rows = rows[(rows.budget == rows.budget.min()) & rows.arm.isin(rows.arm[rows.ratio > 1])]
    rows = rows.assign(series=[describe(row) for row in rows.itertuples()])
    drawn = mean_over_splits(rows, ["group", "series", "method", "ratio", "twin", "budget"])
    rank = drawn.group.map({"many": 0, "medium": 1, "few": 2})
    return drawn.assign(rank=rank, hollow=drawn.twin.eq("same_n")).sort_values(["rank", "ratio", "twin"], kind="stable")


def caption_cost(cost, study):
    return (f"What imbalance costs: balanced twin minus imbalanced pretraining, as many images on both sides, in percentage "
            f"points. Points right of zero: imbalance costs. Bars: 95 % interval over {cost.n_pairs.max()} paired splits and "
            f"the test images together (Student's t with bootstrap variance added). {made_by(study)}")


def caption_budgets(drawn, study, table):
    return (f"Balanced accuracy against the share of labels that the probe may use. Points: mean over {drawn.n.max()} "
            f"splits; bars: 95 % t interval over splits (none for a single run); {table.n.max():,.0f} test images. Hollow: "
            f"balanced twin of the imbalanced split. {made_by(study)}")


def caption_frequency(drawn, study):
    return (f"Recall of classes by how frequent they are in the imbalanced split, linear probe with "
            f"{100 * drawn.budget.iloc[0]:g} % of the labels, which are balanced. Points: mean over {drawn.n.max()} splits; "
            f"bars: 95 % t interval over splits. The classes in each group differ from split to split. {made_by(study)}")


def made_by(study):
    return f"Made by: python -m ssl_core run params/studies/{study}.yaml"
