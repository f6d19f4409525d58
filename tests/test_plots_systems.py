"""Figures of the published systems: the numbers that are drawn, what axes and captions say, and thin or empty input."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from made_study import CLASSES, FREQUENCY
from matplotlib.colors import to_rgb
from test_plots import texts_of

from ssl_core.analysis import plots, plots_curves, plots_embedding, plots_layers, plots_ratio, plots_study
from ssl_core.table import COLUMNS

RATIOS, BUDGETS = (1, 10, 100, 10_000), (0.01, 0.1, 1.0)
LAYERS = ("layer1", "layer2", "layer10", "h")
ROW = {"study": "made", "pretrain_dataset": "cells", "dataset": "cells", "synthetic": True, "twin": "none", "ratio": 1,
       "split_kind": "category_ratio", "draw_seed": 0, "order_seed": 0, "seed": 0, "budget_seed": 0, "stage": "probe",
       "protocol": "linear", "budget": 1.0, "part": "test", "layer": "", "group_kind": "all", "group": "all", "n": 400,
       "metric": "balanced_accuracy", "arm": "mae", "test_set": "t", "interval": "bootstrap", "total": 12_000,
       "series": "MAE (balanced)", "network": "vit"}


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def table_of(rows):
    return pd.DataFrame([ROW | row for row in rows], columns=[*COLUMNS, "total", "series", "network"])


def drawn_well(fig, least=6):
    """Nothing cut off, and letters of a size that can be read at the width of a column or page."""
    fig.canvas.draw()
    width, height = fig.canvas.get_width_height()
    assert fig.get_figwidth() <= plots.PAGE
    for text, box in texts_of(fig):
        assert -1 <= box.x0 and box.x1 <= width + 1 and -1 <= box.y0 and box.y1 <= height + 1, text.get_text()
        assert text.get_fontsize() >= least
    return fig


def said_well(caption):
    assert caption.endswith("Synthetic images (cells). Made by: python -m ssl_core run params/studies/made.yaml")
    return caption


# --- accuracy by ratio and budget -------------------------------------------------------------------------------------

def ratio_table(metrics=("balanced_accuracy", "accuracy"), draws=(0, 1)):
    return table_of({"ratio": ratio, "budget": budget, "metric": metric, "draw_seed": draw, "protocol": protocol,
                     "value": 0.9 - 0.1 * r - 0.05 * (metric == "accuracy") + 0.02 * draw, "low": 0.4, "high": 0.99}
                    for r, ratio in enumerate(RATIOS) for budget in BUDGETS for metric in metrics for draw in draws
                    for protocol in ("linear", "finetune"))


def test_accuracy_by_ratio_and_budget_says_how_many_positives_there_were():
    table = ratio_table()
    drawn = plots_ratio.ratio_levels(table)
    assert dict(zip(drawn.ratio, drawn.n_pos)) == {1: 6000, 10: 1091, 100: 119, 10_000: 1}
    one = drawn[(drawn.metric == "accuracy") & (drawn.protocol == "linear")]
    assert one[one.budget == 0.1]["mean"].tolist() == pytest.approx([0.86, 0.76, 0.66, 0.56])  # over two draws
    ax = plots_ratio.plot_ratios(one)
    assert ax.get_xscale() == "log" and ax.get_ylabel() == "accuracy in %"
    ticks = [tick.get_text() for tick in ax.get_xticklabels()]
    assert ticks == ["1:1 (6,000)", "1:10 (1,091)", "1:100 (119)", "1:10,000 (1)"]
    assert [text.get_text() for text in plots_ratio.plot_ratio_grid(one).texts][4:8] == ["86", "76", "66", "56"]
    for grid in (False, True):
        fig = drawn_well(plots_ratio.plot_ratio_panels(drawn, "accuracy", grid))
        assert [ax.get_title(loc="left") for ax in fig.axes[:2]] == ["MAE, linear probe", "MAE, fine-tuned"]
    for caption in (plots_ratio.caption_ratios, plots_ratio.caption_ratio_grid):
        said = said_well(caption(drawn, table, "accuracy"))
        assert "12,000" in said and "2 splits" in said and "400 test images" in said and said.startswith("Accuracy")


def test_grids_of_several_arms_are_equal_and_their_numbers_can_be_read():
    arms = (("mae", "linear"), ("mae", "finetune"), ("simclr", "linear"), ("simclr", "knn"), ("rotnet", "knn"))
    table = table_of({"ratio": ratio, "budget": budget, "arm": arm, "protocol": protocol, "value": 0.5 + 0.011 * i + b}
                     for arm, protocol in arms for i, ratio in enumerate((1, 5, 10, 50, 100, 500, 1000, 5000, 10_000))
                     for budget, b in zip((0.01, 1.0), (0, 0.4)) if (arm, ratio, budget) != ("rotnet", 5, 1.0))
    drawn = plots_ratio.ratio_levels(table)
    fig = drawn_well(plots_ratio.plot_ratio_panels(drawn, grid=True))
    *panels, bar = fig.axes
    assert len(panels) == 5 and bar.get_ylabel() == "balanced accuracy in %"
    assert len({tuple(np.round(ax.get_position().size, 6)) for ax in panels}) == 1
    for ax in panels:
        rows = drawn[[f"{plots_ratio.words(row.arm)}, {plots_ratio.words(row.protocol)}" == ax.get_title(loc="left")
                      for row in drawn.itertuples()]].sort_values(["budget", "ratio"], ascending=[False, True])
        assert [text.get_text() for text in ax.texts] == [f"{100 * value:.0f}" for value in rows["mean"]]
        for text in ax.texts:
            ground = ax.collections[0].to_rgba(float(text.get_text()))
            light = [np.array(to_rgb(colour)) ** 2.2 @ (0.2126, 0.7152, 0.0722)
                     for colour in (text.get_color(), ground)]
            assert (max(light) + 0.05) / (min(light) + 0.05) > 4.4
    shown = [[t.get_text() for t in ax.get_xticklabels() if t.get_visible()] for ax in panels]
    assert [len(ticks) for ticks in shown] == [0, 0, 0, 9, 9]  # below the lowest of each column
    assert shown[4][:3] == ["1:1\n6k", "1:5\n2k", "1:10\n1.1k"] and shown[4][-1] == "1:10k\n1"
    boxes = sorted((box.x0, box.x1) for text, box in texts_of(fig) if "\n" in text.get_text() and box.y0 < 200)
    assert all(left[1] < right[0] for left, right in zip(boxes, boxes[1:]))
    assert "Below each ratio: positives among the 12,000" in plots_ratio.caption_ratio_grid(drawn, table)


def test_ratios_of_a_long_tail_have_no_positives_and_what_is_missing_stays_empty():
    table = table_of([{"split_kind": "long_tail", "ratio": ratio, "budget": budget, "value": 0.5, "total": 0}
                      for ratio, budget in ((1, 0.1), (100, 0.1), (1, 1.0))] + [{"ratio": 100, "value": np.nan}])
    drawn = plots_ratio.ratio_levels(table)
    assert len(drawn) == 3 and drawn.n_pos.isna().all()
    ax = plots_ratio.plot_ratio_grid(drawn)
    assert [text.get_text() for text in ax.texts] == ["50"] * 3  # of four cells
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1:1", "1:100"]
    assert "bracket" not in plots_ratio.caption_ratio_grid(drawn, table)
    drawn_well(plots_ratio.plot_ratios(drawn[:1]).figure)
    assert not len(plots_ratio.ratio_levels(table[:0]))


def test_several_totals_are_not_averaged_but_drawn_apart():
    table = table_of([{"ratio": 10, "total": total, "value": total / 20_000} for total in (2000, 12_000)])
    drawn = plots_ratio.ratio_levels(table)
    assert drawn[["total", "mean", "n_pos"]].values.tolist() == [[2000, 0.1, 182], [12_000, 0.6, 1091]]
    titles = [ax.get_title(loc="left") for ax in plots_ratio.plot_ratio_panels(drawn).axes]
    assert titles == ["MAE, linear probe, N = 2,000", "MAE, linear probe, N = 12,000"]


# --- t-SNE and UMAP ---------------------------------------------------------------------------------------------------

def clusters(n=120, noise=0.5):
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1, 2], n // 3))
    return 4 * np.eye(8)[labels] + noise * rng.normal(size=(n, 8)), labels


def test_tsne_is_of_normalised_rows_the_same_each_time_and_prints_its_divergence():
    x, labels = clusters()
    frame = plots_embedding.embed_2d(x, labels, seed=3, classes=("a", "b", "c"))
    scaled = plots_embedding.embed_2d(x * np.linspace(1, 9, len(x))[:, None], labels, seed=3, classes=("a", "b", "c"))
    np.testing.assert_allclose(frame[["x", "y"]], scaled[["x", "y"]], rtol=1e-3, atol=1e-2)
    assert frame.attrs["kl"] > 0 and frame.attrs["n"] == 120 and frame.attrs["perplexity"] == 30
    centres = frame.groupby("label")[["x", "y"]].mean()
    nearest = [centres.index[((centres - row[["x", "y"]].astype(float)) ** 2).sum(axis=1).argmin()]
               for _, row in frame.iterrows()]
    assert np.mean(nearest == frame.label) > 0.95
    ax = plots_embedding.plot_embedding(frame)
    assert ax.get_title(loc="left") == f"KL {frame.attrs['kl']:.2f}, n = 120" and len(ax.collections) == 3


def test_umap_keeps_classes_together_and_follows_from_the_seed():
    x, labels = clusters()
    one, same, other = (plots_embedding.embed_2d(x, labels, seed, how="UMAP") for seed in (3, 3, 4))
    np.testing.assert_array_equal(one[["x", "y"]], same[["x", "y"]])
    assert np.abs(one.x - other.x).max() > 0.1 and np.isnan(one.attrs["kl"]) and one.attrs["how"] == "UMAP"
    centres = one.groupby("label")[["x", "y"]].mean()
    far = np.linalg.norm(one[["x", "y"]].to_numpy()[:, None] - centres.to_numpy(), axis=2)
    assert np.mean(centres.index.to_numpy()[far.argmin(1)] == one.label) > 0.95


def test_tsne_takes_classes_equally_often_and_refuses_what_cannot_be_embedded():
    labels = np.r_[np.zeros(90), np.ones(9), -np.ones(50)].astype(int)
    at = plots_embedding.balanced_sample(labels, most=40, seed=1)
    assert np.bincount(labels[at]).tolist() == [20, 9] and (np.diff(at) > 0).all()
    for features, given, message in ((np.ones((9, 4)), np.zeros(9, int), "9 images, all features alike"),
                                     (np.eye(3), np.zeros(3, int), "3 images, give at least 4"),
                                     (np.zeros((0, 3)), np.zeros(0, int), "0 images"),
                                     (np.eye(5), np.zeros((5, 2), int), "several labels")):
        with pytest.raises(ValueError, match=message):
            plots_embedding.embed_2d(features, given)


def test_tsne_of_training_and_test_stand_side_by_side_for_h_and_for_the_first_linear_layer(tmp_path):
    x, labels = clusters(60)
    head = {"mean": x.mean(0), "scale": x.std(0), "weight": np.eye(3, 8), "bias": np.arange(3.0)}
    z = plots_embedding.first_linear(head, x)
    np.testing.assert_allclose(z, ((x - x.mean(0)) / x.std(0))[:, :3] + np.arange(3))
    hidden = head | {"hidden_weight": np.eye(5, 8), "hidden_bias": np.ones(5)}
    np.testing.assert_allclose(plots_embedding.first_linear(hidden, x), ((x - x.mean(0)) / x.std(0))[:, :5] + 1)
    (tmp_path / "cells").mkdir()
    for budget, weight in ((0.1, 0), (1.0, 1)):
        np.savez(tmp_path / "cells" / f"linear-b{budget:g}-s0.npz", about="{}",
                 **{f"head/{name}": array * weight for name, array in head.items()})
    np.savez(tmp_path / "cells" / "token-b1-s0.npz", about='{"features": "token"}', **{"head/scale": 5})
    cells = [{"id": f"{name}-b{b:g}-s0", "budget": b} for b in (0.1, 1.0) for name in ("token", "linear")]
    np.testing.assert_array_equal(plots_embedding.largest_head(tmp_path, cells)["bias"], head["bias"])
    sides = {"training": slice(30), "test": slice(30, 60)}
    frames = {f"{space}, {side}": plots_embedding.embed_2d(y[at], labels[at])
              for space, y in (("h", x), ("logits", z)) for side, at in sides.items()}
    fig = drawn_well(plots_embedding.plot_embeddings(frames))
    assert [ax.get_title(loc="left").split("\nKL")[0] for ax in fig.axes] == list(frames)
    assert plots_embedding.embedding_data(frames).groupby("panel").kl.nunique().eq(1).all()
    assert "30 images a panel, 3 classes" in said_well(plots_embedding.caption_embedding(frames, table_of([{}])))


# --- layers -----------------------------------------------------------------------------------------------------------

def layer_table(metric="balanced_accuracy", **more):
    return table_of({"layer": layer, "metric": metric, "budget": budget, "value": 0.5 + 0.1 * i, "low": 0.4 + 0.1 * i,
                     "high": 0.6 + 0.1 * i, "series": series, "arm": series} | more
                    for i, layer in enumerate(LAYERS) for budget in BUDGETS for series in ("moco", "moco_mse"))


def test_layer_probe_curve_goes_from_input_to_output_at_the_ends_of_the_budgets():
    table = pd.concat([layer_table(protocol="layers"), table_of([{"value": 0.99}])], ignore_index=True)
    drawn = plots_layers.layer_levels(table)
    assert list(dict.fromkeys(drawn.layer)) == list(LAYERS)  # 10 after 2, the output last
    assert drawn["mean"].max() == pytest.approx(0.8)  # the row of no layer is no layer's
    fig = drawn_well(plots_layers.plot_layer_panels(drawn))
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["1 % of the labels", "100 % of the labels"]
    assert fig.axes[0].get_ylabel() == "balanced accuracy in %"
    assert [tick.get_text() for tick in fig.axes[0].get_xticklabels()] == list(LAYERS)
    line = fig.axes[0].containers[0].lines[0]
    assert line.get_ydata().tolist() == pytest.approx([50, 60, 70, 80])
    assert "400 test images" in said_well(plots_layers.caption_layers(drawn, table))
    for rows in (table[:0], table[table.layer == ""]):
        assert not len(plots_layers.layer_levels(rows))
    one = plots_layers.layer_levels(table[:1].assign(low=np.nan, high=np.nan))
    drawn_well(plots_layers.plot_layers(one).figure)


def test_scores_rise_over_layers_in_one_figure_and_over_fractions_of_the_labels_in_the_other():
    table = table_of({"budget": budget, "n_labelled": 4000 * budget, "arm": arm, "series": arm, "value": value + more,
                      "low": value, "high": value + 0.2} for budget, value in zip(BUDGETS, (0.5, 0.6, 0.7))
                     for arm, more in (("moco", 0.0), ("moco_mse", 0.1)))
    table = pd.concat([table[::-1], layer_table(protocol="layers")], ignore_index=True)
    fractions = drawn_well(plots_study.plot_budgets(plots_study.levels(table))).axes[0]
    assert [[round(y) for y in drawn.lines[0].get_ydata()] for drawn in fractions.containers] == [
        [50, 60, 70], [60, 70, 80]]
    assert [tick.get_text() for tick in fractions.get_xticklabels()] == ["1 %", "10 %", "100 %"]
    layers = plots_layers.plot_layer_panels(plots_layers.layer_levels(table)).axes[0]
    assert [round(y) for y in layers.containers[0].lines[0].get_ydata()] == [50, 60, 70, 80]
    assert [tick.get_text() for tick in layers.get_xticklabels()] == list(LAYERS)


def test_cka_by_layer_has_both_kernels_on_an_axis_from_0_to_1():
    table = pd.concat([layer_table(name, stage="finetune", protocol="finetune", low=np.nan, high=np.nan, n=300)
                       for name in plots_layers.KERNELS], ignore_index=True)
    drawn = plots_layers.cka_levels(table)
    assert len(drawn) == 2 * len(table) // 2 and set(drawn.metric) == {"cka_linear", "cka_rbf"}
    fig = drawn_well(plots_layers.plot_layer_panels(drawn, plots_layers.plot_cka))
    assert [ax.get_ylabel() for ax in fig.axes[::2]] == ["linear CKA", "CKA, RBF kernel"]
    assert all(ax.get_ylim() == (-0.03, 1.03) for ax in fig.axes)
    said = said_well(plots_layers.caption_cka(drawn, table))
    assert "before and after" in said and "300 test images" in said and "no interval" in said
    assert not len(plots_layers.cka_levels(layer_table()))


# --- training ---------------------------------------------------------------------------------------------------------

def test_training_curves_of_loss_rate_and_accuracy_tell_training_from_validation():
    steps = np.arange(1, 6)
    fine = pd.DataFrame({"epoch": steps, "step": 10 * steps, "loss": 1 / steps, "lr": 0.1, "val_log_loss": 2 / steps,
                         "accuracy": 0.5, "val_accuracy": [0.4, np.nan, 0.5, 0.5, 0.6], "images_per_s": 7})
    probe = fine[["epoch", "lr", "loss"]].rename(columns={"loss": "val_loss"}).assign(loss=3.0)
    frame = plots_curves.training_frame({"1 %": fine, "100 %": probe})
    value = frame.set_index(["run", "quantity", "part", "step"]).value.sort_index()
    assert value["1 %", "loss", "val", 20] == 1 and value["100 %", "loss", "val", 2] == 0.5
    assert len(value["1 %", "accuracy", "val"]) == 4 and "images_per_s" not in set(frame.quantity)
    fig = drawn_well(plots_curves.plot_training(frame))
    assert [ax.get_ylabel() for ax in fig.axes] == ["loss", "accuracy", "learning rate"]
    labels = {line.get_label(): line.get_markerfacecolor() for line in fig.axes[0].lines}
    assert sorted(labels) == ["1 %", "1 %, validation", "100 %", "100 %, validation"]
    assert {label for label, face in labels.items() if face == "none"} == {"1 %, validation", "100 %, validation"}
    assert plots_curves.training_table({"1 %": fine})[["run", "step", "lowest_loss", "at_epoch"]].values.tolist() == [
        ["1 %", 50, 0.2, 5]]
    assert "2 runs" in said_well(plots_curves.caption_training(frame, table_of([{}])))
    assert not len(plots_curves.training_frame({}))
    drawn_well(plots_curves.plot_training(plots_curves.training_frame({"one": fine[:1]})))


def test_view_distance_and_weight_are_means_by_class_and_by_frequency():
    labels = np.array([0, 0, 1, 2, 3, 4])
    kept = {"epochs": np.array([1, 5]), "distance": np.array([[1, 3, 5, 7, 9, np.nan]] * 2, np.float16),
            "weight": np.ones((2, 6), np.float16)}
    frame = plots_curves.view_frame(kept, labels, CLASSES, FREQUENCY)
    distance = frame[frame.quantity == "distance"].set_index(["by", "group", "epoch"])
    assert distance.loc[("class", "ant", 5), "mean"] == 2 and distance.loc[("frequency", "many", 1), "mean"] == 3
    assert distance.loc[("frequency", "many", 1), "n"] == 3 and ("class", "eel", 1) not in distance.index
    half = 1.96 * np.std([1, 3, 5], ddof=1) / 3 ** 0.5
    assert distance.loc[("frequency", "many", 1), "high"] == pytest.approx(3 + half)
    fig = drawn_well(plots_curves.plot_view_panels(frame))
    assert [ax.get_ylabel() for ax in fig.axes] == ["view distance ‖z₁ − z₂‖", "weight"] * 2
    assert "5 pretraining images" in said_well(plots_curves.caption_views(frame, table_of([{}])))
    frame = plots_curves.view_frame(kept | {"memory": kept["distance"] / 2}, labels, CLASSES, FREQUENCY)
    assert frame[(frame.quantity == "memory") & (frame.group == "ant")]["mean"].tolist() == [1, 1]
    assert drawn_well(plots_curves.plot_view_panels(frame)).axes[2].get_ylabel() == "memory of the loss"
    caption = said_well(plots_curves.caption_views(frame, table_of([{}]), pruned=True))
    assert "memory of its loss" in caption and "pruned network" in caption
