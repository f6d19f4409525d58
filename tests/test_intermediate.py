"""Losses between intermediate layers: two distances, and a wrapper that reaches every encoder of its base."""

import math

import pytest
import torch

from ssl_core.augment import Augment
from ssl_core.encoders import Encoder, load_encoder, save_encoder
from ssl_core.methods import build
from ssl_core.methods.base import Method, Step
from ssl_core.methods.intermediate import Intermediate, barlow_distance, mse_distance
from ssl_core.methods.simclr import nt_xent

HALVES = (torch.float16, torch.bfloat16)
RESNET = {"name": "resnet10t", "args": {"channels": [8, 8, 16, 16]}, "stem": "cifar"}
VIT = {"name": "vit_tiny_patch16_224", "args": {"patch_size": 4, "embed_dim": 16, "depth": 5, "num_heads": 2}}
SIZE = 16


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- mean squared error of pooled maps --------------------------------------------------------------------------------

def mse_distance_by_hand(map1, map2, pool):
    """Cell by cell: cell i of p covers rows ⌊i·H/p⌋ to ⌈(i + 1)·H/p⌉."""
    def pooled(image, row, column):
        height, width = len(image), len(image[0])
        values = [image[i][j]
                  for i in range(math.floor(row * height / pool), math.ceil((row + 1) * height / pool))
                  for j in range(math.floor(column * width / pool), math.ceil((column + 1) * width / pool))]
        return sum(values) / len(values)

    losses = []
    for a, b in zip(map1.tolist(), map2.tolist()):
        squares = [(pooled(a[c], i, j) - pooled(b[c], i, j)) ** 2
                   for c in range(len(a)) for i in range(pool) for j in range(pool)]
        losses.append(sum(squares) / len(squares))
    return losses


def test_mse_distance_is_known_for_a_constant_and_for_a_difference_that_pooling_removes():
    flat = torch.ones(3, 5, 8, 8, dtype=torch.float64)
    stripes = torch.ones(3, 5, 8, 8, dtype=torch.float64)
    stripes[..., ::2] = -1  # mean 0 over each cell of 2 × 2
    for pool in (1, 4):
        torch.testing.assert_close(mse_distance(flat, -2 * flat, pool), torch.full((3,), 9.0, dtype=torch.float64))
        torch.testing.assert_close(mse_distance(flat, stripes, pool), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(mse_distance(flat, stripes, 8), torch.full((3,), 2.0, dtype=torch.float64))
    assert not mse_distance(stripes, stripes, 4).any()


@pytest.mark.parametrize("size", [4, 7])
@pytest.mark.parametrize("pool", [1, 4])
def test_mse_distance_equals_its_definition(pool, size):
    map1, map2 = draw(3, 2, size, size, seed=1), draw(3, 2, size, size, seed=2)
    expected = torch.tensor(mse_distance_by_hand(map1, map2, pool), dtype=torch.float64)
    torch.testing.assert_close(mse_distance(map1, map2, pool), expected, atol=1e-6, rtol=0)


def test_a_grid_finer_than_the_map_compares_the_map_itself():
    map1, map2 = draw(3, 2, 4, 4, seed=1), draw(3, 2, 4, 4, seed=2)
    torch.testing.assert_close(mse_distance(map1, map2, 16), (map1 - map2).square().mean((1, 2, 3)))


def test_mse_distance_follows_a_permutation_and_ignores_the_order_of_views_and_other_images():
    map1, map2, turned = draw(4, 2, 6, 6, seed=1), draw(4, 2, 6, 6, seed=2), torch.tensor([2, 0, 3, 1])
    loss = mse_distance(map1, map2, 3)
    torch.testing.assert_close(mse_distance(map1[turned], map2[turned], 3), loss[turned])
    torch.testing.assert_close(mse_distance(map2, map1, 3), loss)
    torch.testing.assert_close(mse_distance(map1[:1], map2[:1], 3), loss[:1])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [65504.0, 6e-8])
def test_mse_distance_is_finite_at_the_ends_of_half_precision(dtype, size):
    map1, map2 = ((size * draw(4, 8, 8, 8, seed=s).sign()).to(dtype).requires_grad_() for s in (1, 2))
    loss = mse_distance(map1, map2, 4)
    loss.mean().backward()
    assert loss.dtype == torch.float32 and loss.isfinite().all()
    assert map1.grad.isfinite().all() and map2.grad.isfinite().all()


# --- cross-correlation ------------------------------------------------------------------------------------------------

def barlow_distance_by_hand(z1, z2, lam):
    def standardised(column):
        mean = sum(column) / len(column)
        variance = sum((v - mean) ** 2 for v in column) / len(column)
        return [(v - mean) / math.sqrt(variance + 1e-5) for v in column]

    one, two = ([standardised(column) for column in z.T.tolist()] for z in (z1, z2))
    total = 0
    for i, a in enumerate(one):
        for j, b in enumerate(two):
            c = sum(u * v for u, v in zip(a, b)) / len(a)
            total += (c - 1) ** 2 if i == j else c**2
    return lam * total / 32


def test_barlow_distance_is_known_for_views_that_agree_oppose_or_do_not_correlate():
    z = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)  # C is the identity
    for other, distance in ((z, 0), (-z, 2 * 4), (z.flip(1), 2 + 2), (torch.zeros_like(z), 2)):
        torch.testing.assert_close(barlow_distance(1000 * z, 7 * other, 0.5),
                                   torch.full((4,), 0.5 / 32 * distance, dtype=torch.float64), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("lam", [5e-5, 1.0])
def test_barlow_distance_equals_the_authors_sum(lam):
    z1, z2 = draw(6, 4, seed=1), draw(6, 4, seed=2)
    expected = torch.full((6,), barlow_distance_by_hand(z1, z2, lam), dtype=torch.float64)
    torch.testing.assert_close(barlow_distance(z1, z2, lam), expected, atol=1e-6, rtol=0)


def test_barlow_distance_ignores_the_order_of_images_and_of_views():
    z1, z2, turned = draw(6, 4, seed=1), draw(6, 4, seed=2), torch.tensor([2, 0, 3, 1, 5, 4])
    distance = barlow_distance(z1, z2, 1.0)
    torch.testing.assert_close(barlow_distance(z1[turned], z2[turned], 1.0), distance)
    torch.testing.assert_close(barlow_distance(z2, z1, 1.0), distance)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("size", [65504.0, 6e-8])
def test_barlow_distance_is_finite_at_the_ends_of_half_precision(dtype, size):
    z1, z2 = ((size * draw(8, 64, seed=s).sign()).to(dtype).requires_grad_() for s in (1, 2))
    distance = barlow_distance(z1, z2, 5e-5)
    distance.mean().backward()
    assert distance.dtype == torch.float32 and distance.isfinite().all()
    assert z1.grad.isfinite().all() and z2.grad.isfinite().all()


# --- the wrapper ------------------------------------------------------------------------------------------------------

BASES = {"simclr": {}, "moco": {"queue": 11, "dim": 6}}
BARLOW = {"distance": "barlow", "projector": [8, 8, 8]}


def make(base="simclr", encoder=RESNET, **options):
    torch.manual_seed(0)
    return build(base, Encoder(**encoder, size=SIZE), Augment("simclr", SIZE), 44, 0,
                 [{"name": "intermediate", **options}], **BASES.get(base, {}))


def draw_views(method, n=8):
    images = torch.randint(0, 256, (n, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return method.views(images, torch.arange(n), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("options", [{}, BARLOW])
def test_a_weight_of_0_leaves_the_loss_of_the_base(base, options):
    with_weights, method = make(base, **options), make(base, weights=[0, 0, 0, 0], **options)
    views = draw_views(method)
    expected = make(base, **options).base(*views).loss
    assert torch.equal(method(*views).loss, expected)
    assert (with_weights(*views).loss > expected).all()


@pytest.mark.parametrize("base", BASES)
def test_the_loss_is_that_of_the_base_and_each_layers_weighted_distance(base):
    weights, pools = [1.0, 0.5, 0.0, 2.0], [1, 2, 4, 2]
    method = make(base, weights=weights, pools=pools)
    views = draw_views(method)
    step = method(*views)
    expected = make(base).base(*views).loss
    for weight, pool, map1, map2 in zip(weights, pools, *(f.maps for f in step.feats)):
        expected = expected + weight * mse_distance(map1, map2, pool)
    torch.testing.assert_close(step.loss, expected)


def test_barlow_projects_each_layers_mean_by_one_projector_for_both_views():
    method = make("moco", weights=[0, 0, 3.0, 0], **BARLOW)
    layers = list(method.projectors[2])
    assert [type(layer).__name__ for layer in layers] == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert all(layer.bias is None for layer in layers[::3])
    assert [p[0].in_features for p in method.projectors] == [8, 8, 16, 16]
    views = draw_views(method)
    step = method(*views)
    z1, z2 = (method.projectors[2](f.maps[2].mean((2, 3))) for f in step.feats)
    expected = make("moco", **BARLOW).base(*views).loss + barlow_distance(z1, z2, 3.0)
    torch.testing.assert_close(step.loss, expected)


def test_defaults_are_those_of_the_paper():
    assert make().weights == (0.25,) * 4 and make().pools == (16, 16, 4, 4)
    method = make(distance="barlow")
    assert method.weights == (5e-5,) * 4
    assert [p[-1].out_features for p in method.projectors] == [2048] * 4


def test_the_taps_are_the_outputs_of_the_four_stages():
    method = make()
    seen, backbone = {}, method.encoder.backbone
    hooks = [getattr(backbone, name).register_forward_hook(lambda module, _, out, name=name: seen.update({name: out}))
             for name in ("layer1", "layer2", "layer3", "layer4")]
    x = draw_views(method)[0]
    maps = method.encoder(x).maps
    for hook in hooks:
        hook.remove()
    assert len(maps) == 4 and all(torch.equal(one, other) for one, other in zip(maps, seen.values()))
    assert [m.shape[1:] for m in maps] == [(8, 16, 16), (8, 8, 8), (16, 4, 4), (16, 2, 2)]


@pytest.mark.parametrize("base", BASES)
def test_two_identical_views_are_at_no_distance(base):
    method = make(base)
    x = draw_views(method)[0]
    step = method(x, x)  # the key encoder starts as a copy of the other
    torch.testing.assert_close(step.loss, make(base).base(x, x).loss, atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", [{}, BARLOW])
def test_the_distance_alone_reaches_layer1_and_never_the_key_encoder(options):
    method = make("moco", weights=[1, 0, 0, 0], **options)
    step = method(*draw_views(method))
    method.distance_at(0, *(f.maps[0] for f in step.feats)).mean().backward()
    layer1 = [p.grad for p in method.encoder.backbone.layer1.parameters()]
    assert None not in layer1 and sum(grad.abs().sum() for grad in layer1) > 0
    assert all(p.grad is None for p in method.encoder.backbone.layer2.parameters())
    assert all(m.requires_grad for m in step.feats[0].maps) and not any(m.requires_grad for m in step.feats[1].maps)
    assert all(p.grad is None for p in method.base.key_encoder.parameters())


def test_wrapping_leaves_weights_and_batch_statistics_of_the_base_as_they_were():
    torch.manual_seed(0)
    bare = build("moco", Encoder(**RESNET, size=SIZE), Augment("simclr", SIZE), 44, 0, queue=11, dim=6).state_dict()
    method = make("moco")
    wrapped = method.base.state_dict()
    assert bare.keys() == wrapped.keys() and all(torch.equal(bare[name], wrapped[name]) for name in bare)
    assert all(module.training for module in method.modules())


def test_the_encoder_file_does_not_know_of_taps(tmp_path):
    method = make()
    save_encoder(method.encoder, tmp_path / "tapped", "k")
    method.encoder.taps = ()
    save_encoder(method.encoder, tmp_path / "bare", "k")
    assert (tmp_path / "tapped").read_bytes() == (tmp_path / "bare").read_bytes()
    assert load_encoder(tmp_path / "tapped").taps == ()


@pytest.mark.parametrize("distance", [{}, BARLOW])
def test_it_wraps_methods_around_transformers_too(distance):
    method = make("simclr", VIT, taps=[0, 3], **({"pools": [2, 2]} if not distance else distance))
    step = method(*draw_views(method))
    assert [m.shape for m in step.feats[0].maps] == [(8, 16, 4, 4)] * 2 and step.loss.isfinite().all()


def test_nonsense_is_refused_in_one_line_at_construction():
    with pytest.raises(ValueError, match='distance \'l1\' is unknown; give "mse" or "barlow"'):
        make(distance="l1")
    with pytest.raises(ValueError, match="4 taps and 3 weights; give one for each tap"):
        make(weights=[1, 1, 1])
    with pytest.raises(ValueError, match="2 taps and 4 pools"):
        make(taps=[3, 4])
    for taps in ([1, 2, 3, 5], [4, 3, 2, 1], [1, 1, 2, 3], [-1, 1, 2, 3]):
        with pytest.raises(ValueError, match=r"resnet10t has 5 maps, numbered from 0, and taps is \["):
            make(taps=taps)
    with pytest.raises(ValueError, match="MAE does not give the maps of two views of an image; wrap a method that"):
        make("mae", VIT)


class OneView(Method):
    def views(self, images, index, generator=None):
        return (self.augment(images, generator),)

    def forward(self, x):
        f = self.encoder(x)
        return Step(f.h.sum(1), (f,), (f.h,))


class NoMaps(Method):
    def forward(self, x1, x2):
        z1, z2 = (self.encoder(x).h for x in (x1, x2))
        return Step(nt_xent(z1, z2, 0.5), (), (z1, z2))


@pytest.mark.parametrize("base", [OneView, NoMaps])
def test_a_base_without_maps_of_two_views_is_refused_at_construction(base):
    with pytest.raises(ValueError, match=f"{base.__name__} does not give the maps of two views"):
        Intermediate(base(Encoder(**RESNET, size=SIZE), Augment("simclr", SIZE)))


def test_a_smaller_distance_is_what_training_finds():
    method = make(weights=[1, 1, 1, 1])
    x1, x2 = draw_views(method)
    optimiser = torch.optim.SGD(method.encoder.parameters(), lr=0.05)
    distances = []
    for _ in range(15):
        added = method(x1, x2).loss.mean() - method.base(x1, x2).loss.mean()
        optimiser.zero_grad()
        added.backward()
        optimiser.step()
        distances.append(float(added.detach()))
    assert distances[-1] < 0.7 * distances[0]
