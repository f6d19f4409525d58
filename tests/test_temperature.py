"""The temperature that goes up and down with the epochs (Kukleva et al., ICLR 2023), in methods that have one."""

import math

import pytest
import torch
import toy_configs
from test_methods import draw_images, draw_views, make

from ssl_core import train
from ssl_core.methods.base import Contrastive, cosine_tau

ALL = ["simclr", "lotar", "dcl", "dclw", "sdclr", "moco"]


@pytest.mark.parametrize("period", [4, 400])
def test_tau_starts_high_is_low_half_a_period_later_and_comes_back(period):
    quarters = [cosine_tau(period * q / 4, 0.1, 1.0, period) for q in range(9)]
    assert quarters == pytest.approx([1, 0.55, 0.1, 0.55, 1, 0.55, 0.1, 0.55, 1])
    assert cosine_tau(0, 0.1, 1.0, period) == 1.0


def test_tau_is_the_published_codes_for_the_same_number_of_the_epoch():
    """Theirs: min + (max − min)/2 · (1 + cos(π epoch / t_max)), t_max 200; their first number is 1, ours 0."""
    for epoch in (1, 57, 200, 333, 2000):
        theirs = 0.1 + 0.5 * (1.0 - 0.1) * (1 + math.cos(math.pi * epoch / 200))
        assert cosine_tau(epoch, 0.1, 1.0, 400) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_each_epochs_loss_is_the_loss_at_its_tau(name):
    method = make(name, tau_cosine=[0.1, 1.0, 8]).eval()
    views = draw_views(method)
    for epoch, tau in enumerate([1, 0.8682, 0.55, 0.2318, 0.1]):
        method.begin_epoch(epoch)
        assert float(method.tau) == pytest.approx(tau, abs=1e-4)
        fixed = make(name, tau=cosine_tau(epoch, 0.1, 1.0, 8)).eval()
        torch.testing.assert_close(method(*views).loss, fixed(*views).loss)


@pytest.mark.parametrize("name", ALL)
def test_a_tau_without_a_schedule_stays_and_is_no_state(name):
    method = make(name, tau=0.3)
    method.begin_epoch(7)
    assert method.tau == 0.3 and "tau" not in method.state_dict()
    assert "tau" in make(name, tau_cosine=[0.1, 1.0, 8]).state_dict()


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", ["simclr", "dclw"])
def test_a_run_resumed_inside_an_epoch_finds_its_tau(name, tmp_path, monkeypatch):
    """Three steps an epoch, killed at the second of the second: the epoch goes on with its own tau, not the first's."""
    cfg = toy_configs.pretrain(method=name, epochs=3, batch=8)
    seen = {"whole": [], "killed": []}

    def run(folder, kill_at=None):
        method = make(name, tau_cosine=[0.1, 1.0, 4])

        def note(step, index):
            seen[folder].append(round(float(method.tau), 4))
            if len(seen[folder]) == kill_at:
                raise Killed

        method.update = note
        return train.pretrain(method, draw_images(), cfg, tmp_path / folder, key="k")

    history = run("whole")
    monkeypatch.setattr(train, "SAVE_EVERY", -1)
    with pytest.raises(Killed):
        run("killed", kill_at=5)
    saved = torch.load(tmp_path / "killed" / "last.pt", weights_only=True)
    assert saved["at"]["step"] == 4 and float(saved["method"]["tau"]) == pytest.approx(0.55)
    resumed = run("killed")
    assert seen["whole"] == [1.0] * 3 + [0.55] * 3 + [0.1] * 3
    assert seen["killed"] == [1.0] * 3 + [0.55] * 2 + [0.55] * 2 + [0.1] * 3  # the fifth step is done again
    assert history.drop(columns="images_per_s").equals(resumed.drop(columns="images_per_s"))


@pytest.mark.parametrize("wrong", [0.5, [0.1, 1.0], [0.0, 1.0, 400], [1.0, 0.1, 400], [0.1, 1.0, 0]])
def test_a_schedule_that_cannot_be_is_refused_in_one_line(wrong):
    with pytest.raises(ValueError, match=r"tau_cosine is .*; give \[low, high, period in epochs\] with 0 < low ≤ high"):
        Contrastive(None, None, 0, 0.5, wrong)
