"""A plain encoder on a large map: windows and relative positions against literal loops, and the pretrained block."""

import pytest
import torch
from reference import problems
from reference.problems import random
from torch import Tensor

from unmask.contracts import Size
from unmask.encoders.layers import Block
from unmask.encoders.vit import VisionTransformer
from unmask.tasks.relative import DecomposedPositions
from unmask.tasks.windowed import WindowedBlocks, divided, global_numbers, joined

PROBLEM = problems.Problem(size=Size(20, 28))  # 5 x 7 patches


def encoder_of(problem: problems.Problem = PROBLEM) -> VisionTransformer:
    """Biases and norms are moved off 0 and 1, so that forgetting one is noticed."""
    torch.manual_seed(3)
    encoder = problems.build_encoder(problem)
    for parameter in encoder.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=random(1)) * 0.1)
    return encoder.eval()


def images_of(problem: problems.Problem = PROBLEM) -> Tensor:
    return torch.rand(2, problem.channels, *problem.size, generator=random(2))


def windowed(
    encoder: VisionTransformer, window: int | None, global_blocks: int = 0, relative: bool = True
) -> WindowedBlocks:
    return WindowedBlocks(encoder, window, global_blocks, relative, checkpointing=False)


def literal_attention(block: Block, places: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention among the rows of [t d], which are normed already; softmax written out, head by head."""
    heads, width = block.attn.num_heads, places.shape[1] // block.attn.num_heads
    query, key, value = (places @ block.attn.qkv.weight.T + block.attn.qkv.bias).chunk(3, dim=1)
    mixed = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        logits = query[:, part] @ key[:, part].T / width**0.5
        logits = logits if bias is None else logits + bias[head]
        mixed.append(logits.softmax(1) @ value[:, part])
    return torch.cat(mixed, 1) @ block.attn.proj.weight.T + block.attn.proj.bias


def literal_block(block: Block, tokens: Tensor, grid: Size, side: int) -> Tensor:
    """One block in windows on [h w d], window by window; zeros after the norm pad the last ones."""
    normed = block.norm1(tokens)
    update = torch.zeros_like(tokens)
    for top in range(0, grid.height, side):
        for left in range(0, grid.width, side):
            window = torch.zeros(side, side, tokens.shape[-1])
            for y in range(side):
                for x in range(side):
                    if top + y < grid.height and left + x < grid.width:
                        window[y, x] = normed[top + y, left + x]
            mixed = literal_attention(block, window.reshape(side * side, -1)).reshape(
                side, side, -1
            )
            for y in range(side):
                for x in range(side):
                    if top + y < grid.height and left + x < grid.width:
                        update[top + y, left + x] = mixed[y, x]
    tokens = tokens + update
    return tokens + block.transform(tokens)


@torch.no_grad()
def test_windows_equal_a_loop_over_windows() -> None:
    encoder, images = encoder_of(), images_of()
    found = windowed(encoder, 3)(encoder, images)
    for row, image in enumerate(images):
        tokens = encoder.embed(image[None])[0, 1:].reshape(5, 7, -1)
        for block in encoder.blocks:
            assert isinstance(block, Block)
            tokens = literal_block(block, tokens, Size(5, 7), 3)
        torch.testing.assert_close(found[row], tokens.permute(2, 0, 1), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_blocks_are_the_pretrained_ones_at_first() -> None:
    """Global attention with zero relative positions, on patches alone, gives each block's own output."""
    encoder, images = encoder_of(), images_of()
    tokens = encoder.embed(images)[:, 1:]
    for block in encoder.blocks:
        tokens = block(tokens)
    found = windowed(encoder, None)(encoder, images)
    torch.testing.assert_close(found.flatten(2).mT, tokens, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("relative", [False, True])
def test_one_window_over_the_whole_map_is_global_attention(relative: bool) -> None:
    problem = problems.Problem(size=Size(24, 24))
    encoder, images = encoder_of(problem), images_of(problem)
    one, whole = windowed(encoder, 6, 0, relative), windowed(encoder, None, 0, relative)
    for parameter in one.parameters():
        parameter.normal_(generator=random(5))
    whole.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(encoder, images), whole(encoder, images), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_relative_positions_equal_a_double_loop() -> None:
    grid, heads, width = Size(3, 4), 2, 5
    positions = DecomposedPositions(grid, width)
    for table in positions.parameters():
        table.normal_(generator=random(0))
    query = torch.randn(2, 12, heads * width, generator=random(1))
    bias = positions(query, heads, grid)
    for row in range(2):
        for head in range(heads):
            for q in range(12):
                for k in range(12):
                    vector = query[row, q, head * width : (head + 1) * width]
                    down, right = q // 4 - k // 4, q % 4 - k % 4
                    expected = (
                        vector @ positions.rows[down + 2] + vector @ positions.columns[right + 3]
                    )
                    assert bias[row, head, q, k] == pytest.approx(expected.item(), abs=1e-5)


@torch.no_grad()
def test_relative_positions_stretch_to_another_grid() -> None:
    """A table that is linear in the offset stays linear; a constant one stays as it is."""
    positions = DecomposedPositions(Size(4, 4), 1)
    positions.columns.fill_(0.5)
    positions.rows.copy_(torch.arange(-3.0, 4.0)[:, None])
    bias = positions(torch.ones(1, 64, 1), 1, Size(8, 8))[0, 0].reshape(8, 8, 8, 8)
    middle = bias[2:6, 0, 2:6, 0] - 0.5
    offsets = torch.arange(4.0)[:, None] - torch.arange(4.0)[None]
    torch.testing.assert_close(middle, offsets * 7 / 15)
    torch.testing.assert_close(bias[3, :, 3], torch.full((8, 8), 0.5))


@torch.no_grad()
def test_a_rectangle_of_another_size_gets_its_own_positions() -> None:
    encoder = encoder_of()
    blocks = windowed(encoder, 3, 1)
    found = blocks(encoder, torch.rand(1, 3, 44, 16, generator=random(0)))
    assert found.shape == (1, 24, 11, 4)
    assert found.isfinite().all()


@pytest.mark.parametrize(
    ("depth", "count", "numbers"),
    [
        (12, 4, (2, 5, 8, 11)),  # ViT-B, L and H as in ViTDet's configurations
        (24, 4, (5, 11, 17, 23)),
        (32, 4, (7, 15, 23, 31)),
        (6, 4, (1, 2, 4, 5)),
        (5, 0, ()),
        (3, 3, (0, 1, 2)),
    ],
)
def test_global_blocks_are_the_published_ones(
    depth: int, count: int, numbers: tuple[int, ...]
) -> None:
    assert global_numbers(depth, count) == numbers


@pytest.mark.parametrize("grid", [Size(6, 6), Size(7, 5), Size(1, 9)], ids=str)
def test_windows_are_put_together_again(grid: Size) -> None:
    tokens = torch.rand(2, grid.height * grid.width, 3, generator=random(0))
    windows = divided(tokens, grid, 3, torch.tensor([7.0, 8.0, 9.0]))
    rows, columns = -(-grid.height // 3), -(-grid.width // 3)
    assert windows.shape == (2 * rows * columns, 9, 3)
    outside = 2 * (9 * rows * columns - grid.height * grid.width)
    assert int((windows == torch.tensor([7.0, 8.0, 9.0])).all(-1).sum()) == outside
    assert torch.equal(joined(windows, grid, 3), tokens)


def test_checkpointing_changes_no_gradient() -> None:
    encoder, images = encoder_of(), images_of()
    kept = torch.tensor([1.0, 0.0, 2.0, 1.0]).reshape(4, 1, 1, 1).expand(-1, 2, -1, -1)
    gradients = []
    for checkpointing in (False, True):
        blocks = WindowedBlocks(encoder, 3, 1, True, checkpointing)
        encoder.zero_grad()
        blocks(encoder, images, kept).square().sum().backward()
        parameters = [*encoder.blocks.parameters(), *blocks.parameters()]
        gradients.append([parameter.grad.clone() for parameter in parameters])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)
    assert any(gradient.any() for gradient in gradients[0])


@torch.no_grad()
def test_skipped_halves_are_left_out() -> None:
    """With both halves of a block skipped, its tokens pass unchanged."""
    encoder, images = encoder_of(), images_of()
    kept = torch.zeros(4, 2, 1, 1)
    found = windowed(encoder, 3)(encoder, images, kept)
    torch.testing.assert_close(found.flatten(2).mT, encoder.embed(images)[:, 1:])
