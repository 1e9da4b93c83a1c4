"""`unmask evaluate --corrupt`: how much accuracy noise, blur, weather and files cost."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from unmask.annotations import ClassLabels, MultiLabels
from unmask.console.bars import progress_on
from unmask.console.judged import short
from unmask.console.judging import EvaluationRequest, source_for, subject_of
from unmask.console.output import console, loaded, matched, notes, writing
from unmask.console.scores import SHOWN, with_picture, write_json
from unmask.contracts import ImageSource
from unmask.data.corruptions import CORRUPTIONS
from unmask.data.in_order import WHOLE_IMAGE, Unreadable
from unmask.data.labelled import NAMED, open_labelled
from unmask.errors import SettingsError, listed, number_of
from unmask.evaluation.arms import FrozenArm, frozen_arms
from unmask.evaluation.frozen import RANDOM
from unmask.evaluation.robustness import Answering, Look, Robustness, robustness
from unmask.pictures.robustness import robustness_picture
from unmask.runs.finetune import Finetune
from unmask.runs.folder import RunFolder
from unmask.runs.predict import Predictor, load_predictor
from unmask.runs.run import Run
from unmask.tasks.neighbors import knn_votes
from unmask.training.hardware import find_device

_SEED = 0  # the same corrupted pictures in every evaluation, so that scores can be compared


class Corrupted(NamedTuple):
    """The accuracies of models on the same pictures."""

    title: str
    models: dict[str, Robustness]
    control: str | None
    """The model whose errors stand in for AlexNet's; None if there is none."""
    images: int
    classes: int
    unreadable: Unreadable

    def relative(self) -> dict[str, float]:
        """The relative errors of every model but the control."""
        if self.control is None:
            return {}
        control = self.models[self.control]
        return {
            name: one.relative(control) for name, one in self.models.items() if name != self.control
        }


def evaluate_corrupted(
    paths: list[str], request: EvaluationRequest, command: str, path: Path, *, as_json: bool
) -> list[Path]:
    """Score fine-tuned runs, or encoders by k-NN, on corrupted pictures; prints and writes the scores.

    Raises:
        SettingsError: if encoders and fine-tuned runs are mixed, or pictures have several classes or more than 8 bits.
    """
    tuned = [RunFolder(one).made_by("finetune") for one in paths]
    if any(tuned) and not all(tuned):
        raise SettingsError(
            "--corrupt scores fine-tuned runs by their own heads and encoders by k-NN; give only one of the two kinds"
        )
    with progress_on(notes):
        every = [_tuned(paths, request)] if all(tuned) else list(_frozen(paths, request))
    results = [_result(one, command, request.data_name) for one in every]
    result = results[0] if len(results) == 1 else {"encoders": results}
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        for one in every:
            _say(one)
    with writing(path):
        write_json(path, result)
    written = [path]
    for number, one in enumerate(every):
        place = path if len(every) == 1 else path.with_stem(f"{path.stem}-{number + 1}")
        written += with_picture(place, lambda picture, one=one: _draw(one, picture))
    return written


def _frozen(paths: Sequence[str], request: EvaluationRequest) -> Iterator[Corrupted]:
    """Each encoder and its controls, by whitened vectors of the clean training pictures."""
    models = {path: loaded(path, request.device) for path in paths}
    subjects = [subject_of(request, path, model) for path, model in models.items()]
    for subject in subjects:
        spec, test = subject.model.spec, subject.labelled.test
        _check_one_class(test)
        arms = list(frozen_arms(request.question, subject))
        look = Look(WHOLE_IMAGE, spec.image_size, spec.statistics, subject.model.device)
        unreadable: Unreadable = []
        classes = len(test.annotations.names)
        found = robustness(
            [_by_neighbors(arm, classes) for arm in arms], test, look, _SEED, unreadable
        )
        yield Corrupted(
            f"k-NN on {short(request.data_name)}: {subject.path}",
            found,
            RANDOM if RANDOM in found else None,
            len(test) - len(unreadable),
            classes,
            unreadable,
        )


def _by_neighbors(arm: FrozenArm, classes: int) -> Answering:
    train, vectors_of = arm.pairs[-1].train, arm.vectors_of
    assert vectors_of is not None
    known = train.vectors  # pyright: ignore[reportAttributeAccessIssue]

    def scores(images: Tensor) -> Tensor:
        return knn_votes(known, train.labels, vectors_of(images).cpu(), classes)

    return Answering(arm.name, scores)


def _tuned(paths: Sequence[str], request: EvaluationRequest) -> Corrupted:
    """Fine-tuned runs on the same test pictures; the first one from scratch is the control."""
    device = str(find_device(request.device))
    predictors = {path: load_predictor(path, device) for path in paths}
    tests = {path: _test(request, path, one) for path, one in predictors.items()}
    if len({test.fingerprint for test in tests.values()}) > 1:
        raise SettingsError(
            f"these runs have other test pictures of {request.data_name} each, because it has no test folder and they have "
            "different seeds; score them one by one"
        )
    found: dict[str, Robustness] = {}
    unreadable: Unreadable = []
    for path, one in predictors.items():
        recipe = one.tuned.job.recipe
        look = Look(recipe.test_views, recipe.image_size, one.tuned.statistics, one.model.device)
        unreadable = []
        answering = Answering(path, lambda images, tuned=one.tuned: tuned.predict(images))
        test = matched(tests[path], one.model.spec.channels, f"{path} was trained on")
        found |= robustness([answering], test, look, _SEED, unreadable)
    scratch = [path for path, one in predictors.items() if one.tuned.job.init is None]
    test = tests[paths[0]]
    return Corrupted(
        f"{short(request.data_name)}, corrupted",
        found,
        scratch[0] if scratch and len(paths) > 1 else None,
        len(test) - len(unreadable),
        len(test.annotations.names),
        unreadable,
    )


def _test(request: EvaluationRequest, path: str, predictor: Predictor) -> ImageSource:
    """Pictures that a run was not trained on: its test split, the test folder of other data, or all of it.

    Raises:
        SettingsError: if their classes are not those of the run.
    """
    source, run = source_for(request, predictor.model), Run.read(RunFolder(path), Finetune.command)
    if "test" in source.splits() or source == run.data:
        test = open_labelled(source, run.seed, (ClassLabels, MultiLabels)).test
    else:
        test = source.open("train")
    _check_one_class(test)
    if test.annotations.names != predictor.names:
        raise SettingsError(
            f"{path} knows {listed(predictor.names, NAMED)}, and {request.data_name} has "
            f"{listed(test.annotations.names, NAMED)}; give pictures of the same classes"
        )
    return test


def _check_one_class(test: ImageSource) -> None:
    if not isinstance(test.annotations, ClassLabels):
        raise SettingsError(
            f"--corrupt is for pictures with one class each, and those of {test.where} have other annotations"
        )


def _result(one: Corrupted, command: str, data: str) -> dict[str, Any]:
    """All figures, for JSON."""
    relative = one.relative()
    return {
        "command": command,
        "data": data,
        "measure": "top-1",
        "chance": 1 / one.classes,
        "test_images": one.images,
        "left_out": len(one.unreadable),
        "control": one.control,
        "models": [
            {
                "model": name,
                "clean": model.clean,
                "mean": model.mean,
                "relative_errors": relative.get(name),
                "corrupted": {key: list(each) for key, each in model.corrupted.items()},
            }
            for name, model in one.models.items()
        ],
    }


def _say(one: Corrupted) -> None:
    """Print the table of a group of models."""
    console.result(f"{one.title}; {number_of(one.images, 'test picture')}, {one.classes} classes")
    table = Table("top-1, mean of five severities", box=SIMPLE_HEAD, pad_edge=False)
    for name in one.models:
        table.add_column(_shown(name), justify="right")
    group = ""
    for name, corruption in CORRUPTIONS.items():
        if group and corruption.group != group:
            table.add_section()
        group = corruption.group
        table.add_row(name, *(f"{model.of(name):.1%}" for model in one.models.values()))
    table.add_section()
    table.add_row("mean", *(f"{model.mean:.1%}" for model in one.models.values()))
    table.add_row("as they are", *(f"{model.clean:.1%}" for model in one.models.values()))
    relative = one.relative()
    if one.control is not None:
        shares = (f"{relative[name]:.2f}" if name in relative else "1" for name in one.models)
        table.add_row(f"errors / those of {_shown(one.control)}", *shares)
    console.result(table)
    for name, share in list(relative.items())[:1]:
        fewer = f"{1 - share:.0%} fewer" if share < 1 else f"{share - 1:.0%} more"
        console.result(
            f"verdict   {_shown(name)} makes {fewer} errors on corrupted pictures than {_shown(str(one.control))}"
        )
    if one.unreadable:
        name, reason = one.unreadable[0]
        notes.warn(
            f"{number_of(len(one.unreadable), 'unreadable picture')} skipped; the first is {name}: {reason}"
        )


def _shown(name: str) -> str:
    return SHOWN.get(name, short(name))


def _draw(one: Corrupted, path: Path) -> None:
    clean = {_shown(name): model.clean for name, model in one.models.items()}
    corrupted = {_shown(name): model.corrupted for name, model in one.models.items()}
    robustness_picture(clean, corrupted, 1 / one.classes, one.title, path)
