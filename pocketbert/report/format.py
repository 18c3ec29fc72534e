"""Numbers as text with their units; unknown is an en dash on the page, never 0."""

UNKNOWN = "–"


def percent(share: float | None, digits: int = 2) -> str:
    """0.9553 -> 95.53 %."""
    return UNKNOWN if share is None else f"{100 * share:.{digits}f} %"


def points(value: float | None) -> str:
    """A signed difference in percentage points."""
    return UNKNOWN if value is None else f"{value:+.2f}".replace("-", "−")


def milliseconds(value: float | None) -> str:
    """Three significant digits."""
    return UNKNOWN if value is None else f"{significant(value)} ms"


def megabytes(size_bytes: int | None) -> str:
    """Bytes in units of 10^6."""
    return UNKNOWN if size_bytes is None else f"{significant(size_bytes / 1e6)} MB"


def scientific(value: float | None) -> str:
    """Two digits and a power of ten, or a plain 0."""
    return UNKNOWN if value is None else "0" if value == 0 else f"{value:.1e}"


def significant(value: float, digits: int = 3) -> str:
    """1234.5 -> 1,234; 12.345 -> 12.3; 0.012345 -> 0.0123."""
    magnitude = f"{value:.{digits}g}"
    return f"{float(magnitude):,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:#.{digits}g}".rstrip(".")


def plain(value: object) -> str:
    """Any figure of another stage's record."""
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return scientific(value) if value and not 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value) or "none"
    return str(value)


def words(name: str) -> str:
    """A key as words: duplicate_in_train -> duplicate in train."""
    return name.replace("_", " ").replace(".", ": ")
