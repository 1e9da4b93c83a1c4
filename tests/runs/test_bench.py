"""What a measurement says: its parts fit together, and the verdict follows from the figures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import tiny

from unmask.data.kinds import find_source
from unmask.runs import bench as module
from unmask.runs.bench import bench
from unmask.runs.bottleneck import Bench, LoaderSpeed, Machine, StepSpeed, Together, verdict
from unmask.training.hardware import Hardware

HARDWARE = Hardware(device="cpu", precision="float32", workers=0, threads=1, micro_batch=8)
GPU = "NVIDIA H200"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unmask.training.step_cost._CEILING_SECONDS", 0.0)
    for name in ("_STEP_SECONDS", "_SIZE_SECONDS", "_LOADER_SECONDS", "_TOGETHER_SECONDS"):
        monkeypatch.setattr(module, name, 0.2)


@pytest.mark.slow
def test_all_parts(tmp_path: Path) -> None:
    tiny.write_images(tmp_path, 12)
    found = bench("tiny", tiny.RECIPE, HARDWARE, find_source(str(tmp_path)).open("train"), None)
    for step in found.steps:
        low, high = step.quartiles_seconds
        assert low <= step.median_seconds <= high
        assert step.images_per_second == pytest.approx(step.images / step.median_seconds)
        assert step.flops_per_second == pytest.approx(
            step.images_per_second * found.flops_per_image
        )
        ceiling = found.machine.matrix_flops_per_second
        assert step.mfu == pytest.approx(step.flops_per_second / ceiling)
    sizes = [step.images for step in found.steps]
    assert sizes == sorted(set(sizes))
    assert sizes[0] == min(4, tiny.RECIPE.batch_size)
    assert found.loader is not None
    assert found.loader.images % found.best.images == 0
    assert found.together is not None
    assert 0 < found.together.waiting < 1
    assert found.advice


@pytest.mark.slow
def test_one_size_alone() -> None:
    found = bench("tiny", tiny.RECIPE, HARDWARE, None, 3)
    assert [step.images for step in found.steps] == [3]
    assert found.stopped == ""
    assert (found.loader, found.together) == (None, None)
    assert "add --data DATA to measure" in found.bottleneck


@pytest.mark.slow
def test_memory_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STEP_SECONDS", 1e9)
    monkeypatch.setattr(module, "saved_bytes", lambda *rest: 1000)
    monkeypatch.setattr(module, "memory_available", lambda device: 8000)
    found = bench("tiny", replace(tiny.RECIPE, batch_size=64), HARDWARE, None, None)
    assert [step.images for step in found.steps] == [4]
    assert found.stopped == "16 images would not fit in memory"
    with pytest.raises(module.ResourceError, match=r"64 images would not fit.*--micro-batch"):
        bench("tiny", tiny.RECIPE, HARDWARE, None, 64)


def step(images: int, rate: float, mfu: float = 0.6) -> StepSpeed:
    return StepSpeed(
        images=images,
        steps=9,
        median_seconds=images / rate,
        quartiles_seconds=(images / rate, images / rate),
        images_per_second=rate,
        flops_per_second=rate * 1e9,
        mfu=mfu,
        peak_memory=2**30,
    )


def measured(
    device: str = "cpu",
    *,
    steps: tuple[StepSpeed, ...] = (step(32, 1000),),
    loads: float = 40_000,
    workers: int = 1,
    together: float = 990,
    waiting: float = 0.01,
    threads: int = 8,
    precision: str = "bfloat16",
) -> Bench:
    """A measurement with these figures."""
    return Bench(
        recipe="mae-b16",
        image_size="224",
        flops_per_image=10**9,
        machine=Machine(
            device=device,
            precision=precision,
            threads=threads,
            cores=8,
            torch=torch.__version__,
            matrix_flops_per_second=1e13,
            bfloat16_flops_per_second=1e14,
            copy_bytes_per_second=1e12,
        ),
        steps=steps,
        stopped="",
        loader=LoaderSpeed(images_per_second=loads, workers=workers, images=100),
        together=Together(images_per_second=together, waiting=waiting, steps=9),
        bottleneck="",
        advice=(),
    )


def test_waiting_on_a_gpu_asks_for_as_many_workers_as_it_takes() -> None:
    bottleneck, advice = verdict(measured(GPU, loads=400, together=400, waiting=0.6), packed=False)
    assert bottleneck == "loading images: 60% of each step is spent waiting for them"
    assert advice[0].startswith("--workers 3: one process loads 400 images/s here")
    assert "unmask pack" in advice[1]
    assert advice[2].startswith("a larger recipe")


def test_more_workers_than_cores_are_never_asked_for() -> None:
    found = measured(GPU, loads=100, together=100, waiting=0.9)
    assert verdict(found, packed=False)[1][0].startswith("--workers 8:")
    eight = measured(GPU, loads=800, workers=8, together=700, waiting=0.3)
    assert not any("--workers" in line for line in verdict(eight, packed=False)[1])


def test_packed_images_are_not_to_be_packed() -> None:
    found = measured(GPU, loads=400, together=400, waiting=0.6)
    assert not any("unmask pack" in line for line in verdict(found, packed=True)[1])


def test_a_cpu_that_loads_while_it_computes() -> None:
    """Two milliseconds of loading an image beside eight cores for one."""
    found = measured(loads=500, threads=8)
    bottleneck, advice = verdict(found, packed=False)
    assert bottleneck == "computing, on the same cores as loading, which takes 20% of their time"
    assert "unmask pack" in advice[0]
    assert verdict(measured(loads=5000, together=600), packed=False)[0] == "computing"


def test_only_recipes_for_the_same_encoder_are_advised() -> None:
    def advised(recipe: str) -> str:
        return " ".join(verdict(replace(measured(), recipe=recipe), packed=True)[1])

    assert "a recipe with fewer FLOPs: --recipe fast-b16 or fast4-b16 or budget-b16" in advised(
        "mae-b16"
    )
    assert "a recipe with fewer FLOPs: --recipe fast-ti4" in advised("mae-ti4")
    for recipe in ("mae-mini4", "mae-digits", "dino-ti4", "fast-b16", "mine.py:RECIPE"):
        assert "--recipe" not in advised(recipe)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            measured(GPU, precision="float32"),
            "--precision bfloat16: large matrix products are 10.0 times",
        ),
        (
            measured(threads=2),
            "--threads 8, if no other work needs the cores: 2 of them compute now",
        ),
        (measured(steps=(step(32, 500), step(128, 1000))), "--micro-batch 128 or more"),
        (measured(steps=(step(32, 1000, mfu=0.2),)), "80% of the peak speed is lost"),
    ],
)
def test_what_would_help_computing(found: Bench, said: str) -> None:
    bottleneck, advice = verdict(found, packed=True)
    assert bottleneck == "computing"
    assert any(line.startswith(said) for line in advice)
    assert not any(line.startswith(said) for line in verdict(measured(), packed=True)[1])
