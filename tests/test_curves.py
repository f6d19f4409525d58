"""Response curves: planted slopes are found over splits, a bend shows as a held-out error, gaps leave a split out."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from made_study import FREQUENCY, MadeStudy

from ssl_core.analysis import contrasts, curves

RATIOS = (1, 10, 100, 1000)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Makes the cells of a study: accuracy by draw and ratio."""
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("SSL_CORE_ROOT", str(tmp_path))

    def make(accuracy, draws=(0, 1, 2), leave_out=(), seeds=(0,), budgets=(1.0,), name="made"):
        made = MadeStudy(tmp_path / "outputs", name)
        for draw in draws:
            for seed in seeds:
                for ratio in RATIOS:
                    if (draw, ratio) not in leave_out:
                        of = accuracy(draw, ratio)
                        made.trained("simclr", {"ratio": ratio}, of, draw, seed, budgets)
        jobs, table = made.write()
        return curves.response_curves(contrasts.cells_of(table, jobs), resamples=60)

    return make


def falling(draw, ratio):
    """Five points a tenfold, one more or less by split, and 15 for the classes with few images."""
    return [0.8 - (0.05 + 0.0125 * (draw - 1) + 0.1 * (name == "few")) * np.log10(ratio) for name in FREQUENCY]


def test_slopes_over_splits_and_of_the_few(study):
    frame = study(falling)
    found = curves.slopes(frame).set_index("metric")
    assert found.slope["balanced_accuracy"] == pytest.approx(-0.09, abs=0.003)
    assert found.slope["recall"] == pytest.approx(-0.15, abs=0.005)
    assert (found.slope_low < found.slope).all() and (found.slope_high < 0).all()
    # over splits alone the doubt is that of a mean of three slopes, however many points each line goes through
    least = 4.303 * 0.0125 / np.sqrt(3)
    assert found.slope_high["balanced_accuracy"] - found.slope["balanced_accuracy"] >= 0.95 * least
    assert len(frame) == 2 * len(RATIOS) and set(frame.n_splits) == {3} and set(frame.along) == {"ratio"}
    assert frame.error.abs().max() < 0.02  # a straight line predicts what it was not shown
    assert "changes by −9" in found.sentence["balanced_accuracy"] and "few images" in found.sentence["recall"]


def test_a_shift_common_to_a_split_does_not_widen_its_slope(study):
    def shifted(draw, ratio):
        return 0.7 + 0.0125 * draw - 0.05 * np.log10(ratio)

    row = curves.slopes(study(shifted)).iloc[0]
    assert row.slope == pytest.approx(-0.05, abs=0.002) and row.slope_high - row.slope < 0.02


def test_a_bend_shows_as_error_at_the_ratio_that_was_held_out(study):
    frame = study(lambda draw, ratio: 0.8 if ratio < 1000 else 0.4, draws=(0, 1))
    frame = frame[frame.metric == "balanced_accuracy"].set_index("x")
    assert frame.outside.to_dict() == {1: True, 10: False, 100: False, 1000: True}
    assert frame.error[1000] == pytest.approx(0.4) and frame.error_low[1000] > 0.2
    assert frame.predicted[1000] == pytest.approx(0.8) and frame["mean"][1000] == pytest.approx(0.4)
    # by hand: the line through 0.8, 0.8, 0.4 at log 0, 1, 3 stands at 0.5857 for 2
    assert frame.error[100] == pytest.approx(np.polyval(np.polyfit([0, 1, 3], [0.8, 0.8, 0.4], 1), 2) - 0.8)


def test_splits_without_every_level_are_left_out_and_counted(study):
    frame = study(falling, leave_out={(2, 10)})
    assert set(frame.n_splits) == {2} and set(frame.n_left_out) == {1}
    assert "at most 1 of a curve" in curves.caption_curves(frame)
    assert not len(study(falling, draws=(3,), leave_out={(3, 10), (3, 100)}, name="two"))  # two levels are no curve


def test_seeds_are_averaged_and_one_split_has_images_only(study):
    frame = study(falling, draws=(1,), seeds=(0, 1))
    row = curves.slopes(frame).iloc[0]
    assert row.n_splits == 1 and row.slope == pytest.approx(-0.09, abs=0.005) and row.slope_low < row.slope
    assert "one split, test images only" in row.sentence


def test_labels_are_an_axis_too(study):
    frame = study(lambda draw, ratio: lambda protocol, budget: 0.6 + 0.1 * np.log10(budget), (0,),
                  budgets=(0.02, 0.2, 1.0))
    rows = frame[(frame.along == "budget") & (frame.metric == "balanced_accuracy") & (frame.held == "1:100")]
    assert rows.x.tolist() == [10, 100, 500]
    assert rows.slope.iloc[0] == pytest.approx(0.1, abs=0.005)


def test_figure_has_a_line_for_each_curve_on_a_log_axis(study):
    frame = study(falling, draws=(1,))
    ax = curves.plot_curves(frame[frame.metric == "balanced_accuracy"])
    assert ax.get_xscale() == "log" and ax.get_ylabel() == "balanced accuracy in %"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1:1", "1:10", "1:100", "1:1,000"]
    drawn = [line for line in ax.lines if len(line.get_xdata()) == 4 and line.get_linestyle() == "-"]
    assert np.diff(drawn[0].get_ydata()) == pytest.approx([-9, -9, -9], abs=0.3)
    plt.close("all")
