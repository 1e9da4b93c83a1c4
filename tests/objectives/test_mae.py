"""Masked autoencoders against a literal version written from the paper, and against published outputs."""

from typing import Any

import pytest
import torch
from reference import mae as literal
from reference import problems
from reference.problems import Problem
from torch import Tensor

from unmask.channels import Statistics
from unmask.contracts import Size
from unmask.encoders.vit import ViT
from unmask.errors import SettingsError
from unmask.masking import BlockMasking, GridMasking, PartitionMasking, RandomMasking
from unmask.masking.random import mask_from_noise
from unmask.masks import PatchMask
from unmask.objectives import MAE
from unmask.objectives.decoders import CrossAttentionDecoder, SelfAttentionDecoder
from unmask.objectives.mae import MaskedAutoencoder
from unmask.targets import NormalizedPixels, Pixels

TOLERANCE = 1e-5
"""float32 against float64, or against float32 summed in another order."""

SHAPES = {
    "square": Problem(),
    "rectangle": Problem(size=Size(8, 20)),
    "one channel": Problem(channels=1),
    "five channels": Problem(channels=5),
    "odd patch": Problem(size=Size(15, 10), patch_size=5, ratio=0.6),
}


def close(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(ours.double(), theirs.double(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("target", [Pixels(), NormalizedPixels()], ids=["pixels", "normalized"])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_literal_version(shape: str, target: Pixels | NormalizedPixels) -> None:
    problem = SHAPES[shape]
    model = problems.build(problem, target)
    images = problems.pictures(problem)
    patches = model.grid_of(images).height * model.grid_of(images).width
    noise = torch.rand(2, patches, generator=problems.random(1))

    mask = mask_from_noise(noise, problem.ratio)
    encoded = model.encoder.encode_visible(images, mask)
    loss = problems.errors_of(model, images, mask).mean()
    loss.backward()

    weights = {
        problems.published_name(name): parameter.detach().double().requires_grad_()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    expected = literal.mae(
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

    assert mask.removed.int().tolist() == expected.removed
    close(torch.cat([encoded.cls, encoded.patches], 1), expected.latent)
    close(model.predict_all(images, mask), expected.prediction)
    close(loss, expected.loss)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            truth = weights[problems.published_name(name)].grad
            assert truth is not None
            close(parameter.grad, truth)


@pytest.mark.parametrize("name", ["mae_tiny_pixel", "mae_tiny_normpix"])
def test_equals_the_published_code(name: str, vectors: Any) -> None:
    found, settings = vectors(name)
    model = from_vectors(found, settings)
    images = found["images"]
    mask = mask_from_noise(found["noise"], settings["mask_ratio"])

    encoded = model.encoder.encode_visible(images, mask)
    loss = problems.errors_of(model, images, mask).mean()
    loss.backward()

    assert torch.equal(mask.removed, found["mask"].bool())
    close(torch.cat([encoded.cls, encoded.patches], 1), found["latent"])
    close(model.predict_all(images, mask), found["pred"])
    close(loss, found["loss"].squeeze())
    parameters = dict(model.named_parameters())
    gradients = [key for key in found if key.startswith("grad.")]
    assert len(gradients) == 4
    for key in gradients:
        gradient = parameters[problems.our_name(key.removeprefix("grad."))].grad
        assert gradient is not None
        close(gradient, found[key])


@pytest.mark.parametrize("name", ["mae_tiny_pixel", "mae_tiny_normpix"])
def test_the_literal_version_equals_the_published_code(name: str, vectors: Any) -> None:
    found, settings = vectors(name)
    weights = {
        key.removeprefix("weights."): value.double().requires_grad_()
        for key, value in found.items()
        if key.startswith("weights.")
    }
    result = literal.mae(
        weights,
        found["images"].double(),
        found["noise"],
        patch_size=settings["patch_size"],
        ratio=settings["mask_ratio"],
        heads=settings["heads"],
        decoder_heads=settings["decoder_heads"],
        normalized=settings["norm_pix"],
    )
    result.loss.backward()
    close(result.loss, found["loss"].squeeze())
    close(result.latent, found["latent"])
    close(result.prediction, found["pred"])
    for key in (key for key in found if key.startswith("grad.")):
        gradient = weights[key.removeprefix("grad.")].grad
        assert gradient is not None
        close(gradient, found[key])


def from_vectors(found: dict[str, Tensor], settings: dict[str, Any]) -> MaskedAutoencoder:
    """A model with the published weights; mean 0 and deviation 1 leave the images as they are."""
    channels = settings["channels"]
    encoder = ViT(
        patch_size=settings["patch_size"],
        embed_dim=settings["dim"],
        depth=settings["depth"],
        num_heads=settings["heads"],
    ).build(
        Size(settings["image_size"], settings["image_size"]),
        channels,
        Statistics(torch.zeros(channels), torch.ones(channels)),
    )
    decoder = SelfAttentionDecoder(
        embed_dim=settings["decoder_dim"],
        depth=settings["decoder_depth"],
        num_heads=settings["decoder_heads"],
    )
    target = NormalizedPixels() if settings["norm_pix"] else Pixels()
    model = MAE(target=target, decoder=decoder).build(encoder)
    state = {
        problems.our_name(key.removeprefix("weights.")): value
        for key, value in found.items()
        if key.startswith("weights.")
    }
    state |= {"encoder.mean": encoder.mean, "encoder.std": encoder.std}
    model.load_state_dict(state, strict=True)
    return model


@pytest.mark.parametrize(
    "masking", [RandomMasking(), BlockMasking(), GridMasking()], ids=["random", "block", "grid"]
)
def test_loss_is_the_mean_over_removed_patches(masking: Any) -> None:
    problem = Problem()
    model = MAE(
        masking=masking, decoder=SelfAttentionDecoder(embed_dim=16, depth=1, num_heads=2)
    ).build(problems.build_encoder(problem))
    images = problems.pictures(problem, count=3)
    loss = model(problems.batch_of(images), problems.random(4))
    mask = masking.sample(3, Size(4, 4), problems.random(4))
    by_hand = [
        problems.errors_of(
            model, images[i : i + 1], PatchMask.of(mask.removed[i : i + 1])
        ).flatten()
        for i in range(3)
    ]
    close(loss.total, torch.cat(by_hand).mean())
    assert loss.total.dtype == torch.float32


@pytest.mark.parametrize("decoder", [SelfAttentionDecoder, CrossAttentionDecoder])
def test_visible_patches_count_for_their_weight(decoder: Any) -> None:
    problem = Problem()
    built = MAE(visible_weight=0.1, decoder=decoder(embed_dim=16, depth=2, num_heads=2)).build(
        problems.build_encoder(problem)
    )
    images = problems.pictures(problem, count=3)
    loss = built(problems.batch_of(images), problems.random(4))
    mask = RandomMasking().sample(3, Size(4, 4), problems.random(4))
    everywhere = built.predict_all(images, mask)
    errors: list[list[Tensor]] = [[], []]
    for row in range(3):
        for patch in range(16):
            alone = PatchMask.of(torch.arange(16)[None] == patch)
            truth = built.target(images[row : row + 1], alone, built.encoder.statistics)
            error = ((everywhere[row, patch] - truth[0, 0]) ** 2).mean()
            errors[int(mask.removed[row, patch])].append(error)
    seen, hidden = (torch.stack(each).mean() for each in errors)
    close(loss.total, hidden + 0.1 * seen)
    close(loss.parts["hidden"], hidden)
    close(loss.parts["visible"], seen)


def test_visible_patches_cannot_count_when_few_are_rebuilt() -> None:
    with pytest.raises(
        SettingsError, match=r"visible_weight 0.1 rebuilds all patches, and predicted 0.5"
    ):
        MAE(visible_weight=0.1, predicted=0.5)


def test_equal_generators_give_equal_losses_and_others_do_not() -> None:
    model = problems.build()
    batch = problems.batch_of(problems.pictures(Problem(), count=4))
    first, again, other = (model(batch, problems.random(seed)).total for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_order_of_patches_within_the_mask_is_free() -> None:
    model = problems.build()
    images = problems.pictures(Problem())
    mask = mask_from_noise(torch.rand(2, 16, generator=problems.random(3)), 0.5)
    turned = mask._replace(
        kept_index=mask.kept_index.flip(1), removed_index=mask.removed_index.roll(3, 1)
    )
    close(
        problems.errors_of(model, images, turned),
        problems.errors_of(model, images, mask).roll(3, 1),
    )
    close(model.predict_all(images, turned), model.predict_all(images, mask))


def test_predict_all_agrees_with_predict_on_hidden_patches() -> None:
    model = problems.build()
    images = problems.pictures(Problem())
    mask = mask_from_noise(torch.rand(2, 16, generator=problems.random(3)), 0.75)
    everywhere = model.predict_all(images, mask)
    hidden = everywhere.gather(
        1, mask.removed_index[..., None].expand(-1, -1, everywhere.shape[-1])
    )
    close(hidden, model.predict(images, mask))


def test_a_guess_of_nothing_scores_as_the_paper_s_arithmetic_says() -> None:
    """Normalised patches of p values have a mean square of (p - 1) / p."""
    model = problems.build()
    images = problems.pictures(Problem())
    mask = problems.first_patches_kept(2, 16, 4)
    truth = model.target(images, mask, model.encoder.statistics)
    error = model.target.loss(torch.zeros_like(truth), truth)
    close(error, torch.full_like(error, 47 / 48))


def test_decoder_takes_images_of_another_size() -> None:
    model = problems.build()
    images = problems.pictures(Problem(size=Size(24, 12)))
    mask = problems.mask_of(model, images, problems.random(0))
    assert mask.removed.shape == (2, 18)
    assert torch.isfinite(problems.errors_of(model, images, mask)).all()


def test_bfloat16_scores_in_float32_near_the_exact_loss() -> None:
    model = problems.build()
    images = problems.pictures(Problem(), count=4)
    mask = problems.first_patches_kept(4, 16, 4)
    exact = problems.errors_of(model, images, mask)
    with torch.autocast("cpu", torch.bfloat16):
        rough = problems.errors_of(model, images, mask)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)  # 8 bits of mantissa


def test_several_masks_of_an_image_score_as_that_many_images() -> None:
    model = problems.build()
    images = problems.pictures(Problem(), count=3)
    mask = PartitionMasking(masks=2, ratio=0.5).sample(3, Size(4, 4), problems.random(2))
    repeated = images.repeat_interleave(2, dim=0)
    alone = mask._replace(image=torch.arange(6))
    assert mask.image.tolist() == [0, 0, 1, 1, 2, 2]
    close(problems.errors_of(model, images, mask), problems.errors_of(model, repeated, alone))
    close(model.loss(images, mask), model.loss(repeated, alone))
    close(model.predict_all(images, mask), model.predict_all(repeated, alone))


def test_several_masks_drawn_in_micro_batches_are_those_of_the_whole() -> None:
    spec = MAE(
        masking=PartitionMasking(), decoder=SelfAttentionDecoder(embed_dim=16, depth=1, num_heads=2)
    )
    model = spec.build(problems.build_encoder(Problem()))
    images = problems.pictures(Problem(), count=4)
    whole, parts = problems.random(6), problems.random(6)
    loss = model(problems.batch_of(images), whole).total
    halves = [model(problems.batch_of(images[i : i + 2]), parts).total for i in (0, 2)]
    close(loss, torch.stack(halves).mean())
