"""The synthetic cells: the same everywhere, true to their table, and silent about the class wherever no cell is."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, f_oneway
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from statsmodels.stats.proportion import proportion_confint

from ssl_core.data.cells import (
    CELLS,
    GRADED_AS,
    NUISANCES,
    PROFILES,
    RECIPE,
    SIGNS,
    VIEWS,
    describe,
    kinds_of,
    make_cells,
    recipe,
    slide_table,
)

CHANCE = 1 / len(CELLS)
CUES = ["nuclear_area", "cell_area", "nc", "nuclear_od", "contrast", "irregularity", "elongation", "n_nuclei", "halo",
        "cyan", "pink", "orange"]  # fmt: skip

# What the arguments of the tests below give; a change of these numbers is a change of the data set.
KINDS = [6, 3, 0, 5, 2, 7, 4, 1, 5, 2, 7, 4, 1, 6, 3, 0]
GRADED = [5, 3, 0, 5, 2, 7, 4, 1, 5, 2, 7, 4, 1, 6, 3, 0]
SLIDES = [9, 31, 26, 30, 19, 6, 15, 34, 30, 11, 23, 20, 30, 2, 30, 23]
SIGNED = ['1111000100', '1000000000', '0000000000', '0000000000', '0000000000', '1111110000']
GEOMETRY = [
    [155.3033, 690.237, 2.5665, -0.3898, 0.4936],
    [108.2225, 1171.2194, 2.6714, 0.307, -1.7516],
    [21.5296, 1527.844, 5.3195, -0.6884, -2.037],
]
PIXEL_MEANS = [
    [213.66, 210.8, 222.76],
    [216.39, 219.38, 225.32],
    [223.8, 217.59, 230.85],
    [225.68, 219.86, 224.04],
]


# The same everywhere


def test_kinds_and_labels_are_these_on_every_machine():
    truth = describe(16, seed=5, difficulty=1.0)
    assert truth.kind.tolist() == KINDS
    assert truth.graded.tolist() == GRADED
    assert truth.slide.tolist() == SLIDES
    signs = make_cells(16, size=16, seed=5, view="multilabel").labels
    assert ["".join(map(str, row)) for row in signs.tolist()[:6]] == SIGNED


def test_geometry_is_this_on_every_machine():
    truth = describe(3, seed=5)
    np.testing.assert_array_equal(truth[["nuclear_area", "cell_area", "angle", "x", "y"]].to_numpy(), GEOMETRY)


def test_pixels_are_these_up_to_the_last_bits_of_a_machine():
    means = make_cells(4, seed=5).images.mean(axis=(2, 3))
    np.testing.assert_allclose(means, PIXEL_MEANS, atol=0.5)


def test_an_image_does_not_depend_on_how_many_are_drawn():
    few, many = make_cells(20, size=24, seed=1), make_cells(40, size=24, seed=1)
    assert np.array_equal(few.images, many.images[:20]) and np.array_equal(few.labels, many.labels[:20])
    assert np.array_equal(few.groups, many.groups[:20]) and np.array_equal(few.part, many.part[:20])
    assert few.table.equals(many.table.iloc[:20])


def test_seeds_differ():
    a, b = make_cells(20, size=24, seed=1), make_cells(20, size=24, seed=2)
    assert not (a.images == b.images).all(axis=(1, 2, 3)).any()
    assert len(np.unique(a.hashes, axis=0)) == 20


def test_the_truth_does_not_depend_on_the_size_of_the_image():
    assert make_cells(12, size=24).table.equals(make_cells(12, size=48).table)


# Slides


def test_no_slide_is_in_both_parts():
    data = make_cells(400, size=16)
    train, test = (set(data.groups[data.part == part]) for part in ("train", "test"))
    assert not train & test and len(test) == 10 and len(train) == 30
    assert data.grouped and data.group_names[3] == "slide 03"


def test_slides_of_another_seed_are_other_slides():
    a, b = slide_table(0, 20), slide_table(1, 20)
    assert not np.isclose(a.blur, b.blur).any() and (a.test != b.test).any()


# Nuisances know nothing of the class


@pytest.mark.parametrize("profile", ["balanced", "cric"])
def test_nuisances_are_independent_of_the_kind(profile):
    p = {}
    for seed in range(3):
        truth = describe(8000, seed, profile=profile)
        slides = slide_table(seed, 40).iloc[truth.slide]
        groups = [np.flatnonzero(truth.kind == k) for k in range(8)]
        for name in NUISANCES:
            if name in ("slide", "debris", "neighbour"):
                values = np.minimum(truth[name], 3) if name == "debris" else truth[name]
                table = np.array([[(values.iloc[g] == v).sum() for v in np.unique(values)] for g in groups])
                p[seed, name] = chi2_contingency(table).pvalue
            else:
                p[seed, name] = f_oneway(*(truth[name].iloc[g] for g in groups)).pvalue
        for name in ("blur", "noise", "debris"):
            p[seed, "slide's " + name] = f_oneway(*(slides[name].iloc[g] for g in groups)).pvalue
        gain = np.stack(slides.gain)
        p[seed, "gain"] = min(f_oneway(*(gain[g, c] for g in groups)).pvalue for c in range(3))
    assert min(p.values()) > 0.05 / len(p), min(p.items(), key=lambda item: item[1])


def test_background_is_the_same_image_without_its_cell():
    """A wide field, so that the corners hold no part of the cell: there the two agree to the bit."""
    with_cell = make_cells(200, um_per_px=1.5)
    without = make_cells(200, um_per_px=1.5, background=True)
    assert with_cell.table.equals(without.table) and np.array_equal(with_cell.labels, without.labels)
    for rows in (slice(0, 12), slice(-12, None)):
        for columns in (slice(0, 12), slice(-12, None)):
            assert np.array_equal(with_cell.images[:, :, rows, columns], without.images[:, :, rows, columns])
    assert (with_cell.images[:, :, 24:40, 24:40] != without.images[:, :, 24:40, 24:40]).any(axis=(1, 2, 3)).all()


def test_background_is_the_same_at_every_difficulty():
    a, b = (make_cells(20, size=24, difficulty=d, background=True) for d in (0.0, 1.0))
    assert np.array_equal(a.images, b.images)


def upper_end(predicted, labels):
    """Upper end of the 95 % Wilson interval of an accuracy."""
    assert len(labels) >= 2000
    return proportion_confint((predicted == labels).sum(), len(labels), method="wilson")[1]


def parts(data):
    """((x, y) of train, (x, y) of test), images as float in [0, 1]."""
    return [((data.images[data.part == p] / np.float32(255)), data.labels[data.part == p]) for p in ("train", "test")]


def test_background_tells_a_linear_model_and_neighbours_nothing():
    (x, y), (x_test, y_test) = parts(make_cells(9000, size=32, seed=11, background=True))
    x, x_test = x.reshape(len(x), -1), x_test.reshape(len(x_test), -1)
    pixels = PCA(64, random_state=0).fit(x)
    channels = [a.reshape(len(a), 3, -1) for a in (x, x_test)]
    colour = [np.concatenate([a.mean(2), a.std(2), a.min(2)], 1) for a in channels]
    for a, a_test in ((pixels.transform(x), pixels.transform(x_test)), colour):
        for model in (LogisticRegression(max_iter=300), KNeighborsClassifier(20)):
            predicted = make_pipeline(StandardScaler(), model).fit(a, y).predict(a_test)
            assert upper_end(predicted, y_test) <= CHANCE + 0.04


def small_net(x, y, x_test, epochs=4):
    """Predictions of a small convolutional network trained on x (N, 3, S, S)."""
    torch.manual_seed(0)
    blocks, channels = [], 3
    for width in (16, 32, 64):
        convolution = torch.nn.Conv2d(channels, width, 3, stride=2, padding=1)
        blocks += [convolution, torch.nn.BatchNorm2d(width), torch.nn.ReLU()]
        channels = width
    net = torch.nn.Sequential(*blocks, torch.nn.AdaptiveMaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(256, 8))
    x, y, x_test = (torch.from_numpy(a) for a in (x, y, x_test))
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-4)
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(x[index]), y[index]).backward()
            optimiser.step()
    net.eval()
    with torch.no_grad():
        return torch.cat([net(part).argmax(1) for part in x_test.split(256)]).numpy()


@pytest.mark.slow
def test_background_tells_a_trained_net_nothing_and_the_cell_tells_it_much():
    for background in (True, False):
        (x, y), (x_test, y_test) = parts(make_cells(9000, seed=11, background=background))
        predicted = small_net(x, y, x_test)
        if background:
            assert upper_end(predicted, y_test) <= CHANCE + 0.04
        else:  # the same net sees a class where there is one
            assert (predicted == y_test).mean() > 0.6


# What is drawn is what the table says


def test_means_at_difficulty_0_are_the_recipe():
    assert recipe(0.0).equals(RECIPE.astype(float)) and recipe(1.0).index.tolist() == list(CELLS)


def test_kinds_are_ordered_as_bethesda_has_them():
    medians = describe(8000).assign(kind=lambda t: np.array(CELLS)[t.kind]).groupby("kind").median()
    area, nc, cell = medians.nuclear_area, medians.nc, medians.cell_area
    assert area["superficial"] < area["intermediate"] < area["parabasal"] < area["ASC-US"] < area["LSIL"]
    assert 33 < area["intermediate"] < 37 and area["LSIL"] > 3 * 35 > area["ASC-US"] > 2.5 * 35
    assert area["HSIL"] <= area["LSIL"] and nc["HSIL"] > 3 * nc["LSIL"]  # small cells, not larger nuclei
    assert nc["parabasal"] < nc["ASC-H"] < nc["HSIL"] and 0.3 < nc["HSIL"] < 0.7
    assert (cell[["parabasal", "ASC-H", "HSIL"]] < 0.4 * cell["intermediate"]).all()
    assert medians.nuclear_od.idxmax() == medians.contrast.idxmax() == medians.irregularity.idxmax() == "SCC"


@pytest.mark.parametrize("a, b, cue, at_most", [
    ("LSIL", "HSIL", "nuclear_area", 0.75), ("parabasal", "HSIL", "nc", 0.97), ("parabasal", "ASC-H", "nc", 0.85),
    ("ASC-H", "HSIL", "nc", 0.9), ("ASC-US", "LSIL", "nc", 0.9),
])  # fmt: skip
def test_one_cue_alone_does_not_tell_look_alikes_apart(a, b, cue, at_most):
    truth = describe(8000)
    pair = truth[truth.kind.isin([CELLS.index(a), CELLS.index(b)])]
    auc = roc_auc_score(pair.kind == CELLS.index(b), pair[cue])
    assert max(auc, 1 - auc) < at_most


def test_a_nucleus_fits_its_cell():
    truth = describe(8000)
    assert truth.nc.max() <= 0.7001
    np.testing.assert_allclose(truth.nc, truth.n_nuclei * truth.nuclear_area / truth.cell_area, atol=1e-4)


def test_areas_in_the_picture_are_those_of_the_table():
    """The cell is where the picture differs from its background; the nucleus is where it differs much."""
    cells, empty = (make_cells(160, size=128, seed=2, background=b) for b in (False, True))
    light = [-np.log(np.maximum(data.images, 1) / 255).sum(1) for data in (cells, empty)]
    density, area = light[0] - light[1], (57.6 / 128) ** 2
    truth = cells.table
    whole = truth.cell_area < 600  # mature cells reach beyond the field
    ratio = (density > 0.2).sum((1, 2))[whole] * area / truth.cell_area[whole]
    assert whole.sum() > 50 and ratio.between(0.9, 1.3).all() and abs(ratio.median() - 1) < 0.08
    dark = whole & (truth.kind == CELLS.index("HSIL"))
    ratio = (density > 1.6).sum((1, 2))[dark] * area / (truth.n_nuclei * truth.nuclear_area)[dark]
    assert dark.sum() > 10 and ratio.between(0.7, 1.3).all()


def test_a_coarse_pixel_hides_fine_chromatin_and_a_fine_one_shows_it():
    from ssl_core.data.cell_drawing import noise_field

    assert noise_field(0.8, 0.3, 64).std() > 0.95 and noise_field(0.8, 1.8, 64).std() < 0.6
    assert noise_field(0, 0.9, 64).std() == pytest.approx(1, abs=0.01)


# Difficulty


def test_difficulty_only_ever_makes_it_harder():
    accuracy = []
    for difficulty in (0.0, 0.25, 0.5, 0.75, 1.0):
        truth = describe(6000, difficulty=difficulty)
        test = slide_table(0, 40).test.to_numpy()[truth.slide]
        x = truth[CUES].astype(float)
        x[["nuclear_area", "cell_area", "nc"]] = np.log(x[["nuclear_area", "cell_area", "nc"]])
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x[~test], truth.graded[~test])
        accuracy.append(model.score(x[test], truth.graded[test]))
    assert accuracy == sorted(accuracy, reverse=True)
    assert accuracy[0] > 0.95 and 0.5 < accuracy[-1] < 0.85


@pytest.mark.parametrize("difficulty, share", [(0.0, 0.0), (0.5, 0.0), (0.75, 0.05), (1.0, 0.10)])
def test_graders_disagree_on_neighbours_only_and_at_the_top_only(difficulty, share):
    truth = describe(8000, difficulty=difficulty)
    wrong = truth[truth.graded != truth.kind]
    assert (GRADED_AS[wrong.kind] == wrong.graded).all() and set(wrong.kind) <= {3, 4, 5, 6}
    assert len(wrong) / truth.kind.between(3, 6).sum() == pytest.approx(share, abs=0.01)


# Views and profiles


def test_signs_are_common_and_rare():
    truth = describe(20000)
    share = {name: np.mean(sign(truth)) for name, sign in SIGNS.items()}
    assert all(0.004 < s < 0.45 for s in share.values()), share
    assert max(share.values()) > 0.35 and min(share.values()) < 0.008
    assert set(np.array(CELLS)[truth.kind[SIGNS["halo"](truth)]]) == {"ASC-US", "LSIL"}


@pytest.mark.parametrize("profile, ratio", [("balanced", 3), ("cric", 42), ("screening", 200)])
def test_profiles_have_their_ratio_of_normal_to_rarest(profile, ratio):
    shares = np.array(PROFILES[profile])
    assert shares[:3].sum() / shares[3:].min() >= ratio
    for n in (1, 100, 5001):  # at any n the counts are those of the profile, and no rare kind is left to luck
        counts = np.bincount(kinds_of(n, 3, profile), minlength=8)
        assert np.abs(counts - n * shares / shares.sum()).max() < 3


@pytest.mark.parametrize("view", VIEWS)
def test_views_say_the_same_of_an_image_in_other_words(view):
    data, truth = make_cells(60, size=16, view=view), describe(60)
    assert data.synthetic and len(data) == 60 and data.images.shape == (60, 3, 16, 16)
    if view == "multilabel":
        assert data.task == "multilabel" and data.labels.shape == (60, len(SIGNS))
        assert np.array_equal(data.labels[:, data.classes.index("halo")], truth.halo)
        return
    names, kinds = np.array(data.classes)[data.labels], np.array(CELLS)[truth.kind]
    assert data.task == ("binary" if view in ("binary", "hsil") else "multiclass")
    assert (view != "binary") or np.array_equal(names == "abnormal", truth.kind >= 3)
    assert (view != "hsil") or np.array_equal(names == "HSIL+", np.isin(kinds, ["HSIL", "SCC"]))
    assert view not in ("multiclass", "bethesda") or (names[truth.kind >= 3] == kinds[truth.kind >= 3]).all()


@pytest.mark.parametrize("wrong, message", [
    ({"view": "colour"}, "view is 'colour'; allowed are multiclass"), ({"profile": "x"}, "profile is 'x'; allowed are"),
    ({"difficulty": 1.5}, "difficulty is 1.5"), ({"slides": 1}, "slides=1"), ({"um_per_px": 9.0}, "um_per_px is 9.0"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_said_in_one_line(wrong, message):
    with pytest.raises(ValueError, match=message) as error:
        make_cells(2, **wrong)
    assert "\n" not in str(error.value)


def test_no_image_at_all_is_an_empty_set():
    assert len(make_cells(0)) == 0


def test_the_card_is_this_world():
    from ssl_core.data.cards import read_card

    card = read_card("cells")
    assert card.kind == "cells" and card.synthetic and card.cells["n"] >= 1000
    assert make_cells(**{**card.cells, "n": 4, "size": card.image_size}).classes == tuple(card.classes)
