"""What a study says on a claim: whose interval it is, what is paired, and what a verdict still lacks."""

import json
import os
import subprocess

import numpy as np
import pandas as pd
import pytest
import yaml
from made_study import BALANCED, MadeStudy
from test_claims import ENTRY, claim, claim_of, found

from ssl_core.analysis import asked, claims_table, contrasts
from ssl_core.analysis.claims import Evidence, judge, load_claims, verdict
from ssl_core.analysis.compare import Contrast
from ssl_core.analysis.evidence import committed, evidence, paired, tables_of
from ssl_core.cli import main
from ssl_core.files import atomic_json
from ssl_core.table import arrange, read_text, to_csv


def git(folder, *words, when="2026-01-02T00:00:00+00:00"):
    subprocess.run(["git", "-c", "user.name=made", "-c", "user.email=made@made", *words], cwd=folder, check=True,
                   capture_output=True, env=os.environ | {"GIT_COMMITTER_DATE": when, "GIT_AUTHOR_DATE": when})


def write_claims(folder, *entries):
    text = "".join(yaml.safe_dump([one], sort_keys=False) for one in entries)
    (folder / "c_made.yaml").write_text(text, encoding="utf-8")


@pytest.fixture
def repository(tmp_path):
    """A folder of claims under git, with one claim of 2 January."""
    folder = tmp_path / "claims"
    folder.mkdir()
    write_claims(folder, ENTRY)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "Claim")
    return folder


def test_git_says_when_what_decides_was_committed(repository):
    path = repository / "c_made.yaml"
    assert str(committed(path, "c_made").date()) == "2026-01-02"
    write_claims(repository, ENTRY | {"statement": "A beats B by far"}, ENTRY | {"id": "c_other", "budget": 0.1})
    assert str(committed(path, "c_made").date()) == "2026-01-02" and committed(path, "c_other") is None
    write_claims(repository, ENTRY | {"tolerance": 3.0})
    assert committed(path, "c_made") is None
    git(repository, "commit", "-qam", "Widen", when="2026-03-04T00:00:00+00:00")
    assert str(committed(path, "c_made").date()) == "2026-03-04"


def made_study(folder, dataset="made", started="2026-02-01T00:00:00+00:00", steps=(10, 10), falls=False, gain=0.05):
    """results.csv, plan.json, run.json and history.csv of two arms on three splits."""
    tables, jobs = [], []
    for arm, (value, n) in enumerate(zip((0.6 + gain, 0.6), steps)):
        for draw in range(3):
            name, key = "ab"[arm], f"{arm}{draw}"
            below = folder / "made" / "runs" / "pretrain" / f"{name}-p{key}"
            atomic_json(below / "run.json", {"started": started, "parameters": {"steps": n, "batch": 8}})
            loss = np.linspace(5, 1, 20) if falls else 1 + 4 * np.exp(-np.arange(20.0))
            pd.DataFrame({"step": np.arange(20), "loss": loss}).to_csv(below / "history.csv", index=False)
            probe = folder / "made" / "runs" / "probe" / f"{name}-{key}"
            atomic_json(probe / "run.json", {"started": started})
            jobs += [{"key": f"p{key}", "stage": "pretrain", "folder": str(below), "needs": []},
                     {"key": key, "stage": "probe", "folder": str(probe), "needs": [str(below)]}]
            row = {"study": "made", "dataset": dataset, "pretrain_dataset": dataset, "synthetic": False, "arm": name,
                   "twin": "none", "draw_seed": draw, "order_seed": draw, "seed": 0, "budget_seed": 0, "budget": 1,
                   "protocol": "linear", "stage": "probe", "status": "done", "key": key}
            path = folder / f"{key}.csv"
            path.write_text(to_csv([{"metric": "balanced_accuracy", "group_kind": "all", "group": "all",
                                     "part": "test", "value": value + 0.01 * draw * (1 - arm), "low": value - 0.002,
                                     "high": value + 0.002}], row), encoding="utf-8")
            tables.append(read_text(path))
    atomic_json(folder / "made" / "plan.json", {"study": "made", "jobs": jobs})
    arrange(tables).to_csv(folder / "made" / "results.csv", index=False, lineterminator="\n")


def test_own_data_old_tolerance_control_and_equal_tuning_earn_a_verdict(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    made_study(tmp_path)
    [one] = evidence(claim(), "made", repository)
    assert one.lacking == () and one.effect.effect == pytest.approx(0.06) and one.effect.n_pairs == 3
    assert verdict(claim(), [one]).verdict == "reproduced"
    assert verdict(claim(), [one]).why == "the effect is compatible with the published one"


def test_runs_that_were_adopted_from_elsewhere_are_evidence(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    made_study(tmp_path)
    (tmp_path / "made" / "runs").rename(tmp_path / "kept")
    path = tmp_path / "made" / "plan.json"
    path.write_text(path.read_text().replace(str(tmp_path / "made" / "runs"), str(tmp_path / "kept")))
    assert evidence(claim(), "made", repository)[0].lacking == ()


def test_what_was_not_pretrained_has_no_plateau(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    made_study(tmp_path)
    path = tmp_path / "made" / "plan.json"
    plan = json.loads(path.read_text())
    atomic_json(path, plan | {"jobs": [job | {"needs": []} for job in plan["jobs"]]})
    [reason] = evidence(claim(), "made", repository)[0].lacking
    assert reason == "no positive control: nothing was pretrained whose loss could level off"


def test_pretrainings_below_a_pretraining_count_and_test_images_in_training_do_not(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    made_study(tmp_path)
    path = tmp_path / "made" / "plan.json"
    plan, start = json.loads(path.read_text()), tmp_path / "made" / "runs" / "pretrain" / "a-start"
    atomic_json(start / "run.json", {"started": "2026-02-01T00:00:00+00:00", "parameters": {"steps": 10, "batch": 8}})
    pd.DataFrame({"step": np.arange(20), "loss": np.linspace(5, 1, 20)}).to_csv(start / "history.csv", index=False)
    jobs = [job | {"needs": [str(start)]} if job["key"].startswith("p0") else job for job in plan["jobs"]]
    jobs.append({"key": "start", "stage": "pretrain", "folder": str(start), "needs": []})
    atomic_json(path, plan | {"jobs": jobs, "copies": {"made": "2 copies"}})
    assert evidence(claim(), "made", repository)[0].lacking == (
        "test images of made are in training, which made allows",
        "no positive control: the loss of a-start was still falling at its end")


@pytest.mark.parametrize("changes, reason", [
    ({"dataset": "other"}, "made of other, not of made"), ({"steps": (10, 20)}, "unequal tuning budgets: steps 10"),
    ({"started": "2026-01-01T00:00:00+00:00"}, "committed on 2026-01-02, after the first run had started"),
    ({"falls": True}, "no positive control: the loss of a-p00 was still falling"),
])
def test_without_one_of_them_there_is_a_direction_only(repository, tmp_path, monkeypatch, changes, reason):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    made_study(tmp_path, **changes)
    said = verdict(claim(), evidence(claim(), "made", repository))
    assert said.verdict == "not tested" and reason in said.why and "direction here: higher" in said.direction


@pytest.mark.parametrize("values, lacking", [
    ({"heads": {"linear": {"epochs": 30}, "knn": {"k": 1}}, "run": "x"}, ()),
    ({"heads": {"linear": {"epochs": 10}}}, ("unequal tuning budgets: linear with epochs 10; epochs 30",)),
    ({"heads": {"linear": {"epochs": 30}}, "class_weight": "balanced"},
     ("unequal tuning budgets: linear with class_weight None; class_weight balanced",)),
])
def test_sides_are_read_alike(repository, tmp_path, monkeypatch, values, lacking):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    made_study(tmp_path)
    for path in (tmp_path / "made" / "runs" / "probe").glob("*/run.json"):
        mine = values if path.parent.name.startswith("b-") else {"heads": {"linear": {"epochs": 30}}}
        atomic_json(path, {"started": "2026-02-01T00:00:00+00:00", "parameters": mine})
    assert evidence(claim(), "made", repository)[0].lacking == lacking


def test_a_baseline_outside_its_published_range_is_no_control(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    made_study(tmp_path)
    for low, lacking in ((55, 0), (70, 1)):
        [one] = evidence(claim(control={"arm": "b", "low": low, "high": 80}), "made", repository)
        assert len(one.lacking) == lacking
    assert one.lacking == ("no positive control: b has 60.0 % balanced_accuracy, published are 70 to 80",)
    rows = read_text(tmp_path / "made" / "results.csv").assign(ratio="100")
    pd.concat([rows, rows.assign(ratio="1", value="0.9")]).to_csv(tmp_path / "made" / "results.csv", index=False)
    at = {"what": {"arm": "a", "ratio": 100}, "against": {"arm": "b", "ratio": 100}}
    write_claims(repository, ENTRY | {"contrast": at})
    git(repository, "commit", "-qam", "Ratio", when="2026-01-20T00:00:00+00:00")
    [one] = evidence(claim(contrast=at, control={"arm": "b", "low": 55, "high": 65}), "made", repository)
    assert one.lacking == ()  # of the claim's own ratio alone


def test_the_control_is_read_on_test_images_and_has_to_be_younger_than_the_tolerance(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    made_study(tmp_path)
    level = claim(says="number", published=65.0, contrast={"what": {"arm": "a"}},
                  control={"arm": "b", "low": 59, "high": 61})
    write_claims(repository, level.model_dump(mode="json", exclude_defaults=True))
    git(repository, "commit", "-qam", "Level", when="2026-01-20T00:00:00+00:00")
    assert evidence(level, "made", repository)[0].lacking == ()
    table = read_text(tmp_path / "made" / "results.csv")
    table = pd.concat([table, table[table.arm == "b"].assign(part="val", value="0.9")])
    table.to_csv(tmp_path / "made" / "results.csv", index=False)
    assert evidence(level, "made", repository)[0].lacking == ()
    path = tmp_path / "made" / "runs" / "pretrain" / "b-p10" / "run.json"
    atomic_json(path, {"started": "2026-01-10T00:00:00+00:00", "parameters": {"steps": 10, "batch": 8}})
    [reason] = evidence(level, "made", repository)[0].lacking
    assert reason == "its tolerance was committed on 2026-01-20, after the first run had started"


def test_what_cannot_be_looked_up_is_no_evidence(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    made_study(tmp_path)
    write_claims(repository, ENTRY | {"tolerance": 3.0})
    [reason] = evidence(claim(), "made", repository)[0].lacking
    assert reason == "git cannot say that its tolerance is older than the runs"
    history = tmp_path / "made" / "runs" / "pretrain" / "a-p00" / "history.csv"
    history.unlink()
    [reason] = evidence(claim(), "made", repository)[0].lacking
    assert reason == "made has numbers, but not run.json, or history.csv, of the runs that made them"
    table = read_text(tmp_path / "made" / "results.csv").assign(synthetic="true")
    table.to_csv(tmp_path / "made" / "results.csv", index=False)
    [reason] = evidence(claim(), "made", repository)[0].lacking
    assert reason == "made of synthetic images"


def test_the_interval_is_the_studys_own_where_it_states_the_contrast(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    made_study(tmp_path)
    row = {"family": "between arms", "protocol": "linear", "budget": 1.0, "metric": "balanced_accuracy", "group": "all",
           "effect": -0.04, "low": -0.05, "high": -0.03, "low_images": -0.041, "high_images": -0.039,
           "low_splits": -0.05, "high_splits": -0.03, "n_pairs": 3, "p": 0.01, "keys": "10:00 11:01 12:02",
           "test": "paired t over splits with bootstrap over images", "sentence": "b is lower"}
    pd.DataFrame([row, row | {"keys": "zz:00", "effect": 9}]).to_csv(tmp_path / "made" / "summary.csv", index=False)
    [one] = evidence(claim(), "made", repository)
    assert one.effect == Contrast(0.04, (0.03, 0.05), (0.039, 0.041), (0.03, 0.05), 0.01, 3)
    part = pd.DataFrame([row | {"keys": "10:00 11:01"}])  # of some of the splits: not the contrast that is asked for
    part.to_csv(tmp_path / "made" / "summary.csv", index=False)
    tables_of.cache_clear()
    [one] = evidence(claim(), "made", repository)
    assert one.effect.n_pairs == 3 and one.effect.effect != 0.04
    seeds = row | {"test": "paired t over seeds with bootstrap over images"}
    pd.DataFrame([seeds]).to_csv(tmp_path / "made" / "summary.csv", index=False)
    tables_of.cache_clear()
    [one] = evidence(claim(), "made", repository)
    assert judge(claim(), one.effect) == ("inconclusive", "one split says nothing of others; five or more would")


def test_pairs_formed_here_hold_the_doubt_of_all_sides():
    def side(values):
        rows = pd.DataFrame({"value": values, "draw_seed": [0, 1], "order_seed": [0, 1], "seed": 0, "budget_seed": 0})
        return rows.assign(low=rows.value - 0.0196, high=rows.value + 0.0196, arm="a")
    one = paired([(1, side([0.7, 0.8])), (-1, side([0.6, 0.6]))])
    assert one.effect == pytest.approx(0.15)
    assert one.over_images == pytest.approx((0.15 - 0.0392, 0.15 + 0.0392), abs=1e-4)
    interaction = paired([(1, side([0.7, 0.8])), (-1, side([0.6, 0.6])), (-1, side([0.7, 0.7])), (1, side([0.5, 0.6]))])
    assert interaction.effect == pytest.approx(0.0, abs=1e-12)
    alone = side([0.7, 0.8])[:1].assign(low=np.nan, high=np.nan)
    assert paired([(1, alone), (-1, alone)]).verdict == "unknown"
    with pytest.raises(ValueError, match="several numbers of one split"):
        paired([(1, pd.concat([side([0.7, 0.8])] * 2))])


def test_a_row_for_each_claim_and_study_says_what_was_paired_and_what_is_lacking(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    made_study(tmp_path)
    other = claim(id="c_other", metric="accuracy")
    said = {"c_made": [Evidence("late", "made", found(1, 2), ("too late",)), *evidence(claim(), "made", repository)],
            "c_other": []}
    table = claims_table.evidence_table([verdict(one, said[one.id]) for one in (claim(), other)], said)
    assert table.claim.tolist() == ["c_made", "c_made", "c_other"] and table.study.tolist() == ["late", "made", ""]
    assert table.verdict.tolist() == ["reproduced", "reproduced", "not tested"]
    assert table.decides.tolist() == [False, True, False] and table.lacking.tolist() == ["too late", "", ""]
    mine, effect = table.iloc[1], said["c_made"][1].effect
    assert (mine["keys"], mine.contrast, mine.n_pairs) == ("00:10 01:11 02:12", "formed here", 3)
    assert (mine.low_images, mine.high_images, mine.low_splits) == (*effect.over_images, effect.over_splits[0])
    assert (mine.effect, mine.low, mine.high) == (effect.effect, *effect.interval) and table.effect.isna().tolist()[2]


def study_of_claims(folder, monkeypatch, *entries):
    """Two arms on three splits with test scores, two budgets, and claims on them; → what 40_compare has."""
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(folder / "outputs"))
    monkeypatch.setenv("SSL_CORE_ROOT", str(folder))
    (folder / "params" / "claims").mkdir(parents=True)
    write_claims(folder / "params" / "claims", *entries)
    made = MadeStudy(folder / "outputs")
    for draw, less in enumerate((0.0, 0.0125, 0.025)):
        for arm, share in (("a", 0.7), ("b", 0.6)):
            made.trained(arm, BALANCED, lambda _, budget, of=share - less: of + 0.1 * (budget == 1), draw,
                         budgets=(0.01, 1.0))
    jobs, table = made.write()
    cells = contrasts.cells_of(table, jobs)
    return table, cells, contrasts.summary_of(cells, 100)


def test_what_claims_ask_is_paired_over_test_images_and_a_row_of_its_own_family(tmp_path, monkeypatch):
    accuracy = ENTRY | {"metric": "accuracy"}
    budgets = {"what": {"arm": "a"}, "against": {"arm": "a", "budget": 0.01}}
    less = {"what": {"arm": "a"}, "against": {"arm": "b"}, "minus": {"budget": 0.01}}
    asked_for = [accuracy, accuracy | {"id": "c_budgets", "contrast": budgets},
                 accuracy | {"id": "c_less", "contrast": less}, ENTRY | {"id": "c_own"},
                 ENTRY | {"id": "c_elsewhere", "metric": "roc_auc", "data": "elsewhere"},
                 ENTRY | {"id": "c_layer", "metric": "roc_auc", "contrast": {
                     "what": {"arm": "a", "layer": "1"}, "against": {"arm": "b", "layer": "1"}}}]
    table, cells, summary = study_of_claims(tmp_path, monkeypatch, *asked_for)
    rows = asked.of_claims(table, cells, summary, 100)
    assert [said.partition(":")[0] for said in rows.sentence] == ["c_made", "c_budgets", "c_less"]
    assert set(rows.family) == {"asked by claims, accuracy"} and set(rows.n_pairs) == {3}
    assert rows.effect.tolist() == pytest.approx([0.1, 0.1, 0.0], abs=0.005)  # a share of 80 images, rounded
    assert rows.p_adjusted.tolist() == contrasts.holm(rows.p).tolist()  # of these three alone
    pairs = [tuple(pair.split(":")) for pair in rows["keys"][0].split()]
    arm = dict(zip(table.key, table.arm))
    assert [(arm[one], arm[other]) for one, other in pairs] == [("a", "b")] * 3
    for number, one in enumerate(map(claim_of, asked_for[:3])):
        pd.concat([summary, rows]).to_csv(tmp_path / "outputs" / "made" / "summary.csv", index=False)
        tables_of.cache_clear()
        [mine] = evidence(one, "made")
        assert not mine.formed and mine.effect.interval == pytest.approx((rows.low[number], rows.high[number]))
        summary.to_csv(tmp_path / "outputs" / "made" / "summary.csv", index=False)
        tables_of.cache_clear()
        [rough] = evidence(one, "made")
        assert rough.formed and rough.effect.effect == pytest.approx(mine.effect.effect, abs=1e-6)
        width = [one.effect.over_images[1] - one.effect.over_images[0] for one in (mine, rough)]
        assert width[0] < 0.9 * width[1]  # what makes an image hard is shared


def test_a_study_that_no_claim_is_about_keeps_its_summary(tmp_path, monkeypatch):
    table, cells, summary = study_of_claims(tmp_path, monkeypatch, ENTRY | {"data": "other", "metric": "accuracy"})
    assert not len(asked.of_claims(table, cells, summary, 100))


def test_scores_that_do_not_give_the_number_again_are_not_drawn_from(tmp_path, monkeypatch):
    table, cells, summary = study_of_claims(tmp_path, monkeypatch, ENTRY | {"metric": "roc_auc"})
    assert len(asked.of_claims(table, cells, summary, 100)) == 1
    for path in cells.path:
        with np.load(path) as kept:
            values = dict(kept)
        np.savez(path, **{**values, "probabilities": np.roll(values["probabilities"], 1, 0)})
    contrasts.predictions.cache_clear()
    assert not len(asked.of_claims(table, cells, summary, 100))


def test_the_notebook_prints_every_verdict_and_keeps_what_it_rests_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    made_study(tmp_path)
    assert main(["claims", "made"]) == 0
    said = capsys.readouterr().out
    kept = pd.read_csv(tmp_path / "made" / "claims.csv", keep_default_na=False)
    assert list(kept.claim) == list(load_claims()) and set(kept.verdict) == {"not tested", "source gone"}
    assert all(f"\n{name} " in said for name in load_claims())
    assert said.endswith(claims_table.counts([verdict(one) for one in load_claims().values()]) + "\n")
