"""A card and a study for somebody's images: what is inferred, what is refused in one line, what may be overwritten."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from ssl_core.config import ConfigError
from ssl_core.data import census, load
from ssl_core.data.draft import draft_card
from ssl_core.data.example import write_example
from ssl_core.data.new import arms_for, write_card, write_new, write_study
from ssl_core.plan import make_plan
from ssl_core.study import load_study


def save(path, seed=0, size=(40, 40), grey=False):
    """A picture of noise, (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size[::-1] if grey else (*size[::-1], 3)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes, 6 malignant and 30 benign on 12 patients, and 12 images without a label."""
    for i in range(48):
        place = "malignant" if i < 6 else "benign" if i < 36 else "unlabelled"
        save(tmp_path / "images" / place / f"patient{i % 12:02d}_{i:03d}.png", i)
    return tmp_path / "images"


@pytest.fixture
def table(tmp_path):
    """As many images in one folder and a CSV beside it, the patient in a column and not in the name."""
    rows = [{"path": f"tiles/{i:03d}.png", "who": f"M{i % 12}", "halo": i % 2, "nucleolus": int(i % 8 == 0),
             "finding": "malignant" if i < 6 else "benign" if i < 36 else ""} for i in range(48)]
    for i, row in enumerate(rows):
        save(tmp_path / row["path"], i)
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


# --- what is inferred -------------------------------------------------------------------------------------------------

def test_a_folder_becomes_a_card_that_loads(folder, tmp_path):
    draft = draft_card(folder)
    assert draft.values["task"] == "binary"
    assert draft.values["classes"] == ["benign", "malignant"], "the rarer is the positive one"
    assert draft.values["channels"] == 3 and draft.values["image_size"] == 32
    card = write_card(tmp_path / "data" / "mine.yaml", draft)
    data = load(card)
    assert data.counts().tolist() == [30, 6] and (data.labels == -1).sum() == 12
    assert data.grouped and len(data.group_names) == 12
    assert yaml.safe_load(card.read_text("utf-8"))["root"] == "../images", "card and images can move together"


def test_a_csv_with_other_names(table):
    draft = draft_card(table, label="finding")
    assert draft.values["group"] == "who" and "the column who: 12 groups" in draft.why["group"]
    data = load(write_card(table.parent / "mine.yaml", draft))
    assert data.counts().tolist() == [30, 6] and len(data.group_names) == 12
    assert "group" not in draft_card(table, label="finding", group="none").values
    assert draft_card(table, label="finding", group=r"(?P<group>\d)\.png").values["expected"]["groups"] == 10


def test_labels_in_columns_are_multilabel(table):
    signs = ["halo", "nucleolus"]
    assert draft_card(table, label=signs).values["task"] == "multilabel"
    written = write_study(table.parent / "studies" / "mine.yaml", table, label=signs, tell=False)
    assert load(written[0]).counts().tolist() == [24, 6]
    assert load_study(written[1]).evaluate.class_weight == "none"


def test_an_npz_keeps_its_numbers_and_parts(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 28, 28), np.uint8), np.arange(60)[:, None] % 2
    np.savez(tmp_path / "x.npz", train_images=images[:40], train_labels=labels[:40], test_images=images[40:],
             test_labels=labels[40:])
    written = write_study(tmp_path / "studies" / "x.yaml", tmp_path / "x.npz", tell=False)
    data, study = load(written[0]), load_study(written[1])
    assert data.classes == ("0", "1") and (data.part == "test").sum() == 20 and study.data[0].image_size == 28
    assert "no part: the data bring their test part" in written[1].read_text("utf-8")


def test_grey_and_oblong_images_are_seen(tmp_path):
    for i in range(6):
        save(tmp_path / "grey" / "ab"[i % 2] / f"{i}.png", i, (90, 50), grey=True)
        save(tmp_path / "tiny" / "ab"[i % 2] / f"{i}.png", i, (20, 20))
    grey, tiny = draft_card(tmp_path / "grey").values, draft_card(tmp_path / "tiny").values
    assert (grey["channels"], grey["geometry"], grey["image_size"]) == (1, "pad", 48)
    assert (tiny["channels"], tiny["geometry"], tiny["image_size"]) == (3, "resize_crop", 20)
    assert draft_card(tmp_path / "grey", image_size=96).values["image_size"] == 96


def test_colour_stored_as_rgb_but_grey_in_every_pixel_is_grey(tmp_path):
    for i in range(4):
        grey = np.random.default_rng(i).integers(0, 256, (32, 32, 1), np.uint8)
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(grey.repeat(3, 2)).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    assert draft_card(tmp_path).values["channels"] == 1


def test_data_below_home_are_written_without_the_users_name(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    card = write_card(tmp_path / "project" / "params" / "data" / "mine.yaml", draft_card(folder))
    assert yaml.safe_load(card.read_text("utf-8"))["root"] == "~/images"
    assert str(tmp_path) not in card.read_text("utf-8")


# --- the study --------------------------------------------------------------------------------------------------------

def test_the_study_is_valid_plannable_and_explained(folder, tmp_path, capsys):
    written = write_study(tmp_path / "studies" / "mine.yaml", folder)
    assert [path.name for path in written] == ["mine.yaml", "mine.yaml"] and all(path.is_file() for path in written)
    data, study, text = load(written[0]), load_study(written[1]), written[1].read_text("utf-8")
    assert study.splits.kind == "natural" and study.data[0].label_pool == "natural"
    assert tuple(study.evaluate.budgets) == census.usable_budgets(data.counts(), 36)[0]
    said = capsys.readouterr().out
    assert all(sentence in said for sentence in census.statement(data))
    head = re.sub(r"\s*\n#\s*", " ", text)
    assert all(sentence in head for sentence in census.statement(data)), "what to expect stands on top"
    plan = make_plan(study)
    stages = [job.stage for job in plan.jobs]
    assert stages.count("pretrain") == len(study.arms) * len(study.seeds) and "finetune" in stages
    assert all(len(line) <= 120 for line in text.splitlines())


def test_every_line_of_both_files_has_its_reason(folder, tmp_path):
    for path in write_study(tmp_path / "studies" / "mine.yaml", folder, tell=False):
        lines, before = path.read_text("utf-8").splitlines(), ""
        for line in lines:
            plain = line and not line.lstrip().startswith(("#", "question:")) and not line.endswith(":")
            assert not plain or "  # " in line or before.startswith("#"), line
            before = line.lstrip()


def test_budgets_that_miss_the_rare_class_are_left_out_and_said(tmp_path):
    folder = write_example(tmp_path / "images", n=160, positives=3, negatives=57)
    study = load_study(write_study(tmp_path / "studies" / "mine.yaml", folder, tell=False)[1])
    assert min(study.evaluate.budgets) > 0.05 and study.evaluate.class_weight == "balanced"
    assert "supervised_weighted" in study.floors
    assert "5 % budgets hold no positive in" in (tmp_path / "studies" / "mine.yaml").read_text("utf-8")


def test_a_card_that_is_there_serves_as_it_is(tmp_path):
    written = write_study(tmp_path / "clothes.yaml", "fashion", tell=False)
    study = load_study(written[0])
    assert len(written) == 1 and study.name == "clothes" and study.data[0].dataset == "fashion"
    assert study.data[0].image_size == 28 and study.evaluate.class_weight == "none"


def test_a_size_that_no_patch_divides_has_no_mae(folder, tmp_path):
    study = load_study(write_study(tmp_path / "studies" / "mine.yaml", folder, image_size=37, tell=False)[1])
    assert [arm.name for arm in study.arms] == ["simclr"] and study.data[0].image_size == 37


# --- what is refused, in one line -------------------------------------------------------------------------------------

def refused(match, call, *arguments, **named):
    with pytest.raises(ConfigError, match=match) as error:
        call(*arguments, **named)
    assert "\n" not in str(error.value)


def test_what_is_not_there_or_not_images(tmp_path):
    refused("no such folder or file", draft_card, tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    refused("no images in it", draft_card, tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("hello")
    refused("not a folder of class folders", draft_card, tmp_path / "notes.txt")


def test_a_csv_must_name_files_that_are_there_and_a_label(tmp_path):
    (tmp_path / "a.csv").write_text("image,label\nx.png,1\n")
    refused("no column 'path' in a.csv; its columns are image, label", draft_card, tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("path,finding\nx.png,1\n")
    refused("no column 'label'; say which of its columns holds the classes: path, finding", draft_card,
            tmp_path / "b.csv")
    refused("x.png: listed, but not there", draft_card, tmp_path / "b.csv", label="finding")


def test_a_group_rule_must_fit(folder, table):
    refused(r"fits 36 of 48 paths", draft_card, folder, group=r"(?P<group>benign|malignant)")
    refused(r"group: no column 'patient' in table.csv", draft_card, table, label="finding", group="patient")


def test_without_labels_there_is_a_card_and_no_study(tmp_path):
    for i in range(4):
        save(tmp_path / "images" / f"{i}.png", i)
    assert load(write_card(tmp_path / "all.yaml", draft_card(tmp_path / "images"))).counts().sum() == 0
    refused("label some images of each class", write_study, tmp_path / "studies" / "mine.yaml", tmp_path / "images")


def test_names_and_unknown_cards(folder, tmp_path):
    refused("small letters, digits and _", write_study, tmp_path / "My Study.yaml", folder)
    refused("no such card", write_study, tmp_path / "mine.yaml", tmp_path / "absent.yaml")


def test_a_file_that_was_changed_is_kept(folder, tmp_path):
    study = tmp_path / "studies" / "mine.yaml"
    first = write_study(study, folder, tell=False)
    assert write_study(study, folder, tell=False) == first, "the same again is no conflict"
    changed = study.read_text("utf-8").replace("seeds: [0, 1, 2]", "seeds: [0]")
    study.write_text(changed, "utf-8")
    refused("says something else", write_study, study, folder, tell=False)
    assert study.read_text("utf-8") == changed
    write_study(study, folder, tell=False, replace=True)
    assert load_study(study).seeds == [0, 1, 2]
    refused("mine.yaml: is there", write_new, study, "name: other\n")


# --- the example ------------------------------------------------------------------------------------------------------

def test_the_example_is_what_it_says(tmp_path):
    folder = write_example(tmp_path / "images", n=120, positives=6, negatives=40)
    data = load(write_card(tmp_path / "mine.yaml", draft_card(folder, synthetic=True)))
    assert data.synthetic and data.counts().tolist() == [41, 6] and len(data) == 122
    copies = census.exact_duplicates(data)
    assert len(copies) == 2 and copies.across_classes.sum() == 1 and copies.across_groups.sum() == 1
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    write_example(folder, n=120, positives=6, negatives=40)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == before, "what is there stays"


# --- the arms ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size, cards", [(20, 0), (28, 0), (64, 0), (48, 1), (96, 1), (224, 1)])
def test_every_arm_can_be_built(size, cards):
    from ssl_core import methods
    from ssl_core.augment import Augment
    from ssl_core.encoders import Encoder
    from ssl_core.study import Arm

    arms = [Arm(**{key: value for key, value, _ in entries}) for entries in arms_for(900, size, 3, cards)[1]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the stem, where images are small
        for arm in arms:
            encoder = Encoder(arm.encoder, arm.encoder_args, arm.stem, size, arm.normalisation)
            assert methods.build(arm.method, encoder, Augment(arm.recipe, size), n=900, **arm.method_args)
    assert len(arms) == 2 and arms[0].batch <= 900 / 4
