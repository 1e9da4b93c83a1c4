"""Runs that end after a time: the recipe that suits it, and as many epochs as fit."""

import time
from collections.abc import Mapping
from dataclasses import replace

from unmask.channels import ChannelStatistics
from unmask.clock import entered
from unmask.console.hardware import RunFlags, hardware_of
from unmask.console.output import console, duration
from unmask.contracts import ImageSource, Size
from unmask.data import AnySource
from unmask.errors import SettingsError
from unmask.recipes import Recipe, choose_recipe, find_recipe
from unmask.recipes.by_time import LEAST_STEPS, WARMUP, encoders_for, products, recipe_for
from unmask.runs.course import seconds_left
from unmask.runs.plan import seconds_of_step, trial
from unmask.runs.pretrain import Pretrain
from unmask.runs.run import Run, new_run
from unmask.training.step_cost import Cost

_FEWEST_STEPS = 20
_NAME = "by-time"


def minutes_of(flags: Mapping[str, str]) -> float | None:
    """The time that --minutes or --hours gives; None for neither.

    Raises:
        SettingsError: for both, or for --epochs beside it.
    """
    given = [name for name in ("minutes", "hours") if name in flags]
    if not given:
        return None
    if len(given) == 2 or "epochs" in flags:
        other = "--hours" if len(given) == 2 else "--epochs"
        raise SettingsError(f"--{given[0]} and {other} both say how long the run is; leave one out")
    (name,) = given
    return float(flags[name]) * (60 if name == "hours" else 1)


def choose(
    data: AnySource, source: ImageSource, size: Size, minutes: float, running: RunFlags
) -> tuple[str, Recipe]:
    """The name and the recipe that suit the time, this machine and these images; prints what was chosen and why.

    The smallest encoder is timed; the others take longer in proportion to their products.

    Raises:
        SettingsError: if hardly a step of the smallest fits.
    """
    console.print(f"time      {duration(60 * minutes)}; measuring which encoder suits it ...")
    recipes = [recipe_for(encoder, size, len(source)) for encoder in encoders_for(size)]
    usual, _ = choose_recipe(size, len(source))
    whole = find_recipe(usual)
    *every, whole_step = _seconds_of_steps([*recipes, whole], data, source, running)
    _steps_in(minutes, every[0], "even for the smallest encoder", "")
    left = seconds_left(minutes, entered(), time.monotonic())
    steps = [max(0, int(left / seconds)) for seconds in every]
    chosen = max((i for i, count in enumerate(steps) if count >= LEAST_STEPS), default=0)

    def gets(number: int) -> str:
        encoder = recipes[number].encoder
        return f"{encoder.depth} blocks of {encoder.embed_dim} get about {steps[number]:,} steps"

    larger = f", and {gets(chosen + 1)}" if chosen + 1 < len(recipes) else ""
    whole_time = whole_step * whole.epochs * len(source) / whole.batch_size
    console.print(
        f"recipe    {gets(chosen)}{larger};\n"
        f"          the largest encoder is taken that gets {LEAST_STEPS:,} steps, or else the smallest\n"
        f"          batches of {recipes[chosen].batch_size}, since a short run lacks steps rather than images\n"
        f"          a run of the recipe {usual} would take {duration(whole_time)} (--recipe {usual} without --minutes)\n"
        "          --recipe NAME with --minutes keeps that recipe's settings, for as many epochs as fit"
    )
    return _NAME, recipes[chosen]


def _seconds_of_steps(
    recipes: list[Recipe], data: AnySource, source: ImageSource, running: RunFlags
) -> list[float]:
    """Expected seconds of a step of each recipe; the first is measured."""
    first, count = recipes[0], source.channels
    hardware = hardware_of(
        running.machine,
        in_memory=source.in_memory,
        batch_size=first.batch_size,
        decode=running.decode,
    )
    ones, zeros = (1.0,) * count, (0.0,) * count
    any_numbers = ChannelStatistics(
        mean=zeros, std=ones, low=zeros, high=ones, values=source.values, source="only for timing"
    )
    runs = [
        new_run(_NAME, Pretrain(recipe=each), data, source, any_numbers, hardware)
        for each in recipes
    ]
    cost = trial(runs[0].build(), first, source, hardware)
    factors = [products(each) / products(first) for each in recipes]
    return [
        seconds_of_step(run, source, _times(cost, factor))
        for run, factor in zip(runs, factors, strict=True)
    ]


def _times(cost: Cost, factor: float) -> Cost:
    return cost._replace(
        seconds_per_image=cost.seconds_per_image * factor,
        seconds_per_micro_batch=cost.seconds_per_micro_batch * factor,
        seconds_per_update=cost.seconds_per_update * factor,
    )


def fitted(run: Run, step_seconds: float) -> Run:
    """The run with as many epochs as fit in its time, and with its warm-up in proportion.

    Raises:
        SettingsError: if hardly a step fits.
    """
    assert run.minutes is not None
    recipe = run.recipe
    epochs = (
        _steps_in(run.minutes, step_seconds, "for this recipe", ", or a smaller --recipe")
        * recipe.batch_size
        / run.images
    )
    share = min(WARMUP, recipe.schedule.warmup_epochs / recipe.epochs) or WARMUP
    schedule = replace(recipe.schedule, warmup_epochs=share * epochs)
    return replace(
        run, job=replace(run.job, recipe=replace(recipe, epochs=epochs, schedule=schedule))
    )


def _steps_in(minutes: float, step_seconds: float, what: str, other: str) -> int:
    """How many steps fit in what is left of the time; `what` it is too short for, and the `other` remedy, for the error.

    Raises:
        SettingsError: if hardly a step fits.
    """
    now = time.monotonic()
    steps = int(seconds_left(minutes, entered(), now) / step_seconds)
    if steps < _FEWEST_STEPS:
        passed = now - entered()
        enough = (passed + 2 * _FEWEST_STEPS * step_seconds + 5) / 60
        raise SettingsError(
            f"{duration(60 * minutes)} are too short {what}: {duration(passed)} have passed before the first "
            f"step, and a step takes {step_seconds:.2g} s; give it at least --minutes {enough:.1f}{other}"
        )
    return steps
