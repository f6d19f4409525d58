"""Figures from planted frames: artists hold the frame's numbers, and axes, captions, alt texts and files say them."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from test_plots_systems import drawn_well, said_well
from test_plots_systems import style as style  # a fixture of every test

from benchmarks.figures import name_of
from ssl_core.analysis import attribution, curves, figures, layout, panel, plots, plots_embedding, plots_study
from ssl_core.analysis import plots_calibration as calibration
from ssl_core.analysis import plots_curves as training
from ssl_core.analysis import plots_geometry as geometry
from ssl_core.analysis import plots_layers as layers

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame([{"study": "made", "dataset": "cells", "synthetic": True, "n": 400, "metric": "cka_linear"}])
ARMS = {"SimCLR (1:100)": "simclr", "LoTaR (1:100)": "lotar", "BCL (1:100)": "bcl"}
GROUPS = ("many", "medium", "few")


def series(name):
    return {"dataset": "cells", "series": name, "arm": ARMS[name], "ratio": 100.0, "twin": "none", "network": "net"}


def interval(scale=1.0):
    """A mean, and an interval around it that is not symmetric."""
    mean = RNG.uniform(0.3, 0.7)
    return {"mean": scale * mean, "low": scale * (mean - RNG.uniform(0.01, 0.1)),
            "high": scale * (mean + RNG.uniform(0.01, 0.1))}


def planted_layers(metric):
    about = {"metric": metric, "budget": 1.0, "n": 3, "protocol": "layers"}
    return pd.DataFrame([about | series(name) | interval() | {"layer": at} for name in ARMS for at in ("layer1", "h")])


def planted_response():
    lines = []
    for name in ARMS:
        slope = {"slope": 0.08, "slope_low": 0.05, "slope_high": 0.11} | series(name)
        about = {"along": "budget", "pretrain_dataset": "cells", "split_kind": "long_tail", "protocol": "linear",
                 "held": "1:100", "metric": "balanced_accuracy", "group": "all", "n_splits": 5, "n_left_out": 0}
        lines += [slope | about | interval() | {"x": x, "n_images": 400} for x in (10, 100, 1000)]
    return pd.DataFrame(lines)


def planted_chain():
    effects, common = (0.05, -0.02, 0.03), {"against": "first", "budget": 1.0, "n_images": 400, "n_pairs": 3}
    rows = [common | {"what": "last", "effect": e, "low": e - 0.04, "high": e + 0.01} for e in effects]
    changes = ["lr 1 → 2", "batch 64 → 128", "all together"]
    return pd.DataFrame(rows).assign(start=[0, 5, 0], end=[5, 3, 3], change=changes)


def planted_views():
    return pd.DataFrame([{"quantity": quantity, "by": by, "group": group, "epoch": epoch, "n": 50} | interval(2)
                         for quantity in ("distance", "memory") for epoch in (1, 5, 9)
                         for by, groups in (("frequency", GROUPS), ("class", ("ant", "bee"))) for group in groups])


def planted_spread():
    return pd.DataFrame([series(name) | {"draw_seed": draw, "order_seed": 0, "group_kind": "frequency" if g else "all",
                                         "group": group, "spread": RNG.uniform(1, 3), "nc1": RNG.uniform(0, 1), "n": 90}
                         for name in ARMS for draw in range(3) for g, group in enumerate(("all", *GROUPS))])


def planted_detection(epochs):
    rows = [{"series": name, "run": f"{name}{run}", "epoch": epoch} | interval()
            for name in ARMS for run in range(2) for epoch in epochs]
    return pd.DataFrame(rows).rename(columns={"mean": "value"}).assign(quantity="loss", n=500, n_rare=20)


def planted_embedding(how):
    frames = {}
    for title in ("h, training", "h, test"):
        frame = pd.DataFrame(RNG.normal(size=(30, 2)), columns=["x", "y"]).assign(label=["ant", "bee", "cat"] * 10)
        frame.attrs = {"how": how, "kl": 0.5 if how == "t-SNE" else np.nan, "perplexity": 9.0, "n": 30}
        frames[title] = frame
    return frames


def picture():
    return RNG.integers(0, 256, (3, 8, 8), dtype=np.uint8)


def planted_neighbours():
    rows = [{"query": q, "rank": rank, "same": rank != 2, "class": "bee" if rank == 2 else "ant",
             "frequency": "few", "picture": plots.as_text(picture())} for q in range(2) for rank in range(4)]
    return pd.DataFrame(rows)


def planted_reconstructions():
    quality = pd.DataFrame(RNG.uniform(0.2, 0.9, (6, 8)), columns=[
        f"{what}{of}" for what in ("psnr", "ssim") for of in ("", "_floor", "_pasted", "_reconstruction")])
    return panel.pictured({name: [picture() for _ in range(6)] for name in panel.COLUMNS}, quality, rows=2)


def planted_calibration():
    return pd.DataFrame([series(name) | {
        "group": group, "bin": b, "confidence": b / 15, "accuracy": 0.5 + b / 40, "low": 0.4, "high": 0.95, "n": 20,
        "protocol": "linear", "budget": 1.0, "n_splits": 2} for name in ARMS for group in GROUPS for b in (8, 10, 14)])


def planted_training(arms=13):
    return training.training_frame({f"arm {i}": pd.DataFrame({
        "step": [1, 50, 100], "loss": RNG.uniform(i, i + 1, 3), "lr": [0.1, 0.05, 0]}) for i in range(arms)})


CAPTIONS = {
    "response": curves.caption_curves, "chain": attribution.caption_attribution, "layers": layers.caption_layers,
    "cka": layers.caption_cka, "views": training.caption_views, "rare": geometry.caption_detection,
    "spread": geometry.caption_scatter, "calibration": calibration.caption_reliability,
    "alignment": lambda frame, table: geometry.caption_alignment(frame, table, "weak"),
    "training": training.caption_training,
    "neighbours": lambda frame, table: geometry.caption_neighbours(frame, {"all": 0.75}, table),
    "reconstructions": lambda frame, table: panel.caption_reconstructions(frame, table, True)}


def caption_of(name, frame):
    if name in CAPTIONS:
        return CAPTIONS[name](frame, TABLE)
    return plots_embedding.caption_embedding(plots_embedding.frames_of(frame), TABLE)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """{name: frame as its CSV gives it back}."""
    folder = tmp_path_factory.mktemp("figures")
    alignment = pd.DataFrame([series(name) | {"draw_seed": d, "order_seed": 0, "n": 256, "alignment": RNG.uniform(),
                                              "uniformity": -RNG.uniform(1, 3)} for name in ARMS for d in range(3)])
    frames = {"response": planted_response(), "chain": planted_chain(), "layers": planted_layers("balanced_accuracy"),
              "cka": planted_layers("cka_linear"), "views": planted_views(), "spread": planted_spread(),
              "alignment": alignment, "calibration": planted_calibration(), "training": planted_training(),
              "rare": planted_detection([7]), "neighbours": planted_neighbours(),
              "reconstructions": planted_reconstructions()}
    frames |= {name: plots_embedding.embedding_data(planted_embedding(how)) for name, how in (("tsne", "t-SNE"),
                                                                                              ("umap", "UMAP"))}
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    return {name: pd.read_csv(folder / f"{name}.csv") for name in frames}


def figure(planted, name):
    made = figures.FIGURES[name].draw(planted[name])
    return drawn_well(made if isinstance(made, plt.Figure) else made.figure)


def bars_of(ax):
    """{label: (places, values, lows, highs)} of what stands with error bars on one axis, along y, or else along x."""
    found = {}
    for bars in ax.containers:
        line, _, (ends,) = bars.lines
        across = bars.has_xerr
        ends = np.array([segment[:, 0 if across else 1] for segment in ends.get_segments()]).reshape(-1, 2)
        at, value = np.array(line.get_data(), float)[::(-1 if across else 1)]
        found.setdefault(bars.get_label(), []).append((at, value, ends[:, 0], ends[:, 1]))
    return {label: [np.concatenate(one) for one in zip(*many)] for label, many in found.items()}


def agree(drawn, rows, scale=1, value="mean"):
    for found, column in zip(drawn[1:], (value, "low", "high")):
        np.testing.assert_allclose(found, scale * rows[column], err_msg=column)


def ticks(axis):
    return [" ".join(tick.get_text().split()) for tick in axis.get_ticklabels()]


# --- one figure, its numbers ------------------------------------------------------------------------------------------

def test_response_shows_means_intervals_lines_and_slopes(planted):
    fig, frame = figure(planted, "response"), planted["response"]
    (ax,) = fig.axes
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [f"{name}: +8.0 (+5.0 to +11.0)" for name in ("SimCLR", "LoTaR", "BCL")]
    lines = [line for line in ax.lines if len(line.get_xdata()) == 3 and line.get_linestyle() != "None"]
    for drawn, line, name in zip(bars_of(ax).values(), lines, ARMS):
        rows = frame[frame.series == name]
        agree(drawn, rows, 100)
        height = rows["mean"].mean() + 0.08 * (np.log10(rows.x) - np.log10(rows.x).mean())
        np.testing.assert_allclose(line.get_ydata(), 100 * height)
    assert ticks(ax.xaxis) == ["10", "100", "1k"] and ax.get_xscale() == "log"
    assert "means over 5 splits" in caption_of("response", frame) and "400 test images" in caption_of("response", frame)


@pytest.mark.parametrize("name, scale, label", [("layers", 100, "balanced accuracy in %"), ("cka", 1, "linear CKA")])
def test_layers_are_drawn_from_input_to_output(planted, name, scale, label):
    (ax,) = figure(planted, name).axes
    assert ax.get_ylabel() == label and ticks(ax.xaxis) == ["layer1", "h"]
    for series, drawn in bars_of(ax).items():
        rows = planted[name][planted[name].series == series]
        agree(drawn, rows, scale)
        np.testing.assert_array_equal(drawn[0].round(), [0, 1])
    assert "3 splits" in caption_of(name, planted[name])


def test_a_chain_s_bars_start_where_the_one_before_ended(planted):
    (ax,) = figure(planted, "chain").axes
    frame = planted["chain"]
    assert [(bar.get_x(), round(bar.get_x() + bar.get_width(), 9)) for bar in ax.patches] == [(0, 5), (5, 3), (0, 3)]
    spans = [collection.get_segments()[0][:, 0] for collection in ax.collections
             if len(set(collection.get_segments()[0][:, 1])) == 1]
    np.testing.assert_allclose(spans, np.c_[100 * frame.low + frame.start, 100 * frame.high + frame.start])
    assert [text.get_text() for text in ax.texts] == ["+5.0", "−2.0", "+3.0"]
    up, down, unsure = (to_hex(bar.get_facecolor()) for bar in ax.patches)
    assert unsure == to_hex("0.85") and len({up, down, unsure}) == 3  # only the last one's interval holds zero
    assert ticks(ax.yaxis) == list(frame.change) and "3 paired splits" in caption_of("chain", frame)


def test_views_are_lines_with_bands_by_frequency_and_lines_by_class(planted):
    fig, frame = figure(planted, "views"), planted["views"]
    for ax, (by, quantity) in zip(fig.axes, [(by, q) for by in ("frequency", "class") for q in ("distance", "memory")]):
        rows = frame[(frame.by == by) & (frame.quantity == quantity)]
        for line in ax.lines:
            mine = rows[rows.group == line.get_label()]
            np.testing.assert_allclose(line.get_xydata(), mine[["epoch", "mean"]])
        assert len(ax.lines) == rows.group.nunique() and len(ax.collections) == 3 * (by == "frequency")
        for band, group in zip(ax.collections, GROUPS):
            mine = rows[rows.group == group]
            corners = {tuple(np.round(corner, 9)) for corner in band.get_paths()[0].vertices}
            assert corners == {(e, round(v, 9)) for column in ("low", "high") for e, v in zip(mine.epoch, mine[column])}
    assert "100 pretraining images" in caption_of("views", frame)


def test_many_panels_of_layers_fit_a_page(planted):
    one = planted["cka"]
    many = pd.concat([one.assign(dataset=name, metric=metric, budget=budget, protocol=f"finetune_{name}")
                      for name in "abc" for metric in layers.KERNELS for budget in (0.01, 1.0)])
    fig = layers.plot_layer_panels(many, layers.plot_cka)
    assert len(drawn_well(fig).axes) == 12 and fig.get_figheight() <= layout.TALLEST
    assert {ax.get_ylabel() for ax in fig.axes[::2]} == set(layers.KERNELS.values())
    plt.close(fig)


def test_rare_images_are_told_in_a_line_each_or_over_epochs(planted):
    (ax,) = figure(planted, "rare").axes
    frame = planted["rare"]
    agree([np.concatenate(one) for one in zip(*bars_of(ax).values())], frame, value="value")
    assert ticks(ax.yaxis) == [f"{name}, last loss" for name in ARMS] and "after the last epoch" in ax.get_xlabel()
    frame = planted_detection([1, 5, 9])
    short = frame[frame.epoch == 9].assign(epoch=10, n=100, value=0.99)  # an epoch cut short is not drawn
    fig = drawn_well(geometry.plot_detections(pd.concat([frame, short])))
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["last loss"]
    for ax, name in zip(fig.axes, ARMS, strict=True):
        assert ax.get_title(loc="left") == name
        agree(bars_of(ax)["last loss"], frame[frame.run == f"{name}0"], value="value")
    assert "20 of them" in caption_of("rare", frame)


def test_spread_has_a_line_for_each_series_and_a_mark_for_each_group(planted):
    fig, frame = figure(planted, "spread"), planted["spread"]
    for ax, metric in zip(fig.axes, geometry.SHOWN):
        assert ticks(fig.axes[0].yaxis) == list(ARMS) and ax.get_xlim()[0] == 0
        for group, drawn in bars_of(ax).items():
            rows = geometry.scatter_levels(frame, metric)
            rows = rows[rows.group == group]
            agree(drawn, rows)
            by_hand = frame[frame.group == group].groupby("series", sort=False)[metric].agg(["mean", "sem"])
            np.testing.assert_allclose(drawn[1], by_hand["mean"])
            np.testing.assert_allclose(drawn[3] - drawn[1], 4.3026527 * by_hand["sem"], rtol=1e-6)  # t, two degrees
            np.testing.assert_array_equal(drawn[0].round(), range(3))
    assert "3 splits" in caption_of("spread", frame) and "90 test images" in caption_of("spread", frame)


def test_alignment_has_small_dots_for_splits_and_a_large_one_for_their_mean(planted):
    (ax,) = figure(planted, "alignment").axes
    frame = planted["alignment"]
    for small, large, name in zip(ax.lines[::2], ax.lines[1::2], ARMS):
        rows = frame.loc[frame.series == name, ["uniformity", "alignment"]]
        np.testing.assert_allclose(small.get_xydata(), rows)
        np.testing.assert_allclose(large.get_xydata(), [rows.mean()])
        assert large.get_label() == name and small.get_markersize() < large.get_markersize()
    assert "256 test images" in caption_of("alignment", frame)


def test_calibration_has_a_panel_for_each_series_and_a_line_for_each_group(planted):
    fig, frame = figure(planted, "calibration"), planted["calibration"]
    assert [ax.get_title(loc="left") for ax in fig.axes] == list(ARMS)
    for ax, name in zip(fig.axes, ARMS):
        for group, drawn in bars_of(ax).items():
            rows = frame[(frame.series == name) & (frame.group == group)]
            agree(drawn, rows, value="accuracy")
            np.testing.assert_allclose(drawn[0], rows.confidence)
        assert list(bars_of(ax)) == list(GROUPS) and ax.get_ylim() == (-0.02, 1.02)
    assert "90 test images in each of 2 splits" in caption_of("calibration", frame)


def test_losses_of_many_arms_have_a_panel_each_and_their_rates_the_same_look(planted):
    fig, frame = figure(planted, "training"), planted["training"]
    *losses, rates = fig.axes
    assert [ax.get_title(loc="left") for ax in losses] == [f"arm {i}" for i in range(13)]
    for ax, name in zip(losses, frame.series.unique()):
        (line,) = ax.lines
        rows = frame[(frame.series == name) & (frame.quantity == "loss")]
        np.testing.assert_allclose(line.get_xydata(), rows[["step", "value"]])
        again = next(other for other in rates.lines if other.get_label() == name)
        assert (line.get_color(), line.get_marker()) == (again.get_color(), again.get_marker())
        np.testing.assert_allclose(again.get_ydata(), [0.1, 0.05, 0])
    assert len({(line.get_color(), line.get_marker()) for line in rates.lines}) == 13
    assert rates.get_ylabel() == "learning rate" and losses[0].get_ylabel() == "loss"
    assert "13 runs" in caption_of("training", frame) and "scale of its own" in caption_of("training", frame)


@pytest.mark.parametrize("name, how", [("tsne", "t-SNE"), ("umap", "UMAP")])
def test_embeddings_are_drawn_again_from_their_points(planted, name, how):
    fig, frame = figure(planted, name), planted[name]
    for ax, (title, rows) in zip(fig.axes, frame.groupby("panel", sort=False)):
        assert ax.get_title(loc="left") == f"{title}\n" + "KL 0.50, " * (how == "t-SNE") + "n = 30"
        assert ax.get_xlabel() == f"{how} 1"
        for dots, (label, mine) in zip(ax.collections, rows.groupby("label")):
            np.testing.assert_allclose(dots.get_offsets(), mine[["x", "y"]])
            assert dots.get_label() == label
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["ant", "bee", "cat"]
    said = caption_of(name, frame)
    assert said.startswith(how) and ("KL" in said) == (how == "t-SNE") and "30 images a panel" in said


def test_neighbours_are_the_pictures_of_the_frame_and_others_classes_are_framed_and_named(planted):
    (ax,) = figure(planted, "neighbours").axes
    frame = planted["neighbours"]
    assert len(ax.images) == 8 and [plots.as_text(np.asarray(picture.get_array()).transpose(2, 0, 1))
                                    for picture in ax.images] == list(frame.picture)
    assert ticks(ax.xaxis) == ["query", "1", "2", "3"] and ticks(ax.yaxis) == ["ant (few)"] * 2
    assert [round(box.get_x() + 0.475) for box in ax.patches] == [2, 2]
    assert [text.get_text() for text in ax.texts] == ["bee", "bee"]
    assert "all 75 %" in caption_of("neighbours", frame)


def test_reconstructions_are_the_pictures_of_the_frame_with_their_quality(planted):
    (ax,) = figure(planted, "reconstructions").axes
    frame = planted["reconstructions"]
    shown = frame.dropna(subset="original")
    assert len(shown) == 2 and [plots.as_text(np.asarray(one.get_array()).transpose(2, 0, 1)) for one in ax.images] == [
        text for row in shown[list(panel.COLUMNS)].to_numpy() for text in row]
    assert ticks(ax.xaxis) == list(panel.COLUMNS)
    assert ticks(ax.yaxis) == [f"{row.psnr:.1f} dB SSIM {row.ssim:.2f}" for row in shown.itertuples()]
    said = caption_of("reconstructions", frame)
    assert f"of 6 images not trained on: {frame.psnr.mean():.1f} dB" in said


# --- all of them ------------------------------------------------------------------------------------------------------

def test_each_is_saved_in_every_form_from_its_csv_at_both_widths(planted, tmp_path):
    kept = [name for name, one in figures.FIGURES.items() if one.reads.startswith("figures/")]
    assert not set(kept) - set(planted)
    (tmp_path / "figures").mkdir()
    for name in kept:
        planted[name].to_csv(tmp_path / "figures" / f"{name}.csv", index=False)
        (tmp_path / "figures" / f"{name}.txt").write_text(caption_of(name, planted[name]), encoding="utf-8")
        said_well(caption_of(name, planted[name]))
    told = figures.Told(tmp_path, {}, TABLE, None, None)
    for name in kept:
        assert figures.save(name, told) == [name]
        pdf = (tmp_path / "figures" / f"{name}.pdf").read_bytes()
        assert b"/FontFile2" in pdf and b"/Type3" not in pdf, name
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "figures" / f"{name}.csv"), planted[name])
        alt = (tmp_path / "figures" / f"{name}.alt.txt").read_text("utf-8")
        assert "Horizontal" in alt and alt.startswith(re.split("[.:;] ", caption_of(name, planted[name]))[0]), name
        ((file, fig, _, _),) = figures.drawings(name, told, "column")
        assert file == f"{name}_column" and drawn_well(fig).get_figwidth() == plots.COLUMN
        plt.close("all")


def test_figures_of_runs_that_are_gone_are_passed_over(planted, tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("views-here", "views-gone"):
        planted["views"].to_csv(tmp_path / "figures" / f"{name}.csv", index=False)
        (tmp_path / "figures" / f"{name}.txt").write_text("Views.", encoding="utf-8")
    told = figures.Told(tmp_path, {"k": {"name": "here"}}, TABLE, None, None)
    assert list(figures.FIGURES["views"].frames(told)) == ["-here"]


def test_captions_tell_real_images_from_synthetic_ones():
    table = pd.DataFrame({"study": "s", "dataset": ["fashion", "cells", "fashion"], "synthetic": [False, True, False]})
    assert plots_study.source(table).startswith("Real images (fashion). Synthetic images (cells). Made by: ")
    assert plots_study.source(table[table.synthetic]).startswith("Synthetic images (cells). Made by: ")


def test_each_figure_was_drawn_by_a_rehearsal_without_a_hand():
    listed = pd.read_csv(Path(__file__).parents[1] / "outputs" / "reference" / "rehearsals" / "figures.csv")
    assert set(listed.figure) == set(figures.FIGURES)
    for row in listed.itertuples():
        assert (Path(__file__).parents[1] / "params" / "studies" / f"{row.study}.yaml").exists()
        assert name_of(row.first) == row.figure


def test_alt_texts_say_what_axes_reach_and_which_series_there_are(planted):
    said = layout.alt_text(figure(planted, "alignment"), caption_of("alignment", planted["alignment"]))
    frame = planted["alignment"]
    assert f"{frame.uniformity.min():.3g} to {frame.uniformity.max():.3g}" in said
    assert f"Series: {'; '.join(ARMS)}." in said
    said = layout.alt_text(figure(planted, "training"), caption_of("training", planted["training"]))
    assert "14 panels: arm 0; arm 1;" in said and "Vertical: loss: 0" in said
    said = layout.alt_text(figure(planted, "neighbours"), caption_of("neighbours", planted["neighbours"]))
    assert "Horizontal: query, 1, 2, 3." in said and "Vertical: ant (few), ant (few)." in said
