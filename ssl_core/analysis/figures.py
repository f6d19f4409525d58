"""Every figure of a study by name: the panel, the whole, what it is drawn from and its caption; and one way to save it.

Some need networks, images or resampling, t-SNE for one: they are drawn again from the CSV beside them.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd

from ssl_core.analysis import (
    attribution,
    curves,
    panel,
    plots,
    plots_arms,
    plots_calibration,
    plots_contrasts,
    plots_curves,
    plots_embedding,
    plots_geometry,
    plots_layers,
    plots_ratio,
    plots_scores,
    plots_study,
)
from ssl_core.analysis.layout import in_column
from ssl_core.analysis.wording import words
from ssl_core.files import root

WIDTHS = {"page": plots.PAGE, "column": plots.COLUMN}


class Told(NamedTuple):
    """What figures of a study are made from."""

    folder: Path  # outputs/<study>
    jobs: dict  # of `grid.jobs_of`
    table: pd.DataFrame  # of `grid.told`
    cells: pd.DataFrame  # of `contrasts.cells_of`
    summary: pd.DataFrame  # of `contrasts.summary_of`, or summary.csv

    def suffix(self, dataset):
        return f"_{dataset}" if self.table.dataset.nunique() > 1 else ""


class Figure(NamedTuple):
    panel: Callable  # (rows of a frame, ax=None) → ax
    draw: Callable  # frame → all panels: a figure or its axes
    reads: str
    frames: Callable  # Told → {what to add to the name: (frame, caption)}, without empty ones


# --- what is drawn, and said of it ------------------------------------------------------------------------------------

def of_sets(frame, caption):
    """A figure for each data set. frame: of its rows; caption: of (frame, rows)."""
    def frames(told):
        each = {told.suffix(name): (frame(rows), rows) for name, rows in told.table.groupby("dataset")}
        return {name: (drawn, caption(drawn, rows)) for name, (drawn, rows) in each.items() if len(drawn)}
    return frames


def of_family(family, caption, chosen=plots_contrasts.with_room):
    """A figure for each data set that has contrasts of that family. chosen: rows of the summary → those to draw."""
    def frames(told):
        found = {}
        for name, of in told.summary[told.summary.family == family].groupby("dataset"):
            drawn = chosen(of)
            found[told.suffix(name)] = drawn, caption(drawn, told.table[told.table.dataset == name], of)
        return found
    return frames


def chain(told):
    """The steps from one setting to another on each data set, where the study walks a chain."""
    steps = told.summary[told.summary.family == attribution.FAMILY]
    found = {name: (attribution.waterfall(rows, told.jobs), rows) for name, rows in steps.groupby("dataset")}
    return {told.suffix(name): (drawn, attribution.caption_attribution(drawn, told.table[told.table.dataset == name]))
            for name, (drawn, _) in found.items()}


def of_all(frame, caption):
    """One figure of all data sets. frame: of Told; caption: of (frame, table)."""
    def frames(told):
        drawn = frame(told)
        return {"": (drawn, caption(drawn, told.table))} if len(drawn) else {}
    return frames


def many_ratios(rows):
    drawn = plots_ratio.ratio_levels(rows)
    return drawn if drawn.ratio.nunique() > plots_study.ENDS else drawn[:0]


def cka(told):
    return plots_layers.cka_levels(told.table[told.table.metric == "cka_linear"])


def pretraining(told):
    """Curves of all pretrainings that have a history."""
    jobs = [job for job in told.jobs.values() if job["stage"] == "pretrain"]
    paths = {job["name"]: root() / job["folder"] / "history.csv" for job in jobs}
    return plots_curves.training_frame({name: pd.read_csv(path) for name, path in paths.items() if path.exists()},
                                       {job["name"]: words(job["arm"]) for job in jobs})


def learning(told):
    """Curves of training with labels, a figure for each protocol."""
    found = plots_curves.by_share(told.jobs.values(), root())
    return {f"-{protocol}": (drawn := plots_curves.training_frame(histories),
                             plots_curves.caption_training(drawn, told.table, what))
            for protocol, (what, histories) in found.items()}


def scores(told):
    """ROC and precision–recall of the first cells whose scores are there."""
    chosen = plots_scores.cells_to_draw(told.cells) if told.cells.path.map(Path.exists).all() else {}
    return plots_scores.roc_frame(chosen) if chosen else []


def distances(told):
    with warnings.catch_warnings():  # of the p-value, which nobody asked for
        warnings.filterwarnings("ignore", "ks_2samp: Exact calculation unsuccessful", RuntimeWarning)
        return plots_scores.ks_frame(told.cells) if told.cells.path.map(Path.exists).all() else []


def kept(name):
    """What `40_compare` or `41_layers` left beside a figure: the CSV that was drawn, and its caption.

    A figure NAME-RUN of a run that is no longer the study's is passed over.
    """
    def frames(told):
        left = {path.stem.removeprefix(name): path for path in sorted((told.folder / "figures").glob(f"{name}*.csv"))
                if "_column" not in path.stem}
        runs = {f"-{job['name']}" for job in told.jobs.values()}
        return {more: (pd.read_csv(path), path.with_suffix(".txt").read_text("utf-8").rstrip())
                for more, path in left.items() if not more.startswith("-") or more in runs}
    return frames


def plot_tsne(frame):
    return plots_embedding.plot_embeddings(plots_embedding.frames_of(frame))


def plot_grids(frame):
    return plots_ratio.plot_ratio_panels(frame, grid=True)


def plot_ckas(frame):
    return plots_layers.plot_layer_panels(frame, plots_layers.plot_cka)


FIGURES = {
    "chain": Figure(attribution.plot_attribution, attribution.plot_attribution, "summary.csv", chain),
    "cost": Figure(plots_contrasts.plot_cost, plots_contrasts.plot_costs, "summary.csv",
                   of_family("cost of imbalance", plots_contrasts.caption_costs)),
    "gains": Figure(plots_contrasts.plot_gain, plots_contrasts.plot_gains, "summary.csv",
                    of_family("gain of pretraining", plots_contrasts.caption_gains)),
    "arms": Figure(plots_arms.plot_arm, plots_arms.plot_arms, "summary.csv",
                   of_family("between arms", plots_arms.caption_arms, plots_arms.against_first)),
    "budgets": Figure(plots_study.plot_budget, plots_study.plot_budgets, "results.csv",
                      of_sets(plots_study.levels, plots_study.caption_budgets)),
    "frequency": Figure(plots_study.plot_frequency, plots_study.plot_frequency, "results.csv",
                        of_sets(plots_study.by_frequency, plots_study.caption_frequency)),
    "ratios": Figure(plots_ratio.plot_ratio_grid, plot_grids, "results.csv",
                     of_sets(many_ratios, plots_ratio.caption_ratio_grid)),
    "ratio_curves": Figure(plots_ratio.plot_ratios, plots_ratio.plot_ratio_panels, "results.csv",
                           of_sets(many_ratios, plots_ratio.caption_ratios)),
    "response": Figure(curves.plot_curves, curves.plot_curve_panels, "figures/response_*.csv", kept("response")),
    "layers": Figure(plots_layers.plot_layers, plots_layers.plot_layer_panels, "results.csv",
                     of_all(lambda told: plots_layers.layer_levels(told.table), plots_layers.caption_layers)),
    "cka": Figure(plots_layers.plot_cka, plot_ckas, "results.csv", of_all(cka, plots_layers.caption_cka)),
    "ks": Figure(plots_scores.plot_ks, plots_scores.plot_ks, "test scores of cells",
                 of_all(distances, plots_scores.caption_ks)),
    "roc": Figure(plots_scores.plot_roc, plots_scores.plot_rocs, "test scores of cells",
                  of_all(scores, plots_scores.caption_roc)),
    "training": Figure(plots_curves.plot_curve, plots_curves.plot_pretraining, "history.csv of runs",
                       of_all(pretraining, plots_curves.caption_training)),
    "learning": Figure(plots_curves.plot_curve, plots_curves.plot_training, "history.csv of cells", learning),
    "views": Figure(plots_curves.plot_views, plots_curves.plot_view_panels, "figures/views-RUN.csv", kept("views")),
    "reconstructions": Figure(panel.plot_reconstructions, panel.plot_reconstructions,
                              "figures/reconstructions-RUN.csv", kept("reconstructions")),
    "neighbours": Figure(plots_geometry.plot_neighbours, plots_geometry.plot_neighbours, "figures/neighbours.csv",
                         kept("neighbours")),
    "rare": Figure(plots_geometry.plot_detection, plots_geometry.plot_detections, "figures/rare.csv", kept("rare")),
    "spread": Figure(plots_geometry.plot_scatter, plots_geometry.plot_scatters, "figures/spread.csv", kept("spread")),
    "alignment": Figure(plots_geometry.plot_alignment, plots_geometry.plot_alignment, "figures/alignment.csv",
                        kept("alignment")),
    "calibration": Figure(plots_calibration.plot_reliability, plots_calibration.plot_reliabilities,
                          "figures/calibration.csv", kept("calibration")),
    "umap": Figure(plots_embedding.plot_embedding, plot_tsne, "figures/umap.csv", kept("umap")),
    "tsne": Figure(plots_embedding.plot_embedding, plot_tsne, "figures/tsne.csv", kept("tsne")),
}


# --- how it is drawn --------------------------------------------------------------------------------------------------

def drawings(name, told, width="page"):
    """(file name, figure, frame, caption) of each figure of that name; width: of WIDTHS."""
    figure = FIGURES[name]
    for more, (frame, caption) in figure.frames(told).items():
        made = figure.draw(frame)
        made = made if isinstance(made, plt.Figure) else made.figure
        if width == "column":
            in_column(made, WIDTHS[width])
        yield f"{name}{more}{'_column' * (width == 'column')}", made, frame, caption


def save(name, told, width="page"):
    """Draw and save the figures of that name into the study's folder → their file names without ending."""
    saved = []
    for file, fig, frame, caption in drawings(name, told, width):
        plots.save_figure(fig, told.folder / "figures", file, frame, caption)
        plt.close(fig)
        saved.append(file)
    return saved


def show(name, told, width="page"):
    """The same in a notebook, where they are shown, too."""
    for file, fig, frame, caption in drawings(name, told, width):
        plots.show_figure(fig, told.folder / "figures", file, frame, caption)
