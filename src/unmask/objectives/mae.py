"""Masked autoencoders (He, Chen, Xie, Li, Dollár, Girshick, CVPR 2022), section 3."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from unmask.contracts import Batch, Encoded, Loss, Size
from unmask.encoders.layers import drawn_token
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.masking import AnyMasking, RandomMasking, draw_masks
from unmask.masks import PatchMask
from unmask.objectives.decoders import (
    AnyDecoder,
    CrossAttentionDecoder,
    LinearDecoder,
    SelfAttentionDecoder,
)
from unmask.patches import put_back, size_of
from unmask.spec import Kind, within
from unmask.targets import AnyTarget, NormalizedPixels


@dataclass(frozen=True, kw_only=True)
class Visible:
    """The encoder sees only the visible patches; the decoder has a mask token (MAE section 3)."""

    decoder_has_mask_token: ClassVar[bool] = True
    """Whether the decoder inserts a token for each hidden patch."""

    def check(self, decoder: AnyDecoder) -> None:
        """Refuse a decoder without its own tokens for hidden patches."""
        if isinstance(decoder, LinearDecoder):
            raise SettingsError(
                "a linear decoder needs a token for each hidden patch, and with encoding:visible the encoder returns "
                "none; use objective.encoding:replaced or objective.decoder:self-attention"
            )

    def build(self, encoder: VisionTransformer) -> "Encoding":
        """The module, which has no weights."""
        return Encoding(None)


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """A learned token replaces each hidden patch, in the encoder as well (MAE table 1c, "encoder w/ [M]").

    At ViT-L it takes 3.2 to 3.3 times the FLOPs and gives worse results: 84.2 % fine-tuned and 59.6 % linear, instead of
    84.9 % and 73.5 %. For comparisons, and for BEiT and SimMIM, which work this way.
    """

    decoder_has_mask_token: ClassVar[bool] = False
    """Whether the decoder inserts a token for each hidden patch: the encoder has."""

    def check(self, decoder: AnyDecoder) -> None:
        """Refuse a decoder that always adds its own tokens for hidden patches."""
        if isinstance(decoder, CrossAttentionDecoder):
            raise SettingsError(
                "a cross-attention decoder has its own mask tokens, and encoding:replaced has the encoder's; use "
                "objective.decoder:self-attention or objective.encoding:visible"
            )

    def build(self, encoder: VisionTransformer) -> "Encoding":
        """The module, which holds the token."""
        return Encoding(drawn_token(encoder.embed_dim))


AnyEncoding = Annotated[Visible, Kind("visible")] | Annotated[Replaced, Kind("replaced")]


@dataclass(frozen=True, kw_only=True)
class MAE:
    """Masked autoencoder: hide patches, encode the visible ones, rebuild the hidden ones."""

    masking: AnyMasking = RandomMasking()
    """Which patches to hide."""

    target: AnyTarget = NormalizedPixels()
    """What to predict of the hidden patches."""

    encoding: AnyEncoding = Visible()
    """What the encoder sees: only the visible patches, or a mask token for each hidden one too."""

    decoder: AnyDecoder = SelfAttentionDecoder()
    """The decoder that rebuilds hidden patches; discarded after pretraining."""

    predicted: float = 1.0
    """Share of the hidden patches that are rebuilt and scored, drawn again at every step (CrossMAE: 49 of 147)."""

    visible_weight: float = 0.0
    """Weight of the mean error of the visible patches, which are then rebuilt too (0.1: arXiv 2402.03752); MAE has 0."""

    def __post_init__(self) -> None:
        within(self, "(0, 1]", "predicted", usual="CrossMAE predicts a third of the hidden patches")
        within(self, "[0, inf)", "visible_weight", usual="0.1 is small, and MAE has 0")
        if self.visible_weight and self.predicted < 1:
            raise SettingsError(
                f"visible_weight {self.visible_weight:g} rebuilds all patches, and predicted {self.predicted:g} only some; "
                "set --objective.predicted 1 or --objective.visible-weight 0"
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


class Encoding(nn.Module):
    """See `Visible` and `Replaced`."""

    def __init__(self, mask_token: nn.Parameter | None) -> None:
        super().__init__()
        self.mask_token = mask_token

    def forward(
        self,
        encoder: VisionTransformer,
        images: Shaped[Tensor, "b c h w"],
        mask: PatchMask,
        taps: Collection[int],
    ) -> Encoded:
        """Tokens of the kept patches, in the order of `mask.kept_index`; with a mask token of all, in image order."""
        if self.mask_token is None:
            return encoder.encode_visible(images, mask, taps)
        return encoder.encode_replaced(images, mask, self.mask_token, taps)


class MaskedAutoencoder(nn.Module):
    """See `MAE`."""

    fused = ("score",)

    def __init__(self, spec: MAE, encoder: VisionTransformer) -> None:
        super().__init__()
        self.masking = spec.masking
        self.encoder = encoder
        self.target = spec.target.build(encoder.patch_size, encoder.channels)
        self.encoding = spec.encoding.build(encoder)
        has_mask_token = spec.encoding.decoder_has_mask_token
        self.decoder = spec.decoder.build(
            encoder, self.target.out_dim, has_mask_token=has_mask_token
        )
        self.predicted = spec.predicted
        self.visible_weight = spec.visible_weight

    def forward(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Draw masks and score the rebuilt patches."""
        grid = self.grid_of(batch.images)
        mask = draw_masks(self.masking, batch.images, grid, generator, part=batch.part)
        if self.visible_weight:
            return self.loss_of_all(batch.images, mask)
        return Loss(self.loss(batch.images, some_removed(mask, self.predicted)), {})

    def grid_of(self, images: Shaped[Tensor, "b c h w"]) -> Size:
        """The grid on which these images are masked."""
        return self.encoder.mask_grid(size_of(images))

    def loss(self, images: Shaped[Tensor, "b c h w"], mask: PatchMask) -> Float[Tensor, ""]:
        """The target's mean error over `mask.removed_index`; visible patches are never scored.

        If values are missing, the mean is taken over the known patches of each image, then over images. So the loss of
        a batch is the mean of the losses of its micro-batches.
        """
        return self.score(self.predict(images, mask), images, mask)

    def loss_of_all(self, images: Shaped[Tensor, "b c h w"], mask: PatchMask) -> Loss:
        """The mean error of the hidden patches, and the weighted one of the visible patches."""
        encoded = self.encode(images, mask)
        output, kept = self.decoder.everything(encoded, mask, self.grid_of(images)), mask.kept_index
        hidden = self.score(output[:, kept.shape[1] :], images, mask)
        visible = self.score(output[:, : kept.shape[1]], images, mask._replace(removed_index=kept))
        total = hidden + self.visible_weight * visible
        return Loss(total, {"hidden": hidden.detach(), "visible": visible.detach()})

    def score(
        self,
        prediction: Float[Tensor, "m r p"],
        images: Shaped[Tensor, "b c h w"],
        mask: PatchMask,
    ) -> Float[Tensor, ""]:
        """The loss of predictions for the hidden patches; see `loss`."""
        truth = self.target(images, mask, self.encoder.statistics)
        errors = self.target.loss(prediction, truth)
        if not images.is_floating_point():  # bytes have no missing values
            return errors.mean()
        known = (~truth.isnan()).any(-1).sum(1).clamp(min=1)  # [m]; unknown patches have error 0
        return (errors.sum(1) / known).mean()

    def predict(self, images: Shaped[Tensor, "b c h w"], mask: PatchMask) -> Float[Tensor, "m r p"]:
        """The prediction for each hidden patch, in the units of the target."""
        return self.decoder(self.encode(images, mask), mask, self.grid_of(images))

    def encode(self, images: Shaped[Tensor, "b c h w"], mask: PatchMask) -> Encoded:
        """The encoder's tokens of the masked images: the decoder's only input."""
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
    """The mask with only a share of `removed_index`, at least one patch; its order is random, so the first ones will do."""
    count = max(1, round(share * mask.removed_index.shape[1]))
    return mask._replace(removed_index=mask.removed_index[:, :count])
