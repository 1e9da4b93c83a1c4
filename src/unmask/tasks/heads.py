"""Heads: from an encoder's tokens to class scores.

A head gets the tokens after the last block, class token first, and the encoder's final norm, which it may apply.
"""

from dataclasses import dataclass
from typing import Annotated

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.attention import attend
from unmask.encoders.layers import NORM_EPSILON, drawn_token
from unmask.spec import Kind

_HEAD_WIDTH = 64  # channels per attention head, as in ViT


@dataclass(frozen=True, kw_only=True)
class MeanHead:
    """Mean of the patch tokens, a new norm instead of the encoder's, and a linear layer, as in MAE's fine-tuning.

    As in the published code, the norm is called fc_norm and the linear layer is initialised near zero.
    """

    def build(self, embed_dim: int, classes: int) -> "MeanClassifier":
        """The module, initialised from torch's global generator."""
        return MeanClassifier(embed_dim, classes, nn.LayerNorm(embed_dim, eps=NORM_EPSILON))


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """A linear layer on the mean of the patch tokens after the encoder's norm."""

    def build(self, embed_dim: int, classes: int) -> "MeanClassifier":
        """The module, initialised from torch's global generator."""
        return MeanClassifier(embed_dim, classes, None)


class MeanClassifier(nn.Module):
    """See `MeanHead`, which has an `fc_norm`, and `LinearHead`, which has none."""

    def __init__(self, embed_dim: int, classes: int, fc_norm: nn.LayerNorm | None) -> None:
        super().__init__()
        self.uses_norm = fc_norm is None
        self.fc_norm = fc_norm
        self.linear = _linear(embed_dim, classes, 2e-5)

    def forward(self, tokens: Float[Tensor, "b t d"], norm: nn.Module) -> Float[Tensor, "b o"]:
        """Scores of the classes."""
        if self.fc_norm is None:
            return self.linear(norm(tokens)[:, 1:].mean(1))
        return self.linear(self.fc_norm(tokens[:, 1:].mean(1)))


@dataclass(frozen=True, kw_only=True)
class ClassTokenHead:
    """A linear layer on the class token after the encoder's norm: MAE's fine-tuning with a class token.

    The published code's other choice beside `MeanHead`, with similar scores (appendix A.1). There is no fc_norm; the
    encoder's own norm is trained with it. The linear layer is initialised near zero. In float16 ViT-H may overflow, as
    the authors note, so use bfloat16 or float32.
    """

    def build(self, embed_dim: int, classes: int) -> "ClassTokenClassifier":
        """The module, initialised from torch's global generator."""
        return ClassTokenClassifier(embed_dim, classes)


class ClassTokenClassifier(nn.Module):
    """See `ClassTokenHead`."""

    uses_norm = True

    def __init__(self, embed_dim: int, classes: int) -> None:
        super().__init__()
        self.linear = _linear(embed_dim, classes, 2e-5)

    def forward(self, tokens: Float[Tensor, "b t d"], norm: nn.Module) -> Float[Tensor, "b o"]:
        """Scores of the classes."""
        return self.linear(norm(tokens)[:, 0])


@dataclass(frozen=True, kw_only=True)
class TokenProbe:
    """The class token after the encoder's norm, batch normalisation and a linear layer (MAE appendix A.1).

    The batch normalisation has no learned parameters and an epsilon of 1e-6. In training it uses the statistics of the
    micro-batch, or the running averages for a single image; in evaluation, the running averages. With several processes
    each uses its own images, and the running averages are averaged over processes after every step.
    """

    def build(self, embed_dim: int, classes: int) -> "TokenClassifier":
        """The module, initialised from torch's global generator."""
        return TokenClassifier(embed_dim, classes)


class TokenClassifier(nn.Module):
    """See `TokenProbe`."""

    uses_norm = True

    def __init__(self, embed_dim: int, classes: int) -> None:
        super().__init__()
        self.batch_norm = nn.BatchNorm1d(embed_dim, affine=False, eps=1e-6)
        self.linear = _linear(embed_dim, classes, 0.01)

    def forward(self, tokens: Float[Tensor, "b t d"], norm: nn.Module) -> Float[Tensor, "b o"]:
        """Scores of the classes."""
        token = norm(tokens)[:, 0]
        if self.training and len(token) == 1:  # a single image has no variance
            mean, variance = self.batch_norm.running_mean, self.batch_norm.running_var
            return self.linear(F.batch_norm(token, mean, variance, eps=self.batch_norm.eps))
        return self.linear(self.batch_norm(token))


@dataclass(frozen=True, kw_only=True)
class AttentiveHead:
    """Attention pooling of the patch tokens after the encoder's norm with one learned query, and a linear layer.

    The attentive probe of AIM (El-Nouby and others, 2024): tokens are batch-normalised over images and positions, as in
    `TokenProbe`. Keys and values are projected, in heads of 64 channels if the width is a multiple of 64.
    """

    def build(self, embed_dim: int, classes: int) -> "AttentiveClassifier":
        """The module, initialised from torch's global generator."""
        return AttentiveClassifier(embed_dim, classes)


class AttentiveClassifier(nn.Module):
    """See `AttentiveHead`."""

    uses_norm = True

    def __init__(self, embed_dim: int, classes: int) -> None:
        super().__init__()
        self.num_heads = max(1, embed_dim // _HEAD_WIDTH) if embed_dim % _HEAD_WIDTH == 0 else 1
        self.batch_norm = nn.BatchNorm1d(embed_dim, affine=False, eps=1e-6)
        self.query = drawn_token(embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim)
        self.value = nn.Linear(embed_dim, embed_dim)
        self.linear = _linear(embed_dim, classes, 0.01)

    def forward(self, tokens: Float[Tensor, "b t d"], norm: nn.Module) -> Float[Tensor, "b o"]:
        """Scores of the classes."""
        patches = norm(tokens)[:, 1:]
        patches = self.batch_norm(patches.flatten(0, 1)).view_as(patches)
        query = self.query.expand(patches.shape[0], -1, -1)
        pooled = attend(query, self.key(patches), self.value(patches), self.num_heads)
        return self.linear(pooled[:, 0])


AnyHead = (
    Annotated[MeanHead, Kind("mean")]
    | Annotated[LinearHead, Kind("linear")]
    | Annotated[ClassTokenHead, Kind("class-token")]
    | Annotated[TokenProbe, Kind("token-probe")]
    | Annotated[AttentiveHead, Kind("attentive")]
)


def _linear(embed_dim: int, classes: int, std: float) -> nn.Linear:
    linear = nn.Linear(embed_dim, classes)
    nn.init.trunc_normal_(linear.weight, std=std)
    nn.init.zeros_(linear.bias)
    return linear
