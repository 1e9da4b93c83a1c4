"""Several views of an image: their sizes, what is drawn for them, and what they do to colours."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import ImageOps
from torchvision.transforms import ColorJitter
from torchvision.transforms.v2 import functional as F

from unmask.contracts import Size
from unmask.data.multi_views import Changes, MultiCrop, TwoCrops, _jittered, _view
from unmask.errors import DataError, SettingsError

IMAGE = torch.randint(256, (3, 40, 48), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
NONE = Changes(0.0, 0.0, 0.0, 0.0, 0.0)
CROPS = MultiCrop(small_count=3, small_size=Size(8, 8))


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_two_large_views_come_first_and_small_ones_after() -> None:
    views = CROPS(IMAGE, Size(16, 24), 0, 1, 2)
    assert [tuple(view.shape) for view in views] == [(3, 16, 24)] * 2 + [(3, 8, 8)] * 3
    assert all(view.dtype == torch.uint8 for view in views)
    assert CROPS.sizes(Size(16, 24)) == (Size(16, 24),) * 2 + (Size(8, 8),) * 3


def test_two_crops_differ_in_what_is_done_to_them() -> None:
    """Only the second is solarised, and only the first is always blurred."""
    plain = TwoCrops(
        smallest_share=1.0, flip_probability=0.0, jitter_probability=0.0, gray_probability=0.0,
        blur_probabilities=(0.0, 0.0), solarize_probability=1.0,
    )  # fmt: skip
    first, second = plain(IMAGE, Size(16, 16), 3)
    whole = first.float()
    assert second.max() <= 128
    assert whole.max() > 128
    blurred, sharp = replace(plain, blur_probabilities=(1.0, 0.0), solarize_probability=0.0)(
        IMAGE, Size(16, 16), 3
    )
    assert not blurred.equal(first)
    assert sharp.shape == blurred.shape == (3, 16, 16)


def test_views_are_a_function_of_the_key_alone() -> None:
    one, same, other = (CROPS(IMAGE, Size(16, 16), 0, 1, key) for key in (2, 2, 3))
    assert all(a.equal(b) for a, b in zip(one, same, strict=True))
    assert not any(a.equal(b) for a, b in zip(one, other, strict=True))
    assert not one[0].equal(one[1])


@pytest.mark.parametrize(("least", "most"), [(0.4, 1.0), (0.05, 0.4)])
def test_shares_of_the_area(least: float, most: float) -> None:
    """Seen on an image whose pixels tell their place."""
    rows, columns = torch.meshgrid(torch.arange(200.0), torch.arange(200.0), indexing="ij")
    places = torch.stack([rows, columns, rows])
    shares = []
    draws = random()
    for _ in range(300):
        view = _view(places, Size(100, 100), least, most, NONE, draws)
        height = (view[0].max() - view[0].min()).item() + 1
        width = (view[1].max() - view[1].min()).item() + 1
        shares.append(height * width / 200**2)
    found = torch.tensor(shares)
    assert found.min() > least * 0.9
    assert found.max() < most * 1.1
    assert abs(found.mean() - (least + most) / 2) < 0.12 * (most - least) + 0.02


def test_each_change_alone() -> None:
    size = Size(40, 48)
    plain = _view(IMAGE, size, 1.0, 1.0, NONE, random())
    mirrored = _view(IMAGE, size, 1.0, 1.0, NONE._replace(flip=1.0), random())
    assert mirrored.equal(plain.flip(-1))
    gray = _view(IMAGE, size, 1.0, 1.0, NONE._replace(gray=1.0), random())
    assert gray[0].equal(gray[1])
    assert gray[0].equal(F.pil_to_tensor(F.to_pil_image(plain).convert("L"))[0])
    solarized = _view(IMAGE, size, 1.0, 1.0, NONE._replace(solarize=1.0), random())
    assert solarized.equal(torch.where(plain >= 128, 255 - plain, plain))
    assert solarized.equal(F.pil_to_tensor(ImageOps.solarize(F.to_pil_image(plain), 128)))
    blurred = _view(IMAGE, size, 1.0, 1.0, NONE._replace(blur=1.0), random())
    assert blurred.float().std() < 0.9 * plain.float().std()
    assert abs(blurred.float().mean() - plain.float().mean()) < 2


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_jitter_is_torchvisions_with_the_same_draws(order: list[int], monkeypatch: Any) -> None:
    picture = F.to_pil_image(IMAGE)
    amounts = [0.9, 0.2, 0.6, 0.1, 0.5]
    values = [0.6 + 0.8 * 0.9, 0.6 + 0.8 * 0.2, 0.8 + 0.4 * 0.6, -0.1 + 0.2 * 0.1]
    monkeypatch.setattr(
        ColorJitter, "get_params", staticmethod(lambda *_: (torch.tensor(order), *values))
    )
    theirs = ColorJitter(0.4, 0.4, 0.2, 0.1)(picture)
    assert F.pil_to_tensor(_jittered(picture, order, amounts)).equal(F.pil_to_tensor(theirs))


def test_how_often(monkeypatch: Any) -> None:
    """Each change comes as often as it should, whatever the others do."""
    changes = Changes(flip=0.5, jitter=0.0, gray=0.2, blur=0.0, solarize=0.0)
    draws, count = random(), 400
    gray = 0
    for _ in range(count):
        view = _view(IMAGE, Size(8, 8), 0.5, 1.0, changes, draws)
        gray += int(view[0].equal(view[1]))
    assert abs(gray / count - 0.2) < 4 * (0.2 * 0.8 / count) ** 0.5


def test_grey_images_keep_one_channel() -> None:
    views = replace(CROPS, jitter_probability=1.0)(IMAGE[:1], Size(16, 16), 4)
    assert {len(view) for view in views} == {1}


@pytest.mark.parametrize("image", [IMAGE.float(), IMAGE.repeat(2, 1, 1)])
def test_other_pixels_take_no_colour_changes(image: torch.Tensor) -> None:
    with pytest.raises(DataError, match="set --views"):
        CROPS(image, Size(16, 16), 0)
    plain = replace(
        CROPS, jitter_probability=0.0, gray_probability=0.0, solarize_probability=0.0,
        blur_probabilities=(0.0, 0.0, 0.0),
    )  # fmt: skip
    assert {view.dtype for view in plain(image, Size(16, 16), 0)} == {image.dtype}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"small_count": -1}, "small_count must not be negative"),
        ({"smallest_share": 0.0}, "above 0 and at most 1"),
        ({"smallest_share": 0.5}, "must not be larger than middle_share"),
        ({"gray_probability": 1.5}, r"gray_probability must lie between 0 and 1, got 1.5"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        replace(CROPS, **wrong)


def test_small_crops_larger_than_the_image_are_refused() -> None:
    with pytest.raises(
        SettingsError, match="small crops of 96 pixels are larger than the image size 32"
    ):
        MultiCrop().sizes(Size(32, 32))
