"""Paired comparisons of two ways to pretrain, with an interval that holds both sources of doubt, and the sentence that
follows from it.

A pair is one split evaluated on both sides on the same test images. The mean difference over pairs varies because
other test images could have been drawn (bootstrap over images or clusters, common to all pairs) and because other
splits could have been drawn (its standard error over pairs). Each has its t interval, and half the width of the one
that holds both is the root of the sum of squares of theirs (Banerjee 1960): it covers at least 95 %, where
Satterthwaite's degrees of freedom, estimated from few splits, fall a little short. With one pair there is only the
first source, and it is said.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import stdtrit

from ssl_core.analysis.power import undecided_sentence
from ssl_core.analysis.wording import in_order, points, span, words


@dataclass(frozen=True)
class Contrast:
    """effect = mean of a − b over pairs, in the metric's own unit; intervals are (low, high) at 95 %, NaN: none."""

    effect: float
    interval: tuple
    over_images: tuple
    over_splits: tuple
    p: float
    n_pairs: int

    @property
    def verdict(self):
        """"higher" or "lower", the sign that the whole interval has; "undecided", or "unknown" without an interval."""
        low, high = self.interval
        return "higher" if low > 0 else "lower" if high < 0 else "unknown" if np.isnan(low) else "undecided"


def contrast(differences, draws, units=np.inf):
    """differences: (n_pairs,) of a − b; draws: (R,) bootstrap draws of their mean over test images → Contrast.

    units: images or clusters of the rarest class behind a value, on which the variance over images rests; with 0, too
    few to judge by, there is an effect and no interval.
    """
    differences = np.asarray(differences, float)
    n, effect, none = len(differences), float(np.mean(differences)), (float("nan"),) * 2
    if units == 0:
        return Contrast(effect, none, none, none, float("nan"), n)
    var_images = float(np.nanvar(draws, ddof=1)) / (1 - 1 / units)
    var_splits = float(np.var(differences, ddof=1)) / n if n > 1 else 0.0
    images, splits = (np.sqrt(var_images), units - 1), (np.sqrt(var_splits), n - 1)
    doubts = [images, splits] if n > 1 else [images]

    def around(*doubts):
        half = half_width(0.05, *doubts)
        return effect - half, effect + half

    return Contrast(effect, around(*doubts), around(images), around(splits) if n > 1 else none,
                    p_value(effect, doubts), n)


def half_width(level, *doubts):
    """Of the interval that misses in a share `level`; doubts: (standard error, degrees of freedom) of each source."""
    return float(np.hypot.reduce([error * stdtrit(df, level / 2) for error, df in doubts]))


def p_value(effect, doubts):
    """The level at which the interval just reaches 0; below 1e-80 it is 0."""
    least, most = -80 * np.log(10), 0.0

    def reaches(log_level):
        return half_width(np.exp(log_level), *doubts) - abs(effect)

    if effect == 0 or reaches(least) <= 0:
        return float(effect == 0)
    return float(np.exp(brentq(reaches, least, most)))


def sentence(found, metric, a, b, where, unit="split"):
    """One of three sentences about `a` against `b`, by the interval alone; where: what was paired, and how read.

    unit: what a pair is, of which an undecided contrast says how many more would tell.
    """
    size, about = points(abs(found.effect)).lstrip("+"), f"({span(found.interval)}; {where})"
    return {"higher": f"{a} scores {size} points of {metric} higher than {b} {about}.",
            "lower": f"{a} scores {size} points of {metric} lower than {b} {about}.",
            "undecided": f"{a} against {b}: {undecided_sentence(found, unit)} ({points(found.effect)} points of "
                         f"{metric}; {where}).",
            "unknown": f"{a} against {b}: {points(found.effect)} points of {metric}, too few independent test images "
                       f"for an interval ({where})."}[found.verdict]


def cost_sentence(found, metric, arm, ratio, where, unit="split"):
    """The same, for the cost of imbalance: found holds balanced twin − imbalanced."""
    size, about = points(abs(found.effect)).lstrip("+"), f"({span(found.interval)}; {where})"
    left = f"balanced minus imbalanced is {points(found.effect)}"
    return {"higher": f"Pretraining {arm} on 1:{ratio:g} costs {size} points of {metric} against as many balanced "
                      f"images {about}.",
            "lower": f"Pretraining {arm} on 1:{ratio:g} gains {size} points of {metric} over as many balanced images: "
                     f"{left} {about}.",
            "undecided": f"Pretraining {arm} on 1:{ratio:g} or on as many balanced images: "
                         f"{undecided_sentence(found, unit)} ({left} points of {metric}; {where}).",
            "unknown": f"The cost of 1:{ratio:g} for {arm} is not known: {left} points of {metric}, too few "
                       f"independent test images for an interval ({where})."}[found.verdict]


def job_sentence(rows, others):
    """The headline of one job: its first protocol, not its best, at the smallest and largest budget, and its siblings.

    rows: the job's headline rows; others: those of the floors and the twin at the same draw, as far as they are there.
    """
    rows, parts = rows.dropna(subset="value"), []
    rows = rows.sort_values("protocol", key=lambda names: names.map(in_order(names).index), kind="stable")
    for budget in dict.fromkeys(rows.budget[[rows.n_labelled.idxmin(), rows.n_labelled.idxmax()]]):
        here = rows[rows.budget == budget]
        row = here.iloc[0]
        text = f"{words(row.arm)}, {words(row.protocol)}, {row.n_labelled:,.0f} labels: {100 * row.value:.1f} %"
        text += "" if np.isnan(row.low) else f" ({100 * row.low:.1f} to {100 * row.high:.1f} over {row.interval})"
        same = pd.concat([here[here.arm != row.arm], others[others.budget == budget]])
        same = same[same.protocol.isin([row.protocol, "none"]) | same.method.str.startswith("supervised")]
        near = [f"{'twin' if o.pretrain_dataset else words(o.method)} {100 * o.value:.1f}"
                for o in same.dropna(subset="value").drop_duplicates(["method", "twin"]).itertuples()]
        parts.append(text + (f"; beside it {', '.join(near)}" if near else ""))
    return f"**Balanced accuracy.** {'. '.join(parts)}. n = {rows.n.max():,.0f} test images."
