"""transformers' ViT and ViTMAE, in the spelling of the files on the Hub.

transformers calls parameters otherwise in memory than on disk, and its own saver calls the decoder's
blocks otherwise than the published files; all three are read, and the published one is written.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmask.channels import ChannelStatistics
from unmask.contracts import Size
from unmask.encoders.layers import NORM_EPSILON
from unmask.errors import DataError, SettingsError
from unmask.formats.compare import (
    Check,
    Outputs,
    features,
    largest_difference,
    mask_ratio,
    outputs,
    trial,
)
from unmask.formats.describe import Facts, Hints, assembled, customary_range, refuse_unknown
from unmask.formats.files import TensorFile, save_json, save_safetensors
from unmask.formats.model import ModelSpec, Weights
from unmask.formats.names import Table, inverse, listed, translate, without
from unmask.masking import RandomMasking
from unmask.objectives import MAE
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.targets import NormalizedPixels, Pixels

_BLOCK = {
    "norm1": "layernorm_before",
    "attn.query": "attention.attention.query",
    "attn.key": "attention.attention.key",
    "attn.value": "attention.attention.value",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}

NAMES: Table = {
    "encoder.cls_token": "vit.embeddings.cls_token",
    "encoder.pos_embed": "vit.embeddings.position_embeddings",
    "encoder.patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
    "encoder.norm": "vit.layernorm",
    **{f"encoder.blocks.{{n}}.{o}": f"vit.encoder.layer.{{n}}.{t}" for o, t in _BLOCK.items()},
    "decoder.mask_token": "decoder.mask_token",
    **{f"decoder.{n}": f"decoder.decoder_{n}" for n in ("embed", "pos_embed", "norm", "pred")},
    **{f"decoder.blocks.{{n}}.{o}": f"decoder.decoder_layers.{{n}}.{t}" for o, t in _BLOCK.items()},
}

_SPELLINGS = (
    ("decoder.decoder_encoder.layer.", "decoder.decoder_layers."),  # transformers 5's saver
    ("vit.layers.", "vit.encoder.layer."),  # transformers 5 in memory, here and below
    (".attention.q_proj.", ".attention.attention.query."),
    (".attention.k_proj.", ".attention.attention.key."),
    (".attention.v_proj.", ".attention.attention.value."),
    (".attention.o_proj.", ".attention.output.dense."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)
"""Other spellings of the same parameters, and the published one."""

_PARTS = ("attn.query", "attn.key", "attn.value")
_HEADS = ("vit.pooler.", "pooler.", "classifier.")


@dataclass(frozen=True, kw_only=True)
class HuggingFace:
    """A folder that `ViTModel.from_pretrained` loads, or with a decoder `ViTMAEForPreTraining`."""

    def recognizes(self, file: TensorFile) -> bool:
        """Whether there are ViT's embeddings under transformers' names."""
        return any(
            name.startswith(("vit.embeddings.", "embeddings.patch_embeddings."))
            for name in file.tensors
        )

    def read(self, file: TensorFile, hints: Hints) -> Weights:
        """Encoder, and decoder where there is one."""
        tensors, left = without(file.tensors, _HEADS)
        published = {_published(name): tensor for name, tensor in tensors.items()}
        known, unknown = translate(published, inverse(NAMES))
        refuse_unknown(file.path, unknown)
        whole = _fused(known)
        notes = [f"left out, since it is a classifier's: {listed(left)}"] if left else []
        notes += _remarks(file)
        encoder = {n.removeprefix("encoder."): t for n, t in whole.items() if n[0] == "e"}
        decoder = {name: tensor for name, tensor in whole.items() if name[0] == "d"}
        return assembled(file, encoder, decoder, _facts(file), hints, tuple(notes))

    def write(self, weights: Weights, folder: Path) -> Path:
        """Write `model.safetensors`, `config.json` and `preprocessor_config.json`."""
        spec = weights.spec
        if weights.decoder and spec.image_size.height != spec.image_size.width:
            raise SettingsError(
                f"transformers' ViTMAE takes square images alone, and these weights are for {spec.image_size} "
                "pixels; convert the encoder.safetensors of a checkpoint to have the encoder alone"
            )
        tensors, left = translate(_parted(weights.whole), NAMES)
        assert left.keys() == {"encoder.mean", "encoder.std"}, sorted(left)  # the processor's
        if not weights.decoder:
            tensors = {name.removeprefix("vit."): tensor for name, tensor in tensors.items()}
        file = folder / "model.safetensors"
        save_safetensors(file, tensors, spec)
        save_json(folder / "config.json", _config(spec))
        save_json(folder / "preprocessor_config.json", _preprocessor(spec))
        return file

    def check(self, weights: Weights, file: Path) -> Check | None:
        """Load the folder as transformers' users do and compare; None without transformers."""
        if find_spec("transformers") is None:
            return None
        import transformers

        version = f"transformers {transformers.__version__}"
        batch = trial(weights.spec)
        if not weights.decoder:
            model = _loaded(transformers.ViTModel, file.parent, add_pooling_layer=False)
            with torch.no_grad():
                theirs = model(batch.pixels).last_hidden_state
            apart = largest_difference([features(weights, batch)], [theirs])
            return Check(version, "features of every token", apart)
        model = _loaded(transformers.ViTMAEForPreTraining, file.parent)
        with torch.no_grad():  # its masking needs the noise, even in evaluation
            visible = model.vit(batch.pixels, noise=batch.noise).last_hidden_state
            found = model(batch.pixels, noise=batch.noise)
        apart = largest_difference(
            outputs(weights, batch), Outputs(visible, found.logits, found.loss)
        )
        return Check(version, "features, prediction and loss", apart)


def _published(name: str) -> str:
    """The spelling on the Hub, with the prefix that a bare ViTModel lacks."""
    if not name.startswith(("vit.", "decoder.")):
        name = f"vit.{name}"
    for other, published in _SPELLINGS:
        name = name.replace(other, published)
    return name


def _parted(whole: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value apart, as transformers has them."""
    parted: dict[str, Tensor] = {}
    for name, tensor in whole.items():
        if "attn.qkv" in name:
            parts = [name.replace("attn.qkv", part) for part in _PARTS]
            parted |= zip(parts, tensor.chunk(3), strict=True)
        else:
            parted[name] = tensor
    return parted


def _fused(parted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value as one, as timm has them; the inverse of `_parted`."""
    whole = {name: t for name, t in parted.items() if not any(part in name for part in _PARTS)}
    for query in (name for name in parted if "attn.query" in name):
        parts = [query.replace("attn.query", part) for part in _PARTS]
        if all(part in parted for part in parts):
            fused = torch.cat([parted[part] for part in parts])
            whole[query.replace("attn.query", "attn.qkv")] = fused
    return whole


def _remarks(file: TensorFile) -> list[str]:
    config = file.config
    if (activation := config.get("hidden_act", "gelu")) != "gelu":
        raise DataError(
            f"{file.path} was trained with the activation {activation!r}; the plain ViT uses gelu, and with "
            "another one these weights mean nothing"
        )
    epsilon = config.get("layer_norm_eps", NORM_EPSILON)
    if epsilon == NORM_EPSILON:
        return []
    return [
        f"its config.json says layer_norm_eps {epsilon}; unmask computes with {NORM_EPSILON}, as MAE's "
        "authors did"
    ]


def _facts(file: TensorFile) -> Facts:
    config = file.config
    plain = config and not config.get("norm_pix_loss", False)
    ratio = config.get("mask_ratio")
    return Facts(
        origin=f"transformers weights, {config.get('_name_or_path') or file.path.name}",
        num_heads=config.get("num_attention_heads"),
        decoder_heads=config.get("decoder_num_attention_heads"),
        image_size=_size(config.get("image_size")),
        target=Pixels() if plain else NormalizedPixels(),
        masking=RandomMasking() if ratio is None else RandomMasking(ratio=ratio),
        statistics=_statistics(file.preprocessor),
    )


def _size(said: Any) -> Size | None:
    if isinstance(said, int):
        return Size(said, said)
    return Size(*said) if isinstance(said, list) and len(said) == 2 else None


def _statistics(preprocessor: dict[str, Any]) -> ChannelStatistics | None:
    if "image_mean" not in preprocessor or "image_std" not in preprocessor:
        return None
    mean, std = preprocessor["image_mean"], preprocessor["image_std"]
    return customary_range(mean, std, "preprocessor_config.json")


def _config(spec: ModelSpec) -> dict[str, Any]:
    encoder, size = spec.encoder, spec.image_size
    config = {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "hidden_size": encoder.embed_dim,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.num_heads,
        "intermediate_size": int(encoder.embed_dim * encoder.mlp_ratio),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": NORM_EPSILON,
        "qkv_bias": True,
        "image_size": size.height if size.height == size.width else list(size),
        "patch_size": encoder.patch_size,
        "num_channels": spec.channels,
        "dtype": "float32",
    }
    if not isinstance(spec.objective, MAE):
        return config
    decoder = spec.objective.decoder
    assert isinstance(decoder, SelfAttentionDecoder)  # what `held_by` lets through
    return config | {
        "architectures": ["ViTMAEForPreTraining"],
        "model_type": "vit_mae",
        "decoder_hidden_size": decoder.embed_dim,
        "decoder_num_hidden_layers": decoder.depth,
        "decoder_num_attention_heads": decoder.num_heads,
        "decoder_intermediate_size": int(decoder.embed_dim * decoder.mlp_ratio),
        "mask_ratio": mask_ratio(spec),
        "norm_pix_loss": isinstance(spec.objective.target, NormalizedPixels),
    }


def _preprocessor(spec: ModelSpec) -> dict[str, Any]:
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": dict(zip(("height", "width"), spec.image_size, strict=True)),
        "do_rescale": spec.statistics.values == "uint8",
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.statistics.mean),
        "image_std": list(spec.statistics.std),
    }


def _loaded(cls: Any, folder: Path, **options: Any) -> Any:
    """A model of transformers from a folder in which nothing is missing and nothing too much."""
    with _quiet():
        model, said = cls.from_pretrained(folder, output_loading_info=True, **options)
    assert not said["missing_keys"] | said["unexpected_keys"], said
    return model.eval()


@contextmanager
def _quiet() -> Generator[None]:
    """Without transformers' progress bars."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
