"""Examples of each command, shown below its `--help` and in docs/cli.md."""

from rich.markup import escape

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "launch": (
        ("sweep launch demo --dry-run", "what it would train, and what that costs"),
        ("sweep launch demo", "train and analyse it on this machine; run it again to continue"),
        ("sweep launch demo --set recipe.epochs=3 --set 'seeds=[0,1,2]'", "another recipe, three seeds"),
        ("sweep launch mine.yaml --cluster http://127.0.0.1:8265 --storage s3://bucket/sweeps", "on a cluster"),
    ),
    "submit": (
        ("sweep submit demo --cluster http://127.0.0.1:8265 --storage s3://bucket/sweeps", "as `launch` does"),
    ),
    "resume": (
        ("sweep resume demo", "whatever is unfinished or failed"),
        ("sweep resume demo --only failed", "what failed, from its last checkpoints"),
        ("sweep resume demo --only 'simplified_mini-x_pool-*' --from-scratch", "some trials from their beginning"),
    ),
    "stop": (
        ("sweep stop demo", "wherever its driver runs; its trials save first"),
        ("sweep stop demo --cluster http://127.0.0.1:8265 --storage s3://bucket/sweeps", "its jobs on a cluster"),
    ),
    "status": (
        ("sweep status demo --watch", "keep looking"),
        ("sweep status demo --status failed", "what failed, grouped by error"),
        ("sweep status demo --unexpected --architecture simplified_mini", "where the article said otherwise"),
        ("sweep status demo --json", "for programs"),
    ),
    "logs": (
        ("sweep logs demo --cluster http://127.0.0.1:8265 --storage s3://bucket/sweeps", "follow its newest job"),
    ),
    "list": (
        ("sweep list architectures", "what a grid can name"),
        ("sweep list sweeps --sizes", "what is stored, who works on it, and the disk it takes"),
    ),
    "diff": (
        ("sweep diff demo demo3", "two sweeps: grids, trials, cells"),
        ("sweep diff demo/simplified_mini-baseline-s0 demo/simplified_mini-rotate90-s0", "two trials: their specs"),
    ),
    "remove": (
        ("sweep remove demo", "ask first, then remove the sweep for good"),
        ("sweep remove demo --trial 'simplified_mini-x_pool-*' --yes", "some trials, without being asked"),
    ),
    "analyze": (
        ("sweep analyze model.safetensors --figure weights.png", "any checkpoint: scores and a picture"),
        ("sweep analyze model.pt --layer features.3b.conv --json", "one layer, for programs"),
        ("sweep analyze demo", "all checkpoints of a sweep, again"),
    ),
    "atlas": (
        ("sweep atlas timm torchvision --dry-run", "which networks that are"),
        ("sweep atlas 'timm:resnet*' random:timm:resnet18 ~/checkpoints", "some of them, one untrained, and your own"),
        ("sweep atlas --report atlas.html", "what is missing of it, and a file to send"),
    ),
    "dashboard": (
        ("sweep dashboard runs", "all sweeps of a folder"),
        ("sweep dashboard s3://bucket/sweeps --port 8600", "those of an object store, at another port"),
    ),
    "prepare": (
        ("sweep prepare imagenet /data/imagenet", "into this machine's cache"),
        ("sweep prepare folder ~/Pictures --to s3://bucket/sets --set image_size=56", "for other machines"),
    ),
    "probe": (
        ("sweep probe demo", "how well position can be read from the last maps"),
    ),
    "ablate": (
        ("sweep ablate demo", "what accuracy loses when the last convs' kernels lose their bands"),
    ),
    "examples": (
        ("sweep examples demo", "the pieces of images that activate each neuron of the last convs most"),
        ("sweep examples demo --images 2000", "found among more images"),
    ),
    "report": (
        ("sweep report demo -o report.html", "one file to send"),
        ("sweep report demo --export tables", "with all tables and pictures"),
    ),
}  # fmt: skip
"""For each command, lines and what they do."""


def epilog(command: str) -> str:
    """The examples of a command, as typer shows them below its help."""
    lines = [f"{escape(line)}  [dim]# {escape(what)}[/dim]" for line, what in EXAMPLES[command]]
    return "\n\n".join(["Examples:", *lines])
