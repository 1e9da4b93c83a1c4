"""Studies on class maps and objects: what is measured, from what is learned, and what is refused."""

from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from reference.dense import write_maps, write_outlined
from rules import members
from runs import tiny, tiny_transfer
from study.test_worker import STUDY, plan_in

from unmask.annotations import DENSE, Unlabelled
from unmask.data.kinds import find_source
from unmask.data.labelled import open_labelled
from unmask.data.mixing import UNMIXED
from unmask.data.noise import NOISELESS
from unmask.data.scaled_views import FittedImage, ScaleJitter
from unmask.data.statistics import measure
from unmask.encoders.vit import BeitBlocks
from unmask.errors import SettingsError
from unmask.recipes import Transfer
from unmask.study import Trial
from unmask.study.dense import base_for, check_built, study_for
from unmask.study.methods import of_steps
from unmask.study.plan import Setting, jobs
from unmask.study.report import collected
from unmask.study.table import csv_text, markdown
from unmask.study.worker import work
from unmask.training.hardware import Hardware

WRITERS = {"segment": write_maps, "detect": write_outlined}
MEASURES = {"segment": "mIoU", "detect": "mask AP"}


def setting_of(task: str, root: Path) -> Setting:
    WRITERS[task](root)
    source = find_source(str(root))
    labelled = open_labelled(source, 0, DENSE)
    hardware = Hardware(device="cpu", precision="float32", workers=0, threads=1, micro_batch=4)
    return Setting(
        data=source, labelled=labelled, statistics=measure(labelled.train), hardware=hardware
    )


def tuned_as(task: str) -> Trial:
    """A tiny trial with a tiny dense fine-tuning."""
    transfer: Transfer = replace(
        tiny_transfer.TRANSFER,
        task=members.MEMBERS["task"][task],
        views=ScaleJitter(),
        test_views=FittedImage(),
        mixing=UNMIXED,
        noise=NOISELESS,
    )
    return Trial(recipe=replace(tiny.RECIPE, batch_size=2, epochs=1.0), transfer=transfer)


@pytest.mark.parametrize("task", WRITERS)
def test_scores_are_those_of_the_annotations(task: str, tmp_path: Path) -> None:
    setting = setting_of(task, tmp_path / "data")
    kind = setting.labelled.train.annotations
    assert setting.pictures.annotations == Unlabelled()
    assert [setting.pictures.name(row) for row in range(5)] == [
        setting.labelled.train.name(row) for row in range(5)
    ]
    study = study_for(STUDY, kind)
    assert study.scores == (("knn", "finetune") if task == "segment" else ("finetune",))
    trials = of_steps(study.trials(tuned_as(task)), setting.labelled, 2)
    plan = plan_in(tmp_path / "study", study, trials=trials)
    every = jobs(plan, setting)
    for _ in work(every, setting, Event()):
        pass
    result = collected(plan, setting)
    assert result.measure == MEASURES[task]
    page = markdown(result)
    assert f"| fine-tuned {MEASURES[task]}, % |" in page.replace("k-NN mIoU, % | ", "")
    assert "paper" not in page
    assert "largest class" not in csv_text(result)
    for line in result.every_line:
        assert not line.failures
        assert all(0 <= values[0] <= 1 for values in line.scores.values())
    assert not any(job.left() for job in jobs(plan, setting))


@pytest.mark.parametrize("task", WRITERS)
def test_the_base_gets_a_dense_fine_tuning(task: str, tmp_path: Path) -> None:
    setting = setting_of(task, tmp_path)
    kind = setting.labelled.train.annotations
    plain = Trial(recipe=tiny.RECIPE, transfer=tiny_transfer.TRANSFER)
    base = base_for(plain, kind, 5)
    assert isinstance(kind, base.transfer.task.needs)
    assert base.transfer.encoder == plain.recipe.encoder
    assert base.transfer.image_size == plain.recipe.image_size


def test_encoders_that_the_task_cannot_have_are_refused_at_once(tmp_path: Path) -> None:
    setting = setting_of("detect", tmp_path)
    trial: Any = tuned_as("detect")
    encoder = replace(trial.transfer.encoder, blocks=BeitBlocks())
    trials = {"mae": trial, "beit": trial.tuned(encoder=encoder)}
    with pytest.raises(SettingsError, match="beit: detection needs an encoder with position embed"):
        check_built(trials, setting)
