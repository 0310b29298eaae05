"""The command that serves the dashboard: python -m dashboard.serve STORAGE [PORT]"""

import os
import sys
from pathlib import Path

_THEME = {"base": "light", "primaryColor": "#0072B2", "font": "sans-serif"}


def command(storage: str, port: int | None) -> list[str]:
    """The command line that serves a storage (or one sweep) to this machine only.

    There is no login: to add one, put a proxy in front of this address. `-P`: the working directory may hold packages
    with the same names.
    """
    options = {
        "server.headless": "true",
        "server.address": "127.0.0.1",
        "server.fileWatcherType": "none",  # nobody edits the pages, and inotify watches may be scarce
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
    } | {f"theme.{name}": value for name, value in _THEME.items()}
    if port is not None:
        options["server.port"] = str(port)
    flags = [f"--{name}={value}" for name, value in options.items()]
    app = Path(__file__).with_name("app.py")
    return [sys.executable, "-P", "-m", "streamlit", "run", str(app), *flags, "--", storage]


if __name__ == "__main__":
    storage, *port = sys.argv[1:]
    served = command(storage, int(port[0]) if port else None)
    os.execv(served[0], served)  # replaces this process, so that whatever stops it stops the server
