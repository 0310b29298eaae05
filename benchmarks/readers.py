"""Which convolutions the reader finds in the state dicts of all torchvision and timm models, against what they have.

    python benchmarks/readers.py [--json FILE]

Six minutes on one CPU core. Each model is built without memory, its state dict saved with torch.save, and the file read
as `sweep analyze` reads it: by names and shapes alone. The model's own modules are the truth. Expect none missed and
none skipped needlessly; a transposed convolution with as many inputs as outputs and a name that doesn't give it away
can't be told from a convolution.
"""

import argparse
import json
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from analysis.readers.convs import spatial_convs

KINDS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
DETECTION = ("rcnn", "fcos", "ssd", "retina", "deeplab", "fcn", "lraspp")  # these fetch a backbone unless told not to


def torchvision_model(name: str) -> nn.Module:
    options = {"weights_backbone": None} if any(part in name for part in DETECTION) else {}
    return torchvision.models.get_model(name, weights=None, **options)


def timm_model(name: str) -> nn.Module:
    return timm.create_model(name, pretrained=False)


LIBRARIES: dict[str, tuple[Callable[[], list[str]], Callable[[str], nn.Module]]] = {
    "torchvision": (torchvision.models.list_models, torchvision_model),
    "timm": (timm.list_models, timm_model),
}


def built(make: Callable[[str], nn.Module], name: str) -> nn.Module:
    """A model without memory, or with it if its constructor reads its own weights."""
    try:
        with torch.device("meta"):
            return make(name)
    except NotImplementedError:
        return make(name)


def can_be_scored(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and min(module.kernel_size) >= 2 and module.in_channels // module.groups >= 2


def compare(net: nn.Module, file: Path) -> tuple[Counter[str], list[str]]:
    """Counts of a model's convolutions, and the names of those that the reader gets wrong."""
    modules = {name: module for name, module in net.named_modules() if isinstance(module, KINDS)}
    state = {name: torch.zeros((), dtype=value.dtype).expand(value.shape) for name, value in net.state_dict().items()}
    torch.save(state, file)
    found = {conv.layer: conv for conv in spatial_convs(file)} if modules else {}
    right = {name for name, module in modules.items() if can_be_scored(module)}
    scored = {name for name, conv in found.items() if conv.skipped is None}
    missed = modules.keys() - found.keys()
    wrong = {"missed": missed, "left_out": right - scored - missed, "scored_wrongly": scored - right}
    counts = Counter(convolutions=len(modules), scored=len(scored & right), **{k: len(v) for k, v in wrong.items()})
    return counts, sorted(set().union(*wrong.values()))


def survey(library: str) -> Iterator[tuple[Counter[str], str]]:
    names, make = LIBRARIES[library]
    with tempfile.TemporaryDirectory() as folder:
        for name in names():
            counts, wrong = compare(built(make, name), Path(folder) / "model.pt")
            yield counts, f"{name}: {', '.join(wrong)}" if wrong else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # deprecated names of models and of their parts
    rows: list[dict[str, Any]] = []
    remarks: list[str] = []
    for library in LIBRARIES:
        total: Counter[str] = Counter()
        models = 0
        for counts, remark in survey(library):
            total += Counter(counts)
            models += 1
            if remark:
                print(remark, flush=True)
                remarks.append(remark)
        keys = ("convolutions", "scored", "missed", "left_out", "scored_wrongly")
        rows.append({"library": library, "models": models} | {key: total[key] for key in keys})
        print(rows[-1], flush=True)
    versions = f"torchvision {torchvision.__version__}, timm {timm.__version__}"
    remark = f"{versions}. Wrong: {'; '.join(remarks) or 'none'}."
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "remark": remark}, indent=1) + "\n")


if __name__ == "__main__":
    main()
