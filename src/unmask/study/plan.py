"""What a study has to make: pretrainings and tokenizers, each in a folder named after all that makes it."""

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
    """The images and the machine of a study."""

    data: AnySource
    """Where the images are."""

    labelled: Labelled
    """Those to learn from and those to test on."""

    statistics: ChannelStatistics
    """Of the former."""

    hardware: Hardware
    """What must not change the result."""


class Asking(NamedTuple):
    """One thing to be measured of a pretrained encoder."""

    score: Score
    transfer: Transfer | None
    """Where it is fine-tuned."""
    labels: str

    @property
    def key(self) -> str:
        """Equal for equal questions."""
        return f"{self.score}-{digest([self.labels, essence(self.transfer)])}"


class Codes(NamedTuple):
    """A tokenizer to be trained, for those who predict its codes."""

    recipe: Tokenizing
    seed: int
    folder: Path

    @property
    def trained(self) -> RunFolder:
        """Where it is."""
        return RunFolder(self.folder / "tokenizer")


@dataclass
class Job:
    """A pretraining with one seed, or drawn weights of the same shape, and all that is asked of it."""

    name: str
    recipe: Recipe
    seed: int
    trained: bool
    folder: Path
    asked: list[Asking]
    codes: Codes | None = None
    """The tokenizer that must be there first."""

    def answers(self) -> dict[str, Any]:
        """What is known of it so far, by the keys of questions; or "failed", and "collapsed", and why."""
        return noted(self.folder)

    def add(self, key: str, answer: Any) -> None:
        """Note an answer."""
        note(self.folder, key, answer)

    def left(self) -> list[Asking]:
        """What is not answered yet; nothing where the training failed."""
        answers = self.answers()
        if "failed" in answers:
            return []
        return [asking for asking in self.asked if asking.key not in answers]


def noted(folder: Path) -> dict[str, Any]:
    """What is noted of the training in a folder."""
    try:
        return json.loads((folder / "scores.json").read_text())
    except FileNotFoundError:
        return {}


def note(folder: Path, key: str, value: Any) -> None:
    """Note something beside what is noted; a half-written file is never seen."""
    try:
        text = json.dumps({**noted(folder), key: value}, indent=1) + "\n"
        write_whole(folder / "scores.json", lambda path: path.write_text(text))
    except OSError as error:
        raise ResourceError(
            f"{folder} cannot be written ({error.strerror}); mend that and give the same command again"
        ) from None


def essence(value: Any) -> Any:
    """A spec as JSON values without the fields that have their defaults: a new field leaves old runs known."""
    if is_dataclass(value):
        told = {
            field.name: essence(getattr(value, field.name))
            for field in fields(value)
            if getattr(value, field.name) != field.default
        }
        return {"kind": type(value).__name__, **told}
    if isinstance(value, tuple):
        return [essence(one) for one in value]
    return value


def questions(study: Study, trial: Trial) -> list[Asking]:
    """What a study asks of a trial; drawn weights are fine-tuned as one trains from scratch."""
    found: list[Asking] = []
    for score in study.scores:
        transfer = None
        if score == "finetune":
            pretrained = trial.start == "pretrained"
            transfer = trial.transfer if pretrained else from_scratch(trial.transfer)
        found.append(Asking(score, transfer, trial.labels))
    return found


def jobs(
    study: Study, trials: dict[str, Trial], seeds: Sequence[int], setting: Setting, root: Path
) -> list[Job]:
    """Every run of a study, the first seed of all variations first; equal pretrainings are one."""
    found: dict[str, Job] = {}
    for seed in seeds:
        for name, trial in trials.items():
            _ask(found, job_of(name, trial, seed, setting, root), questions(study, trial))
        drawn = replace(trials[study.base], start="drawn")
        _ask(found, job_of(RANDOM, drawn, seed, setting, root), questions(study, drawn))
    return list(found.values())


def _ask(jobs: dict[str, Job], job: Job, asked: list[Asking]) -> None:
    """Add questions to a job, or to the one of the same folder."""
    known = jobs.setdefault(job.folder.name, job)
    known.asked += [asking for asking in asked if asking not in known.asked]


def job_of(name: str, trial: Trial, seed: int, setting: Setting, root: Path) -> Job:
    """The run of a trial with one seed, by the hash of all that makes it; nothing asked yet."""
    recipe, trained = trial.recipe, trial.start == "pretrained"
    told = {
        "recipe": essence(recipe) if trained else None,
        "encoder": essence(recipe.encoder),
        "image_size": essence(recipe.image_size),
        **_origin(setting, seed),
    }
    codes = None
    if trained and trial.tokenizing is not None:
        codes = codes_of(trial.tokenizing, seed, setting, root)
        told["codes"] = codes.folder.name
    return Job(name, recipe, seed, trained, root / "runs" / digest(told), [], codes)


def codes_of(tokenizing: Tokenizing, seed: int, setting: Setting, root: Path) -> Codes:
    """The tokenizer of a recipe with one seed, in a folder of its own: runs that predict its codes share it."""
    told = {"tokenizing": essence(tokenizing), **_origin(setting, seed)}
    return Codes(recipe=tokenizing, seed=seed, folder=root / "runs" / digest(told))


def _origin(setting: Setting, seed: int) -> dict[str, Any]:
    """What makes a training beside its recipe."""
    return {
        "images": setting.labelled.train.fingerprint,
        "tests": setting.labelled.test.fingerprint,
        "statistics": essence(setting.statistics),
        "seed": seed,
    }
