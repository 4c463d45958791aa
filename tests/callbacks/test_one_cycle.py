import warnings
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_heads as lh
from lightning_heads.params import optimizer_groups


class _Recorder(L.Callback):
    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, *args: object) -> None:
        group = trainer.optimizers[0].param_groups[0]
        self.seen.append((group["lr"], group["betas"][0]))


def _fit(folder: Path, epochs: int = 3, **settings: object) -> list[tuple[float, float]]:
    recorder = _Recorder()
    trainer = L.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        callbacks=[lh.OneCycle(), recorder],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="cpu",
        **settings,
    )
    data = DataLoader(TensorDataset(torch.randn(16, 2), torch.randn(16, 1)), 4)
    trainer.fit(lh.TransferModule(nn.Linear(2, 1), nn.MSELoss(), lr=0.01), data)
    return recorder.seen


def test_equals_fastais_fit_one_cycle_at_every_step(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import fastai.callback.all  # noqa: F401  # adds `fit_one_cycle` and `no_bar` to the learner
        from fastai.data.core import DataLoaders
        from fastai.data.load import DataLoader as FastLoader
        from fastai.learner import Learner

        loader = FastLoader([(torch.randn(2), torch.randn(1)) for _ in range(16)], bs=4, num_workers=0)
        learner = Learner(DataLoaders(loader, loader, device="cpu"), nn.Linear(2, 1), nn.MSELoss(), path=tmp_path)
        with learner.no_bar(), learner.no_logging():
            learner.fit_one_cycle(3, 0.01)
    rates, momenta = learner.recorder.hps["lr"], learner.recorder.hps["mom"]
    assert len(rates) == 12
    seen = _fit(tmp_path)
    assert [rate for rate, _ in seen] == pytest.approx(rates, abs=1e-7)
    assert [momentum for _, momentum in seen] == pytest.approx(momenta, abs=1e-7)


def test_counts_optimiser_steps_under_accumulation(tmp_path: Path) -> None:
    rates = [rate for rate, _ in _fit(tmp_path, accumulate_grad_batches=2)]
    assert rates[0::2] == rates[1::2]
    assert len(set(rates)) == 6


def test_groups_keep_their_ratios() -> None:
    model = lh.ImageModel("test_resnet", 2, pretrained=False)
    optimizer = torch.optim.AdamW(optimizer_groups(model, (1e-4, 1e-2)))
    callback = lh.OneCycle()
    for position in (0.0, 0.1, 0.25, 0.9):
        callback._apply(optimizer, position)
        rates = sorted({group["lr"] for group in optimizer.param_groups})
        assert rates[1] / rates[0] == pytest.approx(10)
        assert rates[2] / rates[1] == pytest.approx(10)


def test_resumed_run_ends_where_the_uninterrupted_one_does(tmp_path: Path) -> None:
    x, y = torch.randn(16, 2), torch.randn(16, 1)

    def run(callbacks: list[L.Callback], path: Path | None = None, max_steps: int = -1) -> lh.TransferModule:
        torch.manual_seed(0)
        task = lh.TransferModule(nn.Linear(2, 1), nn.MSELoss(), lr=0.01)
        trainer = L.Trainer(
            default_root_dir=tmp_path,
            max_epochs=4,
            callbacks=[lh.OneCycle(), *callbacks],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            accelerator="cpu",
        )
        trainer.fit(task, DataLoader(TensorDataset(x, y), 4), ckpt_path=path)
        return task

    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / "half.ckpt")
                trainer.should_stop = True

    whole = run([])
    run([Stop()])
    resumed = run([], tmp_path / "half.ckpt")
    torch.testing.assert_close(resumed.model.weight, whole.model.weight, atol=0, rtol=0)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="`pct_start`"):
        lh.OneCycle(pct_start=1.0)
