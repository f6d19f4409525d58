"""What the pretrainings of a study would cost on this machine: `python -m benchmarks.studies [STUDY …]`.

Steps of every arm's own network and recipe are timed on images of noise, a few at a time, and multiplied by the images
that its schedule sees. Calculated, not run: evaluation, data and interruptions come on top. Prints a
table and writes outputs/bench/studies.csv. A few images at a time make less of the machine than full batches do.
"""

import sys

import numpy as np
import pandas as pd

from benchmarks.__main__ import machine
from ssl_core.config import PretrainConfig
from ssl_core.files import atomic_write, outputs, root
from ssl_core.measure import measure
from ssl_core.nb import parameters_of
from ssl_core.presets import ARGUMENTS, values_of
from ssl_core.study import load_study

STUDIES = ("a_cytology", "b_breast", "c_longtail", "d_intermediate", "e_small", "public_cytology", "public_medmnist")
# Images that one pretraining sees in an epoch, where neither splits nor steps say it; sources: the cards' counts, of
# sets without official parts the four fifths that are not for testing, and of paip what its authors say.
IMAGES = {"paip": 150_000, "cifar10": 12_406, "cifar100": 10_847, "cifar10_lt": 11_165,
          "cifar100_lt": 9_754, "inat18": 437_513, "chestxray14": 78_468, "bhi_lists": 174_144,
          "eyepacs": 57_146, "breakhis": 1_354, "kather2016": 4_000, "pneumonia": 5_232}
BATCH, STEPS = 4, 2  # images at a time, and steps that are timed


def config(arm, size, threads):
    """The arm's parameters as the plan has them, but for the batch."""
    cell = parameters_of(root() / "notebooks" / "10_pretrain.ipynb")
    values = values_of(arm)
    for what, arguments in ARGUMENTS.items():
        if values.get(what, cell[what]) != cell[what]:
            values = {arguments: {}} | values
    if "epochs" in values or "steps" in values:
        values = {"epochs": 0, "steps": 0} | values
    init = {"init": "random"} if values.get("init", "random") != "random" else {}  # costs the same
    return PretrainConfig(**cell | values | init | {"image_size": size, "threads": threads, "arm": arm.name})


def rows(name, threads, rates):
    study = load_study(root() / "params" / "studies" / f"{name}.yaml")
    for data in study.data:
        splits = list(study.splits_of(data).each())
        for arm in study.arms_of(data):
            cfg = config(arm, data.image_size, threads)
            alike = str(cfg.model_copy(update={"arm": "", "epochs": 0, "steps": 0, "batch": BATCH}))
            if alike not in rates:
                shape = (4 * BATCH, 3, data.image_size, data.image_size)
                images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
                rates[alike] = measure(cfg.model_copy(update={"batch": BATCH}), images, STEPS)["images_per_s"]
            rate = rates[alike]
            runs = [s for s in splits if not arm.ratios or s["ratio"] in arm.ratios] * len(study.seeds)
            seen = [cfg.steps * cfg.batch or cfg.epochs * (s.get("total") or IMAGES[data.dataset]) for s in runs]
            yield {"study": name, "dataset": data.dataset, "arm": arm.name, "encoder": cfg.encoder,
                   "image_size": data.image_size, "images_per_s": round(rate, 2), "pretrainings": len(runs),
                   "images_seen": sum(seen), "hours": round(sum(seen) / rate / 3600, 1)}


def main():
    table, rates = [], {}
    for name in sys.argv[1:] or STUDIES:
        for row in rows(name, 2, rates):
            table.append(row)
            print(*row.values(), flush=True)
    frame = pd.DataFrame(table)
    atomic_write(outputs() / "bench" / "studies.csv", frame.to_csv(index=False, lineterminator="\n"))
    print(frame.groupby("study", sort=False)[["pretrainings", "hours"]].sum(), machine(), sep="\n")


if __name__ == "__main__":
    main()
