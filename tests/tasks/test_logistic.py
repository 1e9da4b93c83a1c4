"""The logistic classifier on cases whose answer is known."""

import numpy as np
import pytest
import torch
from reference.problems import random

from unmask.tasks.logistic import STRENGTHS, best_strength, logistic_classes, logistic_scores


def clouds(count: int, seed: int, spread: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Three clouds of points, far apart, of very different scales per feature."""
    labels = torch.arange(count) % 3
    centers = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    points = centers[labels] + spread * torch.randn(count, 2, generator=random(seed))
    return points * torch.tensor([1000.0, 0.001]), labels


@pytest.mark.parametrize("strength", STRENGTHS)
def test_clouds_apart_are_told_apart(strength: float) -> None:
    (train, labels), (test, truth) = clouds(60, 0), clouds(90, 1)
    assert torch.equal(logistic_classes(train, labels, test, strength), truth)


def test_the_border_lies_halfway() -> None:
    train, labels = torch.tensor([[-1.0], [1.0]]).repeat(10, 1), torch.tensor([3, 8]).repeat(10)
    test = torch.tensor([[-0.1], [0.1], [-5.0], [5.0]])
    assert logistic_classes(train, labels, test, 1.0).tolist() == [3, 8, 3, 8]


def test_scaling_is_learnt_on_train_alone() -> None:
    (train, labels), (test, _) = clouds(60, 0), clouds(90, 1)
    whole = logistic_classes(train, labels, test, 1.0)
    for row in range(5):
        assert logistic_classes(train, labels, test[row : row + 1], 1.0)[0] == whole[row]


def test_a_constant_feature_does_no_harm() -> None:
    (train, labels), (test, truth) = clouds(60, 0), clouds(90, 1)
    train, test = (torch.cat([x, torch.ones(len(x), 1)], 1) for x in (train, test))
    assert torch.equal(logistic_classes(train, labels, test, 1.0), truth)


def test_best_strength_is_the_best_on_what_is_held_out() -> None:
    train, labels = clouds(90, 0, spread=2.0)
    held_out = np.arange(90) % 4 == 0
    kept, wanted = torch.from_numpy(~held_out), labels[torch.from_numpy(held_out)]
    scores = {}
    for strength in STRENGTHS:
        guesses = logistic_classes(train[kept], labels[kept], train[~kept], strength)
        scores[strength] = (guesses == wanted).double().mean().item()

    def accuracy(shares: torch.Tensor, truth: torch.Tensor) -> float:
        return (shares.argmax(1) == truth).double().mean().item()

    best = best_strength(train, labels, held_out, accuracy, 3)
    assert scores[best] == max(scores.values())


def test_several_classes_of_an_image_have_a_classifier_each() -> None:
    """As many classifiers of one class against the rest; one that no image has scores alike everywhere."""
    (train, one), (test, _) = clouds(60, 0), clouds(30, 1)
    several = torch.stack([one == 0, one != 2, torch.zeros(60)], 1).float()
    scores = logistic_scores(train, several, test, 1.0, 3)
    for column in range(2):
        guesses = logistic_classes(train, several[:, column].long(), test, 1.0)
        assert ((scores[:, column] > 0.5).long()).equal(guesses)
    assert scores[:, 2].unique().tolist() == [0.0]
