"""What was published, as claims that a program can test, and the verdict that a study's evidence allows.

A claim is one entry of params/claims/*.yaml. Its verdict follows from an interval and a tolerance alone; what has to
hold before there may be one (own data, a tolerance that is older than the first run, a positive control, equal tuning)
comes with the evidence, from `analysis.evidence`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy import stats

from ssl_core.analysis.compare import Contrast
from ssl_core.analysis.wording import span
from ssl_core.config import ConfigError
from ssl_core.files import root

VERDICTS = ("reproduced", "not reproduced", "inconclusive", "not tested", "source gone")
MOST = 999  # splits that are worth naming


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Side(Strict):
    """Rows of results.csv, by the columns that tell them from others; what is left out, the claim says for all."""

    arm: str = ""
    ratio: float | None = None
    n_labelled: int | None = None
    budget: float | None = None
    protocol: str = ""
    layer: str = ""
    group: str = ""


class ContrastOf(Strict):
    """what − against; with `minus`, less the same difference where `minus` differs; without `against`, a level."""

    what: Side
    against: Side | None = None
    minus: Side | None = None

    @model_validator(mode="after")
    def minus_needs_two(self):
        if self.minus and not self.against:
            raise ValueError("minus takes a difference from a difference; give against")
        return self


class Range(Strict):
    """A positive control: an arm's mean over splits, read as the claim reads, lies between these, in points."""

    arm: str
    low: float
    high: float
    metric: str = "balanced_accuracy"
    group: str = "all"


class Claim(Strict):
    """One published statement. Numbers are points: 100 times a share. study: the file of params/studies that tests it.

    says: of the effect: higher or lower (than 0), no_lower, same, or number (as published). tolerance: two values that
    lie nearer than this count as the same. control: a range, or plateau: pretraining no longer lowered its loss.
    unverified: the number is recalled, not read. gone: why nobody can test it any more.
    """

    id: Annotated[str, Field(pattern=r"^[a-e]_[a-z0-9_]+$")]
    statement: str
    source: str
    unverified: bool = False
    study: str = ""
    data: str
    contrast: ContrastOf
    metric: str
    group: str = "all"
    protocol: str
    budget: float
    says: Literal["higher", "lower", "no_lower", "same", "number"]
    published: float | None = None
    tolerance: Annotated[float, Field(gt=0)]
    control: Literal["plateau"] | Range
    contradicts: tuple[str, ...] = ()
    gone: str = ""

    @model_validator(mode="after")
    def agrees_with_itself(self):
        if self.says == "number" and self.published is None:
            raise ValueError("says: number needs the published one")
        if self.says != "number" and self.contrast.against is None:
            raise ValueError(f"says: {self.says} needs a contrast with against")
        wrong_sign = {"higher": -1, "lower": 1}.get(self.says, 0) * (self.published or 0) > 0
        if wrong_sign:
            raise ValueError(f"says: {self.says}, but the published number is {self.published:g}")
        return self

    @property
    def question(self):
        """What no two claims may share."""
        return self.contrast, self.metric, self.data


def load_claims(folder=None) -> dict:
    """{id: Claim} of all files of a folder, in their order; a ConfigError of one line where one is amiss."""
    found, asked = {}, {}
    for path in sorted(Path(folder or root() / "params" / "claims").glob("*.yaml")):
        for number, values in enumerate(yaml.safe_load(path.read_text(encoding="utf-8")) or [], 1):
            name = values.get("id", f"claim {number}") if isinstance(values, dict) else f"claim {number}"
            try:
                claim = Claim.model_validate(values)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"]))
                message = first["msg"].removeprefix("Value error, ")
                raise ConfigError(f"{path.name}: {name}{f': {where}' if where else ''}: {message}") from None
            if claim.id[0] != path.name[0]:
                raise ConfigError(f"{path.name}: {claim.id}: belongs into the file of system {claim.id[0]}")
            if claim.id in found:
                raise ConfigError(f"{path.name}: {claim.id}: the id is taken; give each claim its own")
            if twin := asked.get(claim.question):
                raise ConfigError(f"{path.name}: {claim.id}: asks what {twin} asks; change contrast, metric or data")
            found[claim.id] = claim
            asked[claim.question] = claim.id
    for claim in found.values():
        for other in claim.contradicts:
            if other not in found or claim.id not in found[other].contradicts:
                raise ConfigError(f"{claim.id}: contradicts: {other!r} is no claim that names it back")
    return found


@dataclass(frozen=True)
class Evidence:
    """What one study found for a claim. effect: Contrast in shares, or None; lacking: what a verdict still needs.

    formed: from results.csv, as no row of summary.csv holds it; keys: the runs of each pair, side by side.
    """

    study: str
    dataset: str
    effect: Contrast | None
    lacking: tuple = ()
    formed: bool = False
    keys: str = ""


@dataclass(frozen=True)
class Verdict:
    """verdict: of VERDICTS; why: what decided, or what would; direction: of an effect that counts for nothing."""

    claim: Claim
    verdict: str
    why: str = ""
    direction: str = ""
    evidence: Evidence | None = None


def verdict(claim, evidence=()) -> Verdict:
    """The verdict on a claim from what studies found (Evidence each); only the first that lacks nothing counts."""
    if claim.gone:
        return Verdict(claim, "source gone", claim.gone)
    for one in evidence:
        if one.effect and not one.lacking:
            return Verdict(claim, *judge(claim, one.effect), evidence=one)
    here = [direction(one, claim) for one in evidence if one.effect]
    why = "; ".join(dict.fromkeys(reason for one in evidence for reason in one.lacking)) or no_study(claim)
    return Verdict(claim, "not tested", why, "; ".join(here))


def no_study(claim):
    return (f"no run of {claim.study} on {claim.data} is here" if claim.study
            else "no study of params/studies has these arms on these data")


def direction(one, claim):
    """An effect in words, with its interval where it has one; of a level, the level."""
    if claim.contrast.against is None:
        return f"level here: {100 * one.effect.effect:.1f} on {one.dataset}"
    size = f" ({span(one.effect.interval)})" if np.isfinite(one.effect.interval[0]) else ""
    told = one.effect.verdict in ("higher", "lower")
    return f"{f'direction here: {one.effect.verdict}' if told else 'no direction here'}{size} on {one.dataset}"


def judge(claim, found):
    """(verdict, why) by the interval of a Contrast in shares.

    A direction is reproduced when the whole interval has its sign and the effect exceeds the tolerance, and not
    reproduced when nothing in the interval exceeds it. The other claims name a range of effects: reproduced when the
    interval lies in it, not when it lies outside. All else is inconclusive. A single pair decides nothing, as other
    splits may differ.
    """
    low, high = (100 * end for end in found.interval)
    effect, low, high = (-100 * found.effect, -high, -low) if claim.says == "lower" else (
        100 * found.effect, low, high)
    if np.isnan(low):
        return "inconclusive", "too few independent test images for an interval; a larger test set would decide"
    t, centre = claim.tolerance, claim.published if claim.says == "number" else 0.0
    if claim.says in ("higher", "lower"):
        agrees, refuted = low > 0 and effect > t, high <= t
        room = effect if effect > t else t - effect  # half as wide, an interval decides
    else:
        ends = [centre - t] + [centre + t] * (claim.says != "no_lower")
        agrees = ends[0] <= low and high <= (ends[1:] or [np.inf])[0]
        refuted = high < ends[0] or low > (ends[1:] or [np.inf])[0]
        room = min(abs(effect - end) for end in ends)
    if found.n_pairs < 2:
        return "inconclusive", "one split says nothing of others; five or more would"
    if agrees or refuted:
        return "reproduced" if agrees else "not reproduced", size_words(claim, low, high)
    return "inconclusive", splits_for(found, room)


def size_words(claim, low, high):
    """How the interval lies to a published effect, both with the claim's sign."""
    if claim.published is None or claim.says == "number":
        return ""
    size = abs(claim.published) if claim.says in ("higher", "lower") else claim.published
    relation = ("smaller than" if high < size - claim.tolerance else
                "larger than" if low > size + claim.tolerance else "compatible with")
    return f"the effect is {relation} the published one"


def splits_for(found, room):
    """What would decide, were the effect as it seems: how many splits bring half the interval's width below `room`.

    room: in points; found: the Contrast, whose parts say what splits and what test images contribute.
    """
    images = 100 * (found.over_images[1] - found.over_images[0]) / 2
    if images >= room:
        return "a larger test set would decide; more splits alone would not"
    n = found.n_pairs
    error = 100 * (found.over_splits[1] - found.over_splits[0]) / 2 / stats.t.ppf(0.975, n - 1) * np.sqrt(n)
    more = np.arange(1, MOST - n)
    enough = np.hypot(images, stats.t.ppf(0.975, n + more - 1) * error / np.sqrt(n + more)) <= room
    if not enough.any():
        return f"{MOST} splits would not decide, were the effect as it seems"
    return f"about {more[enough.argmax()]} more splits would decide, were the effect as it seems"
