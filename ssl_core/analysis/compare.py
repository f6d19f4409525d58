"""Paired comparisons of two ways to pretrain, with an interval that holds both sources of doubt, and the sentence that
follows from it.

A pair is one split (and seed) evaluated on both sides on the same test images. The mean difference over pairs varies
because other test images could have been drawn (bootstrap over images or clusters, common to all pairs) and because
other splits could have been drawn (its standard error over pairs). The two variances are added and the interval is
Student's t with Satterthwaite's degrees of freedom; with one pair there is only the first source, and it is said.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Contrast:
    """effect = mean of a − b over pairs, in the metric's own unit; intervals are (low, high) at 95 %."""

    effect: float
    interval: tuple
    over_images: tuple
    over_splits: tuple
    p: float
    n_pairs: int

    @property
    def verdict(self):
        """"higher", "lower" or "undecided": the sign that the whole interval has."""
        low, high = self.interval
        return "higher" if low > 0 else "lower" if high < 0 else "undecided"


def contrast(differences, draws):
    """differences: (n_pairs,) of a − b; draws: (R,) bootstrap draws of their mean over test images → Contrast."""
    differences = np.asarray(differences, float)
    n, effect = len(differences), float(np.mean(differences))
    var_images = float(np.var(draws, ddof=1))
    over_images = tuple(float(q) for q in np.quantile(draws, (0.025, 0.975)))
    if n == 1:
        se, df, over_splits = np.sqrt(var_images), np.inf, (np.nan, np.nan)
    else:
        var_splits = float(np.var(differences, ddof=1)) / n
        half = stats.t.ppf(0.975, n - 1) * np.sqrt(var_splits)
        over_splits = (effect - half, effect + half)
        se = np.sqrt(var_splits + var_images)
        df = (n - 1) * (se**2 / var_splits) ** 2 if var_splits > 0 else np.inf
    half = stats.t.ppf(0.975, df) * se
    p = 2 * stats.t.sf(abs(effect) / se, df) if se > 0 else float(effect == 0)
    return Contrast(effect, (effect - half, effect + half), over_images, over_splits, float(p), n)


def points(value):
    """A share as signed percentage points: 0.0213 → "+2.1"; a true minus sign."""
    text = f"{100 * value:+.1f}"
    return ("0.0" if text in ("+0.0", "-0.0") else text).replace("-", "−")


def span(interval):
    return f"({points(interval[0])}, {points(interval[1])})"


def sentence(found, metric, a, b, unit="splits"):
    """One of three sentences about `a` against `b`, derived from the interval alone."""
    over = f"{found.n_pairs} paired {unit}" if found.n_pairs > 1 else f"one of the {unit}, test images only"
    size = f"{points(abs(found.effect)).lstrip('+')} points of {metric}"
    if found.verdict == "higher":
        return f"{a} scores {size} higher than {b} {span(found.interval)}, over {over}."
    if found.verdict == "lower":
        return f"{a} scores {size} lower than {b} {span(found.interval)}, over {over}."
    return (f"No detectable difference between {a} and {b}: {points(found.effect)} points of {metric} "
            f"{span(found.interval)}, over {over}.")


def cost_sentence(found, metric, arm, ratio):
    """The same three, for the cost of imbalance: found holds balanced twin − imbalanced."""
    over = f"{found.n_pairs} paired splits" if found.n_pairs > 1 else "one split, test images only"
    size, about = points(abs(found.effect)).lstrip("+"), f"{span(found.interval)}, over {over}"
    if found.verdict == "higher":
        return f"Pretraining {arm} on 1:{ratio:g} costs {size} points of {metric} against as many balanced images {about}."
    if found.verdict == "lower":
        return (f"Pretraining {arm} on 1:{ratio:g} gains {size} points of {metric} against as many balanced images; "
                f"balanced minus imbalanced is {points(found.effect)} {about}.")
    return (f"No detectable cost of 1:{ratio:g} for {arm}: as many balanced images score {points(found.effect)} points of "
            f"{metric} {about}.")


def best_sentence(rows):
    """The headline of one job: balanced accuracy with its interval at the smallest and the largest budget."""
    rows = rows.dropna(subset="value")
    parts = []
    for budget in sorted({rows.budget.min(), rows.budget.max()}):
        row = rows[rows.budget == budget].sort_values("value").iloc[-1]
        span_text = "" if np.isnan(row.low) else f" ({100 * row.low:.1f} to {100 * row.high:.1f} over {row.interval})"
        parts.append(f"{100 * row.value:.1f} % with {row.n_labelled:,.0f} labels by {row.protocol} on {row.arm}{span_text}")
    return "**Balanced accuracy, best of this report:** " + "; ".join(parts) + f"; n = {rows.n.max():,.0f} test images."
