"""Scores and labels of one test set as tidy rows of metrics.

Averages over classes take the classes that the test set holds, averages over labels those with both classes there.
A metric that these images cannot show (the recall of an absent class) is NaN, never 0.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from ssl_core.evaluate import point

FREQUENCIES = ("many", "medium", "few")
SPECIFICITIES = (90, 95)  # per cent
AT_THRESHOLD = ("sensitivity_at", "specificity_reached")
WEIGHTED = ("precision_weighted", "recall_weighted", "f1_weighted")  # means by a class's share of the test images
OF_POSITIVES = ("precision", "recall", "specificity")  # of the positive class of two, at its score above 0.5


@dataclass(frozen=True)
class Predictions:
    """Probabilities and labels of n test images, and what else a metric may ask.

    probabilities: (n, C), rows sum to 1; multilabel (n, L), one probability per label
    labels: (n,) in 0..C-1; multilabel (n, L) in {0, 1, -1}, -1 where the label is not known
    task: "multiclass", "binary" (class 1 is the positive one) or "multilabel"
    groups: (n,) patient or slide of each image; None: every image its own
    frequency: "many", "medium" or "few" per class, by its number in training; None: no such rows
    thresholds: {class or label: {90: t, 95: t}} from `fix_thresholds` on selection data, never on these images
    ordered: the classes are grades, so that quadratic kappa means something
    """

    probabilities: np.ndarray
    labels: np.ndarray
    classes: tuple
    task: str = "multiclass"
    groups: np.ndarray | None = None
    frequency: tuple | None = None
    thresholds: dict = field(default_factory=dict)
    ordered: bool = False

    def __post_init__(self):
        p, y, n_classes = np.asarray(self.probabilities, np.float64), np.asarray(self.labels), len(self.classes)
        if self.task not in ("multiclass", "binary", "multilabel"):
            raise ValueError(f"task is {self.task!r}; use multiclass, binary or multilabel")
        if self.task == "binary" and n_classes != 2:
            raise ValueError(f"task is binary, but there are {n_classes} classes; name two, the positive one last")
        if p.shape != (len(y), n_classes) or (y.shape != p.shape if self.task == "multilabel" else y.ndim != 1):
            raise ValueError(f"probabilities are {p.shape}, labels {y.shape}, for {n_classes} classes; "
                             "give one row for each image and one column for each class")
        if len(y) == 0:
            raise ValueError("the test set is empty; give at least one image")
        if not np.isfinite(p).all() or p.min() < 0 or p.max() > 1.001:
            raise ValueError("probabilities are not all in [0, 1]; give the softmax or sigmoid, and look for NaN")
        if self.task == "multilabel" and not np.isin(y, (-1, 0, 1)).all():
            raise ValueError("labels hold other values than 0, 1 and -1; use -1 where a label is not known")
        if self.task != "multilabel" and (y.min() < 0 or y.max() >= n_classes):
            raise ValueError(f"labels run from {y.min()} to {y.max()}, classes from 0 to {n_classes - 1}; "
                             "leave images without a label out of the test set")
        if self.task != "multilabel":
            off = np.abs(p.sum(1) - 1).max()
            if off > 1e-3:
                raise ValueError("rows of probabilities do not sum to 1; give the softmax, not logits")
            p = p / p.sum(1, keepdims=True) if off > 1e-9 else p  # again and again, it would break ties
        p = np.clip(p, 0, 1)
        groups = np.arange(len(y)) if self.groups is None else np.unique(self.groups, return_inverse=True)[1]
        if len(groups) != len(y):
            raise ValueError(f"there are {len(groups)} groups for {len(y)} images; give one for each image")
        if self.frequency is not None and len(self.frequency) != n_classes:
            raise ValueError(f"there are {len(self.frequency)} frequency groups for {n_classes} classes; give one each")
        for name, value in (("probabilities", p), ("labels", y), ("groups", groups)):
            object.__setattr__(self, name, value)

    @property
    def clustered(self):
        """Whether some images share a group."""
        return int(self.groups.max()) + 1 < len(self.groups)


def threshold_at_specificity(scores, y, target):
    """The lowest t such that `score >= t` leaves a share `target` of the negatives below it; NaN without both classes.

    scores: (n,); y: (n,) 0 or 1. t lies half way to the next higher score, so that rounding cannot flip an image.
    """
    scores, y = np.asarray(scores, np.float64), np.asarray(y)
    negatives = np.sort(scores[y == 0])[::-1]
    if len(negatives) in (0, len(y)):
        return float("nan")
    allowed = min(int((1 - target) * len(negatives) + 1e-9), len(negatives) - 1)
    below = negatives[allowed]
    above = scores[scores > below].min(initial=np.inf)
    middle = (below + above) / 2
    return float(middle if below < middle < np.inf else min(above, np.nextafter(below, np.inf)))


def fix_thresholds(probabilities, labels, classes, task):
    """{class or label: {90: t, 95: t}} from selection data, such as out-of-fold scores; {} for multiclass or None.

    Rows without a score or label are left out, and so are labels without both classes.
    """
    if task == "multiclass" or probabilities is None:
        return {}
    p, y = np.asarray(probabilities), np.asarray(labels)
    columns = [(classes[1], p[:, 1], y)] if task == "binary" else zip(classes, p.T, y.T, strict=True)
    fixed = {}
    for name, score, label in columns:
        known = np.isfinite(score) & (label >= 0)
        if 0 < label[known].sum() < known.sum():
            fixed[name] = {s: threshold_at_specificity(score[known], label[known], s / 100) for s in SPECIFICITIES}
    return fixed


def by_group(test):
    """Predictions with one row for each group, its images' scores averaged.

    None where every image is its own group, or where a group holds images of several labels. Thresholds are dropped:
    those of single images do not hold for averages.
    """
    _, first, size = np.unique(test.groups, return_index=True, return_counts=True)
    if not test.clustered or not np.array_equal(test.labels, test.labels[first][test.groups]):
        return None
    total = np.zeros((len(first), len(test.classes)))
    np.add.at(total, test.groups, test.probabilities)
    return replace(test, probabilities=total / size[:, None], labels=test.labels[first], groups=None,
                   thresholds={})


def metric_values(test, kit=point, weights=None, metric=None):
    """{(group_kind, group, metric): value}, with group_kind "all", "class", "frequency" or "label".

    kit: `point`; or `weighted` with weights (n, R), which gives R values for each key. metric: compute no more families
    than this one needs.
    """
    if test.task == "multilabel":
        return _label_values(test, kit, weights, metric)
    p, y, family, overall, per_class = test.probabilities, test.labels, _family(metric), {}, {}
    if family in (None, "decisions"):
        overall, per_class = kit.decisions(y, p.argmax(1), len(test.classes), test.ordered, weights)
        overall |= {"balanced_accuracy": mean_of(per_class["recall"]), "f1_macro": mean_of(per_class["f1"])}
        precision = per_class.pop("precision")  # no rows: it follows from recall and F1
        if test.task == "binary":
            overall |= {"precision": precision[1], "recall": per_class["recall"][1],
                        "specificity": per_class["recall"][0], "f1": per_class["f1"][1]}
        elif len(test.classes) > point.TOP:
            overall |= kit.top_k(p, y, weights)
    if family in (None, "ranking") and test.task == "binary":
        overall |= kit.ranking(y == 1, p[:, 1], weights)
    elif family in (None, "ranking"):
        ranked = [kit.ranking(y == c, p[:, c], weights) for c in range(len(test.classes))]
        per_class |= {name: [one[name] for one in ranked] for name in point.RANKING}
        overall |= {name: mean_of([v[name] for c, v in enumerate(ranked) if (y == c).any()]) for name in point.RANKING}
    if family in (None, "at_thresholds") and test.task == "binary":
        overall |= kit.at_thresholds(y == 1, p[:, 1], test.thresholds.get(test.classes[1], {}), weights)
    if family in (None, "calibration"):
        overall |= kit.calibration(p, y, weights)
    values = {("all", "all", name): value for name, value in overall.items()}
    for group in _frequencies(test) if "recall" in per_class else ():
        members = np.array(test.frequency) == group
        values["frequency", group, "recall"] = mean_of(per_class["recall"][members])
    values |= {("class", c, name): v for name, column in per_class.items()
               for c, v in zip(test.classes, column, strict=True)}
    return values


def label_view(test, label):
    """One label of a multilabel test set as a binary task, on the images where it is known."""
    column = test.classes.index(label)
    known = test.labels[:, column] >= 0
    p = test.probabilities[known, column]
    return replace(test, probabilities=np.stack([1 - p, p], 1), labels=test.labels[known, column], task="binary",
                   classes=("", label), groups=test.groups[known], frequency=None, ordered=False)


def metric_rows(test, part="test"):
    """Tidy rows, as dicts, of point values; `intervals.with_intervals` fills low, high and interval."""
    rows = []
    for (kind, group, metric), value in metric_values(test).items():
        over, positive = support(test, kind, group, metric)
        at = {}
        if metric.startswith(AT_THRESHOLD) and (test.task == "binary" or kind == "label"):
            at = test.thresholds[group if kind == "label" else test.classes[1]]
        rows.append({"part": part, "group_kind": kind, "group": group, "metric": metric,
                     "threshold": at[int(metric[-2:])] if at else None, "value": float(value),
                     "low": None, "high": None, "interval": "", "n": int(over.sum()),
                     "n_groups": len(np.unique(test.groups[over])),
                     "n_positive": None if positive is None else int(positive.sum())})
    return rows


def support(test, kind, group, metric):
    """The images that a value is computed over, and those of its class: two masks (n,), the second None for a mean."""
    y = test.labels
    if kind == "label":
        known = y[:, test.classes.index(group)]
        return known >= 0, known == 1
    if test.task == "multilabel":
        return (y >= 0).any(1), None
    if kind == "class":
        positive = y == test.classes.index(group)
        return (positive if metric == "recall" else np.ones(len(y), bool)), positive
    if kind == "frequency":
        return (np.array(test.frequency) == group)[y], None
    if test.task == "binary":
        over = {"recall": y == 1, "specificity": y == 0, "precision": test.probabilities.argmax(1) == 1}
        return over.get(metric, np.ones(len(y), bool)), y == 1
    return np.ones(len(y), bool), None


def mean_of(values):
    """Mean over the first axis of what is not NaN, and NaN where nothing is: (K,) or (K, R)."""
    values = np.asarray(values, np.float64)
    known = ~np.isnan(values)
    return np.where(known.any(0), np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)[()]


def _label_values(test, kit, weights, metric):
    """Every label as a binary task on the images where it is known, then means over labels with both classes."""
    found, both, left_out = {}, [], ("f1_macro", *WEIGHTED, *OF_POSITIVES)
    for column, label in enumerate(test.classes):
        known = test.labels[:, column] >= 0
        if not known.any():
            continue
        one = label_view(test, label)
        values = metric_values(one, kit, None if weights is None else weights[known], metric)
        found[label] = {name: v for (kind, _, name), v in values.items() if kind == "all" and name not in left_out}
        both += [label] if len(np.unique(one.labels)) == 2 else []
    values = {("label", label, name): v for label, one in found.items() for name, v in one.items()}
    for name in dict.fromkeys(name for _, _, name in values):
        of = {label: found[label][name] for label in both if name in found[label]}
        if of:
            values["all", "all", "f1_macro" if name == "f1" else name] = mean_of(list(of.values()))
        for group in _frequencies(test) if name in ("roc_auc", "average_precision") else ():
            members = [v for label, v in of.items() if test.frequency[test.classes.index(label)] == group]
            if members:
                values["frequency", group, name] = mean_of(members)
    return values


def _frequencies(test):
    return [name for name in FREQUENCIES if name in (test.frequency or ())]


def _family(metric):
    if metric is None or metric.startswith(AT_THRESHOLD):
        return metric and "at_thresholds"
    return "ranking" if metric in point.RANKING else "calibration" if metric in point.CALIBRATION else "decisions"
