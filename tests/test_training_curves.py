"""Curves of training with labels: what they hold, that taking them changes nothing, where they are kept and drawn."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from sklearn.metrics import accuracy_score, log_loss
from test_finetune import VIT, config, encoder, striped
from test_plots_systems import drawn_well, said_well, style, table_of
from test_trained import blobs
from toy_configs import INPUTS, finetune, probe

from ssl_core import keys, runs
from ssl_core.adopt import write_run
from ssl_core.analysis.plots_curves import by_share, caption_training, plot_training, training_frame
from ssl_core.data.splits import label_budget
from ssl_core.evaluate import finetune as tuning
from ssl_core.evaluate import trained
from ssl_core.evaluate.finetune import predict
from ssl_core.evaluate.probe import linear_probe
from ssl_core.evaluate.trained import POINTS, Head, curve, train_head

NAMES = ["epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy", "lr"]
WHOLE = dict(lr=0.05, batch=1000)  # a batch is all there is: its loss is that of the state before


def scores_of(p, y):
    """(log-loss, accuracy) by scikit-learn; multilabel: over the answers that are known."""
    if y.ndim == 2:
        p, y = np.stack([1 - p[y >= 0], p[y >= 0]], 1), y[y >= 0]
    return pytest.approx((log_loss(y, p, labels=range(p.shape[1])), accuracy_score(y, p.argmax(1))), abs=1e-5)


# --- values -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_a_head_s_curve_is_loss_and_accuracy_of_training_and_validation_at_each_epoch(task):
    (x, y), (new, truth) = blobs([40, 30, 20], distance=0.4), blobs([20, 15, 10], seed=1, distance=0.4)
    if task == "multilabel":
        y, truth = (np.stack([a == 0, a > 0], 1).astype(int) for a in (y, truth))
        y[::3, 0] = truth[::2, 1] = -1
    at = {n: train_head(x, y, Head(epochs=n, val="fixed", **WHOLE), val=(new, truth), task=task) for n in (6, 7)}
    table = at[7].table
    assert list(table) == NAMES and table.epoch.tolist() == table.step.tolist() == [*range(1, 8)]
    last = table.iloc[-1]
    assert (last.val_loss, last.val_accuracy) == scores_of(at[7].predict_proba(new), truth)
    assert (last.loss, last.accuracy) == scores_of(at[6].predict_proba(x), y)
    assert 0.5 < last.accuracy < 1 and last.val_accuracy != last.accuracy
    still = train_head(x, y, Head(epochs=2, batch=10, lr=1e-9), task="multiclass" if y.ndim == 1 else task)
    if task == "multiclass":  # the mean over batches is that over images
        assert tuple(still.table.loc[1, ["loss", "accuracy"]]) == scores_of(still.predict_proba(x), y)
    assert still.table.step.tolist() == [9, 18] and still.table.val_accuracy.isna().all()


def test_a_fine_tuning_s_curve_is_that_of_its_batches_and_of_the_images_that_judge():
    (images, labels), judge = striped(), striped(12, seed=1)
    judge[1][:5] = 0
    how = dict(epochs=3, steps=0, batch=10, recipe="none", warmup=0.0, schedule="constant", label_smoothing=0.0)
    model, history = tuning.finetune(encoder(VIT), images, labels, config(**how, select="best_val"), 3, judge=judge)
    assert set(history) == set(NAMES) and history.epoch.tolist() == [1, 2, 3] and history.step.tolist() == [3, 6, 9]
    kept = history.loc[history.val_loss.idxmin()]
    assert (kept.val_loss, kept.val_accuracy) == scores_of(predict(model, judge[0]), judge[1])
    still, rows = tuning.finetune(encoder(VIT), images, labels, config(**how | {"epochs": 1, "lr": 1e-10}), 3)
    assert len(rows) == 3 and tuple(rows[["loss", "accuracy"]].mean()) == scores_of(predict(still, images), labels)
    assert "val_loss" not in rows and rows.epoch.tolist() == [1, 1, 1]


def test_taking_a_curve_leaves_the_scores_as_they_are(monkeypatch):
    (x, y), (images, labels) = blobs([40, 30]), striped()
    how, cfg = Head(head="mlp", epochs=5, batch=16, val="inner", select="lowest_val_loss"), config(select="best_val")

    def scores():
        model, _ = tuning.finetune(encoder(), images, labels, cfg, 3, judge=striped(9, seed=1))
        return train_head(x, y, how).predict_proba(x).tobytes(), predict(model, images).tobytes()

    before = scores()
    for module in (trained, tuning):
        monkeypatch.setattr(module, "accuracy", lambda scores, *_: scores.new_zeros(()).float())
    assert scores() == before


def test_a_long_training_keeps_a_hundred_points_with_the_last_and_the_chosen():
    x, y = blobs([20, 20])
    long = train_head(x, y, Head(epochs=3 * POINTS - 1, val="inner", select="lowest_val_loss", lr=0.3, batch=32))
    kept = curve(long)
    assert len(kept) <= POINTS + 1 and kept.epoch.iloc[-1] == 3 * POINTS - 1 and long.chosen in set(kept.epoch)
    assert curve(train_head(x, y, Head(epochs=5))).epoch.tolist() == [1, 2, 3, 4, 5]
    assert curve(linear_probe(x, y)) is None


# --- where they are ---------------------------------------------------------------------------------------------------

@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CORE_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setattr(keys, "code_slice", lambda modules: {"train": "0" * 12})
    return tmp_path


ROWS = [{"metric": "accuracy", "group_kind": "all", "value": 0.5, "n": 3}]


def job_of(run):
    return {"needs": [], "key": run.key, "name": run.folder.name[:-13], "folder": run.folder,
            "cells": [cell._asdict() | {"id": cell.id} for cell in run.cfg.cells()]}


def test_a_cell_s_curve_is_declared_with_it_carried_along_and_made_again_when_broken(project, capsys):
    x, y = blobs([30, 30])
    cfg = probe(floors=["random"], protocols=["linear_last_epoch"], budgets=[0.2, 1.0])
    run = runs.open_run("probe", cfg, INPUTS)
    for cell in cfg.cells():
        at = label_budget(y, cell.budget, 0)
        head = train_head(x[at], y[at], Head(epochs=5, batch=8))
        run.write_cell(cell.id, ROWS, {"labels": y, "groups": y, "probabilities": head.predict_proba(x),
                                       "task": "multiclass", "classes": ["a", "b"], "frequency": []}, curve(head))
    run.finish()
    names = [f"models/{cell.id}/history.csv" for cell in cfg.cells()]
    assert set(names) < set(json.loads(run.path("done.json").read_text())["files"]) and not runs.damage(run.folder)
    pd.testing.assert_frame_equal(pd.read_csv(run.path(names[-1])), head.table, check_dtype=False)
    write_run(run.folder, project / "kept")
    assert (project / "kept" / names[0]).read_bytes() == run.path(names[0]).read_bytes()
    assert not runs.damage(project / "kept") and names[0] in (project / "kept" / "done.json").read_text()
    run.path(names[0]).write_text("bent")
    again = runs.open_run("probe", cfg, INPUTS)
    assert [again.cell_done(cell.id) for cell in cfg.cells()] == [False, True]
    again.lock.release(force=True)
    assert f"{names[0]} is not what the run left" in capsys.readouterr().out


def test_a_fine_tuning_without_its_curve_is_made_again(tmp_path):
    images, labels = striped()
    model, history = tuning.finetune(encoder(), images, labels, config(), 3, folder=tmp_path)
    (tmp_path / "history.csv").unlink()
    again, rows = tuning.finetune(encoder(), images, labels, config(), 3, folder=tmp_path)
    assert (predict(again, images) == predict(model, images)).all() and rows.equals(history)
    assert pd.read_csv(tmp_path / "history.csv").equals(history)


# --- drawn ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("stage", ["probe", "finetune"])
def test_loss_and_accuracy_of_training_and_validation_are_drawn_by_share_of_the_labels(stage, project):
    assert style  # the style of figures, for this test as for those of the others
    x, y = blobs([60, 60], distance=0.4)
    images, labels = striped(60)
    cfg = probe(floors=["random"], protocols=["mlp_head", "knn"], budgets=[0.2, 1.0]) if stage == "probe" else finetune(
        budgets=[0.2, 1.0])
    run, told = runs.open_run(stage, cfg, INPUTS), {}
    for cell in cfg.cells():
        if stage == "probe":
            at = label_budget(y, cell.budget, 0)
            history = curve(train_head(x[at], y[at], Head(epochs=6, batch=8, val="inner"))) * 1.0
        else:
            at = label_budget(labels, cell.budget, 0)
            _, history = tuning.finetune(encoder(), images[at], labels[at], config(
                epochs=3, steps=0, batch=4, select="best_val"), 3, judge=striped(12, seed=1))
        told[cell.protocol, cell.budget] = history
        run.write_cell(cell.id, ROWS, history=None if cell.protocol == "knn" else history)
    run.finish()
    found = by_share([job_of(run)], project)
    protocol = "mlp_head" if stage == "probe" else "finetune"
    assert list(found) == [protocol]  # what is not trained by gradient has no curve
    what, histories = found[protocol]
    assert list(histories) == ["20 % of the labels", "100 % of the labels"]
    frame = training_frame(histories)
    value = frame.set_index(["run", "quantity", "part"]).value.sort_index()
    for name, budget in zip(histories, (0.2, 1.0)):
        last = told[protocol, budget].iloc[-1]
        assert [value[name, q, part].iloc[-1] for q in ("loss", "accuracy") for part in ("train", "val")] == (
            pytest.approx([last.loss, last.val_loss, last.accuracy, last.val_accuracy]))
    fig = drawn_well(plot_training(frame))
    assert [ax.get_ylabel() for ax in fig.axes] == ["loss", "accuracy", "learning rate"]
    for ax in fig.axes[:2]:
        dashes = {line.get_label(): line.get_linestyle() for line in ax.lines}
        assert dashes == {name + more: dash for name in histories for more, dash in (("", "-"), (", validation", "--"))}
    assert run.folder.name[:-13] in what and "dashed" in said_well(caption_training(frame, table_of([{}]), what))
    plt.close(fig)
