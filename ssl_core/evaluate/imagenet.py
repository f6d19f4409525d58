"""The floor `imagenet`: a frozen encoder that was trained on ImageNet, where its weights are at hand."""

from ssl_core.encoders import NORMALISATIONS, Encoder, load_strictly
from ssl_core.files import root
from ssl_core.weights import LITE0, fitted, lite0_state, read_state


def imagenet_encoder(weights, size):
    """(encoder in eval mode, "") or (None, why there is none).

    weights: "efficientnet_lite0" (the optional package), or "TIMM_NAME=FILE" with a state dict of that timm model
    (.safetensors, or .pth read without executing code); "" when none are at hand. size: side of the images in pixels.
    """
    if not weights:
        return None, "not run: no weights at hand; a study names them under weights"
    name, _, path = weights.partition("=")
    if name == LITE0 and not path:
        try:
            state = lite0_state()
        except ValueError as absent:
            return None, f"not run: {absent}"
        # these weights were converted from a network that takes (x − 127) / 128, not ImageNet's mean and deviation
        mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    elif not path:
        raise ValueError(f'weights {weights!r}: write "{LITE0}" or "TIMM_NAME=FILE"')
    elif not (root() / path).exists():
        return None, f"not run: no weights at {path}"
    else:
        state, (mean, std) = read_state(root() / path), NORMALISATIONS["imagenet"]
    encoder = Encoder(name, size=size, normalisation="dataset", mean=mean, std=std)
    load_strictly(encoder.backbone, fitted(state, encoder.backbone), weights)
    return encoder.eval(), ""
