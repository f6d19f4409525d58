"""Encoders: what the file says, what loading refuses, stems, taps, and a normalisation that travels along."""

import json
import warnings

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from toy_configs import pretrain

from ssl_core.encoders import Encoder, build_encoder, load_encoder, mlp, save_encoder

RESNET = {"name": "resnet10t", "args": {"channels": (8, 8, 16, 32)}, "stem": "cifar", "size": 32}
VIT = {"name": "vit_tiny_patch16_224", "size": 28,
       "args": {"patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2}}


def images(size, n=2):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    encoder = Encoder(**RESNET).eval()
    save_encoder(encoder, tmp_path / "encoder.safetensors", key="abc")
    return encoder, tmp_path / "encoder.safetensors"


def test_header_says_all_that_rebuilds_the_network(saved):
    with safe_open(saved[1], framework="pt") as file:
        header = file.metadata()
    spec = json.loads(header["encoder"])
    assert spec.pop("key") == "abc" and spec.pop("use") == "research only" and len(header) == 1  # more: chance's order
    assert spec == {"name": "resnet10t", "args": {"channels": [8, 8, 16, 32]}, "stem": "cifar", "channels": 3,
                    "size": 32, "normalisation": "none", "mean": [0, 0, 0], "std": [1, 1, 1], "pooling": "avg"}


@pytest.mark.parametrize("spec", [RESNET, VIT, VIT | {"normalisation": "imagenet"}])
def test_file_gives_the_same_network_back(spec, tmp_path):
    encoder = Encoder(**spec).eval()
    save_encoder(encoder, tmp_path / "e.safetensors")
    loaded = load_encoder(tmp_path / "e.safetensors")
    assert not loaded.training and loaded.spec["size"] == spec["size"]
    with torch.no_grad():
        assert torch.equal(loaded(images(spec["size"])).h, encoder(images(spec["size"])).h)


@pytest.mark.parametrize("change, message", [
    (lambda state: state.pop("conv1.weight"), "1 tensors missing, 0 left over, 0 of another shape; first: conv1.weig"),
    (lambda state: state.update(more=torch.ones(1)), "0 tensors missing, 1 left over, 0 of another shape; first: more"),
    (lambda state: state.update({"bn1.weight": torch.ones(7)}), "0 left over, 1 of another shape; first: bn1.weight"),
])
def test_weights_that_do_not_fit_are_refused_by_name(saved, change, message):
    path, state = saved[1], load_file(saved[1])
    change(state)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    save_file(state, path, metadata=header)
    with pytest.raises(ValueError, match=message):
        load_encoder(path)
    save_file(state, path)
    with pytest.raises(ValueError, match="no encoder header"):
        load_encoder(path)


def test_cifar_stem_keeps_the_resolution_and_the_other_one_warns():
    cifar = Encoder(**RESNET, taps=(1, 2, 3, 4))
    assert cifar.backbone.conv1.kernel_size == (3, 3) and cifar.backbone.conv1.stride == (1, 1)
    shapes = [tuple(m.shape) for m in cifar(images(32)).maps]
    assert shapes == [(2, 8, 32, 32), (2, 8, 16, 16), (2, 16, 8, 8), (2, 32, 4, 4)]
    with pytest.warns(UserWarning, match="resnet10t keeps its ImageNet stem at 32 px: the first map is 8 px wide"):
        default = Encoder(**RESNET | {"stem": "default"}, taps=(1,))
    assert default(images(32)).maps[0].shape == (2, 8, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Encoder(**RESNET | {"stem": "default", "size": 64})
    with pytest.raises(ValueError, match='stem "cifar" is for ResNets; .* use stem "default"'):
        Encoder(**VIT | {"stem": "cifar"})


@pytest.mark.parametrize("spec, taps, shapes", [
    (RESNET, (2, 4), [(2, 8, 16, 16), (2, 32, 4, 4)]),
    (VIT, (0, 2), [(2, 16, 7, 7), (2, 16, 7, 7)]),
])
def test_taps_return_maps_and_leave_h_as_it_is(spec, taps, shapes, tmp_path):
    encoder = Encoder(**spec).eval()
    save_encoder(encoder, tmp_path / "e.safetensors")
    tapped = load_encoder(tmp_path / "e.safetensors", taps=taps)
    with torch.no_grad():
        features = tapped(images(spec["size"]))
        torch.testing.assert_close(features.h, encoder(images(spec["size"])).h)
    assert features.h.shape == (2, encoder.width) and [tuple(m.shape) for m in features.maps] == shapes


def test_normalisation_is_a_layer_and_travels_with_the_weights(tmp_path):
    torch.manual_seed(0)
    encoder = Encoder(**RESNET, normalisation="dataset", mean=(0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7)).eval()
    x = images(32)
    by_hand = (x - torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    torch.testing.assert_close(encoder.normalise(x), by_hand)
    save_encoder(encoder, tmp_path / "e.safetensors")
    with torch.no_grad():
        assert torch.equal(load_encoder(tmp_path / "e.safetensors")(x).h, encoder(x).h)
    with pytest.raises(ValueError, match='normalisation "dataset" needs the mean and std'):
        Encoder(**RESNET, normalisation="dataset")


def test_initial_weights_depend_on_the_seed_alone():
    cfg = pretrain(encoder="resnet10t", encoder_args={"channels": [8, 8, 16, 16]}, stem="cifar")
    one = build_encoder(cfg, seed=3).backbone.conv1.weight
    torch.rand(5)
    assert torch.equal(one, build_encoder(cfg, seed=3).backbone.conv1.weight)
    assert not torch.equal(one, build_encoder(cfg, seed=4).backbone.conv1.weight)


def test_unknown_names_and_arguments_are_refused_in_one_line():
    with pytest.raises(ValueError, match="encoder 'resnet17' is not a timm model; near it: .*resnet"):
        Encoder("resnet17")
    with pytest.raises(ValueError, match="'resnet10t' does not take these encoder_args: .*patch_size"):
        Encoder("resnet10t", {"patch_size": 4}, stem="cifar")


def test_mlp_places_norms_between_and_at_the_end_only_when_asked():
    kinds = [type(layer) for layer in mlp(4, 8, 2)]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in mlp(4, 8, 2, last_norm=True)] == kinds + [nn.BatchNorm1d]
    assert [type(layer) for layer in mlp(4, 8, 2, norm=False)] == [nn.Linear, nn.ReLU, nn.Linear]
