"""The runs of a study: pretrainings and tokenizers, each in a folder named by a hash of its settings."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from unmask.channels import ChannelStatistics
from unmask.data import AnySource
from unmask.data.labelled import Labelled
from unmask.errors import ResourceError
from unmask.evaluation.tuning import from_scratch
from unmask.files import write_whole
from unmask.recipes import Recipe, Tokenizing, Transfer
from unmask.runs.folder import RunFolder
from unmask.spec import digest
from unmask.study.study import Score, Study, Trial
from unmask.training.hardware import Hardware

RANDOM = "random initialisation"


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
    try:
        return json.loads((folder / "scores.json").read_text())
    except FileNotFoundError:
        return {}


def note(folder: Path, key: str, value: Any) -> None:
    """Add a result to those of a folder, atomically."""
    try:
        text = json.dumps({**noted(folder), key: value}, indent=1) + "\n"
        write_whole(folder / "scores.json", lambda path: path.write_text(text))
    except OSError as error:
        raise ResourceError(
            f"{folder} cannot be written ({error.strerror}); make it writable and run the same command again"
        ) from None


def essence(value: Any) -> Any:
    """A spec as JSON values, without fields that have their default.

    So a new field with a default does not change the hashes of existing runs.
    """
    if is_dataclass(value):
        changed = {
            field.name: essence(getattr(value, field.name))
            for field in fields(value)
            if getattr(value, field.name) != field.default
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
            pretrained = trial.start == "pretrained"
            transfer = trial.transfer if pretrained else from_scratch(trial.transfer)
        results.append(Measurement(score, transfer, trial.labels))
    return results


def jobs(
    study: Study, trials: dict[str, Trial], seeds: Sequence[int], setting: Setting, root: Path
) -> list[Job]:
    """All runs of a study, first with the first seed; equal pretrainings are merged."""
    by_folder: dict[str, Job] = {}
    for seed in seeds:
        for name, trial in trials.items():
            job = job_of(name, trial, seed, setting, root)
            _add(by_folder, job, measurements(study, trial))
        drawn = replace(trials[study.base], start="drawn")
        _add(by_folder, job_of(RANDOM, drawn, seed, setting, root), measurements(study, drawn))
    return list(by_folder.values())


def _add(by_folder: dict[str, Job], job: Job, new: list[Measurement]) -> None:
    """Add measurements to a job, or to an existing one with the same folder."""
    job = by_folder.setdefault(job.folder.name, job)
    job.measurements += [item for item in new if item not in job.measurements]


def job_of(name: str, trial: Trial, seed: int, setting: Setting, root: Path) -> Job:
    """The run of a trial with one seed, without measurements; its folder is named by the hash of its settings."""
    recipe, trained = trial.recipe, trial.start == "pretrained"
    inputs = {
        "recipe": essence(recipe) if trained else None,
        "encoder": essence(recipe.encoder),
        "image_size": essence(recipe.image_size),
        **_origin(setting, seed),
    }
    codes = None
    if trained and trial.tokenizing is not None:
        codes = codes_of(trial.tokenizing, seed, setting, root)
        inputs["codes"] = codes.folder.name
    return Job(name, recipe, seed, trained, root / "runs" / digest(inputs), [], codes)


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
