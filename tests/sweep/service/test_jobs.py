"""Commands as jobs: what is sent, what is refused before it is, and which job is the same; with a fake job server."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray.job_submission
import yaml
from upath import UPath

from sweep.service import jobs
from sweep.service.jobs import BEGUN, Command, JobServer, Location, located
from sweep.store.code import SENT_VERSION, code_version
from sweep.store.lease import hold
from sweep.store.sweep_dir import SweepDir
from tests.command import run
from tests.conftest import free_port

URL = "http://127.0.0.1:8265"
Status = ray.job_submission.JobStatus


@dataclass
class Sent:
    """A job as the fake server keeps it."""

    submission_id: str
    entrypoint: str
    metadata: dict[str, str]
    environment: dict[str, str]
    files: dict[str, str]
    start_time: int
    status: Status = Status.RUNNING
    message: str = ""
    driver_exit_code: int | None = None
    said: str = (
        "2026-01-01 00:00:00,000\tINFO job_manager.py:601 -- Runtime env is set up.\n"
        f"Running entrypoint for job a: sweep\nplanned\n{BEGUN}\n"
    )


@dataclass
class FakeServer:
    """Ray's client and job server in one; a job that is asked to stop does so at the second time of asking."""

    sent: list[Sent] = field(default_factory=list)
    asked_to_stop: list[str] = field(default_factory=list)

    def __call__(self, address: str) -> "FakeServer":
        return self

    def submit_job(self, *, entrypoint: str, submission_id: str, runtime_env: dict[str, Any], metadata: Any) -> str:
        if any(job.submission_id == submission_id for job in self.sent):
            raise RuntimeError(f"Job with submission_id {submission_id} already exists")
        folder = Path(runtime_env["working_dir"])
        files = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}
        started = len(self.sent)
        self.sent.append(Sent(submission_id, entrypoint, metadata, runtime_env["env_vars"], files, started))
        return submission_id

    def list_jobs(self) -> list[Sent]:
        return list(self.sent)

    def get_job_info(self, submission_id: str) -> Sent:
        return next(job for job in self.sent if job.submission_id == submission_id)

    def get_job_status(self, submission_id: str) -> Status:
        return self.get_job_info(submission_id).status

    def get_job_logs(self, submission_id: str) -> str:
        return self.get_job_info(submission_id).said

    async def tail_job_logs(self, submission_id: str) -> Any:
        yield self.get_job_info(submission_id).said

    def stop_job(self, submission_id: str) -> None:
        if submission_id in self.asked_to_stop:
            self.end(Status.STOPPED)
        self.asked_to_stop.append(submission_id)

    def end(self, status: Status, code: int | None = None) -> None:
        self.sent[-1].status, self.sent[-1].driver_exit_code = status, code


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    fake = FakeServer()
    monkeypatch.setattr(ray.job_submission, "JobSubmissionClient", fake)
    monkeypatch.setattr(jobs, "_LOOK_EVERY_S", 0.01)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    return fake


def _arguments(job: Sent) -> list[str]:
    return shlex.split(job.entrypoint)


def _command(name: str = "resume", *arguments: str, ship_code: bool = False) -> Command:
    location = Location("s3://bucket/sweeps", "demo")
    return Command(name=name, arguments=arguments, location=location, ship_code=ship_code)


def test_a_launch_sends_the_grid_as_it_is_resolved_here(server: FakeServer, tmp_path: Path) -> None:
    settings = ["--set", "recipe.epochs=3", "--max-failures", "1", "--strict"]
    run("launch", "demo", *settings, "--cluster", URL, "--storage", str(tmp_path), "--no-wait")
    (job,) = server.sent
    assert _arguments(job) == [
        "sweep", "launch", "grid.yaml", f"--storage={tmp_path}", "--max-failures=1", "--address", "auto",
    ]  # fmt: skip
    grid = yaml.safe_load(job.files["grid.yaml"])
    assert (grid["recipe"]["epochs"], grid["data"]["unusable"]) == (3, "refuse")
    assert job.environment[SENT_VERSION] == code_version()
    assert job.metadata == {"command": "launch", "works": "True", "sweep": "demo", "storage": str(tmp_path)}


@pytest.mark.parametrize("given", ["option", "variable", "file"])
def test_urls_to_notify_are_in_a_file_of_the_job_alone(
    given: str, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = ["json://user:secret@example.org/a", "json://user:secret@example.org/b"]
    options = {"option": [f"--notify={url}" for url in urls], "file": [f"--notify=@{tmp_path / 'urls'}"]}
    (tmp_path / "urls").write_text("\n".join(urls) + "\n")
    if given == "variable":
        monkeypatch.setenv("SWEEP_NOTIFY", " ".join(urls))
    launch = ["launch", "demo", "--cluster", URL, "--storage", str(tmp_path), "--no-wait"]
    printed = run(*launch, *options.get(given, []))
    (job,) = server.sent
    assert "--notify=@notify.txt" in _arguments(job)
    assert job.files["notify.txt"].split() == urls
    assert "grid.yaml" in job.files
    for shown in (printed, job.entrypoint, job.submission_id, str(job.metadata), str(job.environment)):
        assert "secret" not in shown


def test_a_job_without_urls_to_notify_has_no_file_of_them(server: FakeServer, tmp_path: Path) -> None:
    launch = ["launch", "demo", "--cluster", URL, "--storage", str(tmp_path), "--no-wait"]
    assert "a file that holds URLs" in run(*launch, "--notify", "@nowhere.txt", code=2)
    run(*launch)
    assert "notify.txt" not in server.sent[0].files
    assert "notify" not in server.sent[0].entrypoint


def test_submit_is_the_old_name_of_launch(server: FakeServer, tmp_path: Path) -> None:
    run("launch", "demo", "--cluster", URL, "--storage", str(tmp_path), "--no-wait")
    server.end(Status.SUCCEEDED)
    run("submit", "demo", "--cluster", URL, "--storage", str(tmp_path), "--no-wait")
    launched, submitted = server.sent
    assert submitted.entrypoint == launched.entrypoint
    assert submitted.submission_id.rpartition("-")[0] == launched.submission_id.rpartition("-")[0]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (["resume", "--only", "failed", "--only", "a*", "--from-scratch", "--no-wait"],
         ["--only=failed", "--only=a*", "--from-scratch", "--address", "auto"]),
        (["analyze", "--no-wait"], ["--address", "auto"]),
        (["status", "--json"], ["--json"]),
        (["probe", "--images", "9"], ["--images=9"]),
        (["examples", "--images", "9"], ["--images=9"]),
        (["report", "--kernel", "3", "-o", "x.html"], ["--output=s3://bucket/sweeps/demo/x.html", "--kernel=3"]),
    ],
)  # fmt: skip
def test_a_command_is_sent_as_it_was_given(
    given: list[str], sent: list[str], server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "seen_from_here", lambda *_: None)
    monkeypatch.setattr(jobs, "require_free", lambda *_: None)
    name, *options = given
    line = [name, "demo", *options, "--cluster", URL, "--storage", "s3://bucket/sweeps"]
    if name not in ("resume", "analyze"):
        monkeypatch.setattr(FakeServer, "get_job_status", lambda *_: Status.SUCCEEDED)
        monkeypatch.setattr(FakeServer, "tail_job_logs", _ended)
    run(*line)
    words = _arguments(server.sent[0])
    assert words[:2] == ["sweep", name]
    assert sorted(words[2:]) == sorted(["s3://bucket/sweeps/demo", *sent])


async def _ended(self: FakeServer, submission_id: str) -> Any:
    self.end(Status.SUCCEEDED, 0)
    yield "said\n"


def test_an_equal_command_joins_the_job_that_runs_and_starts_another_once_it_has_ended(server: FakeServer) -> None:
    first = JobServer(URL).submit(_command())
    joined = JobServer(URL).running(_command())
    assert joined is not None
    assert joined.id == first.id
    assert JobServer(URL).running(_command("resume", "--from-scratch")) is None
    assert JobServer(URL).running(_command(ship_code=True)) is None
    server.end(Status.STOPPED)
    assert JobServer(URL).running(_command()) is None
    second = JobServer(URL).submit(_command())
    assert (first.id[-2:], second.id[-2:]) == ("-1", "-2")
    assert first.id[:-2] == second.id[:-2]


def test_a_job_that_somebody_else_has_sent_at_the_same_time_is_joined(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = JobServer(URL).submit(_command("status"))
    monkeypatch.setattr(JobServer, "_next_number", lambda *_: 1)
    assert JobServer(URL).submit(_command("status")).id == first.id


def test_a_sweep_that_is_worked_on_is_not_sent_again(server: FakeServer, tmp_path: Path) -> None:
    JobServer(URL).submit(_command())
    with pytest.raises(ValueError, match=r"is working on .*sweep stop s3://bucket/sweeps/demo --cluster http"):
        JobServer(URL).submit(_command("analyze"))
    JobServer(URL).submit(_command("status"))  # which only looks
    here = Command(name="resume", arguments=(), location=Location(str(tmp_path), "demo"))
    with hold(UPath(tmp_path / "demo")), pytest.raises(ValueError, match="working on"):
        JobServer(URL).submit(here)
    assert len(server.sent) == 2


def test_code_is_sent_when_asked_for(server: FakeServer) -> None:
    JobServer(URL).submit(_command(ship_code=True))
    sent = server.sent[0].files.keys()
    assert sent >= {
        "sweep/__init__.py",
        "models/architectures.py",
        "analysis/nmf.py",
        "sweep/presets/recipe/small.yaml",
    }


def test_without_waiting_the_exit_code_is_0_only_once_training_begins(server: FakeServer, tmp_path: Path) -> None:
    launch = ["launch", "demo", "--cluster", URL, "--storage", str(tmp_path), "--no-wait"]
    said = run(*launch)
    assert said.endswith(f"planned\n{BEGUN}\n")
    assert "job_manager" not in said
    assert "Running entrypoint" not in said
    assert f"to stop it: sweep stop {tmp_path}/demo --cluster {URL}" in said
    server.end(Status.SUCCEEDED, 0)

    def refused(self: FakeServer, submission_id: str) -> Status:
        self.sent[-1].said = "sweep: no node can hold a trial\n"
        self.end(Status.FAILED, 2)
        return Status.FAILED

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FakeServer, "get_job_status", refused)
        said = run(*launch, code=2)
    assert "no node can hold a trial" in said


@pytest.mark.parametrize(("status", "driver", "code"), [
    (Status.SUCCEEDED, 0, 0), (Status.STOPPED, None, 130), (Status.FAILED, 1, 1), (Status.FAILED, 2, 2),
])  # fmt: skip
def test_the_exit_code_of_a_job_is_that_of_its_command(
    status: Status, driver: int | None, code: int, server: FakeServer
) -> None:
    job = JobServer(URL).submit(_command())
    server.end(status, driver)
    assert job.exit_code() == code


def test_a_stop_waits_until_the_job_has_ended_and_names_the_same_cluster(server: FakeServer) -> None:
    JobServer(URL).submit(_command())
    said = run("stop", "demo", "--storage", "s3://bucket/sweeps", "--cluster", URL)
    assert len(server.asked_to_stop) == 2
    assert f"stopped; continue with: sweep resume s3://bucket/sweeps/demo --cluster {URL}" in said
    said = run("stop", "demo", "--storage", "s3://bucket/sweeps", "--cluster", URL, code=2)
    assert "no job of" in said


def test_logs_follow_the_newest_job_that_works_on_the_sweep(server: FakeServer) -> None:
    for name in ("launch", "resume", "status"):
        JobServer(URL).submit(_command(name))
        server.sent[-1].said = f"output of {name}\n"
        server.end(Status.SUCCEEDED)
    said = run("logs", "demo", "--storage", "s3://bucket/sweeps", "--cluster", URL)
    assert said == "output of resume\n"
    assert "no job of" in run("logs", "other", "--storage", "s3://bucket/sweeps", "--cluster", URL, code=2)


def test_a_stop_without_a_cluster_asks_the_driver(tmp_path: Path) -> None:
    sweep = SweepDir(UPath(tmp_path / "demo"))
    sweep.record_launch({})
    assert "nothing to stop" in run("stop", "demo", "--storage", str(tmp_path), code=2)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--storage", "runs"], "an absolute path that all nodes have"),
        (["--storage", "s3://bucket/sweeps", "--set", "recipe.epoch=1"], "did you mean 'epochs'"),
        (["--storage", "/sweeps", "--set", "data.options.train_image=3"], "did you mean 'train_images'"),
        (["--storage", "/sweeps", "--set", "data.name=folder", "--set", "data.root=pictures"], "absolute path"),
        (["--storage", "/sweeps", "--probe"], "--probe is for the estimate"),
        (["--storage", "/sweeps", "--json"], "leave --json out"),
    ],
)
def test_mistakes_are_found_before_a_job_is_sent(arguments: list[str], complaint: str, server: FakeServer) -> None:
    said = run("launch", "demo", *arguments, "--cluster", URL, code=2)
    assert complaint in said
    assert server.sent == []


def test_where_no_job_server_answers_a_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    said = run("launch", "demo", "--cluster", f"http://127.0.0.1:{free_port()}", "--storage", "/sweeps", code=2)
    assert "ray dashboard cluster.yaml" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("http://10.0.0.1:8265", True),
        ("http://head.example.org:8265", True),
        ("http://localhost.example.org:8265", True),
        ("http://127.0.0.1@example.org:8265", True),
        ("https://head.example.org", False),
        ("http://127.0.0.1:8265", False),
        ("http://localhost:8265", False),
        ("http://[::1]:8265", False),
    ],
)
@pytest.mark.parametrize("token", ["asked for", "found"])
def test_a_token_is_not_sent_where_others_can_read_it(
    url: str, refused: bool, token: str, server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE")
    if token == "asked for":
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
    else:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("0123")
    if refused:
        with pytest.raises(ValueError, match=r"ray dashboard cluster.yaml.*https://.*--insecure"):
            JobServer(url)
    else:
        JobServer(url)
    assert JobServer(url, insecure=True).options == f"--cluster {shlex.quote(url)} --insecure"


def test_an_address_that_is_no_job_servers_is_refused() -> None:
    with pytest.raises(ValueError, match="begins with http:// or https://"):
        JobServer("ray://127.0.0.1:10001")


def test_a_sweep_is_located_by_name_or_by_its_path() -> None:
    assert located("demo", "s3://bucket/sweeps/") == Location("s3://bucket/sweeps", "demo")
    assert located("/data/sweeps/demo/", "runs") == Location("/data/sweeps", "demo")
    assert located("s3://bucket/sweeps/demo", "runs").path == "s3://bucket/sweeps/demo"
    with pytest.raises(ValueError, match="an absolute path that all nodes have"):
        located("demo", "runs")
