"""Models that other layouts have no names for: what is left out is said, and what is kept is exact."""

from dataclasses import replace
from pathlib import Path

import pytest
from formats.models import TINY, assert_same, read_weights, weights_of, written

from unmask.contracts import Size
from unmask.encoders.vit import BeitBlocks
from unmask.errors import SettingsError
from unmask.formats import FORMATS, held_by
from unmask.formats.adapt import adapt
from unmask.objectives.decoders import CrossAttentionDecoder, LinearDecoder
from unmask.objectives.mae import MAE, Replaced
from unmask.targets import AbsolutePixels, Hog, KMeansTokens, PrincipalComponents

CROSSED = replace(
    TINY,
    objective=MAE(
        decoder=CrossAttentionDecoder(embed_dim=16, depth=3, num_heads=2), predicted=1 / 3
    ),
)


ONLY_OURS = {
    "cross-attention": CROSSED,
    "linear": replace(
        TINY, objective=MAE(encoding=Replaced(), decoder=LinearDecoder(), target=AbsolutePixels())
    ),
    "absolute-pixels": replace(TINY, objective=replace(TINY.objective, target=AbsolutePixels())),
    "replaced": replace(TINY, objective=replace(TINY.objective, encoding=Replaced())),
    **{
        name: replace(TINY, objective=MAE(target=target, decoder=TINY.objective.decoder))
        for name, target in {
            "pca": PrincipalComponents(share=0.25),
            "hog": Hog(),
            "kmeans-tokens": KMeansTokens(codes=8),
        }.items()
    },
}
"""Models whose decoders other layouts do not know, or whose decoders do not rebuild pixels."""


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("model", ONLY_OURS)
def test_a_decoder_that_others_do_not_know_stays_in_our_own_layout(
    tmp_path: Path, layout: str, model: str
) -> None:
    weights = weights_of(ONLY_OURS[model])
    again = read_weights(written(weights, tmp_path / "folder", layout))
    assert_same(again.encoder, weights.encoder)
    if layout == "unmask":
        assert again.spec == weights.spec
        assert_same(again.decoder, weights.decoder)
    else:
        assert again.spec.objective is None
        assert not again.decoder


@pytest.mark.parametrize("layout", ["fair", "huggingface", "timm"])
@pytest.mark.parametrize("model", ONLY_OURS)
def test_what_is_left_out_is_said(layout: str, model: str) -> None:
    weights = weights_of(ONLY_OURS[model])
    held, left = held_by(weights, FORMATS[layout])
    assert not held.decoder
    assert len(left) == 1
    assert "left out" in left[0]
    assert held_by(weights, FORMATS["unmask"])[1] == []
    assert (held_by(weights_of(TINY), FORMATS[layout])[1] == []) == (layout != "timm")


BEITS = replace(TINY, encoder=replace(TINY.encoder, blocks=BeitBlocks()))


def test_beits_blocks_stay_in_our_own_layout(tmp_path: Path) -> None:
    weights = weights_of(BEITS)
    again = read_weights(written(weights, tmp_path / "folder", "unmask"))
    assert again.spec == weights.spec
    assert_same(again.whole, weights.whole)


@pytest.mark.parametrize("layout", ["fair", "huggingface", "timm"])
def test_beits_blocks_are_refused_elsewhere(tmp_path: Path, layout: str) -> None:
    with pytest.raises(SettingsError, match=r"has BEiT's blocks.*use --to unmask"):
        written(weights_of(BEITS), tmp_path / "folder", layout)
    assert not (tmp_path / "folder").exists()


def test_beits_blocks_move_to_another_size() -> None:
    weights = weights_of(BEITS)
    moved = adapt(weights, BEITS.encoder, Size(64, 48), BEITS.statistics)
    assert set(moved.encoder) == set(weights.encoder)
    moved.build_objective()
    same = adapt(weights, BEITS.encoder, BEITS.image_size, BEITS.statistics)
    assert_same(same.whole, weights.whole)


SEVERAL = replace(TINY, encoder=replace(TINY.encoder, class_tokens=4))


def test_several_class_tokens_stay_in_our_own_layout(tmp_path: Path) -> None:
    weights = weights_of(SEVERAL)
    again = read_weights(written(weights, tmp_path / "folder", "unmask"))
    assert again.spec == weights.spec
    assert_same(again.whole, weights.whole)
    assert again.encoder["cls_token"].shape == (1, 4, 24)


@pytest.mark.parametrize("layout", ["fair", "huggingface", "timm"])
def test_several_class_tokens_are_refused_elsewhere(tmp_path: Path, layout: str) -> None:
    with pytest.raises(SettingsError, match=r"has 4 class tokens.*use --to unmask"):
        written(weights_of(SEVERAL), tmp_path / "folder", layout)
    assert not (tmp_path / "folder").exists()
