"""Tell Ray that EC2 is about to take this spot instance: `python -m sweep.spot`, beside `ray start` on each worker.

EC2 announces it two minutes ahead, at an address that only the instance itself can ask. Nothing in Ray's launcher for
virtual machines looks there (2.60). A node drained as preempted gets no new trials, and one that it takes along goes
on elsewhere without counting as failed.

Source: EC2 user guide, "Spot Instance interruption notices" and "Use the Instance Metadata Service" (version 2).
"""

import json
import os
import subprocess
import time
from datetime import UTC, datetime
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

METADATA = "http://169.254.169.254"
POLL_S = 5.0
_DIRECT = build_opener(ProxyHandler({}))  # a proxy can't reach the address


def watch(metadata: str, poll_s: float) -> None:
    """Return once EC2 has announced the end of this instance and Ray has taken note of it."""
    while (ends_at := _ask_patiently(metadata)) is None or not drain(ends_at):
        time.sleep(poll_s)


def end_of_instance(metadata: str) -> float | None:
    """When EC2 takes the instance, in seconds since 1970; None while no end is announced.

    Raises:
        OSError, HTTPException, ValueError: the metadata service gave no answer, or one that is not understood.
    """
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = _answer(Request(f"{metadata}/latest/api/token", method="PUT", headers=ttl))
    headers = {"X-aws-ec2-metadata-token": token}
    try:
        notice = json.loads(_answer(Request(f"{metadata}/latest/meta-data/spot/instance-action", headers=headers)))
    except HTTPError as error:
        if error.code == 404:  # so it says that no end is announced
            return None
        raise
    try:
        return datetime.fromisoformat(notice["time"]).astimezone(UTC).timestamp()
    except (KeyError, TypeError) as error:
        raise ValueError(f"the notice {notice} has no time") from error


def drain(ends_at: float) -> bool:
    """Have Ray move everything off this node before it ends; whether Ray agreed."""
    left_s = max(0, round(ends_at - time.time()))
    command = ["ray", "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", "EC2 takes this spot instance", "--deadline-remaining-seconds", str(left_s)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    _say(f"EC2 takes this instance in {left_s} s; ray drain-node: {done.returncode} {done.stdout} {done.stderr}")
    return done.returncode == 0


def _ask_patiently(metadata: str) -> float | None:
    """`end_of_instance`, with failures told and taken for no news: the next question comes soon."""
    try:
        return end_of_instance(metadata)
    except (OSError, HTTPException, ValueError) as error:
        _say(f"no answer from {metadata}: {error}")
        return None


def _answer(request: Request) -> str:
    with _DIRECT.open(request, timeout=2) as answer:
        return answer.read().decode()


def _say(words: str) -> None:
    print(datetime.now(UTC).isoformat(timespec="seconds"), words.strip(), flush=True)


if __name__ == "__main__":
    watch(os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", METADATA).rstrip("/"), POLL_S)
