"""The figure of an audit: images that are the same or nearly so, side by side."""

import matplotlib.pyplot as plt

from ssl_core.analysis.plots import PAGE, show_image


def pair_frame(data, pairs):
    """The pairs of an `Audit` with paths, labels and groups: what the figure shows, the gravest first."""
    frame, names = pairs.copy(), data.label_names()
    for side in ("first", "second"):
        at = frame[side].astype(int)
        frame[f"path_{side}"] = [data.paths[i] for i in at]
        frame[f"label_{side}"] = [names[i] for i in at]
        frame[f"group_{side}"] = [data.group_names[data.groups[i]] if data.grouped else "" for i in at]
    return frame


def plot_pairs(data, frame, rows=6):
    """The first `2 · rows` pairs of `pair_frame`, two in a row, under each image its part, label and name."""
    shown = frame.head(2 * rows)
    fig, grid = plt.subplots(-(-len(shown) // 2), 4, squeeze=False,
                             figsize=(PAGE, 1.95 * -(-len(shown) // 2)))
    for ax in grid.flat:
        ax.set_axis_off()
    for k, row in enumerate(shown.itertuples()):
        for ax, side in zip(grid[k // 2, 2 * (k % 2):], ("first", "second")):
            show_image(ax, data.images[getattr(row, side)])
            text = "\n".join((getattr(row, f"part_{side}"), getattr(row, f"label_{side}") or "no label",
                              getattr(row, f"path_{side}")[-28:]))
            ax.text(0.5, -0.04, text, transform=ax.transAxes, ha="center", va="top", fontsize=6)
            ax.set_title(row.kind if row.kind == "identical" else f"{row.kind}, {row.score:.3f}", fontsize=7)
    return fig


def caption_pairs(frame, rows, data):
    """What is shown, of how many, of which data."""
    made = ", synthetic images" if data.synthetic else ""
    kinds = " and ".join(f"{n:,} {kind}" for kind, n in frame.kind.value_counts(sort=False).items())
    return (f"{data.name}{made}: {min(2 * rows, len(frame))} of {len(frame):,} pairs ({kinds}) across two parts. "
            f"Command: python -m ssl_core audit {data.name}")
