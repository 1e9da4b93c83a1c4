"""Autoregressive image models against a literal version, and what may look at what."""

import pytest
import torch
from reference import aim as literal
from reference import problems
from reference.problems import Problem
from torch import Tensor

from unmask.contracts import Batch, Part, Size
from unmask.errors import SettingsError
from unmask.objectives.aim import AIM, AutoregressiveImageModel, draw_prefixes, prefix_attention
from unmask.patches import patchify, unpatchify
from unmask.targets import KMeansTokens, NormalizedPixels

TOLERANCE = 1e-5
"""float32 against float64, or against float32 summed in another order."""

SHAPES = {"square": Problem(), "rectangle": Problem(size=Size(8, 20), channels=1)}


def build(problem: Problem = SHAPES["square"]) -> AutoregressiveImageModel:
    """A small model whose norms and biases are off 1 and 0, so that forgetting one is noticed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = AIM(head_dim=20, head_depth=2).build(problems.build_encoder(problem))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours.double(), theirs.double(), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("shape", SHAPES)
def test_guesses_and_gradients_equal_the_literal_version(shape: str) -> None:
    problem = SHAPES[shape]
    model, images = build(problem), problems.pictures(problem)
    patches = images.shape[2] * images.shape[3] // 16
    prefix = draw_prefixes(2, patches, problems.random(3))
    loss = model(problems.batch_of(images), problems.random(3)).total
    loss.backward()
    weights = {
        name: parameter.detach().double().requires_grad_()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    pixels = problems.normalized(images, problem.channels)
    expected, guesses = literal.aim(
        weights, pixels, prefix.tolist(), patch_size=4, heads=problem.heads
    )
    expected.backward()
    close(loss, expected)
    close(model.predict(images, prefix), guesses)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            truth = weights[name].grad
            assert parameter.grad is not None
            assert truth is not None
            close(parameter.grad, truth)


def changed_at(images: Tensor, places: list[int]) -> Tensor:
    """The images with other pixels in these patches."""
    patches = patchify(images, 4).clone()
    patches[:, places] = 255 - patches[:, places]
    return unpatchify(patches, 4, Size(4, 4))


@pytest.mark.parametrize("prefix", [1, 6, 15])
def test_later_patches_leak_nothing_into_earlier_guesses(prefix: int) -> None:
    """Not one bit: the guess for a patch stays when it and all after it become something else."""
    model, images = build(), problems.pictures(Problem())
    given = torch.tensor([prefix, prefix])
    before = model.predict(images, given)
    for place in range(prefix, 16):
        after = model.predict(changed_at(images, list(range(place, 16))), given)
        assert after[:, :place].equal(before[:, :place])  # guesses for patches 1 to `place`
        if place < 15:
            assert (after[:, place] - before[:, place]).abs().max() > 1e-4


def test_patches_of_the_prefix_see_one_another_and_none_after_it() -> None:
    model, images = build(), problems.pictures(Problem())
    attends = prefix_attention(torch.tensor([7, 7]), 17)  # a class token and six patches
    before = model.encoder.encode_attending(images, attends)
    inside = model.encoder.encode_attending(changed_at(images, [5]), attends)
    outside = model.encoder.encode_attending(changed_at(images, [6]), attends)
    assert ((inside.patches - before.patches).abs().amax(-1) > 1e-5).all()
    assert (inside.cls - before.cls).abs().max() > 1e-5
    assert outside.cls.equal(before.cls)
    assert outside.patches[:, :6].equal(before.patches[:, :6])
    assert ((outside.patches[:, 6:] - before.patches[:, 6:]).abs().amax(-1) > 1e-5).all()


def test_who_may_look_at_whom() -> None:
    """Three given of five: written out."""
    seen = prefix_attention(torch.tensor([3, 1]), 5).int().tolist()
    assert seen[0] == [[1, 1, 1, 0, 0]] * 3 + [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert seen[1] == torch.ones(5, 5).tril().int().tolist()


def test_everyone_seeing_everyone_is_how_the_encoder_is_used_afterwards() -> None:
    model, images = build(), problems.pictures(Problem())
    free = model.encoder.encode_attending(images, torch.ones(2, 17, 17, dtype=torch.bool))
    close(free.patches, model.encoder.encode(images).patches)


def test_tokens_that_nobody_asks_may_be_left_out() -> None:
    model, images = build(), problems.pictures(Problem())
    attends = prefix_attention(torch.tensor([7, 3]), 17)
    fewer = model.encoder.encode_attending(images, attends[:, :16, :16])
    close(fewer.patches, model.encoder.encode_attending(images, attends).patches[:, :15])


def test_only_patches_after_the_prefix_are_scored() -> None:
    model, images = build(), problems.pictures(Problem(), count=3)
    errors = model.errors(images, torch.tensor([1, 9, 15]))
    assert (errors > 0).sum(1).tolist() == [15, 7, 1]
    assert not errors[1, :8].any()


def test_a_step_in_parts_has_the_loss_of_the_whole() -> None:
    model, images = build(), problems.pictures(Problem(), count=4)
    numbers = torch.arange(4)
    whole = model(Batch((images,), numbers, numbers, 0), problems.random(2)).total
    parts = []
    for rows in (numbers[:2], numbers[2:]):
        part = Batch((images[rows],), rows, rows, 0, part=Part(rows, 4))
        parts.append(model(part, problems.random(2)).total)
    close(torch.stack(parts).mean(), whole)
    assert not torch.allclose(parts[0], parts[1])


def test_prefixes_are_as_likely_as_one_another() -> None:
    drawn = torch.bincount(draw_prefixes(15_000, 16, problems.random(0)), minlength=17)
    assert drawn[0] == drawn[16] == 0
    assert 850 < int(drawn[1:16].min()) <= int(drawn.max()) < 1150  # 1,000: five deviations
    with pytest.raises(SettingsError, match=r"one patch has no next patch.*--image-size"):
        draw_prefixes(2, 1, problems.random(0))


def test_bfloat16_scores_in_float32_near_the_exact_loss() -> None:
    model, images = build(), problems.pictures(Problem(), count=4)
    prefix = torch.tensor([3, 1, 9, 15])
    exact = model.errors(images, prefix)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.errors(images, prefix)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=0.05)  # 8 bits of mantissa


def test_codes_may_be_guessed_instead_of_pixels() -> None:
    spec = AIM(target=KMeansTokens(codes=5), head_dim=8, head_depth=1)
    model = spec.build(problems.build_encoder())
    images = problems.pictures(Problem())
    model.target.fit(torch.randn(40, 48, generator=problems.random(1)))
    loss = model(problems.batch_of(images), problems.random(2)).total.detach()
    assert 0.5 < float(loss) < 5  # ln 5 = 1.6 for a guess of nothing


def test_wrong_settings_are_refused() -> None:
    assert AIM().target == NormalizedPixels()
    with pytest.raises(SettingsError, match="head_depth must be at least 1, got 0; AIM uses 12"):
        AIM(head_depth=0)
