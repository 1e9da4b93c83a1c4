"""Who may import whom, and which package may appear where."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unmask

ROOT = Path(unmask.__file__).parent
BASE = {
    "spec",
    "errors",
    "geo",
    "asked",
    "device_names",
    "files",
    "locks",
    "tensors",
    "own_output",
    "contracts",
    "cutouts",
    "traits",
    "annotations",
    "masks",
    "measures",
    "channels",
    "clock",
    "progress",
    "bar",
    "attention",
    "patches",
    "randomness",
    "ranges",
}
PARTS = {"masking", "targets", "encoders", "data", "training", "pictures"}
METHODS = {"objectives", "tasks", "formats", "recipes"}
EVERYTHING = (
    BASE
    | PARTS
    | METHODS
    | {
        "runs",
        "evaluation",
        "vectors",
        "places",
        "text",
        "study",
        "report",
        "doctor",
        "console",
        "page",
    }
)

ALLOWED: dict[str, set[str]] = {
    **dict.fromkeys(BASE | PARTS, BASE),
    "objectives": BASE | {"masking", "targets", "encoders"},
    "tasks": BASE | {"encoders"},
    "formats": BASE | {"masking", "targets", "encoders", "objectives"},
    "recipes": BASE | PARTS | {"objectives", "tasks"},
    "runs": BASE | PARTS | {"objectives", "tasks", "formats", "recipes"},
    "evaluation": BASE | PARTS | METHODS | {"runs"},
    "vectors": BASE | PARTS | METHODS | {"runs", "evaluation"},
    "places": BASE | PARTS | METHODS | {"runs", "evaluation", "vectors"},
    "text": BASE | PARTS | METHODS,
    "study": BASE | PARTS | METHODS | {"runs", "evaluation"},
    "report": BASE | PARTS | METHODS | {"runs"},
    "doctor": BASE | PARTS | METHODS | {"runs"},
    "page": BASE | PARTS | METHODS | {"runs", "evaluation", "vectors"},
    "console": EVERYTHING - {"text", "page", "doctor"},
    "commands": EVERYTHING,
}
"""What a layer may import beside itself."""

FENCED = {
    "tyro": {"commands/*.py", "console/*.py"},
    "rich": {"commands/*.py", "console/*.py", "bar.py"},
    "cattrs": {"spec.py"},
    "yaml": {"data/yolo_files.py"},
    "timm": {
        "data/views.py",
        "data/mixing.py",  # mixup, cutmix and erasing act on batches, views on single images
        "encoders/layers.py",
        "formats/timm.py",
    },
    "torchcodec": {"data/decode.py"},
    "matplotlib": {"pictures/*.py"},
    "transformers": {"*/huggingface.py"},
    "huggingface_hub": {"formats/hub.py"},
    "datasets": {"*/huggingface.py"},
    "onnx": {"formats/onnx.py"},
    "onnxruntime": {"formats/onnx.py"},
    "onnxscript": {"formats/onnx.py"},
    "faster_coco_eval": {"tasks/average_precision.py"},
    "jinja2": {"report/page.py"},
    "faiss": {"evaluation/patch_index.py"},
    "pyproj": {"geo/crs.py"},
    "pmtiles": {"data/web_tile_files.py"},
    "mlflow": {"report/sinks.py"},
    "trackio": {"report/sinks.py"},
    "wandb": {"report/sinks.py"},
}
"""Packages and the only files that may import them."""

VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "base", "core"}

FILES = sorted(ROOT.rglob("*.py"))


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def layer_of(file: Path) -> str:
    """The folder of a file, or the name of a file that lies at the top."""
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere below a node, in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            assert node.module is not None
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_layers(file: Path) -> None:
    layer = layer_of(file)
    if layer in ("__init__", "__main__", "cli"):
        return  # they have a test of their own
    assert layer in ALLOWED, f"{name_of(file)} belongs to no layer"
    used = {name.split(".")[1] for name in imports(parsed(file)) if name.startswith("unmask.")}
    odd = used - ALLOWED[layer] - {layer} - ({"__version__"} if layer == "runs" else set())
    assert not odd, f"{name_of(file)} is of the layer {layer!r} and imports {sorted(odd)}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_fenced_packages(file: Path) -> None:
    for name in imports(parsed(file)):
        package = name.partition(".")[0]
        places = FENCED.get(package, {"**/*.py"})
        relative = file.relative_to(ROOT)
        assert package not in FENCED or any(relative.match(place) for place in places), (
            f"{name_of(file)} imports {package}, which belongs in {sorted(places)}"
        )


@pytest.mark.parametrize("name", ["spec", "errors"])
def test_the_first_two_files_need_no_torch(name: str) -> None:
    packages = {module.partition(".")[0] for module in imports(parsed(ROOT / f"{name}.py"))}
    assert packages <= {*sys.stdlib_module_names, "unmask", "cattrs"}


@pytest.mark.parametrize("name", ["__init__", "__main__", "cli"])
def test_the_door_imports_only_the_standard_library(name: str) -> None:
    """At the top; what functions import when they are called is another matter."""
    tree = parsed(ROOT / f"{name}.py")
    at_top = ast.Module([node for node in tree.body if not isinstance(node, ast.FunctionDef)], [])
    at_top.body = [node for node in at_top.body if not isinstance(node, ast.If)]
    for module in imports(at_top):
        ours = module == "unmask.cli.main"
        assert module.partition(".")[0] in sys.stdlib_module_names or ours, module


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_names_say_what_is_inside(file: Path) -> None:
    assert not {part.removesuffix(".py") for part in file.relative_to(ROOT).parts} & VAGUE_NAMES
    assert len(file.relative_to(ROOT).parts) <= 2, "no third level"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_nothing_happens_at_import(file: Path) -> None:
    """No seed, thread count, environment or output at the top of a file."""
    for node in parsed(file).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If):
            continue
        called = {ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
        forbidden = {"print", "os.getenv", "torch.manual_seed", "torch.set_num_threads"}
        assert not called & forbidden
        assert "os.environ" not in ast.unparse(node)
