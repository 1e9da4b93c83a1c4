"""unmask: masked image pretraining on your own images."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from unmask.commands.convert import convert
    from unmask.commands.evaluate import evaluate
    from unmask.commands.finetune import finetune
    from unmask.commands.predict import predict
    from unmask.commands.pretrain import pretrain
    from unmask.commands.reconstruct import reconstruct
    from unmask.console.hardware import MachineFlags, RunFlags
    from unmask.data import Digits, Folder, LabelsFile, Parquet, Shards, Tiff
    from unmask.encoders import ViT
    from unmask.evaluation.embedder import Embedder
    from unmask.masking import RandomMasking
    from unmask.objectives import MAE
    from unmask.recipes import RECIPES, TRANSFERS, Recipe, Transfer
    from unmask.runs.model import Model, load

_HOMES = {
    name: module
    for module, names in (
        # what a recipe is made of, and the recipes of the papers
        ("unmask.objectives", "MAE"),
        ("unmask.masking", "RandomMasking"),
        ("unmask.encoders", "ViT"),
        ("unmask.recipes", "RECIPES Recipe TRANSFERS Transfer"),
        # where images come from
        ("unmask.data", "Digits Folder LabelsFile Parquet Shards Tiff"),
        # the commands as functions
        ("unmask.commands.convert", "convert"),
        ("unmask.commands.evaluate", "evaluate"),
        ("unmask.commands.finetune", "finetune"),
        ("unmask.commands.predict", "predict"),
        ("unmask.commands.pretrain", "pretrain"),
        ("unmask.commands.reconstruct", "reconstruct"),
        # how a run is executed
        ("unmask.console.hardware", "MachineFlags RunFlags"),
        # a pretrained model
        ("unmask.runs.model", "Model load"),
        ("unmask.evaluation.embedder", "Embedder"),
    )
    for name in names.split()
}
"""The module of each public name."""

__all__ = [
    "MAE",
    "RECIPES",
    "TRANSFERS",
    "Digits",
    "Embedder",
    "Folder",
    "LabelsFile",
    "MachineFlags",
    "Model",
    "Parquet",
    "RandomMasking",
    "Recipe",
    "RunFlags",
    "Shards",
    "Tiff",
    "Transfer",
    "ViT",
    "__version__",
    "convert",
    "evaluate",
    "finetune",
    "load",
    "predict",
    "pretrain",
    "reconstruct",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `unmask --help` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unmask' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return __all__
