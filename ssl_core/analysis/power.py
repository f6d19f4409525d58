"""How many paired splits it takes: to know a difference to within D points, or to detect one of D points.

The doubt about a mean difference is over splits, which more splits make smaller, and over test images, which they do
not (`compare.contrast`). Detection is with power 80 % at 5 %, by the noncentral t distribution; the standard deviation
between splits is that of the contrasts of a study that has run, and as few splits know it badly, the number is also
given for its upper limit, below which it lies with 80 % (Browne 1995). The doubt over images is taken as it was, an
upper bound: the part of it that each pair has of its own gets smaller with more splits, too.
"""

import numpy as np
import pandas as pd
from scipy.stats import chi2, nct, norm, t

from ssl_core.analysis.wording import budget_short, in_order, metric_words, points, words
from ssl_core.files import outputs, root

POWER, SURE, MOST = 0.8, 0.8, 2000


def half_width(n, sd, sd_images=0.0):
    """Of the 95 % interval over n splits and the test images, as `compare.contrast` has it for many test images."""
    return np.hypot(t.ppf(0.975, n - 1) * sd / np.sqrt(n), norm.ppf(0.975) * sd_images)


def power(n, effect, sd, sd_images=0.0):
    """The chance that the 95 % interval over n splits lies on the effect's side of 0."""
    both = np.hypot(sd / np.sqrt(n), sd_images)
    if both == 0:
        return float(effect != 0)
    df = (n - 1) * (both * np.sqrt(n) / sd) ** 4 if sd > 0 else 1e6
    return float(nct.sf(half_width(n, sd, sd_images) / both, min(df, 1e6), abs(effect) / both))


def fewest(enough):
    """The smallest n from 2 to MOST for which enough(n) holds, by bisection; None where there is none."""
    low, high = 1, MOST
    if not enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def splits_for_width(within, sd, sd_images=0.0):
    """Fewest splits whose interval is ± within or less; None: not with 2,000, as test images alone leave more doubt."""
    return fewest(lambda n: half_width(n, sd, sd_images) <= within)


def splits_to_detect(effect, sd, sd_images=0.0):
    """Fewest splits that detect an effect with power 80 %; None: not with 2,000."""
    return fewest(lambda n: power(n, effect, sd, sd_images) >= POWER)


def more_images(wanted, sd_images, at_power=None):
    """How many times as many test images it takes at least, however many splits there are."""
    z = norm.ppf(0.975) + (norm.ppf(at_power) if at_power else 0)
    return (z * sd_images / wanted) ** 2


def undecided_sentence(found, unit="split", within=0.01, what="difference"):
    """What a contrast that decides nothing says, and how many more splits would tell.

    found: of `compare.contrast`; unit: what its pairs are; within: half the width that one wants, as a share. → "no
    detectable difference (−1.2, +2.1); about 11 more splits for ±1".
    """
    (low, high), wanted = found.interval, f"±{100 * within:g}"
    if found.verdict == "unknown":
        return f"too few independent test images for an interval; more {unit}s do not help"
    said = f"no detectable {what} ({points(low)}, {points(high)})"
    if np.isnan(found.over_splits[0]):
        return f"{said}; of one {unit}, so that it is not known how many more {wanted} needs"
    sd = (found.over_splits[1] - found.effect) / t.ppf(0.975, found.n_pairs - 1) * np.sqrt(found.n_pairs)
    sd_images = (found.over_images[1] - found.effect) / t.ppf(0.975, 1e6)
    n = splits_for_width(within, sd, sd_images)
    if n is None:
        times = more_images(within, sd_images)
        return f"{said}; no number of {unit}s gives {wanted}: it takes at least {times:.1f} times the test images, too"
    more = max(n - found.n_pairs, 0)
    return f"{said}; about {more} more {unit}{'s' * (more != 1)} for {wanted}" if more else f"{said}, known to {wanted}"


def planned(summary, detect):
    """One row for each family, metric, protocol and budget of a summary: what it takes for `detect`, a share.

    sd: between splits, of a paired difference, pooled over the contrasts; sd_images: of its mean over test images;
    n: splits behind sd; these_images: splits to detect it were test images beyond doubt; for_width, to_detect,
    to_be_safe: splits, NaN where no number is enough.
    """
    rows = summary[(summary.n_pairs > 1) & summary.test.str.contains("paired t over splits")]
    found = []
    for name, group in rows.groupby(["family", "metric", "group", "protocol", "budget"], sort=False):
        differences = [np.array(text.split(), float) for text in group.differences]
        n = int(group.n_pairs.max())
        sd = np.sqrt(np.average([np.var(d, ddof=1) for d in differences], weights=[len(d) - 1 for d in differences]))
        sd_images = np.sqrt((((group.high_images - group.low_images) / 2 / t.ppf(0.975, 1e6)) ** 2).mean())
        upper = sd * np.sqrt((n - 1) / chi2.ppf(1 - SURE, n - 1))
        found.append(dict(zip(("family", "metric", "group", "protocol", "budget"), name)) | {
            "sd": sd, "sd_images": sd_images, "n": n, "these_images": splits_to_detect(detect, sd),
            "for_width": splits_for_width(detect, sd, sd_images),
            "to_detect": splits_to_detect(detect, sd, sd_images),
            "to_be_safe": splits_to_detect(detect, upper, sd_images)})
    return pd.DataFrame(found, columns="""family metric group protocol budget sd sd_images n these_images for_width
        to_detect to_be_safe""".split())


def plan_text(study, detect, protocol=""):
    """What `python -m ssl_core plan` prints. study: a name; detect: points; protocol: instead of the study's first."""
    paths = [outputs() / study / "summary.csv", root() / "outputs" / "reference" / study / "summary.csv"]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        known = sorted(file.stem for file in (root() / "params" / "studies").glob("*.yaml"))
        if study not in known and not (outputs() / study).exists():
            raise ValueError(f"there is no study {study!r}; params/studies holds {', '.join(known) or 'none'}")
        return (f"nothing of {study} has run, and there is no reference: run two splits or more of it, or of a study "
                "alike, to learn how much they differ")
    table = planned(pd.read_csv(path), detect / 100)
    if not len(table):
        return f"{study} has no contrast over two splits or more, so it is not known how much splits differ"
    names = in_order(table.protocol)
    if protocol and protocol not in names:
        raise ValueError(f"{study} has no contrast read by {protocol!r}; it has: {', '.join(names)}")
    table = table[table.protocol == (protocol or names[0])]

    def enough(name, at_power=POWER):
        times = more_images(detect / 100, table.sd_images, at_power).map("{:.1f}× images".format)
        return table[name].astype(float).map("{:.0f}".format).where(table[name].notna(), times)

    shown = pd.DataFrame({
        "contrasts": table.family, "metric": list(map(metric_words, table.metric, table.group)),
        "labels": table.budget.map(budget_short), "sd splits": (100 * table.sd).map("{:.1f}".format),
        "sd images": (100 * table.sd_images).map("{:.1f}".format), "splits now": table.n,
        "these images": enough("these_images"), f"for ±{detect:g}": enough("for_width", None),
        f"to detect {detect:g}": enough("to_detect"), "to be safe": enough("to_be_safe")})
    where = "here" if path == paths[0] else "as its reference has run"
    return "\n".join([
        f"{study}, {words(table.protocol.iloc[0])}, {where}: paired splits needed to know a difference to within "
        f"±{detect:g} points, and to detect one of {detect:g} points with power {100 * POWER:.0f} %",
        shown.to_string(index=False),
        "sd splits: standard deviation of a difference between splits; sd images: what other test images would change "
        "in the mean;\nthese images: splits to detect it were there no doubt about test images; to be safe: for the "
        f"upper {100 * SURE:.0f} % limit of\nsd splits, which few splits know badly; 2.0× images: no number of splits "
        "is enough, at least so many times the test images, too"
        + (f".\nAlso read by: {', '.join(names[1:])} (--protocol)" if len(names) > 1 and not protocol else "")])
