"""What the encoder sees of a masked image: only the visible patches, or mask tokens too."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

from jaxtyping import Shaped
from torch import Tensor, nn

from unmask.contracts import Encoded
from unmask.encoders.layers import drawn_token
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.masks import PatchMask
from unmask.objectives.decoders import (
    AnyDecoder,
    CrossAttentionDecoder,
    CrossDecoder,
    LinearDecoder,
    LinearPrediction,
    TokenDecoder,
)
from unmask.spec import Kind
from unmask.traits import ReplacingEncoder


@dataclass(frozen=True, kw_only=True)
class Visible:
    """The encoder sees only the visible patches; the decoder has a mask token (MAE section 3)."""

    def check(self, decoder: AnyDecoder) -> None:
        """Raises SettingsError for a decoder without its own tokens for hidden patches."""
        if isinstance(decoder, LinearDecoder):
            raise SettingsError(
                "a linear decoder needs a token for each hidden patch, and with encoding:visible the encoder returns "
                "none; use objective.encoding:replaced or objective.decoder:self-attention"
            )

    def build(self, encoder: VisionTransformer) -> "VisibleEncoding":
        """The module, which has no weights."""
        return VisibleEncoding()

    def build_decoder(
        self, decoder: AnyDecoder, encoder: VisionTransformer, out_dim: int
    ) -> TokenDecoder | CrossDecoder:
        """A decoder whose input are the tokens of visible patches."""
        assert not isinstance(decoder, LinearDecoder)
        return decoder.build(encoder, out_dim)


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """A learned token replaces each hidden patch, in the encoder as well (MAE table 1c, "encoder w/ [M]").

    At ViT-L it takes 3.2 to 3.3 times the FLOPs and gives worse results: 84.2 % fine-tuned and 59.6 % linear, instead of
    84.9 % and 73.5 %. For comparisons, and for BEiT and SimMIM, which work this way.
    """

    def check(self, decoder: AnyDecoder) -> None:
        """Raises SettingsError for a decoder that adds its own tokens for hidden patches."""
        if isinstance(decoder, CrossAttentionDecoder):
            raise SettingsError(
                "a cross-attention decoder has its own mask tokens, and encoding:replaced has the encoder's; use "
                "objective.decoder:self-attention or objective.encoding:visible"
            )

    def build(self, encoder: VisionTransformer) -> "ReplacedEncoding":
        """The module, which holds the token."""
        return ReplacedEncoding(encoder)

    def build_decoder(
        self, decoder: AnyDecoder, encoder: VisionTransformer, out_dim: int
    ) -> TokenDecoder | LinearPrediction:
        """A decoder whose input are the tokens of all patches."""
        assert not isinstance(decoder, CrossAttentionDecoder)
        return decoder.build_for_all(encoder, out_dim)


AnyEncoding = Annotated[Visible, Kind("visible")] | Annotated[Replaced, Kind("replaced")]


class VisibleEncoding(nn.Module):
    """See `Visible`."""

    def forward(
        self,
        encoder: VisionTransformer,
        images: Shaped[Tensor, "b c h w"],
        mask: PatchMask,
        taps: Collection[int],
    ) -> Encoded:
        """Tokens of the kept patches, in the order of `mask.kept_index`."""
        return encoder.encode_visible(images, mask, taps)


class ReplacedEncoding(nn.Module):
    """See `Replaced`."""

    def __init__(self, encoder: VisionTransformer) -> None:
        super().__init__()
        self.mask_token = drawn_token(encoder.embed_dim)

    def forward(
        self,
        encoder: ReplacingEncoder,
        images: Shaped[Tensor, "b c h w"],
        mask: PatchMask,
        taps: Collection[int],
    ) -> Encoded:
        """Tokens of all patches, in image order."""
        return encoder.encode_replaced(images, mask, self.mask_token, taps)
