"""This package's own weight files: safetensors with the `ModelSpec` in their metadata."""

from dataclasses import dataclass
from pathlib import Path

from unmask.errors import DataError
from unmask.formats.compare import Check, features, largest_difference, outputs, trial
from unmask.formats.describe import Hints, check_fit
from unmask.formats.files import TensorFile, read_file, save_safetensors
from unmask.formats.model import Weights, split
from unmask.traits import Masked


@dataclass(frozen=True, kw_only=True)
class Native:
    """`model.safetensors` as in a checkpoint; `encoder.safetensors` is read too."""

    def recognizes(self, file: TensorFile) -> bool:
        """Whether the tensors include the mean of pixels, which only our files have."""
        return bool({"encoder.mean", "mean"} & set(file.tensors))

    def read(self, file: TensorFile, hints: Hints) -> Weights:
        """The weights, with the spec in the metadata."""
        if file.spec is None:
            raise DataError(
                f"{file.path} has unmask's parameter names, but the metadata that describe the model are gone; "
                "use the original file"
            )
        encoder, decoder = (file.tensors, {}) if "mean" in file.tensors else split(file.tensors)
        notes: tuple[str, ...] = ()
        if decoder and not isinstance(file.spec.objective, Masked):
            decoder, notes = {}, (f"{file.path}: only the encoder is used after pretraining",)
        spec = file.spec if decoder else file.spec.without_decoder()
        weights = Weights(spec, encoder, decoder, notes)
        check_fit(weights, file.path)
        return weights

    def write(self, weights: Weights, folder: Path) -> Path:
        """Write `model.safetensors`."""
        file = folder / "model.safetensors"
        save_safetensors(file, weights.whole, weights.spec)
        return file

    def check(self, weights: Weights, file: Path) -> Check | None:
        """Read the file back and compare the outputs of both models for a batch."""
        read_back, batch = self.read(read_file(file), Hints()), trial(weights.spec)
        if weights.decoder:
            what = "features, prediction and loss"
            ours, theirs = outputs(weights, batch), outputs(read_back, batch)
        else:
            what, ours, theirs = "features", features(weights, batch), features(read_back, batch)
        return Check("unmask, read back", what, largest_difference(ours, theirs))
