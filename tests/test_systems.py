"""The five published systems as studies, and their rehearsals: the same graphs, and one that is really run."""

import subprocess
import sys
import zipfile

import pandas as pd
import pytest
import yaml
from smoke_study import ROOT, Smoke, copy_project

from ssl_core.config import load_study
from ssl_core.data.cards import read_card
from ssl_core.protocols import protocol

STUDIES = ROOT / "params" / "studies"
SYSTEMS = ("a_cytology", "b_breast", "c_longtail", "d_intermediate", "e_small")


def of(name):
    return load_study(STUDIES / f"{name}.yaml")


def graph(study, name_of):
    """What a study multiplies out to: by data set and arm the splits, method, start and protocols."""
    return {(name_of(data.dataset), arm.name): (
        len(list(study.splits_of(data).each())), study.splits_of(data).ratios, arm.method,
        [add_on["name"] for add_on in arm.wrap or []] if arm.preset is None else arm.preset,
        sorted(arm.protocols or study.evaluate.protocols))
        for data in study.data for arm in study.arms_of(data)}


@pytest.mark.parametrize("system", ("a_cytology", "c_longtail", "e_small"))
def test_a_rehearsal_has_the_graph_of_its_study(system):
    full, rehearsal = of(system), of(f"{system}_rehearsal")
    there = graph(full, str)
    assert graph(rehearsal, lambda name: read_card(name).rehearses) == there and len(there) >= 2


def test_the_rehearsal_of_breast_tissue_has_every_arm_and_another_start_for_imagenet():
    full, rehearsal = of("b_breast"), of("b_breast_rehearsal")
    arms = {arm.name.replace("elsewhere", "imagenet") for arm in rehearsal.arms} - {"imagenet"}
    assert arms == {arm.name for arm in full.arms}
    assert [len(study.splits_of(study.data[0]).total) for study in (full, rehearsal)] == [3, 3]
    for study in (full, rehearsal):
        starts = {arm.name: arm.init for arm in study.arms}
        assert starts["kidney_breast"] == "kidney" and starts["kidney"] in ("imagenet", "elsewhere")
        assert study.data[1].evaluate_on == study.data[0].dataset and study.data[0].label_pool == "as_pretrain"


def test_the_rehearsal_of_intermediate_layers_has_every_arm_on_every_set():
    full, rehearsal = of("d_intermediate"), of("d_intermediate_rehearsal")
    for study, name_of in ((full, str), (rehearsal, lambda name: read_card(name).rehearses)):
        assert {(name_of(data.dataset), arm.name) for data in study.data for arm in study.arms_of(data)} == {
            (data, arm) for data in ("chestxray14", "bhi_lists", "eyepacs")
            for arm in ("moco", "moco_mse", "moco_barlow")}
        assert study.evaluate.finetune["layers"] is True and study.evaluate.budgets == [0.01, 0.1, 1.0]


def test_the_cytology_study_is_18_pretrainings_36_evaluations_180_cells():
    for study in map(of, ("a_cytology", "a_cytology_rehearsal")):
        pretrainings = [arm for arm in study.arms for _ in study.splits.each()]
        evaluations = [protocol(name).stage for arm in pretrainings for name in arm.protocols]
        assert len(pretrainings) == 18 and sorted(evaluations) == ["finetune"] * 18 + ["probe"] * 18
        assert len(evaluations) * len(study.evaluate.budgets) == 180


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
