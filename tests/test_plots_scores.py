"""ROC and precision–recall curves of stored scores, and how far scores move from few labels to many."""

import numpy as np
import pandas as pd
import pytest
from made_study import CLASSES
from scipy.stats import ks_2samp
from sklearn.metrics import average_precision_score, roc_auc_score
from test_plots_systems import drawn_well, said_well, table_of
from test_plots_systems import style as style  # a fixture of every test

from ssl_core.analysis import plots_scores
from ssl_core.evaluate.heads import rows_of, stored
from ssl_core.evaluate.metrics import Predictions
from ssl_core.table import to_csv


@pytest.fixture
def cell(tmp_path):
    """Writes a cell as a run does → its path."""
    def write(name, p, y, task="binary", classes=("neg", "pos"), groups=None, val=(None, None)):
        test = Predictions(p, y, classes, task, groups=groups)
        np.savez(tmp_path / f"{name}.npz", **stored(test, {}, {}, val))
        (tmp_path / f"{name}.csv").write_text(to_csv(rows_of(test, 0, 50)), encoding="utf-8")
        return tmp_path / f"{name}.npz"

    return write


def binary(n=80, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    p = 1 / (1 + np.exp(-(2 * y - 1) - rng.normal(size=n)))
    return np.c_[1 - p, p], y


def test_roc_of_test_and_validation_has_the_stored_area_and_its_clustered_interval(cell):
    (p, y), (p_val, y_val) = binary(), binary(40, 1)
    path = cell("one", p, y, groups=np.arange(80) // 4, val=(p_val, y_val))
    frame = plots_scores.roc_frame({"MAE": path})
    area = frame.groupby(["part", "curve"])[["area", "low", "high", "n"]].first()
    assert area.loc[("test", "roc"), "area"] == pytest.approx(roc_auc_score(y, p[:, 1]))
    assert area.loc[("val", "roc"), "area"] == pytest.approx(roc_auc_score(y_val, p_val[:, 1]))
    assert area.loc[("val", "precision_recall"), "area"] == pytest.approx(average_precision_score(y_val, p_val[:, 1]))
    rows = pd.read_csv(path.with_suffix(".csv")).query("part == 'test' and metric == 'roc_auc'")
    assert area.loc[("test", "roc"), ["low", "high"]].tolist() == pytest.approx(rows[["low", "high"]].iloc[0].tolist())
    assert np.isnan(area.loc[("val", "roc"), "low"]) and area.n.tolist() == [80, 80, 40, 40]
    curve = frame[(frame.part == "test") & (frame.curve == "roc")]
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(roc_auc_score(y, p[:, 1]))
    fig = drawn_well(plots_scores.plot_rocs(frame))
    assert fig.axes[0].get_xlabel() == "1 − specificity" and fig.axes[1].get_xlabel() == "recall"
    legend = [text.get_text() for text in fig.axes[0].get_legend().get_texts()]
    low, high = rows[["low", "high"]].iloc[0]
    assert legend[0] == f"MAE, test: {roc_auc_score(y, p[:, 1]):.2f} [{low:.2f}, {high:.2f}]"
    assert "[" not in legend[1]
    table = table_of([{"metric": "roc_auc", "interval": "clusters", "low": 0.6}, {"interval": "images", "low": 0.6}])
    said = said_well(plots_scores.caption_roc(frame, table))
    assert f"80 test images with {y.sum()} positives" in said and "95 % interval over clusters." in said


def test_roc_of_several_classes_is_of_each_against_the_rest_and_leaves_out_one_without_images(cell):
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 3, 90), rng.dirichlet(np.ones(4), 90)
    frame = plots_scores.roc_frame({"MAE": cell("m", p, y, "multiclass", ("a", "b", "c", "d"))})
    assert list(dict.fromkeys(frame.group)) == ["a", "b", "c"]
    legend = plots_scores.plot_roc(frame).get_legend_handles_labels()[1]
    assert [text[:2] for text in legend] == ["a:", "b:", "c:"]
    assert "each class against the rest: MAE" in plots_scores.caption_roc(frame, table_of([{}]))
    assert frame[(frame.group == "b") & (frame.curve == "roc")].area.iloc[0] == pytest.approx(
        roc_auc_score(y == 1, p[:, 1]))
    y = rng.integers(-1, 2, (90, 2))
    frame = plots_scores.roc_frame({"MAE": cell("l", p[:, :2], y, "multilabel", ("a", "b"))})
    assert frame.groupby("group").n.first().tolist() == (y >= 0).sum(0).tolist()
    assert not len(plots_scores.roc_frame({}))


def test_one_figure_of_curves_takes_fewest_labels_of_the_first_split(cell):
    paths = {name: cell(name, *binary()) for name in ("mae", "simclr")}
    cells = table_of([{"series": name, "budget": budget, "draw_seed": draw, "key": name} for name in paths
                      for budget in (1.0, 0.1) for draw in (0, 1)]).assign(path=None)
    cells["path"] = [paths[name] if budget == 0.1 and not draw else paths["mae"]
                     for name, budget, draw in zip(cells.series, cells.budget, cells.draw_seed)]
    assert plots_scores.cells_to_draw(cells) == paths
    many = cell("many", np.full((20, 5), 0.2), np.arange(20) % 5, "multiclass", CLASSES)
    assert plots_scores.cells_to_draw(cells.assign(path=many), "simclr") == {"simclr": many}
    assert plots_scores.cells_to_draw(cells[:0]) == {}


def test_ks_is_between_fewest_and_most_labels_on_the_same_images(cell):
    (few, y), (most, _) = binary(), binary(seed=5)
    paths = {0.01: cell("few", few, y), 50: cell("mid", few, y), 1.0: cell("most", most, y)}
    labels = {0.01: 60, 50: 500, 1.0: 6000}  # 50 of each class are fewer than all
    cells = table_of({"budget": b, "n_labelled": labels[b], "draw_seed": draw} for draw in (0, 1) for b in paths)
    cells["path"] = [paths[b] for b in cells.budget]
    frame = plots_scores.ks_frame(cells)
    expected = np.mean([ks_2samp(few[:, c], most[:, c]).statistic for c in (0, 1)])
    assert frame.ks.tolist() == pytest.approx([expected] * 2)
    assert frame[["few", "all", "n"]].iloc[0].tolist() == [0.01, 1.0, 80]
    ax = plots_scores.plot_ks(frame)
    drawn_well(ax.figure)
    assert ax.get_yticklabels()[0].get_text() == "MAE (balanced), linear probe" and ax.get_xlim()[0] == 0
    said = said_well(plots_scores.caption_ks(frame, cells))
    assert "with 1 % and with 100 % of the labels" in said and "same 80 test images" in said and "splits" in said
    assert not len(plots_scores.ks_frame(cells[cells.budget == 1]))
    assert not len(plots_scores.ks_frame(cells.assign(test_set=cells.budget.astype(str))))
