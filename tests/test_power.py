"""How many splits: known sample sizes, power in simulation, the sentence of what is undecided, the command."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.power import TTestPower

from ssl_core.analysis import power
from ssl_core.analysis.compare import contrast
from ssl_core.cli import main


@pytest.mark.parametrize("effect, sd", [(0.01, 0.01), (0.01, 0.02), (0.02, 0.01), (0.005, 0.02)])
def test_without_doubt_over_images_it_is_the_paired_t_test(effect, sd):
    expected = TTestPower().solve_power(effect / sd, power=0.8, alpha=0.05, alternative="two-sided")
    assert power.splits_to_detect(effect, sd) == np.ceil(expected)
    both_sides = TTestPower().power(effect / sd, 7, 0.05)  # a little more, as the wrong side counts
    assert power.power(7, effect, sd) == pytest.approx(both_sides, abs=0.007)


@pytest.mark.parametrize("n, sd_images", [(5, 0.004), (12, 0.004), (12, 0.001)])
def test_planned_power_is_what_contrasts_have(n, sd_images):
    rng, sd, effect, hits = np.random.default_rng(0), 0.012, 0.012, 0
    for _ in range(1500):
        differences = effect + sd_images * rng.normal() + sd * rng.normal(size=n)
        draws = sd_images * rng.normal(size=400)
        hits += contrast(differences, draws, 10**6).interval[0] > 0
    assert hits / 1500 == pytest.approx(power.power(n, effect, sd, sd_images), abs=0.045)


def test_width_by_hand_and_where_only_test_images_help():
    assert power.half_width(4, 0.02) == pytest.approx(3.182 * 0.01, abs=1e-4)
    n = power.splits_for_width(0.01, 0.02)
    assert power.half_width(n, 0.02) <= 0.01 < power.half_width(n - 1, 0.02)
    assert power.splits_for_width(0.01, 0.02, sd_images=0.006) is None
    assert power.splits_to_detect(0.01, 0.02, sd_images=0.006) is None
    assert power.splits_for_width(0.01, 0.0) == 2


def test_undecided_sentence():
    draws = 0.001 * np.random.default_rng(0).normal(size=1000)
    found = contrast([0.02, -0.01, 0.012, -0.004], draws, 10**6)
    n = power.splits_for_width(0.01, np.std([0.02, -0.01, 0.012, -0.004], ddof=1), 0.001)
    low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in found.interval)
    assert power.undecided_sentence(found) == (
        f"no detectable difference ({low}, {high}); about {n - 4} more splits for ±1")
    assert power.undecided_sentence(contrast([0.0, 0.004, 0.002], draws, 10**6)).endswith(", known to ±1")
    wide = contrast([0.0, 0.001], 30 * draws, 10**6)
    assert power.undecided_sentence(wide).endswith("times the test images, too")
    assert "not known how many more" in power.undecided_sentence(contrast([0.0], draws, 10**6))
    assert "too few" in power.undecided_sentence(contrast([0.0], draws, 0))


def summary_of(differences, **more):
    return {"family": "between arms", "metric": "balanced_accuracy", "group": "all", "protocol": "linear",
            "budget": 0.1, "test": "paired t over splits with bootstrap over images", "n_pairs": len(differences),
            "differences": " ".join(map(str, differences)), "low_images": -0.002, "high_images": 0.002} | more


def test_variances_are_pooled_and_pairs_of_seeds_left_out():
    rows = [summary_of([0.01, 0.03]), summary_of([0.0, 0.0]),
            summary_of([0.5, 0.1], test="paired t over seeds with bootstrap over images"), summary_of([0.4])]
    found = power.planned(pd.DataFrame(rows), 0.01)
    assert found.sd.tolist() == [pytest.approx(0.01)] and found.n.tolist() == [2]
    assert found.to_be_safe[0] > found.to_detect[0]


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    assert main(["plan", "longtail_fashion", "--detect", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("nothing of longtail_fashion has run") and said.count("\n") == 1
    assert main(["plan", "nowhere", "--detect", "1"]) == 2
    assert "there is no study 'nowhere'; params/studies holds " in capsys.readouterr().err
    (tmp_path / "made").mkdir()
    rows = [summary_of([0.01, 0.03, 0.02]), summary_of([0.0, 0.03, 0.01], protocol="knn")]
    pd.DataFrame(rows).to_csv(tmp_path / "made" / "summary.csv")
    assert main(["plan", "made", "--detect", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "to detect 0.5" in said and "Also read by: knn" in said and len(said.splitlines()) == 7, said
    assert main(["plan", "made", "--protocol", "none"]) == 2
    assert capsys.readouterr().err == "made has no contrast read by 'none'; it has: linear, knn\n"
    assert main(["plan", "made", "--detect", "0"]) == 2
    assert "--detect 0: " in capsys.readouterr().err
