"""Frozen protocols on class maps: the classes of patches from their features, without training the encoder.

Dense scores hang on choices that are often not printed. So a protocol is a spec with all of them, and its `words` stand
beside every score. `pixio-linear`, `pixio-dpt` and `dinov3-linear` train a head and are recipes (`recipes/segment.py`).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from unmask.contracts import Size
from unmask.evaluation.patch_classes import Distance
from unmask.formats.model import ModelSpec
from unmask.spec import sized, within
from unmask.tasks.neighbors import NEIGHBORS, TEMPERATURE

_LAYER = "patch tokens of the last block after the final norm"


@dataclass(frozen=True, kw_only=True)
class DenseProtocol:
    """Everything that decides the score of frozen patch features on class maps.

    Pictures and maps are squashed to one size, and scored at this size. Features are standardised with the training
    patches. Settings with several values are chosen on pictures that are held out, and the classifier is then fitted again on
    all training pictures.
    """

    name: str
    """Name of the protocol."""

    classifier: Literal["knn", "logistic"]
    """Nearest neighbours, or logistic regression."""

    spread: Literal["votes", "patches", "bilinear"]
    """From patches to pixels: neighbours vote at each pixel of the patch; all pixels get the patch's class; or scores of
    classes are interpolated."""

    image_size: Size | None = None
    """Height and width of squashed pictures; None for the encoder's image size."""

    ignored: tuple[int, ...] = ()
    """Numbers of class maps that do not count, besides the data's own ignored number."""

    neighbors: tuple[int, ...] = (NEIGHBORS,)
    """Candidates for the number of neighbours."""

    distances: tuple[Distance, ...] = ("cosine",)
    """Candidates for the distance between features."""

    temperature: float = TEMPERATURE
    """Of the weights of votes, where scores are interpolated; other votes have no weights."""

    strengths: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0)
    """Candidates for scikit-learn's C, the inverse of the regularisation strength."""

    iterations: int = 300
    """Largest number of iterations of L-BFGS."""

    most_patches: int | None = None
    """Training patches that are drawn if there are more; None for all."""

    held_out: float = 0.1
    """Share of the training pictures on which settings are chosen."""

    def __post_init__(self) -> None:
        within(self, "(0, 1)", "held_out")
        within(self, "(0, inf)", "temperature")
        sized(self, "iterations", most=1_000_000)

    def size(self, spec: ModelSpec) -> Size:
        """Height and width of squashed pictures for an encoder."""
        return self.image_size or spec.image_size

    def words(self, spec: ModelSpec, ignored: tuple[int, ...], seed: int) -> str:
        """The whole protocol in words, to stand beside its score."""
        size, listed = self.size(spec), ", ".join(map(str, ignored))
        patches = (
            "all patches" if self.most_patches is None else f"at most {self.most_patches:,} patches"
        )
        return (
            f"{self.name}: pictures and maps squashed to {size.height} x {size.width} and scored there, one crop, "
            f"ignored {listed}; {_LAYER}, standardised; {self.classifier} on {patches}, spread by {self.spread}; "
            f"settings chosen on {self.held_out:.0%} of the training pictures; seed {seed}"
        )


CAPI_KNN = DenseProtocol(
    name="capi-knn",
    classifier="knn",
    spread="votes",
    image_size=Size(224, 224),
    neighbors=(1, 3, 10, 30),
    distances=("cosine", "L2"),
)
"""CAPI's k-NN on patches (Darcet and others, 2025; their `eval_segmentation.py`, Apache-2.0). On ADE20K set `ignored` to 0.

Departs in one point: an ignored pixel of a neighbour has no vote; there it votes for the ignored number, which is then wrong."""

CAPI_LOGISTIC = DenseProtocol(
    name="capi-logistic",
    classifier="logistic",
    spread="patches",
    image_size=Size(224, 224),
    strengths=tuple(float(c) for c in 10 ** np.linspace(-6, 5, 8)),
    iterations=1000,
)
"""CAPI's logistic regression on patches, with scikit-learn's L-BFGS in place of cuML's, whose tolerance is 1e-12."""

KNN = DenseProtocol(name="knn", classifier="knn", spread="bilinear", most_patches=50_000)
"""Ours: as k-NN on whole images (cosine, 20 weighted votes), for patches; scores are interpolated to pixels."""

LINEAR = DenseProtocol(name="linear", classifier="logistic", spread="bilinear", most_patches=50_000)
"""Ours: logistic regression on patches; probabilities are interpolated to pixels."""

DENSE_PROTOCOLS = {one.name: one for one in (KNN, LINEAR, CAPI_KNN, CAPI_LOGISTIC)}
"""Frozen protocols on class maps by their names."""
