"""Write data/raw/{commodities,tiny}.csv: synthetic online-store titles in 28 categories, the same bytes on every run.

A title names what is sold by a common or a rare noun of its category, often beside a noun of another category that
only the wording rules out ("free kettle with every sofa"), and carries brands, sizes and promotions that all
categories share, typing errors and a few wrong labels.

tiny.csv, for the tiny profile, is the first rows of six of the categories.

    python data/generate_commodities.py [FOLDER]
"""

import csv
import io
import random
import sys
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

HERE = Path(__file__).parent
ROWS = 4500
SEED = 28
TINY_CLASSES = 6
TINY_ROWS_A_CLASS = 60

RARE_SHARE = 0.16
OTHER_SHARE = 0.23
TYPO_SHARE = 0.06
GLUED_SHARE = 0.02
WRONG_LABEL_SHARE = 0.01


@dataclass(frozen=True)
class Lexicon:
    """The word lists of commodities.yaml."""

    common: dict[str, list[str]]
    rare: dict[str, list[str]]
    brands: list[str]
    adjectives: list[str]
    sizes: list[str]
    promotions: list[str]
    people: list[str]
    patterns: list[str]

    @property
    def classes(self) -> list[str]:
        """Names of the categories."""
        return list(self.common)


def read_lexicon(path: Path = HERE / "commodities.yaml") -> Lexicon:
    """Read the word lists."""
    document = YAML(typ="safe").load(path.read_text(encoding="utf-8"))

    def words(listed: str) -> list[str]:
        return [word.strip() for word in listed.split(",")]

    classes = document["classes"]
    shared = {name: words(document[name]) for name in ("brands", "adjectives", "sizes", "promotions", "people")}
    return Lexicon(
        common={name: words(entry["common"]) for name, entry in classes.items()},
        rare={name: words(entry["rare"]) for name, entry in classes.items()},
        patterns=document["patterns"],
        **shared,
    )


def generate_rows(lexicon: Lexicon, rows: int = ROWS, seed: int = SEED) -> list[tuple[str, str]]:
    """Draw `rows` different titles with their categories, in random order."""
    draw = random.Random(seed)
    # Categories differ in size, as in a store: the largest has about twice the rows of the smallest.
    weights = [draw.uniform(0.7, 1.4) for _ in lexicon.classes]
    found: dict[str, tuple[str, str]] = {}
    while len(found) < rows:
        category = draw.choices(lexicon.classes, weights)[0]
        title = write_title(lexicon, category, draw)
        if draw.random() < WRONG_LABEL_SHARE:
            category = draw.choice([name for name in lexicon.classes if name != category])
        found.setdefault(title.replace(" ", "").casefold(), (title, category))
    return list(found.values())


def write_title(lexicon: Lexicon, category: str, draw: random.Random) -> str:
    """One title of something in `category`."""
    head = _noun(lexicon, category, draw)
    if draw.random() < 0.4:
        head = f"{draw.choice(lexicon.adjectives)} {head}"
    if draw.random() < OTHER_SHARE:
        stranger = draw.choice([name for name in lexicon.classes if name != category])
        head = draw.choice(lexicon.patterns).format(head=head, other=_noun(lexicon, stranger, draw))
    elif draw.random() < 0.15:
        head = f"{head} for {draw.choice(lexicon.people)}"
    parts = [head]
    if draw.random() < 0.45:
        parts.insert(0, draw.choice(lexicon.brands))
    if draw.random() < 0.35:
        parts.append(draw.choice(lexicon.sizes))
    if draw.random() < 0.3:
        parts.insert(draw.choice([0, len(parts)]), draw.choice(lexicon.promotions))
    return _mistype(_set_case(" ".join(parts), draw), draw)


def _noun(lexicon: Lexicon, category: str, draw: random.Random) -> str:
    nouns = lexicon.rare if draw.random() < RARE_SHARE else lexicon.common
    return draw.choice(nouns[category])


def _set_case(title: str, draw: random.Random) -> str:
    style = draw.random()
    if style < 0.5:
        return title
    return title.title().replace("'S", "'s") if style < 0.9 else title.upper()


def _mistype(title: str, draw: random.Random) -> str:
    """Swap, drop or double a letter of one word, or glue two words together, in a few titles."""
    words = title.split(" ")
    if len(words) > 2 and draw.random() < TYPO_SHARE:
        i = draw.randrange(len(words))
        word = words[i]
        if len(word) > 4 and word.isalpha():
            at = draw.randrange(1, len(word) - 2)
            words[i] = draw.choice(
                [
                    word[:at] + word[at + 1] + word[at] + word[at + 2 :],
                    word[:at] + word[at + 1 :],
                    word[:at] + word[at] + word[at:],
                ]
            )
    if len(words) > 2 and draw.random() < GLUED_SHARE:
        i = draw.randrange(len(words) - 1)
        words[i : i + 2] = [words[i] + words[i + 1]]
    return " ".join(words)


def as_csv(rows: list[tuple[str, str]]) -> str:
    """The rows as CSV text with a header line."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["title", "category"])
    writer.writerows(rows)
    return stream.getvalue()


def tiny_rows(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The first rows of the first categories, in the order of `rows`."""
    room = dict.fromkeys(sorted({category for _, category in rows})[:TINY_CLASSES], TINY_ROWS_A_CLASS)
    chosen = []
    for title, category in rows:
        if room.get(category, 0) > 0:
            room[category] -= 1
            chosen.append((title, category))
    return chosen


def main() -> None:
    """Write both files into the folder named on the command line, or over the shipped ones."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "raw"
    rows = generate_rows(read_lexicon())
    for name, chosen in (("commodities.csv", rows), ("tiny.csv", tiny_rows(rows))):
        (folder / name).write_text(as_csv(chosen), encoding="utf-8", newline="")


if __name__ == "__main__":
    main()
