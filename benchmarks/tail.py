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
        folder = root() / "outputs" / "reference" / "statistics"
        pd.concat(frames).to_csv(folder / "tail.csv", index=False, lineterminator="\n", float_format="%.4g")
    table = summary(pd.read_csv(folder / "tail.csv"))
    table.to_csv(folder / "tail_summary.csv", index=False, lineterminator="\n")
    print(table.to_string())


def summary(frame):
    """The table of docs/audit.md: a row for each way and kind of features."""
    rows = []
    for (way, name), found in frame.groupby(["way", "features"], sort=False):
        covered = ((found.low <= found.ratio) & (found.ratio <= found.high)).mean()
        off = np.exp(np.abs(np.log(found.estimate_ratio / found.ratio)).median())
        data, _, what = name.partition(", ")
        rows.append({"features": f"`{data}`, {what}", "way": way, "Spearman with the true ratio":
                     f"{spearmanr(found.ratio, found.estimate_ratio)[0]:.2f}".replace("-", "−"),
                     "told": f"{found.told.mean():.0%}".replace("%", " %"),
                     "interval holds the truth": f"{covered:.0%}".replace("%", " %"),
                     "median factor off": f"{off:.2f}"})
    return pd.DataFrame(rows).sort_values("way", kind="stable")


if __name__ == "__main__":
    main()
