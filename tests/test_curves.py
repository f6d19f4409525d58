"""Response curves: planted slopes are found over splits, a bend shows as a held-out error, gaps leave a split out."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from made_study import FREQUENCY, MadeStudy

from ssl_core.analysis import contrasts, curves

RATIOS = (1, 10, 100, 1000)
TABLE = pd.DataFrame({"study": ["made"], "dataset": ["made"], "synthetic": [True]})


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
    frame, summary = study(falling)
    assert list(summary.columns) == contrasts.COLUMNS
    found, errors = (summary[summary.family == family].set_index("metric") for family in curves.FAMILIES)
    assert found.effect["balanced_accuracy"] == pytest.approx(-0.09, abs=0.003)
    assert found.effect["recall"] == pytest.approx(-0.15, abs=0.005)
    assert (found.low < found.effect).all() and (found.high < 0).all() and (found.p_adjusted >= found.p).all()
    # over splits alone the doubt is that of a mean of three slopes, however many points each line goes through
    least = 4.303 * 0.0125 / np.sqrt(3)
    assert found.high["balanced_accuracy"] - found.effect["balanced_accuracy"] >= 0.95 * least
    assert len(frame) == 2 * len(RATIOS) and set(frame.n_splits) == {3} and set(frame.along) == {"ratio"}
    assert len(errors) == len(frame) and errors.effect.abs().max() < 0.02  # a line predicts what it was not shown
    assert errors.ratio["recall"].tolist() == list(RATIOS) and found.ratio.isna().all()
    assert "changes by −9" in found.sentence["balanced_accuracy"] and "few images" in found.sentence["recall"]
    assert "at 1:10, predicted from the other levels: no detectable error (" in errors.sentence.iloc[1]


def test_a_shift_common_to_a_split_does_not_widen_its_slope(study):
    def shifted(draw, ratio):
        return 0.7 + 0.0125 * draw - 0.05 * np.log10(ratio)

    row = study(shifted)[1].iloc[0]
    assert row.effect == pytest.approx(-0.05, abs=0.002) and row.high - row.effect < 0.02


def test_a_bend_shows_as_error_at_the_ratio_that_was_held_out(study):
    frame, summary = study(lambda draw, ratio: 0.8 if ratio < 1000 else 0.4, draws=(0, 1))
    frame = frame[frame.metric == "balanced_accuracy"].set_index("x")
    assert frame.outside.to_dict() == {1: True, 10: False, 100: False, 1000: True}
    errors = summary[(summary.family == curves.FAMILIES[1]) & (summary.metric == "balanced_accuracy")]
    errors = errors.set_index("ratio")
    assert errors.effect[1000] == pytest.approx(0.4) and errors.low[1000] > 0.2
    assert "at 1:1,000, predicted from the other levels, beyond them: 40.0 points too high" in errors.sentence[1000]
    assert frame.predicted[1000] == pytest.approx(0.8) and frame["mean"][1000] == pytest.approx(0.4)
    # by hand: the line through 0.8, 0.8, 0.4 at log 0, 1, 3 stands at 0.5857 for 2
    assert errors.effect[100] == pytest.approx(np.polyval(np.polyfit([0, 1, 3], [0.8, 0.8, 0.4], 1), 2) - 0.8)


def test_splits_without_every_level_are_left_out_and_counted(study):
    frame, _ = study(falling, leave_out={(2, 10)})
    assert set(frame.n_splits) == {2} and set(frame.n_left_out) == {1}
    assert "at most 1 of a curve" in curves.caption_curves(frame, TABLE)
    two = study(falling, draws=(3,), leave_out={(3, 10), (3, 100)}, name="two")  # two levels are no curve
    assert not len(two[0]) and not len(two[1])


def test_seeds_are_averaged_and_one_split_has_images_only(study):
    row = study(falling, draws=(1,), seeds=(0, 1))[1].iloc[0]
    assert row.n_pairs == 1 and row.effect == pytest.approx(-0.09, abs=0.005) and row.low < row.effect
    assert "one split, test images only" in row.sentence and len(row["keys"].split("+")) == 8


def test_labels_are_an_axis_too(study):
    frame, _ = study(lambda draw, ratio: lambda protocol, budget: 0.6 + 0.1 * np.log10(budget), (0,),
                     budgets=(0.02, 0.2, 1.0))
    rows = frame[(frame.along == "budget") & (frame.metric == "balanced_accuracy") & (frame.held == "1:100")]
    assert rows.x.tolist() == [10, 100, 500]
    assert rows.slope.iloc[0] == pytest.approx(0.1, abs=0.005)


def test_figure_has_a_line_for_each_curve_on_a_log_axis(study):
    frame, _ = study(falling, draws=(1,))
    drawn = curves.to_draw(frame, "ratio")
    ax, = curves.plot_curve_panels(drawn).axes
    assert "SimCLR: −9" in ax.get_legend().get_texts()[0].get_text()
    assert "bars, and in brackets: 95 %" in curves.caption_curves(drawn, TABLE)
    assert "95 %" not in curves.caption_curves(drawn.assign(low=np.nan), TABLE)
    assert ax.get_xscale() == "log" and ax.get_ylabel() == "balanced accuracy in %"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1:1", "1:10", "1:100", "1:1k"]
    drawn = [line for line in ax.lines if len(line.get_xdata()) == 4 and line.get_linestyle() == "-"]
    assert np.diff(drawn[0].get_ydata()) == pytest.approx([-9, -9, -9], abs=0.3)
    plt.close("all")
