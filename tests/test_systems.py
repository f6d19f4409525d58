"""The five published systems as studies, and their rehearsals: the same graphs, and one that is really run."""

import subprocess
import sys
import zipfile

import pandas as pd
import pytest
import yaml
from smoke_study import ROOT, Smoke, copy_project

from ssl_core.data.cards import read_card
from ssl_core.presets import values_of
from ssl_core.protocols import protocol
from ssl_core.study import load_study

STUDIES = ROOT / "params" / "studies"
SYSTEMS = ("a_cytology", "b_breast", "c_longtail", "d_intermediate", "e_small")


def of(name):
    return load_study(STUDIES / f"{name}.yaml")


def graph(study, name_of=str):
    """What a study multiplies out to, in lines: data with splits, arms with add-ons, start, protocols, budgets, floors,
    seeds, and the heads that it sets otherwise than published."""
    evaluate = study.evaluate
    kinds = {"budget": evaluate.budgets, "budget seed": evaluate.budget_seeds, "seed": study.seeds,
             "floor": study.floors, "head": evaluate.heads, "layers": [evaluate.finetune.get("layers", False)]}
    lines = {f"{kind} {value}" for kind, values in kinds.items() for value in values}
    for data in study.data:
        name, splits = name_of(data.dataset), study.splits_of(data)
        totals = len(splits.total) if isinstance(splits.total, list) else 1
        read = f", read on {name_of(data.evaluate_on)}" if data.evaluate_on else ""
        lines.add(f"{name}: {splits.kind} {splits.ratios}, {totals} totals, {len(splits.draw_seeds)} draws, labels "
                  f"{data.label_pool}{read}")
        for arm in study.arms_of(data):
            values = values_of(arm)
            add_ons = [f"{add_on['name']} {add_on.get('distance', '')}".strip() for add_on in values.get("wrap", [])]
            protocols = " ".join(sorted(arm.protocols or evaluate.protocols))
            method = " + ".join([values["method"], *add_ons])
            lines.add(f"{name}, {arm.name}: {method} from {values.get('init', 'random')}, {protocols}")
    return lines


NO_IMAGENET = "no weights of ImageNet fit so small a network: a start from Fashion-MNIST stands in for them"
FEW = "with so few labels the published settings hardly move the head"
ROTNETS = ("rotnet", "rotnet_jitter")
ALLOWED = {  # all that a rehearsal lacks (-) or has besides (+), and why
    "a_cytology": {},
    "b_breast": {
        "- pnu: balanced [1], 3 totals, 3 draws, labels as_pretrain": "for time: one draw, not three",
        "+ pnu: balanced [1], 3 totals, 1 draws, labels as_pretrain": "for time",
        "- pnu, simclr_imagenet: simclr from imagenet, linear_lowest_val_loss": NO_IMAGENET,
        "+ pnu, simclr_elsewhere: simclr from elsewhere, linear_lowest_val_loss": NO_IMAGENET,
        **{f"- pnu, {arm}_imagenet: rotnet from imagenet, linear_lowest_val_loss": NO_IMAGENET for arm in ROTNETS},
        **{f"+ pnu, {arm}_elsewhere: rotnet from elsewhere, linear_lowest_val_loss": NO_IMAGENET for arm in ROTNETS},
        "- paip, kidney: simclr from imagenet, linear_lowest_val_loss": NO_IMAGENET,
        "+ paip, kidney: simclr from elsewhere, linear_lowest_val_loss": NO_IMAGENET,
        "+ fashion: balanced [1], 1 totals, 1 draws, labels balanced, read on pnu": NO_IMAGENET,
        "+ fashion, elsewhere: simclr from random, linear_lowest_val_loss": NO_IMAGENET,
        "+ head linear_lowest_val_loss": FEW,
    },
    "c_longtail": {
        "- budget 100.0": "rehearsal_cifar100 has 60 images of a class to train on",
        "- floor supervised": "left out for time: it trains from scratch for each split and budget",
        "- floor supervised_imbalanced": "left out for time, as supervised is",
        "+ head linear_last_epoch": FEW,
    },
    "d_intermediate": {},
    "e_small": {},
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_rehearsal_has_the_graph_of_its_study_but_for_what_is_named(system):
    there = graph(of(system))
    here = graph(of(f"{system}_rehearsal"), lambda name: read_card(name).rehearses or name)
    assert {f"- {line}" for line in there - here} | {f"+ {line}" for line in here - there} == set(ALLOWED[system])


def test_the_cytology_study_is_18_pretrainings_36_evaluations_180_cells():
    for study in map(of, ("a_cytology", "a_cytology_rehearsal")):
        pretrainings = [arm for arm in study.arms for _ in study.splits.each()]
        evaluations = [protocol(name).stage for arm in pretrainings for name in arm.protocols]
        assert len(pretrainings) == 18 and sorted(evaluations) == ["finetune"] * 18 + ["probe"] * 18
        assert len(evaluations) * len(study.evaluate.budgets) == 180


def test_the_breast_study_has_an_arm_for_every_published_column_and_start():
    study = of("b_breast")
    starts = {(arm.data[0], values_of(arm)["recipe"], values_of(arm).get("init", "random")) for arm in study.arms}
    assert starts == {*(("pnu", recipe, init) for recipe in ("b", "rotnet", "rotnet_jitter")
                        for init in ("random", "imagenet")),
                      ("pnu", "b", "kidney"), ("paip", "b", "random"), ("paip", "b", "imagenet")}
    made = sum(len(list(study.splits_of(data).each())) for data in study.data for _ in study.arms_of(data))
    assert made == 65 and f" {made} pretrainings " in (STUDIES / "b_breast.yaml").read_text("utf-8")


@pytest.mark.parametrize("name", [*SYSTEMS, *(f"{system}_rehearsal" for system in SYSTEMS), "public_cytology",
                                  "public_medmnist"])
def test_a_study_opens_with_what_a_reader_wants_to_know(name):
    text = (STUDIES / f"{name}.yaml").read_text("utf-8")
    head = text[:text.index("\nname:")]
    said = [line[2:].split()[0] for line in head.splitlines() if line[2:3].isupper() and line[12:13] == " "]
    wanted = {"Question", "Command", "Cost", "Data"} | ({"Published", "Differs"} if name in SYSTEMS else set())
    assert wanted <= set(said) and f"params/studies/{name}.yaml" in head
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.slow
def test_the_smallest_rehearsal_runs_exports_and_opens_elsewhere(tmp_path):
    made = Smoke(copy_project(ROOT, tmp_path / "project"), tmp_path / "out")
    for name in ("CITATION.cff", "requirements.lock"):
        (made.project / name).write_bytes((ROOT / name).read_bytes())
    values = yaml.safe_load((STUDIES / "d_intermediate_rehearsal.yaml").read_text("utf-8"))
    values |= {"name": "least", "floors": ["random"], "data": values["data"][1]}
    values["arms"] = [arm | {"steps": 4} for arm in values["arms"] if arm["data"] == ["rehearsal_bhi"]][:1]
    values["evaluate"] |= {"budgets": [0.1], "finetune": {"steps": 4, "layers": True}}
    study = made.project / "params" / "studies" / "least.yaml"
    study.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert "4 of 4 cells" in made.do("ssl_core", "run", study)
    table = pd.read_csv(made.outputs / "least" / "results.csv", keep_default_na=False)
    assert set(table.dataset) == {"rehearsal_bhi"} and table.synthetic.all()
    assert set(table.protocol) == {"layers", "finetune_adam_best_val_breast", "finetune_last_layer_breast"}
    layers = set(table.layer[table.protocol == "layers"]) - {"", "h"}
    similar = table[table.metric == "cka_linear"].astype({"value": float}).set_index(["protocol", "layer"]).value
    assert len(layers) == 4 and set(similar.loc["finetune_adam_best_val_breast"].index) == {*layers, "h"}
    assert (similar.loc["finetune_last_layer_breast"] > 1 - 1e-6).all()  # the encoder was left alone
    assert (similar.loc["finetune_adam_best_val_breast"] < 1 - 1e-6).any()
    made.do("ssl_core", "export", study, "--archive", tmp_path / "least.zip")
    with zipfile.ZipFile(tmp_path / "least.zip") as archive:
        assert {"ro-crate-metadata.json"} <= {name.rpartition("/")[2] for name in archive.namelist()}
    made.do("ssl_core", "export", study)
    assert list((made.outputs / "least" / "export").rglob("*.pth"))
    elsewhere = Smoke(made.project, tmp_path / "elsewhere")
    assert "index.html" in elsewhere.do("ssl_core", "report", tmp_path / "least.zip")
    assert (elsewhere.folder.parent / "least" / "results.csv").read_bytes() == (
        made.outputs / "least" / "results.csv").read_bytes()
    assert subprocess.run([sys.executable, "-m", "ssl_core", "run", str(study)], cwd=made.project,
                          env=made.environment(), capture_output=True).returncode == 0
