"""Trials that predict the codes of a tokenizer, which is trained first, and once for all of them."""

from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from runs import tiny
from study.test_worker import BASE, plan_in, setting_of

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.recipes.tokenizer import TOKENIZER_B16, TOKENIZER_TI4
from unmask.runs.folder import RunFolder
from unmask.study import Study, Trial, Variation
from unmask.study.ablations import STUDIES
from unmask.study.claims import claimed
from unmask.study.cost import StepCost, costs
from unmask.study.methods import Comparison, equalised, tokenized
from unmask.study.plan import Job, Setting, expected_seconds, jobs, noted
from unmask.study.report import collected
from unmask.study.study import PAPER, TINY, tokenizer_of, trainings
from unmask.study.table import csv_text, markdown
from unmask.study.worker import work
from unmask.targets import ScalarTokenizer, TokenizerCodes
from unmask.training.step_cost import Cost

COST = StepCost(100, 2.0, 2.0, 2.0, 0.5, 4, 1)


def coded(trial: Trial, ratio: float = 0.75) -> Trial:
    """Codes of the tests' small tokenizer."""
    told = tokenized(trial)
    assert told.tokenizing is not None
    small = replace(tiny.TOKENIZING, tokenizer=ScalarTokenizer(codes=16, width=8, depth=1))
    masking = replace(trial.recipe.objective.masking, ratio=ratio)  # type: ignore[union-attr]
    target = TokenizerCodes(path="", tokenizer=small.tokenizer)
    return replace(told.objective(target=target, masking=masking), tokenizing=small)


STUDY = Study(
    title="Codes",
    source="a test",
    base="pixels",
    variations=(
        Variation(name="pixels", change=lambda trial: trial),
        Variation(name="codes", change=coded),
        Variation(name="codes, half hidden", change=lambda trial: coded(trial, 0.5)),
    ),
    scores=("knn",),
)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return setting_of(tiny.write_classes(tmp_path_factory.mktemp("tokenized") / "data"))


def jobs_in(root: Path, setting: Setting) -> list[Job]:
    return jobs(plan_in(root, STUDY), setting)


@pytest.mark.slow
def test_one_tokenizer_is_trained_for_all_who_want_it(setting: Setting, tmp_path: Path) -> None:
    every = jobs_in(tmp_path, setting)
    done = [(step.job.name, step.doing) for step in work(every, setting, Event())]
    assert not any(job.left() for job in every)
    assert [name for name, doing in done if doing == "training a tokenizer"] == ["codes"]
    _, codes, half, random = every
    assert codes.codes is not None
    assert half.codes is not None
    assert codes.codes.folder == half.codes.folder
    assert random.codes is None
    assert noted(codes.codes.folder)["seconds"] > 0
    weights = tiny.newest(codes.codes.trained).read("model")
    for job in (codes, half):
        kept = tiny.newest(RunFolder(job.folder / "pretrained")).read("model")
        for name, tensor in weights.items():
            assert kept[f"target.tokenizer.{name}"].equal(tensor)
    assert [step.doing for step in work(every, setting, Event())] == []


@pytest.mark.slow
def test_a_killed_tokenizer_goes_on(setting: Setting, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for _ in work(jobs_in(whole, setting)[1:2], setting, Event()):
        pass
    for _ in range(40):  # stopped at every chance
        every = jobs_in(parts, setting)[1:2]
        if not any(job.left() for job in every):
            break
        stop = Event()
        for _ in work(every, setting, stop):
            stop.set()
    ends = [jobs_in(root, setting)[1] for root in (whole, parts)]
    one, other = (tiny.newest(RunFolder(job.folder / "pretrained")).read("model") for job in ends)
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


def test_another_process_trains_it(setting: Setting, tmp_path: Path) -> None:
    _, codes, *_ = every = jobs_in(tmp_path, setting)
    assert codes.codes is not None
    stop = Event()
    with claimed(codes.codes.folder) as mine:
        assert mine
        for step in work([codes], setting, stop):
            assert (step.doing, step.words) == (
                "waiting",
                "for the tokenizer that another process trains",
            )
            stop.set()
    assert not codes.codes.trained.spec.exists()
    for _ in work(every[1:2], setting, Event()):
        pass
    assert not codes.left()


def test_what_it_costs_is_told(setting: Setting, tmp_path: Path) -> None:
    trials = STUDY.trials(BASE)
    assert set(trainings(trials)) == {*trials, *map(tokenizer_of, ("codes", "codes, half hidden"))}
    kept = tmp_path / "costs.json"
    about: Any = (trainings(trials), setting.statistics, setting.hardware)
    lines: list[str] = []
    measured = costs(*about, batch=4, rounds=2, kept=kept, tell=lines.append)
    assert (
        measured[tokenizer_of("codes")].flops == measured[tokenizer_of("codes, half hidden")].flops
    )
    assert costs(*about, batch=4, rounds=2, kept=kept, tell=lines.append) == measured
    assert lines == []
    found = collected(plan_in(tmp_path, STUDY, costs=measured), setting)
    spent = (
        tiny.TOKENIZING.epochs * len(setting.labelled.train) * measured[tokenizer_of("codes")].flops
    )
    assert [line.tokenizer_flops for line in found.lines] == [0.0, spent, spent]
    assert found.lines[1].flops == spent + found.lines[1].seen * measured["codes"].flops
    assert "include the training of a tokenizer: " in markdown(found)
    assert f"codes,cost: flops of the tokenizer's training,,{spent}" in csv_text(found)


def test_expected_time_counts_it_once(setting: Setting, tmp_path: Path) -> None:
    every = jobs_in(tmp_path, setting)
    tuning = Cost(
        seconds_per_image=0.0,
        seconds_per_micro_batch=0.0,
        seconds_per_update=0.0,
        bytes_per_image=0,
        bytes_fixed=0,
        bytes_process=0,
    )
    names = [*STUDY.trials(BASE), *map(tokenizer_of, ("codes", "codes, half hidden"))]
    training, _ = expected_seconds(every, dict.fromkeys(names, COST), tuning, setting)
    images = len(setting.labelled.train)

    def seconds(recipe: Any) -> float:
        return (
            images
            * recipe.epochs
            * (COST.seconds / COST.batch + COST.update_seconds / recipe.batch_size)
        )

    assert training == pytest.approx(3 * seconds(BASE.recipe) + seconds(tiny.TOKENIZING))


def test_a_measuring_that_was_stopped_goes_on(setting: Setting, tmp_path: Path) -> None:
    recipes = trainings({"codes": coded(BASE)})
    about: Any = (recipes, setting.statistics, setting.hardware)
    kept = tmp_path / "costs.json"
    few = costs(*about, batch=4, rounds=1, kept=kept, tell=print)
    more = costs(*about, batch=4, rounds=3, kept=kept, tell=print)
    for name, cost in few.items():
        assert more[name].least <= cost.seconds <= more[name].most
    assert costs(*about, batch=4, rounds=1, kept=kept, tell=print) == few


@pytest.mark.parametrize(("scale", "recipe"), [(TINY, TOKENIZER_TI4), (PAPER, TOKENIZER_B16)])
def test_the_study_of_targets_has_one_at_every_scale(scale: Any, recipe: Any) -> None:
    trial = STUDIES["target"].trials(scale.base)["tokenizer's codes"]
    assert trial.tokenizing == replace(recipe, image_size=trial.recipe.image_size)
    assert trial.tokenizing is not None
    assert trial.tokenizing.patch_size == trial.recipe.encoder.patch_size
    short = trial.shortened(0.5)
    assert short.tokenizing is not None
    assert short.tokenizing.epochs == recipe.epochs / 2
    large = trial.at_size(Size(64, 64))
    assert large.tokenizing is not None
    assert large.tokenizing.image_size == Size(64, 64)


def test_a_tokenizer_counts_in_what_its_method_may_take() -> None:
    comparison = Comparison(
        methods=("mae", "beit"), encoders=("xs4",), labels=("all",), epochs=30.0, image_size=None
    )
    study = comparison.study()
    trials = study.trials(TINY.base)
    assert trials["beit"].tokenizing is not None
    assert trials["beit"].tokenizing.epochs == 10.0
    cost = StepCost(100, 2.0, 2.0, 2.0, 0.5, 64, 1)
    measured = {
        "mae": cost,
        "beit": cost._replace(flops=110, seconds=2.25),
        "tokenizer of beit": cost._replace(flops=80, seconds=1.0, update_seconds=0.0),
    }
    epochs = {
        equal: equalised(study, trials, measured, equal)["beit"].recipe.epochs
        for equal in ("epochs", "compute", "time")
    }
    assert epochs == {
        "epochs": 30.0,
        "compute": 20.0,  # (30 x 100 - 10 x 80) / 110
        "time": 23.6,  # (30 x 2.5 - 10 x 1) / 2.75
    }
    measured["tokenizer of beit"] = cost._replace(flops=280)
    with pytest.raises(SettingsError, match="beit: its tokenizer alone takes 93 % of what each"):
        equalised(study, trials, measured, "compute")
