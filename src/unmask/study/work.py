"""The runs of a study: each pretrains once, and is scored; what is there already is not made again."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from threading import Event
from typing import Any, Literal, NamedTuple

import torch

from unmask.channels import ChannelStatistics
from unmask.contracts import Encoder, ImageSource, Size
from unmask.data import AnySource
from unmask.errors import DivergedError, ResourceError
from unmask.formats.model import FORMAT, ModelSpec, Weights
from unmask.recipes import Recipe, Transfer
from unmask.runs.evaluate import evaluate
from unmask.runs.features import Features, Tokens, features, patch_tokens
from unmask.runs.folder import RunFolder
from unmask.runs.labelled import Labelled, Part, draw_few
from unmask.runs.pretrain import pretrain
from unmask.runs.run import new_run
from unmask.runs.tuned import Asked, fitted, from_scratch, tune
from unmask.runs.watch import collapse
from unmask.runs.weights import find_weights
from unmask.spec import digest
from unmask.study.claims import claimed
from unmask.study.study import Score, Study, Trial
from unmask.training.hardware import Hardware

_SAVE_EVERY_MINUTES = 2.0
_SEEN = 5000
_PAUSE = 2.0  # seconds between looks at what others are doing

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


@dataclass
class Job:
    """A pretraining with one seed, or drawn weights of the same shape, and all that is asked of it."""

    name: str
    recipe: Recipe
    seed: int
    trained: bool
    folder: Path
    asked: list[Asking]

    def answers(self) -> dict[str, Any]:
        """What is known of it so far, by the keys of questions; or "failed", and "collapsed", and why."""
        try:
            return json.loads((self.folder / "scores.json").read_text())
        except FileNotFoundError:
            return {}

    def add(self, key: str, answer: Any) -> None:
        """Note an answer; a half-written file is never seen."""
        answers = {**self.answers(), key: answer}
        writing = self.folder / ".scores.json"
        try:
            writing.write_text(json.dumps(answers, indent=1) + "\n")
            writing.rename(self.folder / "scores.json")
        except OSError as error:
            raise ResourceError(
                f"{self.folder} cannot be written ({error.strerror}); mend that and give the same command again"
            ) from None

    def left(self) -> list[Asking]:
        """What is not answered yet; nothing where the training failed."""
        answers = self.answers()
        if "failed" in answers:
            return []
        return [asking for asking in self.asked if asking.key not in answers]


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
        "images": setting.labelled.train.fingerprint,
        "tests": setting.labelled.test.fingerprint,
        "statistics": essence(setting.statistics),
        "seed": seed,
    }
    return Job(name, recipe, seed, trained, root / "runs" / digest(told), [])


class Step(NamedTuple):
    """What is being done, or was."""

    job: Job
    doing: Literal["pretraining", "scoring", "failed", "waiting", "done"]
    words: str


def work(every: Sequence[Job], setting: Setting, stop: Event) -> Iterator[Step]:
    """Make all runs that are not made, one after another, leaving those that others have claimed.

    Ends when all are made, here or elsewhere, or when `stop` is set.
    """
    told = False
    while left := [job for job in every if job.left()]:
        if stop.is_set():
            return
        for job in left:
            with claimed(job.folder) as mine:
                if mine:
                    yield from _make(job, setting, stop)
                    told = False
                    break
        else:
            if not told:
                yield Step(left[0], "waiting", "for what another process makes")
            told = True
            stop.wait(_PAUSE)


def _make(job: Job, setting: Setting, stop: Event) -> Iterator[Step]:
    """Pretrain, and answer one question after another."""
    weights = None
    if job.left() and job.trained:
        try:
            yield from _pretrain(job, setting, stop)
        except DivergedError as error:
            job.add("failed", str(error))
            yield Step(job, "failed", str(error))
            return
        if stop.is_set():
            return
        weights = find_weights(job.folder / "pretrained").weights
    judge = Judge(job, weights, setting)
    for asking in job.left():
        yield Step(job, "scoring", asking.score)
        try:
            job.add(asking.key, judge.answer(asking))
        except DivergedError as error:
            job.add(asking.key, {"failed": str(error)})
            yield Step(job, "failed", str(error))
        if stop.is_set():
            return
    yield Step(job, "done", _told(job))


def _told(job: Job) -> str:
    answers = job.answers()
    known = [(asking.score, answers[asking.key]) for asking in job.asked]
    return ", ".join(f"{score} {100 * a['test']:.1f} %" for score, a in known if "test" in a)


def _pretrain(job: Job, setting: Setting, stop: Event) -> Iterator[Step]:
    """Pretrain in the folder `pretrained` of a job, or go on where it stopped."""
    folder, train = RunFolder(job.folder / "pretrained"), setting.labelled.train
    run = new_run(
        f"study: {job.name}",
        job.recipe,
        setting.data,
        train,
        setting.statistics,
        setting.hardware,
        seed=job.seed,
        save_every_minutes=_SAVE_EVERY_MINUTES,
    )
    if not folder.spec.exists():
        folder.create(run)
    with folder.lock():
        start, _ = folder.newest()
        if start is not None and start.info.step >= run.steps:
            return
        yield Step(job, "pretraining", f"{run.steps:,} steps")
        started = time.perf_counter()
        last: list[dict[str, float]] = []
        for progress in pretrain(run, folder, train, run.build(), stop, start):
            last = progress.lines
        if last and not stop.is_set() and (reason := collapse(last[-1])) is not None:
            job.add("collapsed", reason)
        if start is None and not stop.is_set():
            job.add("seconds", round(time.perf_counter() - started, 1))


def model_of(job: Job, setting: Setting) -> ModelSpec:
    """What a job trains, or draws."""
    return ModelSpec(
        format=FORMAT,
        encoder=job.recipe.encoder,
        objective=None,
        image_size=job.recipe.image_size,
        channels=setting.labelled.train.channels,
        statistics=setting.statistics,
        origin="drawn from a seed",
    )


class Judge:
    """Answers what is asked of a job's encoder; what it makes of the images is computed when first wanted."""

    def __init__(self, job: Job, weights: Weights | None, setting: Setting) -> None:
        self.job, self.weights, self.setting = job, weights, setting

    def answer(self, asking: Asking) -> dict[str, float]:
        """Accuracy on the test images, and the seconds that it took."""
        started = time.perf_counter()
        if asking.transfer is None:
            found = {"test": self._probed(asking)}
        else:
            found = self._finetuned(asking.transfer, asking.labels)
        return {**found, "seconds": round(time.perf_counter() - started, 1)}

    @cached_property
    def _features(self) -> list[Features]:
        """Of the images to learn from, and of those to test on."""
        return [features(*about) for about in self._parts()]

    def _tokens(self) -> list[Tokens]:
        """As `_features`; too large to be kept."""
        return [patch_tokens(*about) for about in self._parts()]

    def _parts(
        self,
    ) -> Iterator[tuple[Encoder, ImageSource, Size, ChannelStatistics, torch.device, int]]:
        spec, setting = model_of(self.job, self.setting), self.setting
        encoder = (
            self.weights.build_encoder() if self.weights else spec.build_encoder(self.job.seed)
        )
        device = torch.device(setting.hardware.device)
        encoder.to(device).eval()
        for part in (setting.labelled.train, setting.labelled.test):
            yield (
                encoder, part, spec.image_size, setting.statistics, device, setting.hardware.workers
            )  # fmt: skip

    def _probed(self, asking: Asking) -> float:
        """Test accuracy of a probe: k-NN looks at the mean of the patch tokens, the others as in the paper."""
        train, test = self._tokens() if asking.score == "attentive" else self._features
        names = self.setting.labelled.train.class_names
        some = draw_few(train.labels.numpy(), names, asking.labels, self.job.seed)
        assert asking.score != "finetune"
        *_, score = evaluate(
            train.rows(torch.from_numpy(some)),
            test,
            asking.score,
            len(names),
            seed=self.job.seed,
            device=torch.device(self.setting.hardware.device),
        )
        return score.accuracy

    def _finetuned(self, transfer: Transfer, labels: str) -> dict[str, float]:
        """Accuracy of a fine-tuned classifier on test images, and on (some of) those it learned from."""
        setting = self.setting
        asked = Asked(
            partial(fitted, transfer),
            self.weights,
            setting.data,
            setting.labelled,
            setting.statistics,
            setting.hardware,
        )
        tuned = tune(asked, labels, self.job.seed)
        learned = tuned.labelled.train
        rows = torch.arange(0, len(learned), max(1, len(learned) // _SEEN)).numpy()
        return {
            "test": tuned.accuracy_on(tuned.labelled.test).top1,
            "train": tuned.accuracy_on(Part(learned, rows)).top1,
        }
