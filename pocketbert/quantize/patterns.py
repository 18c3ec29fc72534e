"""The regular expressions of a recipe's `exclude`."""

import re
from collections.abc import Iterable, Sequence

from pocketbert.errors import ParamsError


def matching(patterns: Iterable[str], names: Sequence[str], what: str) -> set[str]:
    """The names in which a pattern is found; raises ParamsError for a pattern that is none or finds nothing."""
    found: set[str] = set()
    for pattern in patterns:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise ParamsError(
                f"exclude: {pattern!r} is no regular expression: {error}", "Escape special characters by a backslash."
            ) from error
        hits = [name for name in names if compiled.search(name)]
        if not hits:
            near = ", ".join(dict.fromkeys(names[:: max(1, len(names) // 3)]))
            raise ParamsError(f"exclude: {pattern!r} is found in the name of no {what}", f"Names are like {near}.")
        found.update(hits)
    return found
