"""The record of view distances: it changes no training, and stays as small in a long one."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_methods import make

from ssl_core.methods.bcl import BCL
from ssl_core.methods.lotar import lotar_weights
from ssl_core.methods.view_distance import KEPT, ViewDistance, recorded


@pytest.mark.parametrize("name", ["lotar", "simclr"])
def test_recording_view_distances_changes_no_step_and_keeps_distance_and_weight_of_each_image(name):
    torch.manual_seed(0)
    options = {"sign": "-"} if name == "lotar" else {}
    plain, watched = make(name, **options), ViewDistance(make(name, **options))
    images = torch.randint(0, 256, (24, 3, 16, 16), dtype=torch.uint8)
    index = torch.arange(8)
    losses = []
    for method in (plain, watched):
        method.train().begin_epoch(0)
        step = method(*method.views(images[:8], index, torch.Generator().manual_seed(1)))
        method.update(step, index)
        losses.append(step.loss)
    assert torch.equal(*losses)
    kept = recorded(watched.state_dict())
    z1, z2 = (z.detach() for z in step.z)
    np.testing.assert_allclose(kept["distance"][0, :8], (z1 - z2).norm(dim=1), rtol=2e-3)
    np.testing.assert_allclose(kept["weight"][0, :8], lotar_weights(z1, z2, "-" if name == "lotar" else "+"), atol=2e-3)
    assert kept["epochs"].tolist() == [1] and np.isnan(kept["distance"][0, 8:]).all()
    assert recorded(plain.state_dict()) is None


@pytest.mark.parametrize("name", ["simclr", "sdclr"])
def test_around_bcl_it_keeps_the_memory_of_each_image_and_the_strengths_stay_as_they_were(name, tmp_path):
    images, index = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8), torch.arange(8)
    torch.manual_seed(0)
    plain = BCL(make(name), beta=0.5)
    torch.manual_seed(0)
    watched = ViewDistance(BCL(make(name), beta=0.5))
    for method in (plain, watched):
        for epoch in range(2):
            method.train().begin_epoch(epoch)
            method.update(method(*method.views(images, index, torch.Generator().manual_seed(epoch))), index)
    save_file(watched.state_dict(), tmp_path / "method.safetensors")  # which refuses a tensor held twice
    kept = recorded(load_file(tmp_path / "method.safetensors"))
    assert torch.equal(plain.memory, watched.base.memory) and torch.equal(plain.strength, watched.base.strength)
    np.testing.assert_allclose(kept["memory"][1, :8], plain.memory[:8], rtol=1e-3)
    assert (kept["memory"][0, :8] != kept["memory"][1, :8]).any() and np.isnan(kept["memory"][:, 8:]).all()


def test_a_long_training_keeps_every_second_epoch_then_every_fourth():
    watched, index = ViewDistance(make("simclr")), torch.arange(24)
    for epoch in range(100):
        watched.begin_epoch(epoch)
        watched.distance[watched.row, index] = epoch
    kept = recorded(watched.state_dict())
    assert kept["epochs"].tolist() == list(range(1, 101, 4)) and len(kept["epochs"]) <= KEPT
    assert (kept["distance"][:, 0] == kept["epochs"] - 1).all()
    with pytest.raises(ValueError, match="MAE gives no two embeddings"):
        mae = ViewDistance(make("mae"))
        mae.update(mae(*mae.views(torch.zeros(4, 3, 16, 16, dtype=torch.uint8), torch.arange(4))), torch.arange(4))
