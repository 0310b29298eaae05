"""How the machine, besides the spec, affects the exact bits of a trial's weights and how long they take."""

import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from sweep.store.trial_dir import Status

CPU = "CPU"
_DMI = Path("/sys/devices/virtual/dmi/id")


@dataclass(frozen=True)
class Arithmetic:
    """What decides the order in which sums are added up; a spec gives the same bits only if all of these agree."""

    device: str
    threads: int
    cpu_capability: str
    torch_version: str

    @classmethod
    def here(cls) -> "Arithmetic":
        return cls(
            device=torch.cuda.get_device_name() if torch.cuda.is_available() else CPU,
            threads=torch.get_num_threads(),
            cpu_capability=torch.backends.cpu.get_cpu_capability(),
            torch_version=torch.__version__,
        )

    def __str__(self) -> str:
        if self.device != CPU:
            return f"{self.device}, PyTorch {self.torch_version}"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{CPU}, {threads}, {self.cpu_capability}, PyTorch {self.torch_version}"

    def differs_from(self, status: Status) -> bool:
        """Whether an attempt's status records other arithmetic in a field that matters; a missing record doesn't."""
        counts: tuple[str, ...] = ("device", "threads", "cpu_capability", "torch_version")
        if self.device != CPU:  # the host's threads add nothing up
            counts = ("device", "torch_version")
        return any(getattr(status, key) not in (None, getattr(self, key)) for key in counts)

    def of_attempt(self, status: Status) -> "Arithmetic":
        """The arithmetic that an attempt's status records; what it leaves out is taken from this one."""
        return Arithmetic(**{key: getattr(status, key) or value for key, value in asdict(self).items()})


def node_type() -> str:
    """What a machine of this kind is called where machines have prices: EC2's name, else its GPU's, else CPU."""
    with suppress(OSError):
        if (_DMI / "sys_vendor").read_text().strip() == "Amazon EC2":
            return (_DMI / "product_name").read_text().strip()
    return torch.cuda.get_device_name() if torch.cuda.is_available() else CPU


def bf16_is_native() -> bool:
    """Whether this CPU has instructions for bf16; without, bf16 is 2 (AVX-512) to 8 times (AVX2) as slow as float32."""
    if platform.machine() in ("x86_64", "AMD64"):
        return bool(torch.cpu._is_avx512_bf16_supported())  # oneDNN also says yes where it only emulates them
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
