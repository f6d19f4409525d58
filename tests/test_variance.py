"""Variance by source: planted components come back, and what a design cannot tell apart is said, not guessed."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from ssl_core.analysis.variance import CONDITION, decompose, in_words

ABOUT = dict.fromkeys(CONDITION, "x") | {"n_unlabelled": 500, "ratio": 10.0, "budget": 0.1, "part": "test", "n": 2000,
                                         "metric": "balanced_accuracy", "group_kind": "all", "group": "all"}


def table_of(ids, values, half=0.0196, **more):
    """Rows of results; ids: (draw, order, seed, budget_seed) of each."""
    return pd.DataFrame([ABOUT | more | dict(zip(("draw_seed", "order_seed", "seed", "budget_seed"), one)) | {
        "value": v, "low": v - half, "high": v + half} for one, v in zip(ids, values)])


def made(sd, levels, seed):
    """Values of a crossed design with these standard deviations of draw, order, run and labels."""
    rng, ids = np.random.default_rng(seed), list(product(*map(range, levels)))
    of = [{}, {}, {}, {}]
    values = []
    for one in ids:
        parts = (one[0], one[1], one[:3], one)
        values.append(0.7 + sum(known.setdefault(part, s * rng.normal()) for known, part, s in zip(of, parts, sd)))
    return table_of(ids, values)


def test_planted_components_come_back():
    planted = np.array([0.03, 0.02, 0.01, 0.015])
    found = [decompose(made(planted, (5, 5, 2, 2), seed)).set_index("source") for seed in range(60)]
    order = ["draw of the images", "class order", "initialisation and training", "draw of the labels"]
    variances = np.mean([one.sd[order] ** 2 for one in found], 0)
    assert np.sqrt(variances) == pytest.approx(planted, rel=0.2)
    assert found[0].known.all() and found[0].share.sum() == pytest.approx(1)
    assert found[0].n.to_dict() == dict(zip(order, (5, 5, 50, 100))) | {"sampling of the test images": 2000}
    assert found[0].sd["sampling of the test images"] == pytest.approx(0.01, rel=1e-3)


def test_of_seeds_in_splits_it_is_the_analysis_of_variance():
    table = made([0.03, 0, 0.01, 0], (4, 1, 3, 1), 0)
    groups = table.groupby("draw_seed").value
    within = groups.var(ddof=1).mean()
    between = groups.mean().var(ddof=1) - within / 3
    found = decompose(table).set_index("source")
    assert found.sd["draw of the images"] ** 2 == pytest.approx(between)
    assert found.sd["initialisation and training or draw of the labels"] ** 2 == pytest.approx(within)
    assert not found.known["class order"]


def test_what_varies_only_together_is_one_row_and_said():
    table = table_of([(i, i, 0, 0) for i in range(3)], [0.70, 0.72, 0.74])
    found = decompose(table)
    assert found.source.iloc[0] == ("draw of the images or class order or initialisation and training or draw of the "
                                    "labels")
    assert found.sd.iloc[0] == pytest.approx(0.02) and found.n.iloc[0] == 3
    assert (found.low.iloc[0], found.high.iloc[0]) == pytest.approx((0.0104, 0.1257), rel=0.01)  # of three values
    assert "vary only together and cannot be told apart" in in_words(found)


def test_conditions_are_pooled_without_their_difference():
    ids = [(i, 0, 0, 0) for i in range(3)]
    low, high = table_of(ids, [0.50, 0.52, 0.54]), table_of(ids, [0.80, 0.82, 0.84], arm="other")
    assert decompose(pd.concat([low, high])).sd.iloc[0] == pytest.approx(0.02)


def test_one_run_tells_nothing_but_its_test_images():
    found = decompose(table_of([(0, 0, 0, 0)], [0.7])).set_index("source")
    assert found.known.to_dict() == {"sampling of the test images": True} | dict.fromkeys(found.index[1:], False)
    assert "Not varied, so that nothing is known of" in in_words(found.reset_index())
    assert not decompose(table_of([], []).reindex(columns=[*ABOUT, "draw_seed", "order_seed", "seed", "budget_seed",
                                                           "value", "low", "high"])).known.any()
