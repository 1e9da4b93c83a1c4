"""What a step of every variation costs here: FLOPs, time and memory, measured in turns."""

import gc
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from unmask.channels import ChannelStatistics
from unmask.data.crops import sizes_of
from unmask.objectives import AnyPretraining
from unmask.randomness import generator
from unmask.recipes import Recipe
from unmask.spec import digest, to_json
from unmask.training.hardware import Hardware, autocast, find_device, wait_for
from unmask.training.meter import saved_bytes
from unmask.training.speed import flops_per_image, random_batch


class StepCost(NamedTuple):
    """What a step of one variation costs."""

    flops: int
    """Of matrix products, for an image forth and back."""
    seconds: float
    """Median of the forward and backward passes of a batch."""
    least: float
    most: float
    update_seconds: float
    """Median of the optimizer's step."""
    batch: int
    """Images of a pass."""
    bytes_kept: int
    """What a forward pass of an image keeps for the backward pass."""


class Turn(NamedTuple):
    """The seconds of one pass and one update."""

    both_ways: float
    update: float


def costs(
    recipes: Mapping[str, Recipe],
    channel_statistics: ChannelStatistics,
    hardware: Hardware,
    *,
    batch: int,
    rounds: int,
    kept: Path,
) -> dict[str, StepCost]:
    """Of every recipe, on random images; what `kept` holds of the same recipes on the same machine is taken.

    In each round every recipe has its turn, with weights built anew, so that models that would not fit beside one
    another can be compared; a pass that is not counted goes before.
    """
    told = {
        "recipes": {name: to_json(recipe) for name, recipe in recipes.items()},
        "machine": [hardware.device, hardware.precision, hardware.threads, torch.__version__],
        "batch": batch,
        "rounds": rounds,
    }
    mark = digest(told)
    if kept.exists():
        known = json.loads(kept.read_text())
        if known["mark"] == mark:
            return {name: StepCost(**cost) for name, cost in known["costs"].items()}
    torch.set_num_threads(hardware.threads)
    turns: dict[str, list[Turn]] = {name: [] for name in recipes}
    counted: dict[str, tuple[int, int]] = {}
    names = list(recipes)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            objective = _built(recipes[name], channel_statistics, hardware)
            if name not in counted:
                counted[name] = _counted(objective, recipes[name], hardware)
            turns[name].append(_turn(objective, recipes[name], hardware, batch))
            del objective
            gc.collect()
    found = {name: _summed(counted[name], turns[name], batch) for name in recipes}
    told = {"mark": mark, "costs": {name: cost._asdict() for name, cost in found.items()}}
    kept.write_text(json.dumps(told, indent=1) + "\n")
    return found


def _built(recipe: Recipe, channels: ChannelStatistics, hardware: Hardware) -> AnyPretraining:
    encoder = recipe.encoder.build(recipe.image_size, len(channels.mean), channels.tensors())
    return recipe.objective.build(encoder).to(find_device(hardware.device)).train()


def _counted(objective: AnyPretraining, recipe: Recipe, hardware: Hardware) -> tuple[int, int]:
    """FLOPs of an image, and the bytes kept for it."""
    device, channels = find_device(hardware.device), objective.encoder.channels
    more = sizes_of(recipe.views, recipe.image_size)[1:]
    about = (objective, recipe.image_size, channels, device, hardware.precision, more)
    return flops_per_image(*about), saved_bytes(*about)


def _turn(objective: AnyPretraining, recipe: Recipe, hardware: Hardware, batch: int) -> Turn:
    device = find_device(hardware.device)
    size, *more = sizes_of(recipe.views, recipe.image_size)
    images = random_batch(batch, size, objective.encoder.channels, device, more)
    optimizer = recipe.optimizer.build(objective)
    for group in optimizer.param_groups:
        group["lr"] = 0.0

    def pass_seconds() -> float:
        wait_for(device)
        started = time.perf_counter()
        with autocast(device, hardware.precision):
            loss = objective(images, generator(device, "cost"))
        loss.total.backward()
        wait_for(device)
        return time.perf_counter() - started

    pass_seconds()
    both_ways = pass_seconds()
    started = time.perf_counter()
    optimizer.step()
    wait_for(device)
    return Turn(both_ways, time.perf_counter() - started)


def _summed(counted: tuple[int, int], turns: list[Turn], batch: int) -> StepCost:
    times = [turn.both_ways for turn in turns]
    return StepCost(
        flops=counted[0],
        seconds=statistics.median(times),
        least=min(times),
        most=max(times),
        update_seconds=statistics.median(turn.update for turn in turns),
        batch=batch,
        bytes_kept=counted[1],
    )
