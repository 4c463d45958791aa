"""Features in a folder: reused if nothing changed, computed again if anything did, never read incomplete."""

import os
import shutil
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms import v2

import lightning_heads as lh
from lightning_heads.callbacks.feature_cache import encoding
from lightning_heads.callbacks.feature_cache.encoding import FeatureEncoder
from lightning_heads.data.features import storage
from lightning_heads.data.features.storage import FeatureFile
from lightning_heads.data.images import dataset
from tests.conftest import write_image
from tests.helpers import fork_server, run_processes, trainer_for

COUNT = 20


class Seen(L.Callback):
    """Counts the images that the encoder sees after the sanity check."""

    def __init__(self) -> None:
        self.count = 0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        encoder: Any = pl_module.model.encoder
        encoder.backbone.register_forward_pre_hook(self._add)

    def _add(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.count += len(args[0])


@pytest.fixture
def photos(make_image: Callable[..., Path], tmp_path: Path) -> Path:
    for i in range(COUNT):
        make_image(f"levels/{i % 2}/{i}.png", level=70 + 100 * (i % 2), seed=i)
    return tmp_path / "levels"


def fit(
    photos: Path,
    folder: Path | None,
    *,
    cache: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    task: dict[str, Any] | None = None,
    change: Callable[[lh.TransferModule], object] | None = None,
    **settings: Any,
) -> tuple[int, list[Tensor]]:
    """Trains a head for two epochs, and returns how many images the encoder saw and the head's parameters."""
    L.seed_everything(1, verbose=False)
    classifier = lh.ImageClassifier("test_resnet", 2, **{"pretrained": False, "lr": 1e-2, "ps": 0.0, **(task or {})})
    if change is not None:
        change(classifier)
    module = lh.ImageFolderData(
        photos,
        **{"image_size": 32, "batch_size": 4, "num_workers": 0, "augment": False, "resize": "squish"} | (data or {}),
    )
    seen = Seen()
    phases = lh.Phases([lh.Phase(2, train_from=-1, norm="eval")])
    callbacks = [phases, lh.FeatureCache(folder, progress=False, **(cache or {})), seen]
    settings = {"num_sanity_val_steps": 0, **settings}
    trainer_for(photos.parent, callbacks, 2, **settings).fit(classifier, module)
    return seen.count, [*classifier.model.head.state_dict().values()]


def test_a_second_run_encodes_nothing(photos: Path, tmp_path: Path) -> None:
    seen, head = fit(photos, tmp_path / "cache")
    assert seen == COUNT + 2  # one image of each set is encoded first, for the shape of the features
    files = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.safetensors")}
    assert len(files) == 2
    again, same_head = fit(photos, tmp_path / "cache")
    assert again == 0
    assert files == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").glob("*.safetensors")}
    for one, other in zip(head, same_head, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(head, fit(photos, None)[1], strict=True):
        assert torch.equal(one, other)


def test_each_view_is_of_its_image(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if an interrupted run wrote only some views of an image."""
    settings: dict[str, Any] = {
        "cache": {"views": 3},
        "data": {"augment": True, "augmentation": v2.ColorJitter(0.001), "batch_size": 8},
    }
    folder = tmp_path / "views"
    with monkeypatch.context() as patch:
        calls_left = iter(range(1 + 3))  # the first call is for the shape of the features
        features = FeatureEncoder.features

        def breaking(encoder: FeatureEncoder, images: Tensor) -> Tensor:
            if next(calls_left, None) is None:
                raise RuntimeError("broken off")
            return features(encoder, images)

        patch.setattr(FeatureEncoder, "features", breaking)
        with pytest.raises(RuntimeError, match="broken off"):
            fit(photos, folder, **settings)
    (partial,) = folder.glob("training-*.partial")
    with safe_open(partial, "pt") as file:
        shape = file.get_slice("features").get_shape()
    rows = FeatureFile(partial.with_suffix(".safetensors"), shape, torch.float32)
    assert rows.written.sum() == 3 * 6
    rows.written[1, 2], rows.features[1, 2] = False, 0
    rows.flush()
    fit(photos, folder, **settings)
    fit(photos, tmp_path / "plain")
    (made,) = folder.glob("training-*.safetensors")
    (plain,) = (tmp_path / "plain").glob("training-*.safetensors")
    views, images = load_file(made)["features"], load_file(plain)["features"][0]
    assert len(views) == 3
    assert not torch.equal(views[0], views[1])
    for view in views:
        assert torch.cdist(view, images).argmin(dim=1).tolist() == [*range(16)]


def test_another_head_and_learning_rate_reuse_the_features(photos: Path, tmp_path: Path) -> None:
    fit(photos, tmp_path / "cache")
    assert fit(photos, tmp_path / "cache", task={"lin_ftrs": [], "lr": 1e-3}, data={"batch_size": 5})[0] == 0


def _weight(task: lh.TransferModule) -> None:
    next(task.model.parameters()).data[0] *= 1.001


def _statistics(task: lh.TransferModule) -> None:
    next(value for name, value in task.model.named_buffers() if name.endswith("running_mean"))[0] += 1e-3


@pytest.fixture(scope="module")
def first_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs, and their features without and with augmentation."""
    root = tmp_path_factory.mktemp("first")
    for i in range(COUNT):
        write_image(root / f"levels/{i % 2}/{i}.png", level=70 + 100 * (i % 2), seed=i)
    fit(root / "levels", root / "plain")
    fit(root / "levels", root / "augmented", data={"augment": True})
    return root


class OtherModel(lh.ImageModel):
    """A subclass, which might compute other features."""


def _code(task: lh.TransferModule) -> None:
    task.model.__class__ = OtherModel


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"change": _weight}, id="a weight"),
        pytest.param({"change": _statistics}, id="a statistic"),
        pytest.param({"change": _code}, id="the model's class"),
        pytest.param({"task": {"concat_pool": False}}, id="the pooling"),
        pytest.param({"change": lambda task: setattr(task.model.encoder, "_normalize", False)}, id="the normalization"),
        pytest.param({"data": {"image_size": 36}}, id="the size"),
        pytest.param({"data": {"resize": "crop"}}, id="the resizing"),
        pytest.param({"data": {"augment": True}}, id="the augmentation"),
        pytest.param({"data": {"augment": True, "augmentation": v2.ColorJitter(0.1)}}, id="another augmentation"),
        pytest.param({"data": {"seed": 7}}, id="the split"),
        pytest.param({"cache": {"views": 2}}, id="the views"),
        pytest.param({"cache": {"dtype": "float16"}}, id="the type"),
        pytest.param({"cache": {"norm_images": 8}}, id="estimated statistics"),
        pytest.param({"precision": "bf16-mixed"}, id="the precision"),
    ],
)
def test_changes_that_affect_features_encode_again(changed: dict[str, Any], first_runs: Path, tmp_path: Path) -> None:
    photos = first_runs / "levels"
    shutil.copytree(
        first_runs / ("augmented" if "augmentation" in changed.get("data", {}) else "plain"), tmp_path / "cache"
    )
    seen, head = fit(photos, tmp_path / "cache", **changed)
    assert seen >= 0.8 * COUNT  # the training set at least
    if "cache" in changed or "augment" in changed.get("data", {}) or "resize" in changed.get("data", {}):
        return  # without a folder, random draws depend on the seed of the run
    for one, other in zip(head, fit(photos, None, **changed)[1], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("what", ["content", "time", "name", "more"])
def test_changed_files_are_encoded_again(
    what: str, photos: Path, tmp_path: Path, make_image: Callable[..., Path]
) -> None:
    fit(photos, tmp_path / "cache")
    for path in photos.rglob("*.png"):
        if what == "content":
            make_image(str(path.relative_to(tmp_path)), level=90, seed=int(path.stem) + 100)
        elif what == "time":
            os.utime(path, ns=(0, 10**18))
        elif what == "name":
            path.rename(path.with_name(f"new_{path.name}"))
    if what == "more":
        make_image("levels/0/99.png", seed=99)
        make_image("levels/1/98.png", seed=98)
    seen, head = fit(photos, tmp_path / "cache")
    assert seen >= COUNT
    for one, other in zip(head, fit(photos, None)[1], strict=True):
        assert torch.equal(one, other)


def test_labels_may_change(photos: Path, tmp_path: Path) -> None:
    """Targets come from the data set, not from the file of features."""
    table = tmp_path / "table.csv"
    heads = []
    for flip in (False, True):
        rows = [
            f"{p},{int(p.parent.name) ^ flip},{'valid' if i % 5 == 0 else 'train'}"
            for i, p in enumerate(sorted(photos.rglob("*.png")))
        ]
        table.write_text("\n".join(["path,label,split", *rows]))
        L.seed_everything(1, verbose=False)
        task, seen = lh.ImageClassifier("test_resnet", 2, pretrained=False, ps=0.0), Seen()
        data = lh.ImageTableData(table, labels=["label"], image_size=32, batch_size=4, num_workers=0, augment=False)
        phases = lh.Phases([lh.Phase(1, train_from=-1, norm="eval")])
        cache = lh.FeatureCache(tmp_path / "cache", progress=False)
        trainer_for(tmp_path, [phases, cache, seen], 1, num_sanity_val_steps=0).fit(task, data)
        heads.append(torch.cat([p.flatten() for p in task.model.head.parameters()]))
    assert seen.count == 0
    assert not torch.allclose(heads[0], heads[1])


def test_half_precision_halves_the_file(photos: Path, tmp_path: Path) -> None:
    sizes = []
    for dtype in ("float32", "float16", "bfloat16"):
        _, head = fit(photos, tmp_path / dtype, cache={"dtype": dtype})
        assert all(torch.isfinite(value).all() for value in head)
        (path,) = (tmp_path / dtype).glob("training-*.safetensors")
        sizes.append(path.stat().st_size)
    assert sizes[1] == sizes[2] < 0.6 * sizes[0]


def _fit_slowly(photos: Path, folder: Path, seconds: float, output: Path) -> None:
    """Trains in a process that waits before each image, and marks features as written at once."""
    read_image = dataset.read_image

    def read_slowly(*args: Any, **settings: Any) -> Any:
        time.sleep(seconds)
        return read_image(*args, **settings)

    with patch.object(storage, "_FLUSH_EVERY", 0.0), patch.object(dataset, "read_image", read_slowly):
        output.write_text(str(fit(photos, folder)[0]))


def _start(photos: Path, folder: Path, seconds: float, output: Path) -> ForkServerProcess:
    process = fork_server().Process(target=_fit_slowly, args=(photos, folder, seconds, output))
    process.start()
    return process


def _written(folder: Path) -> int:
    """Returns how many training rows an unfinished file has."""
    files = [*folder.glob("training-*.partial")]
    return int(sum(files[0].read_bytes()[-16:])) if files and files[0].stat().st_size else 0


def test_a_run_that_was_killed_is_completed(photos: Path, tmp_path: Path) -> None:
    killed = _start(photos, tmp_path / "cache", 0.2, tmp_path / "seen")
    deadline = time.monotonic() + 120
    while not 4 <= _written(tmp_path / "cache") < 16 and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.kill()
    killed.join()
    written = _written(tmp_path / "cache")
    assert 4 <= written < 16
    assert not [*(tmp_path / "cache").glob("*.safetensors")]
    seen, head = fit(photos, tmp_path / "cache")
    assert seen == COUNT - written + 2
    for one, other in zip(head, fit(photos, None)[1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    assert not [*(tmp_path / "cache").glob("*.partial")]


def test_two_runs_share_a_folder(photos: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / f"seen_{i}" for i in range(2)]
    runs = [_start(photos, tmp_path / "cache", 0.05, output) for output in outputs]
    for run in runs:
        run.join(240)
    assert [run.exitcode for run in runs] == [0, 0]
    seen = [int(output.read_text()) for output in outputs]
    assert sum(seen) == COUNT + 2


def test_a_full_disk_is_an_error(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(
        OSError, match=r"Expected space for .* MiB of features, but: No space left on device.*training-"
    ):
        fit(photos, tmp_path / "cache")
    assert not [*(tmp_path / "cache").glob("*.safetensors"), *(tmp_path / "cache").glob("*.partial")]


def test_data_sets_without_image_key_are_refused(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(torch.rand(4, 3, 32, 32), torch.arange(4) % 2), 2)
    phases = lh.Phases([lh.Phase(1, train_from=-1, norm="eval")])
    task = lh.ImageClassifier("test_resnet", 2, pretrained=False)
    with pytest.raises(ValueError, match=r"Expected data sets with `image_key`.*, but got TensorDataset; without"):
        trainer_for(tmp_path, [phases, lh.FeatureCache(tmp_path / "cache", progress=False)], 1).fit(task, loader)


def test_transforms_that_cannot_be_pickled_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected objects that can be pickled, .*lambda"):
        fit(photos, tmp_path / "cache", data={"augment": True, "augmentation": v2.Lambda(lambda x: x)})


def test_statistics_are_averages_over_batches(photos: Path, tmp_path: Path) -> None:
    """The oracle is torch's own `update_bn`, on the same images."""
    found = {}

    class Keep(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
            found.update({name: value.clone() for name, value in pl_module.model.encoder.named_buffers()})

    L.seed_everything(1, verbose=False)
    task = lh.ImageClassifier("test_resnet", 2, pretrained=False)
    data = lh.ImageFolderData(photos, image_size=32, batch_size=16, num_workers=0, augment=False, resize="squish")
    images = torch.stack([image for image, _ in data._dataset("train")])
    model = lh.ImageClassifier("test_resnet", 2, pretrained=False).model
    model.load_state_dict(task.model.state_dict())
    torch.optim.swa_utils.update_bn([images], model.encoder)
    phases = lh.Phases([lh.Phase(1, train_from=-1, norm="eval")])
    cache = lh.FeatureCache(norm_images=100, progress=False)
    trainer_for(tmp_path, [phases, cache, Keep()], 1).fit(task, data)
    for name, value in model.encoder.named_buffers():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5, msg=name)
    for name, value in task.model.encoder.named_buffers():
        torch.testing.assert_close(found[name], value, atol=0, rtol=0, msg=name)


def test_estimated_statistics_are_saved_and_reused(photos: Path, tmp_path: Path) -> None:
    seen, head = fit(photos, tmp_path / "cache", cache={"norm_images": 8})
    assert seen == COUNT + 2
    (path,) = (tmp_path / "cache").glob("statistics-*.safetensors")
    made = path.stat().st_mtime_ns
    again, same_head = fit(photos, tmp_path / "cache", cache={"norm_images": 8})
    assert again == 0
    assert path.stat().st_mtime_ns == made
    for one, other in zip(head, same_head, strict=True):
        assert torch.equal(one, other)


def _fit_rank(photos: Path, folder: Path | None) -> tuple[int, list[Tensor]]:
    return fit(photos, folder, cache={"norm_images": 8}, strategy=DDPStrategy(), devices=2)


def test_each_rank_writes_a_part_of_the_rows(photos: Path, tmp_path: Path) -> None:
    first = run_processes(_fit_rank, 2, tmp_path, photos, tmp_path / "cache")
    again = run_processes(_fit_rank, 2, tmp_path, photos, tmp_path / "cache")
    in_memory = run_processes(_fit_rank, 2, tmp_path, photos, None)
    assert first is not None
    assert again is not None
    assert in_memory is not None
    assert first[0][0] + first[1][0] == COUNT + 2 + 2
    assert [seen for seen, _ in again] == [0, 0]
    assert fit(photos, tmp_path / "cache", cache={"norm_images": 8})[0] == 0
    (tmp_path / "new").mkdir()
    (statistics,) = (tmp_path / "cache").glob("statistics-*.safetensors")
    shutil.copy(statistics, tmp_path / "new")
    assert fit(photos, tmp_path / "new", cache={"norm_images": 8})[0] == COUNT + 2
    for path in (tmp_path / "cache").glob("*.safetensors"):
        # the rows are in the same order as in a run of one process
        torch.testing.assert_close(load_file(path), load_file(tmp_path / "new" / path.name), atol=1e-5, rtol=1e-5)
    for head, expected in [
        (run[rank][1], of[0][1])
        for of, run in ((first, first), (first, again), (in_memory, in_memory))
        for rank in (0, 1)
    ]:
        for one, other in zip(head, expected, strict=True):
            assert torch.equal(one, other)


class ManyImages(Dataset[tuple[Tensor, int]]):
    def __len__(self) -> int:
        return 50_000

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((3, 4, 4), index / 50_000), index % 2


class Peak(L.Callback):
    """Records the highest anonymous memory of the process in MB."""

    value = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self.value = max(self.value, _allocated())


def _allocated() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) / 1024


def _fit_many(folder: Path) -> float:
    """Returns by how many MB of anonymous memory the process grows."""
    encoder = lh.Encoder(nn.Sequential(nn.Conv2d(3, 1024, 1), nn.ReLU()), normalize=False)
    task = lh.TransferModule(lh.ImageModel(encoder, 2, lin_ftrs=[]), nn.CrossEntropyLoss())
    phases, peak = lh.Phases([lh.Phase(1, train_from=-1, norm="eval")]), Peak()
    trainer = trainer_for(folder, [phases, lh.FeatureCache(progress=False), peak], 1)
    before = _allocated()
    with patch.object(encoding, "_MAX_IN_MEMORY", 2**20):
        trainer.fit(task, DataLoader(ManyImages(), 500, shuffle=True))
    return peak.value - before


def test_many_images_take_bounded_memory(tmp_path: Path) -> None:
    """50,000 images, whose features are 400 MB, are encoded and trained on."""
    grown = run_processes(_fit_many, 1, tmp_path, tmp_path)
    assert grown is not None
    assert grown[0] < 150


def test_lr_find_trains_on_features(photos: Path, tmp_path: Path) -> None:
    curves = []
    for extra in ([], [lh.FeatureCache(tmp_path / "cache", progress=False)]):
        L.seed_everything(1, verbose=False)
        task = lh.ImageClassifier("test_resnet", 2, pretrained=False, ps=0.0)
        data = lh.ImageFolderData(photos, image_size=32, batch_size=4, num_workers=0, augment=False, resize="squish")
        trainer = trainer_for(tmp_path, [lh.FineTune(1, norm="eval"), *extra], 2)
        seen = 0

        def add(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            nonlocal seen
            seen += len(args[0])

        task.model.encoder.backbone.register_forward_pre_hook(add)
        before = {name: value.clone() for name, value in task.state_dict().items()}
        curves.append(lh.lr_find(trainer, task, data, num_steps=12, stop_div=False, progress=False))
        assert not task.takes_features
        for name, value in task.state_dict().items():
            assert torch.equal(value, before[name])
    assert seen == 16 + 1
    # training reuses the features of training images; it encodes validation images, and all in the unfrozen epoch
    trainer.fit(task, data)
    assert seen == (16 + 1) + (4 + 4 + 1) + 20
    torch.testing.assert_close(curves[1].losses, curves[0].losses, atol=1e-4, rtol=1e-4)
