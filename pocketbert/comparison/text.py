"""A comparison as text for people."""

from collections.abc import Iterator

from pocketbert.comparison.compare import UNJUDGED, Comparison
from pocketbert.comparison.layers import LayerTable

_TEXT_WIDTH = 60


def as_text(comparison: Comparison) -> str:
    """What was assumed, the figures, the kinds of rows and the worst rows."""
    return "\n".join(_lines(comparison))


def _lines(comparison: Comparison) -> Iterator[str]:
    figures, agreement = comparison.logits, comparison.agreement
    for letter, name, engine in zip("AB", (comparison.a, comparison.b), comparison.engines, strict=True):
        yield f"{letter}: {name} ({engine})"
    yield from (line if line.startswith("WARNING") else f"assumed: {line}" for line in comparison.said)
    yield ""
    yield f"rows              {figures.rows}"
    yield f"spread of A       {figures.spread:.4g}"
    yield f"max |difference|  {figures.max_abs_diff:.4g} = {figures.max_rel_diff:.3g} of the spread"
    yield f"mean |difference| {figures.mean_abs_diff:.4g} = {figures.mean_abs_diff / figures.spread:.3g} of the spread"
    yield f"agreement         {agreement.all_rows:.4f} ({agreement.ties} ties; without them {agreement.clear_rows:.4f})"
    for kind, gap in comparison.hard_rows.items():
        note = " (not judged: no token at all)" if kind == UNJUDGED else ""
        shown = "NaN or infinite" if gap is None else f"{gap:.3g} of the spread"
        yield f"{f'{kind} rows':<17} {shown}{note}"
    if comparison.layers is not None:
        yield ""
        yield from _layer_lines(comparison.layers)
    yield ""
    yield "worst rows"
    for row in comparison.worst:
        text = row.text if len(row.text) <= _TEXT_WIDTH else row.text[: _TEXT_WIDTH - 1] + "…"
        decision = row.decision_a if row.decision_a == row.decision_b else f"{row.decision_a} -> {row.decision_b}"
        yield f"  row {row.number:<6} {row.max_abs_diff:.3g}  {decision}  {text!r}"


def _layer_lines(table: LayerTable) -> Iterator[str]:
    """A line a layer, and where the two part."""
    yield from table.said
    if not table.layers:
        return
    yield f"{f'layers ({table.rows} rows)':<20} {'max |difference|':>16} {'of its spread':>14} {'cosine':>10}"
    first = table.first_divergence
    for layer in table.layers:
        mark = "  <- first divergence" if layer is first else ""
        yield f"  {layer.layer:<18} {layer.max_abs_diff:>16.3g} {layer.rel_diff:>14.3g} {layer.cosine:>10.6f}{mark}"
    yield f"{table.verdict()}"
