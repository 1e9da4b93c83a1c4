"""The model card says what one must know before using weights."""

import pytest
from formats.models import ENCODER_ALONE, weights_of

from unmask.formats.card import model_card


def test_says_recipe_data_statistics_and_licence() -> None:
    text = model_card(weights_of(), "huggingface", "mine", "apache-2.0", "12 images of photos")
    for words in (
        "license: apache-2.0\n",
        "library_name: transformers\n",
        "# mine\n",
        "- recipe: a test\n",
        "- data: 12 images of photos\n",
        "- statistics: mean 0.485, 0.456, 0.406, standard deviation 0.229, 0.224, 0.225 (ImageNet's",
        "- encoder: ViT of 2 blocks, width 24, 3 heads, patches of 4 pixels; images of 16 x 16",
        "- decoder: 2 blocks, width 16, 2 heads, for NormalizedPixels",
        'ViTMAEForPreTraining.from_pretrained("mine", mask_ratio=0.0)',
        'unmask.load("mine")',
        "after `unmask convert mine converted --to timm`",
    ):
        assert words in text
    assert text.startswith("---\n")


def test_an_unknown_licence_is_not_dressed_up() -> None:
    text = model_card(weights_of(), "fair", "mine", "unknown", "photos")
    assert "license: unknown\n" in text
    assert "**Licence: unknown.** No licence was set when these weights were exported." in text


@pytest.mark.parametrize("layout", ["unmask", "fair", "timm", "huggingface"])
def test_three_libraries(layout: str) -> None:
    text = model_card(weights_of(ENCODER_ALONE), layout, "mine", "mit", "photos")
    assert text.count("```python") == 3
    assert "ViTModel.from_pretrained" in text
    own = {"timm": "local-dir:mine", "huggingface": 'from_pretrained("mine")'}
    if layout in own:
        assert own[layout] in text
