"""Selection: which state of a training is kept, by log-loss on images that it is not trained on."""

import numpy as np

from ssl_core.data.stratify import share_of_groups

INNER = 0.2  # of the budget, where the data set has no validation part


def selection_parts(cfg, data, budget, val):
    """(positions to train on, positions that choose), in an ImageSet, sorted; none choose with cfg.select "last".

    budget, val: positions. Those that choose are `val`; where that is empty, whole groups that hold close to a fifth of
    every class of the budget, drawn by cfg.label_seed: a class that lives in one group is trained on. Labels that
    choose are labels used, so a protocol that selects on a validation part has seen more of them than its budget.
    """
    if cfg.select == "last" or len(val):
        return budget, val[:0] if cfg.select == "last" else val
    labels, groups = data.labels[budget], np.unique(data.groups[budget], return_inverse=True)[1]
    holds = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(len(data.classes))
    counts = np.zeros((groups.max() + 1, holds.shape[1]))
    np.add.at(counts, groups, holds)
    held = share_of_groups(counts, INNER, cfg.label_seed, tries=min(16, max(1, 20_000 // len(counts))))[groups]
    return budget[~held], budget[held]


def log_loss(probabilities, labels):
    """Mean of −log p of the true class; multilabel, labels (n, L): of the true answer, over those that are known."""
    if labels.ndim == 2:
        p = np.where(labels == 1, probabilities, 1 - probabilities)[labels >= 0]
    else:
        p = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(p.clip(1e-12)).mean())


def keep_best(at, model):
    """Copy the state into at["best"] when the last row of the history is the first with the least val_log_loss."""
    losses = [row["val_log_loss"] for row in at["history"]]
    if losses[-1] < min(losses[:-1], default=np.inf):
        at["best"] = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def chosen(history, judge, val):
    """What `selection_parts` and a training's history say of the state that was kept, as a dict."""
    if "val_log_loss" not in history:
        return {"select": "last step", "step": int(history["step"].iloc[-1])}
    best = history.loc[history["val_log_loss"].idxmin()]
    return {"select": "least log-loss", "of": "the validation part" if len(val) else "a fifth of the budget",
            "images": len(judge), "step": int(best["step"]), "val_log_loss": float(best["val_log_loss"])}
