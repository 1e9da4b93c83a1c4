"""Export a run or weights as ONNX files: the encoder, and what else it holds that runs elsewhere."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unmask.channels import ChannelStatistics
from unmask.encoders.vit import VisionTransformer
from unmask.errors import SettingsError
from unmask.formats import Hints
from unmask.formats.destination import check_free, put, writing_beside
from unmask.formats.onnx import (
    StoredWeights,
    open_onnx,
    write_onnx,
)
from unmask.formats.onnx_graphs import (
    Classifying,
    Encoding,
    Graph,
    Rebuilding,
    Segmenting,
    largest_difference,
    sizes_to_check,
)
from unmask.masking.squares import side_of
from unmask.runs.classifier import load_classifier
from unmask.runs.finetune import Finetune
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.runs.weights import Found, find_weights
from unmask.spec import to_json
from unmask.targets.pixels import PixelTarget
from unmask.tasks import Classify, MultiLabel, Segment
from unmask.tensors import hash_of_tensors
from unmask.traits import Reconstructing

BATCHES = 1, 3, 7
"""Numbers of images that a file is checked with; the graph is traced with another."""

TOLERANCE: dict[StoredWeights, float] = {"float32": 1e-4, "float16": 5e-3}
"""The largest difference that is rounding, relative to the largest value (at least 1)."""

_ENDING = ".onnx"
_NOTHING: Mapping[str, bytes] = {}
_LARGE = 100  # features and pixels from 0 to 1 stay below


class Exported(NamedTuple):
    """A written file, and how far onnxruntime is from unmask with it."""

    file: Path
    outputs: tuple[str, ...]
    """Names of its outputs."""
    sizes: tuple[str, ...]
    """The sizes of images that were compared, in pixels."""
    difference: float
    """The largest difference of the output that is farthest, as `Difference` says."""
    largest: float
    """The largest value there."""
    exact: bool
    """Whether that is rounding."""
    graph: Graph
    """What it computes."""


class Plan(NamedTuple):
    """What can be exported of a source."""

    found: Found
    graphs: tuple[Graph, ...]
    notes: tuple[str, ...]
    """What is left out, and why."""


def plan_onnx(source: str | Path, hints: Hints) -> Plan:
    """Load a run or weights, and see what can be exported.

    Raises:
        SettingsError: for a detector.
    """
    folder = RunFolder(source)
    tuned = folder.made_by(Finetune.command)
    if tuned:
        _refuse_detector(folder, source)
    found = find_weights(source, hints)
    weights = found.weights
    objective: Any = weights.build_objective().eval() if weights.decoder else None
    tensors = {} if objective is None else objective.state_dict()
    encoder: VisionTransformer = objective.encoder if objective else weights.build_encoder().eval()
    facts = {"origin": weights.spec.origin, "weights_hash": hash_of_tensors(encoder.state_dict())}
    graphs = [_graph("encoder", Encoding(encoder), found, facts)]
    notes: list[str] = []
    if isinstance(objective, Reconstructing) and isinstance(objective.target, PixelTarget):
        facts = {
            **facts,
            "weights_hash": hash_of_tensors(tensors),
            "normalized_patches": objective.target.per_patch,
            "mask_unit": encoder.patch_size * side_of(objective.masking),
        }
        graphs.append(_graph("reconstruction", Rebuilding(objective), found, facts))
    elif not tuned:
        notes.append(_no_pictures(found, objective))
    if tuned:
        graphs.append(_tuned_graph(source, found, facts))
    return Plan(found, tuple(graphs), tuple(notes))


def export_onnx(
    plan: Plan,
    destination: Path,
    stored: StoredWeights,
    card: str,
    done: Callable[[Exported], None] = lambda _: None,
    beside: Mapping[str, bytes] = _NOTHING,
) -> list[Exported]:
    """Write the files of a plan and the card into a new folder, and compare each with onnxruntime.

    Args:
        plan: from `plan_onnx`.
        destination: a new or empty folder.
        stored: type of the weights in the files.
        card: text of README.md.
        done: is called after each file.
        beside: other files for the folder, by their names.

    Raises:
        RunError: if the destination holds files.
        ResourceError: if it cannot be written.
    """
    check_free(destination, "onnx")
    exported: list[Exported] = []
    with writing_beside(destination) as writing:
        for graph in plan.graphs:
            path = writing / f"{graph.name}{_ENDING}"
            write_onnx(graph, path, stored)
            exported.append(_compared(graph, path, destination, stored))
            done(exported[-1])
        (writing / "README.md").write_text(card, encoding="utf-8")
        for name, content in beside.items():
            (writing / name).write_bytes(content)
        put(writing, destination)
    return exported


def in_words(difference: float, largest: float) -> str:
    """A largest difference, and beside which values, where these are so large that it means nothing alone.

    >>> in_words(2e-6, 3.5), in_words(5e6, 2e13)
    ('2.0e-06', '5.0e+06 of values up to 2e+13')
    """
    return f"{difference:.1e}" + (f" of values up to {largest:.0e}" if largest > _LARGE else "")


def _compared(graph: Graph, path: Path, destination: Path, stored: StoredWeights) -> Exported:
    worst = largest_difference(graph, open_onnx(path), BATCHES)
    exact = worst.relative <= TOLERANCE[stored]
    sizes = tuple(f"{size.height} x {size.width}" for size in sizes_to_check(graph))
    file = destination / path.name
    return Exported(file, graph.outputs, sizes, worst.difference, worst.largest, exact, graph)


def _graph(
    name: str,
    module: Any,
    found: Found,
    facts: dict[str, Any],
    statistics: ChannelStatistics | None = None,
) -> Graph:
    spec = found.weights.spec
    return Graph(
        name,
        module.eval(),
        module.outputs,
        spec.image_size,
        spec.encoder.patch_size,
        statistics or spec.statistics,
        facts,
        any_size=not isinstance(module, Segmenting),
    )


def _tuned_graph(source: str | Path, found: Found, facts: dict[str, Any]) -> Graph:
    """The whole of a fine-tuned run: a classifier, or a segmenter for windows."""
    classifier = load_classifier(source)
    tuned = classifier.tuned
    task = tuned.job.recipe.task
    facts = {
        **facts,
        "classes": list(classifier.names),
        "weights_hash": hash_of_tensors(tuned.module.state_dict()),
    }
    if isinstance(task, Segment):
        facts |= {"averaged": task.averaged, "stride": task.stride}
        return _graph("segmenter", Segmenting(tuned.module), found, facts, tuned.statistics)
    assert isinstance(task, Classify | MultiLabel)
    if classifier.thresholds is not None:
        facts["thresholds"] = list(classifier.thresholds)
    several = isinstance(task, MultiLabel)
    facts |= {"several_labels": several, "test_views": to_json(tuned.job.recipe.test_views)}
    module = Classifying(tuned.module, several=several)
    return _graph("classifier", module, found, facts, tuned.statistics)


def _refuse_detector(folder: RunFolder, source: str | Path) -> None:
    run = Run.read(folder, Finetune.command)
    assert isinstance(run.job, Finetune)
    if not isinstance(run.job.recipe.task, Classify | MultiLabel | Segment):
        raise SettingsError(
            f"{source} is a detector, and these cannot be exported to ONNX; export the pretraining run that it started from, "
            "or run the detector with `unmask predict`"
        )


def _no_pictures(found: Found, objective: Any) -> str:
    """Why there is no file that rebuilds."""
    why = "these weights are an encoder without a decoder"
    if objective is not None:
        kind = type(found.weights.spec.objective.target).__name__  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        why = f"its decoder predicts {kind}, not pixels"
    elif found.run is not None:
        why = "its pretraining method rebuilds no pixels"
    return f"only the encoder is exported, because {why}"
