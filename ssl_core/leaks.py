"""What must not run unseen: held-out images of a study that its own trainings see, by their pixels or their group.

Near duplicates across parts are a warning. Asked of every plan, of the pools as its jobs draw them, pretraining on
another data set included. It costs what comparing hashes costs, which the data's fingerprint has computed already. A
network that comes from a file (`init`) says nothing of its images, and groups of two data sets are not compared: the
same name need not be the same patient.
"""

import hashlib
import json
from itertools import combinations
from pathlib import Path

import numpy as np

from ssl_core.config import ConfigError
from ssl_core.data.audit import audit, copied, counted, parts_of, shared
from ssl_core.files import atomic_json, cache
from ssl_core.keys import code_slice

MOST = 50_000_000  # images times held-out images that are compared before a study; of more, `audit` is asked for


def leaks(jobs, load, draw) -> dict:
    """{(data set tested on, data set trained on): sentences} of a plan's jobs.

    load: (dataset, size) → ImageSet; draw: (dataset, size, items of pool arguments) → Pools.
    """
    def pools_of(job):
        return draw(job.cfg.dataset, job.cfg.image_size, tuple(job.cfg.pool_arguments().items()))

    seen, held = {}, {}
    for job in jobs:
        if job.stage != "pretrain":
            tested, own = (job.cfg.dataset, job.cfg.image_size), pools_of(job)
            held[tested] = {"val": own.val, "test": own.test}
            for one, at in [(job, own.labelled), *((other, pools_of(other).unlabelled) for other in above(job))]:
                name = one.cfg.dataset, one.cfg.image_size
                seen.setdefault((tested, name), np.zeros(len(load(*name)), bool))[at] = True
    found = {}
    for (tested, name), mask in seen.items():
        data, others, at = load(*tested), load(*name), np.flatnonzero(mask)
        sides = {"train": at} | held[tested]
        texts = [text for one, other in combinations(sides, 2) if tested == name
                 for text in shared(data, sides, one, other)]
        for part, positions in held[tested].items():
            if n := len(copied(data, positions, others, at)):
                texts.append(f"{n:,} of {counted(len(positions), f'{part} image')} of {Path(tested[0]).stem} equal, in "
                             f"each pixel, images that it trains on, of {Path(name[0]).stem}.")
        if texts:
            found[tested[0], name[0]] = " ".join(texts)
    return found


def near_duplicates(jobs, load) -> dict:
    """{data set: sentence} on near duplicates across the parts of each data set of a plan: a warning, or that it is too
    large to be searched before every study. Looked for once for each fingerprint and for the code that looks.

    load: (dataset, size) → ImageSet. Parts are the official ones, or those that `pools` draws with part_seed 0.
    """
    found, sets = {}, sorted({(job.cfg.dataset, job.cfg.image_size) for job in jobs})
    code = hashlib.sha256(str(code_slice(["data.audit", "data.copies", "data.pools"])).encode()).hexdigest()[:12]
    for dataset, size in sets:
        data, name = load(dataset, size), Path(dataset).stem
        if [Path(other).stem for other, _ in sets].count(name) > 1:
            name, dataset = f"{dataset}, {size} px", f"{dataset} --size {size}"
        kept = cache() / "audits" / f"{data.fingerprint}-{code}.json"
        if not kept.exists():
            parts = parts_of(data)
            if len(data) * sum(len(parts[part]) for part in ("val", "test")) > MOST:
                found[name] = f"near duplicates among {len(data):,} images were not looked for: " \
                              f"python -m ssl_core audit {dataset}"
                continue
            atomic_json(kept, audit(data, parts).warnings)
        if said := json.loads(kept.read_text(encoding="utf-8")):
            found[name] = f"{' '.join(said)} Look at them: python -m ssl_core audit {dataset}"
    return found


def above(job):
    """The pretrainings that a job rests on, and those that they start from."""
    for need in job.needs:
        yield need
        yield from above(need)


def refuse_leaks(study, found) -> dict:
    """{data set: sentences} that `allow_copies` lets pass; ConfigError, one line, for others."""
    allowed = {}
    for names, text in found.items():
        if not any(data.allow_copies for data in study.data if {data.dataset, data.evaluate_on} & set(names)):
            raise ConfigError(f"data: {text} Look at them (python -m ssl_core audit {names[0]}) and mend the parts; or "
                              "write allow_copies: true below the data set, which marks its results")
        stem = Path(names[0]).stem
        allowed[stem] = " ".join(filter(None, (allowed.get(stem), text)))
    return allowed
