"""timm's Vision Transformer: only an encoder, with the same parameter names as ours."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from unmask.formats.compare import Check, Seen, features, largest_difference, trial, upright
from unmask.formats.configs import Config
from unmask.formats.describe import Facts, Hints, assembled, refuse_unknown
from unmask.formats.files import TensorFile, save_json, save_safetensors
from unmask.formats.model import ModelSpec, Weights
from unmask.formats.names import BLOCK, Table, translate, without_heads

ENCODER: Table = {
    **{n: n for n in ("cls_token", "pos_embed", "patch_embed.proj", "norm")},
    **{f"blocks.{{n}}.{part}": f"blocks.{{n}}.{part}" for part in BLOCK},
}

_HEADS = ("head.", "head_dist.", "pre_logits.", "fc.")
_ARCHITECTURE = "vit_base_patch16_224"  # for other shapes; model_args override everything

_SIZES = {
    (192, 12, 16, 224): "vit_tiny_patch16_224",
    (384, 12, 16, 224): "vit_small_patch16_224",
    (768, 12, 16, 224): "vit_base_patch16_224",
    (1024, 24, 16, 224): "vit_large_patch16_224",
    (1280, 32, 14, 224): "vit_huge_patch14_224",
}
"""timm's names of the usual models by width, depth, patch size and image size."""


@dataclass(frozen=True, kw_only=True)
class Timm:
    """A folder for `timm.create_model("local-dir:FOLDER", pretrained=True)`."""

    pool: Literal["token", "mean"] = "token"
    """Input of timm's classifier: the class token, or the mean of the patches (the last norm is then `fc_norm`)."""

    def recognizes(self, file: TensorFile) -> bool:
        """Whether the patch projection has timm's name, which the published MAE files also use."""
        return "patch_embed.proj.weight" in file.tensors

    def read(self, file: TensorFile, hints: Hints) -> Weights:
        """The encoder."""
        encoder, unknown, notes = read_encoder(file.tensors)
        refuse_unknown(file.path, unknown)
        return assembled(file, encoder, {}, _facts(file), hints, notes)

    def write(self, weights: Weights, folder: Path) -> Path:
        """Write `model.safetensors` and `config.json`; a decoder is left out."""
        tensors = published_encoder(weights)
        if self.pool == "mean":
            tensors = {_renamed_norm(name, "norm.", "fc_norm."): t for name, t in tensors.items()}
        file = folder / "model.safetensors"
        save_safetensors(file, tensors, weights.spec.without_decoder())
        save_json(folder / "config.json", self._config(weights.spec))
        return file

    def check(self, weights: Weights, file: Path) -> Check | None:
        """Load the folder with `timm.create_model`, which is strict, and compare all tokens."""
        import timm

        model = timm.create_model(f"local-dir:{file.parent}", pretrained=True)
        return encoder_check(model, weights)

    def see(self, weights: Weights, file: Path, picture: Path) -> Seen | None:
        """What timm's own transform and model make of a picture file."""
        import timm
        from timm.data import create_transform, resolve_model_data_config

        model: Any = timm.create_model(f"local-dir:{file.parent}", pretrained=True).eval()
        prepare: Any = create_transform(**resolve_model_data_config(model))
        pixels = prepare(upright(picture, weights.spec))
        with torch.no_grad():
            tokens = model.fc_norm(model.forward_features(pixels[None]))
        return Seen(f"timm {timm.__version__}", pixels, tokens[0])

    def _config(self, spec: ModelSpec) -> dict[str, Any]:
        encoder = spec.encoder
        pool = "avg" if self.pool == "mean" else "token"
        shape = (encoder.embed_dim, encoder.depth, encoder.patch_size, spec.image_size.height)
        return {
            "architecture": _SIZES.get(shape, _ARCHITECTURE),
            "num_classes": 0,
            "num_features": encoder.embed_dim,
            "global_pool": pool,
            "model_args": {**model_arguments(spec), "global_pool": pool},
            "pretrained_cfg": {
                "input_size": [spec.channels, *spec.image_size],
                "fixed_input_size": True,
                "mean": list(spec.statistics.mean),
                "std": list(spec.statistics.std),
                "interpolation": "bicubic",
                "crop_pct": 1.0,  # `embed` cuts no margin
                "crop_mode": "center",
                "num_classes": 0,
                "first_conv": "patch_embed.proj",
                "classifier": "head",
            },
        }


def model_arguments(spec: ModelSpec) -> dict[str, Any]:
    """Arguments of timm's VisionTransformer for this model."""
    encoder = spec.encoder
    return {
        "img_size": list(spec.image_size),
        "patch_size": encoder.patch_size,
        "in_chans": spec.channels,
        "embed_dim": encoder.embed_dim,
        "depth": encoder.depth,
        "num_heads": encoder.num_heads,
        "mlp_ratio": encoder.mlp_ratio,
    }


def strict_twin(weights: Weights) -> nn.Module:
    """timm's model with these weights, loaded strictly from memory."""
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(**model_arguments(weights.spec), num_classes=0, global_pool="token")
    model.load_state_dict(published_encoder(weights), strict=True)
    return model


@torch.no_grad()
def encoder_check(model: nn.Module, weights: Weights) -> Check:
    """Compare all tokens of a batch, after the last norm, between timm's model and ours."""
    import timm

    batch = trial(weights.spec)
    timm_model = cast(Any, model.eval())
    # fc_norm is an identity with token pooling
    theirs = timm_model.fc_norm(timm_model.forward_features(batch.pixels))
    difference = largest_difference([features(weights, batch)], [theirs])
    return Check(f"timm {timm.__version__}", "features of every token", difference)


def published_encoder(weights: Weights) -> dict[str, Tensor]:
    """The encoder with the names of timm and of the published files, without mean and standard deviation of pixels."""
    return translate(weights.encoder, ENCODER)[0]


def read_encoder(
    tensors: dict[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[str, ...]]:
    """The encoder with our names, unknown tensors, and notes on what was left out or renamed."""
    tensors, notes = without_heads(tensors, _HEADS)
    if "fc_norm.weight" in tensors and "norm.weight" not in tensors:
        tensors = {_renamed_norm(name, "fc_norm.", "norm."): t for name, t in tensors.items()}
        notes.append(
            "fc_norm is read as the last norm: this model averages its patches before that norm, so "
            "prefer the mean of the patches as features"
        )
    return *translate(tensors, ENCODER), tuple(notes)


def _renamed_norm(name: str, old: str, new: str) -> str:
    return new + name.removeprefix(old) if name.startswith(old) else name


def _facts(file: TensorFile) -> Facts:
    """The facts in timm's config.json."""
    config = Config(file.path.parent / "config.json", file.config)
    arguments = config.part("model_args") or Config(config.path, {})
    pretrained = config.part("pretrained_cfg") or config
    statistics = pretrained.statistics("")
    return Facts(
        origin=f"timm weights, {config.values.get('architecture', file.path.name)}",
        num_heads=arguments.whole_number("num_heads"),
        image_size=arguments.size("img_size") or pretrained.size("input_size", channels=True),
        statistics=statistics and replace(statistics, source="timm's config.json"),
    )
