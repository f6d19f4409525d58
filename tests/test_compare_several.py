"""Several data sets, totals, protocols, budgets per class and layers in one study: like is compared with like only."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from made_study import BALANCED, IMBALANCED, TWIN, MadeStudy, with_cost

from ssl_core.analysis import alarms, contrasts, floors, grid, plots_contrasts, plots_study, wording

COSTS = {"breast": 0.1, "kidney": -0.1}


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    yield tmp_path
    plt.close("all")


def summarised(made):
    jobs, table = made.write()
    return contrasts.summary_of(contrasts.cells_of(table, jobs), resamples=100)


def of(summary, family):
    return summary[summary.family == family]


def two_sets(outputs):
    """What imbalance costs in one data set it gains in the other, and the floors of one are above all of the other."""
    made = MadeStudy(outputs)
    for draw in range(2):
        for dataset, cost in COSTS.items():
            high = 0.3 * (dataset == "kidney")
            made.trained("simclr", IMBALANCED, 0.4 + high, draw, dataset=dataset)
            made.trained("simclr", TWIN, 0.4 + high + cost, draw, dataset=dataset)
            made.trained("mae", IMBALANCED, 0.4 + high + cost / 2, draw, dataset=dataset)
            made.floor("random", 0.25 + high, draw, dataset=dataset)
            made.floor("pixels", 0.2 + high, draw, dataset=dataset)
    return made


def test_no_pair_crosses_data_sets(outputs):
    summary = summarised(two_sets(outputs))
    recall = summary.metric == "recall"
    found = summary[~recall].groupby(["family", "dataset", "what"]).effect.mean().round(6).to_dict()
    cost, gain, arms = "cost of imbalance", "gain of pretraining", "between arms"
    for dataset, planted in COSTS.items():
        assert found[cost, dataset, "SimCLR, balanced"] == planted
        assert found[gain, dataset, "SimCLR (1:100)"] == 0.15
        assert abs(found[arms, dataset, "MAE (1:100)"]) == pytest.approx(0.05)
    assert set(summary.n_pairs) == {2} and set(summary.n_left_out) == {0}
    assert len(of(summary, arms)) == 4 and len(of(summary, gain)) == 6  # of arms also recall of the few
    for row in summary.itertuples():
        assert f"2 paired splits; on {row.dataset}; linear probe" in row.sentence


def test_both_data_sets_are_in_the_answer_and_in_the_alarms(outputs):
    made = two_sets(outputs)
    never = made.trained("lotar", BALANCED, [0.5, 0.5, 0.5, 0.5, 0], dataset="kidney")
    jobs, table = made.write()
    lines = contrasts.answer(contrasts.summary_of(contrasts.cells_of(table, jobs), 100))
    assert lines[0].startswith("Pretraining SimCLR on 1:100 costs 10.0")
    assert "; on breast; linear probe, 100 %" in lines[0]
    assert lines[1].startswith("Pretraining SimCLR on 1:100 gains 10.0") and lines[1].endswith("; on kidney).")
    sentence, = [alarm["sentence"] for alarm in alarms.of_cells(table) if alarm["key"] == never["key"]]
    assert sentence.startswith("LoTaR (balanced) on kidney, linear probe with")
    beaten, = floors.not_beaten(contrasts.cells_of(table, jobs), 100)  # below floors of the other data set alone: none
    assert beaten["sentence"].startswith("LoTaR (balanced) on kidney, linear probe: below ")
    text = grid.grid_html(grid.rows_of(jobs, table))
    assert text.count("<table") == 2 and text.index("<h3>breast</h3>") < text.index("<h3>kidney</h3>")
    assert text.count("data-cell") == sum(len(job["cells"]) for job in made.jobs)
    assert set(plots_study.levels(table).dataset) == set(COSTS)


def test_an_arm_of_another_data_set_is_compared_on_the_same_test_images(outputs):
    made = MadeStudy(outputs)
    for draw in range(2):
        made.trained("simclr", BALANCED, 0.6, draw, dataset="breast")
        made.trained("simclr_kidney", BALANCED, 0.5, draw, dataset="kidney", evaluate_on="breast")
        made.trained("simclr_kidney", BALANCED, 0.9, draw, dataset="kidney")
        made.floor("random", 0.4, draw, dataset="breast")
    summary = summarised(made)
    row, = of(summary, "between arms").itertuples()
    assert row.dataset == "breast" and row.effect == pytest.approx(-0.1)
    assert row.what == "simclr kidney (kidney, balanced)" and "; on breast;" in row.sentence
    assert set(of(summary, "gain of pretraining").what) == {"SimCLR (balanced)", "simclr kidney (kidney, balanced)"}


def test_no_pair_crosses_totals(outputs):
    made = MadeStudy(outputs)
    for draw in range(2):
        for total, cost in ((600, 0.1), (6000, -0.1)):
            made.trained("simclr", IMBALANCED, 0.5, draw, total=total)
            made.trained("simclr", TWIN, 0.5 + cost, draw, total=total)
            made.trained("mae", IMBALANCED, 0.5 + 2 * cost, draw, total=total)
    summary = summarised(made)
    cost = of(summary, "cost of imbalance")
    cost = cost[cost.metric == "balanced_accuracy"].set_index("n_unlabelled")
    assert cost.effect.round(6).to_dict() == {600: 0.1, 6000: -0.1}
    assert "; N = 600; linear probe" in cost.sentence[600] and "; N = 6,000; linear probe" in cost.sentence[6000]
    arms = of(summary, "between arms")
    assert {what.partition("(")[2] for what in arms.what} == {"1:100, N = 600)", "1:100, N = 6,000)"}
    assert sorted(abs(arms.effect).round(6)) == [0.2] * 4 and set(summary.n_pairs) == {2}


def test_at_one_total_ratio_1_is_the_balanced_side(outputs):
    """Splits of a constant total need no twins, and the rare classes are those of the imbalanced side."""
    made = MadeStudy(outputs)
    for total in (0, 600):
        made.trained("simclr", BALANCED, 0.6, total=total, dataset=f"cut{total}")
        made.trained("simclr", IMBALANCED, [0.6, 0.6, 0.6, 0.5, 0.5], total=total, dataset=f"cut{total}")
    cost = of(summarised(made), "cost of imbalance")
    assert set(cost.dataset) == {"cut600"} and set(cost.ratio) == {100}  # without a total the balanced ones are more
    assert cost.effect.round(6).tolist() == [0.04, 0.1] and cost.group.tolist() == ["all", "few"]
    assert cost.sentence.iloc[0].startswith("Pretraining SimCLR on 1:100 costs 4.0 points")


def test_protocols_come_in_the_studys_order_and_budgets_in_their_words(outputs):
    made = MadeStudy(outputs)
    more = {"protocols": ("vote_20", "linear"), "budgets": (0.5, 5, 50)}
    for draw in range(2):
        made.trained("simclr", IMBALANCED, 0.5, draw, **more)
        made.trained("simclr", TWIN, 0.6, draw, **more)
    jobs, table = made.write()
    summary = contrasts.summary_of(contrasts.cells_of(table, jobs), 100)
    assert list(dict.fromkeys(summary.protocol)) == ["vote_20", "linear"]
    first = contrasts.answer(summary)[0]
    assert first.endswith("; vote 20, 5 labels per class).")  # 25 labels are fewer than half of them
    text = grid.grid_html(grid.rows_of(jobs, table))
    assert text.index("vote 20") < text.index("linear probe") and "<th>50 %</th><th>5 per class</th>" in text
    drawn = plots_study.levels(table)
    assert list(dict.fromkeys(drawn.protocol)) == ["vote_20", "linear"]
    assert "vote 20, 5 labels per class" in plots_study.caption_frequency(plots_study.by_frequency(table), table)


def test_a_published_protocol_is_called_by_its_short_name(monkeypatch):
    found = wording.protocol("linear")._replace(name="linear_bn", short="linear probe (BN)")
    monkeypatch.setattr(wording, "protocol_names", lambda: ["linear_bn"])
    monkeypatch.setattr(wording, "protocol", lambda name: found)
    assert wording.words("linear_bn") == "linear probe (BN)" and wording.words("linear_cn") == "linear cn"


def test_rows_of_layers_are_no_headlines(outputs):
    made = with_cost(outputs, 0.1)
    plain = summarised(made)
    probed = [made.trained("simclr", seen, accuracy, draw, layers=("layer1", "layer4"), protocols=("linear_layers",))
              for draw in range(3) for seen, accuracy in ((IMBALANCED, 0), (TWIN, 0.9))]
    jobs, table = made.write()
    summary = contrasts.summary_of(contrasts.cells_of(table, jobs), 100)
    assert (table.layer != "").any() and summary.effect.tolist() == plain.effect.tolist()
    assert alarms.of_cells(table) == [] and set(plots_study.levels(table).protocol) == {"linear"}
    cells = [cell for cell in grid.rows_of(jobs, table) if cell["protocol"] == "linear_layers"]
    assert len(cells) == len(probed) and {(cell["state"], cell["value"]) for cell in cells} == {("done", None)}
    assert grid.grid_html(cells).count(">✓</a>") == len(cells)


def test_networks_of_one_name_are_told_apart(outputs):
    made = MadeStudy(outputs)
    wide = {"encoder_args": {"channels": [64, 128]}}
    made.trained("simclr", BALANCED, 0.7)
    made.trained("mae", BALANCED, 0.7, **wide)
    made.floor("random", 0.5)
    made.floor("random", 0.8, **wide)
    made.floor("supervised", 0.6, protocols=("finetune",), **wide)
    jobs, table = made.write()
    drawn = plots_study.levels(table).set_index("series")["mean"].round(6).to_dict()
    assert drawn == {"SimCLR (balanced)": 0.7, "MAE (balanced)": 0.7, "untrained resnet10t of SimCLR": 0.5,
                     "untrained resnet10t of MAE": 0.8, "supervised (resnet10t of MAE)": 0.6}
    beaten, = floors.not_beaten(contrasts.cells_of(table, jobs), 100)
    assert beaten["sentence"].startswith("MAE (balanced), linear probe: below untrained resnet10t of MAE with 100 % of "
                                         "the labels, 70.0 against 80.0 % (")


def test_an_encoder_read_with_the_labels_of_two_splits_is_two_series_everywhere(outputs):
    made = MadeStudy(outputs)
    for total, accuracy in ((120, 0.5), (600, 0.7)):
        made.trained("simclr", BALANCED, accuracy)
        made.floor("random", 0.4, total=total)
        made.jobs[-2]["params"] |= {"total": total}
    for rows in made.tables:
        rows["label_pool"] = "as_pretrain"
    jobs, table = made.write()
    names = [f"SimCLR (balanced), labels N = {total}" for total in (120, 600)]
    drawn = plots_study.levels(table)
    assert drawn[drawn.arm == "simclr"].set_index("series")["mean"].round(6).to_dict() == dict(zip(names, (0.5, 0.7)))
    gains = of(contrasts.summary_of(contrasts.cells_of(table, jobs), 100), "gain of pretraining")
    assert gains.set_index("what").effect.round(6).to_dict() == dict(zip(names, (0.1, 0.3)))
    ax, = plots_contrasts.plot_gains(gains).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == names
    points = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "o"]
    assert sorted(at for _, at in points) == [0, 1]  # one on each row
    assert grid.labels_apart(["a", "a", "b", "c", "c"], [f"long_tail {ratio} {twin} 0" for ratio, twin in (
        (1, "none"), (100, "none"), (1, "none"), (100, "none"), (100, "same_n"))]) == [
        ", labels balanced", ", labels 1:100", "", ", labels 1:100", ", labels balanced, same N as 1:100"]


def test_arms_that_are_read_by_different_protocols_leave_no_row_empty(outputs):
    made = MadeStudy(outputs)
    for arm, protocol in (("mae", "linear"), ("simclr", "knn"), ("bcl_i", "knn")):
        made.trained(arm, BALANCED, 0.6, protocols=(protocol,))
    for protocol in ("linear", "knn"):
        made.floor("random", 0.4, protocols=(protocol,))
    jobs, table = made.write()
    gains = of(contrasts.summary_of(contrasts.cells_of(table, jobs), 100), "gain of pretraining")
    panels = plots_contrasts.plot_gains(gains).axes
    assert sorted(len(ax.get_yticklabels()) for ax in panels) == [1, 2]
    assert "bars: 95 % intervals over" in plots_contrasts.caption_gains(gains, table)
    for some, said in ((gains.assign(low=np.nan), "no bars, as there are too few"),
                       (gains.assign(low=[np.nan, 0, 0]), "bars, where there are test images enough: 95 %")):
        assert said in plots_contrasts.caption_gains(some, table)
    drawn = plots_study.levels(table)
    assert plots_study.points(drawn.assign(low=np.nan)) == "One split"
    assert plots_study.points(drawn) == "One split; bars: 95 % intervals over test images"


def test_many_ratios_become_an_axis(outputs):
    ratios, made = (1, 5, 10, 100, 1000), MadeStudy(outputs)
    for arm, protocols in (("simclr", ("linear", "finetune")), ("mae", ("knn",))):
        for ratio in ratios:
            made.trained(arm, {"ratio": ratio}, 0.7 - 0.03 * np.log10(ratio), split_kind="category_ratio", total=6006,
                         budgets=(0.01, 0.1, 1.0), protocols=protocols)
    jobs, table = made.write()
    summary = contrasts.summary_of(contrasts.cells_of(table, jobs), 100)
    cost = plots_contrasts.with_room(of(summary, "cost of imbalance"))
    assert len(cost) == 4 * 3 * 3 and set(cost.group) == {"all"}  # every protocol, of both arms, at every budget
    fig = plots_contrasts.plot_costs(cost)
    fig.canvas.draw()
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert titles == ["linear probe\n1 %", "\n10 %", "\n100 %", "fine-tuned", "", "", "kNN", "", ""]
    assert len({tuple(np.round(ax.get_position().size, 6)) for ax in fig.axes}) == 1
    for ax, (protocol, budget) in zip(fig.axes, [(p, b) for p in dict.fromkeys(cost.protocol) for b in (0.01, 0.1, 1)]):
        drawn = np.concatenate([line.get_ydata() for line in ax.lines if line.get_marker() in "os"])
        rows = cost[(cost.protocol == protocol) & (cost.budget == budget)]
        assert sorted(drawn) == pytest.approx(sorted(100 * rows.effect)) and len(rows) == 4
    assert [label.get_text() for label in fig.axes[6].get_xticklabels()] == ["1:5\n1k", "1:100\n59", "1:1k\n6"]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["SimCLR", "MAE"]
    caption = plots_contrasts.caption_costs(cost, table, of(summary, "cost of imbalance"))
    assert "by its ratio" in caption and "Not drawn" not in caption
    less = cost[(cost.protocol != "knn") & (cost.budget != 0.1)]
    assert "Not drawn: kNN, 10 %. " in plots_contrasts.caption_costs(less, table, of(summary, "cost of imbalance"))
    assert set(plots_study.levels(table).ratio) == {1, 1000}
    assert contrasts.answer(summary)[0].startswith("Pretraining SimCLR on 1:1000 costs 8.7 points")


def test_labels_that_follow_the_split_are_counted_in_the_sentence():
    row = pd.Series({"protocol": "linear", "budget": 1.0, "label_pool": "as_pretrain", "n_labelled": 120})
    assert contrasts.how_read(row) == "; linear probe, 100 % of 120 labels"
    assert contrasts.how_read(row.replace("as_pretrain", "natural")) == "; linear probe, 100 % of the labels"


def test_without_a_cost_the_answer_leads_with_each_arm_against_the_first(outputs):
    made = MadeStudy(outputs)
    of_arm = {"simclr": 0.6, "lotar": 0.61, "bcl": 0.5, "sdclr": [0.6, 0.6, 0.6, 0.6, 0.9]}
    for draw in range(3):
        for arm, accuracy in of_arm.items():
            made.trained(arm, IMBALANCED, np.array(accuracy) + 0.01 * (draw == 2), draw)
        made.floor("random", 0.3, draw)
    summary = summarised(made)
    lines = contrasts.answer(summary)
    said = [("LoTaR", "balanced accuracy"), ("BCL", "balanced accuracy"), ("SDCLR", "balanced accuracy"),
            ("LoTaR", "few"), ("BCL", "few"), ("SDCLR", "few")]
    for line, (arm, metric) in zip(lines, said):
        assert line.startswith(arm) and "SimCLR (1:100)" in line and metric in line
    assert "untrained" in lines[6] and lines[-1].startswith("Contrasts told from zero")
    arms = of(summary, "between arms")
    assert set(arms[arms.against.str.startswith("SimCLR")].what) == {"LoTaR (1:100)", "BCL (1:100)", "SDCLR (1:100)"}
    assert arms.effect[(arms.what == "BCL (1:100)") & (arms.metric == "balanced_accuracy")].iloc[0] < 0


def test_a_sentence_that_its_family_does_not_let_stand_says_so():
    row = dict.fromkeys(contrasts.COLUMNS) | {"family": "between arms", "sentence": "A scores higher than B (…)."}
    found = contrasts.adjusted([row | {"p": p} for p in (0.03, 0.6, 0.0001)])
    assert found.p_adjusted.round(4).tolist() == [0.06, 0.6, 0.0003]
    assert found.sentence[0].endswith(" By itself: among 3 contrasts it does not stand (p by Holm 0.06).")
    assert set(found.sentence[1:]) == {row["sentence"]}
    assert contrasts.standing(found) == [
        "Contrasts told from zero, by themselves and by Holm's rule: between arms, 2 and 1 of 3."]
