"""Masked autoencoders (He, Chen, Xie, Li, Dollár, Girshick, CVPR 2022), section 3."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from unmask.contracts import Batch, Encoded, Loss, Size
from unmask.encoders.vit import VisionTransformer, layer_around
from unmask.errors import SettingsError
from unmask.masking import AnyMasking, RandomMasking
from unmask.masks import PatchMask
from unmask.objectives.decoders import AnyDecoder, SelfAttentionDecoder
from unmask.objectives.encodings import AnyEncoding, Visible
from unmask.patches import put_back, size_of
from unmask.targets import AnyTarget, NormalizedPixels


@dataclass(frozen=True, kw_only=True)
class MAE:
    """Hide patches, encode the image without them, rebuild them."""

    masking: AnyMasking = RandomMasking()
    """Which patches to hide."""

    target: AnyTarget = NormalizedPixels()
    """What to rebuild."""

    encoding: AnyEncoding = Visible()
    """What the encoder is shown: the visible patches, or a mask token for each hidden one as well."""

    decoder: AnyDecoder = SelfAttentionDecoder()
    """What rebuilds it; thrown away after pretraining."""

    predicted: float = 1.0
    """Share of the hidden patches that are rebuilt and scored, others each time (CrossMAE: 49 of 147)."""

    def __post_init__(self) -> None:
        if not 0 < self.predicted <= 1:
            raise SettingsError(
                f"predicted is a share of the hidden patches, above 0 and at most 1, got {self.predicted}; "
                "CrossMAE uses a third"
            )
        self.encoding.check(self.decoder)

    def in_words(self, kept: int, patches: int, size: Size) -> tuple[str, str]:
        """How much of an image the encoder sees."""
        tokens = "" if isinstance(self.encoding, Visible) else ", and mask tokens for the others"
        return "masking", f"the encoder sees {kept} of {patches} patches of {size} pixels{tokens}"

    def with_decoder_of(self, other: object) -> "MAE":
        """This with the encoding and decoder of another MAE."""
        if not isinstance(other, MAE):
            return self
        return replace(self, encoding=other.encoding, decoder=other.decoder)

    def has_decoder_of(self, other: object) -> bool:
        """Whether encoding and decoder are those of another MAE."""
        return self == self.with_decoder_of(other) and isinstance(other, MAE)

    def build(self, encoder: VisionTransformer) -> "MaskedAutoencoder":
        """The module around an encoder."""
        return MaskedAutoencoder(self, encoder)


class MaskedAutoencoder(nn.Module):
    """See `MAE`."""

    fused = ("score",)

    def __init__(self, spec: MAE, encoder: VisionTransformer) -> None:
        super().__init__()
        self.masking = spec.masking
        self.encoder = encoder
        self.target = spec.target.build(encoder.patch_size, encoder.channels)
        self.encoding = spec.encoding.build(encoder)
        self.decoder = spec.encoding.build_decoder(spec.decoder, encoder, self.target.out_dim)
        self.predicted = spec.predicted

    @property
    def layers(self) -> int:
        """The encoder's: all else counts as its last."""
        return self.encoder.layers

    def layer_of(self, parameter_name: str) -> int:
        """The encoder's layers; the last for all else."""
        return layer_around(self.encoder, parameter_name)

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Draw a mask and score the rebuilt patches."""
        mask = self.masking.sample(batch.whole, self.grid_of(batch.images), generator)
        if batch.part is not None:
            mask = mask.of_images(*batch.part)
        return Loss(self.loss(batch.images, some_removed(mask, self.predicted)), {})

    def sample(self, images: Shaped[Tensor, "b c h w"], generator: torch.Generator) -> PatchMask:
        """A mask for these images."""
        return self.masking.sample(len(images), self.grid_of(images), generator)

    def grid_of(self, images: Shaped[Tensor, "b c h w"]) -> Size:
        """The grid on which these images are masked."""
        return self.encoder.mask_grid(size_of(images))

    def loss(self, images: Shaped[Tensor, "b c h w"], mask: PatchMask) -> Float[Tensor, ""]:
        """The target's mean error over `mask.removed_index`; visible patches are never scored.

        Where values are missing, the mean is of each image's patches with known values first, then of
        the images: so a batch may be computed in parts.
        """
        return self.score(self.predict(images, mask), images, mask)

    def score(
        self,
        guess: Float[Tensor, "m r p"],
        images: Shaped[Tensor, "b c h w"],
        mask: PatchMask,
    ) -> Float[Tensor, ""]:
        """The loss of a guess for each hidden patch; see `loss`."""
        truth = self.target(images, mask, self.encoder.statistics)
        errors = self.target.loss(guess, truth)
        if not images.is_floating_point():
            return errors.mean()
        known = (~truth.isnan()).any(-1).sum(1).clamp(min=1)  # [m]; unknown patches err by 0
        return (errors.sum(1) / known).mean()

    def errors(self, images: Shaped[Tensor, "b c h w"], mask: PatchMask) -> Float[Tensor, "m r"]:
        """The target's error of each hidden patch."""
        truth = self.target(images, mask, self.encoder.statistics)
        return self.target.loss(self.predict(images, mask), truth)

    def predict(self, images: Shaped[Tensor, "b c h w"], mask: PatchMask) -> Float[Tensor, "m r p"]:
        """A guess for each hidden patch, in the units of the target."""
        return self.decoder(self.encode(images, mask), mask, self.grid_of(images))

    def encode(self, images: Shaped[Tensor, "b c h w"], mask: PatchMask) -> Encoded:
        """What the encoder makes of the images under the mask: all that the decoder is given."""
        return self.encoding(self.encoder, images, mask, self.decoder.taps)

    def predict_all(
        self, images: Shaped[Tensor, "b c h w"], mask: PatchMask
    ) -> Float[Tensor, "m n p"]:
        """The decoder's output at every patch, in image order, for pictures."""
        encoded = self.encode(images, mask)
        output = self.decoder.everything(encoded, mask, self.grid_of(images))
        order = torch.cat([mask.kept_index, mask.removed_index], dim=1)
        return put_back(torch.empty_like(output), order, output)


def some_removed(mask: PatchMask, share: float) -> PatchMask:
    """The mask with `removed_index`, whose order is random, cut to a share of itself; at least one patch of a row."""
    count = max(1, round(share * mask.removed_index.shape[1]))
    return mask._replace(removed_index=mask.removed_index[:, :count])
