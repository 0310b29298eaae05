"""Look up the known vulnerabilities of what is installed beside this Python: `make audit`.

pip-audit gets an environment of its own, so that its packages don't mix with the project's.
"""

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

_UNREACHABLE = ("Could not connect", "ConnectionError", "Max retries exceeded")


def main() -> int:
    """The exit code of pip-audit; 0 with a line where there is no network."""
    if not answers():
        return _skip("the list of vulnerabilities can't be reached")
    with TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pip-audit"]
        if subprocess.run(install, capture_output=True, check=False).returncode:
            return _skip("pip-audit can't be installed")
        audit = [python, "-m", "pip_audit", "--format", "json", "--path", sysconfig.get_path("purelib")]
        done = subprocess.run(audit, capture_output=True, text=True, check=False)
    if done.returncode and any(said in done.stderr for said in _UNREACHABLE):
        return _skip("the list of vulnerabilities can't be reached")
    if not done.stdout.strip():
        print(done.stderr, end="")
        return done.returncode
    return tell(json.loads(done.stdout)["dependencies"])


def answers() -> bool:
    """Whether the index tells vulnerabilities, asked with one package, before it is asked about all."""
    try:
        with urlopen("https://pypi.org/pypi/pip/25.0/json", timeout=10) as answer:
            return "vulnerabilities" in json.load(answer)
    except (OSError, ValueError):
        return False


def tell(packages: list[dict[str, Any]]) -> int:
    """Print what pip-audit has found out about each package; the exit code is 1 if one is vulnerable."""
    known = [package for package in packages if "skip_reason" not in package]
    if not known:  # a mirror that serves packages alone
        return _skip("the index knows nothing of vulnerabilities")
    found = [(package, each) for package in known for each in package["vulns"]]
    for package, each in found:
        mended = ", ".join(each["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {each['id']}, mended in {mended}")
    print(f"{len(known)} packages looked up, {len(packages) - len(known)} unknown, {len(found)} vulnerabilities")
    return 1 if found else 0


def _skip(reason: str) -> int:
    print(f"audit skipped, for lack of a network: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
