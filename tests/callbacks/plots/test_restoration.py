from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics.functional.image import peak_signal_noise_ratio

import lightning_heads as lh
from lightning_heads.callbacks.plots import samples as sample_plot
from lightning_heads.callbacks.plots.restoration import RestorationPlot
from lightning_heads.drawing.sheet import Row, to_pixels
from tests.helpers import trainer_for

# left and top of the first picture of a sheet, and the margin between pictures
LEFT, TOP, MARGIN = 14, 60, 14


class Pairs(Dataset[Any]):
    def __init__(self, size: int, side: int = 24, channels: int = 3, shrink: int = 1) -> None:
        generator = torch.Generator().manual_seed(2)
        self.targets = torch.rand(size, 3, side, side, generator=generator)
        self.inputs = self.targets[:, :channels, ::shrink, ::shrink]
        self.paths = [f"{i}.png" for i in range(size)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.inputs[i], self.targets[i]


def _task(channels: int = 3, shrink: int = 1) -> lh.TransferModule:
    model = nn.Sequential(nn.Upsample(scale_factor=shrink), nn.Conv2d(channels, 3, 3, padding=1))
    return lh.TransferModule(model, nn.MSELoss())


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file)


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Row]]:
    drawn: dict[str, list[Row]] = {}
    draw = sample_plot.draw_sheet

    def record(title: str, columns: Any, rows: list[Row]) -> Image.Image:
        drawn[title] = rows
        return draw(title, columns, rows)

    monkeypatch.setattr(sample_plot, "draw_sheet", record)
    return drawn


def test_the_same_and_the_worst_images_are_drawn_every_epoch(tmp_path: Path, sheets: dict[str, list[Row]]) -> None:
    data, task = Pairs(9), _task()
    trainer = trainer_for(tmp_path, [RestorationPlot(tmp_path, 2)], 2, log_every_n_steps=1)
    trainer.fit(task, DataLoader(Pairs(4), 2), DataLoader(data, 4))
    names = [f"val_images_{which}_epoch_00{epoch}.png" for which in ("fixed", "worst") for epoch in (0, 1)]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == names
    for epoch in (0, 1):
        rows = sheets[f"val images, fixed, epoch {epoch}"]
        assert [row.captions[0] for row in rows] == ["0.png", "4.png"]
    assert not np.array_equal(_read(tmp_path / names[0]), _read(tmp_path / names[1]))
    with torch.no_grad():
        predictions = task.eval()(data.inputs)
    ratios = [float(peak_signal_noise_ratio(p, t, 1.0)) for p, t in zip(predictions, data.targets, strict=True)]
    worst = sorted(range(9), key=ratios.__getitem__)[:2]
    assert [row.captions for row in sheets["val images, worst, epoch 1"]] == [
        [f"{i}.png", f"PSNR {ratios[i]:.2f} dB", ""] for i in worst
    ]


@pytest.mark.parametrize(
    ("side", "channels", "shrink", "scale"),
    [(24, 3, 1, 7), (24, 1, 1, 7), (40, 3, 4, 4), (200, 3, 2, 1)],
    ids=["color", "colorization", "enlargement", "large"],
)
def test_pixels_are_not_interpolated(tmp_path: Path, side: int, channels: int, shrink: int, scale: int) -> None:
    data, task = Pairs(1, side, channels, shrink), _task(channels, shrink)
    trainer_for(tmp_path, [RestorationPlot(tmp_path, 1)]).test(task, DataLoader(data), verbose=False)
    with torch.no_grad():
        prediction = task.eval()(data.inputs)[0]
    sheet = _read(tmp_path / "test_images_worst.png")
    drawn = side * scale
    for i, image in enumerate((data.inputs[0], prediction, data.targets[0])):
        pixels = (image.clamp(0, 1) * 255).round().numpy().transpose(1, 2, 0)
        times = drawn // len(pixels)
        left = LEFT + i * (drawn + MARGIN)
        shown = sheet[TOP : TOP + drawn, left : left + drawn]
        assert (shown == pixels.repeat(times, 0).repeat(times, 1)).all()


def test_large_images_are_center_cropped() -> None:
    target = torch.zeros(3, 700, 600)
    target[:, 94:606, 44:556] = 1
    row = RestorationPlot().draw(_task(), target[:1, ::2, ::2], target, target, 10.0, "")
    for picture in row.pictures:
        assert picture.shape == (512, 512, 3)
        assert (picture == 255).all()


def test_a_nan_prediction_is_the_worst_and_a_perfect_one_the_best(tmp_path: Path, sheets: dict[str, list[Row]]) -> None:
    class Broken(lh.TransferModule):
        def activation(self, outputs: Tensor) -> Tensor:
            outputs[1] = torch.nan
            return outputs

    data = Pairs(3)
    task = Broken(nn.Identity(), nn.MSELoss())
    trainer_for(tmp_path, [RestorationPlot(tmp_path, 3)]).test(task, DataLoader(data, 3), verbose=False)
    captions = [row.captions[:2] for row in sheets["test images, worst"]]
    assert captions == [["1.png", "PSNR -inf dB"], ["0.png", "PSNR inf dB"], ["2.png", "PSNR inf dB"]]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_images_are_converted_to_rgb(channels: int) -> None:
    image = torch.rand(channels, 5, 7)
    pixels = to_pixels(image)
    assert pixels.shape == (5, 7, 3)
    array = (image.numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0)
    if channels == 4:
        white = Image.new("RGBA", (7, 5), "white")
        oracle = np.asarray(Image.alpha_composite(white, Image.fromarray(array)))[..., :3]
    else:
        oracle = array[..., :3] if channels > 2 else array[..., :1].repeat(3, 2)
    assert np.abs(pixels.astype(int) - oracle).max() <= (2 if channels == 4 else 0)


def test_values_outside_the_range_are_clamped() -> None:
    pixels = to_pixels(torch.tensor([[[-1.0, 0.0, 0.5, 2.0, torch.nan, torch.inf]]]))
    assert pixels[0, :, 0].tolist() == [0, 0, 128, 255, 0, 255]
