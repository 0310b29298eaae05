"""`sweep atlas`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from upath import UPath

from sweep.cli import consoles
from sweep.cli.checks import require_name
from sweep.cli.options import Address, AsJson, Storage
from sweep.cli.running import terminable

if TYPE_CHECKING:
    from sweep.store.atlas_dir import AtlasDir


def atlas(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...",
            help="`timm`, `torchvision`, `timm:NAME`, `timm:PATTERN`, a checkpoint file, or a folder of them; "
            "`random:` in front of a library takes its constructors' random weights. Default: what the atlas has.",
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(help="The atlas to make or continue: a name or a path.", callback=require_name)
    ] = "atlas",
    last: Annotated[
        int | None, typer.Option(min=1, help="How many of a network's last layers to score. Default: 3.")
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(min=1, help="Networks that are in memory at a time. Default: one for each CPU of the cluster."),
    ] = None,
    report: Annotated[str | None, typer.Option(help="Write this HTML file about it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which networks it would look at.")] = False,
    storage: Storage = "runs",
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Score the last layers of many trained networks: whole libraries, files, folders. Does only what is missing."""
    from sweep.service.atlas import make_atlas
    from sweep.store.addresses import absolute_source
    from sweep.store.atlas_dir import open_atlas
    from sweep.terminal.atlas import atlas_json, summary

    opened = open_atlas(name, storage)
    named = [absolute_source(source) for source in sources or []]
    if dry_run:
        _tell_plan(opened, named, as_json)
        return
    with terminable():
        table = make_atlas(opened, named, last, actors, address, consoles.complaints)
    if as_json:
        consoles.print_json(atlas_json(opened, table))
    else:
        consoles.output.print(summary(table))
    consoles.tell(f"atlas: {opened.table}", as_json)
    if report is not None:
        from sweep.report.atlas import write_atlas_report

        write_atlas_report(opened, table, UPath(report))
        consoles.tell(f"report: {report}", as_json)


def _tell_plan(opened: AtlasDir, sources: list[str], as_json: bool) -> None:
    """Say which networks are meant, and how many of them have no results yet."""
    from sweep.atlas.sources import listing

    plan = listing(opened, opened.extended(sources, None).sources, sources)
    lost = [{"source": record.source, "error": record.error} for record in plan.lost]
    if as_json:
        consoles.print_json({"atlas": opened.name, "networks": plan.networks, "to_do": plan.todo, "lost": lost})
        return
    for address in plan.todo:
        consoles.tell(address)
    for record in plan.lost:
        consoles.tell(f"{record.source} means nothing any more: {record.error}")
    consoles.tell(f"{len(plan.todo)} of {len(plan.networks)} networks to look at")
