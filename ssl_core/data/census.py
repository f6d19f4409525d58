"""What these data can show, before any training: counts, copies, and how precise a sensitivity can become."""

import re
from dataclasses import dataclass
from math import floor, sqrt

import numpy as np
import pandas as pd

from ssl_core.data.splits import is_labelled

BUDGETS = (0.01, 0.05, 0.1, 0.5, 1.0)
Z = 1.959964  # 97.5 % point of the normal distribution
ICC = 0.1  # correlation within a group that is assumed where nothing is known
SENSITIVITY = 0.8
FEW_GROUPS, FEW_LABELS = 8, 50


# --- counts -----------------------------------------------------------------------------------------------------------

def holds(data):
    """Bool (N, C): image i has a label and it is (multilabel: includes) class c."""
    return data.labels == 1 if data.labels.ndim == 2 else data.labels[:, None] == np.arange(len(data.classes))


def class_by_group(data):
    """Images per group (row) and class (column), and without a label."""
    table = pd.DataFrame(holds(data).astype(int), columns=list(data.classes))
    table["no label"] = ~is_labelled(data.labels)
    return table.groupby(np.array(data.group_names, object)[data.groups]).sum().rename_axis("group")


def class_table(data):
    """One row per class: images n, groups n_groups, images in its largest group; the rarest class first."""
    rows = []
    for name, mine in zip(data.classes, holds(data).T):
        sizes = np.unique(data.groups[mine], return_counts=True)[1]
        rows.append((name, int(mine.sum()), len(sizes), int(max(sizes, default=0))))
    table = pd.DataFrame(rows, columns=["class", "n", "n_groups", "largest_group"])
    return table.sort_values("n", kind="stable", ignore_index=True)


def exact_duplicates(data):
    """One row per set of pixel-identical images: their positions, n, and whether they cross parts, groups or classes.

    Copies across parts come first: they let a test image into training.
    """
    places = {}
    for i, digest in enumerate(map(bytes, data.hashes)):
        places.setdefault(digest, []).append(i)
    known = is_labelled(data.labels)
    rows = []
    for same in (same for same in places.values() if len(same) > 1):
        labels = {data.labels[i].tobytes() for i in same if known[i]}
        crossed = (len({*values}) > 1 for values in (data.part[same], data.groups[same], labels))
        rows.append((tuple(same), len(same), *crossed))
    table = pd.DataFrame(rows, columns=["positions", "n", "across_parts", "across_groups", "across_classes"])
    return table.sort_values(["across_parts", "across_classes"], ascending=False, kind="stable", ignore_index=True)


# --- who belongs together ---------------------------------------------------------------------------------------------

PATTERNS = {  # the specific first: a regular expression for a path, as a card's `group` takes it
    "a patient code in the manner of BreakHis": r"SOB_[BM]_[A-Z]+-(?P<group>\d+-[0-9A-Z]+)-\d+-\d+",
    "a pathology case number": r"(?P<group>(?<![A-Za-z])[A-Z]{1,3}\d{2}-\d{3,6})",
    "a numbered person or slide": r"(?i)(?P<group>(?:person|patient|subject|donor|slide|case|pat|subj)[-_ ]?\d+)",
    "the number that both eyes share": r"(?P<group>[^/_]+)_(?:left|right)\b",
    "what stands before tile coordinates": r"(?P<group>[^/]+?)[-_](?:idx\d+[-_])?x\d+[-_]y\d+",
    "the first folder": r"^(?P<group>[^/]+)/",
    "the second folder": r"^[^/]+/(?P<group>[^/]+)/",
    "the third folder": r"^[^/]+/[^/]+/(?P<group>[^/]+)/",
    "the file name before its last _": r"(?P<group>[^/]+)_[^/_]*$",
    "the file name before its last -": r"(?P<group>[^/]+)-[^/-]*$",
}
SPECIFIC = 5  # so many of them name a thing
NAMED_COLUMN = re.compile(r"patient|subject|person|slide|case|donor|group|specimen|accession", re.I)


@dataclass(frozen=True)
class GroupRule:
    """A way to tell which images belong together: `rule` is a pattern or a column, as a card's `group` takes it."""

    rule: str
    n_groups: int
    fits: float  # share of the images it fits
    reason: str


def propose_group_rule(paths, labels, columns=None):
    """Candidate group rules, the best first → list of GroupRule; empty when nothing repeats.

    paths: of the images, relative to the data's folder; labels: (N,), -1 or "" where missing; columns: DataFrame of
    what else a CSV says, or None. Rules that give one group, only single images, the parts or the classes are left out.
    Ranked: what names a patient, case or slide before what merely repeats; then what fits every image; coarse before
    fine, because a group too large costs precision and one too small leaks.
    """
    candidates = []
    for i, (what, pattern) in enumerate(PATTERNS.items()):
        matches = [re.search(pattern, path) for path in paths]
        candidates.append((i >= SPECIFIC, what, pattern, [match["group"] if match else None for match in matches]))
    for name in () if columns is None else columns:
        words = columns[name].astype(object).where(columns[name].notna(), None)
        candidates.append((not NAMED_COLUMN.search(str(name)), f"the column {name}", str(name), words.tolist()))
    labels = pd.Series(list(labels)).replace(["", -1], None)
    rules, seen = [], set()
    for general, what, rule, words in candidates:
        codes, names = pd.factorize(np.array(words, object))
        sizes = np.bincount(codes[codes >= 0])
        classes = labels.groupby(codes).nunique().drop(-1, errors="ignore")
        is_class = (classes <= 1).all() and len(names) <= labels.nunique() + 1
        is_part = set(map(str, names)) <= {"train", "val", "valid", "validation", "test", "unlabelled"}
        if len(names) < 2 or sizes.max() == 1 or is_class or is_part or codes.tobytes() in seen:
            continue
        seen.add(codes.tobytes())
        fits = float((codes >= 0).mean())
        reason = f"{what}: {len(names):,} groups of {sizes.min():,} to {sizes.max():,} images, as {str(names[0])!r}"
        reason += f", {int((classes > 1).sum()):,} of them with several classes"
        reason += "" if fits == 1 else f"; it misses {int((codes < 0).sum()):,} images, and a card's rule must fit all"
        rank = (general or fits < 0.5, fits < 1, sizes.max() > len(paths) / 2, len(names) < 10, len(names))
        rules.append((rank, GroupRule(rule, len(names), fits, reason + ".")))
    return [rule for _, rule in sorted(rules, key=lambda pair: pair[0])]


# --- precision --------------------------------------------------------------------------------------------------------

def precision_of_sensitivity(n_positive, n_groups, scheme="grouped_cv", test_fraction=0.2, icc=ICC,
                             sensitivity=SENSITIVITY):
    """Half-width of a 95 % interval for sensitivity, in [0, 1].

    Wilson's interval at the whole number of hits that `sensitivity` promises, h = floor(sensitivity · n), with
    n / (1 + (m − 1) · icc) in place of n: m positives in the mean group (Kish's design effect). "grouped_cv" scores
    every positive once, n = n_positive; "holdout" scores n = round(test_fraction · n_positive), at least 1. What the
    models of the folds differ by is not in it. 0.8 and 0.1 are assumptions: 15 positives of 11 groups give ±0.19 and
    ±0.37 (3 test positives); at the worst sensitivity, 0.5, ±0.23 and the same ±0.37.
    """
    if scheme not in ("grouped_cv", "holdout"):
        raise ValueError(f"scheme {scheme!r}: choose grouped_cv or holdout")
    if not 1 <= n_groups <= n_positive:
        raise ValueError(f"{n_positive} positives on {n_groups} groups: there must be at least one of each per group")
    n = n_positive if scheme == "grouped_cv" else max(1, round(test_fraction * n_positive))
    share = floor(sensitivity * n + 1e-9) / n
    n = n / (1 + (n_positive / n_groups - 1) * icc)
    return Z * sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)


def empty_budget_probability(n_positive, n, fraction):
    """Probability that max(1, round(fraction · n)) images, drawn at random of n, hold no positive (hypergeometric)."""
    drawn = max(1, round(fraction * n))
    return float(np.prod(np.clip(1 - drawn / (n - np.arange(n_positive)), 0, 1)))


def usable_budgets(counts, n=None, fractions=BUDGETS, limit=0.5):
    """Budgets worth running, and {fraction: why not} for the others; counts: labelled images per class, n: in all.

    A budget is left out when a random draw of its size misses the rarest class more often than `limit`: its stratified
    draw would hold an image that nobody who labels at random would have.
    """
    rarest, n = int(min(counts)), int(sum(counts)) if n is None else n
    kept, dropped = [], {}
    for fraction in fractions:
        empty = empty_budget_probability(rarest, n, fraction)
        if empty <= limit:
            kept.append(fraction)
        else:
            dropped[fraction] = (f"{100 * fraction:g} % budgets hold no positive in {100 * empty:.0f} % of draws and "
                                 f"are left out ({max(1, round(fraction * n)):,} images; positive: the rarest class).")
    return tuple(kept), dropped


# --- in words ---------------------------------------------------------------------------------------------------------

def statement(data, test_fraction=0.2, fractions=BUDGETS):
    """What the data can show, as plain sentences."""
    known = is_labelled(data.labels)
    n_groups, n_labelled = (len(np.unique(groups)) for groups in (data.groups, data.groups[known]))
    said = [f"{data.name}{' (synthetic)' if data.synthetic else ''}: {len(data):,} images, {known.sum():,} with a label"
            + (f", on {n_groups:,} groups, {n_labelled:,} of them with a label." if data.grouped else
               "; no groups are known, so every image counts as its own patient or slide.")]
    table = class_table(data)
    if absent := table["class"][table.n == 0].tolist():
        said.append(f"No image has the label {', '.join(map(repr, absent))}: nothing can be said of it.")
    table = table[table.n > 0]
    if len(table) < min(2, len(data.classes)):
        return [*said, "With labels of fewer than two classes a representation can be learned, but not evaluated."]
    rarest, largest = table.iloc[0], table.iloc[-1]
    said.append(f"The rarest class, {rarest['class']!r}, has {rarest.n:,} images, the largest, {largest['class']!r}, "
                f"{largest.n:,}: 1:{largest.n / rarest.n:.0f}.")
    rare = table[:min(3, max(1, len(table) - 1))]
    rare = rare[(rare.index == rare.index[0]) | (rare.n < 200)]
    said += [precision_sentence(data, row, test_fraction) for row in rare.itertuples(index=False)]
    said.append(f"(Half-widths of 95 % Wilson intervals at a sensitivity of {100 * SENSITIVITY:.0f} %, if images of "
                f"one group correlate by {ICC:g}.)")
    in_training = ~np.isin(data.part, ("val", "test"))
    counts = holds(data)[in_training].sum(0)
    if counts.any():
        said += usable_budgets(counts[counts > 0], int((known & in_training).sum()), fractions)[1].values()
    if rarest.n < FEW_LABELS:
        said.append(f"With fewer than {FEW_LABELS} images in the rarest class, prefer repeated grouped cross-"
                    f"validation to one test set, and one pretraining on the groups that hold no label; this "
                    f"version makes one test part, so run a study for each of several part_seed values.")
    copies = exact_duplicates(data)
    if len(copies):
        said.append(f"{copies.n.sum() - len(copies):,} images are exact copies of another; of the {len(copies):,} sets "
                    f"{copies.across_parts.sum():,} cross parts, {copies.across_groups.sum():,} cross groups and "
                    f"{copies.across_classes.sum():,} carry different labels.")
    return said


def precision_sentence(data, row, test_fraction):
    """How well the sensitivity for one class can be known; `row` of `class_table`."""
    what = f"{row.n:,} positives ({row[0]!r})" + (f" on {row.n_groups:,} groups" if data.grouped else "")
    if row.n_groups == 1:
        return f"{what}: all in one place, which cannot be in training and in test; sensitivity cannot be measured."
    official = holds(data)[:, data.classes.index(row[0])] & (data.part == "test")
    if (data.part == "test").any():
        n, n_groups = int(official.sum()), len(np.unique(data.groups[official]))
        if not n:
            return f"{what}: none of them in the official test part; sensitivity cannot be measured there."
        width = precision_of_sensitivity(n, n_groups)
        return f"{what}, {n:,} of them in the official test part: sensitivity to about ±{100 * width:.0f} points there."
    whole, part = (precision_of_sensitivity(row.n, row.n_groups, scheme, test_fraction) for scheme in
                   ("grouped_cv", "holdout"))
    few = "" if row.n_groups >= FEW_GROUPS else f" On fewer than {FEW_GROUPS} groups even these are too narrow."
    return (f"{what}: sensitivity to about ±{100 * whole:.0f} points by grouped cross-validation, ±{100 * part:.0f} "
            f"with a {100 * test_fraction:.0f} % test set.{few}")
