import os
import sys
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.preprocessing import normalize
from torch import Tensor, nn

import lightning_heads as lh
from lightning_heads.cli import search
from lightning_heads.cli.main import main
from lightning_heads.data.embedding_index import EmbeddingIndex
from lightning_heads.search import LookAlikes, draw_look_alikes, embed, look_alikes
from lightning_heads.tasks.metric_learning import ImageEmbedder

SIZE = (32, 40)  # the size of the images, so that nothing is resized
COLORS = {"red": (220, 40, 40), "rose": (230, 60, 60), "green": (30, 200, 50), "blue": (40, 50, 210)}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


@pytest.fixture
def colors(tmp_path: Path) -> Path:
    """Images of a single color each."""
    for name, color in COLORS.items():
        (tmp_path / "colors" / name[0]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 32), color).save(tmp_path / "colors" / name[0] / f"{name}.png")
    return tmp_path / "colors"


class MeanColor(nn.Module):
    """A model whose encoder returns its input, so that embeddings are the mean of each channel."""

    def __init__(self) -> None:
        super().__init__()
        body = nn.Conv2d(3, 3, 1, bias=False)
        nn.init.dirac_(body.weight)
        self.encoder = lh.Encoder(nn.Sequential(body), normalize=False)


def _read(folder: Path) -> tuple[list[str], Tensor]:
    """Reads the images without code of the package."""
    paths = sorted(folder.rglob("*.png"))
    images = np.stack([np.asarray(Image.open(path), np.float32).transpose(2, 0, 1) / 255 for path in paths])
    return [path.relative_to(folder).as_posix() for path in paths], torch.from_numpy(images)


def test_embeddings_of_an_encoder_are_its_pooled_features(class_folder: Path, weights: Path) -> None:
    index = embed("test_resnet", class_folder, weights=weights, image_size=SIZE, batch_size=7, progress=False)
    model = timm.create_model("test_resnet", num_classes=0).eval()
    model.load_state_dict(torch.load(weights), strict=False)
    names, images = _read(class_folder)
    mean, std = (torch.tensor(model.pretrained_cfg[name])[:, None, None] for name in ("mean", "std"))
    with torch.no_grad():
        expected = normalize(model((images - mean) / std).numpy())
    assert index.names == names
    assert index.root == class_folder
    np.testing.assert_allclose(index.embeddings.numpy(), expected, atol=1e-5)


def test_embeddings_of_an_image_embedder_are_its_predictions(class_folder: Path) -> None:
    task = ImageEmbedder("test_resnet", 5, pretrained=False)
    index = embed(task, class_folder, image_size=SIZE, progress=False)
    with torch.no_grad():
        expected = normalize(task.eval().model(_read(class_folder)[1]).numpy())
    np.testing.assert_allclose(index.embeddings.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["encoder", "model", "task"])
def test_a_model_with_an_encoder_embeds_with_it(class_folder: Path, kind: str) -> None:
    task = lh.ImageClassifier("test_resnet", num_classes=2, pretrained=False)
    model = {"encoder": task.model.encoder, "model": task.model, "task": task}[kind]
    index = embed(model, class_folder, image_size=SIZE, progress=False)
    with torch.no_grad():
        pooled = nn.AdaptiveAvgPool2d(1)(task.eval().model.encoder(_read(class_folder)[1])).flatten(1)
    np.testing.assert_allclose(index.embeddings.numpy(), normalize(pooled.numpy()), atol=1e-5)


def test_a_model_without_an_encoder_is_refused(class_folder: Path) -> None:
    with pytest.raises(TypeError, match="Expected an `Encoder`, or a model or task that has one, but got Linear"):
        embed(nn.Linear(2, 2), class_folder)


def test_model_and_random_state_are_left_as_they_were(class_folder: Path) -> None:
    encoder = lh.Encoder("test_resnet", pretrained=False).train()
    frozen = next(module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    modes = [module.training for module in encoder.modules()]
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    random = torch.get_rng_state()
    index = embed(encoder, class_folder, image_size=SIZE, progress=False)
    assert not frozen.training
    assert [module.training for module in encoder.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    (index.embeddings.clone().requires_grad_() * 2).sum().backward()  # not an inference tensor


@pytest.mark.parametrize("channels", [1, 4])
def test_images_are_read_with_the_channels_of_the_encoder(class_folder: Path, channels: int) -> None:
    encoder = lh.Encoder("test_resnet", pretrained=False, in_channels=channels)
    index = embed(encoder, class_folder, image_size=SIZE, progress=False)
    assert index.made_by["channels"] == channels


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_file_raises_an_error_or_is_skipped(class_folder: Path, num_workers: int) -> None:
    (class_folder / "bright/5.png").write_bytes(b"no image")
    settings: dict[str, Any] = {"image_size": SIZE, "batch_size": 4, "num_workers": num_workers, "progress": False}
    encoder = lh.Encoder("test_resnet", pretrained=False)
    with pytest.raises(lh.ImageReadError, match=r"bright/5\.png"):
        embed(encoder, class_folder, **settings)
    with pytest.warns(UserWarning, match=r"1 of 20 images are left out:\n.*bright/5\.png: reading it failed"):
        index = embed(encoder, class_folder, on_error="skip", **settings)
    (class_folder / "bright/5.png").unlink()
    expected = embed(encoder, class_folder, **settings)
    assert index.names == expected.names
    assert torch.allclose(index.embeddings, expected.embeddings, atol=1e-6)


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    encoder = lh.Encoder("test_resnet", pretrained=False)
    with pytest.raises(ValueError, match=r"Expected images in .*, but there are none"):
        embed(encoder, tmp_path)
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match="images that can be read, but none of 1 can"):
        embed(encoder, tmp_path, on_error="skip", progress=False)
    with pytest.raises(ValueError, match="`on_error` to be raise or skip, but got 'ignore'"):
        embed(encoder, tmp_path, on_error="ignore")  # type: ignore[arg-type]


def test_look_alikes_of_a_saved_index(class_folder: Path, weights: Path, tmp_path: Path) -> None:
    embed("test_resnet", class_folder, weights=weights, image_size=24, progress=False).save(tmp_path / "index")
    index = EmbeddingIndex.load(tmp_path / "index")
    (tmp_path / "queries").mkdir()
    for i, name in enumerate(["bright/3.png", "dark/8.png"]):
        copy = np.asarray(Image.open(class_folder / name)).copy()
        copy[10:12, 10:12] = 0
        Image.fromarray(copy).save(tmp_path / f"queries/{i}.png")
    found = look_alikes(index, tmp_path / "queries", 4)
    assert [each.query.name for each in found] == ["0.png", "1.png"]
    assert [each.paths[0] for each in found] == [class_folder / "bright/3.png", class_folder / "dark/8.png"]
    assert all(each.scores == sorted(each.scores, reverse=True) and len(each.paths) == 4 for each in found)
    (itself,) = look_alikes(index, class_folder / "dark/0.png", 1)
    assert itself.paths == [class_folder / "dark/0.png"]
    assert itself.scores == pytest.approx([1], abs=1e-5)


def test_a_model_with_different_weights_is_refused(class_folder: Path, weights: Path) -> None:
    index = embed("test_resnet", class_folder, weights=weights, image_size=24, progress=False)
    state = torch.load(weights)
    next(value for value in state.values() if value.ndim == 4)[0, 0, 0, 0] += 1
    torch.save(state, weights)
    with pytest.raises(ValueError, match="the model that made the index, test_resnet, but its weights differ"):
        look_alikes(index, class_folder / "dark/0.png", 2)


def test_a_model_with_another_embedding_dimension_is_refused(class_folder: Path) -> None:
    index = embed(ImageEmbedder("test_resnet", 5, pretrained=False), class_folder, image_size=24, progress=False)
    other = ImageEmbedder("test_resnet", 6, pretrained=False)
    with pytest.raises(ValueError, match="the model that made the index"):
        look_alikes(index, class_folder / "dark/0.png", 2, model=other)


def test_an_index_of_a_model_in_memory_needs_the_model(class_folder: Path) -> None:
    encoder = lh.Encoder("test_resnet", pretrained=False)
    index = embed(encoder, class_folder, image_size=24, progress=False)
    with pytest.raises(ValueError, match="Expected `model`, as the index was made by a model in memory"):
        look_alikes(index, class_folder / "dark/0.png", 2)
    (found,) = look_alikes(index, class_folder / "dark/0.png", 2, model=encoder)
    assert found.paths[0].name == "0.png"


def test_an_index_not_made_by_embed_is_refused(class_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="an index that `embed` made"):
        look_alikes(EmbeddingIndex(["a"], torch.ones(1, 2)), class_folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"Expected images in .*empty, but there are none"):
        look_alikes(EmbeddingIndex(["a"], torch.ones(1, 2)), tmp_path / "empty")


def _checkpoint(task: L.LightningModule, path: Path, class_path: str | None) -> Path:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["class_path"] = class_path
    torch.save(checkpoint, path)
    return path


def test_embeddings_of_a_checkpoint_equal_those_of_its_task(class_folder: Path, tmp_path: Path) -> None:
    task = ImageEmbedder("test_resnet", 5, pretrained=False)
    path = _checkpoint(task, tmp_path / "run.ckpt", "lightning_heads.tasks.metric_learning.ImageEmbedder")
    index = embed(str(path), class_folder, image_size=24, progress=False)
    expected = embed(task, class_folder, image_size=24, progress=False)
    assert torch.allclose(index.embeddings, expected.embeddings, atol=1e-6)
    (found,) = look_alikes(index, class_folder / "dark/0.png", 2)
    assert found.paths[0] == class_folder / "dark/0.png"


@pytest.mark.parametrize("class_path", [None, "collections.OrderedDict", "antigravity.Task", "lightning_heads.None"])
def test_a_checkpoint_of_an_unknown_task_class_is_refused(
    class_folder: Path, tmp_path: Path, class_path: str | None
) -> None:
    task = lh.ImageClassifier("test_resnet", num_classes=2, pretrained=False)
    path = _checkpoint(task, tmp_path / "run.ckpt", class_path)
    with pytest.raises(ValueError, match=rf"run\.ckpt to name the class of a task, but it names {class_path or 'no'}"):
        embed(path, class_folder)
    assert "antigravity" not in sys.modules


def test_invalid_checkpoints_are_refused(class_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Expected a checkpoint"):
        embed(tmp_path / "run.ckpt", class_folder)
    (tmp_path / "run.ckpt").write_text("no checkpoint")
    with pytest.raises(ValueError, match="to be a checkpoint of plain values"):
        embed(tmp_path / "run.ckpt", class_folder)
    with pytest.raises(ValueError, match="`weights` only with an architecture's name"):
        embed(tmp_path / "run.ckpt", class_folder, weights="weights.pt")


def test_the_sheet_shows_query_and_look_alikes_in_order(colors: Path) -> None:
    model = MeanColor()
    index = embed(model, colors, image_size=16, progress=False)
    found = look_alikes(index, colors / "r", 3, model=model)
    sheet = np.asarray(draw_look_alikes(found))
    assert [each.paths[0].stem for each in found] == ["red", "rose"]
    # the center pixel of each picture of a row, from left to right, without the background
    rows = []
    for y in range(len(sheet)):
        line = [tuple(pixel) for pixel in sheet[y].tolist() if tuple(pixel) in COLORS.values()]
        row = [color for i, color in enumerate(line) if i % 160 == 80]
        if row and (not rows or rows[-1] != row):
            rows.append(row)
    assert rows == [[COLORS[path.stem] for path in (each.query, *each.paths)] for each in found]


def test_a_sheet_needs_the_same_number_of_results_for_each_query() -> None:
    path = Path("a.png")
    for found in ([], [LookAlikes(path, [path], [1.0]), LookAlikes(path, [path] * 2, [1.0, 0.5])]):
        with pytest.raises(ValueError, match="the same number of look-alikes for each query"):
            draw_look_alikes(found)


def test_the_command_line_embeds_and_searches(
    class_folder: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = str(tmp_path / "photos.safetensors")
    making = ["--encoder=test_resnet", f"--weights={weights}", "--image_size=[32,40]", "--device=cpu"]
    assert main(["embed", "--folder", str(class_folder), "--output", index, *making]) is None
    assert "20 images, 96 numbers each" in capsys.readouterr().out
    query, sheet = str(class_folder / "dark/4.png"), tmp_path / "out/sheet.png"
    main(["nearest", "--index", index, "--image", query, "--k=9", "--output", str(sheet)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [query, f"  1.000  {query}"]
    assert len(lines) == 11
    with Image.open(sheet) as picture:
        assert picture.width > 10 * 160


@pytest.mark.parametrize(
    ("given", "message"), [([], "got neither"), (["--encoder=resnet18", "--ckpt=run.ckpt"], "got both")]
)
def test_the_command_line_takes_either_encoder_or_checkpoint(tmp_path: Path, given: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=f"either `encoder` or `ckpt`, but {message}"):
        main(["embed", f"--folder={tmp_path}", f"--output={tmp_path / 'index'}", *given])


def test_file_names_that_are_not_utf_8_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(os.fsdecode(b"caf\xe9.png"))
    monkeypatch.setattr(search, "look_alikes", lambda *_, **__: [LookAlikes(file, [file], [1.0])])
    monkeypatch.setattr(EmbeddingIndex, "load", lambda _: None)
    search.nearest_command(Path("photos.safetensors"), file)
    assert capsys.readouterr().out.splitlines() == [r"caf\udce9.png", r"  1.000  caf\udce9.png"]


def test_help_lists_the_search_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "embed, nearest" in capsys.readouterr().out


def test_a_misspelt_argument_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["embed", f"--folder={tmp_path}", f"--output={tmp_path / 'index'}", "--encode=resnet18"])
    assert "--encode" in capsys.readouterr().err


def test_images_in_other_units_are_refused(class_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lightning_heads.search.embedding.ImageDataset.__getitem__", lambda *_: torch.full((3, 8, 8), 255.0)
    )
    with pytest.raises(ValueError, match=r"Expected images in 0\.\.1, but this batch has values from 255 to 255"):
        embed(lh.Encoder("test_resnet", pretrained=False), class_folder, num_workers=0, progress=False)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        *((kind, part) for kind in ("embedder", "task") for part in ("whole", "model", "encoder")),
        *((kind, "whole") for kind in ("model", "encoder")),
    ],
)
def test_compiled_models_embed_as_others(class_folder: Path, kind: str, part: str) -> None:
    embedder: Any = ImageEmbedder("test_resnet", 8, pretrained=False)
    task = lh.TransferModule(embedder.model, nn.CrossEntropyLoss())
    models = {"embedder": embedder, "task": task, "model": task.model, "encoder": embedder.model.encoder}
    model: Any = models[kind]
    settings: dict[str, Any] = {"image_size": SIZE, "num_workers": 0, "progress": False}
    expected = embed(model, class_folder, **settings)
    if part == "model":
        model.model = torch.compile(model.model, backend="eager")
    elif part == "encoder":
        model.model.encoder = torch.compile(model.model.encoder, backend="eager")
    else:
        model = torch.compile(model, backend="eager")
    with torch.compiler.set_stance("force_eager"):  # without compilation, which takes long
        index = embed(model, class_folder, **settings)
        for each in (index, expected):
            assert look_alikes(each, class_folder / "dark", k=1, model=model)[0].paths == [class_folder / "dark/0.png"]
    torch.testing.assert_close(index.embeddings, expected.embeddings)
    assert index.made_by == expected.made_by


def test_values_of_12_bits_are_embedded_searched_and_drawn_by_one_range(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for folder in ("deep", "bytes"):
        (tmp_path / folder).mkdir()
    for i in range(3):
        values = generator.integers(0, 256, SIZE) // (i + 1)
        Image.fromarray((values * (4095 / 255)).round().astype(np.int32)).save(tmp_path / f"deep/{i}.tif")
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / f"bytes/{i}.png")
    encoder = lh.Encoder("test_resnet", pretrained=False)
    settings: dict[str, Any] = {"image_size": SIZE, "progress": False}
    deep = embed(encoder, tmp_path / "deep", value_range=(np.int64(0), 4095), **settings)
    torch.testing.assert_close(deep.embeddings, embed(encoder, tmp_path / "bytes", **settings).embeddings)
    deep.save(tmp_path / "deep.safetensors")
    found = look_alikes(tmp_path / "deep.safetensors", tmp_path / "deep", model=encoder)
    assert [each.paths[0].name for each in found] == ["0.tif", "1.tif", "2.tif"]
    assert np.asarray(draw_look_alikes(found)).std() > 0
    with pytest.raises(lh.ImageReadError, match="32-bit or signed integers, which have no common range"):
        embed(encoder, tmp_path / "deep", **settings)
