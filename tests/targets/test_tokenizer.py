"""Codes of a tokenizer: the literal rule, every code in use once, nothing but a patch's own pixels, no leak into pictures."""

import math
from dataclasses import replace

import pytest
import torch
from reference import problems
from torch import Tensor

from unmask.channels import Statistics
from unmask.contracts import Batch, Size
from unmask.errors import SettingsError
from unmask.formats.model import split
from unmask.patches import normalize, patchify
from unmask.randomness import seeded
from unmask.targets import ScalarTokenizer, TokenizerCodes
from unmask.targets.tokenizer import CodeTarget, PatchTokenizer, current_names, rounded

STATISTICS = problems.statistics(3)
MASK = problems.first_patches_kept(2, 16, 4)
GRID = Size(4, 4)
SPEC = ScalarTokenizer(codes=32, width=16, depth=1)


@pytest.fixture(scope="module")
def tokenizer() -> PatchTokenizer:
    with seeded("test tokenizer"):
        module = SPEC.build(4, 3, STATISTICS)
        with torch.no_grad():
            module.encoder[-1].weight.mul_(4)  # so that more than the middle levels occur
    return module


@pytest.fixture(scope="module")
def target(tokenizer: PatchTokenizer) -> CodeTarget:
    target = TokenizerCodes(path="nowhere", tokenizer=SPEC).build(4, 3)
    assert not target.complete
    target.take(tokenizer.state_dict())
    assert target.complete
    return target


@pytest.mark.parametrize("bits", range(4, 17))
def test_levels_are_fours_and_eights_that_make_up_the_codes(bits: int) -> None:
    levels = ScalarTokenizer(codes=2**bits).levels
    assert math.prod(levels) == 2**bits
    assert set(levels) <= {4, 8}


@pytest.mark.parametrize(("levels", "middles"), [(4, 4), (8, 8)])
def test_numbers_are_rounded_to_the_middle_of_unit_steps(levels: int, middles: int) -> None:
    half = levels / 2
    values = torch.linspace(-half, half, 1001)[:, None].requires_grad_()
    found = rounded(values, torch.tensor([levels]))
    for value, middle in zip(values.flatten().tolist(), found.flatten().tolist(), strict=True):
        step = next(step for step in range(levels) if value < step - half + 1 or step == levels - 1)
        assert middle == pytest.approx(step - half + 0.5, abs=1e-5)
    assert len(found.detach().round(decimals=3).unique()) == middles
    found.sum().backward()
    assert values.grad is not None
    assert values.grad.equal(torch.ones_like(values))


def test_every_code_stands_for_numbers_of_its_own(tokenizer: PatchTokenizer) -> None:
    values = tokenizer.values_of(torch.arange(32))
    assert len(values.unique(dim=0)) == 32
    assert rounded(values, tokenizer.levels).equal(values)


def test_codes_by_the_literal_rule(tokenizer: PatchTokenizer) -> None:
    patches = torch.randn(50, 48, generator=problems.random(1))
    found = tokenizer.codes_of(patches)
    assert len(found.unique()) > 5
    numbers = tokenizer.encoder(patches)
    for row in range(50):
        code, worth = 0, 1
        for levels, number in zip(tokenizer.levels.tolist(), numbers[row].tolist(), strict=True):
            code += worth * math.floor(levels / 2 * math.tanh(number) + levels / 2)
            worth *= levels
        assert found[row] == code
        values = tokenizer.values_of(found[row])
        for levels, number, value in zip(
            tokenizer.levels.tolist(), numbers[row].tolist(), values.tolist(), strict=True
        ):
            assert abs(levels / 2 * math.tanh(number) - value) <= 0.5 + 1e-5


def test_the_loss_is_the_error_of_whole_images(tokenizer: PatchTokenizer) -> None:
    images = problems.pictures(problems.Problem())
    patches = normalize(patchify(images, 4), STATISTICS)
    values = tokenizer.values_of(tokenizer.codes_of(patches))
    rebuilt = tokenizer.decode(values, GRID)
    batch = Batch((images,), torch.zeros(2), torch.arange(2), 0)
    loss = tokenizer(batch, problems.random(0))
    expected = (rebuilt - patches).square().mean()
    torch.testing.assert_close(loss.total, expected, atol=1e-5, rtol=1e-5)
    loss.total.backward()
    assert all(parameter.grad is not None for parameter in tokenizer.parameters())


def test_a_code_depends_on_its_own_pixels_alone(target: CodeTarget) -> None:
    images = problems.pictures(problems.Problem())
    codes = target(images, MASK, STATISTICS)
    others = images.clone()
    others[:, :, :4] = 255 - others[:, :, :4]  # the four patches of the first row, which are kept
    assert target(others, MASK, STATISTICS).equal(codes)
    foreign = Statistics(torch.rand(3), torch.rand(3) + 1)
    assert target(images, MASK, foreign).equal(codes)
    with torch.autocast("cpu", torch.bfloat16):
        assert target(images, MASK, STATISTICS).equal(codes)
    one = MASK._replace(
        image=torch.zeros(1, dtype=torch.long),
        removed=MASK.removed[1:],
        kept_index=MASK.kept_index[1:],
        removed_index=MASK.removed_index[1:],
    )
    assert target(images[1:], one, STATISTICS).equal(codes[1:])


def test_the_code_of_a_hidden_patch_is_that_of_its_pixels(
    target: CodeTarget, tokenizer: PatchTokenizer
) -> None:
    images = problems.pictures(problems.Problem())
    found = target(images, MASK, STATISTICS)
    for row in range(2):
        for place, number in enumerate(MASK.removed_index[row].tolist()):
            down, right = (4 * part for part in divmod(number, 4))
            pixels = images[row, :, down : down + 4, right : right + 4].permute(1, 2, 0) / 255
            patch = ((pixels - STATISTICS.mean) / STATISTICS.std).flatten()
            assert found[row, place] == tokenizer.codes_of(patch)


def test_a_patch_without_values_has_no_code(target: CodeTarget) -> None:
    images = problems.pictures(problems.Problem()).float()
    images[0, :, 4:8, 0:4] = math.nan  # patch 4, the first hidden one
    images[0, 0, 4, 4] = math.nan
    found = target(images, MASK, STATISTICS)
    assert found[0, 0].isnan().all()
    assert found[0, 1:].isfinite().all()
    errors = target.loss(torch.zeros(2, 12, 32), found)
    assert errors[0, 0] == 0
    assert errors[0, 1].item() == pytest.approx(math.log(32), abs=1e-5)


def test_pictures_of_true_codes_are_the_tokenizers_own(
    target: CodeTarget, tokenizer: PatchTokenizer
) -> None:
    images = problems.pictures(problems.Problem())
    codes = tokenizer.codes_of(normalize(patchify(images, 4), STATISTICS))
    sure = torch.nn.functional.one_hot(codes, 32).float()
    drawn = target.pixels(sure, images, MASK, STATISTICS, "neighbors")
    expected = tokenizer.decode(tokenizer.values_of(codes), GRID)
    torch.testing.assert_close(drawn, expected, atol=1e-5, rtol=1e-5)


def test_hidden_pixels_do_not_reach_the_picture(target: CodeTarget) -> None:
    images = problems.pictures(problems.Problem())
    guess = torch.randn(2, 16, 32, generator=problems.random(2))
    drawn = target.pixels(guess, images, MASK, STATISTICS, "true")
    changed = images.clone()
    changed[:, :, 4:] = 255 - changed[:, :, 4:]  # all hidden patches
    assert target.pixels(guess, changed, MASK, STATISTICS, "true").equal(drawn)


OLD_NAMES = {
    "encoder": "inwards",
    "to_width": "spread",
    "decoder": "outwards",
    "to_pixels": "paint",
    "strides": "places",
}


def with_old_names(tensors: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """A state dict as the first versions saved it."""
    old: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        first, dot, inner = name.removeprefix(prefix).partition(".")
        known = name.startswith(prefix)
        old[f"{prefix}{OLD_NAMES.get(first, first)}{dot}{inner}" if known else name] = tensor
    return old


def test_weights_with_old_names_are_read(target: CodeTarget, tokenizer: PatchTokenizer) -> None:
    state = tokenizer.state_dict()
    old = with_old_names(state)
    assert {"inwards.0.weight", "spread.bias", "outwards.0.conv1.weight", "paint.bias"} <= set(old)
    with seeded("another tokenizer"):
        fresh = SPEC.build(4, 3, STATISTICS)
    fresh.load_state_dict(old)
    assert all(fresh.state_dict()[name].equal(tensor) for name, tensor in state.items())
    assert current_names(old).keys() == state.keys()
    assert current_names({"inwards.0.weight:exp_avg": state["mean"]}).keys() == {
        "encoder.0.weight:exp_avg"
    }

    inside = {f"target.{name}": tensor for name, tensor in target.state_dict().items()}
    module = torch.nn.Module()
    module.target = TokenizerCodes(path="nowhere", tokenizer=SPEC).build(4, 3)
    module.load_state_dict(with_old_names(inside, "target.tokenizer."))
    assert all(module.state_dict()[name].equal(tensor) for name, tensor in inside.items())
    _, others = split(
        {**with_old_names(inside, "target.tokenizer."), "encoder.mean": state["mean"]}
    )
    assert others.keys() == inside.keys()


def test_nothing_of_a_target_learns(target: CodeTarget) -> None:
    assert not any(parameter.requires_grad for parameter in target.parameters())


@pytest.mark.parametrize(("codes", "nearest"), [(500, 512), (3, 16), (0, 16), (10**6, 65536)])
def test_numbers_of_codes_that_cannot_be(codes: int, nearest: int) -> None:
    with pytest.raises(SettingsError, match=f"got {codes}; the nearest is {nearest}$"):
        ScalarTokenizer(codes=codes)


@pytest.mark.parametrize("field", ["width", "depth"])
def test_sizes_of_nothing_are_refused(field: str) -> None:
    with pytest.raises(SettingsError, match=f"{field} must be at least 1, got 0"):
        replace(SPEC, **{field: 0})
