"""FLOPs against closed formulas, ceilings against what they bound, and the meter's arithmetic."""

from collections.abc import Iterator
from dataclasses import replace
from mmap import mmap
from typing import NamedTuple

import pytest
import torch
from reference import problems
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from unmask.contracts import Batch, Loss, Size, StepReport
from unmask.masking import RandomMasking
from unmask.masks import PatchMask
from unmask.objectives.mae import AnyEncoding, Replaced, Visible
from unmask.recipes import RECIPES
from unmask.recipes.recipe import Recipe
from unmask.training.step_cost import (
    Meter,
    copy_ceiling,
    flops_per_image,
    forget_peak,
    matrix_ceiling,
    peak_memory,
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
    eight = problems.example(problems.Problem(size=Size(8, 8)))
    found = flops_per_image(layer, eight, CPU, "float32")
    assert found == products * 2 * 192 * 10
    assert all(parameter.grad is None for parameter in layer.parameters())
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name]), name


class Products(NamedTuple):
    """Multiply-adds of an image's forward pass, part by part, as the paper's text has them."""

    embedding: int
    encoder: int
    decoder: int
    """Its first projection and its prediction included."""


def nominal(recipe: Recipe) -> Products:
    """Every product of the paper's text; a block of width d over n tokens takes 12 n d^2 + 2 n^2 d."""
    encoder, decoder = recipe.encoder, recipe.objective.decoder
    patches, pixels, kept = shape_of(recipe)
    seen = kept if isinstance(recipe.objective.encoding, Visible) else patches

    def blocks(depth: int, tokens: int, width: int) -> int:
        return depth * (12 * tokens * width**2 + 2 * tokens**2 * width)

    return Products(
        embedding=patches * pixels * encoder.embed_dim,
        encoder=blocks(encoder.depth, seen + 1, encoder.embed_dim),
        decoder=(seen + 1) * encoder.embed_dim * decoder.embed_dim
        + blocks(decoder.depth, patches + 1, decoder.embed_dim)
        + (patches + 1) * decoder.embed_dim * pixels,
    )


def shape_of(recipe: Recipe) -> tuple[int, int, int]:
    """Patches of an image, values of a patch, and kept patches."""
    patches = (recipe.image_size.height // recipe.encoder.patch_size) ** 2
    kept = int(patches * (1 - recipe.objective.masking.ratio))
    return patches, 3 * recipe.encoder.patch_size**2, kept


def varied(recipe: Recipe, encoding: AnyEncoding, **decoder: int) -> Recipe:
    """A recipe with another encoding, and a decoder of another shape."""
    objective = recipe.objective
    shape = replace(objective.decoder, **decoder)
    return replace(recipe, objective=replace(objective, encoding=encoding, decoder=shape))


@pytest.mark.parametrize(
    ("name", "gigaflops"), [("mae-b16", 58.7), ("mae-l16", 124.5), ("mae-h14", 291.4)]
)
def test_nominal_flops_of_the_papers_models(name: str, gigaflops: float) -> None:
    """6 FLOPs a multiply-add: forward, and backward to the input and to the weights."""
    assert 6 * sum(nominal(RECIPES[name].recipe)) / 1e9 == pytest.approx(gigaflops, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "visible", "replaced", "eight", "one"),
    [
        ("mae-b16", 9.78, 22.99, 2.35, 4.45),
        ("mae-l16", 20.76, 67.01, 3.23, 4.15),
        ("mae-h14", 48.56, 174.55, 3.59, 4.11),
    ],
)
def test_what_mask_tokens_in_the_encoder_cost_the_papers_models(
    name: str, visible: float, replaced: float, eight: float, one: float
) -> None:
    """Gigaproducts forward with decoders of eight blocks; ratios to decoders of eight and of one.

    The paper says 3.3 for ViT-L (table 1c): with a decoder of eight, blocks alone, no class token.
    """
    recipe = RECIPES[name].recipe
    with_tokens = sum(nominal(varied(recipe, Replaced())))
    assert sum(nominal(recipe)) / 1e9 == pytest.approx(visible, abs=0.01)
    assert with_tokens / 1e9 == pytest.approx(replaced, abs=0.01)
    assert with_tokens / sum(nominal(recipe)) == pytest.approx(eight, abs=0.01)
    assert with_tokens / sum(nominal(varied(recipe, Visible(), depth=1))) == pytest.approx(
        one, abs=0.01
    )


def saved(recipe: Recipe) -> int:
    """What of the nominal FLOPs is not needed, image by image.

    Hidden patches are not embedded, nor, where they are the decoder's own tokens, projected in its first
    block if it has others; in its last block and the prediction visible tokens give keys and values only;
    no gradient flows into pixels.
    """
    encoder, decoder = recipe.encoder, recipe.objective.decoder
    patches, pixels, kept = shape_of(recipe)
    width, hidden, seen = decoder.embed_dim, patches - kept, kept + 1
    embedding = 6 * hidden * pixels * encoder.embed_dim + 2 * kept * pixels * encoder.embed_dim
    own = isinstance(recipe.objective.encoding, Visible) and decoder.depth > 1
    first = 6 * hidden * 3 * width**2 if own else 0
    last = 6 * seen * (10 * width**2 + 2 * (patches + 1) * width)  # query, attention, proj, MLP
    return embedding + first + last + 6 * seen * width * pixels


@pytest.mark.parametrize("encoding", [Visible(), Replaced()], ids=["visible", "replaced"])
@pytest.mark.parametrize(
    ("ratio", "depth", "width"),
    [(0.75, 2, 128), (0.25, 2, 64), (0.9, 3, 64), (0.5, 1, 32)],
)
def test_the_counter_against_the_formula(
    encoding: AnyEncoding, ratio: float, depth: int, width: int
) -> None:
    """Of a small model, whole: nominal less what is saved, to the last FLOP."""
    small = RECIPES["mae-mini4"].recipe
    objective = replace(small.objective, masking=RandomMasking(ratio=ratio))
    recipe = varied(replace(small, objective=objective), encoding, depth=depth, embed_dim=width)
    torch.manual_seed(0)
    model = problems.of_recipe(recipe)
    example = problems.example(problems.Problem(size=recipe.image_size))
    found = flops_per_image(model, example, CPU, "float32")
    assert found == 6 * sum(nominal(recipe)) - saved(recipe)


@pytest.mark.slow
def test_mask_tokens_cost_vit_l_what_the_paper_says() -> None:
    """3.25 times the products of a forward pass, counted at its real shapes (table 1c: 3.3)."""
    recipe = RECIPES["mae-l16"].recipe
    visible, replaced = (forward_flops(varied(recipe, e)) for e in (Visible(), Replaced()))
    assert 3.2 < replaced / visible < 3.3


def forward_flops(recipe: Recipe) -> int:
    """Of one image, on the meta device: nothing is computed."""
    with torch.device("meta"):
        model = problems.of_recipe(recipe)
        images = torch.zeros(1, 3, *recipe.image_size, dtype=torch.uint8)
    drawn = recipe.objective.masking.sample(1, recipe.encoder_grid(), problems.random(0))
    mask = PatchMask(*(part.to("meta") for part in drawn))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.predict(images, mask)
    return counter.get_total_flops()


def test_ceilings_bound_what_they_measure() -> None:
    assert 1e8 < matrix_ceiling(CPU, "float32") < 1e14
    assert 1e8 < copy_ceiling(CPU) < 1e13


def test_peak_memory_sees_what_is_taken_and_given_back() -> None:
    assert any(_added() > 48 * 2**20 for _ in range(5)), "the system may take pages away meanwhile"


def _added() -> int:
    """Pages fresh from the system: a tensor may be given what earlier tests have given back."""
    forget_peak(CPU)
    before = peak_memory(CPU)
    with mmap(-1, 64 * 2**20) as taken:
        taken.write(b"1" * len(taken))
    return peak_memory(CPU) - before


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


def test_flops_of_other_sizes_grow_with_their_pixels() -> None:
    """Whole images have sizes of their own: 8 x 16 is twice 8 x 8."""
    meter = Meter(CPU, flops_per_image={Size(4, 4): 3, Size(8, 8): 10}, ceiling=100.0)
    wide = [report._replace(size=Size(8, 16)) for report in reports(2)]
    assert meter.figures(wide, 64.0)["flops_per_second"] == 20
