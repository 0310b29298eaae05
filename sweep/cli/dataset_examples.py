"""`sweep examples`: dataset examples, as the field calls them. `sweep.cli.examples` has those of command lines."""

from __future__ import annotations

from typing import Annotated

import typer

from sweep.cli.measuring import measure, tell
from sweep.cli.options import AsJson, Cluster, Insecure, Storage, SweepName
from sweep.cli.remote import look_there
from sweep.store.files import absolute


def dataset_examples(
    context: typer.Context,
    sweep: SweepName,
    images: Annotated[int, typer.Option(min=1, help="Validation images per trial to choose from.")] = 256,
    storage: Storage = "runs",
    as_json: AsJson = False,
    cluster: Cluster = None,
    insecure: Insecure = False,
) -> None:
    """Find the pieces of images that activate each neuron of each trial's last convs most.

    They are drawn into trials/ID/examples/STEP/LAYER.png, and the dashboard shows them beside the neuron's weights.
    """
    from sweep.results.examples import EXAMPLES_OF_NEURONS
    from sweep.store.sweep_dir import open_sweep

    if cluster is not None:
        look_there(context, sweep, storage)
    opened = open_sweep(sweep, absolute(storage))
    raise typer.Exit(tell(opened, EXAMPLES_OF_NEURONS, measure(opened, EXAMPLES_OF_NEURONS, images), as_json))
