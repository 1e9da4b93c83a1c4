"""The vocabulary: sizes as text, and masks made of flags."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.annotations import Annotations, Objects
from unmask.contracts import Batch, Part, Size
from unmask.errors import SettingsError
from unmask.masks import PatchMask, check_count


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("224", Size(224, 224)),
        ("192x320", Size(192, 320)),
        ("8X16", Size(8, 16)),
        (" 4 ", Size(4, 4)),
    ],
)
def test_size_from_text(text: str, size: Size) -> None:
    assert Size.parse(text) == size


@given(height=st.integers(1, 9999), width=st.integers(1, 9999))
def test_size_round_trip(height: int, width: int) -> None:
    assert Size.parse(str(Size(height, width))) == Size(height, width)


@pytest.mark.parametrize("text", ["", "x", "224x", "0", "12x0", "-4", "1.5", "1x2x3", "big"])
def test_text_that_is_no_size(text: str) -> None:
    with pytest.raises(
        SettingsError, match="one number or HEIGHTxWIDTH, such as 224 or 192x320; got"
    ):
        Size.parse(text)


def test_a_raised_digit_is_no_size() -> None:
    with pytest.raises(SettingsError, match="one number or HEIGHTxWIDTH"):
        Size.parse("22²")


@settings(deadline=None)
@given(
    rows=st.integers(1, 4),
    patches=st.integers(2, 12),
    removed=st.integers(1, 11),
    seed=st.integers(0, 99),
)
def test_mask_of_flags(rows: int, patches: int, removed: int, seed: int) -> None:
    removed = min(removed, patches - 1)
    noise = torch.rand(rows, patches, generator=torch.Generator().manual_seed(seed))
    flags = noise.argsort(1).argsort(1) < removed
    mask = PatchMask.of(flags)
    assert torch.equal(mask.removed, flags)
    assert mask.image.tolist() == list(range(rows))
    for row in range(rows):
        assert mask.removed_index[row].tolist() == flags[row].nonzero().flatten().tolist()
        assert mask.kept_index[row].tolist() == (~flags[row]).nonzero().flatten().tolist()


def test_mask_rows_must_agree() -> None:
    flags = torch.tensor([[True, False, False], [True, True, False]])
    with pytest.raises(
        SettingsError, match=r"same number of patches.*; these hide between 1 and 2 of 3"
    ):
        PatchMask.of(flags)


@pytest.mark.parametrize(("flag", "what"), [(True, "keep none"), (False, "hide none")])
def test_mask_must_hide_and_keep_something(flag: bool, what: str) -> None:
    with pytest.raises(SettingsError, match=f"{what} of the 4 patches.*between 0.25 and 0.75"):
        PatchMask.of(torch.full((2, 4), flag))


def test_count_between_the_ends_is_fine() -> None:
    for kept in (1, 2, 3):
        check_count(kept, 4)
    with pytest.raises(SettingsError, match="keep none of the 4"):
        check_count(0, 4)
    with pytest.raises(SettingsError, match="hide none of the 4"):
        check_count(4, 4)


def test_first_view_is_the_image() -> None:
    views = (torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2))
    numbers = torch.zeros(1, dtype=torch.long)
    assert Batch(views, numbers, numbers, 0).images is views[0]


def annotated(annotations: Annotations) -> Batch:
    """Three images with these annotations."""
    numbers = torch.arange(3)
    return Batch(
        views=(torch.arange(3.0).reshape(3, 1, 1, 1), torch.arange(3, 6).reshape(3, 1, 1, 1)),
        annotations=annotations,
        index=numbers + 10,
        epoch=0,
        sizes=torch.tensor([[1, 1], [2, 2], [3, 3]]),
        part=Part(torch.tensor([5, 6, 7]), 9),
    )


OBJECTS = tuple(
    Objects(
        torch.zeros(count, 4),
        torch.full((count,), count),
        torch.zeros(count, 2, 2).bool(),
        torch.zeros(count).bool(),
    )
    for count in range(3)
)


@pytest.mark.parametrize("chosen", [slice(1, 3), [2, 2, 0]])
def test_rows_of_a_batch(chosen: slice | list[int]) -> None:
    places = [0, 1, 2][chosen] if isinstance(chosen, slice) else chosen
    for labels in (torch.tensor([4, 5, 6]), torch.eye(3), torch.arange(12).reshape(3, 2, 2)):
        some = annotated(labels).rows(chosen)
        assert torch.equal(some.annotations, labels[places])
        assert [view[:, 0, 0, 0].tolist() for view in some.views] == [
            places, [3 + place for place in places],
        ]  # fmt: skip
        assert some.index.tolist() == [10 + place for place in places]
        assert some.sizes[:, 0].tolist() == [1 + place for place in places]
        assert some.part.rows.tolist() == [5 + place for place in places]
    assert annotated(OBJECTS).rows(chosen).annotations == tuple(OBJECTS[place] for place in places)
    assert annotated(None).rows(chosen).annotations is None


def test_a_batch_moves_with_all_that_is_in_it() -> None:
    """But for the rows of its part, which are on the CPU always."""
    moved = annotated(OBJECTS).to(torch.device("meta"))
    assert moved.part.rows.device.type == "cpu"
    assert all(view.is_meta for view in moved.views)
    assert moved.index.is_meta
    assert moved.sizes.is_meta
    assert all(part.is_meta for objects in moved.annotations for part in objects)
    assert annotated(torch.zeros(3)).to(torch.device("meta")).annotations.is_meta


def test_masks_of_some_images_of_a_whole() -> None:
    """Two masks an image, in whichever order: those of the images asked for, told by the patch they keep."""
    kept = torch.tensor([0, 1, 2, 3, 4, 5])  # rows 0 and 3 are of image 0, 1 and 4 of image 1, ...
    removed = torch.ones(6, 6, dtype=torch.bool).scatter_(1, kept[:, None], False)
    mask = PatchMask.of(removed)._replace(image=torch.tensor([0, 1, 2, 0, 1, 2]))
    some = mask.of_images(torch.tensor([2, 0]), whole=3)
    assert some.image.tolist() == [0, 0, 1, 1]
    assert some.kept_index.flatten().tolist() == [2, 5, 0, 3]
    assert (~some.removed).nonzero()[:, 1].tolist() == [2, 5, 0, 3]
    assert some.removed_index[0].tolist() == [0, 1, 3, 4, 5]


def test_draws_for_a_part_are_its_rows_of_the_whole() -> None:
    images, number = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([7, 8])
    batch = Batch((images,), number, number, 0)
    drawn = torch.arange(10).reshape(5, 2)
    assert (batch.whole, batch.own(drawn[:2]).tolist()) == (2, [[0, 1], [2, 3]])
    part = batch._replace(part=Part(torch.tensor([1, 4]), 5))
    assert (part.whole, part.own(drawn).tolist()) == (5, [[2, 3], [8, 9]])
    assert part.own(drawn.T, dim=1).T.tolist() == [[2, 3], [8, 9]]
