"""How much of a score is copies: finished cells scored with and without the test images that training has seen."""

from dataclasses import replace

import numpy as np
import pandas as pd

from ssl_core.analysis.compare import contrast
from ssl_core.analysis.contrasts import predictions, units_behind
from ssl_core.analysis.wording import in_order
from ssl_core.config import RunConfig
from ssl_core.data.audit import copied
from ssl_core.data.pools import pools
from ssl_core.evaluate import weighted
from ssl_core.evaluate.intervals import MIN_GROUPS, resample
from ssl_core.evaluate.metrics import metric_values
from ssl_core.files import outputs, root
from ssl_core.keys import fingerprint
from ssl_core.runs import read_run
from ssl_core.table import read_results

COLUMNS = ["run", "cell", "test images", "with a copy", "score", "without them", "inflation", "low", "high"]


def inflation(test, copies, seed=0, resamples=1000):
    """Predictions and bool (n,), the images with a copy in training → (score of all, of the others, Contrast of them).

    The score is balanced accuracy. One resample of the images, or of whole groups, serves both sides. There is no
    interval where copies come of fewer than eight groups, and nothing (NaN) where all images of a class are copies.
    """
    kind, name = ("all", "all"), "balanced_accuracy"
    key, rest = (*kind, name), ~np.asarray(copies)
    others = replace(test, probabilities=test.probabilities[rest], labels=test.labels[rest], groups=test.groups[rest])
    every = metric_values(test, metric=name)[key]
    if len(np.unique(others.labels, axis=0)) < len(np.unique(test.labels, axis=0)):
        return every, np.nan, contrast([np.nan], [], 0)
    units = min(units_behind(others, (name, *kind)), len(np.unique(test.groups[~rest])))
    values = every, metric_values(others, metric=name)[key]
    draws = [metric_values(test, weighted, w, metric=name)[key] - metric_values(others, weighted, w[rest], metric=name)[
        key] for w in resample(test, seed, resamples)]
    return *values, contrast([values[0] - values[1]], np.concatenate(draws), units * (units >= MIN_GROUPS))


def inflation_table(data, pairs, study):
    """One row for each finished cell of a study on this ImageSet, by its first probe: score with copies and without.

    pairs: of an `Audit` of these data. A copy counts where its like is in what this very run was trained on, with
    labels or without. Runs on other pixels, or with another test part, are passed over; attrs["looked"]
    counts the cells that were looked at.
    """
    rows, looked = [], 0
    probes = in_order(read_results(study).query("stage == 'probe' and protocol != 'none'").protocol)
    for folder in sorted((outputs() / study).glob("runs/*/*/")):
        record = read_run(folder)
        inputs = record.get("parts", {}).get("inputs", {})
        if record.get("status") != "done" or inputs.get("data") != data.fingerprint or "test" not in inputs:
            continue
        own = pools_of(record, data)
        trained = own.labelled
        below = read_run(root() / record["parameters"]["run"]) if record["parameters"]["run"] else {}
        if below.get("parts", {}).get("inputs", {}).get("data") == data.fingerprint:
            trained = pools_of(below, data).unlabelled
        if fingerprint(own.test) != inputs["test"]:
            continue
        copies = np.isin(own.test, with_a_copy(data, pairs, own.test, np.union1d(own.labelled, trained)))
        cells = sorted(folder.glob(f"cells/*{probes[0]}-b*.npz")) if probes else []
        looked += len(cells)
        for path in cells if copies.any() else ():
            every, others, found = inflation(predictions(path), copies)
            rows.append((folder.name, path.stem, len(copies), int(copies.sum()), every, others, found.effect,
                         *found.interval))
    found = pd.DataFrame(rows, columns=COLUMNS)
    found.attrs["looked"] = looked
    return found


def pools_of(record, data):
    """The pools of a run by its record, also of one that lacks what later code asks of it."""
    return pools(data, **RunConfig.model_construct(**record["parameters"]).pool_arguments())


def with_a_copy(data, pairs, test, trained):
    """The positions of test images that have a pair, or their very pixels, among the positions `trained`."""
    ends = pairs[["first", "second"]].to_numpy(np.int64).reshape(-1, 2)
    ends = np.concatenate([ends, ends[:, ::-1]])
    near = ends[np.isin(ends[:, 0], test) & np.isin(ends[:, 1], trained), 0]
    return np.union1d(near, copied(data, test, data, trained)).astype(np.int64)
