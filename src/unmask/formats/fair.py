"""The layout of the published MAE checkpoints: torch files of {"model": tensors}.

`mae_pretrain_*.pth` hold the encoder, `*_full.pth` and `mae_visualize_*.pth` the decoder too; the last
rebuild plain pixels, the others normalised ones. Written from the files' parameter names alone.
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from unmask.formats.compare import Check
from unmask.formats.describe import Facts, Hints, assembled, refuse_unknown
from unmask.formats.files import TensorFile, read_file, save_torch
from unmask.formats.model import ModelSpec, Weights
from unmask.formats.names import BLOCK, Table, inverse, translate
from unmask.formats.timm import encoder_check, published_encoder, read_encoder, strict_twin
from unmask.objectives import MAE
from unmask.targets import NormalizedPixels, Pixels

DECODER: Table = {
    "decoder.mask_token": "mask_token",
    **{f"decoder.{n}": f"decoder_{n}" for n in ("embed", "pos_embed", "norm", "pred")},
    **{f"decoder.blocks.{{n}}.{part}": f"decoder_blocks.{{n}}.{part}" for part in BLOCK},
}

_PLAIN_PIXELS = "visualize"


@dataclass(frozen=True, kw_only=True)
class Fair:
    """A torch file in the published names."""

    def recognizes(self, file: TensorFile) -> bool:
        """Whether there is a decoder under the published names, or an encoder in a torch file."""
        names = set(file.tensors)
        bare = file.path.suffix != ".safetensors" and not file.config
        return "decoder_embed.weight" in names or (bare and "patch_embed.proj.weight" in names)

    def read(self, file: TensorFile, hints: Hints) -> Weights:
        """Encoder, and decoder where there is one."""
        decoder, rest = translate(file.tensors, inverse(DECODER))
        encoder, unknown, notes = read_encoder(rest)
        refuse_unknown(file.path, unknown)
        facts = Facts(
            origin=f"weights in the published MAE layout, {file.path.name}",
            target=Pixels() if _PLAIN_PIXELS in file.path.name else NormalizedPixels(),
        )
        return assembled(file, encoder, decoder, facts, hints, notes)

    def write(self, weights: Weights, folder: Path) -> Path:
        """Write one file, called as the published ones are."""
        decoder, left = translate(weights.decoder, DECODER)
        assert not left, sorted(left)
        file = folder / _file_name(weights.spec)
        save_torch(file, {**published_encoder(weights), **decoder}, weights.spec)
        return file

    def check(self, weights: Weights, file: Path) -> Check | None:
        """The encoder as read back in timm, whose names are the same; a decoder must read back equal."""
        again = self.read(read_file(file), Hints())
        check = encoder_check(strict_twin(again), weights)
        if not weights.decoder:
            return check
        return check._replace(
            of=f"{check.of}; the decoder was read back and {_sameness(weights.decoder, again.decoder)}"
        )


def _file_name(spec: ModelSpec) -> str:
    if not isinstance(spec.objective, MAE):
        return "mae_pretrain.pth"
    plain = isinstance(spec.objective.target, Pixels)
    return f"mae_{_PLAIN_PIXELS}.pth" if plain else "mae_pretrain_full.pth"


def _sameness(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> str:
    same = ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
    return "is equal" if same else "DIFFERS"
