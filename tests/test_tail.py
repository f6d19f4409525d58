"""The tail of a pool is told where it can be, in words that say when it cannot."""

import numpy as np
import pytest

from ssl_core.analysis import tail as module
from ssl_core.analysis.tail import ratio_of, shares, tail
from ssl_core.cli import main


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(module, "STEPS", 450)


def pool(ratio, n_classes=4, n=600, apart=8.0, seed=0):
    """Gaussian classes in 12 dimensions, as many as a long tail of this ratio has: features and classes."""
    rng = np.random.default_rng(seed)
    shares = ratio ** -np.linspace(0, 1, n_classes)
    labels = np.repeat(np.arange(n_classes), np.round(n * shares / shares.sum()).astype(int))
    return rng.normal(size=(len(labels), 12)) + apart * np.eye(12)[labels], labels


def with_labels(ratio, **more):
    """20 labelled images of each class, and the pool after them."""
    (own, y), (h, _) = pool(1, n=80, seed=9, **more), pool(ratio, **more)
    return np.concatenate([own, h]), np.concatenate([y, np.full(len(h), -1)])


def test_ratio_is_that_of_the_long_tail_itself():
    tails = np.array([ratio ** -np.linspace(0, 1, 10) for ratio in (1.0, 7, 100)])
    np.testing.assert_allclose(ratio_of(tails), [1, 7, 100], rtol=1e-3)
    assert ratio_of(np.array([1.0, 0, 0])) == pytest.approx(module.MOST)


@pytest.mark.parametrize("ratio", [1, 10, 50])
def test_balanced_labels_tell_the_ratio_of_an_uneven_pool(ratio):
    found = tail(*with_labels(ratio))
    assert 0.6 * ratio < found["ratio"] < 1.7 * ratio and found["low"] <= 1.01 * ratio <= found["high"] * 1.01
    assert found["sentence"].startswith("As uneven as a long tail of 1:")


def test_interval_holds_the_truth_though_a_third_is_told_wrong():
    rng, held, counted = np.random.default_rng(0), [], []
    truth = 30.0 ** -np.linspace(0, 1, 6)
    told_as = 0.66 * np.eye(6) + 0.34 * rng.dirichlet(np.ones(6), 6)
    for _ in range(30):
        labelled = rng.multinomial(20, told_as)
        unlabelled = rng.multinomial(800, truth / truth.sum() @ told_as)
        low, high = np.quantile(ratio_of(shares(labelled, unlabelled, rng)), [0.025, 0.975])
        held.append(low <= 30 <= high)
        counted.append(ratio_of(unlabelled))
    assert np.mean(held) >= 0.85 and np.max(counted) < 20  # as they were told: always too even


def test_nothing_is_told_without_labels():
    found = tail(pool(10)[0])
    assert found["sentence"].startswith("Cannot tell") and "--labels" in found["sentence"] and np.isinf(found["high"])


def test_classes_that_features_do_not_tell_apart_give_no_answer():
    found = tail(*with_labels(50, apart=0.1))
    assert found["sentence"].startswith("Cannot tell") and found["low"] < 1.1


def test_command_reads_features_and_labels(tmp_path, capsys):
    h, labels = with_labels(10)
    paths = np.array([f"{i}.png" for i in range(len(h))])
    np.savez(tmp_path / "h.npz", h=h, paths=paths)
    rows = [f"{path},{label}" for path, label in zip(paths, labels) if label >= 0]
    (tmp_path / "some.csv").write_text("path,label\n" + "\n".join(rows), encoding="utf-8")
    assert main(["tail", str(tmp_path / "h.npz"), "--labels", str(tmp_path / "some.csv")]) == 0
    assert "over 4 classes" in capsys.readouterr().out
    (tmp_path / "none.csv").write_text("path,label\nx.png,1\n", encoding="utf-8")
    assert main(["tail", str(tmp_path / "h.npz"), "--labels", str(tmp_path / "none.csv")]) == 2
    assert "none of its paths" in capsys.readouterr().err
