"""The commands as functions of images that a Python program holds."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from commands.said import Unmask
from PIL import Image
from runs import tiny, tiny_transfer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import unmask as package
from unmask import MachineFlags, RunFlags
from unmask.console import train
from unmask.console.series_asked import amounts_of, check_seeds
from unmask.data.held import hold
from unmask.data.objects import pixels_of
from unmask.errors import DataError, RunError, SettingsError
from unmask.runs.folder import RunFolder

RUNNING = RunFlags(machine=MachineFlags(device="cpu", workers=0, threads=1))


class Animals(Dataset[Any]):
    """Pictures and the numbers of their classes, as people write them."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.rglob("*.png"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        with Image.open(self.files[number]) as image:
            image.load()
        return image, int(self.files[number].parent.name == "dogs")


class Named(Animals):
    """With the attributes of torchvision's data sets."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.classes = ["cats", "dogs"]
        self.targets = [int(file.parent.name == "dogs") for file in self.files]


class Jittered(Animals):
    """With a random transform that leaves half of the images as they are."""

    def __getitem__(self, number: int) -> Any:
        image, label = super().__getitem__(number)
        return np.asarray(image) // np.uint8(1 + number % 2) + np.uint8(torch.randint(2, ())), label


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users have it: without the shape checks, which would speak first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(autouse=True)
def _threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unmask.console.hardware.cores", lambda: 1)
    monkeypatch.setattr("unmask.console.hardware.free_cores", lambda: 1)


@pytest.fixture(scope="module")
def tuned(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of a data set."""
    return finetune(Named(classes), tmp_path_factory.mktemp("from-python") / "tuned")


def pretrain(data: Any, out: Path) -> Path:
    return package.pretrain(data, recipe=tiny.RECIPE, out=out, running=RUNNING)


def finetune(data: Any, out: Path) -> Path:
    return package.finetune(None, data, recipe=tiny_transfer.TRANSFER, out=out, running=RUNNING)


def few_labels(data: Any, out: Path, **settings: Any) -> Path:
    settings.setdefault("seeds", 1)
    return package.finetune(
        None, data, recipe=tiny_transfer.TRANSFER, out=out, running=RUNNING, **settings
    )


def arrays(folder: Path) -> np.ndarray:
    return np.stack([np.array(image) for image, _ in Animals(folder)])  # pyright: ignore


def stop_at_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal after the second step."""
    real = train.training

    def stopped(*arguments: Any) -> Iterator[Any]:
        for report in real(*arguments):
            if report.step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield report

    monkeypatch.setattr(train, "training", stopped)


class TestPretrain:
    @pytest.mark.parametrize("form", ["data set", "array", "tensor", "list", "part"])
    def test_resumes_exactly(
        self, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
    ) -> None:
        forms: dict[str, Any] = {
            "data set": lambda: Animals(classes),
            "array": lambda: arrays(classes),
            "tensor": lambda: torch.from_numpy(arrays(classes)).permute(0, 3, 1, 2),
            "list": lambda: Animals(classes).files,
            "part": lambda: Subset(Named(classes), range(3, 15)),
        }
        whole = pretrain(forms[form](), tmp_path / "whole")
        with monkeypatch.context() as patch:
            stop_at_two(patch)
            halves = pretrain(forms[form](), tmp_path / "halves")
        assert tiny.newest(RunFolder(halves)).info.step == 3
        again = package.pretrain(forms[form](), resume=halves, running=RUNNING)
        assert again == halves
        tiny.assert_same_end(RunFolder(halves), RunFolder(whole))

    def test_says_how_it_goes_on(
        self,
        classes: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        unmask: Unmask,
    ) -> None:
        with monkeypatch.context() as patch:
            stop_at_two(patch)
            root = pretrain(Animals(classes), tmp_path / "r")
        said = " ".join(capsys.readouterr().out.split())
        assert "colour images in Animals of 20 images" in said
        assert f"continue with: unmask.pretrain(images, resume='{root}')" in said
        command = unmask("pretrain", "--resume", root)
        assert command.status == 1
        assert "the 20 images of this run were given by a Python program (Animals)" in command.err
        assert "unmask.pretrain(images, resume=RUN)" in command.err
        command = unmask("pretrain", "--resume", root, classes)
        assert command.status == 1
        assert "can only be resumed from Python" in command.err
        package.pretrain(Animals(classes), resume=root)
        said = " ".join(capsys.readouterr().out.split())
        assert f"unmask.load('{root}').reconstruct(image).show()" in said

    def test_others_are_refused(self, classes: Path, images: Path, tmp_path: Path) -> None:
        root = pretrain(Animals(classes), tmp_path / "run")
        fewer = Subset(Animals(classes), range(19))
        for other, words in (
            (fewer, r"learns from Animals of 20 images \(\w+\), not from Animals of 19 images"),
            (images, "not from .*photos"),
        ):
            with pytest.raises(RunError, match=words):
                package.pretrain(other, resume=root)

    def test_a_folder_is_resumed_too(self, images: Path, tmp_path: Path) -> None:
        folder = tiny.begin(tmp_path / "run", images)
        tiny.one_step(folder)
        assert package.pretrain(images, resume=folder.root) == folder.root
        assert tiny.newest(folder).info.step == 6

    @pytest.mark.usefixtures("unchecked")
    def test_what_cannot_be_resumed_exactly(self, classes: Path, tmp_path: Path) -> None:
        class Stream(IterableDataset[Any]):
            def __iter__(self) -> Iterator[Any]:
                return iter(())

        loader = DataLoader(Animals(classes))
        for data, words in (
            (loader, "pretrain takes a map-style Dataset, not a DataLoader, whose order"),
            (Stream(), "an IterableDataset has no images by number"),
            (
                Jittered(classes),
                "another picture each time that an image is read; leave out",
            ),
            ([], "there are no images in this list"),
            (None, "images are a path, .* got NoneType"),
            ([3], "int is no image"),
            (["gone.png"], "gone.png cannot be read"),
        ):
            with pytest.raises((SettingsError, DataError), match=words):
                pretrain(data, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_settings_cannot_change(self, classes: Path, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="so recipe cannot be given too"):
            package.pretrain(Animals(classes), recipe=tiny.RECIPE, resume=tmp_path / "run")

    def test_equal_pictures_give_equal_weights(self, classes: Path, tmp_path: Path) -> None:
        """Whether they are in files, in memory or in a data set."""
        ways: list[Any] = [classes, Animals(classes), arrays(classes)]
        runs = [pretrain(data, tmp_path / str(number)) for number, data in enumerate(ways)]
        one, *others = (tiny.newest(RunFolder(run)).read("encoder") for run in runs)
        for other in others:
            tiny.assert_same_tensors(one, other)


class TestFinetune:
    def test_resumes_exactly(
        self, classes: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            stop_at_two(patch)
            halves = finetune(Named(classes), tmp_path / "halves")
        package.finetune(None, Named(classes), resume=halves)
        tiny.assert_same_end(RunFolder(halves), RunFolder(tuned))

    def test_what_it_learned(self, classes: Path, tuned: Path) -> None:
        model = package.load(tuned)
        assert model.classes == ("cats", "dogs")
        assert "cats, dogs: .predict(images)" in repr(model)
        (guess,) = model.predict(Animals(classes).files[0])
        assert sorted(guess.probabilities) == ["cats", "dogs"]
        assert sum(guess.probabilities.values()) == pytest.approx(1)
        assert guess.chosen == (max(guess.probabilities, key=guess.probabilities.__getitem__),)

    def test_predict_agrees_with_the_function(self, classes: Path, tuned: Path) -> None:
        model, files = package.load(tuned), Animals(classes).files
        answers = package.predict(tuned, list(map(str, files))).answers
        pixels = torch.stack([model.transform(file) for file in files])
        for images in (files, classes, Animals(classes), DataLoader(TensorDataset(pixels))):
            guesses = model.predict(images, batch_size=3)
            for guess, answer in zip(guesses, answers, strict=True):
                named = {model.classes[c]: p for c, p in zip(*answer.prediction[:2], strict=True)}
                assert guess.probabilities == pytest.approx(named, abs=1e-5)
                assert list(guess.probabilities) == list(named)


class TestPredict:
    @pytest.mark.parametrize("form", ["data set", "pairs", "arrays", "loader"])
    def test_scores_if_labels_are_known(self, classes: Path, tuned: Path, form: str) -> None:
        named, pixels = Named(classes), arrays(classes)
        words = [named.classes[number] for number in named.targets]
        tensors = torch.from_numpy(pixels).permute(0, 3, 1, 2)

        class Batches(TensorDataset):
            classes = ("cats", "dogs")

        forms: dict[str, Any] = {
            "data set": named,
            "pairs": list(zip(pixels, words, strict=True)),
            "arrays": (pixels, np.array(words)),
            "loader": DataLoader(Batches(tensors / 255, torch.tensor(named.targets)), 7),
        }
        found = package.predict(tuned, forms[form])
        expected = package.predict(tuned, classes)
        assert found.score is not None
        assert expected.score is not None
        assert found.score.value == expected.score.value
        assert len(found.answers) == 20
        if form != "loader":
            ours = [answer.prediction.probabilities for answer in found.answers]
            theirs = [answer.prediction.probabilities for answer in expected.answers]
            np.testing.assert_allclose(ours, theirs, atol=1e-5)

    def test_single_pictures(self, classes: Path, tuned: Path) -> None:
        picture, _ = Animals(classes)[0]
        file = str(Animals(classes).files[0])
        expected = package.predict(tuned, file).answers[0].prediction.probabilities
        for images in (picture, np.array(picture), [picture]):
            (answer,) = package.predict(tuned, images).answers
            assert answer.prediction.probabilities == pytest.approx(expected, abs=1e-5)

    @pytest.mark.usefixtures("unchecked")
    def test_what_is_no_image(self, tuned: Path) -> None:
        with pytest.raises(SettingsError, match=r"images are a path, .* got int"):
            package.predict(tuned, 7)  # pyright: ignore[reportArgumentType]


class TestEvaluate:
    def test_data_sets_pairs_and_loaders(self, classes: Path, tmp_path: Path) -> None:
        run = pretrain(Animals(classes), tmp_path / "run")
        model = package.load(run)
        pixels = torch.stack([model.transform(image) for image, _ in Animals(classes)])  # pyright: ignore
        labels = torch.tensor(Named(classes).targets)
        scores: list[list[float]] = []
        ways: list[Any] = [
            Animals(classes),
            Named(classes),
            (pixels.permute(0, 2, 3, 1).numpy(), labels),
            DataLoader(TensorDataset(pixels, labels), batch_size=7),
        ]
        for data in ways:
            found = package.evaluate(run, data, seeds=1, control="none")
            assert found.split == "20% of each class for testing, drawn from seed 0"
            assert (found.train_images, found.test_images) == (16, 4)
            scores.append([row.mean for row in found.rows])
        assert scores == scores[:1] * 4

    def test_features_of_other_images_are_not_found_again(
        self, classes: Path, tmp_path: Path
    ) -> None:
        """Only some images are looked at, so another data set may have the same fingerprint."""
        from unmask.data.held import hold

        one, other = (hold(Named(classes), labels=True).open() for _ in range(2))
        assert one.fingerprint == other.fingerprint
        assert one.state != other.state

    def test_without_labels(self, classes: Path, trained: RunFolder) -> None:
        with pytest.raises(DataError, match="labelled images of at least two classes are needed"):
            package.evaluate(trained.root, arrays(classes))
        with pytest.raises(SettingsError, match="20 images and 3 labels"):
            package.evaluate(trained.root, (arrays(classes), [0, 1, 0]))
        with pytest.raises(SettingsError, match="a label is the number or the name of a class"):
            package.evaluate(trained.root, (arrays(classes), np.linspace(0, 1, 20)))


class TestReconstruct:
    def test_pictures_and_patches(self, trained: RunFolder, classes: Path) -> None:
        files = Animals(classes).files[:2]
        mask = np.eye(4, dtype=bool)
        expected = package.reconstruct(trained.root, files, mask=mask)
        (again, *_) = package.reconstruct(package.load(trained.root), files, mask=mask).images
        assert again.reconstruction.rebuilt.equal(expected.images[0].reconstruction.rebuilt)
        pictures = [Animals(classes)[number][0] for number in range(2)]
        for images in (pictures, arrays(classes)[:2], Subset(Animals(classes), [0, 1])):
            found = package.reconstruct(trained.root, images, mask=mask)
            for one, other in zip(found.images, expected.images, strict=True):
                assert one.reconstruction.rebuilt.equal(other.reconstruction.rebuilt)

    def test_the_first_of_many(
        self, trained: RunFolder, classes: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        many: Tensor = torch.from_numpy(arrays(classes)).permute(0, 3, 1, 2).repeat(4, 1, 1, 1)
        found = package.reconstruct(trained.root, many)
        assert len(found.images) == 64
        assert (
            "80 images are too many for a sheet; the first 64 are shown" in capsys.readouterr().err
        )


def test_a_run_of_held_images_is_described(classes: Path, tmp_path: Path) -> None:
    root = pretrain(Animals(classes), tmp_path / "run")
    run = package.load(root).run
    assert run is not None
    assert (run.data.what, run.data.images) == ("Animals", 20)  # pyright: ignore
    with pytest.raises(DataError, match="20 images of this run were given by a Python program"):
        replace(run.data, fingerprint="another").open()


def test_a_wrong_call_says_what_is_taken() -> None:
    with pytest.raises(
        TypeError, match=r"unmask\.pretrain: .*'data'.*such as unmask\.pretrain\('photos'"
    ):
        package.pretrain(epochs=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match=r"'epochs'.*recipe=dataclasses\.replace"):
        package.pretrain("digits", epochs=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match=r"unmask\.convert: .*such as unmask\.convert\("):
        package.convert("runs/a")  # pyright: ignore[reportCallIssue]


def test_read_only_pixels_are_taken_without_a_warning() -> None:
    pixels = np.zeros((6, 5, 3), np.uint8)
    pixels.flags.writeable = False
    assert pixels_of(pixels, 3).shape == (3, 6, 5)
    assert hold(np.broadcast_to(pixels, (4, 6, 5, 3)), labels=False).images == 4


def test_a_series_with_few_labels_is_that_of_the_command(
    classes: Path, tmp_path: Path, unmask: Unmask
) -> None:
    """Bit for bit; called again, it goes on, and what is finished is not made again."""
    root = few_labels(str(classes), tmp_path / "called", labels=["50%", "all"])
    assert root == tmp_path / "called"
    recipe = ("--recipe", f"{tiny_transfer.__file__}:TRANSFER", "--labels", "50%,all", "--seeds", 1)
    words = ("--out", "typed", "--workers", 0, "--threads", 1, "--device", "cpu", "--no-report")
    said = unmask("finetune", "scratch", classes, *recipe, *words)
    assert said.status == 0, said.err
    scores = (root / "scores.csv").read_text()
    assert scores == Path("typed/scores.csv").read_text()
    assert [line.split(",")[0] for line in scores.splitlines()[1::2]] == [
        "50%",
        "all",
    ]  # 2 measures

    made = {file: file.stat().st_mtime_ns for file in root.glob("*/results.json")}
    assert len(made) == 2
    assert few_labels(str(classes), root, labels="50%, all") == root
    assert {file: file.stat().st_mtime_ns for file in root.glob("*/results.json")} == made
    said = unmask("finetune", "--resume", root)
    assert "was begun by unmask.finetune; call it again with the same arguments" in said.err

    # a call goes on with what was typed, and after it the command does too
    package.finetune(
        None, str(classes), recipe=str(recipe[1]), labels=["50%", "all"], seeds=1, out="typed", running=RUNNING
    )  # fmt: skip
    said = unmask("finetune", "--resume", "typed")
    assert said.status == 0, said.err
    assert said.out.count(": finished, ") == 2


def test_a_series_of_images_in_memory(classes: Path, tmp_path: Path) -> None:
    root = few_labels(Named(classes), tmp_path / "series")
    assert [folder.name for folder in root.iterdir() if folder.is_dir()] == [
        "all-seed0-from-scratch"
    ]
    assert (root / "scores.csv").read_text().splitlines()[1].startswith("all,16,0,from scratch,")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": ["5", 5]}, "^an amount of labels is there twice: 5,5; leave out one"),
        ({"labels": ["many"]}, "^amounts of labels must be numbers .*, got 'many'"),
        ({"labels": []}, "an amount of labels and a seed, got 0 and 1"),
        ({"labels": 900}, "^900 labels need 900 training images of each class"),
        ({"seeds": 0}, "^seeds must be the number of runs of each amount, such as 3, got 0"),
    ],
)
def test_wrong_series(
    settings: dict[str, Any], message: str, classes: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=message):
        few_labels(str(classes), tmp_path / "series", **settings)
    assert not (tmp_path / "series").exists()
    with pytest.raises(SettingsError, match="labels cannot be given too"):
        package.finetune(None, str(classes), labels=["5"], resume="run")


@pytest.mark.parametrize("labels", [0.1, ["10%", None], [True], {"10%"}])
def test_amounts_of_labels_of_other_types_are_refused(labels: object) -> None:
    with pytest.raises(SettingsError, match=r'^labels must be amounts such as 5, "10%"'):
        amounts_of(labels)
    assert amounts_of("1%, all") == amounts_of(["1%", "all"]) == ["1%", "all"]
    assert amounts_of(5) == amounts_of(np.int64(5)) == amounts_of([5]) == ["5"]


@pytest.mark.parametrize("seeds", [2.5, "3", True])
def test_seeds_of_other_types_are_refused(seeds: object) -> None:
    with pytest.raises(SettingsError, match=f"^seeds must be .*, got {seeds!r}$"):
        check_seeds(seeds)
