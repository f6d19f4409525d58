"""New images through finished models: the study's own test images get the study's own scores; nothing bad is fatal."""

import importlib.metadata
import json
import os
import re
import subprocess
import venv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image
from smoke_study import smoke  # noqa: F401
from toy_configs import finetune, pretrain, probe

from ssl_core import methods
from ssl_core.augment import Augment
from ssl_core.cli import main
from ssl_core.data import load
from ssl_core.data.pools import pools
from ssl_core.data.splits import label_budget
from ssl_core.encoders import build_encoder, load_encoder
from ssl_core.evaluate.features import extract
from ssl_core.evaluate.finetune import finetune as fine_tune
from ssl_core.evaluate.finetune import predict as scores_of
from ssl_core.evaluate.fit import fit_probe
from ssl_core.evaluate.heads import rows_of, save_heads, stored
from ssl_core.evaluate.metrics import Predictions, fix_thresholds
from ssl_core.evaluate.probe import apply_probe
from ssl_core.finished import open_head
from ssl_core.predict import decide, scores, unlike
from ssl_core.runs import open_run
from ssl_core.train import pretrain as train

CARD = ("kind: folder\nroot: images\nimage_size: 16\nchannels: 3\ngeometry: pad\ntask: binary\n"
        "classes: [low, high]\ngroup: (?P<group>slide\\d+)\n")
SMALL = dict(study="s", dataset="mine", image_size=16, split_kind="natural", ratio=1, label_pool="natural",
             test_fraction=0.3)
HEADS = dict(protocols=["mlp", "linear", "knn"],
             heads={"mlp": {"head": "mlp", "hidden": 6, "norm": "batch_affine", "epochs": 5, "val": "inner"}})
NET = dict(encoder="resnet10t", encoder_args={"channels": [8, 8, 8, 8]}, stem="cifar", normalisation="half")


def draw(path, bright, seed, side=(24, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 120, (*side, 3)) + 90 * bright
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A pretraining of two steps on oblong images of 12 slides; its probe; a fine-tuning; the floor from scratch."""
    root = tmp_path_factory.mktemp("project")
    (root / "notebooks").mkdir()
    for slide in range(12):
        for label in ("low", "high"):
            for i in range(5):
                draw(root / f"params/data/images/{label}/slide{slide:02d}_{i}.png", label == "high", 100 * slide + i)
    (root / "params/data/mine.yaml").write_text(CARD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CORE_ROOT", str(root))
        data = load("mine", 16)
        cfg = pretrain(**SMALL, **NET, epochs=0, steps=2, batch=16, recipe="weak")
        parts = pools(data, **cfg.pool_arguments())
        run = open_run("pretrain", cfg, {"data": data, **vars(parts)})
        net = build_encoder(cfg, 0)
        method = methods.build("simclr", net, Augment("weak", 16), len(parts.unlabelled), 0, [])
        train(method, data.images[parts.unlabelled], cfg, run.folder, run.key)
        run.finish(["encoder.safetensors"])
        below = run.folder.relative_to(root).as_posix()
        for cfg in (probe(**SMALL, run=below, budgets=[0.5, 1.0], **HEADS),
                    finetune(**SMALL, run=below, budgets=[1.0], steps=2),
                    finetune(**SMALL, **NET, budgets=[1.0], steps=2, batch=16)):
            evaluate(cfg, data, parts)
    return root


def evaluate(cfg, data, parts):
    """What the notebooks 20 and 30 do, without what they show."""
    run = open_run("probe" if hasattr(cfg, "protocols") else "finetune", cfg, {"data": data, **vars(parts)})
    net = (load_encoder(Path(run.folder).parents[4] / cfg.run / "encoder.safetensors") if cfg.run
           else build_encoder(cfg, 0))
    labels, groups = data.labels[parts.labelled], data.groups[parts.labelled]
    for cell in cfg.cells():
        at = label_budget(labels, cell.budget, cfg.label_seed, groups)
        if run.stage == "probe":
            h = extract(net, data.images[np.concatenate([parts.labelled, parts.test])], run.path("features.npz"))
            fitted = fit_probe(cell.protocol, cfg.heads.get(cell.protocol, {}), h[at], labels[at], groups[at],
                               task="binary", n_classes=2)
            found, head = fitted.predict_proba(h[len(parts.labelled):]), fitted.head_arrays()
            about = {"thresholds": fix_thresholds(fitted.out_of_fold, labels[at], data.classes, "binary")}
            head = {} if cell.protocol == "knn" else head
        else:
            place = run.path(f"models/{cell.id}")
            place.mkdir(parents=True)
            model, _ = fine_tune(net, data.images[parts.labelled[at]], labels[at], cfg, 2, "binary", place)
            found, head = scores_of(model, data.images[parts.test]), model.head.state_dict()
            head = {name: tensor.detach().numpy() for name, tensor in head.items()}
            about = {"encoder": f"models/{cell.id}/encoder.safetensors", "thresholds": {}}
        test = Predictions(found, data.labels[parts.test], data.classes, "binary", data.groups[parts.test])
        run.write_cell(cell.id, rows_of(test, 0, 100, n_labelled=len(at)), stored(test, head, about))
    run.finish(save_heads(run, {"classes": data.classes, "task": data.task, "run": cfg.run}))


@pytest.fixture(autouse=True)
def here(project, monkeypatch):
    monkeypatch.setenv("SSL_CORE_ROOT", str(project))


def folder_of(project, pattern):
    folder, = (project / "outputs/s/runs").glob(pattern)
    return folder


RUNS = ["probe/*", "finetune/simclr*", "finetune/supervised*"]


def predicted(run, out, images, *more):
    assert main(["predict", str(run), "--images", str(images), "--out", str(out), "--device", "cpu", *more]) == 0
    return pd.read_csv(out, keep_default_na=False, na_values={"unlike": ""})


@pytest.mark.parametrize("pattern, more, cell", [
    ("probe/*", (), "linear-b1-s0"), ("probe/*", ("--budget", "0.5"), "linear-b0.5-s0"),
    ("probe/*", ("--protocol", "mlp"), "mlp-b1-s0"),
    (RUNS[1], (), "finetune-b1-s0"), (RUNS[2], ("--protocol", "finetune"), "finetune-b1-s0")])
def test_the_study_s_test_images_get_the_study_s_scores(project, tmp_path, capsys, pattern, more, cell):
    run = folder_of(project, pattern)
    table = predicted(run, tmp_path / "scores.csv", project / "params/data/images", *more)
    said = capsys.readouterr().out
    assert cell in said and "research use only" in said and "3 × 16 × 16 by pad, as the run's images" in said
    data = load("mine", 16)
    parts = pools(data, **probe(**SMALL).pool_arguments())
    with np.load(run / "cells" / f"{cell}.npz") as kept:
        own = table.set_index("path").loc[[data.paths[i] for i in parts.test]]
        assert np.abs(own[["p_low", "p_high"]].to_numpy() - kept["probabilities"]).max() < 1e-6
    assert list(table.group) == [re.search(r"slide\d+", path)[0] for path in table.path]
    assert set(table.use) == {"research use only"} and list(table.columns) == [
        "path", "group", "p_low", "p_high", "label", "unlike", "problem", "use"]
    # whole slides were held out, and the percentile is among them: it is spread evenly over the test images
    ranks = np.sort(own.unlike)
    assert ranks[-1] == 100 and np.abs(ranks - 100 * np.arange(1, len(own) + 1) / len(own)).max() <= 10

    thresholds = json.loads((run / "model.json").read_text())["cells"][cell]["thresholds"]
    at = thresholds["high"]["90"] if thresholds else 0.5
    assert list(table.label) == ["high" if p >= at else "low" for p in table.p_high]
    assert ("from" in said and "threshold of 90 %" in said) if thresholds else "no threshold was stored" in said
    slides = pd.read_csv(tmp_path / "scores_slides.csv")
    assert len(slides) == 12 and set(slides.images) == {10} and set(slides.problems) == {0}
    first = table[table.group == "slide00"]
    assert slides.p_high[0] == pytest.approx(first.p_high.mean(), abs=1e-8)
    assert slides.share_high[0] == pytest.approx((first.label == "high").mean())


def test_bad_images_are_listed_and_others_are_scored(project, tmp_path, capsys):
    images = tmp_path / "new"
    for i in range(3):
        draw(images / f"a/{i}.png", i % 2, i, (40, 30))
    Image.fromarray(np.full((9, 30), 70, np.uint8)).save(images / "a/gray.tif")
    Image.fromarray(np.random.default_rng(0).integers(0, 60000, (20, 20)).astype(np.uint16)).save(images / "b.png")
    (images / "a/1.jpg").write_bytes(b"no image")
    table = predicted(folder_of(project, "probe/*"), tmp_path / "s.csv", images)
    said = capsys.readouterr().out
    assert list(table.path) == ["a/0.png", "a/1.png", "a/2.png", "a/gray.tif", "b.png", "a/1.jpg"]
    assert "1 images could not be read:\n  a/1.jpg: cannot identify" in said and "group: the images' folders" in said
    bad = table.iloc[-1]
    assert bad.problem.startswith("cannot identify") and bad.label == bad.p_low == "" and np.isnan(bad.unlike)
    assert not any(table.problem[:-1]) and table.unlike[:-1].between(0, 100).all()
    slides = pd.read_csv(tmp_path / "s_slides.csv").set_index("group")
    assert slides.loc["a", "images"] == 5 and slides.loc["a", "problems"] == 1 and slides.loc["new", "images"] == 1
    assert slides.loc["a", ["p_low", "p_high"]].sum() == pytest.approx(1)


def test_a_csv_names_images_and_slides(project, tmp_path):
    for i in range(4):
        draw(tmp_path / f"x/{i}.png", i % 2, i)
    rows = ["path,group,stain", "x/0.png,S1,he", "x/1.png,S1,pap", "x/2.png,S2,he", "x/9.png,S2,he"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    run = folder_of(project, "probe/*")
    table = predicted(run, tmp_path / "s.csv", tmp_path / "list.csv", "--group", "group")
    assert list(table.group) == ["S1", "S1", "S2", "S2"] and table.problem.iloc[-1] == "no such file"
    again = predicted(run, tmp_path / "t.csv", tmp_path / "list.csv", "--group", "stain")
    assert list(again.group) == ["he", "pap", "he", "he"] and list(again.p_high) == list(table.p_high)
    assert list(predicted(run, tmp_path / "u.csv", tmp_path / "list.csv").group) == list(table.group)


@pytest.mark.parametrize("arguments, message", [
    (["probe/*", "--protocol", "knn"], "knn has no head"),
    (["probe/*", "--protocol", "finetune"], "no head of finetune"),
    (["probe/*", "--budget", "0.3"], "--budget 0.3: .* has 0.5, 1"), (["pretrain/*"], "no finished probe or fine-tun"),
    (["probe/*", "--group", "stain"], "group: the pattern 'stain' has no group named"),
])
def test_what_cannot_be_is_one_line(project, tmp_path, capsys, arguments, message):
    run, images = folder_of(project, arguments[0]), project / "params/data/images"
    assert main(["predict", str(run), "--images", str(images), "--out", str(tmp_path / "s.csv"), *arguments[1:]]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said) and said.count("\n") == 1 and not list(tmp_path.iterdir())


def test_other_mistakes_are_one_line_too(project, tmp_path, capsys):
    run, images = str(folder_of(project, "probe/*")), str(project / "params/data/images")
    for words in (["predict", run, "--images", images, "--out", str(tmp_path / "s.txt")],
                  ["predict", run, "--images", str(tmp_path / "none"), "--out", str(tmp_path / "s.csv")],
                  ["predict", run, "--images", str(tmp_path), "--out", str(tmp_path / "s.csv")],
                  ["embed", run, "--images", images, "--out", str(tmp_path / "f.npz")],
                  ["embed", images, "--images", images, "--out", str(tmp_path / "no/f.npz")]):
        assert main(words) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_an_encoder_that_was_made_anew_is_not_used_for_an_old_probe(project, tmp_path, capsys):
    run = folder_of(project, "probe/*")
    record = (run / "run.json").read_text()
    below = json.loads(record)["below"]["run"]
    (run / "run.json").write_text(record.replace(below, "0" * 64))
    try:
        assert main(["predict", str(run), "--images", str(tmp_path), "--out", str(tmp_path / "s.csv")]) == 2
        assert "another encoder than the one that was probed" in capsys.readouterr().err
    finally:
        (run / "run.json").write_text(record)


def test_without_the_study_s_images_how_unlike_is_left_empty_and_said(project, tmp_path, capsys):
    draw(tmp_path / "new/a.png", 0, 1)
    away = (project / "params/data/images").rename(project / "away")
    try:
        table = predicted(folder_of(project, RUNS[1]), tmp_path / "s.csv", tmp_path / "new")
    finally:
        away.rename(project / "params/data/images")
    assert table.unlike.isna().all() and "unlike: left empty: its images are not at hand" in capsys.readouterr().out


def test_embed_gives_the_features_of_the_study(project, tmp_path, capsys):
    run, images = folder_of(project, "pretrain/*"), project / "params/data/images"
    assert main(["embed", str(run), "--images", str(images), "--out", str(tmp_path / "f.npz"), "--device", "cpu"]) == 0
    assert "120 images × 8 features" in capsys.readouterr().out
    data = load("mine", 16)
    wanted = extract(load_encoder(run / "encoder.safetensors"), data.images)
    with np.load(tmp_path / "f.npz", allow_pickle=False) as made:
        assert list(made["paths"]) == list(data.paths) and np.abs(made["h"] - wanted).max() < 1e-6
        assert str(made["key"]) == json.loads((run / "run.json").read_text())["key"]
        assert str(made["use"]) == "research use only" and len(made["problems"]) == 0
        assert json.loads(str(made["about"]))["images"]["geometry"] == "pad"
    moved = tmp_path / "moved.safetensors"  # away from its run, nothing says how images were brought to its size
    moved.write_bytes((run / "encoder.safetensors").read_bytes())
    assert main(["embed", str(moved), "--images", str(images), "--out", str(tmp_path / "g.npz")]) == 0
    assert "by resize_crop, not known from a run" in capsys.readouterr().out


# --- parts ------------------------------------------------------------------------------------------------------------

def test_labels_follow_thresholds_or_say_that_there_are_none():
    p = np.array([[0.8, 0.2], [0.4, 0.6]])
    t = {"b": {"90": 0.1, "95": 0.7}}
    assert decide(p, ("a", "b"), "binary", t, 90)[0].argmax(1).tolist() == [1, 1]
    assert decide(p, ("a", "b"), "binary", t, 95)[0].argmax(1).tolist() == [0, 0]
    assert decide(p, ("a", "b"), "binary", {}, 95)[0].argmax(1).tolist() == [0, 1]
    said, rule = decide(p, ("a", "b"), "multilabel", t, 90)
    assert said.tolist() == [[True, True], [False, True]] and "1 without one at 0.5" in rule
    assert decide(np.array([[0.2, 0.5, 0.3]]), "abc", "multiclass", {}, 90)[0].tolist() == [[False, True, False]]


def test_unlike_is_a_percentile_among_held_out_images():
    rng = np.random.default_rng(0)
    labelled, held_out, new = (rng.normal(size=(n, 8)) + 3 for n in (400, 400, 400))
    assert np.abs(np.sort(unlike(new, labelled, held_out)) - np.linspace(0, 100, 400)).max() < 12
    assert unlike(-new, labelled, held_out).min() == 100  # in a direction where no image was
    assert np.isnan(unlike(np.full((1, 8), np.nan), labelled, held_out)).all()


def test_scores_of_nothing_that_can_be_read():
    head = {"cell": "c", "arrays": {}, "model": {"classes": ["a", "b"], "task": "binary", "cells": {"c": {}}}}
    table, slides, _ = scores(head, np.full((2, 3), np.nan), ["x", "y"], ["g", "g"], {0: "bad", 1: "bad"})
    assert list(table.problem) == ["bad", "bad"] and slides.problems.tolist() == [2]


# --- load_me.py -------------------------------------------------------------------------------------------------------

ALONE = """
import importlib.util, sys
assert not [name for name in ("ssl_core", "pandas", "sklearn", "pydantic") if importlib.util.find_spec(name)]
import numpy as np, torch
x = torch.from_numpy(np.load("x.npy"))
for number, words in enumerate(sys.argv[1:]):
    run, *cell = words.split("|")
    spec = importlib.util.spec_from_file_location("load_me", run + "/load_me.py")
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    model = module.load(*cell)
    assert not model.training and model.size == 16
    with torch.inference_mode():
        np.save(f"{number}.npy", model(x).numpy())
"""


def bare_python(folder, *names):
    """The interpreter of an environment that holds these packages and what they declare they need, as links to ours."""
    venv.create(folder, symlinks=True)
    place, = folder.glob("lib/python*/site-packages")
    wanted, seen = [*names], set()
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name in seen:
            continue
        seen.add(name)
        here = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in here.files} - {"..", "__pycache__"}:
            if not (place / top).is_symlink():  # several may share a folder, as those of one name space do
                (place / top).symlink_to(here.locate_file(top))
        needs = map(Requirement, here.requires or ())
        wanted += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return folder / "bin" / "python"


@pytest.mark.skipif(os.name == "nt", reason="links need rights there that few have")
def test_a_run_s_model_loads_with_torch_and_timm_alone(project, tmp_path):
    x, cases = torch.rand(5, 3, 16, 16), [("pretrain/*", ""), *((run, "") for run in RUNS), (RUNS[0], "linear-b0.5-s0"),
                                       (RUNS[0], "mlp-b0.5-s0")]
    np.save(tmp_path / "x.npy", x.numpy())
    words = [f"{folder_of(project, pattern)}|{cell}".strip("|") for pattern, cell in cases]
    python = bare_python(tmp_path / "bare", "torch", "timm")
    done = subprocess.run([python, "-I", "-W", "error", "-c", ALONE, *words], capture_output=True, text=True,
                          cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for number, (pattern, cell) in enumerate(cases):
        made, run = np.load(tmp_path / f"{number}.npy"), folder_of(project, pattern)
        with torch.inference_mode():
            if pattern.startswith("pretrain"):
                wanted = load_encoder(run / "encoder.safetensors")(x).h.numpy()
            else:
                head = open_head(run, cell.partition("-")[0], 0.5 if cell else None)
                h = load_encoder(head["encoder"])(x).h.numpy()
                wanted = apply_probe(head["arrays"], "binary", h)
        assert made.shape == wanted.shape and np.abs(made - wanted).max() < 1e-6


def test_the_loader_enters_neither_keys_nor_hashes_and_is_written_once(project):
    from ssl_core import load_me
    from ssl_core.keys import ENTRIES, code_slice, method_modules

    for modules in (*ENTRIES.values(), method_modules("simclr")):
        assert not {"load_me", "runs", "predict", "finished"} & set(code_slice(modules))
    for run in (project / "outputs/s/runs").glob("*/*"):
        assert (run / "load_me.py").read_text() == Path(load_me.__file__).read_text()
        assert "load_me.py" not in json.loads((run / "done.json").read_text())["files"]
    cfg = pretrain(**SMALL, **NET, epochs=0, steps=2, batch=16, recipe="weak")
    data = load("mine", 16)
    run = open_run("pretrain", cfg, {"data": data, **vars(pools(data, **cfg.pool_arguments()))})
    before = run.path("load_me.py").stat().st_mtime_ns
    run.finish(["encoder.safetensors"])
    assert run.path("load_me.py").stat().st_mtime_ns == before


@pytest.mark.slow
def test_bulk_runs_leave_models_one_can_use(smoke, tmp_path, monkeypatch):  # noqa: F811
    """Fashion-MNIST from arrays: the test images as PNG files get the scores that notebook 20 stored."""
    run, = (smoke.folder / "runs").glob("probe/simclr-fashion-lt100-*")
    monkeypatch.setenv("SSL_CORE_ROOT", str(smoke.project))
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(smoke.outputs))
    data = load("fashion", 28)
    test = pools(data, **{**probe(**json.loads((run / "run.json").read_text())["parameters"]).pool_arguments()}).test
    (tmp_path / "images").mkdir()
    for i in test[::20]:
        Image.fromarray(data.images[i, 0]).save(tmp_path / f"images/{i:06d}.png")
    table = predicted(run, tmp_path / "s.csv", tmp_path / "images", "--budget", "0.1")
    with np.load(run / "cells/linear-b0.1-s0.npz") as kept:
        own = table[[f"p_{name}" for name in kept["classes"]]].to_numpy()
        assert np.abs(own - kept["probabilities"][::20]).max() < 1e-6
    assert (run / "load_me.py").exists() and not list((smoke.folder / "runs").glob("probe/floors-*/load_me.py"))
