"""Folders as people have them: what lies beside splits, what unmask wrote there, and what is said of both."""

import io
import json
import os
import re
import shlex
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands.said import Unmask
from PIL import Image
from runs import tiny, tiny_transfer

from unmask.console import studies, train
from unmask.data import Folder, Parquet
from unmask.data.folder import Undivided
from unmask.data.pack import Packer
from unmask.pictures.sheet import save_sheet
from unmask.runs.folder import RunFolder
from unmask.runs.images_of_run import as_begun

Fill = Callable[..., Path]


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """`fill("stl", "train/cat:6", "unlabeled:60")`: a folder with that many images in each place."""

    def write(name: str, *places: str, channels: int = 3) -> Path:
        random = np.random.default_rng(0)
        root = tmp_path / name
        for place in places:
            inner, _, count = place.rpartition(":")
            (root / inner).mkdir(parents=True, exist_ok=True)
            for number in range(int(count)):
                pixels = random.integers(0, 255, (12, 12, channels), np.uint8).squeeze()
                Image.fromarray(pixels).save(root / inner / f"{number:03}.png")
        return root

    return write


@pytest.fixture
def begin(unmask: Unmask, recipe: list[str]) -> Callable[..., str]:
    """Pretrain for three steps, and return what is said."""

    def run(data: object, out: str = "run") -> str:
        said = unmask("pretrain", data, *recipe, "--out", out)
        assert said.status == 0, said.err
        return said.out

    return run


Begin = Callable[..., str]


class TestBesideSplits:
    def test_images_beside_are_named_as_a_warning(self, fill: Fill, begin: Begin) -> None:
        root = fill("stl", "train/cat:6", "train/dog:6", "test/cat:2", "unlabeled:60", ":3")
        said = begin(root)
        assert "images 12 colour images in 2 classes" in said
        assert (
            "warning: 63 images are not used, because they are in neither train nor test: 60 in unlabeled, "
            "3 in stl itself (to pretrain on them, move them into train, or give their folder as DATA)"
        ) in said

    def test_a_few_are_no_warning(self, fill: Fill, begin: Begin) -> None:
        said = begin(fill("stl", "train:60", "test:2", "extra:1"))
        assert "1 images are not used" in said
        assert "warning: 1 images" not in said, said

    @pytest.mark.parametrize("names", [("Train", "TEST"), ("TRAINING", "Val"), ("train", "Eval")])
    def test_case_does_not_matter(self, fill: Fill, names: tuple[str, str]) -> None:
        train, test = names
        root = fill("sets", f"{train}/a:2", f"{train}/b:2", f"{test}/a:1", f"{test}/b:1")
        source = Folder(path=str(root))
        assert source.splits() == ("train", "test")
        assert (len(source.open("train")), len(source.open("test"))) == (4, 2)

    def test_case_does_not_matter_in_parquet(self, tmp_path: Path) -> None:
        for name, rows in (("Train-0", 3), ("TEST-0", 2), ("unlabeled-0", 4), ("valid-0", 1)):
            image = io.BytesIO()
            Image.new("L", (4, 4)).save(image, "PNG")
            table = pa.table({"image": [image.getvalue()] * rows})
            pq.write_table(table, tmp_path / f"{name}.parquet")
        data = Parquet(path=str(tmp_path))
        train = data.open("train")
        assert (len(train), len(data.open("test"))) == (3, 2)
        assert train.beside == {"unlabeled-0.parquet": 4}
        assert train.notes == (
            "1 images in valid-0.parquet and the like are not used; the test split has its own files",
        )

    def test_classes_called_train_and_test_are_classes(self, fill: Fill, begin: Begin) -> None:
        root = fill("vehicles", "bus:2", "car:2", "plane:2", "train:4", "test:2")
        assert "images 12 colour images in 5 classes" in begin(root)

    def test_flat_splits_with_further_sets_stay_splits(self, fill: Fill) -> None:
        root = fill("flat", "train:4", "test:2", "unlabeled:3", "extra_images:1", "train_masks:4")
        train = Folder(path=str(root)).open("train")
        assert len(train) == 4
        assert train.beside == {"unlabeled": 3, "extra_images": 1, "train_masks": 4}

    def test_val_beside_test_is_said(self, fill: Fill, begin: Begin) -> None:
        said = begin(fill("three", "train:12", "val:3", "test:2"))
        assert "3 images in val are not used; test is" in said


class TestOwnOutput:
    def test_a_run_within_its_images_goes_on(
        self, fill: Fill, begin: Begin, unmask: Unmask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = fill("photos", "a:6", "b:6")
        monkeypatch.chdir(root)
        before = Folder(path=str(root)).open().fingerprint
        begin(".", "runs/first")
        assert unmask("evaluate", "runs/first", ".", "--protocol", "knn").status == 0
        assert unmask("evaluate", "runs/first", ".", "--out", "scores.json").status == 0
        for sheet in ("sheet.png", "b/mine.PNG"):
            assert unmask("reconstruct", "runs/first", "a", "--out", sheet).status == 0
            assert Path(sheet).exists()
        assert Path("scores.png").exists()
        source = Folder(path=str(root)).open()
        assert source.fingerprint == before
        assert source.annotations.names == ("a", "b")
        assert source.notes == ("not read, because unmask wrote it: b/mine.PNG and 3 more",)
        said = begin(".", "runs/second")
        assert "images 12 colour images in 2 classes" in said
        assert "not read, because unmask wrote it" in said

    def test_of_very_many_pictures_the_usual_names_are_looked_into(
        self, fill: Fill, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = fill("photos", ":3")
        for name in ("sheet.png", "own.png", "own.json", "comparison-sizes.png", "comparison.md"):
            (root / name).touch()
            if name.endswith(".png"):
                save_sheet(Image.new("RGB", (4, 4)), root / name)
        save_sheet(Image.new("RGB", (4, 4)), root / "mine.png")
        assert len(Folder(path=str(root)).open()) == 3
        monkeypatch.setattr("unmask.data.walk._MOST_LOOKED_INTO", 6)
        source = Folder(path=str(root)).open()
        assert [source.name(i) for i in range(4)] == ["000.png", "001.png", "002.png", "mine.png"]

    def test_a_sheet_beside_arrays_does_not_hide_them(
        self, unmask: Unmask, begin: Begin, tmp_path: Path
    ) -> None:
        (tmp_path / "bands").mkdir()
        for number in range(4):
            values = np.random.default_rng(number).random((12, 12, 5), np.float32)
            np.save(tmp_path / "bands" / f"{number}.npy", values)
        first = begin(tmp_path / "bands", "first")
        sheet = tmp_path / "bands" / "mine.png"
        assert unmask("reconstruct", "first", tmp_path / "bands", "--out", sheet).status == 0
        again = begin(tmp_path / "bands", "again")
        for said in (first, again):
            assert "images 4 5-band" in said

    def test_other_pictures_of_these_names_are_images(self, fill: Fill) -> None:
        root = fill("photos", ":3")
        Image.new("RGB", (4, 4)).save(root / "sheet.png")
        (root / "001.json").write_text("{}")
        (root / "spec.json").write_text('{"spec_version": 1}')
        assert len(Folder(path=str(root)).open()) == 4

    def test_a_run_is_not_a_folder_of_images(
        self, begin: Begin, unmask: Unmask, images: Path
    ) -> None:
        begin(images)
        said = unmask("pretrain", "run")
        assert said.status == 1
        assert "run is the folder of a run of unmask, not of images; give its images" in said.err


class TestClassesOfTwoFolders:
    @pytest.fixture
    def subset(self, fill: Fill) -> Path:
        """A class without test images."""
        return fill("sp", "train/cat:8", "train/dog:8", "train/fox:8", "test/cat:3", "test/fox:3")

    @pytest.mark.parametrize("protocol", ["knn", "logistic", "linear"])
    def test_evaluate_scores_the_classes_that_there_are(
        self, unmask: Unmask, trained: RunFolder, subset: Path, protocol: str
    ) -> None:
        flags = ["--protocol", protocol, "--control", "none", "--seeds", 1, "--out", "s.json"]
        said = unmask("evaluate", trained.root, subset, *flags)
        assert said.status == 0, said.err
        assert (
            "no test images of dog, so not in per-class figures and balanced accuracy" in said.out
        )
        assert "6 for testing" in said.out

    def test_finetune_and_predict_too(
        self, unmask: Unmask, trained: RunFolder, subset: Path
    ) -> None:
        flags = ["--epochs", "1", "--threads", "1", "--workers", "0", "--out", "tuned"]
        said = unmask("finetune", trained.root, subset, *flags)
        assert said.status == 0, said.err
        assert "no test images of dog" in said.out
        classes = json.loads(Path("tuned/results.json").read_text())["classes"]
        assert [one["images"] for one in classes] == [3, 0, 3]
        said = unmask("predict", "tuned", subset)
        assert said.status == 0, said.err
        assert "on 6 images" in said.out

    def test_a_flat_test_folder_is_called_unlabelled(
        self, unmask: Unmask, trained: RunFolder, fill: Fill
    ) -> None:
        root = fill("sp2", "train/cat:8", "train/dog:8", "test:5")
        said = unmask("evaluate", trained.root, root)
        assert said.status == 1
        assert f"the images in {root}/test are unlabelled" in said.err
        assert f"or give {root}/train alone as DATA" in said.err

    def test_the_share_of_the_largest_class_stands_beside_accuracy(
        self, unmask: Unmask, trained: RunFolder, fill: Fill
    ) -> None:
        root = fill("uneven", "train/a:8", "train/b:8", "test/a:9", "test/b:1")
        said = unmask("evaluate", trained.root, root, "--out", "scores.json")
        assert "largest class │ │ │ │ 90.0% │ 50.0%".replace("│ ", "") in said.out
        assert json.loads(Path("scores.json").read_text())["largest_class"] == 0.9
        shutil.copytree(trained.root, "twin")
        flags = ["--encoders", "twin", "--out", "both.json"]
        said = unmask("evaluate", trained.root, root, *flags)
        compared = said.out.partition("by number of parameters")[2]
        assert "largest class │ 90.0%".replace("│ ", "") in compared.replace("│ ", "")
        assert "| largest class | 90.0% |" in Path("both.md").read_text()

    def test_a_class_with_one_image_is_learned_from(
        self, unmask: Unmask, trained: RunFolder, fill: Fill
    ) -> None:
        said = unmask("evaluate", trained.root, fill("few", "cat:8", "dog:8", "owl:1"))
        assert said.status == 0, said.err
        assert "no test images of owl" in said.out


class TestResumeElsewhere:
    @pytest.fixture
    def begun(self, fill: Fill, unmask: Unmask, recipe: list[str]) -> Path:
        """A run of `pretrain` without checkpoints, and the folder of its images."""
        root = fill("photos", "a:6", "b:6")
        assert unmask("pretrain", root, *recipe, "--out", "run").status == 0
        shutil.rmtree("run/checkpoints")
        Path("run/log.jsonl").unlink()
        return root

    def test_images_that_were_moved_are_taken(self, begun: Path, unmask: Unmask) -> None:
        moved = begun.rename(begun.parent / "moved here")
        said = unmask("pretrain", "--resume", "run")
        assert said.status == 1
        assert f"{begun} does not exist; if the images are elsewhere now" in said.err
        assert "unmask pretrain --resume run NEWPLACE" in said.err
        said = unmask("pretrain", "--resume", "run", moved)
        assert said.status == 0, said.err
        assert f"images are read from {moved}, not from {begun}" in said.out
        assert f"evaluate run '{moved}' --protocol knn" in said.out

    def test_the_place_is_kept_for_the_next_time(self, begun: Path, unmask: Unmask) -> None:
        spec = Path("run/spec.json").read_bytes()
        moved = begun.rename(begun.parent / "moved")
        assert unmask("pretrain", moved, "--resume", "run").status == 0
        shutil.rmtree("run/checkpoints")
        said = unmask("pretrain", "--resume", "run")
        assert said.status == 0, said.err
        assert f"images are read from {moved}" in said.out
        assert Path("run/spec.json").read_bytes() == spec
        moved.rename(begun)
        shutil.rmtree("run/checkpoints")
        assert unmask("pretrain", "--resume", "run").status == 0

    def test_other_images_are_refused_and_named(
        self, begun: Path, unmask: Unmask, fill: Fill
    ) -> None:
        (begun / "a" / "000.png").unlink()
        fill("photos", "new:2")
        said = unmask("pretrain", "--resume", "run")
        assert said.status == 1
        assert (
            "have changed (12 then, 13 now; 2 new: new/000.png, new/001.png; 1 missing: a/000.png)"
            in said.err
        )

    def test_the_same_names_of_other_sizes(self, begun: Path, unmask: Unmask) -> None:
        Image.new("RGB", (3, 3)).save(begun / "a" / "000.png")
        said = unmask("pretrain", "--resume", "run")
        assert "12 then, 12 now; the same names, but other sizes or classes" in said.err

    def test_finetuning_with_its_labels_file(
        self, unmask: Unmask, trained: RunFolder, fill: Fill
    ) -> None:
        root = fill("photos", ":12")
        rows = [f"{number:03}.png,{'cat' if number % 2 else 'owl'}" for number in range(12)]
        (root / "names.csv").write_text("\n".join(["file_name,label", *rows]))
        flags = ["--epochs", "1", "--threads", "1", "--workers", "0", "--out", "tuned"]
        said = unmask("finetune", trained.root, root, "--labels-file", root / "names.csv", *flags)
        assert said.status == 0, said.err
        moved = root.rename(root.parent / "moved")
        Path("tuned/results.json").unlink()
        said = unmask("finetune", trained.root, moved, "--resume", "tuned")
        assert said.status == 0, said.err
        assert f"images are read from {moved}, not from {root}" in said.out
        assert f"unmask predict tuned {moved} --labels-file {moved}/names.csv" in said.out

    def test_runs_from_before_split_names_in_any_case(self, fill: Fill) -> None:
        """Older versions read `Train` and `Test` as ordinary folders, and `train` among classes as a split."""
        root = fill("sets", "Train:6", "Test:6")
        old = tiny.make_run(root)
        source = Undivided(path=str(root)).open()
        old = replace(old, fingerprint=source.fingerprint, images=len(source))
        images = as_begun(old, old.data)
        assert images is not None
        assert len(images.train) == 12
        root = fill("classes", "bus:2", "car:2", "train:4", "test:2")
        old = replace(old, data=Folder(path=str(root)))
        source = Folder(path=str(root / "train")).open()
        old = replace(old, fingerprint=source.fingerprint, images=len(source))
        images = as_begun(old, old.data)
        assert images is not None
        assert len(images.train) == 4
        assert as_begun(replace(old, fingerprint="other"), old.data) is None


class TestTypedCommands:
    @pytest.mark.parametrize("name", ["my photos", "it's $HOME", "näh;ls `x`", '"q"&*(1)'])
    def test_every_printed_command_can_be_pasted(
        self, unmask: Unmask, recipe: list[str], fill: Fill, name: str
    ) -> None:
        root = fill(name, "a:8", "b:8")
        run = f"run {name}"
        said = unmask("pretrain", root, *recipe, "--out", run)
        assert said.status == 0, said.err
        flags = ["--epochs", "1", "--threads", "1", "--workers", "0", "--out", f"tuned {name}"]
        lines = printed(said.raw)
        assert [line[1] for line in lines] == ["reconstruct", "evaluate"]
        tuned = unmask("finetune", run, root, *flags)
        assert tuned.status == 0, tuned.err
        lines += printed(tuned.raw)
        packed = unmask("pack", root, f"packed {name}", "--workers", "0")
        assert packed.status == 0, packed.err
        lines += printed(packed.raw)
        codes = f"codes {name}"
        flags = ["--recipe", f"{tiny.__file__}:TOKENIZING", "--epochs", "1", *RUNNING]
        said = unmask("tokenizer", root, *flags, "--out", codes)
        assert said.status == 0, said.err
        lines += printed(said.raw)
        assert lines[-1][-1] == codes
        for line in lines:
            words = [word for word in line[2:] if "/" in word or name in word]
            assert words
            assert all(Path(word).exists() for word in words if word != "sheet.png"), line

    @pytest.mark.parametrize("command", ["pretrain", "pack", "study"])
    def test_what_was_stopped_goes_on_as_printed(
        self,
        unmask: Unmask,
        recipe: list[str],
        fill: Fill,
        monkeypatch: pytest.MonkeyPatch,
        command: str,
    ) -> None:
        root = fill("my photos", "a:6", "b:6")
        words, where = {
            "pretrain": (("pretrain", root, *recipe, "--out", "my run"), (train, "training")),
            "pack": (("pack", root, "my shards", "--workers", "0"), (Packer, "run")),
            "study": (("study", "target", root, "--out", "my study", *RUNNING), (studies, "_make")),
        }[command]
        real = getattr(*where)

        def interrupted(*args: Any) -> Any:
            """Stop at the first report of training or packing, and a study before its first run."""
            if command == "study":
                return 130
            return _stopping(real(*args))

        if command == "study":
            monkeypatch.setattr("unmask.commands.study.measured_costs", lambda *_, **__: {})
            monkeypatch.setattr(studies, "_fitted", lambda plan, *_: plan)
        with monkeypatch.context() as patch:
            patch.setattr(*where, interrupted)
            said = unmask(*words)
        assert said.status == 130, said.err
        (again,) = printed(said.raw)
        if command == "pretrain":
            assert again == ["unmask", "pretrain", "--resume", "my run"]
        else:
            assert again == ["unmask", *map(str, words)]
        if command != "study":
            assert unmask(*again[1:]).status == 0

    def test_no_measuring_without_labels(self, unmask: Unmask, begin: Begin, images: Path) -> None:
        assert "measure it" not in begin(images)

    def test_flags_that_are_needed_to_read_the_images_again(
        self, unmask: Unmask, recipe: list[str], fill: Fill
    ) -> None:
        root = fill("photos", "a:4", "b:4")
        for file in root.rglob("*.png"):
            np.save(file.with_suffix(".npy"), np.asarray(Image.open(file)))
        said = unmask("pretrain", root, *recipe, "--data-kind", "tiff", "--out", "run")
        assert said.status == 0, said.err
        assert f"unmask evaluate run {root} --data-kind tiff --protocol knn" in said.out


def _stopping(reports: Iterable[object]) -> Iterator[object]:
    """The reports; the user presses Ctrl-C at the first."""
    for number, report in enumerate(reports):
        if number == 0:
            os.kill(os.getpid(), signal.SIGINT)
        yield report


RUNNING = ("--threads", "1", "--workers", "0")


def printed(text: str) -> list[list[str]]:
    """The commands of unmask in a text, as a shell reads them."""
    found = re.findall(r"(?:it|with):\s+(unmask .*)", text)
    return [shlex.split(command) for command in found]


class TestSingleFiles:
    @pytest.mark.parametrize("command", ["reconstruct", "predict"])
    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (os.mkfifo, "not a regular file"),
            (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
            (lambda path: path.write_bytes(b""), "empty (0 bytes)"),
            (lambda path: _sparse(path, 3 * 2**30), "has 3.0 GiB, more than one image may have"),
        ],
    )
    def test_have_the_guards_of_a_folder(
        self,
        unmask: Unmask,
        trained: RunFolder,
        tuned: RunFolder,
        tmp_path: Path,
        command: str,
        make: Callable[[Path], object],
        words: str,
    ) -> None:
        make(tmp_path / "x.png")
        run = trained if command == "reconstruct" else tuned
        said = unmask(command, run.root, tmp_path / "x.png")
        assert said.status == 1
        assert f"{tmp_path / 'x.png'}: {words}" in said.err

    def test_a_folder_names_them_too(self, fill: Fill, begin: Begin) -> None:
        root = fill("photos", ":60")
        os.mkfifo(root / "pipe.png")
        _sparse(root / "sparse.png", 3 * 2**30)
        said = begin(root)
        assert "2 cannot be used, the first is pipe.png: not a regular file" in said

    @pytest.mark.parametrize("name", ["a{1}.png", "b*.png", "c{0..9}.png", "x.png"])
    def test_names_like_patterns_are_files(
        self, unmask: Unmask, trained: RunFolder, tuned: RunFolder, tmp_path: Path, name: str
    ) -> None:
        file = tmp_path / name
        if name == "x.png":  # a folder that is called like a picture
            tiny.write_images(file, 2)
        else:
            Image.new("RGB", (12, 12)).save(file)
        for command, run in (("reconstruct", trained), ("predict", tuned)):
            said = unmask(command, run.root, file)
            assert said.status == 0, said.err

    @pytest.mark.parametrize("name", ["-a.png", "--b c.png"])
    def test_names_like_flags(
        self, unmask: Unmask, trained: RunFolder, tuned: RunFolder, name: str
    ) -> None:
        Image.new("RGB", (12, 12)).save(name)
        place = shlex.quote(f"./{name}")
        for command, run in (("reconstruct", trained), ("predict", tuned)):
            said = unmask(command, run.root, name)
            assert said.status == 1
            assert f"{name} looks like a flag; for the file of that name, write {place}" in said.err
            said = unmask(command, run.root, f"./{name}")
            assert said.status == 0, said.err
        Path("-data").mkdir()
        for words in (
            ["pretrain", "-data"],
            ["finetune", "scratch", "-data"],
            ["pack", "-data", "out"],
        ):
            assert "write ./-data" in unmask(*words).err

    @pytest.mark.parametrize("dtype", [">u2", ">f4", [("red", "u1"), ("green", "u1")], "O", "c8"])
    def test_arrays_of_other_types_are_read_or_refused(
        self, unmask: Unmask, trained: RunFolder, tmp_path: Path, dtype: Any
    ) -> None:
        np.save(tmp_path / "x.npy", np.zeros((3, 16, 12), dtype))
        said = unmask("reconstruct", trained.root, tmp_path / "x.npy")
        assert said.status == 1
        assert f"{tmp_path / 'x.npy'}: " in said.err


class TestOtherWordsThanData:
    DOORS = (
        ("pretrain", "DATA"),
        ("tokenizer", "DATA"),
        ("finetune", "scratch", "DATA"),
        ("evaluate", "RUN", "DATA"),
        ("predict", "TUNED", "DATA"),
        ("reconstruct", "RUN", "DATA"),
        ("pack", "DATA", "packed"),
        ("study", "target", "DATA"),
        ("compare", "DATA"),
        ("bench", "--data", "DATA"),
    )

    @pytest.mark.parametrize("door", DOORS, ids=lambda door: door[0])
    def test_are_refused_as_typed_with_what_to_do(
        self,
        unmask: Unmask,
        trained: RunFolder,
        tuned: RunFolder,
        tmp_path: Path,
        door: tuple[str, ...],
    ) -> None:
        (tmp_path / "x.zip").write_bytes(b"PK")
        (tmp_path / "x.csv").write_text("file_name,label\n")
        places = {"RUN": trained.root, "TUNED": tuned.root}
        table = "x.csv is a table; give the folder of its images"
        if door[0] in ("predict", "reconstruct"):
            table = "x.csv is not a picture; pictures end in .jpg"
        for data, words in (
            ("https://example.com/a.zip", "https://example.com/a.zip is an address"),
            ("s3://bucket/images", "s3://bucket/images is an address"),
            (f"{tmp_path}/x.zip", "x.zip is an archive; unpack it"),
            (f"{tmp_path}/x.csv", table),
        ):
            said = unmask(*(places.get(word, data if word == "DATA" else word) for word in door))
            assert said.status == 1
            assert words in said.err

    @pytest.mark.parametrize(
        ("words", "answer"),
        [
            (["phots"], "phots does not exist (did you mean {here}/photos?); DATA is"),
            (["nowhere/photos"], "does not exist ({here} exists, but has no nowhere)"),
            (
                ["data=photos"],
                "data=photos: settings are written with dashes, not with =: unmask pretrain photos",
            ),
            (["epochs=3"], "not with =: unmask pretrain --epochs 3"),
            (["--data", "my photos"], "DATA is given without a flag: unmask pretrain 'my photos'"),
            (["--data=photos"], "DATA is given without a flag: unmask pretrain photos"),
        ],
    )
    def test_of_pretrain(self, unmask: Unmask, words: list[str], answer: str) -> None:
        Path("photos").mkdir()
        said = unmask("pretrain", *words)
        assert said.status == 1
        assert answer.format(here=Path.cwd()) in said.err


@pytest.fixture(scope="module")
def tuned(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of fine-tuning."""
    folder = tiny_transfer.begin(tmp_path_factory.mktemp("predict") / "tuned", classes)
    tiny_transfer.go_on(folder)
    return folder


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)
