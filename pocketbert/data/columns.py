"""Choose the text and the label column: by parameter, by name in several languages, or by content."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pocketbert.data.table import Table
from pocketbert.errors import DataError
from pocketbert.params import PrepareParams

# In tiers of preference, without accents, as `_normal` writes them; two columns of one tier are ambiguous.
TEXT_NAMES = (
    ("text", "texts", "文本", "texto", "texte", "testo", "tekst", "テキスト", "텍스트", "текст"),
    ("sentence", "utterance", "query", "question", "句子", "问题", "frase", "oracion", "phrase", "satz", "frage"),
    ("title", "headline", "标题", "標題", "titulo", "titre", "titel", "titolo", "タイトル", "제목", "название"),
    ("content", "body", "document", "review", "comment", "message", "description", "内容", "contenido", "conteudo",
     "contenu", "inhalt", "描述", "评论"),
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "label_name", "label_text", "intent", "intents", "category", "categories", "category_name",
    "class", "classes", "class_name", "target", "tag", "topic", "标签", "標籤", "类别", "類別", "分类", "意图",
    "etiqueta", "etiquetas", "categoria", "categorias", "clase", "classe", "rotulo", "intencion", "etiquette",
    "categorie", "intention", "kategorie", "klasse", "absicht", "etichetta", "カテゴリ", "ラベル", "카테고리", "라벨",
    "레이블", "категория", "метка", "класс",
)  # fmt: skip
LABEL_ID_NAMES = (
    "label_id", "labelid", "label_ids", "label_idx", "label_index", "intent_id", "category_id", "class_id",
    "class_index", "target_id", "标签id", "类别id",
)  # fmt: skip
# A text column found by content: mostly different values, not ids, dates or addresses.
_TOKEN = re.compile(r"[\x21-\x7e]*")


@dataclass(frozen=True)
class Columns:
    """The chosen columns."""

    text: str
    label: str


def choose_columns(tables: Mapping[str, Table], params: PrepareParams) -> Columns:
    """Choose the columns of all splits from the first one; raises DataError where none or several would do."""
    first = next(iter(tables.values()))
    label = _given(first, params.label_column, "label") if params.label_column else None
    text = _given(first, params.text_column, "text") if params.text_column else _find_text(first, exclude=label)
    if text == label:
        raise DataError(f"{first.source}: {text!r} is named as text and as label column", "Name two different columns.")
    columns = Columns(text, label or _find_label(first, exclude=text))
    if columns.label in first.columns[columns.label]:
        raise DataError(
            f"{first.source} seems to have no header line: its first line holds the label {columns.label!r}",
            "Add a first line with the columns' names, such as text,label.",
        )
    for split, table in tables.items():
        for name in (columns.text, columns.label):
            if name not in table.columns:
                raise DataError(
                    f"{table.source} has no column {name!r} as the other splits do (its columns: {_listed(table)})",
                    f"Give {split} the same header line as the others.",
                )
    return columns


def find_text_column(table: Table) -> str:
    """The text column of a table that has no labels (unlabelled text); raises DataError."""
    return _find_text(table, exclude=None)


def _given(table: Table, name: str, role: str) -> str:
    """The column that a parameter names, also in another case or with spaces for underscores."""
    matches = [n for n in table.columns if n == name] or [n for n in table.columns if _normal(n) == _normal(name)]
    if len(matches) == 1:
        return matches[0]
    near = difflib.get_close_matches(name, list(table.columns), n=1)
    raise DataError(
        f"{table.source} has no column {name!r} (its columns: {_listed(table)})",
        f"Did you mean prepare.{role}_column: {near[0]}?" if near else f"Correct prepare.{role}_column.",
    )


def _find_text(table: Table, exclude: str | None) -> str:
    usable = [n for n, cells in table.columns.items() if n != exclude and _is_textual(cells)]
    for tier in TEXT_NAMES:
        named = [n for n in usable if _is_one_of(n, tier)]
        if named:
            return _only(table, named, "text")
    prose = [n for n in usable if not _is_one_of(n, LABEL_NAMES + LABEL_ID_NAMES) and _is_prose(table.columns[n])]
    return _only(table, prose, "text")


def _find_label(table: Table, exclude: str) -> str:
    others = [n for n in table.columns if n != exclude]
    named = [n for n in others if _is_one_of(n, LABEL_NAMES + LABEL_ID_NAMES)]
    return _only(table, _by_name_first(table, named or [n for n in others if _is_category(table.columns[n])]), "label")


def _by_name_first(table: Table, names: list[str]) -> list[str]:
    """Where all candidates divide the rows alike (an id and a name of the class), the one with the names."""
    if len(names) < 2 or not all(_same_classes(table.columns[names[0]], table.columns[n]) for n in names[1:]):
        return names

    def is_bare_id(name: str) -> bool:
        return name not in table.class_names and all(_is_integer(v) for v in _present(table.columns[name]))

    return sorted(names, key=lambda n: (is_bare_id(n), _is_one_of(n, LABEL_ID_NAMES)))[:1]


def _only(table: Table, names: Sequence[str], role: str) -> str:
    if len(names) == 1:
        return names[0]
    cause = (
        f"{len(names)} columns could be the {role} column: {', '.join(names)}" if names else f"no {role} column found"
    )
    raise DataError(
        f"{table.source}: {cause} (its columns: {_listed(table)})",
        f"Set prepare.{role}_column to the right one.",
    )


def _listed(table: Table) -> str:
    return ", ".join(table.columns)


def _is_one_of(name: str, known: Iterable[str]) -> bool:
    return _normal(name) in {_normal(other) for other in known}


def _normal(name: str) -> str:
    """A column's name without case and accents, words joined by underscores."""
    letters = unicodedata.normalize("NFKD", name.strip().casefold())
    bare = "".join(c for c in letters if not unicodedata.combining(c))
    return re.sub(r"[\s_-]+", "_", bare)


def _present(cells: Iterable[object]) -> list[object]:
    return [c for c in cells if c is not None and c != "" and c != -1 and c != "-1"]


def _is_integer(value: object) -> bool:
    return isinstance(value, int) or (isinstance(value, str) and re.fullmatch(r"-?\d+(\.0+)?", value) is not None)


def _is_textual(cells: Sequence[object]) -> bool:
    """Any strings that are not all numbers."""
    present = _present(cells)
    return bool(present) and all(isinstance(c, str) for c in present) and not all(_is_integer(c) for c in present)


def _is_prose(cells: Sequence[object]) -> bool:
    values = [str(c) for c in _present(cells)]
    bare = sum(_TOKEN.fullmatch(v.strip()) is not None for v in values)
    return len(set(values)) > len(values) / 2 and bare < len(values) / 2


def _is_category(cells: Sequence[object]) -> bool:
    """Few different values, each used about twice or more."""
    values = _present(cells)
    if not values or any(isinstance(v, float | dict) for v in values):
        return False
    return 2 <= len({str(v) for v in values}) <= len(values) / 2


def _same_classes(a: Sequence[object], b: Sequence[object]) -> bool:
    """Whether two label columns name the same partition of the rows (rows with a missing cell ignored)."""
    pairs = {(str(x), str(y)) for x, y in zip(a, b, strict=True) if _present([x]) and _present([y])}
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})
