"""Fine-tuning with several amounts of labels and several seeds, with training from scratch beside it (`--labels`, `--seeds`).

Each run is an ordinary one in a folder of its own. All take equally many steps: those of the recipe on all training images.
"""

import json
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from unmask.channels import ChannelStatistics
from unmask.console.arguments import Peek, peek
from unmask.console.command_line import absolute, from_anywhere
from unmask.console.finetuning import say_finetuning, say_found
from unmask.console.finetuning_request import finetuning_request
from unmask.console.new_folder import folder_names
from unmask.console.output import console, duration
from unmask.console.screen import Screen
from unmask.console.series_asked import FILE, Asked, Wanted, members_of
from unmask.console.series_table import (
    Figures,
    Member,
    figures_of,
    in_words,
    say_table,
    write_scores,
)
from unmask.console.train import Ready, begin, in_turn, resume
from unmask.console.training_command import Command, Common
from unmask.console.typed import as_typed
from unmask.contracts import ImageSource
from unmask.data.few_labels import FewLabels, classes_of, few
from unmask.data.labelled import Labelled, Subset
from unmask.data.picture_facts import evenly
from unmask.errors import RunError, SettingsError, number_of, typed
from unmask.evaluation.frozen import PRETRAINED, SCRATCH
from unmask.evaluation.tuning import from_scratch
from unmask.files import read_object, write_text
from unmask.recipes import Transfer
from unmask.recipes.by_time import batch_for
from unmask.runs.finetune import Finetune, Tuned, images_for
from unmask.runs.folder import RunFolder, check_empty
from unmask.runs.job import Images, Outcome
from unmask.runs.plan import seconds_of_step
from unmask.runs.run import Run
from unmask.training.distributed import check_batch, here
from unmask.training.schedules import steps_of
from unmask.training.step_cost import Cost
from unmask.traits import Grouping

_TIMED = 4  # test images
_SCORES = "scores.csv"


def carry_out(
    command: Command,
    arguments: list[str],
    ask: Callable[[list[str], Peek], Asked],
) -> int:
    """Make all runs of the series of a command line that are not finished, one after another; returns the exit status."""
    line = peek(arguments)
    labels, seeds = line.flags.get("labels"), line.flags.get("seeds")
    members = partial(
        members_of,
        None if labels is None else [word.strip() for word in labels.split(",")],
        None if seeds is None else int(seeds),
        line.seed,
        line.words[:1] == ["scratch"],
    )
    series = _Series(command, Wanted(members, partial(ask, arguments, line), line.seed, arguments))
    status = series.carried_out()
    if status:
        console.result(f"the whole series goes on with:\n{typed(command.name, *arguments)}")
    return status


def series_folder(command: Command, wanted: Wanted) -> Path:
    """Make all runs of a series that are not finished; returns its folder, without scores if a signal stopped it."""
    series = _Series(command, wanted)
    series.carried_out()
    return series.root


class _Series:
    """A series in the making; only the first process opens images and prints."""

    def __init__(self, command: Command, wanted: Wanted) -> None:
        self.command = replace(command, say_done=self._say_done)
        self.wanted = wanted
        self.scores: dict[Member, Figures] = {}
        self.made = 0
        self.started = 0.0  # of the first run that is planned

    def carried_out(self) -> int:
        """Make the runs one after another, and print the scores; the exit status of the one that was stopped, or 0."""
        for status, _ in in_turn(self.command, self.prepares()):
            if status:
                return status
        self.say_scores()
        return 0

    def prepares(self) -> Iterator[Callable[[], Ready | None]]:
        """What prepares each of the runs, in turn."""
        for member in self.members:
            yield partial(self._prepare, member)

    @cached_property
    def members(self) -> list[Member]:
        """The runs."""
        return self.wanted.members()

    @cached_property
    def asked(self) -> Asked:
        """What is asked for."""
        return self.wanted.ask()

    @cached_property
    def root(self) -> Path:
        """The folder of the series, checked to hold this one or nothing.

        Raises:
            RunError: if it holds anything else.
        """
        asked = self.asked
        names = folder_names(asked.recipe_name, as_typed(asked.data))
        root = Path(asked.out or f"{next(names)}-labels")
        encoder = SCRATCH
        if asked.weights is not None:
            step = asked.weights.step
            encoder = asked.weights.weights.spec.origin + (
                "" if step is None else f", step {step:,}"
            )
        recipe = absolute(asked.recipe_name) if ".py:" in asked.recipe_name else asked.recipe_name
        mark = {
            "encoder": encoder,
            "data": as_typed(asked.data),
            "recipe": recipe,
        }
        saved = read_object(root / FILE)
        if saved and any(saved.get(key) != value for key, value in mark.items()):
            raise RunError(
                f"{root} holds a series of other runs ({saved.get('recipe')}, {saved.get('encoder')}, on "
                f"{saved.get('data')}); choose another folder with --out"
            )
        if not saved:
            check_empty(root)
        self._check()
        root.mkdir(parents=True, exist_ok=True)
        words = self.wanted.arguments
        # a call from Python may go on with a series that was typed, which `--resume` still knows
        arguments = saved.get("arguments") if words is None else from_anywhere(words)
        content = {**mark, "arguments": arguments}
        write_text(root / FILE, json.dumps(content, indent=1) + "\n")
        self._say_runs(root)
        return root

    @cached_property
    def classes(self) -> NDArray[np.int64]:
        """The class or classes of each training image."""
        return classes_of(self.asked.labelled.train)

    @cached_property
    def statistics(self) -> ChannelStatistics:
        """Those of all runs: the encoder's, or measured on all training images."""
        asked = self.asked
        images = images_for(asked.recipe, asked.labelled, asked.seed)
        common = Common(asked.recipe_name, asked.data, images, asked.out, asked.seed, asked.running)
        return finetuning_request(common, asked.recipe, asked.weights).statistics()

    @cached_property
    def images(self) -> dict[str, int]:
        """Number of training images of each amount of labels."""
        amounts = dict.fromkeys(member.amount for member in self.members)
        return {amount: len(self._labelled(amount, self.wanted.seed).train) for amount in amounts}

    def _labelled(self, amount: str, seed: int) -> Labelled:
        labelled = self.asked.labelled
        return labelled if amount == "all" else few(labelled, amount, seed, self.classes)

    def _recipe(self, member: Member) -> Transfer:
        """The recipe with as many steps as on all training images, and a batch that suits the images."""
        recipe = self.asked.recipe
        if member.arm == SCRATCH and self.asked.weights is not None:
            recipe = from_scratch(recipe)
        every, images = len(self.asked.labelled.train), self.images[member.amount]
        if images == every:
            return recipe
        steps, batch = steps_of(recipe.epochs, every, recipe.batch_size), batch_for(recipe, images)
        epochs = steps * batch / images
        warmup = recipe.schedule.warmup_epochs * epochs / recipe.epochs
        schedule = replace(recipe.schedule, warmup_epochs=warmup)
        return replace(recipe, batch_size=batch, epochs=epochs, schedule=schedule)

    def _check(self) -> None:
        """Refuse what would stop one of the runs."""
        for amount, images in self.images.items():
            recipe = self._recipe(Member(amount, self.wanted.seed, SCRATCH))
            check_batch(recipe.batch_size, paired=recipe.pairs)
            task = recipe.task
            if isinstance(task, Grouping) and recipe.batch_size < task.least_images:
                raise SettingsError(
                    f"the amount of labels {amount} is {number_of(images, 'image')}, and batch normalisation needs at least "
                    f"{task.least_images} at a time; use more labels, or task.head.norm:layer"
                )
            for other, count in self.images.items():
                if other != amount and count == images:
                    raise SettingsError(
                        f"the amounts of labels {amount} and {other} are both {number_of(images, 'image')}; leave out one"
                    )

    def _prepare(self, member: Member) -> Ready | None:
        """The run, from its beginning or from its newest checkpoint; None if it is finished."""
        folder, recipe = RunFolder(self.root / member.folder), self._recipe(member)
        labels = FewLabels(amount=member.amount, split_seed=self.asked.seed)
        number = self.members.index(member) + 1
        heading = f"run {number} of {len(self.members)}: {member.words}"
        if not folder.spec.exists():
            console.print(heading)
            return self._begun(member, folder, recipe, labels)
        run = Run.read(folder, self.command.name)
        assert isinstance(run.job, Finetune)
        same = (run.recipe, run.job.labels, run.data, run.seed)
        if same != (recipe, labels, self.asked.data, member.seed):
            raise RunError(
                f"{folder.root} holds a run with other settings; choose another folder with --out"
            )
        if folder.results.exists():
            self.scores[member] = figures_of(folder, run.job.score_types)
            console.print(f"{heading}: finished, {in_words(self.scores[member])}")
            return None
        console.print(heading)
        words = ["--resume", str(folder.root)]
        return resume(self.command, words, peek(words), running=self.asked.running)

    def _begun(
        self, member: Member, folder: RunFolder, recipe: Transfer, labels: FewLabels
    ) -> Ready | None:
        asked = self.asked
        images = images_for(recipe, self._labelled(member.amount, member.seed), member.seed)
        weights = asked.weights if member.arm == PRETRAINED else None
        common = Common(
            asked.recipe_name, asked.data, images, folder.root, member.seed, asked.running
        )
        request = finetuning_request(common, recipe, weights, self.statistics, labels)
        say_plan = partial(self._say_plan, recipe, images)
        request = request._replace(say_images=lambda: None, say_plan=say_plan)
        arguments = self.wanted.arguments
        words = "" if arguments is None else typed(self.command.name, *arguments)
        with _unsaid(console) if self.started else nullcontext():  # the same for every run
            return begin(self.command, request, words)

    def _say_runs(self, root: Path) -> None:
        """Print images and runs, before the first one."""
        asked = self.asked
        say_found(images_for(asked.recipe, asked.labelled, asked.seed))
        amounts = ", ".join(f"{amount} ({count:,})" for amount, count in self.images.items())
        arms = " and ".join(dict.fromkeys(member.arm for member in self.members))
        seeds = len({member.seed for member in self.members})
        console.print(
            f"series    {number_of(len(self.members), 'run')} in {root}: labels {amounts} images, "
            f"{number_of(seeds, 'seed')}, {arms}, all of equally many steps"
        )

    def _say_plan(
        self, recipe: Transfer, images: Images, run: Run, module: nn.Module, cost: Cost
    ) -> None:
        """Print the plan of the first run that is made, and the time of all."""
        if self.started:
            return
        self.started, self.made = time.perf_counter(), 0
        say_finetuning(run, recipe, module, images, cost)
        left = [one for one in self.members if not RunFolder(self.root / one.folder).spec.exists()]
        step_seconds: dict[str, float] = {}
        for amount in {one.amount for one in left}:
            job = replace(run.job, recipe=self._recipe(Member(amount, run.seed, SCRATCH)))
            step_seconds[amount] = seconds_of_step(replace(run, job=job), images.train, cost)
        scoring = _scoring_seconds(run, module, self.asked.labelled.test)
        seconds = sum(run.steps * step_seconds[one.amount] + scoring for one in left)
        same = "call" if self.wanted.arguments is None else "command"
        console.print(
            f"series    {number_of(len(left), 'run')} left to begin, about {duration(seconds)} in all; Ctrl-C stops, and the "
            f"same {same} goes on"
        )

    def _say_done(
        self, run: Run, folder: RunFolder, images: Images, outcome: Outcome | None
    ) -> None:
        if not here().first:
            return  # the first process writes the score, and prints it
        member = next(one for one in self.members if one.folder == folder.root.name)
        self.scores[member] = figures_of(folder, run.job.score_types)
        self.made += 1
        left = len(self.members) - len(self.scores)
        more = f"; {number_of(left, 'run')} left" if left else ""
        if left and self.started:
            seconds = (time.perf_counter() - self.started) / self.made * left
            more += f", about {duration(seconds)}"
        console.print(f"          {in_words(self.scores[member])}{more}")

    def say_scores(self) -> None:
        """Print and write all scores."""
        if not here().first:
            return
        path = self.root / _SCORES
        write_scores(self.scores, self.images, path)
        say_table(self.scores, self.images)
        console.print(f"written: {path}")


@contextmanager
def _unsaid(screen: Screen) -> Generator[None]:
    """Print only results and warnings on a screen."""
    before, screen.terse = screen.terse, True
    try:
        yield
    finally:
        screen.terse = before


def _scoring_seconds(run: Run, module: nn.Module, test: ImageSource) -> float:
    """Seconds to score the test images, from a few of them."""
    assert isinstance(run.job, Finetune)
    rows = np.array(evenly(len(test), _TIMED))
    started = time.perf_counter()
    tuned = Tuned(module, run.job, run.statistics)
    for _ in tuned.outputs(Subset(test, rows), replace(run.hardware, workers=0), []):
        pass
    module.train()
    return (time.perf_counter() - started) / len(rows) * len(test)
