"""Where features lie: equations on planted features, and whether a planted tail is told."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from test_plots_systems import drawn_well, said_well

from ssl_core.analysis import plots, plots_calibration, plots_geometry
from ssl_core.analysis.geometry import (
    alignment,
    detection,
    neighbours,
    over_splits,
    rare_auroc,
    scatter,
    spread_of_features,
    uniformity,
)

RNG = np.random.default_rng(0)
CLASSES, FREQUENCY = ("ant", "bee", "cat", "dog"), ("many", "many", "medium", "few")


def test_alignment_and_uniformity_are_those_of_wang_and_isola():
    z = RNG.normal(size=(9, 4))
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    pairs = [np.exp(-2 * ((a - b) ** 2).sum()) for i, a in enumerate(u) for b in u[:i]]
    assert uniformity(7 * z) == pytest.approx(np.log(np.mean(pairs)))
    assert uniformity(np.ones((5, 3))) == pytest.approx(0) and alignment(z, 3 * z) == pytest.approx(0)
    assert alignment(z, -z) == pytest.approx(4) and alignment(z, -z, alpha=1) == pytest.approx(2)
    assert spread_of_features(np.eye(4)[[0, 1, 2, 3] * 5], np.eye(4)[[0, 1, 2, 3] * 5])["effective_rank"] == (
        pytest.approx(3, abs=1e-3))  # four corners of a simplex span three directions


def test_scatter_is_within_over_between_and_nc1_its_trace():
    h, labels = RNG.normal(size=(400, 6)) + 3 * np.eye(6)[np.repeat([0, 1, 2, 3], 100)], np.repeat([0, 1, 2, 3], 100)
    h[labels == 3] += 2 * RNG.normal(size=(100, 6))  # the rare class is the widest
    found = scatter(h, labels, CLASSES, FREQUENCY).set_index("group")
    means = np.stack([h[labels == c].mean(0) for c in range(4)])
    within = sum(np.cov(h[labels == c].T, bias=True) for c in range(4)) / 4
    between = np.cov(means.T, bias=True)
    assert found.nc1["all"] == pytest.approx(np.trace(within @ np.linalg.pinv(between, rcond=1e-9)) / 4)
    assert found.within["ant"] == pytest.approx(np.trace(np.cov(h[labels == 0].T, bias=True)))
    assert found.between["all"] == pytest.approx(np.trace(between))
    many = found.loc[["ant", "bee"]].sum(numeric_only=True)
    assert found.spread["many"] == pytest.approx(many["within"] / many["between"])
    assert found.spread["few"] > 2 * found.spread["many"] and found.nc1["few"] > 2 * found.nc1["many"]
    moved = scatter(5 * h + 1, labels, CLASSES, FREQUENCY).set_index("group")
    np.testing.assert_allclose(moved[["spread", "nc1"]], found[["spread", "nc1"]])
    assert not len(scatter(h[:3], np.array([0, 1, -1]), CLASSES))


def test_means_over_splits_have_a_t_interval_and_one_split_has_none():
    rows = pd.DataFrame({"series": ["a"] * 4 + ["b"], "draw_seed": [0, 0, 1, 2, 0], "order_seed": 0,
                         "ratio": [1., 3, 4, 6, 9]})
    a, b = over_splits(rows, ["series"], "ratio").itertuples()
    assert (a.mean, a.n, b.mean, b.n) == (4, 3, 9, 1) and np.isnan(b.low)
    assert a.high - a.mean == pytest.approx(4.303 * 2 / 3 ** 0.5, rel=1e-3)


def test_neighbours_are_the_nearest_by_angle_and_know_their_class():
    bank = np.array([[1., 0], [0, 2], [-1, 0], [3, 3]])
    found = neighbours(np.array([[5., 1]]), bank, [7], np.array([7, 8, 9, 7]), k=3)
    assert found.neighbour.tolist() == [0, 3, 1] and found.same.tolist() == [True, True, False]


def test_auroc_of_rarity_is_that_of_sklearn_and_holds_its_truth():
    scores, rare = np.round(RNG.normal(size=300), 1), RNG.random(300) < 0.2
    assert rare_auroc(scores, rare)[0] == pytest.approx(roc_auc_score(rare, scores))
    held = []
    for _ in range(300):
        low, high = rare_auroc(np.concatenate([RNG.normal(1, 1, 30), RNG.normal(0, 1, 90)]), np.arange(120) < 30)[1:]
        held.append(low <= 0.7602 <= high)  # Φ(1 / √2)
    assert 0.9 < np.mean(held) < 0.985
    assert np.isnan(rare_auroc(scores, rare & False)).all()
    assert np.isnan(rare_auroc(scores, np.arange(300) == 7)[1:]).all()  # one rare image: a value without an interval


def test_a_planted_tail_is_told_by_its_view_distance():
    labels = np.array([0] * 40 + [1] * 20 + [2] * 10 + [3] * 5 + [-1])
    distance = np.stack([np.zeros(76), labels + 0.0]).astype(np.float16)
    distance[1, 0] = np.nan
    found = detection({"epochs": np.array([1, 9]), "distance": distance}, labels, FREQUENCY)
    assert found.value.tolist() == [0.5, 1] and found.n.tolist() == [75, 74] and set(found.n_rare) == {5}


# --- figures ----------------------------------------------------------------------------------------------------------

@pytest.fixture
def style():
    with plt.rc_context():
        plots.use_style()
        yield
    plt.close("all")


TABLE = pd.DataFrame([{"study": "made", "dataset": "cells", "synthetic": True}])
RUN = {"dataset": "cells", "series": "SimCLR (1:100)", "arm": "simclr", "ratio": 100.0, "twin": "none",
       "network": "net", "draw_seed": 0, "order_seed": 0}


def test_figures_of_geometry_are_drawn_well_and_say_their_numbers(style):
    h, labels = RNG.normal(size=(200, 6)) + 2 * np.eye(6)[np.arange(200) % 4], np.arange(200) % 4
    runs = [RUN, RUN | {"draw_seed": 1}, RUN | {"series": "SimCLR (balanced)", "ratio": 1.0}]
    spread = pd.concat([scatter(h, labels, CLASSES, FREQUENCY).assign(**run) for run in runs])
    drawn_well(plots_geometry.plot_scatters(spread))
    assert "200 test images" in said_well(plots_geometry.caption_scatter(spread, TABLE))
    lie = pd.DataFrame([run | spread_of_features(h, h + 0.1 * i) | {"n": 200} for i, run in enumerate(runs)])
    drawn_well(plots_geometry.plot_alignment(lie).figure)
    assert "200 test images by the recipe weak" in said_well(plots_geometry.caption_alignment(lie, TABLE, "weak"))
    kept = {"epochs": np.array([1, 5]), "distance": RNG.normal(size=(2, 200)), "memory": RNG.normal(size=(2, 200))}
    told = detection(kept, labels, FREQUENCY).assign(run="a", series="BCL")
    fig = drawn_well(plots_geometry.plot_detections(told))
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["view distance", "memory of the loss"]
    (ax,) = drawn_well(plots_geometry.plot_detection(told[told.epoch == 5]).figure).axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["BCL, view distance", "BCL, memory of the loss"]
    assert "200 pretraining images, 50 of them" in said_well(plots_geometry.caption_detection(told, TABLE))


def test_neighbours_panel_starts_with_rare_classes_and_names_those_of_another_class(style):
    h, labels = RNG.normal(size=(40, 6)), np.arange(40) % 4
    at = plots_geometry.queries(labels, FREQUENCY, most=3)
    assert labels[at].tolist() == [3, 2, 0]
    near = neighbours(h, h[::-1], labels, labels[::-1], k=4)
    share = plots_geometry.shares(near, labels, FREQUENCY)
    assert share["few"] == pytest.approx(near.same[near["query"] % 4 == 3].mean()) and list(share)[0] == "all"
    images = RNG.integers(0, 255, (80, 1, 8, 8)).astype(np.uint8)
    data = SimpleNamespace(images=images, labels=np.r_[labels, labels[::-1]], classes=CLASSES)
    pools = SimpleNamespace(test=np.arange(40), labelled=np.arange(40, 80))
    frame = plots_geometry.neighbour_frame(near, at, data, pools, FREQUENCY)
    asked, first = frame[frame["rank"] == 0], near[near["query"] == at[0]]
    assert list(asked.frequency) == ["few", "medium", "many"] and list(asked["class"]) == ["dog", "cat", "ant"]
    assert list(asked.picture) == [plots.as_text(images[i]) for i in at]
    mine = frame[(frame["query"] == 0) & (frame["rank"] > 0)]
    assert list(mine.picture) == [plots.as_text(images[40 + i]) for i in first.neighbour]
    (ax,) = drawn_well(plots_geometry.plot_neighbours(frame).figure).axes
    assert len(ax.patches) == len(ax.texts) == (~frame.same).sum() and "(few)" in ax.get_yticklabels()[0].get_text()
    assert "the 4 labelled images" in said_well(plots_geometry.caption_neighbours(frame, share, TABLE))


def test_calibration_is_grouped_by_the_class_that_is_named(style, tmp_path):
    labels = RNG.integers(0, 4, 4000)
    sure = np.where(RNG.random(4000) < 0.7, labels, (labels + 1) % 4)  # right in seven of ten
    p = np.full((4000, 4), 0.1)
    p[np.arange(4000), sure] = 0.7
    p[sure == 3] = [0.01, 0.01, 0.01, 0.97]  # the rare class is named with too much confidence
    np.savez(tmp_path / "cell.npz", probabilities=p, labels=labels, classes=CLASSES, task="multiclass",
             groups=np.arange(4000), frequency=FREQUENCY)
    row = RUN | {"protocol": "linear", "budget": 1.0, "n_labelled": 900, "stage": "probe", "pretrain_dataset": "cells",
                 "path": tmp_path / "cell.npz"}
    frame = plots_calibration.reliability_frame(pd.DataFrame([
        row, row | {"budget": 50, "n_labelled": 200, "path": "none"}, row | {"protocol": "knn", "path": "none"},
        row | {"protocol": "knn", "series": "MAE (1:100)", "arm": "mae"}]))
    assert frame.groupby("series").protocol.unique().map(list).to_dict() == {"SimCLR (1:100)": ["linear"],
                                                                             "MAE (1:100)": ["knn"]}
    whole = plots_calibration.reliability_table(frame).set_index(["series", "group"]).loc["SimCLR (1:100)"]
    assert whole.over["few"] == pytest.approx(0.27, abs=0.05) and whole.over_low["few"] > 0.2
    assert abs(whole.over["many"]) < 0.05 and whole.n.sum() == 4000
    assert whole.ece["few"] == pytest.approx(whole.over["few"])
    drawn_well(plots_calibration.plot_reliabilities(frame))
    assert "linear" in said_well(plots_calibration.caption_reliability(frame, TABLE))
    assert not len(plots_calibration.reliability_frame(pd.DataFrame([row])[:0]))
    twice = plots_calibration.reliability_frame(pd.DataFrame([row, row | {"draw_seed": 1}]))  # the same images again
    once = frame[frame.series == "SimCLR (1:100)"]
    assert twice.n.tolist() == (2 * once.n).tolist() and twice.n_splits.eq(2).all()
    for end in ("low", "high", "over_low", "over_high"):  # are no narrower
        np.testing.assert_allclose(twice[end], once[end], atol=1e-4)
    assert "4,000 test images in each of 2 splits" in plots_calibration.caption_reliability(twice, TABLE)
