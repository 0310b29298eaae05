"""YAML as people write it, read so that nothing is silently ignored: every error is one line with its place."""

import re
from typing import Any

import yaml
from upath import UPath

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_GROWTH = 10  # times the nodes that a document writes; aliases of aliases grow to billions in a few lines
_SMALL = 10_000  # nodes that are never too many


def read_yaml(path: UPath, place: str, most_bytes: int | None = None, most_values: int | None = None) -> Any:
    """The content of a YAML file; `place` is what messages call it.

    `most_values` bounds its commas and lines together: parsing takes 12 us a value, counting these next to nothing.

    Raises:
        ValueError: it can't be read, is too large, is not text, is empty, is not YAML, or names a key twice.
    """
    if path.is_dir():
        raise ValueError(f"{place} is a folder, not a YAML file")
    try:
        size = path.stat().st_size
        if most_bytes is not None and size > most_bytes:
            raise ValueError(f"{place} has {size:,} bytes, and may have {most_bytes:,}")
        data = bytes(path.read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"there is no {place}") from error
    except PermissionError as error:
        raise ValueError(f"{place} can't be read; change its permissions (chmod u+r)") from error
    text = _decoded(data, place)
    if most_values is not None and text.count(",") + text.count("\n") > most_values:
        raise ValueError(f"{place} lists more than {most_values:,} values; split it into several files")
    if not text.strip():
        raise ValueError(f"{place} is empty")
    return parse_yaml(text, place)


def parse_yaml(text: str, place: str) -> Any:
    """The one document of a YAML text.

    Raises:
        ValueError: it is not YAML, names a key twice, or repeats its parts without bounds.
    """
    loader = _LOADER(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _require_sound(node, loader, place)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"{place} is not YAML: {_in_words(error, text)}") from error
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        if isinstance(error, _UnsoundError):
            raise
        raise ValueError(f"{place} is not YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()


class _UnsoundError(ValueError):
    """A YAML document that parses, but can't be what is meant."""


def _decoded(data: bytes, place: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{place} is UTF-16; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{place} is not UTF-8 text: byte 0x{data[error.start]:02x} in line {line}") from error
    odd = _UNPRINTABLE.search(text)
    if odd:
        line = text.count("\n", 0, odd.start()) + 1
        raise ValueError(f"{place} is not text: character 0x{ord(odd[0]):02x} in line {line}")
    return text


def _require_sound(root: yaml.Node, loader: Any, place: str) -> None:
    """Refuse keys that are named twice, and aliases that repeat too much or their own parents."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        """How many nodes a node stands for, with its aliases written out."""
        if id(node) in sizes:
            return sizes[id(node)]
        if id(node) in open_nodes:
            raise _UnsoundError(f"{place}, line {_line(node)}: a part refers to itself")
        open_nodes.add(id(node))
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            _require_unique_keys(node, loader, place)
            children = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        sizes[id(node)] = 1 + sum(map(size, children))
        open_nodes.discard(id(node))
        return sizes[id(node)]

    if size(root) > max(_SMALL, _GROWTH * len(sizes)):
        raise _UnsoundError(f"{place}: its aliases (*) stand for {sizes[id(root)]:.0e} values; write out what is meant")


def _require_unique_keys(node: yaml.MappingNode, loader: Any, place: str) -> None:
    first: dict[tuple[str, Any], int] = {}
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
            continue  # `<<` may stand several times; lists and mappings as keys are refused later
        key = (key_node.tag, loader.construct_object(key_node))
        line = _line(key_node)
        if key in first:
            where = f"line {line}" if first[key] == line else f"lines {first[key]} and {line}"
            raise _UnsoundError(f"{place} names {key[1]!r} twice, in {where}")
        first[key] = line


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _in_words(error: yaml.MarkedYAMLError, text: str) -> str:
    """A syntax error in one line."""
    said = " ".join(f"{error.context or ''} {error.problem or ''}".split())
    if error.problem_mark is None:
        return said
    number = error.problem_mark.line
    lines = text.splitlines()
    indent = re.match(r"\s*", lines[number])[0] if number < len(lines) else ""  # type: ignore[index]  # always fits
    cure = "; indent with spaces, not tabs" if "\t" in indent else ""
    return f"line {number + 1}, column {error.problem_mark.column + 1}: {said}{cure}"
