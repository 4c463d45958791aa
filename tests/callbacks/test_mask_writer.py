import csv
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset

import lightning_heads as lh
from lightning_heads.callbacks.mask_writer import MaskWriter
from lightning_heads.callbacks.pictures import default_palette
from lightning_heads.data.dataset import ImageDataset
from lightning_heads.data.read import read_image
from lightning_heads.data.resize import ResizeTo
from tests.helpers import run_processes, trainer_for

MakeImage = Callable[..., Path]


class Segmenter(lh.TransferModule):
    def __init__(self, channels: int = 4, multilabel: bool = False, names: list[str] | None = None) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(3, channels, 5, padding=2), nn.CrossEntropyLoss())
        nn.init.normal_(self.model.weight, std=3)
        self.model.bias.data = -self.model.weight.detach().sum(dim=(1, 2, 3)) / 2
        self.multilabel, self.class_names = multilabel, names

    def activation(self, outputs: Tensor) -> Tensor:
        labels = self.multilabel or outputs.shape[1] == 1
        return outputs.sigmoid() if labels else outputs.softmax(dim=1)


def _dataset(files: list[Path]) -> ImageDataset:
    return ImageDataset(files, None, channels=3, size=ResizeTo((20, 28), "squish"))


def _predict(folder: Path, task: lh.TransferModule, data: Dataset[Any], batch_size: int = 1, **settings: Any) -> None:
    writer = MaskWriter(folder / "masks", settings.pop("palette", None))
    loader = DataLoader(data, batch_size, shuffle=settings.pop("shuffle", False))
    trainer_for(folder, [writer], **settings).predict(task, loader, return_predictions=False)


def _resized(task: Segmenter, data: ImageDataset, i: int) -> Tensor:
    """Probabilities `(c, h, w)` at the size of the file."""
    size = read_image(data.paths[i]).shape[-2:]
    with torch.inference_mode():
        return F.interpolate(task.eval().activation(task(data[i][None])), size, mode="bilinear")[0]


def _read(path: Path) -> tuple[str, np.ndarray, list[int] | None]:
    with Image.open(path) as file:
        return file.mode, np.asarray(file), file.getpalette()


@pytest.fixture
def files(make_image: MakeImage) -> list[Path]:
    sizes = [(40, 32), (17, 61), (28, 20), (90, 30)]
    return [make_image(f"photos/{i % 2}/{i}.png", size=size, seed=i) for i, size in enumerate(sizes)]


def _masks(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder / "masks")) for path in folder.glob("masks/**/*.*"))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.filterwarnings("ignore:.*has shuffling enabled")
def test_masks_have_the_size_of_their_files(tmp_path: Path, files: list[Path], batch_size: int, shuffle: bool) -> None:
    task, data = Segmenter(names=["sky", "sea", "sand", "sun"]), _dataset(files)
    _predict(tmp_path, task, data, batch_size, shuffle=shuffle)
    assert _masks(tmp_path) == ["0/0.png", "0/2.png", "1/1.png", "1/3.png", "classes.csv"]
    for i, file in enumerate(files):
        mode, mask, palette = _read(tmp_path / "masks" / file.relative_to(tmp_path / "photos"))
        assert mode == "P"
        assert (mask == _resized(task, data, i).argmax(dim=0).numpy()).mean() > 0.999  # rounding may differ
        assert len(np.unique(mask)) > 1
        assert palette == [value for colour in default_palette()[:4] for value in colour]
    with (tmp_path / "masks" / "classes.csv").open() as table:
        rows = [*csv.reader(table)]
    assert rows[:3] == [["value", "class", "colour"], ["0", "sky", "#000000"], ["1", "sea", "#e69f00"]]
    assert len(rows) == 5


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("extension", ["jpg", "tif", "png"])
def test_photographs_are_turned_upright(tmp_path: Path, extension: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"photo.{extension}"
    noise = np.random.default_rng(0).integers(0, 255, (24, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, exif=exif)
    task, data = Segmenter(), _dataset([path])
    _predict(tmp_path, task, data)
    mask = _read(tmp_path / "masks" / "photo.png")[1]
    assert mask.shape == read_image(path).shape[-2:] == ((50, 24) if orientation > 4 else (24, 50))
    assert (mask == _resized(task, data, 0).argmax(dim=0).numpy()).mean() > 0.999


def test_files_that_differ_by_extension_get_masks_of_their_own(tmp_path: Path, make_image: MakeImage) -> None:
    names = ["a.png", "a.jpg", "a.jpg.png", "b.png", "c/b.png"]
    files = [make_image(f"photos/{name}", seed=i) for i, name in enumerate(names)]
    _predict(tmp_path, Segmenter(), _dataset([*files, files[0]]))
    assert _masks(tmp_path) == ["a.jpg.png", "a.jpg.png.png", "a.png.png", "b.png", "c/b.png", "classes.csv"]


@pytest.mark.parametrize(("first", "second"), [("left ear", "right/ear"), ("a b", "a/b"), ("..", "up")])
def test_each_label_has_a_folder(tmp_path: Path, files: list[Path], first: str, second: str) -> None:
    task, data = Segmenter(2, multilabel=True, names=[first, second]), _dataset(files)
    _predict(tmp_path, task, data)
    with (tmp_path / "masks" / "classes.csv").open() as table:
        rows = [*csv.DictReader(table)]
    assert [row["class"] for row in rows] == [first, second]
    folders = [row["folder"] for row in rows]
    assert len({*folders}) == 2
    assert len(_masks(tmp_path)) == 2 * len(files) + 1
    for i, file in enumerate(files):
        expected = _resized(task, data, i) > 0.5
        for k, folder in enumerate(folders):
            mode, mask, _ = _read(tmp_path / "masks" / folder / file.relative_to(tmp_path / "photos"))
            assert mode == "L"
            assert ((mask == 255) == expected[k].numpy()).mean() > 0.999
            assert {*np.unique(mask).tolist()} == {0, 255}


def test_one_channel_needs_no_folder(tmp_path: Path, files: list[Path]) -> None:
    task, data = Segmenter(1), _dataset(files)
    _predict(tmp_path, task, data)
    mask = _read(tmp_path / "masks" / "0" / "0.png")[1]
    assert ((mask == 255) == (_resized(task, data, 0)[0] > 0.5).numpy()).mean() > 0.999


class Plain(Dataset[Tensor]):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, i: int) -> Tensor:
        return torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(i))


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Any:
        return iter([Plain()[i] for i in range(5)])


@pytest.mark.parametrize("data", [Plain(), Stream()], ids=["map", "stream"])
@pytest.mark.filterwarnings("ignore:Couldn't infer the batch indices")
def test_data_without_paths_is_named_by_index(tmp_path: Path, data: Dataset[Any]) -> None:
    task = Segmenter()
    _predict(tmp_path, task, data, batch_size=2)
    assert _masks(tmp_path) == [*(f"00000{i}.png" for i in range(5)), "classes.csv"]
    with torch.inference_mode():
        expected = task.eval()(torch.stack([Plain()[i] for i in range(5)])).argmax(dim=1).numpy()
    for i in range(5):
        assert (_read(tmp_path / "masks" / f"00000{i}.png")[1] == expected[i]).all()


def test_several_loaders_do_not_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Two(Segmenter):
        def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
            return super().predict_step(batch, batch_idx)

    trainer = trainer_for(tmp_path, [MaskWriter()])
    trainer.predict(Two(), [DataLoader(Plain(), 2), DataLoader(Plain(), 2)], return_predictions=False)
    names = [f"{loader}_00000{i}.png" for loader in (0, 1) for i in range(5)]
    assert _masks(tmp_path) == [*names, "classes.csv"]
    assert f"Wrote masks of 10 images to {tmp_path / 'masks'}" in capsys.readouterr().out


def test_a_palette_of_ones_own(tmp_path: Path) -> None:
    palette = [[i, 255 - i, 7] for i in range(256)]
    _predict(tmp_path, Segmenter(256), Plain(), palette=palette)
    mode, mask, written = _read(tmp_path / "masks" / "000000.png")
    assert mode == "P"
    assert mask.max() > 128
    assert written == [value for colour in palette for value in colour]


def test_a_folder_of_images_is_not_written_over(tmp_path: Path, files: list[Path]) -> None:
    contents = files[0].read_bytes()
    trainer = trainer_for(tmp_path, [MaskWriter(tmp_path / "photos")])
    with pytest.raises(ValueError, match=r"another than the images', but .*0/0.png would be replaced"):
        trainer.predict(Segmenter(), DataLoader(_dataset(files)))
    assert files[0].read_bytes() == contents


def test_predictions_that_are_no_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected predictions of \(b, c, h, w\) .* but got \(1, 3\)"):
        _predict(tmp_path, lh.TransferModule(nn.Identity(), nn.MSELoss()), _Vectors())
    with pytest.raises(ValueError, match=r"Expected 256 classes or fewer, .* but got 257"):
        _predict(tmp_path, Segmenter(257), Plain())
    with pytest.raises(ValueError, match="Expected `palette` to have 4 colours, one a class, but got 1"):
        _predict(tmp_path, Segmenter(4), Plain(), palette=[[0, 0, 0]])


class _Vectors(Plain):
    def __getitem__(self, i: int) -> Tensor:
        return torch.zeros(3)


def _write(folder: Path, files: list[Path], world_size: int) -> int:
    strategy = "ddp" if world_size > 1 else "auto"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _predict(folder / str(world_size), Segmenter(), _dataset(files), devices=world_size, strategy=strategy)
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def test_two_processes_write_what_one_writes(tmp_path: Path, make_image: MakeImage) -> None:
    files = [make_image(f"photos/{i}.png", size=(30 + i, 25), seed=i) for i in range(5)]
    assert run_processes(_write, 2, tmp_path, tmp_path, files, 2) == [2, 2]
    assert _write(tmp_path, files, 1) == 1
    assert _masks(tmp_path / "1") == _masks(tmp_path / "2")
    for file in files:
        one, two = (_read(tmp_path / n / "masks" / file.name)[1] for n in ("1", "2"))
        assert (one == two).all()
