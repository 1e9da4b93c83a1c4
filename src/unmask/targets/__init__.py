"""Prediction targets: what is predicted of hidden patches, and the error of a prediction."""

from typing import Annotated

from unmask.spec import Kind
from unmask.targets.dalle import DalleCodes
from unmask.targets.hog import Hog
from unmask.targets.pca import PrincipalComponents
from unmask.targets.pixels import AbsolutePixels, NormalizedPixels, Pixels
from unmask.targets.tokenizer import ScalarTokenizer, TokenizerCodes
from unmask.targets.tokens import KMeansTokens

AnyTarget = (
    Annotated[Pixels, Kind("pixels")]
    | Annotated[AbsolutePixels, Kind("absolute-pixels")]
    | Annotated[NormalizedPixels, Kind("normalized-pixels")]
    | Annotated[PrincipalComponents, Kind("pca")]
    | Annotated[Hog, Kind("hog")]
    | Annotated[KMeansTokens, Kind("kmeans-tokens")]
    | Annotated[TokenizerCodes, Kind("tokenizer")]
    | Annotated[DalleCodes, Kind("dalle")]
)

__all__ = [
    "AbsolutePixels",
    "AnyTarget",
    "DalleCodes",
    "Hog",
    "KMeansTokens",
    "NormalizedPixels",
    "Pixels",
    "PrincipalComponents",
    "ScalarTokenizer",
    "TokenizerCodes",
]
