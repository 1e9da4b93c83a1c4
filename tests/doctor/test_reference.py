"""The curve of a run beside reference curves: where it lies, and that few are accused."""

from dataclasses import replace
from pathlib import Path

import pytest
from runs import tiny

from unmask.doctor import reference
from unmask.doctor.reference import FILE, POINTS, Curve, beside_references, comparable, curve_of
from unmask.objectives import MAE
from unmask.runs.course import ENDS
from unmask.targets import Pixels

OWN = Curve(
    recipe="own", steps=400, batch_size=64, width=128, depth=4, patch_size=4, side=32, hidden=0.875,
    loss=[1.0 - 0.01 * point for point in range(POINTS)],
)  # fmt: skip
OTHERS = [OWN._replace(loss=[OWN.loss[0] + shift] * POINTS) for shift in (-0.3, -0.2, -0.1, 0.0)]
"""Between 0.7 and 1.0 everywhere."""


def at(loss: float, point: int = POINTS) -> Curve:
    return OWN._replace(loss=[loss] * point)


@pytest.mark.parametrize(
    ("loss", "severity", "words"),
    [
        (0.7, "fine", "0.7 after 100% of the run; 4 reference runs of this kind have 0.7 to 1"),
        (1.0, "fine", ""),
        (1.29, "note", "it lies above them all"),
        (1.31, "warning", ""),
        (0.1, "note", "it lies below them all"),
    ],
)  # fmt: skip
def test_where_the_loss_lies(loss: float, severity: str, words: str) -> None:
    (finding,) = beside_references(at(loss), OTHERS)
    assert finding.severity == severity
    assert words in finding.seen


def test_nothing_is_said_of_too_few_or_too_early() -> None:
    assert beside_references(at(9.0), OTHERS[:3]) == []
    assert beside_references(at(9.0, 4), OTHERS) == []
    assert beside_references(at(9.0, 5), OTHERS)[0].severity == "warning"
    assert beside_references(at(9.0, 0), OTHERS) == []


@pytest.mark.parametrize(
    ("change", "is_comparable"),
    [
        ({"steps": 1600}, True),
        ({"steps": 1601}, False),
        ({"steps": 99}, False),
        ({"width": 64}, True),
        ({"width": 384}, False),
        ({"hidden": 0.8}, True),
        ({"hidden": 0.75}, False),
    ],
)
def test_runs_of_a_kind(change: dict[str, float], is_comparable: bool) -> None:
    assert comparable(OWN._replace(**change), OWN) == is_comparable  # type: ignore[arg-type]


def test_twentieths_of_the_steps_so_far(tmp_path: Path) -> None:
    images = tiny.write_images(tmp_path / "images")
    run = tiny.make_run(images, recipe=replace(tiny.RECIPE, epochs=20.0))
    steps = run.steps
    lines = [{"step": float(step), "loss": float(step)} for step in range(1, steps // 2 + 1)]
    curve = curve_of(run, lines)
    assert curve is not None
    each = steps // POINTS
    assert curve.loss == [part * each + (each + 1) / 2 for part in range(POINTS // 2)]
    lines[-1][ENDS] = float(len(lines))  # its time was over
    ended = curve_of(run, lines)
    assert ended is not None
    assert (len(ended.loss), ended.steps) == (POINTS, steps // 2)


def test_losses_that_mean_something_else_have_no_curve(tmp_path: Path) -> None:
    images = tiny.write_images(tmp_path / "images")
    pixels = replace(tiny.RECIPE, epochs=20.0, objective=MAE(target=Pixels()))
    assert curve_of(tiny.make_run(images, recipe=pixels), []) is None
    short = replace(tiny.RECIPE, epochs=1.0)
    assert curve_of(tiny.make_run(images, recipe=short), []) is None


def test_references_have_an_origin_and_none_is_accused_by_the_others() -> None:
    assert FILE.stat().st_size < 20_000
    curves = reference.references()
    assert len(curves) >= 6
    for one in curves:
        assert one.data
        assert one.machine
        assert one.command.startswith("unmask pretrain ")
        assert len(one.loss) == POINTS
        others = [other for other in curves if other.data != one.data]
        (finding,) = beside_references(one, others)
        assert finding.severity in ("fine", "note")
