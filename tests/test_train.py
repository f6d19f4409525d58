"""The training loop: schedule, order, streams, what is not finite, torn and foreign checkpoints, gauges."""

import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import toy_configs
from sklearn.metrics import classification_report
from timm.optim import create_optimizer_v2
from torch import nn

from ssl_core import train
from ssl_core.encoders import Encoder, load_encoder
from ssl_core.evaluate.features import extract
from ssl_core.evaluate.fit import fit_probe
from ssl_core.evaluate.heads import rows_of
from ssl_core.evaluate.metrics import Predictions
from ssl_core.files import replacing
from ssl_core.methods.base import Method, Step
from ssl_core.protocols import protocol
from ssl_core.train import effective_rank, learning_rate, order, pretrain, spread, stream

N, BATCH = 20, 8  # two steps an epoch, four images left over


class Toy(Method):
    """Noisy pixels whose features should be close to a target: the least that the loop accepts."""

    def __init__(self, poison=None):
        torch.manual_seed(0)
        super().__init__(Encoder("resnet10t", {"channels": [4, 4, 4, 4]}, "cifar", 8), None)
        self.target = nn.Parameter(torch.ones(4))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.seen, self.poison = [], poison

    def views(self, images, index, generator=None):
        self.seen.append(index.tolist())
        return (images / 255 + 0.1 * torch.rand(images.shape, generator=generator),)

    def forward(self, x):
        features = self.encoder(x)
        dropped = nn.functional.dropout(features.h, 0.2)
        loss = (dropped - self.target).square().mean(1)
        return Step(loss * math.nan if self.steps == self.poison else loss, (features,))

    def update(self, step, index):
        self.steps += 1


def images():
    return np.random.default_rng(0).integers(0, 256, (N, 3, 8, 8), dtype=np.uint8)


def config(**changes):
    return toy_configs.pretrain(**{"epochs": 2, "batch": BATCH} | changes)


# --- schedule, order, streams -----------------------------------------------------------------------------------------

def test_schedule_is_a_function_of_the_step():
    rates = [learning_rate(step, 100, 2.0, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(2 / 11) and rates[10] == 2.0 and max(rates) == 2.0
    np.testing.assert_allclose(np.diff(rates[:11]), 2 / 11)  # linear warm-up
    assert rates[55] == pytest.approx(1.0)  # half a cosine is at its half in the middle
    assert 0 < rates[99] < 0.01 and all(a > b for a, b in zip(rates[10:], rates[11:]))
    assert learning_rate(0, 100, 2.0, 0.0) == 2.0


def test_each_image_comes_at_most_once_an_epoch_and_all_come_in_turn():
    epochs = [np.concatenate(order(N, BATCH, seed=3, epoch=e)) for e in range(20)]
    assert all(len(e) == len(set(e.tolist())) == 16 for e in epochs)
    assert set(np.concatenate(epochs).tolist()) == set(range(N))
    assert not np.array_equal(epochs[0], epochs[1])
    assert [len(b) for b in order(5, BATCH, 0, 0)] == [5]  # fewer images than a batch


def test_order_and_streams_are_the_same_in_another_process():
    code = ("from ssl_core.train import order, stream;"
            "print([b.tolist() for b in order(20, 8, 3, 5)], stream(3, 1, 7))")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"{[b.tolist() for b in order(20, 8, 3, 5)]} {stream(3, 1, 7)}"


def test_streams_do_not_meet():
    seeds = {stream(seed, kind, step) for seed in range(4) for kind in range(3) for step in range(50)}
    assert len(seeds) == 4 * 3 * 50


def test_the_loop_follows_order_and_schedule(tmp_path):
    toy = Toy()
    history = pretrain(toy, images(), config(epochs=0, steps=5, lr=0.01, warmup=0.0), tmp_path)
    expected = [b.tolist() for e in range(3) for b in order(N, BATCH, 0, e)][:5]
    assert toy.seen == expected
    assert history["step"].tolist() == [2, 4, 5]  # the last epoch ends with the steps
    assert history["lr"].tolist() == [learning_rate(s, 5, 0.01, 0.0) for s in (1, 3, 4)]
    image_loss = np.load(tmp_path / "image_loss.npy")
    assert np.isnan(image_loss).sum() == N - len({i for batch in expected for i in batch})


def test_mean_loss_of_an_epoch_is_the_mean_over_its_steps(tmp_path):
    history = pretrain(Toy(), images(), config(epochs=1), tmp_path)
    last = np.load(tmp_path / "image_loss.npy")  # one epoch: what every image last cost
    assert history["loss"][0] == pytest.approx(np.nanmean(last), rel=1e-6)


def test_optimisers_are_those_their_names_say():
    layer = nn.Linear(2, 2)
    made = {name: create_optimizer_v2(layer, timm_name, lr=0.1, momentum=0.9) if name != "adamw" else
            create_optimizer_v2(layer, timm_name, lr=0.1) for name, timm_name in train.OPTIMISERS.items()}
    assert isinstance(made["adamw"], torch.optim.AdamW)
    assert isinstance(made["sgd"], torch.optim.SGD) and not made["sgd"].defaults["nesterov"]
    assert type(made["lars"]).__name__ == "Lars"


# --- what is not finite -----------------------------------------------------------------------------------------------

def test_a_value_that_is_not_finite_stops_training_and_is_named(tmp_path):
    message = r"^the loss was not finite at step 4 \(epoch 2\); first weight that is not finite now: target; lower lr"
    with pytest.raises(FloatingPointError, match=message):
        pretrain(Toy(poison=3), images(), config(), tmp_path)
    assert not (tmp_path / "encoder.safetensors").exists()


def test_the_first_bad_tensor_is_named_even_when_all_that_follows_is_bad(tmp_path):
    toy = Toy()
    with torch.no_grad():
        toy.encoder.backbone.bn1.bias.fill_(math.inf)
    with pytest.raises(FloatingPointError, match="^h, the encoder's output was not finite at step 1 "):
        pretrain(toy, images(), config(), tmp_path)


# --- checkpoints ------------------------------------------------------------------------------------------------------

def stopped(folder, monkeypatch):
    """A run whose machine died after two of four epochs, between two files."""
    save, calls = train.save, []

    def save_twice(*args):
        save(*args)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "save", save_twice)
        pretrain(Toy(), images(), config(epochs=4), folder, key="a")


def test_a_broken_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, monkeypatch, capsys):
    whole = Toy()
    pretrain(whole, images(), config(epochs=4), tmp_path / "whole", key="a")
    stopped(tmp_path / "torn", monkeypatch)
    last = tmp_path / "torn" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    toy = Toy()
    pretrain(toy, images(), config(epochs=4), tmp_path / "torn", key="a")
    assert "last.pt cannot be read" in capsys.readouterr().out
    assert len(toy.seen) == 6  # from the first epoch's end, three epochs of two steps
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), toy.state_dict().values()))


def test_a_save_that_dies_half_way_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    stopped(tmp_path, monkeypatch)
    before = (tmp_path / "last.pt").read_bytes()

    def die(state, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", die)
    with pytest.raises(KeyboardInterrupt):
        pretrain(Toy(), images(), config(epochs=4), tmp_path, key="a")
    assert (tmp_path / "last.pt").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["history.csv", "last.pt", "prev.pt"]


def test_a_checkpoint_of_another_key_is_refused(tmp_path, monkeypatch):
    stopped(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match="last.pt belongs to key a, not b; move it away"):
        pretrain(Toy(), images(), config(epochs=4), tmp_path, key="b")
    pretrain(Toy(), images(), config(epochs=4), tmp_path, key="a")
    with pytest.raises(ValueError, match="method.safetensors belongs to key a, not b; move it away"):
        pretrain(Toy(), images(), config(epochs=4), tmp_path, key="b")


def test_a_finished_run_returns_the_stored_history_and_weights(tmp_path):
    first = Toy()
    history = pretrain(first, images(), config(), tmp_path, key="a")
    again = Toy()
    with torch.no_grad():
        again.target.zero_()
    stored = pretrain(again, images(), config(), tmp_path, key="a")
    pd.testing.assert_frame_equal(stored, history, check_exact=True)
    assert again.seen == [] and all(torch.equal(a, b) for a, b in zip(first.state_dict().values(),
                                                                     again.state_dict().values()))
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["encoder.safetensors", "history.csv", "image_loss.npy", "method.safetensors", "progress.json"]


def test_state_while_it_trains_then_encoder_and_log_and_published_scores_of_their_features(tmp_path, monkeypatch):
    """What system (e) keeps: checkpoint.pt, encoder.pth, the losses as CSV, and two tables of test scores."""
    stopped(tmp_path, monkeypatch)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["at"]["step"] == 4
    toy = Toy()
    pretrain(toy, images(), config(epochs=4), tmp_path, key="a")
    assert not (tmp_path / "last.pt").exists() and pd.read_csv(tmp_path / "history.csv").epoch.tolist() == [1, 2, 3, 4]
    encoder = load_encoder(tmp_path / "encoder.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(encoder.state_dict().values(), toy.encoder.state_dict().values()))
    h, y = extract(encoder, images()), np.arange(N) % 3 % 2
    for name in ("knn_200", "mlp_head"):
        p = fit_probe(name, protocol(name).values, h, y, task="binary").predict_proba(h)
        report = classification_report(y, p.argmax(1), output_dict=True, zero_division=0)["weighted avg"]
        found = {row["metric"]: row["value"] for row in rows_of(Predictions(p, y, ("a", "b"), "binary"), 0, 20)
                 if row["group_kind"] == "all"}
        assert [found[f"{metric}_weighted"] for metric in ("precision", "recall", "f1")] + [found["accuracy"]] == (
            pytest.approx([report[metric] for metric in ("precision", "recall", "f1-score", "recall")])), name


def test_a_run_killed_while_it_wrote_its_results_is_not_taken_for_finished(tmp_path, monkeypatch):
    def die(path):
        if path.name == "method.safetensors":
            raise KeyboardInterrupt
        return replacing(path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "replacing", die)
        pretrain(Toy(), images(), config(), tmp_path, key="a")
    toy = Toy()
    pretrain(toy, images(), config(), tmp_path, key="a")
    assert toy.seen == [] and (tmp_path / "method.safetensors").exists()


def test_read_only_memory_maps_are_trained_on_without_a_copy_or_a_warning(tmp_path):
    np.save(tmp_path / "images.npy", images())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    on_disk = pretrain(Toy(), mapped, config(epochs=1), tmp_path / "a")
    assert on_disk["loss"].equals(pretrain(Toy(), images(), config(epochs=1), tmp_path / "b")["loss"])


# --- devices and gauges -----------------------------------------------------------------------------------------------

def test_a_device_that_is_not_there_is_refused_by_name():
    assert train.use_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'cuda' is not there; this machine has: .*cpu"):
            train.use_device("cuda")


def test_bf16_is_used_where_asked_for():
    with train.autocast(torch.device("cpu"), "auto"):
        assert not torch.is_autocast_enabled("cpu")
    with train.autocast(torch.device("cpu"), "bf16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_gauges_are_0_and_1_when_collapsed_and_full_when_spread():
    collapsed = torch.ones(64, 8)
    assert spread(collapsed) == 0 and effective_rank(collapsed) == pytest.approx(1)
    both_ways = torch.cat([torch.eye(8), -torch.eye(8)])  # every direction alike
    assert spread(both_ways * 5) == pytest.approx(math.sqrt(16 / 15), rel=1e-6)  # unbiased
    assert effective_rank(both_ways) == pytest.approx(8, rel=1e-5)
    line = torch.linspace(-1, 1, 64)[:, None] * torch.arange(1, 9)
    assert effective_rank(line) == pytest.approx(1, rel=1e-3)
    noise = torch.randn(4096, 32, generator=torch.Generator().manual_seed(0))
    assert spread(noise) == pytest.approx(1, abs=0.02)
