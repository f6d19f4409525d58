"""The smoke study, run for real: table, folders, encoders, heads, reports; what an edit costs; killed and resumed."""

import getpass
import json
import os
import platform
import random
import re
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors import safe_open
from safetensors.numpy import load_file
from smoke_study import STUDY, Smoke, copy_project, smoke  # noqa: F401

import ssl_core
from ssl_core.data import load
from ssl_core.data.pools import pools
from ssl_core.evaluate.features import extract
from ssl_core.evaluate.floors import raw_pixels
from ssl_core.evaluate.probe import apply_probe
from ssl_core.files import sha256_file

COLUMNS = (
    "study, pretrain_dataset, dataset, synthetic, split_kind, twin, ratio, order_seed, draw_seed, n_unlabelled, arm, "
    "method, variant, encoder, init, epochs, seed, stage, protocol, label_pool, budget, budget_seed, n_labelled, "
    "test_set, part, layer, group_kind, group, metric, threshold, value, low, high, interval, n, n_groups, n_positive, "
    "status, key").split(", ")
NUMBERS = ["ratio", "order_seed", "draw_seed", "n_unlabelled", "epochs", "seed", "budget", "budget_seed", "n_labelled",
           "threshold", "value", "low", "high", "n", "n_groups", "n_positive"]
SUMMARY = ["what", "against", "metric", "test", "effect", "low", "high", "n_pairs", "p", "p_adjusted", "sentence"]
OPEN_ENDED = ["log_loss", "brier", "matthews_corrcoef", "cohen_kappa_quadratic"]  # every other metric is a share


def rows_of(smoke):  # noqa: F811
    table = pd.read_csv(smoke.folder / "results.csv", dtype=str, keep_default_na=False)
    return table, table.assign(**{name: pd.to_numeric(table[name]) for name in NUMBERS})


def record_of(folder):
    return json.loads((folder / "run.json").read_text("utf-8"))


def one(smoke, pattern):  # noqa: F811
    folder, = (smoke.folder / "runs").glob(pattern)
    return folder


# --- what it leaves ---------------------------------------------------------------------------------------------------

def test_it_runs_through_and_says_how_far_it_is(smoke):  # noqa: F811
    assert smoke.said.startswith("smoke: 10 of 10 jobs to run, 0 of 34 cells there\n")
    assert re.search(rf"34 of 34 cells; {re.escape(str(smoke.folder))}/index.html\n$", smoke.said)
    assert sorted(re.findall(r"^\[ ?(\d+)/10\] (?:pretrain|probe) \S+  \d+ s$", smoke.said, re.M), key=int) == [
        str(k) for k in range(1, 11)]


def test_the_table_is_tidy_sorted_and_holds_no_times(smoke):  # noqa: F811
    text, table = rows_of(smoke)
    assert list(text.columns) == COLUMNS
    names = COLUMNS[:COLUMNS.index("value")]
    assert table.sort_values(names, kind="stable").index.equals(table.index)
    assert not table.duplicated([*names, "key"]).any()
    shares = table[~table.metric.isin(OPEN_ENDED)].dropna(subset="value")
    assert len(shares) > 1000 and shares.value.between(0, 1).all()
    known = table.dropna(subset=["low", "value"])
    assert len(known) > 1000 and (known.low <= known.value).all() and (known.value <= known.high).all()
    assert not text.apply(lambda column: column.str.contains(r"\d{4}-\d\d-\d\d|\d\d:\d\d")).any(axis=None)
    assert set(table.method) == {"simclr", "mae", "majority", "colour", "pixels", "random", "imagenet"}
    assert set(text.ratio[table.pretrain_dataset == "fashion"]) == {"1", "100"} and set(text.synthetic) == {"false"}
    assert all(text.status[table.method == "imagenet"].str.startswith("not run: no weights at "))
    assert set(text.status[table.method != "imagenet"]) == {"done"}


def test_every_number_leads_to_the_run_that_made_it(smoke):  # noqa: F811
    text, _ = rows_of(smoke)
    for key, rows in text.groupby("key"):
        folder = one(smoke, f"*/*-{key}")
        done = json.loads((folder / "done.json").read_text("utf-8"))
        assert done["key"] == key == record_of(folder)["key"]
        assert all(sha256_file(folder / name) == digest for name, digest in done["files"].items())
        own = pd.concat([pd.read_csv(path, dtype=str, keep_default_na=False) for path in folder.glob("cells/*.csv")])
        assert sorted(map(tuple, own.values)) == sorted(map(tuple, rows.values))


def test_the_summary_has_its_columns_and_leads_to_the_runs_too(smoke):  # noqa: F811
    summary = pd.read_csv(smoke.folder / "summary.csv")
    assert set(SUMMARY) <= set(summary.columns) and set(summary.n_pairs) == {1}
    assert set(summary.family) == {"cost of imbalance", "gain of pretraining", "between arms"}
    text, table = rows_of(smoke)
    values = table[(table.metric == "balanced_accuracy") & (table.group_kind == "all") & (table.part == "test")]
    for row in summary[summary.metric == "balanced_accuracy"].itertuples():
        at = values[(values.protocol == row.protocol) & (values.budget == row.budget)]
        a, b = (at[(at.key == key) & ~at.method.isin(["majority", "colour", "pixels", "imagenet"])].value.item()
                for key in row.keys.split(":"))
        assert row.effect == pytest.approx(a - b, abs=1e-6) and row.low < row.effect < row.high


def test_figures_are_there_in_every_form(smoke):  # noqa: F811
    files = {path.name for path in (smoke.folder / "figures").iterdir()}
    names = {name.partition(".")[0] for name in files}
    assert files == {f"{name}.{form}" for name in names for form in ("csv", "pdf", "png", "txt", "alt.txt")}
    assert {"budgets", "cost", "frequency", "training", "tsne", "umap", "spread"} <= names  # the last four of 41_layers
    for name in names:
        assert "Real images (fashion)" in (smoke.folder / "figures" / f"{name}.txt").read_text("utf-8")
    for name in ("budgets", "cost", "frequency"):
        assert "95 % intervals over" in (smoke.folder / "figures" / f"{name}.txt").read_text("utf-8")


def strings_of(value):
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    return [text for item in value for text in strings_of(item)] if isinstance(value, list) else [str(value)]


def test_run_json_says_what_ran_and_on_what_but_neither_who_nor_where(smoke):  # noqa: F811
    for folder in (smoke.folder / "runs").glob("*/*"):
        record = record_of(folder)
        assert set(record) >= {"parameters", "parts", "key", "git", "packages", "device", "threads", "seconds",
                               "peak_memory_mb", "status", "reason", "started", "finished", "synthetic", "files"}
        assert record["status"] == "done" and record["device"] == "cpu" and record["threads"] == 1
        assert record["parts"]["inputs"]["data"] and record["packages"]["torch"]
        for name in ("run.json", "done.json", "model.json"):
            if (folder / name).exists():
                texts = strings_of(json.loads((folder / name).read_text("utf-8")))
                places = [str(smoke.outputs), str(smoke.project), str(Path.home()), sys.prefix]
                assert not [t for t in texts if t.startswith(("/", "\\")) or any(place in t for place in places)]
                assert not {getpass.getuser(), platform.node()} & set(texts)


# --- encoders and heads without the project that made them ------------------------------------------------------------

@pytest.fixture(scope="module")
def used(smoke):  # noqa: F811
    """The images of the pools labelled and test, and how many are of the first."""
    data = load("fashion", 28)
    cfg = record_of(one(smoke, "probe/simclr-fashion-lt100-*"))["parameters"]
    names = ("split_kind", "ratio", "twin", "draw_seed", "order_seed", "label_pool", "test_fraction", "part_seed")
    parts = pools(data, **{name: cfg[name] for name in names})
    return data.images[np.concatenate([parts.labelled, parts.test])], len(parts.labelled)


@pytest.mark.parametrize("arm", ["simclr-fashion-lt100.same_n", "mae-fashion-lt1"])
def test_an_encoder_needs_no_other_file(smoke, used, tmp_path, arm):  # noqa: F811
    run = one(smoke, f"pretrain/{arm}-*")
    shutil.copy(run / "encoder.safetensors", tmp_path / "moved.safetensors")
    with safe_open(tmp_path / "moved.safetensors", "np") as file:
        assert record_of(run)["key"] in json.dumps(file.metadata())
    encoder = ssl_core.load_encoder(tmp_path / "moved.safetensors")
    assert not encoder.training
    kept = np.load(one(smoke, f"probe/{arm}-*") / "features.npz", allow_pickle=False)["h"]
    some = slice(None, None, 100)
    assert np.allclose(extract(encoder, used[0][some]), kept[some], atol=1e-4 * np.abs(kept).max())


def test_a_head_gives_the_stored_probabilities_again(smoke, used):  # noqa: F811
    images, n_labelled = used
    probe, floors = one(smoke, "probe/simclr-fashion-lt100-*"), one(smoke, "probe/floors-*")
    features = {"": np.load(probe / "features.npz", allow_pickle=False)["h"][n_labelled:],
                "pixels.": raw_pixels(images[n_labelled:])}
    for folder, source in ((probe, ""), (floors, "pixels.")):
        head, model = load_file(folder / "head.safetensors"), json.loads((folder / "model.json").read_text("utf-8"))
        assert model["key"] == record_of(folder)["key"] and len(model["classes"]) == 10 and model["threshold_rule"]
        for budget in ("0.01", "0.1"):
            cell = f"{source}linear-b{budget}-s0"
            arrays = {name: head[f"{cell}/{name}"] for name in ("mean", "scale", "weight", "bias")}
            with np.load(folder / "cells" / f"{cell}.npz", allow_pickle=False) as kept:
                assert tuple(kept["classes"]) == tuple(model["classes"])
                again = apply_probe(arrays, model["task"], features[source])
                assert np.abs(again - kept["probabilities"]).max() < 1e-6
    model = json.loads((probe / "model.json").read_text("utf-8"))
    assert model["run"].endswith(one(smoke, "pretrain/simclr-fashion-lt100-*").name)  # where its encoder is


# --- run again, by hand and in bulk -----------------------------------------------------------------------------------

def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_repeated_it_does_nothing(smoke):  # noqa: F811
    before, rows = files_of(smoke.folder / "runs"), (smoke.folder / "results.csv").read_bytes()
    said = smoke.do("ssl_core", "run", STUDY)
    assert said.startswith("smoke: 0 of 10 jobs to run, 34 of 34 cells there\n") and "40_compare" not in said
    assert files_of(smoke.folder / "runs") == before and (smoke.folder / "results.csv").read_bytes() == rows


@pytest.mark.parametrize("pattern", ["pretrain/mae-*", pytest.param("probe/mae-*", marks=pytest.mark.slow)])
def test_an_executed_report_run_again_computes_nothing_twice(smoke, tmp_path, pattern):  # noqa: F811
    run = one(smoke, pattern)
    before, content = files_of(run), {path: path.read_bytes() for path in files_of(run)}
    shutil.copy(run / "report.ipynb", tmp_path)
    smoke.do("jupyter", "execute", tmp_path / "report.ipynb", "--inplace", "--timeout=600")
    after = files_of(run)
    written = {path.name for path, when in before.items() if after[path] != when}
    assert written <= {"done.json", "head.safetensors", "model.json"}  # gathered again from the cells, which stand
    assert {path: path.read_bytes() for path in after} == content
    assert f"{run.name} was made before" in (tmp_path / "report.ipynb").read_text("utf-8")


def same_tensors(one_file, other_file):
    """To the last bit; the order of a header's entries may differ."""
    a, b = load_file(one_file), load_file(other_file)
    return set(a) == set(b) and all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_papermill_by_hand_makes_the_run_that_the_study_makes(smoke, tmp_path):  # noqa: F811
    by_hand = Smoke(smoke.project, tmp_path / "elsewhere")
    said = smoke.do("ssl_core", "run", STUDY, "--dry-run", "--commands")
    command = next(shlex.split(line) for line in said.splitlines()
                   if line.startswith("papermill notebooks/10_pretrain.ipynb out.ipynb") and " twin same_n" in line)
    by_hand.do(*command[:2], tmp_path / "out.ipynb", *command[3:], "--no-progress-bar")
    made, bulk = (one(where, "pretrain/simclr-fashion-lt100.same_n-*") for where in (by_hand, smoke))
    assert made.name == bulk.name and record_of(made)["parts"] == record_of(bulk)["parts"]
    assert same_tensors(made / "encoder.safetensors", bulk / "encoder.safetensors")
    for name in ("method.safetensors", "image_loss.npy"):
        assert (made / name).read_bytes() == (bulk / name).read_bytes(), name


# --- what an edit costs -----------------------------------------------------------------------------------------------

@pytest.fixture
def edited(smoke, tmp_path):  # noqa: F811
    """Plans the study in a copy of the project after an edit: {job: why it is to run}, and all that the plan says."""
    copy = Smoke(copy_project(smoke.project, tmp_path / "project"), smoke.outputs)

    def plan(path, old, new):
        text = (copy.project / path).read_text("utf-8")
        assert old in text, f"{path} has no {old!r}"
        (copy.project / path).write_text(text.replace(old, new, 1), encoding="utf-8")
        said = copy.do("ssl_core", "run", STUDY, "--dry-run", "--why")
        return dict(re.findall(r"^((?:pretrain|probe) \S+): (.*)$", said, re.M)), said

    return plan


def names_of(why):
    return sorted(name.removesuffix("-d0o0-s0").removesuffix("-d0-s0").replace("-fashion", "") for name in why)


PRETRAIN = ["pretrain mae-lt1", "pretrain simclr-lt1", "pretrain simclr-lt100", "pretrain simclr-lt100.same_n"]
PROBE = ["probe floors", "probe mae-lt1", "probe random.vit_tiny_patch16_224", "probe simclr-lt1", "probe simclr-lt100",
         "probe simclr-lt100.same_n"]
REMADE = "the notebook's text or a figure changed"


def test_nothing_edited_costs_nothing(edited):
    why, said = edited(STUDY, "# Question", "# A question")
    assert why == {} and "34 of 34 cells there" in said


@pytest.mark.parametrize("path, old, new, remade", [
    ("ssl_core/analysis/plots.py", "COLUMN, PAGE = 3.5, 7.0", "COLUMN, PAGE = 3.4, 7.0", PRETRAIN + PROBE),
    ("notebooks/20_probe.ipynb", "**Question.**", "**A question.**", PROBE),
    ("notebooks/40_compare.ipynb", "trains nothing", "does not train", []),
    ("ssl_core/train.py", "\n\n\ndef ", "\n\n\n# a comment\ndef ", []),
])
def test_text_and_figures_cost_reports_and_no_training(edited, path, old, new, remade):
    why, said = edited(path, old, new)
    assert names_of(why) == sorted(remade) and set(why.values()) <= {REMADE} and "34 of 34 cells there" in said


def test_a_constant_of_a_method_costs_the_arms_that_use_it(edited):
    why, said = edited("ssl_core/methods/simclr.py", "tau=0.5", "tau=0.4")
    assert names_of(why) == [name for name in PRETRAIN + PROBE if "simclr" in name] and "22 of 34 cells there" in said
    assert {reason for name, reason in why.items() if name.startswith("pretrain")} == {"methods/simclr.py changed"}


def test_another_budget_costs_its_own_cells(edited):
    why, said = edited(STUDY, "budgets: [0.01, 0.1]", "budgets: [0.01, 0.1, 0.5]")
    assert names_of(why) == PROBE and set(why.values()) == {"budget 0.5 added"} and "34 of 51 cells there" in said


def test_one_parameter_costs_its_arm(edited):
    why, _ = edited(STUDY, "    recipe: mae\n", "    recipe: mae\n    lr: 0.5\n")
    assert names_of(why) == ["pretrain mae-lt1", "probe mae-lt1"]
    assert why["pretrain mae-fashion-lt1-d0o0-s0"] == "lr 0.001 → 0.5"


def test_a_missing_file_costs_what_rests_on_it(edited, smoke):  # noqa: F811
    encoder = one(smoke, "pretrain/mae-*") / "encoder.safetensors"
    encoder.rename(encoder.with_suffix(".away"))
    try:
        why, _ = edited(STUDY, "# Question", "# A question")
    finally:
        encoder.with_suffix(".away").rename(encoder)
    assert names_of(why) == ["pretrain mae-lt1", "probe mae-lt1"]
    assert why["pretrain mae-fashion-lt1-d0o0-s0"] == "encoder.safetensors missing"


# --- killed -----------------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_killed_at_any_moment_and_on_one_job_or_two_the_table_is_the_same(smoke, tmp_path):  # noqa: F811
    """The whole process group dies at three moments; then the study is finished on one job, not two."""
    killed, moments = Smoke(smoke.project, tmp_path / "killed"), random.Random(7)
    for _ in range(3):
        process = killed.start("ssl_core", "run", STUDY, "--jobs", "1", start_new_session=True)
        time.sleep(moments.uniform(15, 60))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    killed.do("ssl_core", "run", STUDY, "--jobs", "1")
    assert (killed.folder / "results.csv").read_bytes() == (smoke.folder / "results.csv").read_bytes()
    for path in (smoke.folder / "runs").glob("pretrain/*/encoder.safetensors"):
        assert same_tensors(killed.outputs / path.relative_to(smoke.outputs), path)


def test_the_smoke_study_is_small_and_whole():
    study = yaml.safe_load((Path(__file__).parents[1] / STUDY).read_text("utf-8"))
    assert {arm["method"] for arm in study["arms"]} == {"simclr", "mae"}
    assert all(arm["steps"] <= 10 for arm in study["arms"])
    assert study["splits"]["twins"] == ["same_n"] and study["splits"]["ratios"] == [1, 100]
