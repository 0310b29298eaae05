"""Arguments and options that several commands have."""

from typing import Annotated

import typer

from sweep.cli import completion
from sweep.cli.checks import require_address, require_job_server, require_name

GridName = Annotated[
    str,
    typer.Argument(
        help="A grid's name (see `sweep list grids`) or a YAML file.",
        autocompletion=completion.grids,
        callback=require_name,
    ),
]
SweepName = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP", help="A sweep's name or path.", autocompletion=completion.sweeps, callback=require_name
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a grid's value: key=value, e.g. recipe.epochs=3. Repeatable."),
]
Storage = Annotated[
    str,
    typer.Option(help="Where sweeps are stored: a folder, or a URL such as s3://bucket/path.", envvar="SWEEP_STORAGE"),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="A running Ray cluster: auto, or HOST:PORT. Default: start a local one.", callback=require_address
    ),
]
MaxFailures = Annotated[
    int,
    typer.Option(min=0, help="How often a trial is retried that fails without finishing an epoch in between."),
]
FreshProcesses = Annotated[
    bool, typer.Option("--fresh-processes", help="Start a process for each trial; slower, with the same results.")
]
AtATime = Annotated[int | None, typer.Option(min=1, help="The most trials that run beside each other.")]
BudgetSaid = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="Stop, with all trials saved, when this launch has used so much: hours of GPUs (of CPUs, for trials "
        "without), such as 40h, or money by SWEEP_PRICES, such as 250.",
    ),
]
Weight = Annotated[
    float, typer.Option(min=0.01, help="This sweep's share of the cluster against those of the others that run on it.")
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Refuse a folder with unusable pictures instead of leaving them out."),
]
Track = Annotated[
    list[str] | None,
    typer.Option(help="A run for each trial: tensorboard=FOLDER, mlflow=URI or wandb=FOLDER (offline). Repeatable."),
]
Notify = Annotated[
    list[str] | None,
    typer.Option(
        help="Tell of failures, pauses and the end: a URL of apprise, or @FILE with one a line. Repeatable.",
        envvar="SWEEP_NOTIFY",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; messages go to standard error.")]
Cluster = Annotated[
    str | None,
    typer.Option(
        help="Run this as a job of the cluster with this job server, such as http://127.0.0.1:8265.",
        callback=require_job_server,
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Send Ray's token even over http:// to another machine, for all to read.")
]
Wait = Annotated[bool, typer.Option(help="Follow a job until it ends; otherwise, until its trials begin.")]
ShipCode = Annotated[
    bool, typer.Option("--ship-code", help="Have a job run the code of this machine, not the cluster's own.")
]
