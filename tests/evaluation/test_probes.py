"""Probes on frozen tokens: what they learn, and from what."""

from dataclasses import replace

import pytest
import torch
from reference.problems import random

from unmask.encoders import ViT
from unmask.evaluation.frozen import ATTENTIVE, LINEAR, Probe, probe_scores
from unmask.evaluation.tuning import ladder
from unmask.recipes.finetune import PROBE_B16


def corners(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of three classes, each near a corner of its own."""
    labels = torch.arange(count) % 3
    noise = 0.2 * torch.randn(count, 4, 8, generator=random(seed))
    return torch.eye(8)[labels][:, None] + noise, labels


SMALL = {"linear": LINEAR, "attentive": ATTENTIVE}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_separable_classes_are_told_apart_for_every_seed(name: str) -> None:
    probe = replace(SMALL[name], least_steps=200)
    (tokens, labels), (test, truth) = corners(60, 0), corners(30, 1)
    for seed in range(2):
        guesses = probe_scores(probe, tokens, labels, test, 3, seed, torch.device("cpu"))
        assert (guesses.argmax(1) == truth).double().mean() > 0.9
        again = probe_scores(probe, tokens, labels, test, 3, seed, torch.device("cpu"))
        assert guesses.equal(again)


def test_the_linear_probe_has_the_settings_of_table_10() -> None:
    recipe = PROBE_B16
    assert LINEAR.head == recipe.task.head
    assert LINEAR.optimizer == recipe.optimizer
    assert LINEAR.peak == pytest.approx(recipe.schedule.peak(recipe.batch_size))
    assert (LINEAR.batch_size, LINEAR.epochs) == (recipe.batch_size, recipe.epochs)
    steps, batch_size = LINEAR.steps(1_281_167)
    assert batch_size == 16384
    assert steps == round(90 * 1_281_167 / 16384)


@pytest.mark.parametrize("probe", [LINEAR, ATTENTIVE], ids=["linear", "attentive"])
def test_small_data_get_a_smaller_batch_and_enough_steps(probe: Probe) -> None:
    steps, batch_size = probe.steps(100)
    assert steps >= probe.least_steps
    assert batch_size == 16
    assert f"{steps:,} steps of 16" in probe.words(100)


@pytest.mark.parametrize(
    ("depth", "rungs"),
    [(1, "0 half all"), (4, "0 half 1 2 all"), (12, "0 half 1 2 4 8 all")],
)
def test_rungs_of_the_ladder(depth: int, rungs: str) -> None:
    assert list(ladder(depth)) == rungs.split()
    assert ViT(depth=depth).depth == depth
