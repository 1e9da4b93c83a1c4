"""The worker of a study: pretrains and scores every run that is not finished yet."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from threading import Event
from typing import Literal, NamedTuple, TypeVar

import torch

from unmask.annotations import is_dense
from unmask.data.draws import draw_few
from unmask.data.few_labels import few
from unmask.data.labelled import Subset
from unmask.encoders.vit import VisionTransformer
from unmask.errors import DivergedError
from unmask.evaluation.dense import dense_rows
from unmask.evaluation.dense_protocols import DENSE_PROTOCOLS
from unmask.evaluation.features import Features, Tokens, features, patch_tokens
from unmask.evaluation.frozen import evaluate
from unmask.evaluation.tuning import TuningSetup, fitted, tune
from unmask.formats.adapt import adapt
from unmask.formats.model import FORMAT, ModelSpec, Weights
from unmask.progress import counted
from unmask.recipes import Transfer
from unmask.runs.collapse import collapse
from unmask.runs.folder import RunFolder
from unmask.runs.pretrain import Pretrain
from unmask.runs.run import AnyJob, Run, new_run
from unmask.runs.target import with_target
from unmask.runs.tokenize import Tokenize
from unmask.runs.training import training
from unmask.runs.weights import find_weights
from unmask.study.claims import claimed, clear_dead
from unmask.study.plan import Codes, Job, Measurement, Setting, note
from unmask.targets import TokenizerCodes
from unmask.traits import Predicting

T = TypeVar("T", Features, Tokens)

_SAVE_EVERY_MINUTES = 2.0
_TRAIN_IMAGES_SCORED = 5000  # about so many
_DENSE_SCORED = 100  # the same of pictures with class maps or objects, which take longer
_PAUSE = 2.0  # seconds between checks of what other processes are doing


class Step(NamedTuple):
    """A progress report."""

    job: Job
    doing: Literal["training a tokenizer", "pretraining", "scoring", "failed", "waiting", "done"]
    words: str


def work(every: Sequence[Job], setting: Setting, stop: Event) -> Iterator[Step]:
    """Do all unfinished runs, one after another, except those that other processes have claimed.

    Ends when all are finished, by this process or others, or when `stop` is set.
    """
    reported = False
    while unfinished := [job for job in every if job.left()]:
        if stop.is_set():
            return
        for job in unfinished:
            with claimed(job.folder) as is_ours:
                if is_ours:
                    yield from _make(job, setting, stop)
                    reported = False
                    break
        else:
            if not reported:
                yield Step(unfinished[0], "waiting", "for another process")
            reported = True
            stop.wait(_PAUSE)
    for job in every:
        clear_dead(job.folder)


def _make(job: Job, setting: Setting, stop: Event) -> Iterator[Step]:
    """Pretrain, then do one measurement after another."""
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
    if job.given:
        weights = _adapted(job, setting)
    evaluator = Evaluator(job, weights, setting)
    for measurement in job.left():
        yield Step(job, "scoring", measurement.score)
        try:
            job.add(measurement.key, evaluator.measure(measurement))
        except DivergedError as error:
            job.add(measurement.key, {"failed": str(error)})
            yield Step(job, "failed", str(error))
        if stop.is_set():
            return
    yield Step(job, "done", _summary(job))


def _adapted(job: Job, setting: Setting) -> Weights:
    """The given weights for the image size and the channels of the study."""
    recipe, weights = job.recipe, find_weights(job.given).weights
    return adapt(weights, recipe.encoder, recipe.image_size, setting.statistics)


def _summary(job: Job) -> str:
    answers = job.answers()
    scores = [(item.score, answers[item.key]) for item in job.measurements]
    return ", ".join(f"{score} {100 * a['test']:.1f} %" for score, a in scores if "test" in a)


def _pretrain(job: Job, setting: Setting, stop: Event) -> Iterator[Step]:
    """Train the job's tokenizer, if it has one, then pretrain or resume in its folder `pretrained`."""
    recipe = job.recipe
    if job.codes is not None:
        yield from _tokenize(job, job.codes, setting, stop)
        if stop.is_set():
            return
        assert isinstance(recipe.objective, Predicting)
        assert isinstance(recipe.objective.target, TokenizerCodes)
        target = replace(recipe.objective.target, path=str(job.codes.trained.root))
        recipe = replace(recipe, objective=with_target(recipe.objective, target))
    run = _run(f"study: {job.name}", Pretrain(recipe=recipe), job.seed, setting)
    folder = RunFolder(job.folder / "pretrained")
    lines, seconds = yield from _train(job, run, folder, setting, stop)
    if lines and not stop.is_set() and (reason := collapse(lines[-1], run.steps)) is not None:
        job.add("collapsed", reason)
    if seconds and not stop.is_set():
        job.add("seconds", seconds)


def _tokenize(job: Job, codes: Codes, setting: Setting, stop: Event) -> Iterator[Step]:
    """Train a job's tokenizer, or wait for the process that trains it."""
    run = _run("study: tokenizer", Tokenize(recipe=codes.recipe), codes.seed, setting)
    reported = False
    while not stop.is_set():
        with claimed(codes.folder) as is_ours:
            if is_ours:
                _, seconds = yield from _train(job, run, codes.trained, setting, stop)
                if seconds and not stop.is_set():
                    note(codes.folder, "seconds", seconds)
                return
        if not reported:
            yield Step(job, "waiting", "for the tokenizer that another process trains")
        reported = True
        stop.wait(_PAUSE)


def _run(name: str, job: AnyJob, seed: int, setting: Setting) -> Run:
    """A run of a job on the training images of a study."""
    return new_run(
        name,
        job,
        setting.data,
        setting.pictures,
        setting.statistics,
        setting.hardware,
        seed=seed,
        save_every_minutes=_SAVE_EVERY_MINUTES,
    )


def _train(
    job: Job, run: Run, folder: RunFolder, setting: Setting, stop: Event
) -> Generator[Step, None, tuple[list[dict[str, float]], float]]:
    """Train in a folder from its newest checkpoint.

    Returns the last lines of the log, and the seconds of the training; 0 seconds if it was resumed or finished before.
    """
    if not folder.spec.exists():
        folder.create(run)
    lines: list[dict[str, float]] = []
    with folder.lock():
        start, _ = folder.newest()
        if start is not None and start.info.step >= run.steps:
            return lines, 0.0
        doing = "training a tokenizer" if isinstance(run.job, Tokenize) else "pretraining"
        yield Step(job, doing, f"{run.steps:,} steps")
        started = time.perf_counter()
        reports = training(run, folder, setting.pictures, run.build(), stop, start)
        left = run.steps - (start.info.step if start else 0)
        for progress in counted(reports, left, job.name):
            lines = progress.lines
    return lines, 0.0 if start else round(time.perf_counter() - started, 1)


class Evaluator:
    """Measures scores of a job's encoder; features are computed once, when they are first needed."""

    def __init__(self, job: Job, weights: Weights | None, setting: Setting) -> None:
        self.job, self.weights, self.setting = job, weights, setting

    def measure(self, measurement: Measurement) -> dict[str, float]:
        """The score on the test images, and the time that it took."""
        started = time.perf_counter()
        if measurement.transfer is None:
            scores = {"test": self._probed(measurement)}
        else:
            scores = self._finetuned(measurement.transfer, measurement.labels)
        return {**scores, "seconds": round(time.perf_counter() - started, 1)}

    @cached_property
    def _features(self) -> list[Features]:
        """Features of the training and of the test images."""
        return self._computed(features)

    @cached_property
    def _encoder(self) -> tuple[ModelSpec, VisionTransformer]:
        """The encoder, pretrained or drawn from the seed, on its device."""
        recipe, setting = self.job.recipe, self.setting
        if self.weights is not None:
            spec, encoder = self.weights.spec, self.weights.build_encoder()
        else:
            spec = ModelSpec(
                format=FORMAT,
                encoder=recipe.encoder,
                objective=None,
                image_size=recipe.image_size,
                channels=setting.labelled.train.channels,
                statistics=setting.statistics,
                origin="drawn from a seed",
            )
            encoder = spec.build_encoder(self.job.seed)
        return spec, encoder.to(self._device).eval()

    @property
    def _device(self) -> torch.device:
        return torch.device(self.setting.hardware.device)

    def _computed(self, compute: Callable[..., T]) -> list[T]:
        """Features or tokens of the training and of the test images."""
        recipe, setting = self.job.recipe, self.setting
        _, encoder = self._encoder
        workers = setting.hardware.workers
        return [
            compute(encoder, part, recipe.image_size, setting.statistics, self._device, workers)
            for part in (setting.labelled.train, setting.labelled.test)
        ]

    def _probed(self, measurement: Measurement) -> float:
        """The test score of a probe; k-NN uses the mean of the patch tokens, the others are as in the paper.

        On class maps, patches are classified.
        """
        assert measurement.score != "finetune"
        annotations = self.setting.labelled.train.annotations
        if is_dense(annotations):
            return self._probed_patches(measurement)
        if measurement.score == "attentive":
            train, test = self._computed(patch_tokens)  # too large to keep
        else:
            train, test = self._features
        rows = draw_few(train.labels.numpy(), annotations.names, measurement.labels, self.job.seed)
        *_, score = evaluate(
            train.rows(torch.from_numpy(rows)),
            test,
            measurement.score,
            annotations,
            seed=self.job.seed,
            device=self._device,
        )
        return score.score.value

    def _probed_patches(self, measurement: Measurement) -> float:
        spec, encoder = self._encoder
        train, test, _ = few(self.setting.labelled, measurement.labels, self.job.seed)
        protocol = DENSE_PROTOCOLS[measurement.score]
        (row,) = dense_rows(
            protocol,
            encoder,
            spec,
            train,
            test,
            seed=self.job.seed,
            controls="none",
            device=self._device,
        )
        return row.score.value

    def _finetuned(self, transfer: Transfer, labels: str) -> dict[str, float]:
        """The score of a fine-tuned module on the test images, and on some of its training images."""
        setting = self.setting
        setup = TuningSetup(
            recipe=partial(fitted, transfer),
            weights=self.weights,
            data=setting.data,
            labelled=setting.labelled,
            statistics=setting.statistics,
            hardware=setting.hardware,
        )
        tuned = tune(setup, labels, self.job.seed)
        train = tuned.labelled.train
        scored = _DENSE_SCORED if is_dense(train.annotations) else _TRAIN_IMAGES_SCORED
        rows = torch.arange(0, len(train), max(1, len(train) // scored)).numpy()
        return {
            "test": tuned.score_on(tuned.labelled.test).value,
            "train": tuned.score_on(Subset(train, rows)).value,
        }
