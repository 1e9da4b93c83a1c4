"""What a study costs: FLOPs, time and memory of a step of each variation, and the time of all its runs.

Steps are measured in interleaved rounds; their times give the factor that shortens the runs to fit a budget.
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from unmask.channels import ChannelStatistics
from unmask.data.cpu_feed import CpuFeed
from unmask.data.loader import example_of
from unmask.data.noise_images import NoiseImages
from unmask.errors import SettingsError
from unmask.files import write_whole
from unmask.randomness import generator
from unmask.recipes import Recipe, Tokenizing, Transfer
from unmask.runs.feeding import feed_for
from unmask.spec import digest, to_json
from unmask.study.plan import Job, Setting
from unmask.study.study import tokenizer_of
from unmask.training.flops import flops_per_image
from unmask.training.hardware import Hardware, Precision, autocast, find_device, seconds_of
from unmask.training.step_cost import Cost, measure_cost, saved_bytes

_LONG = 5.0  # seconds of a pass that is reported, so that the console does not seem to hang
_FORWARD = 1 / 3  # time of a forward pass relative to a forward and backward pass
_LEAST = 0.01  # share of the epochs


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
    for number, (turn, name) in enumerate(order, start=1):
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
        """The measurements in a file; empty if it does not exist or has another mark."""
        saved = json.loads(kept.read_text()) if kept.exists() else {}
        if saved.get("mark") != mark:
            return cls(mark, {}, {})
        counted = {name: (flops, kept) for name, (flops, kept) in saved["counted"].items()}
        turns = {name: [Turn(*row) for row in rows] for name, rows in saved["turns"].items()}
        return cls(mark, counted, turns)

    def write(self, kept: Path) -> None:
        """Write all measurements to a file."""
        text = json.dumps(self._asdict(), indent=1) + "\n"
        write_whole(kept, lambda path: path.write_text(text))

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
        feed = CpuFeed(NoiseImages(size, self.channels), recipe.views, size, seed=0)
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


def expected_seconds(
    every: Sequence[Job], costs: Mapping[str, StepCost], tuning: Cost, setting: Setting
) -> tuple[float, float]:
    """Seconds of the remaining trainings, which a budget can shorten, and of the evaluations, which it cannot.

    `costs` has the pretrainings by name, `tuning` is from `tuning_cost`. Loading is not included.
    """
    images, tests = len(setting.labelled.train), len(setting.labelled.test)
    training = evaluation = 0.0
    tokenizers: dict[Path, float] = {}  # several runs may share one
    for job in every:
        remaining = job.left()
        if remaining and job.trained and not (job.folder / "pretrained" / "spec.json").exists():
            training += _training_seconds(costs[job.name], job.recipe, images)
        codes = job.codes
        if remaining and codes is not None and not codes.trained.spec.exists():
            tokenizers[codes.folder] = _training_seconds(
                costs[tokenizer_of(job.name)], codes.recipe, images
            )
        for measurement in remaining:
            transfer = measurement.transfer
            if transfer is None:
                forward = (images + tests) * _FORWARD * tuning.seconds_per_image
                evaluation += forward / len(remaining)
                continue
            share = 1.0 if measurement.labels == "all" else _share(measurement.labels, images)
            seen = images * share * transfer.epochs
            training += seen * tuning.seconds_per_image
            training += seen / transfer.batch_size * tuning.seconds_per_update
            evaluation += tests * _FORWARD * tuning.seconds_per_image
    return training + sum(tokenizers.values()), evaluation


def _training_seconds(cost: StepCost, recipe: Recipe | Tokenizing, images: int) -> float:
    """Seconds of a training without loading."""
    seen = images * recipe.epochs
    return seen * cost.seconds / cost.batch + seen / recipe.batch_size * cost.update_seconds


def _share(amount: str, images: int) -> float:
    return int(amount[:-1]) / 100 if amount.endswith("%") else int(amount) / images


def tuning_cost(transfer: Transfer, setting: Setting) -> Cost:
    """The measured cost of a step of fine-tuning."""
    labelled, hardware = setting.labelled, setting.hardware
    encoder = transfer.encoder.build(
        transfer.image_size, labelled.train.channels, setting.statistics.tensors()
    )
    classifier = transfer.task.build(encoder, labelled.train.annotations)
    device = find_device(hardware.device)
    feed = feed_for(labelled.train, transfer.views, transfer.image_size, 0, hardware)
    return measure_cost(
        classifier.to(device).train(),
        transfer.optimizer.build(classifier),
        example=example_of(feed, transfer.image_size, device),
        largest=transfer.batch_size,
        device=device,
        precision=hardware.precision,
    )


def fitting_factor(budget: float, training: float, evaluation: float, file: Path) -> float:
    """The factor on the epochs of all trainings that fits the budget, in seconds.

    If `file` has a factor for the same budget, it is used. So a resumed study continues with the same runs, even if the
    machine is faster or slower now.

    Raises:
        SettingsError: if less than a hundredth of the epochs would be left.
    """
    if file.exists():
        saved = json.loads(file.read_text())
        if saved["seconds"] == budget:
            return saved["epochs"]
    factor = min(1.0, (budget - evaluation) / training) if training else 1.0
    if factor < _LEAST:
        raise SettingsError(
            f"these runs take about {training + evaluation:,.0f} s, and a budget of {budget:,.0f} s leaves less than "
            "a hundredth of their epochs; use a larger --budget, or fewer runs with --only and --seeds"
        )
    factor = float(f"{factor:.2g}")
    file.write_text(json.dumps({"seconds": budget, "epochs": factor}) + "\n")
    return factor
