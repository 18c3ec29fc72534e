"""A comparison of masked-language models as text for people."""

from collections.abc import Iterator

from pocketbert.comparison.fill_mask import UNJUDGED, FillMaskComparison

_TEXT_WIDTH = 60


def as_text(found: FillMaskComparison) -> str:
    """What was assumed, the figures, the kinds of rows and masked words with other favourites."""
    return "\n".join(_lines(found))


def _lines(found: FillMaskComparison) -> Iterator[str]:
    for letter, name, engine in zip("AB", (found.a, found.b), found.engines, strict=True):
        yield f"{letter}: {name} ({engine})"
    yield from (line if line.startswith("WARNING") else f"assumed: {line}" for line in found.said)
    yield ""
    yield f"rows              {found.rows} ({found.positions} tokens, {found.masked} masked)"
    yield f"spread of A       {found.spread:.4g}"
    yield f"max |difference|  {found.max_abs_diff:.4g} = {found.max_rel_diff:.3g} of the spread"
    yield f"mean |difference| {found.mean_abs_diff:.4g} = {found.mean_abs_diff / found.spread:.3g} of the spread"
    yield f"same first guess  {found.top1_agreement:.4f} of the masked words"
    yield f"same five guesses {found.top5_agreement:.4f} of the masked words, in any order"
    for kind, gap in found.hard_rows.items():
        note = " (not judged: no token at all)" if kind == UNJUDGED else ""
        shown = "NaN or infinite" if gap is None else f"{gap:.3g} of the spread"
        yield f"{f'{kind} rows':<17} {shown}{note}"
    if found.differing:
        yield ""
        yield "masked words with other guesses"
    for word in found.differing:
        text = word.text if len(word.text) <= _TEXT_WIDTH else word.text[: _TEXT_WIDTH - 1] + "…"
        yield f"  row {word.row:<6} {', '.join(word.top_a)} -> {', '.join(word.top_b)}  {text!r}"
