"""The format of the published MAE checkpoints: torch files of {"model": tensors}.

`mae_pretrain_*.pth` hold the encoder; `*_full.pth` and `mae_visualize_*.pth` hold the decoder too. The decoders of
`mae_visualize_*.pth` predict plain pixels, the others normalised pixels. This code is based only on the parameter names in the
files.
"""

from dataclasses import dataclass
from pathlib import Path

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
    """A torch file with the published names."""

    def recognizes(self, file: TensorFile) -> bool:
        """Whether there is a decoder with the published names, or an encoder in a torch file without a config."""
        names = set(file.tensors)
        bare = ".safetensors" not in file.path.name and not file.config
        return "decoder_embed.weight" in names or (bare and "patch_embed.proj.weight" in names)

    def read(self, file: TensorFile, hints: Hints) -> Weights:
        """The encoder, and the decoder if there is one."""
        decoder, others = translate(file.tensors, inverse(DECODER))
        encoder, unknown, notes = read_encoder(others)
        refuse_unknown(file.path, unknown)
        facts = Facts(
            origin=f"weights in the published MAE layout, {file.path.name}",
            target=Pixels() if _PLAIN_PIXELS in file.path.name else NormalizedPixels(),
        )
        return assembled(file, encoder, decoder, facts, hints, notes)

    def write(self, weights: Weights, folder: Path) -> Path:
        """Write one file, named like the published ones."""
        decoder, unknown = translate(weights.decoder, DECODER)
        assert not unknown, sorted(unknown)
        file = folder / _file_name(weights.spec)
        save_torch(file, {**published_encoder(weights), **decoder}, weights.spec)
        return file

    def check(self, weights: Weights, file: Path) -> Check | None:
        """Compare the encoder with timm's, which has the same names; a decoder must read back equal."""
        read_back = self.read(read_file(file), Hints())
        check = encoder_check(strict_twin(read_back), weights)
        if not weights.decoder:
            return check
        ours, theirs = weights.decoder, read_back.decoder
        same = ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
        result = "is equal" if same else "DIFFERS"
        return check._replace(of=f"{check.of}; the decoder was read back and {result}")


def _file_name(spec: ModelSpec) -> str:
    if not isinstance(spec.objective, MAE):
        return "mae_pretrain.pth"
    plain = isinstance(spec.objective.target, Pixels)
    return f"mae_{_PLAIN_PIXELS}.pth" if plain else "mae_pretrain_full.pth"
