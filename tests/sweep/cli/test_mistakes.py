"""What is typed wrongly is told in one line with a cure, and the exit code is 2."""

import pytest

from sweep.cli import COMMANDS, checks
from tests.command import run

URL = "http://127.0.0.1:8265"


def refused(*arguments: str) -> str:
    (line,) = run(*arguments, code=2).splitlines()
    assert line.startswith("sweep: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lanch", "demo"], "unknown command 'lanch'; did you mean launch? Commands: launch, submit,"),
        (["xyzzy"], "unknown command 'xyzzy'. Commands: launch,"),
        (["launch", "demo", "--dry-rum"], "`sweep launch` has no option --dry-rum; did you mean --dry-run? See `sweep"),
        (["launch", "demo", "--xyzzy"], "`sweep launch` has no option --xyzzy. See `sweep launch --help`"),
        (["--verison"], "`sweep` has no option --verison; did you mean --version?"),
        (["status"], "missing argument 'SWEEP'; see `sweep status --help`"),
        (["status", "a", "b"], "unexpected extra argument"),
        (["report", "demo", "--kernel", "x"], "--kernel"),
        (["list", "grid"], "'grids'"),
    ],
)  # fmt: skip
def test_a_command_line_that_cannot_be_read(arguments: list[str], said: str) -> None:
    assert said in refused(*arguments)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "a name is empty"),
        (" ", "a name is empty"),
        ("de\nmo", "can't be printed"),
        ("demo\x1b[31m", "can't be printed"),
        ("a" * 300, "too long"),
        ("é" * 200, "too long"),
        ("runs/" + "a" * 300, "too long"),
    ],
)
@pytest.mark.parametrize("command", ["launch", "status", "stop", "remove", "resume", "report", "probe"])
def test_what_can_be_no_name(command: str, name: str, said: str) -> None:
    assert said in refused(command, name)


@pytest.mark.parametrize("name", ["..", "../nowhere", "a/../b", "nothing here"])
def test_a_path_without_a_sweep(name: str, tmp_path: object) -> None:
    assert "there is no sweep" in refused("status", name, "--storage", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a/b", "may hold"),
        ("..", "may hold"),
        ("-x", "may hold"),
        ('"a\\x07"', "may hold"),
        ("a" * 101, "100 characters"),
        ('""', "may hold"),
    ],
)
def test_a_grid_cannot_give_its_sweep_such_a_name(name: str, said: str) -> None:
    assert said in refused("launch", "demo", "--set", f"name={name}", "--dry-run")


@pytest.mark.parametrize(
    "address", ["", "localhost", ":6379", "host:", "host:0", "host:65536", "host:port", "a b:1", "ray://h:1"]
)
def test_an_address_that_is_none(address: str) -> None:
    assert "give auto, or the head's HOST:PORT" in refused("launch", "demo", "--address", address)


@pytest.mark.parametrize("address", ["auto", "head:6379", "10.0.0.1:6379", "[::1]:6379"])
def test_an_address(address: str) -> None:
    assert checks.require_address(address) == address


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8265", "http://", "http://host:port", "http://host:65536", "ftp://host", "http://[::1"]
)
@pytest.mark.parametrize("command", ["launch", "stop", "logs", "submit", "status"])
def test_a_job_server_that_is_none(command: str, url: str) -> None:
    assert "begins with http:// or https://" in refused(command, "demo", "--cluster", url)


def test_the_bare_command_shows_its_help(monkeypatch: pytest.MonkeyPatch) -> None:
    said = run(code=2)
    assert all(name in said for name in COMMANDS)
    assert "Traceback" not in said


def test_the_version_names_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from sweep.store.code import code_version

    assert run("--version") == f"sweep 0.1.0, {code_version()}\n"
