"""What is seen of an embedding in training: where it is looked at, what is said, and that nothing else changes."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.problems import random
from runs import tiny
from torch import nn

from unmask.console.pretraining import watch_embedding
from unmask.contracts import Size
from unmask.data.multi_views import MultiCrop
from unmask.encoders import ViT
from unmask.evaluation.features import features
from unmask.objectives import DINO
from unmask.runs.collapse import collapse, image_count, in_words, look_steps, watched
from unmask.runs.run import Run
from unmask.runs.training import Progress
from unmask.tasks.neighbors import effective_rank
from unmask.training.logbook import read_log
from unmask.training.optimizers import AdamW
from unmask.training.schedules import WarmupCosine

CLASSES = {"knn", "knn_random", "knn_chance"}
FIELDS = {"effective_rank", "possible_rank", "rank_random", "looked_at", *CLASSES}
DISTILLING = replace(
    tiny.RECIPE,
    encoder=ViT(patch_size=2, embed_dim=32, depth=1, num_heads=2),
    objective=DINO(
        prototypes=16, hidden_dim=32, bottleneck_dim=8, drop_path=0.0, teacher_momentum=0.9,
        frozen_epochs=0, temperature_epochs=0, temperature=0.1, center_momentum=1.0,
    ),
    views=MultiCrop(small_count=2, small_size=Size(4, 4)),
    optimizer=AdamW(weight_decay=0.0),
    schedule=WarmupCosine(base_lr=0.3, warmup_epochs=0.1),
    batch_size=64,
    epochs=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_classes(tmp_path_factory.mktemp("watch") / "images")


def seen(run: Run, module: nn.Module) -> dict[str, float]:
    return run.job.watch(run, run.data.open("train"), module).look()


@pytest.mark.slow
def test_lines_are_those_of_a_run_that_never_stopped(classes: Path, tmp_path: Path) -> None:
    recipe = replace(tiny.RECIPE, epochs=5.0)
    whole = tiny.finished_run(tmp_path / "whole", classes, recipe=recipe)
    parts = tiny.begin(tmp_path / "parts", classes, recipe=recipe)
    for _ in range(14):  # before, at and after a look
        tiny.one_step(parts)
    tiny.finish(parts)
    tiny.assert_same_end(parts, whole)
    lines = read_log(whole.log)
    looks = [line["step"] for line in lines if line.keys() >= FIELDS]
    assert looks == [13, 25]  # few images are shown
    assert all(not FIELDS & line.keys() for line in lines if line["step"] not in looks)
    for before in ("knn_random", "rank_random"):
        assert len({line[before] for line in lines if "knn" in line}) == 1


@pytest.mark.parametrize(
    ("epochs", "steps"),
    [(0.2, {1}), (5.0, {13, 25}), (500.0, {834, 1667, 2500}), (1280.0, set(range(640, 6401, 640)))],
)
def test_looks_are_few_in_short_runs(classes: Path, epochs: float, steps: set[int]) -> None:
    run = tiny.make_run(classes, recipe=replace(tiny.RECIPE, epochs=epochs))
    assert look_steps(run, run.recipe.image_size) == steps


def test_looks_at_what_evaluation_looks_at(classes: Path) -> None:
    run = tiny.make_run(classes)
    module, source = run.build(), run.data.open("train")
    with torch.no_grad():
        module.encoder.blocks[0].mlp.fc2.bias.copy_(torch.randn(8, generator=random(0)))
    device = torch.device("cpu")
    found = features(module.encoder, source, run.recipe.image_size, run.statistics, device)
    assert seen(run, module)["effective_rank"] == pytest.approx(
        effective_rank(found.mean), abs=1e-4
    )
    points = torch.nn.functional.normalize(found.mean, dim=1)
    similarity = (points @ points.T).fill_diagonal_(-2)
    right = 0
    for one, label in zip(similarity, found.labels.tolist(), strict=True):
        votes = [0.0, 0.0]
        for place in one.argsort(descending=True)[:5].tolist():
            votes[int(found.labels[place])] += math.exp(float(one[place]) / 0.07)
        right += votes.index(max(votes)) == label
    assert seen(run, module)["knn"] == pytest.approx(right / len(found.labels))
    assert seen(run, run.build())["knn"] == seen(run, module)["knn_random"]


def test_looks_at_the_class_token_of_the_teacher(classes: Path) -> None:
    run = tiny.make_run(classes, recipe=replace(DISTILLING, batch_size=4))
    module, source = run.build(), run.data.open("train")
    for parameter in module.encoder.parameters():
        nn.init.constant_(parameter, 0.1)
    teacher = module.teacher["encoder"]  # type: ignore[union-attr]
    about = (source, run.recipe.image_size, run.statistics, torch.device("cpu"))
    expected = effective_rank(features(teacher, *about).cls)
    assert seen(run, module)["effective_rank"] == pytest.approx(expected, abs=1e-4)


def test_changes_nothing(classes: Path) -> None:
    """Weights, buffers, gradients, mode and random numbers stay as they are."""
    run = tiny.make_run(classes, recipe=replace(DISTILLING, batch_size=4))
    module = run.build().train()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    torchs, numpys = torch.get_rng_state(), np.random.get_state()[1]
    assert seen(run, module).keys() == FIELDS
    assert torch.equal(torch.get_rng_state(), torchs)
    assert (np.random.get_state()[1] == numpys).all()
    tiny.assert_same_tensors(dict(module.state_dict()), before)
    assert all(part.training for part in module.modules())
    assert all(bool((p.grad == 1).all()) for p in module.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in module.parameters())


def test_an_encoder_that_gives_one_answer_has_collapsed(classes: Path) -> None:
    run = tiny.make_run(classes)
    module = run.build()
    nn.init.zeros_(module.encoder.norm.weight)
    found = seen(run, module)
    assert found["effective_rank"] == 1.0
    before = seen(run, run.build())["effective_rank"]
    assert found["rank_random"] == before
    assert found["knn_chance"] == 0.5
    assert found["knn"] <= 0.5 < 0.9 < found["knn_random"]  # dark against bright
    assert collapse({**found, "step": 2.0}, 10) == (
        f"an effective rank of 1.0 ({before:.1f} before training) and k-NN {found['knn']:.1%}, below "
        f"the {found['knn_random']:.1%} of random initialisation (on 20 images)"
    )


HEALTHY = {
    "exact, batch 256": [14, 7, 8, 10],
    "budget, batch 256": [8, 8, 12, 13, 15],
    "exact, batch 64": [12, 15, 25, 32],
    "budget, batch 64": [13, 25, 31, 34, 36],
}
"""Effective ranks at the checks of runs that learned (CIFAR-10, 6 blocks of 192); 23 of 119 with random weights."""


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("swing", [0.08, 0.28])
def test_healthy_runs_are_not_called_collapsed(name: str, swing: float) -> None:
    """Their rank falls to a third of its random value, and k-NN of 120 images of ten classes swings."""
    for look, rank in enumerate(HEALTHY[name], 1):
        line = {
            "step": 10.0 * look,
            "effective_rank": float(rank),
            "possible_rank": 119.0,
            "rank_random": 23.0,
            "looked_at": 120.0,
        }
        neighbors = {"knn": swing, "knn_random": 0.25, "knn_chance": 0.1}
        assert collapse(line, 100) is None
        assert collapse({**line, **neighbors}, 100) is None
        # more images, and k-NN as measured at the end of the worst of these runs
        measured = {"looked_at": 512.0, "knn": 0.242, "knn_random": 0.263, "knn_chance": 0.1}
        assert collapse({**line, **measured}, 100) is None


def test_a_small_grey_set_that_learns_is_not_called_collapsed() -> None:
    """A rank of 4.8 at first and of 21.7 at the end; k-NN rises from 38 % to 63 %."""
    start = {"rank_random": 20.0, "possible_rank": 64.0, "looked_at": 128.0, "knn_random": 0.38}
    for step, rank, knn in ((10.0, 4.8, 0.3), (20.0, 4.8, 0.38), (100.0, 21.7, 0.63)):
        line = {**start, "step": step, "effective_rank": rank, "knn": knn, "knn_chance": 0.1}
        assert collapse(line, 100) is None


def test_rank_and_neighbours_must_agree() -> None:
    line = {
        "step": 2.0,
        "effective_rank": 3.0,
        "possible_rank": 127.0,
        "rank_random": 40.0,
        "looked_at": 512.0,
        "knn": 0.11,
        "knn_random": 0.3,
        "knn_chance": 0.1,
    }
    assert collapse(line, 10) == (
        "an effective rank of 3.0 (40.0 before training) and k-NN 11.0%, below the 30.0% of random "
        "initialisation (on 512 images)"
    )
    assert collapse({**line, "effective_rank": 20.1}, 10) is None
    # 4 x sqrt((0.2 x 0.8 + 0.3 x 0.7) / 512) = 0.107
    higher = {**line, "effective_rank": 5.0}
    assert collapse({**higher, "knn": 0.19}, 10) is not None
    assert collapse({**higher, "knn": 0.2}, 10) is None
    assert (
        collapse({**line, "knn": 0.3}, 10) is not None
    )  # a very low rank, and neighbours are no better
    assert collapse({**line, "knn": 0.301}, 10) is None
    assert collapse({**line, "step": 1.0}, 10) is None  # the first check is too early
    assert in_words(line) == (
        "effective rank 3.0 of 127 (40.0 before training), k-NN 11.0% (30.0% before training)"
    )


def test_the_rank_decides_alone_where_neighbours_cannot_tell() -> None:
    line = {
        "step": 2.0,
        "effective_rank": 3.0,
        "possible_rank": 127.0,
        "rank_random": 40.0,
        "looked_at": 120.0,
    }
    assert collapse(line, 10) == "an effective rank of 3.0 (40.0 before training)"
    assert collapse({**line, "effective_rank": 4.1}, 10) is None
    assert collapse({**line, "rank_random": 5.0}, 10) is None  # images of few colours
    assert collapse({**line, "effective_rank": 2.4, "rank_random": 5.0}, 10) is not None
    assert collapse({**line, "effective_rank": 2.4, "rank_random": 4.9}, 10) is None
    # guessing is not clearly below 25 % on 120 images
    few = {"knn": 0.1, "knn_random": 0.25, "knn_chance": 0.1}
    assert collapse({**line, **few}, 10) == "an effective rank of 3.0 (40.0 before training)"
    assert collapse({**line, **few, "effective_rank": 4.1}, 10) is None
    older = {name: value for name, value in line.items() if name != "rank_random"}
    assert collapse({**older, "effective_rank": 1.0}, 10) is None
    assert collapse({"step": 2.0, "loss": 1.0}, 10) is None
    assert in_words({"step": 2.0, "loss": 1.0}) is None
    assert in_words(line) == "effective rank 3.0 of 127 (40.0 before training)"


@pytest.mark.slow
def test_distillation_without_centring_and_sharpening_collapses(tmp_path: Path) -> None:
    """After the first look, at which it has hardly begun; with smooth position tables it is complete within an epoch."""
    smooth = replace(DISTILLING.encoder, position_resampling="antialiased")
    recipe = replace(DISTILLING, encoder=smooth)
    folder = tiny.finished_run(tmp_path / "run", "digits", recipe=recipe)
    looks = [line for line in read_log(folder.log) if "knn" in line]
    assert len(looks) == 10
    steps = int(looks[-1]["step"])
    assert collapse(looks[0], steps) is None
    assert "effective rank" in str(collapse(looks[-1], steps))


def test_nothing_is_said_of_what_is_not_finite(classes: Path) -> None:
    run = tiny.make_run(classes)
    module = run.build()
    nn.init.constant_(module.encoder.norm.weight, torch.nan)
    assert seen(run, module) == {}


def test_a_collapse_is_told_once_and_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    line = {"effective_rank": 1.0, "possible_rank": 63.0, "rank_random": 20.0, "looked_at": 64.0}
    reports = [Progress(step, 3, [{**line, "step": step}], False) for step in (1, 2, 3)]
    assert list(watch_embedding(iter(reports))) == reports
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("collapsed: an effective rank of 1.0 (20.0 before training);") == 1
    assert said.count("effective rank 1.0 of 63") == 1  # a short run: only the last check
    assert "half of --schedule.base-lr" in said


def test_which_images() -> None:
    many = np.arange(10_000) % 100
    rows = watched(many, 512)
    assert (np.diff(rows) > 0).all()
    names, counts = np.unique(many[rows], return_counts=True)
    assert (len(names), set(counts)) == (64, {8})
    few = np.repeat([0, 1, 2], [5000, 5000, 3])
    assert np.bincount(few[watched(few, 64)]).tolist() == [32, 32]  # a class of 3 tells nothing
    none = np.full(1000, -1)
    assert watched(none, 64).tolist() == [int(place) for place in np.linspace(0, 999, 64)]
    assert watched(np.arange(500), 64).tolist() == watched(np.full(500, -1), 64).tolist()


def test_how_many_images() -> None:
    run = tiny.make_run("digits")

    def count(size: int, epochs: float) -> int:
        recipe = replace(tiny.RECIPE, image_size=Size(size, size), epochs=epochs)
        return image_count(replace(run, job=replace(run.job, recipe=recipe)), recipe.image_size)

    assert [count(8, 1.0), count(8, 1e4), count(128, 1e4)] == [128, 512, 256]
    assert count(8, 200.0) == 200 * 1442 // 1000


def test_images_without_classes_are_seen_too(tmp_path: Path) -> None:
    run = tiny.make_run(tiny.write_images(tmp_path / "images"))
    assert seen(run, run.build()).keys() == FIELDS - CLASSES
