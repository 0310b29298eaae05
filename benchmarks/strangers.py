"""Run a folder of scripts that try strangers' files and machines, and check what each prints against what it wants.

    python benchmarks/strangers.py FOLDER [NAME ...]

Each script stands in a folder of its own (`repro.sh`, or a Python file) and makes its inputs itself. `WANTED` says what
its output must hold and must not hold. Scripts that name modules by the names they had before the rooms run on a copy
with today's names. Exit code 1 if any output is not as wanted. The
script `threads` is left out: other threads give other bits by design (docs/decisions.md), and tests look at what is
reported. Takes about six minutes on 2 CPU cores.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = {
    "from sweep.grid import expand, load_grid": (
        "from sweep.grid.expand import expand\nfrom sweep.grid.load import load_grid"
    ),
    "from sweep.results import final_layers, read_table": "from sweep.results.tables import read_table",
    "from sweep.store import SweepDir": "from sweep.store.sweep_dir import SweepDir",
    "from sweep.files import": "from sweep.store.files import",
    "from sweep.lease import": "from sweep.store.lease import",
    "from sweep.trial import": "from sweep.training.trial import",
    "from sweep.train import": "from sweep.training.train import",
    "from analysis.read import": "from analysis.readers.convs import",
    "train_images.npy": "images-00000.npy",  # prepared pictures lie in shards,
    'np.load(f.with_name("train_labels.npy"))': 'np.load(f.with_name("train.npy"))[1]',  # beside their rows and labels
    'in ("run[1]/t/m"):': 'in ("run[1]/t/m",):',  # it would loop over the letters
}
LIMIT_S = 300


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Patterns that a script's output must hold, in any order, and one that it must not hold."""

    script: str
    holds: tuple[str, ...]
    holds_not: str = "Traceback"
    arguments: tuple[str, ...] = ()


WANTED = {
    "broken_cache": Wanted(script="repro.sh", holds=(r"again|damaged", r"training and")),
    "checkpoint_extras": Wanted(
        script="repro.sh", holds=(r"read: np\.array.*Namespace",), holds_not=r"Traceback|refused: \w"
    ),
    "damaged_tables": Wanted(script="repro.sh", holds=(r"[1-9][0-9]{2,} .*layers\.parquet",)),
    "full_cache_disk": Wanted(script="repro.sh", holds=(r"SWEEP_CACHE", r"rc [12]\b"), holds_not="Bus error|Traceback"),
    "house-held-out-slow": Wanted(script="run.py", holds=(r"1000 classes.*: 0\.[0-4]",)),
    "house-onnx-escape": Wanted(script="run.py", holds=(r"\['out/[^/']*\.npz'\]",), holds_not="elsewhere/Conv.npz"),
    "house-padding-not-excluded": Wanted(
        script="run.py", holds=(r"32 padding_reflect \| excluded: (?!None)",), holds_not=r"excluded: None \| (?!runs)"
    ),
    "lease_namespace": Wanted(script="repro.sh", holds=("BusyError",), holds_not="taken over"),
    "linked_classes": Wanted(script="repro.sh", holds=(r"links1: s0-(\w+)(?s:.*)links2: s0-(?!\1)",)),
    "long_temp": Wanted(script="repro.sh", holds=(r"picture|RAY_TMPDIR",)),
    "mlx_layout": Wanted(script="repro.sh", holds=(r"horizontal(?s:.*)horizontal",), holds_not=r"│ vertical"),
    "no_home": Wanted(script="repro.sh", holds=("SWEEP_CACHE",)),
    "one_bad_file": Wanted(script="repro.sh", holds=(r"(?s)truncated.*zerobyte.*appledouble.*jupyter",)),
    "pointer_files": Wanted(script="repro.sh", holds=(r"(?s)(Git LFS.*){3}", r"web page|HTML")),
    "reparametrised": Wanted(script="make_and_check.py", holds=(r"weight_norm_old_dim2\.pt",), arguments=("{out}",)),
    "s3_brackets": Wanted(
        script="check.py",
        holds=(
            r"remove run\[1\]/c/10 -> ok \| left: \['buck/run1/c/10/m'\]",
            r"a\*/c/10 -> ok \| left: \['buck/ab",
            r"move run\[1\]/t/m -> ok \| left: \['buck/run\[1\]/attempts/m'\]",
        ),
    ),
    "shadowed_packages": Wanted(script="repro.sh", holds=(r"rc 0",)),
    "sixteen_bit": Wanted(script="repro.sh", holds=(r"mean 1[123]\d\.",)),
    "small_classes": Wanted(script="repro.sh", holds=(r"\bc\b.*(no|without).*training|no training picture",)),
    "split_as_classes": Wanted(script="repro.sh", holds=(r"Train",), holds_not=r"of 2 classes: Train, Val"),
    "unnamed_leavings": Wanted(script="repro.sh", holds=("HEIC|heic",)),
    "venv_space": Wanted(script="repro.sh", holds=(r"rc 0|my projects",), holds_not="rc 124"),
    "yaml_twice": Wanted(script="repro.sh", holds=("interventions.*(twice|again|line)",)),
}


def main(folder: Path, *names: str) -> int:
    bad = []
    with tempfile.TemporaryDirectory(prefix="s-") as kept:
        copy = Path(kept) / "inputs"
        shutil.copytree(folder, copy, copy_function=shutil.copyfile)
        for name in names or WANTED:
            said = output_of(copy, name, Path(kept) / "out")
            lacking = [pattern for pattern in WANTED[name].holds if not re.search(pattern, said)]
            surplus = re.search(WANTED[name].holds_not, said)
            if lacking or surplus:
                bad.append(name)
                print(f"{name}: NOT as wanted (lacks {lacking}, holds {surplus and surplus[0]!r})\n{said}", flush=True)
            else:
                print(f"{name}: as wanted", flush=True)
    print(f"{len(names or WANTED) - len(bad)} as wanted, {len(bad)} not: {', '.join(bad)}")
    return 1 if bad else 0


def output_of(copy: Path, name: str, out: Path) -> str:
    """What a script prints, with today's module names in it and in what it calls."""
    for file in [*copy.rglob("*.py"), *copy.rglob("*.sh")]:
        text = file.read_text()
        for before, now in MODULES.items():
            text = text.replace(before, now)
        file.write_text(text)
    wanted = WANTED[name]
    script = copy / name / wanted.script
    arguments = [argument.format(out=out) for argument in wanted.arguments]
    command = ["bash" if script.suffix == ".sh" else sys.executable, str(script), *arguments]
    environment = os.environ | {"PY": sys.executable, "SWEEP": str(Path(sys.executable).with_name("sweep"))}
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            timeout=LIMIT_S,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return f"{(late.stdout or b'').decode(errors='replace')}\nTraceback: no end after {LIMIT_S} s"
    return done.stdout.decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
