"""The log in bounded memory."""

import math

import numpy as np
import pytest

from unmask.report.curves import Curves


def lines(count: int, start: int = 1) -> list[dict[str, float]]:
    random = np.random.default_rng(0)
    losses = random.uniform(0.2, 1.2, start + count)
    return [
        {"step": step, "loss": float(losses[step]), "learning_rate": step / 1000}
        for step in range(start, start + count)
    ]


@pytest.mark.parametrize("count", [1, 399, 400, 401, 1_000, 12_345])
def test_means_are_those_of_a_plain_computation(count: int) -> None:
    log = lines(count)
    curves = Curves(log)
    assert len(curves.buckets) <= 400
    width = curves.buckets[0].count
    losses = [line["loss"] for line in log]
    for place, bucket in enumerate(curves.buckets):
        part = losses[place * width : (place + 1) * width]
        assert bucket.count == len(part)
        assert bucket.mean("loss") == pytest.approx(np.mean(part))
        assert (bucket.low, bucket.high) == (min(part), max(part))
    assert curves.mean("loss") == pytest.approx(np.mean(losses))
    if count >= 400:
        assert len(curves.buckets) >= 200


def test_one_by_one_is_all_at_once_to_the_bit() -> None:
    log = lines(5_000)
    bit_by_bit = Curves(log[:700])
    for line in log[700:]:
        bit_by_bit.add([line])
    assert bit_by_bit.points("loss") == Curves(log).points("loss")


def test_first_and_last_tenth() -> None:
    curves = Curves({"step": step, "loss": float(step <= 100)} for step in range(1, 1001))
    assert curves.mean("loss", 0, 0.1) == pytest.approx(1.0, abs=0.05)
    assert curves.mean("loss", 0.9, 1) == 0.0
    assert curves.mean("waiting") is None


def test_a_loss_that_is_not_finite_is_named_and_not_drawn() -> None:
    curves = Curves([*lines(5), {"step": 6, "loss": math.nan}])
    assert curves.diverged == curves.step == 6
    assert [step for step, _ in curves.points("loss")] == [1, 2, 3, 4, 5]


def test_checks_and_a_new_end_are_kept() -> None:
    log = lines(2_000)
    log[500] |= {"effective_rank": 3.0, "possible_rank": 8.0}
    log[900] |= {"ends": 3_000, "elapsed": 1.0}
    curves = Curves(log)
    assert [line["step"] for line in curves.checks] == [501]
    assert curves.ends == 3_000
