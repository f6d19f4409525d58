"""Selection: which state of a training is kept, by log-loss on images that it is not trained on."""

import numpy as np

from ssl_core.data.splits import class_permutation
from ssl_core.data.stratify import share_of_groups, stratified_prefix

HELD_OUT = 0.2  # of the labels, where the data set has no validation part


def selection_parts(cfg, data, budget, val):
    """(positions to train on, positions that choose), in an ImageSet, sorted; none choose with cfg.select "last".

    budget, val: positions. Those that choose are `val`; where that is empty, an inner fifth of the budget, drawn by
    cfg.label_seed. Labels that choose are labels used, so a protocol that selects on a validation part has seen more of
    them than its budget.
    """
    if cfg.select == "last" or len(val):
        return budget, val[:0] if cfg.select == "last" else val
    groups = data.groups[budget] if data.grouped else None
    fit, judge, _ = inner_val(data.labels[budget], groups, cfg.label_seed, data.task)
    return budget[fit], budget[judge]


def threshold_part(judge, val):
    """(positions that thresholds are fixed on, by which rule, in words): the validation part, or where that is empty
    the images that chose the state, which are not trained on either."""
    rule, where = "highest sensitivity at 90 and 95 % specificity on ", "the fifth of the budget that chose the state"
    if len(val):
        return val, f"{rule}the validation part"
    return judge, f"{rule}{where}" if len(judge) else "none: no selection data"


def inner_val(labels, groups, seed, task):
    """(positions to train on, positions held out, what a reader has to know): a fifth of every class, whole groups
    together; nothing is held out where a class, or every class at once, has too little."""
    n = len(labels)
    holds = labels == 1 if task == "multilabel" else labels[:, None] == np.unique(labels)
    if groups is not None:
        names, of = np.unique(groups, return_inverse=True)
        counts = np.zeros((len(names), holds.shape[1]))
        np.add.at(counts, of, holds)
        held = share_of_groups(counts, HELD_OUT, seed)[of]
    elif task == "multilabel":
        held = np.isin(np.arange(n), stratified_prefix(holds, np.ones(n, int), round(HELD_OUT * n), seed))
    else:
        members = [class_permutation(labels, c, seed) for c in np.unique(labels)]
        held = np.isin(np.arange(n), np.concatenate([at[:max(1, round(HELD_OUT * len(at)))] for at in members]))
    few = task != "multilabel" and (holds.sum(0) < 2).any()
    if few or not held.any() or held.all() or (task != "multilabel" and not holds[~held].any(0).all()):
        why = "a class has fewer than 2 images" if few else "too few images or groups"
        return np.arange(n), np.zeros(0, int), f"nothing is held out, {why}: the last epoch is kept"
    return np.flatnonzero(~held), np.flatnonzero(held), f"selected on {held.sum()} of the {n} labelled images"


def log_loss(probabilities, labels):
    """Mean of −log p of the true class; multilabel, labels (n, L): of the true answer, over those that are known."""
    if labels.ndim == 2:
        p = np.where(labels == 1, probabilities, 1 - probabilities)[labels >= 0]
    else:
        p = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(p.clip(1e-12)).mean())


def keep_best(at, model):
    """Copy the state into at["best"] when the last row of the history is the first with the least val_loss."""
    losses = [row["val_loss"] for row in at["history"]]
    if losses[-1] < min(losses[:-1], default=np.inf):
        at["best"] = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def chosen(history, judge, val):
    """What `selection_parts` and a training's history say of the state that was kept, as a dict."""
    if "val_loss" not in history:
        return {"select": "last step", "step": int(history["step"].iloc[-1])}
    best = history.loc[history["val_loss"].idxmin()]
    return {"select": "least log-loss", "of": "the validation part" if len(val) else "a fifth of the budget",
            "images": len(judge), "step": int(best["step"]), "val_log_loss": float(best["val_loss"])}
