"""Uneven classes in training with labels: the loss, its weights, its adjustment, and an order that draws them equally.

The adjustment is that of Menon, Jayasumana, Rawat, Jain, Veit, Kumar: Long-tail Learning via Logit Adjustment, ICLR
2021, arXiv 2007.07314.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ssl_core.train import stream


def class_weights(labels, n_classes, task, kind):
    """"balanced": n / (C · n_c) of each class, 0 for one without images; "none": ones. → (C,).

    Multilabel: the same for the two answers of each label, over the images where it is known → (2, L).
    """
    counts = label_counts(labels, n_classes, task)
    if kind == "none":
        return torch.ones_like(counts)
    return torch.where(counts > 0, counts.sum(0) / (len(counts) * counts.clamp_min(1)), 0)


def label_counts(labels, n_classes, task):
    """Images of each class → (C,); multilabel: of the two answers of each label, where it is known → (2, L)."""
    counts = (np.stack([(labels == 0).sum(0), (labels == 1).sum(0)]) if task == "multilabel"
              else np.bincount(labels, minlength=n_classes))
    return torch.from_numpy(counts).float()


def log_prior(labels, n_classes, task, smoothing=0.0):
    """log π of the classes among the training labels → (C,); of multilabel sets the log odds of each label → (L,).

    τ log π on the logits in training, and not in prediction, is the adjusted loss of Menon et al., equation 10:
    l(x, y) = −log exp(f_y + τ log π_y) / Σ_c exp(f_c + τ log π_c). It makes up for the classes' shares (τ 1).
    """
    counts = label_counts(labels, n_classes, task)
    prior = counts / counts.sum(0).clamp_min(1)
    # shares in the smoothed targets, as these are what is learnt: with plain ones, a class far rarer than smoothing / C
    # would win on images of the others
    prior = (1 - smoothing) * prior + smoothing / len(counts)
    log = prior.clamp_min(1e-12).log()  # as in the authors' code, for a class without images
    return log[1] - log[0] if task == "multilabel" else log


def balanced_order(labels, batch, seed, epoch):
    """`train.order` with each class drawn equally often, and each image of a class equally often, both to one; a rare
    class repeats its images, a frequent one shows others the next epoch. labels: (n,) → list of int64 (batch,)."""
    rng = np.random.Generator(np.random.PCG64(stream(seed, 0, epoch)))
    of_class = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    n = len(labels) // batch * batch
    rounds = -(-n // len(of_class))  # in each, one image of every class
    columns = [rng.permuted(np.tile(at, (-(-rounds // len(at)), 1)), axis=1).ravel()[:rounds] for at in of_class]
    return np.split(rng.permuted(np.stack(columns, 1), axis=1).ravel()[:n], n // batch)


def cost(logits, y, weights, smoothing, task):
    """Weighted mean over the batch: cross entropy of y (B,), or binary cross entropies over the known of y (B, L)."""
    if task != "multilabel":
        return F.cross_entropy(logits, y, weights, label_smoothing=smoothing)
    weight = torch.where(y == 1, weights[1], weights[0]) * (y >= 0)
    target = y.clamp_min(0) * (1 - smoothing) + smoothing / 2
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (entropy * weight).sum() / weight.sum().clamp_min(1e-12)


def accuracy(scores, y, task, threshold=0.0):
    """Share of right answers, a tensor that nothing waits for: the class of the largest score (B, C), or each known
    label's score above the threshold or not. Take 0 for logits and 0.5 for probabilities."""
    if task != "multilabel":
        return (scores.argmax(1) == y).float().mean()
    known = y >= 0
    return (((scores > threshold) == (y == 1)) & known).sum() / known.sum().clamp_min(1)
