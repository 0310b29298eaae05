"""Read absolute position from a sweep's feature maps: each trial's newest checkpoint over its validation images.

Writes `trials/<id>/probe.json`, and from them `results/probes.parquet`. Needs no Ray.
"""

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import models
from analysis.position import read_position
from models.convnet import ConvNet
from models.interventions import INTERVENTIONS
from sweep.data.prepare import PreparedData, prepare
from sweep.results.compact import gather_probes, probe_rows
from sweep.results.tables import Row
from sweep.spec import Plan
from sweep.store.checkpoint import read_checkpoint
from sweep.store.files import write_json
from sweep.store.manifest import checkpoint_steps
from sweep.store.sweep_dir import SweepDir
from sweep.store.trial_dir import TrialDir

MAP = "map"
"""The last map's name among the layers: what the head sees."""
IMAGES = 256

_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Probed:
    """The result for one trial: `outcome` is probed, there already, no checkpoint, or the error's last line."""

    trial_id: str
    outcome: str
    failed: bool = False


def probe_sweep(sweep: SweepDir, images: int = IMAGES) -> Iterator[Probed]:
    """Probe each trial whose newest checkpoint is not probed yet, and gather the table at the end.

    A trial that fails is reported with its error, and the others go on.
    """
    try:
        for trial in sweep.trials():
            yield _probed(trial, images)
    finally:
        gather_probes(sweep)


def probe_trial(trial: TrialDir, plan: Plan, step: int, images: int) -> list[Row]:
    """R^2 of row and column, read from the last map and from the output of each conv to analyse (before batch norm).

    Uses `images` validation images, evenly spaced among all, changed by the intervention as in validation.
    """
    spec = plan.spec
    data = prepare(spec.data, plan.root)
    net = models.build(
        spec.architecture, spec.intervention, spec.data.num_classes, spec.data.image_size, spec.init_seed
    )
    net.load_state_dict(read_checkpoint(trial.checkpoints / str(step)).model)
    maps = feature_maps(net, _images(data, spec.intervention, images))
    rows = []
    for layer, features in maps.items():
        readout = read_position(features)
        r2 = {"row_r2": readout.row_r2, "column_r2": readout.column_r2}
        rows.append({"trial_id": plan.trial_id, "step": step, "layer": layer, **r2, "images": len(features)})
    return rows


def feature_maps(net: ConvNet, images: Tensor) -> dict[str, np.ndarray]:
    """Output [n, c, h, w] of the body (`map`) and of each of the final convs, in evaluation mode."""
    net.eval()
    parts: dict[str, list[Tensor]] = {MAP: [], **{name: [] for name in net.final_convs}}

    def keep(name: str) -> Any:
        # An in-place ReLU after it would change what is kept, so copy.
        return net.get_submodule(name).register_forward_hook(lambda _, __, output: parts[name].append(output.clone()))

    hooks = [keep(name) for name in net.final_convs]
    with torch.no_grad():
        for batch in images.split(_BATCH):
            parts[MAP].append(net.features(batch))
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(found).numpy() for name, found in parts.items()}


def _probed(trial: TrialDir, images: int) -> Probed:
    steps = checkpoint_steps(trial.checkpoints) if trial.checkpoints.is_dir() else []
    if not steps:
        return Probed(trial_id=trial.trial_id, outcome="no checkpoint")
    known = probe_rows(trial)
    if known and (known[0]["step"], known[0].get("asked")) == (steps[0], images):
        return Probed(trial_id=trial.trial_id, outcome="there already")
    try:
        rows = probe_trial(trial, trial.plan(), steps[0], images)
        write_json(trial.probe_file, [row | {"asked": images} for row in rows])
    except (ValueError, OSError, RuntimeError) as error:  # a corrupt checkpoint, missing data, no memory
        said = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
        return Probed(trial_id=trial.trial_id, outcome=said, failed=True)
    return Probed(trial_id=trial.trial_id, outcome="probed")


def _images(data: PreparedData, intervention: str, images: int) -> Tensor:
    every = torch.linspace(0, len(data.val_images) - 1, min(images, len(data.val_images))).long()
    stored = data.val_images.gather(every)  # evenly spaced: folders are ordered by class
    return INTERVENTIONS[intervention].transform(data.validation_images(stored))
