"""From the words that a layout lists to the numbers that an ImageSet holds, checked against the card."""

import numpy as np

from ssl_core.data.images import PARTS


def encode_labels(labels, card):
    """Words → (int64 (N,), or (N, L) for multilabel, -1 = no label; the classes)."""
    if isinstance(labels, np.ndarray):
        if card.task != "multilabel":
            raise ValueError(f"label: {labels.shape[1]} labels per image need `task: multilabel`")
        columns = card.label if isinstance(card.label, list) else [str(i) for i in range(labels.shape[1])]
        names = card.classes or columns
        if len(names) != labels.shape[1]:
            raise ValueError(f"classes: {len(names)} names for {labels.shape[1]} labels")
        return labels, tuple(names)
    rename = card.rename
    if not rename and card.kind in ("npz", "idx", "cifar"):  # they hold numbers: the card's classes are their names
        rename = {str(i): name for i, name in enumerate(card.classes)}
    several = card.task == "multilabel"
    found = [[rename.get(word, word) for word in (text.split("|") if several else [text]) if word] for text in labels]
    there = {name for row in found for name in row}
    words = there - {None}
    names = card.classes or sorted(words, key=int if all(map(str.isdecimal, words)) else None)
    position = {name: i for i, name in enumerate(names)}
    odd = there - set(names) - ({None} if several else set())
    if odd:
        raise ValueError(
            f"classes: label {min(odd, key=str)!r} is none of {', '.join(names)}; add it, or map it under `rename:`"
        )
    if card.task == "binary" and len(names) != 2:
        raise ValueError(f"task: binary needs 2 classes, found {', '.join(names)}; join some under `rename:`")
    if not several:
        return np.array([position[row[0]] if row else -1 for row in found], np.int64), tuple(names)
    matrix = np.zeros((len(found), len(names)), np.int64)
    for i, row in enumerate(found):
        matrix[i] = 0 if row else -1
        matrix[i, [position[name] for name in row if name is not None]] = 1
    return matrix, tuple(names)


def encode_groups(listing):
    """Words → (sorted names, int64 (N,)); ((), None) where nothing is known."""
    if listing.groups is None:
        return (), None
    nameless = [path for path, group in zip(listing.paths, listing.groups) if not group]
    if nameless:
        raise ValueError(
            f"group: {len(nameless)} images have none, the first is {nameless[0]}; "
            f"without it the same patient could be trained and tested on"
        )
    names, groups = np.unique(np.array(listing.groups, str), return_inverse=True)
    return tuple(names.tolist()), groups.astype(np.int64)


def encode_parts(listing, card):
    """Words → str (N,): train, val, test or "" (no official split)."""
    part = np.array([card.parts.get(word, word) for word in listing.parts], str)
    odd = sorted(set(part.tolist()) - set(PARTS))
    if odd:
        raise ValueError(
            f"split: {odd[0]!r} is none of train, val, test and empty; "
            f"say which under `parts:`, as in `parts: {{{odd[0]}: train}}`"
        )
    return part


def count(labels, classes):
    """Images per class, a list; multilabel: positives per label."""
    if labels.ndim == 2:
        return (labels == 1).sum(0).tolist()
    return np.bincount(labels[labels >= 0], minlength=len(classes)).tolist()


def check_counts(card, labels, classes, group_names, part, folder):
    """Compare with the card's `expected`, before anything is decoded."""
    found = {
        "images": len(labels),
        "groups": len(group_names),
        "parts": {name: int((part == name).sum()) for name in PARTS if name},
        "classes": dict(zip(classes, count(labels, classes))),
    }
    for key, wanted in card.expected:
        there = found[key]
        if isinstance(wanted, dict):
            wanted = {name: n for name, n in wanted.items() if n != there.get(name, 0)}
            there = {name: there.get(name, 0) for name in wanted}
        if wanted is not None and there != wanted:
            raise ValueError(
                f"expected: {key} should be {wanted}, found {there} in {folder}; is something missing there?"
            )
