"""Preparing a data set: how fast pictures become shards, beside Pillow alone, and how a node's processes fetch them.

    python benchmarks/prepare.py [--pictures 3000] [--repeats 3] [--json FILE]

About 5 minutes on 2 cores, and 2 GB of disk. The goal is 0.9 of Pillow's images per second. JPEGs of about 500 x
375 pixels, gradients and noise at several scales, become squares of 256 pixels (`image_size` 224): by `sweep prepare`,
and by a pool of as many processes that only decodes them and resizes them in the same way. The two take turns. Then
three processes fetch the set at once from an S3 server of this machine (moto, in its own process) into one cache.
"""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageOps
from upath import UPath

from sweep.data.fetch import CHUNK
from sweep.data.make_sets import Made, prepare_to
from sweep.data.parallel import Mapper, in_processes
from sweep.data.set_index import INDEX
from sweep.data.shards import shard_ranges
from sweep.grid.load import read_wanted

IMAGE_SIZE = 224
SIDE = 256  # stored for it
CLASSES = 10
FETCH = """
import sys
from sweep.data.prepare import fetch
from sweep.spec import DataSpec
spec = DataSpec.model_validate_json(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
fetch(spec, sys.argv[2])
"""


def write_picture(folder: Path, number: int) -> None:
    """A JPEG that is as hard to decode as a photograph: about 100 KB."""
    rng = np.random.default_rng(number)
    width, height = (500, 375) if number % 4 else (375, 500)
    levels = np.zeros((height, width, 3), np.float32)
    for cells, strength in ((2, 60), (8, 30), (40, 18), (160, 10)):
        grain = rng.normal(128, strength, (cells, cells, 3)).clip(0, 255).astype(np.uint8)
        levels += np.asarray(Image.fromarray(grain).resize((width, height), Image.Resampling.BICUBIC), np.float32) - 128
    levels += rng.normal(0, 6, levels.shape) + 128
    path = folder / f"class{number % CLASSES}" / f"{number:06}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def decode(paths: list[str]) -> int:
    """Pillow alone: what is stored of each picture, thrown away."""
    for path in paths:
        with Image.open(path) as file:
            file.draft("RGB", (2 * SIDE, 2 * SIDE))
            np.ascontiguousarray(np.asarray(ImageOps.fit(file.convert("RGB"), (SIDE, SIDE))).transpose(2, 0, 1))
    return len(paths)


class Meter:
    """Maps as `mapped` does, and counts what the items' processes spent on them."""

    def __init__(self, mapped: Mapper) -> None:
        self._mapped = mapped
        self.cpu_s = 0.0

    def __call__(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        for result, cpu_s in self._mapped(partial(metered, function), items):
            self.cpu_s += cpu_s
            yield result


def metered(function: Callable[[Any], Any], item: Any) -> tuple[Any, float]:
    began = time.process_time()
    return function(item), time.process_time() - began


def by_pillow(paths: list[str], meter: Meter) -> None:
    """Each process gets as many pictures at a time as fill a shard."""
    shards = [paths[part.start : part.stop] for part in shard_ranges(len(paths), SIDE)]
    assert sum(meter(decode, shards)) == len(paths)


def measure(pictures: Path, folder: Path, repeats: int) -> tuple[dict[str, Any], Made]:
    """Both ways in turn, in the same processes: images per second, and per second of their CPU time."""
    paths = sorted(str(path) for path in pictures.rglob("*.jpg"))
    wanted = read_wanted("folder", str(pictures), [f"image_size={IMAGE_SIZE}"])
    rows = []
    with in_processes() as mapped:
        by_pillow(paths, Meter(mapped))  # starts the processes and reads the files
        for repeat in range(repeats):
            pillow, sweep = Meter(mapped), Meter(mapped)
            began, own_s = time.perf_counter(), time.process_time()
            by_pillow(paths, pillow)
            between, own_between_s = time.perf_counter(), time.process_time()
            made = prepare_to(wanted, str(folder / f"sets{repeat}"), sweep)
            pillow_s, sweep_s = between - began, time.perf_counter() - between
            own = own_between_s - own_s, time.process_time() - own_between_s
            rows.append({
                "pillow_per_s": round(len(paths) / pillow_s, 1),
                "sweep_per_s": round(len(paths) / sweep_s, 1),
                "ratio": round(pillow_s / sweep_s, 3),
                "ratio_of_cpu_time": round((pillow.cpu_s + own[0]) / (sweep.cpu_s + own[1]), 3),
            })  # fmt: skip
            print(rows[-1], flush=True)
    medians = {name: statistics.median(row[name] for row in rows) for name in ("ratio", "ratio_of_cpu_time")}
    return {"images": len(paths), **medians, "rows": rows}, made


def fetched_by_three(made: Made, folder: Path) -> dict[str, Any]:
    """Three processes of a node fetch a set at once; how often each byte of its files was asked for."""
    log = folder / "requests.log"
    port = free_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
    }  # fmt: skip
    with log.open("w") as stream:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stderr=stream, stdout=stream)
    try:
        url = upload(made, log)
        arguments = [sys.executable, "-c", FETCH, made.index.spec.model_dump_json(), url]
        processes = [
            subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
        ]
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        began = time.perf_counter()
        for process in processes:
            process.communicate("\n")
            assert process.returncode == 0
        wall_s = time.perf_counter() - began
    finally:
        server.terminate()
        server.wait()
    asked = Counter(re.findall(r"GET /sets/\S*/(\S+\.npy) ", log.read_text()))
    parts = {name: -(-file.size // CHUNK) for name, file in made.index.files.items()}
    return {
        "processes": 3,
        "files": len(parts),
        "mb": round(made.index.size / 1e6, 1),
        "wall_s": round(wall_s, 1),
        "mb_per_s": round(made.index.size / 1e6 / wall_s, 1),
        "reads_of_each_file": sorted({asked[name] / number for name, number in parts.items()}),
    }


def upload(made: Made, log: Path) -> str:
    """Put a set into the server's bucket once it answers."""
    for _ in range(300):
        if "Running on" in log.read_text():
            break
        time.sleep(0.1)  # the pace of looking
    else:
        raise RuntimeError(f"the S3 server did not start: {log.read_text()[-300:]}")
    bucket = UPath("s3://sets")
    bucket.mkdir()
    for name in [*made.index.files, INDEX]:
        (bucket / "photos" / name).write_bytes(Path(str(made.folder / name)).read_bytes())
    return str(bucket / "photos")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SWEEP_CACHE"] = str(folder / "cache")
        with ProcessPoolExecutor() as pool:
            list(pool.map(partial(write_picture, folder / "pictures"), range(arguments.pictures), chunksize=50))
        made_in, made = measure(folder / "pictures", folder, arguments.repeats)
        fetched = fetched_by_three(made, folder)
    print(json.dumps(made_in))
    print(json.dumps(fetched))
    if arguments.json:
        reads = ", ".join(f"{times:g}" for times in fetched["reads_of_each_file"])
        remark = (
            f"Ratio {made_in['ratio']}, by CPU time {made_in['ratio_of_cpu_time']}. {made_in['images']:,} JPEGs, "
            f"{os.cpu_count()} cores, Pillow {PIL.__version__}. {fetched['processes']} processes fetched a set of "
            f"{fetched['mb']} MB at once in {fetched['wall_s']} s; reads of each file: {reads}."
        )
        facts = {"command": "python benchmarks/prepare.py", "rows": made_in["rows"], "remark": remark}
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
