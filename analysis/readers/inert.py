"""A pickle reader that runs nothing: a small machine of its own in place of Python's `pickle`.

A class or function that a pickle names becomes a `Global`, just a name; what the pickle makes from one becomes a
`Standin`, which keeps what it was made from. Nothing is imported, looked up or called. Only the names in `builders`
yield real values, such as tensors, which this project makes itself. `pickletools` of the standard library splits the
bytes into instructions, and every instruction that is not in `_STEPS` is refused.

Memory is bounded: no length is trusted beyond the bytes that are there, and instructions are counted.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

STEPS_LIMIT = 3_000_000  # some 0.5 GiB of objects; a large model's checkpoint has 100,000
_SCALARS = (str, int, float, bool, bytes, type(None))


@dataclass(frozen=True)
class Global:
    """The name of a class or function."""

    name: str


@dataclass(eq=False, slots=True)
class Standin:
    """An object that isn't made: what it is (`of`), its arguments, its attributes, and the items set in it by key."""

    of: str
    args: tuple[Any, ...] = ()
    state: Any = None
    pairs: dict[Any, Any] = field(default_factory=dict)

    def __repr__(self) -> str:  # not what it holds, which may be endless
        return f"<{self.of}>"


Builders = Mapping[str, Callable[..., Any]]


class Machine:
    """Reads one pickle. `persistent` resolves the ids of what lies outside it: the tensors' storages.

    `builders`: functions by the name they stand for. They get arguments of any type, which they must check, and may
    raise ValueError, LookupError, TypeError or ArithmeticError.
    """

    def __init__(self, builders: Builders, persistent: Callable[[Any], Any]) -> None:
        self._builders, self._persistent = builders, persistent
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self, stream: Any) -> Any:
        """The value of the pickle at the stream's position; leaves the stream right behind it.

        Raises:
            ValueError, LookupError, TypeError: it is not a pickle, is damaged, or is larger than any checkpoint's.
        """
        plain: Any = _Plain(stream.read, stream.readline)
        for count, (opcode, argument, _) in enumerate(pickletools.genops(plain)):
            if count > STEPS_LIMIT:
                raise ValueError(f"it holds more than {STEPS_LIMIT:,} objects besides its tensors")
            if opcode.name == "STOP":
                break
            step = _STEPS.get(opcode.name)
            if step is None:
                raise ValueError(f"its pickle uses {opcode.name}, which no checkpoint needs")
            step(self, argument)
        return self._stack.pop()

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        return self._stack.pop()

    def since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def mark(self, _: Any) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def drop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self.since_mark()

    def duplicate(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def remember(self, key: Any) -> None:
        self._memo[len(self._memo) if key is None else key] = self._stack[-1]

    def recall(self, key: Any) -> None:
        self._stack.append(self._memo[key])

    def make_tuple(self, length: int) -> None:
        items = self._stack[len(self._stack) - length :] if length else []
        if len(items) != length:
            raise ValueError("its pickle is truncated")
        del self._stack[len(self._stack) - length :]
        self._stack.append(tuple(items))

    def outside(self, _: Any) -> None:
        self._stack.append(self._persistent(self._stack.pop()))

    def global_by_stack(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("it names a class by something other than text")
        self._stack.append(Global(f"{module}.{name}"))

    def make(self, what: Any, args: Any) -> None:
        """The result of calling or instantiating `what`; only names in `builders` are really called."""
        arguments = args if isinstance(args, tuple) else (args,)
        name = what.name if isinstance(what, Global) else f"a result of {getattr(what, 'of', type(what).__name__)}"
        builder = self._builders.get(name) if isinstance(what, Global) else None
        self._stack.append(Standin(name[:300], arguments) if builder is None else builder(*arguments))

    def reduce(self, _: Any) -> None:
        args, what = self._stack.pop(), self._stack.pop()
        self.make(what, args)

    def new_with_keywords(self, _: Any) -> None:
        self._stack.pop()
        self.reduce(None)

    def instance(self, name: Any) -> None:
        """INST names its class in the instruction, OBJ below its arguments."""
        items = self.since_mark()
        self.make(Global(str(name).replace(" ", ".", 1)), tuple(items))

    def instance_by_stack(self, _: Any) -> None:
        what, *args = self.since_mark()
        self.make(what, tuple(args))

    def build(self, _: Any) -> None:
        """State is kept by stand-ins; a dict's attributes and a tensor's don't matter here."""
        state = self._stack.pop()
        if isinstance(self._stack[-1], Standin):
            self._stack[-1].state = state

    def put(self, items: list[Any]) -> None:
        held = self._stack[-1]
        pairs = held.pairs if isinstance(held, Standin) else held
        if not isinstance(pairs, dict) or len(items) % 2:
            raise ValueError("it sets items by key in something that has none")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing nested tuples can take forever, or overflow the stack; no tensor's name is one.
            pairs[key if isinstance(key, _SCALARS) else Standin("a key")] = value

    def put_one(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self.put([key, value])

    def append(self, items: list[Any]) -> None:
        held = self._stack[-1]
        if isinstance(held, list):
            held.extend(items)
        elif not isinstance(held, Standin):
            raise ValueError("it appends to something that is not a list")

    def append_one(self, _: Any) -> None:
        value = self._stack.pop()
        self.append([value])


@dataclass(frozen=True)
class _Plain:
    """A stream without `tell`, which pickletools would call for each instruction."""

    read: Callable[[int], bytes]
    readline: Callable[[], bytes]


class Bounded:
    """A stream with a known number of bytes left: a read beyond them is refused before memory is allocated."""

    def __init__(self, stream: Any, rest: int) -> None:
        self._stream, self._rest = stream, rest

    def read(self, length: int) -> bytes:
        if not 0 <= length <= self._rest:
            raise ValueError("it is truncated")
        self._rest -= length
        return self._stream.read(length)

    def readline(self) -> bytes:
        line = self._stream.readline(min(self._rest, 2**20))
        self._rest -= len(line)
        return line


def attributes_of(value: Any) -> Mapping[Any, Any]:
    """A dict's items, or a stand-in's items and attributes; a module's parameters, buffers and submodules by name."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, Standin):
        return {}
    states = value.state if isinstance(value.state, tuple) else (value.state,)  # with __slots__: a pair
    state = {key: held for part in states if isinstance(part, dict) for key, held in part.items()}
    if is_module(value):
        parts = [_by_key(state.pop(part, None)) for part in ("_parameters", "_buffers", "_modules")]
        return {key: held for part in (*parts, state) for key, held in part.items()}
    return value.pairs | state


def _by_key(value: Any) -> Mapping[Any, Any]:
    held = value.pairs if isinstance(value, Standin) else value
    return held if isinstance(held, dict) else {}


def is_module(value: Any) -> bool:
    """Whether a stand-in is a network or a part of one, by PyTorch or TorchScript."""
    if not isinstance(value, Standin):
        return False
    return (isinstance(value.state, dict) and "_modules" in value.state) or value.of.startswith("__torch__.")


def _push(machine: Machine, value: Any) -> None:
    machine.push(value)


def _empty(kind: Callable[[], Any]) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine.push(kind())


_VALUES = (
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
)  # fmt: skip
_STEPS: dict[str, Callable[[Machine, Any], Any]] = {
    **dict.fromkeys(_VALUES, _push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda *_: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), Machine.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine.recall),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), Machine.reduce),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), lambda machine, code: machine.push(Global(f"extension {code}"))),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": _empty(dict),
    "EMPTY_LIST": _empty(list),
    "EMPTY_TUPLE": _empty(tuple),
    "EMPTY_SET": _empty(lambda: Standin("set")),
    "FROZENSET": lambda machine, _: machine.push(Standin("frozenset", tuple(machine.since_mark()))),
    "ADDITEMS": lambda machine, _: machine.append(machine.since_mark()),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "APPEND": Machine.append_one,
    "SETITEMS": lambda machine, _: machine.put(machine.since_mark()),
    "SETITEM": Machine.put_one,
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.make_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_tuple(3),
    "MARK": Machine.mark,
    "POP": Machine.drop,
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "DUP": Machine.duplicate,
    "BINPERSID": Machine.outside,
    "GLOBAL": lambda machine, name: machine.push(Global(str(name).replace(" ", ".", 1))),
    "STACK_GLOBAL": Machine.global_by_stack,
    "INST": Machine.instance,
    "OBJ": Machine.instance_by_stack,
    "NEWOBJ_EX": Machine.new_with_keywords,
    "BUILD": Machine.build,
}


def _dict(machine: Machine, _: Any) -> None:
    items = machine.since_mark()
    machine.push({})
    machine.put(items)


_STEPS["DICT"] = _dict
