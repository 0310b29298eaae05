"""Where the sweep lies: in a folder of its own that can be filled and cut off, or on an S3 that fails on order."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from upath import UPath

from benchmarks.chaotic.faulty_s3 import HOST, Order
from sweep.store.sweep_dir import SweepDir

MIB = 2**20
SIZE_MIB = 256
OUTAGE_S = 4.0


class MissError(Exception):
    """There was nothing for the fault to strike."""


class Storage(Protocol):
    """`url` is what a driver is given; `sweep` is the demo's directory as seen from here, whatever fails meanwhile."""

    kind: str
    url: str
    sweep: SweepDir

    def close(self) -> None: ...


class Tmpfs:
    """A small tmpfs where that is allowed, else a folder, which can't be `full` or `away`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.url = str(folder)
        self.sweep = SweepDir(UPath(folder / "demo"))
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(folder)]
        self.mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        self.kind = "tmpfs" if self.mounted else "folder, no storage faults"

    def full(self) -> str:
        filler = self._folder / "filler"
        with filler.open("wb") as file:
            for _ in range(50):  # trials write between a look at the free space and its taking
                try:
                    os.posix_fallocate(file.fileno(), filler.stat().st_size, shutil.disk_usage(self._folder).free)
                    break
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
        free = filler.stat().st_size
        time.sleep(OUTAGE_S)
        filler.unlink()
        return f"{free // MIB} MiB taken for {OUTAGE_S:.0f} s"

    def away(self) -> str:
        self._remount("ro")
        time.sleep(OUTAGE_S)
        self._remount("rw")
        return f"read-only for {OUTAGE_S:.0f} s"

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self._folder)], check=True)

    def _remount(self, mode: str) -> None:
        for _ in range(100):  # refused while a file is open for writing
            remount = ["mount", "-o", f"remount,{mode}", str(self._folder)]
            if subprocess.run(remount, capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.05)  # the pace of trying
        raise MissError(f"the storage could not be made {mode}")


class S3:
    """A `faulty_s3` process; the environment tells this process's children where it is."""

    kind = "S3"

    def __init__(self) -> None:
        port, safe_port = _free_ports(2)
        keys = {"AWS_ACCESS_KEY_ID": "chaos", "AWS_SECRET_ACCESS_KEY": "chaos", "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ |= {"AWS_ENDPOINT_URL": f"http://{HOST}:{port}"} | keys
        script = Path(__file__).with_name("faulty_s3.py")
        self._server = subprocess.Popen(
            [sys.executable, str(script), str(port), str(safe_port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a line for each request
            text=True,
        )
        self._read()
        self.url = "s3://chaos/runs"
        self.sweep = SweepDir(UPath(f"{self.url}/demo", endpoint_url=f"http://{HOST}:{safe_port}"))
        self.sweep.path.fs.mkdir("chaos")

    def fail(self, order: Order, seconds: float) -> str:
        """Fail as ordered for so long; returns how many requests that struck.

        Raises:
            MissError: none.
        """
        self._give(order)
        time.sleep(seconds)
        struck = self._give("answer")
        if not struck:
            raise MissError("no request came")
        return f"{struck} requests in {seconds:.0f} s"

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def _give(self, order: Order) -> int:
        assert self._server.stdin is not None
        print(order, file=self._server.stdin, flush=True)
        return int(self._read())

    def _read(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline()


def _free_ports(number: int) -> list[int]:
    probes = [socket.create_server((HOST, 0)) for _ in range(number)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
