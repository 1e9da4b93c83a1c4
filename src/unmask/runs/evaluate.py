"""How good frozen features are: nearest neighbours and a logistic classifier on labelled images."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.contracts import ChannelStatistics, Encoder, ImageSource, Size
from unmask.data import AnySource
from unmask.errors import DataError
from unmask.randomness import derive
from unmask.runs.features import Features, features
from unmask.tasks.logistic import best_strength, logistic_classes
from unmask.tasks.neighbors import NEIGHBORS, TEMPERATURE, knn_classes

Protocol = Literal["knn", "logistic"]

_TEST_SHARE = 0.2


class Labelled(NamedTuple):
    """Labelled images to learn from and to test on."""

    train: ImageSource
    test: ImageSource
    test_rows: NDArray[np.bool_] | None
    """Which of `train` are for testing, where the data have no split of their own."""
    split: str
    """How the split came about, in words."""


class Score(NamedTuple):
    """Accuracy of one protocol on one feature."""

    protocol: Protocol
    feature: str
    accuracy: float
    setting: str


def open_labelled(data: AnySource, seed: int) -> Labelled:
    """The data's own train and test folders, or a split drawn from the seed.

    Raises:
        DataError: if there are no classes, or the two folders have different ones.
    """
    train = data.open("train")
    if len(train.class_names) < 2:
        raise DataError(
            "evaluation needs labelled images: put each class in a folder of its own (cats/1.jpg, "
            "dogs/1.jpg), or use digits"
        )
    if "test" in data.splits():
        test = data.open("test")
        if test.class_names != train.class_names:
            odd = sorted(set(test.class_names) ^ set(train.class_names))
            raise DataError(
                f"the train and test folders have different classes; only one has {odd}"
            )
        return Labelled(train, test, None, "the data's own train and test folders")
    labels = np.array(train.labels())
    if (labels < 0).any():
        raise DataError(
            f"{(labels < 0).sum()} of the {len(labels):,} images have no label, the first is "
            f"{train.name(int(np.argmax(labels < 0)))}; label or remove them"
        )
    if np.bincount(labels).max() < 2:
        raise DataError("each class has one image, so nothing is left to test on; add more images")
    held_out = draw_share(labels, _TEST_SHARE, seed)
    return Labelled(
        train,
        train,
        held_out,
        f"{_TEST_SHARE:.0%} of each class for testing, drawn from seed {seed}",
    )


def draw_share(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """A share of each class at random; at least one, and never all, of a class with two or more."""
    random = np.random.default_rng(derive("split", seed))
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        count = min(len(rows) - 1, max(1, round(share * len(rows))))
        chosen[rows[:count]] = True
    return chosen


def labelled_features(
    encoder: Encoder,
    labelled: Labelled,
    size: Size,
    statistics: ChannelStatistics,
    device: torch.device,
) -> tuple[Features, Features]:
    """Features to learn from and features to test on."""
    train = features(encoder, labelled.train, size, statistics, device)
    if labelled.test_rows is None:
        return train, features(encoder, labelled.test, size, statistics, device)
    bad = {name for name, _ in train.unreadable}
    readable = [labelled.train.name(i) not in bad for i in range(len(labelled.train))]
    rows = torch.from_numpy(labelled.test_rows[np.array(readable)])
    return (
        Features(train.cls[~rows], train.mean[~rows], train.labels[~rows], train.unreadable),
        Features(train.cls[rows], train.mean[rows], train.labels[rows], []),
    )


def evaluate(train: Features, test: Features, protocol: Protocol, classes: int) -> list[Score]:
    """The protocol's accuracy on class tokens and on mean patch tokens."""
    tokens = {"cls": (train.cls, test.cls), "mean": (train.mean, test.mean)}
    scores: list[Score] = []
    for name, (known, asked) in tokens.items():
        if protocol == "knn":
            guesses = knn_classes(known, train.labels, asked, classes)
            setting = f"cosine, k = {NEIGHBORS}, temperature {TEMPERATURE}"
        else:
            held_out = draw_share(train.labels.numpy(), _TEST_SHARE, 0)
            some = bool(held_out.any())
            strength = best_strength(known, train.labels, held_out) if some else 1.0
            guesses = logistic_classes(known, train.labels, asked, strength)
            setting = f"C = {strength:g}, chosen on a fifth of train"
        accuracy = (guesses == test.labels).double().mean().item()
        scores.append(Score(protocol, name, accuracy, setting))
    return scores
