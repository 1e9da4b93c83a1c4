"""Views that keep the aspect ratio: sizes and scales, and what is refused."""

import pytest
import torch

from unmask.contracts import Size
from unmask.data.scaled_views import FittedImage, ScaleJitter
from unmask.errors import DataError, SettingsError


@pytest.mark.parametrize(
    ("whole", "longest", "shortest"),
    [
        (Size(60, 90), (43, 64), (64, 96)),
        (Size(90, 60), (64, 43), (96, 64)),
        (Size(8, 8), (64, 64), (64, 64)),
    ],
)
def test_fitted_images_fit_inside_or_cover(
    whole: Size, longest: tuple[int, int], shortest: tuple[int, int]
) -> None:
    picture = torch.zeros(3, *whole, dtype=torch.uint8)
    for side, expected in (("longest", longest), ("shortest", shortest)):
        (view,) = FittedImage(side=side)(picture, Size(64, 64))  # type: ignore[arg-type]
        assert tuple(view.shape[1:]) == expected


def test_scales_are_uniform_and_crops_no_larger_than_the_size() -> None:
    views, whole, size = ScaleJitter(least=0.5, most=2.0), Size(100, 200), Size(64, 64)
    drawn = [views.geometry(whole, size, 0, n) for n in range(2000)]
    scales = torch.tensor([one.resized.width / 64 for one in drawn])
    assert scales.min() < 0.52
    assert scales.max() > 1.98
    assert abs(float(scales.mean()) - 1.25) < 0.03
    assert {one.window.width for one in drawn if one.resized.width >= 64} == {64}
    for one in drawn:
        assert one.window.height == min(one.resized.height, 64)
        assert one.window.left + one.window.width <= one.resized.width
        assert one.window.top + one.window.height <= one.resized.height
    assert 0.45 < sum(one.mirrored for one in drawn) / len(drawn) < 0.55


def test_distortion_is_a_function_of_the_key_and_needs_colour() -> None:
    views = ScaleJitter(photometric=True)
    picture = torch.randint(256, (3, 20, 30), dtype=torch.uint8)
    first, again, other = (
        views(picture, Size(20, 20), *key)[0] for key in ((1, 2), (1, 2), (1, 3))
    )
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)
    with pytest.raises(
        DataError, match=r"photometric distortion needs .* --views.photometric False"
    ):
        views(picture[:1], Size(20, 20), 0)


def test_scales_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(SettingsError, match="least must not be larger than most, got 2 and 1"):
        ScaleJitter(least=2, most=1)
