"""Logs which checkpoint is the best one of a fit."""

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info


def log_best_checkpoint(trainer: L.Trainer) -> None:
    """Logs the checkpoint that `ckpt_path="best"` loads after a fit, and why it is the best."""
    checkpoints = trainer.checkpoint_callback
    if not isinstance(checkpoints, ModelCheckpoint) or not checkpoints.best_model_path:
        return
    if checkpoints.monitor is None:
        reason = "the last, as no metric is monitored; pass `ModelCheckpoint` with `monitor`, such as val_loss"
    else:
        extreme, score = "lowest" if checkpoints.mode == "min" else "highest", checkpoints.best_model_score
        reason = f"{extreme} {checkpoints.monitor}" + ("" if score is None else f", {score:.4g}")
    rank_zero_info(f'Checkpoint of `ckpt_path="best"`: {checkpoints.best_model_path} ({reason})')
