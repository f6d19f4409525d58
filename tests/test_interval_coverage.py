"""Coverage of the intervals over test images by simulation, on a few places of the grid, and the page that tells it."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ssl_core.analysis import coverage

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("design, positives, groups", [("patients", 20, 0), ("patients", 50, 16), ("slides", 50, 8)])
def test_intervals_hold_the_truth(design, positives, groups):
    found = coverage.simulate([positives], [groups], [design], repeats=60, resamples=100)
    assert len(found) == 4 and found.coverage.between(0.88, 1).all() and (found.given > 0.7).all(), found


def test_few_groups_or_positives_have_no_interval():
    found = coverage.simulate([5, 50], [4, 8], ["patients"], repeats=3, resamples=10)
    assert set(found[found.given == 0].groups) == {4, 8} and (found[found.positives == 5].given == 0).all()
    assert "| `roc_auc` | 5 | – | – |" in coverage.as_markdown(found)


def test_truth_is_what_test_sets_have_on_average():
    tests = [coverage.values_of(coverage.made_test(200, 0, "patients", np.random.default_rng(i))) for i in range(150)]
    means = {row["metric"]: np.mean([one[k]["value"] for one in tests]) for k, row in enumerate(tests[0])}
    assert means == pytest.approx(coverage.truths(200), abs=0.02)


def test_page_has_the_table_of_the_simulation_that_is_kept():
    page = (ROOT / "docs" / "statistics.md").read_text("utf-8")
    kept = pd.read_csv(ROOT / "outputs" / "reference" / "statistics" / "coverage.csv")
    table = re.search(r"<!-- coverage -->\n(.*)<!-- end -->", page, re.S)[1]
    assert table.strip() == coverage.as_markdown(kept).strip()
    assert set(kept.positives) == set(coverage.POSITIVES) and set(kept.groups) == set(coverage.GROUPS)
    assert f"{kept.repeats.max()} test sets" in page


def test_contrasts_hold_the_truth_at_least_as_often_as_they_say():
    found = coverage.simulate_contrasts([5], [0.7], repeats=600)
    assert found.coverage[0] >= 0.95 - 3 * 0.0089 and found.above[0] <= 0.025 + 3 * 0.0064
    page = (ROOT / "docs" / "statistics.md").read_text("utf-8")
    kept = pd.read_csv(ROOT / "outputs" / "reference" / "statistics" / "contrasts.csv")
    assert coverage.contrasts_as_markdown(kept) in page and "4,000 studies" in page and set(kept.repeats) == {4000}
    assert kept.coverage.min() >= 0.95 - 3 * 0.00345 and kept.above.max() <= 0.025 + 3 * 0.0025
