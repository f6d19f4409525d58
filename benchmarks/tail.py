"""How well `tail` follows the truth: long tails of known ratio cut from labelled features, in rank correlations.

`python -m benchmarks.tail NAME=FEATURES.npz …` (h and labels in each) writes `tail.csv` into
outputs/reference/statistics: one row per features, way, ratio and draw.
"""

import sys
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from ssl_core.analysis.tail import tail
from ssl_core.data.splits import class_order, long_tail_split
from ssl_core.files import root

RATIOS, DRAWS, TOTAL, SHOTS = (1, 3, 10, 30, 100), 4, 800, 20


def measured(name, h, labels):
    """Rows of one kind of features: the estimate with its interval at each ratio and draw, with and without labels."""
    for draw, ratio in product(range(DRAWS), RATIOS):
        n_classes = labels.max() + 1
        split = long_tail_split(labels, ratio, draw, None, class_order(n_classes, draw), TOTAL)
        rest = np.setdiff1d(np.arange(len(labels)), split.indices)
        rng = np.random.default_rng(draw)
        some = np.concatenate([rng.choice(rest[labels[rest] == c], SHOTS, replace=False) for c in range(n_classes)])
        given = np.concatenate([labels[some], np.full(TOTAL, -1)])
        both = np.concatenate([some, split.indices])
        for way, found in (("clusters", tail(h[split.indices])), (f"{SHOTS} labels per class", tail(h[both], given))):
            said = not found.pop("sentence").startswith("Cannot")
            yield {"features": name, "way": way, "ratio": ratio, "draw": draw, "told": said,
                   **{f"estimate_{key}" if key == "ratio" else key: value for key, value in found.items()}}


def main():
    frames = []
    for given in sys.argv[1:]:
        name, _, path = given.partition("=")
        with np.load(path, allow_pickle=False) as file:
            frames.append(pd.DataFrame(measured(name, file["h"], file["labels"])))
        for way, rows in frames[-1].groupby("way"):
            covered = ((rows.low <= rows.ratio) & (rows.ratio <= rows.high)).mean()
            print(f"{name}, {way}: Spearman {spearmanr(rows.ratio, rows.estimate_ratio)[0]:.2f}; "
                  f"told {rows.told.mean():.0%}; covers {covered:.0%}; "
                  f"agreement {rows.agreement.median():.2f}", flush=True)
        folder = root() / "outputs" / "reference" / "statistics"
        pd.concat(frames).to_csv(folder / "tail.csv", index=False, lineterminator="\n", float_format="%.4g")


if __name__ == "__main__":
    main()
