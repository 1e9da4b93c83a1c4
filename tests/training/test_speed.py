"""FLOPs against closed formulas, ceilings against what they bound, and the meter's arithmetic."""

from collections.abc import Iterator

import pytest
import torch
from reference import problems
from torch import nn

from unmask.contracts import Batch, Loss, Size, StepReport
from unmask.recipes import RECIPES
from unmask.recipes.recipe import Recipe
from unmask.training.speed import (
    Meter,
    copy_ceiling,
    flops_per_image,
    forget_peak,
    matrix_ceiling,
    peak_memory,
    random_batch,
)

CPU = torch.device("cpu")


class Layer(nn.Module):
    """A linear layer of the pixels, and batch statistics that a pass would change."""

    def __init__(self, learns: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(192, 10).requires_grad_(learns)
        self.norm = nn.BatchNorm1d(10)

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        hidden = self.linear(batch.images.flatten(1).float())
        return Loss(self.norm(hidden.repeat(2, 1)).sum(), {})


@pytest.mark.parametrize(("learns", "products"), [(True, 2), (False, 1)])
def test_a_linear_layer_by_hand(learns: bool, products: int) -> None:
    """Forward, and backward to the weights; pixels need no gradient."""
    layer = Layer(learns)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    found = flops_per_image(layer, Size(8, 8), 3, CPU, "float32")
    assert found == products * 2 * 192 * 10
    assert all(parameter.grad is None for parameter in layer.parameters())
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name]), name


def nominal(recipe: Recipe) -> int:
    """FLOPs per image of MAE as published: every product of the paper's text, 6 FLOPs a multiply-add.

    A block of width d over n tokens takes 12 n d^2 + 2 n^2 d multiply-adds.
    """
    encoder, decoder = recipe.encoder, recipe.objective.decoder
    patches = (recipe.image_size.height // encoder.patch_size) ** 2
    pixels = 3 * encoder.patch_size**2
    kept = int(patches * (1 - recipe.objective.masking.ratio))

    def blocks(depth: int, tokens: int, width: int) -> int:
        return depth * (12 * tokens * width**2 + 2 * tokens**2 * width)

    products = (
        patches * pixels * encoder.embed_dim
        + blocks(encoder.depth, kept + 1, encoder.embed_dim)
        + (kept + 1) * encoder.embed_dim * decoder.embed_dim
        + blocks(decoder.depth, patches + 1, decoder.embed_dim)
        + (patches + 1) * decoder.embed_dim * pixels
    )
    return 6 * products


@pytest.mark.parametrize(
    ("name", "gigaflops"), [("mae-b16", 58.7), ("mae-l16", 124.5), ("mae-h14", 291.4)]
)
def test_nominal_flops_of_the_papers_models(name: str, gigaflops: float) -> None:
    assert nominal(RECIPES[name].recipe) / 1e9 == pytest.approx(gigaflops, rel=2e-3)


def saved(recipe: Recipe) -> int:
    """What of the nominal FLOPs is not needed, image by image; the rest of `MaskTokenDecoder` is exact.

    Hidden patches are neither embedded nor, in the first decoder block, projected; in the last block and
    the prediction visible tokens give keys and values only; no gradient flows into pixels.
    """
    encoder, decoder = recipe.encoder, recipe.objective.decoder
    patches = (recipe.image_size.height // encoder.patch_size) ** 2
    pixels, width = 3 * encoder.patch_size**2, decoder.embed_dim
    kept = int(patches * (1 - recipe.objective.masking.ratio))
    hidden, seen = patches - kept, kept + 1
    embedding = 6 * hidden * pixels * encoder.embed_dim + 2 * kept * pixels * encoder.embed_dim
    first = 6 * hidden * 3 * width**2
    last = 6 * seen * (10 * width**2 + 2 * (patches + 1) * width)  # query, attention, proj, MLP
    return embedding + first + last + 6 * seen * width * pixels


def test_the_counter_against_the_formula() -> None:
    """On the small model of the tests' images, whole: nominal less what is saved, to the last FLOP."""
    recipe = RECIPES["mae-ti4"].recipe
    torch.manual_seed(0)
    model = problems.of_recipe(recipe)
    found = flops_per_image(model, recipe.image_size, 3, CPU, "float32")
    assert found == nominal(recipe) - saved(recipe)


def test_ceilings_bound_what_they_measure() -> None:
    assert 1e8 < matrix_ceiling(CPU, "float32") < 1e14
    assert 1e8 < copy_ceiling(CPU) < 1e13


def test_peak_memory_sees_what_is_taken_and_given_back() -> None:
    forget_peak(CPU)
    before = peak_memory(CPU)
    taken = torch.ones(64 * 2**20, dtype=torch.uint8)
    del taken
    assert peak_memory(CPU) - before > 48 * 2**20


def test_random_batch_repeats() -> None:
    one, other = (random_batch(3, Size(8, 4), 2, CPU) for _ in range(2))
    assert one.images.shape == (3, 2, 8, 4)
    assert torch.equal(one.images, other.images)


def reports(count: int) -> Iterator[StepReport]:
    zero = torch.zeros(())
    return (StepReport(step, zero, {}, 0.1, 32, Size(8, 8), 0.25) for step in range(count))


def test_figures() -> None:
    meter = Meter(CPU, flops_per_image={Size(8, 8): 10}, ceiling=100.0)
    figures = meter.figures(list(reports(4)), 40.0)
    assert figures.pop("peak_memory") > 0
    assert figures == {
        "images_per_second": 3.2,
        "waiting": 0.025,  # a quarter of a second at each of four steps
        "flops_per_second": 32,
        "mfu": 0.32,
    }


def test_flops_are_those_of_each_step_s_size() -> None:
    """Two steps of 32 images at 3 FLOPs, two at 10: 832 in 40 seconds."""
    meter = Meter(CPU, flops_per_image={Size(4, 4): 3, Size(8, 8): 10}, ceiling=100.0)
    small, large = list(reports(2)), list(reports(2))
    figures = meter.figures([r._replace(size=Size(4, 4)) for r in small] + large, 40.0)
    assert figures["images_per_second"] == 3.2
    assert figures["flops_per_second"] == 21  # 20.8
    assert figures["mfu"] == 0.208
