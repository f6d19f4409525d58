"""P(best): equals the one-sided t test for two arms, needs pairs, is not fooled by equal arms more than it says."""

import re

import numpy as np
import pandas as pd
import pytest
from made_study import MadeStudy
from scipy.stats import ttest_rel

from ssl_core.analysis import contrasts
from ssl_core.analysis.best import SAME, best_in, best_of, table_caption, table_html


def frame(values):
    return pd.DataFrame(values, columns=[f"arm{i}" for i in range(np.shape(values)[1])])


@pytest.mark.parametrize("seed", range(3))
def test_of_two_arms_it_is_the_paired_one_sided_t_test(seed):
    rng = np.random.default_rng(seed)
    values = 0.7 + 0.1 * rng.normal(size=(5, 1)) + 0.01 * rng.normal(size=(5, 2)) + [0.01, 0]
    p = ttest_rel(values[:, 0], values[:, 1], alternative="less").pvalue
    assert best_of(frame(values)).p_best.tolist() == pytest.approx([p, 1 - p], abs=0.012)


def test_pairing_counts_and_splits_that_an_arm_lacks_are_left_out():
    shared, own = np.array([[0.5], [0.6], [0.7], [0.8]]), np.array([[0, 0.02], [0, 0.021], [0, 0.019], [0, 0.02]])
    values = frame(shared + own)
    found = best_of(values)
    assert found.bold.tolist() == [False, True] and found.p_best[1] > 0.99
    values.loc[3, "arm0"] = np.nan
    assert best_of(values)[["n_splits", "n_left_out"]].values.tolist() == [[3, 1]] * 2
    assert best_of(frame([[0.5, 0.6]]), np.zeros((10, 2))).p_best.isna().all()  # one split says nothing of others
    assert best_of(values, np.zeros((10, 2)), units=0).p_best.isna().all()
    assert best_of(frame([[0.5, 0.5]] * 3)).p_best.tolist() == [0, 0]  # a tie has no winner


def test_doubt_about_test_images_lowers_it():
    values = frame([[0.70, 0.72], [0.70, 0.721], [0.70, 0.719]])
    independent = np.random.default_rng(0).normal(0, 0.03, (500, 2))
    assert best_of(values).bold[1] and not best_of(values, independent, 200).bold[1]
    together = np.repeat(independent[:, :1], 2, 1)  # hard images are hard for both, and cancel
    assert best_of(values, together, 200).p_best[1] == pytest.approx(best_of(values).p_best[1], abs=0.01)


@pytest.mark.parametrize("n_arms, least, most", [(2, 0.05, 0.15), (5, 0, 0.05)])
def test_equal_arms_have_one_in_bold_no_more_often_than_said(n_arms, least, most):
    rng = np.random.default_rng(1)
    tables = [best_of(frame(rng.normal(size=(5, n_arms))), n_draws=2000).bold.any() for _ in range(300)]
    assert least <= np.mean(tables) <= most


def test_best_of_a_study(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("SSL_CORE_ROOT", str(tmp_path))
    made = MadeStudy(tmp_path / "outputs")
    for draw in range(3):
        for arm, accuracy in (("simclr", 0.6), ("bcl_i", [0.6, 0.6, 0.6, 0.9, 0.9]), ("sdclr", 0.6)):
            made.trained(arm, {"ratio": 100}, np.array(accuracy) + 0.0125 * (draw - 1), draw)
    jobs, table = made.write()
    found = best_in(contrasts.cells_of(table, jobs), 60)
    assert found[found.bold].arm.tolist() == ["BCL-I (1:100)"] * 2
    assert set(found.metric) == {"balanced_accuracy", "recall"} and set(found.n_splits) == {3}
    assert found.groupby("metric").p_best.sum().between(0.9, 1).all()
    accuracy = found[found.metric == "balanced_accuracy"]
    text = table_html(accuracy)
    assert text.count("<b>") == 1 and "<th>BCL-I (1:100)</th><td><b>72.0</b></td>" in text
    assert "3 splits. Bold: the best" in table_caption(accuracy)
    assert "none is bold" in table_caption(accuracy.assign(n_splits=1))
    assert "there is none" in table_caption(accuracy.assign(bold=False)) and "<b>" not in table_html(
        accuracy.assign(bold=False))


def test_arms_compete_only_where_they_were_pretrained_on_the_same_data(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("SSL_CORE_ROOT", str(tmp_path))
    made = MadeStudy(tmp_path / "outputs")
    seen = [({"ratio": 1}, 0.5), ({"ratio": 1, "split_kind": "natural"}, 0.9), ({"ratio": 1, "dataset": "other"}, 0.7),
            ({"ratio": 100}, 0.3), ({"ratio": 100, "twin": "same_n"}, 0.95)]
    for draw in range(3):
        for about, share in seen:
            for arm, more in (("simclr", 0.05), ("lotar", 0.0)):
                made.trained(arm, about, share + more + 0.0125 * (draw - 1), draw, evaluate_on="made")
    jobs, table = made.write()
    found = best_in(contrasts.cells_of(table, jobs), 60)
    found = found[found.metric == "balanced_accuracy"]
    assert found.groupby(SAME, sort=False).size().tolist() == [2] * 4  # twins are nobody's competitors
    assert found[found.bold].arm.str.startswith("SimCLR").tolist() == [True] * 4
    assert set(zip(found.pretrain_dataset, found.split_kind, found.ratio)) == {
        ("made", "long_tail", 1), ("made", "natural", 1), ("other", "long_tail", 1), ("made", "long_tail", 100)}
    text = table_html(found)
    assert re.findall("pretrained on ([^<]+)", text) == ["balanced", "1:100", "natural", "other, balanced"]
    assert text.count("<b>") == 4 and text.count("<tr><th>SimCLR") == 4
    assert "pretrained on" not in table_html(found[found.ratio == 100])
