"""Write ONNX files that describe themselves, and run them with onnxruntime."""

import json
import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import jaxtyping
import numpy as np
import torch

from unmask.errors import DataError, ResourceError, SettingsError, first_line, with_extra
from unmask.formats.onnx_graphs import Graph, Run, larger

OPSET = 20
"""The newest that the browsers' onnxruntime and the last releases of onnxruntime both run."""

KEY = "unmask"
"""Of the description, as JSON, in a file's metadata."""

StoredWeights = Literal["float32", "float16"]
"""Type of the matrices in a file; vectors and computing are in float32."""

_TRACED_BATCH = 2
_MOST_BYTES = 2**31 - 2**24  # of weights; the rest is for the graph itself
_LEAST_HALVED = 256  # values; smaller tensors, such as norms, save nothing


def check_packages(command: str) -> None:
    """Raises ResourceError unless the packages of the extra are installed; for a command, before it does any work."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            import_module(name)
        except ImportError:
            raise ResourceError(
                f"{command} needs the package {name}; install it with {with_extra('onnx')}"
            ) from None


def write_onnx(graph: Graph, path: Path, stored: StoredWeights) -> None:
    """Write a graph to a file, for any batch, any number of hidden patches, and any size where the graph takes any.

    Raises:
        SettingsError: if it is too large for one file.
    """
    _check_bytes(graph, stored)
    model = _traced(graph)
    if stored == "float16":
        _halve(model)
    facts = description(graph, stored)
    for key, value in {KEY: facts, **facts}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    path.write_bytes(model.SerializeToString())


def description(graph: Graph, stored: StoredWeights) -> dict[str, Any]:
    """What a file says of itself: how to prepare images, and where the weights come from."""
    statistics = graph.statistics
    return {
        "graph": graph.name,
        "images": "float32 [batch, channels, height, width], "
        + (
            "from 0 to 1"
            if statistics.values == "uint8"
            else "in the units of the data, NaN where missing"
        )
        + "; normalised inside",
        "height": graph.size.height,
        "width": graph.size.width,
        "any_size": graph.any_size,
        "patch_size": graph.patch_size,
        "channels": len(statistics.mean),
        "values": statistics.values,
        "mean": list(statistics.mean),
        "std": list(statistics.std),
        "low": list(statistics.low),
        "high": list(statistics.high),
        "weights": stored,
        **graph.facts,
    }


def open_onnx(path: Path, threads: int = 1) -> Run:
    """What runs a file with onnxruntime on the CPU.

    Raises:
        DataError: if it is damaged.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common base
        raise DataError(f"{path} is not a complete ONNX file ({first_line(error)})") from None
    return lambda inputs: list(session.run(None, inputs))


def runtime_name() -> str:
    """The library that checks files, and its version."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def _traced(graph: Graph) -> Any:
    """The graph as an ONNX model."""
    # equal sides would be taken for one
    inputs = graph.example(_TRACED_BATCH, larger(graph) if graph.any_size else graph.size)
    with _tracing():
        program = torch.export.export(
            graph.module.eval(),
            inputs,
            dynamic_shapes=_dynamic(graph),
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            verbose=False,
        )
    assert made is not None
    model = made.model_proto
    for node in model.graph.node:  # names of the exporting machine's source files
        del node.metadata_props[:]
        node.doc_string = ""
    return model


def _check_bytes(graph: Graph, stored: StoredWeights) -> None:
    """ONNX files are Protocol Buffers, which hold 2 GiB; ViT-H takes more in float32."""
    values = sum(tensor.numel() for tensor in graph.module.state_dict().values())
    taken = values * (2 if stored == "float16" else 4)
    if taken > _MOST_BYTES:
        remedy = (
            "use --dtype float16"
            if taken <= 2 * _MOST_BYTES and stored == "float32"
            else "use a smaller model"
        )
        raise SettingsError(
            f"{graph.name}.onnx would take {taken / 2**30:.1f} GiB, and an ONNX file holds 2; {remedy}"
        )


def _dynamic(graph: Graph) -> tuple[Any, ...]:
    """Which sizes of the inputs are free."""
    free = torch.export.Dim.DYNAMIC
    images: dict[int, Any] = {0: free}
    if graph.any_size:
        rows, columns = torch.export.Dim("rows", max=4096), torch.export.Dim("columns", max=4096)
        images |= {2: graph.patch_size * rows, 3: graph.patch_size * columns}
    mask = {0: free, 1: free}
    return (images, mask, mask) if graph.rebuilds else (images,)


@contextmanager
def _tracing() -> Generator[None]:
    """Without the exporter's notes, and without checks of shapes, which are symbols there."""
    log = logging.getLogger("torch.onnx")
    before = log.level, jaxtyping.config.jaxtyping_disable
    log.setLevel(logging.ERROR)
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before[0])
        jaxtyping.config.update("jaxtyping_disable", before[1])


def _halve(model: Any) -> None:
    """Store weights in half precision; a cast in front of their first use makes them float32 again."""
    import onnx
    from onnx import helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        # vectors are also the constants of the normalisation, whose errors would add up over all pixels
        if values.squeeze().ndim < 2:
            continue
        if values.size < _LEAST_HALVED or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        whole, half = tensor.name, f"{tensor.name}.half"
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [whole], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
