"""Crops that grow while a run lasts: which size when, exact resume in between, and what a step computes."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import tiny

from unmask.contracts import Batch, Size
from unmask.data.cpu_feed import CpuFeed
from unmask.data.loader import SetAside, batches
from unmask.data.order import samples
from unmask.data.sizes import RisingSize
from unmask.errors import SettingsError
from unmask.masking import PartitionMasking, SquareMasking
from unmask.objectives import MAE
from unmask.randomness import generator
from unmask.recipes import Recipe, find_recipe
from unmask.runs.folder import RunFolder
from unmask.runs.plan import make_plan, trial
from unmask.runs.run import Run
from unmask.spec import from_json, to_json
from unmask.training.logbook import read_log

RECIPE = replace(
    tiny.RECIPE, sizes=RisingSize(first=Size(4, 4), stages=3), batch_size=5, epochs=3.0
)
"""On 12 images: 7 steps, whose first images are numbers 0, 5, 10, 15, 20, 25 and 30: of the epochs below."""

EPOCHS = [0, 0, 0, 1, 1, 2, 2]
SIDES = [4, 4, 4, 6, 6, 8, 8]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp("sizes") / "images")


@pytest.fixture(scope="module")
def whole(images: Path) -> RunFolder:
    """The run in one go; nothing may write to it."""
    return tiny.finished_run(images.parent / "whole", images, recipe=RECIPE)


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("rising-b16", {0: 128, 199: 128, 200: 160, 399: 160, 400: 192, 599: 192, 600: 224, 799: 224}),
        ("rising-ti4", {0: 16, 99: 16, 100: 24, 199: 24, 200: 32, 299: 32}),
        ("mae-b16", {0: 224, 799: 224}),
    ],
)  # fmt: skip
def test_size_of_named_epochs(name: str, sides: dict[int, int]) -> None:
    recipe = find_recipe(name)
    assert {epoch: recipe.size_at(epoch) for epoch in sides} == {
        epoch: (side, side) for epoch, side in sides.items()
    }


def test_shares_that_are_no_whole_epochs() -> None:
    """Five epochs in three stages: they begin at 0, 1.67 and 3.33, and a change waits for an epoch's end."""
    recipe = replace(RECIPE, epochs=5.0)
    assert [recipe.size_at(epoch).width for epoch in range(6)] == [4, 4, 6, 6, 8, 8]


@pytest.mark.parametrize("epochs", [3.0, 3.4, 4.0, 6.5, 100.0])
def test_every_size_has_its_epoch(epochs: float) -> None:
    recipe = replace(RECIPE, epochs=epochs)
    seen = {recipe.size_at(epoch) for epoch in range(math.ceil(epochs))}
    assert seen == {Size(4, 4), Size(6, 6), Size(8, 8)}


def test_a_run_shorter_than_its_sizes_changes_them_within_an_epoch() -> None:
    recipe = replace(RECIPE, epochs=0.6)
    seen = [recipe.size_at(epoch).width for epoch in (0.0, 0.19, 0.21, 0.39, 0.41, 0.6)]
    assert seen == [4, 4, 6, 6, 8, 8]


def test_a_short_run_trains_at_every_size(images: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=2.4)
    sides = [batch.images.shape[-1] for batch in loaded(images, tmp_path, 0, recipe=recipe)][:6]
    assert sides == [4, 4, 6, 6, 8, 8]  # 2.4 epochs of 12 images in batches of 5


def test_squares_must_fill_every_size() -> None:
    recipe = replace(tiny.RECIPE, objective=MAE(masking=SquareMasking(side=2)))
    with pytest.raises(SettingsError, match=r"multiple of 4 pixels.*got 6; .*--sizes.first 8"):
        replace(recipe, sizes=RisingSize(first=Size(6, 6), stages=2))


def test_goes_to_json_and_back(images: Path) -> None:
    run = tiny.make_run(images, recipe=RECIPE)
    text = json.dumps(to_json(run))
    assert json.loads(text)["job"]["recipe"]["sizes"] == {
        "kind": "rising",
        "first": [4, 4],
        "stages": 3,
    }
    assert from_json(Run, json.loads(text)) == run


def test_a_recipe_written_before_there_were_sizes_is_steady() -> None:
    data = to_json(tiny.RECIPE)
    del data["sizes"]
    assert from_json(Recipe, data) == tiny.RECIPE


def loaded(
    images: Path,
    folder: Path,
    workers: int,
    first_step: int = 0,
    rows: list[int] | None = None,
    recipe: Recipe = RECIPE,
) -> list[Batch]:
    source = tiny.make_run(images, recipe=recipe).data.open("train")
    return list(
        batches(
            CpuFeed(source, recipe.views, recipe.size_at, 0),
            batch_size=recipe.batch_size,
            first_step=first_step,
            steps=len(SIDES),
            workers=workers,
            device=torch.device("cpu"),
            set_aside=SetAside(folder / "aside.csv", len(source), 0.05),
            rows=rows,
        )
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_has_the_size_of_its_first_images_epoch(
    images: Path, tmp_path: Path, workers: int
) -> None:
    """The third and the fifth hold images of two epochs; they have one size."""
    found = loaded(images, tmp_path, workers)
    assert [batch.epoch for batch in found] == EPOCHS
    assert [tuple(batch.images.shape[-2:]) for batch in found] == [(side, side) for side in SIDES]


def test_other_processes_have_the_same_size(images: Path, tmp_path: Path) -> None:
    """Though none of the rows of the second may be of the first epoch of the batch."""
    found = loaded(images, tmp_path, 0)
    part = loaded(images, tmp_path, 0, rows=[3, 4])
    for one, other in zip(found, part, strict=True):
        assert torch.equal(one.images[3:], other.images)
        assert one.epoch == other.epoch
    assert samples(2, 5, 12, 0)[3][0] == 1  # the case in question is among them


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_stopping_after_every_step_changes_nothing(
    whole: RunFolder, images: Path, tmp_path: Path, workers: int
) -> None:
    folder = tiny.begin(tmp_path / "run", images, recipe=RECIPE)
    assert Run.read(folder, "pretrain").steps == len(SIDES)
    for _ in SIDES:
        tiny.one_step(folder, workers=workers)
    tiny.assert_same_end(folder, whole)


@pytest.mark.slow
def test_a_step_is_the_objective_on_smaller_crops(images: Path, tmp_path: Path) -> None:
    """Each loss of the log against the objective called by hand, with the weights of before the step."""
    folder = tiny.begin(tmp_path / "run", images, recipe=RECIPE)
    run = Run.read(folder, "pretrain")
    source, objective = run.data.open("train"), run.build()
    by_hand: list[float] = []
    for step, side in enumerate(SIDES):
        if step:
            objective.load_state_dict(tiny.newest(folder).read("model"))
        crops = [
            RECIPE.views(source[index].image, Size(side, side), run.seed, epoch, index)[0]
            for epoch, index in samples(step, 5, 12, run.seed)
        ]
        batch = Batch((torch.stack(crops),), torch.zeros(5), torch.arange(5), 0)
        with torch.no_grad():
            loss = objective(batch, generator(torch.device("cpu"), "step", run.seed, step))
        by_hand.append(float(loss.total))
        tiny.one_step(folder)
    assert [line["loss"] for line in read_log(folder.log)] == pytest.approx(by_hand, rel=1e-6)


def test_a_size_that_cannot_be_masked_is_refused_by_the_plan(images: Path) -> None:
    """Three masks on two patches, before the first step."""
    recipe = replace(
        RECIPE,
        objective=replace(RECIPE.objective, masking=PartitionMasking(masks=4, ratio=0.75)),
        sizes=RisingSize(first=Size(2, 2), stages=2),
    )
    run = tiny.make_run(images, recipe=recipe)
    objective = run.build()
    source = run.data.open("train")
    cost = trial(objective, recipe, source, run.hardware)
    with pytest.raises(SettingsError):
        make_plan(run, recipe, objective, source, cost)
