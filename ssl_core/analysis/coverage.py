"""How often 95 % intervals hold the truth, by simulation.

Of values over test images, by number of positives and of groups. A test set is binary: so many positives and 100
negatives, whose scores are normal, 1.5 standard deviations apart, with a shift of standard deviation 0.7 that all
images of a group share. Groups are drawn at random, so that their sizes differ. "patients": a group holds one class, as
with one diagnosis each, and `groups` counts those of the positives; "slides": a group holds both. The truth is that of
the population, by integration. Of contrasts, by number of splits, and by how large the doubt over test images is beside
that over splits. `python -m ssl_core.analysis.coverage` writes coverage.csv and contrasts.csv of
outputs/reference/statistics/, from which docs/statistics.md has its tables.
"""

from itertools import product

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import norm

from ssl_core.analysis.compare import contrast
from ssl_core.evaluate import weighted
from ssl_core.evaluate.intervals import MIN_GROUPS, MIN_POSITIVES, with_intervals
from ssl_core.evaluate.metrics import Predictions, metric_values
from ssl_core.files import atomic_write, root

POSITIVES, GROUPS = (5, 10, 20, 50, 100, 200), (4, 8, 16, 30, 100, 0)  # 0: every image is its own group
DESIGNS, METRICS = ("patients", "slides"), ("recall", "balanced_accuracy", "roc_auc", "average_precision")
NEGATIVES, APART, SHARED = 100, 1.5, 0.7
HOLDS = 93, 97
SPLITS, BESIDE = (2, 3, 5, 10, 20), (0, 0.1, 0.3, 0.5, 0.7, 1, 2, 5)


def made_test(positives, groups, design, rng):
    """Predictions of one test set."""
    y = np.repeat([0, 1], [NEGATIVES, positives])
    of_image, shift = None, rng.normal(0, SHARED, len(y))
    if groups:
        drawn = rng.integers(groups, size=len(y))
        of_image = 2 * drawn + y if design == "patients" else drawn
        shift = rng.normal(0, SHARED, 2 * groups)[of_image]
    p = expit(APART * (y - 0.5) + rng.normal(size=len(y)) + shift)
    return Predictions(np.stack([1 - p, p], 1), y, ("no", "yes"), "binary", of_image)


def values_of(test):
    """The four metrics as rows; with all weights 1, which is faster than one by one and the same."""
    values = metric_values(test, weighted, np.ones((len(test.labels), 1)))
    return [{"part": "test", "group_kind": "all", "group": "all", "metric": metric,
             "value": float(values["all", "all", metric][0])} for metric in METRICS]


def truths(positives):
    """The four metrics in the population, with positives as frequent as in the test set."""
    sd, share = np.hypot(1, SHARED), positives / (positives + NEGATIVES)
    t = np.linspace(APART / 2 + 9 * sd, -APART / 2 - 9 * sd, 20_001)
    found, wrong = norm.sf(t, APART / 2, sd), norm.sf(t, -APART / 2, sd)
    precision = share * found / (share * found + (1 - share) * wrong)
    right = norm.cdf(APART / 2 / sd)
    return {"recall": right, "balanced_accuracy": right, "roc_auc": norm.cdf(APART / sd / np.sqrt(2)),
            "average_precision": np.trapezoid(precision, found)}


def simulate(positives=POSITIVES, groups=GROUPS, designs=DESIGNS, repeats=400, resamples=200, seed=0):
    """→ one row per design, metric, positives and groups: coverage among the intervals that were given, `given`, the
    share of test sets that had one, and repeats."""
    found = []
    for design, k, g in product(designs, positives, groups):
        true, inside = truths(k), {metric: [] for metric in METRICS}
        if g == 0 and design != DESIGNS[0]:
            continue  # the same without groups
        enough = not g or (g >= MIN_GROUPS and k >= MIN_POSITIVES)
        for i in range(repeats):
            rng = np.random.default_rng((seed, DESIGNS.index(design), k, g, i))
            test = made_test(k, g, design, rng)
            for row in with_intervals(values_of(test), test, (seed, i), resamples if enough else 2):
                if row["low"] is not None:
                    inside[row["metric"]].append(row["low"] <= true[row["metric"]] <= row["high"])
        found += [{"design": design, "metric": metric, "positives": k, "groups": g, "repeats": repeats,
                   "given": len(held) / repeats, "coverage": np.mean(held) if held else np.nan}
                  for metric, held in inside.items()]
    return pd.DataFrame(found)


def simulate_contrasts(splits=SPLITS, beside=BESIDE, units=60, repeats=4000, seed=0):
    """→ one row for each number of splits and doubt over images: coverage, and above: the share of contrasts without an
    effect whose interval lies above 0.

    beside: standard deviation of the mean over other test images, in units of that over other splits; the bootstrap
    knows the first as a sample of so many independent images does.
    """
    found = []
    for n, size in product(splits, beside):
        rng = np.random.default_rng((seed, n, round(10 * size)))
        error = size / np.sqrt(n)
        limits = np.empty((repeats, 2))
        for i in range(repeats):
            known = error * np.sqrt(rng.chisquare(units - 1) / units)
            limits[i] = contrast(error * rng.normal() + rng.normal(size=n), known * np.array([-1, 1]) / np.sqrt(2),
                                 units).interval
        low, high = limits.T
        found.append({"n_splits": n, "images_beside_splits": size, "repeats": repeats,
                      "coverage": ((low <= 0) & (high >= 0)).mean(), "above": (low > 0).mean()})
    return pd.DataFrame(found)


def contrasts_as_markdown(found):
    """Coverage of contrasts in per cent: a row for each number of splits, a column for each doubt over images."""
    wide = found.pivot(index="n_splits", columns="images_beside_splits", values="coverage")
    lines = ["| splits | " + " | ".join(f"{size:g}" for size in wide) + " |", "|--:|" + "--:|" * len(wide.columns)]
    return "\n".join([*lines, *(f"| {n} | " + " | ".join(f"{100 * c:.1f}" for c in row) + " |"
                                for n, row in zip(wide.index, wide.to_numpy()))])


def as_markdown(found):
    """A table for each design: coverage in per cent by positives and groups, bold where it is 93 to 97, "–" where fewer
    than half of the test sets have an interval."""
    lines = []
    for design, rows in found.groupby("design", sort=False):
        groups = list(dict.fromkeys(rows.groups))
        heads = [f"{g} groups" if g else "no groups" for g in groups]
        lines += [f"Groups as {design}:", "", "| metric | positives | " + " | ".join(heads) + " |",
                  "|---|" + "--:|" * (len(groups) + 1)]
        for (metric, k), row in rows.sort_values(["metric", "positives"]).groupby(["metric", "positives"]):
            cells = row.set_index("groups").loc[groups]
            said = map(percent, cells.coverage, cells.given)
            lines.append(f"| `{metric}` | {k} | " + " | ".join(said) + " |")
        lines.append("")
    return "\n".join(lines)


def percent(coverage, given):
    if not given >= 0.5:
        return "–"
    whole = round(100 * coverage)
    return f"**{whole}**" if HOLDS[0] <= whole <= HOLDS[1] else f"{whole}"


if __name__ == "__main__":
    for name, simulated, text in (("contrasts", simulate_contrasts, contrasts_as_markdown),
                                  ("coverage", simulate, as_markdown)):
        table = simulated()
        path = root() / "outputs" / "reference" / "statistics" / f"{name}.csv"
        atomic_write(path, table.to_csv(index=False, lineterminator="\n", float_format="%.4g"))
        print(text(table))
