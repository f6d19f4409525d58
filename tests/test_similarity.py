"""Centred kernel alignment and the Kolmogorov-Smirnov distance: equations, invariances, planted cases."""

import math

import numpy as np
import pytest
from scipy.stats import ks_2samp

from ssl_core.analysis.similarity import cka_rows, ks_distance, ks_rows, linear_cka, over_subsets, rbf_cka, subset


def features(n=60, d=7, seed=0):
    return np.random.default_rng(seed).normal(3, 2, (n, d))


def hsic(k1, k2):
    """tr(KHLH) / (n − 1)², as it is written."""
    n = len(k1)
    h = np.eye(n) - 1 / n
    return np.trace(k1 @ h @ k2 @ h) / (n - 1) ** 2


def gaussian_by_hand(z, sigma):
    kernel = np.array([[math.exp(-sum((a - b) ** 2) / (2 * sigma ** 2)) for b in z] for a in z])
    return kernel


def test_both_are_the_ratio_of_hsic():
    x, y = features(), np.hstack([features()[:, :3] ** 2, features(seed=1)])
    for value, k1, k2 in ((linear_cka(x, y), x @ x.T, y @ y.T),
                          (rbf_cka(x, y, 4.0), gaussian_by_hand(x, 4.0), gaussian_by_hand(y, 4.0))):
        assert value == pytest.approx(hsic(k1, k2) / math.sqrt(hsic(k1, k1) * hsic(k2, k2)), abs=1e-9)
        assert 0.05 < value < 0.99
    medians = [np.median([np.linalg.norm(a - b) for i, a in enumerate(z) for b in z[:i]]) for z in (x, y)]
    k1, k2 = (gaussian_by_hand(z, width) for z, width in zip((x, y), medians, strict=True))
    assert rbf_cka(x, y) == pytest.approx(hsic(k1, k2) / math.sqrt(hsic(k1, k1) * hsic(k2, k2)), abs=1e-9)


def test_linear_cka_is_the_ratio_of_norms_of_covariances():
    x, y = (z - z.mean(0) for z in (features(), features()[:, :4] + features(d=4, seed=1)))
    norm = np.linalg.norm
    assert linear_cka(x + 5, y) == pytest.approx(norm(y.T @ x) ** 2 / norm(x.T @ x) / norm(y.T @ y), abs=1e-12)


@pytest.mark.parametrize("cka", [linear_cka, rbf_cka])
def test_rotation_scale_and_shift_change_nothing_and_another_transformation_does(cka):
    x, y = features(), features()[:, :5] + features(d=5, seed=1)
    turn = np.linalg.qr(features(7, 7, seed=2))[0]
    assert cka(x, x) == pytest.approx(1) and cka(x, 0.1 * x @ turn - 4) == pytest.approx(1)
    assert cka(0.1 * x @ turn - 4, y) == pytest.approx(cka(x, y), abs=1e-9)
    assert cka(x, y) == pytest.approx(cka(y, x)) and cka(x * [30, 1, 1, 1, 1, 1, 1], x) < 0.8


@pytest.mark.parametrize("cka", [linear_cka, rbf_cka])
def test_independent_features_are_unlike_where_images_are_many(cka):
    few, many = (cka(features(n, 8), features(n, 8, seed=1)) for n in (12, 1000))
    assert many < 0.03 < few


def test_a_small_sigma_finds_any_two_networks_alike():
    x, y = features(50, 512), features(50, 512, seed=1)
    assert rbf_cka(x, y, 0.8) > 0.999 > rbf_cka(x, y, "median")


def test_features_that_do_not_vary_have_no_similarity():
    for cka in (linear_cka, rbf_cka):
        assert math.isnan(cka(np.ones((9, 3)), features(9)))


def test_subsets_are_seeded_and_the_spread_is_over_them():
    x, y = features(300), features(300)[:, :4] + features(300, 4, seed=1)
    mean, spread = over_subsets(linear_cka, x, y, rows=100, draws=20, seed=3)
    assert mean == pytest.approx(linear_cka(x, y), abs=0.03) and 0 < spread < 0.1
    assert over_subsets(linear_cka, x, y, rows=100, draws=20, seed=3) == (mean, spread)
    assert over_subsets(linear_cka, x, y, rows=100, draws=20, seed=4)[0] != mean
    whole, none = over_subsets(linear_cka, x, y, rows=300)
    assert whole == linear_cka(x, y) and math.isnan(none)


def test_rows_of_layers_fit_the_table_and_pair_the_images():
    from ssl_core.table import COLUMNS

    before = {"layer1": features(40), "layer2": features(40, 3, seed=1)}
    after = {"layer1": features(40), "layer2": features(40, 3, seed=2)}
    rows = cka_rows(before, after)
    assert {(row["layer"], row["metric"]): row["value"] for row in rows} == pytest.approx({
        ("layer1", "cka_linear"): 1, ("layer1", "cka_rbf"): 1,
        ("layer2", "cka_linear"): linear_cka(before["layer2"], after["layer2"]),
        ("layer2", "cka_rbf"): rbf_cka(before["layer2"], after["layer2"])})
    assert all(set(row) <= set(COLUMNS) and row["n"] == 40 and 0 <= row["value"] <= 1 for row in rows)
    assert {row["n_labelled"] for row in cka_rows(before, after, n_labelled=7)} == {7}


def test_a_subset_is_sorted_seeded_and_no_larger_than_there_is():
    assert subset(5).tolist() == [0, 1, 2, 3, 4]
    drawn = subset(50, 10, seed=1)
    assert len(set(drawn.tolist())) == 10 and (np.diff(drawn) > 0).all() and drawn.max() < 50
    assert (drawn == subset(50, 10, seed=1)).all() and set(drawn) != set(subset(50, 10, seed=2))


def test_the_ks_distance_is_scipys_for_each_class():
    rng = np.random.default_rng(0)
    few, many = rng.dirichlet([1, 2, 3], 80), rng.dirichlet([3, 2, 1], 50)
    mean, distances = ks_distance(few, many)
    expected = [ks_2samp(few[:, c], many[:, c]).statistic for c in range(3)]
    assert distances.tolist() == expected and mean == pytest.approx(np.mean(expected))
    assert ks_distance(few, few)[0] == 0
    assert ks_distance([[0.1, 0.9]] * 4, [[0.2, 0.8]] * 3)[0] == 1
    assert ks_distance([[0.1], [0.4]], [[0.2], [0.3], [0.5], [0.6]])[0] == 0.5  # by hand


def test_budgets_are_compared_with_the_largest():
    rng = np.random.default_rng(0)
    cells = {b: {"probabilities": rng.dirichlet([1, a], 30), "classes": np.array(["neg", "pos"])}
             for b, a in ((1.0, 1), (0.01, 9), (0.1, 2))}
    table = ks_rows(cells)
    assert table["budget"].tolist() == [0.01] * 3 + [0.1] * 3 and set(table["against"]) == {1.0}
    assert table["group"].tolist() == ["all", "neg", "pos"] * 2
    mean = table[table.group_kind == "all"].set_index("budget").value
    assert mean[0.01] > mean[0.1]
    assert mean[0.01] == ks_distance(cells[0.01]["probabilities"], cells[1.0]["probabilities"])[0]
