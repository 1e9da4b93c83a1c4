"""Latent targets against a literal version, and who learns from whom."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import problems
from reference.problems import Problem
from torch import Tensor
from torch.nn import functional as F

from unmask.contracts import Batch, Moment, Part, Size
from unmask.errors import SettingsError
from unmask.masking import InverseBlockMasking, PartitionMasking, RandomMasking
from unmask.masks import PatchMask
from unmask.objectives.latent import Latent, LatentPrediction
from unmask.training.loop import Planned, train

SPEC = Latent(
    masking=InverseBlockMasking(ratio=0.7, side=2),
    masks=3,
    target_blocks=2,
    decoder_dim=16,
    decoder_depth=3,
    decoder_groups=4,
    noise=0.3,
    class_weight=0.2,
)
SHAPES = {"square": Problem(), "rectangle": Problem(size=Size(8, 20), channels=1)}


def build(spec: Latent = SPEC, problem: Problem = SHAPES["square"]) -> LatentPrediction:
    """A small model whose teacher is another than the student, and whose norms and biases are off 1 and 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = spec.build(problems.build_encoder(problem))
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model.train()


def literal_blocks(encoder: Any, images: Tensor) -> list[Tensor]:
    """What each block makes of whole images, class token first."""
    tokens, outputs = encoder.embed(images), []
    for block in encoder.blocks:
        tokens = block(tokens)
        outputs.append(tokens)
    return outputs


def literal_target(model: LatentPrediction, image: Tensor, blocks: int) -> Tensor:
    """Of one image, in the words of the paper: average of instance-normed outputs, then layer-normed."""
    total = torch.zeros(())
    for output in literal_blocks(model.teacher, image[None])[-blocks:]:
        patches = output[0, 1:]
        spread = patches.var(0, unbiased=False)
        total = total + (patches - patches.mean(0)) / (spread + 1e-5).sqrt()
    mean = total / blocks
    spread = mean.var(1, unbiased=False, keepdim=True)
    return (mean - mean.mean(1, keepdim=True)) / (spread + 1e-5).sqrt()


def literal_guesses(
    model: LatentPrediction, encoded: Tensor, kept: list[int], hidden: dict[int, Tensor], grid: Size
) -> Tensor:
    """The decoder over one mask: tokens laid out on the grid, one convolution for each group of channels."""
    laid = torch.zeros(encoded.shape[1], grid.height, grid.width)
    for token, place in zip(encoded, kept, strict=True):
        laid[:, place // grid.width, place % grid.width] = token
    for place, noise in hidden.items():
        laid[:, place // grid.width, place % grid.width] = noise
    for block in model.decoder.blocks:
        conv: Any = block.conv
        parts = [
            F.conv2d(piece[None], weight, bias, padding=1)[0]
            for piece, weight, bias in zip(
                laid.chunk(4), conv.weight.chunk(4), conv.bias.chunk(4), strict=True
            )
        ]
        new = torch.cat(parts)
        spread = new.var(0, unbiased=False)
        new = F.gelu((new - new.mean(0)) / (spread + 1e-5).sqrt())
        laid = laid + new if len(laid) == len(new) else new
    return model.decoder.pred(laid.flatten(1).T)


def literal_loss(
    model: LatentPrediction, images: Tensor, mask: PatchMask, noise: Tensor, grid: Size
) -> Tensor:
    """One mask of one image after the other, one hidden patch after the other."""
    errors: list[Tensor] = []
    classes: list[Tensor] = []
    for row, number in enumerate(mask.image.tolist()):
        image, kept = images[number], mask.kept_index[row].tolist()
        removed = mask.removed_index[row].tolist()
        target = literal_target(model, image, 2).detach()
        # the student by the published steps: all patches are embedded, the kept ones are taken
        encoder = model.encoder
        tokens = encoder.embed(image[None])[0]
        tokens = tokens[[0, *[1 + place for place in kept]]][None]
        for block in encoder.blocks:
            tokens = block(tokens)
        tokens = encoder.norm(tokens)[0]
        hidden = dict(zip(removed, noise[row], strict=True))
        guesses = literal_guesses(model, tokens[1:], kept, hidden, grid)
        errors += [(guesses[place] - target[place]).square().mean() for place in removed]
        classes.append((tokens[0] - target.mean(0)).square().mean())
    return torch.stack(errors).mean() + 0.2 * torch.stack(classes).mean()


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_are_those_of_the_literal_version(shape: str) -> None:
    problem = SHAPES[shape]
    images = problems.pictures(problem)
    grid = Size(problem.size.height // 4, problem.size.width // 4)
    ours, theirs = build(problem=problem), build(problem=problem)
    mask, noise = ours.sample(problems.batch_of(images), problems.random(3))
    loss = ours(problems.batch_of(images), problems.random(3)).total
    expected = literal_loss(theirs, images, mask, noise, grid)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    loss.backward()
    expected.backward()
    for (name, one), other in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        if one.requires_grad:
            assert one.grad is not None, name
            assert other[1].grad is not None, name
            torch.testing.assert_close(one.grad, other[1].grad, atol=1e-5, rtol=1e-4, msg=name)


def test_target_has_no_mean_and_unit_deviation_and_learns_nothing() -> None:
    model, images = build(), problems.pictures(Problem(), count=3)
    target = model.target(images)
    assert not target.requires_grad
    assert target.shape == (3, 16, 24)
    torch.testing.assert_close(target.mean(-1), torch.zeros(3, 16), atol=1e-6, rtol=0)
    torch.testing.assert_close(target.var(-1, unbiased=False), torch.ones(3, 16), atol=1e-3, rtol=0)
    one = build(replace(SPEC, target_blocks=1)).target(images)
    torch.testing.assert_close(one[1], literal_target(model, images[1], 1), atol=1e-5, rtol=1e-5)


def test_no_gradient_reaches_the_teacher_and_the_student_has_one() -> None:
    model = build()
    model(problems.batch_of(problems.pictures(Problem())), problems.random(0)).total.backward()
    assert all(parameter.grad is None for parameter in model.teacher.parameters())
    for name, parameter in [*model.encoder.named_parameters(), *model.decoder.named_parameters()]:
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert bool(parameter.grad.any()), name


def test_the_target_is_a_constant_to_the_loss_even_of_a_teacher_that_could_learn() -> None:
    """The very encoder as teacher: were the target not cut off, gradients would pass through it."""
    images = problems.pictures(Problem())
    gradients: list[Tensor] = []
    for same in (False, True):
        model = build()
        model.begin()
        if same:
            model.teacher = model.encoder
        model(problems.batch_of(images), problems.random(1)).total.backward()
        gradient = model.encoder.blocks[0].get_parameter("attn.qkv.weight").grad
        assert gradient is not None
        gradients.append(gradient)
    assert gradients[0].equal(gradients[1])


@pytest.mark.parametrize("masks", [1, 5])
def test_the_teacher_looks_once_at_each_image_whatever_the_masks(masks: int) -> None:
    model, seen = build(replace(SPEC, masks=masks)), {"teacher": [], "student": []}
    for name, encoder in (("teacher", model.teacher), ("student", model.encoder)):
        encoder.norm.register_forward_hook(
            lambda _, given, __, name=name: seen[name].append(tuple(given[0].shape[:2]))
        )
    model(problems.batch_of(problems.pictures(Problem(), count=3)), problems.random(0))
    assert seen == {"teacher": [(3, 17)], "student": [(3 * masks, 1 + 4)]}


def test_hidden_pixels_reach_the_target_alone() -> None:
    """Each image its own mask: other pixels where it hides move no guess, and move the target."""
    model, images = build(replace(SPEC, masks=1)), problems.pictures(Problem(), count=4)
    mask, noise = model.sample(problems.batch_of(images), problems.random(2))
    hidden = mask.removed.view(4, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    changed = torch.where(hidden, 255 - images, images)
    guesses = [
        model.decoder(model.encoder.encode_visible(each, mask), mask, noise, Size(4, 4))
        for each in (images, changed)
    ]
    assert guesses[0].equal(guesses[1])
    assert (model.target(images) - model.target(changed)).abs().max() > 0.1


@pytest.mark.parametrize("masking", [RandomMasking(), PartitionMasking(masks=2)])
def test_masks_of_an_image_lie_side_by_side_and_are_drawn_for_the_whole_step(masking: Any) -> None:
    model, images = build(replace(SPEC, masking=masking)), problems.pictures(Problem(), count=4)
    mask, noise = model.sample(problems.batch_of(images), problems.random(2))
    each = 3 * (2 if isinstance(masking, PartitionMasking) else 1)
    assert mask.image.tolist() == [image for image in range(4) for _ in range(each)]
    assert len(mask.removed.unique(dim=0)) > 4 * each // 2  # not one mask over and over
    rows = torch.tensor([3, 1])
    part = Batch((images[rows],), rows, rows, 0, part=Part(rows, 4))
    some, their_noise = model.sample(part, problems.random(2))
    assert some.image.tolist() == [0] * each + [1] * each
    whole = torch.cat([torch.arange(each) + each * row for row in rows.tolist()])
    assert some.kept_index.equal(mask.kept_index[whole])
    assert some.removed_index.equal(mask.removed_index[whole])
    assert their_noise.equal(noise[whole])


def test_noise_has_the_deviation_asked_for() -> None:
    model = build(replace(SPEC, noise=0.01))
    _, noise = model.sample(problems.batch_of(problems.pictures(Problem(), 40)), problems.random(0))
    assert float(noise.std()) == pytest.approx(0.01, rel=0.03)
    assert abs(float(noise.mean())) < 3e-4
    assert len(noise.flatten(0, 1).unique(dim=0)) > 500  # of 1,320 places and 1,024 draws


def stepped(model: LatentPrediction, steps: int, micro_batch: int) -> list[dict[str, float]]:
    """So many steps of the loop: what each reports."""
    images = problems.pictures(Problem(), count=4)

    def batches() -> Iterator[Batch]:
        while True:
            yield problems.batch_of(images)

    optimizer = torch.optim.SGD(model.parameters())
    reports = train(
        model, batches(), optimizer, Planned(steps, lambda _: 1e-2), first_step=0, seed=0,
        device=torch.device("cpu"), precision="float32", micro_batch=micro_batch,
    )  # fmt: skip
    return [
        {"loss": r.loss.item(), **{name: part.item() for name, part in r.parts.items()}}
        for r in reports
    ]


def test_micro_batches_give_the_same_losses_and_weights() -> None:
    whole, parts = build(), build()
    expected, found = stepped(whole, 2, micro_batch=4), stepped(parts, 2, micro_batch=2)
    for one, other in zip(expected, found, strict=True):
        assert other == pytest.approx(one, rel=1e-5)
        assert one["loss"] == pytest.approx(one["patches"] + 0.2 * one["class_token"], rel=1e-5)
    for (name, one), other in zip(
        whole.state_dict().items(), parts.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4, msg=name)


def test_the_teacher_follows_the_student() -> None:
    model = build(replace(SPEC, first_momentum=0.6))
    old = {name: value.clone() for name, value in model.teacher.named_parameters()}
    stepped(model, 1, micro_batch=4)
    new = dict(model.encoder.named_parameters())
    for name, slow in model.teacher.named_parameters():
        torch.testing.assert_close(slow, 0.6 * old[name] + 0.4 * new[name])
    model.begin()
    assert all(slow.equal(new[name]) for name, slow in model.teacher.named_parameters())


@pytest.mark.parametrize(
    ("step", "momentum"), [(0, 0.9998), (50_000, 0.999895), (100_000, 0.99999), (300_000, 0.99999)]
)
def test_momentum_at_named_steps(step: int, momentum: float) -> None:
    """Of 375,000: from 0.9998 to 0.99999 in a line over 100,000 steps."""
    assert Latent().momentum_at(step / 375_000) == pytest.approx(momentum, abs=1e-9)
    assert Latent(rising_share=0.0).momentum_at(0.0) == 0.99999


def test_the_moment_says_how_far_the_rise_is() -> None:
    model = build(replace(SPEC, first_momentum=0.5, last_momentum=1.0, rising_share=0.5))
    with torch.no_grad():
        model.teacher.cls_token.zero_()
    model.after_step(Moment(step=1, steps=4, epoch=0))
    torch.testing.assert_close(model.teacher.cls_token, 0.25 * model.encoder.cls_token)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"masks": 0}, "masks must be at least 1, got 0"),
        ({"decoder_dim": 18}, "decoder_dim must be a multiple of decoder_groups, got 18 and 4"),
        ({"noise": -0.1}, "noise must not be negative, got -0.1"),
        ({"last_momentum": 1.1}, "last_momentum must lie between 0 and 1, got 1.1"),
        (
            {"target_blocks": 3},
            "target_blocks is 3, but the encoder has only 2 blocks; use at most",
        ),
        ({"decoder_dim": 20, "decoder_groups": 5}, "divide the encoder's width, got 5 and 24"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        replace(SPEC, **wrong).build(problems.build_encoder())


def test_bfloat16_scores_in_float32_near_the_exact_loss() -> None:
    model, batch = build(), problems.batch_of(problems.pictures(Problem(), count=4))
    exact = model(batch, problems.random(0)).total
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(batch, problems.random(0)).total
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0, rtol=0.03)  # 8 bits of mantissa


def test_missing_pixels_count_as_the_mean() -> None:
    model, images = build(), problems.pictures(Problem()).float() / 255
    images[0, :, :8, :8] = float("nan")
    known = images.clone()
    known[0, :, :8, :8] = model.encoder.mean[:, None, None]
    loss = model(problems.batch_of(images), problems.random(0)).total
    assert loss.isfinite()
    torch.testing.assert_close(loss, model(problems.batch_of(known), problems.random(0)).total)
