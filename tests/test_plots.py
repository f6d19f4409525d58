"""Figures: saved whole and the same each time; labelled; nothing cut off, overlapping, or told by colour alone."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from made_study import BALANCED, IMBALANCED, TWIN, MadeStudy
from matplotlib.colors import to_rgb

from ssl_core.analysis import contrasts, plots, plots_contrasts, plots_study
from ssl_core.augment import Augment
from ssl_core.data.splits import long_tail_split

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
PROTOCOLS, BUDGETS = ("linear", "knn"), (0.01, 0.1, 1.0)


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        plots.use_style()
        yield
    plt.close("all")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The table and the summary of a study as large as the quick one."""
    outputs = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CORE_OUTPUTS", str(outputs))
        made = MadeStudy(outputs)
        gain = {0.01: 0.0, 0.1: 0.15, 1.0: 0.25}
        for draw in (0, 1, 2):
            def near(base, draw=draw):
                return lambda protocol, budget: base + gain[budget] + 0.02 * (draw - 1) - 0.03 * (protocol == "knn")

            both = {"draw": draw, "budgets": BUDGETS, "protocols": PROTOCOLS}
            for seen, accuracy in ((BALANCED, 0.62), (IMBALANCED, 0.58), (TWIN, 0.6)):
                made.trained("simclr", seen, near(accuracy), **both)
            made.trained("mae", BALANCED, near(0.55), encoder="vit_tiny_patch16_224", **both)
            made.floor("random", near(0.5), **both)
            made.floor("random", near(0.45), encoder="vit_tiny_patch16_224", **both)
            made.floor("pixels", near(0.57), draw, budgets=BUDGETS)
            made.floor("colour", near(0.35), draw, budgets=BUDGETS)
            made.floor("majority", [1, 0, 0, 0, 0], draw, budgets=BUDGETS, protocols=("none",))
            for name in ("supervised", "supervised_weighted"):
                made.floor(name, near(0.52), draw, budgets=BUDGETS, protocols=("finetune",))
        jobs, table = made.write()
        return table, contrasts.summary_of(contrasts.cells_of(table, jobs), resamples=100)


def drawn_by(study):
    """Every figure, by name."""
    table, summary = study
    history = pd.DataFrame({"epoch": range(8), "step": np.arange(8) * 2500, "loss": np.linspace(4.7, 3.2, 8),
                            "spread": 0.9, "effective_rank": np.linspace(10, 40, 8)})
    split = long_tail_split(np.repeat(np.arange(10), 600), 100, 0)
    rng = np.random.default_rng(0)
    first = table[(table.draw_seed == 0) & (table.part == "test")]
    floors = first[(first.pretrain_dataset == "") & (first.stage == "probe") & first.encoder.isin(["", "resnet10t"])]
    recalls = first[(first.metric == "recall") & (first.group_kind == "class") & (first.arm == "mae")]
    yield "counts", plots.plot_counts(split, CLASSES, np.full(10, 600))
    yield "history", plots.plot_history(history)
    yield "losses", plots.plot_losses({"1 %": history, "100 %": history.assign(loss=2)})
    yield "image_loss", plots.plot_image_loss(rng.gamma(4, 1, len(split.labels)), split.labels, split.order, CLASSES)
    yield "cells", plots.plot_cells(floors[floors.metric == "balanced_accuracy"])
    yield "recalls", plots.plot_recalls(recalls)
    called = rng.integers(0, 10, 500), rng.dirichlet(np.ones(10), 500)
    yield "confusion", plots.plot_confusion(*called, CLASSES, title="linear-b1-s0")
    yield "costs", plots_contrasts.plot_costs(summary[summary.family == "cost of imbalance"])
    gains = plots_contrasts.with_room(summary[summary.family == "gain of pretraining"])
    yield "gains", plots_contrasts.plot_gains(gains)
    yield "budgets", plots_study.plot_budgets(plots_study.levels(table))
    yield "frequency", plots_study.plot_frequency(plots_study.by_frequency(table))


def figure_of(drawn):
    return drawn if isinstance(drawn, plt.Figure) else np.ravel(drawn)[0].figure


def texts_of(fig):
    """(text, box in pixels) of every text that can be seen."""
    renderer = fig.canvas.get_renderer()
    shown = [text for text in fig.findobj(plt.Text) if text.get_visible() and text.get_text().strip()]
    for ax in fig.axes:  # a tick outside of its axis is not drawn
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            outside = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
            hidden = {label for tick in outside for label in (tick.label1, tick.label2)}
            shown = [text for text in shown if text not in hidden]
    return [(text, text.get_window_extent(renderer)) for text in shown]


def test_nothing_is_cut_off_overlaps_or_is_too_small(study):
    for name, drawn in drawn_by(study):
        fig = figure_of(drawn)
        fig.canvas.draw()
        found = texts_of(fig)
        width, height = fig.canvas.get_width_height()
        assert fig.get_figwidth() <= plots.PAGE, name
        for text, box in found:
            assert -1 <= box.x0 and box.x1 <= width + 1 and -1 <= box.y0 and box.y1 <= height + 1, (
                f"{name}: {text.get_text()!r} is cut off")
            assert text.get_fontsize() >= 6, f"{name}: {text.get_text()!r} is too small"
        for (one, a), (two, b) in itertools.combinations(found, 2):
            if not one.get_rotation() % 90 and not two.get_rotation() % 90:  # an oblique text is smaller than its box
                apart = a.x1 <= b.x0 + 0.5 or b.x1 <= a.x0 + 0.5 or a.y1 <= b.y0 + 0.5 or b.y1 <= a.y0 + 0.5
                assert apart, f"{name}: {one.get_text()!r} is over {two.get_text()!r}"


def test_titles_are_wrapped_and_legends_narrowed_until_they_fit(study):
    table, summary = study
    gains = plots_contrasts.with_room(summary[summary.family == "gain of pretraining"])
    long = {"linear": "fine-tuned, best on validation", "knn": "linear, the lowest loss on validation"}
    named = plots_study.levels(table)
    named = named.assign(series=named.series + ", labels of a split with N = 600")
    for fig in (plots_contrasts.plot_gains(gains.assign(protocol=gains.protocol.map(long))),
                plots_study.plot_budgets(named)):
        fig.canvas.draw()
        width, _ = fig.canvas.get_width_height()
        found = texts_of(fig)
        assert all(-1 <= box.x0 and box.x1 <= width + 1 for _, box in found)
        titles = [box for text, box in found if "validation" in text.get_text()]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(titles, 2))


@pytest.mark.parametrize("n, text", [(1, "1"), (119, "119"), (1000, "1k"), (1091, "1.1k"), (6000, "6k"),
                                     (9990, "10k"), (12_000, "12k"), (6_000_000, "6000k")])
def test_counts_of_ticks_are_short(n, text):
    assert plots_study.thousands(n) == text


def says_what(axis):
    """Whether an axis has a label, or names where numbers would stand."""
    words = " ".join(label.get_text() for label in axis.get_majorticklabels()).split()
    return axis.get_label_text() or any(word.isalpha() for word in words)


def test_axes_are_labelled_and_legends_stand_beside_the_data(study):
    for name, drawn in drawn_by(study):
        fig = figure_of(drawn)
        fig.canvas.draw()
        for ax in fig.axes:
            assert says_what(ax.xaxis) and (says_what(ax.yaxis) or ax.get_title(loc="left")), name
            for legend in filter(None, [ax.get_legend(), *fig.legends]):
                assert not legend.get_window_extent().overlaps(ax.bbox), f"{name}: the legend covers data"


def test_series_differ_without_their_colour(study):
    table, _ = study
    for drawn in (plots_study.levels(table), plots_study.by_frequency(table)):
        looks = plots_study.looks(drawn)
        assert len({(look["marker"], look["fillstyle"]) for look in looks.values()}) == len(looks)
    colours = [to_rgb(colour) for colour, _ in plots_study.LOOKS.values()]
    luminance = [float(np.dot(colour, (0.2126, 0.7152, 0.0722))) for colour in colours]
    assert max(luminance) < 0.6  # readable on white


def test_a_method_without_a_look_of_its_own_gets_one():
    drawn = pd.DataFrame({"series": list("abcdefgh"), "arm": list("abcdefgh"), "ratio": 1.0, "twin": "none"})
    looks = plots_study.looks(drawn)
    assert len({look["marker"] for look in looks.values()}) == 6  # then they start over


def test_floors_stand_beside_the_first_protocol_and_fine_tuning_never_mixes_with_a_probe(study, tmp_path, monkeypatch):
    table, _ = study
    drawn = plots_study.levels(table)
    assert set(drawn.protocol) == {"linear", "knn"}
    at = (drawn.series == "supervised (resnet10t)") & (drawn.budget == 1)
    assert list(drawn.protocol[at]) == ["linear"] and drawn["mean"][at].item() == pytest.approx(0.77, abs=0.01)
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    made = MadeStudy(tmp_path)
    made.trained("simclr", BALANCED, 0.5)
    made.trained("simclr", BALANCED, 0.9, protocols=("finetune",))
    made.floor("supervised", 0.7, protocols=("finetune",))
    drawn = plots_study.levels(made.write()[1])
    assert drawn.set_index(["series", "protocol"])["mean"].to_dict() == {
        ("SimCLR (balanced)", "linear"): 0.5, ("SimCLR (balanced)", "finetune"): 0.9, ("supervised", "finetune"): 0.7}


def test_means_are_over_splits_and_their_intervals_are_students_t():
    rows = pd.DataFrame({"arm": "a", "draw_seed": [0, 0, 1, 2], "order_seed": np.nan, "value": [0.35, 0.45, 0.45, 0.5],
                         "low": 0.0, "high": 1.0})
    row = plots_study.mean_over_splits(rows, ["arm"]).iloc[0]
    values = np.array([0.4, 0.45, 0.5])  # two seeds of one split count once
    half = 4.302652729911275 * values.std(ddof=1) / np.sqrt(3)
    assert (row["mean"], row.n) == (pytest.approx(0.45), 3)
    assert (row.low, row.high) == (pytest.approx(0.45 - half), pytest.approx(0.45 + half))
    wide = plots_study.mean_over_splits(rows.assign(value=[0.1, 0.1, 0.5, 0.9]), ["arm"]).iloc[0]
    assert (wide.low, wide.high) == (0, 1)  # a share has no others
    one = plots_study.mean_over_splits(rows[3:].assign(low=0.45, high=0.7), ["arm"]).iloc[0]
    assert (one["mean"], one.low, one.high, one.n) == (0.5, 0.45, 0.7, 1)  # of one split: over its test images


def test_captions_say_what_n_interval_data_and_command(study):
    table, summary = study
    for caption in (plots_contrasts.caption_costs(summary[summary.family == "cost of imbalance"], table),
                    plots_contrasts.caption_gains(summary[summary.family == "gain of pretraining"], table),
                    plots_study.caption_budgets(plots_study.levels(table), table),
                    plots_study.caption_frequency(plots_study.by_frequency(table), table)):
        for words in ("95 % intervals over", "3 ", "400", "Synthetic images (made).",
                      "python -m ssl_core run params/studies/made.yaml"):
            assert words in caption


def test_a_figure_is_saved_with_its_data_and_the_same_each_time(study, tmp_path):
    table, summary = study
    cost = summary[summary.family == "cost of imbalance"]
    for folder in ("one", "two"):
        fig = plots_contrasts.plot_costs(cost)
        plots.save_figure(fig, tmp_path / folder, "cost", cost, "A caption − with a minus.")
    names = ["cost.alt.txt", "cost.csv", "cost.pdf", "cost.png", "cost.txt"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names
    assert (tmp_path / "one" / "cost.txt").read_text("utf-8") == "A caption − with a minus.\n"
    again = pd.read_csv(tmp_path / "one" / "cost.csv")
    assert again.effect.tolist() == pytest.approx(cost.effect.tolist())
    assert again.sentence.tolist() == list(cost.sentence)
    assert b"/Type /Font" in (tmp_path / "one" / "cost.pdf").read_bytes()  # letters, not outlines


def test_images_and_views_show_what_they_are_given():
    images = np.random.default_rng(0).integers(0, 255, (12, 3, 16, 16), dtype=np.uint8)
    grid = plots.show_views(images, Augment("none", 16), rows=2, views=3)
    chosen = np.random.default_rng(0).choice(12, 2, replace=False)
    for row, i in zip(grid, chosen):
        pictures = [ax.images[0].get_array() for ax in row]
        assert len(pictures) == 4 and np.array_equal(pictures[0], images[i].transpose(1, 2, 0))
        assert all(np.allclose(picture, pictures[0] / 255, atol=1e-6) for picture in pictures[1:])


def test_labels_are_drawn_by_their_roc_area_and_layers_left_out():
    rows = pd.DataFrame([
        {"part": "test", "layer": layer, "group_kind": "label", "group": label, "metric": metric, "value": value,
         "low": np.nan, "high": np.nan, "budget": 1.0, "n_labelled": 90, "method": "moco", "protocol": "linear"}
        for layer in ("", "blocks.1") for label, value in (("halo", 0.75), ("fold", 0.5), ("none", np.nan))
        for metric in ("roc_auc", "f1")])
    drawn = plots.class_rows(rows)
    assert drawn[["group", "metric", "value"]].values.tolist() == [["halo", "roc_auc", 0.75], ["fold", "roc_auc", 0.5]]
    ax = plots.plot_recalls(drawn)
    assert ax.get_ylabel() == "ROC area" and [t.get_text() for t in ax.get_xticklabels()] == ["halo", "fold"]


def test_images_without_classes_have_no_bars_to_draw():
    assert plots.plot_counts(None, (), np.zeros(0, int)) is None
