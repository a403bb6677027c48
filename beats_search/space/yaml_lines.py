"""YAML with lines: a text in, a tree of values out that knows the place of each of them.

The rules are those of YAML 1.2: `1e-3` is a number, `yes` is text. No tag makes a Python object.
"""

import io
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, final

from ruamel.yaml import YAML
from ruamel.yaml.composer import ComposerError, MaxDepthExceededError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.resolver import BaseResolver

from beats_search.records.part import Scalar
from beats_search.space.reading import Place, Reading
from beats_search.space.yaml_tree import (
    Yaml,
    YamlBroken,
    YamlEntry,
    YamlList,
    YamlMap,
    YamlScalar,
    in_words,
    quoted,
    to_python,
)

_MOST_LEVELS: Final = 50
_MOST_VALUES: Final = 20_000
_MOST_CHARACTERS: Final = 1_000_000
_BITS: Final = 63
_MOST_DIGITS: Final = 40
_TAG: Final = "tag:yaml.org,2002:"


def read_yaml(text: str, locate: Callable[[int], Place], reading: Reading) -> Yaml:
    """Return the tree of a text; `locate` turns its line numbers (from 1) into places."""
    if len(text) > _MOST_CHARACTERS:
        reading.mistake(locate(1), f"a space file has at most {_MOST_CHARACTERS:,} characters, got {len(text):,}")
        return YamlBroken(place=locate(1))
    try:
        root = _yaml().compose(text)
        return YamlScalar(value=None, place=locate(1)) if root is None else _Tree(locate, reading).of(root, 1)
    except YAMLError as error:
        place = locate(_line_of(error, text))
        reading.mistake(place, _why(error))
        return YamlBroken(place=place)


def to_text(tree: Yaml) -> str:
    """Return a tree as YAML text that `read_yaml` reads as the same values."""
    stream = io.StringIO()
    _yaml().dump(to_python(tree), stream)
    return stream.getvalue()


@final
class _CoreSchema(BaseResolver):
    """What an unquoted word means: the core schema of YAML 1.2 (section 10.3.2), and nothing else."""

    def __init__(self, version: object = None, loader: object = None, loadumper: object = None) -> None:
        del version  # a %YAML directive changes nothing
        super().__init__(loader if loader is not None else loadumper)

    @property
    def processing_version(self) -> tuple[int, int]:
        """Version 1.2, whatever a file says."""
        return (1, 2)


for _kind, _pattern, _first in (
    ("null", r"(?:null|Null|NULL|~|)$", ["", *"nN~"]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)$", [*"tTfF"]),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", [*"-+0123456789"]),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", [*"-+.0123456789"]),
    ("float", r"[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$", [*"-+."]),
):
    _CoreSchema.add_implicit_resolver_base(_TAG + _kind, re.compile(_pattern), _first)


def _yaml() -> Any:  # noqa: ANN401 - ruamel.yaml's attributes are untyped
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.Resolver = _CoreSchema
    yaml.max_depth = _MOST_LEVELS
    yaml.composer.warn_double_anchors = False
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    return yaml


def _line_of(error: YAMLError, text: str) -> int:
    if isinstance(error, MarkedYAMLError):
        unclosed = "stream" in str(error.problem) and error.context_mark  # where it was opened says more
        mark = unclosed or error.problem_mark or error.context_mark
        return 1 if mark is None else int(mark.line) + 1
    position = error.position if isinstance(error, ReaderError) else 0
    return text.count("\n", 0, position) + 1


def _why(error: YAMLError) -> str:
    if isinstance(error, MaxDepthExceededError):
        return f"nested deeper than {_MOST_LEVELS} levels"
    if isinstance(error, ReaderError):
        return f"not a text file: it holds the character {error.character:#06x}"
    problem = getattr(error, "problem", None) or str(error)
    context = getattr(error, "context", None)
    hint = ""
    if "'\\t'" in problem:
        hint = "; indent with spaces, not with tabs"
    elif "block scalar" in str(context):
        hint = '; put a text that begins with > or | in quotes, such as ">= 0.9"'
    return f"not valid YAML: {problem}{f' {context}' if context else ''}{hint}"


@final
class _Tree:
    """Turns nodes into values, and counts them: aliases could make a small file huge."""

    def __init__(self, locate: Callable[[int], Place], reading: Reading) -> None:
        self._locate = locate
        self._reading = reading
        self._left = _MOST_VALUES

    def of(self, node: Any, level: int) -> Yaml:  # noqa: ANN401 - nodes of ruamel.yaml are untyped
        """Return the value of a node `level` levels deep."""
        self._count(node, level)
        place = self._locate(node.start_mark.line + 1)
        match node:
            case ScalarNode():
                return self._scalar(node, place)
            case SequenceNode() if str(node.tag) == _TAG + "seq":
                return YamlList(items=tuple(self.of(item, level + 1) for item in node.value), place=place)
            case MappingNode() if str(node.tag) == _TAG + "map":
                return self._mapping(node, level, place)
        return self._broken(place, f"a tag such as {node.tag} has no meaning in a space file")

    def _count(self, node: Any, level: int) -> None:  # noqa: ANN401 - as above
        self._left -= 1
        if self._left < 0:
            raise ComposerError(None, None, f"more than {_MOST_VALUES:,} values", node.start_mark)
        if level > _MOST_LEVELS:
            raise MaxDepthExceededError(None, None, "", node.start_mark)

    def _mapping(self, node: Any, level: int, place: Place) -> YamlMap:  # noqa: ANN401 - as above
        entries: dict[str, YamlEntry] = {}
        for key_node, value_node in node.value:
            key = self.of(key_node, level + 1)
            value = self.of(value_node, level + 1)
            if not (isinstance(key, YamlScalar) and isinstance(key.value, str)):
                self._reading.mistake(key.place, f"a key needs to be text, got {in_words(key)}")
            elif key.value in entries:
                first = entries[key.value].place.line
                self._reading.mistake(key.place, f"the key {key.value!r} is already in line {first}")
            else:
                entries[key.value] = YamlEntry(key=key.value, value=_beside(key.place, value), place=key.place)
        return YamlMap(entries=tuple(entries.values()), place=place)

    def _scalar(self, node: Any, place: Place) -> YamlScalar | YamlBroken:  # noqa: ANN401 - as above
        kind = str(node.tag).removeprefix(_TAG)
        if kind not in _CONVERT:
            return self._broken(place, f"a tag such as {node.tag} has no meaning in a space file")
        try:
            return YamlScalar(value=_CONVERT[kind](node.value), place=place)
        except ValueError as error:
            return self._broken(place, str(error))

    def _broken(self, place: Place, text: str) -> YamlBroken:
        self._reading.mistake(place, text)
        return YamlBroken(place=place)


def _beside(place: Place, value: Yaml) -> Yaml:
    """Return a value that was left out as standing beside its key, not where the next one begins."""
    return replace(value, place=place) if isinstance(value, YamlScalar) and value.value is None else value


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"a boolean is true or false, got {quoted(text)}")
    return text.lower() == "true"


def _whole(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    if len(text) > _MOST_DIGITS or int(text, base).bit_length() > _BITS:
        raise ValueError(f"a whole number has at most {_BITS} bits, got {quoted(text)}")
    return int(text, base)


def _real(text: str) -> float:
    value = float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
    if not math.isfinite(value):
        raise ValueError(f"a number needs to be finite, got {text}")
    return value + 0.0  # minus zero becomes zero, so that equal plans have equal fingerprints


_CONVERT: Final[dict[str, Callable[[str], Scalar]]] = {
    "null": lambda _: None,
    "bool": _truth,
    "int": _whole,
    "float": _real,
    "str": str,
}
