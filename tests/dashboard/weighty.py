"""The synthetic sweep with weights that can be told apart: neurons that differ, and checkpoints to read them from."""

import io
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from upath import UPath

from analysis.picture import png
from analysis.write import write_bytes
from sweep.results.example_sheets import EXAMPLES, TILE, sheet
from sweep.results.tables import table_of, write_table
from sweep.store.sweep_dir import SweepDir
from tests.dashboard.synthetic import STEPS, TRIALS, trial_id, write_sweep

LAYERS = ("features.3b.conv", "features.3a.conv")
NEURONS, INPUTS = 48, 6


def write_weighty(folder: Path) -> None:
    """`write_sweep`, with neurons of rising bandedness whose order by similarity runs backwards, and raw weights."""
    write_sweep(folder)
    for intervention, seed, *_, verdict, _ in TRIALS:
        if verdict is None:
            continue
        trial = folder / "trials" / trial_id(intervention, seed)
        write_spec(trial, intervention, seed)
        for step in STEPS:
            for position, layer in enumerate(LAYERS):
                write_arrays(trial / "layers" / str(step) / f"{layer}.npz", NEURONS, seed=step + position)
            (trial / "checkpoints" / str(step)).mkdir(parents=True)
            save_file(
                {f"{layer}.weight": raw_weights(position) for position, layer in enumerate(LAYERS)},
                trial / "checkpoints" / str(step) / "model.safetensors",
            )


def write_examples(folder: Path, trial: str, step: int, layer: str) -> np.ndarray:
    """What `sweep examples` writes of one layer: each tile one colour; returns the tiles [n, k, y, x, 3]."""
    sweep = SweepDir(UPath(folder))
    colours = np.random.default_rng(step).integers(0, 256, (NEURONS, EXAMPLES, 1, 1, 3), dtype=np.uint8)
    tiles = np.broadcast_to(colours, (NEURONS, EXAMPLES, TILE, TILE, 3))
    write_bytes(sweep.trial(trial).measured_picture("examples", step, layer), png(sheet(tiles)))
    places = range(EXAMPLES)
    rows = [
        {
            "trial_id": trial, "step": step, "layer": layer, "neuron": neuron, "images": 256,
            "activations": json.dumps([neuron + 0.125 * (EXAMPLES - place) for place in places]),
            "image_numbers": json.dumps([100 * place + neuron for place in places]),
            "positions": json.dumps([[place, 7 - place] for place in places]),
            "windows": json.dumps([[0, place, 20, place + 24] for place in places]),
        }
        for neuron in range(NEURONS)
    ]  # fmt: skip
    write_table(sweep.path, "examples", table_of("examples", rows))
    return tiles


def write_spec(trial: Path, intervention: str, seed: int) -> None:
    spec = {"architecture": "simplified_mini", "intervention": intervention, "init_seed": seed, "recipe": {"lr": 0.1}}
    (trial / "spec.json").write_text(json.dumps({"spec": spec}))


def raw_weights(position: int) -> np.ndarray:
    """Weights [n, c, y, x]; of neuron n, the input (n + position) % c has the largest."""
    weights = np.random.default_rng(position).normal(scale=0.1, size=(NEURONS, INPUTS, 5, 5)).astype(np.float32)
    for neuron in range(NEURONS):
        weights[neuron, (neuron + position) % INPUTS, 2] += 2
    return weights


def write_arrays(path: Path, neurons: int, seed: int, kernel: int = 5) -> None:
    """Arrays as an analysis writes them: bands in three colours, more and more of noise."""
    rng = np.random.default_rng(seed)
    rows = np.linspace(0, 1, kernel)
    bands = np.stack([1 - rows, 1 - np.abs(2 * rows - 1), rows], axis=1)[None, :, None, :]
    share = np.linspace(0, 1, neurons)[:, None, None, None]
    reduced = share * bands + (1 - share) * rng.random((neurons, kernel, kernel, 3))
    horizontal = np.linspace(0, 1, neurons, dtype=np.float32)
    buffer = io.BytesIO()
    order = np.arange(neurons, dtype=np.int32)[::-1]
    np.savez_compressed(
        buffer, reduced=reduced.astype(np.float16), order=order, horizontal=horizontal, vertical=-horizontal / 5
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
