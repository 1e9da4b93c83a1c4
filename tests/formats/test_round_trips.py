"""From every layout into every other and back: nothing is lost, to the last bit."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from formats import models
from formats.models import (
    BANDED,
    ENCODER_ALONE,
    GREY_ONE,
    TINY,
    WIDE,
    assert_same,
    read_weights,
    weights_of,
    written,
)
from safetensors.torch import load_file, save_file

from unmask.channels import IMAGENET
from unmask.contracts import Size
from unmask.formats import FORMATS, Hints, read_named
from unmask.formats.model import ModelSpec
from unmask.objectives.mae import MAE
from unmask.targets import NormalizedPixels, Pixels

WITH_DECODER = [name for name in FORMATS if name != "timm"]


@pytest.mark.parametrize(("first", "second"), list(product(WITH_DECODER, WITH_DECODER)))
def test_whole_models(tmp_path: Path, first: str, second: str) -> None:
    weights = weights_of()
    there = read_weights(written(weights, tmp_path / "a", first))
    back = read_weights(written(there, tmp_path / "b", second))
    assert back.spec == weights.spec
    assert_same(back.encoder, weights.encoder)
    assert_same(back.decoder, weights.decoder)


@pytest.mark.parametrize(
    "spec", [ENCODER_ALONE, replace(WIDE, objective=None)], ids=["square", "wide"]
)
@pytest.mark.parametrize(("first", "second"), list(product(FORMATS, FORMATS)))
def test_encoders(tmp_path: Path, spec: ModelSpec, first: str, second: str) -> None:
    weights = weights_of(spec)
    there = read_weights(written(weights, tmp_path / "a", first))
    back = read_weights(written(there, tmp_path / "b", second))
    assert back.spec == weights.spec
    assert_same(back.encoder, weights.encoder)
    assert back.decoder == {}


@pytest.mark.parametrize("layout", FORMATS)
def test_folders_are_read_too_and_recognised(tmp_path: Path, layout: str) -> None:
    written(weights_of(ENCODER_ALONE), tmp_path / "folder", layout)
    assert read_named(tmp_path / "folder")[0] == layout


@pytest.mark.parametrize(
    "spec",
    [TINY, ENCODER_ALONE, GREY_ONE, WIDE, BANDED],
    ids=["whole", "encoder", "grey", "wide", "banded"],
)
@pytest.mark.parametrize("layout", FORMATS)
def test_check_says_how_far_the_other_library_is(
    tmp_path: Path, layout: str, spec: ModelSpec
) -> None:
    if layout == "huggingface" and spec is WIDE:
        pytest.skip("refused, see test_huggingface")
    weights = weights_of(spec)
    check = FORMATS[layout].check(weights, written(weights, tmp_path / "folder", layout))
    assert check is not None
    assert 0 <= check.difference < 1e-5


@pytest.mark.parametrize("layout", FORMATS)
def test_check_notices_one_wrong_weight(tmp_path: Path, layout: str) -> None:
    weights = weights_of()
    file = written(weights, tmp_path / "folder", layout)
    encoder = dict(weights.encoder)
    encoder["blocks.1.mlp.fc2.bias"] = encoder["blocks.1.mlp.fc2.bias"].flip(0)
    check = FORMATS[layout].check(weights._replace(encoder=encoder), file)
    assert check is not None
    assert check.difference > 1e-3


@pytest.mark.parametrize("layout", FORMATS)
def test_leaves_nothing_half_written(tmp_path: Path, layout: str) -> None:
    written(weights_of(ENCODER_ALONE), tmp_path / "folder", layout)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "README.md").is_file()


class TestWithoutOurNote:
    """Files that this package did not write: the shapes and the configuration beside must do."""

    def strip(self, file: Path) -> Path:
        if file.suffix == ".pth":
            torch.save({"model": torch.load(file, weights_only=True)["model"]}, file)
        else:
            save_file(load_file(file), file)
        return file

    @pytest.mark.parametrize("layout", ["huggingface", "timm"])
    def test_configuration_says_all(self, tmp_path: Path, layout: str) -> None:
        weights = weights_of(TINY if layout == "huggingface" else ENCODER_ALONE)
        found = read_weights(self.strip(written(weights, tmp_path / "folder", layout)))
        source = replace(IMAGENET, source=found.spec.statistics.source)
        said = replace(found.spec, origin="a test")
        assert said == replace(weights.spec, statistics=source)
        assert "config.json" in found.spec.statistics.source
        assert_same(found.encoder, weights.encoder)
        assert_same(found.decoder, weights.decoder)

    @pytest.mark.parametrize("layout", ["huggingface", "timm"])
    def test_rectangles_are_in_the_configuration(self, tmp_path: Path, layout: str) -> None:
        weights = weights_of(replace(WIDE, objective=None))
        found = read_weights(self.strip(written(weights, tmp_path / "folder", layout)))
        assert found.spec.image_size == Size(8, 24)

    def test_fair_takes_hints(self, tmp_path: Path) -> None:
        weights = weights_of()
        file = self.strip(written(weights, tmp_path / "folder", "fair"))
        found = read_weights(file, Hints(num_heads=3, decoder_heads=2))
        assert isinstance(found.spec.objective, MAE)
        assert found.spec.encoder == TINY.encoder
        assert found.spec.objective.decoder == models.TINY.objective.decoder  # pyright: ignore
        assert found.spec.statistics == IMAGENET
        assert_same(found.whole, weights.whole)

    @pytest.mark.parametrize(
        ("name", "target"),
        [("mae_pretrain_full.pth", NormalizedPixels()), ("mae_visualize_vit.pth", Pixels())],
    )
    def test_target_is_told_by_the_name(
        self, tmp_path: Path, name: str, target: Pixels | NormalizedPixels
    ) -> None:
        file = self.strip(written(weights_of(), tmp_path / "folder", "fair"))
        file = file.rename(tmp_path / name)
        found = read_weights(file, Hints(num_heads=3, decoder_heads=2))
        assert found.spec.objective is not None
        assert found.spec.objective.target == target

    def test_target_and_ratio_are_in_transformers_configuration(self, tmp_path: Path) -> None:
        assert TINY.objective is not None
        spec = replace(TINY, objective=replace(TINY.objective, target=Pixels()))
        found = read_weights(self.strip(written(weights_of(spec), tmp_path / "f", "huggingface")))
        assert found.spec.objective == spec.objective
        assert models.json_of(tmp_path / "f" / "config.json")["norm_pix_loss"] is False

    @pytest.mark.parametrize(
        ("width", "heads", "decoder", "decoder_heads"), [(192, 3, 512, 16), (384, 6, 512, 16)]
    )
    def test_usual_widths_have_known_heads(
        self, tmp_path: Path, width: int, heads: int, decoder: int, decoder_heads: int
    ) -> None:
        assert TINY.objective is not None
        objective = replace(
            TINY.objective,
            decoder=replace(TINY.objective.decoder, embed_dim=decoder, num_heads=decoder_heads),
        )
        encoder = replace(TINY.encoder, embed_dim=width, num_heads=heads, depth=1)
        weights = weights_of(replace(TINY, encoder=encoder, objective=objective))
        found = read_weights(self.strip(written(weights, tmp_path / "folder", "fair")))
        assert found.spec.encoder == encoder
        assert found.spec.objective is not None
        assert found.spec.objective.decoder == objective.decoder


def test_built_modules_train_their_own_copy() -> None:
    weights = weights_of()
    objective = weights.build_objective()
    assert not objective.encoder.pos_embed.requires_grad
    assert objective.encoder.cls_token.requires_grad
    objective.encoder.cls_token.data.zero_()
    assert not weights.encoder["cls_token"].eq(0).any()
