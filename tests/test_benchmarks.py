"""Benchmarks: both sides of a comparison compute the same thing, in turn. No time is asserted."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from timm.optim import create_optimizer_v2

from benchmarks import __main__ as bench
from benchmarks import augment, probe, timing, training
from ssl_core.evaluate.features import extract, weights_hash
from ssl_core.methods.simclr import nt_xent

N, BATCH = 64, 16
NETWORK = {"name": "test_resnet", "stem": "cifar"}


def test_functions_take_turns_and_the_median_counts(monkeypatch):
    clock, calls = iter([0, 1, 1, 3, 3, 13, 13, 15, 15, 17, 17, 27]), []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    assert timing.medians({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3) == {"a": 2, "b": 2}
    assert "".join(calls) == "ababab"


# Training

def test_ready_tensors_take_the_very_steps_of_our_loop(tmp_path):
    images, cfg, ours = training.colour_images(N), training.config(8, BATCH), training.simclr("test_resnet")
    ready, start = copy.deepcopy(ours), copy.deepcopy(ours)
    training.our_loop(ours, images, cfg, tmp_path)()
    training.ready_tensors(ready, images, cfg)()
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), ready.state_dict().values(), strict=True))
    assert not torch.equal(ours.projector[0].weight, start.projector[0].weight)


def test_thesis_loss_is_ours():
    z = torch.randn(2, 12, 8, dtype=torch.float64, requires_grad=True)
    ours, thesis = nt_xent(*z, 0.2), training.masked_nt_xent(*z, 0.2)
    torch.testing.assert_close(ours, thesis.view(2, 12).mean(0))
    torch.testing.assert_close(*(torch.autograd.grad(loss.mean(), z)[0] for loss in (ours, thesis)))


def test_thesis_lars_takes_the_steps_of_the_library():
    weights = torch.nn.Linear(6, 5)
    both = [copy.deepcopy(weights) for _ in range(2)]
    ours = create_optimizer_v2(both[0], "lars", lr=0.5, filter_bias_and_bn=False, **training.LARS)
    thesis = training.Lars(both[1].parameters(), 0.5, **training.LARS)
    for step in range(3):
        for linear, optimiser in zip(both, (ours, thesis)):
            optimiser.zero_grad()
            linear(torch.full((2, 6), 1.0 + step)).square().sum().backward()
            optimiser.step()
    torch.testing.assert_close(both[0].state_dict(), both[1].state_dict())
    assert not torch.equal(both[0].weight, weights.weight)


def test_thesis_views_have_our_distribution():
    torch.manual_seed(0)
    images = training.colour_images(1).expand(2000, -1, -1, -1)
    thesis = training.PilPairs(images, torch.zeros(2000), "c", 32)
    one = torch.stack([thesis[i][0] for i in range(2000)])
    other = training.simclr("test_resnet").augment(images, torch.Generator().manual_seed(0))
    assert one.shape == other.shape and one.dtype == other.dtype
    for describe in (lambda x: x.mean((0, 2, 3)), lambda x: x.std((2, 3)).mean(0), lambda x: x.mean((2, 3)).std(0)):
        torch.testing.assert_close(describe(one), describe(other), rtol=0.06, atol=0.006)


def test_thesis_loop_sees_each_image_once_an_epoch(tmp_path, monkeypatch):
    seen, method, item = [], training.simclr("test_resnet"), training.PilPairs.__getitem__
    monkeypatch.setattr(training.PilPairs, "__getitem__", lambda self, i: seen.append(i) or item(self, i))
    start = copy.deepcopy(method)
    distance, cosine = training.thesis_loop(method, training.colour_images(N), training.config(8, BATCH), tmp_path)()
    assert sorted(seen) == list(range(N))
    assert not torch.equal(method.projector[0].weight, start.projector[0].weight)
    assert min(distance.sums) > 0 and max(map(abs, cosine.sums)) <= N // 10 + 1


def test_training_rows_are_rates_and_their_ratio():
    table = training.rows(1, ["test_resnet"], N, BATCH)
    assert [name.split("against ")[1] for name, *_ in table] == ["ready tensors", "the thesis' loop"]
    assert all(ratio == pytest.approx(ours / peer) and unit == "images/s" for _, ours, peer, ratio, unit in table)


# Probe

def test_layer_behind_the_encoder_learns_as_on_stored_features():
    images, labels, _ = probe.repeated(np.random.default_rng(0).integers(0, 256, (40, 1, 32, 32), np.uint8),
                                       np.arange(40) % 3, N)
    encoder = probe.trained_encoder(np.repeat(images, 4, axis=0), NETWORK)
    before, targets = weights_hash(encoder), torch.from_numpy(labels)
    slow = probe.adam_probe(probe.behind(encoder), torch.from_numpy(images), targets, encoder.width, 3, 3)
    stored = probe.adam_probe(lambda h: h, torch.from_numpy(extract(encoder, images)), targets, encoder.width, 3, 3)
    torch.testing.assert_close(slow.state_dict(), stored.state_dict(), rtol=1e-4, atol=1e-5)
    assert weights_hash(encoder) == before


def test_copies_are_mirrored_and_stay_in_the_group_of_their_image():
    images = np.arange(2 * 3, dtype=np.uint8).reshape(2, 1, 1, 3)
    more, labels, groups = probe.repeated(images, np.array([7, 8]), 3)
    assert more[:, 0, 0].tolist() == [[0, 1, 2], [3, 4, 5], [2, 1, 0]]
    assert labels.tolist() == [7, 8, 7] and groups.tolist() == [0, 1, 0]


# The command

def test_command_writes_the_table_and_the_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path))
    rounds = {}
    for module in (augment, training, probe):
        def rows(n, name=module.__name__):
            rounds[name] = n
            return [(name, 3.0, 1.5, 2.0, "s")]
        monkeypatch.setattr(module, "rows", rows)
    monkeypatch.setattr(bench, "version", lambda name: "1.0")
    bench.main(["--quick"])
    table = pd.read_csv(tmp_path / "bench" / "bench.csv")
    assert list(table) == ["name", "ours", "peer", "ratio", "unit"] and list(table.name) == list(rounds)
    assert set(rounds.values()) == {1} and len(rounds) == 3
    about = (tmp_path / "bench" / "machine.txt").read_text("utf-8")
    assert about.count("\n") == 1 and "cores" in about and "torch threads" in about
    assert "2.00 x" in capsys.readouterr().out
