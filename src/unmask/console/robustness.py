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
from unmask.data.labelled import NAMED, only_labelled, open_labelled
from unmask.errors import SettingsError, listed, number_of
from unmask.evaluation.arms import FrozenArm, frozen_arms
from unmask.evaluation.frozen import RANDOM, RAW
from unmask.evaluation.robustness import Answering, Look, Robustness, check_bytes, robustness
from unmask.files import told_apart
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
    split: str
    """Which pictures these are, in words."""
    images: int
    classes: int
    unreadable: Unreadable

    def relative(self) -> dict[str, float | None]:
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
        _check(subject.labelled.test)
    for subject in subjects:
        spec, test = subject.model.spec, subject.labelled.test
        arms = list(frozen_arms(request.question, subject))
        for note in (note for arm in arms for note in arm.notes):
            notes.note(note)
        look = Look(WHOLE_IMAGE, spec.image_size, spec.statistics, subject.model.device)
        unreadable: Unreadable = []
        classes = len(test.annotations.names)
        models_asked = [_by_neighbors(arm, classes) for arm in arms]
        found = robustness(models_asked, test, look, _SEED, unreadable)
        yield Corrupted(
            title=f"k-NN on {short(request.data_name)}: {subject.path}",
            models=found,
            control=RANDOM if RANDOM in found else None,
            split=subject.labelled.split,
            images=len(test) - len(unreadable),
            classes=classes,
            unreadable=[*arms[0].pairs[-1].train.unreadable, *unreadable],
        )


def _by_neighbors(arm: FrozenArm, classes: int) -> Answering:
    train, vectors_of = arm.pairs[-1].train, arm.vectors_of
    assert vectors_of is not None
    known = train.vectors  # pyright: ignore[reportAttributeAccessIssue]

    def scores(images: Tensor) -> Tensor:
        return knn_votes(known, train.labels, vectors_of(images).cpu(), classes)

    return Answering(arm.name, scores)


def _tuned(paths: Sequence[str], request: EvaluationRequest) -> Corrupted:
    """Fine-tuned runs on the same test pictures; the first one from scratch is the control.

    Raises:
        SettingsError: if a run is no classifier of one class a picture, or the runs have other test pictures.
    """
    device = str(find_device(request.device))
    predictors = {path: load_predictor(path, device) for path in paths}
    tests = {path: _test(request, path, one) for path, one in predictors.items()}
    if len({test.fingerprint for test, _ in tests.values()}) > 1:
        raise SettingsError(
            f"these runs have different test pictures of {request.data_name}: it has no test folder, and they were trained on "
            "other parts of it, or on other images; score them one by one"
        )
    looks: dict[str, Look] = {}
    for path, one in predictors.items():
        recipe = one.tuned.job.recipe
        looks[path] = Look(
            recipe.test_views, recipe.image_size, one.tuned.statistics, one.model.device
        )
    if len(set(looks.values())) > 1:
        notes.note(
            "these runs see pictures at different sizes or in different crops, and each gets them corrupted as it sees them"
        )
    found: dict[str, Robustness] = {}
    unreadable: Unreadable = []
    for look in dict.fromkeys(looks.values()):
        alike = [path for path in paths if looks[path] == look]
        asked = [Answering(path, predictors[path].tuned.predict) for path in alike]
        channels = predictors[alike[0]].model.spec.channels
        test = matched(tests[alike[0]][0], channels, f"{alike[0]} was trained on")
        unreadable = []
        found |= robustness(asked, test, look, _SEED, unreadable)
    scratch = [path for path, one in predictors.items() if one.tuned.job.init is None]
    test, split = tests[paths[0]]
    return Corrupted(
        title=f"{short(request.data_name)}, corrupted",
        models={path: found[path] for path in paths},
        control=scratch[0] if scratch and len(paths) > 1 else None,
        split=split,
        images=len(test) - len(unreadable),
        classes=len(test.annotations.names),
        unreadable=unreadable,
    )


def _test(request: EvaluationRequest, path: str, predictor: Predictor) -> tuple[ImageSource, str]:
    """Pictures that a run was not trained on, and which these are: its test split, the test folder of other data, or all.

    Raises:
        SettingsError: if the run is no classifier of one class a picture, or the pictures have other classes.
    """
    if not isinstance(predictor.tuned.job.annotations, ClassLabels):
        raise SettingsError(
            f"--corrupt scores classifiers of one class a picture, and {path} was fine-tuned for another task"
        )
    source, run = source_for(request, predictor.model), Run.read(RunFolder(path), Finetune.command)
    labelled = open_labelled(source, run.seed, (ClassLabels, MultiLabels))
    if (
        "test" in source.splits()
        or run.job.open(source, run.seed).train.fingerprint == run.fingerprint
    ):
        test, split = labelled.test, labelled.split
    else:
        test, split = (
            only_labelled(source.open("train")),
            "all of them, as the run was trained on other pictures",
        )
    _check(test)
    if test.annotations.names != predictor.names:
        raise SettingsError(
            f"{path} knows {listed(predictor.names, NAMED)}, and {request.data_name} has "
            f"{listed(test.annotations.names, NAMED)}; give pictures of the same classes"
        )
    return test, split


def _check(test: ImageSource) -> None:
    """Raises SettingsError unless the pictures have one class each, and 8 bits."""
    if not isinstance(test.annotations, ClassLabels):
        raise SettingsError(
            f"--corrupt is for pictures with one class each, and those of {test.where} have other annotations"
        )
    check_bytes(test)


def _result(one: Corrupted, command: str, data: str) -> dict[str, Any]:
    """All figures, for JSON."""
    relative = one.relative()
    return {
        "command": command,
        "data": data,
        "measure": "top-1",
        "chance": 1 / one.classes,
        "split": one.split,
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
    names = _shown(one)
    console.result(
        f"{one.title}; {number_of(one.images, 'test picture')} ({one.split}), {one.classes} classes"
    )
    table = Table("top-1, mean of five severities", box=SIMPLE_HEAD, pad_edge=False)
    for name in names.values():
        table.add_column(name, justify="right")
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
        shares = ("1" if name == one.control else _share(relative[name]) for name in one.models)
        table.add_row(f"mCE beside {names[one.control]}", *shares)
    console.result(table)
    for name, model in one.models.items():
        if one.control is None or name == one.control or name == RAW:
            continue
        gain = 100 * (model.mean - one.models[one.control].mean)
        console.result(
            f"verdict   {names[name]}: {gain:+.1f} points on corrupted pictures beside {names[one.control]}"
        )
    if one.unreadable:
        name, reason = one.unreadable[0]
        notes.warn(
            f"{number_of(len(one.unreadable), 'unreadable picture')} skipped; the first is {name}: {reason}"
        )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _shown(one: Corrupted) -> dict[str, str]:
    """Short names of the models that tell them apart."""
    names = list(one.models)
    short_names = [SHOWN.get(name, name) for name in names]
    paths = told_apart([Path(name) for name in short_names])
    return dict(zip(names, paths, strict=True))


def _draw(one: Corrupted, path: Path) -> None:
    names = _shown(one)
    clean = {names[name]: model.clean for name, model in one.models.items()}
    corrupted = {names[name]: model.corrupted for name, model in one.models.items()}
    robustness_picture(clean, corrupted, 1 / one.classes, one.title, path)
