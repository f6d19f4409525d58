"""Figures: each a function of arrays or a tidy frame that returns its axes; nothing here computes a result."""

import base64
import html
import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from IPython import get_ipython
from IPython.display import HTML, display
from PIL import Image

from ssl_core.analysis.layout import alt_text
from ssl_core.analysis.wording import budget_short, budget_words, words
from ssl_core.analysis.wording import describe as describe  # for the figures that take both from here
from ssl_core.files import atomic_write, replacing

COLUMN, PAGE = 3.5, 7.0  # inches: one and two columns of a paper
PALETTE = sns.color_palette("colorblind")
GROUPS = {"many": PALETTE[0], "medium": PALETTE[2], "few": PALETTE[3]}


def use_style():
    """Set the house style; called once by every notebook."""
    shell = get_ipython()
    if hasattr(shell, "kernel"):  # figures go into the notebook, also where MPLBACKEND names another place
        shell.run_line_magic("matplotlib", "inline")
    plt.style.use(Path(__file__).with_name("paper.mplstyle"))


def axes(ax, width=COLUMN, height=2.3):
    return ax if ax is not None else plt.subplots(figsize=(width, height))[1]


def legend_below(fig, ncols=3, **more):
    """One legend for all panels, outside of them, where it covers no data."""
    found = {label: handle for ax in fig.axes for handle, label in zip(*ax.get_legend_handles_labels())}
    fig.legend(found.values(), found.keys(), **{"loc": "outside lower center", "ncols": ncols} | more)


def save_figure(fig, folder, name, data, caption):
    """Write NAME.pdf, NAME.png, the CSV that was drawn, caption and alt text into `folder`; files carry no date.

    The alt text is returned.
    """
    folder, alt = Path(folder), alt_text(fig, caption)
    with replacing(folder / f"{name}.pdf") as path:
        fig.savefig(path, metadata={"CreationDate": None})
    with replacing(folder / f"{name}.png") as path:
        fig.savefig(path, metadata={"Software": None})
    with replacing(folder / f"{name}.csv") as path:
        data.to_csv(path, index=False, lineterminator="\n")
    for ending, text in (("txt", caption), ("alt.txt", alt)):
        atomic_write(folder / f"{name}.{ending}", text + "\n")
    return alt


def show_figure(fig, folder, name, data, caption):
    """Save a figure and show the saved picture above its caption."""
    alt = html.escape(save_figure(fig, folder, name, data, caption))
    plt.close(fig)
    picture = base64.b64encode((Path(folder) / f"{name}.png").read_bytes()).decode()
    said, width = html.escape(caption), round(130 * fig.get_figwidth())  # letters as large in all of them
    display(HTML(f'<figure><div class="scroll"><img alt="{alt}" width="{width}" src="data:image/png;base64,{picture}">'
                 f"</div><figcaption>{said}</figcaption></figure>"))


# --- images and views -------------------------------------------------------------------------------------------------

def show_image(ax, image):
    """image: (C, H, W), uint8 or float in [0, 1]."""
    image = np.asarray(image)
    top = 255 if image.dtype == np.uint8 else 1
    ax.imshow(image[0] if len(image) == 1 else image.transpose(1, 2, 0), vmin=0, vmax=top)
    ax.set_axis_off()


def as_text(image):
    """An image as a table keeps it: a PNG of 8 bits in base64. image: as in `show_image`; floats are cut at 0 and 1."""
    image, file = np.asarray(image), io.BytesIO()
    image = image if image.dtype == np.uint8 else np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def plot_pictures(texts, ax, across=(), down=(), gap=0.05):
    """Pictures in rows on one axis, each one unit wide.

    texts: rows of texts of `as_text`; across, down: names of columns and rows; gap: between pictures of a column.
    """
    for (row, column), text in np.ndenumerate(texts):
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
        at = row * (1 + gap)
        ax.imshow(picture, extent=(column - 0.475, column + 0.475, at + 0.475, at - 0.475), vmin=0, vmax=255)
    rows, columns = np.shape(texts)
    ax.set(xlim=(-0.5, columns - 0.5), ylim=((rows - 1) * (1 + gap) + 0.5 + gap, -0.5), aspect="equal")
    ax.set_xticks(range(columns), across)
    ax.set_yticks(np.arange(rows) * (1 + gap), down)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    ax.grid(False)
    return ax


def show_images(images, labels, classes, per_class=8, seed=0):
    """A row of images for each class. images: (N, C, H, W) uint8; labels: (N,)."""
    rng = np.random.default_rng(seed)
    fig, grid = plt.subplots(len(classes), per_class, figsize=(PAGE * per_class / 12, PAGE * len(classes) / 12),
                             squeeze=False)
    for c, row in enumerate(grid):
        found = np.flatnonzero(labels == c)
        chosen = rng.permutation(found)[:per_class]
        for ax in row:
            ax.set_axis_off()
        for ax, i in zip(row, chosen):
            show_image(ax, images[i])
        row[0].set_title(f"{classes[c]} ({len(found):,})", fontsize=7)
    return grid


def show_views(images, augment, rows=4, views=6, seed=0):
    """`rows` images, each followed by `views` draws of the augmentation. images: (N, C, H, W) uint8."""
    import torch  # the only figure that augments

    chosen = np.random.default_rng(seed).choice(len(images), rows, replace=False)
    batch = torch.from_numpy(np.ascontiguousarray(images[chosen]))
    generator = torch.Generator().manual_seed(seed)
    drawn = [augment(batch, generator).numpy() for _ in range(views)]
    fig, grid = plt.subplots(rows, views + 1, figsize=(PAGE * 0.75, PAGE * 0.75 * rows / (views + 1)))
    for r, row in enumerate(grid):
        show_image(row[0], images[chosen[r]])
        for v in range(views):
            show_image(row[v + 1], drawn[v][r])
    grid[0, 0].set_title("image")
    grid[0, 1].set_title("views")
    return grid


def plot_counts(split, classes, available, ax=None):
    """Images of each class in the split, head first, over what the pool holds. available: (C,) counts. None where
    there are no classes, as in a data set to pretrain on alone."""
    if not len(classes):
        return None
    ax = axes(ax)
    at, every = np.arange(len(classes)), -(-len(classes) // 40)  # more names than that cannot be read
    ax.bar(at, np.asarray(available)[split.order], color="0.9", label="in the data set")
    ax.bar(at, split.counts[split.order], color=PALETTE[0], label="in this split")
    ax.set_xticks(at[::every], [classes[c] for c in split.order[::every]], rotation=40, ha="right",
                  rotation_mode="anchor")
    ax.set(ylabel="images", title=f"{int(split.counts.sum()):,} images, largest class {split.counts.max():,}, "
                                  f"smallest {split.counts.min():,}")
    legend_below(ax.figure)
    return ax


# --- training ---------------------------------------------------------------------------------------------------------

def plot_history(history):
    """Loss, spread of embeddings and effective rank by step, side by side."""
    fig, panels = plt.subplots(1, 3, figsize=(PAGE, 1.9))
    for ax, (column, title) in zip(panels, (("loss", "loss"), ("spread", "spread of z (0 = collapsed)"),
                                            ("effective_rank", "effective rank of h"))):
        ax.plot(history.step, history[column], marker="o" if len(history) < 30 else None, color=PALETTE[0])
        ax.set(title=title, xlabel="step")
    panels[1].set_ylim(0, np.nanmax([1.05, history.spread.max() * 1.05]))
    if history.spread.isna().all():
        panels[1].text(0.5, 0.5, "this method has\nno embeddings z", transform=panels[1].transAxes, ha="center",
                       va="center")
    panels[2].set_ylim(0, None)
    return panels


def plot_losses(histories, ax=None):
    """Training loss by step, one line for each label budget. histories: DataFrames of step and loss by budget."""
    ax = axes(ax, PAGE * 0.6)
    for i, (name, history) in enumerate(histories.items()):
        ax.plot(history.step, history.loss, marker="osD^v"[i % 5], color=PALETTE[i % len(PALETTE)],
                label=f"{name} of the labels")
    ax.set(xlabel="step", ylabel="loss", ylim=(0, None))
    legend_below(ax.figure)
    return ax


def plot_image_loss(image_loss, labels, order, classes, ax=None):
    """The last loss of each image, a box for each class from head to tail; images without a label are left out.

    image_loss: (n,); labels: (n,), or (n, L) where an image may have several; order: the classes, head first.
    """
    ax = axes(ax, PAGE * 0.75)
    has = [labels[:, c] == 1 if labels.ndim == 2 else labels == c for c in order]
    ax.boxplot([image_loss[mask & np.isfinite(image_loss)] for mask in has], widths=0.6, showfliers=False,
               medianprops={"color": PALETTE[3], "linewidth": 1.5})
    ax.set_xticks(np.arange(1, len(order) + 1), [f"{classes[c]}\n{mask.sum():,}" for c, mask in zip(order, has)],
                  fontsize=6.5)
    ax.set(ylabel="loss of an image", title="last loss by class, most frequent first (box: quartiles)")
    return ax


# --- one job ----------------------------------------------------------------------------------------------------------

def plot_cells(rows, ax=None):
    """Balanced accuracy of each cell with its interval over test images. rows: of the results table."""
    rows = rows.dropna(subset="value").sort_values(["protocol", "method", "budget"], kind="stable")
    ax = axes(ax, PAGE * 0.75, 0.7 + 0.19 * len(rows))
    at = np.arange(len(rows))[::-1]
    bars = [100 * (rows.value - rows.low).fillna(0), 100 * (rows.high - rows.value).fillna(0)]
    ax.errorbar(100 * rows.value, at, xerr=bars, fmt="o", color=PALETTE[0], elinewidth=1.2, capsize=2)
    ax.set_yticks(at, [", ".join([words(m), words(p), budget_short(b)] if p != "none" else [words(m), budget_short(b)])
                       for m, p, b in zip(rows.method, rows.protocol, rows.budget)])
    ax.set(xlabel="balanced accuracy in %", title="bars: 95 % intervals over test images",
           ylim=(-0.7, len(rows) - 0.3), xlim=(0, 100))
    return ax


def class_rows(table):
    """The rows of a table that say how well each class is found: its recall, or its ROC area where it is a label."""
    rows = table[(table.part == "test") & (table.layer == "")]
    return rows[((rows.group_kind == "class") & (rows.metric == "recall"))
                | ((rows.group_kind == "label") & (rows.metric == "roc_auc"))].dropna(subset="value")


def plot_recalls(rows, ax=None):
    """How well each class is found at the smallest and largest budget, by what is best on average. rows: class_rows."""
    budgets = list(dict.fromkeys(rows.budget[[rows.n_labelled.idxmin(), rows.n_labelled.idxmax()]]))
    method, protocol = rows[rows.budget == budgets[-1]].groupby(["method", "protocol"]).value.mean().idxmax()
    rows = rows[(rows.method == method) & (rows.protocol == protocol)]
    ax = axes(ax, PAGE * 0.75)
    classes = list(dict.fromkeys(rows.group))
    for i, budget in enumerate(budgets):
        one = rows[rows.budget == budget].set_index("group").reindex(classes)
        at = np.arange(len(classes)) + (i - (len(budgets) - 1) / 2) * 0.25
        ax.errorbar(at, one.value, yerr=[(one.value - one.low).fillna(0), (one.high - one.value).fillna(0)],
                    fmt="os"[i], color=PALETTE[3 * i], capsize=2, elinewidth=1,
                    label=budget_words(budget))
    every = -(-len(classes) // 40)  # more names than that cannot be read
    ax.set_xticks(range(0, len(classes), every), classes[::every], rotation=40, ha="right", rotation_mode="anchor")
    ax.set(ylabel=words(rows.metric.iloc[0]), ylim=(0, 1.02), title=f"{words(method)}, {words(protocol)}")
    legend_below(ax.figure)
    return ax


def plot_confusion(labels, probabilities, classes, task="multiclass", title="", ax=None):
    """Share of each true class (row) called each class (column). labels: (n,); probabilities: (n, C)."""
    if task == "multilabel":
        return None
    ax = axes(ax, COLUMN + 0.8, COLUMN + 0.2)
    counts = np.zeros((len(classes), len(classes)))
    np.add.at(counts, (labels, probabilities.argmax(1)), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    sns.heatmap(shares, ax=ax, cmap="Blues", vmin=0, vmax=1, annot=len(classes) <= 12, fmt=".2f", cbar=False,
                annot_kws={"size": 6}, xticklabels=classes, yticklabels=classes, square=True)
    ax.set(xlabel="called", ylabel="true", title=title)
    ax.set_xticks(ax.get_xticks(), classes, rotation=45, ha="right", rotation_mode="anchor")
    return ax
