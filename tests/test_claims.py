"""Claims are well formed and ask what a study can answer; verdicts are right on planted effects."""


import numpy as np
import pytest
import yaml

from ssl_core.analysis import claims_table
from ssl_core.analysis.claims import Claim, Evidence, judge, load_claims, verdict
from ssl_core.analysis.compare import contrast
from ssl_core.analysis.evidence import SCHEDULE
from ssl_core.cli import main
from ssl_core.config import ConfigError
from ssl_core.files import root
from ssl_core.presets import values_of
from ssl_core.study import load_study

ENTRY = {"id": "c_made", "statement": "A beats B", "source": "made", "study": "made", "data": "made",
         "contrast": {"what": {"arm": "a"}, "against": {"arm": "b"}}, "metric": "balanced_accuracy",
         "protocol": "linear", "budget": 1.0, "says": "higher", "published": 5.0, "tolerance": 1.0,
         "control": "plateau"}


def claim_of(entry):
    return Claim.model_validate(entry)


def claim(**changes):
    return claim_of(ENTRY | changes)


def found(*differences, images=0.0):
    mean = np.mean(differences)
    return contrast(np.array(differences) / 100, (mean + images * np.array([-1, 1]) / np.sqrt(2)) / 100)


# --- the files --------------------------------------------------------------------------------------------------------

def test_every_system_has_claims_and_the_contradictions_of_the_sources_are_among_them():
    claims = load_claims()
    assert len(claims) >= 40 and {name[0] for name in claims} == set("abcde")
    for one, other in (("c_lotar_10", "c_lotar_code_10"), ("c_bcl_10", "c_bcl_inverted_10"),
                       ("b_start_random_50", "b_start_imagenet_50"), ("c_sdclr_10", "c_sdclr_paper_10")):
        assert other in claims[one].contradicts
    assert all(one.unverified == ("recalled" in one.source) for one in claims.values() if one.published is not None)


def test_a_claim_of_a_study_asks_for_arms_data_protocols_and_budgets_that_it_has():
    for one in load_claims().values():
        if not one.study:
            continue
        study = load_study(root() / "params" / "studies" / f"{one.study}.yaml")
        sets = {data.dataset for data in study.data} | {data.evaluate_on for data in study.data}
        arms = {arm.name: arm for data in study.data for arm in study.arms_of(data)
                if one.data in (data.dataset, data.evaluate_on)}
        protocols = {"finetune"}.union(*(arm.protocols or study.evaluate.protocols for arm in arms.values()))
        assert one.data in sets, one.id
        if one.control != "plateau":
            assert one.control.arm in arms, one.id
        sides = [side for side in (one.contrast.what, one.contrast.against, one.contrast.minus) if side]
        for side in sides:
            assert not side.arm or side.arm in {*arms, *study.floors}, (one.id, side.arm)
            assert (side.protocol or one.protocol) in protocols, one.id
            assert (side.budget or one.budget) in study.evaluate.budgets, one.id
        presets = [values_of(arms[side.arm]) for side in sides if side.arm in arms]
        schedules = [[values.get(name) for name in SCHEDULE] for values in presets]
        assert all(schedule == schedules[0] for schedule in schedules), one.id  # else it could never have a verdict


@pytest.mark.parametrize("changes, message", [
    ({"metrik": "f1"}, "c_made.yaml: c_made: metrik: Extra inputs"),
    ({"contrast": {"what": {"arn": "a"}}}, "contrast.what.arn: Extra inputs"),
    ({"says": "number", "published": None}, "says: number needs the published one"),
    ({"published": -5.0}, "says: higher, but the published number is -5"),
    ({"contrast": {"what": {"arm": "a"}}}, "says: higher needs a contrast with against"),
    ({"tolerance": 0.0}, "tolerance"), ({"id": "b_made"}, "b_made: belongs into the file of system b"),
    ({"contradicts": ["c_other"]}, "'c_other' is no claim that names it back"),
])
def test_a_wrong_claim_dies_by_name_in_one_line(tmp_path, changes, message):
    (tmp_path / "c_made.yaml").write_text(yaml.safe_dump([ENTRY | changes]), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load_claims(tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("changes", [{}, {"budget": 0.1}, {"protocol": "knn"}])
def test_no_two_claims_ask_the_same(tmp_path, changes):
    again = ENTRY | {"id": "c_again"} | changes
    (tmp_path / "c_made.yaml").write_text(yaml.safe_dump([ENTRY, again]), encoding="utf-8")
    with pytest.raises(ConfigError, match="c_again: asks what c_made asks"):
        load_claims(tmp_path)


# --- judging ----------------------------------------------------------------------------------------------------------

def test_planted_effects_get_the_verdicts_they_deserve():
    noise, planted = claims_table.noise(), claims_table.planted_claim()
    shares = {effect: claims_table.planted_verdicts(noise, effect, planted) for effect in (-3, 0, 0.5, 3)}
    assert shares[3]["reproduced"] >= 0.8 and shares[-3]["not reproduced"] >= 0.8
    assert shares[3]["not reproduced"] <= 0.01 and shares[-3]["reproduced"] <= 0.01
    assert shares[0]["reproduced"] <= 0.025 and shares[0.5]["inconclusive"] > 0.5
    shaken = claims_table.planted_verdicts(claims_table.noise(images=0.3), 0, planted)
    assert shaken["reproduced"] <= 0.025 + 3 * 0.0035  # 3 standard errors of 2,000 studies


@pytest.mark.parametrize("says, published, differences, word", [
    ("higher", 5.0, (4, 5, 6), "reproduced"), ("higher", 5.0, (-4, -5, -6), "not reproduced"),
    ("higher", 5.0, (0.4, 0.5, 0.6), "not reproduced"), ("higher", 5.0, (0.0, 0.1, -0.1), "not reproduced"),
    ("higher", 5.0, (9, -3, 4), "inconclusive"), ("lower", -5.0, (-4, -5, -6), "reproduced"),
    ("lower", -5.0, (4, 5, 6), "not reproduced"), ("same", None, (0.1, 0, -0.1), "reproduced"),
    ("same", None, (4, 5, 6), "not reproduced"), ("same", None, (1, -1, 0.5), "inconclusive"),
    ("no_lower", None, (4, 5, 6), "reproduced"), ("no_lower", None, (-4, -5, -6), "not reproduced"),
    ("number", 5.0, (4.9, 5, 5.1), "reproduced"), ("number", 5.0, (8.9, 9, 9.1), "not reproduced"),
    ("number", 5.0, (0, 0.1, -0.1), "not reproduced"), ("number", 5.0, (4, 5, 6), "inconclusive"),
])
def test_an_interval_decides_what_the_claim_says(says, published, differences, word):
    assert judge(claim(says=says, published=published), found(*differences))[0] == word


def test_what_would_decide_is_said_and_is_enough():
    differences = (3.0, -1.0, 1.5)
    word, why = judge(claim(), found(*differences))
    more = int(why.split()[1])
    assert word == "inconclusive" and why.endswith("more splits would decide, were the effect as it seems")
    rng = np.random.default_rng(0)
    many = rng.normal(size=3 + more)
    many = np.mean(differences) + (many - many.mean()) / many.std(ddof=1) * np.std(differences, ddof=1)
    assert judge(claim(), found(*many))[0] != "inconclusive"
    assert "larger test set" in judge(claim(), found(0.9, 1.0, 1.1, images=5))[1]
    assert judge(claim(), found(5.0, images=0.1)) == ("inconclusive", "one split says nothing of others; five or more "
                                                      "would")


def test_only_evidence_that_lacks_nothing_counts():
    effect = found(4, 5, 6)
    unearned, earned = Evidence("s", "other", effect, ("made of other, not of made",)), Evidence("s", "made", effect)
    here = verdict(claim(), [unearned])
    assert here.verdict == "not tested" and here.direction.startswith("direction here: higher") and here.why
    assert verdict(claim(), [unearned, earned]).verdict == "reproduced"
    assert verdict(claim()).why == "no run of made on made is here"
    assert verdict(claim(gone="the files are lost"), [earned]).verdict == "source gone"
    text = claims_table.counts([here])
    assert text.startswith("1 claims: 0 reproduced, 0 not reproduced, 0 inconclusive, 1 not tested")


def test_the_page_of_claims_is_in_step():
    assert (root() / "docs" / "claims.md").read_text("utf-8") == claims_table.as_markdown()


def test_without_a_study_the_command_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    assert main(["claims"]) == 0
    assert capsys.readouterr().out == f"{claims_table.nothing_here()}\n"
    assert main(["claims", "moon"]) == 2
    assert capsys.readouterr().err == "moon: no results here; no study has some\n"
