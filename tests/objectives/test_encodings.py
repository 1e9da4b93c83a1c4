"""Mask tokens in the encoder (MAE table 1c), against a literal version and by their properties."""

import math

import pytest
import torch
from reference import problems
from reference import replaced as literal
from reference.problems import Problem
from torch import Tensor

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.masking import PartitionMasking, RandomMasking
from unmask.masking.random import mask_from_noise
from unmask.objectives import MAE
from unmask.objectives.decoders import CrossAttentionDecoder, SelfAttentionDecoder
from unmask.objectives.mae import MaskedAutoencoder, Replaced, Visible, some_removed
from unmask.patches import pixels_of
from unmask.spec import from_json, to_json
from unmask.targets import NormalizedPixels, Pixels

TOLERANCE = 1e-5
"""float32 against float64, or against float32 summed in another order."""

SQUARE = Problem()
SHAPES = {
    "square": SQUARE,
    "rectangle": Problem(size=Size(8, 20)),
    "five channels": Problem(channels=5, ratio=0.5),
}


def build(
    problem: Problem = SQUARE, depth: int = 2, target: Pixels | None = None
) -> MaskedAutoencoder:
    """A small model whose norms and biases are off 1 and 0, so that forgetting one is noticed."""
    spec = MAE(
        masking=RandomMasking(ratio=problem.ratio),
        encoding=Replaced(),
        target=target or NormalizedPixels(),
        decoder=SelfAttentionDecoder(
            embed_dim=problem.decoder_width, depth=depth, num_heads=problem.decoder_heads
        ),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = spec.build(problems.build_encoder(problem))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours.double(), theirs.double(), atol=TOLERANCE, rtol=TOLERANCE)


def published_name(name: str) -> str:
    """The name that the literal version gives a parameter of ours."""
    return "mask_token" if name == "encoding.mask_token" else problems.published_name(name)


@pytest.mark.parametrize("target", [Pixels(), NormalizedPixels()], ids=["pixels", "normalized"])
@pytest.mark.parametrize(("shape", "depth"), [*((shape, 2) for shape in SHAPES), ("square", 1)])
def test_equals_the_literal_version(
    shape: str, depth: int, target: Pixels | NormalizedPixels
) -> None:
    problem = SHAPES[shape]
    model = build(problem, depth, target)
    images = problems.pictures(problem)
    grid = model.grid_of(images)
    noise = torch.rand(2, grid.height * grid.width, generator=problems.random(1))
    mask = mask_from_noise(noise, problem.ratio)
    encoded = model.encode(images, mask)
    loss = model.loss(images, mask)
    loss.backward()

    weights = {
        published_name(name): parameter.detach().double().requires_grad_()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    expected = literal.replaced(
        weights,
        problems.normalized(images, problem.channels),
        noise,
        patch_size=problem.patch_size,
        ratio=problem.ratio,
        heads=problem.heads,
        decoder_heads=problem.decoder_heads,
        normalized=isinstance(target, NormalizedPixels),
    )
    expected.loss.backward()

    close(torch.cat([encoded.cls, encoded.patches], 1), expected.latent)
    close(model.predict_all(images, mask), expected.prediction)
    close(loss, expected.loss)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            truth = weights[published_name(name)].grad
            assert parameter.grad is not None
            assert truth is not None
            close(parameter.grad, truth)


def test_hidden_pixels_move_nothing() -> None:
    """Not one bit, of tokens, their taps and guesses, when hidden pixels become noise, or NaN."""
    model = build()
    images = problems.pictures(SQUARE, count=3)
    mask = problems.mask_of(model, images, problems.random(0))
    hidden = pixels_of(mask.removed, 4, Size(4, 4))[:, None]
    noise = torch.where(hidden, problems.pictures(SQUARE, count=3, seed=9), images)
    assert not noise.equal(images)
    for one, other in zip(
        everything(model, images, mask), everything(model, noise, mask), strict=True
    ):
        assert one.equal(other)
    numbers = images.float() / 255
    spoilt = numbers.masked_fill(hidden, math.nan)
    for one, other in zip(
        everything(model, numbers, mask), everything(model, spoilt, mask), strict=True
    ):
        assert one.equal(other)


def everything(model: MaskedAutoencoder, images: Tensor, mask: object) -> tuple[Tensor, ...]:
    """Class tokens, patch tokens, inputs of both blocks, and guesses."""
    assert isinstance(model.encoding.mask_token, Tensor)
    encoded = model.encoder.encode_replaced(images, mask, model.encoding.mask_token, range(2))
    assert len(encoded.taps) == 2
    return encoded.cls, encoded.patches, *encoded.taps, model.predict(images, mask)


def test_kept_tokens_depend_on_the_mask_token_and_cannot_where_it_never_enters() -> None:
    model = build()
    images = problems.pictures(SQUARE)
    mask = problems.mask_of(model, images, problems.random(0))
    before = model.encode(images, mask).patches
    alone = model.encoder.encode_visible(images, mask).patches
    model.encoding.mask_token.data *= -2.0
    after = model.encode(images, mask).patches
    kept = mask.kept_index[..., None].expand(-1, -1, 24)
    assert ((before - after).gather(1, kept).abs().amax(-1) > 1e-3).all()
    assert model.encoder.encode_visible(images, mask).patches.equal(alone)


def test_there_is_one_mask_token_and_its_place_follows_the_encoding() -> None:
    visible = MAE().build(problems.build_encoder())
    tokens = [name for name, _ in build().named_parameters() if "mask_token" in name]
    assert tokens == ["encoding.mask_token"]
    assert [name for name in visible.state_dict() if "mask_token" in name] == ["decoder.mask_token"]
    assert not visible.encoding.state_dict()


def test_order_of_patches_within_the_mask_is_free() -> None:
    model = build()
    images = problems.pictures(SQUARE)
    mask = mask_from_noise(torch.rand(2, 16, generator=problems.random(3)), 0.5)
    turned = mask._replace(
        kept_index=mask.kept_index.flip(1), removed_index=mask.removed_index.roll(3, 1)
    )
    close(
        problems.errors_of(model, images, turned),
        problems.errors_of(model, images, mask).roll(3, 1),
    )
    close(model.encode(images, turned).patches, model.encode(images, mask).patches)


def test_several_masks_of_an_image_score_as_that_many_images() -> None:
    model = build()
    images = problems.pictures(SQUARE, count=3)
    mask = PartitionMasking(masks=2, ratio=0.5).sample(3, Size(4, 4), problems.random(2))
    alone = mask._replace(image=torch.arange(6))
    close(
        problems.errors_of(model, images, mask),
        problems.errors_of(model, images.repeat_interleave(2, dim=0), alone),
    )


def test_only_some_patches_need_be_scored() -> None:
    """The encoder sees a token for each hidden patch, scored or not; the decoder, those that are scored."""
    model = build()
    images = problems.pictures(SQUARE)
    mask = problems.mask_of(model, images, problems.random(0))
    some = some_removed(mask, 0.5)
    assert model.encode(images, some).patches.equal(model.encode(images, mask).patches)
    assert problems.errors_of(model, images, some).shape == (2, 6)


def test_bfloat16_scores_in_float32_near_the_exact_loss() -> None:
    model = build()
    images = problems.pictures(SQUARE, count=4)
    mask = problems.first_patches_kept(4, 16, 4)
    exact = problems.errors_of(model, images, mask)
    with torch.autocast("cpu", torch.bfloat16):
        rough = problems.errors_of(model, images, mask)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)  # 8 bits of mantissa


def test_a_decoder_with_tokens_of_its_own_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"its own mask tokens.*decoder:self-attention"):
        MAE(encoding=Replaced(), decoder=CrossAttentionDecoder())


def test_a_spec_from_before_there_was_a_choice_is_read_as_visible() -> None:
    old = to_json(MAE())
    del old["encoding"]
    assert from_json(MAE, old) == MAE(encoding=Visible())
