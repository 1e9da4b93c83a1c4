"""`unmask convert --to onnx` for the other kinds of models, and nothing of this machine in what is published."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from commands.said import Unmask
from formats.models import weights_of, written
from runs import tiny, tiny_transfer
from safetensors.torch import load_file, save_file

import unmask as package
from unmask.masks import PatchMask
from unmask.objectives import MAE, Latent
from unmask.objectives.decoders import CrossAttentionDecoder, SelfAttentionDecoder
from unmask.objectives.mae import Replaced
from unmask.runs.folder import RunFolder
from unmask.runs.reconstruct import rebuild
from unmask.targets import Hog

pytestmark = pytest.mark.timeout(600)

SELF = SelfAttentionDecoder(embed_dim=8, depth=1, num_heads=2)
CROSS = CrossAttentionDecoder(embed_dim=8, depth=2, num_heads=2)
RECIPES = {
    "tokens in place of hidden patches": replace(
        tiny.RECIPE, objective=MAE(encoding=Replaced(), decoder=SELF)
    ),
    "a cross-attention decoder": replace(tiny.RECIPE, objective=MAE(decoder=CROSS)),
    "several class tokens": replace(
        tiny.RECIPE, encoder=replace(tiny.RECIPE.encoder, class_tokens=3)
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RECIPES)
def test_kinds_of_reconstruction(unmask: Unmask, images: Path, kind: str) -> None:
    run = tiny.finished_run(Path("run"), images, recipe=RECIPES[kind])
    said = unmask("convert", run.root, "files", "--to", "onnx")
    assert said.status == 0, said.err
    assert "exported reconstruction.onnx: rebuilt, prediction" in said.out
    model = package.load(run.root)
    image = model.fit(sorted(images.iterdir())[2])
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))[None]
    mask = PatchMask.in_order(torch.zeros(1, dtype=torch.long), order, 5)
    with torch.no_grad():
        wanted, _, _ = rebuild(model.objective, image, mask, "neighbors")
    inputs = {"images": (image[None] / 255).numpy()}
    inputs |= {"kept_index": mask.kept_index.numpy(), "removed_index": mask.removed_index.numpy()}
    session = onnxruntime.InferenceSession("files/reconstruction.onnx")
    rebuilt, _ = session.run(None, inputs)
    np.testing.assert_allclose(rebuilt[0].clip(0, 1), wanted.numpy(), atol=1 / 255)
    session = onnxruntime.InferenceSession("files/encoder.onnx")
    cls, mean, _ = session.run(None, {"images": (model.transform(image)[None] / 255).numpy()})
    ours = model.embed(image)
    np.testing.assert_allclose(cls, ours.cls.numpy(), atol=2e-5)
    np.testing.assert_allclose(mean, ours.mean.numpy(), atol=2e-5)


NO_PICTURES = {
    "hog": (
        replace(tiny.RECIPE, epochs=1, objective=MAE(target=Hog(), decoder=SELF)),
        "its decoder predicts Hog, not pixels",
    ),
    "latent": (
        replace(
            tiny.RECIPE,
            epochs=1,
            objective=Latent(
                masks=2, target_blocks=1, decoder_dim=8, decoder_depth=2, decoder_groups=2
            ),
        ),
        "its pretraining method rebuilds no pixels",
    ),
    "encoder": (tiny.RECIPE, "these weights are an encoder without a decoder"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", NO_PICTURES)
def test_what_rebuilds_no_pixels_gives_an_encoder_and_no_page(
    unmask: Unmask, images: Path, trained: RunFolder, packed: Path, kind: str
) -> None:
    recipe, why = NO_PICTURES[kind]
    if kind == "encoder":
        source = tiny.newest(trained).folder / "encoder.safetensors"
    else:
        source = tiny.finished_run(Path("run"), images, recipe=recipe).root
    before = set(Path().iterdir())
    said = unmask("page", source, "--out", "page", "--runtime", packed, "--samples", "0")
    assert said.status == 1
    assert f"{source} cannot be shown on a page, because it rebuilds no pixels (" in said.err
    assert f"`unmask convert {source} FOLDER --to onnx` exports its encoder" in said.err
    assert set(Path().iterdir()) == before
    said = unmask("convert", source, "files", "--to", "onnx")
    assert said.status == 0, said.err
    assert f"only the encoder is exported, because {why}" in said.all
    assert sorted(path.name for path in Path("files").iterdir()) == ["README.md", "encoder.onnx"]


@pytest.mark.slow
def test_a_classifier_of_several_labels(unmask: Unmask, images: Path) -> None:
    files = sorted(images.iterdir())
    rows = [f"{one.name},{'sea;sky' if n % 3 else 'sea'}" for n, one in enumerate(files)]
    Path("labels.csv").write_text("file_name,label\n" + "\n".join(rows) + "\n")
    run = tiny.finished_run(Path("run"), images)
    quick = ["--epochs", "1", "--threads", "1", "--workers", "0", "--batch-size", "4"]
    said = unmask(
        "finetune", run.root, images, "--labels-file", "labels.csv", "--out", "tuned", *quick
    )
    assert said.status == 0, said.err
    said = unmask("convert", "tuned", "files", "--to", "onnx")
    assert said.status == 0, said.err
    session = onnxruntime.InferenceSession("files/classifier.onnx")
    facts = json.loads(session.get_modelmeta().custom_metadata_map["unmask"])
    assert facts["several_labels"]
    model = package.load("tuned")
    assert model.classifier is not None
    assert facts["thresholds"] == list(model.classifier.thresholds or ())
    view = model.classifier.tuned.job.recipe.test_views(model.read(files[0]), model.spec.image_size)
    _, probabilities = session.run(None, {"images": (view[0][None] / 255).numpy()})
    (guess,) = model.predict(files[0])
    found = dict(zip(facts["classes"], probabilities[0], strict=True))
    assert found == pytest.approx(guess.probabilities, abs=1e-5)


def of_transformers(folder: Path, place: str) -> Path:
    """Weights as transformers writes them: without our description, and with the path that they were loaded from."""
    file = written(weights_of(), folder, "huggingface")
    save_file(load_file(file), file, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_name_or_path": place}))
    return folder


def words_in(folder: Path) -> str:
    """All that can be read in the files of a folder."""
    parts = [file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()]
    return b"\n".join(parts).decode("latin-1")


@pytest.mark.slow
def test_nothing_published_says_where_weights_lie(
    unmask: Unmask, images: Path, classes: Path, packed: Path, tmp_path: Path
) -> None:
    """Weights at a path, in a cache of the Hub, and under the path that transformers wrote down."""
    secret = tmp_path / "secret-place"
    cached = secret / "models--owner--name" / "snapshots" / "0123"
    huggingface = of_transformers(cached, str(cached))
    ours = written(weights_of(), secret / "ours", "unmask")
    tuned = tiny_transfer.begin(secret / "tuned", classes)
    tiny_transfer.go_on(tuned)
    pairs = [(huggingface, "onnx"), *((one, "unmask") for one in (huggingface, ours, tuned.root))]
    for number, (source, to) in enumerate(pairs):
        said = unmask("convert", source, f"files-{number}", "--to", to)
        assert said.status == 0, said.err
        assert "secret-place" not in words_in(Path(f"files-{number}")), (source, to)
    words = [huggingface, tuned.root, "--out", "page", "--runtime", packed, "--images", images]
    said = unmask("page", *words, "--samples", "1")
    assert said.status == 0, said.err
    assert not re.findall("secret-place|" + re.escape(str(images)), words_in(Path("page")))
    assert "owner/name" in words_in(Path("page"))


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("facebook/vit-mae-base", "facebook/vit-mae-base"),
        ("/else/me/secret/mae", "mae"),
        ("./secret/mae/", "mae"),
        ("../secret/mae", "mae"),
        ("C:\\secret\\me\\mae", "mae"),
        ("/else/me/secret/hub/models--owner--name/snapshots/0123", "owner/name"),
    ],
)
def test_the_name_of_weights_without_their_place(tmp_path: Path, place: str, name: str) -> None:
    folder = of_transformers(tmp_path / "weights", place)
    assert package.load(folder).spec.origin == f"transformers weights, {name}"


@pytest.mark.slow
def test_a_card_with_pictures_and_a_page(unmask: Unmask, images: Path) -> None:
    run = tiny.finished_run(Path("run"), images)
    flags = ["--images", images, "--page", "https://example.org/page/"]
    for to in ("unmask", "onnx"):
        said = unmask("convert", run.root, to, "--to", to, *flags)
        assert said.status == 0, said.err
        card = Path(to, "README.md").read_text()
        assert "(reconstructions.png)" in card
        assert "[Try it in the browser](https://example.org/page/)" in card
        assert Path(to, "reconstructions.png").read_bytes().startswith(b"\x89PNG")
    encoder = tiny.newest(run).folder / "encoder.safetensors"
    said = unmask("convert", encoder, "other", "--to", "timm", "--images", images)
    assert "is an encoder alone, so it cannot rebuild images" in said.err
    said = unmask("convert", run.root, "other", "--to", "timm", "--page", "page")
    assert "--page page is not an address; upload the folder of `unmask page`" in said.err
    said = unmask("convert", run.root, "other.pth", "--to", "fair", "--images", images)
    assert "--images is for a folder; name one instead of other.pth" in said.err
    assert not Path("other").exists()
