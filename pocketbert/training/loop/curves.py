"""The two curves that every training writes for DVC and the report."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CURVE_COLUMNS = ("epoch", "train_loss", "valid_loss", "valid_accuracy")
LOSS_COLUMNS = ("step", "loss", "learning_rate")


def write_curves(history: Iterable[Mapping[str, Any]], plots: Path) -> float | None:
    """Write curve.csv (a row an epoch) and loss.csv; return the last epoch's mean training loss, if there is one.

    `history` is the trainer's log: entries with `loss` (mean since the entry before) and with `eval_loss`.
    """
    plots.mkdir(parents=True, exist_ok=True)
    curve: list[dict[str, Any]] = []
    losses: list[dict[str, Any]] = []
    total, steps, last_step = 0.0, 0, 0
    train_loss: float | None = None
    for entry in history:
        if "loss" in entry:
            losses.append({name: entry[name] for name in LOSS_COLUMNS})
            total += entry["loss"] * (entry["step"] - last_step)
            steps += entry["step"] - last_step
            last_step = entry["step"]
        elif "eval_loss" in entry:
            epoch_loss = total / steps if steps else None
            train_loss = epoch_loss if epoch_loss is not None else train_loss
            curve.append(
                {
                    "epoch": round(float(entry["epoch"]), 4),
                    "train_loss": epoch_loss,
                    "valid_loss": entry["eval_loss"],
                    "valid_accuracy": entry["eval_accuracy"],
                }
            )
            total, steps = 0.0, 0
    _write(plots / "curve.csv", CURVE_COLUMNS, curve)
    _write(plots / "loss.csv", LOSS_COLUMNS, losses)
    return train_loss


def _write(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
