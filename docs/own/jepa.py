"""An objective with two sets of masks: from a context, predict latents of blocks elsewhere in the image.

After I-JEPA (Assran and others, 2023): nothing is rebuilt in pixels, and views are not augmented beyond a crop.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Batch, Encoded, Loss, Moment, Size
from unmask.encoders.averages import follow, slow_copy
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.masks import PatchMask
from unmask.objectives.decoders import AnyDecoder, SelfAttentionDecoder
from unmask.patches import size_of
from unmask.spec import within


@dataclass(frozen=True, kw_only=True)
class JEPA:
    """Predict a teacher's features of some blocks of patches from the patches outside of all of them.

    The teacher is a moving average of the encoder and sees the whole image. Departures from I-JEPA: all blocks have one
    size, and the context is what they leave over, thinned out to the same number of patches in every image.
    """

    blocks: int = 4
    """Target blocks of each image; they may overlap."""

    block_share: float = 0.15
    """Share of the grid's area that each block covers."""

    predictor: AnyDecoder = SelfAttentionDecoder(embed_dim=384, depth=6, num_heads=12)
    """What predicts the features of a block from the context; discarded after pretraining."""

    momentum: float = 0.996
    """Share of its weights that the teacher keeps at each step."""

    def __post_init__(self) -> None:
        within(self, "[1, inf)", "blocks", usual="I-JEPA uses 4")
        within(self, "(0, 1)", "block_share")
        within(self, "[0, 1]", "momentum")
        if not isinstance(self.predictor, SelfAttentionDecoder):
            raise SettingsError(
                "the predictor inserts tokens for targets: use a self-attention one"
            )

    def block_of(self, grid: Size) -> Size:
        """Rows and columns of a block."""
        side = self.block_share**0.5
        return Size(*(max(1, round(side * patches)) for patches in grid))

    def context_of(self, grid: Size) -> int:
        """How many patches of each image the encoder sees: as many as blocks leave over at least.

        Raises:
            SettingsError: if they may leave none.
        """
        block, patches = self.block_of(grid), grid.height * grid.width
        left = patches - self.blocks * block.height * block.width
        if left < 1:
            raise SettingsError(
                f"{self.blocks} blocks of {block.height} x {block.width} patches may cover a grid of {grid.height} x "
                f"{grid.width}; use fewer --objective.blocks or a smaller --objective.block-share"
            )
        return left

    def build(self, encoder: VisionTransformer) -> "JointEmbedding":
        """The module around an encoder."""
        self.context_of(encoder.grid)
        return JointEmbedding(self, encoder)


class Masks(NamedTuple):
    """Both sets of masks of some images."""

    context: PatchMask
    """What the encoder sees: a row for each image."""
    targets: PatchMask
    """What is predicted: a row for each block, in which the block is removed; those of an image lie side by side."""


class JointEmbedding(nn.Module):
    """See `JEPA`."""

    companions: tuple[str, ...] = ("teacher.",)  # kept in checkpoints, left out of model files
    gives: str = "encoder."

    def __init__(self, spec: JEPA, encoder: VisionTransformer) -> None:
        super().__init__()
        self.spec, self.encoder = spec, encoder
        assert isinstance(spec.predictor, SelfAttentionDecoder)
        self.predictor = spec.predictor.build(encoder, encoder.embed_dim)
        self.teacher = slow_copy(encoder)

    def begin(self) -> None:
        """Let the teacher start from the encoder, after other weights were loaded into that."""
        follow(self.teacher, self.encoder, momentum=0.0)

    def after_step(self, moment: Moment) -> None:
        """Let the teacher follow."""
        follow(self.teacher, self.encoder, self.spec.momentum)

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The mean squared error between predicted and teacher's features of the targets."""
        grid = self.encoder.mask_grid(size_of(batch.images))
        context, targets = self.masks(batch, grid, generator)
        encoded = self.encoder.encode_visible(batch.images, context)

        # Every block of an image is predicted from the same context, in a row of its own.
        image = targets.image
        seen = Encoded(encoded.cls[image], encoded.patches[image])
        wanted = targets._replace(kept_index=context.kept_index[image])
        prediction = self.predictor(seen, wanted, grid)

        with torch.no_grad():
            latents = self.teacher.encode(batch.images).patches[image]
            latents = F.layer_norm(latents.float(), latents.shape[-1:])
        index = targets.removed_index[..., None].expand(-1, -1, latents.shape[-1])
        return Loss(F.mse_loss(prediction.float(), latents.gather(1, index)), {})

    def masks(self, batch: Batch, grid: Size, generator: torch.Generator) -> Masks:
        """Masks of these images. They are drawn for the whole step, so that no part of it depends on how it is split."""
        blocks = self._blocks(batch.whole, grid, generator)  # [whole blocks n]
        noise = torch.rand(blocks[:, 0].shape, generator=generator, device=blocks.device)
        order = (blocks.any(1) + noise).argsort(dim=1)  # patches outside of all blocks come first
        blocks, order = batch.own(blocks), batch.own(order)
        image = torch.arange(len(blocks), device=blocks.device)
        context = PatchMask.in_order(image, order, self.spec.context_of(grid))
        targets = PatchMask.of(blocks.flatten(0, 1))
        return Masks(context, targets._replace(image=image.repeat_interleave(self.spec.blocks)))

    def _blocks(
        self, images: int, grid: Size, generator: torch.Generator
    ) -> Bool[Tensor, "b blocks n"]:
        """Which patches each block covers."""
        block, device = self.spec.block_of(grid), generator.device

        def covered(patches: int, side: int) -> Bool[Tensor, "b blocks patches"]:
            shape = (images, self.spec.blocks, 1)
            first = torch.randint(patches - side + 1, shape, generator=generator, device=device)
            place = torch.arange(patches, device=device)
            return (place >= first) & (place < first + side)

        rows, columns = covered(grid.height, block.height), covered(grid.width, block.width)
        return (rows[..., :, None] & columns[..., None, :]).flatten(2)
