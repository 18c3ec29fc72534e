"""The report's plots as inline SVG, drawn in CSS variables so that they follow the page's light or dark colours."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pocketbert.report.labels import Box, place_labels
from pocketbert.report.latency import Rounds
from pocketbert.report.layers import LayerProofs
from pocketbert.report.pareto import pareto_front
from pocketbert.report.table import ResultRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that no plot uses otherwise, replaced by the page's variables in the SVG.
INK, MUTED, _GRID = "#010101", "#020202", "#030303"
FORMATS = {"torch": "#040404", "onnx": "#050505", "tflite": "#060606"}
_VARIABLES = {
    INK: "var(--ink)", MUTED: "var(--muted)", _GRID: "var(--grid)",
    FORMATS["torch"]: "var(--torch)", FORMATS["onnx"]: "var(--onnx)", FORMATS["tflite"]: "var(--tflite)",
}  # fmt: skip
# Where a difference of 0 is drawn on a log scale: below what float32 can tell apart.
_LOWEST = 1e-9
_MARKERS = {"torch": "o", "onnx": "s", "tflite": "D"}
_STYLE = {
    "svg.fonttype": "none", "font.size": 10, "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": _GRID,
    "xtick.color": MUTED, "ytick.color": MUTED, "axes.grid": True, "grid.color": _GRID, "grid.linewidth": 0.6,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.titlesize": 10,
    "axes.titlelocation": "left", "axes.titlecolor": INK, "xtick.major.size": 0, "ytick.major.size": 0,
    "xtick.minor.size": 0,
}  # fmt: skip


def pareto_svg(rows: Sequence[ResultRow], x: str, device: str) -> str:
    """Accuracy over latency (`latency_p50_ms`) or size (`size_bytes`) of one device's valid rows, with the front.

    On the latency plot the area of a point is the file's size and a bar the median's 95 % interval.
    """
    own = [r for r in rows if r.device == device and r.error is None and r.latency_p50_ms is not None]
    scale = 1e6 if x == "size_bytes" else 1.0
    xs = [getattr(row, x) / scale for row in own]
    ys = [100 * row.accuracy for row in own]
    figure, (axes,) = new_figure(5.8, 4.2, 1)
    axes.set_xscale("log")
    areas = [_area(row.size_bytes, own) if x == "latency_p50_ms" else 60.0 for row in own]
    front = sorted(pareto_front([(a, -b) for a, b in zip(xs, ys, strict=True)]), key=lambda i: xs[i])
    axes.step([xs[i] for i in front], [ys[i] for i in front], where="post", color=MUTED, linewidth=1, dashes=(4, 3))
    for row, a, b, area in zip(own, xs, ys, areas, strict=True):
        colour = FORMATS[row.format]
        if x == "latency_p50_ms" and row.latency_p50_ci_low_ms and row.latency_p50_ci_high_ms:
            axes.plot([row.latency_p50_ci_low_ms, row.latency_p50_ci_high_ms], [b, b], color=colour, linewidth=1.5)
        axes.scatter([a], [b], s=area, marker=_MARKERS[row.format], color=colour, alpha=0.75, linewidths=0)
    _pad(axes, xs, ys)
    axes.set_xlabel("size on disk, MB (log scale)" if x == "size_bytes" else "latency p50, ms (log scale)")
    axes.set_ylabel("test accuracy, %")
    plain_log_ticks(axes)
    _name_points(figure, axes, [row.measurement for row in own], list(zip(xs, ys, strict=True)), areas)
    return as_svg(figure, f"pareto-{x}-{device}", f"Accuracy against {x} on {device}")


def curves_svg(stage: str, curve: Mapping[str, Sequence[float]], loss: Mapping[str, Sequence[float]]) -> str:
    """Training loss by step, and validation accuracy by epoch."""
    from matplotlib.ticker import MaxNLocator

    figure, (left, right) = new_figure(5.8, 2.3, 2)
    left.plot(loss.get("step", []), loss.get("loss", []), color=FORMATS["onnx"], linewidth=1.3)
    left.set(xlabel="step", ylim=(0, None))
    left.set_title("training loss", loc="left", fontsize=10)
    accuracy = [100 * value for value in curve.get("valid_accuracy", [])]
    right.plot(curve.get("epoch", []), accuracy, color=FORMATS["tflite"], marker="o", markersize=4, linewidth=1.3)
    right.set_xlabel("epoch")
    if curve.get("epoch"):
        right.set_xlim(min(curve["epoch"]) - 0.3, max(curve["epoch"]) + 0.3)
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_title("validation accuracy, %", loc="left", fontsize=10)
    return as_svg(figure, f"curves-{stage}", f"Training curves of {stage}")


def latency_svg(rows: Sequence[ResultRow], latencies: Mapping[str, Rounds], device: str) -> str:
    """Raw latencies of each artifact as a box (quartiles; whiskers are the 5th and 95th percentile) and points."""
    own = [r for r in rows if r.device == device and r.error is None and r.measurement in latencies]
    own.sort(key=lambda row: row.latency_p50_ms or 0.0, reverse=True)
    figure, (axes,) = new_figure(7.2, 0.9 + 0.36 * max(1, len(own)), 1)
    axes.set_xscale("log")
    for height, row in enumerate(own):
        colour = FORMATS[row.format]
        values = [value for runs in latencies[row.measurement] for value in runs]
        axes.plot(values, [height] * len(values), "|", color=colour, markersize=7, alpha=0.25)
        axes.boxplot(
            [values], positions=[height], orientation="horizontal", widths=0.5, whis=(5, 95), showfliers=False,
            boxprops={"color": colour}, whiskerprops={"color": colour}, capprops={"color": colour},
            medianprops={"color": INK, "linewidth": 1.6},
        )  # fmt: skip
    axes.set_yticks(range(len(own)), [row.measurement for row in own])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(-0.7, len(own) - 0.3)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("latency of one run, ms (log scale)")
    plain_log_ticks(axes)
    return as_svg(figure, f"latency-{device}", f"Latencies on {device}")


def layers_svg(proofs: LayerProofs) -> str:
    """Relative difference of each layer of each export, on a log scale, with the limit as a dashed line."""
    names = proofs.names
    figure, (axes,) = new_figure(7.2, 2.9, 1)
    axes.set_yscale("log")
    for artifact, proven in proofs.artifacts.items():
        colour = next((c for kind, c in FORMATS.items() if artifact.startswith(kind)), INK)
        known = [row for row in proven.layers if row.rel_diff is not None]
        xs = [names.index(row.layer) for row in known]
        ys = [max(row.rel_diff or 0.0, _LOWEST) for row in known]
        axes.plot(xs, ys, color=colour, marker="o", markersize=4, linewidth=1.3, label=artifact)
    axes.axhline(proofs.limit, color=MUTED, linewidth=1, dashes=(4, 3))
    slope, side = (35, "right") if len(names) > 8 else (0, "center")
    axes.set_xticks(range(len(names)), names, rotation=slope, ha=side)
    axes.set_ylabel("difference / spread")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return as_svg(figure, "layers", "Difference from torch by layer")


def new_figure(width: float, height: float, panels: int) -> tuple["Figure", list["Axes"]]:
    """A figure in the page's style, and its axes side by side; sizes in inches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)
    return figure, list(axes[0])


def _area(size_bytes: int, rows: Sequence[ResultRow]) -> float:
    """Area of a marker in square points, proportional to the size with a floor that stays visible."""
    return max(24.0, 420.0 * size_bytes / max(row.size_bytes for row in rows))


def _pad(axes: Any, xs: Sequence[float], ys: Sequence[float]) -> None:
    """Room around the points for their names."""
    if xs:
        axes.set_xlim(min(xs) / 1.6, max(xs) * 1.9)
        margin = max(0.4, 0.16 * (max(ys) - min(ys)))
        axes.set_ylim(min(ys) - margin, max(ys) + margin)


def plain_log_ticks(axes: Any) -> None:
    """1, 2, 5, 10, 20, ... instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _name_points(
    figure: "Figure", axes: "Axes", names: Sequence[str], points: Sequence[tuple[float, float]], areas: Sequence[float]
) -> None:
    """Write each point's name beside it, with a thin line where it had to go further away."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.lines import Line2D

    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    pixels = [tuple(axes.transData.transform(point)) for point in points]
    radii = [(area**0.5 / 2) * figure.dpi / 72 for area in areas]
    texts = [figure.text(0, 0, name, fontsize=9, color=INK) for name in names]
    extents = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    sizes = [(extent.width, extent.height) for extent in extents]
    frame = axes.get_window_extent()
    boxes = place_labels(pixels, radii, sizes, Box(frame.x0, frame.y0, frame.x1, frame.y1))
    to_figure = figure.transFigure.inverted()
    for text, box, (x, y), radius in zip(texts, boxes, pixels, radii, strict=True):
        x_figure, y_figure = to_figure.transform((box.x0, box.y0 + 0.2 * (box.y1 - box.y0)))
        text.set_position((float(x_figure), float(y_figure)))
        end = (min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1))
        if math.dist(end, (x, y)) > radius + 9:
            # Fractions of the figure: pixels here are not those of the SVG.
            (x0, x1), (y0, y1) = np.transpose(to_figure.transform([end, (x, y)]))
            figure.add_artist(Line2D([x0, x1], [y0, y1], color=MUTED, linewidth=0.6, zorder=0.5))


def as_svg(figure: "Figure", prefix: str, title: str) -> str:
    """The figure as an <svg> element: the same bytes for the same data, ids of its own, the page's colours and font."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Title": title})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    prefix = re.sub(r"[^A-Za-z0-9_-]", "_", prefix)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    text = re.sub(r"font: ([^;\"']*?px) [^;\"]*", r"font-size: \1", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return text
