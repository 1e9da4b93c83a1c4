"""What the machine does to a command: limits, locks, folders that are missing or may only be read, other locales."""

import errno
import os
import shutil
import stat
from pathlib import Path

import platformdirs
import pytest
import torch
from commands.said import Unmask
from runs import tiny

from unmask import locks
from unmask.console import plan as console_plan
from unmask.data import cache
from unmask.data.loader import Failures, SetAside, fetched
from unmask.errors import ResourceError
from unmask.pictures import figure
from unmask.runs.folder import RunFolder
from unmask.training import hardware
from unmask.training.logbook import read_log

NO_HOME = "could not determine the home directory for '~/.cache', set an absolute HOME"


def set_no_home(_: str) -> str:
    raise RuntimeError(NO_HOME)


# limits


def test_the_plan_keeps_to_the_quota_of_a_container(
    unmask: Unmask, images: Path, recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_limit", lambda: 1.0)
    flags = [word for word in recipe if word not in ("--threads", "1")]
    assert "--threads" not in flags
    flags = [*recipe[:2], "--epochs", "1", "--workers", "0"]
    said = unmask("pretrain", images, *flags, "--out", "run")
    assert said.status == 0
    assert "machine cpu, float32, 1 thread" in said.out


def test_a_container_without_memory_is_named_before_training(
    unmask: Unmask, images: Path, recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "memory_left", lambda: 1000)
    said = unmask("pretrain", images, *recipe, "--out", "run")
    assert said.status == 1
    assert "only 0.0 GiB are free" in said.err


def test_a_small_shared_memory_is_named_in_the_plan(
    unmask: Unmask, images: Path, recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_plan, "shared_memory_free", lambda: 1)
    said = unmask("pretrain", images, *recipe, "--out", "none")
    assert "/dev/shm" not in said.all
    said = unmask("pretrain", images, *recipe, "--workers", "1", "--out", "one")
    assert said.status == 0
    # 2 batches of 4 images of 3 x 8 x 8 bytes, and a label and a position of 8 bytes each
    assert "1 loading process holds about 2 KiB in /dev/shm, which has 0 KiB free" in said.out
    assert "docker run --shm-size" in said.out


FULL = "unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left on device (28)"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError(FULL), r"^/dev/shm, .* is full; .*--shm-size.*--workers 0$"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "^memory ran out",
        ),
        (MemoryError(), "^memory ran out in a loading process"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
    ],
)
def test_what_loading_processes_lack_is_a_sentence(error: Exception, words: str) -> None:
    def load(_: int, __: Failures) -> int:
        raise error

    with pytest.raises(ResourceError, match=words) as caught:
        list(fetched(load, iter([1]), workers=1))
    assert "\n" not in str(caught.value)


def test_other_errors_of_loading_processes_are_what_they_are() -> None:
    def load(_: int, __: Failures) -> int:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit") as caught:
        list(fetched(load, iter([1]), workers=1))
    assert not isinstance(caught.value, ResourceError)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(fetched(load, iter([1]), workers=0))


@pytest.mark.slow
def test_what_is_sent_lies_in_shared_memory() -> None:
    def load(number: int, _: Failures) -> tuple[torch.Tensor, bool]:
        return torch.full((3,), number), True

    received = list(fetched(load, iter([1, 2]), workers=1))
    assert [tensor.tolist() for tensor, _ in received] == [[1, 1, 1], [2, 2, 2]]
    assert all(tensor.is_shared() for tensor, _ in received)


# locks


def test_a_file_system_without_locks_is_said_and_no_hindrance(
    unmask: Unmask, images: Path, recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks, "_lock", refuse)
    for said in (
        unmask("pretrain", images, *recipe, "--out", "run"),
        unmask("pack", images, "shards", "--workers", "0"),
    ):
        assert said.status == 0
        assert "without locks (No locks available)" in said.err
        assert "another process" not in said.out


def test_a_run_that_may_only_be_read_is_copied_first(
    unmask: Unmask, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.begin(tmp_path / "my run", images)
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK and may(path, mode))
    said = unmask("pretrain", "--resume", folder.root)
    assert said.status == 1
    assert f"{folder.root} cannot be written" in said.err
    assert f"copy it first (`cp -r '{folder.root}' COPY`)" in said.err


def test_a_read_only_file_system_is_named_by_the_lock(
    unmask: Unmask, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.begin(tmp_path / "run", images)
    open_ = Path.open

    def refuse(path: Path, *args: object, **options: object) -> object:
        if path.name == "lock":
            raise OSError(errno.EROFS, "Read-only file system")
        return open_(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", refuse)
    said = unmask("pretrain", "--resume", folder.root)
    assert said.status == 1
    assert "cannot be written (Read-only file system)" in said.err


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "RUN", "DATA", "--out", "file/scores.json"),
        ("predict", "RUN", "DATA", "--out", "file/rows.csv"),
        ("reconstruct", "RUN", "DATA", "--out", "file/sheet.png"),
        ("reconstruct", "RUN", "DATA", "--out", "sheet.text"),
        ("evaluate", "RUN", "DATA", "--out", "."),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(
    unmask: Unmask, command: tuple[str, ...]
) -> None:
    """The run is empty and there are no images, so something else would be said if they were opened."""
    Path("file").write_text("")
    for name in ("RUN", "DATA"):
        Path(name).mkdir()
    Path("RUN/spec.json").write_text("{}")
    said = unmask(*command)
    assert said.status == 1
    assert "RUN" not in said.err
    assert "cannot be written" in said.err or "no ending of a picture" in said.err


# no home


def test_without_a_home_a_private_cache_serves(
    unmask: Unmask,
    classes: Path,
    trained: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_dir", set_no_home)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = unmask("evaluate", trained.root, classes, "--out", "scores.json")
    assert said.status == 0
    assert "cache" not in said.all
    assert stat.S_IMODE(cache.cache_folder().stat().st_mode) == 0o700
    assert cache.cache_folder().parent == tmp_path
    cache.write_json("name", [1])
    assert cache.read_json("name") == [1]


def test_a_cache_that_others_could_have_filled_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_dir", set_no_home)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cache.cache_folder().chmod(0o777)
    cache.write_json("name", [1])
    assert cache.read_json("name") is None
    shutil.rmtree(tmp_path / f"unmask-{os.getuid()}")
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / f"unmask-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    cache.write_json("name", [1])
    assert cache.read_json("name") is None
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_path_with_an_unknown_home_is_a_sentence(unmask: Unmask) -> None:
    said = unmask("pretrain", "~nobody-of-this-name/photos")
    assert said.status == 1
    assert "write the whole path" in said.err


# files that a kill or a user spoiled


def test_damaged_files_of_a_run_do_not_stop_its_resume(
    unmask: Unmask, images: Path, tmp_path: Path
) -> None:
    folder = tiny.begin(tmp_path / "run", images)
    for _ in tiny.go_on(folder, save_every_minutes=0):
        pass
    newest, before = sorted(folder.checkpoints.glob("step-*"), reverse=True)
    (newest / "info.json").write_text("[" * 100_000)
    kept = read_log(folder.log)
    with folder.log.open("ab") as log:
        log.write(b'[1]\n"step"\n{"step": "7"}\n{"loss": 1}\n\xff\xfe\n' + b"[" * 5000 + b"\n{\n")
    assert read_log(folder.log) == kept
    said = unmask("pretrain", "--resume", folder.root)
    assert said.status == 0
    assert f"skipped a damaged checkpoint: {newest}" in said.out
    assert f"from step {int(before.name[5:])} of" in said.out
    assert [line["step"] for line in read_log(folder.log)] == [line["step"] for line in kept]


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{", b"\xff", b"[]", b"null", b""])
def test_a_spoiled_spec_is_named(unmask: Unmask, content: bytes) -> None:
    Path("run").mkdir()
    Path("run/spec.json").write_bytes(content)
    for command in ("pretrain", "--resume", "run"), ("evaluate", "run", "digits"):
        said = unmask(*command)
        assert said.status == 1
        assert "spec.json" in said.err


@pytest.mark.parametrize(
    "spoiled",
    [
        b"",
        b"\n",
        b"nonsense",
        b"file,reason",
        b"file,reason\r\nold.png,dama",
        b"\xff\xfe,\xff\r\n",
        b"file,reason\r\nb\xe4d.png,odd\r\n",
        b'file,reason\r\n"old.png,',
    ],
)
def test_a_spoiled_list_of_skipped_files_gets_its_header_back(
    tmp_path: Path, spoiled: bytes
) -> None:
    path = tmp_path / "set_aside.csv"
    path.write_bytes(spoiled)
    for name in ("a.png", "b.png", "a.png"):
        SetAside(path, 100, 1.0).add([(name, "damaged")])
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "file,reason"
    assert lines[-2:] == ["a.png,damaged", "b.png,damaged"]
    assert lines.count("file,reason") == lines.count("a.png,damaged") == 1


def test_an_emptied_list_of_skipped_files_does_not_stop_a_resume(
    unmask: Unmask, tmp_path: Path, recipe: list[str]
) -> None:
    images = tiny.write_images(tmp_path / "photos")
    for name in ("zz1.png", "zz2.png"):
        (images / name).write_bytes(b"no picture")
    flags = ["--max-set-aside", "0.5"]
    assert unmask("pretrain", images, *recipe, *flags, "--out", "run").status == 0
    for checkpoint in Path("run/checkpoints").iterdir():
        shutil.rmtree(checkpoint)
    Path("run/set_aside.csv").write_text("")
    for _ in range(2):
        assert unmask("pretrain", "--resume", "run", *flags).status == 0
        assert len(Path("run/set_aside.csv").read_text().splitlines()) == 3
        for checkpoint in Path("run/checkpoints").iterdir():
            shutil.rmtree(checkpoint)


# pictures


def test_a_picture_that_cannot_be_drawn_is_a_note(
    unmask: Unmask, classes: Path, trained: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no canvas\nsecond line")

    monkeypatch.setattr("unmask.pictures.accuracy.new_figure", fail)
    said = unmask("evaluate", trained.root, classes, "--out", "scores.json")
    assert said.status == 0
    assert "chance" in said.out
    assert "scores.png could not be drawn (no canvas)" in said.err
    assert "written: scores.json" in said.out
    assert "written: scores.png" not in said.out
    assert figure.new_figure is not fail


def test_scores_are_printed_before_they_are_written(
    unmask: Unmask, classes: Path, trained: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "unmask.console.scores.write_text", lambda *_: (_ for _ in ()).throw(OSError(28, "full"))
    )
    said = unmask("evaluate", trained.root, classes, "--out", "scores.json")
    assert said.status == 1
    assert "chance" in said.out
    assert "scores.json cannot be written (full)" in said.err


# Slurm


def test_slurm_tasks_without_torchrun_get_a_hint(
    unmask: Unmask, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("gone").mkdir()
    Path("gone/spec.json").write_text("{}")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert unmask("pretrain", "--resume", "gone").err.count("start them with torchrun") == 1
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert "torchrun" not in unmask("pretrain", "--resume", "gone").err
    monkeypatch.setenv("SLURM_PROCID", "0")
    for tasks in ("1", "", "many"):
        monkeypatch.setenv("SLURM_NTASKS", tasks)
        assert "torchrun" not in unmask("pretrain", "--resume", "gone").err
