"""Techniques: a list of parts in, the list with open settings out, in the order in which they are applied."""

from collections import Counter
from dataclasses import replace
from typing import Annotated, get_args

from beats_search import plugins
from beats_search.space.grammar import Field
from beats_search.space.knobs import Choice, Items, Node, PartNode
from beats_search.space.parts import name_of, read_part
from beats_search.space.reading import Place, Reading
from beats_search.space.yaml_tree import Yaml, YamlBroken, YamlList, in_words


def read_techniques(written: Yaml, field: Field, reading: Reading) -> Items | None:
    """Return the parts of a list; None when one does not fit, or stands after one that must be the last."""
    if isinstance(written, YamlBroken):
        return None
    if not isinstance(written, YamlList):
        reading.mistake(written.place, f"{field.path} needs a list of parts, got {in_words(written)}; [] is none")
        return None
    hint: Annotated[object, ...] = get_args(field.hint)[0]
    slots = [replace(field, hint=hint, path=path) for path in _paths(written.items, field.path)]
    nodes = [read_part(item, slot, reading) for item, slot in zip(written.items, slots, strict=True)]
    items = tuple(node for node in nodes if node is not None)
    places = tuple(item.place for item, node in zip(written.items, nodes, strict=True) if node is not None)
    in_order = _is_in_order(items, places, reading)
    return Items(items=items) if in_order and len(items) == len(nodes) else None


def _paths(items: tuple[Yaml, ...], path: str) -> tuple[str, ...]:
    """Return `compression.<name>` for a part that is there once, else `compression.<index>`."""
    names = [name_of(item) for item in items]
    count = Counter(names)
    return tuple(f"{path}.{name if name and count[name] == 1 else index}" for index, name in enumerate(names))


def _is_in_order(items: tuple[Node, ...], places: tuple[Place, ...], reading: Reading) -> bool:
    closing: str | None = None
    fine = True
    for item, place in zip(items, places, strict=True):
        parts = _parts(item)
        if closing is not None:
            fine = False
            names = " or ".join(part.name for part in parts)
            rule = f"{names} must come before {closing}" if names != closing else f"{closing} may be there once only"
            reading.mistake(place, f"{rule}: nothing may come after {closing}")
        closing = closing or next((part.name for part in parts if _closes(part)), None)
    return fine


def _parts(node: Node) -> tuple[PartNode, ...]:
    options = node.options if isinstance(node, Choice) else (node,)
    return tuple(option for option in options if isinstance(option, PartNode))


def _closes(part: PartNode) -> bool:
    return bool(getattr(plugins.settings_class(part.shelf, part.name), "closes", False))
