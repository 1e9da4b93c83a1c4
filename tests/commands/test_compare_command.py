"""`unmask compare` as a user types it."""

import sys
from pathlib import Path

import numpy as np
import pytest
from commands.said import Unmask

from unmask.console.studies import chance_difference

QUICK = "--encoders xs4 --image-size 8 --epochs 0.5 --images 40 --tuning-steps 1 --seeds 1 --threads 1 --workers 0"


@pytest.mark.slow
def test_published_values_name_their_epochs(unmask: Unmask) -> None:
    """MAE's are after 1,600 epochs and CrossMAE's after 800: no order follows from them."""
    said = unmask("compare", "digits", "--methods", "mae,fast", *QUICK.split(), "--out", "table")
    assert said.status == 0
    assert "paper (epochs)" in said.out
    assert "1 pair is not compared, because the paper's values come from different" in said.out
    assert "Pairs with different results in the paper" not in said.out
    assert "All seeds are scored on the same 355 test images" in said.out
    rows = Path("table/comparison.csv").read_text()
    assert 'mae,"paper, epochs: finetune",,1600' in rows


def test_what_other_test_images_may_change() -> None:
    """Of two classifiers that are right for half of all images, on 400 of them each."""
    random = np.random.default_rng(0)
    first, second = (random.binomial(400, 0.5, 100_000) / 400 for _ in range(2))
    expected = np.quantile(np.abs(first - second), 0.95)
    assert chance_difference(400) == pytest.approx(expected, abs=0.003)
    assert chance_difference(1) == 1.0


def test_weights_on_the_hub_are_a_method(
    unmask: Unmask, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    said = unmask("compare", classes, "--methods", "scratch,hf:me/mine")
    assert "hf:me/mine needs huggingface_hub" in said.err
