"""Fine-tuning: train a task's module on annotated images and score it on test images."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unmask.annotations import DENSE, AnyAnnotations, ClassMaps, dense_words, is_dense
from unmask.channels import ChannelStatistics, Statistics
from unmask.contracts import Batch, ImageSource
from unmask.data import AnySource
from unmask.data.draws import held_out_rows
from unmask.data.few_labels import FewLabels, few
from unmask.data.in_order import Ordered, Unreadable, in_order
from unmask.data.labelled import Labelled, Subset, check_kind, open_labelled
from unmask.errors import SettingsError
from unmask.formats.adapt import adapt
from unmask.formats.model import FORMAT, ModelSpec, Weights
from unmask.measures import Scored
from unmask.progress import counted
from unmask.randomness import seeded
from unmask.recipes import Transfer
from unmask.runs.examples import Example, chosen_for_examples
from unmask.runs.job import Change, Images, Outcome, Setting
from unmask.runs.mistakes import Mistake, mistakes_of, pictures_of, surest
from unmask.runs.results import results_of
from unmask.spec import kind_of
from unmask.tasks import AnyTask, annotations_of_tasks, task_for
from unmask.training.distributed import everyones, here
from unmask.training.hardware import Hardware, autocast
from unmask.traits import CountsConfusions, Locating

_BATCH = 128  # images scored at a time
_DENSE_BATCH = 4  # whole pictures in which something is located at a time


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Train an encoder, or part of it, for a task."""

    command: ClassVar[str] = "finetune"
    """The command that creates such runs."""

    recipe: Transfer
    """Settings that change the result."""

    annotations: AnyAnnotations
    """The kind of annotations, with the class names in the order of the outputs."""

    init: str | None
    """Description of the initial weights; null if from scratch."""

    labels: FewLabels | None = None
    """Which of the training images are learned from, in a series with few labels; null for all."""

    @property
    def score_types(self) -> tuple[type[Scored], ...]:
        """Those of the task."""
        return self.recipe.task.score_types

    def knows(self, images: Images) -> bool:
        """Whether these images have the same classes as when the run started."""
        return images.train.annotations == self.annotations

    def open(self, data: AnySource, seed: int) -> Images:
        """Open annotated images for training, for choosing thresholds and for testing.

        Raises:
            DataError: if the task needs other annotations.
        """
        if self.labels is None:
            labelled = open_annotated(data, seed)
        else:
            labelled = open_annotated(data, self.labels.split_seed)
            labelled = few(labelled, self.labels.amount, seed)
        return images_for(self.recipe, labelled, seed)

    def model(self, run: Setting) -> ModelSpec:
        """Shape and origin of the encoder."""
        start = f"from ({self.init})" if self.init else "from scratch"
        return ModelSpec(
            format=FORMAT,
            encoder=self.recipe.encoder,
            objective=None,
            image_size=self.recipe.image_size,
            channels=run.channels,
            statistics=run.statistics,
            origin=f"fine-tuned by unmask {run.unmask_version}, recipe {run.recipe_name}, {start}",
        )

    def build(self, run: Setting, weights: Weights | None = None) -> nn.Module:
        """The task's module with `weights`, resampled to the recipe's image size, or with random weights."""
        encoder = (
            self.model(run).build_encoder(run.seed)
            if weights is None
            else adapt(
                weights, self.recipe.encoder, self.recipe.image_size, run.statistics
            ).build_encoder()
        )
        with seeded("head", run.seed):
            return self.recipe.task.build(encoder, self.annotations)

    def fit(self, run: Setting, source: ImageSource, module: nn.Module) -> None:
        """Nothing to fit."""

    def change(self, run: Setting) -> Change:
        """Mixup, cutmix, erasing and noise."""
        mean, std = run.statistics.tensors()
        device = torch.device(run.hardware.device)
        return partial(self._changed, run, Statistics(mean.to(device), std.to(device)))

    def _changed(self, run: Setting, statistics: Statistics, batch: Batch, step: int) -> Batch:
        """The batch of a step with mixing and noise, drawn from (seed, step)."""
        recipe, key = self.recipe, (run.seed, step)
        batch = recipe.mixing(batch, len(self.annotations.names), statistics, *key)
        return recipe.noise(batch, recipe.encoder.patch_size, statistics, step / run.steps, *key)

    def watch(self, run: Setting, source: ImageSource, module: nn.Module) -> None:
        """No check: the score at the end measures the module."""
        return

    def score(self, run: Setting, module: nn.Module, images: Images) -> Outcome:
        """The task's score on the test images, with thresholds chosen on held-out training images."""
        test, recipe = images.test, self.recipe
        assert test is not None
        tuned = Tuned(module, self, run.statistics)
        thresholds = None
        if images.held_out is not None:
            thresholds = tuned.thresholds(images.held_out, run.hardware)
        outcome, mistakes = tuned.scored(test, run.hardware, thresholds)
        if isinstance(module, Locating):
            return outcome._replace(examples=tuned.examples(test, run.hardware))
        pictures = pictures_of(
            mistakes,
            test,
            self.annotations.names,
            recipe.test_views,
            recipe.image_size,
            run.statistics,
        )
        return outcome._replace(pictures=pictures)


def open_annotated(data: AnySource, seed: int) -> Labelled:
    """Images with annotations that some task learns from, for training and for testing.

    Raises:
        DataError: if there are too few images, or no such annotations.
    """
    return open_labelled(data, seed, annotations_of_tasks())


def images_for(recipe: Transfer, labelled: Labelled, seed: int) -> Images:
    """The images for a recipe: its task says whether some are held out for choosing thresholds.

    Raises:
        SettingsError: if the task does not learn from these annotations.
        ResourceError: if a package that its score needs is missing.
    """
    train, test, split = labelled
    check_kind(train, (recipe.task.needs,))
    recipe.task.scoring(train.annotations)  # a missing package is noticed here, not after training
    if recipe.task.holds_out == 0:
        return Images(train, test, split=split)
    held_out = held_out_rows(train.labels(), recipe.task.holds_out, seed)
    rest, held = (Subset(train, np.flatnonzero(chosen)) for chosen in (~held_out, held_out))
    return Images(rest, test, held if len(held) else None, split)


def for_annotations(recipe: Transfer, annotations: AnyAnnotations) -> Transfer:
    """The recipe with the task for these annotations.

    Raises:
        SettingsError: if the recipe is for whole images and the annotations are dense, or the reverse.
    """
    if is_dense(annotations) != issubclass(recipe.task.needs, DENSE) or (
        is_dense(annotations) and not isinstance(annotations, recipe.task.needs)
    ):
        have = dense_words(annotations) if is_dense(annotations) else "classes of whole images"
        raise SettingsError(
            f"this recipe is for {kind_of(AnyTask, recipe.task)}, and the images come with {have}; leave out --recipe to "
            "get one that fits"
        )
    return replace(recipe, task=task_for(recipe.task, annotations))


def method_for(annotations: AnyAnnotations, locates: bool) -> str:
    """The method of a loaded model that predicts such annotations; `locates`: where in an image something is."""
    if not locates:
        return "predict"
    return "segment" if isinstance(annotations, ClassMaps) else "detect"


class Tuned(NamedTuple):
    """A fine-tuned module with what it needs to process images."""

    module: nn.Module
    job: Finetune
    statistics: ChannelStatistics

    def score(
        self,
        source: ImageSource,
        hardware: Hardware,
        thresholds: tuple[float, ...] | None = None,
    ) -> Outcome:
        """Score every image of a source once; see `scored`."""
        return self.scored(source, hardware, thresholds)[0]

    def scored(
        self,
        source: ImageSource,
        hardware: Hardware,
        thresholds: tuple[float, ...] | None = None,
    ) -> tuple[Outcome, list[Mistake]]:
        """Score every image of a source once, and find the surest mistakes of a task with one class per image.

        With several processes, each scores its share of the images, and all get the same score; a sharded
        module must be passed as a whole.
        """
        started = time.perf_counter()
        unreadable: Unreadable = []
        scoring = self.job.recipe.task.scoring(self.job.annotations, thresholds)
        processes, share = here(), source
        if processes.count > 1:  # every n-th image, from the rank of this process
            share = Subset(source, np.arange(processes.rank, len(source), processes.count))
        batches = self.outputs(share, hardware, unreadable) if len(share) else ()
        mistakes: list[Mistake] = []
        for outputs, truth, positions in batches:
            scoring.add(outputs, truth)
            if isinstance(share, Subset) and share is not source:
                positions = share.rows[positions].tolist()
            mistakes = surest([*mistakes, *mistakes_of(outputs, truth, positions)])
        merged = scoring.merged(everyones(scoring))
        score = merged.result()
        mistakes = surest(one for several in everyones(mistakes) for one in several)
        unreadable = [failure for failures in everyones(unreadable) for failure in failures]
        rate = round(score.images / (time.perf_counter() - started), 2)
        confusion = merged.confusion.numpy() if isinstance(merged, CountsConfusions) else None
        result = results_of(score, len(unreadable), rate)
        outcome = Outcome(result, score, unreadable, confusion=confusion)
        return outcome, mistakes

    def examples(self, source: ImageSource, hardware: Hardware) -> tuple[Example, ...]:
        """Some images beside what is known of them and what the module locates in them."""
        chosen, found = chosen_for_examples(source), list[Example]()
        for outputs, truth, positions in self.outputs(chosen, hardware, []):
            for located, known, position in zip(outputs, truth, positions, strict=True):
                image = self.statistics.in_units(chosen[position].image)
                picture = self.statistics.stretched(image)
                found.append(Example(picture, known, located, chosen.name(position)))
        return tuple(found)

    @property
    def method(self) -> str:
        """The method of a loaded model that predicts with this module."""
        return method_for(self.job.annotations, isinstance(self.module, Locating))

    def thresholds(self, source: ImageSource, hardware: Hardware) -> tuple[float, ...] | None:
        """The thresholds that the task chooses on these images; all processes compute the same ones."""
        batches = [(outputs, truth) for outputs, truth, _ in self.outputs(source, hardware, [])]
        outputs: Any = torch.cat([each for each, _ in batches])
        truth = torch.cat([each for _, each in batches])
        return self.job.recipe.task.thresholds(outputs, truth)

    @torch.inference_mode()
    def predict(self, images: Tensor) -> Tensor:
        """The module's outputs for images [b c h w] on its device, float32 on the CPU."""
        return self.module.predict(images).float().cpu()  # pyright: ignore[reportCallIssue]

    @torch.inference_mode()
    def locate(self, images: Tensor, batch: Ordered) -> tuple[Any, ...]:
        """What the module locates in the images of a batch, which are on its device."""
        assert isinstance(self.module, Locating)
        return self.module.locate(images, batch.sizes, batch.wholes)

    def outputs(
        self, source: ImageSource, hardware: Hardware, unreadable: Unreadable
    ) -> Iterator[tuple[Any, Any, list[int]]]:
        """(outputs of the module, annotations, positions) of a source's readable images, in order.

        Outputs of dense tasks are those of `Locating.locate`, and annotations are then those of the pictures themselves.
        """
        device, recipe = torch.device(hardware.device), self.job.recipe
        self.module.to(device).eval()
        dense = isinstance(self.module, Locating)
        stream = in_order(
            source,
            recipe.test_views,
            recipe.image_size,
            self.statistics,
            unreadable,
            batch_size=_DENSE_BATCH if dense else _BATCH,
            workers=hardware.workers,
            as_found=dense,
        )
        for batch in counted(
            stream, len(source), "scoring images", lambda batch: len(batch.positions)
        ):
            images = batch.images.to(device)
            with autocast(device, hardware.precision):
                outputs = self.locate(images, batch) if dense else self.predict(images)
            yield outputs, batch.annotations, batch.positions
