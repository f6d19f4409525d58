"""Where the doubt in a metric comes from: the draw of the images, the class order, initialisation, labels, test images.

Method of moments on pairs of runs of one condition: half the squared difference of two values is, in expectation, the
sum of the variances of what differs between them, so least squares (none below 0) on what differs gives the variances,
for any design. Initialisation is the seed within a split: the same seed on other images is another training. What
varies only together cannot be told apart and is one row; what does not vary is said, and not 0. Test images are common
to all runs, so that their sampling shows in no difference: it is read from the values' own intervals.
"""

import numpy as np
import pandas as pd
from scipy.optimize import nnls
from scipy.stats import chi2, norm

from ssl_core.analysis.wording import budget_words, words

SOURCES = {"draw": "draw of the images", "order": "class order", "seed": "initialisation and training",
           "labels": "draw of the labels"}
TEST = "sampling of the test images"
CONDITION = """dataset pretrain_dataset split_kind twin ratio arm encoder protocol label_pool budget layer""".split()
RUN = ["draw_seed", "order_seed", "seed", "budget_seed"]
COLUMNS = "source known sd share n low high".split()


def decompose(table, metric="balanced_accuracy", group_kind="all", group="all"):
    """Rows of results, of one metric → one row for each source of variance.

    source: in words, "A or B" where these cannot be told apart; known: False where it does not vary here; sd: in the
    metric's unit; share: of the variance of one value; n: most values that it takes in a condition (draws, orders,
    runs, cells, test images); low, high: 95 % of the sd, as if values of this source alone had been seen. Conditions
    (arm, ratio, budget, …) are pooled: differences are taken within each. Pass the rows of one budget and protocol
    where these should not share a variance.
    """
    rows = table[(table.metric == metric) & (table.group_kind == group_kind) & (table.group == group)
                 & (table.part == "test") & table.value.notna() & (table.pretrain_dataset != "")]
    size = "total" if "total" in rows else "n_unlabelled"
    differ, halves, seen = [], [], np.ones((0, len(SOURCES) + 1))
    for _, runs in rows.groupby([*CONDITION, size], dropna=False, sort=False):
        values, ids = runs.value.to_numpy(), runs[RUN].fillna(0).to_numpy()
        distinct = [len(np.unique(part, axis=0)) for part in (ids[:, :1], ids[:, 1:2], ids[:, :2], ids[:, :3], ids)]
        seen = np.vstack([seen, distinct])
        i, j = np.triu_indices(len(runs), 1)
        apart = ids[i] != ids[j]
        differ.append(np.column_stack([apart[:, :2], apart[:, :3].any(1), apart.any(1)]))
        halves.append((values[i] - values[j]) ** 2 / 2)
    n_draws, n_orders, n_splits, n_runs, n_cells = seen.max(0) if len(seen) else np.zeros(len(SOURCES) + 1)
    n = dict(zip(SOURCES, (n_draws, n_orders, n_runs, n_cells)))
    df = dict(zip(SOURCES, (n_draws - 1, n_orders - 1, n_runs - n_splits, n_cells - n_runs)))
    differ, together, found = np.vstack([np.zeros((0, len(SOURCES))), *differ]), {}, []
    for column, source in zip(differ.T, SOURCES):
        if column.any():  # sources whose columns are equal are one
            together.setdefault(column.tobytes(), []).append(source)
        else:
            found.append({"source": SOURCES[source], "known": False, "sd": np.nan, "n": min(n[source], 1), "df": 0})
    if together:
        design = np.stack([np.frombuffer(column) for column in together], 1)
        known = np.linalg.matrix_rank(design) == len(together)
        for names, variance in zip(together.values(), nnls(design, np.concatenate(halves))[0]):
            found.append({"source": " or ".join(SOURCES[name] for name in names), "known": known, "n": n[names[0]],
                          "sd": np.sqrt(variance) if known else np.nan, "df": df[names[0]]})
    frame = pd.DataFrame([*found[::-1], of_test_images(rows)])
    frame["share"] = frame.sd**2 / (frame.sd**2).sum()
    for end, p in (("low", 0.975), ("high", 0.025)):
        frame[end] = (frame.sd * np.sqrt(frame.df / chi2.ppf(p, frame.df.clip(lower=1)))).where(frame.df > 0)
    return frame.sort_values("known", ascending=False, kind="stable", ignore_index=True)[COLUMNS]


def of_test_images(rows):
    """The row of the test images: the spread that the values' own intervals stand for, half their width over 1.96."""
    half = (rows.high - rows.low) / 2
    known = half.notna().any()
    return {"source": TEST, "known": known, "n": rows.n.max() if len(rows) else 0, "df": 0,
            "sd": np.sqrt(((half / norm.ppf(0.975)) ** 2).mean()) if known else np.nan}


def in_words(frame):
    """A Markdown table of `decompose` and, below, what to repeat and what this design cannot tell."""
    lines = ["| source | standard deviation, points | share of variance | n |", "|---|--:|--:|--:|"]
    for row in frame.itertuples():
        if not row.known:
            said = "cannot be told apart" if row.n > 1 else "not varied here"
            lines.append(f"| {row.source} | {said} | | {row.n:,.0f} |")
            continue
        doubt = f" ({100 * row.low:.1f} to {100 * row.high:.1f})" if row.low == row.low else ""
        lines.append(f"| {row.source} | {100 * row.sd:.1f}{doubt} | {100 * row.share:.0f} % | {row.n:,.0f} |")
    return "\n".join([*lines, "", *notes(frame)])


def sentence_of(table):
    """Where doubt comes from as the study reads first, with the fewest labels; "" where only test images vary.

    table: of one data set, as `grid.told` gives it.
    """
    rows = table[(table.pretrain_dataset != "") & (table.layer == "") & table.value.notna()]
    rows = rows[rows.protocol == rows.protocol.iloc[0]] if len(rows) else rows
    fewest = rows.groupby("budget").n_labelled.mean().idxmin() if len(rows) else None
    frame = decompose(rows[rows.budget == fewest])
    if not frame.known[frame.source != TEST].any():
        return ""
    how = f"{words(rows.protocol.iloc[0])}, {budget_words(fewest)}"
    return f"Where doubt in balanced accuracy comes from ({how}). {' '.join(notes(frame))}"


def notes(frame):
    """Sentences: the largest source, what varies only together, what does not vary."""
    known, said = frame[frame.known], []
    if len(known):
        most = known.loc[known.sd.idxmax()]
        said.append(f"Most of the variance that is known comes from: {most.source} (standard deviation "
                    f"{100 * most.sd:.1f} points).")
    for row in frame.itertuples():
        if " or " in row.source:
            said.append(f"Here these vary only together and cannot be told apart: {row.source}.")
    still = frame[~frame.known & (frame.n <= 1)].source
    if len(still):
        said.append(f"Not varied, so that nothing is known of: {', '.join(still)}.")
    return said
