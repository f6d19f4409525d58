"""A small project to plan and run: real bookkeeping, real data loading, notebooks that only pretend to train."""

import json
import shutil
from pathlib import Path

import numpy as np
from toy_configs import finetune, pretrain, probe

import ssl_core

PRETENDED = {  # the code that shapes results is a line each, to be edited
    "augment": "A = 1", "encoders": "E = 1", "train": "T = 1", "analysis/__init__": "", "analysis/plots": "P = 1",
    "analysis/panel": "", "analysis/compare": "", "analysis/alarms": "", "notebook": "",
    "methods/__init__": "from ssl_core.methods.simclr import SimCLR\nfrom ssl_core.methods.mae import MAE\n"
                        "METHODS = {'simclr': SimCLR, 'mae': MAE}\n",
    "methods/simclr": "SimCLR = 1\nTAU = 0.5\n", "methods/mae": "MAE = 1\n", "evaluate/__init__": "",
    "evaluate/fit": "from ssl_core.evaluate.probe import V\n",
    **{f"evaluate/{name}": "V = 1" for name in ("features", "probe", "floors", "imagenet", "metrics", "intervals",
                                                "heads", "finetune")},
    "report": "from ssl_core.files import outputs\n\ndef build(study):\n    page = outputs() / study / 'index.html'\n"
              "    page.write_text((outputs() / study / 'plan.json').read_text())\n    return page\n",
}
OPEN = """
import os, time
from ssl_core.config import {config} as Config
from ssl_core.data import load
from ssl_core.data.pools import pools
from ssl_core.files import root
from ssl_core.runs import open_run
cfg = Config(**{{name: globals()[name] for name in Config.model_fields}})
data = load(cfg.dataset, cfg.image_size)
run = open_run("{stage}", cfg, {{"data": data, **vars(pools(data, **cfg.pool_arguments()))}})

def log(what):
    with open(root() / "log.txt", "a") as file:
        file.write(what + chr(10))
"""
TRAIN = """
if not run.is_done():
    log(run.folder.name)
    for epoch in range(cfg.epochs):
        run.progress(epoch=epoch + 1, epochs=cfg.epochs, images_per_s=512.0, seconds_left=0.1 * (cfg.epochs - epoch))
        time.sleep(0.1)
    if cfg.method_args.get("fail"):
        raise FloatingPointError("the loss was not finite at step 7")
    run.path("encoder.safetensors").write_text(f"{cfg.method} {cfg.method_args} {cfg.seed} {cfg.lr} {cfg.ratio}")
run.finish(["encoder.safetensors"])
"""
EVALUATE = """
import zlib
encoder = (root() / cfg.run / "encoder.safetensors").read_text() if cfg.run else ""
for cell in cfg.cells():
    if not run.cell_done(cell.id):
        log(f"{run.folder.name}/{cell.id}")
        time.sleep(0.02)
        value = zlib.crc32(f"{encoder} {cell.id}".encode()) / 2**32
        run.write_cell(cell.id, [{"metric": "accuracy", "group_kind": "all", "value": value, "n": 40}])
run.finish()
"""
COMPARE = """
from ssl_core.table import read_results
results = read_results(study)
print(len(results), "rows")
"""


def make_project(folder):
    """The tree of a project in `folder`: ssl_core, notebooks, params, a data set of 160 images."""
    shutil.copytree(Path(ssl_core.__file__).parent, folder / "ssl_core",
                    ignore=shutil.ignore_patterns("__pycache__", "*.npz", "evaluate", "analysis", "methods"))
    for name, text in PRETENDED.items():
        (folder / "ssl_core" / name).parent.mkdir(exist_ok=True)
        (folder / "ssl_core" / f"{name}.py").write_text(text + "\n")
    shutil.copy(Path(ssl_core.__file__).parents[1] / "Snakefile", folder)
    shutil.copytree(Path(ssl_core.__file__).parents[1] / "params" / "profiles", folder / "params" / "profiles")
    (folder / "params" / "data").mkdir()
    (folder / "notebooks").mkdir()
    images = np.random.default_rng(0).integers(0, 255, (200, 8, 8), dtype=np.uint8)
    labels = np.arange(200) % 4
    np.savez(folder / "params" / "data" / "toy.npz", train_images=images[:160], train_labels=labels[:160],
             test_images=images[160:], test_labels=labels[160:])
    (folder / "params" / "data" / "toy.yaml").write_text("kind: npz\nfile: toy.npz\nclasses: ['0', '1', '2', '3']\n")
    for notebook, stage, cfg, body in (("10_pretrain", "pretrain", pretrain(image_size=8, ratio=10), TRAIN),
                                       ("20_probe", "probe", probe(image_size=8, ratio=10), EVALUATE),
                                       ("30_finetune", "finetune", finetune(image_size=8, ratio=10), EVALUATE)):
        opening = OPEN.format(config=type(cfg).__name__, stage=stage)
        write_notebook(folder / "notebooks" / f"{notebook}.ipynb", cfg.model_dump(), [opening, body])
    write_notebook(folder / "notebooks" / "40_compare.ipynb", {"study": "toy"}, [COMPARE])
    return folder


def write_notebook(path, parameters, bodies):
    sources = ["\n".join(f"{name} = {value!r}" for name, value in parameters.items()), *bodies]
    cells = [{"cell_type": "markdown", "id": "title", "metadata": {}, "source": f"# {path.stem}"}]
    cells += [{"cell_type": "code", "id": f"cell{i}", "metadata": {"tags": [] if i else ["parameters"]},
               "source": source, "outputs": [], "execution_count": None} for i, source in enumerate(sources)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook))


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
