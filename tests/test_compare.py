"""Contrasts in closed form, the coverage of their intervals, and the sentences that follow from them."""

import numpy as np
import pytest
from scipy import stats

from ssl_core.analysis.compare import contrast, cost_sentence, points, sentence


def draws(sd, n=4000, mean=0.0):
    """Bootstrap draws with exactly this mean and standard deviation."""
    z = stats.norm.ppf((np.arange(n) + 0.5) / n)
    return mean + sd * z / z.std(ddof=1)


def test_without_doubt_over_images_it_is_the_paired_t_test():
    differences = [0.02, 0.05, -0.01, 0.03]
    found = contrast(differences, np.full(100, 0.0225))
    t = stats.ttest_1samp(differences, 0)
    assert found.p == pytest.approx(t.pvalue, rel=1e-9)
    assert found.interval == pytest.approx(tuple(t.confidence_interval()), rel=1e-9)
    assert found.interval == pytest.approx(found.over_splits) and found.over_images == pytest.approx((0.0225, 0.0225))


def test_half_widths_of_both_doubts_add_as_squares():
    differences, sd, n, units = np.array([0.03, 0.04, 0.05]), 0.02, 3, 15
    found = contrast(differences, draws(sd), units)
    over_splits, over_images = np.var(differences, ddof=1) / n, sd**2 * units / (units - 1)


    def half(level):
        return np.hypot(*(stats.t.ppf(1 - level / 2, df) * np.sqrt(variance)
                          for df, variance in ((n - 1, over_splits), (units - 1, over_images))))

    assert found.effect == pytest.approx(0.04) and found.n_pairs == 3
    assert found.interval == pytest.approx((0.04 - half(0.05), 0.04 + half(0.05)), rel=1e-6)
    assert half(found.p) == pytest.approx(0.04, rel=1e-6)  # at its own level an interval just reaches 0
    assert found.over_splits == pytest.approx(tuple(stats.ttest_1samp(differences, 0).confidence_interval()))


@pytest.mark.parametrize("sd", [0.001, 0.01, 0.02, 0.05])
def test_one_more_doubt_never_narrows_the_interval_or_lowers_p(sd):
    differences = [0.01, 0.04, 0.07]
    found = contrast(differences, draws(sd))
    assert found.interval[0] <= min(found.over_images[0], found.over_splits[0])
    assert found.p >= stats.ttest_1samp(differences, 0).pvalue * (1 - 1e-9)


def test_one_pair_knows_only_the_doubt_over_images():
    found = contrast([0.03], draws(0.01))
    assert found.interval == pytest.approx((0.03 - 0.0196, 0.03 + 0.0196), abs=1e-5)
    assert np.isnan(found.over_splits).all()
    few = contrast([0.03], draws(0.01), units=12)
    half = stats.t.ppf(0.975, 11) * 0.01 * np.sqrt(12 / 11)
    assert few.interval == pytest.approx((0.03 - half, 0.03 + half), abs=1e-5)


@pytest.mark.parametrize("differences, verdict, p", [([0.0, 0.0], "undecided", 1), ([0.1], "higher", 0),
                                                     ([-0.1, -0.1], "lower", 0)])
def test_no_variance_at_all(differences, verdict, p):
    found = contrast(differences, np.full(50, differences[0]))
    assert found.verdict == verdict and found.p == p and found.interval == pytest.approx((differences[0],) * 2)


def test_too_few_images_give_an_effect_and_no_interval():
    found = contrast([0.1, 0.2], draws(0.01), units=0)
    assert found.effect == pytest.approx(0.15) and found.verdict == "unknown"
    assert np.isnan([*found.interval, found.p]).all()
    assert sentence(found, "recall", "A", "B", "2 paired splits") == (
        "A against B: +15.0 points of recall, too few independent test images for an interval (2 paired splits).")


def test_a_resample_without_the_class_does_not_spoil_the_interval():
    assert contrast([0.03], [*draws(0.01), np.nan]).interval == pytest.approx((0.0104, 0.0496), abs=1e-4)


@pytest.mark.parametrize("n, over_splits, interaction", [(1, 0, 0.3), (2, 0.05, 0.0), (3, 0.02, 0.3), (3, 0.0, 0.3),
                                                         (5, 0.05, 0.1), (8, 0.01, 0.0)])
def test_coverage_under_both_sources_of_doubt(n, over_splits, interaction):
    """Per-image differences hold what all splits share on these images, what only one does, and the split itself."""
    rng, images, repeats, true = np.random.default_rng(n), 150, 400, 0.02
    weights = rng.multinomial(images, np.full(images, 1 / images), size=120) / images
    hits = 0
    for _ in range(repeats):
        per_image = (true + rng.normal(0, over_splits, (n, 1)) + rng.normal(0, 0.3, images)
                     + rng.normal(0, interaction, (n, images)))
        low, high = contrast(per_image.mean(1), weights @ per_image.mean(0), images).interval
        hits += low <= true <= high
    assert 0.905 <= hits / repeats <= 0.999  # 4 standard errors below 0.95; a little above is on the safe side


WHERE = "3 paired splits; linear probe, 1 % of the labels"


def test_three_sentences_follow_from_the_interval_alone():
    said = {}
    for effect in (0.05, 0.001, -0.05):
        found = contrast([effect, effect + 0.002, effect - 0.002], draws(0.004, mean=effect))
        cost = cost_sentence(found, "recall", "A", 100, WHERE)
        said[found.verdict] = sentence(found, "recall", "A", "B", WHERE), cost
    assert said["higher"] == (
        f"A scores 5.0 points of recall higher than B (+4.1 to +5.9; {WHERE}).",
        f"Pretraining A on 1:100 costs 5.0 points of recall against as many balanced images (+4.1 to +5.9; {WHERE}).")
    assert said["undecided"] == (
        f"A against B: no detectable difference (−0.8, +1.0), known to ±1 (+0.1 points of recall; {WHERE}).",
        "Pretraining A on 1:100 or on as many balanced images: no detectable difference (−0.8, +1.0), known to ±1 "
        f"(balanced minus imbalanced is +0.1 points of recall; {WHERE}).")
    assert said["lower"] == (
        f"A scores 5.0 points of recall lower than B (−5.9 to −4.1; {WHERE}).",
        f"Pretraining A on 1:100 gains 5.0 points of recall over as many balanced images: balanced minus imbalanced is "
        f"−5.0 (−5.9 to −4.1; {WHERE}).")


@pytest.mark.parametrize("value, text", [(0.0213, "+2.1"), (-0.0213, "−2.1"), (0, "0.0"), (-0.0001, "0.0"),
                                         (1, "+100.0")])
def test_points_are_signed_with_a_true_minus(value, text):
    assert points(value) == text
