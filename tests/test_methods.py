"""The contract of a method, kept by every entry of METHODS; then what only one method can break."""

import math
import re

import numpy as np
import pytest
import torch
import toy_configs
from safetensors.torch import load_file

from ssl_core import train
from ssl_core.analysis.panel import masked_quality
from ssl_core.augment import Augment
from ssl_core.encoders import Encoder, load_encoder
from ssl_core.methods import METHODS, build
from ssl_core.methods.mae import random_masking, sincos_positions
from ssl_core.train import pretrain

SIZE, N, PER_EPOCH = 16, 24, 3
VIT = {"name": "vit_tiny_patch16_224", "args": {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}}
RESNET = {"name": "resnet10t", "args": {"channels": [8, 8, 16, 16]}, "stem": "cifar"}
COMBINATIONS = {  # "method+add-on" → wrap, each tested as a method is
    "simclr+bcl": [{"name": "bcl"}],
    "sdclr+bcl": [{"name": "bcl"}],
    "simclr+intermediate": [{"name": "intermediate"}],
    "moco+intermediate": [{"name": "intermediate", "distance": "barlow", "projector": [8, 8, 8]}],
}
SMALL = {  # others: RESNET, own defaults
    "barlow": (RESNET, {"projector": [8, 8, 8]}),
    "mae": (VIT, {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}),
    "moco": (RESNET, {"queue": 6}),
    "sdclr": (RESNET, {"prune_share": 0.5}),
    "simsiam": (RESNET, {"projector": [8, 8, 8], "predictor": 4}),
    "tico": (RESNET, {"projector": [8, 8]}),
    "vicreg": (RESNET, {"projector": [8, 8, 8]}),
}


def make(name, recipe="simclr", **changes):
    method, (encoder, method_args) = name.split("+")[0], SMALL.get(name.split("+")[0], (RESNET, {}))
    torch.manual_seed(0)
    return build(method, Encoder(**encoder, size=SIZE), Augment(recipe, SIZE), N, 0, COMBINATIONS.get(name, ()),
                 **method_args | changes)


def draw_images(n=N):
    return np.random.default_rng(0).integers(0, 256, (n, 3, SIZE, SIZE), dtype=np.uint8)


def draw_views(method, n=8):
    return method.views(torch.from_numpy(draw_images(n)), torch.arange(n), torch.Generator().manual_seed(0))


@pytest.fixture(params=[*METHODS, *COMBINATIONS])
def name(request):
    return request.param


def test_loss_is_one_finite_number_per_image_and_its_gradient_reaches_the_encoder(name):
    method = make(name).train()
    method.begin_epoch(0)
    step = method(*draw_views(method))
    assert step.loss.shape == (8,) and step.loss.isfinite().all()
    assert all(f.h.shape == (8, method.encoder.width) for f in step.feats)
    step.loss.mean().backward()
    assert all(p.grad is not None for p in method.encoder.parameters() if p.requires_grad)
    assert next(p for p in method.encoder.parameters() if p.ndim == 4).grad.abs().sum() > 0  # down to the pixels


def test_forward_writes_no_state(name):
    method = make(name).eval()
    views = draw_views(method)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    first, second = method(*views).loss, method(*views).loss
    assert all(torch.equal(before[key], value) for key, value in method.state_dict().items())
    assert torch.equal(first, second)


def test_half_precision_reaches_the_network_and_not_the_loss(name):
    method = make(name).train()
    views = draw_views(method)
    with torch.autocast("cpu", torch.bfloat16):
        step = method(*views)
    step.loss.mean().backward()
    assert step.loss.dtype == torch.float32 and step.loss.isfinite().all()
    torch.testing.assert_close(step.loss, make(name).train()(*views).loss, atol=0.1, rtol=0.1)


def test_two_identical_images_get_different_views(name):
    method = make(name)
    image = torch.from_numpy(draw_images(1))
    for view in method.views(image.expand(2, -1, -1, -1), torch.arange(2), torch.Generator().manual_seed(0)):
        assert not torch.equal(view[0], view[1])


def test_equal_seeds_build_equal_methods(name):
    one, other = make(name).state_dict(), make(name).state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


class Killed(Exception):
    pass


def run(name, folder, kill_after=None):
    """Three epochs of three steps; `kill_after` steps of this call an exception takes the place of the next."""
    method, cfg = make(name), toy_configs.pretrain(method=name, epochs=3, batch=8, warmup=0.2, weight_decay=0.05)
    update, steps = method.update, iter(range(10**6))

    def update_or_die(step, index):
        if next(steps) == kill_after:
            raise Killed
        update(step, index)

    method.update = update_or_die
    return pretrain(method, draw_images(), cfg, folder, key="k")


@pytest.mark.parametrize("inside", [False, True])
def test_a_killed_run_ends_with_the_same_bits(name, inside, tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    history = run(name, whole)
    monkeypatch.setattr(train, "SAVE_EVERY", -1 if inside else 10**6)
    with pytest.raises(Killed):
        run(name, killed, kill_after=PER_EPOCH + 2)
    stopped_at = torch.load(killed / "last.pt", weights_only=True)["at"]["step"]
    assert stopped_at == (PER_EPOCH + 2 if inside else PER_EPOCH)
    resumed = run(name, killed)

    for file in ("encoder.safetensors", "method.safetensors"):
        one, other = load_file(whole / file), load_file(killed / file)
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    np.testing.assert_array_equal(np.load(whole / "image_loss.npy"), np.load(killed / "image_loss.npy"))
    assert history.drop(columns="images_per_s").equals(resumed.drop(columns="images_per_s"))


def test_the_encoder_file_needs_nothing_else(name, tmp_path):
    method, cfg = make(name), toy_configs.pretrain(method=name, epochs=0, steps=2, batch=8)
    pretrain(method, draw_images(), cfg, tmp_path, key="k")
    x = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loaded = load_encoder(tmp_path / "encoder.safetensors").to(memory_format=torch.channels_last)
        assert torch.equal(loaded(x).h, method.encoder.eval()(x).h)


def test_a_wrong_name_or_argument_is_refused_in_one_line():
    with pytest.raises(ValueError, match="method 'simclear' is unknown; there are: .*simclr"):
        make("simclear")
    with pytest.raises(ValueError, match="method 'simclr': .*'temperature'.*methods/simclr.py"):
        make("simclr", temperature=1)
    with pytest.raises(ValueError, match="wrap 'balance' is unknown; there are: "):
        build("simclr", Encoder(**RESNET, size=SIZE), Augment("simclr", SIZE), wrap=[{"name": "balance"}])


@pytest.mark.parametrize("name, argument, limits, wrong", [
    *((name, "tau", "above 0", [0, -0.5, math.nan, math.inf, "1e-3", True]) for name in
      ("simclr", "lotar", "sdclr", "moco", "dcl", "dclw")),
    ("moco", "momentum", "from 0 to 1", [-0.1, 1.01]), ("tico", "momentum", "from 0 to 1", [99]),
    ("tico", "beta", "from 0 to 1", [-1]), ("tico", "rho", "from 0", [-8]), ("barlow", "lam", "from 0", [-0.1]),
    ("vicreg", "lam", "from 0", [-25]), ("vicreg", "mu", "from 0", [None]), ("vicreg", "nu", "from 0", [[1]]),
    ("sdclr", "prune_share", "from 0 and below 1", [1, 90]), ("dclw", "sigma", "above 0", [0]),
    ("mae", "mask_ratio", "above 0 and below 1", [0, 1, 1.5, -0.5, 75]),
])
def test_a_number_that_cannot_be_is_refused_in_one_line(name, argument, limits, wrong):
    for value in wrong:
        with pytest.raises(ValueError, match=f"^{argument} is {re.escape(repr(value))}; give a number {limits}$"):
            make(name, **{argument: value})


def test_ends_that_will_do_are_taken():
    assert make("moco", momentum=1).momentum == 1 and make("tico", beta=0, rho=0).beta == 0
    with pytest.raises(ValueError, match="^weights is -1; give a number from 0$"):
        build("simclr", Encoder(**RESNET, size=SIZE), Augment("simclr", SIZE), wrap=[
            {"name": "intermediate", "weights": [1, 1, -1, 1]}])


# --- masked autoencoder -----------------------------------------------------------------------------------------------

def test_mae_encoder_never_sees_what_was_removed():
    method = make("mae").eval()
    x, noise = draw_views(method)
    _, mask = random_masking(noise, method.mask_ratio)
    removed = mask.view(-1, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3).expand_as(x) > 0
    other = torch.where(removed, 1 - x, x)
    assert torch.equal(method.encode(x, noise)[0], method.encode(other, noise)[0])
    visible = torch.where(removed, x, 1 - x)
    assert not torch.equal(method.encode(x, noise)[0], method.encode(visible, noise)[0])
    assert not torch.equal(method(x, noise).loss, method(other, noise).loss)  # the targets do change


def test_mae_decoder_puts_tokens_back_in_their_places():
    """With an encoder that passes patches on and a decoder that copies, visible patches come back where they were."""
    method = make("mae").eval()
    x, noise = draw_views(method)
    keep, mask = random_masking(noise, 0.75)
    assert keep.shape == (8, 4) and torch.equal(mask.sum(1), torch.full((8,), 12.0))
    tokens = torch.randn(8, 1 + 4, 16, generator=torch.Generator().manual_seed(0))
    method.decoder = torch.nn.Identity()
    out = method.decode(tokens, keep) - method.positions
    expected = method.embed(tokens[:, 1:])
    torch.testing.assert_close(out.gather(1, keep[:, :, None].expand(-1, -1, 8)), expected)
    torch.testing.assert_close(out[mask > 0], method.mask_token[0].expand(8 * 12, -1))


def test_mae_positions_are_fixed_distinct_and_follow_row_and_column():
    grid = sincos_positions(7, 7, 16).view(7, 7, 16)
    assert torch.equal(grid[2, 1, :8], grid[2, 6, :8]) and torch.equal(grid[1, 2, 8:], grid[6, 2, 8:])
    assert torch.equal(grid[3, 5, :8], grid[5, 3, 8:])
    assert len(grid.view(49, 16).unique(dim=0)) == 49
    torch.testing.assert_close(grid[3, 0, [0, 4]], torch.tensor([3.0, 3.0]).sin() * torch.tensor([1, 0])
                               + torch.tensor([3.0, 3.0]).cos() * torch.tensor([0, 1]))
    method = make("mae")
    before = method.encoder.backbone.pos_embed.clone()
    assert torch.equal(before[0, 1:], sincos_positions(4, 4, 16)) and not before[0, 0].any()
    method(*draw_views(method)).loss.mean().backward()
    assert method.encoder.backbone.pos_embed.grad is None


@pytest.mark.parametrize("pooling", [{"global_pool": "token"}, {"global_pool": "avg", "fc_norm": False}])
def test_mae_represents_by_class_token_or_by_mean_of_patches(pooling):
    torch.manual_seed(0)
    encoder = Encoder(VIT["name"], VIT["args"] | pooling, size=SIZE)
    method = build("mae", encoder, Augment("mae", SIZE), **SMALL["mae"][1]).eval()
    x, noise = draw_views(method)
    step = method(x, noise)
    method.mask_ratio = 0  # with every patch visible the pass of pretraining is that of downstream work
    assert step.feats[0].h.shape == (8, 16)
    torch.testing.assert_close(method.encoder.backbone.forward_head(method.encode(x, noise)[0], pre_logits=True),
                               encoder(x).h, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling, layer", [({"global_pool": "avg"}, "fc_norm"), ({"global_pool": "map"}, "attn_pool")])
def test_mae_refuses_a_layer_that_it_would_not_train(pooling, layer):
    with pytest.raises(ValueError, match=f"^MAE would leave {layer} of vit_tiny_patch16_224 untrained"):
        build("mae", Encoder(VIT["name"], VIT["args"] | pooling, size=SIZE), Augment("mae", SIZE))


@pytest.mark.parametrize("norm_pix", [False, True])
def test_mae_panel_pastes_only_what_was_removed(norm_pix):
    method = make("mae", norm_pix=norm_pix).eval()
    x, noise = draw_views(method)
    panel = method.reconstruct(x, noise)
    gone = (panel["removed"] > 0).expand_as(x)
    assert panel["removed"].mean() == 0.75
    assert all(0 <= panel[name].min() and panel[name].max() <= 1 for name in panel)
    for name in ("masked", "pasted", "floor"):
        assert torch.equal(panel[name][~gone], x[~gone])
    assert torch.equal(panel["pasted"][gone], panel["reconstruction"][gone])
    colour = panel["masked"][0, :, gone[0, 0]]
    torch.testing.assert_close(colour, x[0, :, ~gone[0, 0]].mean(1, keepdim=True).expand_as(colour))

    own_mean = x.view(-1, 3, 4, 4, 4, 4).mean((1, 3, 5), keepdim=True).expand(-1, 3, -1, 4, -1, 4).reshape(x.shape)
    torch.testing.assert_close(panel["floor"][gone], (own_mean if norm_pix else panel["masked"])[gone])

    psnr, ssim = masked_quality(x, (x - 0.1 * panel["removed"]), panel["removed"])
    np.testing.assert_allclose(psnr, 20, atol=1e-3)  # an error of 0.1 of the range in every removed pixel
    assert ssim.shape == (8,) and (ssim < 1).all()
    assert np.isinf(masked_quality(x, x * (1 - panel["removed"]) + x * panel["removed"], panel["removed"])[0]).all()


def test_mae_refuses_what_it_cannot_cut_into_patches():
    augment = Augment("mae", SIZE)
    with pytest.raises(ValueError, match="MAE needs a vision transformer.*resnet10t has no patch_embed"):
        build("mae", Encoder(**RESNET, size=SIZE), augment)
    with pytest.raises(ValueError, match="18 px cannot be cut into patches of 4 px"):
        build("mae", Encoder(**VIT, size=18), augment)
    with pytest.raises(ValueError, match="mask_ratio 0.99 removes 16 of 16 patches"):
        make("mae", mask_ratio=0.99)
    with pytest.raises(ValueError, match="decoder_width is 10"):
        make("mae", decoder_width=10)
