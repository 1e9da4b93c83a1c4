"""Learning rates against the published ones."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.errors import SettingsError
from unmask.training.schedules import WarmupCosine, epochs_in_words, steps_of

PAPER = WarmupCosine(base_lr=1.5e-4, warmup_epochs=40.0)


def test_equals_the_published_rates(published_schedules: Any) -> None:
    table = published_schedules["cosine_schedule"]
    base = table["base"]
    schedule = WarmupCosine(
        base_lr=base["lr"] * 256 / 4096,
        warmup_epochs=float(base["warmup_epochs"]),
        min_lr=float(base["min_lr"]),
    )
    assert len(table["epoch_lr"]) == 12
    for epoch, rate in table["epoch_lr"]:
        found = schedule.rate(float(epoch), float(base["epochs"]), 4096)
        assert found == pytest.approx(rate, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.0),
        (1, 2.4e-3 / (40 * 312.5)),
        (6_250, 1.2e-3),  # epoch 20: half of the warm-up
        (12_500, 2.4e-3),  # epoch 40: the peak
        (131_250, 1.2e-3),  # epoch 420: half of the cosine
        (190_625, 2.4e-3 * 0.5 * (1 - math.sqrt(0.5))),  # epoch 610: three quarters
    ],
)
def test_paper_s_recipe_at_named_steps(step: int, rate: float) -> None:
    """Table 8: 1.5e-4 x 4096 / 256; 1,280,000 images make 312.5 steps an epoch."""
    assert PAPER.rate(step * 4096 / 1_280_000, 800.0, 4096) == pytest.approx(
        rate, rel=1e-9, abs=1e-18
    )


def test_rate_follows_the_batch() -> None:
    assert PAPER.peak(4096) == pytest.approx(2.4e-3)
    assert PAPER.peak(256) == 1.5e-4
    assert PAPER.peak(64) == pytest.approx(1.5e-4 / 4)


def test_end_is_the_least_rate() -> None:
    schedule = WarmupCosine(base_lr=1e-3, warmup_epochs=5.0, min_lr=1e-6)
    assert schedule.rate(100.0, 100.0, 256) == pytest.approx(1e-6, rel=1e-6)


def test_no_warm_up_starts_at_the_peak() -> None:
    assert WarmupCosine(base_lr=1e-3, warmup_epochs=0.0).rate(0.0, 10.0, 256) == 1e-3


@given(epoch=st.floats(0, 9.999), warmup=st.floats(0, 20), epochs=st.just(10.0))
def test_rate_stays_between_nothing_and_the_peak(
    epoch: float, warmup: float, epochs: float
) -> None:
    rate = WarmupCosine(base_lr=1e-3, warmup_epochs=warmup).rate(epoch, epochs, 256)
    assert 0 <= rate <= 1e-3


@pytest.mark.parametrize("name", ["base_lr", "warmup_epochs", "min_lr"])
def test_negative_values_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} must not be negative, got -1"):
        WarmupCosine(**{name: -1.0})


@pytest.mark.parametrize(
    ("epochs", "images", "batch_size", "steps"),
    [(800.0, 1_280_000, 4096, 250_000), (1.0, 10, 3, 3), (0.001, 10, 100, 1), (2.5, 100, 50, 5)],
)
def test_steps(epochs: float, images: int, batch_size: int, steps: int) -> None:
    assert steps_of(epochs, images, batch_size) == steps


@pytest.mark.parametrize(
    ("epochs", "words"),
    [(1.0, "1 epoch"), (0.5, "0.5 epochs"), (100 / 3, "33.3 epochs"), (1600.0, "1,600 epochs")],
)
def test_epochs_in_words(epochs: float, words: str) -> None:
    assert epochs_in_words(epochs) == words


def test_a_stable_rate_stays_at_its_peak_and_cools_down_in_a_line() -> None:
    schedule = WarmupCosine(base_lr=1e-3, warmup_epochs=1.0, min_lr=1e-4, cooldown=0.25)
    rates = [schedule.rate(epoch, 8.0, 256) for epoch in (0.0, 0.5, 1.0, 3.0, 6.0, 7.0, 8.0)]
    assert rates == pytest.approx([0.0, 5e-4, 1e-3, 1e-3, 1e-3, 5.5e-4, 1e-4])


def test_a_cool_down_may_fill_the_run_but_no_more() -> None:
    schedule = WarmupCosine(base_lr=1e-3, warmup_epochs=0.0, cooldown=1.0)
    assert schedule.rate(5.0, 10.0, 256) == pytest.approx(5e-4)
    with pytest.raises(SettingsError, match="cooldown must be above 0 and at most 1, got 0"):
        WarmupCosine(cooldown=0.0)


def test_milestones_divide_the_rate_by_ten() -> None:
    schedule = WarmupCosine(base_lr=4e-4, warmup_epochs=1, milestones=(0.8, 0.9))
    rates = [schedule.rate(epoch, 100, 64) for epoch in (0.5, 1, 79.9, 80, 89.9, 90, 100)]
    assert rates == pytest.approx([5e-5, 1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"milestones": (0.5, 1.0)},
            "milestones must lie between 0 and 1, got 1; they are shares of the run",
        ),
        ({"milestones": (0.5,), "cooldown": 0.2}, "not both"),
    ],
)
def test_wrong_milestones_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        WarmupCosine(**values)
