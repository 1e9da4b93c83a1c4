"""Broken runs are named, each for what is wrong with it, and healthy ones are not accused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unmask.data import Digits
from unmask.data.kinds import find_source
from unmask.data.statistics import measure
from unmask.doctor.examine import examine_run
from unmask.doctor.finding import Finding
from unmask.encoders import ViT
from unmask.errors import DivergedError
from unmask.masking import RandomMasking
from unmask.objectives import MAE
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.objectives.mae import MaskedAutoencoder
from unmask.recipes import RECIPES, Recipe
from unmask.runs.folder import RunFolder
from unmask.runs.pretrain import Pretrain
from unmask.runs.run import Run, new_run
from unmask.runs.training import training
from unmask.targets import Pixels
from unmask.targets.pixels import PixelTarget
from unmask.training.hardware import Hardware
from unmask.training.schedules import WarmupCosine

HEALTHY = replace(
    RECIPES["mae-digits"].recipe,
    encoder=ViT(patch_size=2, embed_dim=32, depth=2, num_heads=2),
    objective=MAE(decoder=SelfAttentionDecoder(embed_dim=32, depth=1, num_heads=2)),
    batch_size=64,
    schedule=WarmupCosine(base_lr=4e-3, warmup_epochs=1),
    epochs=11.0,
)
"""247 steps, a few seconds."""


def trained(
    root: Path, recipe: Recipe = HEALTHY, data: str = "digits", *, most: int | None = None
) -> list[Finding]:
    """The findings for a run of a recipe."""
    folder, spec = RunFolder(root), find_source(data)
    source = spec.open("train")
    hardware = Hardware(
        device="cpu", precision="float32", workers=0, threads=1, micro_batch=recipe.batch_size
    )
    run = new_run("broken", Pretrain(recipe=recipe), spec, source, measure(source), hardware)
    folder.create(run)
    try:
        for report in training(run, folder, source, run.build(), Event()):
            if report.step == most:
                break
    except DivergedError:
        pass
    return examine_run(Run.read(folder), folder, source)


def named(findings: list[Finding], *severities: str) -> set[str]:
    """What the findings of these severities are about."""
    return {finding.about for finding in findings if finding.severity in severities}


def accused(findings: list[Finding]) -> set[str]:
    """What is called wrong."""
    return named(findings, "fault", "warning")


def rated(times: float) -> Recipe:
    """The healthy recipe with another rate."""
    schedule = replace(HEALTHY.schedule, base_lr=times * HEALTHY.schedule.base_lr)
    return replace(HEALTHY, schedule=schedule)


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        HEALTHY,
        replace(HEALTHY, objective=replace(HEALTHY.objective, target=Pixels())),
        replace(HEALTHY, epochs=0.5),  # too short to tell
    ],
)
def test_healthy_runs_are_not_accused(tmp_path: Path, recipe: Recipe) -> None:
    findings = trained(tmp_path / "run", recipe)
    assert not accused(findings), findings
    assert {"positions", "guesses", "gradient", "learning rate"} <= named(findings, "fine")
    assert ("loss" in named(findings, "fine")) == (recipe.epochs > 1)


@pytest.mark.slow
@pytest.mark.parametrize("times", [30.0, 0.01])
def test_a_rate_far_from_the_usual_is_named(tmp_path: Path, times: float) -> None:
    findings = trained(tmp_path / "run", rated(times))
    assert "learning rate" in accused(findings)
    (rate,) = (finding for finding in findings if finding.about == "learning rate")
    assert ("times as high" if times > 1 else "times as low") in rate.seen
    assert "--schedule.base-lr" in rate.change
    assert accused(findings) <= {"learning rate", "loss", "guesses", "stability", "embedding"}


@pytest.mark.slow
def test_position_tables_of_zeros_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Run.build

    def zeroed(self: Run, *rest: object) -> torch.nn.Module:
        module = build(self, *rest)  # type: ignore[arg-type]
        for name, table in module.named_parameters():
            if name.endswith("pos_embed"):
                table.data.zero_()
        return module

    monkeypatch.setattr(Run, "build", zeroed)
    findings = trained(tmp_path / "run")
    assert findings[0].severity == "fault"
    assert "positions" in named(findings, "fault")
    assert accused(findings) <= {"positions", "guesses", "loss"}


def test_a_low_ratio_is_named(tmp_path: Path) -> None:
    objective = replace(HEALTHY.objective, masking=RandomMasking(ratio=0.05))
    findings = trained(tmp_path / "run", replace(HEALTHY, objective=objective), most=5)
    assert named(findings, "fault") == {"masking ratio"}
    assert "6% of the patches are hidden" in findings[0].seen


@pytest.mark.slow
def test_targets_of_other_patches_are_named_by_exclusion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = PixelTarget.forward
    chance = torch.Generator().manual_seed(0)

    def shuffled(self: PixelTarget, *rest: object) -> Tensor:
        target = forward(self, *rest)  # type: ignore[arg-type]
        order = torch.randperm(target.shape[0] * target.shape[1], generator=chance)
        return target.flatten(0, 1)[order].view_as(target)

    with monkeypatch.context() as patch:
        patch.setattr(PixelTarget, "forward", shuffled)
        folder = tmp_path / "run"
        trained(folder)
    run = Run.read(RunFolder(folder))
    findings = examine_run(run, RunFolder(folder), Digits().open("train"))
    (loss,) = (finding for finding in findings if finding.about == "loss")
    assert loss.severity == "fault"
    assert "targets and images do not belong together" in loss.change
    assert accused(findings) <= {"loss", "guesses"}


def test_a_loss_that_is_not_a_number_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, calls = MaskedAutoencoder.loss, list[int]()

    def broken(self: MaskedAutoencoder, *rest: object) -> Tensor:
        calls.append(1)
        return loss(self, *rest) * (float("nan") if len(calls) > 50 else 1.0)  # type: ignore[arg-type]

    folder = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(MaskedAutoencoder, "loss", broken)
        trained(folder.root)
    findings = examine_run(Run.read(folder), folder, Digits().open("train"))
    assert findings[0].about == "divergence"
    assert findings[0].severity == "fault"
    assert "is nan" in findings[0].seen
    assert accused(findings) == {"divergence"}


def write(folder: Path, picture: Callable[[int], np.ndarray], count: int = 60) -> str:
    """Pictures in a folder."""
    folder.mkdir()
    for number in range(count):
        Image.fromarray(picture(number).astype(np.uint8)).save(folder / f"{number:03}.png")
    return str(folder)


def test_constant_and_repeated_pictures_are_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    grey = write(tmp_path / "grey", lambda number: np.full((8, 8), 3 * number))
    findings = trained(tmp_path / "one", HEALTHY, grey, most=2)
    assert "constant images" in named(findings, "fault")
    some = [noise.integers(0, 255, (8, 8)) for _ in range(6)]
    copies = write(tmp_path / "copies", lambda number: some[number % 6])
    findings = trained(tmp_path / "two", HEALTHY, copies, most=2)
    assert "repeated images" in named(findings, "fault")
    assert "54 of 60 images repeat another one" in {finding.seen for finding in findings}
