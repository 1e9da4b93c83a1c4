"""What a step of every variation costs here: FLOPs, time and memory, measured in turns."""

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from unmask.channels import ChannelStatistics
from unmask.data.cpu_feed import CpuFeed
from unmask.data.loader import example_of
from unmask.data.noise_images import NoiseImages
from unmask.files import write_whole
from unmask.randomness import generator
from unmask.recipes import Recipe, Tokenizing
from unmask.spec import digest, to_json
from unmask.training.flops import flops_per_image
from unmask.training.hardware import Hardware, Precision, autocast, find_device, wait_for
from unmask.training.step_cost import saved_bytes

_LONG = 5.0  # seconds of a pass, from which on a turn is worth a line


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


class Counted(NamedTuple):
    """FLOPs of an image, and the bytes kept for it."""

    flops: int
    bytes_kept: int


class Turn(NamedTuple):
    """The seconds of one pass and one update."""

    both_ways: float
    update: float


Trained = Recipe | Tokenizing


def costs(
    recipes: Mapping[str, Trained],
    channel_statistics: ChannelStatistics,
    hardware: Hardware,
    *,
    batch: int,
    rounds: int,
    kept: Path,
    tell: Callable[[str], None],
) -> dict[str, StepCost]:
    """Of every recipe, on noise; what `kept` holds of the same recipes on the same machine is taken.

    In each round every recipe has its turn, with weights built anew, so that models that would not fit beside one
    another can be compared; a pass that is not counted goes before. Every turn is kept as it ends, so that one
    who stopped goes on, and `tell` hears of those that take long.
    """
    told = {
        "recipes": {name: to_json(recipe) for name, recipe in recipes.items()},
        "machine": [hardware.device, hardware.precision, hardware.threads, torch.__version__],
        "batch": batch,
    }
    measured = Measured.read(kept, digest(told))
    torch.set_num_threads(hardware.threads)
    names = list(recipes)
    order = [
        name
        for number in range(rounds)
        for name in names[number % len(names) :] + names[: number % len(names)]
    ]
    due = Counter[str]()
    for place, name in enumerate(order, start=1):
        due[name] += 1
        if len(measured.turns.get(name, ())) >= due[name]:
            continue
        turned = _Turned(recipes[name], channel_statistics, hardware)
        if name not in measured.counted:
            measured.counted[name] = turned.counted()
        turn = turned.turn(batch)
        measured.turns.setdefault(name, []).append(turn)
        measured.write(kept)
        if turn.both_ways > _LONG:
            tell(f"  {name}: {turn.both_ways:,.1f} s for {batch} images ({place} of {len(order)})")
        del turned  # before the next one is built
    return {
        name: _summed(measured.counted[name], measured.turns[name][:rounds], batch)
        for name in recipes
    }


class Measured(NamedTuple):
    """What is known so far."""

    mark: str
    """Of all that the figures depend on."""
    counted: dict[str, Counted]
    turns: dict[str, list[Turn]]

    @classmethod
    def read(cls, kept: Path, mark: str) -> "Measured":
        """What the file holds of this mark; nothing if it is not there or of another."""
        if kept.exists():
            known = json.loads(kept.read_text())
            if known["mark"] == mark:
                counted = {name: Counted(*of) for name, of in known["counted"].items()}
                turns = {name: [Turn(*turn) for turn in of] for name, of in known["turns"].items()}
                return cls(mark, counted, turns)
        return cls(mark, {}, {})

    def write(self, kept: Path) -> None:
        """All of it, so that a file is never half there."""
        text = json.dumps(self._asdict(), indent=1) + "\n"
        write_whole(kept, lambda path: path.write_text(text))


class _Turned:
    """A module whose turn it is, with weights as drawn."""

    def __init__(self, recipe: Trained, channels: ChannelStatistics, hardware: Hardware) -> None:
        self.recipe, self.channels = recipe, len(channels.mean)
        self.precision: Precision = hardware.precision
        self.device, statistics = find_device(hardware.device), channels.tensors()
        if isinstance(recipe, Tokenizing):
            module = recipe.tokenizer.build(recipe.patch_size, self.channels, statistics)
        else:
            encoder = recipe.encoder.build(recipe.image_size, self.channels, statistics)
            module = recipe.objective.build(encoder)
        self.module = module.to(self.device).train()
        size = recipe.image_size
        feed = CpuFeed(NoiseImages(size, self.channels), recipe.views, size, seed=0)
        self.example = example_of(feed, size, self.device)

    def counted(self) -> Counted:
        """FLOPs of an image, and the bytes kept for it."""
        module, example = self.module, self.example
        return Counted(
            flops_per_image(module, example, self.device, self.precision),
            saved_bytes(module, example, self.device, self.precision),
        )

    def turn(self, batch: int) -> Turn:
        """The seconds of a pass, after one that is not counted, and of an update."""
        images = self.example(batch)
        optimizer = self.recipe.optimizer.build(self.module)
        for group in optimizer.param_groups:
            group["lr"] = 0.0

        def pass_seconds() -> float:
            wait_for(self.device)
            started = time.perf_counter()
            with autocast(self.device, self.precision):
                loss = self.module(images, generator(self.device, "cost"))
            loss.total.backward()
            wait_for(self.device)
            return time.perf_counter() - started

        pass_seconds()
        both_ways = pass_seconds()
        started = time.perf_counter()
        optimizer.step()
        wait_for(self.device)
        return Turn(both_ways, time.perf_counter() - started)


def _summed(counted: Counted, turns: list[Turn], batch: int) -> StepCost:
    times = [turn.both_ways for turn in turns]
    return StepCost(
        flops=counted.flops,
        seconds=statistics.median(times),
        least=min(times),
        most=max(times),
        update_seconds=statistics.median(turn.update for turn in turns),
        batch=batch,
        bytes_kept=counted.bytes_kept,
    )
