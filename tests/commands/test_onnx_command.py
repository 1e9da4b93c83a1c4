"""`unmask convert --to onnx`: what it writes, and that onnxruntime computes the same as unmask from it."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from commands.said import Unmask
from runs import tiny_dense, tiny_transfer

import unmask as package
from unmask.channels import ChannelStatistics
from unmask.commands import convert
from unmask.contracts import Size
from unmask.encoders.vit import ViT
from unmask.errors import DataError
from unmask.formats.onnx import open_onnx, write_onnx
from unmask.formats.onnx_graphs import (
    Encoding,
    Graph,
    Rebuilding,
    Run,
    Segmenting,
    larger,
    largest_difference,
    smaller,
)
from unmask.masks import PatchMask
from unmask.page import site
from unmask.runs import onnx_export
from unmask.runs.folder import RunFolder
from unmask.runs.reconstruct import rebuild


@pytest.fixture(scope="module")
def exported(trained: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "files"
    made = package.convert(trained.root, folder, to="onnx", license="mit")
    assert made.exact
    assert made.file == folder / "encoder.onnx"
    assert made.check is not None
    assert 0 < made.check.difference < 1e-4
    return folder


@pytest.mark.slow
def test_the_encoder_gives_what_embed_gives(
    exported: Path, trained: RunFolder, images: Path
) -> None:
    model = package.load(trained.root)
    files = sorted(images.iterdir())[:5]
    pixels = torch.stack([model.transform(file) for file in files])
    session = onnxruntime.InferenceSession(exported / "encoder.onnx")
    cls, mean, patches = session.run(None, {"images": (pixels / 255).numpy()})
    ours = model.embed(files)
    for theirs, wanted in ((cls, ours.cls), (mean, ours.mean), (patches, ours.patches)):
        np.testing.assert_allclose(theirs, wanted.numpy(), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [1, 3, 15])  # also fewer than the eight neighbours of levels
def test_any_mask_rebuilds_as_reconstruct_does(
    exported: Path, trained: RunFolder, images: Path, kept: int
) -> None:
    model = package.load(trained.root)
    image = model.fit(sorted(images.iterdir())[0])
    order = torch.randperm(16, generator=torch.Generator().manual_seed(kept))[None]
    mask = PatchMask.in_order(torch.zeros(1, dtype=torch.long), order, kept)
    with torch.no_grad():
        wanted, _, _ = rebuild(model.objective, image, mask, "neighbors")
    session = onnxruntime.InferenceSession(exported / "reconstruction.onnx")
    inputs = {"images": (image[None] / 255).numpy()}
    inputs |= {"kept_index": mask.kept_index.numpy(), "removed_index": mask.removed_index.numpy()}
    rebuilt, prediction = session.run(None, inputs)
    np.testing.assert_allclose(rebuilt[0].clip(0, 1), wanted.numpy(), atol=1 / 255)
    assert prediction.shape == (1, 16, 12)


@pytest.mark.slow
def test_hidden_pixels_do_not_matter(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported / "reconstruction.onnx")
    images = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    kept, removed = np.arange(4)[None], np.arange(4, 16)[None]
    before, _ = session.run(None, {"images": images, "kept_index": kept, "removed_index": removed})
    images[:, :, 2:] = 0.3  # the first row of patches is kept
    after, _ = session.run(None, {"images": images, "kept_index": kept, "removed_index": removed})
    assert np.array_equal(before, after)


@pytest.mark.slow
def test_a_file_describes_itself(exported: Path, trained: RunFolder, tmp_path: Path) -> None:
    spec = package.load(trained.root).spec
    for file in exported.glob("*.onnx"):
        model = onnx.load(file)
        onnx.checker.check_model(model)
        assert {entry.version for entry in model.opset_import if entry.domain == ""} == {20}
        metadata = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
        described = json.loads(metadata["unmask"])
        assert described["graph"] == file.stem
        assert (described["height"], described["width"], described["patch_size"]) == (8, 8, 2)
        assert described["mean"] == list(spec.statistics.mean)
        assert json.loads(metadata["std"]) == list(spec.statistics.std)
        assert len(described["weights_hash"]) == 64
        free = [
            [one.dim_param != "" for one in dims.type.tensor_type.shape.dim]
            for dims in model.graph.input
        ]
        assert free[0] == [True, False, True, True]
        assert str(tmp_path.parents[1]).encode() not in file.read_bytes()
        assert b"site-packages" not in file.read_bytes()
    card = (exported / "README.md").read_text()
    assert "license: mit" in card
    assert "2 epochs" in card
    code = card.split("```python\n")[1].split("```")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(exported)
        exec(compile(code, "card", "exec"), {})


@pytest.mark.slow
def test_half_of_the_bytes(
    unmask: Unmask, trained: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: set[tuple[str, int, int, int]] = set()

    def recorded(path: Path) -> Run:
        run = open_onnx(path)

        def run_recorded(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            batch, _, height, width = inputs["images"].shape
            compared.add((path.stem, batch, height, width))
            return run(inputs)

        return run_recorded

    monkeypatch.setattr(onnx_export, "open_onnx", recorded)
    said = unmask("convert", trained.root, "half", "--to", "onnx", "--dtype", "float16")
    assert said.status == 0, said.err
    lines = re.findall(
        r"exported (\w+)\.onnx: .*? checked largest difference to onnxruntime [\d.]+: \d\.\de-\d\d "
        r"\(batches of 1, 3 and 7, 8 x 8 and 10 x 12 and 6 x 4 pixels\)",
        said.out,
    )
    assert lines == ["encoder", "reconstruction"]
    sizes = ((8, 8), (10, 12), (6, 4))
    assert compared == {(name, n, *size) for name in lines for n in (1, 3, 7) for size in sizes}
    model = onnx.load("half/reconstruction.onnx")
    types = {tensor.data_type for tensor in model.graph.initializer if np.prod(tensor.dims) >= 256}
    assert types <= {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    assert {one.type.tensor_type.elem_type for one in model.graph.output} == {
        onnx.TensorProto.FLOAT
    }


@pytest.mark.slow
def test_a_classifier(unmask: Unmask, classes: Path, tmp_path: Path) -> None:
    folder = tiny_transfer.begin(tmp_path / "tuned", classes)
    tiny_transfer.go_on(folder)
    said = unmask("convert", folder.root, "files", "--to", "onnx")
    assert said.status == 0, said.err
    assert "exported classifier.onnx: scores, probabilities" in said.out
    model = package.load(folder.root)
    file = sorted((classes / "dogs").iterdir())[0]
    session = onnxruntime.InferenceSession("files/classifier.onnx")
    _, probabilities = session.run(None, {"images": (model.transform(file)[None] / 255).numpy()})
    names = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    (guess,) = model.predict(file)
    assert dict(zip(names, probabilities[0], strict=True)) == pytest.approx(
        guess.probabilities, abs=1e-5
    )


@pytest.mark.slow
def test_a_file_names_the_weights_that_vectors_name(
    unmask: Unmask, exported: Path, trained: RunFolder, images: Path
) -> None:
    said = unmask("embed", trained.root, images, "--out", "vectors")
    assert said.status == 0, said.err
    manifest = json.loads(Path("vectors/_manifest.json").read_text())
    metadata = onnxruntime.InferenceSession(exported / "encoder.onnx").get_modelmeta()
    assert metadata.custom_metadata_map["weights_hash"] == manifest["encoding"]["weights"]


@pytest.fixture
def _wrong_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exported files compute something else."""
    graphs: dict[Path, Graph] = {}

    def write(graph: Graph, path: Path, stored: str) -> None:
        path.write_text("a graph")
        graphs[path.parent] = graph

    def opened(path: Path) -> Run:
        module = graphs[path.parent].module
        return lambda inputs: [
            one.numpy() + 0.5 for one in module(*map(torch.from_numpy, inputs.values()))
        ]

    for user in (onnx_export, site):
        monkeypatch.setattr(user, "write_onnx", write)
        monkeypatch.setattr(user, "open_onnx", opened)


@pytest.mark.usefixtures("_wrong_files")
def test_wrong_files_are_not_pushed(
    unmask: Unmask, trained: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: list[Path] = []
    monkeypatch.setattr(convert, "push", lambda folder, repo: pushed.append(folder))
    said = unmask("convert", trained.root, "files", "--to", "onnx", "--push", "me/mine")
    assert said.status == 1
    for name in ("encoder", "reconstruction"):
        assert f"warning: that is more than rounding: do not use {name}.onnx" in said.out
    assert pushed == []
    assert "pushed" not in said.all


@pytest.mark.usefixtures("_wrong_files")
def test_a_page_with_wrong_files_says_so(unmask: Unmask, trained: RunFolder, packed: Path) -> None:
    said = unmask("page", trained.root, "--runtime", packed, "--samples", "0")
    assert said.status == 1
    assert "warning: that is more than rounding: do not trust this page" in said.out


def test_a_missing_package_is_said_before_any_work(
    unmask: Unmask, trained: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    said = unmask("convert", trained.root, "files", "--to", "onnx")
    assert "read" not in said.out
    assert said.status == 1
    assert said.err == (
        'unmask: --to onnx needs the package onnxscript; install it with `pip install "unmask[onnx]"` (in a clone: `pip install ".[onnx]"`)'
    )


def test_wrong_words(unmask: Unmask, trained: RunFolder, tmp_path: Path) -> None:
    said = unmask("convert", trained.root, "model.onnx", "--to", "onnx")
    assert "--to onnx writes a folder of files; give one, such as model" in said.err
    said = unmask("convert", trained.root, "files", "--to", "onnx", "--pool", "mean")
    assert "encoder.onnx gives both, cls and mean; leave it out" in said.err
    said = unmask("convert", trained.root, "files", "--to", "timm", "--dtype", "float16")
    assert "--dtype is for --to onnx, and --to timm stores float32; leave it out" in said.err
    said = unmask("convert", trained.root, trained.root, "--to", "onnx")
    assert "exists and is not empty; give another folder" in said.err
    assert not Path("files").exists()


def test_more_than_a_file_holds(
    unmask: Unmask, trained: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmask.formats.onnx._MOST_BYTES", 4_000)
    said = unmask("convert", trained.root, "files", "--to", "onnx")
    assert said.status == 1
    assert re.search(
        r"encoder.onnx would take 0.0 GiB, and an ONNX file holds 2; use --dtype float16", said.err
    )
    assert not Path("files").exists()


def test_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "half.onnx").write_bytes(b"\x08\x0a\x12")
    with pytest.raises(DataError, match=r"half\.onnx is not a complete ONNX file"):
        open_onnx(tmp_path / "half.onnx")


def test_a_file_that_computes_something_else_is_found(trained: RunFolder) -> None:
    """The proof fails for a file with other weights, and for one that gives NaN."""
    model = package.load(trained.root)
    graph = Graph(
        "reconstruction",
        Rebuilding(model.objective),
        Rebuilding.outputs,
        Size(8, 8),
        2,
        model.spec.statistics,
        {},
    )

    def right(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            return [one.numpy() for one in graph.module(*map(torch.from_numpy, inputs.values()))]

    assert largest_difference(graph, right, (1, 3)).difference == 0
    worst = largest_difference(graph, lambda inputs: [one + 0.5 for one in right(inputs)], (1,))
    assert worst.output == "rebuilt"
    deviations = [0.5 / std for std in model.spec.statistics.std]
    assert any(worst.difference == pytest.approx(one, rel=1e-4) for one in deviations)
    worst = largest_difference(graph, lambda inputs: [one * np.nan for one in right(inputs)], (1,))
    assert worst.difference > 1e9


class _Bands(torch.nn.Module):
    """Gives back what it gets, without what is missing, and a second output of values near 1."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        known = images.nan_to_num(0.0)
        return known, known[:, :1] * 1e-13


def test_a_wrong_band_does_not_hide_behind_a_large_one() -> None:
    """One band has values of 1e13, another of 1e-3; each output is judged alone too."""
    statistics = ChannelStatistics(
        mean=(1e13, 0.0),
        std=(1e12, 1e-3),
        low=(0.0, 0.0),
        high=(1.0, 1.0),
        values="float32",
        source="a test",
    )
    graph = Graph("bands", _Bands(), ("rebuilt", "other"), Size(6, 4), 2, statistics, {})

    def run(inputs: dict[str, np.ndarray], channel: int, off: float) -> list[np.ndarray]:
        assert np.isnan(inputs["images"]).any()
        known = np.nan_to_num(inputs["images"], nan=0.0)
        known[:, channel] += off
        return [known, np.zeros_like(known[:, :1])]

    assert largest_difference(graph, lambda inputs: run(inputs, 1, 1e-3), (1,)).relative > 0.1
    assert largest_difference(graph, lambda inputs: run(inputs, 0, 1e12), (1,)).relative > 0.05
    worst = largest_difference(graph, lambda inputs: run(inputs, 1, 1e-9), (1,))
    assert worst.relative > 0.5  # zeros where values of about 1 belong
    assert worst.output == "other"


@pytest.mark.parametrize("size", [(8, 8), (6, 4), (4, 6), (4, 4), (224, 208)])
def test_sides_of_traced_sizes_differ(size: tuple[int, int]) -> None:
    statistics = ChannelStatistics(mean=(0.0,), std=(1.0,), low=(0.0,), high=(1.0,), source="")
    patch = 16 if size[0] > 100 else 2
    graph = Graph("x", torch.nn.Identity(), ("y",), Size(*size), patch, statistics, {})
    assert larger(graph).height != larger(graph).width
    assert min(larger(graph)) > min(size)
    assert all(2 * patch <= new <= old for new, old in zip(smaller(graph), size, strict=True))


@pytest.mark.slow
def test_half_precision_keeps_the_normalisation(tmp_path: Path) -> None:
    """Patches of 16 pixels, and statistics far from 0, which half precision would round by 0.05 of a deviation."""
    statistics = ChannelStatistics(
        mean=(1000.3,) * 3,
        std=(10.07,) * 3,
        low=(0.0,) * 3,
        high=(1.0,) * 3,
        values="float32",
        source="a test",
    )
    spec = ViT(embed_dim=16, depth=1, num_heads=2, patch_size=16)
    encoder = spec.build(Size(32, 32), 3, statistics.tensors()).eval()
    graph = Graph("e", Encoding(encoder), Encoding.outputs, Size(32, 32), 16, statistics, {})
    write_onnx(graph, tmp_path / "e.onnx", "float16")
    model = onnx.load(tmp_path / "e.onnx")
    assert any(one.data_type == onnx.TensorProto.FLOAT16 for one in model.graph.initializer)
    worst = largest_difference(graph, open_onnx(tmp_path / "e.onnx"), (1,))
    assert worst.relative < 5e-3


@pytest.mark.slow
def test_a_segmenter_takes_windows(tmp_path: Path) -> None:
    module = tiny_dense.build().eval()
    encoder = module.encoder
    channels = encoder.channels
    statistics = ChannelStatistics(
        mean=(0.4,) * channels,
        std=(0.2,) * channels,
        low=(0.0,) * channels,
        high=(1.0,) * channels,
        source="a test",
    )
    graph = Graph(
        "segmenter",
        Segmenting(module),
        Segmenting.outputs,
        module.window,
        encoder.patch_size,
        statistics,
        {"classes": ["0", "1"]},
        any_size=False,
    )
    write_onnx(graph, tmp_path / "segmenter.onnx", "float32")
    worst = largest_difference(graph, open_onnx(tmp_path / "segmenter.onnx"), (1, 3))
    assert worst.relative < 1e-4
    assert worst.largest > 0
