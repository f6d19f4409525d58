"""Finished cells that git keeps: written without networks, counted as done where keys agree, and never changed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_plan import execute, planned, run
from toy_project import edit

from ssl_core.adopt import WHY, adopt, chosen, write_cells
from ssl_core.analysis.contrasts import predictions
from ssl_core.archive import pack, unpack
from ssl_core.config import ConfigError
from ssl_core.engine import tidy
from ssl_core.export import export
from ssl_core.files import atomic_json, atomic_write, outputs
from ssl_core.runs import collect
from ssl_core.states import TO_RUN
from ssl_core.table import read_plan, read_text

ROOT = Path(__file__).parents[1]

ARMS = [{"name": "simclr", "method": "simclr"}, {"name": "mae", "method": "mae", "epochs": 1}]
CHANGES = {"arms": ARMS, "floors": ["majority"], "splits": {"kind": "long_tail", "ratios": [10]},
           "evaluate": {"protocols": ["linear", "finetune"], "budgets": [1.0]}}


@pytest.fixture
def kept(toy_tree):
    """A folder of the finished cells of a study, whose own outputs are gone."""
    run(toy_tree, **CHANGES)
    made = planned(**CHANGES)
    atomic_json(outputs() / "toy" / "plan.json", made.as_dict())
    atomic_write(outputs() / "toy" / "results.csv", collect(made.jobs).to_csv(index=False, lineterminator="\n"))
    atomic_write(outputs() / "toy" / "summary.csv", "effect\n1\n")
    assert write_cells("toy", toy_tree / "kept") == (7, 5)
    (toy_tree / "outputs").rename(toy_tree / "former")
    return toy_tree / "kept"


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def adopted(folder, older_code=False, **changes):
    made = planned(older_code, **CHANGES | changes)
    return made, adopt(made, folder, older_code)


def states(made):
    return {f"{job.stage} {job.name.partition('-')[0]}": job.state for job in made.jobs}


def test_what_is_kept_are_rows_and_records_without_networks_and_places(kept):
    names = content(kept)
    assert {name.rpartition(".")[2] for name in names} == {"json", "csv"}
    assert not any(str(kept.parent).encode() in data for data in names.values())
    assert read_text(kept / "results.csv").equals(read_text(kept.parent / "former" / "toy" / "results.csv"))
    said = json.loads(names["provenance.json"])
    assert said["code"]["methods.mae"] and said["n_keys"] == 7
    assert set(read_text(kept / "results.csv").key) < set(said["keys"])
    assert (kept / "summary.csv").exists()


def test_where_all_keys_agree_nothing_runs_and_the_rows_are_there(kept):
    before = content(kept)
    made, line = adopted(kept)
    assert not made.to_run and made.cells_there == 5 and line == "7 of 7 jobs adopted from kept"
    assert {job.why for job in made.jobs} == {WHY} and all(job.as_dict()["adopted"] for job in made.jobs)
    rows, former = collect(made.jobs), read_text(kept / "results.csv")
    assert set(rows.status) == {"adopted"} and rows.assign(status="done").equals(former)
    tidy(made)
    assert content(kept) == before


def test_another_key_is_named_with_its_reason_and_runs(kept):
    other = [ARMS[0] | {"lr": 0.5}, ARMS[1]]
    before = content(kept)
    made, line = adopted(kept, arms=other)
    assert {name for name, state in states(made).items() if state == TO_RUN} == {
        "pretrain simclr", "probe simclr", "finetune simclr"}
    assert line == "4 of 7 jobs adopted from kept; 2 not: the encoder below changed; 1 not: lr 0.001 → 0.5"
    assert next(job for job in made.to_run if job.stage == "pretrain").why == "lr 0.001 → 0.5"
    for job in made.to_run:
        execute(job, kept.parent)
    made, _ = adopted(kept, arms=other)
    assert not made.to_run and content(kept) == before and len(collect(made.jobs)) == 5
    edit(kept.parent / "ssl_core" / "methods" / "mae.py", "MAE = 1", "MAE = 2")
    assert "1 not: methods/mae.py changed" in adopted(kept)[1]


def test_what_older_code_made_is_adopted_when_accepted_and_marked(kept):
    edit(kept.parent / "ssl_core" / "methods" / "mae.py", "MAE = 1", "MAE = 2")
    assert adopted(kept)[1].startswith("4 of 7 jobs adopted from kept; ")
    made, line = adopted(kept, older_code=True)
    assert not made.to_run and line == "7 of 7 jobs adopted from kept, 3 made by older code"
    rows = collect(made.jobs)
    assert set(rows.status[rows.arm == "mae"]) == {"older code"} and "adopted" in set(rows.status)
    assert set(rows.key) <= {job.key for job in made.jobs} and set(rows.key) == set(read_text(kept / "results.csv").key)
    changed = [CHANGES["arms"][0], CHANGES["arms"][1] | {"lr": 0.5}]
    assert len(adopted(kept, older_code=True, arms=changed)[0].to_run) == 3  # other parameters are no older code


def test_exports_hold_the_rows_and_records_of_what_was_adopted_and_open_elsewhere(kept, monkeypatch):
    made, _ = adopted(kept)
    atomic_json(outputs() / "toy" / "plan.json", made.as_dict())
    atomic_write(outputs() / "toy" / "results.csv", collect(made.jobs).to_csv(index=False, lineterminator="\n"))
    shutil.copy(ROOT / "CITATION.cff", kept.parent)
    assert export("toy", kept.parent / "tree", "a")[0] == []
    assert "Left out, adopted, rows only: " in (kept.parent / "tree" / "README.txt").read_text()
    names = pack("toy", kept.parent / "toy.zip")
    for job in made.jobs:
        place = f"runs/{job.stage}/{job.folder.name}"
        assert {f"{place}/run.json"} | {f"{place}/cells/{cell.id}.csv" for cell in job.cells} <= set(names)
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(kept.parent / "elsewhere"))
    kept.rename(kept.parent / "moved")
    assert unpack(kept.parent / "toy.zip") == "toy"
    plan = read_plan("toy")
    assert all((outputs() / "toy" / "runs") in Path(job["folder"]).parents for job in plan["jobs"])
    assert {need for job in plan["jobs"] for need in job["needs"]} <= {job["folder"] for job in plan["jobs"]}


def test_a_cell_that_is_not_adopted_makes_its_pretraining_run_again(kept):
    more = {"evaluate": CHANGES["evaluate"] | {"budgets": [0.5, 1.0]}}
    gone = next(kept.glob("runs/probe/simclr-*"))
    (gone / "done.json").unlink()
    made, line = adopted(kept)
    assert {name for name, state in states(made).items() if state == TO_RUN} == {"pretrain simclr", "probe simclr"}
    assert line.endswith(f"; 1 not: done.json missing in {gone.name}")
    for job in made.to_run:
        execute(job, kept.parent)
    former = next((kept.parent / "former").glob("toy/runs/pretrain/simclr-*/encoder.safetensors"))
    again = outputs() / former.relative_to(kept.parent / "former")
    assert again.read_bytes() == former.read_bytes()
    made, _ = adopted(kept)
    assert not made.to_run and collect(made.jobs).assign(status="done").equals(read_text(kept / "results.csv"))
    made, line = adopted(kept, **more)
    assert all(job.state == TO_RUN for job in made.jobs if job.stage != "pretrain") and "cell linear-b0.5-s0" in line


def test_a_row_that_was_changed_by_hand_is_not_adopted(kept):
    path = next(kept.glob("runs/probe/mae-*/cells/*.csv"))
    path.write_text(path.read_text() + "\n")
    made, line = adopted(kept)
    assert len(made.to_run) == 2 and f"cells/{path.name} changed" in line


def test_a_full_run_takes_the_place_of_what_was_adopted(kept):
    before = content(kept)
    assert not adopted(kept)[0].to_run
    assert len(planned(**CHANGES).to_run) == 7
    run(kept.parent, **CHANGES)
    made, line = adopted(kept)
    assert not any(job.adopted for job in made.jobs) and line.startswith("0 of 7 jobs")
    assert set(collect(made.jobs).status) == {"done"} and content(kept) == before


def test_cells_are_added_to_those_that_were_adopted(kept):
    more = CHANGES | {"splits": CHANGES["splits"] | {"draw_seeds": [0, 1]}}
    made, _ = adopted(kept, **more)
    for job in made.to_run:
        execute(job, kept.parent)
    made, _ = adopted(kept, **more)
    assert not made.to_run
    atomic_json(outputs() / "toy" / "plan.json", made.as_dict())
    before = content(kept / "runs")
    added, there = write_cells("toy", kept)
    after = content(kept / "runs")
    assert (added, there) == (7, 10) and before.items() <= after.items()
    assert set(read_text(kept / "results.csv").status) == {"done"}
    assert not (kept / "summary.csv").exists()  # the comparison has not seen the new cells


def test_a_folder_without_cells_is_refused(toy_tree):
    with pytest.raises(ConfigError, match="--adopt empty: no runs/ in it"):
        adopt(planned(), toy_tree / "empty")


def test_the_chosen_classes_give_what_scores_give(tmp_path):
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(4), 50)
    arrays = {"probabilities": scores, "labels": rng.integers(0, 4, 50), "groups": np.arange(50) // 2, "task":
              "multiclass", "classes": np.array(list("abcd")), "frequency": np.array(["many", "few", "few", "medium"])}
    np.savez(tmp_path / "all.npz", **arrays)
    with np.load(tmp_path / "all.npz") as whole:
        np.savez(tmp_path / "few.npz", **chosen(whole))
    with np.load(tmp_path / "few.npz") as few:
        assert "probabilities" not in few and few["predicted"].dtype == np.uint8 and "predicted" in chosen(few)
    one, other = predictions(tmp_path / "all.npz"), predictions(tmp_path / "few.npz")
    assert (one.probabilities.argmax(1) == other.probabilities.argmax(1)).all()
    for name in ("labels", "groups", "classes", "frequency", "task"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
