"""Export: timm alone loads what a study made and gives its scores; the archive opens elsewhere, or is refused."""

import ast
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from safetensors.numpy import load_file, save_file
from scipy.special import softmax

from ssl_core.archive import METADATA, inside, pack, unpack
from ssl_core.as_timm import folded, network
from ssl_core.cli import main
from ssl_core.config import ConfigError
from ssl_core.data import load
from ssl_core.data.pools import pools
from ssl_core.data.splits import frequency_groups, label_budget
from ssl_core.encoders import build_encoder, load_encoder, save_encoder
from ssl_core.evaluate.features import extract
from ssl_core.evaluate.finetune import Classifier
from ssl_core.evaluate.finetune import predict as scores_of
from ssl_core.evaluate.heads import rows_of, save_heads, stored
from ssl_core.evaluate.metrics import Predictions
from ssl_core.evaluate.probe import knn_probe, linear_probe
from ssl_core.export import budget_name, checkpoints, condition, export, finished_jobs, layouts, results_text, varying
from ssl_core.files import atomic_json, atomic_write
from ssl_core.finished import open_head
from ssl_core.plan import make_plan
from ssl_core.runs import collect, open_run, read_run
from ssl_core.study import Study
from ssl_core.table import read_results

ROOT = Path(__file__).parents[1]
CLASSES = ("ant", "bee", "cat", "dog")
STUDY = {
    "name": "toy", "question": "Does it leave?", "data": {"dataset": "toy", "image_size": 64, "label_pool": "natural"},
    "splits": {"kind": "long_tail", "ratios": [1, 5]},
    "arms": [{"name": "simclr", "method": "simclr", "encoder": "resnet10t", "encoder_args": {"channels": [8, 8, 8, 8]},
              "normalisation": "imagenet"},
             {"name": "mae", "method": "mae", "encoder": "vit_tiny_patch16_224", "recipe": "mae", "ratios": [5],
              "encoder_args": {"embed_dim": 24, "depth": 1, "num_heads": 2, "global_pool": "avg"},
              "normalisation": "half"},
             {"name": "small_stem", "method": "simclr", "encoder": "resnet10t", "stem": "cifar", "ratios": [5],
              "encoder_args": {"channels": [4, 4, 4, 4]}}],
    "evaluate": {"protocols": ["linear", "knn", "finetune"], "budgets": [0.25, 1.0]}, "floors": ["majority"],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A study of 140 images whose runs stand as the notebooks leave them, with networks at their initialisation."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    shutil.copytree(ROOT / "params", root / "params", ignore=shutil.ignore_patterns("*.npz"))
    for name in ("CITATION.cff", "requirements.lock"):
        shutil.copy(ROOT / name, root)
    images = np.random.default_rng(0).integers(0, 255, (140, 64, 64), dtype=np.uint8)
    labels = np.arange(140) % 4
    images[labels == 1] //= 2
    np.savez(root / "params/data/toy.npz", train_images=images[:100], train_labels=labels[:100],
             test_images=images[100:], test_labels=labels[100:])
    (root / "params/data/toy.yaml").write_text(f"kind: npz\nfile: toy.npz\nclasses: [{', '.join(CLASSES)}]\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CORE_ROOT", str(root))
        for job in make_plan(Study(**STUDY)).jobs:
            if job.stage == "pretrain" or job.cfg.run:
                carry_out(job.stage, job.cfg, root)
        plan, folder = make_plan(Study(**STUDY)), root / "outputs/toy"
        atomic_json(folder / "plan.json", plan.as_dict())
        atomic_write(folder / "results.csv", collect(plan.jobs).to_csv(index=False, lineterminator="\n"))
    cell = nbformat.v4.new_code_cell("print(1)", metadata={"tags": ["page-answer"]}, outputs=[
        nbformat.v4.new_output("stream", text="The answer is one.")])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"papermill": {"input_path": f"{root}/n.ipynb"}}),
                   folder / "40_compare.ipynb")
    return root


def carry_out(stage, cfg, root):
    """What a notebook leaves, without training."""
    data = load("toy", 64)
    parts = pools(data, **cfg.pool_arguments())
    run = open_run(stage, cfg, {"data": data, **vars(parts)})
    if stage == "pretrain":
        save_encoder(awake(build_encoder(cfg, cfg.seed)), run.path("encoder.safetensors"), run.key)
        history = pd.DataFrame({"epoch": [1, 2], "loss": [1.5, 1 / 3], "lr": [1e-3, 0.0]})
        atomic_write(run.path("history.csv"), history.to_csv(index=False))
        return run.finish(["encoder.safetensors", "history.csv"], order=[3, 2, 1, 0])
    net = load_encoder(root / cfg.run / "encoder.safetensors")
    x, labels = data.images[np.concatenate([parts.labelled, parts.test])], data.labels[parts.labelled]
    for cell in cfg.cells():
        at, about = label_budget(labels, cell.budget, 0), {}
        if stage == "probe":
            h = extract(net, x, run.path("features.npz"))
            fitted = {"linear": linear_probe, "knn": knn_probe}[cell.protocol](h[at], labels[at], n_classes=4)
            p, head = fitted.predict_proba(h[len(labels):]), fitted.head_arrays() if cell.protocol == "linear" else {}
        else:
            model = Classifier(net, 4).eval()
            torch.nn.init.normal_(model.head.weight)
            save_encoder(net, run.path(f"models/{cell.id}/encoder.safetensors"))
            p, about = scores_of(model, data.images[parts.test]), {"encoder": f"models/{cell.id}/encoder.safetensors"}
            head = {name: tensor.detach().numpy() for name, tensor in model.head.state_dict().items()}
        test = Predictions(p, data.labels[parts.test], CLASSES, frequency=frequency_groups([3, 2, 1, 0]))
        run.write_cell(cell.id, rows_of(test, 0, 100, n_labelled=len(at)), stored(test, head, about))
    run.finish(save_heads(run, {"classes": CLASSES, "task": data.task, "run": cfg.run}))


def awake(net):
    """With statistics and gains of batch norm that are not those of the start, so that a lost one shows."""
    generator = torch.Generator().manual_seed(1)
    for tensor in net.backbone.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor += 0.2 * torch.rand(tensor.shape, generator=generator)
    return net


@pytest.fixture(autouse=True)
def here(project, monkeypatch):
    monkeypatch.setenv("SSL_CORE_ROOT", str(project))


@pytest.fixture(scope="module")
def tree(project, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CORE_ROOT", str(project))
        to = tmp_path_factory.mktemp("tree")
        return to, *export("toy", to, "a")


def loaded(path):
    """(the model as the file's own instructions make it, the instructions)."""
    about = json.loads(path.with_suffix(".json").read_text("utf-8"))
    state = torch.load(path, weights_only=True)
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    scope = {"torch": torch, "timm": timm}
    exec("\n".join(about["load"]).replace(repr(path.name), repr(str(path))), scope)
    return scope["model"], about


def normalised(images, about):
    x = torch.from_numpy(images).float().expand(-1, 3, -1, -1) / 255
    mean, std = (torch.tensor(about[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    return (x - mean) / std


# --- layout a ---------------------------------------------------------------------------------------------------------

def test_files_stand_where_the_published_ones_do(tree):
    to, written, _ = tree
    assert {path.relative_to(to).as_posix() for path in written} == {
        "SimCLR/pretrained/ratio_1-1.pth", "SimCLR/pretrained/ratio_1-5.pth", "MAE/pretrained/ratio_1-5.pth",
        "small stem/pretrained/ratio_1-5.pth",
        *(f"{arm}/downstream tasks/{protocol}/{ratio}/ratio_{budget}-100.pth" for protocol in
          ("linear probing", "fine-tune") for budget in (25, 100) for arm, ratio in (
              ("SimCLR", "ratio_1-1"), ("SimCLR", "ratio_1-5"), ("MAE", "ratio_1-5"), ("small stem", "ratio_1-5")))}
    args = json.loads((to / "MAE/pretrained/ratio_1-5/args.txt").read_text("utf-8"))
    assert args["method"] == "mae" and args["ratio"] == 5 and args["encoder_args"]["embed_dim"] == 24
    log = [json.loads(line) for line in (to / "MAE/pretrained/ratio_1-5/log.txt").read_text("utf-8").splitlines()]
    assert log == [{"epoch": 1, "train_loss": 1.5, "train_lr": 1e-3},
                   {"epoch": 2, "train_loss": pytest.approx(1 / 3, rel=1e-14), "train_lr": 0.0}]


@pytest.mark.parametrize("arm, strictly", [("SimCLR", True), ("MAE", True), ("small stem", False)])
def test_pretrained_networks_load_strictly_and_give_the_same_features(tree, project, arm, strictly):
    path = tree[0] / arm / "pretrained/ratio_1-5.pth"
    model, about = loaded(path)
    assert about["use"] == "research use only" and about["timm"]["num_classes"] == 0
    assert (about["stem"] == "default") == strictly and (len(about["load"]) == 3) == strictly
    ours = load_encoder(next((project / "outputs/toy/runs/pretrain").glob(f"*-{about['from']['key']}"))
                        / "encoder.safetensors")
    images = load("toy", 64).images[:8]
    with torch.no_grad():
        x = torch.from_numpy(images).float().expand(-1, 3, -1, -1) / 255
        torch.testing.assert_close(model(normalised(images, about)), ours(x).h, rtol=0, atol=1e-6)


@pytest.mark.parametrize("arm", ["SimCLR", "MAE", "small stem"])
@pytest.mark.parametrize("protocol", ["linear probing", "fine-tune"])
def test_a_classifier_gives_the_logits_of_the_study(tree, project, arm, protocol):
    """Standardisation is folded into the last layer: the numbers, not only the classes, are those of the probe."""
    model, about = loaded(tree[0] / arm / "downstream tasks" / protocol / "ratio_1-5/ratio_100-100.pth")
    assert about["classes"] == list(CLASSES) and about["from"]["ratio"] == 5 and about["from"]["budget"] == 1
    stage = "probe" if protocol == "linear probing" else "finetune"
    folder = next((project / "outputs/toy/runs" / stage).glob(f"*-{about['from']['key']}"))
    head = open_head(folder, about["from"]["protocol"], 1.0)
    with np.load(folder / f"cells/{head['cell']}.npz", allow_pickle=False) as kept:
        p = torch.from_numpy(kept["probabilities"])
    data = load("toy", 64)
    images = data.images[data.part == "test"]
    with torch.no_grad():
        z = model(normalised(images, about)).double()
    torch.testing.assert_close(z.softmax(1), p, rtol=0, atol=1e-5)
    h, arrays = extract(load_encoder(head["encoder"]), images), head["arrays"]
    expected = (h - arrays["mean"]) / arrays["scale"] @ arrays["weight"].T + arrays["bias"]
    np.testing.assert_allclose(z.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def copied(project, tmp_path):
    """A copy of MAE's probe → (its folder, run.json, its cell as a plan has it)."""
    folder = shutil.copytree(next((project / "outputs/toy/runs/probe").glob("mae-*")), tmp_path / "probe")
    cell = {"id": "linear-b1-s0", "source": "encoder", "protocol": "linear", "budget": 1.0}
    return folder, read_run(folder), cell


def test_a_head_on_the_class_token_of_a_network_that_pools_is_kept(copied, project):
    folder, record, cell = copied
    images = load("toy", 64).images[-8:]
    h = extract(load_encoder(open_head(folder)["encoder"]), images, folder / "token.npz", what="token")
    head = {"weight": np.random.default_rng(0).normal(size=(4, 24)), "bias": np.arange(4.0)}
    save_file({f"{cell['id']}/{name}": array for name, array in head.items()}, folder / "head.safetensors")
    model = json.loads((folder / "model.json").read_text("utf-8"))
    model["cells"][cell["id"]]["features"] = "token"
    atomic_json(folder / "model.json", model)
    expected = h @ head["weight"].T + head["bias"]
    np.savez(folder / f"cells/{cell['id']}.npz", probabilities=softmax(expected, axis=1))
    state, about = network(folder, record, cell, "x.pth")
    call = dict(about["timm"])
    plain = timm.create_model(call.pop("name"), **call).eval()
    plain.load_state_dict(state)
    with torch.no_grad():
        np.testing.assert_allclose(plain(normalised(images, about)).numpy(), expected, atol=1e-5)


def test_a_head_that_does_not_give_the_scores_of_the_study_is_refused(copied):
    folder, record, cell = copied
    tensors = load_file(folder / "head.safetensors")
    save_file(tensors | {f"{cell['id']}/bias": tensors[f"{cell['id']}/bias"] + np.arange(4.0)},
              folder / "head.safetensors")
    with pytest.raises(ConfigError, match="a linear layer does not give its scores: off by up to 0"):
        network(folder, record, cell, "x.pth")


def test_what_cannot_be_expressed_is_listed(tree):
    to, _, left = tree
    said = (to / "README.txt").read_text("utf-8")
    neighbours = next(reason for reason in left if "nearest neighbours" in reason)
    assert len(left[neighbours]) == 8 and all("knn" in what for what in left[neighbours])  # 4 encoders × 2 budgets
    assert any("majority" in what or "floors" in what for what in left["has not run"])
    assert all(what in said for reason in left for what in left[reason]) and "research use only" in said


def test_a_head_that_is_no_linear_layer_is_refused_in_words():
    plain = {"weight": np.ones((2, 3)), "bias": np.zeros(2)}
    weight, bias = folded(plain | {"mean": np.full(3, 2.0), "scale": np.full(3, 4.0)}, 3)
    assert weight.tolist() == [[0.25] * 3] * 2 and bias.tolist() == [-1.5] * 2
    with pytest.raises(ConfigError, match="more than one linear layer .*hidden"):
        folded(plain | {"hidden.weight": np.ones((3, 3))}, 3)
    with pytest.raises(ConfigError, match="on 3 features, the network gives 4"):
        folded(plain, 4)


def test_an_arm_with_two_linear_probes_has_a_folder_for_each(tmp_path):
    jobs, _ = finished_jobs("toy")
    probe = next(job for job in jobs if job.record["stage"] == "probe")
    job = replace(probe, cells=[*probe.cells, probe.cells[0] | {"protocol": "linear_other"}])
    names = {path.relative_to(tmp_path).parts[1:4] for path in checkpoints("toy", [job], tmp_path, {})}
    assert names == {("downstream tasks", "linear probing", name) for name in ("linear", "linear_other")}


def test_exporting_twice_gives_the_same_bytes(tree, tmp_path):
    to, written, _ = tree
    for path in export("toy", tmp_path, "a")[0]:
        assert path.read_bytes() == (to / path.relative_to(tmp_path)).read_bytes()


@pytest.mark.parametrize("values, name", [
    (("category_ratio", 10_000.0, "none"), "ratio_1-10,000"), (("long_tail", 2.5, "none"), "ratio_1-2.5"),
    (("long_tail", 100, "same_n"), "ratio_1-100_same_n"), (("natural", 1, "none"), "natural")])
def test_names_of_conditions(values, name):
    assert condition(dict(zip(("split_kind", "ratio", "twin"), values))) == name


def test_names_of_budgets():
    assert [budget_name(b) for b in (0.01, 0.05, 1.0, 100)] == ["ratio_1-100", "ratio_5-100", "ratio_100-100",
                                                                "100_per_class"]


def test_levels_are_only_those_that_differ():
    assert varying(finished_jobs("toy")[0]) == {"condition"}


# --- layout c ---------------------------------------------------------------------------------------------------------

def test_results_txt_holds_shares_and_counts(project, tmp_path):
    written, _ = export("toy", tmp_path, "c")
    folder = tmp_path / "runs/toy/simclr_toy_resnet10t_ratio5_split0"
    assert {folder / "model.pth.tar", folder / "results.txt", folder / "results_knn-b1-s0.txt"} <= set(written)
    split, shares, right = map(ast.literal_eval, (folder / "results.txt").read_text("utf-8").splitlines())
    run = next(path for path in (project / "outputs/toy/runs/probe").glob("simclr-toy-lt5-*"))
    with np.load(run / "cells/linear-b1-s0.npz", allow_pickle=False) as kept:
        called, labels = kept["probabilities"].argmax(1), kept["labels"]
    assert split == 0 and right == {c: int(((called == c) & (labels == c)).sum()) for c in range(4)}
    groups = dict(zip(("Many", "Medium", "Few"), ("many", "medium", "few")))
    wanted = {name: np.mean([called[i] == labels[i] for i in range(len(labels))
                             if frequency_groups([3, 2, 1, 0])[labels[i]] == group]) for name, group in groups.items()}
    assert shares == pytest.approx(wanted) and list(shares) == ["Many", "Medium", "Few"]
    assert loaded(folder / "model.pth.tar")[0].num_classes == 0


def test_a_cell_without_recalls_has_no_results_txt(project):
    rows = read_results("toy")
    assert results_text(0, rows[rows.metric == "roc_auc"], CLASSES) == ""


# --- the archive ------------------------------------------------------------------------------------------------------

@pytest.fixture
def packed(tmp_path):
    return pack("toy", tmp_path / "toy.zip") and tmp_path / "toy.zip"


def test_an_archive_opens_elsewhere(project, packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path / "elsewhere"))
    for _ in range(2):  # the second time it is there already
        assert main(["report", str(packed)]) == 0
        page = Path(capsys.readouterr().out.strip())
        assert page == tmp_path / "elsewhere/toy/index.html" and "The answer is one." in page.read_text("utf-8")
    there, here = tmp_path / "elsewhere/toy", project / "outputs/toy"
    assert (there / "results.csv").read_bytes() == (here / "results.csv").read_bytes()
    cells = {path.relative_to(here) for path in here.glob("runs/*/*/cells/*.csv")}
    assert cells and all((there / name).read_bytes() == (here / name).read_bytes() for name in cells)
    assert not list(there.rglob("*.safetensors")) and not list(there.parent.glob(".unpack*"))


def test_equal_results_give_equal_archives_without_places(project, packed, tmp_path):
    pack("toy", tmp_path / "again.zip")
    assert packed.read_bytes() == (tmp_path / "again.zip").read_bytes()
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist()[:-1] == sorted(archive.namelist()[:-1])
        assert not [name for name in archive.namelist() if str(project).encode() in archive.read(name)]


def test_the_crate_describes_every_file(packed):
    with zipfile.ZipFile(packed) as archive:
        graph = {entity["@id"]: entity for entity in json.loads(archive.read(METADATA))["@graph"]}
        files = {name for name, entity in graph.items() if entity["@type"] == "File"}
        assert files == set(archive.namelist()) - {METADATA} and "requirements.lock" in files
        assert all(int(graph[name]["contentSize"]) == archive.getinfo(name).file_size for name in files)
    root = graph["./"]
    assert graph[METADATA]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    assert {part["@id"] for part in root["hasPart"]} == files and root["license"]["@id"].endswith("/MIT")
    assert all(root[name] for name in ("name", "description", "datePublished"))
    assert all(graph[one["@id"]]["name"] for one in root["author"])
    assert graph["results.csv"]["encodingFormat"] == "text/csv" and graph["#timm"]["version"] == timm.__version__


def test_weights_come_along_when_wanted(tmp_path):
    assert any(name.endswith("encoder.safetensors") for name in pack("toy", tmp_path / "toy.zip", weights=True))


def rewritten(packed, change):
    """The archive with other entries: change(dict of name: bytes) edits them."""
    with zipfile.ZipFile(packed) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return packed


@pytest.mark.parametrize("change, message", [
    (lambda entries: entries.update({"../evil.csv": b"1"}), "no plain file inside"),
    (lambda entries: entries.update({"/evil.csv": b"1"}), "no plain file inside"),
    (lambda entries: entries.update({"C:evil.csv": b"1"}), "no plain file inside"),
    (lambda entries: entries.update({"figures/run.py": b"1"}), "holds no 'figures/run.py'"),
    (lambda entries: entries.update({"figures/new.csv": b"1"}), "damaged, as 'figures/new.csv'"),
    (lambda entries: entries.update({"RESULTS.csv": b"1"}), "the same name"),
    (lambda entries: entries.update({"results.csv": entries["results.csv"] + b"x"}), "damaged, as results.csv"),
    (lambda entries: entries.update({"results.csv": b"0" * 90_000_000}), "as it would unpack to"),
    (lambda entries: entries.pop("plan.json"), "damaged, as 'plan.json'"),
    (lambda entries: entries.pop(METADATA), "no archive of a study"),
])
def test_a_wrong_archive_is_refused_whole(packed, tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path / "elsewhere"))
    assert main(["report", str(rewritten(packed, change))]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not list(tmp_path.rglob("evil*")) and not [*(tmp_path / "elsewhere").glob("*")]


def test_a_link_in_an_archive_is_refused(packed):
    with zipfile.ZipFile(packed, "a") as archive:
        link = zipfile.ZipInfo("figures/link.csv")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "../../..")
    with pytest.raises(ConfigError, match="no plain file"):
        unpack(packed)


def test_other_results_of_that_name_are_not_replaced(packed, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere/toy").mkdir(parents=True)
    (tmp_path / "elsewhere/toy/results.csv").write_text("mine\n")
    with pytest.raises(ConfigError, match="holds other results; move it away"):
        unpack(packed)
    assert (tmp_path / "elsewhere/toy/results.csv").read_text() == "mine\n"


@pytest.mark.parametrize("name, good", [("a/b.csv", True), ("a/..b.csv", True), ("", False), ("a/", False),
                                        ("./a", False), ("a/../b", False), ("a\\b", False), ("a//b", False)])
def test_names_that_stay_inside(name, good):
    assert inside(name) == good


# --- the command ------------------------------------------------------------------------------------------------------

def test_a_study_that_has_not_run_is_one_line(capsys, tmp_path):
    for more in ([], ["--archive", str(tmp_path / "x.zip")]):
        assert main(["export", "absent", *more]) == 2
        said = capsys.readouterr().err
        assert "study 'absent' has not run here" in said and said.count("\n") == 1
    assert main(["export", "toy", "--archive", str(tmp_path / "x.tar")]) == 2
    assert "ends in .zip" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_command_says_what_it_wrote_and_left(tmp_path, capsys):
    assert main(["export", "toy", "--to", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"20 files: {tmp_path / 'a'}; research use only\n") and "left out, 8: no head" in said
    assert f" files: {tmp_path / 'c'}; research use only\n" in said
    assert list(tmp_path.glob("a/MAE/pretrained/*.pth")) and list(tmp_path.glob("c/runs/toy/mae_*/results.txt"))
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c"}


def test_layout_c_goes_with_long_tails(project, tmp_path, monkeypatch, capsys):
    assert main(["export", "toy", "--to", str(tmp_path), "--layout", "c"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "README.txt"}
    rows = read_results("toy")
    assert layouts("toy") == ["a", "c"]
    for without in (rows.assign(split_kind="natural"), rows[rows.group_kind != "frequency"]):
        monkeypatch.setattr("ssl_core.export.read_results", lambda _, table=without: table)
        assert layouts("toy") == ["a"]
