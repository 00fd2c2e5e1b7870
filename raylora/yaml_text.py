"""YAML as settings need it: plain values, and none of what makes a small text a large or an endless one."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.nodes import CollectionNode, MappingNode, Node

DEEPEST = 32
"""Levels; settings have four. PyYAML calls itself for each, and ends with Python's stack."""
MOST_VALUES = 100_000
"""With aliases counted as often as they stand: nine of nine of nine … are a billion in a few lines."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with bounds, and without keys that stand twice, of which it would drop the first."""

    def __init__(self, text: str):
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, int] = {}
        """How many values are in a node that is done, by its id: nodes live as long as their document."""

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self._depth += 1
        if self._depth > DEEPEST:
            raise _fault(f"is nested more than {DEEPEST} deep", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent) and id(node) not in self._sizes:
            raise _fault(f"the alias *{event.anchor} stands within itself", event)
        self._sizes.setdefault(id(node), 1 + sum(self._sizes[id(part)] for part in _parts(node)))
        if self._sizes[id(node)] > MOST_VALUES:
            raise _fault(f"holds more than {MOST_VALUES:,} values", event)
        return node

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name in keys:
                raise _fault(f"the key {key.value!r:.100} stands twice", key)
            keys |= {name} if name else set()
        return dict(super().construct_mapping(node, deep))


def _parts(node: Node | None) -> list[Node]:
    """The nodes right below a node."""
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, CollectionNode) else []


def _fault(problem: str, place: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, place.start_mark)


def load_yaml(text: str) -> Any:
    """The values of a YAML document.

    Raises:
        ValueError: it is none, or one that settings never are; in one line.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        place = f"line {at.line + 1}, column {at.column + 1}: " if at else ""
        problem = str(error.problem or error.context)
        if error.context and problem.startswith("but "):
            problem = f"{error.context}, {problem}"
        problem = " ".join(problem.split())
        raise ValueError(f"{place}{problem}"[:LONGEST_FAULT]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ValueError(f"line {line}: the character U+{error.character:04X} stands in no YAML") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # PyYAML lets ValueErrors of dates through
        raise ValueError(" ".join(str(error).split())[:LONGEST_FAULT]) from None


LONGEST_FAULT = 300
"""Characters: PyYAML quotes what it can't read."""
