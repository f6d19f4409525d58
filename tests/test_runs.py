"""Run folders: named, locked, hashed; what is sound is kept and what is not is made again."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from toy_configs import INPUTS, finetune, pretrain, probe

from ssl_core import keys, runs, table
from ssl_core.table import COLUMNS

CODE = {"train": "0" * 12}
ROWS = [{"metric": "accuracy", "group_kind": "all", "value": 0.1 + 0.2, "n": np.int64(3)},
        {"metric": "accuracy", "group_kind": "class", "group": "cat", "value": float("nan"), "n": 0}]


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_ROOT", str(tmp_path))
    monkeypatch.setattr(keys, "code_slice", lambda modules: CODE)
    monkeypatch.setattr(runs, "PATIENCE", 0)
    return tmp_path


def finished(cfg, text="weights"):
    run = runs.open_run("pretrain", cfg, INPUTS)
    run.path("encoder.safetensors").write_text(text)
    run.finish(["encoder.safetensors"])
    return run


def probed(project, cfg, encoder):
    cfg = cfg.model_copy(update={"run": encoder.folder.relative_to(project).as_posix()})
    return runs.open_run("probe", cfg, INPUTS)


@pytest.mark.parametrize("stage, cfg, name", [
    ("pretrain", pretrain(), "simclr-toy-lt100-d0o0-s0"),
    ("pretrain", pretrain(arm="tau", twin="same_n", draw_seed=2, order_seed=1, ratio=2.5),
     "tau-toy-lt2.5.same_n-d2o1-s0"),
    ("pretrain", pretrain(split_kind="natural", ratio=1, dataset="params/data/mine.yaml"), "simclr-mine-nat-d0o0-s0"),
    ("probe", probe(), "floors-toy-d0-s0"),
    ("probe", probe(label_pool="as_pretrain", budget_seed=3), "floors-toy-lt100-d0o0-s0-b3"),
    ("finetune", finetune(), "supervised-toy-d0-s0"),
    ("finetune", finetune(class_weight="balanced"), "supervised_weighted-toy-d0-s0"),
    ("finetune", finetune(sampling="balanced"), "supervised_sampled-toy-d0-s0"),
    ("finetune", finetune(logit_adjustment=0.5), "supervised_adjusted-toy-d0-s0"),
])
def test_names(stage, cfg, name):
    assert runs.run_name(stage, cfg) == name
    assert runs.open_run(stage, cfg, INPUTS).folder.name.startswith(name + "-")


def test_a_finished_run_says_what_it_was_and_nobody_s_name(project):
    run = finished(pretrain(dataset=str(project / "params" / "data" / "toy.yaml")))
    record = runs.read_run(run.folder)
    assert record["status"] == "done" and record["n_unlabelled"] == 9 and record["parts"]["code"] == CODE
    assert record["parameters"]["dataset"] == "params/data/toy.yaml"
    assert str(project) not in json.dumps(record)
    assert set(json.loads(run.path("done.json").read_text())) == {"key", "files"}
    assert runs.damage(run.folder) == ""


def test_opening_a_finished_run_again_changes_nothing(project):
    run = finished(pretrain())
    before = run.path("run.json").read_bytes()
    run.path("done.json").unlink()  # as an engine does before it runs a job again
    again = runs.open_run("pretrain", pretrain(study="s", threads=2), INPUTS)
    assert again.is_done()
    again.finish(["encoder.safetensors"])
    assert run.path("run.json").read_bytes() == before and run.path("done.json").exists()


def test_a_renamed_arm_finds_its_runs():
    assert finished(pretrain(arm="a")).folder == runs.open_run("pretrain", pretrain(arm="b"), INPUTS).folder


def test_damage_is_named_and_damaged_files_are_removed(capsys):
    run = finished(pretrain())
    run.path("encoder.safetensors").write_text("bent")
    assert runs.damage(run.folder) == "encoder.safetensors changed"
    assert not runs.open_run("pretrain", pretrain(), INPUTS).is_done()
    assert "encoder.safetensors is not what the run left" in capsys.readouterr().out
    assert runs.damage(run.folder) == "encoder.safetensors missing"
    assert runs.damage(run.folder.parent) == "done.json missing"


def test_cells_are_kept_one_by_one(project, monkeypatch):
    monkeypatch.setattr(runs, "now", lambda: "at first")
    run = runs.open_run("probe", probe(), INPUTS)
    ids = [cell.id for cell in run.cfg.cells()]
    assert ids[0] == "pixels.linear-b0.1-s0" and not run.cell_done(ids[0])
    run.write_cell(ids[0], ROWS, {"probability": np.eye(2)})
    assert run.cell_done(ids[0]) and not run.is_done()
    run.finish()
    monkeypatch.setattr(runs, "now", lambda: "later")
    again = runs.open_run("probe", probe(), INPUTS)
    assert again.record["started"] == "at first"
    assert again.cell_done(ids[0]) and again.record["status"] == "running"  # cells are still missing
    run.path(f"cells/{ids[0]}.npz").write_bytes(b"")
    assert not again.cell_done(ids[0])
    with pytest.raises(ValueError, match="no cell 'linear-b0.1-s0'; it has: pixels.linear-b0.1-s0, "):
        run.write_cell("linear-b0.1-s0", ROWS)
    with pytest.raises(ValueError, match="no column 'acuracy'"):
        run.write_cell(ids[0], [{"acuracy": 1}])


def test_rows_know_the_pretraining_they_rest_on(project):
    encoder = finished(pretrain(arm="tau01", method_args={"tau": 0.1}, draw_seed=1, seed=2))
    run = probed(project, probe(ratio=1, draw_seed=1), encoder)
    assert run.folder.name.startswith("tau01-toy-lt100-d1o0-s2-")
    run.write_cell("knn-b1-s0", ROWS)
    rows = table.read_text(run.path("cells/knn-b1-s0.csv"))
    assert list(rows.columns) == COLUMNS
    first = rows.iloc[0]
    expected = dict(arm="tau01", method="simclr", variant="tau=0.1", ratio="100", twin="none", draw_seed="1", seed="2",
                    n_unlabelled="9", protocol="knn", budget="1", value="0.3", n="3", key=run.key, status="done",
                    init="random")
    assert {name: first[name] for name in expected} == expected
    assert rows.value[1] == ""


@pytest.mark.parametrize("init, shown", [("imagenet", "imagenet"), ("resnet10t=kept/w.pth", "w.pth")])
def test_rows_name_the_weights_that_a_pretraining_started_from(project, init, shown):
    (project / "kept").mkdir()
    (project / "kept" / "w.pth").write_text("weights")
    run = probed(project, probe(), finished(pretrain(init=init, stem="default")))
    run.write_cell("knn-b1-s0", ROWS)
    assert table.read_text(run.path("cells/knn-b1-s0.csv")).init[0] == shown


def test_floors_and_supervised_rows_carry_no_imbalance():
    run = runs.open_run("probe", probe(), INPUTS)
    run.write_cell("random.knn-b1-s0", ROWS)
    row = table.read_text(run.path("cells/random.knn-b1-s0.csv")).iloc[0]
    assert (row.arm, row.method, row.encoder, row.init, row.ratio, row.n_unlabelled) == (
        "random", "random", "resnet10t", "random", "", "")
    for arm, changes, variant in (("supervised", {}, "class_weight=none"),
                                  ("supervised_weighted", {"class_weight": "balanced"}, "class_weight=balanced"),
                                  ("supervised_sampled", {"sampling": "balanced"}, "sampling=balanced"),
                                  ("supervised_adjusted", {"logit_adjustment": 1}, "logit_adjustment=1.0")):
        run = runs.open_run("finetune", finetune(**changes), INPUTS)
        run.write_cell("finetune-b1-s0", ROWS)
        row = table.read_text(run.path("cells/finetune-b1-s0.csv")).iloc[0]
        assert (row.arm, row.method, row.variant) == (arm, "supervised", variant)


def test_an_encoder_made_anew_with_other_bits_voids_what_rests_on_it(project):
    run = probed(project, probe(), finished(pretrain()))
    run.write_cell("knn-b1-s0", ROWS)
    run.finish()
    encoder = finished(pretrain(), text="weights")
    assert probed(project, probe(), encoder).cell_done("knn-b1-s0")  # the same bits: nothing to do
    encoder.path("encoder.safetensors").unlink()
    encoder = finished(pretrain(), text="other weights")
    assert not probed(project, probe(), encoder).cell_done("knn-b1-s0")


def test_a_probe_of_an_unfinished_run_is_refused(project):
    run = runs.open_run("pretrain", pretrain(), INPUTS)
    with pytest.raises(ValueError, match=f"the run .*{run.key} is not finished"):
        probed(project, probe(), run)


def test_two_processes_never_make_the_same_run():
    run = runs.open_run("pretrain", pretrain(), INPUTS)
    assert runs.open_run("pretrain", pretrain(), INPUTS).folder == run.folder  # a cell run twice in one kernel
    runs.mark_failed(run.folder, "stopped by hand")
    run.lock.release(force=True)
    assert runs.read_run(run.folder)["reason"] == "stopped by hand"
    code = ("import sys; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire(); "
            "print('held', flush=True); input()")
    with subprocess.Popen([sys.executable, "-c", code, run.lock.lock_file], text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match="simclr-toy-lt100-d0o0-s0-.* is being made by another process"):
            runs.open_run("pretrain", pretrain(), INPUTS)
        other.communicate("\n")


def test_the_table_has_the_same_bytes_however_the_work_came(project):
    jobs = []
    for ratio in (100, 20, 3):
        run = probed(project, probe(), finished(pretrain(arm="old", ratio=ratio)))
        for cell in run.cfg.cells():
            run.write_cell(cell.id, ROWS)
        jobs.append(SimpleNamespace(folder=run.folder, cfg=pretrain(arm="new"), cells=run.cfg.cells(), older=False,
                                    adopted=False))
    one, other = runs.collect(jobs), runs.collect(jobs[::-1])
    assert one.to_csv() == other.to_csv() and len(one) == 3 * 4 * len(ROWS)
    assert one.ratio.tolist() == sorted(one.ratio, key=float) and set(one.arm) == {"new"}
    jobs[0].folder.joinpath("cells/knn-b1-s0.csv").write_text("torn")
    jobs[1].older = True
    some = runs.collect(jobs)
    assert len(some) == len(one) - len(ROWS) and (some.status == "older code").sum() == 4 * len(ROWS)
    assert runs.collect([]).columns.tolist() == COLUMNS
    (project / "outputs" / "s" / "results.csv").write_text(one.to_csv(index=False))
    read = table.read_results("s")
    assert read.value[0] == 0.3 and pd.api.types.is_numeric_dtype(read.ratio)
