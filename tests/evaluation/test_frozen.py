"""Frozen features and what they are scored with; few labels, drawn fairly."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import problems
from runs import tiny
from torch import Tensor

from unmask.channels import IMAGENET
from unmask.contracts import Size
from unmask.data import Folder, Tiff
from unmask.data.labelled import open_labelled
from unmask.encoders.vit import VisionTransformer
from unmask.errors import DataError
from unmask.evaluation import few_labels
from unmask.evaluation.features import Features, features, patch_tokens
from unmask.evaluation.few_labels import Images, compare, draw_trial
from unmask.evaluation.frozen import evaluate

CPU = torch.device("cpu")
SIZE = Size(8, 8)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("cats", "dogs", "emus")
    return tiny.write_classes(tmp_path_factory.mktemp("evaluate") / "data", names)


@pytest.fixture(scope="module")
def encoder(classes: Path) -> VisionTransformer:
    """With random weights, in the mode for training: encoding must not care."""
    return tiny.make_run(classes).build().encoder.train()


class TestFeatures:
    def test_deterministic(self, encoder: VisionTransformer, classes: Path) -> None:
        source = Folder(path=str(classes)).open()
        torch.manual_seed(1)
        first = features(encoder, source, SIZE, IMAGENET, CPU)
        torch.manual_seed(2)
        second = features(encoder, source, SIZE, IMAGENET, CPU)
        assert first.cls.equal(second.cls)
        assert first.mean.equal(second.mean)
        assert first.labels.tolist() == source.labels().tolist()
        assert first.cls.shape == (30, 8)
        assert not first.cls.equal(first.mean)

    def test_batches_do_not_matter(
        self, encoder: VisionTransformer, classes: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from unmask.evaluation import features as module

        source = Folder(path=str(classes)).open()
        together = features(encoder, source, SIZE, IMAGENET, CPU)
        monkeypatch.setattr(module, "_BATCH", 7)
        apart = features(encoder, source, SIZE, IMAGENET, CPU)
        torch.testing.assert_close(together.cls, apart.cls, rtol=1e-5, atol=1e-6)  # other sums
        torch.testing.assert_close(together.mean, apart.mean, rtol=1e-5, atol=1e-6)

    def test_nothing_is_hidden(self, encoder: VisionTransformer, classes: Path) -> None:
        """Every pixel counts: changing any patch changes the features of its image alone."""
        source = Folder(path=str(classes)).open()
        images = torch.stack([source[0].image[:, :8, :8], source[1].image[:, :8, :8]])
        before = encoder.encode(images).cls
        for top in range(0, 8, 2):
            changed = images.clone()
            changed[0, :, top : top + 2, 6:8] ^= 255
            after = encoder.encode(changed).cls
            assert not after[0].equal(before[0])
            torch.testing.assert_close(after[1], before[1], rtol=0, atol=1e-6)

    def test_unreadable_images_are_left_out_with_their_labels(
        self, encoder: VisionTransformer, classes: Path, tmp_path: Path
    ) -> None:
        data = shutil.copytree(classes, tmp_path / "data")
        cut = data / "dogs" / "04.png"
        cut.write_bytes(cut.read_bytes()[:60])
        whole = features(encoder, Folder(path=str(classes)).open(), SIZE, IMAGENET, CPU)
        found = features(encoder, Folder(path=str(data)).open(), SIZE, IMAGENET, CPU)
        assert [name for name, _ in found.unreadable] == ["dogs/04.png"]
        rest = [row for row in range(30) if row != 14]
        torch.testing.assert_close(found.cls, whole.cls[rest], rtol=1e-5, atol=1e-6)
        assert found.labels.tolist() == whole.labels[rest].tolist()
        assert found.positions.tolist() == rest
        assert found.rows(torch.tensor([3, 20])).positions.tolist() == [3, 21]
        tokens = patch_tokens(encoder, Folder(path=str(data)).open(), SIZE, IMAGENET, CPU)
        assert tokens.positions.tolist() == rest
        assert tokens.rows(torch.tensor([3, 20])).positions.tolist() == [3, 21]

        labelled = open_labelled(Folder(path=str(data)), 0)
        train, test = (
            features(encoder, part, SIZE, IMAGENET, CPU) for part in (labelled.train, labelled.test)
        )
        assert len(train.labels) + len(test.labels) == 29
        assert test.labels.bincount(minlength=3).sum() in (5, 6)

    def test_none_can_be_decoded(
        self, encoder: VisionTransformer, classes: Path, tmp_path: Path
    ) -> None:
        data = shutil.copytree(classes, tmp_path / "data")
        for file in data.rglob("*.png"):
            file.write_bytes(file.read_bytes()[:60])
        with pytest.raises(DataError, match=r"none of the images can be decoded; .*cats/00\.png"):
            features(encoder, Folder(path=str(data)).open(), SIZE, IMAGENET, CPU)


def corners(count: int, seed: int) -> Features:
    """Features that lie close to a corner for each class; those of the mean carry nothing."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    cls = torch.eye(3)[labels] + 0.1 * torch.rand(count, 3, generator=random)
    return Features(cls, torch.ones(count, 3), labels, torch.arange(count), [])


@pytest.mark.parametrize("protocol", ["knn", "logistic"])
def test_scores_know_good_features_from_useless_ones(protocol: str) -> None:
    scores = evaluate(corners(60, 0), corners(30, 1), protocol, problems.classes(3))  # pyright: ignore
    assert [score.feature for score in scores] == ["cls", "mean"]
    assert scores[0].score.value == 1
    assert scores[1].score.value == pytest.approx(1 / 3)


def grey(count: int) -> Images:
    """Images of five classes, each with a brightness of its own."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 5
    noise = torch.randint(0, 30, (count, 3, 8, 8), generator=random)
    return Images((labels[:, None, None, None] * 45 + noise).to(torch.uint8), labels)


def rows_of(images: Images, among: Images) -> set[int]:
    """Where images come from, by their pixels."""
    return {
        int((among.pixels == pixels).flatten(1).all(1).nonzero()[0]) for pixels in images.pixels
    }


@pytest.mark.parametrize("count", [1, 4])
def test_few_labels_are_balanced_and_apart(count: int) -> None:
    images, test = grey(100), grey(10)
    trial = draw_trial(images, test, count, 30, 0)
    assert trial.few.labels.bincount().tolist() == [count] * 5
    assert len(trial.validation.labels) == 30
    few, validation = rows_of(trial.few, images), rows_of(trial.validation, images)
    assert len(few) == 5 * count
    assert len(validation) == 30
    assert not few & validation
    assert trial.test.pixels.equal(test.pixels)
    again, other = (draw_trial(images, test, count, 30, seed) for seed in (0, 1))
    assert again.few.pixels.equal(trial.few.pixels)
    assert rows_of(other.few, images) != few


def test_both_encoders_are_treated_alike(
    encoder: VisionTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same encoder under two names gets the same scores, and stays as it was."""
    monkeypatch.setattr(few_labels, "STEPS", 3)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    trial = draw_trial(grey(100), grey(20), 3, 30, 0)
    results = list(compare({"random": encoder, "pretrained": encoder}, trial, 3, 0))
    scores: dict[str, list[float]] = {}
    for result in results:
        scores.setdefault(result.method, []).append(result.accuracy)
    assert scores["linear classifier"][1] == scores["linear classifier"][2]
    assert scores["fine-tuning"][0] == scores["fine-tuning"][1]
    assert scores["linear classifier"][0] == 1  # raw brightness tells these classes apart
    tiny.assert_same_tensors(encoder.state_dict(), before)


@pytest.mark.slow
def test_fine_tuning_learns(encoder: VisionTransformer) -> None:
    images = grey(100)
    trial = draw_trial(images, images, 10, 30, 0)
    shuffled: Tensor = trial.few.labels.roll(7)
    misled = trial._replace(few=Images(trial.few.pixels, shuffled))
    for labelled, least, most in ((trial, 0.8, 1.0), (misled, 0.0, 0.5)):
        tuned = list(compare({"one": encoder}, labelled, 10, 0))[-1]
        assert tuned.method == "fine-tuning"
        assert least <= tuned.accuracy <= most
    # wrong labels can only be learned by heart
    assert tuned.training_accuracy > tuned.accuracy + 0.1


class TestChannels:
    def test_grey_test_images_of_colour_ones_are_colour(self, tmp_path: Path) -> None:
        for split, channels in (("train", 3), ("test", 1)):
            for name in ("cats", "dogs"):
                tiny.write_images(tmp_path / split / name, 3, channels=channels)
        labelled = open_labelled(Folder(path=str(tmp_path)), 0)
        assert labelled.test.channels == 3
        assert labelled.test[0].image.shape[0] == 3
        assert labelled.test.annotations.names == ("cats", "dogs")

    def test_other_numbers_of_bands_are_refused(self, tmp_path: Path) -> None:
        for split, channels in (("train", 4), ("test", 5)):
            for name in ("cats", "dogs"):
                (tmp_path / split / name).mkdir(parents=True)
                np.save(tmp_path / split / name / "a.npy", np.zeros((channels, 9, 8), np.uint8))
        with pytest.raises(
            DataError, match="has images of 5 channels, but the training images have images of 4"
        ):
            open_labelled(Tiff(path=str(tmp_path)), 0)
