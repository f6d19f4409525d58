"""A study whose held-out images are in its own training ends before it runs, unless it says that it may."""

import numpy as np
import pytest
from test_plan import planned

from ssl_core.config import ConfigError
from ssl_core.data.audit import copied
from ssl_core.data.images import ImageSet


def plant(toy_tree, name="toy", **copies):
    """Write the toy's images as another card, in which the image of each part is one of the other's: test=[(3, 0)]."""
    with np.load(toy_tree / "params" / "data" / "toy.npz") as file:
        arrays = dict(file)
    for part, places in copies.items():
        other = {"test": "train", "train": "test"}[part]
        for source, target in places:
            arrays[f"{part}_images"][target] = arrays[f"{other}_images"][source]
    np.savez(toy_tree / "params" / "data" / f"{name}.npz", **arrays)
    card = (toy_tree / "params" / "data" / "toy.yaml").read_text()
    (toy_tree / "params" / "data" / f"{name}.yaml").write_text(card.replace("toy.npz", f"{name}.npz"))


def test_a_test_image_in_training_stops_the_study_in_one_line(toy_tree):
    plant(toy_tree, test=[(3, 0), (7, 5)])
    with pytest.raises(ConfigError, match="2 of 40 test images of toy equal, in each pixel, .* allow_copies") as said:
        planned()
    assert "\n" not in str(said.value)


def test_the_override_lets_it_run_marks_it_and_changes_no_key(toy_tree):
    plant(toy_tree, test=[(3, 0)])
    found = planned(data={"dataset": "toy", "allow_copies": True})
    assert found.as_dict()["copies"]["toy"].startswith("1 of 40 test images")
    assert "allow_copies" not in str([job.parts for job in found.jobs])


def test_clean_data_pass_and_keep_their_keys_with_the_override(toy_tree):
    plain, allowed = planned(), planned(data={"dataset": "toy", "allow_copies": True})
    assert plain.copies == allowed.copies == {}
    assert [job.key for job in plain.jobs] == [job.key for job in allowed.jobs]


def test_pretraining_on_another_set_with_these_test_images_is_found(toy_tree):
    plant(toy_tree, "other", train=[(5, 0), (6, 1), (7, 2)])
    sets = [{"dataset": "other", "evaluate_on": "toy", "splits": {"kind": "natural"}}]
    with pytest.raises(ConfigError, match="3 of 40 test images of toy equal, .* of other"):
        planned(data=sets, arms=[{"name": "mae", "method": "mae", "epochs": 1}])


def test_images_of_one_colour_are_no_copies():
    images = np.zeros((4, 1, 8, 8), np.uint8)
    images[2:, :, 0] = 9
    data = ImageSet("made", images, np.zeros(4, int), ("a",))
    assert copied(data, np.array([0, 2]), data, np.array([1, 3])) == [2]
