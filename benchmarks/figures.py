"""Which finished rehearsal has which figure: `python -m benchmarks.figures` writes outputs/bench/figures.csv.

It reads outputs/*_rehearsal/figures, which the studies left; outputs/reference/rehearsals keeps a copy.
"""

import pandas as pd

from ssl_core.analysis.figures import FIGURES
from ssl_core.files import atomic_write, outputs


def name_of(file):
    """The name in FIGURES that a file NAME, NAME_DATASET or NAME-RUN is of; "" of none."""
    found = [name for name in FIGURES if file == name or file.startswith((f"{name}_", f"{name}-"))]
    return max(found, key=len, default="")


def main():
    rows = [(name_of(path.stem), path.parents[1].name, path.stem)
            for path in sorted(outputs().glob("*_rehearsal/figures/*.csv")) if "_column" not in path.stem]
    found = pd.DataFrame([row for row in rows if row[0]], columns=["figure", "study", "file"])
    found = found.groupby(["figure", "study"], as_index=False).agg(files=("file", "size"), first=("file", "first"))
    atomic_write(outputs() / "bench" / "figures.csv", found.to_csv(index=False, lineterminator="\n"))
    print(found.to_string(index=False))
    if none := sorted(set(FIGURES) - set(found.figure)):
        print(f"in no rehearsal: {', '.join(none)}")


if __name__ == "__main__":
    main()
