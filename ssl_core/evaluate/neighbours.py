"""Votes of nearest neighbours, from arrays: weighted by cosine similarity, or all alike by Euclidean distance."""

import numpy as np

TEMPERATURE = 0.07  # of the weighted votes, Wu et al. (2018)
CHUNK = 1024  # queries at once


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def nearest(queries, bank, k):
    """The k nearest of the bank for each query: positions and similarities, (n, k), nearest first. Rows of length 1."""
    found = []
    for start in range(0, len(queries), CHUNK):
        s = queries[start:start + CHUNK].astype(np.float32) @ bank.T.astype(np.float32)
        near = np.argpartition(-s, min(k, s.shape[1]) - 1)[:, :k]
        near = np.take_along_axis(near, np.argsort(-np.take_along_axis(s, near, 1), kind="stable"), 1)
        found.append((near, np.take_along_axis(s, near, 1)))
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))


def vote(near, similarity, targets, known, prior):
    """Probabilities (n, C) by votes exp(s / 0.07) relative to the nearest one's, and one more spread as `prior` is."""
    votes = np.exp((similarity - similarity[:, :1]).astype(np.float64) / TEMPERATURE)
    return (np.einsum("nk,nkc->nc", votes, targets[near]) + prior) / (np.einsum("nk,nkc->nc", votes, known[near]) + 1)


def share(queries, bank, k, targets, known, prior):
    """Probabilities (n, C): each class's share among the k nearest by Euclidean distance whose label is known."""
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank).kneighbors(queries, return_distance=False)
    have = known[near].sum(1, dtype=np.float64)
    return np.where(have > 0, targets[near].sum(1) / np.maximum(have, 1), prior)


def prior_of(targets, known, task):
    """How the training labels are spread, (C,), with one label more spread evenly."""
    classes = 2 if task == "multilabel" else targets.shape[1]
    return (targets.sum(0, dtype=np.float64) + 1 / classes) / (known.sum(0, dtype=np.float64) + 1)
