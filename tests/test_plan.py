"""What a study multiplies out to, and that exactly what depends on a change is to run again."""

import numpy as np
import pytest
from toy_project import edit

from ssl_core import nb, plan
from ssl_core.config import ConfigError
from ssl_core.files import atomic_json, atomic_write
from ssl_core.runs import collect, read_run
from ssl_core.states import DONE, STALE, TO_RUN
from ssl_core.study import Study

STUDY = {
    "name": "toy", "question": "Does it run?", "data": {"dataset": "toy"},
    "splits": {"kind": "long_tail", "ratios": [1, 10], "draw_seeds": [0, 1], "twins": ["same_n"]},
    "arms": [{"name": "simclr", "method": "simclr"}, {"name": "mae", "method": "mae", "ratios": [10], "epochs": 1}],
    "evaluate": {"protocols": ["linear", "knn"], "budgets": [0.5, 1.0]}, "floors": ["majority", "random", "supervised"],
}


def study(**changes):
    return Study(**STUDY | changes)


def planned(older_code=False, **changes):
    return plan.make_plan(study(**changes), older_code)


def execute(job, project):
    """What papermill and nb do, in this process."""
    (job.folder / "done.json").unlink(missing_ok=True)
    notebook = plan.notebook_of(job.stage)
    names = nb.parameters_of(notebook) | job.params
    for source, tags in list(nb.cells_of(notebook))[1:]:
        if "parameters" not in tags:
            exec(source, names)
    atomic_write(job.folder / "report.ipynb", "{}")
    atomic_json(job.folder / "run.json", read_run(job.folder) | {"report": nb.stamp(notebook)})


def run(project, **changes):
    """Execute what is to run; return what was computed: pretrainings by name, and cells."""
    log = project / "log.txt"
    log.unlink(missing_ok=True)
    for job in planned(**changes).to_run:
        execute(job, project)
    assert not planned(**changes).to_run
    return sorted(log.read_text().split()) if log.exists() else []


def states(made):
    return {f"{job.stage}/{job.name}": job.state for job in made.jobs}


def to_run(made):
    return {name for name, state in states(made).items() if state == TO_RUN}


def why(made, name):
    return next(job.why for job in made.jobs if f"{job.stage}/{job.name}" == name)


def test_arms_times_splits_times_seeds_and_nothing_else(toy_tree):
    made = planned(seeds=[0, 1])
    count = {stage: sum(job.stage == stage for job in made.jobs) for stage in plan.NOTEBOOKS}
    # simclr: ratio 1, 10 and the twin of 10; mae: 10 and its twin; 2 draws, 2 seeds
    assert count["pretrain"] == (3 + 2) * 2 * 2
    assert count["probe"] == count["pretrain"] + 2 * 2  # floors: one job a draw and seed, none per ratio
    assert count["finetune"] == 2 * 2  # supervised
    floors = {job.name: [cell.id for cell in job.cells] for job in made.jobs if job.name.startswith("floors")}
    assert floors["floors-toy-d0-s0"] == ["majority.none-b0.5-s0", "majority.none-b1-s0", "random.linear-b0.5-s0",
                                          "random.linear-b1-s0", "random.knn-b0.5-s0", "random.knn-b1-s0"]
    assert all(name.startswith("random") for name in floors["floors-toy-d0-s1"])
    assert made.cells_in_all == 20 * 4 + 2 * 6 + 2 * 4 + 4 * 2 and made.cells_there == 0
    positions = {job.folder: i for i, job in enumerate(made.jobs)}
    assert all(positions[need.folder] < positions[job.folder] for job in made.jobs for need in job.needs)


def test_one_draw_is_made_after_another_and_what_a_number_stands_beside_before_it(toy_tree):
    turns = {}
    for job in planned().jobs:
        turns.setdefault(job.priority, set()).add(f"{job.stage}/{job.name}")
    balanced = {"simclr-toy-lt1", "simclr-toy-lt10.same_n", "mae-toy-lt10.same_n"}
    others = {"simclr-toy-lt10", "mae-toy-lt10"}
    assert [turns[priority] for priority in sorted(turns, reverse=True)] == [turn for i in (0, 1) for turn in (
        {f"probe/floors-toy-d{i}-s0", f"finetune/supervised-toy-d{i}-s0"},
        {f"pretrain/{name}-d{i}o{i}-s0" for name in balanced | others},
        {f"probe/{name}-d{i}o{i}-s0" for name in balanced},
        {f"probe/{name}-d{i}o{i}-s0" for name in others})]


def test_what_a_study_gives_reaches_the_job_and_the_rest_is_the_notebook_s(toy_tree):
    made = planned(evaluate=STUDY["evaluate"] | {"protocols": ["finetune", "linear"], "finetune": {"lr": 0.02}})
    job = {f"{job.stage}/{job.name}": job for job in made.jobs}
    assert job["pretrain/mae-toy-lt10-d1o1-s0"].params == {
        "study": "toy", "arm": "mae", "draw_seed": 1, "order_seed": 1, "method": "mae", "epochs": 1, "device": "auto"}
    assert job["finetune/simclr-toy-lt10.same_n-d0o0-s0"].cfg.lr == 0.02
    assert job["finetune/supervised-toy-d0-s0"].cfg.run == ""
    assert job["probe/mae-toy-lt10-d0o0-s0"].cfg.run == plan.shown(job["pretrain/mae-toy-lt10-d0o0-s0"].folder)


def test_an_arm_may_start_from_given_weights(toy_tree):
    arm = {"name": "a", "method": "simclr", "init": "resnet10t=w.pth", "stem": "default"}
    with pytest.raises(ConfigError, match="arms.a: init: there is no file w.pth"):
        planned(arms=[arm])
    (toy_tree / "w.pth").write_text("weights")
    one = {job.key for job in planned(arms=[arm]).jobs if job.stage == "pretrain"}
    (toy_tree / "w.pth").write_text("other weights")
    assert not one & {job.key for job in planned(arms=[arm]).jobs if job.stage == "pretrain"}
    assert {job.cfg.init for job in planned(arms=[arm | {"init": "imagenet"}]).jobs
            if job.stage == "pretrain"} == {"imagenet"}
    with pytest.raises(ConfigError, match='arms.a: init \'imagenet\': stem "cifar" has another first convolution'):
        planned(arms=[arm | {"init": "imagenet", "stem": "cifar"}])


def test_supervised_floors_differ_by_what_they_do_about_uneven_classes(toy_tree):
    floors = ["supervised", "supervised_weighted", "supervised_sampled", "supervised_adjusted"]
    made = planned(floors=floors, evaluate={"class_weight": "balanced", "budgets": [1.0], "protocols": ["finetune"],
                                            "finetune": {"sampling": "balanced", "class_weight": "none", "lr": 0.02}})
    jobs = {job.cfg.arm: job.cfg for job in made.jobs if job.stage == "finetune"}
    assert jobs["simclr"].correction == {"sampling": "balanced"}
    assert [(jobs[arm].correction, jobs[arm].lr, jobs[arm].floor) for arm in floors] == [
        ({}, 0.02, "supervised"), ({"class_weight": "balanced"}, 0.02, "supervised_weighted"),
        ({"sampling": "balanced"}, 0.02, "supervised_sampled"),
        ({"logit_adjustment": 1.0}, 0.02, "supervised_adjusted")]


def test_the_imbalanced_floor_has_all_labels_of_each_split_and_moves_no_other_key(toy_tree):
    cut = {"splits": STUDY["splits"] | {"draw_seeds": [0]}, "arms": STUDY["arms"][:1]}
    plain, made = planned(**cut), planned(**cut, floors=[*STUDY["floors"], "supervised_imbalanced"])
    new = [job for job in made.jobs if job.cfg.arm == "supervised_imbalanced"]
    assert {job.key for job in made.jobs} - {job.key for job in new} == {job.key for job in plain.jobs}
    assert sorted((job.cfg.ratio, job.cfg.twin) for job in new) == [(1, "none"), (10, "none"), (10, "same_n")]
    seen = {(job.cfg.ratio, job.cfg.twin): job.parts["inputs"]["unlabelled"] for job in made.jobs
            if job.stage == "pretrain"}
    for job in new:
        assert [cell.budget for cell in job.cells] == [1.0] and job.cfg.correction == {} and not job.needs
        assert job.parts["inputs"]["labelled"] == seen[job.cfg.ratio, job.cfg.twin]  # the very images of its split
    with pytest.raises(ConfigError, match="supervised and supervised_imbalanced are the same in all that counts"):
        planned(**cut, data={"dataset": "toy", "label_pool": "as_pretrain"},
                floors=["supervised", "supervised_imbalanced"])


def test_balanced_sampling_of_a_multilabel_set_is_refused_before_anything_runs(toy_tree):
    with np.load(toy_tree / "params" / "data" / "toy.npz") as arrays:
        some = {name: np.stack([v % 2, v // 2], 1) if "labels" in name else v for name, v in arrays.items()}
    np.savez(toy_tree / "params" / "data" / "toy.npz", **some)
    edit(toy_tree / "params" / "data" / "toy.yaml", "['0', '1', '2', '3']", "['a', 'b']\ntask: multilabel")
    natural = {"splits": {"kind": "natural"}, "arms": STUDY["arms"][:1],
               "data": {"dataset": "toy", "label_pool": "natural"}}
    assert planned(floors=["supervised_adjusted"], **natural).jobs
    with pytest.raises(ConfigError, match="floors.supervised_sampled: sampling balanced draws a class"):
        planned(floors=["supervised_sampled"], **natural)


def test_an_arm_may_start_from_another(toy_tree):
    arms = [{"name": "two", "method": "mae", "init": "one", "steps": 3}, {"name": "one", "method": "simclr"}]
    jobs = {job.name: job for job in planned(arms=arms).jobs if job.stage == "pretrain"}
    two, one = jobs["two-toy-lt10-d0o0-s0"], jobs["one-toy-lt10-d0o0-s0"]
    assert two.needs == [one] and two.parts["inputs"]["init"] == one.key and (two.cfg.epochs, two.cfg.steps) == (0, 3)
    arms[1]["init"] = "two"
    with pytest.raises(ConfigError, match="circle: two → one → two"):
        planned(arms=arms)
    with pytest.raises(ConfigError, match="arms.two: it starts from one, which is not run at ratio 1"):
        planned(arms=[arms[0], {"name": "one", "method": "simclr", "ratios": [10]}])


@pytest.mark.parametrize("changes, message", [
    ({"arms": [{"name": "a", "method": "moco"}]}, "arms.a: method 'moco' is unknown; there are: simclr, mae"),
    ({"data": {"dataset": "toys"}}, "data: no data set 'toys'; params/data holds toy"),
    ({"evaluate": {"protocols": ["finetune"], "finetune": {"lrr": 1}}}, "finetune of simclr: lrr: unknown key"),
    ({"splits": STUDY["splits"] | {"n_max": 999}}, "arms.simclr: .*999 images"),
    ({"arms": [{"name": "a", "method": "mae"}, {"name": "b", "method": "mae"}]}, "arms a and b are the same"),
])
def test_what_cannot_be_planned_is_said_in_one_line(toy_tree, changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        planned(**changes)
    assert "\n" not in str(error.value)


def test_everything_runs_once(toy_tree):
    assert len(run(toy_tree)) == 10 + 2 * 6 + 10 * 4 + 2 * 2
    assert run(toy_tree) == []


def test_an_edited_constant_reruns_the_jobs_of_its_method(toy_tree):
    run(toy_tree)
    edit(toy_tree / "ssl_core" / "methods" / "simclr.py", "0.5", "0.1")
    made = planned()
    assert to_run(made) == {name for name in states(made) if "/simclr-" in name}
    assert why(made, "pretrain/simclr-toy-lt10-d0o0-s0") == "methods/simclr.py changed"
    assert why(made, "probe/simclr-toy-lt10-d0o0-s0") == "rests on simclr-toy-lt10-d0o0-s0, which runs"
    assert planned(older_code=True).to_run == []
    older = [job for job in planned(older_code=True).jobs if job.older]
    assert {job.name.split("-")[0] for job in older} == {"simclr"} and len(older) == 12
    assert set(collect(planned(older_code=True).jobs).status) == {"done", "older code"}
    assert len(run(toy_tree)) == 6 + 6 * 4


def test_probes_of_older_encoders_rest_on_them(toy_tree):
    run(toy_tree)
    edit(toy_tree / "ssl_core" / "methods" / "simclr.py", "0.5", "0.1")
    edit(toy_tree / "ssl_core" / "evaluate" / "probe.py", "V = 1", "V = 2")
    made = planned(older_code=True, evaluate=STUDY["evaluate"] | {"budgets": [0.5, 1.0, 0.25]})
    probe = next(job for job in made.jobs if job.stage == "probe" and job.name.startswith("simclr-"))
    assert probe.state == TO_RUN and probe.needs[0].older and plan.shown(probe.needs[0].folder) == probe.cfg.run


@pytest.mark.parametrize("path, old, new", [
    ("ssl_core/analysis/plots.py", "P = 1", "P = 2"),
    ("notebooks/10_pretrain.ipynb", "# 10_pretrain", "# Pretraining"),
])
def test_an_edited_figure_or_text_remakes_reports_and_no_result(toy_tree, path, old, new):
    run(toy_tree)
    edit(toy_tree / path, old, new)
    hit = {name for name, state in states(planned()).items() if state == STALE}
    assert to_run(planned()) == set()
    assert hit == {name for name in states(planned()) if "plots" in path or name.startswith("pretrain")}
    assert run(toy_tree) == []


def test_a_comment_changes_nothing(toy_tree):
    run(toy_tree)
    edit(toy_tree / "ssl_core" / "train.py", "T = 1", '"""The loop."""\nT = 1  # one')
    assert planned().to_run == []


def test_a_changed_parameter_reruns_its_arm(toy_tree):
    run(toy_tree)
    arms = [STUDY["arms"][0], STUDY["arms"][1] | {"lr": 0.01}]
    made = planned(arms=arms)
    assert to_run(made) == {name for name in states(made) if "/mae-" in name}
    assert why(made, "pretrain/mae-toy-lt10-d0o0-s0") == "lr 0.001 → 0.01"
    assert why(made, "probe/mae-toy-lt10-d0o0-s0") == "rests on mae-toy-lt10-d0o0-s0, which runs"


def test_an_added_budget_computes_its_cells_alone(toy_tree):
    run(toy_tree)
    changes = {"evaluate": STUDY["evaluate"] | {"budgets": [0.5, 1.0, 0.25]}}
    made = planned(**changes)
    assert to_run(made) == {name for name in states(made) if not name.startswith("pretrain")}
    assert why(made, "probe/mae-toy-lt10-d0o0-s0") == "budget 0.25 added"
    assert made.cells_there == 56 and made.cells_in_all == 84
    computed = run(toy_tree, **changes)
    assert len(computed) == 28 and all("-b0.25-" in cell for cell in computed)
    assert planned().to_run == []


def test_a_deleted_file_is_made_again_with_what_rests_on_it(toy_tree):
    run(toy_tree)
    job = next(job for job in planned().jobs if job.name == "simclr-toy-lt10-d0o0-s0")
    (job.folder / "encoder.safetensors").unlink()
    made = planned()
    assert to_run(made) == {"pretrain/simclr-toy-lt10-d0o0-s0", "probe/simclr-toy-lt10-d0o0-s0"}
    assert why(made, "pretrain/simclr-toy-lt10-d0o0-s0") == "encoder.safetensors missing"
    assert why(made, "probe/simclr-toy-lt10-d0o0-s0") == "rests on simclr-toy-lt10-d0o0-s0, which runs again"
    assert run(toy_tree) == [job.folder.name]  # the same bits again: no cell is void

    (job.folder / "encoder.safetensors").unlink()
    execute(job, toy_tree)
    (job.folder / "encoder.safetensors").write_text("other bits, as a graphics card may leave")
    keep = read_run(job.folder)
    execute(job, toy_tree)
    assert read_run(job.folder)["files"] == keep["files"]  # a bent file is not taken for the result


def test_an_encoder_with_other_bits_voids_the_cells_on_it(toy_tree):
    run(toy_tree)
    edit(toy_tree / "notebooks" / "10_pretrain.ipynb", "{cfg.ratio}", "{cfg.ratio} other bits")  # text is in no key
    job = next(job for job in planned().jobs if job.name == "simclr-toy-lt10-d0o0-s0")
    (job.folder / "encoder.safetensors").unlink()
    computed = run(toy_tree)
    assert len(computed) == 1 + 4 and all(name.startswith("simclr-toy-lt10-d0o0-s0") for name in computed)


def test_a_deleted_cell_or_report_is_made_again_alone(toy_tree):
    run(toy_tree)
    job = next(job for job in planned().jobs if job.stage == "probe" and job.name.startswith("mae"))
    (job.folder / "cells" / "knn-b1-s0.csv").unlink()
    assert [job.why for job in planned().to_run] == ["cells/knn-b1-s0.csv missing"] and planned().cells_there == 55
    assert run(toy_tree) == [f"{job.folder.name}/knn-b1-s0"]
    (job.folder / "report.ipynb").unlink()
    assert [(job.state, job.why) for job in planned().to_run] == [(STALE, "report.ipynb missing")]
    assert run(toy_tree) == []


def test_a_run_that_ended_early_says_how(toy_tree):
    job = planned().jobs[0]
    atomic_json(job.folder / "run.json", {"status": "failed", "reason": "no room"})
    assert planned().jobs[0].why == "failed: no room"
    atomic_json(job.folder / "run.json", {"status": "running"})
    assert planned().jobs[0].why == "interrupted"
    assert planned().jobs[0].state == TO_RUN and DONE not in states(planned()).values()


def test_another_data_set_may_evaluate(toy_tree):
    toy = (toy_tree / "params" / "data" / "toy.yaml").read_text()
    (toy_tree / "params" / "data" / "other.yaml").write_text(toy)
    made = planned(data={"dataset": "toy", "evaluate_on": "other"})
    probe = next(job for job in made.jobs if job.stage == "probe")
    assert (probe.cfg.dataset, probe.needs[0].cfg.dataset, probe.cfg.split_kind) == ("other", "toy", "natural")
    assert probe.name == "simclr-other-lt1-d0o0-s0"
