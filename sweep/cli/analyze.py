"""`sweep analyze`: a checkpoint file, or all checkpoints of a sweep."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from upath import UPath

from sweep.cli import consoles
from sweep.cli.options import Address, AsJson, Cluster, Insecure, ShipCode, Storage, Wait
from sweep.cli.remote import run_there
from sweep.cli.running import conclude, ray_cluster, terminable
from sweep.store.files import absolute


class Nmf(StrEnum):
    PER_NEURON = "per-neuron"
    JOINT = "joint"


def analyze(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="A checkpoint (.safetensors, .pt, .pth, .ckpt, .onnx) or a sweep.")],
    layer: Annotated[list[str] | None, typer.Option(help="Only this layer. Repeatable.")] = None,
    through: Annotated[
        str | None, typer.Option(help="Expand the layers of --layer through this one, which comes right before them.")
    ] = None,
    nmf: Annotated[
        Nmf, typer.Option(help="One factorisation per neuron, or one for all neurons of a layer.")
    ] = Nmf.PER_NEURON,
    figure: Annotated[Path | None, typer.Option(help="Draw the weights into this PNG, one row per layer.")] = None,
    storage: Storage = "runs",
    as_json: AsJson = False,
    address: Address = None,
    cluster: Cluster = None,
    wait: Wait = True,
    ship_code: ShipCode = False,
    insecure: Insecure = False,
) -> None:
    """Score the spatial convolutions of any checkpoint, or of all checkpoints of a sweep again."""
    from analysis.readers.convs import is_checkpoint
    from sweep.service import launch as service
    from sweep.service.jobs import located, seen_from_here
    from sweep.store.sweep_dir import open_sweep

    if is_checkpoint(target) or (cluster is None and UPath(target).is_file()):
        if cluster is not None:
            raise ValueError("a checkpoint file is analysed on this machine; leave --cluster out, or name a sweep")
        _analyze_file(target, layer, through, nmf, figure, as_json)
        return
    if layer or through or figure is not None or nmf is not Nmf.PER_NEURON:
        raise ValueError(
            "--layer, --through, --nmf and --figure apply to a checkpoint file; a sweep takes these from its grid"
        )
    if cluster is not None:
        location = located(target, storage)
        run_there(context, location, lambda: seen_from_here(location), replaced={"target": location.path})
    opened = open_sweep(target, absolute(storage))
    with terminable():
        outcome = service.analyse_again(opened, consoles.messages(as_json), ray_cluster(address, as_json=as_json))
    conclude(opened, outcome, as_json)


def _analyze_file(
    file: str, layer: list[str] | None, through: str | None, nmf: Nmf, figure: Path | None, as_json: bool
) -> None:
    from analysis.expanded import expanded
    from analysis.layers import analyze_convs, best_device, chosen_convs
    from sweep.terminal import show

    if through is not None and not layer:
        raise ValueError(f"--through {through} needs --layer, the convolution right after it")
    convs = chosen_convs(file, layer)
    if through is not None:
        (before,) = chosen_convs(file, [through])
        convs = [expanded(conv, before) for conv in convs]
    results = []
    with show.layer_progress(consoles.complaints, len(convs)) as advance:
        for result in analyze_convs(convs, nmf.value, best_device()):
            results.append(result)
            advance(result.layer)
    if as_json:
        consoles.print_json(show.layer_results_json(results))
    else:
        consoles.output.print(show.layer_results_table(results))
    if figure is not None:
        show.draw_layers(results, figure)
