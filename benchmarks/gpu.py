"""Everything that a machine with one GPU can show, in one call, without Ray.

    PYTHONPATH=. python benchmarks/gpu.py [--minutes 9.5] [--only PART ...] [--json FILE] [--small]

Parts, in this order; each is printed as it ends, and the file is written after each:

- analysis: scores of layers on GPU and CPU, and the time of the NMF of 512x512x5x5
- training: images/s of the project's own training at 224 pixels in bf16, with loading from disk, beside a bare loop
  over tensors that are already on the card; what determinism and torch.compile cost or bring
- resuming: weights of a trial that was killed and resumed, and of an undisturbed one
- sharing: 1, 4, 8 and 16 trials of `simplified_mini` on the card at once
- figure12: the networks of `article-simplified` on scenes at 224 pixels, as long as time is left, and their scores

`--small` runs all of it on a CPU with small networks, to see that it works.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from upath import UPath

from analysis.layers import analyze_checkpoint
from analysis.nmf import factorise
from analysis.reduce import COLOURS, split_signs
from benchmarks.precision import measure, weights
from sweep.data.images import Images
from sweep.data.prepare import PreparedData, prepare
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.spec import TrialSpec
from sweep.store.manifest import MODEL, checkpoint_steps
from sweep.training.run import Run, autocast
from sweep.training.train import StoppedError, course, train

ROOT = Path(__file__).parents[1]
SHARD = 64 * 2**20
NETWORKS = {"resnet50": 512, "vgg19": 256, "inception_v1": 512, "simplified": 512, "alexnet": 512}  # and batch sizes
TOGETHER = (1, 4, 8, 16)
Rows = list[dict[str, Any]]


class Machine:
    """What is measured on: a GPU, or a CPU with everything small."""

    def __init__(self, small: bool) -> None:
        self.small = small
        if small:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        if not small and not torch.cuda.is_available():
            raise SystemExit("gpu.py: this machine has no GPU that PyTorch sees; --small tries everything on the CPU")
        self.device = torch.device("cpu" if small else "cuda")
        self.name = "CPU" if small else torch.cuda.get_device_name()
        self.warm_up, self.steps = (1, 2) if small else (15, 40)

    def synchronise(self) -> None:
        if not self.small:
            torch.cuda.synchronize()

    def spec(self, architecture: str, batch: int, **recipe: Any) -> TrialSpec:
        size = 64 if self.small else 224
        values = {"batch_size": 8 if self.small else batch, "precision": "float32" if self.small else "bf16"} | recipe
        settings = [
            f"architectures=[{architecture}]", "interventions=[baseline]", "seeds=[0]",
            f"data={{name: scenes, image_size: {size}}}", "recipe=article",
            *(f"recipe.{key}={value}" for key, value in values.items()),
        ]  # fmt: skip
        return expand(load_grid("article-simplified", settings)).plans[0].spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--trial", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    machine = Machine(arguments.small)
    if arguments.trial is not None:
        print(one_of_several(machine, arguments.trial))
        return
    ends_at = time.monotonic() + 60 * arguments.minutes
    found: dict[str, Any] = {"machine": f"{machine.name}, {os.cpu_count()} cores of {platform.machine()}",
                             "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for part in arguments.only:
            began = time.monotonic()
            found[part] = PARTS[part](machine, Path(folder), ends_at)
            for row in found[part]:
                print(part, row, flush=True)
            print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)
            if arguments.json is not None:
                arguments.json.write_text(json.dumps(found, indent=1) + "\n")


def analysis(machine: Machine, folder: Path, ends_at: float) -> Rows:
    """Agreement of scores within 0.005, and the NMF in at most 20 ms."""
    shape = (64, 64, 5) if machine.small else (512, 512, 5)
    rows = [measure(f"{noise} {'x'.join(map(str, shape))}", weights(*shape, noise)) for noise in (0.3, 0.7, None)]
    x = split_signs(weights(*shape, 0.3)).to(machine.device)
    times = []
    for _ in range(10):
        machine.synchronise()
        began = time.perf_counter()
        factorise(x, COLOURS)
        machine.synchronise()
        times.append(time.perf_counter() - began)
    return [*rows, {"layer": "time of the NMF", "median_ms": round(1000 * statistics.median(times), 2)}]


def training(machine: Machine, folder: Path, ends_at: float) -> Rows:
    """Images/s of the project's training with loading, and of a bare loop."""
    rows = []
    stored = written(machine, folder)
    networks = {"simplified_mini": 8} if machine.small else NETWORKS
    for architecture, batch in networks.items():
        plain = machine.spec(architecture, batch)
        bare, ours = bare_loop(machine, plain), ours_with_loading(machine, plain, stored, folder)
        rows.append(
            {"network": architecture, "batch": batch, "bare": bare, "ours": ours, "ratio": round(ours / bare, 3)}
        )
    architecture, batch = next(iter(networks.items()))
    for choice in ({"deterministic": False}, {"compile": "default"}, {"compile": "reduce-overhead"}):
        if machine.small and "compile" in choice:
            continue
        spec = machine.spec(architecture, batch, **choice)
        rows.append({"network": architecture, **choice, "ours": ours_with_loading(machine, spec, stored, folder)})
    return rows


def written(machine: Machine, folder: Path) -> Images:
    """Stored pictures of 8/7 of the training size, a quarter of the card's memory: more than a loader keeps on it."""
    number, side = (500, 73) if machine.small else (torch.cuda.mem_get_info()[0] // (4 * 3 * 256 * 256), 256)
    per_shard = SHARD // (3 * side * side)
    levels = np.random.default_rng(0).integers(0, 256, (per_shard, 3, side, side), dtype=np.uint8)
    shards = []
    for start in range(0, number, per_shard):
        np.save(folder / f"{start}.npy", levels[: min(per_shard, number - start)])
        shards.append(np.load(folder / f"{start}.npy", mmap_mode="r"))
    return Images(shards)


def ours_with_loading(machine: Machine, spec: TrialSpec, stored: Images, folder: Path) -> float:
    """Images/s of `course`, the function that trains every trial, after some steps to warm up."""
    labels = torch.arange(len(stored)) % spec.data.num_classes
    spec = spec.model_copy(update={"data": spec.data.model_copy(update={"name": "imagenet", "options": {}})})
    data = PreparedData(
        spec=spec.data, train_images=stored, train_labels=labels, val_images=Images([stored[:8].numpy()]),
        val_labels=labels[:8],
    )  # fmt: skip
    times: dict[int, float] = {}

    def stop(step: int) -> bool:
        if step in (machine.warm_up, machine.warm_up + machine.steps):
            machine.synchronise()
            times[step] = time.perf_counter()
        return step == machine.warm_up + machine.steps

    torch.set_num_threads(os.cpu_count() or 1)
    try:
        for _ in course(spec, data, UPath(folder / f"course-{next(_NUMBERS)}"), stop, save_every_s=1e9):
            pass
    except StoppedError:
        first, last = times.values()
        return round(machine.steps * spec.recipe.batch_size[0].size / (last - first), 1)
    raise AssertionError("the epoch ended before the measurement")


_NUMBERS = count()


def bare_loop(machine: Machine, spec: TrialSpec) -> float:
    """Images/s of a plain PyTorch loop on one batch that is on the card, with the same choices of arithmetic."""
    run = Run(spec)
    size, batch = spec.data.image_size, spec.recipe.batch_size[0].size
    net, optimizer = run.net, run.optimizer
    images = torch.randn(batch, 3, size, size, device=machine.device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=machine.device) % spec.data.num_classes
    for step in range(machine.warm_up + machine.steps):
        if step == machine.warm_up:
            machine.synchronise()
            began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with autocast(spec.recipe, machine.device):
            loss = cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
    machine.synchronise()
    return round(machine.steps * batch / (time.perf_counter() - began), 1)


def resuming(machine: Machine, folder: Path, ends_at: float) -> Rows:
    """A process is killed while it trains; the trial is resumed in another one."""
    undisturbed, killed = folder / "undisturbed", folder / "killed"
    run_to_end = [sys.executable, __file__, *(["--small"] if machine.small else []), "--trial"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([*run_to_end, str(undisturbed)], env=environment, check=True, capture_output=True)
    process = subprocess.Popen([*run_to_end, str(killed)], env=environment, stdout=subprocess.PIPE, text=True)
    while not checkpoint_steps(UPath(killed / "checkpoints"))[:1] > [0]:
        if process.poll() is not None:
            raise AssertionError("the trial ended before it could be killed")
        time.sleep(0.01)  # the pace of looking; it is killed soon after its first checkpoint
    process.send_signal(signal.SIGKILL)
    process.communicate()
    subprocess.run([*run_to_end, str(killed)], env=environment, check=True, capture_output=True)
    states = [newest_weights(each) for each in (undisturbed, killed)]
    equal = all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    return [{"weights": len(states[0]), "bit_for_bit": equal}]


def newest_weights(trial: Path) -> dict[str, Tensor]:
    checkpoints = UPath(trial / "checkpoints")
    return load_file(str(checkpoints / str(checkpoint_steps(checkpoints)[0]) / MODEL))


def mini(machine: Machine) -> TrialSpec:
    """The miniature on scenes, as `demo` trains it, long enough to be measured."""
    small = ["data.options={train_images: 256, val_images: 64}"] if machine.small else []
    settings = ["interventions=[baseline]", "seeds=[0]", f"recipe.epochs={3 if machine.small else 10}", *small]
    return expand(load_grid("demo", settings)).plans[0].spec


def one_of_several(machine: Machine, folder: Path) -> float:
    """Train the miniature; its images/s over all epochs but the first."""
    torch.set_num_threads(1)
    spec = mini(machine)
    rows = train(spec, prepare(spec.data, None), UPath(folder), save_every_s=0.5)
    return statistics.median(row["images_per_s"] or 0.0 for row in rows[2:])


def sharing(machine: Machine, folder: Path, ends_at: float) -> Rows:
    """Images/s of all trials together, by their number."""
    prepare(mini(machine).data, None)
    rows = []
    for number in TOGETHER[:2] if machine.small else TOGETHER:
        command = [sys.executable, __file__, *(["--small"] if machine.small else []), "--trial"]
        processes = [
            subprocess.Popen(
                [*command, str(folder / f"shared-{number}-{index}")],
                env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
            )
            for index in range(number)
        ]  # fmt: skip
        rates = [float(process.communicate()[0]) for process in processes]
        rows.append({"trials": number, "images_per_s": round(sum(rates)), "of_each": round(statistics.median(rates))})
    return rows


def figure12(machine: Machine, folder: Path, ends_at: float) -> Rows:
    """The networks of `article-simplified` on scenes, one after the other, each with the same time."""
    grid = ["data={name: scenes, image_size: 224}", "data.options={train_images: 20000, val_images: 1000}"]
    grid += ["recipe.precision=bf16", "recipe.batch_size=256", "recipe.epochs=12", "recipe.lr=0.1"]
    if machine.small:
        grid = ["architectures=[simplified_mini]", "data={name: scenes, image_size: 56}", "recipe.precision=float32"]
        grid += ["recipe.batch_size=32", "recipe.epochs=1", "data.options={train_images: 64, val_images: 32}"]
    plans = [plan for plan in expand(load_grid("article-simplified", grid)).plans if plan.excluded is None]
    rows: Rows = []
    longest_s = 0.0
    for plan in plans[:2] if machine.small else plans:
        if time.monotonic() + longest_s > ends_at:
            rows.append({"remark": f"{len(plans) - len(rows)} networks were left out: time was up"})
            break
        began = time.monotonic()
        trial = folder / plan.trial_id
        epochs = train(plan.spec, prepare(plan.spec.data, None), UPath(trial))
        newest = trial / "checkpoints" / str(checkpoint_steps(UPath(trial / "checkpoints"))[0])
        for layer in analyze_checkpoint(UPath(newest / MODEL), UPath(trial / "layers")):
            kept = {key: layer[key] for key in ("layer", "horizontal", "vertical", "verdict")}
            accuracy = round(epochs[-1]["val_accuracy"] or 0.0, 3)
            rows.append({"network": plan.spec.intervention, "seed": plan.spec.init_seed, "accuracy": accuracy, **kept})
        longest_s = max(longest_s, time.monotonic() - began)
    return rows


PARTS: dict[str, Callable[[Machine, Path, float], Rows]] = {
    "analysis": analysis,
    "training": training,
    "resuming": resuming,
    "sharing": sharing,
    "figure12": figure12,
}

if __name__ == "__main__":
    main()
