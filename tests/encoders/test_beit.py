"""BEiT's blocks against timm's BEiT, and by their properties."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import problems
from reference.problems import Problem
from torch import Tensor, nn

from unmask.contracts import Size
from unmask.encoders.positions import RelativeBias, resized_table
from unmask.encoders.vit import BeitBlocks, VisionTransformer, ViT
from unmask.errors import SettingsError
from unmask.masking.random import mask_from_noise
from unmask.masks import PatchMask
from unmask.spec import from_json, to_json
from unmask.tasks import Classify

SPEC = ViT(patch_size=4, embed_dim=24, depth=2, num_heads=3, blocks=BeitBlocks(layer_scale=0.3))
SIZE = Size(16, 24)


def build(spec: ViT = SPEC, size: Size = SIZE) -> VisionTransformer:
    """A small encoder; biases, scales and the table are moved off their start, so that forgetting one is noticed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        encoder = spec.build(size, 3, problems.statistics(3))
        for parameter in encoder.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return encoder


def their_name(name: str) -> str:
    """The name that timm's BEiT gives a parameter."""
    name = name.replace("relative.table", "rel_pos_bias.relative_position_bias_table")
    name = name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")
    return name.replace("qkv.q_bias", "q_bias").replace("qkv.v_bias", "v_bias")


def timms(encoder: VisionTransformer) -> Any:
    """timm's model with the same weights."""
    from timm.models.beit import Beit

    model = Beit(
        img_size=tuple(SIZE),
        patch_size=4,
        num_classes=0,
        global_pool="token",
        embed_dim=24,
        depth=2,
        num_heads=3,
        use_abs_pos_emb=False,
        use_shared_rel_pos_bias=True,
        init_values=0.3,
    )
    state = {their_name(n): t for n, t in encoder.state_dict().items() if n not in ("mean", "std")}
    said = model.load_state_dict(state, strict=False)
    assert not said.unexpected_keys
    assert all("index" in name or "k_bias" in name for name in said.missing_keys)
    return model.eval()


def test_features_equal_those_of_timm() -> None:
    encoder = build()
    images = problems.pictures(Problem(size=SIZE))
    found = encoder.encode(images)
    with torch.no_grad():
        theirs = timms(encoder).forward_features(problems.normalized(images, 3).float())
    ours = torch.cat([found.cls, found.patches], dim=1)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)  # float32


def test_mask_tokens_equal_those_of_timm() -> None:
    """timm's embeddings, exchanged one by one, through timm's blocks."""
    encoder = build()
    images = problems.pictures(Problem(size=SIZE))
    mask = mask_from_noise(torch.rand(2, 24, generator=problems.random(1)), 0.4)
    token = torch.randn(1, 1, 24, generator=problems.random(2))
    found = encoder.encode_replaced(images, mask, token)
    model = timms(encoder)
    with torch.no_grad():
        tokens = model.patch_embed(problems.normalized(images, 3).float())
        for image, removed in enumerate(mask.removed.tolist()):
            for number, hidden in enumerate(removed):
                if hidden:
                    tokens[image, number] = token[0, 0]
        tokens = torch.cat([model.cls_token.expand(2, -1, -1), tokens], dim=1)
        bias = model.rel_pos_bias()
        for block in model.blocks:
            tokens = block(tokens, shared_rel_pos_bias=bias)
        tokens = model.norm(tokens)
    ours = torch.cat([found.cls, found.patches], dim=1)
    torch.testing.assert_close(ours, tokens, atol=2e-5, rtol=2e-5)


def test_a_start_as_published() -> None:
    """Truncated normal weights; the last of each half of block l is smaller by the root of 2 l; zero biases and table."""
    torch.manual_seed(0)
    spec = replace(SPEC, embed_dim=96, depth=4, blocks=BeitBlocks(layer_scale=1e-5))
    encoder = spec.build(SIZE, 3, problems.statistics(3))
    for number, block in enumerate(encoder.blocks, start=1):
        parts: Any = block
        for name, part in parts.named_modules():
            if isinstance(part, nn.Linear):
                last = name in ("attn.proj", "mlp.fc2")
                expected = 0.02 / math.sqrt(2 * number) if last else 0.02
                assert part.weight.std().item() == pytest.approx(expected, rel=0.05)  # 9,216 draws
                assert not part.bias.any()
        assert parts.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert (parts.ls1.gamma == 1e-5).all()
        assert (parts.ls2.gamma == 1e-5).all()
    assert encoder.relative is not None
    assert not encoder.relative.table.any()


def test_queries_and_values_have_biases_and_keys_have_none() -> None:
    encoder = build()
    names = {name for name, _ in encoder.named_parameters() if "blocks.0.attn" in name}
    own = ("qkv.weight", "qkv.q_bias", "qkv.v_bias", "proj.weight", "proj.bias")
    assert names == {f"blocks.0.attn.{name}" for name in own}
    block: Any = encoder.blocks[0]
    query, key, value = block.attn.qkv.bias.chunk(3)
    assert query.any()
    assert value.any()
    assert not key.any()
    assert "pos_embed" not in encoder.state_dict()


def test_bias_of_some_patches_is_that_of_their_pairs() -> None:
    """Counted out: the row of the table for each difference, by hand, with two class tokens."""
    grid = Size(3, 2)
    relative = RelativeBias(grid, num_heads=2, class_tokens=2)
    relative.table.data.copy_(
        torch.arange(len(relative.table))[:, None] * torch.tensor([1.0, -1.0])
    )
    rows = 5 * 3  # differences of -2 to 2 rows and -1 to 1 columns
    assert len(relative.table) == rows + 3
    index = torch.tensor([[4, 0, 3], [5, 2, 1]])
    found = relative.among(grid, index)
    for row, patches in enumerate(index.tolist()):
        tokens = [None, None, *patches]
        for query, one in enumerate(tokens):
            for key, other in enumerate(tokens):
                if one is None:
                    expected = rows + 2 if other is None else rows
                elif other is None:
                    expected = rows + 1
                else:
                    down, right = one // 2 - other // 2, one % 2 - other % 2
                    expected = (down + 2) * 3 + right + 1
                assert found[row, :, query, key].tolist() == [expected, -expected]


def test_visible_patches_know_how_far_apart_they_are() -> None:
    """In any order, and the same as if the others were never cut; without the table places make no difference."""
    encoder = build()
    images = problems.pictures(Problem(size=SIZE))
    mask = mask_from_noise(torch.rand(2, 24, generator=problems.random(1)), 0.5)
    found = encoder.encode_visible(images, mask)
    turned = mask._replace(kept_index=mask.kept_index.flip(1))
    again = encoder.encode_visible(images, turned)
    torch.testing.assert_close(again.patches, found.patches.flip(1), atol=1e-5, rtol=1e-5)
    everything = PatchMask.of(torch.arange(24).expand(2, -1) >= 23)._replace(
        kept_index=torch.arange(24).expand(2, -1)
    )
    whole = encoder.encode_visible(images, everything)
    torch.testing.assert_close(whole.patches, encoder.encode(images).patches, atol=1e-5, rtol=1e-5)


def test_images_of_another_size() -> None:
    encoder = build()
    found = encoder.encode(problems.pictures(Problem(size=Size(24, 16))))
    assert found.patches.shape == (2, 24, 24)
    assert found.patches.isfinite().all()


def test_a_resampled_table_keeps_its_corners_and_its_class_tokens() -> None:
    table = torch.rand(7 * 11 + 3, 2, generator=problems.random(0))
    assert resized_table(table, Size(4, 6), Size(4, 6)) is table
    other = resized_table(table, Size(4, 6), Size(8, 9))
    assert other.shape == (15 * 17 + 3, 2)
    assert other[-3:].equal(table[-3:])
    before, after = table[:-3].unflatten(0, (7, 11)), other[:-3].unflatten(0, (15, 17))
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        torch.testing.assert_close(after[corner], before[corner])
    torch.testing.assert_close(after[7, 8], before[3, 5])  # no difference stays no difference
    even = torch.full((7 * 11 + 3, 2), 0.7)
    torch.testing.assert_close(
        resized_table(even, Size(4, 6), Size(8, 9)), torch.full((15 * 17 + 3, 2), 0.7)
    )


@pytest.mark.parametrize("blocks", ["all", "half", "1"])
def test_classifiers_see_the_same_tokens_and_freeze_the_same_halves(blocks: str) -> None:
    encoder = build()
    expected = encoder.encode(problems.pictures(Problem(size=SIZE)))
    task = Classify(trained_blocks=blocks).build(encoder, problems.classes(3)).train()
    images = problems.pictures(Problem(size=SIZE))
    tokens: Tensor = task._tokens(encoder, images, None, None)
    torch.testing.assert_close(encoder.norm(tokens)[:, 1:], expected.patches, atol=1e-5, rtol=1e-5)
    shown = torch.tensor([[0, 5, 9], [1, 2, 3]])
    part: Tensor = task._tokens(encoder, images, shown, None)
    mask = PatchMask.of(torch.ones(2, 24).scatter(1, shown, 0).bool())._replace(kept_index=shown)
    alone = encoder.encode_visible(images, mask)
    torch.testing.assert_close(encoder.norm(part)[:, 1:], alone.patches, atol=1e-5, rtol=1e-5)
    learning = {name for name, p in encoder.named_parameters() if p.requires_grad}
    halves = {"all": {"ls1", "ls2"}, "half": {"ls2"}, "1": {"ls1", "ls2"}}[blocks]
    assert {n.split(".")[2] for n in learning if n.startswith("blocks.1.ls")} == halves
    assert ("blocks.0.ls1.gamma" in learning) == (blocks == "all")
    assert ("relative.table" in learning) == (blocks == "all")


def test_layers_for_decay() -> None:
    encoder = build()
    assert encoder.layer_of("relative.table") == encoder.layers - 1
    assert encoder.layer_of("blocks.1.ls1.gamma") == 2
    assert encoder.layer_of("blocks.0.attn.qkv.q_bias") == 1


def test_specs_from_before_there_was_a_choice_are_read_as_plain() -> None:
    old = to_json(ViT())
    del old["blocks"]
    assert from_json(ViT, old) == ViT()
    with pytest.raises(SettingsError, match="layer_scale must be above 0, got 0"):
        BeitBlocks(layer_scale=0)
