"""What is worth a look is said, what is not is left alone; and the grid shows every cell of the plan."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from made_study import BALANCED, IMBALANCED, TWIN, MadeStudy, with_cost

from ssl_core.analysis import alarms, contrasts, floors, grid, plots_study


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    return tmp_path


def history(loss, spread=1.0, rank=30.0):
    return pd.DataFrame({"epoch": range(1, len(loss) + 1), "loss": loss, "spread": spread, "effective_rank": rank})


@pytest.mark.parametrize("given, alarm", [
    (history([4.0, 3.0, 2.6, 2.5, 2.48]), None),
    (history([4.0]), "under-trained: epochs 1, too few to see the loss level off"),
    (history([4.0, 4.2]), "under-trained: epochs 2"),  # not "the loss did not fall": it may be a warm-up
    (history([4.0, 3.5, 3.0]), "under-trained: epochs 3"),
    (history([4.0, 3.0, 2.95]), None),
    (history([4.0, 3.0, 2.9], spread=0.02), "embeddings collapsed in epoch 1 of 3: .* 0.02 then and is 0.02 at the"),
    (history([4.0, 3.0, 2.9], spread=[0.9, 0.08, 0.02]), "collapsed in epoch 2 of 3: .* 0.08 then and is 0.02 at the"),
    (history([4.0, 3.0, 2.9], spread=[0.9, 0.05, 0.8]), "collapsed in epoch 2 of 3: .* 0.05 then and is 0.80 at the"),
    (history([4.0, 3.0, 2.9], spread=[0.05, 0.9, 0.02]), "collapsed in epoch 3 of 3"),
    (history([4.0, 3.0, 2.9], spread=[0.04, 0.09, 0.7]), None),  # started low and rose
    (history([4.0, 3.0, 2.6, 2.5, 2.48], rank=1.4), "h uses 1.4 directions"),
    (history([4.0, 4.2, 4.1, 4.3]), "the loss did not fall: 4.000 at first, 4.300 at last"),
    (history([4.0, 3.5, 3.0, 2.5]), "under-trained"),
])
def test_what_a_history_shows(given, alarm):
    found = alarms.of_history(given)
    assert len(found) == (alarm is not None) and (not found or re.search(alarm, found[0]))


def test_constant_predictors_and_classes_never_found(outputs):
    made = MadeStudy(outputs)
    constant = made.trained("simclr", IMBALANCED, [0, 1, 0, 0, 0])
    blind = made.trained("mae", BALANCED, [0.5, 0.5, 0.5, 0, 0], protocols=("knn",))
    made.trained("simclr", BALANCED, 0.4)
    made.floor("majority", [1, 0, 0, 0, 0], protocols=("none",))
    pixels = made.floor("pixels", [0.9, 0, 0, 0, 0])
    _, table = made.write()
    at = (table.key == constant["key"]) & (table.metric == "recall")
    assert set(table.value[at & (table.group_kind == "class")]) == {0, 1}
    found = {alarm["key"]: alarm for alarm in alarms.of_cells(table)}
    assert {key: alarm["sentence"] for key, alarm in found.items()} == {
        constant["key"]: "SimCLR (1:100), linear probe with 100 % of the labels: every test image is called bee.",
        blind["key"]: "MAE (balanced), kNN with 100 % of the labels: 2 of 5 classes are never found (dog, eel).",
        # one class is found, yet not every image is called by its name
        pixels["key"]: "raw pixels, linear probe with 100 % of the labels: 4 of 5 classes are never found "
                       "(bee, cat, dog, eel)."}
    assert found[pixels["key"]]["cells"] == {(pixels["key"], "pixels", "linear", 1.0)}
    of_one_job = alarms.of_cells(table[table.key == blind["key"]].drop(columns=["series", "on"]))
    assert [alarm["sentence"] for alarm in of_one_job] == [found[blind["key"]]["sentence"]]


def test_an_arm_that_fine_tunes_to_one_class_raises_an_alarm_and_marks_its_cells(outputs):
    made = MadeStudy(outputs)
    constant = [made.trained("mae", {"ratio": ratio}, [0, 0, 1, 0, 0], budgets=(0.01, 1.0), protocols=("finetune",))
                for ratio in (1, 100)]
    made.trained("simclr", BALANCED, 0.8, protocols=("finetune",))
    jobs, table = made.write()
    found = alarms.of_cells(table)
    assert len(found) == 4 and all(alarm["sentence"].endswith("every test image is called cat.") for alarm in found)
    marked = grid.marked(grid.rows_of(jobs, table), found)
    assert marked == {(job["key"], "encoder", "finetune", budget) for job in constant for budget in (0.01, 1.0)}
    assert grid.grid_html(grid.rows_of(jobs, table), marked).count('class="alarm"') == 4


def test_predictors_that_are_no_better_than_a_constant_one(outputs):
    made = MadeStudy(outputs)
    made.trained("mae", BALANCED, [0.1, 0.7, 0.1, 0.05, 0.05])
    made.trained("simclr", BALANCED, 0.4)
    alarm, = alarms.of_cells(made.write()[1])
    assert alarm["sentence"] == ("MAE (balanced), linear probe with 100 % of the labels: no better than a constant "
                                 "predictor (balanced accuracy 20.0 %, of a constant 20.0 %).")
    assert len(alarms.of_cells(made.write()[1].assign(low=np.nan))) == 1  # without an interval the score decides


def test_dead_dimensions():
    h = np.random.default_rng(0).random((50, 8))
    assert alarms.of_features(h) == []
    h[:, :5] = 0.25
    assert alarms.of_features(h) == ["5 of 8 dimensions of h are dead: the same for all of 50 images"]


def test_a_label_that_is_never_found():
    columns = {"part": "test", "method": "simclr", "arm": "simclr", "protocol": "linear", "budget": 1.0, "key": "k",
               "stage": "probe", "pretrain_dataset": "made", "group_kind": "label", "layer": "",
               "series": "SimCLR (natural)", "on": ""}
    rows = pd.DataFrame([columns | {"group": name, "metric": metric, "value": value} for name, metric, value in (
        ("halo", "f1", 0.4), ("halo", "accuracy", 0.0), ("nucleolus", "f1", 0.0), ("folds", "f1", np.nan))])
    alarm, = alarms.of_cells(rows)
    assert alarm["sentence"] == ("SimCLR (natural), linear probe with 100 % of the labels: 1 of 2 labels are never "
                                 "found (nucleolus).")


def test_a_class_without_test_images_raises_nothing(outputs):
    made = MadeStudy(outputs)
    made.trained("simclr", BALANCED, 0.5)
    _, table = made.write()
    table.loc[(table.metric == "recall") & (table.group == "eel"), "value"] = np.nan
    assert alarms.of_cells(table) == []


def test_floors_that_are_not_beaten(outputs):
    made = MadeStudy(outputs)
    jobs = [made.trained("simclr", BALANCED, lambda _, budget, least=least: least if budget < 1 else 0.8, draw,
                         budgets=(0.01, 1.0)) for draw, least in ((0, 0.5), (1, 0.5125))]
    for draw in (0, 1):
        made.floor("pixels", 0.6, draw, budgets=(0.01, 1.0))
        made.floor("random", 0.4, draw, budgets=(0.01, 1.0))
        made.floor("random", 0.9, draw, budgets=(0.01, 1.0), encoder="another")  # of an encoder that no arm has
        made.floor("supervised", 0.95, draw, budgets=(0.01, 1.0), protocols=("finetune",))  # no floor but a ceiling
    jobs_by_key, table = made.write()
    alarm, = floors.not_beaten(contrasts.cells_of(table, jobs_by_key), 100)
    assert re.fullmatch(r"SimCLR \(balanced\), linear probe: below raw pixels with 1 % of the labels, 50\.6 against "
                        r"60\.0 % \(−1\d\.\d to −\d\.\d\)\.", alarm["sentence"])
    assert alarm["cells"] == {(job["key"], "encoder", "linear", 0.01) for job in jobs}
    table.loc[table.arm == "pixels", "n_labelled"] = 9999  # the same share of more labels is no floor of these
    assert floors.not_beaten(contrasts.cells_of(table, jobs_by_key), 100) == []


@pytest.mark.parametrize("shares, word", [
    ((0.7, 0.7125, 0.725), ""), ((0.5, 0.65, 0.7), "not shown to beat"), ((0.45, 0.6, 0.72), "not shown to beat"),
    ((0.5, 0.5125, 0.525), "below")])
def test_a_floor_is_beaten_where_the_interval_says_so_and_not_by_a_mean(outputs, shares, word):
    made = MadeStudy(outputs)
    for draw, share in enumerate(shares):
        made.trained("simclr", BALANCED, share, draw)
        made.floor("pixels", 0.6, draw)
        made.floor("colour", 0.3, draw)
    jobs, table = made.write()
    found = floors.not_beaten(contrasts.cells_of(table, jobs), 100)
    assert [alarm["sentence"].partition(": ")[2].partition(" raw pixels")[0] for alarm in found] == [word] * bool(word)


def test_without_an_interval_a_mean_has_to_do(outputs):
    made = MadeStudy(outputs)
    made.trained("simclr", BALANCED, 0.7)
    made.trained("mae", BALANCED, 0.5)
    made.floor("pixels", 0.6)
    jobs, table = made.write()
    for path in outputs.glob("made/runs/*/*/cells/*.npz"):  # of four patients
        with np.load(path) as kept:
            values = dict(kept)
        np.savez(path, **{**values, "groups": np.arange(len(values["labels"])) % 4})
    contrasts.predictions.cache_clear()
    alarm, = floors.not_beaten(contrasts.cells_of(table, jobs), 100)
    assert alarm["sentence"] == ("MAE (balanced), linear probe: not shown to beat raw pixels with 100 % of the labels, "
                                 "50.0 against 60.0 %.")


def test_a_fine_tuning_that_beats_no_floor_or_loses_a_class_in_a_split_is_one_sentence_each(outputs):
    made = MadeStudy(outputs)
    for draw in range(3):
        jobs = [made.trained("simclr", seen, [0.6, 0.6, 0.6, 0.6, 0.0 if draw == 1 else 0.4], draw, budgets=(0.01,),
                             protocols=("finetune",)) for seen in (BALANCED, IMBALANCED)]
        made.trained("mae", BALANCED, 0.9, draw, budgets=(0.01,), protocols=("finetune",))
        made.floor("supervised", 0.8, draw, budgets=(0.01,), protocols=("finetune",))
        made.floor("supervised", 0.99, draw, budgets=(0.01,), protocols=("finetune",), encoder="another")
        made.floor("random", 0.99, draw, budgets=(0.01,))  # a floor of probes
    jobs, table = made.write()
    never, beaten = alarms.of_cells(table), floors.not_beaten(contrasts.cells_of(table, jobs), 100)
    assert [alarm["which"][1] for alarm in never] == ["1 %: 1 of 5 (eel)"] * 2
    assert len(beaten) == 2 and all(len(alarm["cells"]) == 3 for alarm in beaten)
    assert re.fullmatch(r"SimCLR \(balanced\), fine-tuned: below .* with 1 % of the labels, 5\d\.\d against 80\.0 % "
                        r"\(.* to .*\)\.", beaten[0]["sentence"])
    text = alarms.as_list(never + beaten, {})
    assert text.count("SimCLR, fine-tuned: classes that are never found.") == 1
    assert text.count("SimCLR, fine-tuned: a floor is not shown to be beaten.") == 1 and "MAE" not in text
    assert len(grid.marked(grid.rows_of(jobs, table), never + beaten)) == 6


def test_the_largest_surprise_is_the_planted_one(outputs):
    made = MadeStudy(outputs)
    for draw in range(4):
        made.trained("simclr", IMBALANCED, 0.6, draw)
    twins = [made.trained("simclr", TWIN, 0.6 + cost, draw) for draw, cost in enumerate((0.05, 0.05, 0.2, 0.05))]
    jobs, table = made.write()
    summary = contrasts.summary_of(contrasts.cells_of(table, jobs), 100)
    found = alarms.largest_surprise(summary)
    assert found["key"] == twins[2]["key"]
    assert found["sentence"] == ("Largest surprise: SimCLR, balanced against SimCLR, 1:100 (linear probe, 100 % of the "
                                 "labels) differs by +20.0 points of balanced accuracy in one split, where the others "
                                 "average +5.0.")
    assert alarms.largest_surprise(summary[summary.n_pairs < 2]) is None


def test_alarms_are_a_list_that_links_and_escapes():
    text = alarms.as_list([{"key": "k", "sentence": "5 < 6 & <b>"}, {"key": "", "sentence": "no run"}], {"k": "r.html"})
    assert '5 &lt; 6 &amp; &lt;b&gt; <a href="r.html">open</a></li>' in text and "<li>no run</li>" in text
    assert "Nothing failed" in alarms.as_list([], {})


def test_what_is_said_of_many_cells_is_one_sentence_with_a_link_for_each(outputs):
    made = MadeStudy(outputs)
    never = [made.trained("mae", {"ratio": ratio}, [0, 1, 0, 0, 0], budgets=(0.01, 1.0)) for ratio in (1, 5, 10)]
    blind = [made.trained("simclr", seen, [0.5, 0, 0.5, 0.5, 0.5], budgets=(0.01,)) for seen in (BALANCED, IMBALANCED)]
    made.trained("lotar", BALANCED, [0.5, 0, 0, 0.5, 0.5])
    found = alarms.of_cells(made.write()[1])
    assert len(found) == 9 and all("every test image" in alarm["sentence"] for alarm in found[:6])  # these come first
    links = {job["key"]: f"{job['key']}.html" for job in made.jobs}
    text = alarms.as_list(found, links)
    assert text.count("every test image is called bee.<") == 1 and "MAE, linear probe: every test image" in text
    assert "<summary>6 cells</summary>" in text and "<summary>2 cells</summary>" in text and " more" not in text
    for job in never:
        assert text.count(f'href="{job["key"]}.html"') == 2
    assert text.index("<li>balanced: ") < text.index("<li>1:5: ") < text.index("<li>1:10: ")
    assert "SimCLR, linear probe: classes that are never found." in text
    assert all(f'<a href="{job["key"]}.html"' in text for job in blind) and ">1 %: 1 of 5 (bee)</a>" in text
    assert "LoTaR (balanced), linear probe with 100 % of the labels: 2 of 5 classes are never found (bee, cat)." in text
    assert text.count("href=") == len(found)


def test_what_is_said_of_many_arms_is_said_once(outputs):
    made = MadeStudy(outputs)
    for arm in ("simclr", "mae", "lotar", "bcl", "sdclr"):
        made.trained(arm, BALANCED, [0.5, 0, 0.5, 0.5, 0.5], protocols=("linear", "knn"))
    found = alarms.of_cells(made.write()[1])
    assert len({alarm["said"] for alarm in found}) == len(found) == 10 > alarms.SHOWN
    text = alarms.as_list(found, {})
    assert text.startswith('<ul class="alarms"><li>Classes that are never found.<details>')
    assert "<summary>10 cells</summary>" in text and "<li>MAE, kNN, balanced: 100 %: 1 of 5 (bee)</li>" in text


def test_all_but_the_first_sentences_are_folded_and_none_is_lost():
    many = [{"key": f"k{i}", "sentence": f"Alarm {i}."} for i in range(alarms.SHOWN + 3)]
    shown, folded = alarms.as_list(many, {f"k{i}": f"{i}.html" for i in range(99)}).split("<details>")
    assert shown.count("<li>") == alarms.SHOWN and folded.startswith("<summary>3 more</summary>")
    assert all(f"Alarm {i}. <a href=\"{i}.html\">" in (shown + folded) for i in range(len(many)))


def test_runs_that_failed_or_trained_badly_are_told_apart_and_joined():
    flat = "the loss did not fall: {} at first, {} at last"
    short = "under-trained: the last epoch brought more than a tenth of the whole fall of the loss"
    records = {"a": {"stage": "probe", "status": "failed", "reason": "out of memory"},
               "b": {"stage": "pretrain", "alarms": [flat.format(4.1, 4.2), short]},
               "c": {"stage": "pretrain", "alarms": [flat.format(4.3, 4.4), short]},
               "d": {"stage": "finetune", "alarms": ["of its cells"]}, "e": {}}
    failed, trained = alarms.of_runs(records, {key: f"run-{key}" for key in records})
    assert [alarm["sentence"] for alarm in failed] == ["run-a failed: out of memory"]
    assert [alarm["key"] for alarm in trained] == ["b", "b", "c", "c"]
    text = alarms.as_list(failed + trained, {"b": "b.html", "c": "c.html"})
    assert text.count("<li>Pretraining: the loss did not fall.<") == text.count(f"<li>Pretraining: {short}.<") == 1
    assert ">run-b: 4.1 at first, 4.2 at last</a>" in text and ">run-c</a>" in text and text.count("2 runs") == 2


def test_of_many_classes_that_are_never_found_the_first_are_named():
    rows = pd.DataFrame([{"part": "test", "method": "m", "arm": "m", "protocol": "linear", "budget": 1.0, "key": "k",
                          "stage": "probe", "pretrain_dataset": "made", "group_kind": "class", "layer": "",
                          "series": "m", "on": "", "metric": "recall", "group": f"c{i}", "value": 0.5 * (i > 90)}
                         for i in range(100)])
    alarm, = alarms.of_cells(rows)
    assert alarm["sentence"].endswith("91 of 100 classes are never found (c0, c1, c2, c3, c4, c5 and 85 more).")


class Squares(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if "data-cell" in (attributes := dict(attributes)):
            self.found.append((tag, attributes))


def test_the_grid_has_every_cell_of_the_plan_in_its_state(outputs):
    made = with_cost(outputs, 0.1, draws=(0, 1))
    made.trained("mae", BALANCED, 0.5, budgets=(0.01, 1.0), why="failed: <the loss> was not finite")
    made.trained("mae", IMBALANCED, 0.5, why="rests on mae-made-lt100-d0o0-s0, which runs")
    made.floor("imagenet", None, protocols=("linear", "knn"))
    made.floor("supervised_weighted", 0.4, protocols=("finetune",))
    jobs, table = made.write()
    found = grid.rows_of(jobs, table)
    assert len(found) == sum(len(job["cells"]) for job in made.jobs) == 10 + 3 + 2 + 1
    states = pd.Series([cell["state"] for cell in found]).value_counts().to_dict()
    assert states == {"done": 11, "failed": 2, "absent": 2, "waiting": 1}
    assert [cell["row"] for cell in found if cell["state"] != "done"] == [
        "MAE (balanced)"] * 2 + ["MAE (1:100)"] + ["ImageNet"] * 2
    squares = Squares(grid.grid_html(found)).found
    assert len(squares) == len(found)
    for tag, attributes in squares:
        assert (tag == "a") == ("href" in attributes) == (attributes["class"] != "cell waiting")
        link = attributes.get("href", "runs/probe/x/report.html")
        assert re.fullmatch(r"runs/(probe|finetune)/[^/]+/(report|failed)\.html", link)  # relative, so it can be moved
        assert "href" not in attributes or (made.folder / link).with_suffix(".ipynb").exists()
    text = grid.grid_html(found)
    assert text.count("<th>majority class</th>") == 1 and "linear probe" in text and "fine-tuned" in text


def test_alarms_mark_the_cells_they_are_about(outputs):
    made = MadeStudy(outputs)
    first = made.trained("simclr", BALANCED, 0.5, budgets=(0.01, 1.0))
    made.trained("simclr", IMBALANCED, 0.5, budgets=(0.01, 1.0))
    jobs, table = made.write()
    found = grid.rows_of(jobs, table)
    one = (first["key"], "encoder", "linear", 0.01)
    assert grid.marked(found, [{"key": first["key"], "cells": {one}, "sentence": ""}]) == {one}
    below = made.jobs[0]["key"]  # the pretraining that both budgets rest on
    assert grid.marked(found, [{"key": below, "sentence": ""}]) == {one, (*one[:3], 1.0)}
    assert grid.grid_html(found, {one}).count('class="alarm"') == 1


def test_results_of_older_code_are_marked(outputs):
    made = MadeStudy(outputs)
    made.trained("simclr", BALANCED, 0.5)
    jobs, table = made.write()
    text = grid.grid_html(grid.rows_of(jobs, table.assign(status="older code")))
    assert 'class="done older"' in text and "older code" in text


def test_odd_names_cannot_break_the_page(outputs):
    made = MadeStudy(outputs)
    made.trained("a&b'c %", BALANCED, 0.5)
    jobs, table = made.write()
    found = [cell | {"status": '<script>"'} for cell in grid.rows_of(jobs, table)]
    text = grid.grid_html(found)
    assert "<th>a&amp;b&#x27;c % (balanced)</th>" in text and "<script>" not in text
    (_, attributes), = Squares(text).found
    assert attributes["href"].startswith("runs/probe/a%26b%27c%20%25-") and attributes["title"].endswith('<script>"')


def test_a_study_of_which_nothing_is_there_yet_can_be_looked_at(outputs):
    made = MadeStudy(outputs)
    made.trained("simclr", BALANCED, 0.5, why="failed: out of memory")
    jobs, table = made.write()
    summary = contrasts.summary_of(contrasts.cells_of(table, jobs), 100)
    assert len(table) == len(summary) == len(plots_study.levels(table)) == len(plots_study.by_frequency(table)) == 0
    assert floors.not_beaten(contrasts.cells_of(table, jobs), 100) == []
    assert alarms.of_cells(table) == [] and alarms.largest_surprise(summary) is None
    assert "No pair of cells" in contrasts.answer(summary)[0]
    assert 'failed.html" title=' in grid.grid_html(grid.rows_of(jobs, table))
