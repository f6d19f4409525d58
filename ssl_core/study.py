"""What a study may say: data × arms × splits × seeds."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from ssl_core.config import (
    AddOns,
    Arguments,
    Budgets,
    ConfigError,
    Count,
    Floor,
    Fraction,
    LabelPool,
    Positive,
    Protocols,
    Ratio,
    SplitKind,
    Values,
    known,
)
from ssl_core.split_presets import with_preset, with_presets


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

    _preset = model_validator(mode="before")(with_preset)

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

    _presets = model_validator(mode="before")(with_presets)

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
