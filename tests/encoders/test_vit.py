"""The plain Vision Transformer: published features, initialisation, and what it may see."""

import math
from typing import Any

import pytest
import torch
from reference import problems
from reference.problems import Problem
from torch import nn

from unmask.channels import Statistics
from unmask.contracts import Size
from unmask.encoders import ViT
from unmask.encoders.layers import Attention, Block
from unmask.encoders.vit import VIT_B16, VIT_H14, VIT_L16, VIT_S16, VIT_TI16, VisionTransformer
from unmask.errors import SettingsError
from unmask.masking import AnyMasking
from unmask.masking.random import mask_from_noise
from unmask.masks import PatchMask
from unmask.objectives import MAE
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.objectives.mae import MaskedAutoencoder
from unmask.spec import kinds

MASKINGS = kinds(AnyMasking)
PLAIN = Statistics(torch.zeros(3), torch.ones(3))


def test_equals_published_features(vectors: Any) -> None:
    found, _ = vectors("vit_probe")
    encoder = ViT(patch_size=8, embed_dim=48, depth=2, num_heads=3).build(Size(32, 32), 3, PLAIN)
    state = {
        key.removeprefix("weights."): value
        for key, value in found.items()
        if key.startswith("weights.") and not key.startswith("weights.head.")
    }
    encoder.load_state_dict(state | {"mean": encoder.mean, "std": encoder.std}, strict=True)
    feature = encoder.encode(found["images"]).cls[:, 0]
    torch.testing.assert_close(feature, found["feature"], atol=1e-5, rtol=1e-5)  # float32


@pytest.mark.parametrize("name", MASKINGS)
@pytest.mark.parametrize("size", [Size(16, 16), Size(24, 16)], ids=str)
def test_hidden_pixels_cannot_reach_the_encoder(name: str, size: Size) -> None:
    """Not one bit moves when hidden pixels become noise, or even NaN."""
    problem = Problem(size=size)
    encoder = problems.build_encoder(problem)
    mask = MASKINGS[name]().sample(3, encoder.mask_grid(size), problems.random(2))
    hidden = pixels_of(mask, size, problem.patch_size)
    rows = len(mask.image)
    mask = mask._replace(image=torch.arange(rows))  # each row of several masks gets its own image

    images = problems.pictures(problem, count=rows)
    other = problems.pictures(problem, count=rows, seed=9)
    changed = torch.where(hidden, other, images)
    assert not torch.equal(changed, images)
    for left, right in zip(
        encoder.encode_visible(images, mask)[:2],
        encoder.encode_visible(changed, mask)[:2],
        strict=True,
    ):
        assert torch.equal(left, right)

    reals = images.float() / 255
    spoilt = reals.masked_fill(hidden, math.nan)
    for left, right in zip(
        encoder.encode_visible(reals, mask)[:2],
        encoder.encode_visible(spoilt, mask)[:2],
        strict=True,
    ):
        assert torch.equal(left, right)


@pytest.mark.parametrize("name", MASKINGS)
def test_visible_pixels_do_reach_it(name: str) -> None:
    problem = Problem()
    encoder = problems.build_encoder(problem)
    mask = MASKINGS[name]().sample(3, Size(4, 4), problems.random(2))
    hidden = pixels_of(mask, problem.size, problem.patch_size)
    images = problems.pictures(problem, count=3)[mask.image]
    mask = mask._replace(image=torch.arange(len(images)))
    other = torch.where(hidden, images, 255 - images)
    before, after = encoder.encode_visible(images, mask), encoder.encode_visible(other, mask)
    moved = (before.patches - after.patches).abs().amax(-1)
    assert (moved > 1e-4).all()


def pixels_of(mask: PatchMask, size: Size, patch_size: int) -> torch.Tensor:
    """Which pixels are hidden, [m 1 h w]."""
    rows, columns = size.height // patch_size, size.width // patch_size
    hidden = torch.zeros(len(mask.removed), 1, *size, dtype=torch.bool)
    for image, patches in enumerate(mask.removed.tolist()):
        for number, removed in enumerate(patches):
            row, column = divmod(number, columns)
            assert row < rows
            top, left = row * patch_size, column * patch_size
            hidden[image, 0, top : top + patch_size, left : left + patch_size] = removed
    return hidden


def test_permuting_images_permutes_results() -> None:
    problem = Problem()
    encoder = problems.build_encoder(problem)
    images = problems.pictures(problem, count=5)
    order = torch.tensor([3, 0, 4, 1, 2])
    removed = mask_from_noise(torch.rand(5, 16, generator=problems.random(0)), 0.5).removed
    straight = encoder.encode_visible(images, PatchMask.of(removed))
    turned = encoder.encode_visible(images[order], PatchMask.of(removed[order]))
    for left, right in zip(straight[:2], turned[:2], strict=True):
        torch.testing.assert_close(
            right, left[order], atol=1e-6, rtol=1e-6
        )  # sums in another order
    whole, mixed = encoder.encode(images), encoder.encode(images[order])
    torch.testing.assert_close(mixed.patches, whole.patches[order], atol=1e-6, rtol=1e-6)


def test_several_masks_of_one_image() -> None:
    """Rows of a mask name their image, so an image may have more than one."""
    problem = Problem()
    encoder = problems.build_encoder(problem)
    images = problems.pictures(problem, count=2)
    mask = mask_from_noise(torch.rand(4, 16, generator=problems.random(0)), 0.5)
    both = encoder.encode_visible(images, mask._replace(image=torch.tensor([1, 0, 1, 1])))
    alone = encoder.encode_visible(images[[1, 0, 1, 1]], mask)
    torch.testing.assert_close(both.patches, alone.patches, atol=1e-6, rtol=1e-6)


def test_hiding_nothing_equals_encoding_the_whole() -> None:
    problem = Problem()
    encoder = problems.build_encoder(problem)
    images = problems.pictures(problem)
    everything = torch.arange(16).expand(2, -1)
    none = PatchMask(
        torch.arange(2), torch.zeros(2, 16, dtype=torch.bool), everything, everything[:, :0]
    )
    for left, right in zip(
        encoder.encode_visible(images, none), encoder.encode(images), strict=True
    ):
        torch.testing.assert_close(left, right, atol=1e-6, rtol=1e-6)


def test_bytes_equal_their_reals() -> None:
    problem = Problem()
    encoder = problems.build_encoder(problem)
    images = problems.pictures(problem)
    from_bytes, from_reals = encoder.encode(images), encoder.encode(images.float() / 255)
    torch.testing.assert_close(from_bytes.patches, from_reals.patches, atol=1e-5, rtol=1e-5)


def test_late_queries_equal_the_end_of_all_queries() -> None:
    torch.manual_seed(0)
    block = Block(24, 3, 4.0)
    tokens = torch.randn(2, 7, 24)
    torch.testing.assert_close(block(tokens, 4), block(tokens)[:, 4:], atol=1e-6, rtol=1e-6)


# Initialisation: METHODS appendix A.1 of the paper, checked by the moments and bounds of the draws.


@pytest.fixture(scope="module")
def fresh() -> MaskedAutoencoder:
    """A model as drawn, wide enough for moments to be told apart."""
    torch.manual_seed(0)
    encoder = ViT(patch_size=8, embed_dim=192, depth=2, num_heads=3).build(Size(32, 32), 3, PLAIN)
    return MAE(decoder=SelfAttentionDecoder(embed_dim=128, depth=2, num_heads=4)).build(encoder)


def assert_uniform(weight: torch.Tensor, bound: float) -> None:
    """Uniform on [-bound, bound]: never outside, nearly reached, with the right deviation and mean."""
    assert weight.abs().max().item() <= bound
    assert weight.abs().max().item() > 0.99 * bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert abs(weight.mean().item()) < 5 * bound / math.sqrt(3 * weight.numel())


def test_linear_layers_are_xavier_uniform(fresh: MaskedAutoencoder) -> None:
    seen = 0
    for part in fresh.modules():
        if isinstance(part, nn.Linear):
            rows, columns = part.weight.shape  # the fused query-key-value matrix counts as one
            assert_uniform(part.weight, math.sqrt(6 / (rows + columns)))
            assert not part.bias.any()
            seen += 1
    assert seen == 2 * 4 + 2 * 4 + 2


def test_fused_query_key_value_is_one_matrix(fresh: MaskedAutoencoder) -> None:
    weight = fresh.get_parameter("encoder.blocks.0.attn.qkv.weight")
    for part in weight.chunk(3):  # drawn apart, the bound would be sqrt(6 / 2d)
        assert_uniform(part, math.sqrt(6 / (4 * 192)))


def test_patch_projection(fresh: MaskedAutoencoder) -> None:
    values = 3 * 8 * 8
    projection = fresh.encoder.patch_embed.proj
    assert_uniform(projection.weight.flatten(1), math.sqrt(6 / (values + 192)))
    bias = projection.bias
    assert bias is not None
    bound = 1 / math.sqrt(values)  # torch's own draw for a convolution
    assert bias.abs().max().item() <= bound
    assert bias.abs().max().item() > 0.95 * bound
    assert bias.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_tokens_norms_and_positions(fresh: MaskedAutoencoder) -> None:
    tokens = torch.cat([fresh.encoder.cls_token.flatten(), fresh.decoder.mask_token.flatten()])
    assert tokens.std().item() == pytest.approx(0.02, rel=0.15)  # 320 draws: 4 sigma
    assert abs(tokens.mean().item()) < 0.005
    for part in fresh.modules():
        if isinstance(part, nn.LayerNorm):
            assert (part.weight == 1).all()
            assert not part.bias.any()
            assert part.eps == 1e-6
    for table in (fresh.encoder.pos_embed, fresh.decoder.pos_embed):
        assert not table.requires_grad
        assert not table[0, 0].any()


def test_first_prediction_is_near_nothing(fresh: MaskedAutoencoder) -> None:
    """Xavier keeps the size of activations: guesses at initialisation are of the order of 1."""
    images = problems.pictures(Problem(size=Size(32, 32)), count=4)
    mask = mask_from_noise(torch.rand(4, 16, generator=problems.random(0)), 0.75)
    spread = fresh.predict(images, mask).std().item()
    assert 0.1 < spread < 3


@pytest.mark.parametrize(
    ("spec", "size", "millions"),
    [(VIT_B16, 224, 85.8), (VIT_L16, 224, 303.3), (VIT_H14, 224, 630.8)],
    ids=["b16", "l16", "h14"],
)
def test_published_sizes(spec: ViT, size: int, millions: float) -> None:
    with torch.device("meta"):
        encoder = spec.build(Size(size, size), 3, Statistics(torch.zeros(3), torch.ones(3)))
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert count / 1e6 == pytest.approx(
        millions, abs=0.15
    )  # one decimal; with or without positions


def test_head_width_of_small_sizes_is_64() -> None:
    for spec in (VIT_TI16, VIT_S16, VIT_B16, VIT_L16):
        assert spec.embed_dim == 64 * spec.num_heads


def test_wrong_specs_are_refused() -> None:
    with pytest.raises(SettingsError, match="depth must be at least 1, got 0"):
        ViT(depth=0)
    with pytest.raises(SettingsError, match=r"multiple of 4.*got 30; the nearest is 32"):
        ViT(embed_dim=30)
    with pytest.raises(SettingsError, match="multiple of num_heads, got 48 and 5"):
        Attention(48, 5)


def test_image_that_the_patch_does_not_divide_names_the_nearest() -> None:
    encoder = problems.build_encoder()
    with pytest.raises(
        SettingsError, match=r"17 x 30 .* 4 x 4; the nearest .* is 16 x 32 \(--image-size 16x32\)"
    ):
        encoder.encode(torch.zeros(1, 3, 17, 30))


def test_statistics_travel_with_the_weights() -> None:
    encoder = problems.build_encoder()
    state = encoder.state_dict()
    assert torch.equal(state["mean"], problems.statistics(3).mean)
    other = VisionTransformer(
        ViT(patch_size=4, embed_dim=24, depth=2, num_heads=3), Size(16, 16), 3, PLAIN
    )
    other.load_state_dict(state)
    assert torch.equal(other.statistics.std, problems.statistics(3).std)


def test_several_class_tokens_lead_the_sequence_and_are_told_from_patches() -> None:
    """With one token repeated they all come out alike, and none is counted among the patches."""
    several = ViT(patch_size=4, embed_dim=24, depth=2, num_heads=3, class_tokens=3)
    encoder = several.build(Size(16, 16), 3, problems.statistics(3))
    images = problems.pictures(Problem())
    mask = mask_from_noise(torch.rand(2, 16, generator=problems.random(0)), 0.75)
    apart = encoder.encode_visible(images, mask, range(2))
    assert apart.cls.shape == (2, 3, 24)
    assert apart.patches.shape == (2, 4, 24)
    assert [tuple(tap.shape) for tap in apart.taps] == [(2, 7, 24)] * 2
    assert (apart.cls[:, 0] - apart.cls[:, 1]).abs().max() > 1e-4
    encoder.cls_token.data[:] = encoder.cls_token.data[:, :1]
    alike = encoder.encode(images).cls
    torch.testing.assert_close(alike, alike[:, :1].expand(-1, 3, -1), atol=1e-6, rtol=1e-6)


def test_taps_of_whole_images_are_what_goes_into_the_blocks() -> None:
    """The contract of encoders; checked against hooks."""
    encoder = problems.build_encoder()
    images = problems.pictures(problems.Problem(), count=2)
    inputs: list[torch.Tensor] = []
    hooks = [
        b.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        for b in encoder.blocks
    ]
    encoded = encoder.encode(images, taps=range(len(encoder.blocks) + 1))
    for hook in hooks:
        hook.remove()
    assert len(encoded.taps) == len(encoder.blocks) + 1
    for tap, seen in zip(encoded.taps, inputs, strict=False):
        assert tap.equal(seen)
    last = encoder.norm(encoded.taps[-1])
    torch.testing.assert_close(last[:, :1], encoded.cls)
    torch.testing.assert_close(last[:, 1:], encoded.patches)


def test_tokens_by_timms_name() -> None:
    encoder = problems.build_encoder(Problem())
    images = problems.pictures(Problem(), count=2)
    assert torch.equal(encoder.forward_features(images), encoder(images))
