"""`unmask search` and `unmask duplicates`: what they find, write and refuse."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands.said import Unmask
from PIL import Image
from runs import tiny

import unmask as package
from unmask.evaluation.vectors import VectorRule
from unmask.own_output import is_marked
from unmask.runs.folder import RunFolder
from unmask.vectors import matrix


@pytest.fixture
def vectors(unmask: Unmask, trained: RunFolder, classes: Path) -> Path:
    """Vectors of twenty pictures of two classes."""
    shutil.copytree(classes, "data")
    assert unmask("embed", trained.root, "data", "--workers", 0, "--out", "v").status == 0
    return Path("v")


def scores_of(trained: RunFolder, query: Path) -> dict[str, float]:
    """Whitened cosine similarity to each picture, by the definition."""
    features = package.load(trained.root).embed("data")
    order = sorted(range(len(features.names)), key=features.names.__getitem__)
    fitted = VectorRule(pooling="mean", whitened=128).fit(features.mean[order])
    asked = fitted.of(package.load(trained.root).embed(query).mean)
    similarity = torch.nn.functional.cosine_similarity(asked, fitted.of(features.mean))
    return dict(zip(features.names, similarity.tolist(), strict=True))


class TestSearch:
    def test_json_holds_the_nearest_in_order(
        self, unmask: Unmask, trained: RunFolder, vectors: Path
    ) -> None:
        query = Path("data/dogs/03.png")
        said = unmask("search", vectors, query, "--k", 5, "--json")
        answer = json.loads(said.raw)
        assert answer["searched"] == 20
        neighbours = answer["queries"][0]["neighbours"]
        expected = scores_of(trained, query)
        best = sorted(expected, key=lambda name: -expected[name])[:5]
        assert [one["name"] for one in neighbours] == best
        assert [one["score"] for one in neighbours] == pytest.approx(
            [expected[name] for name in best], abs=1e-5
        )
        assert neighbours[0] == {
            "name": "dogs/03.png",
            "split": "train",
            "label": "dogs",
            "score": pytest.approx(1, abs=1e-6),
        }
        assert not Path("neighbours.png").exists()

    def test_conditions_hold_and_may_be_repeated(self, unmask: Unmask, vectors: Path) -> None:
        words = ("search", vectors, "data/dogs/03.png", "--json", "--k", 20, "--where")
        answer = json.loads(unmask(*words, "label=cats", "--where", "width<11").raw)
        names = {one["name"] for one in answer["queries"][0]["neighbours"]}
        assert names == {f"cats/{number:02}.png" for number in range(10)}
        assert answer["where"] == ["label=cats", "width<11"]

    def test_a_sheet_is_drawn_and_lines_are_printed(self, unmask: Unmask, vectors: Path) -> None:
        Path("list.txt").write_text("\ufeffdata/cats/01.png\n\n")  # as Windows writes it
        said = unmask("search", vectors, "data/dogs/03.png", "--queries", "list.txt", "--k", 3)
        assert said.status == 0
        assert "searching 20 vectors, exact" in said.out
        assert "1.000 dogs/03.png train dogs" in said.out
        assert "data/cats/01.png: 1.000 cats/01.png" in said.out
        assert is_marked(Path("neighbours.png"))
        with Image.open("neighbours.png") as sheet:
            assert sheet.width > 4 * 128
            assert sheet.height > 2 * 128

    def test_quiet_prints_only_neighbours(self, unmask: Unmask, vectors: Path) -> None:
        said = unmask("search", vectors, "data/dogs/03.png", "--k", 1, "--quiet")
        assert said.out == "1.000 dogs/03.png train dogs"

    def test_pictures_that_have_moved_are_found_with_data(
        self, unmask: Unmask, vectors: Path
    ) -> None:
        Path("data").rename("elsewhere")
        said = unmask("search", vectors, "elsewhere/dogs/03.png", "--k", 2)
        assert said.status == 0
        assert "no sheet is drawn" in said.err
        assert not Path("neighbours.png").exists()
        unmask("search", vectors, "elsewhere/dogs/03.png", "--k", 2, "--data", "elsewhere")
        assert Path("neighbours.png").exists()

    def test_the_encoder_is_known_by_its_weights(
        self, unmask: Unmask, trained: RunFolder, classes: Path, images: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(trained.root, "runs/mine")
        shutil.copytree(classes, "data")
        unmask("embed", "runs/mine", "data", "--workers", 0, "--out", "v")
        Path("runs/mine").rename("runs/renamed")
        words = ("search", "v", "data/dogs/03.png", "--k", 1, "--quiet")
        said = unmask(*words)
        assert said.status == 1
        assert "say where it is with --encoder" in said.err
        assert unmask(*words, "--encoder", "runs/renamed").status == 0
        other = tiny.finished_run(tmp_path / "other", images, seed=5)
        said = unmask(*words, "--encoder", other.root)
        assert "is not the encoder of v: other weights" in said.err
        shutil.copytree(other.root, "runs/mine")
        assert "runs/mine has other weights" in unmask(*words).err
        # the folders were moved together
        Path("moved").mkdir()
        Path("runs/renamed").rename("moved/mine")
        Path("v").rename("moved/v")
        assert unmask("search", "moved/v", *words[2:]).status == 0

    def test_an_unfinished_folder_is_searched_with_a_warning(
        self, unmask: Unmask, trained: RunFolder, classes: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("unmask.vectors.writing._LEAST_ROWS", 8)
        unmask("embed", trained.root, classes, "--workers", 0, "--out", "v")
        Path("v/part-00001.parquet").unlink()
        said = unmask("search", "v", classes / "dogs/03.png", "--k", 20)
        assert "v holds 12 vectors of 20 pictures so far" in said.err
        assert "there are only 12 pictures, fewer than --k 20" in said.err

    def test_a_folder_that_cannot_be_written_is_searched(
        self, unmask: Unmask, vectors: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = unmask("search", vectors, "data/dogs/03.png", "--json").raw
        next(vectors.glob("_search-*.npy")).write_bytes(b"")  # as a full disk leaves it
        assert unmask("search", vectors, "data/dogs/03.png", "--json").raw == before
        for path in (*vectors.glob("_search-*.npy"), vectors / "_whitening.safetensors"):
            path.unlink()

        def refuse(*_: object) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr("unmask.vectors.matrix.write_whole", refuse)
        monkeypatch.setattr("unmask.evaluation.vectors.write_whole", refuse)
        assert unmask("search", vectors, "data/dogs/03.png", "--json").raw == before

    def test_a_late_search_leaves_the_files_of_newer_vectors(
        self, unmask: Unmask, trained: RunFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another process embeds more pictures, and makes their matrix, while it writes its own."""
        tiny.write_images(Path("photos"), count=6)
        tiny.write_images(Path("more"), count=3, seed=9)
        embed = ("embed", trained.root, "photos", "--workers", 0, "--out", "v")
        assert unmask(*embed).status == 0
        next(Path("v").glob("_search-*.npy")).unlink()
        write = matrix.write_whole
        newer: list[Path] = []

        def slow(path: Path, fill: Any) -> None:
            monkeypatch.setattr(matrix, "write_whole", write)
            for file in Path("more").iterdir():
                file.rename(f"photos/new-{file.name}")
            assert unmask(*embed).status == 0
            newer.extend(Path("v").glob("_search-*.npy"))
            write(path, fill)

        monkeypatch.setattr(matrix, "write_whole", slow)
        assert unmask("search", "v", "photos/03.png", "--k", 1).status == 0
        assert len(newer) == 1
        assert newer[0].exists()

    @pytest.mark.parametrize("kind", ["hnsw", "ivf-pq"])
    def test_an_index_is_made_once_and_again_for_new_vectors(
        self, unmask: Unmask, trained: RunFolder, kind: str
    ) -> None:
        pytest.importorskip("faiss")
        tiny.write_images(Path("photos"), count=100)
        embed = ("embed", trained.root, "photos", "--workers", 0, "--out", "v")
        assert unmask(*embed).status == 0
        words = ("search", "v", "photos/07.png", "--json", "--k", 5)
        exact = json.loads(unmask(*words).raw)["queries"]
        answer = json.loads(unmask(*words, "--index", kind).raw)
        assert answer["queries"] == exact
        assert answer["recall"] >= 0.9
        narrow = json.loads(unmask(*words, "--index", kind, "--where", "width<99").raw)
        assert (narrow["index"], narrow["queries"]) == ("none", exact)
        said = unmask(*words[:3], "--index", kind, "--where", "width<99")
        assert "where width<99, exact, because of --where" in said.out
        (index,) = Path("v").glob(f"_index-{kind}-*.faiss")
        made = index.stat().st_mtime_ns
        assert json.loads(unmask(*words, "--index", kind).raw) == answer
        assert index.stat().st_mtime_ns == made
        tiny.write_images(Path("more"), count=3, seed=9)
        for file in Path("more").iterdir():
            file.rename(f"photos/new-{file.name}")
        assert unmask(*embed).status == 0
        said = unmask("search", "v", "photos/new-01.png", "--k", 1, "--index", kind, "--quiet")
        assert said.out == "1.000 new-01.png train"
        assert not index.exists()
        assert len(list(Path("v").glob("_index-*"))) == 2

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ((), "which pictures?"),
            (("data/dogs/03.png", "--k", 0), "--k must be at least 1, got 0"),
            (("data/dogs",), "data/dogs is a folder; give pictures"),
            (("data/none.png",), "data/none.png does not exist"),
            (("data/dogs/03.png", "--where", "label=dgos"), "did you mean 'dogs'"),
            (("data/dogs/03.png", "--index", "flat"), "--index must be one of none, hnsw, ivf-pq"),
            (("data/dogs/03.png", "--index", "hnsw"), "v holds only 20 vectors; leave out --index"),
            (("data/dogs/03.png", "--queries", "no.txt"), "--queries: no.txt does not exist"),
            (("bands.npy",), "channels"),
        ],
        ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
    )
    def test_refuses(
        self, unmask: Unmask, vectors: Path, words: tuple[object, ...], message: str
    ) -> None:
        np.save("bands.npy", np.zeros((5, 9, 9), dtype=np.uint8))
        if "--index" in words:
            pytest.importorskip("faiss")
        said = unmask("search", vectors, *words)
        assert said.status == 1
        assert message in said.err

    def test_refuses_what_is_no_folder_of_vectors(self, unmask: Unmask, images: Path) -> None:
        said = unmask("search", images, images / "00.png")
        assert "holds no vectors (no _manifest.json)" in said.err
        assert "there is no file or folder nothing" in unmask("search", "nothing", "a.png").err


SLOW = (
    "torchvision", "torch._dynamo", "sympy", "torch.distributed.fsdp", "torch.utils.flop_counter", "triton",
    "transformers", "timm", "sklearn", "scipy", "pandas", "matplotlib", "pyarrow.dataset", "tensorboard",
)  # fmt: skip
"""Modules that take a tenth of a second or more to import."""


def test_a_search_imports_nothing_that_it_does_not_need(trained: RunFolder, vectors: Path) -> None:
    code = (
        "import sys; from unmask import cli\n"
        "try: cli.main()\n"
        f"finally: print([name for name in {SLOW} if name in sys.modules], file=sys.stderr)"
    )
    words = ("search", vectors, "data/dogs/03.png", "--json")
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["searched"] == 20
    assert done.stderr.splitlines()[-1] == "[]"


class TestDuplicates:
    def test_the_duplicate_of_a_real_set_is_found(
        self, unmask: Unmask, trained: RunFolder, real_set: Callable[..., Path]
    ) -> None:
        Path("steel").mkdir()
        for file in sorted((real_set("neu-det") / "images" / "train").glob("patches_1*.jpg")):
            shutil.copy(file, "steel")
        assert unmask("embed", trained.root, "steel", "--workers", 0, "--out", "v").status == 0
        (pair,) = json.loads(unmask("duplicates", "v", "--json").raw)["pairs"]
        assert (pair["name_a"], pair["name_b"]) == ("patches_101.jpg", "patches_105.jpg")
        assert pair["same_file"]

    def test_lists_pairs_and_leaks(
        self,
        unmask: Unmask,
        trained: RunFolder,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        passes: list[str] = []

        def counted(parts: Iterable[int], total: int, what: str, _: object) -> Iterable[int]:
            passes.append(what)
            return parts

        monkeypatch.setattr("unmask.vectors.duplicates.counted", counted)
        root = tmp_path / "data"
        tiny.write_classes(root / "train", count=15)
        tiny.write_classes(root / "test", count=2)  # equal to the first of each class
        assert unmask("embed", trained.root, root, "--workers", 0, "--out", "v").status == 0
        said = unmask("duplicates", "v")
        assert said.status == 0
        assert passes == ["comparing pictures"]
        assert "4 pairs of equal files" in said.out
        assert "4 pictures outside of the training split also stand in it" in said.all
        with Path("v/_duplicates.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        equal = {(row["name_a"], row["name_b"]) for row in rows if row["same_file"] == "True"}
        assert equal == {(f"{c}/0{n}.png", f"{c}/0{n}.png") for c in ("cats", "dogs") for n in "01"}
        assert all(row["split_a"] == "train" and row["split_b"] == "test" for row in rows[:4])
        assert is_marked(Path("v/_duplicates.png"))
        answer = json.loads(unmask("duplicates", "v", "--across-splits", "--json").raw)
        assert answer["in_training_and_test"] == 4
        assert answer["pictures"] == 34
        assert {(one["split_a"], one["split_b"]) for one in answer["pairs"]} == {("train", "test")}

    def test_a_threshold_and_a_list_may_be_given(self, unmask: Unmask, vectors: Path) -> None:
        said = unmask("duplicates", vectors, "--threshold", 0.99999, "--out", "pairs.csv")
        assert "threshold a cosine similarity of at least 0.99999" in said.out
        assert "found 0 pairs" in said.out
        said = unmask("duplicates", vectors, "--threshold", -1, "--out", "pairs.csv")
        assert "written: pairs.csv written: pairs.png" in said.out

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (
                ("--threshold", 2),
                "--threshold must lie between -1 and 1, got 2; it is a cosine similarity",
            ),
            (("--out", "pairs.txt"), "the list is a table; give it the ending .csv"),
        ],
    )
    def test_refuses(
        self, unmask: Unmask, vectors: Path, words: tuple[object, ...], message: str
    ) -> None:
        said = unmask("duplicates", vectors, *words)
        assert said.status == 1
        assert message in said.err

    def test_refuses_two_pictures(self, unmask: Unmask, trained: RunFolder) -> None:
        tiny.write_images(Path("two"), count=2)
        assert unmask("embed", trained.root, "two", "--workers", 0, "--out", "v").status == 0
        assert "compare at least 3" in unmask("duplicates", "v").err
