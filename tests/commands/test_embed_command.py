"""`unmask embed`: the same bits whatever shares the work, and what is refused."""

import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread, current_thread

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from commands.said import Unmask, plain
from PIL import Image
from reference import dense
from runs import tiny

import unmask as package
from unmask.data.in_memory import MemoryImages
from unmask.data.labels import unlabelled
from unmask.errors import DataError
from unmask.evaluation.vectors import VectorRule, read_fitted
from unmask.locks import locked
from unmask.runs.folder import RunFolder
from unmask.vectors import matrix, writing
from unmask.vectors.manifest import weights_hash
from unmask.vectors.matrix import open_vectors
from unmask.vectors.pictures import Pictures


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of eight pictures, so that a few pictures make several."""
    monkeypatch.setattr(writing, "_LEAST_ROWS", 8)


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, 30 pictures for training and 10 for testing, which are equal files of the first in each class."""
    root = tmp_path_factory.mktemp("data") / "many"
    tiny.write_classes(root / "train", count=15)
    tiny.write_classes(root / "test", ("cats", "dogs"), count=5)
    return root


def parts_of(folder: Path | str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob("part-*"))}


def table_of(folder: Path | str) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(Path(folder).glob("part-*")))


def vectors_of(folder: Path | str) -> dict[tuple[str, str], bytes]:
    table = table_of(folder)
    return {
        (row["split"], row["name"]): np.float32(row["vector"]).tobytes()
        for row in table.to_pylist()
    }


@pytest.mark.usefixtures("small_parts")
def test_a_row_of_each_picture_equals_that_of_python(
    unmask: Unmask, trained: RunFolder, many: Path
) -> None:
    said = unmask("embed", trained.root, many, "--out", "v", "--workers", 0)
    assert said.status == 0, said.all
    assert "40 vectors in 5 parts" in said.out
    table = table_of("v")
    features = package.load(trained.root).embed(many, batch_size=7)
    assert table["name"].to_pylist() == list(features.names)
    assert table["split"].to_pylist() == ["train"] * 30 + ["test"] * 10
    assert table["label"].to_pylist()[:16] == ["cats"] * 15 + ["dogs"]
    assert set(table["width"].to_pylist()) == {10}
    assert set(table["height"].to_pylist()) == {12}
    stored = np.float32(table["vector"].to_pylist())
    assert stored.tobytes() == features.mean.numpy().tobytes()
    files = [
        many / split / name
        for split, name in zip(table["split"].to_pylist(), features.names, strict=True)
    ]
    hashes = [hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest() for file in files]
    assert table["hash"].to_pylist() == hashes
    about = json.loads(table.schema.metadata[b"unmask"])
    assert about["place"] == str(trained.root)
    assert about["encoding"]["pooling"] == "mean"


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    "flags",
    [("--batch-size", 1), ("--batch-size", 1000), ("--workers", 2), ("--threads", 2)],
    ids=lambda flags: " ".join(map(str, flags)),
)
def test_what_shares_the_work_changes_no_byte(
    unmask: Unmask, trained: RunFolder, many: Path, flags: tuple[object, ...]
) -> None:
    usual = ("embed", trained.root, many, "--workers", 0)
    assert unmask(*usual, "--out", "a").status == 0
    assert unmask(*usual, *flags, "--out", "b").status == 0
    assert parts_of("a") == parts_of("b")
    assert len(parts_of("a")) == 5


@pytest.mark.usefixtures("small_parts")
def test_a_stopped_folder_is_finished_with_the_same_bytes(
    unmask: Unmask, trained: RunFolder, many: Path
) -> None:
    words = ("embed", trained.root, many, "--workers", 0, "--out", "v")
    assert unmask(*words).status == 0
    whole = parts_of("v")
    for number in (1, 4):
        Path(f"v/part-{number:05}.parquet").unlink()
    Path("v/.123-part-00001.parquet").write_bytes(b"half of a part")
    said = unmask(*words)
    assert "is unfinished; 16 of 40 are left" in said.out
    assert parts_of("v") == whole
    assert not list(Path("v").glob(".*"))
    before = {path: path.stat().st_mtime_ns for path in Path("v").glob("part-*")}
    said = unmask(*words)
    assert "folder is complete; nothing is left to embed" in said.out
    assert "embedded 0 pictures" in said.out
    assert before == {path: path.stat().st_mtime_ns for path in Path("v").glob("part-*")}


@pytest.mark.usefixtures("small_parts")
def test_new_pictures_are_added_and_equal_those_of_one_command(
    unmask: Unmask, trained: RunFolder, many: Path
) -> None:
    shutil.copytree(many, "data")
    held = [Path(f"data/train/cats/{number:02}.png") for number in (0, 7, 14)]
    for path in held:
        path.rename(path.name)
    words = ("embed", trained.root, "data", "--workers", 0)
    assert unmask(*words, "--out", "v").status == 0
    for path in held:
        Path(path.name).rename(path)
    said = unmask(*words, "--out", "v")
    assert "holds 37 already; 3 are left" in said.out
    assert unmask(*words, "--out", "whole").status == 0
    assert vectors_of("v") == vectors_of("whole")
    assert "embedded 0 pictures" in unmask(*words, "--out", "v").out
    # so is what is searched, although rows have another order
    grown, whole = open_vectors("v"), open_vectors("whole")
    assert grown.fitted.mean.equal(whole.fitted.mean)
    assert grown.fitted.directions is not None
    assert whole.fitted.directions is not None
    assert grown.fitted.directions.equal(whole.fitted.directions)


@pytest.mark.usefixtures("small_parts")
def test_a_removed_part_of_an_earlier_command_is_made_again(
    unmask: Unmask, trained: RunFolder, many: Path
) -> None:
    shutil.copytree(many, "data")
    held = Path("data/train/cats/14.png")
    held.rename("14.png")
    words = ("embed", trained.root, "data", "--workers", 0, "--out")
    assert unmask(*words, "v").status == 0
    Path("14.png").rename(held)
    assert unmask(*words, "v").status == 0
    assert unmask(*words, "whole").status == 0
    Path("v/part-00001.parquet").unlink()
    assert "v holds 32 vectors of 40 pictures so far" in unmask("search", "v", held, "--k", 1).err
    said = unmask(*words, "v")
    assert "holds 32 already; 8 are left" in said.out
    assert vectors_of("v") == vectors_of("whole")
    assert "so far" not in unmask("search", "v", held, "--k", 1).err
    assert "folder is complete" in unmask(*words, "v").out


def test_a_search_that_ends_together_with_embed_leaves_what_fits(
    unmask: Unmask, trained: RunFolder, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search of the old vectors writes its matrix just after embed has written that of the new ones."""
    shutil.copytree(many, "data")
    held = Path("data/train/cats/14.png")
    held.rename("14.png")
    words = ("embed", trained.root, "data", "--workers", 0, "--out", "v")
    assert unmask(*words).status == 0
    for path in Path("v").glob("_search*"):
        path.unlink()
    began, may_write, searching = Event(), Event(), Thread(target=open_vectors, args=["v"])
    write = matrix.write_whole

    def in_turn(path: Path, fill: Callable[[Path], object]) -> None:
        if current_thread() is searching:
            began.set()
            assert may_write.wait(20)
            write(path, fill)
        else:
            write(path, fill)
            may_write.set()
            searching.join()

    with monkeypatch.context() as patched:
        patched.setattr(matrix, "write_whole", in_turn)
        searching.start()
        assert began.wait(20)
        Path("14.png").rename(held)
        assert unmask(*words).status == 0
    shared = open_vectors("v").matrix.clone()
    for path in Path("v").glob("_search*"):
        path.unlink()
    assert shared.equal(open_vectors("v").matrix)


def test_a_labels_file_beside_the_pictures_may_be_left_out(
    unmask: Unmask, trained: RunFolder, images: Path
) -> None:
    shutil.copytree(images, "data")
    lines = [f"{number:02}.png,{'ab'[number % 2]}" for number in range(12)]
    Path("data/labels.csv").write_text("\n".join(["file_name,label", *lines]) + "\n")
    words = ("embed", trained.root, "data", "--workers", 0)
    assert unmask(*words, "--out", "v", "--labels-file", "data/labels.csv").status == 0
    assert table_of("v")["label"].to_pylist() == ["a", "b"] * 6
    said = unmask(*words, "--out", "w", "--labels-file", "none")
    assert said.status == 0, said.err
    assert set(table_of("w")["label"].to_pylist()) == {None}


def test_whitening_is_fitted_to_training_and_inverted_by_its_own_numbers(
    unmask: Unmask, trained: RunFolder, many: Path
) -> None:
    assert unmask("embed", trained.root, many, "--workers", 0, "--out", "v").status == 0
    fitted, facts = read_fitted(Path("v/_whitening.safetensors"))
    stored = torch.tensor(table_of("v")["vector"].to_pylist())
    names = table_of("v")["name"].to_pylist()[:30]
    order = sorted(range(30), key=names.__getitem__)
    expected = VectorRule(pooling="mean", whitened=128).fit(stored[:30][order])
    assert fitted.mean.equal(expected.mean)
    assert facts["fitted_on"] == 30
    whitened = fitted.of(stored)
    assert whitened[:30].var(0, correction=0).max() < 1.001
    assert fitted.inverse(whitened) == pytest.approx(stored, abs=1e-5)
    searched = open_vectors("v")
    assert searched.matrix.equal(torch.nn.functional.normalize(whitened, dim=1))


def test_float16_is_within_its_rounding(unmask: Unmask, trained: RunFolder, images: Path) -> None:
    words = ("embed", trained.root, images, "--workers", 0)
    assert unmask(*words, "--out", "whole").status == 0
    assert unmask(*words, "--out", "half", "--dtype", "float16").status == 0
    whole, half = (torch.tensor(table_of(name)["vector"].to_pylist()) for name in ("whole", "half"))
    assert table_of("half").schema.field("vector").type == pa.list_(pa.float16(), 8)
    assert half == pytest.approx(whole, rel=2**-11, abs=2**-25)
    assert (half != whole).any()
    query = images / "03.png"
    found = json.loads(unmask("search", "half", query, "--k", 12, "--json").raw)["queries"][0]
    exact = VectorRule(whitened=128).fit(half)
    scores = torch.nn.functional.cosine_similarity(exact.of(half[3:4]), exact.of(half))
    names = [one["name"] for one in found["neighbours"]]
    assert names == [f"{row:02}.png" for row in scores.argsort(descending=True).tolist()]
    assert [one["score"] for one in found["neighbours"]] == pytest.approx(
        sorted(scores.tolist(), reverse=True), abs=1e-5
    )


def written(kind: str, root: Path) -> tuple[Path, list[str], set[str | None]]:
    """Data of a kind, the names of its six pictures in order, and its labels."""
    root.mkdir()
    names = [f"{number}.png" for number in range(6)]
    if kind in ("boxes", "maps"):
        (dense.write_boxes if kind == "boxes" else dense.write_maps)(root)
        return root, names, {None}
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    if kind == "tiff":
        for number, one in enumerate(pixels):
            tifffile.imwrite(root / f"{number}.tif", one, photometric="rgb")
        return root, [f"{number}.tif" for number in range(6)], {None}
    files: list[bytes] = []
    for one in pixels:
        content = io.BytesIO()
        Image.fromarray(one).save(content, "png")
        files.append(content.getvalue())
    if kind == "parquet":
        images = [
            {"bytes": content, "path": name} for content, name in zip(files, names, strict=True)
        ]
        labels = ["cat", "dog"] * 3
        pq.write_table(pa.table({"image": images, "label": labels}), root / "train.parquet")
        rows = [f"train.parquet:{number}" for number in range(6)]
        return root / "train.parquet", rows, {"cat", "dog"}
    with tarfile.open(root / "a.tar", "w") as tar:
        for number, content in enumerate(files):
            for ending, part in (("png", content), ("cls", str(number % 2).encode())):
                entry = tarfile.TarInfo(f"{number}.{ending}")
                entry.size = len(part)
                tar.addfile(entry, io.BytesIO(part))
    return root / "a.tar", names, {"0", "1"}


def test_class_tokens_are_stored_and_searched_without_whitening(
    unmask: Unmask, trained: RunFolder, images: Path
) -> None:
    words = ("embed", trained.root, images, "--workers", 0, "--out", "v", "--pooling", "class")
    assert unmask(*words, "--whitened", 0).status == 0
    features = package.load(trained.root).embed(images)
    assert table_of("v")["vector"].to_pylist() == features.cls.tolist()
    search = ("search", "v", images / "03.png", "--k", 12, "--json")
    plain_scores = torch.nn.functional.cosine_similarity(features.cls[3:4], features.cls)
    (query,) = json.loads(unmask(*search).raw)["queries"]
    assert [one["score"] for one in query["neighbours"]] == pytest.approx(
        sorted(plain_scores.tolist(), reverse=True), abs=1e-5
    )
    before = parts_of("v")
    assert unmask(*words, "--whitened", 4).status == 0
    assert parts_of("v") == before
    fitted = VectorRule(whitened=4).fit(features.cls)
    scores = torch.nn.functional.cosine_similarity(
        fitted.of(features.cls[3:4]), fitted.of(features.cls)
    )
    (query,) = json.loads(unmask(*search).raw)["queries"]
    assert [one["score"] for one in query["neighbours"]] == pytest.approx(
        sorted(scores.tolist(), reverse=True), abs=1e-5
    )


def test_each_part_says_how_it_was_made(unmask: Unmask, trained: RunFolder, images: Path) -> None:
    assert unmask("embed", trained.root, images, "--workers", 0, "--out", "v").status == 0
    facts = json.loads(pq.read_schema("v/part-00000.parquet").metadata[b"unmask"])
    manifest = json.loads(Path("v/_manifest.json").read_text())
    assert facts["encoding"] == manifest["encoding"]
    assert facts["encoding"]["weights"] == weights_hash(package.load(trained.root))
    assert (facts["layer"], facts["whitened"]) == ("last, after the final norm", 128)
    assert facts["place"] == str(trained.root.resolve())
    assert facts["unmask_version"] == package.__version__


@pytest.mark.parametrize("kind", ["shards", "parquet", "tiff", "boxes", "maps"])
def test_every_kind_of_data_gives_a_row_of_each_picture(
    unmask: Unmask, trained: RunFolder, tmp_path: Path, kind: str
) -> None:
    data, names, labels = written(kind, tmp_path / "data")
    said = unmask("embed", trained.root, data, "--workers", 0, "--out", "v")
    assert said.status == 0, said.err
    table = table_of("v")
    assert sorted(table["name"].to_pylist()) == names
    assert set(table["label"].to_pylist()) == labels
    features = package.load(trained.root).embed(str(data))
    expected = dict(zip(features.names, features.mean, strict=True))
    for row in table.to_pylist():
        assert expected[row["name"]].tolist() == row["vector"]


def test_unusable_pictures_are_listed_and_tried_again(
    unmask: Unmask, trained: RunFolder, images: Path
) -> None:
    shutil.copytree(images, "data")
    broken = Path("data/03.png")
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) * 2 // 3])
    Path("data/04.png").write_bytes(b"")  # refused when the folder is opened
    words = ("embed", trained.root, "data", "--workers", 0, "--out", "v")
    said = unmask(*words)
    assert "2 cannot be used, the first is 04.png" in said.all
    assert "embedded 10 pictures" in said.out
    rows = Path("v/_unusable.csv").read_text().splitlines()
    assert rows[0] == "split,name,reason"
    assert [row.split(",")[:2] for row in rows[1:]] == [["train", "04.png"], ["train", "03.png"]]
    assert len(table_of("v")) == 10
    said = unmask(*words)  # still not: a part without rows
    assert "embedded 0 pictures" in said.out
    assert len(table_of("v")) == 10
    broken.write_bytes(content)
    shutil.copy(images / "04.png", "data/04.png")
    said = unmask(*words)
    assert "holds 10 already; 2 are left" in said.out
    assert "embedded 2 pictures" in said.out
    assert not Path("v/_unusable.csv").exists()
    features = package.load(trained.root).embed("data")
    expected = dict(zip(features.names, features.mean, strict=True))
    for row in table_of("v").to_pylist():
        assert expected[row["name"]].tolist() == row["vector"]


class TestRefuses:
    def test_another_encoder(
        self, unmask: Unmask, trained: RunFolder, images: Path, tmp_path: Path
    ) -> None:
        other = tiny.finished_run(tmp_path / "other", images, seed=5)
        assert unmask("embed", trained.root, images, "--workers", 0, "--out", "v").status == 0
        said = unmask("embed", other.root, images, "--workers", 0, "--out", "v")
        assert said.status == 1
        assert "v holds vectors of another encoder: other weights" in said.err
        said = unmask("embed", trained.root, images, "--pooling", "class", "--out", "v")
        assert "v holds vectors of another pooling (mean," in said.err

    def test_changed_pictures(self, unmask: Unmask, trained: RunFolder, images: Path) -> None:
        shutil.copytree(images, "data")
        words = ("embed", trained.root, "data", "--workers", 0, "--out", "v")
        assert unmask(*words).status == 0
        Image.new("RGB", (9, 9)).save("data/05.png")
        said = unmask(*words)
        assert said.status == 1
        assert "1 picture changed since v was made, the first is 05.png" in said.err

    def test_a_part_of_another_folder(
        self, unmask: Unmask, trained: RunFolder, images: Path, tmp_path: Path
    ) -> None:
        other = tiny.finished_run(tmp_path / "other", images, seed=5)
        for run, out in ((trained, "a"), (other, "b")):
            assert unmask("embed", run.root, images, "--workers", 0, "--out", out).status == 0
        shutil.copy("b/part-00000.parquet", "a/part-00000.parquet")
        said = unmask("duplicates", "a")
        assert "part-00000.parquet holds vectors of another encoder or preprocessing" in said.err
        shutil.copy("b/part-00000.parquet", "b/part-00007.parquet")
        assert "part-00007.parquet is not one of its parts" in unmask("duplicates", "b").err

    def test_a_truncated_part_and_mends_it(
        self, unmask: Unmask, trained: RunFolder, images: Path
    ) -> None:
        words = ("embed", trained.root, images, "--workers", 0, "--out", "v")
        assert unmask(*words).status == 0
        part = Path("v/part-00000.parquet")
        whole = part.read_bytes()
        part.write_bytes(whole[:-30])
        said = unmask("duplicates", "v")
        assert said.status == 1
        assert "part-00000.parquet is truncated or not a part of vectors" in said.err
        assert "remove the file and run the same `unmask embed` again" in said.err
        part.unlink()
        assert unmask(*words).status == 0
        assert part.read_bytes() == whole

    @pytest.mark.parametrize(
        ("value", "message"),
        [(np.nan, "the vector of 02.png has values that are not finite"), (3.0, "not those that")],
    )
    def test_vectors_that_were_not_written_by_us(
        self, unmask: Unmask, trained: RunFolder, images: Path, value: float, message: str
    ) -> None:
        assert unmask("embed", trained.root, images, "--workers", 0, "--out", "v").status == 0
        table = pq.read_table("v/part-00000.parquet")
        rows = np.array(table["vector"].to_pylist(), np.float32)
        rows[2, 1] = value
        column = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
        place = table.schema.get_field_index("vector")
        pq.write_table(table.set_column(place, "vector", column), "v/part-00000.parquet")
        for path in Path("v").glob("_search-*"):
            path.unlink()
        said = unmask("duplicates", "v")
        assert said.status == 1
        assert message in said.err

    def test_a_folder_that_is_being_written(
        self, unmask: Unmask, trained: RunFolder, images: Path
    ) -> None:
        words = ("embed", trained.root, images, "--workers", 0, "--out", "v")
        assert unmask(*words).status == 0
        code = (
            "import sys, time; from pathlib import Path; from unmask.locks import locked\n"
            "with locked(Path('v/_lock')): print('locked', flush=True); time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            said = unmask(*words)
            process.kill()
        assert said.status == 1
        assert f"v is being written by process {process.pid}" in said.err

    def test_two_pictures_of_one_name(self) -> None:
        labels = unlabelled(3)
        pixels = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
        source = MemoryImages("a table", "x", ["a", "b", "a"], pixels, labels)
        with pytest.raises(DataError, match="a table has two pictures called a in train"):
            Pictures({"train": source})
        names = MemoryImages("a table", "x", ["a", "b", "c"], pixels, labels)
        assert len(Pictures({"train": names, "test": names})) == 6

    def test_other_folders_and_values(
        self, unmask: Unmask, trained: RunFolder, images: Path
    ) -> None:
        Path("other").mkdir()
        for name in ("notes.txt", ".12-draft.txt"):
            Path("other", name).write_text("mine")
        said = unmask("embed", trained.root, images, "--out", "other")
        assert "is neither empty nor a folder of vectors" in said.err
        assert sorted(path.name for path in Path("other").iterdir()) == [
            ".12-draft.txt",
            "notes.txt",
        ]
        Path("other/notes.txt").unlink()  # what is left is named as our own temporary files are
        assert unmask("embed", trained.root, images, "--workers", 0, "--out", "other").status == 0
        assert Path("other/.12-draft.txt").read_text() == "mine"
        said = unmask("embed", trained.root, images, "--out", images / "vectors")
        assert "is inside" in said.err
        assert "needs --out" in unmask("embed", trained.root, images).err
        said = unmask("embed", trained.root, images, "--out", "v", "--batch-size", 0)
        assert "--batch-size must be at least 1, got 0" in said.err
        said = unmask("embed", trained.root, images, "--out", "v", "--whitened", -1)
        assert "whitened must" in said.err
        assert not Path("v/part-00000.parquet").exists()

    def test_broken_weights(
        self, unmask: Unmask, trained: RunFolder, images: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> torch.Tensor:
            return torch.full((12, 8), torch.nan)

        monkeypatch.setattr(writing, "_vectors", broken)
        said = unmask("embed", trained.root, images, "--workers", 0, "--out", "v")
        assert "the vector of 00.png is not finite; check the weights" in said.err


PROCESSES = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
SLOWER = """
import os, sys, time
from datetime import timedelta
from unmask import cli
from unmask.commands import embed
from unmask.training import distributed

distributed.PATIENCE = timedelta(seconds=3)
embed_parts, rank, ends = embed.embed, os.environ["RANK"], sys.argv.pop(1) == "ends"

def slower(*args, **settings):
    yield from embed_parts(*args, **settings)
    if rank == "1":
        os._exit(0) if ends else time.sleep(8)

embed.embed = slower
cli.main()
"""


def in_processes(*words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PROCESSES, *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_processes_share_the_parts_and_change_no_byte(
    unmask: Unmask, trained: RunFolder, tmp_path: Path
) -> None:
    """1,797 digits are eight parts of 256 at most; one process takes longer than a training step may take."""
    words = ("embed", trained.root, "digits", "--workers", 0, "--out")
    assert unmask(*words, "alone").status == 0
    Path("slower.py").write_text(SLOWER)
    done = in_processes("slower.py", "waits", *words, "shared")
    assert done.returncode == 0, done.stderr
    assert parts_of("alone") == parts_of("shared")
    assert len(parts_of("alone")) == 8


@pytest.mark.slow
def test_a_lost_process_is_told_with_the_command_that_goes_on(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("slower.py").write_text(SLOWER)
    words = ("embed", trained.root, "digits", "--workers", 0, "--out", "shared")
    done = in_processes("slower.py", "ends", *words)
    assert done.returncode != 0
    said = plain(done.stderr)
    assert "another process of this command has ended or does not answer" in said
    assert f"continue with: unmask {shlex.join(map(str, words))}" in said
    assert "--resume" not in said


def test_the_lock_is_free_again(unmask: Unmask, trained: RunFolder, images: Path) -> None:
    assert unmask("embed", trained.root, images, "--workers", 0, "--out", "v").status == 0
    with locked(Path("v/_lock")):
        pass
