"""`sweep prepare`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.cli import consoles
from sweep.cli.checks import require_address
from sweep.cli.options import AsJson, Strict
from sweep.cli.running import terminable

if TYPE_CHECKING:
    from sweep.data.parallel import Mapper


def prepare(
    dataset: Annotated[str, typer.Argument(help="A data set's name, e.g. imagenet.")],
    source: Annotated[str | None, typer.Argument(help="The folder or URL to read it from.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value as under a grid's `data`, e.g. image_size=224. Repeatable."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(help="A folder or URL for other machines; default: this machine's cache."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Decode on this Ray cluster: auto, or HOST:PORT. All its nodes need SOURCE and --to.",
            callback=require_address,
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, or tasks at a time on a cluster; default: all cores.")
    ] = None,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Decode a data set once into files that all trials share; run it again after an interruption.

    A launch does this by itself on each machine. With --to, a grid's `data.root` may then be that folder or URL.
    """
    from sweep.data.make_sets import prepare_here, prepare_to
    from sweep.grid.load import read_wanted
    from sweep.terminal.progress import preparing, tell_remarks, tell_understood

    wanted = read_wanted(dataset, source, [*(settings or []), *(["unusable=refuse"] if strict else [])])
    with (
        terminable(),
        preparing(consoles.complaints, dataset, image_bytes=wanted.image_bytes) as report,
        _mapper(address, to, workers) as mapped,
    ):
        made = prepare_here(wanted, mapped, report) if to is None else prepare_to(wanted, to, mapped, report)
    spec = made.index.spec
    if as_json:
        images = {"train_images": made.index.train_images, "val_images": made.index.val_images}
        shape = {"classes": spec.num_classes, "image_size": spec.image_size}
        understood = list(made.source.understood)
        consoles.print_json({"folder": str(made.folder), "key": spec.key} | images | shape | {"understood": understood})
    else:
        tell_understood(consoles.output, made.source)
        pictures = f"{made.index.train_images:,} training and {made.index.val_images:,} validation images"
        consoles.tell(f"{pictures} of {spec.num_classes:,} classes, {spec.image_size} pixels")
        consoles.tell(str(made.folder))
    tell_remarks(consoles.complaints, made.source)  # last, where a bar can't hide it


def _mapper(address: str | None, to: str | None, workers: int | None) -> AbstractContextManager[Mapper]:
    """Where shards are made: in processes of this machine, or in tasks of a Ray cluster."""
    if address is None:
        from sweep.data.parallel import in_processes

        return in_processes(workers)
    from sweep.service.preparing import in_tasks

    if to is None:
        raise ValueError("--address needs --to, a URL or a folder that all nodes share")
    return in_tasks(address, workers)
