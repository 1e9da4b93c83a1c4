"""Fine-tuning: exact resumption, given weights, and accuracies that no setting of the machine changes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rules.members import MEMBERS
from runs import tiny, tiny_transfer
from runs.tiny_transfer import TRANSFER

from unmask.contracts import Size
from unmask.data.labelled import open_labelled
from unmask.data.views import AnyViews
from unmask.errors import RunError
from unmask.recipes import Transfer
from unmask.runs.finetune import Tuned
from unmask.runs.folder import RunFolder
from unmask.runs.model import load
from unmask.runs.run import Run
from unmask.runs.weights import find_weights, save_start
from unmask.spec import from_json, kinds, to_json


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_classes(tmp_path_factory.mktemp("finetune") / "animals")


@pytest.fixture(scope="module")
def pretrained(classes: Path) -> RunFolder:
    return tiny.finished_run(classes.parent / "pretrained", classes)


@pytest.fixture(scope="module")
def whole(classes: Path) -> RunFolder:
    """A run in one go; nothing may write to it."""
    folder = tiny_transfer.begin(classes.parent / "whole", classes)
    assert tiny_transfer.go_on(folder) == [1, 2, 3, 4, 5, 6]
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_stopping_after_every_step_changes_nothing(
    whole: RunFolder, classes: Path, tmp_path: Path, workers: int
) -> None:
    """Weights, their average, optimizer and log, bit for bit."""
    folder = tiny_transfer.begin(tmp_path / "run", classes)
    for step in range(1, 7):
        assert tiny_transfer.one_step(folder, workers=workers) == [step]
    tiny.assert_same_end(folder, whole)
    assert any(name.startswith("average.") for name in tiny.newest(folder).read("model"))


def variations() -> dict[str, Transfer]:
    """The recipe with every kind of each of its parts, and every amount of frozen blocks."""
    recipes = {
        f"{part}-{kind}": replace(TRANSFER, **{part: member})
        for part in ("views", "optimizer")
        for kind, member in MEMBERS[part].items()
        if part != "views" or kind in kinds(AnyViews)  # a classifier looks at one view
    }
    for kind, head in MEMBERS["head"].items():
        recipes[f"head-{kind}"] = replace(TRANSFER, task=replace(TRANSFER.task, head=head))
    for blocks in ("0", "half", "1"):
        task = replace(TRANSFER.task, trained_blocks=blocks)
        recipes[f"trained-{blocks}"] = replace(TRANSFER, task=task)
    return recipes


@pytest.mark.parametrize("name", variations())
def test_every_recipe_resumes_bit_for_bit(classes: Path, tmp_path: Path, name: str) -> None:
    recipe = replace(variations()[name], epochs=1.0)
    whole, halves = (tiny_transfer.begin(tmp_path / n, classes, recipe) for n in ("one", "two"))
    tiny_transfer.go_on(whole)
    tiny_transfer.one_step(halves)
    tiny_transfer.go_on(halves)
    tiny.assert_same_end(halves, whole)
    run = Run.read(whole, "finetune")
    assert from_json(type(run), to_json(run)) == run
    assert run.recipe == recipe


def test_weights_are_those_given_until_the_first_step(
    classes: Path, pretrained: RunFolder, tmp_path: Path
) -> None:
    weights = find_weights(pretrained.root).weights
    folder = tiny_transfer.begin(tmp_path / "run", classes, weights=weights)
    saved = tiny.newest(folder)
    assert saved.info.step == 0
    tiny.assert_same_tensors(saved.read("encoder"), weights.encoder)
    tiny_transfer.go_on(folder)
    moved = tiny.newest(folder).read("encoder")
    fixed = {"mean", "std", "norm.weight", "norm.bias"}  # the pretrained norm is not used
    assert {n for n, value in moved.items() if value.equal(weights.encoder[n])} == fixed


def test_another_resolution_resamples_a_table_that_learns(
    classes: Path, pretrained: RunFolder
) -> None:
    recipe = replace(TRANSFER, image_size=Size(16, 12))
    weights = find_weights(pretrained.root).weights
    run = tiny_transfer.make_transfer(classes, recipe)
    classifier = run.build(weights)
    table = classifier.encoder.pos_embed
    assert table.shape == (1, 1 + 8 * 6, 8)
    assert table.requires_grad
    torch.testing.assert_close(table[:, 0], weights.encoder["pos_embed"][:, 0])
    groups = recipe.optimizer.build(classifier).param_groups
    (group,) = [g for g in groups if any(p is table for p in g["params"])]
    assert group["weight_decay"] == 0


def test_a_frozen_encoder_stays_as_it_was(
    classes: Path, pretrained: RunFolder, tmp_path: Path
) -> None:
    recipe = replace(TRANSFER, task=replace(TRANSFER.task, trained_blocks="0"))
    weights = find_weights(pretrained.root).weights
    folder = tiny_transfer.begin(tmp_path / "run", classes, recipe, weights)
    tiny_transfer.go_on(folder)
    tiny.assert_same_tensors(tiny.newest(folder).read("encoder"), weights.encoder)


def test_the_encoder_that_is_kept_is_the_average(whole: RunFolder) -> None:
    saved = tiny.newest(whole)
    encoder, model = saved.read("encoder"), saved.read("model")
    for name, value in encoder.items():
        assert value.equal(model[f"average.copies.encoder.{name}"])
    assert not encoder["pos_embed"].equal(model["encoder.pos_embed"])
    loaded = load(whole.root)
    assert loaded.encoder.pos_embed.equal(encoder["pos_embed"])
    assert loaded.about == "tiny, step 6"


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (3, 0), (4, 1), (64, 2)])
def test_accuracy_does_not_hang_on_the_batch_or_the_workers(
    classes: Path,
    whole: RunFolder,
    batch_size: int,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """20 images: a last batch that is not full counts once."""
    run = Run.read(whole, "finetune")
    classifier = run.build()
    classifier.load_state_dict(tiny.newest(whole).read("model"))
    source = run.data.open("train")
    hits = 0
    for position in range(len(source)):
        image, label = source[position]
        (view,) = run.recipe.test_views(image, run.recipe.image_size)
        with torch.no_grad():
            hits += int(classifier.eval().predict(view[None]).argmax() == label)
    hardware = replace(run.hardware, workers=workers)
    tuned = Tuned(classifier, run.job, run.statistics)
    monkeypatch.setattr("unmask.runs.finetune._BATCH", batch_size)
    outcome = tuned.score(source, hardware)
    score = outcome.score
    assert (score.top1, score.images, outcome.unreadable) == (hits / 20, 20, [])
    assert score.top5 == 1  # of two classes
    assert score.chance == 0.5


def test_unreadable_test_images_are_counted_and_named(classes: Path, whole: RunFolder) -> None:
    run = Run.read(whole, "finetune")
    labelled = open_labelled(run.data, 0)
    odd = labelled.test.name(1)
    file = classes / odd
    data = file.read_bytes()
    try:
        file.write_bytes(data[:60])
        tuned = Tuned(run.build(), run.job, run.statistics)
        outcome = tuned.score(labelled.test, run.hardware)
    finally:
        file.write_bytes(data)
    assert outcome.result["images"] == 3
    assert outcome.result["left_out"] == 1
    assert [name for name, _ in outcome.unreadable] == [odd]
    assert np.isfinite(outcome.score.top1)


def test_the_two_kinds_of_run_are_told_apart(whole: RunFolder, pretrained: RunFolder) -> None:
    with pytest.raises(RunError, match="is a fine-tuned run, not a pretraining run"):
        Run.read(whole, "pretrain")
    with pytest.raises(RunError, match="is a pretraining run without classes"):
        Run.read(pretrained, "finetune")
    with pytest.raises(RunError, match="unmask finetune --resume"):
        whole.check_free()


def test_weights_of_a_sharded_run_are_saved_without_the_other_processes(
    classes: Path, pretrained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait for the first process meanwhile, so it must not wait for them."""

    def waited(_: object) -> None:
        raise AssertionError("another process was waited for")

    monkeypatch.setattr("unmask.training.checkpoint.everyones", waited)
    weights = find_weights(pretrained.root).weights
    run = tiny_transfer.make_transfer(classes, init="weights", shard=True, processes=2)
    folder, module = RunFolder(tmp_path / "run"), run.build(weights)
    folder.create(run)
    saved = save_start(folder, run, run.data.open("train"), module)
    assert saved.info.step == 0
    tiny.assert_same_tensors(saved.read("model"), module.state_dict())
    assert saved.read("training/optimizer") == {}
