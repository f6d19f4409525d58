"""The figure of arms against the first of them: what it takes from summary.csv, and where it puts it."""

import numpy as np
import pandas as pd
import pytest

from ssl_core.analysis import plots_arms

FIRST, ARMS = "SimCLR", ("LoTaR", "BCL")


@pytest.fixture
def contrasts():
    """Rows of "between arms": each against each before it, two metrics, two budgets."""
    rng, rows = np.random.default_rng(0), []
    for group, metric in (("all", "balanced_accuracy"), ("few", "recall")):
        for budget in (0.01, 1.0):
            for what, against in (("LoTaR", FIRST), ("BCL", FIRST), ("BCL", "LoTaR")):
                effect = rng.normal(0, 0.02)
                rows.append({"family": "between arms", "dataset": "toy", "what": f"{what} (1:100)",
                             "against": f"{against} (1:100)", "ratio": 100, "protocol": "linear", "budget": budget,
                             "n_labelled": 100 * budget, "metric": metric, "group": group, "effect": effect,
                             "low": effect - 0.01, "high": effect + 0.01, "n_pairs": 5, "n_images": 1000})
    return pd.DataFrame(rows)


def test_only_contrasts_with_the_first_arm_are_drawn_in_the_order_of_the_study(contrasts):
    drawn = plots_arms.against_first(contrasts)
    assert list(dict.fromkeys(drawn.line)) == [f"{arm} − {FIRST} (1:100)" for arm in ARMS]
    assert len(drawn) == 8 and not drawn.against.str.startswith("LoTaR").any()


def test_each_difference_stands_in_points_on_its_line_of_its_panel(contrasts):
    drawn = plots_arms.against_first(contrasts)
    fig = plots_arms.plot_arms(drawn)
    kinds = [(metric, budget) for metric in ("balanced_accuracy", "recall") for budget in (0.01, 1.0)]
    assert len(fig.axes) == len(kinds)
    for ax, (metric, budget) in zip(fig.axes, kinds):
        rows = drawn[(drawn.metric == metric) & (drawn.budget == budget)].set_index("line")
        names = [text.get_text().replace("\n", " ") for text in fig.axes[0].get_yticklabels()]
        dots = {line.get_ydata()[0]: line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"}
        assert {names[at]: x for at, x in dots.items()} == pytest.approx(dict(100 * rows.effect))
        label = ax.get_xlabel().replace("\n", " ")
        assert "points" in label and ("few images" in label) == (metric == "recall")


def test_names_keep_the_condition_of_both_sides_where_it_differs():
    assert plots_arms.line_of("A (1:100)", "B (1:100)") == "A − B (1:100)"
    assert plots_arms.line_of("A (1:100)", "B (balanced)") == "A (1:100) − B (balanced)"


def test_at_most_four_ways_to_read_stand_side_by_side(contrasts):
    many = pd.concat([contrasts.assign(protocol=name) for name in ("linear", "knn", "finetune")])
    drawn = plots_arms.against_first(many)
    assert set(drawn.protocol) == {"linear", "knn"} and set(drawn.budget) == {0.01, 1.0}
    table = pd.DataFrame({"study": ["made"], "dataset": ["toy"], "synthetic": [True]})
    caption = plots_arms.caption_arms(drawn, table, many)
    assert "Not drawn: fine-tuned" in caption and "Holm" in caption and "5 paired splits" in caption
