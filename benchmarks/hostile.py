"""Gives commands files that lie, and measures what they do: status, words, peak memory, programs run, files written.

    python benchmarks/hostile.py --out benchmarks/results/hostile.json

Each case makes its own input in an empty folder. A command may refuse it with a sentence (status 1 or 2) or go on without it; it
may not print a traceback, take more than 1 GiB over an ordinary run, run longer than two minutes, run a program that the file
names, or write outside of the folder. PyTorch is imported once; each command is a fork.
"""

import argparse
import contextlib
import io
import json
import os
import pickle
import signal
import stat
import struct
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from forking import started
from PIL import Image
from safetensors.torch import load_file, save_file

_LONGEST = 120.0
_GROWTH = 2**30
_PRETRAIN = (
    "--recipe",
    "mae-digits",
    "--batch-size",
    "8",
    "--epochs",
    "1",
    "--threads",
    "1",
    "--workers",
    "0",
)
_WORDS = {"pretrain": (*_PRETRAIN, "--out", "out", "--max-set-aside", "1")}


class Command(NamedTuple):
    """What happened to a command."""

    status: int
    said: str
    peak: int
    seconds: float


def _forked(words: tuple[str, ...]) -> Command:
    """Run a command in a fork; status -1 if it had to be ended."""
    began = time.monotonic()
    said = Path("said")
    child = started(words, said)
    peak = 0
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            break
        peak = max(peak, _own_memory(child))
        if time.monotonic() - began > _LONGEST:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(0.005)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1
    return Command(code, said.read_text(errors="replace"), peak, time.monotonic() - began)


def _own_memory(process: int) -> int:
    """Bytes that a process holds itself; pages of mapped files, which the system may drop, are not counted."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        sizes = dict(line.split(":", 1) for line in lines)
        return sum(
            int(sizes[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem") if name in sizes
        )
    return 0


def _photos(folder: str = "photos", count: int = 8) -> Path:
    root = Path(folder)
    chance = np.random.default_rng(0)
    for number in range(count):
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    return root


def _png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def _tar(members: dict[str, bytes], name: str = "photos/a.tar") -> None:
    Path(name).parent.mkdir(exist_ok=True)
    with tarfile.open(name, "w") as tar:
        for key, data in members.items():
            member = tarfile.TarInfo(key)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def _picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(
        file, "PNG"
    )
    return file.getvalue()


Words = tuple[str, ...]


def pixel_bomb() -> Words:
    """A PNG of 30,000 x 30,000 pixels in a few bytes."""
    (_photos() / "a" / "bomb.png").write_bytes(_png(30_000, 30_000, b""))
    return "pretrain", "photos", *_WORDS["pretrain"]


def thin_picture() -> Words:
    """A PNG of 1 x 600,000 pixels among others."""
    (_photos() / "a" / "thin.png").write_bytes(_png(1, 600_000, b"\0\0" * 600_000))
    return "pretrain", "photos", *_WORDS["pretrain"]


def thin_picture_rebuilt() -> Words:
    """The same, rebuilt alone."""
    Path("thin.png").write_bytes(_png(1, 600_000, b"\0\0" * 600_000))
    return "reconstruct", "../run", "thin.png"


def postscript() -> Words:
    """PostScript called .jpg, with a Ghostscript of ours on the path."""
    script = Path("bin/gs")
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho ran > ../ran\n")
    script.chmod(0o755)
    os.environ["PATH"] = f"{script.parent.absolute()}:{os.environ['PATH']}"
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n(hello) print\nshowpage\n"
    (_photos() / "a" / "x.jpg").write_bytes(text)
    return "pretrain", "photos", *_WORDS["pretrain"]


def fifo_in_a_folder() -> Words:
    """A FIFO called .png in the folder."""
    os.mkfifo(_photos() / "a" / "f.png")
    return "pretrain", "photos", *_WORDS["pretrain"]


def fifo_alone() -> Words:
    """A FIFO as the picture to rebuild."""
    os.mkfifo("f.png")
    return "reconstruct", "../run", "f.png"


def endless_file() -> Words:
    """A link to /dev/zero as the picture to rebuild."""
    Path("f.png").symlink_to("/dev/zero")
    return "reconstruct", "../run", "f.png"


def endless_file_in_a_folder() -> Words:
    """A link to /dev/zero in the folder."""
    (_photos() / "a" / "z.png").symlink_to("/dev/zero")
    return "pretrain", "photos", *_WORDS["pretrain"]


def big_endian_array() -> Words:
    """A big-endian .npy."""
    np.save("a.npy", np.zeros((3, 32, 32), ">u2"))
    return "reconstruct", "../run", "a.npy"


def deep_json_spec() -> Words:
    """A spec.json nested 100,000 deep."""
    Path("bad").mkdir()
    Path("bad/spec.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    return "pretrain", "--resume", "bad"


def deep_json_in_a_tar() -> Words:
    """A .json member nested 100,000 deep."""
    _tar({"0.png": _picture(), "0.json": b"[" * 60_000, "1.png": _picture()})
    return "pretrain", "photos", *_WORDS["pretrain"]


def deep_folders() -> Words:
    """Folders nested 1,500 deep."""
    _photos()
    here = os.getcwd()  # noqa: PTH109
    os.chdir("photos")
    for _ in range(1500):
        os.mkdir("d")  # noqa: PTH102
        os.chdir("d")
    os.chdir(here)
    return "pretrain", "photos", *_WORDS["pretrain"]


def long_label() -> Words:
    """A label of 5,000 digits in a tar."""
    _tar({"0.png": _picture(), "0.cls": b"1" * 5000, "1.png": _picture(), "1.cls": b"1"})
    return "pretrain", "photos", *_WORDS["pretrain"]


def sparse_label() -> Words:
    """A .cls member of 6 GiB, 20 kB on disk."""
    Path("photos").mkdir()
    with Path("photos/a.tar").open("wb") as file:
        for name, size in (("0.png", len(_picture())), ("0.cls", 6 * 2**30)):
            member = tarfile.TarInfo(name)
            member.size = size
            file.write(member.tobuf())
            if name == "0.png":
                file.write(_picture().ljust(-(-size // 512) * 512, b"\0"))
            else:
                file.seek(size, os.SEEK_CUR)
        file.write(bytes(1024))
    return "pretrain", "photos", *_WORDS["pretrain"]


def sparse_member() -> Words:
    """A GNU sparse member that says 2^60 bytes."""
    _tar({"0.png": _picture()})
    data = bytearray(Path("photos/a.tar").read_bytes())
    member = tarfile.TarInfo("1.png")
    member.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = struct.pack(">I", 0x80000000) + (2**60).to_bytes(8, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    end = 512 + -(-len(_picture()) // 512) * 512
    Path("photos/a.tar").write_bytes(bytes(data[:end]) + bytes(header) + bytes(1024))
    return "pretrain", "photos", *_WORDS["pretrain"]


def huge_pax_header() -> Words:
    """A pax header that says 3 GiB."""
    _tar({"0.png": _picture()})
    member = tarfile.TarInfo("h")
    member.type, member.size = tarfile.XHDTYPE, 3 * 2**30
    with Path("photos/a.tar").open("r+b") as file:
        file.seek(512 + -(-len(_picture()) // 512) * 512)
        file.write(member.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(file.tell() + 3 * 2**30)
    return "pretrain", "photos", *_WORDS["pretrain"]


def names_that_leave() -> Words:
    """Members called ../../x.png and /tmp/x.png, and a link to /etc/passwd."""
    _tar({"../../x.png": _picture(), "/tmp/hostile-x.png": _picture()})
    with tarfile.open("photos/a.tar", "a") as tar:
        link = tarfile.TarInfo("l.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return "pretrain", "photos", *_WORDS["pretrain"]


def dictionary_bomb() -> Words:
    """A Parquet file of 13 kB with one value of 50 MiB, 120 times."""
    Path("photos").mkdir()
    value = b"\xff\xd8" + bytes(50 << 20)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 120, pa.int32()), pa.array([value]))
    pq.write_table(
        pa.table({"image": column}),
        "photos/a.parquet",
        compression="zstd",
        dictionary_pagesize_limit=1 << 30,
        store_schema=False,
    )
    return "pretrain", "photos", *_WORDS["pretrain"]


def plain_bomb() -> Words:
    """A Parquet file with 120 equal values of 50 MiB, not as a dictionary."""
    Path("photos").mkdir()
    value = b"\xff\xd8" + bytes(50 << 20)
    schema = pa.schema({"image": pa.large_binary()})
    with pq.ParquetWriter(
        "photos/a.parquet", schema, compression="zstd", use_dictionary=False
    ) as file:
        for _ in range(120):
            file.write_table(pa.table({"image": [value]}, schema))
    return "pretrain", "photos", *_WORDS["pretrain"]


def _weights(change: Callable[[dict[str, Any]], None]) -> None:
    """Weights of the run with another note."""
    source = next(Path("../run/checkpoints").glob("step-*")) / "model.safetensors"
    with source.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        notes = json.loads(file.read(size))["__metadata__"]
    key = "unmask"
    spec = json.loads(notes[key])
    change(spec)
    save_file(load_file(source), "lie.safetensors", {**notes, key: json.dumps(spec)})


def _deepest(spec: Any, depth: Any) -> None:
    for key, value in spec.items() if isinstance(spec, dict) else ():
        if key == "depth":
            spec[key] = depth
        _deepest(value, depth)


def deep_weights() -> Words:
    """Weights whose note says 20,000 blocks."""
    _weights(lambda spec: _deepest(spec, 20_000))
    return "convert", "lie.safetensors", "hf", "--to", "huggingface"


def absurd_weights() -> Words:
    """Weights whose note says 10^8 blocks, rebuilding a picture."""
    _weights(lambda spec: _deepest(spec, 10**8))
    Path("a.png").write_bytes(_picture())
    return "reconstruct", "lie.safetensors", "a.png"


def absurd_spec() -> Words:
    """A spec.json that says 10^8 blocks."""
    spec = json.loads(Path("../run/spec.json").read_text())
    _deepest(spec, 10**8)
    Path("bad").mkdir()
    Path("bad/spec.json").write_text(json.dumps(spec))
    return "pretrain", "--resume", "bad"


def stretched_tensor() -> Words:
    """A .pth with a tensor of 2 TB over two bytes."""
    torch.save(
        {"model": {"pos_embed": torch.zeros(1, dtype=torch.float16).expand(10**12)}}, "a.pth"
    )
    return "convert", "a.pth", "hf", "--to", "huggingface"


def program_in_weights() -> Words:
    """A .pth whose pickle runs a program."""

    class Runs:
        def __reduce__(self) -> Any:
            return os.system, ("echo ran > ran",)

    Path("a.pth").write_bytes(pickle.dumps({"model": Runs()}))
    return "convert", "a.pth", "hf", "--to", "huggingface"


def index_that_leaves() -> Words:
    """A safetensors index that names a file outside of its folder."""
    Path("w").mkdir()
    Path("w/model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"cls_token": "../../run/checkpoints/x.safetensors"}})
    )
    return "convert", "w", "hf", "--to", "huggingface"


def header_that_lies() -> Words:
    """A safetensors file whose header says 2^60 bytes."""
    Path("a.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    return "convert", "a.safetensors", "hf", "--to", "huggingface"


CASES: tuple[Callable[[], Words], ...] = (
    pixel_bomb,
    thin_picture,
    thin_picture_rebuilt,
    postscript,
    fifo_in_a_folder,
    fifo_alone,
    endless_file,
    endless_file_in_a_folder,
    big_endian_array,
    deep_json_spec,
    deep_json_in_a_tar,
    deep_folders,
    long_label,
    sparse_label,
    sparse_member,
    huge_pax_header,
    names_that_leave,
    dictionary_bomb,
    plain_bomb,
    deep_weights,
    absurd_weights,
    absurd_spec,
    stretched_tensor,
    program_in_weights,
    index_that_leaves,
    header_that_lies,
)


def _outside(root: Path, case: Path) -> list[str]:
    """Files that do not belong to a case."""
    known = (case, root / "run", root / "cache", root / "photos", root / "said")
    return [str(path.relative_to(root)) for path in root.iterdir() if path not in known]


def main() -> None:
    """Run all cases and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", default="", help="names of cases, with commas; all if empty")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    out = args.out and args.out.absolute()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        os.chdir(root)
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        _photos()
        ordinary = _forked(("pretrain", "photos", *_PRETRAIN, "--out", "run"))
        assert ordinary.status == 0, ordinary.said
        for case in CASES:
            if args.cases and case.__name__ not in args.cases.split(","):
                continue
            place = root / case.__name__
            place.mkdir()
            os.chdir(place)
            found = _forked(case())
            os.chdir(root)
            growth = max(0, found.peak - ordinary.peak)
            ran = (
                [str(path) for path in root.rglob("ran") if stat.S_ISREG(path.lstat().st_mode)]
                if case is not deep_folders
                else []
            )
            lines = [line for line in found.said.strip().splitlines() if line.strip()]
            faults = [
                word
                for word, wrong in (
                    ("traceback", "Traceback" in found.said),
                    ("ended by force", found.status < 0),
                    ("memory", growth > _GROWTH),
                    ("ran a program", bool(ran)),
                    ("wrote outside", bool(_outside(root, place))),
                )
                if wrong
            ]
            results[case.__name__] = {
                "what": (case.__doc__ or "").strip(),
                "status": found.status,
                "grew_mib": growth // 2**20,
                "seconds": round(found.seconds, 1),
                "faults": faults,
                "said": next(
                    (line for line in lines if line.startswith("unmask:")),
                    lines[-1] if lines else "",
                ),
            }
            print(
                f"{case.__name__}: {json.dumps(results[case.__name__], ensure_ascii=False)}",
                flush=True,
            )
            os.system(f"rm -rf '{place}'")
        if out:
            out.write_text(
                json.dumps({"command": " ".join(sys.argv), "cases": results}, indent=1) + "\n"
            )


if __name__ == "__main__":
    main()
