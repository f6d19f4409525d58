"""What other libraries call the tensors of an encoder: one table of rules, each a prefix that stands before our names.

Of a whole checkpoint (encoder, momentum copy, projector, queue, decoder) a rule takes the encoder alone.
"""

from collections import Counter

PLAIN = "plain names, as timm, torchvision and the authors of MAE and VICReg write them"
RULES = {  # rule → prefix; the one that finds most of the encoder counts, of equals the first
    PLAIN: "",
    "lightly, solo-learn: backbone.": "backbone.",
    "lightly, a transformer of timm: backbone.vit.": "backbone.vit.",
    "lightly, numbered layers: backbone.0.": "backbone.",
    "solo-learn, earlier: encoder.": "encoder.",
    "MoCo: module.encoder_q.": "module.encoder_q.",
    "MoCo v3: module.base_encoder.": "module.base_encoder.",
    "SimSiam: module.encoder.": "module.encoder.",
    "Barlow Twins, while training: module.backbone.": "module.backbone.",
    "DistributedDataParallel: module.": "module.",
}
UNLIKE = "conv_proj.weight", "features.0.0.weight"  # torchvision's ViT; its EfficientNet, ConvNeXt, Swin, MobileNet
NUMBERED = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}  # of a ResNet


def taken(state, own):
    """The tensors of a file that are an encoder's, in our names → (state, rule, the file's names of what is not taken).

    own: the encoder's names. What a rule finds below one of the encoder's modules without a place in it stays in
    `state`: it is another network then, and loading strictly refuses it. Raises ValueError where nothing is found and
    the file is of a network that torchvision writes otherwise.
    """
    places, rule = max(((renamed(state, rule), rule) for rule in RULES), key=lambda found: len(own & found[0].keys()))
    if not own & places.keys() and any(name.endswith(UNLIKE) for name in state):
        raise ValueError("this is a network of torchvision whose tensors are named and laid out otherwise than timm's; "
                         "of torchvision its ResNets and DenseNets can be taken, of others timm's own weights")
    modules = {name.partition(".")[0] for name in own}
    kept = {name: theirs for name, theirs in places.items() if name.partition(".")[0] in modules}
    rest = sorted(state.keys() - set(kept.values()))
    return {name: state[theirs] for name, theirs in kept.items()}, rule, rest


def renamed(state, rule):
    """Our name → the file's, of what begins with the rule's prefix."""
    prefix = RULES[rule]
    found = {name.removeprefix(prefix): name for name in state if name.startswith(prefix)}
    if "numbered" in rule:
        split = {name: name.partition(".") for name in found}
        found = {f"{NUMBERED[number]}.{rest}": found[name] for name, (number, _, rest) in split.items()
                 if number in NUMBERED}
    return found


def summary(names, rule):
    """Names of tensors by module, with how many: `encoder_k (161), queue`."""
    modules = Counter(name.removeprefix(RULES[rule]).removeprefix("module.").partition(".")[0] for name in names)
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in sorted(modules.items()))
