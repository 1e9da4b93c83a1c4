"""transformers' ViT and ViTMAE: weights copied over in both directions, the same noise given to both."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from formats import models
from formats.models import (
    TINY,
    WHOLE_B16,
    WIDE,
    close,
    normalized,
    pictures,
    read_weights,
    weights_of,
    written,
)
from safetensors.torch import load_file
from transformers import ViTConfig, ViTForImageClassification, ViTMAEConfig, ViTMAEForPreTraining

from unmask.encoders.vit import VIT_B16
from unmask.errors import SettingsError
from unmask.formats.model import Weights
from unmask.masking.random import mask_from_noise
from unmask.objectives.decoders import SelfAttentionDecoder

SHAPE = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 72,
    "image_size": 16,
    "patch_size": 4,
    "layer_norm_eps": 1e-6,
}
DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    transformers.utils.logging.disable_progress_bar()


@torch.no_grad()
def assert_equal_models(weights: Weights, theirs: Any, count: int = 2) -> None:
    """Visible features, prediction and loss, with the same noise."""
    spec = weights.spec
    patches = theirs.vit.embeddings.patch_embeddings.num_patches
    images = pictures(count, 3, *spec.image_size)
    noise = torch.rand(count, patches, generator=torch.Generator().manual_seed(1))
    pixels = normalized(images)

    objective = weights.build_objective()
    mask = mask_from_noise(noise, theirs.config.mask_ratio)
    visible = objective.encoder.encode_visible(images, mask)
    expected = theirs(pixels, noise=noise)
    close(
        torch.cat([visible.cls, visible.patches], 1),
        theirs.vit(pixels, noise=noise).last_hidden_state,
    )
    close(objective.predict_all(images, mask), expected.logits)
    close(objective.loss(images, mask), expected.loss)
    assert mask.removed.equal(expected.mask.bool())


@pytest.mark.parametrize("normalized_pixels", [True, False])
def test_from_transformers_own_files(tmp_path: Path, normalized_pixels: bool) -> None:
    """Its saver spells the decoder otherwise than the Hub's files."""
    config = ViTMAEConfig(**SHAPE, **DECODER, norm_pix_loss=normalized_pixels, mask_ratio=0.6)
    theirs = models.shaken(ViTMAEForPreTraining(config))
    theirs.save_pretrained(tmp_path / "x")
    assert_equal_models(read_weights(tmp_path / "x"), theirs)


def test_from_a_state_dict_in_memory(tmp_path: Path) -> None:
    theirs = models.shaken(ViTMAEForPreTraining(ViTMAEConfig(**SHAPE, **DECODER)))
    theirs.config.save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    assert_equal_models(read_weights(tmp_path), theirs)


@torch.no_grad()
def test_from_a_classifier(tmp_path: Path) -> None:
    theirs: Any = models.shaken(ViTForImageClassification(ViTConfig(**SHAPE, num_labels=4)))
    theirs.save_pretrained(tmp_path / "x")
    weights = read_weights(tmp_path / "x")
    assert weights.decoder == {}
    assert "left out, because it belongs to a classifier: classifier.bias" in weights.notes[0]
    images = pictures(2, 3, 16, 16)
    ours = weights.build_encoder().encode(images)
    found = theirs.vit(normalized(images)).last_hidden_state
    close(torch.cat([ours.cls, ours.patches], 1), found)


def test_another_epsilon_is_said(tmp_path: Path) -> None:
    config = ViTMAEConfig(**{**SHAPE, "layer_norm_eps": 1e-12}, **DECODER)
    ViTMAEForPreTraining(config).save_pretrained(tmp_path / "x")
    assert "layer_norm_eps 1e-12; unmask uses 1e-06" in read_weights(tmp_path / "x").notes[0]


def test_spelling_on_disk_is_the_hubs(tmp_path: Path) -> None:
    names = set(load_file(written(weights_of(), tmp_path / "folder", "huggingface")))
    assert "vit.encoder.layer.0.attention.attention.query.weight" in names
    assert "decoder.decoder_layers.1.attention.output.dense.bias" in names
    config = models.json_of(tmp_path / "folder" / "config.json")
    assert config["architectures"] == ["ViTMAEForPreTraining"]
    assert (config["layer_norm_eps"], config["mask_ratio"]) == (1e-6, 0.6)


def test_encoder_alone_is_a_vit_model(tmp_path: Path) -> None:
    weights = weights_of(replace(WIDE, objective=None))
    names = set(load_file(written(weights, tmp_path / "folder", "huggingface")))
    assert "encoder.layer.0.attention.attention.query.weight" in names
    assert models.json_of(tmp_path / "folder" / "config.json")["architectures"] == ["ViTModel"]


@pytest.mark.slow
def test_whole_base_model_to_transformers(tmp_path: Path) -> None:
    weights = weights_of(WHOLE_B16)
    file = written(weights, tmp_path / "folder", "huggingface")
    theirs, said = ViTMAEForPreTraining.from_pretrained(file.parent, output_loading_info=True)
    assert not said["missing_keys"] | said["unexpected_keys"]
    assert_equal_models(weights, theirs.eval(), count=1)


@pytest.mark.slow
def test_whole_base_model_from_transformers(tmp_path: Path) -> None:
    theirs = ViTMAEForPreTraining(ViTMAEConfig(norm_pix_loss=True, layer_norm_eps=1e-6)).eval()
    theirs.save_pretrained(tmp_path / "x")
    weights = read_weights(tmp_path / "x")
    assert weights.spec.encoder == VIT_B16
    assert weights.spec.objective is not None
    assert weights.spec.objective.decoder == SelfAttentionDecoder()
    assert_equal_models(weights, theirs, count=1)


def test_rectangles_with_a_decoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"ViTMAE only takes square images, .* 8x24 pixels"):
        written(weights_of(WIDE), tmp_path / "folder", "huggingface")
    assert list(tmp_path.iterdir()) == []


def test_image_processor_normalises_as_we_do(tmp_path: Path) -> None:
    written(weights_of(), tmp_path / "folder", "huggingface")
    said = models.json_of(tmp_path / "folder" / "preprocessor_config.json")
    assert said["image_mean"] == list(TINY.statistics.mean)
    assert said["size"] == {"shortest_edge": 16}
    assert said["crop_size"] == {"height": 16, "width": 16}
