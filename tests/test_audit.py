"""The audit finds planted copies and shared groups, and nothing where nothing was planted."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.copies import PLANTED, recall, textures
from ssl_core import leaks
from ssl_core.analysis.inflation import inflation, with_a_copy
from ssl_core.cli import main
from ssl_core.data import ImageSet
from ssl_core.data.audit import audit, parts_of
from ssl_core.data.copies import ALIKE, LOOSE, STRICT, alike, cut, near_copies
from ssl_core.encoders import Encoder, save_encoder
from ssl_core.evaluate.metrics import Predictions
from ssl_core.files import root


@pytest.fixture(scope="module")
def images():
    return textures(120, 48)


def made(images, **more):
    part = np.repeat(["train", "test"], [len(images) - 40, 40])
    return ImageSet("made", images, np.arange(len(images)) % 2, ("a", "b"), **{"part": part} | more)


def test_every_kind_of_planted_copy_is_found(images):
    found = recall(images, 12)
    assert min(found.values()) >= 0.9, found
    assert all(found[kind] == 1 for kind in PLANTED if "crop" not in kind)


def test_different_images_are_no_copies(images):
    pairs, threshold = near_copies(images)
    assert len(pairs) == 0 and LOOSE <= threshold <= STRICT


def test_flat_images_are_compared_with_nothing():
    rng = np.random.default_rng(0)
    flat = (200 + rng.integers(0, 2, (60, 3, 32, 32))).astype(np.uint8)
    assert len(near_copies(flat)[0]) == 0


def test_threshold_follows_the_nearest_but_not_a_few_copies():
    rng = np.random.default_rng(0)
    best = 1 - np.exp(rng.normal(-2.5, 0.3, 1000))
    assert LOOSE < cut(best) < STRICT
    assert cut(np.r_[best, np.ones(20)]) == pytest.approx(cut(best), abs=0.002)
    assert cut(best[:20]) == STRICT
    assert cut(best - 0.5) == LOOSE


def test_nothing_is_said_of_clean_data(images):
    found = audit(data := made(images), parts_of(data))
    assert found.sentence == "made: nothing found." and not len(found.pairs)
    assert "No groups are known" in found.notes[0]


def test_identical_images_across_parts_block(images):
    images = images.copy()
    images[100] = images[3]
    images[101] = images[4][:, :, ::-1]
    images[6] = images[5]  # within training: no leak
    found = audit(data := made(images), parts_of(data))
    assert found.blocking == ("1 image of test equal to images of train in each pixel.",)
    assert found.warnings == ("1 pair of near duplicates across train and test.",)
    assert found.pairs[["kind", "first", "second"]].values.tolist() == [["identical", 3, 100], ["near", 4, 101]]
    assert found.sentence.startswith("made: BLOCKING")


def test_a_study_is_warned_of_near_duplicates_once_for_each_state_of_its_data(tmp_path, monkeypatch, images):
    monkeypatch.setenv("SSL_CORE_CACHE", str(tmp_path))
    images = images.copy()
    images[101] = images[4][:, :, ::-1]
    jobs = [SimpleNamespace(cfg=SimpleNamespace(dataset="params/made.yaml", image_size=48))] * 2
    loaded = []

    def load(*_):
        loaded.append(made(images))
        return loaded[-1]
    said = {"made": "1 pair of near duplicates across train and test. Look at them: "
                    "python -m ssl_core audit params/made.yaml"}
    assert leaks.near_duplicates(jobs, load) == said and len(loaded) == 1
    sizes = [SimpleNamespace(cfg=SimpleNamespace(dataset="params/made.yaml", image_size=size)) for size in (32, 48)]
    assert [*leaks.near_duplicates(sizes, load)] == ["params/made.yaml, 32 px", "params/made.yaml, 48 px"]
    looks, audit = [], leaks.audit
    monkeypatch.setattr(leaks, "audit", lambda *given: looks.append(1) or audit(*given))
    assert leaks.near_duplicates(jobs, load) == said and not looks  # kept
    monkeypatch.setattr(leaks, "code_slice", lambda modules: dict.fromkeys(modules, "changed"))
    assert leaks.near_duplicates(jobs, load) == said and looks == [1]  # other code looks again
    images = images[::-1].copy()
    monkeypatch.setattr(leaks, "MOST", 10)
    assert leaks.near_duplicates(jobs, load)["made"].startswith("near duplicates among 120 images were not looked for")


def network(images):
    """Features as a trained network has them: positive, alike in direction, and changed by a turn of the image."""
    down = images.reshape(len(images), -1, 12, images.shape[2] // 12, 12, images.shape[3] // 12).mean((1, 3, 5))
    weights = np.random.default_rng(0).normal(size=(144, 24)) / 144
    return 1 + np.maximum(down.reshape(len(images), -1) @ weights + 1, 0)


def test_an_encoder_sees_quarter_turns_that_the_hash_does_not_and_nothing_else(images):
    assert len(alike(images, network)[0]) == 0
    images = images.copy()
    images[100], images[101], images[102] = images[3], np.rot90(images[4], 1, (1, 2)), np.rot90(images[5], 3, (1, 2))
    images[103], images[7] = np.rot90(images[6], 1, (1, 2))[:, :, ::-1], np.rot90(images[8], 1, (1, 2))  # 7: no leak
    data = made(images)
    assert len(audit(data, parts_of(data)).pairs) == 1
    found = audit(data, parts_of(data), network)
    assert found.pairs[["kind", "first", "second"]].values.tolist() == [
        ["identical", 3, 100], ["embedding", 4, 101], ["embedding", 5, 102], ["embedding", 6, 103]]
    assert found.warnings == ("3 pairs alike to the encoder across train and test.",) and len(found.blocking) == 1
    assert ALIKE[0] <= found.alike <= ALIKE[1] and found.threshold == audit(data, parts_of(data)).threshold


def test_an_encoder_is_not_asked_about_one_group_or_flat_images(images):
    images = images.copy()
    images[101], images[110:], images[:3] = np.rot90(images[4], 1, (1, 2)), 200, 200
    groups = np.arange(120)
    groups[101] = 4
    assert len(alike(images, network, groups, np.arange(80, 120))[0]) == 0
    assert alike(images, network, None, np.arange(80, 120))[0][["first", "second"]].values.tolist() == [[4, 101]]
    few = alike(images[[4, 5, 101]], network)
    assert few[1] == ALIKE[1] and few[0][["first", "second"]].values.tolist() == [[0, 2]]


def test_groups_across_parts_block(images):
    groups = np.arange(120) // 3
    found = audit(data := made(images, groups=groups), parts_of(data))
    assert found.blocking == ("1 group in both train and test: '26'.",)


def test_test_images_in_pretraining_block(images):
    found = audit(made(images), {"unlabelled": np.arange(0, 90), "labelled": np.arange(0, 30), "val": np.arange(0),
                                 "test": np.arange(80, 120)})
    assert found.blocking[0] == "10 images in both train and test: test images in pretraining."


def test_parts_are_drawn_where_there_are_none(images):
    data = made(images, part=None, groups=np.arange(120) // 4)
    parts = parts_of(data)
    assert len(parts["test"]) and not audit(data, parts).blocking


def scored(right, labels, groups=None):
    """Predictions that are right where `right` says so."""
    called = np.where(right, labels, 1 - labels)
    return Predictions(np.eye(2)[called], labels, ("a", "b"), groups=groups)


def test_inflation_is_what_copies_add_to_the_score():
    rng, labels, copies = np.random.default_rng(0), np.arange(400) % 2, np.arange(400) < 100
    right = copies | (rng.random(400) < 0.6)
    every, others, found = inflation(scored(right, labels), copies)
    assert others == pytest.approx(0.6, abs=0.06) and found.effect == pytest.approx(every - others)
    assert found.interval[0] > 0.05 and found.interval[0] < 0.25 * (1 - others) < found.interval[1] < 0.2
    groups = np.arange(400) // 8
    clustered = inflation(scored(np.repeat(right[::8], 8), labels, groups), copies)[2]
    assert np.ptp(clustered.interval) > np.ptp(found.interval)


def test_inflation_of_few_copies_or_a_lost_class_has_no_interval():
    labels = np.arange(400) % 2
    few = inflation(scored(labels >= 0, labels), np.arange(400) < 5)[2]
    lost = inflation(scored(labels >= 0, labels), labels == 1)[2]
    assert few.effect == 0 and np.isnan(few.interval).all() and np.isnan(lost.interval).all()


def test_only_copies_in_the_training_of_a_run_count(images):
    images = images.copy()
    images[102] = images[7]
    data, test = made(images), np.arange(80, 120)
    pairs = pd.DataFrame({"first": [3, 4], "second": [100, 101]})
    assert with_a_copy(data, pairs, test, np.array([3, 5])).tolist() == [100]
    assert with_a_copy(data, pairs, test, np.array([4, 7])).tolist() == [101, 102]


def test_command_says_what_blocks_and_leaves_pairs_also_by_an_encoder(tmp_path, monkeypatch, capsys, images):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    images = images.copy()
    images[100], images[101] = images[3], np.rot90(images[4], 1, (1, 2))
    torch.manual_seed(0)
    save_encoder(Encoder("test_resnet", stem="cifar", size=24), tmp_path / "encoder.safetensors")
    np.savez(tmp_path / "made.npz", train_images=images[:80, 0], train_labels=np.arange(80) % 2,
             test_images=images[80:, 0], test_labels=np.arange(40) % 2)
    (tmp_path / "made.yaml").write_text("title: made\nkind: npz\nroot: .\nfile: made.npz\ntask: binary\n"
                                        "classes: [a, b]\n", encoding="utf-8")
    assert main(["audit", str(tmp_path / "made.yaml"), "--embedding", str(tmp_path)]) == 1
    assert "made: BLOCKING: 1 image of test equal to images of train" in capsys.readouterr().out
    assert "4,101,train,test" in (tmp_path / "outputs" / "audit" / "made" / "pairs_embedding.csv").read_text()
    assert len(pd.read_csv(tmp_path / "outputs" / "audit" / "made" / "pairs.csv")) == 1
    assert main(["audit", "moon"]) == 2
    assert main(["audit", "fashion", "--embedding", str(tmp_path / "outputs")]) == 2
    assert "no encoder there" in capsys.readouterr().err


def test_what_is_said_of_planted_copies_is_what_was_measured():
    found = pd.read_csv(root() / "outputs" / "reference" / "audit" / "recall.csv", index_col="planted")
    for planted, shares in found.iterrows():
        least = 0.95 if "crop" in planted else 0.99
        if any(what in planted for what in ("JPEG", "flip", "contrast", "crop")):
            assert all(float(share.strip(" %")) >= 100 * least for share in shares), planted
    for counts in found.loc["images, and pairs found in them as they are"]:
        images, pairs = (int(count.replace(",", "")) for count in counts.split(", "))
        assert pairs <= images / 1000
