"""CrossMAE's decoder and partial prediction, against a literal version and by their properties."""

from dataclasses import replace

import pytest
import torch
from reference import crossmae as literal
from reference import problems
from reference.problems import Problem
from torch import Tensor

from unmask.contracts import Size
from unmask.errors import SettingsError
from unmask.masking import BlockMasking, RandomMasking
from unmask.masking.random import mask_from_noise
from unmask.objectives import MAE
from unmask.objectives.decoders import CrossAttentionDecoder, SelfAttentionDecoder
from unmask.objectives.mae import MaskedAutoencoder, some_removed
from unmask.targets import NormalizedPixels, Pixels

TOLERANCE = 1e-5
"""float32 against float64."""

SQUARE = Problem()
SHAPES = {"square": SQUARE, "rectangle": Problem(size=Size(8, 20), channels=1)}
CROSS = CrossAttentionDecoder(embed_dim=16, depth=3, num_heads=2)
CROSSED = MAE(decoder=CROSS)


def build(problem: Problem = SQUARE, spec: MAE = CROSSED) -> MaskedAutoencoder:
    """A small model whose norms and biases are off 1 and 0, so that forgetting one is noticed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = spec.build(problems.build_encoder(problem))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours.double(), theirs.double(), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("target", [Pixels(), NormalizedPixels()], ids=["pixels", "normalized"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("predicted", [1 / 3, 1.0])
def test_loss_and_gradients_equal_the_literal_version(
    shape: str, target: Pixels | NormalizedPixels, predicted: float
) -> None:
    problem = SHAPES[shape]
    model = build(problem, MAE(decoder=CROSS, target=target, predicted=predicted))
    images = problems.pictures(problem)
    grid = model.grid_of(images)
    noise = torch.rand(2, grid.height * grid.width, generator=problems.random(1))
    mask = some_removed(mask_from_noise(noise, problem.ratio), predicted)
    loss = model.loss(images, mask)
    loss.backward()

    weights = {
        name: parameter.detach().double().requires_grad_()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    expected = literal.crossmae(
        weights,
        problems.normalized(images, problem.channels),
        mask.kept_index.tolist(),
        mask.removed_index.tolist(),
        patch_size=problem.patch_size,
        heads=problem.heads,
        decoder_heads=CROSS.num_heads,
        normalized=isinstance(target, NormalizedPixels),
    )
    expected.loss.backward()

    close(loss, expected.loss)
    close(model.predict(images, mask), expected.prediction)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            truth = weights[name].grad
            assert parameter.grad is not None
            assert truth is not None
            assert truth.abs().max() > 0, name
            close(parameter.grad, truth)


def test_a_guess_does_not_depend_on_what_else_is_rebuilt() -> None:
    model = build()
    images = problems.pictures(Problem())
    mask = mask_from_noise(torch.rand(2, 16, generator=problems.random(2)), 0.75)
    few = mask._replace(removed_index=mask.removed_index[:, 5:7])
    close(model.predict(images, few), model.predict(images, mask)[:, 5:7])


def test_a_self_attention_decoder_does_depend_on_it() -> None:
    model = build(spec=MAE(decoder=SelfAttentionDecoder(embed_dim=16, depth=2, num_heads=2)))
    images = problems.pictures(Problem())
    mask = mask_from_noise(torch.rand(2, 16, generator=problems.random(2)), 0.75)
    few = mask._replace(removed_index=mask.removed_index[:, 5:7])
    apart = model.predict(images, few) - model.predict(images, mask)[:, 5:7]
    assert apart.abs().max() > 1e-3


def test_predict_all_agrees_with_predict_on_hidden_patches() -> None:
    model = build()
    images = problems.pictures(Problem())
    mask = mask_from_noise(torch.rand(2, 16, generator=problems.random(3)), 0.75)
    everywhere = model.predict_all(images, mask)
    assert everywhere.shape == (2, 16, 48)
    hidden = everywhere.gather(1, mask.removed_index[..., None].expand(-1, -1, 48))
    close(hidden, model.predict(images, mask))


def test_decoder_takes_images_of_another_size() -> None:
    model = build()
    images = problems.pictures(Problem(size=Size(24, 12)))
    mask = problems.mask_of(model, images, problems.random(0))
    assert torch.isfinite(problems.errors_of(model, images, mask)).all()


def test_bfloat16_scores_in_float32_near_the_exact_loss() -> None:
    model = build()
    images = problems.pictures(Problem(), count=4)
    mask = problems.first_patches_kept(4, 16, 4)
    exact = problems.errors_of(model, images, mask)
    with torch.autocast("cpu", torch.bfloat16):
        rough = problems.errors_of(model, images, mask)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)  # 8 bits of mantissa


def test_a_third_of_147_hidden_patches_is_49() -> None:
    mask = RandomMasking().sample(3, Size(14, 14), problems.random(0))
    assert some_removed(mask, 1 / 3).removed_index.shape == (3, 49)
    assert some_removed(mask, 1e-9).removed_index.shape == (3, 1)
    assert some_removed(mask, 1.0).removed_index.equal(mask.removed_index)


@pytest.mark.parametrize("masking", [RandomMasking(), BlockMasking()], ids=["random", "block"])
def test_the_loss_is_of_the_patches_that_are_rebuilt_alone(
    masking: RandomMasking | BlockMasking,
) -> None:
    model = build(spec=MAE(decoder=CROSS, masking=masking, predicted=0.5))
    images = problems.pictures(Problem(), count=3)
    loss = model(problems.batch_of(images), problems.random(4)).total
    mask = masking.sample(3, Size(4, 4), problems.random(4))
    errors = problems.errors_of(model, images, mask)
    half = errors.shape[1] // 2
    close(loss, errors[:, :half].mean())
    assert (loss - errors.mean()).abs() > 1e-4


def test_micro_batches_rebuild_the_patches_of_the_whole_batch() -> None:
    model = build(spec=MAE(decoder=CROSS, predicted=0.5))
    images = problems.pictures(Problem(), count=4)
    whole, parts = problems.random(6), problems.random(6)
    loss = model(problems.batch_of(images), whole).total
    halves = [model(problems.batch_of(images[i : i + 2]), parts).total for i in (0, 2)]
    close(loss, torch.stack(halves).mean())


@pytest.mark.parametrize("predicted", [0.0, -0.5, 1.5])
def test_a_senseless_share_is_refused(predicted: float) -> None:
    with pytest.raises(
        SettingsError,
        match=r"predicted must be above 0 and at most 1, got .*; CrossMAE predicts a third",
    ):
        MAE(predicted=predicted)


def test_a_senseless_decoder_is_refused() -> None:
    with pytest.raises(SettingsError, match="depth must be at least 1, got 0; CrossMAE uses 12"):
        replace(CROSS, depth=0)
    with pytest.raises(SettingsError, match="a multiple of num_heads, got 16 and 3"):
        replace(CROSS, num_heads=3)
