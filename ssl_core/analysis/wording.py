"""How figures and sentences write what the tables hold: arms, what they were pretrained on, protocols, budgets."""

from ssl_core.protocols import protocol, protocol_names

WORDS = {"simclr": "SimCLR", "mae": "MAE", "lotar": "LoTaR", "bcl_i": "BCL-I", "bcl_d": "BCL-D", "sdclr": "SDCLR",
         "dcl": "DCL", "dclw": "DCLW", "moco": "MoCo", "moco_mse": "MoCo + MSE", "moco_barlow": "MoCo + Barlow Twins",
         "simsiam": "SimSiam", "vicreg": "VICReg", "barlow": "Barlow Twins", "tico": "TiCo", "rotnet": "RotNet",
         "random": "untrained network", "pixels": "raw pixels", "colour": "colour histogram",
         "majority": "majority class", "supervised": "supervised", "supervised_weighted": "supervised, class-weighted",
         "supervised_sampled": "supervised, balanced sampling", "supervised_adjusted": "supervised, logit-adjusted",
         "supervised_imbalanced": "supervised on the split",
         "imagenet": "ImageNet", "linear": "linear probe", "knn": "kNN", "finetune": "fine-tuned", "none": "no probe",
         "balanced_accuracy": "balanced accuracy", "roc_auc": "ROC area", "bcl": "BCL"}


def points(value):
    """A share as signed percentage points: 0.0213 → "+2.1"; a true minus sign."""
    text = f"{100 * value:+.1f}"
    return ("0.0" if text in ("+0.0", "-0.0") else text).replace("-", "−")


def span(interval):
    return f"{points(interval[0])} to {points(interval[1])}"


def words(name):
    """How a figure writes a name of the tables; a published protocol's is the `short` of its preset."""
    if name in WORDS:
        return WORDS[name]
    short = protocol(name).short if name in protocol_names() else ""
    return short or str(name).replace("_", " ")


def condition(row):
    """How a figure names the images that an arm was pretrained on; "" where there were none."""
    if not row.pretrain_dataset:
        return ""
    elsewhere = "" if row.pretrain_dataset == row.dataset else f"{row.pretrain_dataset}, "
    if row.split_kind == "natural":
        return f"{elsewhere}natural"
    plain = "balanced" if row.ratio == 1 else f"1:{row.ratio:g}"
    return elsewhere + {"none": plain, "same_n": f"balanced, same N as 1:{row.ratio:g}",
                        "same_head": f"balanced, same head as 1:{row.ratio:g}"}[row.twin]


def describe(row, more=""):
    """An arm and what it saw, or a floor, in words. row: of the results table; more: what else tells it apart."""
    if row.pretrain_dataset:
        return f"{words(row.arm)} ({condition(row)}{more})"
    return f"untrained {row.encoder}" if row.arm == "random" else words(row.arm)


def metric_words(metric, group):
    """A metric over all classes, or over those of one frequency."""
    return words(metric) if group == "all" else f"{words(metric)} of classes with {group} images"


def budget_words(budget):
    """A budget in a sentence: a share of the labels, or above 1 so many of each class."""
    return f"{100 * budget:g} % of the labels" if budget <= 1 else f"{budget:g} labels per class"


def budget_short(budget):
    """The same where there is little room: a tick, a column."""
    return f"{100 * budget:g} %" if budget <= 1 else f"{budget:g} per class"


def in_order(protocols):
    """Protocols in the order they come in, each once; "none", that of the majority class, last."""
    return sorted(dict.fromkeys(protocols), key=lambda name: name == "none")
