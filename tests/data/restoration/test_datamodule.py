from collections.abc import Callable, Iterable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

import lightning_heads as lh
from lightning_heads.data.restoration.datamodule import RestorationData
from lightning_heads.data.transforms.degrade import Crappify, Downscale, Grayscale, Noise

MakeImage = Callable[..., Path]


@pytest.fixture
def photos(tmp_path: Path, make_image: MakeImage) -> Path:
    """Ten photographs in nested folders, of 40x32 and 48x36 pixels."""
    for i in range(10):
        make_image(f"photos/{'ab'[i % 2]}/deep{i // 5}/{i}.png", size=(40 + 8 * (i % 2), 32 + 4 * (i % 2)), seed=i)
    return tmp_path / "photos"


def _data(root: Path, degradation: nn.Module | None = None, **settings: object) -> RestorationData:
    defaults = {"image_size": 24, "batch_size": 4, "num_workers": 0}
    return RestorationData(root, degradation=degradation, **{**defaults, **settings})


def _read(path: Path, mode: str = "RGB") -> Tensor:
    array = np.atleast_3d(np.asarray(Image.open(path).convert(mode)))
    return torch.from_numpy(array.copy()).movedim(-1, 0) / 255


def _all(batches: Iterable[list[Tensor]]) -> tuple[Tensor, Tensor]:
    inputs, targets = zip(*batches, strict=True)
    return torch.cat(inputs), torch.cat(targets)


def _is_crop(crop: Tensor, photo: Tensor) -> bool:
    h, w = crop.shape[-2:]
    patches = photo.unfold(1, h, 1).unfold(2, w, 1).movedim(0, 2)
    return bool((patches - crop).abs().flatten(2).amax(2).min() < 1e-6)


def test_any_folder_is_split_by_fraction(photos: Path) -> None:
    data = _data(photos, Downscale(2), valid_fraction=0.2, test_fraction=0.1)
    assert {split: len(samples.paths) for split, samples in data.samples.items()} == {"train": 7, "valid": 2, "test": 1}
    everything = [path for samples in data.samples.values() for path in samples.paths]
    assert sorted(everything) == sorted(photos.rglob("*.png"))
    again = _data(photos, Downscale(2), valid_fraction=0.2, test_fraction=0.1)
    assert again.samples["test"].paths == data.samples["test"].paths
    assert (
        _data(photos, Downscale(2), seed=1).samples["train"].paths != _data(photos, Downscale(2)).samples["train"].paths
    )


@pytest.mark.parametrize("valid", ["valid", "val"])
def test_split_folders_determine_the_splits(tmp_path: Path, make_image: MakeImage, valid: str) -> None:
    for name in ("train/0.png", "train/x/1.png", f"{valid}/x/0.png", "test/0.png"):
        make_image(f"data/{name}")
    data = _data(tmp_path / "data", Downscale(2))
    assert {split: len(s.paths) for split, s in data.samples.items()} == {"train": 2, "valid": 1, "test": 1}


def test_crops_are_exact_and_degraded_after_cropping(photos: Path) -> None:
    data = _data(photos, Downscale(3), augment=False, valid_fraction=0.0, channels=1)
    inputs, targets = _all(data.train_dataloader())
    assert inputs.shape == targets.shape == (10, 1, 24, 24)
    sources = [_read(path, "L") for path in data.samples["train"].paths]
    for image, target in zip(inputs, targets, strict=True):
        assert sum(_is_crop(target, source) for source in sources) == 1
        assert image.equal(Downscale(3)(target))


@pytest.mark.parametrize("resize", ["none", "crop", "squish", "pad"])
@pytest.mark.parametrize("augmentation", [None, lh.AugTransforms(flip_vert=True), nn.Threshold(0.5, 0.0)])
def test_input_and_target_are_augmented_alike(photos: Path, resize: str, augmentation: nn.Module | None) -> None:
    data = _data(photos, nn.Identity(), resize=resize, augmentation=augmentation)
    inputs, targets = _all(data.train_dataloader())
    assert inputs.equal(targets)
    plain, _ = _all(_data(photos, nn.Identity(), resize="crop", augment=False).train_dataloader())
    assert type(inputs) is Tensor
    assert 0 <= inputs.min() < inputs.max() <= 1
    assert inputs.shape == plain.shape


def test_training_only_flips_by_default(photos: Path) -> None:
    torch.manual_seed(0)
    data = _data(photos, nn.Identity(), image_size=(32, 40), valid_fraction=0.0)
    small = {path.name: _read(path) for path in photos.glob("a/*/*.png")}
    _, targets = _all(data.train_dataloader())
    found = {
        flip: sum(any(t.equal(s.flip(-1) if flip else s) for s in small.values()) for t in targets) for flip in (0, 1)
    }
    assert min(found.values()) > 0
    assert sum(found.values()) == len(small)


@pytest.mark.parametrize(
    ("degradation", "channels", "inputs"),
    [(Grayscale(), 3, 1), (Grayscale(), 1, 1), (Downscale(2), 3, 3), (Downscale(2), 1, 1), (nn.Identity(), 4, 4)],
)
def test_channels_are_known_before_reading(photos: Path, degradation: nn.Module, channels: int, inputs: int) -> None:
    data = _data(photos, degradation, channels=channels)
    assert (data.in_channels, data.num_outputs, data.num_classes) == (inputs, channels, channels)
    x, y = next(iter(data.val_dataloader()))
    assert (x.shape[1], y.shape[1]) == (inputs, channels)


def test_in_channels_leaves_the_random_state(photos: Path) -> None:
    data = _data(photos, Noise(0.1))
    state = torch.get_rng_state()
    assert data.in_channels == 3
    assert torch.get_rng_state().equal(state)


def test_inputs_of_colorization_are_luminance(photos: Path) -> None:
    data = _data(photos, Grayscale(), whole=True)
    for (x, y), path in zip(data.val_dataloader(), data.samples["valid"].paths, strict=True):
        assert (x[0] - _read(path, "L")).abs().max() < 1.1 / 255
        torch.testing.assert_close(y[0], _read(path))


@pytest.mark.parametrize("degradation", [Noise((0.05, 0.2)), Crappify(2)])
def test_evaluation_is_deterministic_with_any_number_of_workers(photos: Path, degradation: nn.Module) -> None:
    runs = []
    for workers in (0, 2):
        data = _data(photos, degradation, num_workers=workers, valid_fraction=0.4)
        loader = data.val_dataloader()
        for _ in range(2):
            torch.rand(3)
            runs.append(_all(loader))
    for inputs, targets in runs[1:]:
        assert inputs.equal(runs[0][0])
        assert targets.equal(runs[0][1])


def test_evaluation_images_have_independent_noise(photos: Path) -> None:
    data = _data(photos, Noise(0.1), valid_fraction=0.4)
    state = torch.get_rng_state()
    dataset = data.val_dataloader().dataset
    noises = torch.stack([x - y for x, y in (dataset[i] for i in range(4))]).flatten(1)
    assert torch.get_rng_state().equal(state)
    assert (torch.corrcoef(noises) - torch.eye(4)).abs().max() < 0.15
    other = _data(photos, Noise(0.1), valid_fraction=0.4, seed=43).val_dataloader().dataset[0]
    assert abs(torch.corrcoef(torch.stack([noises[0], (other[0] - other[1]).flatten()]))[0, 1]) < 0.15


def test_training_is_random_and_seeded_with_any_number_of_workers(photos: Path) -> None:
    runs = []
    for workers in (0, 2):
        torch.manual_seed(0)
        data = _data(photos, Noise((0.05, 0.2)), num_workers=workers)
        data.setup("fit")
        loader = data.train_dataloader()
        loader.sampler.set_epoch(0)
        first = _all(loader)
        loader.sampler.set_epoch(1)
        runs.append((first, _all(loader)))
    for (x, y), (other_x, other_y) in zip(*runs, strict=True):
        assert x.equal(other_x)
        assert y.equal(other_y)
    deviations = [[float((x - y).std()) for x, y in zip(*epoch, strict=True)] for epoch in runs[0]]
    assert len({*deviations[0], *deviations[1]}) == 16


def test_evaluation_can_take_whole_images(photos: Path) -> None:
    data = _data(photos, Downscale(4), whole=True, valid_fraction=0.4, test_fraction=0.2)
    for loader, split in ((data.val_dataloader(), "valid"), (data.test_dataloader(), "test")):
        for (x, y), path in zip(loader, data.samples[split].paths, strict=True):
            assert x.shape == y.shape
            assert y[0].equal(_read(path))
    assert next(iter(data.train_dataloader()))[0].shape == (4, 3, 24, 24)


@pytest.mark.parametrize("resize", ["none", "pad"])
def test_evaluation_images_are_not_padded(photos: Path, resize: str) -> None:
    data = _data(photos, Noise(0.1), image_size=(36, 128), resize=resize, valid_fraction=0.5)
    for (_, target), path in zip(data.val_dataloader(), data.samples["valid"].paths, strict=True):
        photo = _read(path)
        if resize == "none":
            assert target[0].equal(photo)
        else:
            assert target.shape[-2:] == (36, round(photo.shape[2] * 36 / photo.shape[1]))
    inputs, targets = zip(*data.val_dataloader(), strict=True)
    errors = torch.cat([(x - y).flatten() for x, y in zip(inputs, targets, strict=True)])
    assert float(-10 * errors.square().mean().log10()) == pytest.approx(20, abs=0.3)


def test_images_as_large_as_crops_are_evaluated_in_batches(photos: Path, make_image: MakeImage) -> None:
    settings = {"image_size": 32, "valid_fraction": 0.4, "batch_size": 4}
    assert [len(x) for x, _ in _data(photos, Grayscale(), **settings).val_dataloader()] == [4]
    for i in range(10):
        make_image(f"photos/small/{i}.png", size=(40, 31))
    data = _data(photos, Grayscale(), **settings)
    assert {tuple(y.shape) for _, y in data.val_dataloader()} == {(1, 3, 32, 32), (1, 3, 31, 32)}
    data.samples["valid"].paths[0].write_bytes(b"")
    with pytest.raises(lh.ImageReadError, match="the file is empty"):
        list(data.val_dataloader())


def test_small_photographs_are_mirrored_in_training(photos: Path) -> None:
    data = _data(photos, Grayscale(), image_size=(100, 130), augment=False, valid_fraction=0.0)
    _, targets = _all(data.train_dataloader())
    mirrored = []
    for path in data.samples["train"].paths:
        photo = _read(path)
        (top, left), (h, w) = ((100 - photo.shape[1]) // 2, (130 - photo.shape[2]) // 2), photo.shape[1:]
        pad = ((0, 0), (top, 100 - h - top), (left, 130 - w - left))
        mirrored.append(torch.from_numpy(np.pad(photo.numpy(), pad, mode="symmetric")))
    assert all(sum(target.equal(each) for each in mirrored) == 1 for target in targets)


@pytest.mark.parametrize(
    ("degradation", "shape"), [(Downscale(3), (3, 60, 78)), (Crappify(2), (3, 40, 52)), (Grayscale(), (1, 20, 26))]
)
def test_degraded_images_to_predict_are_only_prepared(
    photos: Path, make_image: MakeImage, degradation: nn.Module, shape: tuple[int, ...]
) -> None:
    bad = make_image("bad/x.png", size=(26, 20))
    make_image("bad/y.png", size=(50, 34))
    loader = _data(photos, degradation, predict_root=bad.parent).predict_dataloader()
    batches = list(loader)
    assert [path.name for path in loader.dataset.paths] == ["x.png", "y.png"]
    assert batches[0].shape == (1, *shape)
    assert type(batches[0]) is Tensor
    again = next(iter(_data(photos, degradation, predict_root=bad).predict_dataloader()))
    assert again.equal(batches[0])


@pytest.mark.parametrize("degradation", [Noise(0.1), nn.Identity(), nn.Hardtanh(0.2, 0.8)])
def test_other_images_to_predict_are_unchanged(photos: Path, degradation: nn.Module) -> None:
    path = next(photos.rglob("*.png"))
    batch = next(iter(_data(photos, degradation, predict_root=path).predict_dataloader()))
    assert batch[0].equal(_read(path))


def test_the_inputs_of_test_images_are_predicted_by_default(photos: Path) -> None:
    data = _data(photos, Noise(0.1), test_fraction=0.3, whole=True)
    for batch, tested in zip(data.predict_dataloader(), data.test_dataloader(), strict=True):
        assert batch[0].equal(tested[0])
    with pytest.raises(ValueError, match="Expected test images"):
        _data(photos, Noise(0.1)).predict_dataloader()


def test_unreadable_test_images_are_skipped_when_predicting(photos: Path) -> None:
    (photos / "bad.png").write_bytes(b"")
    data = _data(photos, Grayscale(), valid_fraction=0.0, test_fraction=0.9, on_error="skip", seed=0)
    assert photos / "bad.png" in data.samples["test"].paths
    with pytest.warns(UserWarning, match="1 of 10 test images are left out"):
        loader = data.predict_dataloader()
    assert len(list(loader)) == 9


@pytest.fixture
def parallel(tmp_path: Path, make_image: MakeImage) -> tuple[Path, Path]:
    """Eight dark images as inputs, and bright ones as their targets, with the same names and another suffix."""
    for i in range(8):
        size = (40 + 4 * (i % 2), 32)
        make_image(f"dark/{'ab'[i % 2]}/{i}.png", size=size, level=60, seed=i)
        make_image(f"bright/{'ab'[i % 2]}/{i}.tif", size=size, level=160, seed=i)
    make_image("bright/unused.png")
    return tmp_path / "dark", tmp_path / "bright"


@pytest.mark.parametrize("resize", ["none", "crop"])
@pytest.mark.parametrize("augmentation", [None, v2.RandomAffine(20)])
def test_parallel_folders_stay_aligned(
    parallel: tuple[Path, Path], resize: str, augmentation: nn.Module | None
) -> None:
    data = _data(parallel[0], targets=parallel[1], resize=resize, augmentation=augmentation, valid_fraction=0.0)
    inputs, targets = _all(data.train_dataloader())
    filled = inputs == 0
    differences = (targets - inputs)[~filled]
    assert (targets[filled] == 0).all()
    assert filled.any() == (augmentation is not None)
    assert len(differences) > 0.5 * targets.numel()
    assert (differences * 255 - 100).abs().max() < 2
    assert (data.in_channels, data.num_outputs) == (3, 3)


def test_parallel_folders_match_by_split(tmp_path: Path, make_image: MakeImage) -> None:
    for split in ("train", "valid"):
        for side in ("bad", "good"):
            make_image(f"{side}/{split}/0.png", level=200 if split == "train" else 60)
    data = _data(tmp_path / "bad", targets=tmp_path / "good", image_size=32)
    for split in ("train", "valid"):
        assert data.samples[split].targets == [tmp_path / "good" / split / "0.png"]


def test_parallel_images_to_predict_are_the_inputs(parallel: tuple[Path, Path]) -> None:
    data = _data(parallel[0], targets=parallel[1], test_fraction=0.25)
    inputs, _ = next(iter(data.predict_dataloader()))
    assert inputs[0].equal(_read(data.samples["test"].paths[0]))


def test_a_missing_target_is_named(parallel: tuple[Path, Path]) -> None:
    (parallel[1] / "b" / "3.tif").unlink()
    with pytest.raises(FileNotFoundError, match=r"a target for .*dark/b/3.png, but .*bright has no image b/3"):
        _data(parallel[0], targets=parallel[1])


def test_two_targets_are_named(parallel: tuple[Path, Path], make_image: MakeImage) -> None:
    make_image("bright/a/0.png")
    with pytest.raises(ValueError, match=r"one image a/0 in .*bright, but got 0.png and 0.tif"):
        _data(parallel[0], targets=parallel[1])


def test_targets_of_another_size_are_named_or_left_out(parallel: tuple[Path, Path]) -> None:
    odd = parallel[1] / "a" / "2.tif"
    Image.new("RGB", (39, 32)).save(odd)
    with pytest.raises(lh.ImageReadError, match=r"bright/a/2.tif .* it is 39x32 pixels, while .*dark/a/2.png is 40x32"):
        list(_data(*parallel[:1], targets=parallel[1], valid_fraction=0.0).train_dataloader())
    data = _data(parallel[0], targets=parallel[1], on_error="skip", valid_fraction=0.0)
    with pytest.warns(UserWarning, match="1 of 8 train images are left out"):
        data.setup("fit")
    assert odd not in data.samples["train"].targets
    assert len(data.samples["train"].paths) == 7


def test_two_folders_for_validation_are_refused(tmp_path: Path, make_image: MakeImage) -> None:
    for name in ("train", "valid", "val"):
        make_image(f"data/{name}/0.png")
    with pytest.raises(ValueError, match=r"Expected one of .*data/valid and .*data/val, but both are there"):
        _data(tmp_path / "data", Grayscale())


@pytest.mark.parametrize("settings", [{}, {"degradation": Grayscale(), "targets": "photos"}])
def test_either_degradation_or_targets_is_required(photos: Path, settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"either `degradation` or `targets`, but got (both|neither)"):
        RestorationData(photos, **settings)


def test_wrong_settings_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`channels` to be 1, 3 or 4, but got 2"):
        _data(photos, Grayscale(), channels=2)
    with pytest.raises(FileNotFoundError, match="`root` to be a folder"):
        _data(tmp_path / "none", Grayscale())
    with pytest.raises(FileNotFoundError, match="`targets` to be a folder"):
        _data(photos, targets=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="but it holds no files"):
        _data(tmp_path / "empty", Grayscale())
    (photos / "a").rename(photos / "valid")
    with pytest.raises(ValueError, match=r"a folder to train on, .*train, beside .*valid"):
        _data(photos, Grayscale())


def test_degradations_that_change_the_size_are_refused(photos: Path) -> None:
    with pytest.raises(
        ValueError, match=r"keep an image's height and width, but it returned \(3, 12, 12\) for \(3, 24, 24\)"
    ):
        next(iter(_data(photos, nn.AvgPool2d(2)).val_dataloader()))


def test_a_trainer_fits_on_it(photos: Path) -> None:
    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Conv2d(1, 3, 3, padding=1)

        def training_step(self, batch: list[Tensor]) -> Tensor:
            return nn.functional.l1_loss(self.net(batch[0]), batch[1])

        def validation_step(self, batch: list[Tensor]) -> None:
            assert batch[1].shape[1] == 3

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    trainer = L.Trainer(
        max_epochs=1, logger=False, enable_progress_bar=False, enable_checkpointing=False, accelerator="cpu"
    )
    trainer.fit(Module(), _data(photos, Grayscale()))
    assert trainer.global_step == 2
