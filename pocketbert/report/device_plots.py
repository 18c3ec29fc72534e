"""The plots of a device's page, as inline SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pocketbert.report.latency import Rounds
from pocketbert.report.plots import FORMATS, INK, MUTED, as_svg, new_figure, plain_log_ticks
from pocketbert.report.table import ResultRow

# Column of telemetry.parquet -> what its axis is called, and the factor from the column's unit.
_SENSORS = {
    "temperature_c": ("temperature, °C", 1.0),
    "power_mw": ("power, W", 1e-3),
    "cpu_mhz": ("processor clock, MHz", 1.0),
    "gpu_mhz": ("GPU clock, MHz", 1.0),
    "gpu_load_percent": ("GPU load, %", 1.0),
    "memory_bytes": ("memory, MB", 1e-6),
}


def histogram_svg(rows: Sequence[ResultRow], latencies: Mapping[str, Rounds], device: str) -> str | None:
    """A histogram of all measured runs, one strip an artifact, with its median; None where nothing was measured."""
    own = [row for row in rows if row.device == device and row.measurement in latencies]
    if not own:
        return None
    values = {row.measurement: np.concatenate([np.asarray(r) for r in latencies[row.measurement]]) for row in own}
    everything = np.concatenate(list(values.values()))
    bins = np.geomspace(everything.min() * 0.98, everything.max() * 1.02, 90)
    figure, (axes,) = new_figure(7.2, 0.9 + 0.42 * len(own), 1)
    axes.set_xscale("log")
    for height, row in enumerate(reversed(own)):
        _strip(axes, values[row.measurement], bins, height, FORMATS[row.format])
    axes.set_yticks(range(len(own)), [row.measurement for row in reversed(own)])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("latency of one run, ms (log scale)")
    plain_log_ticks(axes)
    return as_svg(figure, f"histogram-{device}", f"Latency histograms on {device}")


def _strip(axes: Any, values: Any, bins: Any, height: float, colour: str) -> None:
    counts, _ = np.histogram(values, bins)
    tops = height + 0.85 * counts / max(1, counts.max())
    axes.fill_between(bins[:-1], height, tops, step="post", color=colour, alpha=0.6, linewidth=0)
    axes.plot([np.median(values)] * 2, [height, height + 0.9], color=INK, linewidth=1)


def telemetry_svg(readings: Mapping[str, Sequence[float | None]], device: str) -> str | None:
    """Each sensor that told anything, over the seconds of the benchmark; None where none did."""
    told = [name for name in _SENSORS if any(value is not None for value in readings.get(name, ()))]
    if not told:
        return None
    figure, panels = new_figure(7.2, 1.9, 1) if len(told) == 1 else _stacked(len(told))
    for axes, name in zip(panels, told, strict=True):
        label, factor = _SENSORS[name]
        known = [
            (at, value * factor)
            for at, value in zip(readings["at_s"], readings[name], strict=True)
            if at is not None and value is not None
        ]
        axes.plot([at for at, _ in known], [value for _, value in known], color=FORMATS["onnx"], linewidth=1.2)
        axes.set_title(label, loc="left", fontsize=10)
    panels[-1].set_xlabel("seconds since the benchmark began")
    panels[-1].xaxis.label.set_color(MUTED)
    return as_svg(figure, f"telemetry-{device}", f"Sensors over time on {device}")


def _stacked(count: int) -> tuple[Any, list[Any]]:
    """Panels one below the other, on one axis of time."""
    figure, (first,) = new_figure(7.2, 1.4 * count + 0.5, 1)
    first.remove()
    return figure, list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
