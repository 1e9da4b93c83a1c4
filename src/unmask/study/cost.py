"""FLOPs, time and memory of a step of each variation, measured in interleaved rounds."""

import json
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from unmask.channels import ChannelStatistics
from unmask.data.cpu_feed import CpuFeed
from unmask.data.in_memory import noise_images
from unmask.data.loader import example_of
from unmask.errors import DataError
from unmask.files import read_json, write_text
from unmask.progress import counted
from unmask.randomness import generator
from unmask.recipes import Recipe, Tokenizing
from unmask.spec import digest, to_json
from unmask.training.hardware import Hardware, Precision, autocast, find_device, seconds_of
from unmask.training.step_cost import flops_per_image
from unmask.training.step_memory import saved_bytes

_LONG = 5.0  # seconds of a pass that is reported, so that the console does not seem to hang


class StepCost(NamedTuple):
    """The cost of a step of one variation."""

    flops: int
    """FLOPs of matrix products per image, forward and backward."""
    seconds: float
    """Median time of the forward and backward passes of a batch."""
    least: float
    most: float
    update_seconds: float
    """Median time of the optimizer's step."""
    batch: int
    """Images per pass."""
    bytes_kept: int
    """Bytes per image that a forward pass keeps for the backward pass."""


class Turn(NamedTuple):
    """Seconds of one forward and backward pass, and of one update."""

    forward_backward: float
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
    """The cost of each recipe, on noise images.

    In each round every recipe has one turn. Its model is built for the turn, so that models that do not fit in memory
    together can be compared, and its first pass is not counted. Every turn is saved in `kept`, so that an interrupted
    measurement of the same recipes on the same machine continues. `tell` gets a line for each turn that takes long.
    """
    inputs = {
        "recipes": {name: to_json(recipe) for name, recipe in recipes.items()},
        "machine": [hardware.device, hardware.precision, hardware.threads, torch.__version__],
        "batch": batch,
    }
    measured = Measured.read(kept, digest(inputs))
    torch.set_num_threads(hardware.threads)
    names = list(recipes)
    order = [  # every round begins with another recipe
        (turn, name)
        for turn in range(rounds)
        for name in names[turn % len(names) :] + names[: turn % len(names)]
    ]
    turns = counted(order, len(order), "measuring the cost of steps")
    for number, (turn, name) in enumerate(turns, start=1):
        if len(measured.turns.get(name, ())) > turn:
            continue
        subject = _Subject(recipes[name], channel_statistics, hardware)
        if name not in measured.counted:
            measured.counted[name] = subject.counted()
        seconds = subject.turn(batch)
        measured.turns.setdefault(name, []).append(seconds)
        measured.write(kept)
        if seconds.forward_backward > _LONG:
            tell(
                f"  {name}: {seconds.forward_backward:,.1f} s for {batch} images ({number} of {len(order)})"
            )
        del subject  # frees its memory before the next one is built
    return {name: measured.summary(name, rounds, batch) for name in recipes}


class Measured(NamedTuple):
    """All measurements so far."""

    mark: str
    """Hash of everything that they depend on."""
    counted: dict[str, tuple[int, int]]
    """FLOPs per image, and bytes kept per image."""
    turns: dict[str, list[Turn]]

    @classmethod
    def read(cls, kept: Path, mark: str) -> "Measured":
        """The measurements in a file; empty if it does not exist, is damaged or has another mark."""
        try:
            saved = read_json(kept)
            if saved["mark"] != mark:
                return cls(mark, {}, {})
            counted = {name: (flops, kept) for name, (flops, kept) in saved["counted"].items()}
            turns = {name: [Turn(*row) for row in rows] for name, rows in saved["turns"].items()}
        except (OSError, DataError, AttributeError, KeyError, TypeError, ValueError):
            return cls(mark, {}, {})
        return cls(mark, counted, turns)

    def write(self, kept: Path) -> None:
        """Write all measurements to a file."""
        write_text(kept, json.dumps(self._asdict(), indent=1) + "\n")

    def summary(self, name: str, rounds: int, batch: int) -> StepCost:
        """The cost of a step over the first rounds."""
        turns, (flops, bytes_kept) = self.turns[name][:rounds], self.counted[name]
        times = [turn.forward_backward for turn in turns]
        return StepCost(
            flops=flops,
            seconds=statistics.median(times),
            least=min(times),
            most=max(times),
            update_seconds=statistics.median(turn.update for turn in turns),
            batch=batch,
            bytes_kept=bytes_kept,
        )


class _Subject:
    """A module to measure, with its initial weights."""

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
        feed = CpuFeed(noise_images(size, self.channels), recipe.views, size, seed=0)
        self.example = example_of(feed, size, self.device)

    def counted(self) -> tuple[int, int]:
        """FLOPs and kept bytes per image."""
        flops = flops_per_image(self.module, self.example, self.device, self.precision)
        return flops, saved_bytes(self.module, self.example, self.device, self.precision)

    def turn(self, batch: int) -> Turn:
        """Time a pass, after one for warming up, and an update with learning rate 0."""
        images = self.example(batch)
        optimizer = self.recipe.optimizer.build(self.module)
        for group in optimizer.param_groups:
            group["lr"] = 0.0

        def forward_backward() -> None:
            with autocast(self.device, self.precision):
                loss = self.module(images, generator(self.device, "cost"))
            loss.total.backward()

        seconds_of(forward_backward, self.device)
        return Turn(
            forward_backward=seconds_of(forward_backward, self.device),
            update=seconds_of(optimizer.step, self.device),
        )
