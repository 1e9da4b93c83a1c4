"""Loss scaling: gradients are those without it, overflows are skipped, and resuming is exact."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import problems
from reference.problems import Problem
from runs import tiny
from torch import nn

from unmask.cli import main
from unmask.contracts import Batch, Loss, Moment, StepReport
from unmask.errors import DivergedError
from unmask.recipes import RECIPES
from unmask.runs.collapse import Watch
from unmask.training import loss_scale as module_of_scales
from unmask.training.checkpoint import LOSS_SCALE
from unmask.training.loop import Planned, train
from unmask.training.loss_scale import LossScale
from unmask.training.muon import Muon
from unmask.training.optimizers import AdamW, ClipEach, ClipTogether, Lars

OPTIMIZERS = {
    "adamw": AdamW(),
    "clipped": AdamW(clipping=ClipTogether(norm=0.01)),
    "clipped-each": AdamW(clipping=ClipEach(norm=0.01)),
    "lars": Lars(weight_decay=0.1),
    "muon": Muon(),
}


def images_of(steps: int) -> Iterator[Batch]:
    for step in range(steps):
        yield problems.batch_of(problems.pictures(Problem(), count=6, seed=step))


def run(
    module: nn.Module, optimizer: Any, scale: LossScale | None, **changes: Any
) -> list[StepReport]:
    settings: dict[str, Any] = {"precision": "float32", "micro_batch": 6, "steps": 3} | changes
    return list(
        train(
            module,  # type: ignore[arg-type]
            images_of(settings["steps"]),
            optimizer.build(module),
            Planned(settings.pop("steps"), lambda step: 1e-3 * (step + 1)),
            first_step=0,
            seed=0,
            device=torch.device("cpu"),
            loss_scale=scale,
            **settings,
        )
    )


@pytest.mark.parametrize("micro_batch", [6, 4])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_scale_changes_no_bit_of_an_update(name: str, micro_batch: int) -> None:
    """In float32, where nothing overflows: a power of two only moves exponents. Clipping must come after unscaling."""
    plain, scaled = problems.build(), problems.build()
    ours = run(scaled, OPTIMIZERS[name], LossScale(2.0**16), micro_batch=micro_batch)
    theirs = run(plain, OPTIMIZERS[name], None, micro_batch=micro_batch)
    assert [report.loss.item() for report in ours] == [report.loss.item() for report in theirs]
    assert [report.loss_scale for report in ours] == [2.0**16] * 3
    assert [report.loss_scale for report in theirs] == [None] * 3
    tiny.assert_same_tensors(scaled.state_dict(), plain.state_dict())


class Fragile(nn.Module):
    """A model of one weight whose gradient is infinite in chosen steps; counts what is told to it."""

    def __init__(self, *broken: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.broken, self.step, self.followed = broken, 0, 0

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        self.step += 1
        factor = torch.inf if self.step in self.broken else 1.0
        weight = self.weight[0] + 0 * self.weight[1]
        weight.register_hook(lambda gradient: gradient * factor)
        return Loss(weight, {})

    def after_step(self, moment: Moment) -> None:
        self.followed += 1


def test_a_step_with_overflow_is_skipped_and_the_scale_halves() -> None:
    model, scale, weights = Fragile(2, 3), LossScale(8.0, good_steps=1), list[float]()
    settings: dict[str, Any] = {"first_step": 0, "seed": 0, "micro_batch": 6}
    stream = train(
        model,
        images_of(4),
        AdamW().build(model),
        Planned(4, lambda step: 0.1),
        device=torch.device("cpu"),
        precision="float32",
        loss_scale=scale,
        **settings,
    )
    reports: list[StepReport] = []
    for report in stream:
        reports.append(report)
        weights.append(model.weight[0].item())
    assert [report.skipped for report in reports] == [False, True, True, False]
    assert [report.loss_scale for report in reports] == [8.0, 8.0, 4.0, 2.0]
    assert [report.learning_rate for report in reports] == [0.1] * 4
    assert weights[0] == weights[1] == weights[2] != weights[3]
    assert (scale.scale, scale.good_steps, model.followed) == (2.0, 1, 4)


def test_the_scale_grows_after_many_good_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_of_scales, "_STEPS_TO_GROW", 3)
    scale = LossScale(4.0)
    reports = run(Fragile(), AdamW(), scale, steps=7)
    assert [report.loss_scale for report in reports] == [4, 4, 4, 8, 8, 8, 16]
    assert (scale.scale, scale.good_steps) == (16.0, 1)


def test_gradients_that_overflow_at_every_scale_are_an_error() -> None:
    with pytest.raises(DivergedError, match=r"gradients of step 3 are not finite at any scale"):
        run(Fragile(1, 2, 3), AdamW(), LossScale(4.0))


def test_training_in_float16_is_close_to_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 steps from a scale at which none overflows; factors of 10 bits give losses of about 3 digits."""
    monkeypatch.setattr(module_of_scales, "_FIRST", 2.0**8)
    monkeypatch.setattr(Watch, "due", lambda *_: False)
    recipe = replace(RECIPES["mae-digits"].recipe, batch_size=16, epochs=0.222)
    half, full = (
        tiny.timeless(
            tiny.finished_run(tmp_path / precision, "digits", recipe=recipe, precision=precision)
        )
        for precision in ("float16", "float32")
    )
    assert len(half) == len(full) == 20
    assert sum(line["skipped"] for line in half) == 0
    for ours, theirs in zip(half, full, strict=True):
        assert math.isfinite(ours["loss"])
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=5e-3)
        assert ours["learning_rate"] == theirs["learning_rate"]
    assert full[0]["loss"] - full[-1]["loss"] > 0.1
    assert not any("loss_scale" in line for line in full)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp("half") / "images")


def test_resuming_is_exact(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Overflow is staged by a huge first scale, so that each step depends on the scale that the last one left."""
    monkeypatch.setattr(module_of_scales, "_FIRST", 2.0**22)
    monkeypatch.setattr(module_of_scales, "_STEPS_TO_GROW", 2)
    whole = tiny.finished_run(tmp_path / "whole", images, precision="float16")
    scales = [line["loss_scale"] for line in tiny.timeless(whole)]
    assert len(set(scales)) > 2
    assert 0 < sum(line["skipped"] for line in tiny.timeless(whole)) < len(scales)
    parted = tiny.begin(tmp_path / "parted", images, precision="float16")
    tiny.one_step(parted)
    saved = tiny.newest(parted).read(LOSS_SCALE)
    assert saved["scale"].item() == scales[1]
    monkeypatch.setattr("sys.argv", ["unmask", "pretrain", "--resume", str(parted.root)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "results stay equal" not in capsys.readouterr().out
    tiny.assert_same_end(parted, whole)
    ours, theirs = (tiny.newest(folder).read(LOSS_SCALE) for folder in (parted, whole))
    tiny.assert_same_tensors(ours, theirs)


def test_a_run_may_change_its_precision(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints without a scale, as older ones, start with the first one; others do not miss it."""
    folder = tiny.begin(tmp_path / "run", images, precision="float32")
    tiny.one_step(folder)
    assert LOSS_SCALE not in tiny.newest(folder).info.checksums
    for precision in ("float16", "float32"):
        tiny.one_step(folder, precision=precision)
        assert (LOSS_SCALE in tiny.newest(folder).info.checksums) == (precision == "float16")
    assert ["loss_scale" in line for line in tiny.timeless(folder)] == [False, True, False]
