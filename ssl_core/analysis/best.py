"""Which of several arms is the best, as a probability, and what may be set in bold.

The means of all arms over splits are drawn jointly: from Student's t over splits, with the covariance of the arms, and
added to it from t over test images, with the covariance of their bootstrap draws. P(best) is the share of joint draws
that an arm wins; a tie goes to none. Bold needs 0.95. Where two arms are equal in truth, one of ten tables has a bold
number then, as of a one-sided test either way, and fewer with more arms; p-values by Holm stand in summary.csv.
"""

import html

import numpy as np
import pandas as pd

from ssl_core.analysis.contrasts import BALANCED, FEW, READ, SPLIT, drawn, rare_classes
from ssl_core.analysis.wording import budget_short, condition, metric_words, words

BOLD = 0.95
SAME = ["pretrain_dataset", "split_kind", "ratio", "total"]  # of what arms that compete were pretrained on


def best_of(values, draws=None, units=np.inf, seed=0, n_draws=20_000):
    """One row per arm: arm, mean, p_best, bold, n_splits, n_left_out; p_best is NaN where there is nothing to judge by,
    and of one split, which says nothing of others.

    values: DataFrame with a row per split and a column per arm; splits that some arm lacks are left out, so that all
    are paired. draws: (R, arms) bootstrap draws of the means over test images, or None; units: groups or images of the
    rarest class behind a value, 0 for too few.
    """
    whole = values.dropna()
    n, means, rng = len(whole), whole.mean().to_numpy(), np.random.default_rng(seed)
    found = pd.DataFrame({"arm": values.columns, "mean": means, "p_best": np.nan, "bold": False, "n_splits": n,
                          "n_left_out": len(values) - n})
    if len(means) < 2 or n < 2 or units == 0:
        return found
    joint = means + student(whole.to_numpy() - means, 1 / (n * (n - 1)), n - 1, n_draws, rng)
    if draws is not None:
        about = draws - draws.mean(0)
        joint += student(about, 1 / (len(about) - 1) / (1 - 1 / units), units - 1, n_draws, rng)
    won = joint == joint.max(1, keepdims=True)
    found["p_best"] = (won & (won.sum(1, keepdims=True) == 1)).mean(0)
    return found.assign(bold=found.p_best >= BOLD)


def student(about, scale, df, n_draws, rng):
    """(n_draws, arms) of a joint t with covariance scale · aboutᵀ about; about: (rows, arms), centred."""
    _, sizes, axes = np.linalg.svd(about, full_matrices=False)
    normal = rng.normal(size=(n_draws, len(sizes))) @ (sizes[:, None] * axes) * np.sqrt(scale)
    return normal if np.isinf(df) else normal / np.sqrt(rng.chisquare(df, (n_draws, 1)) / df)


def best_in(cells, resamples=1000):
    """`best_of` for every place where arms compete: the same pretraining data, labels and reading; arms as figures call
    them.

    cells: of `contrasts.cells_of`. Columns: dataset, those of `SAME`, protocol, budget, metric, group, then of
    `best_of`. Of few-class recall, classes are few as the split has it.
    """
    trained = cells[(cells.pretrain_dataset != "") & (cells.twin == "none")]
    trained = trained.assign(path_b=trained.path)
    asked = []
    for _, rows in trained.groupby([*SAME, "labels", *READ], dropna=False, sort=False):
        if rows.series.nunique() > 1:
            rare = rare_classes(rows)
            asked += [(None, rows.assign(rare=rare if metric is FEW else None), 0, metric) for metric in (BALANCED, FEW)
                      if metric is BALANCED or rare is not None]
    found, tables = drawn(asked, resamples), []
    for _, rows, _, metric in asked:
        each = [found[path, metric, rare] for path, rare in zip(rows.path, rows.rare)]
        if len({images for *_, images in each}) > 1:
            raise ValueError(f"{rows.key.iloc[0]} and others were tested on different images; compare on one test set")
        rows = rows.assign(value=[value for value, *_ in each], cell=range(len(each)))
        values = rows.pivot_table("value", SPLIT, "series", sort=False)
        rows = rows[rows[SPLIT].apply(tuple, axis=1).isin(values.dropna().index)]
        if not len(rows):
            continue
        draws = [np.mean([np.mean([each[i][1] for i in split.cell], 0) for _, split in arm.groupby(SPLIT)], 0)
                 for arm in (rows[rows.series == name] for name in values)]
        first = rows.iloc[0]
        about = {name: first[name] for name in ("dataset", *SAME, "protocol", "budget")}
        best = best_of(values, np.array(draws).T, min(units for *_, units, _ in each))
        tables.append(pd.DataFrame([about | {"metric": metric[0], "group": metric[2]}] * len(best)).join(best))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def table_html(found):
    """Rows of `best_in` of one data set and metric as an HTML table: arms down, protocols and budgets across, per cent.

    In bold what is the best of its competitors with P(best) of at least 0.95. Those that were pretrained on the same
    data stand below a line that names these, where there are several.
    """
    protocols = list(found.protocol.unique())
    columns = sorted(set(zip(found.protocol, found.budget)), key=lambda c: (protocols.index(c[0]), c[1]))
    rivals = found.sort_values(SAME, kind="stable").groupby(SAME, sort=False, dropna=False)
    above = "".join(f'<th colspan="{sum(p == name for p, _ in columns)}">{html.escape(words(name))}</th>'
                    for name in protocols)
    head = "".join(f'<th style="text-align:right">{budget_short(budget)}</th>' for _, budget in columns)
    cells = {(arm, protocol, budget): f"<b>{100 * mean:.1f}</b>" if bold else f"{100 * mean:.1f}" for
             arm, protocol, budget, mean, bold in found[["arm", "protocol", "budget", "mean", "bold"]].to_numpy()}
    lines = ""
    for _, rows in rivals:
        seen = condition(rows.assign(twin="none").iloc[0])
        seen += f", N = {rows.total.iloc[0]:,}" * bool(rows.total.iloc[0])
        above_them = f'<tr><th colspan="{len(columns) + 1}">pretrained on {html.escape(seen)}</th></tr>'
        lines += above_them * (len(rivals) > 1) + "".join(
            f"<tr><th>{html.escape(arm)}</th>" + "".join(f"<td>{cells.get((arm, *column), '')}</td>"
                                                         for column in columns) + "</tr>" for arm in rows.arm.unique())
    what = metric_words(found.metric.iloc[0], found.group.iloc[0])
    return (f'<div class="scroll"><table class="plain"><thead><tr><th rowspan="2">{what} in %</th>{above}</tr>'
            f"<tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>")


def table_caption(found):
    """What the numbers of `table_html` are, and what bold means; that nothing is bold is said, too."""
    n = found.n_splits
    if n.max() < 2:
        return "Values of one split, which says nothing of others: none is bold."
    over = f"{n.min()} to {n.max()} splits" if n.nunique() > 1 else f"{n.max()} splits"
    bold = "Bold" if found.bold.any() else "Bold, of which there is none"
    left = found.n_left_out.max()
    return (f"Means over {over}{f'; at most {left} left out as an arm is not there' * bool(left)}. {bold}: the best of "
            f"the arms that were pretrained on the same images, with a probability of {BOLD:g} or more over test "
            "images and splits together.")
