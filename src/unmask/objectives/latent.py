"""Latent targets (data2vec 2.0; Baevski, Babu, Hsu and Auli, 2023): predict a teacher's features of the whole image."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Batch, Encoded, Loss, Moment, Size
from unmask.encoders.averages import follow, slow_copy
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.masking import AnyMasking, InverseBlockMasking, draw_masks
from unmask.masks import PatchMask
from unmask.patches import put_back, size_of, taken
from unmask.spec import MOST_BLOCKS, sized, within

_NOISES = 1024
"""Distinct noise vectors per step. Drawing one for every hidden patch of every mask would take more time and memory."""


@dataclass(frozen=True, kw_only=True)
class Latent:
    """From the visible patches of an image, predict a teacher's features of the hidden ones.

    The teacher is an exponential moving average of the encoder. It sees the whole image, once for all its masks. The
    result of pretraining is the student's encoder, as in the authors' fine-tuning; the teacher lags it by thousands of
    steps.

    Departures: the target averages the outputs of whole blocks, where the authors (from memory) take the outputs of the
    MLPs; the error is a mean over channels, smaller than theirs by the square root of the width (from memory); the noise
    of a hidden patch is one of 1,024 draws per step.
    """

    masking: AnyMasking = InverseBlockMasking()
    """Which patches to hide."""

    masks: int = 16
    """Masks per image, all with the same target; a partition gives several masks for each.

    A batch of b images is encoded as b x masks rows.
    """

    target_blocks: int = 10
    """The target is the mean output of so many of the last blocks."""

    decoder_dim: int = 768
    """Width of the decoder's convolutions; discarded after pretraining."""

    decoder_depth: int = 6
    """Number of convolutions in the decoder, each of 3 x 3 patches."""

    decoder_groups: int = 16
    """Channel groups of each convolution; must divide decoder_dim and the encoder's width."""

    noise: float = 0.01
    """Standard deviation of the noise that the decoder gets in place of hidden patches."""

    class_weight: float = 0.01
    """Weight of the class token's error; its target is the mean over all patches."""

    first_momentum: float = 0.9998
    """Momentum of the teacher (share of its weights that it keeps) at the first step; rises linearly."""

    last_momentum: float = 0.99999
    """Momentum of the teacher at the end of the rise and after it."""

    rising_share: float = 100_000 / 375_000
    """Share of all steps in which the momentum rises; the authors use 100,000 of 375,000 steps."""

    def __post_init__(self) -> None:
        sized(self, "masks", "target_blocks", "decoder_dim", "decoder_groups")
        sized(self, "decoder_depth", most=MOST_BLOCKS)
        if self.decoder_dim % self.decoder_groups:
            raise SettingsError(
                f"decoder_dim must be a multiple of decoder_groups, got {self.decoder_dim} and {self.decoder_groups}"
            )
        within(self, "[0, inf)", "noise", "class_weight")
        within(self, "[0, 1]", "first_momentum", "last_momentum", "rising_share")

    def momentum_at(self, done: float) -> float:
        """The teacher's momentum when a share `done` of all steps is done."""
        risen = min(1.0, done / self.rising_share) if self.rising_share else 1.0
        return self.first_momentum + risen * (self.last_momentum - self.first_momentum)

    def in_words(self, kept: int, patches: int, size: Size) -> tuple[str, str]:
        """How much of an image the encoder sees, and how often."""
        return "masking", (
            f"the encoder sees {kept} of {patches} patches of {size} pixels at a time, {self.masks} times of each "
            "image"
        )

    def build(self, encoder: VisionTransformer) -> "LatentPrediction":
        """The module around an encoder; SettingsError if that has too few blocks or a width that does not fit."""
        if self.target_blocks > len(encoder.blocks):
            raise SettingsError(
                f"target_blocks is {self.target_blocks}, but the encoder has only {len(encoder.blocks)} blocks; use at "
                f"most --objective.target-blocks {len(encoder.blocks)} (data2vec: 10 of 12)"
            )
        if encoder.embed_dim % self.decoder_groups:
            raise SettingsError(
                f"decoder_groups must divide the encoder's width, got {self.decoder_groups} and {encoder.embed_dim}"
            )
        return LatentPrediction(self, encoder)


class LatentPrediction(nn.Module):
    """See `Latent`."""

    companions: tuple[str, ...] = ("teacher.",)
    gives: str = "encoder."

    def __init__(self, spec: Latent, encoder: VisionTransformer) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = encoder
        self.decoder = ConvolutionDecoder(spec, encoder.embed_dim)
        self.teacher = slow_copy(encoder)

    def begin(self) -> None:
        """Set the teacher's weights to the student's."""
        follow(self.teacher, self.encoder, momentum=0.0)

    def after_step(self, moment: Moment) -> None:
        """Update the teacher."""
        follow(self.teacher, self.encoder, self.spec.momentum_at(moment.step / moment.steps))

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The mean squared error of the hidden patches of all masks, plus `class_weight` times the class token's."""
        mask, noise = self.sample(batch, generator)
        target = self.target(batch.images)
        encoded = self.encoder.encode_visible(batch.images, mask)
        prediction = self.decoder(encoded, mask, noise, self._grid(batch.images))
        rows = mask.image[:, None] * target.shape[1] + mask.removed_index  # of all patches [b n]
        patches = F.mse_loss(prediction.float(), F.embedding(rows, target.flatten(0, 1)))
        image = F.mse_loss(encoded.cls.mean(1).float(), target.mean(1)[mask.image])
        total = patches + self.spec.class_weight * image
        return Loss(total, {"patches": patches, "class_token": image})

    def sample(
        self, batch: Batch, generator: torch.Generator
    ) -> tuple[PatchMask, Float[Tensor, "m r d"]]:
        """Masks of these images, the masks of one image side by side, and noise for the hidden patches.

        Both are rows of what is drawn for the whole step.
        """
        mask = draw_masks(
            self.spec.masking,
            batch.images,
            self._grid(batch.images),
            generator,
            part=batch.part,
            masks_per_image=self.spec.masks,
        )
        masks_per_image = len(mask.image) // len(batch.images)
        shape = batch.whole, masks_per_image, mask.removed_index.shape[1]
        device = generator.device
        table = torch.randn(_NOISES, self.encoder.embed_dim, generator=generator, device=device)
        index = torch.randint(_NOISES, shape, generator=generator, device=device)
        return mask, F.embedding(batch.own(index).flatten(0, 1), self.spec.noise * table)

    @torch.no_grad()
    def target(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """The teacher's features of each patch of whole images: the mean output of the last blocks.

        Each output is first normalised over the patches of an image, channel by channel; the mean is then normalised
        over the channels of each patch. Neither has learned parameters. A prediction of zeros has an error of 1.
        """
        depth = len(self.teacher.blocks)
        last = range(depth - self.spec.target_blocks + 1, depth + 1)
        taps = self.teacher.encode(images, taps=last).taps
        patches = [tap[:, self.teacher.class_tokens :].float() for tap in taps]
        normalized = [F.instance_norm(tokens.mT).mT for tokens in patches]
        return F.layer_norm(torch.stack(normalized).mean(0), (self.teacher.embed_dim,))

    def _grid(self, images: Shaped[Tensor, "b c h w"]) -> Size:
        return self.encoder.mask_grid(size_of(images))


class ConvolutionDecoder(nn.Module):
    """Convolutions over the grid of patches, then one linear layer; the class token is not used."""

    def __init__(self, spec: Latent, embed_dim: int) -> None:
        super().__init__()
        widths = [embed_dim, *[spec.decoder_dim] * spec.decoder_depth]
        self.blocks = nn.ModuleList(
            ConvolutionBlock(before, after, spec.decoder_groups)
            for before, after in pairwise(widths)
        )
        self.pred = nn.Linear(spec.decoder_dim, embed_dim)

    def forward(
        self, encoded: Encoded, mask: PatchMask, noise: Float[Tensor, "m r d"], grid: Size
    ) -> Float[Tensor, "m r d"]:
        """The prediction for each hidden patch, in the order of `mask.removed_index`."""
        tokens = torch.cat([encoded.patches, noise.to(encoded.patches.dtype)], dim=1)
        order = torch.cat([mask.kept_index, mask.removed_index], dim=1)
        tokens = put_back(torch.empty_like(tokens), order, tokens)
        tokens = tokens.mT.unflatten(2, tuple(grid))  # [m n d] -> [m d rows columns]
        for block in self.blocks:
            tokens = block(tokens)
        return self.pred(taken(tokens.flatten(2).mT, mask.removed_index))


class ConvolutionBlock(nn.Module):
    """A grouped 3 x 3 convolution, a layer norm without weights, and GELU; residual if the widths are equal."""

    def __init__(self, before: int, after: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel_size=3, padding=1, groups=groups)
        self.is_residual = before == after

    def forward(self, grid: Float[Tensor, "m before h w"]) -> Float[Tensor, "m after h w"]:
        """All patches at once, with zero padding."""
        convolved = self.conv(grid).movedim(1, -1)
        new = F.gelu(F.layer_norm(convolved, convolved.shape[-1:])).movedim(-1, 1)
        return grid + new if self.is_residual else new
