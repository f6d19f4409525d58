"""Stratified choices among items that carry several labels, or several images: budgets of labels, test groups."""

import numpy as np


def stream(*key):
    """A random generator, a pure function of a key of non-negative integers; zeros at a key's end do not count."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def stratified_prefix(holds, sizes, n, seed):
    """Items whose sizes add up to at least n; holds: bool (items, L), the labels an item carries.

    A seeded tree of halves, each by iterative stratification (Sechidis et al. 2011), read from left to right: every
    prefix is stratified, and a smaller one lies inside a larger one.
    """
    from iterstrat.ml_stratifiers import IterativeStratification

    rest, taken, node = np.arange(len(sizes)), [], 1
    while n < sizes[rest].sum() and len(rest) > 1:
        rng = stream(seed, 0, 4, node)
        rest = rng.permutation(rest)
        left = IterativeStratification(holds[rest], np.array([0.5, 0.5]), rng) == 0
        if left.all() or not left.any():
            left = np.arange(len(rest)) < len(rest) // 2
        if n > sizes[rest[left]].sum():
            taken.append(rest[left])
            n -= sizes[rest[left]].sum()
            rest, node = rest[~left], 2 * node + 1
        else:
            rest, node = rest[left], 2 * node
    return np.concatenate([*taken, rest])


def share_of_groups(counts, fraction, seed, tries=16):
    """Bool (groups,): whole groups that hold close to `fraction` of every class; counts: images (groups, C).

    Greedy over groups in random order, the best of some tries: a group joins when that brings the shares nearer. A
    class missing on the left-out side costs more than a class missing among the chosen, and that more than any
    uneven share, so a class that lives in one group stays out of the choice.
    """
    counts = counts[:, counts.sum(0) > 0]
    shares = np.column_stack([counts, counts.sum(1)]) / np.append(counts.sum(0), counts.sum())

    def cost(have):
        return ((have - fraction) ** 2).sum() + (have < 1e-9).sum() + 2 * (have > 1 - 1e-9).sum()

    best = np.zeros(len(counts), bool)
    least = cost(shares[best].sum(0))
    rng = stream(seed, 0, 5)
    for _ in range(tries):
        chosen, have = np.zeros(len(counts), bool), np.zeros(shares.shape[1])
        for group in rng.permutation(len(counts)):
            if cost(have + shares[group]) < cost(have):
                chosen[group], have = True, have + shares[group]
        if cost(have) < least:
            best, least = chosen, cost(have)
    return best
