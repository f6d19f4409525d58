"""Presets of splits: what they fill in, what they leave to the study, and the part that is held out for validation."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_plan import planned, study

from ssl_core.cli import main
from ssl_core.config import ConfigError
from ssl_core.data import load
from ssl_core.data.cards import card_names
from ssl_core.data.pools import pools
from ssl_core.data.splits import long_tail_counts
from ssl_core.split_presets import PAGE, as_markdown, split_preset, split_preset_names
from ssl_core.study import Study, load_study

ROOT = Path(__file__).parents[1]
FIVE = [0.01, 0.05, 0.1, 0.5, 1.0]
NINE = {"kind": "category_ratio", "ratios": [1, 5, 10, 50, 100, 500, 1000, 5000, 10000]}
TAILS = {"kind": "long_tail", "ratios": [100], "draw_seeds": [1, 2, 3]}
NATURAL = {"kind": "natural"}

# What the studies of the published systems say in full: splits (of the first data set with any), budgets, label pool.
IN_FULL = {
    "a_cytology": (NINE | {"total": 80000}, FIVE, "natural"),
    "a_cytology_rehearsal": (NINE | {"total": 12000}, FIVE, "natural"),
    "b_breast": ({"kind": "balanced", "total": [462, 2310, 4620], "draw_seeds": [0, 1, 2]}, [1.0], "as_pretrain"),
    "b_breast_rehearsal": ({"kind": "balanced", "total": [120, 600, 1200]}, [1.0], "as_pretrain"),
    "c_longtail": (TAILS, [0.01, 1.0, 50, 100], "balanced"),
    "c_longtail_rehearsal": (TAILS, [0.01, 1.0, 50], "balanced"),
    "d_intermediate": (NATURAL, [0.01, 0.1, 1.0], "natural"),
    "d_intermediate_rehearsal": (NATURAL, [0.01, 0.1, 1.0], "natural"),
}
PLAIN = {"splits": TAILS, "data": {"dataset": "toy"},
         "arms": [{"name": "simclr", "method": "simclr"}], "floors": ["majority"], "evaluate": {"budgets": [1.0]}}


@pytest.mark.parametrize("name", IN_FULL)
def test_a_study_with_a_preset_is_the_one_written_in_full(name):
    splits, budgets, label_pool = IN_FULL[name]
    path = ROOT / "params" / "studies" / f"{name}.yaml"
    values = yaml.safe_load(path.read_text("utf-8"))
    rows = values["data"] if isinstance(values["data"], list) else [values["data"]]
    named = [row for row in rows if "preset" in (row.get("splits") or values.get("splits", {}))]
    assert named
    for row in named:
        row["label_pool"] = label_pool
        (row if row.get("splits") else values)["splits"] = splits
    values["evaluate"]["budgets"] = budgets
    assert without_name(load_study(path)) == without_name(Study(**values))


def without_name(study):  # noqa: F811
    values = study.model_dump()
    for place in (values, *values["data"]):
        (place["splits"] or {}).pop("preset", None)
    return values


def test_a_preset_makes_the_jobs_that_it_stands_for(toy_tree):
    short = PLAIN | {"splits": {"preset": "tails"}, "evaluate": {}}
    (toy_tree / "params" / "splits").mkdir()
    (toy_tree / "params" / "splits" / "s.yaml").write_text(
        "tails: {about: a, source: s, splits: {kind: long_tail, ratios: [100], draw_seeds: [1, 2, 3]}, "
        "budgets: [1.0], data: {label_pool: balanced}}\n"
        "other: {about: a, source: s, splits: {kind: natural}, budgets: [0.5], data: {label_pool: natural}}\n")
    keys = [job.key for job in planned(**PLAIN).jobs]
    assert keys == [job.key for job in planned(**short).jobs]
    own = study(**short | {"splits": {"preset": "tails", "ratios": [7]}, "evaluate": {"budgets": [0.5]},
                           "data": {"dataset": "toy", "label_pool": "natural"}})
    assert (own.splits.ratios, own.splits.draw_seeds, own.evaluate.budgets, own.data[0].label_pool) == (
        [7], [1, 2, 3], [0.5], "natural")
    two = [{"dataset": "toy"}, {"dataset": "more", "splits": {"preset": "other"}}]
    with pytest.raises(ConfigError, match=r"evaluate.budgets: presets of splits say \[1.0\] and \[0.5\]; give one"):
        study(**short | {"data": two})
    both = study(**short | {"data": two, "evaluate": {"budgets": [0.5]}})
    assert [data.label_pool for data in both.data] == ["balanced", "natural"]
    with pytest.raises(ConfigError, match="splits: no preset of splits 'tials'; near it: tails; there are tails, othe"):
        study(**short | {"splits": {"preset": "tials"}})


@pytest.mark.parametrize("name", split_preset_names())
def test_every_preset_fits_a_study(name):
    made = Study(name="s", question="?", data={"dataset": "fashion"}, splits={"preset": name},
                 arms=[{"name": "a", "method": "simclr"}])
    preset = split_preset(name)
    assert list(made.splits.each()) and made.evaluate.budgets == preset.budgets
    assert {key: getattr(made.data[0], key) for key in preset.data} == preset.data and preset.source


def test_presets_hold_the_published_numbers():
    total = split_preset("constant_total").splits
    positive = [round(total["total"] / (1 + ratio)) for ratio in total["ratios"]]
    assert positive[0] == 40_000 and positive[-1] == 8 and len(positive) == 9
    assert [n // 3 for n in split_preset("balanced_fractions").splits["total"]] == [154, 770, 1540]
    tails = [len(split_preset(name).splits["draw_seeds"]) for name in ("long_tail_3", "long_tail_5_cifar10", "shots")]
    sizes = [long_tail_counts(split_preset(f"long_tail_5_cifar{c}").splits["n_max"], c, 100) for c in (10, 100)]
    assert [counts[0] for counts in sizes] == [4500, 450] and [counts[-1] for counts in sizes] == [45, 4]
    assert tails == [3, 5, 5] and split_preset("shots").budgets == [50, 100, 1.0]


def parts_of(toy_tree, **data):
    """Pools of the first probe in a plan, in images of each part, and the job."""
    job = next(job for job in planned(**PLAIN | {"splits": NATURAL, "data": {"dataset": "bare"} | data}).jobs
               if job.stage == "probe")
    made = pools(load("bare", 8), **job.cfg.pool_arguments())
    return {name: len(getattr(made, name)) for name in ("unlabelled", "labelled", "val", "test")}, job


@pytest.fixture
def bare(toy_tree):
    """Images that bring no parts, and the presets."""
    shutil.copytree(ROOT / "params" / "splits", toy_tree / "params" / "splits")
    rng = np.random.default_rng(0)
    np.savez(toy_tree / "params" / "data" / "bare.npz", train_images=rng.integers(0, 255, (400, 8, 8), np.uint8),
             train_labels=np.arange(400) % 4)
    (toy_tree / "params" / "data" / "bare.yaml").write_text(
        "kind: npz\nfile: bare.npz\nclasses: ['0', '1', '2', '3']\nparts: {train: ''}\n")
    return toy_tree


def test_eight_to_one_to_one_with_one_test_part(bare):
    preset = split_preset("one_test_part").data
    parts, job = parts_of(bare, **preset)
    assert parts == {"unlabelled": 320, "labelled": 320, "val": 40, "test": 40}
    tests = {tuple(pools(load("bare", 8), **job.cfg.pool_arguments() | {"draw_seed": seed}).test) for seed in range(3)}
    assert len(tests) == 1


def test_a_tenth_for_validation_leaves_training_and_is_in_the_keys(bare):
    none, before = parts_of(bare, label_pool="natural")
    tenth, after = parts_of(bare, **split_preset("val_tenth").data)
    assert none == {"unlabelled": 320, "labelled": 320, "val": 0, "test": 80}
    assert tenth == {"unlabelled": 288, "labelled": 288, "val": 32, "test": 80}
    assert before.key != after.key and before.needs[0].key != after.needs[0].key
    assert "val_fraction" not in before.parts["parameters"]  # runs made before there was this word keep their keys


def test_an_official_validation_part_stays_as_it_is(bare):
    names = [f"{part}_{what}" for part in ("train", "val", "test") for what in ("images", "labels")]
    with np.load(bare / "params" / "data" / "bare.npz") as kept:
        arrays = [kept[f"train_{what}"][at] for at in (slice(200), slice(200, 300), slice(300, 400))
                  for what in ("images", "labels")]
    np.savez(bare / "params" / "data" / "bare.npz", **dict(zip(names, arrays)))
    (bare / "params" / "data" / "bare.yaml").write_text("kind: npz\nfile: bare.npz\nclasses: ['0', '1', '2', '3']\n")
    (one, before), (other, after) = parts_of(bare), parts_of(bare, val_fraction=0.3)
    assert one == other and one["val"] == 100 and before.key == after.key


def test_the_page_of_splits_is_that_of_the_files_and_its_cards_are_there(capsys):
    assert (ROOT / "docs" / "splits.md").read_text("utf-8") == as_markdown() + "\n", (
        "make it again: python -m ssl_core splits --markdown > docs/splits.md")
    linked = {word.partition(".yaml")[0] for word in PAGE.split("params/data/")[1:]}
    assert len(linked) == 12 and linked <= set(card_names())
    assert main(["splits"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n{name}\n" in f"\n{said}" for name in split_preset_names()) and max(map(len, said.split("\n"))) <= 120
    assert main(["splits", "shotz"]) == 2
    assert "no preset of splits 'shotz'; near it: shots;" in capsys.readouterr().err
