"""Census: numbers against closed forms and statsmodels, group rules on the file names of public data, plain words."""

from math import comb

import numpy as np
import pandas as pd
import pytest

from ssl_core.data.census import (
    class_by_group,
    class_table,
    empty_budget_probability,
    exact_duplicates,
    precision_of_sensitivity,
    propose_group_rule,
    statement,
    usable_budgets,
)
from ssl_core.data.images import ImageSet


def pathology(n=4000, labelled=900, positives=15, slides=11, part=None, **changes):
    """`labelled` of n images with a label, the positives spread over `slides` of 60 groups."""
    labels = np.full(n, -1)
    labels[:labelled] = 0
    labels[:positives] = 1
    groups = np.arange(n) % 60
    groups[:positives] = np.arange(positives) % slides
    images = np.random.default_rng(0).integers(0, 256, (n, 1, 4, 4), np.uint8)
    return ImageSet(**dict(name="mine", images=images, labels=labels, classes=("benign", "malignant"), groups=groups,
                           part=part, task="binary") | changes)


# --- counts and copies ------------------------------------------------------------------------------------------------

def test_counts_by_class_and_group():
    data = pathology()
    table = class_table(data)
    assert table["class"].tolist() == ["malignant", "benign"] and table.n.tolist() == [15, 885]
    assert table.n_groups.tolist() == [11, 60] and table.largest_group[0] == 2
    cross = class_by_group(data)
    assert cross.shape == (60, 3) and cross["malignant"].sum() == 15 and cross["no label"].sum() == 3100
    assert cross.to_numpy().sum() == len(data)


def test_multilabel_counts_are_positives():
    labels = np.array([[1, 0], [1, 1], [0, 0], [-1, -1]])
    data = ImageSet(name="m", images=np.zeros((4, 1, 2, 2), np.uint8), labels=labels, classes=("a", "b"),
                    task="multilabel")
    assert class_table(data).set_index("class").n.to_dict() == {"a": 2, "b": 1}


def test_exact_duplicates_say_what_they_cross():
    data = pathology(n=200, labelled=100)
    images, part = data.images.copy(), np.where(np.arange(200) < 150, "train", "test")
    images[160] = images[20]  # across parts
    images[3] = images[50]  # across classes: malignant and benign
    images[70] = images[130] = images[10]  # a labelled and two more, of the same group: 10, 70, 130
    table = exact_duplicates(pathology(n=200, labelled=100, images=images, part=part))
    rows = {row.positions: row for row in table.itertuples()}
    assert set(rows) == {(20, 160), (3, 50), (10, 70, 130)} and table.positions[0] == (20, 160)
    assert rows[20, 160].across_parts and rows[20, 160].across_groups and not rows[20, 160].across_classes
    assert rows[3, 50].across_classes and not rows[3, 50].across_parts
    assert not rows[10, 70, 130].across_parts and rows[10, 70, 130].n == 3
    assert not len(exact_duplicates(data))


# --- precision --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("n", [3, 5, 15, 40, 500])
def test_without_clusters_it_is_wilsons_interval(n):
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(int(0.8 * n + 1e-9), n, method="wilson")
    assert precision_of_sensitivity(n, n) == pytest.approx((high - low) / 2, abs=1e-6)


def test_fifteen_positives_on_eleven_slides():
    assert round(100 * precision_of_sensitivity(15, 11)) == 19
    assert round(100 * precision_of_sensitivity(15, 11, "holdout", 0.2)) == 37
    assert round(100 * precision_of_sensitivity(15, 11, sensitivity=0.5)) == 23


def test_clusters_widen_and_full_correlation_leaves_one_image_per_group():
    widths = [precision_of_sensitivity(60, groups) for groups in (60, 30, 10, 3)]
    assert widths == sorted(widths)
    assert precision_of_sensitivity(60, 10, icc=1) == pytest.approx(precision_of_sensitivity(10, 10))


def test_an_empty_budget_is_hypergeometric():
    assert empty_budget_probability(15, 900, 0.01) == pytest.approx(comb(885, 9) / comb(900, 9))
    assert round(empty_budget_probability(15, 900, 0.01), 2) == 0.86
    assert empty_budget_probability(15, 900, 1) == 0 and empty_budget_probability(0, 900, 0.5) == 1
    rng = np.random.default_rng(0)
    missed = [rng.choice(200, 20, replace=False).min() >= 12 for _ in range(4000)]
    assert empty_budget_probability(12, 200, 0.1) == pytest.approx(np.mean(missed), abs=0.025)


def test_budgets_that_remain_and_why_others_do_not():
    kept, dropped = usable_budgets([885, 15])
    assert kept == (0.05, 0.1, 0.5, 1.0)
    assert dropped[0.01].startswith("1 % budgets hold no positive in 86 % of draws and are left out (9 images;")
    assert usable_budgets([600] * 10) == ((0.01, 0.05, 0.1, 0.5, 1.0), {})


# --- who belongs together ---------------------------------------------------------------------------------------------

def breakhis(i):
    return f"{('benign/SOB_B_A', 'malignant/SOB_M_DC')[i % 2]}-14-{2000 + i // 20}-400-{i % 20:03d}.png"


@pytest.mark.parametrize("path, n_groups, words", [
    (breakhis, 20, "BreakHis"),
    (lambda i: f"{'ab'[i % 2]}/S15-{3100 + i // 10}_{'AB'[i // 5 % 2]}_{i:04d}.png", 40, "pathology case number"),
    (lambda i: f"{'ab'[i % 2]}/person{i // 4}_virus_{i}.jpeg", 100, "numbered person"),
    (lambda i: f"{i // 2}_{('left', 'right')[i % 2]}.jpeg", 200, "both eyes"),
    (lambda i: f"{8000 + i // 25}/{'01'[i % 2]}/{8000 + i // 25}_idx5_x{i}_y{i + 7}_class{i % 2}.png", 16, "tile"),
    (lambda i: f"{i // 8:08d}_{i % 8:03d}.png", 50, "before its last _"),
    (lambda i: f"train/{'ab'[i % 2]}/P{i // 16}/{i}.png", 25, "third folder"),
])
def test_group_rules_of_known_layouts(path, n_groups, words):
    paths = [path(i) for i in range(400)]
    best = propose_group_rule(paths, [i % 2 for i in range(400)])[0]
    assert best.n_groups == n_groups and words in best.reason and best.fits == 1


def test_class_folders_parts_and_running_numbers_are_no_groups():
    paths = [f"{('train', 'test')[i % 4 == 0]}/{'abc'[i % 3]}/img_{i:04d}.png" for i in range(300)]
    assert propose_group_rule(paths, [i % 3 for i in range(300)]) == []
    paths = [f"{'ab'[i % 2]}_{i}.png" for i in range(90)]
    assert propose_group_rule(paths, [i % 2 if i < 40 else -1 for i in range(90)]) == []


def test_a_column_that_names_a_patient_comes_first():
    paths = [f"site{i % 12}/{i:05d}.png" for i in range(240)]
    columns = pd.DataFrame({"age": np.arange(240) % 40, "patient_id": [f"p{i // 3}" for i in range(240)],
                            "diagnosis": [i % 2 for i in range(240)]})
    rules = propose_group_rule(paths, [i % 2 for i in range(240)], columns)
    assert rules[0].rule == "patient_id" and rules[0].n_groups == 80
    assert "diagnosis" not in {rule.rule for rule in rules}


def test_a_rule_that_misses_images_says_so():
    paths = [f"person{i // 4}_{i}.jpeg" if i < 300 else f"IM-{i}.jpeg" for i in range(400)]
    rules = propose_group_rule(paths, [i % 2 for i in range(400)])
    assert rules[0].n_groups == 75 and rules[0].fits == 0.75 and "misses 100 images" in rules[0].reason


# --- in words ---------------------------------------------------------------------------------------------------------

def test_the_statement_of_a_small_pathology_set():
    said = statement(pathology())
    assert said[0] == "mine: 4,000 images, 900 with a label, on 60 groups, 60 of them with a label."
    assert "15 positives ('malignant') on 11 groups: sensitivity to about ±19 points by grouped cross-validation, " \
           "±37 with a 20 % test set." in said
    assert any(s.startswith("1 % budgets hold no positive in 86 % of draws and are left out") for s in said)
    assert any("prefer repeated grouped cross-validation" in s for s in said)
    assert all("\n" not in s and s[-1] in ".)" for s in said)


def test_the_statement_is_honest_about_what_is_missing():
    said = " ".join(statement(pathology(groups=None)))
    assert "no groups are known" in said and "on 11 groups" not in said
    assert "all in one place" in " ".join(statement(pathology(slides=1)))
    assert "too narrow" in " ".join(statement(pathology(slides=5)))
    assert "not evaluated" in statement(pathology(labelled=15))[-1]
    labels = np.full(4000, -1)
    assert "nothing can be said" in statement(pathology(labels=labels))[1]
    assert "(synthetic)" in statement(pathology(synthetic=True))[0]


def test_an_official_test_part_counts_what_it_holds():
    part = np.where(np.arange(4000) % 3 == 0, "test", "train")
    said = " ".join(statement(pathology(part=part)))
    assert "5 of them in the official test part: sensitivity to about ±" in said
