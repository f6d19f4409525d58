"""The panel of a masked autoencoder: same masks for a seed, quality over what was removed, and a recipe that learns."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import toy_configs
from sklearn.metrics import balanced_accuracy_score

from ssl_core.analysis import panel, plots
from ssl_core.augment import Augment
from ssl_core.data import load
from ssl_core.encoders import build_encoder, load_encoder
from ssl_core.evaluate.features import extract
from ssl_core.evaluate.probe import linear_probe
from ssl_core.methods import build
from ssl_core.presets import preset
from ssl_core.train import pretrain, restore


@pytest.fixture
def method():
    encoder = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    cfg = SimpleNamespace(encoder="vit_tiny_patch16_224", encoder_args=encoder, stem="default", image_size=16,
                          normalisation="none")
    return build("mae", build_encoder(cfg, 0), Augment("mae", 16), decoder_width=8, decoder_depth=1, decoder_heads=2)


def test_every_image_is_measured_and_a_seed_repeats_the_masks(method, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 16, 16), dtype=np.uint8)
    made, quality = panel.reconstructions(method, images)
    assert len(quality) == 7
    np.testing.assert_allclose(made["original"], images / 255, atol=1e-6)
    again, _ = panel.reconstructions(method, images)
    assert np.array_equal(made["removed"], again["removed"])
    monkeypatch.setattr(panel, "BATCH", 3)
    parts, _ = panel.reconstructions(method, images)
    assert np.array_equal(made["removed"], parts["removed"])
    seeded, _ = panel.reconstructions(method, images, seed=1)
    assert not np.array_equal(made["removed"], seeded["removed"])
    psnr = -10 * np.log10(np.mean((made["pasted"][0] - made["original"][0])[:, made["removed"][0, 0] > 0] ** 2))
    assert quality.psnr[0] == pytest.approx(psnr, abs=1e-3)


def test_what_a_finished_run_left_reconstructs_as_the_method_that_was_trained(method, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 16, 16), dtype=np.uint8)
    pretrain(method, images, toy_configs.pretrain(method="mae", epochs=0, steps=2, batch=4), tmp_path, "key")
    again = build("mae", load_encoder(tmp_path / "encoder.safetensors"), Augment("mae", 16), decoder_width=8,
                  decoder_depth=1, decoder_heads=2)
    restore(again, tmp_path, "key")
    (one, _), (two, _) = (panel.reconstructions(m, images[:2]) for m in (method, again))
    np.testing.assert_allclose(one["reconstruction"], two["reconstruction"], atol=1e-6)


def test_the_figure_names_its_columns_and_the_sentence_its_fill(method):
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 16, 16), dtype=np.uint8)
    made, quality = panel.reconstructions(method, images)
    with plt.rc_context():
        plots.use_style()
        ax = panel.plot_reconstructions(panel.pictured(made, quality))
        ax.figure.canvas.draw()
        assert [tick.get_text() for tick in ax.get_xticklabels()] == list(panel.COLUMNS) and len(ax.images) == 16
        boxes = [tick.label2.get_window_extent() for tick in ax.xaxis.get_major_ticks()]
        assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:]))
        plt.close("all")
    said = panel.quality_sentence(quality, norm_pix=False)
    assert f"of 4 images not trained on: {quality.psnr.mean():.1f} dB" in said and "mean colour of the visible" in said
    assert "its own mean colour" in panel.quality_sentence(quality, norm_pix=True)


def accuracy(encoder, data, train, test):
    probe = linear_probe(extract(encoder, data.images[train]), data.labels[train])
    scores = probe.predict_proba(extract(encoder, data.images[test]))
    return balanced_accuracy_score(data.labels[test], scores.argmax(1))


@pytest.mark.slow
def test_the_small_recipe_reconstructs_clothes_it_has_not_seen(tmp_path):
    """A positive control: `mae/small`, a third of its length, is 3 dB above the mean colour of what was visible, and a
    probe with all labels reads more from it than from the same network untrained."""
    data, values = load("fashion"), preset("mae", "small")
    values |= {"epochs": 0, "steps": 700}
    cfg = toy_configs.pretrain(**values, image_size=28)
    encoder = build_encoder(cfg, 0)
    method = build("mae", encoder, Augment(cfg.recipe, 28), 6000, 0, **cfg.method_args)
    train, test = (np.flatnonzero(data.part == part) for part in ("train", "test"))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = [accuracy(encoder, data, train, test)]
        pretrain(method, data.images[train], cfg, tmp_path)
        found.append(accuracy(encoder, data, train, test))
        made, _ = panel.reconstructions(method, data.images[test[:500]])
    finally:
        torch.set_num_threads(threads)
    x, removed = (torch.from_numpy(made[name]) for name in ("original", "removed"))
    quality = {name: panel.masked_quality(x, torch.from_numpy(made[name]), removed)[0].mean()
               for name in ("pasted", "masked")}
    assert quality["pasted"] > quality["masked"] + 3
    assert found[1] > found[0] + 0.02, found
