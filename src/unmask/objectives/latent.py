"""Latent targets (data2vec 2.0; Baevski, Babu, Hsu and Auli, 2023): what a slow copy makes of the whole image."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.contracts import Batch, Encoded, Loss, Moment, Size
from unmask.encoders.vit import VisionTransformer, layer_around
from unmask.errors import SettingsError
from unmask.masking import AnyMasking, InverseBlockMasking
from unmask.masks import PatchMask
from unmask.objectives.teacher import equal, follow, slow_copy
from unmask.patches import put_back, size_of, taken

_NOISES = 1024


@dataclass(frozen=True, kw_only=True)
class Latent:
    """From the visible patches of an image, guess what a slow copy of the encoder makes of the hidden ones.

    The copy sees the whole image, once for all its masks. The student's encoder is given away, as in the authors'
    fine-tuning: the copy is that encoder as it was thousands of steps ago.

    Departures: the target is made of whole outputs of blocks, where the authors (from memory) take what the MLPs add;
    the error is a mean over channels, the root of the width smaller than theirs (from memory); noise is one
    of 1,024 draws a step for each hidden patch.
    """

    masking: AnyMasking = InverseBlockMasking()
    """Which patches to hide."""

    masks: int = 16
    """Masks of each image for one look of the teacher: draws of `masking`, so a partition gives several times as many.

    A batch of b images is encoded as b x masks rows.
    """

    target_blocks: int = 10
    """How many of the last blocks' outputs make up the target."""

    decoder_dim: int = 768
    """Width of the convolutions that guess; thrown away after pretraining."""

    decoder_depth: int = 6
    """How many there are, each of 3 x 3 patches."""

    decoder_groups: int = 16
    """Groups of channels in each; must divide its width and the encoder's."""

    noise: float = 0.01
    """Deviation of what the decoder is given in place of hidden patches."""

    class_weight: float = 0.01
    """Weight of the class token's error, whose target is the mean over all patches."""

    first_momentum: float = 0.9998
    """Share of the teacher's old weights that stays at the first step; rises in a line."""

    last_momentum: float = 0.99999
    """The same at the end of the rise, and after it."""

    rising_share: float = 100_000 / 375_000
    """Share of all steps that the rise takes; the authors' is 100,000 steps of 375,000."""

    def __post_init__(self) -> None:
        for name in ("masks", "target_blocks", "decoder_dim", "decoder_depth", "decoder_groups"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.decoder_dim % self.decoder_groups:
            raise SettingsError(
                f"decoder_dim must be a multiple of decoder_groups, got {self.decoder_dim} and {self.decoder_groups}"
            )
        for name in ("noise", "class_weight"):
            if getattr(self, name) < 0:
                raise SettingsError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("first_momentum", "last_momentum", "rising_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")

    def momentum_at(self, done: float) -> float:
        """The share of the teacher's old weights that stays, at a share of all steps done."""
        risen = min(1.0, done / self.rising_share) if self.rising_share else 1.0
        return self.first_momentum + risen * (self.last_momentum - self.first_momentum)

    def in_words(self, kept: int, patches: int, size: Size) -> tuple[str, str]:
        """How much of an image the encoder sees, and how often."""
        return "masking", (
            f"the encoder sees {kept} of {patches} patches of {size} pixels at a time, {self.masks} times of each "
            "image"
        )

    def build(self, encoder: VisionTransformer) -> "LatentPrediction":
        """The module around an encoder.

        Raises:
            SettingsError: if the encoder has fewer blocks than the target takes, or no such groups.
        """
        if self.target_blocks > len(encoder.blocks):
            raise SettingsError(
                f"target_blocks is {self.target_blocks}, and the encoder has {len(encoder.blocks)}; take at most "
                f"--objective.target-blocks {len(encoder.blocks)} (data2vec: 10 of 12)"
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

    @property
    def layers(self) -> int:
        """The encoder's: all else counts as its last."""
        return self.encoder.layers

    def layer_of(self, parameter_name: str) -> int:
        """The encoder's layers; the last for everything else."""
        return layer_around(self.encoder, parameter_name)

    def begin(self) -> None:
        """Let the teacher be what the student is."""
        equal(self.teacher, self.encoder)

    def after_step(self, moment: Moment) -> None:
        """Let the teacher follow."""
        follow(self.teacher, self.encoder, self.spec.momentum_at(moment.step / moment.steps))

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The mean squared error of the hidden patches of all masks, and a little of the class token's."""
        mask, noise = self.sample(batch, generator)
        target = self.target(batch.images)
        encoded = self.encoder.encode_visible(batch.images, mask)
        guesses = self.decoder(encoded, mask, noise, self._grid(batch.images))
        places = mask.image[:, None] * target.shape[1] + mask.removed_index
        patches = F.mse_loss(guesses.float(), F.embedding(places, target.flatten(0, 1)))
        image = F.mse_loss(encoded.cls.mean(1).float(), target.mean(1)[mask.image])
        total = patches + self.spec.class_weight * image
        return Loss(total, {"patches": patches, "class_token": image})

    def sample(
        self, batch: Batch, generator: torch.Generator
    ) -> tuple[PatchMask, Float[Tensor, "m r d"]]:
        """Masks of these images, those of an image side by side, and noise for their hidden patches.

        Both are rows of what is drawn for the whole step.
        """
        whole, masks = batch.whole, self.spec.masks
        mask = self.spec.masking.sample(whole * masks, self._grid(batch.images), generator)
        mask = mask._replace(image=mask.image // masks)
        shape = whole, len(mask.image) // whole, mask.removed_index.shape[1]
        device = generator.device
        table = torch.randn(_NOISES, self.encoder.embed_dim, generator=generator, device=device)
        chosen = torch.randint(_NOISES, shape, generator=generator, device=device)
        if batch.part is not None:
            mask = mask.of_images(*batch.part)
        return mask, F.embedding(batch.own(chosen).flatten(0, 1), self.spec.noise * table)

    @torch.no_grad()
    def target(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """What the teacher makes of each patch of whole images: a mean of the last blocks' outputs.

        Each output is first normalised over the patches of an image, channel by channel; the mean is then normalised
        over the channels of each patch. Neither learns anything. A guess of nothing errs by 1.
        """
        depth = len(self.teacher.blocks)
        last = range(depth - self.spec.target_blocks + 1, depth + 1)
        taps = self.teacher.encode(images, taps=last).taps
        patches = [tap[:, self.teacher.class_tokens :].float() for tap in taps]
        even = [F.instance_norm(each.mT).mT for each in patches]
        return F.layer_norm(torch.stack(even).mean(0), (self.teacher.embed_dim,))

    def _grid(self, images: Shaped[Tensor, "b c h w"]) -> Size:
        return self.encoder.mask_grid(size_of(images))


class ConvolutionDecoder(nn.Module):
    """Convolutions over the grid of patches, then one linear layer; the class token has no place in it."""

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
        """A guess for each hidden patch, in the order of `mask.removed_index`."""
        tokens = torch.cat([encoded.patches, noise.to(encoded.patches.dtype)], dim=1)
        order = torch.cat([mask.kept_index, mask.removed_index], dim=1)
        tokens = put_back(torch.empty_like(tokens), order, tokens)
        tokens = tokens.mT.unflatten(2, tuple(grid))  # [m n d] -> [m d rows columns]
        for block in self.blocks:
            tokens = block(tokens)
        return self.pred(taken(tokens.flatten(2).mT, mask.removed_index))


class ConvolutionBlock(nn.Module):
    """A grouped 3 x 3 convolution, a norm over channels without weights, GELU; beside a straight path if widths agree."""

    def __init__(self, before: int, after: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel_size=3, padding=1, groups=groups)
        self.straight = before == after

    def forward(self, grid: Float[Tensor, "m before h w"]) -> Float[Tensor, "m after h w"]:
        """All places at once; beyond the edge is 0."""
        convolved = self.conv(grid).movedim(1, -1)
        new = F.gelu(F.layer_norm(convolved, convolved.shape[-1:])).movedim(-1, 1)
        return grid + new if self.straight else new
