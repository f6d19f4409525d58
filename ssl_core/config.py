"""What a run and a study may say. Every unknown or ill-typed value dies here, by name.

The three run configurations have no defaults: their defaults are the parameters cell of the notebook that uses them
(`10_pretrain`, `20_probe`, `30_finetune`), and a study gives only what differs from that cell.
"""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ssl_core.protocols import BUILT_IN, Protocol, protocol
from ssl_core.split_presets import with_preset, with_presets

Share = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Floor = Literal["majority", "colour", "pixels", "random", "supervised", "supervised_weighted", "supervised_sampled",
                "supervised_adjusted", "supervised_imbalanced", "imagenet"]
SplitKind = Literal["long_tail", "category_ratio", "balanced", "natural"]
LabelPool = Literal["balanced", "natural", "as_pretrain"]
Twin = Literal["none", "same_n", "same_head"]

# What a training from scratch does about uneven classes: nothing, or one of three things; the last takes its labels,
# all of them, from the pretraining split.
PLAIN = {"class_weight": "none", "sampling": "uniform", "logit_adjustment": 0.0}
SUPERVISED = {"supervised": {}, "supervised_weighted": {"class_weight": "balanced"},
              "supervised_sampled": {"sampling": "balanced"}, "supervised_adjusted": {"logit_adjustment": 1.0},
              "supervised_imbalanced": {"label_pool": "as_pretrain", "budgets": [1.0]}}

MACHINE = ("study", "arm", "device", "threads")  # where and under which name a run happens: no part of its key


class ConfigError(ValueError):
    """A value that a study or a parameters cell may not have; the message is one line."""


def add_ons(value):
    """A list of add-ons, as it is; ValueError where one is bare text or has no name."""
    if not (isinstance(value, list) and all(isinstance(v, dict) and isinstance(v.get("name"), str) for v in value)):
        raise ValueError(f"{value!r} is no list of add-ons, each with its name; write [{{name: bcl}}]")
    return value


def arguments(values):
    """Arguments, as they are; ValueError where a number was written so that YAML reads text."""
    for name, value in values.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and re.fullmatch(r"[-+]?[\d.]+[eE][-+]?\d+", item):
                raise ValueError(f"{name}: {item!r} is text, not a number {IN_YAML}")
    return values


def budget(value):
    """A budget, as it is: a share of the labels, or above 1 images per class; ValueError for 1.5."""
    if value > 1 and value != int(value):
        raise ValueError(f"{value:g} is neither a share of the labels, up to 1, nor a whole number of images per class")
    return value


def known(name):
    """A protocol's name, as it is; ValueError for what is none."""
    return protocol(name).name


IN_YAML = "(in YAML write 1.0e-3, not 1e-3)"
AddOns = Annotated[list[dict[str, Any]], BeforeValidator(add_ons)]
Arguments = Annotated[dict[str, Any], AfterValidator(arguments)]
Budgets = Annotated[list[Annotated[Positive, AfterValidator(budget)]], Field(min_length=1)]
Protocols = Annotated[list[Annotated[str, AfterValidator(known)]], Field(min_length=1)]


class Cell(NamedTuple):
    """One evaluated point of a job: `source` is "encoder" or the name of a floor."""

    id: str
    source: str
    protocol: str
    budget: float


class Values(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def __init__(self, **values):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(explain(error, type(self))) from None

    def __repr__(self):
        """One `name = value` per line: what an executed report shows."""
        width = max(map(len, type(self).model_fields))
        return "\n".join(f"{name:{width}} = {value!r}" for name, value in self)

    def keyed(self) -> dict:
        """The values that decide the result: all but the names and the machine."""
        return {name: value for name, value in self.model_dump().items() if name not in MACHINE}


class RunConfig(Values):
    """What all three stages share: names, data and how its parts are made, machine."""

    study: str
    arm: str
    dataset: str
    image_size: Annotated[int, Field(ge=8, le=1024)]
    split_kind: SplitKind
    ratio: Ratio
    twin: Twin
    draw_seed: Count
    order_seed: Count
    n_max: Count  # images of the largest class; 0 takes what there is
    total: Count  # images in all, for category_ratio and long_tail; 0 leaves it open
    positive: Count  # the rare class of category_ratio
    label_pool: LabelPool
    test_fraction: Annotated[float, Field(gt=0, lt=1)]  # only where the data set brings no test part
    val_fraction: Fraction = 0.0  # of the rest, where it brings no validation part; records of earlier runs lack it
    part_seed: Count
    seed: Count
    device: Literal["auto", "cpu", "cuda", "mps"]
    threads: Annotated[int, Field(ge=1)]

    @property
    def label_seed(self) -> int:
        """Seed of the label budgets: every draw has its own, and a budget seed gives it others."""
        return self.draw_seed + 10_007 * getattr(self, "budget_seed", 0)

    def pool_arguments(self) -> dict:
        """The arguments of `data.pools`, by name."""
        names = ("split_kind", "ratio", "twin", "draw_seed", "order_seed", "positive", "label_pool", "test_fraction",
                 "val_fraction", "part_seed")
        values = {name: getattr(self, name) for name in names}
        return values | {"n_max": self.n_max or None, "total": self.total or None}


def one_length(cfg):
    """A configuration, as it is; ValueError where its length is given twice or not at all."""
    if (cfg.epochs > 0) == (cfg.steps > 0):
        raise ValueError(f"give either epochs or steps and leave the other 0, not epochs {cfg.epochs} "
                         f"with steps {cfg.steps}")
    return cfg


class PretrainConfig(RunConfig):
    """One pretraining: the parameters of `10_pretrain`."""

    method: str
    method_args: dict[str, Any]
    wrap: AddOns  # add-ons around the method, innermost first, each {"name": …} with its arguments
    encoder: str  # a timm name
    encoder_args: Arguments
    stem: Literal["default", "cifar"]
    normalisation: Literal["none", "imagenet", "half", "dataset"]
    init: str  # random, imagenet, efficientnet_lite0, TIMM_NAME=FILE, an encoder file, or the folder of another run
    recipe: str
    optimiser: Literal["adamw", "sgd", "lars"]
    lr: Positive
    weight_decay: Annotated[float, Field(ge=0)]
    optimiser_args: Arguments
    batch: Annotated[int, Field(ge=2)]
    epochs: Count
    steps: Count
    warmup: Annotated[float, Field(ge=0, lt=1)]  # share of all steps
    precision: Literal["auto", "fp32", "bf16"]

    @model_validator(mode="after")
    def _init_fits(self):
        name, file = self.init.partition("=")[::2]
        if file or name in ("imagenet", "efficientnet_lite0"):
            if name not in ("imagenet", self.encoder, self.encoder.partition(".")[0]):
                raise ValueError(f"init {self.init!r} gives weights of {name}, and encoder is {self.encoder!r}; "
                                 "name the same network")
            if self.stem == "cifar":
                raise ValueError(f'init {self.init!r}: stem "cifar" has another first convolution than the network '
                                 'that was trained; use stem "default"')
        return self

    @model_validator(mode="after")
    def _one_length(self):
        return one_length(self)


class ProbeConfig(RunConfig):
    """All cells of one frozen encoder, or of the floors: the parameters of `20_probe`."""

    run: str  # folder of a pretraining; empty for the floors
    floors: list[Floor]
    encoder: str  # the network of the floor `random`
    encoder_args: Arguments
    stem: Literal["default", "cifar"]
    normalisation: Literal["none", "imagenet", "half", "dataset"]
    weights: str  # of the floor `imagenet`: efficientnet_lite0 or TIMM_NAME=FILE; empty: none at hand
    protocols: list[str]
    heads: dict[str, dict[str, Any]]  # settings of the published protocols among them, from params/protocols
    budgets: Budgets
    budget_seed: Count
    class_weight: Literal["none", "balanced"]
    resamples: Annotated[int, Field(ge=100)]

    @model_validator(mode="before")
    @classmethod
    def _settings(cls, values):
        named, given = values.get("protocols"), values.get("heads")
        if not (isinstance(named, list) and isinstance(given, dict)):
            return values  # and it is told what it lacks
        heads = {}
        for name in named:
            found = Protocol(name, "probe", values=given[name]) if name in given else protocol(name)
            if found.stage != "probe":
                raise ValueError(f"protocols: {name} is no probe of a frozen encoder; 30_finetune runs it")
            heads |= {} if name in BUILT_IN else {name: found.values}
        return values | {"heads": heads}

    def cells(self) -> list[Cell]:
        """What this job evaluates: protocols × budgets of the encoder, or of each floor."""
        frozen = [p for p in self.protocols if p != "finetune"]
        protocols = {"majority": ["none"], "colour": ["linear"], "pixels": ["linear"]}
        sources = ["encoder"] if self.run else [f for f in self.floors if not f.startswith("supervised")]
        return [Cell(("" if self.run else f"{source}.") + f"{protocol}-b{budget:g}-s{self.budget_seed}", source,
                     protocol, budget)
                for source in sources for protocol in protocols.get(source, frozen) for budget in self.budgets]


class FinetuneConfig(RunConfig):
    """All cells of one encoder trained with labels: the parameters of `30_finetune`."""

    run: str  # folder of a pretraining; empty trains from scratch (the supervised floor)
    encoder: str
    encoder_args: Arguments
    stem: Literal["default", "cifar"]
    normalisation: Literal["none", "imagenet", "half", "dataset"]
    weights: str  # without a run, instead of random ones: efficientnet_lite0 or TIMM_NAME=FILE
    recipe: str
    protocol: str  # what tables call it
    budgets: Budgets
    budget_seed: Count
    class_weight: Literal["none", "balanced"]
    sampling: Literal["uniform", "balanced"]
    logit_adjustment: Annotated[float, Field(ge=0)]  # tau of Menon et al. 2021; 0 is plain cross entropy
    train: Literal["all", "head"]
    optimiser: Literal["adam", "adamw", "sgd", "lars"]
    optimiser_args: Arguments
    lr: Positive
    head_lr: Annotated[float, Field(ge=0)]  # of the head; 0: as the encoder's
    schedule: Literal["cosine", "constant"]
    weight_decay: Annotated[float, Field(ge=0)]
    layer_decay: Share
    drop_path: Annotated[float, Field(ge=0, lt=1)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    batch: Annotated[int, Field(ge=2)]
    epochs: Count
    steps: Count
    warmup: Annotated[float, Field(ge=0, lt=1)]
    select: Literal["last", "best_val"]
    layers: bool  # compare every layer before and after
    precision: Literal["auto", "fp32", "bf16"]
    resamples: Annotated[int, Field(ge=100)]

    @model_validator(mode="after")
    def _one_length(self):
        return one_length(self)

    @model_validator(mode="after")
    def _one_correction(self):
        if len(self.correction) > 1:
            raise ValueError(f"{' and '.join(self.correction)} each make up for uneven classes, together they do it "
                             "twice; give one")
        return self

    @property
    def correction(self) -> dict:
        """What is done about uneven classes, {} for nothing."""
        return {name: getattr(self, name) for name, plain in PLAIN.items() if getattr(self, name) != plain}

    @property
    def floor(self) -> str:
        """Which of the supervised floors a training from scratch with these values is."""
        return next(name for name, how in SUPERVISED.items() if how.keys() == self.correction.keys())

    def refuse_task(self, task):
        if task == "multilabel" and self.sampling != "uniform":
            raise ConfigError("sampling balanced draws a class and then an image of it, but an image of a multilabel "
                              "set has many; use class_weight balanced")

    def cells(self) -> list[Cell]:
        """What this job evaluates: one fine-tuning per budget."""
        return [Cell(f"{self.protocol}-b{budget:g}-s{self.budget_seed}", "encoder", self.protocol, budget)
                for budget in self.budgets]


# --- a study: data × arms × splits × seeds ----------------------------------------------------------------------------

class Splits(Values):
    """Which imbalances are cut; split number i uses draw_seeds[i] and order_seeds[i]."""

    model_config = ConfigDict(json_schema_extra={
        "required": [], "anyOf": [{"required": ["kind"]}, {"required": ["preset"]}]})

    preset: str | None = None  # a name of params/splits; what is said beside it wins
    kind: SplitKind
    ratios: Annotated[list[Ratio], Field(min_length=1)] = [1]
    draw_seeds: Annotated[list[Count], Field(min_length=1)] = [0]
    order_seeds: list[Count] | None = None
    twins: list[Literal["same_n", "same_head"]] = []
    n_max: Count = 0
    total: Count | Annotated[list[Count], Field(min_length=1)] = 0  # a list: every ratio at every total
    positive: Count = 1

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values):
        return with_preset(values)

    @model_validator(mode="after")
    def _pairs(self):
        if self.order_seeds is not None and len(self.order_seeds) != len(self.draw_seeds):
            raise ValueError(f"order_seeds has {len(self.order_seeds)} entries and draw_seeds {len(self.draw_seeds)}; "
                             "they are used in pairs")
        if self.kind in ("natural", "balanced") and self.ratios != [1]:
            raise ValueError(f"ratios {self.ratios} mean nothing for kind {self.kind}; leave them out")
        return self

    def each(self):
        """Every imbalance that is cut, with its balanced twins, as parameters of a run."""
        orders = self.draw_seeds if self.order_seeds is None else self.order_seeds
        for draw_seed, order_seed in zip(self.draw_seeds, orders, strict=True):
            for total in self.total if isinstance(self.total, list) else [self.total]:
                for ratio in self.ratios:
                    for twin in ["none", *(self.twins if ratio != 1 else [])]:
                        yield {"split_kind": self.kind, "ratio": ratio, "twin": twin, "draw_seed": draw_seed,
                               "order_seed": order_seed, "n_max": self.n_max, "total": total,
                               "positive": self.positive}


class Data(Values):
    """A data set that a study pretrains on, and how its parts are made."""

    dataset: str
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = None
    evaluate_on: str = ""  # another data set for probes and fine-tuning; empty: the same
    splits: Splits | None = None  # instead of the study's
    label_pool: LabelPool = "balanced"
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    val_fraction: Fraction = 0.0
    part_seed: Count = 0
    allow_copies: bool = False  # run though held-out images, or their groups, are in training; marks the results

    @model_validator(mode="after")
    def _own_labels(self):
        if self.evaluate_on and self.label_pool == "as_pretrain":
            raise ValueError("label_pool as_pretrain takes its labels from the pretraining images, so it cannot go "
                             "with evaluate_on; use balanced or natural")
        return self


class Arm(Values):
    """One way to pretrain; what is not given comes from the parameters cell of `10_pretrain`."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
    method: str
    preset: str | None = None  # a published recipe, NAME or FILE/NAME, of params/presets; what the arm says itself wins
    data: Annotated[list[str], Field(min_length=1)] | None = None  # only these data sets of the study
    protocols: Protocols | None = None  # instead of the study's
    ratios: list[Ratio] | None = None  # only these ratios of the study, for an arm that costs too much for all
    method_args: dict[str, Any] | None = None
    wrap: AddOns | None = None
    encoder: str | None = None
    encoder_args: Arguments | None = None
    stem: Literal["default", "cifar"] | None = None
    normalisation: Literal["none", "imagenet", "half", "dataset"] | None = None
    init: str | None = None
    recipe: str | None = None
    optimiser: Literal["adamw", "sgd", "lars"] | None = None
    lr: Positive | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    optimiser_args: Arguments | None = None
    batch: Annotated[int, Field(ge=2)] | None = None
    epochs: Annotated[int, Field(ge=1)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    warmup: Annotated[float, Field(ge=0, lt=1)] | None = None
    precision: Literal["auto", "fp32", "bf16"] | None = None


class Evaluate(Values):
    """Protocols and label budgets of every encoder. `heads` holds what differs from a published probe, by its name;
    `finetune` what differs from the cell of `30_finetune` and from a published fine-tuning: for all, or by its name."""

    protocols: Protocols = ["linear", "knn"]
    budgets: Budgets = [0.01, 0.05, 0.1, 0.5, 1.0]  # shares of the labelled pool; above 1: images per class
    budget_seeds: Annotated[list[Count], Field(min_length=1)] = [0]
    class_weight: Literal["none", "balanced"] = "none"
    heads: dict[Annotated[str, AfterValidator(known)], dict[str, Any]] = {}
    finetune: dict[str, Any] = {}


class Resources(Values):
    """What one job may use; `threads` is per job and does not follow the number of jobs."""

    jobs: Annotated[int, Field(ge=1)] = 2
    threads: Annotated[int, Field(ge=1)] = 1
    gpus: Count = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


def several(value):
    """One data set is a list of one."""
    return [value] if isinstance(value, dict) else value


class Study(Values):
    """A study file: data sets × arms × splits × seeds is the grid, nothing else multiplies."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
    question: str
    data: Annotated[list[Data], Field(min_length=1), BeforeValidator(several)]
    splits: Splits | None = None  # of the data sets that say none
    arms: Annotated[list[Arm], Field(min_length=1)]
    seeds: Annotated[list[Count], Field(min_length=1)] = [0]
    chain: list[str] = []  # arms that differ in one thing each, ARM or ARM/PROTOCOL: 40_compare says what each adds
    evaluate: Evaluate = Evaluate()
    floors: list[Floor] = ["majority", "colour", "pixels", "random"]
    weights: str = ""  # of the floor `imagenet`: efficientnet_lite0 or TIMM_NAME=FILE
    resources: Resources = Resources()

    @model_validator(mode="before")
    @classmethod
    def _presets(cls, values):
        return with_presets(values)

    @model_validator(mode="after")
    def _names(self):
        sets = [data.dataset for data in self.data]
        if doubled := {name for name in sets if sets.count(name) > 1}:
            raise ValueError(f"data: {min(doubled)} is there twice")
        for data in self.data:
            if not (data.splits or self.splits):
                raise ValueError(f"splits: missing, and data.{data.dataset} has none of its own")
            names = [arm.name for arm in self.arms_of(data)]
            if doubled := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"arms: the name {min(doubled)} is used twice")
        for arm in self.arms:
            if arm.epochs and arm.steps:
                raise ValueError(f"arms.{arm.name}: give epochs or steps, not both")
            if missing := set(arm.data or []) - set(sets):
                raise ValueError(f"arms.{arm.name}: {min(missing)} is not among the study's data: {', '.join(sets)}")
            ratios = sorted({ratio for data in self.data for ratio in self.splits_of(data).ratios})
            if missing := set(arm.ratios or []) - set(ratios):
                raise ValueError(f"arms.{arm.name}: ratio {min(missing):g} is not among splits.ratios {ratios}")
        return self

    @model_validator(mode="after")
    def _chain(self):
        protocols = {arm.name: arm.protocols or self.evaluate.protocols for arm in self.arms}
        for link in self.chain:
            name, _, read = link.partition("/")
            if name not in protocols or (read and read not in protocols[name]):
                raise ValueError(f"chain: {link!r} is neither an arm nor ARM/PROTOCOL with a protocol of that arm")
        return self

    def arms_of(self, data) -> list[Arm]:
        """The arms that are pretrained on one of the study's data sets."""
        return [arm for arm in self.arms if not arm.data or data.dataset in arm.data]

    def splits_of(self, data) -> Splits:
        """The splits that are cut from one of the study's data sets."""
        return data.splits or self.splits


def load_study(path) -> Study:
    """Read and check a study file.

    Raises ConfigError with one line: file, key, value, what is allowed.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such study; those that come with the project are in params/studies/") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a study is a list of `key: value` lines; see params/studies/quick.yaml")
    try:
        return Study(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def explain(error: ValidationError, model: type[Values]) -> str:
    """The first thing wrong, in one line, and how many others there are."""
    problems = error.errors()
    first = problems[0]
    value, place = first["input"], [str(part) for part in first["loc"]]
    if place[0:1] == ["data"] and place[1:2] == ["0"]:
        del place[1]  # most studies have one data set, and no list
    if len(place) == 2 and isinstance(value, dict) and isinstance(value.get("name"), str):
        place[1] = value["name"]  # arms.simclr says more than arms.0
    key = ".".join(place) or model.__name__
    if first["type"] == "extra_forbidden":
        near = get_close_matches(place[-1], model.model_fields, 1)
        text = f"{key}: unknown key" + (f"; near it: {near[0]}" if near and len(place) == 1 else "")
    elif first["type"] == "missing":
        text = f"{key}: missing"
    elif isinstance(value, str) and first["type"] in ("float_type", "int_type"):
        text = f"{key}: {value!r} is text, not a number {IN_YAML}"
    elif isinstance(value, str) and first["type"] in ("list_type", "dict_type"):
        kind, written = ("list", f"[{value}]") if first["type"] == "list_type" else ("mapping", "{NAME: VALUE}")
        text = f"{key}: {value!r} is text, not a {kind}; write {written} (for papermill -y '{key}: {written}')"
    elif first["type"] == "value_error":
        text = f"{first['ctx']['error']}" if not first["loc"] else f"{key}: {first['ctx']['error']}"
    else:
        text = f"{key}: {first['msg'][0].lower() + first['msg'][1:]}, got {value!r}"
    return text + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
