"""An encoder and its features' folder, from the `spec` of the module that asks."""

from pathlib import Path

import pytest
import torch

from unmask.encoders.vit import VisionTransformer
from unmask.evaluation.store import FeatureStore
from unmask.formats.model import ModelSpec


@pytest.fixture
def encoder(spec: ModelSpec) -> VisionTransformer:
    return spec.build_encoder().eval()


@pytest.fixture
def store(tmp_path: Path, encoder: VisionTransformer, spec: ModelSpec) -> FeatureStore:
    return FeatureStore(tmp_path / "features", encoder, spec, torch.device("cpu"))
