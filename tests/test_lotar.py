"""LoTaR: its weights, and NT-Xent under them, each against the formula of the thesis's README."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_methods import draw_views, make

from ssl_core.methods.lotar import lotar_weights
from ssl_core.methods.simclr import nt_xent
from ssl_core.presets import preset

FORMS = [{}, {"sign": "-", "detach": False}, {"distance": "sq_l2", "space": "unit"}, {"space": "unit"}]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lotar(z1, z2, tau, **form):
    return lotar_weights(z1, z2, **form) * nt_xent(z1, z2, tau)


def lotar_by_hand(z1, z2, tau, sign="+", distance="l2", space="raw", detach=True, weighed_at=None):
    """Image by image; both anchors of an image have its weight, which is that of weighed_at where z1 has moved."""
    def unit(v):
        return [a / math.sqrt(sum(b * b for b in v)) for a in v]

    at = (z1 if weighed_at is None else weighed_at).tolist()
    z1, z2 = z1.tolist(), z2.tolist()
    d = []
    for u, v in zip(at, z2):
        u, v = (unit(u), unit(v)) if space == "unit" else (u, v)
        squared = sum((a - b) ** 2 for a, b in zip(u, v))
        d.append(squared if distance == "sq_l2" else math.sqrt(squared))
    mean, spread = sum(d) / len(d), max(d) - min(d)
    w = [1 + (1 if sign == "+" else -1) * (one - mean) / spread for one in d]

    z, n, loss = [unit(v) for v in z1 + z2], len(z1), [0.0] * len(z1)
    for i in range(2 * n):
        sims = [math.exp(sum(a * b for a, b in zip(z[i], z[k])) / tau) for k in range(2 * n)]
        loss[i % n] += w[i % n] * -math.log(sims[(i + n) % (2 * n)] / (sum(sims) - sims[i])) / 2
    return loss


@pytest.mark.parametrize("sign, expected", [("+", [0.75, 0.75, 0.75, 1.75]), ("-", [1.25, 1.25, 1.25, 0.25])])
@pytest.mark.parametrize("distance", ["l2", "sq_l2"])
def test_lotar_is_known_when_one_pair_of_four_is_apart(sign, expected, distance):
    z1 = 5.0 * torch.eye(4, dtype=torch.float64)
    z2 = z1.clone()
    z2[3] *= 3  # apart in raw space; as directions all pairs agree: one positive at 1, six negatives at 0
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(lotar_weights(z1, z2, sign, distance), expected)
    torch.testing.assert_close(lotar(z1, z2, 0.2, sign=sign, distance=distance),
                               expected * (math.log(math.exp(5) + 6) - 5))


@pytest.mark.parametrize("form", FORMS)
def test_lotar_equals_its_formula(form):
    z1, z2 = draw(5, 3, seed=1), draw(5, 3, seed=2)
    torch.testing.assert_close(lotar(z1, z2, 0.2, **form),
                               torch.tensor(lotar_by_hand(z1, z2, 0.2, **form), dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_lotar_and_its_gradient_equal_the_formula_with_weights_held_or_not(form):
    """The gradient against differences of the formula, in which weights that are detached stay as they were."""
    z1, z2 = draw(5, 3, seed=1).requires_grad_(), draw(5, 3, seed=2)
    loss = lotar(z1, z2, 0.2, **form)
    assert loss.tolist() == pytest.approx(lotar_by_hand(z1, z2, 0.2, **form), abs=1e-6)

    def moved(step):
        return sum(lotar_by_hand(z1 + step, z2, 0.2, **form, weighed_at=z1 if form.get("detach", True) else None))

    steps = 1e-5 * torch.eye(15, dtype=torch.float64).view(15, 5, 3)
    slopes = torch.tensor([(moved(step) - moved(-step)) / 2e-5 for step in steps], dtype=torch.float64)
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), z1)[0].flatten(), slopes, atol=1e-6, rtol=0)
    published = [[preset("lotar", name)["method_args"][option] for option in ("sign", "distance", "space", "detach")]
                 for name in ("readme", "code")]
    assert published == [["+", "l2", "raw", True], ["-", "l2", "raw", False]]


@pytest.mark.parametrize("form", FORMS)
def test_lotar_follows_a_permutation_of_images_and_ignores_the_order_of_views(form):
    z1, z2 = draw(6, 4, seed=1), draw(6, 4, seed=2)
    loss, turned = lotar(z1, z2, 0.2, **form), torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(lotar(z1[turned], z2[turned], 0.2, **form), loss[turned])
    torch.testing.assert_close(lotar(z2, z1, 0.2, **form), loss)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [65504.0, 6e-8])
@pytest.mark.parametrize("form", FORMS)
def test_lotar_is_finite_at_the_ends_of_half_precision(dtype, size, form):
    z1, z2 = ((size * draw(8, 512, seed=s).sign()).to(dtype).requires_grad_() for s in (1, 2))
    weights, loss = lotar_weights(z1, z2, **form), lotar(z1, z2, 0.05, **form)
    loss.mean().backward()
    assert weights.dtype == loss.dtype == torch.float32 and loss.isfinite().all()
    assert (weights > 0).all() and (weights < 2).all()
    assert z1.grad.isfinite().all() or size < 1  # the gradient of a normalisation grows as 1 / size


@pytest.mark.parametrize("form", FORMS)
def test_weights_have_mean_1_and_a_range_of_1_inside_0_and_2(form):
    for n in (2, 3, 64):
        w = lotar_weights(draw(n, 4, seed=n), draw(n, 4, seed=n + 1), **form)
        torch.testing.assert_close(torch.stack([w.mean(), w.max() - w.min()]), torch.ones(2, dtype=torch.float64))
        assert 0 < w.min() and w.max() < 2


def test_the_minus_sign_mirrors_the_weights_and_a_far_pair_counts_most_under_plus():
    z1, z2 = draw(6, 4, seed=1), draw(6, 4, seed=2)
    plus, minus = lotar_weights(z1, z2), lotar_weights(z1, z2, "-")
    torch.testing.assert_close(plus + minus, torch.full_like(plus, 2))
    assert plus.argmax() == minus.argmin() == (z1 - z2).norm(dim=1).argmax()


def test_minus_before_the_cosine_is_plus_before_the_squared_distance_of_directions():
    """An older version of the thesis's code weighs by 1 − (s − mean s) / (max s − min s), s the cosine."""
    z1, z2 = draw(6, 4, seed=1), draw(6, 4, seed=2)
    s = F.cosine_similarity(z1, z2)
    torch.testing.assert_close(lotar_weights(z1, z2, "+", "sq_l2", "unit"), 1 - (s - s.mean()) / (s.max() - s.min()))


@pytest.mark.parametrize("distance", ["l2", "sq_l2"])
@pytest.mark.parametrize("step", [0, 2])
@pytest.mark.parametrize("n", [1, 7])
def test_equal_distances_weigh_exactly_1_with_a_finite_gradient(distance, step, n):
    z1 = torch.randint(9, (n, 4), generator=torch.Generator().manual_seed(0)).float().requires_grad_()
    w = lotar_weights(z1, z1.detach() + step, "+", distance, detach=False)
    assert torch.equal(w, torch.ones(n))
    (w * z1.sum(1)).sum().backward()
    assert torch.equal(z1.grad, torch.ones(n, 4))


def test_the_gradient_flows_through_the_weights_only_when_asked():
    z1, z2 = draw(6, 4, seed=1), draw(6, 4, seed=2)

    def gradient(weights):
        z = z1.clone().requires_grad_()
        (weights(z) * nt_xent(z, z2, 0.2)).mean().backward()
        return z.grad

    constant = lotar_weights(z1, z2)
    assert not lotar_weights(z1.requires_grad_(), z2).requires_grad
    assert lotar_weights(z1, z2, detach=False).requires_grad
    z1 = z1.detach()
    torch.testing.assert_close(gradient(lambda z: lotar_weights(z, z2)), gradient(lambda z: constant))
    through = gradient(lambda z: lotar_weights(z, z2, detach=False))
    assert (through - gradient(lambda z: constant)).abs().max() > 1e-3
    z = z1.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: lotar_weights(a, z2, "-", detach=False), z)


def test_the_method_weighs_simclr_as_its_arguments_say():
    for form in FORMS:
        method = make("lotar", **form)
        step = method(*draw_views(method))
        torch.testing.assert_close(step.loss, lotar(*step.z, 0.2, **form))
        z = [one.detach().requires_grad_() for one in step.z]
        given, expected = (torch.autograd.grad(loss.sum(), z) for loss in (method.loss(*z), lotar(*z, 0.2, **form)))
        assert all(torch.equal(one, other) for one, other in zip(given, expected))
    assert [type(layer).__name__ for layer in method.projector] == ["Linear", "ReLU", "Linear"]
    assert [layer.out_features for layer in method.projector[::2]] == [128, 128]


@pytest.mark.parametrize("wrong, message", [({"sign": "plus"}, r"sign is 'plus'; give \+ or -"),
                                            ({"distance": "cosine"}, "distance is 'cosine'; give l2 or sq_l2"),
                                            ({"space": "sphere"}, "space is 'sphere'; give raw or unit")])
def test_lotar_refuses_an_unknown_option_before_it_trains(wrong, message):
    with pytest.raises(ValueError, match=message):
        make("lotar", **wrong)
    with pytest.raises(ValueError, match=message):
        lotar_weights(draw(2, 2), draw(2, 2, seed=1), **wrong)
