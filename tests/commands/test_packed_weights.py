"""Tensors by any usual packing: several files with an index, entries of a training script, words before the names."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands.said import Unmask
from runs import tiny
from safetensors.torch import load_file, save_file
from torch import Tensor

import unmask as package
from unmask.runs.folder import RunFolder

HEADS = ("--heads", "2", "--decoder-heads", "2")
Tensors = dict[str, Tensor]


@pytest.fixture
def plain(unmask: Unmask, trained: RunFolder) -> Tensors:
    """The run's encoder with timm's names."""
    assert unmask("convert", trained.root, "plain", "--to", "timm").status == 0
    return load_file("plain/model.safetensors")


@pytest.fixture
def same(trained: RunFolder, images: Path) -> Callable[[str | Path], None]:
    """Check that converted weights give the run's features."""

    def check(path: str | Path) -> None:
        file = sorted(images.iterdir())[0]
        ours, theirs = package.load(trained.root).embed([file]), package.load(path).embed([file])
        torch.testing.assert_close(ours.patches, theirs.patches, rtol=1e-4, atol=1e-5)

    return check


def sharded(folder: Path, tensors: Tensors, ending: str = "safetensors") -> Path:
    """The tensors divided over two files with an index."""
    folder.mkdir(exist_ok=True)
    (folder / f"model.{ending}").unlink(missing_ok=True)
    names, places = sorted(tensors), {}
    for number, part in ((1, names[::2]), (2, names[1::2])):
        file = folder / f"model-{number:05}-of-00002.{ending}"
        content = {name: tensors[name].contiguous() for name in part}
        save_file(content, file) if ending == "safetensors" else torch.save(content, file)
        places |= dict.fromkeys(part, file.name)
    index = folder / f"model.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


@pytest.mark.parametrize("layout", ["huggingface", "timm", "unmask"])
def test_several_files(
    unmask: Unmask, trained: RunFolder, same: Callable[[str], None], layout: str
) -> None:
    unmask("convert", trained.root, "one", "--to", layout)
    tensors = load_file("one/model.safetensors")
    index = sharded(Path("one"), tensors)
    if layout == "unmask":
        said = unmask("convert", "one", "two", "--to", "unmask")
        assert "the metadata that describe the model are gone" in said.err
        return
    for number, source in enumerate((index, index.parent)):
        said = unmask("convert", source, f"two{number}", "--to", "unmask", *HEADS)
        assert said.status == 0, said.err
        same(f"two{number}")


def test_several_torch_files(unmask: Unmask, plain: Tensors, same: Callable[[str], None]) -> None:
    sharded(Path("torch"), plain, "bin").rename("torch/pytorch_model.bin.index.json")
    said = unmask("convert", "torch", "two", "--to", "unmask", *HEADS)
    assert said.status == 0, said.err
    same("two")


def test_one_of_several(unmask: Unmask, plain: Tensors) -> None:
    index = sharded(Path("many"), plain)
    shard = "many/model-00001-of-00002.safetensors"
    said = unmask("convert", shard, "new", "--to", "unmask")
    assert (
        f"{shard} is one of 2 files that together hold the weights; give their index, {index}"
        in said.err
    )
    index.unlink()
    for source in (shard, "many"):
        said = unmask("convert", source, "new", "--to", "unmask")
        assert f"{shard} is one of 2 files that together hold the weights" in said.err
        assert "add model.safetensors.index.json and the other files" in said.err


def test_a_missing_file(unmask: Unmask, plain: Tensors) -> None:
    index = sharded(Path("many"), plain)
    Path("many/model-00002-of-00002.safetensors").unlink()
    said = unmask("convert", index, "new", "--to", "unmask")
    assert f"{index} names 2 files, and model-00002-of-00002.safetensors is missing" in said.err


@pytest.mark.parametrize(
    "place",
    ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", 3, None, ["x"]],
)
def test_an_index_that_names_files_elsewhere(unmask: Unmask, plain: Tensors, place: object) -> None:
    index = sharded(Path("many"), plain)
    save_file(plain, "outside.safetensors")
    content = json.loads(index.read_text())
    content["weight_map"]["cls_token"] = place
    index.write_text(json.dumps(content))
    said = unmask("convert", "many", "new", "--to", "unmask", *HEADS)
    assert said.status == 1
    assert "which is not the name of a file in its folder; nothing else is read" in said.err


def test_tensors_in_another_place(unmask: Unmask, plain: Tensors) -> None:
    index = sharded(Path("many"), plain)
    content = json.loads(index.read_text())
    places = content["weight_map"]
    here = places["cls_token"]
    places["cls_token"] = next(place for place in places.values() if place != here)
    index.write_text(json.dumps(content))
    said = unmask("convert", "many", "new", "--to", "unmask", *HEADS)
    assert "does not hold what" in said.err
    assert "cls_token" in said.err


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 10**5]
)
def test_an_index_that_is_none(unmask: Unmask, plain: Tensors, text: str) -> None:
    index = sharded(Path("many"), plain)
    index.write_text(text)
    said = unmask("convert", "many", "new", "--to", "unmask")
    assert said.status == 1
    assert "many/model.safetensors.index.json is not" in said.err


@pytest.mark.parametrize(
    ("layout", "word"),
    [
        *(("timm", f"{word}.") for word in ("module", "model", "backbone", "encoder", "student")),
        *(("timm", f"{word}.") for word in ("teacher", "_orig_mod", "module.model")),
        *(("timm", f"{word}.") for word in ("teacher.backbone", "module.base_encoder")),
        *(("huggingface", f"{word}.") for word in ("module", "encoder", "_orig_mod.module")),
    ],
)
def test_words_before_the_names(
    unmask: Unmask, trained: RunFolder, same: Callable[[str], None], layout: str, word: str
) -> None:
    unmask("convert", trained.root, "one", "--to", layout)
    tensors = load_file("one/model.safetensors")
    torch.save({"state_dict": {f"{word}{name}": t for name, t in tensors.items()}}, "one.pth")
    said = unmask("convert", "one.pth", "two", "--to", "unmask", *HEADS)
    assert said.status == 0, said.err
    assert ("encoder and decoder" in said.out) == (layout == "huggingface")
    same("two")


def test_words_before_our_own_names(unmask: Unmask, trained: RunFolder) -> None:
    """And the published ones, with the decoder."""
    unmask("convert", trained.root, "one.pth", "--to", "fair")
    content = torch.load("one.pth")
    content["model"] = {f"module.{name}": t for name, t in content["model"].items()}
    torch.save(content, "two.pth")
    said = unmask("convert", "two.pth", "two", "--to", "unmask")
    assert said.status == 0, said.err
    assert "read two.pth: encoder and decoder" in said.out
    tiny.assert_same_tensors(
        load_file("two/model.safetensors"),
        load_file(tiny.newest(trained).folder / "model.safetensors"),
    )


def test_compiled_blocks(unmask: Unmask, plain: Tensors, same: Callable[[str], None]) -> None:
    tensors = {name.replace(".attn.", "._orig_mod.attn."): t for name, t in plain.items()}
    save_file(tensors, "one.safetensors")
    assert unmask("convert", "one.safetensors", "two", "--to", "unmask", *HEADS).status == 0
    same("two")


def test_an_average_beside_the_model(
    unmask: Unmask, plain: Tensors, images: Path, same: Callable[[str], None]
) -> None:
    average = {name: tensor + 1 for name, tensor in plain.items()}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}
    torch.save({"model": plain, "model_ema": average, "optimizer": optimizer, "epoch": 3}, "x.pth")
    said = unmask("convert", "x.pth", "a", "--to", "unmask", *HEADS)
    assert (
        "of the entries model, model_ema, model is read; x.pth:model_ema reads another" in said.out
    )
    same("a")
    said = unmask("convert", "x.pth:model_ema", "b", "--to", "unmask", *HEADS)
    assert said.status == 0, said.err
    assert load_file("b/model.safetensors")["encoder.cls_token"].equal(average["cls_token"])
    said = unmask("convert", "x.pth:teacher", "c", "--to", "unmask", *HEADS)
    assert said.err == "unmask: x.pth has no part 'teacher'; it has model, model_ema"


def test_student_and_teacher(unmask: Unmask, plain: Tensors, same: Callable[[str], None]) -> None:
    """As DINO's authors save them, with heads, in entries and in one entry."""
    other = {name: tensor + 1 for name, tensor in plain.items()}
    teacher = {f"backbone.{name}": t for name, t in plain.items()}
    student = {f"module.backbone.{name}": t for name, t in other.items()}
    teacher["head.mlp.0.weight"] = student["module.head.mlp.0.weight"] = torch.zeros(3, 3)
    torch.save({"student": student, "teacher": teacher, "epoch": 2}, "x.pth")
    said = unmask("convert", "x.pth", "a", "--to", "unmask", *HEADS)
    assert (
        "of the entries student, teacher, teacher is read; x.pth:student reads another" in said.out
    )
    assert "left out, because the names do not begin with backbone.: head.mlp.0.weight" in said.out
    same("a")
    said = unmask("convert", "x.pth:student", "b", "--to", "unmask", *HEADS)
    assert load_file("b/model.safetensors")["encoder.cls_token"].equal(other["cls_token"])

    both = {f"teacher.{name}": t for name, t in teacher.items()}
    both |= {f"student.{name}": t for name, t in student.items()}
    save_file({name: t.clone() for name, t in both.items()}, "y.safetensors")
    said = unmask("convert", "y.safetensors", "c", "--to", "unmask", *HEADS)
    assert "teacher.backbone. is read; y.safetensors:student reads another" in said.out
    same("c")
    unmask("convert", "y.safetensors:student", "d", "--to", "unmask", *HEADS)
    assert load_file("d/model.safetensors")["encoder.cls_token"].equal(other["cls_token"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(unmask: Unmask, plain: Tensors, dtype: torch.dtype) -> None:
    """Also where training starts from them."""
    save_file({name: t.to(dtype) for name, t in plain.items()}, "half.safetensors")
    said = unmask("convert", "half.safetensors", "a", "--to", "unmask", *HEADS)
    name = str(dtype).removeprefix("torch.")
    assert f"the weights are {name} in the file, and are read into float32" in said.out
    tensors = load_file("a/model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert tensors["encoder.cls_token"].equal(plain["cls_token"].to(dtype).float())


def test_training_starts_from_them(
    unmask: Unmask, trained: RunFolder, images: Path, recipe: list[str]
) -> None:
    unmask("convert", trained.root, "one", "--to", "huggingface")
    index = sharded(Path("one"), load_file("one/model.safetensors"))
    said = unmask("pretrain", images, *recipe, "--init", index, "--out", "run")
    assert said.status == 0, said.err
    tensors = {
        f"module.{n}": t.half()
        for n, t in load_file("one/model-00001-of-00002.safetensors").items()
    }
    tensors |= {
        f"module.{n}": t for n, t in load_file("one/model-00002-of-00002.safetensors").items()
    }
    torch.save({"model": tensors, "model_ema": tensors}, "one/x.pth")
    said = unmask("pretrain", images, *recipe, "--init", "one/x.pth:model_ema", "--out", "run2")
    assert said.status == 0, said.err
    assert "the weights are float16 in the file, and are read into float32" in said.out
