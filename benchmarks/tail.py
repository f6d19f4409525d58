"""How well `tail` follows the truth: long tails of known ratio cut from labelled features.

`python -m benchmarks.tail NAME=FEATURES.npz … [--to FOLDER] [--draws N]`, with arrays h and labels in each, writes
`tail.csv`, one row per features, ratio and draw, and `tail_summary.csv`, how often the interval holds the truth, into
FOLDER (outputs/scratch if left); those in outputs/reference/statistics are of ten draws. None of the draws was used to
choose anything in `tail`.
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest, spearmanr
from sklearn.decomposition import PCA

from ssl_core.analysis.tail import DIMENSIONS, LABELS, tail
from ssl_core.data.splits import class_order, long_tail_split
from ssl_core.files import outputs

RATIOS, TOTAL, DRAW = (1, 3, 10, 30, 100), 800, 20  # the first draw; 10, 100 and 101 served to choose the prior


def read(path):
    """Features, at most DIMENSIONS of them, and labels."""
    with np.load(path, allow_pickle=False) as file:
        h, labels = file["h"], file["labels"]
    return PCA(DIMENSIONS, random_state=0).fit_transform(h) if h.shape[1] > DIMENSIONS else h, labels


def measured(h, labels, ratio, draw):
    """The estimate with its interval for one pool of this ratio, by LABELS of each class beside it."""
    order = class_order(labels.max() + 1, draw)
    split = long_tail_split(labels, ratio, draw, None, order, TOTAL)
    rest, rng = np.setdiff1d(np.arange(len(labels)), split.indices), np.random.default_rng(draw)
    some = np.concatenate([rng.choice(rest[labels[rest] == c], LABELS, replace=False) for c in range(len(order))])
    found = tail(h[np.concatenate([some, split.indices])], np.concatenate([labels[some], np.full(TOTAL, -1)]), draw)
    said = found.pop("sentence").split(" as ")[0].split(" how ")[0].lower()  # as uneven, at least, cannot tell
    return {"ratio": ratio, "draw": draw, "said": said, "estimate": found.pop("ratio"), **found}


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tail", description=__doc__.splitlines()[0])
    parser.add_argument("features", nargs="+", metavar="NAME=FEATURES.npz", help='as "fashion, pixels=FILE.npz"')
    parser.add_argument("--to", type=Path, default=outputs() / "scratch", metavar="FOLDER", help="where tables go")
    parser.add_argument("--draws", type=int, default=10, metavar="N", help="pools of each ratio")
    given = parser.parse_args(argv)
    if wrong := [one for one in given.features if not Path(one.partition("=")[2]).is_file()]:
        parser.error(f"{wrong[0]}: give NAME=FEATURES.npz")
    sets = {name: read(path) for name, _, path in (one.partition("=") for one in given.features)}
    folder, rows = given.to, []
    folder.mkdir(parents=True, exist_ok=True)
    for draw in range(DRAW, DRAW + given.draws):
        rows += [{"features": name, **measured(*sets[name], ratio, draw)} for name, ratio in product(sets, RATIOS)]
        pd.DataFrame(rows).to_csv(folder / "tail.csv", index=False, lineterminator="\n", float_format="%.4g")
    table = summary(pd.read_csv(folder / "tail.csv"))
    table.to_csv(folder / "tail_summary.csv", index=False, lineterminator="\n")
    print(table.to_string())


def summary(frame):
    """The table of docs/audit.md: a row for each kind of features."""
    rows = []
    for name, found in frame.groupby("features", sort=False):
        held = (found.low <= found.ratio) & (found.ratio <= found.high)
        sure = binomtest(int(held.sum()), len(held)).proportion_ci()
        off = np.exp(np.abs(np.log(found.estimate / found.ratio)).median())
        data, _, what = name.partition(", ")
        rows.append({"features": f"`{data}`, {what}", "pools": len(found), "Spearman with the true ratio":
                     f"{spearmanr(found.ratio, found.estimate)[0]:.2f}".replace("-", "−"),
                     "interval holds the truth": f"{100 * held.mean():.0f} % ({100 * sure.low:.0f} to "
                     f"{100 * sure.high:.0f})", "tells a ratio": f"{100 * (found.said == 'as uneven').mean():.0f} %",
                     "a bound": f"{100 * (found.said == 'at least').mean():.0f} %",
                     "median width, factor": f"{(found.high / found.low).median():.1f}",
                     "median factor off": f"{off:.2f}"})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
