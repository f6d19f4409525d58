"""What a study compares with what: balanced twin and imbalance, pretraining and none, one arm and another, all paired.

Only cells that are there on both sides enter, read on the same test images of one data set; how many pairs that left,
and how many it left out, is part of every sentence. Splits are what an interval over splits is over: seeds and budget
seeds of one split are averaged first. A family, within which p-values are adjusted, spans all data sets of the study.
"""

from dataclasses import replace
from functools import lru_cache
from itertools import combinations

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from ssl_core.analysis.compare import contrast, cost_sentence, sentence
from ssl_core.analysis.wording import budget_words, metric_words, words
from ssl_core.evaluate import weighted
from ssl_core.evaluate.heads import headline_rows
from ssl_core.evaluate.intervals import _units, resample
from ssl_core.evaluate.metrics import Predictions, metric_values
from ssl_core.files import root

SPLIT = ["draw_seed", "order_seed"]
RUN = [*SPLIT, "seed", "budget_seed"]
READ = ["dataset", "test_set", "label_pool", "protocol", "budget"]  # how, on what and with which labels
BALANCED = ("balanced_accuracy", "all", "all")
FEW = ("recall", "frequency", "few")
START = {"random": "the same network, untrained", "supervised": "the same network, supervised from scratch"}
COLUMNS = """study family dataset pretrain_dataset what against arm split_kind ratio twin n_unlabelled protocol budget
    n_labelled metric group test effect low high low_images high_images low_splits high_splits n_pairs n_left_out
    n_images p p_adjusted differences keys sentence""".split()
LEVEL = 0.05
LINES = 8  # sentences on the page below the first; summary.csv has all


def cells_of(table, jobs):
    """One row for each evaluated cell of a results table, with the path of its test scores, and its arm's place.

    table: as `grid.told` gives it; jobs: by key, with `folder`, as `grid.jobs_of` gives them.
    """
    rows, paths = headline_rows(table).dropna(subset="value"), []
    places = {arm: i for i, arm in enumerate(dict.fromkeys(job["arm"] for job in jobs.values()))}
    for row in rows.itertuples():
        job = jobs[row.key]
        floor = f"{row.method}." if job["stage"] == "probe" and not job["needs"] else ""
        name = f"{floor}{row.protocol}-b{row.budget:g}-s{row.budget_seed:g}.npz"
        paths.append(root() / job["folder"] / "cells" / name)
    return rows.assign(path=paths, place=rows.arm.map(places))


@lru_cache(maxsize=64)
def predictions(path):
    """Test scores of one cell as Predictions; of an adopted one, certainty in the class that was chosen."""
    with np.load(path, allow_pickle=False) as kept:
        frequency = tuple(kept["frequency"].tolist()) or None
        scores = kept["probabilities"] if "probabilities" in kept else np.eye(len(kept["classes"]))[kept["predicted"]]
        return Predictions(scores, kept["labels"], tuple(kept["classes"].tolist()), str(kept["task"]),
                           groups=kept["groups"], frequency=frequency)


# --- what is compared: (cells of one side, cells of the other, what makes a pair) -------------------------------------

def cost_of_imbalance(cells):
    """As many balanced images against an imbalanced split of one data set, for every arm and ratio.

    The balanced images are the split's twin; where every ratio is cut to one total, those of ratio 1 are as many.
    """
    trained = cells[(cells.pretrain_dataset != "")]
    elsewhere = trained.labels.where(trained.pretrain_dataset != trained.dataset, "")  # else twins follow their splits
    by = ["arm", "pretrain_dataset", "split_kind", "total", "labels", *READ]
    for (_, _, _, total, *_), rows in trained.assign(labels=elsewhere).groupby(by, sort=False):
        for ratio in sorted(set(rows.ratio[rows.ratio > 1])):
            here = rows[rows.ratio == ratio]
            twins = here[here.twin == "same_n"]
            yield twins if len(twins) or not total else rows[rows.ratio == 1], here[here.twin == "none"], RUN


def gain_of_pretraining(cells):
    """Pretrained against the same network without: untrained below a frozen probe, from scratch below fine-tuning."""
    floors = cells[(cells.pretrain_dataset == "") & cells.arm.isin(START)]
    below = {name: rows for name, rows in floors.groupby(["network", "labels", *READ])}
    by = ["arm", "pretrain_dataset", "split_kind", "ratio", "twin", "total", "network", "labels", *READ]
    for name, rows in cells[cells.pretrain_dataset != ""].groupby(by, sort=False):
        yield rows, below.get(name[6:], floors[:0]), ["draw_seed", "seed", "budget_seed"]


def between_arms(cells):
    """Each arm against each that the study names before it, on the same images; balanced twins frame a cost, and are
    left out.

    Arms that were pretrained on different data sets are compared where they are evaluated on the same one.
    """
    trained = cells[(cells.pretrain_dataset != "") & (cells.twin == "none")].sort_values("place", kind="stable")
    for _, rows in trained.groupby(["ratio", "total", "labels", *READ], sort=False):
        arms = [arm for _, arm in rows.groupby(["arm", "pretrain_dataset", "split_kind"], sort=False)]
        for b, a in combinations(arms, 2):
            if a.pretrain_dataset.iloc[0] != b.pretrain_dataset.iloc[0] or a.split_kind.iloc[0] == b.split_kind.iloc[0]:
                yield a, b, RUN


FAMILIES = {"cost of imbalance": (cost_of_imbalance, (BALANCED, FEW)),
            "gain of pretraining": (gain_of_pretraining, (BALANCED,)),
            "between arms": (between_arms, (BALANCED, FEW))}


def summary_of(cells, resamples=1000):
    """One row for each contrast of a study: what against what, effect with its intervals, p by Holm, a sentence."""
    paired = []
    for family, (choose, metrics) in FAMILIES.items():
        for a, b, on in choose(cells):
            pairs = a.merge(b, on=on, suffixes=("", "_b"))
            alone = len(set(map(tuple, a[on].values)) ^ set(map(tuple, b[on].values))) if len(b) else 0
            if len(pairs):
                rare = rare_classes(pairs) if FEW in metrics else None
                paired += [(family, pairs.assign(rare=rare if metric is FEW else None), alone, metric)
                           for metric in metrics if metric is BALANCED or rare is not None]
    found = drawn(paired, resamples)
    return adjusted([summarise(found, *one) for one in paired])


def adjusted(rows):
    """Rows of summary.csv as a frame, with p adjusted by Holm's rule within each family.

    A sentence that says which side is higher, where its family does not let it stand, says that, too.
    """
    summary = pd.DataFrame(rows, columns=COLUMNS)
    families = summary.groupby("family").p
    summary = summary.assign(p_adjusted=families.transform(holm))
    alone = (summary.p < LEVEL) & (summary.p_adjusted >= LEVEL)
    caveat = [f" By itself: among {n} contrasts it does not stand (p by Holm {p:.2g})." if fell else ""
              for fell, n, p in zip(alone, families.transform("count"), summary.p_adjusted)]
    return summary.assign(sentence=summary.sentence + caveat)


def rare_classes(pairs):
    """How frequent each class is in the imbalanced split of each pair, for both sides; None where none is."""
    ratio, split_kind = pairs.get("ratio_b", pairs.ratio), pairs.get("split_kind_b", pairs.split_kind)
    if ((ratio == 1) & (split_kind != "natural")).any():
        return None
    tests = [predictions(path) for path in pairs.path_b]
    if tests[0].task == "multilabel" or not all("few" in (test.frequency or ()) for test in tests):
        return None
    return pd.Series([test.frequency for test in tests], pairs.index)


def drawn(paired, resamples):
    """Value, bootstrap draws, units and test images of each cell by path, metric and rare classes.

    Every cell is read and resampled once, however many contrasts it is part of. One resample of the images of a test
    set serves all cells, so that what makes an image hard cancels in a difference.
    """
    wanted, found, images = {}, {}, None
    for _, pairs, _, _ in paired:
        for *test_set, rare, a, b in zip(pairs.dataset, pairs.test_set, pairs.rare, pairs.path, pairs.path_b):
            for path in (a, b):
                wanted.setdefault((*test_set, path), {None: None})[rare] = None
    for (*_, path), asked in sorted(wanted.items()):
        test = predictions(path)
        if images != (images := (test.labels.tobytes(), test.groups.tobytes())):
            blocks = [block.astype(np.uint16) for block in resample(test, 0, resamples)]
        for rare in list(asked)[1:] or [None]:
            one = test if rare is None else replace(test, frequency=rare)
            value = metric_values(one, metric="recall")
            draws = [metric_values(one, weighted, block.astype(float), metric="recall") for block in blocks]
            for metric, of in ((BALANCED, None), *([(FEW, rare)] if rare else [])):
                name, kind, group = metric
                each = np.concatenate([block[kind, group, name] for block in draws])
                found[path, metric, of] = value[kind, group, name], each, units_behind(one, metric), hash(images)
    return found


def holm(p):
    """p-values of one family, adjusted by Holm's rule; NaN stays NaN."""
    known = p.notna()
    return p.where(~known, pd.Series(multipletests(p[known], method="holm")[1], p.index[known])) if known.any() else p


def summarise(found, family, pairs, alone, metric):
    """One contrast as a row of summary.csv. found: of `drawn`; pairs: both sides of each pair in one row; alone: cells
    without another.

    Raises ValueError where the sides were tested on different images.
    """
    name, _, group = metric
    sides = [[found[path, metric, rare] for path, rare in zip(paths, pairs.rare)]
             for paths in (pairs.path, pairs.path_b)]
    if len({images for side in sides for *_, images in side}) > 1:
        raise ValueError(f"{pairs.key.iloc[0]} and {pairs.key_b.iloc[0]} were tested on different images; "
                         "pair runs that share a test set")
    values, draws = (np.array([[cell[i] for cell in side] for side in sides], float) for i in (0, 1))
    by, unit = (SPLIT, "splits") if len(pairs[SPLIT].drop_duplicates()) > 1 else (["seed"], "seeds")
    averaged = pairs.assign(difference=values[0] - values[1], keys=pairs.key + ":" + pairs.key_b).groupby(by)
    differences = averaged.difference.mean()
    effect = contrast(differences, (draws[0] - draws[1]).mean(0), min(cell[2] for side in sides for cell in side))
    first, n = pairs.iloc[0], len(differences)
    imbalanced = other_side(first) if family == "cost of imbalance" else first
    one = unit[:-1] if n > 1 else "split"  # what more of would tell
    paired = f"{n} paired {unit}{' of one split' * (unit == 'seeds')}" if n > 1 else "one split, test images only"
    paired += f", {alone} left out as only one side is there" if alone else ""
    about = [paired, first.on.strip()]
    measured = metric_words(name, group)
    if family == "cost of imbalance":
        about += [f"pretrained on {first.pretrain_dataset}" * (first.pretrain_dataset != first.dataset), first.amount]
    where = "; ".join(filter(None, about)) + how_read(first)
    if family == "cost of imbalance":
        arm = words(first.arm)
        what, against = f"{arm}, balanced", f"{arm}, 1:{imbalanced.ratio:g}"
        text = cost_sentence(effect, measured, arm, imbalanced.ratio, where, one)
    else:
        what, against = first.series, START.get(first.arm_b) or first.series_b
        text = sentence(effect, measured, what, against, where, one)
    test = f"paired t over {unit} with bootstrap over images" if n > 1 else "paired bootstrap over images"
    return judged(effect, differences, averaged["keys"].agg("+".join)) | {
        "study": first.study, "family": family, "dataset": first.dataset, "what": what, "against": against,
        "pretrain_dataset": first.pretrain_dataset, "arm": first.arm, "split_kind": first.split_kind,
        "ratio": imbalanced.ratio, "twin": first.twin, "n_unlabelled": imbalanced.n_unlabelled,
        "protocol": first.protocol, "budget": first.budget, "n_labelled": first.n_labelled, "metric": name,
        "group": group, "test": test, "n_left_out": alone, "n_images": first.n, "sentence": text}


def judged(effect, differences, keys):
    """What a row of summary.csv says of a Contrast, of the difference in each split, and of the runs behind each."""
    ends = {f"{end}{over}": limits[i] for over, limits in (("", effect.interval), ("_images", effect.over_images),
                                                           ("_splits", effect.over_splits))
            for i, end in enumerate(("low", "high"))}
    return ends | {"effect": effect.effect, "p": effect.p, "n_pairs": effect.n_pairs, "keys": " ".join(keys),
                   "differences": " ".join(f"{d:.5f}" for d in differences)}


def how_read(row):
    """How a contrast ends its brackets. Labels that follow the split differ in number at one budget: that is said."""
    labels = budget_words(row.budget)
    if row.label_pool == "as_pretrain":
        labels = labels.replace("the labels", f"{row.n_labelled / row.budget:,.0f} labels")
    return f"; {words(row.protocol)}, {labels}"


def units_behind(test, metric):
    """Images, or clusters, of the rarest class behind a value; 0 where they are too few for an interval."""
    name, kind, group = metric
    return _units(test, kind, group, name)


def other_side(row):
    """The right-hand side of a merged pair, under its own column names."""
    return pd.Series({name.removesuffix("_b"): value for name, value in row.items() if name.endswith("_b")})


def answer(summary):
    """Sentences for the top of the page, with the fewest labels: the cost of the largest imbalance first; without one,
    the arms against the first that the study names. Then what frames it, and how much of it stands by Holm's rule.

    Data sets take turns. How the representation was read is the same for most, and said in the first only.
    """
    if not len(summary):
        return ["No pair of cells is complete yet, so nothing can be compared."]
    first = summary[summary.protocol == summary.protocol.iloc[0]]
    fewest = first.groupby(["dataset", "budget"]).n_labelled.mean().groupby("dataset").idxmin()
    least = first[[key in set(fewest) for key in zip(first.dataset, first.budget)]]
    cost = least.family == "cost of imbalance"
    order = list(FAMILIES) if cost.any() else list(FAMILIES)[::-1]
    baseline = least.groupby(["family", "dataset"], sort=False).against.transform("first")
    least = least.assign(rank=least.family.map(order.index), part=least.group != "all",
                         less=-least.ratio.where(cost, 0), twinned=least.twin != "none",
                         aside=(least.family == "between arms") & (least.against != baseline))
    least = least.sort_values(["rank", "aside", "part", "less", "twinned"], kind="stable")
    least["turn"] = least.groupby(["family", "dataset"]).cumcount()
    least = least.sort_values(["rank", "turn"], kind="stable")
    share = max(3, least.dataset.nunique())  # of each family, before any has more
    asked = ~cost.any() & (least["rank"] == 0) & ~least.aside
    late = (least.groupby("family").cumcount() >= share) & ~asked
    chosen = late.sort_values(kind="stable").index[:LINES + 1]
    said = least[least.index.isin(chosen)]
    first, *others = said.sentence
    end = first.index(").")
    how = first[first.rindex("; ", 0, end):end]  # the last thing in its brackets
    return [first, *(line.replace(how, "") for line in others), *standing(summary)]


def standing(summary):
    """How many contrasts of each family are told from zero, and how many of them by Holm's rule, as a sentence."""
    told = summary.groupby("family", sort=False).agg(n=("p", "count"), alone=("p", lambda p: (p < LEVEL).sum()),
                                                     stand=("p_adjusted", lambda p: (p < LEVEL).sum()))
    said = [f"{row.Index}, {row.alone} and {row.stand} of {row.n}" for row in told[told.n > 0].itertuples()]
    return [f"Contrasts told from zero, by themselves and by Holm's rule: {'; '.join(said)}."] if said else []
