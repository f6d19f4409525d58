"""A planted drop, none, and a gain; pairs that are there on both sides only; families; like with like."""

import re

import numpy as np
import pandas as pd
import pytest
from made_study import BALANCED, IMBALANCED, TWIN, MadeStudy, with_cost
from statsmodels.stats.multitest import multipletests

from ssl_core.analysis import contrasts, grid
from ssl_core.analysis.compare import points

COST = "cost of imbalance"
PLANTED = {"drop": 0.1, "none": 0, "gain": -0.1}


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    return tmp_path


def summarised(made):
    jobs, table = made.write()
    return contrasts.summary_of(contrasts.cells_of(table, jobs), resamples=100)


def cost_of(summary, metric="balanced_accuracy"):
    return summary[(summary.family == COST) & (summary.metric == metric)].iloc[0]


def test_the_same_code_finds_a_planted_drop_none_and_a_gain(outputs):
    drops, same, gains = (summarised(with_cost(outputs, cost, name=name)) for name, cost in PLANTED.items())
    found = dict(zip(PLANTED.values(), map(cost_of, (drops, same, gains))))
    for cost, row in found.items():
        assert row.effect == pytest.approx(cost, abs=1e-9) and row.low <= cost <= row.high
    drop, none, gain = (row.sentence for row in found.values())
    assert drop.startswith("Pretraining SimCLR on 1:100 costs 10.0 points of balanced accuracy against as many "
                           "balanced images (+")
    assert none.startswith("Pretraining SimCLR on 1:100 or on as many balanced images: no detectable difference (−")
    assert "(balanced minus imbalanced is 0.0 points of balanced accuracy; 3 paired" in none
    assert gain.startswith("Pretraining SimCLR on 1:100 gains 10.0 points of balanced accuracy over as many balanced "
                           "images: balanced minus imbalanced is −10.0 (−")
    assert all(text.endswith("; 3 paired splits; linear probe, 100 % of the labels).") for text in (drop, none, gain))
    few = cost_of(drops, "recall")
    assert few.group == "few" and few.effect == pytest.approx(0.1)
    assert "10.0 points of recall of classes with few images" in few.sentence


def test_numbers_in_sentences_are_those_of_the_row(outputs):
    summary = summarised(with_cost(outputs, 0.06))
    assert list(summary.columns) == contrasts.COLUMNS
    for row in summary.itertuples():
        undecided = row.low <= 0 <= row.high
        interval = f"({points(row.low)}, {points(row.high)}); " if undecided else (
            f"({points(row.low)} to {points(row.high)}; {row.n_pairs} paired splits; ")
        assert interval in row.sentence and ("more splits for ±1 (" in row.sentence) == undecided
        assert points(abs(row.effect)).lstrip("+") in row.sentence
        assert np.mean([float(d) for d in row.differences.split()]) == pytest.approx(row.effect, abs=1e-5)
        assert len(row.differences.split()) == len(row.keys.split()) == row.n_pairs == 3
        assert f"; {row.n_pairs} paired splits; " in row.sentence and not re.search("significan|-", row.sentence)
        assert (row.low > 0) == ("costs" in row.sentence or "higher" in row.sentence)


def test_only_pairs_that_are_there_on_both_sides_enter_and_n_says_so(outputs):
    made = with_cost(outputs, 0.1, draws=(0, 2))
    made.trained("simclr", IMBALANCED, 0.1, draw=1)  # its twin failed: it must not move the mean
    made.trained("simclr", TWIN, 0.9, draw=1, why="failed: the loss was not finite")
    row = cost_of(summarised(made))
    assert row.n_pairs == 2 and row.n_left_out == 1 and row.effect == pytest.approx(0.1)
    assert "2 paired splits, 1 left out as only one side is there;" in row.sentence


def test_an_arm_that_is_missing_is_left_out_and_said(outputs):
    made = with_cost(outputs, 0.1, draws=(0,))
    made.trained("mae", BALANCED, 0.5, why="rests on mae-made-lt1-d0o0-s0, which runs")
    made.trained("simclr", BALANCED, 0.5, draw=1, why="failed: out of memory")
    made.floor("imagenet", None)
    jobs, table = made.write()
    summary = contrasts.summary_of(contrasts.cells_of(table, jobs), resamples=100)
    assert not summary.sentence.str.contains("MAE|ImageNet").any()
    assert grid.left_out(grid.rows_of(jobs, table)) == [
        "MAE (balanced): 1 of 1 cells not there yet", "SimCLR (balanced): 1 of 2 cells failed",
        "ImageNet: 1 of 1 cells not run: no weights at hand"]


def test_nothing_to_compare_is_an_empty_table_and_a_sentence(outputs):
    made = MadeStudy(outputs)
    made.trained("simclr", IMBALANCED, 0.5)
    summary = summarised(made)
    assert len(summary) == 0 and list(summary.columns) == contrasts.COLUMNS
    assert contrasts.answer(summary) == ["No pair of cells is complete yet, so nothing can be compared."]


def test_holm_adjusts_within_a_family(outputs):
    made = with_cost(outputs, 0.02)
    for draw in range(3):
        made.trained("mae", BALANCED, 0.65, draw)
    summary = summarised(made)
    assert set(summary.family) == set(contrasts.FAMILIES)
    for _, rows in summary.groupby("family"):
        assert np.allclose(rows.p_adjusted, multipletests(rows.p, method="holm")[1])
    p = pd.Series([0.01, np.nan, 0.04])
    assert contrasts.holm(p).tolist()[::2] == [0.02, 0.04] and np.isnan(contrasts.holm(p)[1])


def test_seeds_of_one_split_are_not_further_splits(outputs):
    """Two splits with opposite effects, each over five seeds: ten runs, but two pairs, and nothing to detect."""
    made = MadeStudy(outputs)
    for draw, cost in ((0, 0.1), (1, -0.1)):
        for seed in range(5):
            made.trained("simclr", IMBALANCED, 0.6, draw, seed)
            made.trained("simclr", TWIN, 0.6 + cost, draw, seed)
    row = cost_of(summarised(made))
    assert row.n_pairs == 2 and "2 paired splits" in row.sentence and ": no detectable difference (" in row.sentence
    assert row.differences == "0.10000 -0.10000" and row["keys"].count(":") == 10

    made = MadeStudy(outputs, "seeds")
    for seed in range(3):
        made.trained("simclr", IMBALANCED, 0.6 + 0.0125 * seed, 0, seed)
        made.trained("simclr", TWIN, 0.7, 0, seed)
    row = cost_of(summarised(made))
    assert row.n_pairs == 3 and "3 paired seeds" in row.sentence


def test_the_untrained_network_is_the_same_one(outputs):
    """Two networks of one timm name: each arm is compared with its own at the start, and no pair is counted twice."""
    made = MadeStudy(outputs)
    wide = {"encoder_args": {"channels": [64, 128]}}
    for draw in range(2):
        made.trained("simclr", BALANCED, 0.7, draw)
        made.trained("simclr_wide", BALANCED, 0.7, draw, **wide)
        made.floor("random", 0.5, draw)
        made.floor("random", 0.3, draw, **wide)
    rows = summarised(made)
    rows = rows[rows.family == "gain of pretraining"].set_index("arm")
    assert rows.effect.round(6).to_dict() == {"simclr": 0.2, "simclr_wide": 0.4} and set(rows.n_pairs) == {2}
    assert "higher than the same network, untrained (+" in rows.sentence["simclr"]


def test_fine_tuning_is_compared_with_the_same_network_from_scratch(outputs):
    made = MadeStudy(outputs)
    made.trained("simclr", BALANCED, 0.7, protocols=("finetune",))
    made.floor("supervised", 0.6, protocols=("finetune",))
    made.floor("supervised_weighted", 0.1, protocols=("finetune",))
    row = summarised(made).iloc[0]
    assert row.effect == pytest.approx(0.1) and row.against == "the same network, supervised from scratch"


def test_one_split_cannot_tell_how_many_more_it_takes(outputs):
    row = cost_of(summarised(with_cost(outputs, 0, draws=(0,))))
    assert "; of one split, so that it is not known how many more ±1 needs (" in row.sentence and row.n_pairs == 1


def test_what_rests_on_too_few_images_has_no_interval(outputs):
    made = with_cost(outputs, 0.1, draws=(0,))
    jobs, table = made.write()
    test = contrasts.predictions(contrasts.cells_of(table, jobs).path.iloc[0])
    assert contrasts.units_behind(test, contrasts.BALANCED) == contrasts.units_behind(test, contrasts.FEW) == 80
    object.__setattr__(test, "groups", np.arange(400) // 20)  # four groups of each class
    assert contrasts.units_behind(test, contrasts.BALANCED) == 0
    object.__setattr__(test, "groups", np.arange(400) // 8)
    assert contrasts.units_behind(test, contrasts.BALANCED) == 10


def test_the_answer_leads_with_the_cost_and_says_once_how_it_was_read(outputs):
    made = with_cost(outputs, 0.1)
    for draw in range(3):
        made.trained("mae", BALANCED, 0.5, draw, budgets=(0.01,), protocols=("knn", "linear"))
        made.trained("simclr", BALANCED, 0.6, draw, budgets=(0.01,), protocols=("knn", "linear"))
        made.trained("simclr", IMBALANCED, 0.6, draw, budgets=(0.01,), protocols=("knn", "linear"))
        made.trained("simclr", TWIN, 0.6, draw, budgets=(0.01,), protocols=("knn", "linear"))
    lines = contrasts.answer(summarised(made))
    assert "balanced images: no detectable difference (" in lines[0] and "linear probe, 1 % of" in lines[0]
    assert not any("linear" in line or "kNN" in line for line in lines[1:])
    assert lines[-1] == ("Contrasts told from zero, by themselves and by Holm's rule: cost of imbalance, 2 and 2 of 6; "
                         "gain of pretraining, 3 and 3 of 3; between arms, 2 and 2 of 2.")
    assert lines[2].startswith("MAE (balanced) scores 10.0 points of balanced accuracy lower than SimCLR (balanced) (−")
