import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Sampler,
    Subset,
)

import lightning_heads as lh
from tests.helpers import run_processes, trainer_for

Rows = list[tuple[str, float]]


class Numbers(Dataset[Any]):
    """Sample i is the number `first + i`, of a file with that number as its name."""

    def __init__(self, count: int, first: int = 0) -> None:
        self.numbers = range(first, first + count)
        self.paths = [f"{number}.png" for number in self.numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return torch.tensor([float(self.numbers[i])]), torch.zeros(1)


class Stream(IterableDataset[Any]):
    paths = ("wrong.png",) * 9

    def __iter__(self) -> Iterator[Any]:
        return iter([Numbers(5)[i] for i in range(5)])


class Reversed(Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return iter([4, 3, 2, 1, 0])

    def __len__(self) -> int:
        return 5


class Same(lh.TransferModule):
    """Predicts its input."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), nn.MSELoss())

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        return super().test_step(batch, batch_idx)


class Untested(Same):
    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        raise AssertionError("a batch was tested")


def _written(folder: Path, function: str, loaders: Any, name: str = "predictions.csv", **settings: Any) -> Rows:
    trainer = trainer_for(folder, [lh.PredictionWriter()], **settings)
    getattr(trainer, function)(Same(), loaders, **({"verbose": False} if function == "test" else {}))
    return _rows(folder / name)


def _rows(path: Path) -> Rows:
    with path.open(encoding="utf-8") as file:
        return [(row["file"], float(row["output_0"])) for row in csv.DictReader(file)]


def _files(*numbers: int) -> Rows:
    return [(f"{number}.png", number) for number in numbers]


FIVE = Numbers(5)


@pytest.mark.parametrize("function", ["test", "predict"])
@pytest.mark.parametrize(
    ("settings", "numbers"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"sampler": [3, 2, 1, 0]}, [3, 2, 1, 0]),
        ({"sampler": np.array([3, 1, 1])}, [3, 1, 1]),
        ({"sampler": DistributedSampler(FIVE, 2, 1, shuffle=False)}, [1, 3, 0]),
    ],
)
def test_rows_are_in_the_order_of_the_sampler(
    tmp_path: Path, function: str, settings: dict[str, Any], numbers: list[int]
) -> None:
    assert _written(tmp_path, function, DataLoader(FIVE, 2, **settings)) == _files(*numbers)


@pytest.mark.parametrize("batches", [[[3, 2], [1]], BatchSampler([3, 2, 1], 2, drop_last=False)], ids=["list", "own"])
def test_rows_are_in_the_order_of_batches(tmp_path: Path, batches: Any) -> None:
    assert _written(tmp_path, "test", DataLoader(FIVE, batch_sampler=batches)) == _files(3, 2, 1)


@pytest.mark.parametrize("callback", [lh.PredictionWriter(), lh.ImageWriter()])
def test_a_list_of_batches_is_refused_by_predict(tmp_path: Path, callback: L.Callback) -> None:
    loaders = [DataLoader(FIVE), DataLoader(FIVE, batch_sampler=[[3, 2], [1]])]
    with pytest.raises(
        ValueError, match="`batch_sampler` to be a sampler, but got list; pass its indices as `sampler`"
    ):
        trainer_for(tmp_path, [callback]).predict(Same(), loaders)


@pytest.mark.parametrize("settings", [{"shuffle": True}, {"sampler": Reversed()}], ids=["shuffled", "custom"])
@pytest.mark.filterwarnings("ignore:.*shuffl")
def test_any_order_is_written_by_predict_and_refused_before_a_test(tmp_path: Path, settings: dict[str, Any]) -> None:
    loader = DataLoader(FIVE, 2, **settings)
    assert sorted(_written(tmp_path, "predict", loader)) == _files(0, 1, 2, 3, 4)
    trainer = trainer_for(tmp_path, [lh.PredictionWriter()])
    with pytest.raises(ValueError, match=r"does not shuffle.* but its sampler is .*pass a list of indices"):
        trainer.test(Untested(), loader, verbose=False)


@pytest.mark.parametrize("function", ["test", "predict"])
def test_each_loader_has_a_file(tmp_path: Path, function: str) -> None:
    loaders = [DataLoader(FIVE, 2), DataLoader(Numbers(3, first=7), 2, sampler=[2, 0])]
    assert _written(tmp_path, function, loaders, "predictions_0.csv") == _files(0, 1, 2, 3, 4)
    assert _rows(tmp_path / "predictions_1.csv") == _files(9, 7)
    assert len([*tmp_path.glob("*.csv")]) == 2


@pytest.mark.parametrize("function", ["test", "predict"])
def test_files_of_subsets_and_concatenated_data_sets(tmp_path: Path, function: str) -> None:
    nested = Subset(ConcatDataset([Subset(FIVE, [4, 2]), Numbers(3, first=7)]), [0, 1, 4])
    assert _written(tmp_path, function, DataLoader(nested, 2)) == _files(4, 2, 9)


@pytest.mark.parametrize("function", ["test", "predict"])
@pytest.mark.parametrize(
    "loader", [DataLoader(Stream(), 2), DataLoader(Stream(), None)], ids=["stream", "stream of batches"]
)
def test_samples_of_unknown_index_are_numbered(tmp_path: Path, function: str, loader: DataLoader[Any]) -> None:
    assert _written(tmp_path, function, loader) == [(str(i), i) for i in range(5)]


def test_a_batch_that_lacks_samples_is_refused(tmp_path: Path) -> None:
    def leave_one_out(samples: list[Any]) -> list[Tensor]:
        return [torch.stack(part) for part in zip(*samples[1:], strict=True)]

    with pytest.raises(ValueError, match="each of the 3 samples of batch 0, but got 2"):
        _written(tmp_path, "predict", DataLoader(FIVE, 3, collate_fn=leave_one_out))


def test_limited_batches_are_written(tmp_path: Path) -> None:
    assert _written(tmp_path, "test", DataLoader(FIVE, 2), limit_test_batches=1) == _files(0, 1)


def test_predictions_that_are_maps_are_refused_at_the_first_batch(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path, [lh.PredictionWriter()])
    with pytest.raises(ValueError, match=r"\(b,\) or \(b, k\) for PredictionWriter, but got \(2, 3, 8, 8\)"):
        trainer.predict(Same(), DataLoader(torch.rand(4, 3, 8, 8), 2))  # type: ignore[arg-type]


class Quiet(Same):
    """Has no predictions on the first rank."""

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        outputs = super().test_step(batch, batch_idx)
        return outputs if self.global_rank else None


def _test(folder: Path, task: type[lh.TransferModule], loader: DataLoader[Any]) -> Rows:
    import warnings

    trainer = trainer_for(folder, [lh.PredictionWriter(folder)], devices=2, strategy="ddp")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.test(task(), loader, verbose=False)
    return _rows(folder / "predictions.csv") if trainer.is_global_zero else []


def test_two_processes_write_the_order_of_the_sampler(tmp_path: Path) -> None:
    loader = DataLoader(FIVE, 2, sampler=[4, 2, 0])
    assert run_processes(_test, 2, tmp_path, tmp_path, Same, loader) == [_files(4, 2, 0), []]


def test_a_rank_without_predictions_does_not_keep_the_others_waiting(tmp_path: Path) -> None:
    assert run_processes(_test, 2, tmp_path, tmp_path, Quiet, DataLoader(FIVE, 2)) == [_files(1, 3, 0), []]
