"""Nearest neighbours against a loop."""

import math
from typing import Any

import pytest
import torch
from reference.problems import random
from torch import Tensor

from unmask.tasks.neighbors import (
    NEIGHBORS,
    TEMPERATURE,
    knn_classes_of_others,
    knn_votes,
)


def knn_classes(*arguments: Any) -> Tensor:
    """The class with the most votes."""
    return knn_votes(*arguments).argmax(1)


def literal_knn(
    train: Tensor, labels: Tensor, asked: Tensor, classes: int, neighbors: int, temperature: float
) -> list[int]:
    """DINO's protocol, one question and one neighbour after the other."""
    answers = []
    for question in asked.tolist():
        near = []
        for known, label in zip(train.tolist(), labels.tolist(), strict=True):
            product = sum(a * b for a, b in zip(question, known, strict=True))
            near.append((product / math.hypot(*question) / math.hypot(*known), label))
        near.sort(reverse=True)
        votes = [0.0] * classes
        for similarity, label in near[:neighbors]:
            votes[label] += math.exp(similarity / temperature)
        answers.append(votes.index(max(votes)))
    return answers


@pytest.mark.parametrize(
    ("neighbors", "temperature"), [(20, 0.07), (1, 0.07), (5, 1.0), (500, 0.5)]
)
def test_equals_the_loop(neighbors: int, temperature: float) -> None:
    train = torch.randn(60, 5, generator=random(0))
    labels = torch.randint(4, (60,), generator=random(1))
    asked = torch.randn(40, 5, generator=random(2))
    found = knn_classes(train, labels, asked, 4, neighbors, temperature)
    assert found.tolist() == literal_knn(train, labels, asked, 4, neighbors, temperature)


def test_protocol() -> None:
    assert (NEIGHBORS, TEMPERATURE) == (20, 0.07)


def test_by_hand() -> None:
    """Two near votes for 1 outweigh a nearer one for 0 only where the temperature is high."""
    train = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6], [-1.0, 0.0]])
    labels = torch.tensor([0, 1, 1, 2])
    asked = torch.tensor([[3.0, 0.0]])
    assert knn_classes(train, labels, asked, 3, 3, 0.07).tolist() == [0]  # e^14 > 2 e^11
    assert knn_classes(train, labels, asked, 3, 3, 1.0).tolist() == [1]  # e < 2 e^0.8


def test_length_of_features_does_not_matter() -> None:
    train, asked = torch.randn(30, 4, generator=random(0)), torch.randn(10, 4, generator=random(1))
    labels = torch.randint(3, (30,), generator=random(2))
    stretched = train * torch.rand(30, 1, generator=random(3)).add(0.1)
    assert torch.equal(
        knn_classes(train, labels, asked, 3), knn_classes(stretched, labels, asked * 100, 3)
    )


def test_many_questions_are_answered_in_parts() -> None:
    train, labels = (
        torch.randn(30, 4, generator=random(0)),
        torch.randint(3, (30,), generator=random(2)),
    )
    asked = torch.randn(2500, 4, generator=random(1))
    whole = knn_classes(train, labels, asked, 3)
    for start in (0, 1000, 1024, 2049):
        part = knn_classes(train, labels, asked[start : start + 100], 3)
        assert torch.equal(part, whole[start : start + 100])


@pytest.mark.parametrize(("count", "neighbors"), [(60, 5), (9, 20)])
def test_each_asks_all_others(count: int, neighbors: int) -> None:
    features = torch.randn(count, 5, generator=random(3))
    labels = torch.randint(4, (count,), generator=random(4))
    found = knn_classes_of_others(features, labels, 4, neighbors).tolist()
    for place in range(count):
        others = torch.arange(count) != place
        one = features[place : place + 1]
        known = literal_knn(features[others], labels[others], one, 4, neighbors, TEMPERATURE)
        assert found[place] == known[0]


def test_of_several_classes_the_votes_are_odds_of_shares() -> None:
    """Against a loop over neighbours; near ones would drive a sigmoid of sums of weights to 1 for every class."""
    generator = torch.Generator().manual_seed(0)
    train, asked = (torch.randn(count, 6, generator=generator) for count in (40, 9))
    asked[0] = train[0]  # a weight of e^14
    labels = torch.randint(2, (40, 3), generator=generator).float()
    found = knn_votes(train, labels, asked, 3, 5)
    for row, one in enumerate(asked):
        near = torch.nn.functional.cosine_similarity(one[None], train).topk(5)
        weights = [math.exp(value / TEMPERATURE) for value in near.values.tolist()]
        for number in range(3):
            own = sum(
                w * float(labels[i, number]) for w, i in zip(weights, near.indices, strict=True)
            )
            share = own / sum(weights)
            assert float(found[row, number].sigmoid()) == pytest.approx(share, abs=2e-6)
