"""Every process of the cluster loads this first; the environment of its node says which trouble it is in.

- `CHAOS_KILLS`: a folder of orders. A trial that writes a checkpoint's file looks whether it has to die there.
- `CHAOS_CLOCK_S`: the process's clock is ahead by so many seconds, or behind.
- `CHAOS_SICK`: the first step of every trial fails, as on a node whose GPU is broken.
"""

import importlib.abc
import importlib.util
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any


def armed(write: Callable[[Any, bytes], None]) -> Callable[[Any, bytes], None]:
    """`write_bytes` that carries out the orders to kill; an order is a file that the process which does renames."""
    kills = pathlib.Path(os.environ["CHAOS_KILLS"])

    def write_bytes(path: Any, data: bytes) -> None:
        for order in kills.glob("*.armed"):
            try:
                target = json.loads(order.read_text())
                if not _meant(target, path):
                    continue
                struck = order.with_suffix(".struck")
                order.rename(struck)
            except OSError:
                continue  # another process was quicker
            if target["when"] == "half":  # of an object store nobody sees half an object
                folder = pathlib.Path(path.parent.path)
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f".{path.name}.chaos.part").write_bytes(data[: len(data) // 2])
            if target["when"] == "after":
                write(path, data)
            struck.with_suffix(".trial").write_text(_trial_of(path))
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, data)

    return write_bytes


def _meant(target: dict[str, Any], path: Any) -> bool:
    return path.name == target["file"] and "checkpoints" in path.parts and _trial_of(path) not in target["spared"]


def _trial_of(path: Any) -> str:
    return str(path.parent.parent.parent.name)


def sick(*_: Any, **__: Any) -> Iterator[Any]:
    """A trial's course on a node that can't train."""
    raise RuntimeError("the device does not answer")
    yield


class Altered(importlib.abc.MetaPathFinder):
    """Replaces names of a module once it is loaded."""

    def __init__(self, module: str, **replaced: Callable[[Any], Any]) -> None:
        self._module, self._replaced = module, replaced

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self._module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            for replaced, by in self._replaced.items():
                setattr(module, replaced, by(getattr(module, replaced)))

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if "CHAOS_KILLS" in os.environ:
    sys.meta_path.insert(0, Altered("analysis.write", write_bytes=armed))
if "CHAOS_SICK" in os.environ:
    sys.meta_path.insert(0, Altered("sweep.training.trial", course=lambda _: sick))
if _ahead_s := float(os.environ.get("CHAOS_CLOCK_S", "0")):
    _time, _time_ns = time.time, time.time_ns
    time.time = lambda: _time() + _ahead_s
    time.time_ns = lambda: _time_ns() + int(_ahead_s * 1e9)
