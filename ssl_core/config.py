"""What a run may say, and the types that a study shares with it. Every unknown or ill-typed value dies here, by name.

The three run configurations have no defaults: their defaults are the parameters cell of the notebook that uses them
(`10_pretrain`, `20_probe`, `30_finetune`), and a study gives only what differs from that cell.
"""

import re
from difflib import get_close_matches
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from ssl_core.protocols import BUILT_IN, Protocol, protocol

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

    _one_length = model_validator(mode="after")(one_length)


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

    _one_length = model_validator(mode="after")(one_length)

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


CONFIGS = {"pretrain": PretrainConfig, "probe": ProbeConfig, "finetune": FinetuneConfig}


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
