"""What the rehearsals' stand-ins hold: `python -m benchmarks.stand_ins` writes outputs/bench/stand_ins.csv.

They are made where they are not there yet. What docs/data.md quotes is kept in outputs/reference/stand_ins.
"""

import numpy as np
import pandas as pd

from ssl_core.data import load
from ssl_core.data.cards import card_names, read_card
from ssl_core.files import atomic_write, outputs


def row(name):
    """Images, those of each part, groups (0: none known), and of the images to train on those of the rarest and of the
    commonest class.
    """
    data = load(name)
    train = data.subset(np.flatnonzero(data.part == "train")) if (data.part == "train").any() else data
    counts = train.counts() if len(data.classes) else [0]
    parts = {part: int((data.part == part).sum()) for part in ("train", "val", "test")}
    return {"name": name, "images": len(data), **parts,
            "groups": len(set(data.groups)) if data.grouped else 0, "rarest": min(counts), "commonest": max(counts)}


def main():
    names = [name for name in card_names() if read_card(name).kind == "rehearsal"]
    text = pd.DataFrame(map(row, names)).to_csv(index=False, lineterminator="\n")
    atomic_write(outputs() / "bench" / "stand_ins.csv", text)
    print(text)


if __name__ == "__main__":
    main()
