"""Finding the encoder of a folder of vectors: its hash decides, and the path where it was is a hint."""

from collections.abc import Iterator
from pathlib import Path

from unmask.asked import divided, hub_name
from unmask.errors import RunError, UnmaskError
from unmask.runs.model import Model, load
from unmask.vectors.manifest import Encoding, Manifest, encoding_of


def encoder_of(root: Path, manifest: Manifest, place: str | None, device: str) -> Model:
    """The model that made the vectors of a folder.

    Args:
        root: the folder.
        manifest: its manifest.
        place: where the encoder is, if the user says it.
        device: where to compute.

    Raises:
        RunError: if it is not there, or has other weights by now.
        DataError: if the weights at the place that the user says cannot be used.
    """
    if place is not None:
        model = load(place, device)
        if (difference := differs(manifest.encoding, model)) is not None:
            raise RunError(
                f"{place} is not the encoder of {root}: {difference}; vectors of two encoders cannot be compared. It was at "
                f"{manifest.place}"
            )
        return model
    others: list[str] = []
    for candidate in dict.fromkeys(_candidates(root, manifest.place)):
        if isinstance(candidate, Path) and not divided(candidate)[0].exists():
            continue
        try:
            model = load(candidate, device)
        except UnmaskError as error:  # such as a folder of pictures with the name of the run
            others.append(f"{candidate} cannot be used ({error})")
            continue
        if (difference := differs(manifest.encoding, model)) is None:
            return model
        others.append(f"{candidate} has {difference}")
    there = f"; {others[0]}" if others else ""
    raise RunError(
        f"the encoder of {root} ({manifest.about}) is not at {manifest.place}{there}; say where it is with --encoder, or "
        "embed again with another one"
    )


def _candidates(root: Path, place: str) -> Iterator[Path | str]:
    """Places where an encoder may be that was moved together with its folder, or with the runs; or its name on the Hub."""
    if hub_name(place) is not None:
        yield place
        return
    hint = Path(place)
    yield hint
    for parent in (root.absolute().parent, Path.cwd()):
        yield parent / hint.name
        yield parent / "runs" / hint.name
        yield parent / hint.parent.name / hint.name


def differs(encoding: Encoding, model: Model) -> str | None:
    """How the vectors of a model would differ from those of a folder, in words; None if they can be compared."""
    other = encoding_of(model, encoding.pooling, encoding.stored)
    if encoding.hash == other.hash:
        return None
    if encoding.encoder != other.encoder:
        return "another shape"
    return "other weights" if encoding.weights != other.weights else "another preprocessing"
