"""A study as jobs and cells: which notebooks run with which parameters, and what of it is done.

A job is one notebook execution, a cell one evaluated point of it. Keys are computed before anything runs, from data,
parameters cells, study and code; nothing here imports torch or starts a kernel.
"""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ssl_core.config import PLAIN, SUPERVISED, ConfigError, FinetuneConfig, PretrainConfig, ProbeConfig
from ssl_core.files import root
from ssl_core.keys import make_key
from ssl_core.nb import parameters_of, stamp
from ssl_core.presets import ARGUMENTS, values_of
from ssl_core.runs import run_folder, run_name
from ssl_core.states import DONE, TO_RUN, assess

NOTEBOOKS = {"pretrain": "10_pretrain", "probe": "20_probe", "finetune": "30_finetune"}
CONFIGS = {"pretrain": PretrainConfig, "probe": ProbeConfig, "finetune": FinetuneConfig}
NETWORK = ("encoder", "encoder_args", "stem", "normalisation")


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
    older: bool = False  # it, or the encoder it rests on, was made by older code, and accepted
    missing: set = field(default_factory=set)  # ids of cells

    @property
    def cells(self) -> list:
        return [] if self.stage == "pretrain" else self.cfg.cells()

    @property
    def name(self) -> str:
        return self.folder.name.rpartition("-")[0]

    @property
    def priority(self) -> int:
        """Higher is sooner: what a probe's report shows beside its number, floors and twin, is then there before it."""
        if self.stage == "pretrain":
            return 2
        if not self.needs:
            return 3
        return int(self.cfg.ratio == 1 or self.cfg.twin != "none")

    def as_dict(self) -> dict:
        cells = [cell._asdict() | {"state": TO_RUN if cell.id in self.missing else DONE} for cell in self.cells]
        return {"id": f"{self.stage}/{self.folder.name}", "stage": self.stage, "name": self.name, "arm": self.cfg.arm,
                "key": self.key, "folder": shown(self.folder), "notebook": shown(notebook_of(self.stage)),
                "params": self.params, "priority": self.priority, "needs": [shown(need.folder) for need in self.needs],
                "state": self.state, "why": self.why, "older": self.older, "cells": cells}


@dataclass
class Plan:
    """All jobs of a study, each after those it needs."""

    study: object
    jobs: list

    @property
    def to_run(self) -> list:
        return [job for job in self.jobs if job.state != DONE]

    @property
    def cells_there(self) -> int:
        return self.cells_in_all - sum(len(job.missing) for job in self.jobs)

    @property
    def cells_in_all(self) -> int:
        return sum(len(job.cells) for job in self.jobs)

    def as_dict(self) -> dict:
        """What the engine, the comparison and the page read: outputs/<study>/plan.json."""
        return {"study": self.study.name, "question": self.study.question, "threads": self.study.resources.threads,
                "gpus": self.study.resources.gpus, "cells_there": self.cells_there, "cells_in_all": self.cells_in_all,
                "jobs": [job.as_dict() for job in self.jobs]}


def make_plan(study, older_code=False) -> Plan:
    """Every job of a study, with its state.

    older_code: take finished results of the same parameters and inputs for done though other code made them.
    Raises ConfigError, one line, when a notebook, the data or the study does not allow what is asked.
    """
    planner = _Planner(study, older_code)
    splits = list(splits_of(study))
    encoders = [planner.pretraining(arm.name, i, seed) for i, split in enumerate(splits) for arm in study.arms
                for seed in study.seeds if not arm.ratios or split["ratio"] in arm.ratios]
    for encoder in encoders:
        planner.evaluations(encoder)
    networks = []
    for encoder in encoders:
        network = {name: getattr(encoder.cfg, name) for name in NETWORK}
        networks += [] if network in networks else [network]
    for split in splits:
        for seed in study.seeds:
            planner.floors(split, seed, networks)
    return Plan(study, list(planner.jobs.values()))


def splits_of(study):
    """Every imbalance that the study cuts, with its balanced twins; split number i uses the i-th pair of seeds."""
    splits = study.splits
    orders = splits.draw_seeds if splits.order_seeds is None else splits.order_seeds
    for draw_seed, order_seed in zip(splits.draw_seeds, orders, strict=True):
        for ratio in splits.ratios:
            for twin in ["none", *(splits.twins if ratio != 1 else [])]:
                yield {"split_kind": splits.kind, "ratio": ratio, "twin": twin, "draw_seed": draw_seed,
                       "order_seed": order_seed, "n_max": splits.n_max, "total": splits.total,
                       "positive": splits.positive}


class _Planner:
    """Collects jobs by key, each once, while a study is multiplied out."""

    def __init__(self, study, older_code):
        self.study, self.older_code, self.jobs = study, older_code, {}
        self.defaults = {stage: parameters_of(notebook_of(stage)) for stage in NOTEBOOKS}
        self.stamps = {stage: stamp(notebook_of(stage)) for stage in NOTEBOOKS}
        self.arms = {arm.name: arm for arm in study.arms}
        self.splits = list(splits_of(study))
        data, evaluate = study.data, study.evaluate
        self.shared = {
            "study": study.name, "device": study.resources.device, "threads": study.resources.threads,
            "image_size": data.image_size or self.defaults["pretrain"]["image_size"],
            **{name: getattr(data, name) for name in ("dataset", "label_pool", "test_fraction", "part_seed")}}
        self.evaluate = {"budgets": evaluate.budgets, "class_weight": evaluate.class_weight}
        if data.evaluate_on:  # the imbalance was cut from the other data set
            self.evaluate |= {"dataset": data.evaluate_on, "split_kind": "natural", "ratio": 1, "twin": "none",
                              "n_max": 0, "total": 0}
        self.frozen = [protocol for protocol in evaluate.protocols if protocol != "finetune"]
        self.load, self.pools = cache(self.load), cache(self.pools)  # one draw serves all runs that share it
        self.pretraining = cache(self.pretraining)

    def load(self, dataset, size):
        from ssl_core.data import load

        return load(dataset, size)

    def pools(self, dataset, size, arguments):
        from ssl_core.data.pools import pools

        return pools(self.load(dataset, size), **dict(arguments))

    def add(self, stage, where, values, **above) -> Job:
        """One job; `above` are the jobs whose encoder it starts from, by the name of the parameter that says so."""
        values = self.defaults[stage] | self.shared | values | {name: shown(job.folder) for name, job in above.items()}
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

    def pretraining(self, name, i, seed, starts=()) -> Job:
        """The pretraining of an arm on split number i; another arm that it starts from comes first."""
        arm, split = self.arms[name], self.splits[i]
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
        if arm.init in self.arms:
            above = {"init": self.pretraining(arm.init, i, seed, (*starts, name))}
        return self.add("pretrain", f"arms.{name}", values | split | {"arm": name, "seed": seed}, **above)

    def evaluations(self, encoder):
        """All frozen protocols of an encoder in one job per budget seed, and its fine-tuning in another."""
        cfg, evaluate = encoder.cfg, self.study.evaluate
        same = {name: getattr(cfg, name) for name in ("arm", "seed", *NETWORK, *self.splits[0])}
        for budget_seed in evaluate.budget_seeds:
            values = same | self.evaluate | {"budget_seed": budget_seed}
            if self.frozen:
                self.add("probe", f"probe of {cfg.arm}", values | {"protocols": self.frozen, "floors": []}, run=encoder)
            if "finetune" in evaluate.protocols:
                self.add("finetune", f"evaluate.finetune of {cfg.arm}", values | evaluate.finetune, run=encoder)

    def floors(self, split, seed, networks):
        """What needs no pretraining. Only `random` depends on network and seed; the others are made once a draw."""
        study = self.study
        frozen = [floor for floor in study.floors if floor not in SUPERVISED]
        for budget_seed in study.evaluate.budget_seeds:
            values = split | self.evaluate | {"run": "", "seed": seed, "budget_seed": budget_seed}
            for network in networks:
                first = network == networks[0]
                names = frozen if first and seed == study.seeds[0] else [name for name in frozen if name == "random"]
                if names:
                    self.add("probe", "floors", values | network | {
                        "arm": "floors" if first else f"random.{network['encoder']}", "floors": names,
                        "protocols": self.frozen or ["linear"],
                        "weights": study.weights if "imagenet" in names else ""})
            for floor in study.floors:
                if floor in SUPERVISED:
                    self.add("finetune", f"floors.{floor}", values | networks[0] | study.evaluate.finetune | PLAIN
                             | SUPERVISED[floor] | {"arm": floor})


def notebook_of(stage) -> Path:
    return root() / "notebooks" / f"{NOTEBOOKS[stage]}.ipynb"


def shown(path) -> str:
    """Relative to the project where it lies inside."""
    return path.relative_to(root()).as_posix() if path.is_relative_to(root()) else path.as_posix()
