"""What the dashboard's server takes for each page of small and large sweeps, beside TensorBoard's over as many runs.

    python benchmarks/dashboard.py [--trials 4 200 10000] [--json FILE]

Writes sweeps with 6 layers and 10 checkpoints a trial, serves each, and opens every page in headless Chromium: first in
a server that has just started, then again. CPU seconds are the server's own, which don't depend on what else the
machine does. About 15 minutes on 2 cores.
"""

import argparse
import json
import logging
import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import yaml
from playwright.sync_api import Page, sync_playwright
from upath import UPath

sys.path.remove(str(Path(__file__).parent))  # or this file is taken for the package of the same name
sys.path.append(str(Path(__file__).parents[1]))  # where `tests` is

from dashboard import serve
from sweep.results.atlas import read_atlas, write_atlas
from sweep.results.tables import COLUMNS, TableName, write_table
from sweep.spec import SCHEMA
from sweep.store.atlas_dir import AtlasDir
from tests.conftest import free_port
from tests.counting import counted_s3
from tests.dashboard import test_atlas

MIB = 2**20
SIZES = [4, 200, 10_000]
VIEWS = Path(serve.__file__).with_name("views")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHECKPOINTS = (0, 1, 2, 4, 8, 16, 32, 64, 90, 100)
LAYERS = 6
SEEDS = 3
IDLE_S = 60.0


def write_sweep(folder: Path, trials: int) -> str:
    """A sweep's tables with so many trials, most finished, some of each other state; the id of a finished one."""
    draw = np.random.default_rng(0)
    (folder / "results").mkdir(parents=True)
    grid = {"grid": {"name": folder.name}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"schema": SCHEMA, "launches": [grid]}))
    cells = -(-trials // SEEDS)
    interventions = ["baseline", *(f"intervention_{n}" for n in range(1, max(2, min(26, cells))))]
    cell, seed = np.divmod(np.arange(trials), SEEDS)
    network, intervention = np.divmod(cell, len(interventions))
    table = pd.DataFrame({"architecture": [f"network_{n}" for n in network], "seed": seed})
    table["intervention"] = np.array(interventions)[intervention]
    table["trial_id"] = [
        f"{row.architecture}-{row.intervention}-s{row.seed}-{row.Index:012x}" for row in table.itertuples()
    ]
    table["host"] = [f"node-{number % 16}" for number in range(trials)]
    table = table.assign(
        data="pictures", data_key="d", recipe_key="r", attempts=1, epochs=100, steps=1000, parameters=10**6, gpus=1.0,
        cpus=4, images=10**7, device="GPU", code_version="0", torch_version="2", heartbeat_at=time.time(),
    )  # fmt: skip
    state = draw.choice(["finished", "failed", "pending"], p=[0.9, 0.05, 0.05], size=trials)
    state[0] = "finished"
    done = state == "finished"
    table["status"], table["settled"] = state, done
    table["epoch"] = np.where(done, 100, np.where(state == "failed", 4, 0))
    table["step"] = table["epoch"] * 10
    table["val_accuracy"], table["wall_s"] = draw.random(trials), table["epoch"] * 60.0
    table["gpu_hours"], table["cpu_hours"] = table["wall_s"] / 3600, 0.0
    kinds = np.array(["DivergedError: the loss was not finite at step ", "OutOfMemoryError: CUDA, at step "])
    errors = [f"{kind}{step}" for kind, step in zip(kinds[draw.integers(2, size=trials)], range(trials), strict=True)]
    table["error"] = pd.Series(errors).where(state == "failed")
    _write(folder, "trials", table)
    _write(folder, "epochs", _epochs(table, draw))
    _write(folder, "layers", _layers(table, draw))
    first = str(table["trial_id"].iloc[0])
    for step in (epoch * 10 for epoch in CHECKPOINTS):
        for position in range(1, LAYERS + 1):
            _write_reduced(folder / "trials" / first / "layers" / str(step) / f"{_layer_name(position)}.npz", draw)
    return first


def _epochs(trials: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    table = _repeated(trials[["trial_id", "epoch"]], range(101))
    table = table[table["of"] <= table["epoch"]].drop(columns="epoch").rename(columns={"of": "epoch"})
    table["step"], table["wall_s"], table["images_per_s"] = table["epoch"] * 10, table["epoch"] * 60.0, 1700.0
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        table[name] = draw.random(len(table))
    return table


def _layers(trials: pd.DataFrame, draw: np.random.Generator) -> pd.DataFrame:
    places = [(epoch, position) for epoch in CHECKPOINTS for position in range(1, LAYERS + 1)]
    table = _repeated(trials[["trial_id", "epoch"]], places)
    table["at"], table["position"] = (table["of"].str[0], table["of"].str[1])
    table = table[table["at"] <= table["epoch"]].drop(columns=["epoch", "of"]).rename(columns={"at": "epoch"})
    table["step"], table["layer"] = table["epoch"] * 10, table["position"].map(_layer_name)
    table["neurons"], table["dead"], table["zeros"], table["expected"] = 512, 0, 0, "horizontal"
    for name in ("horizontal", "vertical"):
        table[name] = draw.random(len(table)) * table["epoch"] / 100
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - 0.05, table[name] + 0.05
        table[f"null_{name}_mean"], table[f"null_{name}_high"] = 0.0, 0.03
    table["verdict"] = np.where(table["horizontal"] > 2 / 3, "horizontal", "none")
    table["row_profile"] = table["column_profile"] = json.dumps([[1 / 3] * 3] * 5)
    return table


def _layer_name(position: int) -> str:
    return f"features.{LAYERS + 1 - position}.conv"


def _repeated(table: pd.DataFrame, values: Any) -> pd.DataFrame:
    """Each row once for each value, which is in the column `of`."""
    return table.merge(pd.DataFrame({"of": list(values)}), how="cross")


def _write(folder: Path, name: TableName, table: pd.DataFrame) -> None:
    write_table(UPath(folder), name, table.reindex(columns=list(COLUMNS[name])).astype(COLUMNS[name]))


def _write_reduced(file: Path, draw: np.random.Generator) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    reduced = draw.random((512, 5, 5, 3)).astype(np.float16)
    scores = draw.random(512).astype(np.float32)
    np.savez(file, reduced=reduced, order=draw.permutation(512).astype(np.int32), horizontal=scores, vertical=scores)


class Server:
    """A server's process with those below it."""

    def __init__(self, process: subprocess.Popen[bytes], address: str) -> None:
        self.address = address
        self._process = psutil.Process(process.pid)

    def cpu_s(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._all())

    def mib(self) -> float:
        return sum(process.memory_info().rss for process in self._all()) / MIB

    def settled_cpu_s(self) -> float:
        """The CPU seconds so far, once the server does nothing any more."""
        before = self.cpu_s()
        while True:
            time.sleep(1.5)  # long enough that what a page does by and by shows
            now = self.cpu_s()
            if now - before < 0.03:
                return now
            before = now

    def _all(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]


@contextmanager
def serving(make: Callable[[int], list[str]]) -> Iterator[Server]:
    """A server of a command that is given a port, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(make(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(address, timeout=5)
                break
            except OSError:
                time.sleep(0.3)  # the pace of looking
        yield Server(process, address)
    finally:
        process.terminate()
        process.wait()


def write_networks(folder: Path, networks: int) -> None:
    """An atlas of so many networks."""
    test_atlas.write(folder)
    few = read_atlas(AtlasDir(UPath(folder)))
    copies = [few.assign(source=few["source"] + f".{copy}") for copy in range(-(-networks // len(test_atlas.NETWORKS)))]
    write_atlas(AtlasDir(UPath(folder)), pd.concat([few, *copies[1:]], ignore_index=True))


def visited(server: Server, page: Page, url: str) -> float:
    """Open a page and wait until its server has nothing more to do; the CPU seconds that it took."""
    before = server.settled_cpu_s()
    page.goto(url)
    page.locator("h1").first.wait_for(timeout=120_000)
    return server.settled_cpu_s() - before


def dashboard_rows(storage: Path, trials: int, page: Page) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Each page's CPU seconds, cold and warm; the server's memory and what an idle tab takes."""
    trial = write_sweep(storage / "sweep", trials)
    write_networks(storage / "atlas", trials)
    rows = []
    peak = 0.0
    for view in sorted(path.stem for path in VIEWS.glob("*.py")):
        with serving(lambda port: serve.command(str(storage), port)) as server:
            chosen = {"trial": f"trial={trial}", "weights": f"show={trial}/{_layer_name(1)}"}.get(view, "")
            url = f"{server.address}/{'' if view == 'overview' else view}?sweep=sweep&{chosen}"
            cold, warm = visited(server, page, url), visited(server, page, url)
            rows.append({"trials": f"{trials:,}", "page": view, "cold, s": f"{cold:.2f}", "warm, s": f"{warm:.2f}"})
            print(rows[-1], flush=True)
            if view == "overview":
                before = server.cpu_s()
                time.sleep(IDLE_S)
                idle = (server.cpu_s() - before) / (IDLE_S / 5)
            peak = max(peak, server.mib())
        page.goto("about:blank")
    return rows, {"trials": f"{trials:,}", "idle, s a refresh": f"{idle:.3f}", "most MiB": f"{peak:.0f}"}


def s3_row(storage: Path, trials: int, page: Page, port: int) -> dict[str, Any]:
    """The overview of a storage on an S3 of this machine: until it is drawn, and the requests of a look for news."""
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # the store's server, which tells of each request
    with counted_s3(port) as store:
        bucket = UPath("s3://dashboard")
        bucket.mkdir(exist_ok=True)
        runs = f"dashboard/{trials}-trials"
        bucket.fs.put(str(storage / "sweep"), f"{runs}/sweep", recursive=True)
        with serving(lambda at: serve.command(f"s3://{runs}", at)) as server:
            store.requests.clear()
            before, began = server.settled_cpu_s(), time.monotonic()
            page.goto(f"{server.address}/?sweep=sweep")
            page.get_by_role("heading", name="Weights of the last conv").wait_for(timeout=120_000)
            wall_s, cold = time.monotonic() - began, server.settled_cpu_s() - before
            asked = len(store.requests)
            time.sleep(IDLE_S)
            looks = len(store.requests) - asked
    return {
        "trials": f"{trials:,}", "page": "overview on S3", "cold, s": f"{cold:.2f}",
        "seconds until drawn": f"{wall_s:.1f}", "requests until drawn": asked,
        "requests a look": f"{looks / (IDLE_S / 5):.1f}",
    }  # fmt: skip


def tensorboard_row(folder: Path, trials: int, page: Page) -> dict[str, Any]:
    """What TensorBoard's server takes until its page has listed as many runs, with 101 epochs of four scalars each."""
    from torch.utils.tensorboard import SummaryWriter

    for number in range(trials):
        with SummaryWriter(str(folder / f"run-{number}")) as writer:
            for epoch in range(101):
                for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
                    writer.add_scalar(name, math.exp(-epoch / 30), epoch)
    make = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--load_fast=false", "--port"]
    with serving(lambda port: [*make, str(port)]) as server:
        until = time.monotonic() + 600
        while time.monotonic() < until:
            runs = json.load(urllib.request.urlopen(f"{server.address}/data/runs", timeout=120))
            if len(runs) >= trials:
                break
            time.sleep(1)  # the pace of looking
        cold = server.settled_cpu_s()
        page.goto(server.address)
        warm = server.settled_cpu_s() - cold
        return {
            "trials": f"{trials:,}", "page": "TensorBoard", "cold, s": f"{cold:.2f}", "warm, s": f"{warm:.2f}",
            "runs listed": len(runs), "most MiB": f"{server.mib():.0f}",
        }  # fmt: skip


def status_row(storage: Path) -> dict[str, str]:
    """CPU seconds of `sweep status`, and of the import of pandas alone, which says how fast this processor is."""
    status = cpu_s("-m", "sweep.cli", "status", "sweep", "--storage", str(storage))
    pandas = cpu_s("-c", "import pandas")
    return {"sweep status, s": f"{status:.2f}", "of which pandas' import takes, s": f"{pandas:.2f}"}


def cpu_s(*arguments: str) -> float:
    """CPU seconds of a Python process from its start to its end."""
    before = psutil.Process().cpu_times()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = psutil.Process().cpu_times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def facts(sizes: list[int], *measured: list[dict[str, Any]]) -> dict[str, Any]:
    """What is written after each size: rows of pages, then remarks on the whole and on others."""
    rows, wholes, peers = measured
    words = [", ".join(f"{name}: {value}" for name, value in row.items()) for row in (*wholes, *peers)]
    command = "python benchmarks/dashboard.py" + (f" --trials {' '.join(map(str, sizes))}" if sizes != SIZES else "")
    remark = "\n".join(f"- {line}" for line in words)
    return {"command": command, "rows": rows, "wholes": wholes, "peers": peers, "remark": remark}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=SIZES)
    parser.add_argument("--runs", type=int, default=1000, help="of TensorBoard, at most")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    wholes: list[dict[str, Any]] = []
    peers: list[dict[str, Any]] = []
    port = free_port()  # for all sizes: this process keeps its connections to the store
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1400, "height": 1400})
        for trials in given.trials:
            with tempfile.TemporaryDirectory(prefix="dashboard-") as folder:
                found, whole = dashboard_rows(Path(folder), trials, page)
                rows += found
                wholes.append(whole | status_row(Path(folder)))
                print(wholes[-1], flush=True)
                peers.append(s3_row(Path(folder), trials, page, port))
                print(peers[-1], flush=True)
            if trials <= given.runs:
                with tempfile.TemporaryDirectory(prefix="tensorboard-") as folder:
                    peers.append(tensorboard_row(Path(folder), trials, page))
                    print(peers[-1], flush=True)
            if given.json:
                given.json.write_text(json.dumps(facts(given.trials, rows, wholes, peers), indent=1) + "\n")
        browser.close()


if __name__ == "__main__":
    main()
