"""Mean and deviation per channel."""

import json
from pathlib import Path

import pytest
import torch
from reference.problems import random
from reference.sources import Memory

from unmask.data import Digits
from unmask.data.statistics import IMAGENET, measure, statistics_of
from unmask.errors import DataError, SettingsError
from unmask.spec import to_json


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_equals_all_pixels_at_once(channels: int) -> None:
    images = torch.randint(256, (7, channels, 6, 5), generator=random(0), dtype=torch.uint8)
    found = measure(Memory(images)).tensors()
    values = images.double().transpose(0, 1).flatten(1) / 255
    torch.testing.assert_close(found.mean.double(), values.mean(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.std.double(), values.std(1, correction=0), atol=1e-6, rtol=0)


def test_bytes_are_shown_over_their_whole_range() -> None:
    found = measure(Memory(torch.full((2, 2, 4, 4), 51, dtype=torch.uint8)))
    assert (found.low, found.high) == ((0.0, 0.0), (1.0, 1.0))


class TestFloatingPoint:
    """Bands far apart in level and spread, with missing values."""

    images = torch.randn(9, 3, 16, 16, generator=random(1)) * torch.tensor(
        [300.0, 1e-3, 5.0]
    ).reshape(3, 1, 1) + torch.tensor([1e5, 0.2, 0.0]).reshape(3, 1, 1)

    def test_keeps_the_units_of_each_band(self) -> None:
        found = measure(Memory(self.images))
        values = self.images.double().transpose(0, 1).flatten(1)
        torch.testing.assert_close(
            torch.tensor([found.mean, found.std]).double(),
            torch.stack([values.mean(1), values.std(1, correction=0)]),
            rtol=1e-6,
            atol=0,
        )
        levels = values.quantile(torch.tensor([0.02, 0.98]).double(), dim=1)
        torch.testing.assert_close(
            torch.tensor([found.low, found.high]).double(), levels, rtol=1e-5, atol=0
        )

    def test_missing_values_count_for_nothing(self) -> None:
        holes = self.images.clone()
        missing = torch.rand(holes.shape, generator=random(2)) < 0.4
        holes[missing] = float("nan")
        found = measure(Memory(holes))
        for channel in range(3):
            known = self.images[:, channel][~missing[:, channel]].double()
            assert found.mean[channel] == pytest.approx(known.mean().item(), rel=1e-6)
            assert found.std[channel] == pytest.approx(known.std(correction=0).item(), rel=1e-6)

    def test_a_constant_band_is_divided_by_one_and_named(self) -> None:
        images = self.images.clone()
        images[:, 1] = 7.0
        found = measure(Memory(images))
        assert (found.mean[1], found.std[1]) == (7.0, 1.0)
        assert found.low[1] < 7 < found.high[1]
        assert found.source == "measured on 9 images; constant: channel 2"

    def test_a_band_without_values_says_so(self) -> None:
        images = self.images.clone()
        images[:, 2] = float("nan")
        with pytest.raises(DataError, match=r"channel 3 has only missing values.*--channels"):
            measure(Memory(images))


def test_unreadable_images_are_left_out() -> None:
    images = torch.randint(256, (6, 1, 4, 4), generator=random(0), dtype=torch.uint8)
    found = measure(Memory(images, broken={2, 5}))
    values = images[[0, 1, 3, 4]].double() / 255
    assert found.mean[0] == pytest.approx(values.mean().item(), abs=1e-6)


def test_nothing_readable_says_so() -> None:
    with pytest.raises(
        DataError, match=r"cannot measure.*none of the images can be decoded; the first is 0"
    ):
        measure(Memory(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), broken={0, 1}))


class TestChoice:
    source = Memory(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))

    def test_imagenet_has_the_customary_values(self) -> None:
        found = statistics_of(self.source, "imagenet")
        assert found.mean == (0.485, 0.456, 0.406)
        assert found.std == (0.229, 0.224, 0.225)

    def test_measure(self) -> None:
        assert statistics_of(self.source, "measure").mean == (0.0, 0.0, 0.0)

    def test_a_file_gives_back_what_was_measured(self, tmp_path: Path) -> None:
        measured = measure(
            Memory(torch.randint(256, (3, 3, 8, 8), generator=random(3), dtype=torch.uint8))
        )
        (tmp_path / "bands.json").write_text(json.dumps(to_json(measured)))
        assert statistics_of(self.source, str(tmp_path / "bands.json")) == measured

    @pytest.mark.parametrize("wanted", ["imagenet", "bands.json"])
    def test_another_number_of_channels(
        self, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("bands.json").write_text(json.dumps(to_json(IMAGENET)))
        grey = Memory(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
        with pytest.raises(SettingsError, match="has 3 channels, but the images have 1"):
            statistics_of(grey, wanted)

    def test_a_damaged_first_image_changes_nothing(self) -> None:
        images = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
        assert statistics_of(Memory(images, broken={0}), "imagenet") == IMAGENET
        with pytest.raises(SettingsError, match="is for uint8 pixels, but the images are float32"):
            statistics_of(Memory(images.float(), broken={0}), "imagenet")

    def test_a_misspelt_word(self) -> None:
        with pytest.raises(SettingsError, match="imagenet, measure or a JSON file, and 'mesure'"):
            statistics_of(self.source, "mesure")

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("{", "cannot be read"),
            ('{"mean": [1.0], "std": [1.0], "low": [0.0], "source": "me"}', "'high' is missing"),
            (
                '{"mean": [1.0], "std": [0.0], "low": [0.0], "high": [1.0], "source": "me"}',
                "std must be above 0",
            ),
        ],
    )
    def test_a_damaged_file(self, tmp_path: Path, text: str, words: str) -> None:
        (tmp_path / "bands.json").write_text(text)
        with pytest.raises(SettingsError, match=words):
            statistics_of(self.source, str(tmp_path / "bands.json"))


def test_digits_are_the_published_set() -> None:
    train, test = Digits().open("train"), Digits().open("test")
    assert Digits().splits() == ("train", "test")
    labels = [*train.labels(), *test.labels()]
    assert (len(train), len(test)) == (1442, 355)
    assert [labels.count(digit) for digit in range(10)] == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip
    image, label = train[0]
    assert label == train.labels()[0] == 0
    assert image.dtype == torch.uint8
    assert image[0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0 0 5 13 9 1 0 0 sixteenths
    assert train.typical_size() == (8, 8)
    assert train.fingerprint != test.fingerprint


def test_digits_to_test_on_are_every_fifth_of_each() -> None:
    train, test = Digits().open("train"), Digits().open("test")
    names = [source.name(i) for source in (train, test) for i in range(len(source))]
    assert len(set(names)) == 1797
    for digit in range(10):
        both = (train.labels() == digit).sum() + (test.labels() == digit).sum()
        assert (test.labels() == digit).sum() == both // 5
    place = test.labels().tolist().index(0)
    zeros = sorted(
        int(source.name(i).split()[1])
        for source in (train, test)
        for i in range(len(source))
        if source.labels()[i] == 0
    )
    assert test.name(place) == f"digit {zeros[4]}"
