"""A probe by the name of its protocol: ours, the floor's, or a published one with its settings."""

from ssl_core.evaluate.floors import prior_probe
from ssl_core.evaluate.probe import knn_probe, linear_probe, uniform_knn_probe
from ssl_core.evaluate.trained import Head, train_head


def fit_probe(protocol, how, features, labels, groups=None, seed=0, task="multiclass", n_classes=None,
              class_weight="none", val=None, device="cpu"):
    """The fitted `Probe` of a protocol; arguments as in `linear_probe`.

    how: settings of a published protocol, fields of `Head`; {} for linear, knn and none, the majority floor.
    class_weight acts on our linear probe alone, val (features, labels) on a protocol that selects on it.
    """
    given = {"task": task, "n_classes": n_classes}
    if protocol in ("none", "knn"):
        return {"none": prior_probe, "knn": knn_probe}[protocol](features, labels, groups, seed, **given)
    head = head_of(protocol, how)
    if head.head == "cv":
        return linear_probe(features, labels, groups, seed, class_weight, **given)
    if head.head == "knn":
        return uniform_knn_probe(features, labels, head.k, **given)
    return train_head(features, labels, head, groups, val, seed, device=device, **given)


def head_of(protocol, how):
    """The `Head` of a protocol's settings; ValueError, one line, for a setting that there is not."""
    try:
        return Head(head="cv") if protocol == "linear" else Head(**how)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{protocol}: {str(error).removeprefix('Head.__init__() ')}") from None


def selection_scores(probe, labels, val=None):
    """(probabilities, labels) that thresholds may be fixed on: of images held out of the fit, else of the part val that
    the protocol selects on; (None, labels) where there are neither. val: (features, labels)."""
    if probe.out_of_fold is None and val is not None:
        return probe.predict_proba(val[0]), val[1]
    return probe.out_of_fold, labels
