"""A figure that is drawn already: laid out anew for a column of a paper, and said in words for who cannot see it."""

import re
import textwrap

from matplotlib.ticker import LogFormatter, ScalarFormatter

TALLEST = 9.2  # inches of a page
WRAPPED = 22  # letters of a name left of an axis


def in_column(fig, width):
    """Lay the panels of a page-wide figure out again in one column: at most half as many side by side, legends below.

    width: inches. Letters keep their size.
    """
    panels = [ax for ax in fig.axes if ax.get_subplotspec() is not None]
    at = [(ax.get_subplotspec().rowspan.start, ax.get_subplotspec().colspan.start) for ax in panels]
    down, across = (max(place[i] for place in at) + 1 for i in (0, 1))
    longest = max((len(name) for ax in panels for name in names_on(ax.yaxis)), default=0)
    fewer = 1 if across < 4 or longest > 12 else -(-across // 2)
    stacked, first = -(-across // fewer), dict(zip(at, panels))
    height = fig.get_figheight() * (1.6 if longest > WRAPPED else 1)
    letters = int((width / fewer - 0.055 * min(longest, WRAPPED) - 0.3) / 0.062)  # below a panel
    grid = fig.add_gridspec(down * stacked, fewer)
    for ax, (row, column) in zip(panels, at):
        ax.set_subplotspec(grid[row * stacked + column // fewer, column % fewer])
        if column and column % fewer == 0:
            ax.tick_params(labelleft=True)
            ax.set_ylabel(ax.get_ylabel() or first[row, 0].get_ylabel())
        ax.set_xlabel(textwrap.fill(ax.get_xlabel(), letters))
        if longest > WRAPPED and names_on(ax.yaxis):
            ax.set_yticks(ax.get_yticks(), [textwrap.fill(name, WRAPPED) for name in names_on(ax.yaxis)], fontsize=7)
    for title in filter(None, (fig._supxlabel, fig._supylabel)):
        title.set_text(title.get_text().replace(" (", "\n("))
    lines = 0
    for owner, legend in [(fig, one) for one in fig.legends] + [(ax, ax.get_legend()) for ax in panels]:
        if legend is not None:
            names, title = [text.get_text() for text in legend.get_texts()], legend.get_title().get_text() or None
            columns = max(1, int(width / (0.06 * max(map(len, names)) + 0.45)))
            place = {"loc": f"outside {'upper' if fig._supxlabel else 'lower'} center"} if owner is fig else {
                "loc": "upper center", "bbox_to_anchor": (0.5, -0.22 - 0.1 * owner.get_xlabel().count("\n"))}
            drawn = [ax.get_legend_handles_labels() for ax in (panels if owner is fig else [owner])]
            found = {name: one for pair in drawn for one, name in zip(*pair)}
            handles = [found.get(name, one) for name, one in zip(names, legend.legend_handles)]
            legend.remove()
            owner.legend(handles, names, title=title, ncols=columns, **place)
            lines += -(-len(names) // columns)
    fig.set_size_inches(width, min(TALLEST, height * (1 + 0.85 * (stacked - 1)) + 0.14 * lines))
    fig.get_layout_engine().set(h_pad=0.08)  # titles of panels of a fixed shape reach beyond them
    fig.draw_without_rendering()
    return fig


def alt_text(fig, caption):
    """A figure for those who cannot see it: what it is of, its panels, what their axes say and reach, and its series.
    """
    panels = [ax for ax in fig.axes if ax.get_visible() and ax.axison and ax.get_subplotspec() is not None]
    said = [re.split(r"(?<=[.:;]) ", caption)[0].rstrip(".:;") + "."]
    titles = list(dict.fromkeys(one_line(ax.get_title(loc) or "") for ax in panels for loc in ("left", "center")))
    titles = [title for title in titles if title]
    if len(panels) > 1 or titles:
        said.append(f"{len(panels)} panel{'s' * (len(panels) > 1)}{': ' * bool(titles)}{'; '.join(titles)}.")
    for which, shared in (("x", fig._supxlabel), ("y", fig._supylabel)):
        for name in dict.fromkeys(getattr(ax, f"get_{which}label")() for ax in panels):
            mine = [ax for ax in panels if getattr(ax, f"get_{which}label")() == name]
            name = one_line(name or (shared.get_text() if shared else ""))
            if not name and len(mine) < len(panels):
                continue
            low, high = (end(getattr(getattr(ax.dataLim, f"interval{which}"), end.__name__)() for ax in mine)
                         for end in (min, max))
            axis = getattr(mine[0], f"{which}axis")
            ticks = names_on(axis)
            values = (f"{round(low, 9) + 0:.3g} to {round(high, 9) + 0:.3g}"
                      if isinstance(axis.get_major_formatter(), (LogFormatter, ScalarFormatter)) else
                      ", ".join(ticks[:15]) + ", …" * (len(ticks) > 15))
            said.append(": ".join(filter(None, [{"x": "Horizontal", "y": "Vertical"}[which], name, values])) + ".")
    legends = [*fig.legends, *(ax.get_legend() for ax in panels)]
    series = list(dict.fromkeys(text.get_text() for legend in filter(None, legends) for text in legend.get_texts()))
    return " ".join([*said, *([f"Series: {'; '.join(series)}."] if series else [])])


def names_on(axis):
    return [one_line(tick.get_text()) for tick in axis.get_ticklabels()]


def one_line(text):
    return " ".join(text.split())
