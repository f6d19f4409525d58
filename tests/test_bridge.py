"""The walk from the thesis' settings to the official ones: one factor a step; what each adds; claims it serves."""

import numpy as np
import pytest
from made_study import IMBALANCED, MadeStudy

from ssl_core.analysis import attribution, contrasts
from ssl_core.analysis.claims import load_claims
from ssl_core.config import ConfigError
from ssl_core.files import root
from ssl_core.plan import make_plan
from ssl_core.presets import values_of
from ssl_core.study import Arm, Study, load_study

STUDIES = root() / "params" / "studies"
FACTORS = [{"method_args.projector"}, {"method_args.projector"}, {"method_args.projector_norm"}, {"recipe"},
           {"optimiser", "optimiser_args.trust_coeff"}, {"weight_decay"}, {"batch"}, {"epochs", "warmup"}]
TOY = {"name": "toy", "question": "Does it run?", "data": {"dataset": "toy"}, "splits": {"kind": "balanced"},
       "arms": [{"name": "first", "method": "simclr"}, {"name": "second", "method": "simclr", "epochs": 1}],
       "evaluate": {"protocols": ["linear"], "budgets": [1.0]}}


def flat(values):
    """The values of an arm, its arguments one by one."""
    found = {}
    for name, value in values.items():
        found |= {f"{name}.{part}": one for part, one in value.items()} if isinstance(value, dict) else {name: value}
    return found


def settings(study, data):
    """Of each arm of the chain but the last link, which is another protocol: its values, one by one."""
    arms = {arm.name: arm for arm in study.arms_of(data)}
    return [flat(values_of(arms[name])) for name in study.chain[:-1]]


# --- the studies ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["c_bridge", "c_bridge_rehearsal"])
def test_each_step_of_the_bridge_changes_one_factor_and_the_last_the_probe(name):
    study = load_study(STUDIES / f"{name}.yaml")
    chain = settings(study, study.data[0])
    changed = [{key for key in {*a, *b} if a.get(key) != b.get(key)} for a, b in zip(chain, chain[1:])]
    length = {"epochs": "steps"} if name == "c_bridge_rehearsal" else {}
    assert changed == [{length.get(key, key) for key in factor} for factor in FACTORS]
    assert study.chain[-1] == f"{study.chain[-2]}/linear_sgd30" and study.evaluate.protocols[0] == "linear_last_epoch"


def test_the_bridge_leads_from_the_thesis_to_the_official_setting():
    study = load_study(STUDIES / "c_bridge.yaml")
    chain = settings(study, study.data[0])
    published = [flat(values_of(Arm(name="p", method="simclr", preset=preset))) for preset in ("c", "official")]
    assert [chain[1], chain[-1]] == published


def test_arms_that_a_study_of_the_thesis_compares_were_trained_as_long():
    for name in ("c_longtail", "c_bridge"):
        study = load_study(STUDIES / f"{name}.yaml")
        arms = {arm.name: flat(values_of(arm)) for arm in study.arms_of(study.data[0])}
        kept = {arm: values for arm, values in arms.items() if arm not in ("batch", "epochs")}
        assert {(values["batch"], values["epochs"]) for values in kept.values()} == {(256, 1200)}


def test_every_claim_asks_for_arms_that_its_study_has_on_its_data():
    for claim in load_claims().values():
        if not claim.gone:
            study = load_study(STUDIES / f"{claim.study}.yaml")
            there = {arm.name for data in study.data if claim.data in (data.dataset, data.evaluate_on)
                     for arm in study.arms_of(data)} | {*study.floors}
            sides = {claim.contrast.what.arm, *(side.arm for side in [claim.contrast.against] if side)}
            sides |= {claim.control.arm} if claim.control != "plateau" else set()
            assert sides <= there, claim.id


# --- the chain --------------------------------------------------------------------------------------------------------

def test_a_chain_names_arms_and_protocols_that_are_there():
    assert Study(**TOY, chain=["first", "second", "second/linear"]).chain[0] == "first"
    for link in ("third", "first/knn"):
        with pytest.raises(ConfigError, match=f"chain: '{link}' is neither an arm nor ARM/PROTOCOL"):
            Study(**TOY, chain=["first", link])


def test_a_chain_is_part_of_the_plan_but_of_no_key(toy_tree):
    without, chained = (make_plan(Study(**TOY, **more)) for more in ({}, {"chain": ["first", "second"]}))
    assert [job.key for job in without.jobs] == [job.key for job in chained.jobs]
    assert chained.as_dict()["chain"] == ["first", "second"] and without.as_dict()["chain"] == []


@pytest.fixture
def walked(tmp_path, monkeypatch):
    """jobs, cells, table of three arms by two protocols on three splits: batch adds 10 points, epochs nothing, and the
    other protocol takes 5."""
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    made, rng = MadeStudy(tmp_path), np.random.default_rng(0)
    for draw in range(3):
        for arm, value, more in (("thesis", 0.5, {"batch": 64}), ("batch", 0.6, {"batch": 128}),
                                 ("epochs", 0.6, {"batch": 128, "epochs": 9})):
            share = value + 0.0125 * rng.integers(-1, 2)
            made.trained(arm, IMBALANCED, lambda protocol, _, share=share: share - 0.05 * (protocol == "knn"), draw,
                         protocols=("linear", "knn"), **({"epochs": 3} | more))
        made.floor("random", 0.4, draw)
    jobs, table = made.write()
    return jobs, contrasts.cells_of(table, jobs), table


def test_steps_find_what_was_planted_and_add_up_to_the_whole(walked):
    jobs, cells, table = walked
    steps = attribution.steps_of(cells, ["thesis", "batch", "epochs", "epochs/knn"], 100)
    assert list(steps.columns) == contrasts.COLUMNS and set(steps.family) == {attribution.FAMILY}
    assert steps.effect[:3].to_numpy() == pytest.approx([0.1, 0, -0.05], abs=0.02)
    assert steps.effect[:3].sum() == pytest.approx(steps.effect[3]) and list(steps.protocol) == ["linear"] * 2 + [
        "knn"] * 2
    assert (steps.n_pairs == 3).all() and (steps.p_adjusted >= steps.p).all()
    assert steps.low[0] > 0 and steps.low[1] < 0 < steps.high[1]
    frame = attribution.waterfall(steps, jobs)
    assert list(frame.change) == ["batch 64 → 128", "epochs 3 → 9", "probe: kNN", "all together"]
    assert list(frame.start[1:3]) == list(frame.end[:2]) and frame.start[0] == frame.start[3] == 0
    assert frame.end.iloc[2] == pytest.approx(frame.end.iloc[3])
    first, *others = attribution.answer(steps)
    assert first.startswith("epochs (1:100), kNN ") and "thesis (1:100)" in first and len(others) == 3
    assert attribution.caption_attribution(frame, table).startswith("From thesis (1:100) to epochs (1:100), kNN, one ")


def test_the_figure_has_a_bar_for_each_step_with_its_interval(walked):
    import matplotlib.pyplot as plt

    jobs, cells, _ = walked
    frame = attribution.waterfall(attribution.steps_of(cells, ["thesis", "batch", "epochs"], 100), jobs)
    ax = attribution.plot_attribution(frame)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(frame.change)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(list(frame.end - frame.start))
    assert ax.patches[0].get_facecolor() != ax.patches[1].get_facecolor()  # the second holds zero
    assert ax.texts[0].get_text() == f"+{100 * frame.effect.iloc[0]:.1f}"
    plt.close(ax.figure)


def test_without_a_chain_there_are_no_steps(walked):
    _, cells, _ = walked
    steps = attribution.steps_of(cells, [])
    assert not len(steps) and attribution.answer(steps) == []
