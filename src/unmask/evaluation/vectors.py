"""One vector of an image: how tokens are pooled, and how vectors are centred and whitened for cosine similarity.

Whitening is fitted on training images only. A fitted rule is stored with hashes of the weights and of the images that it
was fitted on, so that the same vectors can be made again.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional as F

from unmask.encoders.vit import VisionTransformer
from unmask.errors import DataError, SettingsError
from unmask.files import parse_json, write_text, write_whole
from unmask.spec import from_json, to_json, within
from unmask.tensors import hash_of_tensors, save_tensors

GEM_POWER = 3.0
"""Exponent of the generalised mean (Radenovic and others, "Fine-tuning CNN image retrieval", 2018, equation 3)."""

_GEM_LEAST = 1e-6  # smallest magnitude of a token's value, as in the published code
_SHARE = 1e-3
"""Share of the mean variance that is added to each variance, so that directions of noise are not blown up."""

_LEAST_VARIANCE = 1e-12  # equal vectors have none at all
_ROUNDING = 1e-12  # share of the largest variance; what varies less is rounding, as where each picture is there twice
_CHUNK = 8192  # vectors in float64 at a time, to limit memory
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class VectorRule:
    """How the tokens of an image become one vector."""

    pooling: Literal["class", "mean", "gem"] = "mean"
    """The class token, the mean of the patch tokens, or their generalised mean with exponent 3."""

    block: int | None = None
    """The block whose output is pooled, counted from 1, after the encoder's final norm; null for the last."""

    centred: Literal["none", "mean", "positions"] = "mean"
    """What is subtracted: nothing, the mean vector of the training images, or from each patch token the mean token of its
    position, before pooling. With pooling `mean` the last two are the same."""

    whitened: int = 128
    """Principal components to keep, each scaled to variance 1; 0 for no whitening. Cut to what the training images allow."""

    def __post_init__(self) -> None:
        within(self, "[0, inf)", "whitened", usual="128 is usual, and 0 is off")
        within(self, "[1, inf)", "block", usual="blocks are counted from 1")
        if self.pooling == "class" and self.centred == "positions":
            raise SettingsError(
                "centred is positions, which is for patch tokens, but pooling is class; use centred mean"
            )
        if self.whitened and self.centred == "none":
            raise SettingsError(
                f"whitened is {self.whitened}, which subtracts the mean, but centred is none; use centred mean"
            )

    @property
    def words(self) -> str:
        """How vectors are made, without the pooling."""
        words = [] if self.block is None else [f"block {self.block}"]
        if self.centred == "positions" and self.pooling != "mean":
            words.append("position means subtracted")
        elif self.centred != "none" and not self.whitened:
            words.append("centred")
        return ", ".join([*words, *([f"whitened to {self.whitened}"] * bool(self.whitened))])

    @property
    def feature(self) -> str:
        """The name of what is pooled, as in `Row.feature`."""
        return "cls" if self.pooling == "class" else self.pooling

    @property
    def without_tokens(self) -> "VectorRule":
        """The same centring and whitening of vectors that are not pooled from tokens."""
        centred = "none" if self.centred == "none" else "mean"
        return VectorRule(centred=centred, whitened=self.whitened)

    @property
    def needs_positions(self) -> bool:
        """Whether the mean token of each position is needed before pooling."""
        return self.centred == "positions"

    def pool(
        self,
        encoder: VisionTransformer,
        images: Shaped[Tensor, "b c h w"],
        means: Float[Tensor, "n d"] | None = None,
    ) -> Float[Tensor, "b d"]:
        """Vectors of whole images, not yet centred; `means` are the mean tokens of positions if the rule needs them.

        Raises:
            SettingsError: if the encoder has fewer blocks than the rule's.
        """
        cls, patches = tokens_at(encoder, images, self.block)
        if self.pooling == "class":
            return cls.mean(1)
        if means is not None:
            patches = patches - means.to(patches)
        return gem(patches) if self.pooling == "gem" else patches.mean(1)

    def fit(
        self, vectors: Float[Tensor, "n d"], positions: Float[Tensor, "p d"] | None = None
    ) -> "Fitted":
        """Fit mean and whitening to the pooled vectors of training images.

        Whitening keeps the directions of largest variance, and scales each to about variance 1 (Jégou and Chum, "Negative
        evidences and co-occurrences in image retrieval: the benefit of PCA and whitening", 2012): a thousandth of the
        mean variance is added to each variance first.

        Raises:
            SettingsError: if there are fewer than two vectors to whiten.
            DataError: if vectors are not finite.
        """
        if not bool(vectors.isfinite().all()):
            raise DataError(
                "vectors are not finite, so nothing can be fitted to them; check the weights"
            )
        count, width = vectors.shape
        mean = torch.zeros(width)
        if self.whitened or self.centred == "mean":
            mean = vectors.double().mean(0).float()
        if not self.whitened:
            return Fitted(self, mean, None, positions)
        if count < 2:
            raise SettingsError(
                f"whitening needs at least 2 training images, got {count}; set whitened to 0"
            )
        directions = _whitening(vectors, mean, min(self.whitened, width, count - 1))
        return Fitted(self, mean, directions, positions)


PLAIN = VectorRule(centred="none", whitened=0)
"""The mean of the patch tokens as it is."""

DEFAULT = VectorRule(pooling="mean", whitened=128)
"""Whitened vectors: 7.5 points of k-NN above plain means on four sets, and 11.5 with random weights; those of the middle block are
level (studies/features.md)."""


def gem(tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
    """The generalised mean over tokens: the cube root of the mean of cubes.

    The paper clamps values below a small epsilon, because those after a ReLU are not negative. Tokens of a ViT have both
    signs, so each value keeps its sign, and only its magnitude is clamped.
    """
    powers = tokens.sign() * tokens.abs().clamp(min=_GEM_LEAST) ** GEM_POWER
    mean = powers.mean(1)
    return mean.sign() * mean.abs() ** (1 / GEM_POWER)


def tokens_at(
    encoder: VisionTransformer, images: Shaped[Tensor, "b c h w"], block: int | None
) -> tuple[Float[Tensor, "b g d"], Float[Tensor, "b n d"]]:
    """Class tokens and patch tokens after a block, counted from 1, and the encoder's final norm; None for the last.

    Raises:
        SettingsError: if the encoder has fewer blocks.
    """
    depth = len(encoder.blocks)
    if block is not None and block > depth:
        raise SettingsError(
            f"block is {block}, but the encoder has {depth} blocks; choose 1 to {depth}"
        )
    if block is None or block == depth:
        encoded = encoder.encode(images)
        return encoded.cls, encoded.patches
    tokens = encoder.norm(encoder.encode(images, taps=(block,)).taps[0])
    return tokens[:, : encoder.class_tokens], tokens[:, encoder.class_tokens :]


@dataclass(frozen=True)
class Fitted:
    """A rule fitted to training images."""

    rule: VectorRule
    mean: Float[Tensor, " d"]
    """Subtracted from pooled vectors; zeros if nothing is."""
    directions: Float[Tensor, "d k"] | None
    """Principal directions, each divided by the standard deviation along it; None without whitening."""
    positions: Float[Tensor, "n d"] | None
    """The mean token of each position, in row-major order; None if the rule does not need it."""

    def of(self, vectors: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Pooled vectors, centred and whitened."""
        centred = vectors - self.mean.to(vectors)
        return centred if self.directions is None else centred @ self.directions.to(vectors)

    def inverse(self, vectors: Float[Tensor, "b k"]) -> Float[Tensor, "b d"]:
        """Pooled vectors from whitened ones; where whitening cuts directions, those nearest that it keeps."""
        if self.directions is None:
            return vectors + self.mean.to(vectors)
        # directions are orthogonal, each scaled, so the pseudoinverse is their transpose over the squared lengths
        back = self.directions.double()
        back = back / back.square().sum(0).clamp(min=1e-300)  # some have length 0
        return (vectors.double() @ back.T + self.mean.double()).to(vectors.dtype)

    @torch.inference_mode()
    def of_images(
        self, encoder: VisionTransformer, images: Shaped[Tensor, "b c h w"]
    ) -> Float[Tensor, "b k"]:
        """The vectors of whole images."""
        return self.of(self.rule.pool(encoder, images, self.positions))

    def save(self, path: Path, facts: dict[str, Any]) -> list[Path]:
        """Write tensors as safetensors, with all facts in the header, and the facts as JSON next to it."""
        tensors = {"mean": self.mean}
        if self.directions is not None:
            tensors["directions"] = self.directions
        if self.positions is not None:
            tensors["positions"] = self.positions
        content = {
            "format": _FORMAT,
            "rule": to_json(self.rule),
            **facts,
            "checksum": hash_of_tensors(tensors),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        header = {"vectors": json.dumps(content)}
        write_whole(path, lambda temporary: save_tensors(tensors, temporary, header))
        readable = path.with_suffix(".json")
        write_text(readable, json.dumps(content, indent=1) + "\n")
        return [path, readable]


def read_fitted(path: Path) -> tuple[Fitted, dict[str, Any]]:
    """The fitted rule of a file that `Fitted.save` wrote, and the facts in its header.

    Raises:
        DataError: if the file is damaged, or of a newer version.
    """
    try:
        with safe_open(path, "pt") as file:
            content = parse_json((file.metadata() or {})["vectors"], str(path))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if content["format"] > _FORMAT:
            raise DataError(f"format {content['format']} is newer than {_FORMAT}")
        if content["checksum"] != hash_of_tensors(tensors):
            raise DataError("the checksum is wrong")
        rule = from_json(VectorRule, content["rule"])
        fitted = Fitted(rule, tensors["mean"], tensors.get("directions"), tensors.get("positions"))
    except (OSError, KeyError, TypeError, SafetensorError, DataError) as error:
        raise DataError(
            f"{path} holds no vectors that can be used ({error}); run `unmask evaluate` again to write it"
        ) from None
    return fitted, content


def load_fitted(path: Path, encoder: VisionTransformer) -> Fitted:
    """The fitted rule of a file, for the weights that it was fitted for.

    Raises:
        DataError: see `read_fitted`.
        SettingsError: if it was fitted for other weights.
    """
    fitted, facts = read_fitted(path)
    if facts.get("weights") != hash_of_tensors(encoder.state_dict()):
        raise SettingsError(
            f"{path} was fitted for other weights; run `unmask evaluate` with these to write it again"
        )
    return fitted


def _whitening(
    vectors: Float[Tensor, "n d"], mean: Float[Tensor, " d"], width: int
) -> Float[Tensor, "d k"]:
    """The `width` principal directions, each divided by the (regularised) standard deviation along it.

    Directions in which vectors do not differ become zeros.
    """
    variances, directions = _components(vectors, mean, width)
    smallest = _SHARE * float(_total_variance(vectors, mean)) / vectors.shape[1]
    scales = (variances.clamp(min=0) + max(smallest, _LEAST_VARIANCE)).rsqrt()
    scales = torch.where(variances > _ROUNDING * variances[0], scales, 0.0)
    largest = directions.abs().argmax(0, keepdim=True)
    signs = directions.gather(0, largest).sign()  # otherwise they depend on the library
    return (directions * signs * scales).float()


def _components(
    vectors: Float[Tensor, "n d"], mean: Float[Tensor, " d"], width: int
) -> tuple[Float[Tensor, " k"], Float[Tensor, "d k"]]:
    """Variances along the principal directions, largest first, and the directions as columns, in float64."""
    count, size = vectors.shape
    if count < size:  # products of images are a smaller matrix than those of values
        centred = (vectors - mean).double()
        variances, weights = _largest(centred @ centred.T / count, width)
        return variances, F.normalize(centred.T @ weights, dim=0)
    covariance = torch.zeros(size, size, dtype=torch.float64)
    for part in vectors.split(_CHUNK):
        centred = (part - mean).double()
        covariance += centred.T @ centred
    return _largest(covariance / count, width)


def _largest(
    matrix: Float[Tensor, "size size"], count: int
) -> tuple[Float[Tensor, " k"], Float[Tensor, "size k"]]:
    """The largest eigenvalues and their eigenvectors; scipy computes no others, which for raw pixels saves most of the time."""
    from scipy.linalg import eigh
    from threadpoolctl import threadpool_limits

    size = len(matrix)
    with threadpool_limits(torch.get_num_threads()):
        values, vectors = eigh(matrix.numpy(), subset_by_index=(size - count, size - 1))
    return torch.from_numpy(values[::-1].copy()), torch.from_numpy(vectors[:, ::-1].copy())


def _total_variance(vectors: Float[Tensor, "n d"], mean: Float[Tensor, " d"]) -> Tensor:
    """The sum of the variances of all values."""
    squares = [(part - mean).double().square().sum() for part in vectors.split(_CHUNK)]
    return torch.stack(squares).sum() / len(vectors)
