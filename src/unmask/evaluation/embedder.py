"""The encoder of a run as a transformer of scikit-learn."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from torch import Tensor

from unmask.errors import SettingsError
from unmask.evaluation.vectors import Fitted, VectorRule
from unmask.runs.batches import Images
from unmask.runs.model import Model, load


class Embedder(TransformerMixin, BaseEstimator):
    """Images to vectors, for scikit-learn: in a Pipeline, with clone and GridSearchCV.

    `fit` learns the centring and whitening of a `VectorRule` from the images that it is given, never from those that are
    transformed, and no weights. Parameters are kept as they are given, as scikit-learn expects, and checked in `fit`.
    """

    def __init__(
        self,
        run: str | Path | Model = "",
        *,
        pooling: Literal["mean", "class"] = "mean",
        whitened: int = 128,
        batch_size: int = 64,
        device: str = "cpu",
    ) -> None:
        """Say which encoder, and how its tokens become a vector.

        Args:
            run: a run or weights, or a loaded model.
            pooling: the mean of the patch tokens, or the class token.
            whitened: principal components to keep, each scaled to variance 1; 0 keeps the vectors as they are. Cut to
                what the number of images allows.
            batch_size: how many images pass the encoder together.
            device: where to compute, if `run` is not loaded yet.
        """
        self.run, self.pooling, self.whitened = run, pooling, whitened
        self.batch_size, self.device = batch_size, device

    def fit(self, X: Images, y: Any = None) -> "Embedder":
        """Learn centring and whitening from training images; `y` is not used.

        Args:
            X: what `Model.embed` takes, such as a list of files, pictures or arrays, or an array [n h w] or [n h w c].
            y: ignored.

        Raises:
            SettingsError: for parameters that are not valid, for rows of values in place of images, or if there are too
                few images to whiten.
            RunError: if there are no such weights.
            DataError: if an image cannot be read.
        """
        self.fit_transform(X, y)
        return self

    def fit_transform(  # pyright: ignore[reportIncompatibleMethodOverride] - no further arguments
        self,
        X: Images,
        y: Any = None,
    ) -> Float32[NDArray[np.float32], "n k"]:
        """Learn from images and give their vectors; each passes the encoder once."""
        if self.pooling not in ("mean", "class"):
            raise SettingsError(f'pooling is "mean" or "class", got {self.pooling!r}')
        centred = "mean" if self.whitened else "none"
        rule = VectorRule(pooling=self.pooling, centred=centred, whitened=self.whitened)
        self.model_ = self.run if isinstance(self.run, Model) else load(self.run, self.device)
        vectors = self._pooled(X)
        self.rule_: Fitted = rule.fit(vectors)
        return self.rule_.of(vectors).numpy()

    def transform(self, X: Images) -> Float32[NDArray[np.float32], "n k"]:
        """The vectors of images.

        Raises:
            NotFittedError: before `fit`.
            DataError: if an image cannot be read.
        """
        if not hasattr(self, "rule_"):
            raise NotFittedError("call fit with training images first, or use a Pipeline")
        return self.rule_.of(self._pooled(X)).numpy()

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the values of a vector, as scikit-learn asks for them."""
        directions = self.rule_.directions
        width = len(self.rule_.mean) if directions is None else directions.shape[1]
        return np.array([f"unmask{number}" for number in range(width)], dtype=object)

    def _pooled(self, images: Images) -> Float32[Tensor, "n d"]:
        _refuse_rows(images)
        batches = self.model_.embed_batches(images, batch_size=self.batch_size, patches=False)
        field = "cls" if self.pooling == "class" else "mean"
        return torch.cat([getattr(batch, field) for batch in batches])

    def __sklearn_tags__(self) -> Any:
        """Images are no table of numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.requires_fit = True
        return tags


def _refuse_rows(images: Any) -> None:
    """Refuse a table, which would be read as one grey image.

    Raises:
        SettingsError: with the fix.
    """
    table = images.to_numpy() if hasattr(images, "to_numpy") else images
    if isinstance(table, Tensor):
        table = table.numpy(force=True)
    if isinstance(table, np.ndarray) and table.ndim == 2 and table.dtype.kind in "buif":
        raise SettingsError(
            f"an array of shape {table.shape} is a table of values, not images; reshape it to [n h w] or [n h w c], with "
            "uint8 or floats from 0 to 1"
        )
