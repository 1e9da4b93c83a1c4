"""Segmentation and detection with every head, norm, view, optimizer and block, through the command: as in test_through_commands.py."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.dense import write_boxes, write_maps, write_outlined
from rules import members
from rules.members import MEMBERS
from rules.test_through_commands import QUICK, clipped, in_file, turns
from runs import tiny, tiny_transfer

from unmask.console import train
from unmask.data.mixing import UNMIXED
from unmask.data.noise import NOISELESS
from unmask.data.scaled_views import FittedImage
from unmask.recipes import Transfer
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.training.logbook import read_log

pytestmark = pytest.mark.usefixtures("small")

WRITERS = {"maps": write_maps, "boxes": write_boxes, "masks": write_outlined}
MEASURES = {"maps": "mIoU", "boxes": "box AP", "masks": "mask AP"}
HEADS = {f"{kind}-{head}": (kind, head) for kind, head in [
    *(("maps", head) for head in MEMBERS["map head"]), ("boxes", ""), ("masks", ""),
]}  # fmt: skip
DENSE = turns(  # every head in the first ones
    HEADS,
    members.placing_views(),
    MEMBERS["optimizer"],
    MEMBERS["clipping"],
    MEMBERS["norms"],
    MEMBERS["blocks"],
)


class Killed(BaseException):
    """Ends a process in the middle of a step's report, as a kill would."""


def recipe_of(
    kind: str, head: str, views: str, optimizer: str, clipping: str, norm: str, blocks: str
) -> Transfer:
    """A tiny recipe of these parts; detection has blocks with position embeddings alone."""
    if kind == "maps":
        chosen = replace(MEMBERS["map head"][head], norm=MEMBERS["norms"][norm])
        task = replace(MEMBERS["task"]["segment"], head=chosen)
    else:
        task, blocks = MEMBERS["task"]["detect"], "plain"
    return replace(
        tiny_transfer.TRANSFER,
        encoder=replace(MEMBERS["encoder"]["vit"], blocks=MEMBERS["blocks"][blocks]),
        task=task,
        views=MEMBERS["views" if views in MEMBERS["views"] else "task views"][views],
        test_views=FittedImage(),
        mixing=UNMIXED,
        noise=NOISELESS,
        optimizer=clipped(MEMBERS["optimizer"][optimizer], clipping),
        batch_size=4,
        epochs=4.0,
    )


def losses(root: str) -> list[float]:
    return [line["loss"] for line in read_log(RunFolder(root).log) if "loss" in line]


FIRST = [
    *DENSE[: len(HEADS)],
    *(pytest.param(each, marks=pytest.mark.slow) for each in DENSE[len(HEADS) :]),
]


@pytest.mark.parametrize("chosen", FIRST, ids="-".join)
def test_finetune_with_every_part_is_exact_after_a_kill(
    unmask: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chosen: tuple[str, ...],
) -> None:
    """In mid-epoch: 5 images, steps of 4, killed after the third step and before a report of it."""
    name, *parts = chosen
    kind, head = HEADS[name]
    recipe = recipe_of(kind, head, *parts)
    data = tmp_path / "data"
    WRITERS[kind](data)
    words = ("finetune", "scratch", data, "--recipe", in_file(recipe), *QUICK, "--no-report")
    said = unmask(*words, "--out", "whole")
    assert MEASURES[kind] in said
    assert len(losses("whole")) == 5
    assert torch.tensor(losses("whole")).isfinite().all()
    assert Run.read(RunFolder("whole"), "finetune").recipe.task == recipe.task

    real = train.training

    def killed(*arguments: Any) -> Iterator[Any]:
        for report in real(*arguments):
            if report.step == 3:
                raise Killed
            yield report

    monkeypatch.setattr(train, "training", killed)
    with pytest.raises(Killed):
        unmask(*words, "--out", "halves", "--save-every-minutes", "0")
    monkeypatch.setattr(train, "training", real)
    assert "from step" in unmask("finetune", "--resume", "halves")
    tiny.assert_same_end(RunFolder("halves"), RunFolder("whole"))

    if parts[-2] != "batch":  # which normalises each part by itself
        unmask(*words, "--out", "parts", "--micro-batch", "1")
        assert losses("parts") == pytest.approx(losses("whole"), rel=1e-3)
