"""The runs of a study: each pretrains once, and is scored; what is there already is not made again."""

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from threading import Event
from typing import Literal, NamedTuple

import torch

from unmask.channels import ChannelStatistics
from unmask.contracts import Encoder, ImageSource, Size
from unmask.data.labelled import draw_few
from unmask.data.subset import Subset
from unmask.errors import DivergedError
from unmask.evaluation.features import Features, Tokens, features, patch_tokens
from unmask.evaluation.frozen import evaluate
from unmask.evaluation.tuning import Asked, fitted, tune
from unmask.formats.model import FORMAT, ModelSpec, Weights
from unmask.recipes import Recipe, Transfer
from unmask.runs.collapse import collapse
from unmask.runs.folder import RunFolder
from unmask.runs.pretrain import Pretrain
from unmask.runs.run import AnyJob, Run, new_run
from unmask.runs.target import with_target
from unmask.runs.tokenize import Tokenize
from unmask.runs.training import training
from unmask.runs.weights import find_weights
from unmask.study.claims import claimed
from unmask.study.plan import Asking, Codes, Job, Setting, note
from unmask.targets import TokenizerCodes
from unmask.traits import Predicting

_SAVE_EVERY_MINUTES = 2.0
_SEEN = 5000
_PAUSE = 2.0  # seconds between looks at what others are doing


class Step(NamedTuple):
    """What is being done, or was."""

    job: Job
    doing: Literal["training a tokenizer", "pretraining", "scoring", "failed", "waiting", "done"]
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
    """Pretrain in the folder `pretrained` of a job, or go on where it stopped; the tokenizer it wants goes first."""
    recipe = job.recipe
    if job.codes is not None:
        yield from _tokenize(job, job.codes, setting, stop)
        if stop.is_set():
            return
        recipe = _reading(recipe, job.codes.trained.root)
    run = _run(f"study: {job.name}", Pretrain(recipe=recipe), job.seed, setting)
    folder = RunFolder(job.folder / "pretrained")
    last, seconds = yield from _trained(job, run, folder, setting, stop)
    if last and not stop.is_set() and (reason := collapse(last[-1])) is not None:
        job.add("collapsed", reason)
    if seconds and not stop.is_set():
        job.add("seconds", seconds)


def _tokenize(job: Job, codes: Codes, setting: Setting, stop: Event) -> Iterator[Step]:
    """Train the tokenizer that a job wants, or wait for the process that does."""
    run = _run("study: tokenizer", Tokenize(recipe=codes.recipe), codes.seed, setting)
    told = False
    while not stop.is_set():
        with claimed(codes.folder) as mine:
            if mine:
                _, seconds = yield from _trained(job, run, codes.trained, setting, stop)
                if seconds and not stop.is_set():
                    note(codes.folder, "seconds", seconds)
                return
        if not told:
            yield Step(job, "waiting", "for the tokenizer that another process trains")
        told = True
        stop.wait(_PAUSE)


def _run(name: str, job: AnyJob, seed: int, setting: Setting) -> Run:
    """A run of a job on the training images of a study."""
    return new_run(
        name,
        job,
        setting.data,
        setting.labelled.train,
        setting.statistics,
        setting.hardware,
        seed=seed,
        save_every_minutes=_SAVE_EVERY_MINUTES,
    )


def _trained(
    job: Job, run: Run, folder: RunFolder, setting: Setting, stop: Event
) -> Generator[Step, None, tuple[list[dict[str, float]], float]]:
    """Train in a folder from its newest checkpoint; the last lines of the log, and the seconds if it was all of it."""
    if not folder.spec.exists():
        folder.create(run)
    last: list[dict[str, float]] = []
    with folder.lock():
        start, _ = folder.newest()
        if start is not None and start.info.step >= run.steps:
            return last, 0.0
        doing = "training a tokenizer" if isinstance(run.job, Tokenize) else "pretraining"
        yield Step(job, doing, f"{run.steps:,} steps")
        started = time.perf_counter()
        for progress in training(run, folder, setting.labelled.train, run.build(), stop, start):
            last = progress.lines
    return last, 0.0 if start else round(time.perf_counter() - started, 1)


def _reading(recipe: Recipe, tokenizer: Path) -> Recipe:
    """The recipe, its target the codes of the tokenizer in this folder."""
    objective = recipe.objective
    assert isinstance(objective, Predicting)
    assert isinstance(objective.target, TokenizerCodes)
    target = replace(objective.target, path=str(tokenizer))
    return replace(recipe, objective=with_target(objective, target))


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
        annotations = self.setting.labelled.train.annotations
        some = draw_few(train.labels.numpy(), annotations.names, asking.labels, self.job.seed)
        assert asking.score != "finetune"
        *_, score = evaluate(
            train.rows(torch.from_numpy(some)),
            test,
            asking.score,
            annotations,
            seed=self.job.seed,
            device=torch.device(self.setting.hardware.device),
        )
        return score.score.value

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
            "test": tuned.score_on(tuned.labelled.test).value,
            "train": tuned.score_on(Subset(learned, rows)).value,
        }
