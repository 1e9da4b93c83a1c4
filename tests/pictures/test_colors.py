"""Colours of classes: far apart as scikit-image's CIELAB measures it, and readable."""

import numpy as np
import pytest
from skimage.color import rgb2lab

from unmask.pictures.colors import Color, class_colors, text_color


def smallest_distance(colors: list[Color]) -> float:
    lab = rgb2lab(np.array(colors)[None] / 255)[0]
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return float(distances[np.triu_indices(len(colors), 1)].min())


@pytest.mark.parametrize(("count", "bound"), [(11, 50), (20, 40), (100, 15)])
def test_colors_are_far_apart(count: int, bound: float) -> None:
    """Below about 10, colours side by side look nearly alike; hues by the golden section came to 27 and 11."""
    assert smallest_distance(class_colors(count)) > bound


def test_colors_do_not_depend_on_their_number() -> None:
    assert class_colors(400)[:3] == class_colors(3)
    assert len(set(class_colors(400))) == 400
    assert class_colors(0) == []
    assert len(class_colors(70_000)) == 70_000


def contrast(one: Color, other: Color) -> float:
    """WCAG 2: (L1 + 0.05) / (L2 + 0.05) of the relative luminances."""

    def luminance(color: Color) -> float:
        shares = [level / 255 for level in color]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_text_is_readable_on_every_color() -> None:
    greys: list[Color] = [(level, level, level) for level in range(256)]
    for color in [*class_colors(300), *greys]:
        assert contrast(text_color(color), color) >= 4.5
