"""Six steps of everything give the losses that they gave before; `scripts/same.py` says more, and writes `losses.json`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rules.loss_rows import MEANT_TO_CHANGE, ROWS, TESTED, call, folder_of, log_of, write_data

EXPECTED: dict[str, list[float]] = json.loads(Path(__file__).with_name("losses.json").read_text())

TOLERANCE = 1e-6
"""Relative. Another kind of CPU rounds in another order; what a mistake changes is larger by far."""


@pytest.fixture(scope="module")
def losses_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[float]]:
    """Run a row, after the row that it needs, each at most once."""
    data = write_data(tmp_path_factory.mktemp("data"))
    runs = tmp_path_factory.mktemp("runs")

    def losses(name: str) -> list[float]:
        row, folder = ROWS[name], folder_of(name, runs)
        if row.after is not None:
            losses(row.after)
        if not folder.exists():
            call(row.words(name, data, runs))
        return [line["loss"] for line in log_of(folder)]

    return losses


SLOW = (
    "dino",
    "moco3",
    "latent/partition",
    "tokenizer/digits",
    "together/beit",
    "together/block",
    "together/grid",
    "together/partition",
)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in TESTED]
)
def test_six_steps_give_the_losses_of_before(
    name: str, losses_of: Callable[[str], list[float]]
) -> None:
    threads = torch.get_num_threads()
    losses = losses_of(name)
    torch.set_num_threads(threads)
    assert losses == pytest.approx(EXPECTED[name], rel=TOLERANCE, nan_ok=False)


def test_every_row_has_its_losses() -> None:
    assert EXPECTED.keys() == {name for name, row in ROWS.items() if not row.reads_only}
    assert MEANT_TO_CHANGE.keys() <= ROWS.keys()
