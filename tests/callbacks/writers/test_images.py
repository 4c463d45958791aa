from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import lightning_heads as lh
from lightning_heads.callbacks.writers.images import ImageWriter
from lightning_heads.data.images.dataset import ImageDataset
from lightning_heads.data.transforms.resize import ResizeTo
from lightning_heads.tasks.restoration import ImageRestorer
from tests.helpers import trainer_for

MakeImage = Callable[..., Path]


class Same(lh.TransferModule):
    """Predicts its input."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), nn.MSELoss())


def _predict(
    folder: Path, data: Dataset[Any], images: Path | None = None, task: lh.TransferModule | None = None
) -> Any:
    trainer = trainer_for(folder, [ImageWriter(images)])
    return trainer.predict(task or Same(), DataLoader(data, 2))


def _read(path: Path) -> tuple[str, np.ndarray]:
    with Image.open(path) as file:
        assert file.format == "PNG"
        return file.mode, np.asarray(file)


def _written(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_files_hold_the_rounded_values(tmp_path: Path, channels: int, mode: str, dtype: torch.dtype) -> None:
    images = torch.rand(3, channels, 7, 10, generator=torch.Generator().manual_seed(0)).to(dtype)
    _predict(tmp_path, TensorDataset(images))
    assert _written(tmp_path / "predicted_images") == ["000000.png", "000001.png", "000002.png"]
    for i, image in enumerate(images.double().numpy()):
        got, pixels = _read(tmp_path / "predicted_images" / f"00000{i}.png")
        assert got == mode
        expected = np.rint(image * 255).transpose(1, 2, 0)
        assert np.array_equal(pixels.reshape(7, 10, channels), expected)
        assert len(np.unique(expected)) > 20


def test_8_bit_values_are_written_exactly(tmp_path: Path) -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    _predict(tmp_path, TensorDataset(values / 255))
    assert np.array_equal(_read(tmp_path / "predicted_images" / "000000.png")[1], values[0, 0].numpy())


def test_values_outside_the_range_are_clamped(tmp_path: Path) -> None:
    values = torch.tensor([-0.3, 1.4, torch.inf, -torch.inf, torch.nan, 0.25]).view(1, 1, 1, 6)
    _predict(tmp_path, TensorDataset(values))
    assert _read(tmp_path / "predicted_images" / "000000.png")[1].tolist() == [[0, 255, 255, 0, 0, 64]]


def test_images_keep_the_size_of_their_predictions(tmp_path: Path, make_image: MakeImage) -> None:
    class Doubled(Same):
        def activation(self, outputs: Tensor) -> Tensor:
            return outputs.repeat_interleave(2, dim=2).repeat_interleave(3, dim=3)

    files = [make_image(f"photos/{name}", size=(12, 9), seed=i) for i, name in enumerate(["a/1.png", "b.png"])]
    data = ImageDataset(files, None, channels=3, size=ResizeTo((9, 12), "squish"))
    _predict(tmp_path, data, task=Doubled())
    for file in files:
        mode, pixels = _read(tmp_path / "predicted_images" / file.relative_to(tmp_path / "photos"))
        assert mode == "RGB"
        assert np.array_equal(pixels, _read(file)[1].repeat(2, axis=0).repeat(3, axis=1))


def test_images_are_named_like_their_files(
    tmp_path: Path, make_image: MakeImage, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a.jpg", "a.png", "b.jpg", "c/a.tif"]
    files = [make_image(f"photos/{name}", seed=i) for i, name in enumerate(names)]
    folder = tmp_path / "restored" / "first"
    _predict(tmp_path, ImageDataset(files, None, channels=3, size=ResizeTo((9, 12), "squish")), folder)
    assert _written(folder) == ["a.jpg.png", "a.png.png", "b.png", "c/a.png"]
    assert not (tmp_path / "predicted_images").exists()
    assert f"Wrote 4 images to {folder}" in capsys.readouterr().out


def test_images_of_the_data_set_are_not_overwritten(tmp_path: Path, make_image: MakeImage) -> None:
    file = make_image("photos/a.png")
    contents = file.read_bytes()
    data = ImageDataset([file], None, channels=1, size=ResizeTo((9, 12), "squish"))
    with pytest.raises(ValueError, match=r"differ from the folders of the data, but .*a.png would be overwritten"):
        _predict(tmp_path, data, file.parent)
    assert file.read_bytes() == contents


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 6, 6), "of 1, 3 or 4 channels to write as images, but got 2"),
        ((5, 6, 6), "of 1, 3 or 4 channels to write as images, but got 5"),
        ((3,), r"of \(b, c, h, w\) to write as images, but got \(2, 3\)"),
    ],
)
def test_predictions_that_are_not_images_are_refused(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"Expected predictions {message}"):
        _predict(tmp_path, TensorDataset(torch.zeros(2, *shape)))
    assert not (tmp_path / "predicted_images").exists()


def test_restored_images_are_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = TensorDataset(torch.rand(2, 3, 32, 48))
    task = ImageRestorer("test_resnet", pretrained=False, residual=False)
    (predictions,) = _predict(tmp_path, data, task=task)
    for i, image in enumerate(predictions.numpy()):
        pixels = _read(tmp_path / "predicted_images" / f"00000{i}.png")[1]
        assert np.abs(pixels / 255 - image.transpose(1, 2, 0)).max() <= 0.5 / 255 + 1e-6
        assert len(np.unique(pixels)) > 20


def test_other_inputs_are_not_overwritten(tmp_path: Path, make_image: MakeImage) -> None:
    for name in ("photos/a.png", "photos/out/a.png"):
        make_image(name)
    data = lh.RestorationData(
        tmp_path / "photos",
        degradation=nn.Identity(),
        valid_fraction=0.5,
        predict_root=tmp_path / "photos",
        num_workers=0,
    )
    kept = (tmp_path / "photos/out/a.png").read_bytes()
    with pytest.raises(ValueError, match=r"out/a.png would be overwritten"):
        trainer_for(tmp_path, [ImageWriter(tmp_path / "photos/out")]).predict(Same(), data)
    assert (tmp_path / "photos/out/a.png").read_bytes() == kept


def test_targets_are_not_overwritten(tmp_path: Path, make_image: MakeImage) -> None:
    for i in range(4):
        make_image(f"bad/{i}.png", seed=i)
        make_image(f"good/{i}.png", seed=9 + i)
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    # the data set of `predict` has no targets
    data = lh.RestorationData(
        tmp_path / "bad", targets=tmp_path / "good", predict_root=tmp_path / "bad", image_size=32, num_workers=0
    )
    with pytest.raises(ValueError, match=r"differ from the folders of the data, but .*good/0.png would be overwritten"):
        trainer_for(tmp_path, [ImageWriter(tmp_path / "good")]).predict(Same(), data)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == kept
