"""SDCLR: the mask, the pruned branch with its own norm layers, and the gradients of the authors' three passes."""

import math

import pytest
import test_methods as contract
import torch
from test_methods import SIZE, VIT, draw_views
from torch import nn
from torch.func import functional_call

from ssl_core.augment import Augment
from ssl_core.encoders import Encoder
from ssl_core.methods import build
from ssl_core.methods.sdclr import copy_norms, magnitude_mask, prunable, tensors
from ssl_core.methods.simclr import nt_xent
from ssl_core.presets import preset

RESNET = {"name": "resnet10t", "args": {"channels": [16, 16, 32, 64]}, "stem": "cifar"}
NETWORKS = {"resnet": (RESNET, "conv"), "vit": (VIT, "matrices")}


def make(network="resnet", **changes):
    encoder, prune = NETWORKS[network]
    torch.manual_seed(0)
    return build("sdclr", Encoder(**encoder, size=SIZE), Augment("simclr", SIZE), **{"prune": prune} | changes)


def settle(method):
    """Norm layers no longer equal to their copies, as after training; zeros in a residual's last norm gone."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in method.state_dict().items():
        if "norm" in name or "bn" in name or name.startswith(("projector.1.", "projector.4.")):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return method


def dense(method, x):
    return method.projector(method.encoder(x).h)


def pruned(method, x):
    h = functional_call(method.encoder, method.masked() | tensors(method.norms["encoder"]), x).h
    return functional_call(method.projector, tensors(method.norms["projector"]), h)


@pytest.fixture(params=NETWORKS)
def network(request):
    return request.param


# --- the mask ---------------------------------------------------------------------------------------------------------

def test_magnitude_mask_is_known_for_weights_in_order():
    weights = torch.tensor([0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, -0.8, 0.9, -1.0], dtype=torch.float64)
    for gone in range(10):
        assert magnitude_mask(weights, gone / 10).tolist() == [False] * gone + [True] * (10 - gone)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9, 0.99])
def test_magnitude_mask_equals_pruning_one_weight_after_the_other(share):
    weights = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left = dict(enumerate(weights.tolist()))
    while 200 - len(left) < round(share * 200):
        del left[min(left, key=lambda i: abs(left[i]))]
    assert magnitude_mask(weights, share).tolist() == [i in left for i in range(200)]


def test_magnitude_mask_follows_a_permutation_and_ignores_signs_and_scale():
    weights = torch.randn(50, generator=torch.Generator().manual_seed(0))
    mask, turned = magnitude_mask(weights, 0.7), torch.randperm(50, generator=torch.Generator().manual_seed(1))
    assert torch.equal(magnitude_mask(weights[turned], 0.7), mask[turned])
    assert torch.equal(magnitude_mask(-3 * weights, 0.7), mask)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_magnitude_mask_holds_at_the_ends_of_half_precision_and_where_weights_are_equal(dtype):
    weights = torch.tensor([65504.0, 6e-8, -6e-8, -65504.0], dtype=dtype)
    assert magnitude_mask(weights, 0.5).tolist() == [True, False, False, True]
    assert magnitude_mask(torch.zeros(1000, dtype=dtype), 0.9).sum() == 100
    assert (weights * magnitude_mask(weights, 0.5)).isfinite().all()


# --- what is pruned ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("share", [0.3, 0.9])
def test_the_smallest_weights_of_all_layers_together_are_pruned(network, share):
    method = make(network, prune_share=share)
    weights, masked = prunable(method.encoder, method.prune), method.masked()
    total = sum(w.numel() for w in weights.values())
    gone = sum((w == 0).sum().item() for w in masked.values())
    assert abs(gone - share * total) <= 1 and method.mask.numel() == total
    largest_gone = max(w[masked[name] == 0].abs().max() for name, w in weights.items() if (masked[name] == 0).any())
    smallest_left = min(w[masked[name] != 0].abs().min() for name, w in weights.items() if masked[name].any())
    assert largest_gone <= smallest_left
    assert all(torch.equal(masked[name][masked[name] != 0], w[masked[name] != 0]) for name, w in weights.items())
    shares = [(masked[name] == 0).float().mean() for name in weights]
    assert max(shares) - min(shares) > 0.05  # one threshold for all, not one for each layer


@pytest.mark.parametrize("name", ["official", "thesis"])
def test_the_published_competitor_lacks_nine_tenths_and_has_norm_layers_of_its_own(name):
    given = preset("sdclr", name)["method_args"]
    assert (given["prune"], given["prune_share"], given["tau"]) == ("conv", 0.9, 0.2)
    method = make(**given | {"projector": [16] * len(given["projector"])}).train()
    weights = torch.cat([w.flatten() for w in prunable(method.encoder, "conv").values()])
    assert (~method.mask).sum() == round(0.9 * len(weights))
    assert weights[~method.mask].abs().max() <= weights[method.mask].abs().min()

    def statistics():
        own, dense = tensors(method.norms["encoder"]), method.encoder.state_dict()
        return [torch.equal(own[name], dense[name]) for name in own if name.endswith("running_mean")]

    assert len(statistics()) > 4 and all(statistics())
    x1, _ = draw_views(method)
    step = method(x1, x1)
    torch.testing.assert_close(step.loss, nt_xent(*step.z, 0.2))
    assert not any(statistics())


def test_prune_takes_the_layers_it_names():
    resnet, vit = make("resnet"), make("vit")
    assert all(w.ndim == 4 for w in prunable(resnet.encoder, "conv").values())
    assert prunable(resnet.encoder, "conv").keys() == prunable(resnet.encoder, "matrices").keys()
    assert prunable(vit.encoder, "conv").keys() == {"backbone.patch_embed.proj.weight"}
    names = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert prunable(vit.encoder, "matrices").keys() == {"backbone.patch_embed.proj.weight"} | {
        f"backbone.blocks.{i}.{name}.weight" for i in range(2) for name in names}


def test_a_pruned_weight_gets_no_gradient_from_the_pruned_branch(network):
    method = settle(make(network)).train()
    weights = prunable(method.encoder, method.prune)
    x1, x2 = draw_views(method)
    pruned(method, x2).square().sum().backward()
    for mask, w in zip(method.mask.split([w.numel() for w in weights.values()]), weights.values()):
        assert not w.grad[~mask.view_as(w)].any()
    assert sum(w.grad.abs().sum() for w in weights.values()) > 0
    method.zero_grad()
    method(x1, x2).loss.mean().backward()  # and some from the dense one
    gone = torch.cat([w.grad.flatten() for w in weights.values()])[~method.mask]
    assert (gone != 0).float().mean() > 0.5


def test_masks_come_from_the_dense_weights_alone_and_change_with_them(network):
    method, other = make(network), make(network)
    first = method.mask.clone()
    other.mask.fill_(True)
    for norm in other.norms.modules():
        if isinstance(norm, nn.LayerNorm):
            nn.init.normal_(norm.weight)
    other.begin_epoch(7)
    assert torch.equal(other.mask, first)
    for w in prunable(method.encoder, method.prune).values():
        nn.init.normal_(w)
    assert torch.equal(method.mask, first)  # the whole epoch has one mask
    method.begin_epoch(1)
    assert not torch.equal(method.mask, first)
    other.load_state_dict(method.state_dict())
    other.begin_epoch(1)
    assert torch.equal(other.mask, method.mask)


# --- two branches -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("train", [True, False])
def test_the_first_view_is_dense_the_second_pruned_and_they_differ(network, train):
    method = settle(make(network)).train(train)
    x1, x2 = draw_views(method)
    step, same = method(x1, x2), method(x1, x1)
    torch.testing.assert_close(step.z[0], dense(method, x1))
    torch.testing.assert_close(step.z[1], pruned(method, x2))
    assert (same.z[0] - same.z[1]).abs().mean() > 0.01
    assert (same.feats[0].h - same.feats[1].h).abs().mean() > 0.01
    torch.testing.assert_close(step.loss, nt_xent(*step.z, 0.2))


def test_the_branches_differ_by_the_mask_even_with_equal_norms(network):
    method = make(network, prune_share=0.5).train()  # as built, with zeros in each residual's last norm
    x1, _ = draw_views(method)
    step = method(x1, x1)
    assert (step.z[0] - step.z[1]).abs().mean() > 0.01


def test_with_nothing_pruned_and_equal_norms_it_is_simclr_with_a_pass_for_each_view(network):
    method = make(network, prune_share=0.0, tau=0.5).train()
    x1, x2 = draw_views(method)
    torch.testing.assert_close(method(x1, x2).loss, nt_xent(dense(method, x1), dense(method, x2), 0.5))


def test_each_branch_writes_its_own_statistics_only():
    method = make("resnet").train()
    x1, x2 = draw_views(method)
    before = {name: t.clone() for name, t in method.state_dict().items()}

    def changed():
        return {name for name, t in method.state_dict().items() if not torch.equal(t, before[name])}

    pruned(method, x2)
    own = changed()
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert own == {name for name in before if name.startswith("norms.") and name.endswith(statistics)}
    assert {name.split(".")[1] for name in own} == {"encoder", "projector"}
    method.load_state_dict(before)
    dense(method, x1)
    assert changed() == {name for name in before if name.startswith(("encoder.", "projector."))
                         and name.endswith(statistics)}


def test_each_branch_trains_its_own_norms(network):
    method = settle(make(network)).train()
    norms = {"dense": [], "own": list(method.norms.parameters())}
    for part in (method.encoder, method.projector):
        norms["dense"] += [part.get_parameter(f"{place.replace('/', '.')}.{name}")
                           for place, layer in copy_norms(part).items() for name, _ in layer.named_parameters()]
    assert len(norms["own"]) == len(norms["dense"]) > 4
    for branch, norm in ((dense, "dense"), (pruned, "own")):
        method.zero_grad()
        branch(method, draw_views(method)[0]).square().sum().backward()
        assert {kind: {p.grad is not None for p in norms[kind]} for kind in norms} == {
            kind: {kind == norm} for kind in norms}
    method.zero_grad()
    method(*draw_views(method)).loss.mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in method.norms["encoder"].parameters())


def test_every_norm_layer_is_copied_whatever_its_kind():
    convnext = Encoder("convnextv2_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}, size=64)
    kinds = {type(layer).__name__ for layer in copy_norms(convnext).values()}
    assert kinds == {"LayerNorm2d", "GlobalResponseNorm"}  # and no GlobalResponseNormMlp, which has layers inside
    encoder = make("resnet").encoder
    names = {name for name in encoder.state_dict() if encoder.state_dict()[name].ndim < 2}
    assert tensors(copy_norms(encoder)).keys() == names  # in a ResNet all but the convolutions


# --- one backward pass, where the authors make two --------------------------------------------------------------------

@pytest.mark.parametrize("train", [True, False])
def test_gradients_equal_those_of_the_authors_three_passes(network, train):
    x1, x2 = (view.double() for view in draw_views(make(network)))

    joint = settle(make(network)).double().train(train)
    loss = joint(x1, x2).loss.mean()
    loss.backward()

    three = settle(make(network)).double().train(train)
    with torch.no_grad():
        z2 = pruned(three, x2)
    z1 = dense(three, x1)
    first = nt_xent(z1, z2, 0.2).mean()
    first.backward()
    nt_xent(z1.detach(), pruned(three, x2), 0.2).mean().backward()

    assert math.isclose(loss.item(), first.item(), rel_tol=1e-12)
    for (name, one), other in zip(joint.named_parameters(), three.parameters()):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=1e-6, msg=name)
    assert all(one.grad is not None for one in joint.parameters())


# --- the contract, for a transformer ----------------------------------------------------------------------------------

@pytest.fixture
def transformer(monkeypatch):
    monkeypatch.setitem(contract.SMALL, "sdclr", (VIT, {"prune": "matrices"}))


@pytest.mark.parametrize("kept", [
    contract.test_loss_is_one_finite_number_per_image_and_its_gradient_reaches_the_encoder,
    contract.test_forward_writes_no_state, contract.test_equal_seeds_build_equal_methods])
def test_a_transformer_keeps_the_contract(transformer, kept):
    kept("sdclr")


@pytest.mark.parametrize("inside", [False, True])
def test_a_killed_run_of_a_transformer_ends_with_the_same_bits(transformer, inside, tmp_path, monkeypatch):
    contract.test_a_killed_run_ends_with_the_same_bits("sdclr", inside, tmp_path, monkeypatch)


def test_a_run_that_rests_inside_an_epoch_keeps_that_epochs_mask():
    method, resumed = make(), make()
    for w in prunable(method.encoder, "conv").values():
        nn.init.normal_(w)
    resumed.load_state_dict(method.state_dict())
    assert torch.equal(resumed.mask, method.mask)
    resumed.begin_epoch(1)
    assert not torch.equal(resumed.mask, method.mask)


def test_a_competitor_that_sees_nothing_is_warned_of():
    narrow = Encoder(**contract.RESNET, size=SIZE)  # its stem is the widest layer, with the smallest weights
    with pytest.warns(UserWarning, match="pruning takes all of backbone.conv1.weight in epoch 1: .*; lower"):
        build("sdclr", narrow, Augment("simclr", SIZE))
    build("sdclr", narrow, Augment("simclr", SIZE), prune_share=0.5)


# --- refusals ---------------------------------------------------------------------------------------------------------

def test_what_cannot_be_pruned_is_refused_in_one_line():
    with pytest.raises(ValueError, match="half or more can be pruned; of vit_tiny_patch16_224 prune 'conv' reaches "
                                         r"\d+%, prune 'matrices' reaches 9\d%$"):
        make("vit", prune="conv")
    with pytest.raises(ValueError, match="prune 'all' is unknown; there are: conv, matrices"):
        make(prune="all")
    for share in (1, -0.1, 90):
        with pytest.raises(ValueError, match=f"prune_share is {share}; give"):
            make(prune_share=share)
