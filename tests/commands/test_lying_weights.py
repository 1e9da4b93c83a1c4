"""Weight files that say more of themselves than they hold: a sentence at once, before anything is built."""

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from commands.said import Unmask
from formats.models import weights_of, written
from runs import tiny
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from unmask.encoders import vit
from unmask.formats import torch_files

ABSURD = [10**8, 10**400, -1, 0, math.nan, "12", None, True]


def exported(layout: str) -> Path:
    """A folder with a tiny model's weights in a layout."""
    return written(weights_of(), Path(layout), layout).parent


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more blocks are built than the tiny model has."""
    built, counted = vit.Block.__init__, {"blocks": 0}

    def count(block: nn.Module, *arguments: Any, **named: Any) -> None:
        counted["blocks"] += 1
        assert counted["blocks"] < 50, "built before it was compared"
        built(block, *arguments, **named)

    monkeypatch.setattr(vit.Block, "__init__", count)


def changed(values: Any, path: str, value: object) -> Any:
    """A copy of nested JSON values with another value at a path such as "encoder.depth"."""
    copy = json.loads(json.dumps(values))
    *above, last = path.split(".")
    inner = copy
    for name in above:
        inner = inner[name]
    inner[last] = value
    return copy


def rewrite_note(file: Path, path: str, value: object) -> None:
    with safe_open(file, "pt") as opened:
        note = json.loads(opened.metadata()["unmask"])
    save_file(load_file(file), file, {"unmask": json.dumps(changed(note, path, value))})


@pytest.mark.parametrize("value", ABSURD, ids=lambda value: str(value)[:12])
@pytest.mark.parametrize(
    "path",
    [
        "encoder.depth",
        "objective.decoder.depth",
        "encoder.embed_dim",
        "encoder.num_heads",
        "channels",
    ],
)
def test_the_note_of_our_own_files(unmask: Unmask, path: str, value: object) -> None:
    file = exported("unmask") / "model.safetensors"
    rewrite_note(file, path, value)
    said = unmask("convert", file, "new", "--to", "unmask")
    assert said.status == 1
    assert str(file) in said.err
    assert len(said.err) < 600
    assert not Path("new").exists()


@pytest.mark.parametrize("depth", [900, 20_000])
@pytest.mark.parametrize("path", ["encoder.depth", "objective.decoder.depth"])
def test_depths_that_a_model_could_have(unmask: Unmask, path: str, depth: int) -> None:
    file = exported("unmask") / "model.safetensors"
    rewrite_note(file, path, depth)
    said = unmask("convert", file, "new", "--to", "unmask")
    words = (
        "depth is 900, and there are only" if depth == 900 else "depth must be at most 1,000, got"
    )
    assert words in said.err
    Path("picture.png").write_bytes(b"")  # the weights are read first
    said = unmask("reconstruct", file, "picture.png")
    assert words in said.err


@pytest.mark.parametrize("sides", [[10**9, 10**9], [65_536, 65_536], [-8, 8], [8, 10**400]])
def test_image_size(unmask: Unmask, sides: list[int]) -> None:
    file = exported("unmask") / "model.safetensors"
    rewrite_note(file, "image_size", sides)
    said = unmask("convert", file, "new", "--to", "unmask")
    assert said.status == 1
    assert str(file) in said.err


@pytest.mark.parametrize("value", ABSURD, ids=lambda value: str(value)[:12])
@pytest.mark.parametrize(
    ("layout", "file", "path"),
    [
        ("huggingface", "config.json", "num_attention_heads"),
        ("huggingface", "config.json", "decoder_num_attention_heads"),
        ("huggingface", "config.json", "image_size"),
        ("huggingface", "config.json", "mask_ratio"),
        ("huggingface", "preprocessor_config.json", "image_mean"),
        ("huggingface", "preprocessor_config.json", "image_std"),
        ("timm", "config.json", "model_args.num_heads"),
        ("timm", "config.json", "model_args.img_size"),
        ("timm", "config.json", "model_args"),
        ("timm", "config.json", "pretrained_cfg.mean"),
    ],
)
def test_configurations_of_other_libraries(
    unmask: Unmask,
    layout: str,
    file: str,
    path: str,
    value: object,
) -> None:
    """A value that means nothing is a sentence; one that is not given is guessed, with what else is needed."""
    folder = exported(layout)
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(changed(config, path, value)))
    said = unmask(
        "convert", folder, "new", "--to", "unmask", "--heads", "3", "--decoder-heads", "2"
    )
    meant = value is None or path == "model_args" or (path == "mask_ratio" and value == 0)
    if not meant:
        assert said.status == 1
        assert "must be" in said.err or "positions for" in said.err or "divide" in said.err
    assert len(said.err) < 600


@pytest.mark.parametrize("number", [10**9, int("9" * 30), 3])
@pytest.mark.parametrize("layout", ["fair", "timm", "huggingface"])
def test_numbers_of_blocks(unmask: Unmask, layout: str, number: int) -> None:
    folder = exported(layout)
    tensors = {
        name.replace("blocks.0.", f"blocks.{number}.", 1).replace(
            "layer.0.", f"layer.{number}.", 1
        ): t
        for name, t in tensors_of(folder).items()
    }
    first = tensors_of(folder) | tensors  # the first block, and one far away
    save_file({name: t.clone() for name, t in first.items()}, "lying.safetensors")
    said = unmask("convert", "lying.safetensors", "new", "--to", "unmask", "--heads", "3")
    assert said.status == 1
    assert "lying.safetensors has 3 blocks, and blocks.2 is missing" in said.err


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of an export."""
    (file,) = [f for f in folder.iterdir() if f.suffix in (".pth", ".safetensors")]
    return load_file(file) if file.suffix == ".safetensors" else torch.load(file)["model"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_one_value_stretched_to_terabytes(unmask: Unmask, dtype: torch.dtype) -> None:
    stretched = torch.zeros(1, dtype=dtype).expand(1_000_000, 1_000_000)
    torch.save({"model": {"patch_embed.proj.weight": stretched}}, "x.pth")
    said = unmask("convert", "x.pth", "new", "--to", "unmask")
    assert said.status == 1
    assert "bytes, but says that it holds" in said.err
    assert "GiB of values" in said.err


def test_one_tensor_under_many_names(unmask: Unmask) -> None:
    tensor = torch.zeros(1024, 1024)
    torch.save({"model": {f"blocks.{n}.attn.qkv.weight": tensor for n in range(1000)}}, "x.pth")
    said = unmask("convert", "x.pth", "new", "--to", "unmask")
    assert "bytes, but says that it holds 3.9 GiB of values" in said.err


def test_an_archive_that_unpacks_to_more(unmask: Unmask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_files, "_ROOM", 2**20)
    torch.save({"model": {"patch_embed.proj.weight": torch.zeros(30 * 2**20)}}, "x.pth")
    with zipfile.ZipFile("x.pth") as plain, zipfile.ZipFile("y.pth", "w", 8) as packed:
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member), compress_type=zipfile.ZIP_DEFLATED)
    said = unmask("convert", "y.pth", "new", "--to", "unmask")
    assert "bytes, but says that it holds 0.1 GiB of values" in said.err


def test_tensors_without_values(unmask: Unmask) -> None:
    torch.save(
        {"model": {"patch_embed.proj.weight": torch.zeros(10**6, 10**6, device="meta")}}, "x.pth"
    )
    said = unmask("convert", "x.pth", "new", "--to", "unmask")
    assert said.status == 1
    assert "x.pth has a tensor without plain values (patch_embed.proj.weight: " in said.err


@pytest.mark.parametrize("length", [2**63 - 1, 2**40, 200 * 2**20])
def test_headers_of_absurd_length(unmask: Unmask, length: int) -> None:
    Path("x.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}" * 100)
    said = unmask("convert", "x.safetensors", "new", "--to", "unmask")
    assert said.status == 1
    assert "x.safetensors is damaged, incompletely downloaded, or not a weight file" in said.err


def test_integers_for_weights(unmask: Unmask) -> None:
    file = exported("unmask") / "model.safetensors"
    with safe_open(file, "pt") as opened:
        notes = opened.metadata()
    save_file({name: t.long() for name, t in load_file(file).items()}, file, notes)
    said = unmask("convert", file, "new", "--to", "unmask")
    assert "has values of type int64" in said.err


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_nested_json(unmask: Unmask, name: str) -> None:
    folder = exported("huggingface")
    (folder / name).write_text("[" * 200_000)
    said = unmask("convert", folder, "new", "--to", "unmask")
    assert f"{name}, next to the weights, cannot be read" in said.err
    assert "nested too deeply" in said.err


def test_nested_note(unmask: Unmask) -> None:
    file = exported("unmask") / "model.safetensors"
    save_file(load_file(file), file, {"unmask": "[" * 200_000})
    said = unmask("convert", file, "new", "--to", "unmask")
    assert f"the model description in {file} cannot be read" in said.err


@pytest.mark.parametrize("depth", [900, 10**8])
@pytest.mark.parametrize("path", ["job.recipe.encoder.depth", "job.recipe.objective.decoder.depth"])
def test_the_spec_of_a_run(
    unmask: Unmask, images: Path, tmp_path: Path, path: str, depth: int
) -> None:
    folder = tiny.finished_run(tmp_path / "run", images)
    spec = json.loads(folder.spec.read_text())
    folder.spec.write_text(json.dumps(changed(spec, path, depth)))
    words = "depth is 900, and there are only" if depth == 900 else "depth must be at most 1,000"
    for command in (
        ["convert", folder.root, "new", "--to", "unmask"],
        ["reconstruct", folder.root, images],
    ):
        said = unmask(*command)
        assert said.status == 1
        assert words in said.err


def test_the_spec_of_a_run_that_goes_on(
    unmask: Unmask, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without weights to compare, the memory of the machine is the bound; with weights, they are."""
    folder = tiny.begin(tmp_path / "run", images)
    spec = json.loads(folder.spec.read_text())
    folder.spec.write_text(json.dumps(changed(spec, "job.recipe.encoder.embed_dim", 65_536)))
    said = unmask("pretrain", "--resume", folder.root)
    assert "the model of this run takes" in said.err
    assert "GiB are free" in said.err
    folder.spec.write_text(json.dumps(spec))
    tiny.one_step(folder)
    folder.spec.write_text(json.dumps(changed(spec, "job.recipe.encoder.embed_dim", 16)))
    said = unmask("pretrain", "--resume", folder.root)
    assert "does not hold the model that the run's spec.json describes" in said.err


@pytest.mark.parametrize("text", ["[" * 200_000, "\xff"], ids=["nested", "bytes"])
def test_a_damaged_list_of_a_checkpoint(
    unmask: Unmask, images: Path, tmp_path: Path, text: str
) -> None:
    """The checkpoint before it is taken."""
    folder = tiny.begin(tmp_path / "run", images)
    tiny.one_step(folder)
    tiny.one_step(folder)
    (tiny.newest(folder).folder / "info.json").write_text(text, encoding="latin-1")
    said = unmask("pretrain", "--resume", folder.root)
    assert said.status == 0
    assert "skipped a damaged checkpoint" in said.out
    assert "from step 1 of 6" in said.out


def test_a_checkpoint_that_names_files_elsewhere(
    unmask: Unmask, images: Path, tmp_path: Path
) -> None:
    folder = tiny.begin(tmp_path / "run", images)
    tiny.one_step(folder)
    file = tiny.newest(folder).folder / "info.json"
    content = json.loads(file.read_text())
    content["checksums"]["../../../secret"] = "0"
    file.write_text(json.dumps(content))
    said = unmask("reconstruct", folder.root, images)
    assert "names a file outside of the checkpoint" in said.err
