"""The runs of a study: pretrainings and tokenizers, each in a folder named by a hash of its settings.

Also the time that they are expected to take, and the factor that shortens them to fit a budget.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from unmask.channels import ChannelStatistics
from unmask.contracts import ImageSource
from unmask.data import AnySource
from unmask.data.annotated import undescribed
from unmask.data.labelled import Labelled
from unmask.data.loader import example_of
from unmask.errors import DataError, ResourceError, SettingsError
from unmask.evaluation.store import hash_of_tensors
from unmask.evaluation.tuning import from_scratch
from unmask.files import read_json, write_text
from unmask.recipes import Recipe, Tokenizing, Transfer
from unmask.runs.feeding import feed_for
from unmask.runs.folder import RunFolder
from unmask.runs.weights import find_weights
from unmask.spec import EARLIER_DEFAULT, digest
from unmask.study.cost import StepCost
from unmask.study.study import Score, Study, Trial, tokenizer_of
from unmask.training.hardware import Hardware, find_device, memory_available
from unmask.training.step_cost import Cost, measure_cost

RANDOM = "random initialisation"
_FORWARD = 1 / 3  # time of a forward pass relative to a forward and backward pass
_LEAST = 0.01  # share of the epochs


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The images and the hardware of a study."""

    data: AnySource
    """The source of the images."""

    labelled: Labelled
    """Training and test images."""

    statistics: ChannelStatistics
    """Channel statistics of the training images."""

    hardware: Hardware
    """Hardware settings; they do not change results."""

    @property
    def pictures(self) -> ImageSource:
        """The training images for pretraining, without dense annotations."""
        return undescribed(self.labelled.train)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study that is ready to be carried out."""

    study: Study
    """The question."""

    name: str
    """Name of its files."""

    trials: dict[str, Trial]
    """The variations."""

    costs: Mapping[str, StepCost]
    """Cost of a step of each variation."""

    seeds: Sequence[int]
    """Seeds of the runs of each variation."""

    root: Path
    """The folder of tables and runs."""

    words: tuple[str, ...]
    """Sentences that describe the study, for the page."""


class Measurement(NamedTuple):
    """One score to measure for an encoder."""

    score: Score
    transfer: Transfer | None
    """The fine-tuning recipe; None for frozen features."""
    labels: str

    @property
    def key(self) -> str:
        """A key that is the same for equal measurements."""
        return f"{self.score}-{digest([self.labels, essence(self.transfer)])}"


class Codes(NamedTuple):
    """A tokenizer to train for objectives that predict its codes."""

    recipe: Tokenizing
    seed: int
    folder: Path

    @property
    def trained(self) -> RunFolder:
        """The run folder of the tokenizer."""
        return RunFolder(self.folder / "tokenizer")


@dataclass
class Job:
    """A pretraining with one seed, or random weights of the same shape, with all measurements of it."""

    name: str
    recipe: Recipe
    seed: int
    trained: bool
    folder: Path
    measurements: list[Measurement]
    codes: Codes | None = None
    """The tokenizer that must be trained first."""
    given: str = ""
    """The run or weights to score, if there are any."""

    def answers(self) -> dict[str, Any]:
        """The results so far by key of measurement; also "failed" and "collapsed", with the reason."""
        return noted(self.folder)

    def add(self, key: str, answer: Any) -> None:
        """Save a result."""
        note(self.folder, key, answer)

    def left(self) -> list[Measurement]:
        """The remaining measurements; none if the training failed."""
        answers = self.answers()
        if "failed" in answers:
            return []
        return [measurement for measurement in self.measurements if measurement.key not in answers]


def noted(folder: Path) -> dict[str, Any]:
    """The saved results of the training in a folder."""
    path = folder / "scores.json"
    try:
        saved = read_json(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    if not isinstance(saved, dict):
        raise DataError(
            f"{path} does not hold the results of a run; remove it to measure them again"
        )
    return saved


def note(folder: Path, key: str, value: Any) -> None:
    """Add a result to those of a folder, atomically."""
    try:
        text = json.dumps({**noted(folder), key: value}, indent=1) + "\n"
        write_text(folder / "scores.json", text)
    except OSError as error:
        raise ResourceError(
            f"{folder} cannot be written ({error.strerror}); make it writable and run the same command again"
        ) from None


def essence(value: Any) -> Any:
    """A spec as JSON values, without fields that have their default, or the first default if it has changed.

    So neither a new field nor a new default gives settings the hash of other settings.
    """
    if is_dataclass(value):
        changed = {
            field.name: essence(getattr(value, field.name))
            for field in fields(value)
            if getattr(value, field.name) != field.metadata.get(EARLIER_DEFAULT, field.default)
        }
        return {"kind": type(value).__name__, **changed}
    if isinstance(value, tuple):
        return [essence(item) for item in value]
    return value


def measurements(study: Study, trial: Trial) -> list[Measurement]:
    """All measurements of a trial; random weights are fine-tuned with the recipe for training from scratch."""
    results: list[Measurement] = []
    for score in study.scores:
        transfer = None
        if score == "finetune":
            drawn = trial.start == "drawn"
            transfer = from_scratch(trial.transfer) if drawn else trial.transfer
        results.append(Measurement(score, transfer, trial.labels))
    return results


def jobs(plan: Plan, setting: Setting) -> list[Job]:
    """All runs of a study, first with the first seed; equal pretrainings are merged."""
    study, by_folder = plan.study, dict[str, Job]()
    drawn = replace(plan.trials[study.base], start="drawn")
    for seed in plan.seeds:
        for name, trial in [*plan.trials.items(), (RANDOM, drawn)]:
            job = job_of(name, trial, seed, setting, plan.root)
            job = by_folder.setdefault(job.folder.name, job)
            for item in measurements(study, trial):
                if item not in job.measurements:
                    job.measurements.append(item)
    return list(by_folder.values())


def job_of(name: str, trial: Trial, seed: int, setting: Setting, root: Path) -> Job:
    """The run of a trial with one seed, without measurements; its folder is named by the hash of its settings."""
    recipe, trained = trial.recipe, trial.start == "pretrained"
    inputs = {
        "recipe": essence(recipe) if trained else None,
        "encoder": essence(recipe.encoder),
        "image_size": essence(recipe.image_size),
        **_origin(setting, seed),
    }
    if trial.start == "given":
        inputs["given"] = _mark_of(trial.weights)
    codes = None
    if trained and trial.tokenizing is not None:
        codes = codes_of(trial.tokenizing, seed, setting, root)
        inputs["codes"] = codes.folder.name
    folder = root / "runs" / digest(inputs)
    return Job(name, recipe, seed, trained, folder, [], codes, trial.weights)


@cache
def _mark_of(weights: str) -> str:
    """A hash of the encoder's tensors in a run or a file."""
    return hash_of_tensors(find_weights(weights).weights.encoder)


def codes_of(tokenizing: Tokenizing, seed: int, setting: Setting, root: Path) -> Codes:
    """The tokenizer of a recipe with one seed, in its own folder, so that several runs can share it."""
    inputs = {"tokenizing": essence(tokenizing), **_origin(setting, seed)}
    return Codes(recipe=tokenizing, seed=seed, folder=root / "runs" / digest(inputs))


def _origin(setting: Setting, seed: int) -> dict[str, Any]:
    """Everything except the recipe that determines a training."""
    return {
        "images": setting.labelled.train.fingerprint,
        "tests": setting.labelled.test.fingerprint,
        "statistics": essence(setting.statistics),
        "seed": seed,
    }


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
        room=memory_available(device),
    )


def fitting_factor(budget: float, training: float, evaluation: float, file: Path) -> float:
    """The factor on the epochs of all trainings that fits the budget, in seconds.

    If `file` has a factor for the same budget, it is used. So a resumed study continues with the same runs, even if the
    machine is faster or slower now.

    Raises:
        SettingsError: if less than a hundredth of the epochs would be left.
    """
    if file.exists():
        with suppress(DataError, KeyError, TypeError):  # a damaged file is written again
            saved = read_json(file)
            if saved["seconds"] == budget:
                return float(saved["epochs"])
    factor = min(1.0, (budget - evaluation) / training) if training else 1.0
    if factor < _LEAST:
        raise SettingsError(
            f"these runs take about {training + evaluation:,.0f} s, and a budget of {budget:,.0f} s leaves less than "
            "a hundredth of their epochs; use a larger --budget, or fewer runs with --only and --seeds"
        )
    factor = float(f"{factor:.2g}")
    write_text(file, json.dumps({"seconds": budget, "epochs": factor}) + "\n")
    return factor
