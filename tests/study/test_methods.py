"""Methods on equal encoders, with equal budgets."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unmask.channels import ChannelStatistics, Statistics
from unmask.contracts import Size
from unmask.data.multi_views import MultiCrop
from unmask.errors import SettingsError
from unmask.formats.model import FORMAT, ModelSpec
from unmask.objectives import Latent
from unmask.recipes import RECIPES
from unmask.study.cost import StepCost
from unmask.study.methods import METHODS, Comparison, equalised, fitted, resized
from unmask.study.report import write
from unmask.study.study import TINY, trainings
from unmask.study.table import Line, StudyResult, csv_text, markdown


def comparison(**changes: object) -> Comparison:
    given = {
        "methods": ("mae", "simmim", "scratch"),
        "encoders": ("xs4", "ti4"),
        "labels": ("10%", "all"),
        "epochs": 10.0,
        "image_size": None,
        **changes,
    }
    return Comparison(**given)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("method", [name for name in METHODS if f"{name}-ti4" in RECIPES])
@pytest.mark.parametrize(("encoder", "shape"), [("xs8", (96, 4, 3, 8)), ("s16", (384, 12, 6, 16))])
def test_every_method_has_the_asked_encoder_and_its_own_peak_rate(
    method: str, encoder: str, shape: tuple[int, ...]
) -> None:
    recipe = fitted(method, encoder, 7.0)
    made = recipe.encoder
    assert (made.embed_dim, made.depth, made.num_heads, made.patch_size) == shape
    own = RECIPES[f"{method}-{'b16' if encoder == 's16' else 'ti4'}"].recipe
    assert recipe.schedule.peak(recipe.batch_size) == pytest.approx(
        own.schedule.peak(own.batch_size)
    )
    assert (recipe.epochs, recipe.schedule.warmup_epochs) == (7.0, 0.7)


def test_decoders_follow_the_width_and_crops_the_patch() -> None:
    """MAE's decoder of 8 blocks of 512 would be 30 times the work of an encoder of 4 blocks of 96."""
    large, small = (RECIPES[f"mae-{size}"].recipe for size in ("b16", "ti4"))
    for encoder, decoder_of, crops_of in (
        ("xs16", small, large),
        ("ti4", small, small),
        ("s16", large, large),
        ("b4", large, small),
    ):
        recipe = fitted("mae", encoder, 1.0)
        assert recipe.objective == decoder_of.objective
        assert (recipe.image_size, recipe.views) == (crops_of.image_size, crops_of.views)


def test_small_views_keep_their_share_of_another_image_size() -> None:
    recipe = fitted("dino", "xs16", 1.0)
    assert isinstance(recipe.views, MultiCrop)
    assert (recipe.image_size, recipe.views.small_size) == (Size(224, 224), Size(96, 96))
    other = resized(recipe, Size(128, 64)).views
    assert isinstance(other, MultiCrop)
    assert other.small_size == Size(48, 32)  # 55 x 27 in whole patches of 16


@pytest.mark.parametrize(("encoder", "blocks"), [("xs4", 2), ("ti4", 8), ("b16", 10)])
def test_a_latent_target_is_of_as_large_a_part_of_the_blocks(encoder: str, blocks: int) -> None:
    """8 of 12 at Ti, hence 2 of 4: what a trial would else refuse to build."""
    study = comparison(methods=("mae", "latent"), encoders=(encoder,), labels=("all",)).study()
    trials = study.trials(TINY.base)
    assert set(trials) == {"mae", "latent"}
    recipe = trials["latent"].recipe
    assert recipe.encoder == trials["mae"].recipe.encoder
    assert isinstance(recipe.objective, Latent)
    assert recipe.objective.target_blocks == blocks
    with torch.device("meta"):
        encoder_module = recipe.encoder.build(
            recipe.image_size, 3, Statistics(torch.zeros(3), torch.ones(3))
        )
        recipe.objective.build(encoder_module)


def test_every_line_is_compared_with_the_first_method_of_its_encoder_and_labels() -> None:
    study = comparison().study()
    assert len(study.variations) == 4 * 2 * 2  # and scratch as simmim
    beside = {variation.name: variation.beside for variation in study.variations}
    assert beside["simmim ti4 at 10%"] == "mae ti4 at 10%"
    assert study.base == "mae xs4 at all"
    trials = study.trials(TINY.base)
    scratch, other = trials["scratch ti4 at all"], trials["scratch as simmim ti4 at all"]
    assert (scratch.start, other.start) == ("drawn", "drawn")
    assert scratch.transfer.encoder == trials["mae ti4 at all"].recipe.encoder
    assert other.transfer.encoder == trials["simmim ti4 at all"].recipe.encoder
    assert {name for name in trainings(trials) if "scratch" in name} == set()
    assert trials["mae ti4 at 10%"].labels == "10%"
    assert {trial.transfer.encoder for trial in trials.values()} == {
        trial.recipe.encoder for trial in trials.values()
    }
    alike = comparison(
        methods=("mae", "aim", "scratch"), encoders=("xs4",), labels=("all",)
    ).study()
    assert [variation.name for variation in alike.variations] == ["mae", "aim", "scratch"]
    (alone,) = comparison(methods=("mae",), encoders=("xs8",), labels=("all",)).study().variations
    assert alone.name == "mae"
    sized = comparison(image_size=Size(64, 64)).study().trials(TINY.base)
    assert {trial.transfer.image_size for trial in sized.values()} == {Size(64, 64)}


def test_methods_are_drawn_against_sizes(tmp_path: Path) -> None:
    assert comparison(encoders=("xs4",)).study().sizes is None
    study = comparison().study()
    assert study.sizes is not None
    assert study.sizes.places == ("xs4", "ti4")
    assert study.sizes.lines["simmim"] == ("simmim xs4 at all", "simmim ti4 at all")
    assert study.only(["simmim ti4 at all"]).sizes is None
    lines = [
        Line(
            name, study.base, {"knn": [0.1 * n, 0.1 * n + 0.02]}, [], {}, {}, None, 0.0, [], [], 0.0
        )
        for n, name in enumerate(study.trials(TINY.base), start=1)
    ]
    about = StudyResult(replace(study, timed=False), 2, (), lines, None, 0.9)
    written = write(about, "comparison", tmp_path, pytest.fail)
    names = [path.name for path in written]
    assert names == ["comparison.md", "comparison.csv", "comparison.png", "comparison-sizes.png"]
    assert "![Against the size of the encoder](comparison-sizes.png)" in written[0].read_text()
    assert "| largest class | 90.0 |" in written[0].read_text()
    assert "largest class,share,,0.9" in written[1].read_text()
    few = about._replace(lines=[line._replace(scores={}) for line in lines])
    assert [path.name for path in write(few, "none", tmp_path, pytest.fail)] == [
        "none.md",
        "none.csv",
    ]


def test_only_published_values_of_equal_epochs_are_put_in_an_order() -> None:
    """MAE after 1,600 epochs, BEiT and CrossMAE after 800, a short recipe after 100."""
    methods = ("mae", "beit", "fast", "budget")
    study = comparison(methods=methods, encoders=("xs4",), labels=("all",)).study()
    lines = [
        Line(
            name=each.name,
            beside=study.base,
            scores={"finetune": [0.5 - 0.1 * n, 0.51 - 0.1 * n, 0.52 - 0.1 * n]},
            train_scores=[],
            published=each.published,
            published_epochs=each.published_epochs,
            cost=None,
            seen=0.0,
            failures=[],
            collapses=[],
            tokenizer_flops=0.0,
        )
        for n, each in enumerate(study.variations)
    ]
    study = replace(study, scores=("finetune",), timed=False)
    result = StudyResult(study, 3, (), lines, None, None)
    page = markdown(result)
    assert "| variation | fine-tuned, % | paper (epochs) |" in page
    assert "| **mae** | 51.0 ± 1.0 | 83.6 (1600) |" in page
    assert "Pairs with different results in the paper: 1; here 0 agree, 1 disagree" in page
    assert "Disagree: fast above beit (+0.5 in the paper, -10.0 here)." in page
    assert (
        "5 pairs are not compared, because the paper's values come from different numbers" in page
    )
    assert 'budget,"paper, epochs: finetune",,100' in csv_text(result)


def test_equal_compute_and_equal_time() -> None:
    study = comparison(encoders=("xs4",), labels=("all",)).study()
    trials = study.trials(TINY.base)
    cost = StepCost(100, 2.0, 2.0, 2.0, 0.1, 64, 1)
    costs = {
        "mae": cost,
        "simmim": cost._replace(flops=400, seconds=5.0, update_seconds=0.25),
    }
    epochs = {
        equal: equalised(study, trials, costs, equal)["simmim"].recipe.epochs
        for equal in ("epochs", "compute", "time")
    }
    assert epochs == {"epochs": 10.0, "compute": 2.5, "time": 4.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ("mea",)}, "unknown method 'mea'; did you mean 'mae'"),
        ({"methods": ("scratch", "mae")}, "scratch does not pretrain"),
        ({"encoders": ("ti4", "ti4")}, "--encoders has a name twice"),
        ({"epochs": 0.0}, "epochs must be above 0"),
        ({"labels": ("ten",)}, "amounts of labels must be numbers"),
    ],
)
def test_comparisons_that_make_no_sense(changes: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        comparison(**changes)


@pytest.mark.parametrize("encoder", ["ti", "huge14", "ti0", "16"])
def test_unknown_encoders(encoder: str) -> None:
    with pytest.raises(
        SettingsError, match="each of --encoders must be one of xs, ti, s, b and a patch"
    ):
        fitted("mae", encoder, 1.0)


def given(path: str = "runs/a") -> dict[str, ModelSpec]:
    """The encoder of a run."""
    channels = ChannelStatistics(mean=(0.5,), std=(0.25,), low=(0.0,), high=(1.0,), source="a test")
    spec = ModelSpec(
        format=FORMAT,
        encoder=replace(RECIPES["mae-ti4"].recipe.encoder, depth=3, patch_size=8),
        objective=None,
        image_size=Size(48, 64),
        channels=1,
        statistics=channels,
        origin="a test",
    )
    return {path: spec}


def test_runs_and_weights_are_scored_with_their_own_encoder() -> None:
    known = given()
    every = comparison(
        methods=("mae", "runs/a", "scratch"), encoders=("xs4",), labels=("all",), given=known
    ).study()
    trials = every.trials(TINY.base)
    trial, spec = trials["runs/a"], known["runs/a"]
    assert (trial.start, trial.weights) == ("given", "runs/a")
    assert trial.transfer.encoder == trial.recipe.encoder == spec.encoder
    assert trial.transfer.image_size == trial.recipe.image_size == Size(48, 64)
    assert trials["scratch"].recipe.encoder == trials["mae"].recipe.encoder
    # another encoder than the first one's is trained from scratch, too
    assert trials["scratch as runs/a"].recipe.encoder == spec.encoder
    assert list(trainings(trials)) == ["mae"]
    alone = comparison(
        methods=("runs/a", "scratch"), encoders=("xs4",), labels=("all",), given=known
    )
    assert trainings(alone.study().trials(TINY.base)) == {}
    assert alone.study().trials(TINY.base)["scratch"].recipe.encoder == spec.encoder
    sized = comparison(
        methods=("runs/a",),
        encoders=("xs4",),
        labels=("all",),
        given=known,
        image_size=Size(32, 32),
    )
    assert sized.study().trials(TINY.base)["runs/a"].transfer.image_size == Size(32, 32)


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (("runs/b", "mae"), "unknown method 'runs/b'; .*, or the path of a run or of weights"),
        (("runs/a", "mae"), "its cost is not known for mae; put mae first, or leave it out"),
        (("mae", "runs/a"), "give one of --encoders beside them"),
    ],
)
def test_runs_and_weights_that_cannot_be_compared(methods: tuple[str, ...], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        comparison(methods=methods, given=given())
