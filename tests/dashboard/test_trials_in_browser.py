"""The pages of trials in a real browser, as a user goes through them; once with a driver that runs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect
from upath import UPath

from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.results.tables import read_table, write_table
from sweep.store.requests import requested_trials
from sweep.store.sweep_dir import SweepDir
from tests.command import wait_for
from tests.dashboard.chromium import WAIT_MS, Server, served
from tests.dashboard.synthetic import trial_id, write_sweep

pytestmark = pytest.mark.browser
HEADER_PX, ROW_PX = 35, 35  # of a data grid, which is drawn on a canvas
PROBED = "_stcore"  # Streamlit's script looks for its server below a page's address first, and finds nothing there
SETTINGS = [
    "interventions=[baseline, rotate90, no_pooling, x_pool]",
    "data.options={train_images: 48, val_images: 16}",
    "recipe.epochs=100000",
    "recipe.batch_size=16",
]
FAULTY = ("rotate90", "no_pooling", "x_pool")


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must not complain, nor those that it opens, as long as their server runs."""
    context = browser.new_context(viewport={"width": 1400, "height": 1800})
    complaints: list[str] = []

    def hear(said: ConsoleMessage) -> None:
        if said.type == "error" and PROBED not in said.location["url"]:
            complaints.append(said.text)

    context.on("console", hear)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    yield context.new_page()
    context.close()
    assert complaints == []


@contextmanager
def looking(page: Page, storage: Path, log: Path) -> Iterator[Server]:
    """A dashboard that no tab looks at any more when it ends."""
    with served(storage, log, "--no-token") as server:
        try:
            yield server
        finally:
            for tab in page.context.pages:
                tab.goto("about:blank")


def at_row(page: Page, row: int, x: int) -> tuple[float, float]:
    grid = page.locator("[data-testid=stDataFrame]").first
    grid.scroll_into_view_if_needed()
    expect(grid.locator("canvas").first).to_be_visible(timeout=WAIT_MS)
    page.wait_for_timeout(500)  # the canvas is drawn a moment after it is there
    box = grid.bounding_box()
    assert box is not None
    return box["x"] + x, box["y"] + HEADER_PX + ROW_PX * (row + 0.5)


def tick(page: Page, *rows: int) -> None:
    for number, row in enumerate(rows, start=1):
        page.mouse.click(*at_row(page, row, x=16))
        heading = f"{number} trial{'s' if number > 1 else ''} ticked"
        expect(page.get_by_role("heading", name=heading)).to_be_visible(timeout=WAIT_MS)


def test_from_a_failure_to_its_trial_and_back_and_new_data_leave_what_one_looks_at(page: Page, tmp_path: Path) -> None:
    write_sweep(tmp_path / "runs" / "demo")
    sweep = UPath(tmp_path / "runs" / "demo")
    with looking(page, tmp_path / "runs", tmp_path / "log") as server:
        page.goto(f"{server.address}/trials?sweep=demo&status=failed&status=finished")
        expect(page.get_by_role("heading", name="4 trials of 7")).to_be_visible(timeout=WAIT_MS)
        tick(page, 1, 3)
        place = at_row(page, 1, x=120)
        page.mouse.move(*place)
        page.wait_for_timeout(300)
        with page.context.expect_page() as opened:
            page.mouse.click(*place)
        trial = opened.value
        expect(trial.get_by_role("heading", name="simplified_mini · baseline")).to_be_visible(timeout=WAIT_MS)
        expect(trial.get_by_text("2 of 4 chosen")).to_be_visible(timeout=WAIT_MS)
        trial.get_by_role("slider").focus()
        trial.keyboard.press("ArrowLeft")
        expect(trial.get_by_role("button", name="Newer: epoch 2")).to_be_visible(timeout=WAIT_MS)
        trial.get_by_text("Files", exact=True).click()
        expect(trial.get_by_text(f"below {tmp_path}")).to_be_visible(timeout=WAIT_MS)
        rows = read_table(sweep, "trials")
        write_table(sweep, "trials", rows.assign(host="node-9"))
        expect(trial.get_by_text("host node-9")).to_be_visible(timeout=WAIT_MS)
        expect(trial.get_by_text("at epoch 1, by similarity")).to_be_visible(timeout=WAIT_MS)
        expect(trial.get_by_text(f"below {tmp_path}")).to_be_visible(timeout=WAIT_MS)
        assert "epoch=1" in trial.url
        expect(page.get_by_role("heading", name="2 trials ticked")).to_be_visible(timeout=WAIT_MS)
        trial.get_by_role("button", name="Next →").click()
        expect(trial.get_by_text("3 of 4 chosen")).to_be_visible(timeout=WAIT_MS)
        assert f"trial={trial_id('baseline', 1)}" in trial.url
        trial.get_by_test_id("stMain").get_by_role("link", name="Trials").click()
        expect(trial.get_by_role("heading", name="4 trials of 7")).to_be_visible(timeout=WAIT_MS)


@pytest.mark.slow
def test_three_failed_trials_are_taken_up_by_the_driver_that_runs(
    page: Page, tmp_path: Path, ray_address: str, cache: Path
) -> None:
    storage = tmp_path / "runs"
    sweep = SweepDir(UPath(storage / "demo"))
    plans = expand(load_grid("demo", SETTINGS)).plans
    faults = [
        Path(sweep.trial(plan.trial_id).checkpoints.path) / "0" for plan in plans if plan.spec.intervention in FAULTY
    ]
    for fault in faults:
        fault.parent.mkdir(parents=True)
        fault.write_text("a file where a folder should be")
    command = [sys.executable, "-m", "sweep.cli", "launch", "demo", "--storage", str(storage), "--max-failures", "0"]
    command += [*(part for setting in SETTINGS for part in ("--set", setting)), "--address", ray_address]
    with started(command, os.environ | {"SWEEP_CACHE": str(cache)}) as driver:
        wait_for(lambda: statuses(sweep).count("failed") == 3 and "running" in statuses(sweep), driver)
        for fault in faults:
            fault.unlink()
        with looking(page, storage, tmp_path / "log") as server:
            page.goto(f"{server.address}/trials")
            page.get_by_role("button", name="FileExistsError x 3").click(timeout=WAIT_MS)
            expect(page.get_by_role("heading", name="3 trials of 4")).to_be_visible(timeout=WAIT_MS)
            tick(page, 0, 1, 2)
            page.get_by_role("button", name="Retry (3)").click()
            expect(page.get_by_text("No trial has failed like this any more")).to_be_visible(timeout=WAIT_MS)
            assert requested_trials(sweep.path) == []
            wait_for(lambda: taken_up(sweep), driver)
            page.get_by_role("button", name="Show other trials too").click()
            expect(page.get_by_role("heading", name="All trials")).to_be_visible(timeout=WAIT_MS)
            expect(page.get_by_role("heading", name="Failures")).to_have_count(0)
    assert driver.returncode == 130


@contextmanager
def started(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A driver that is told to stop at the end; its output goes nowhere, where it can't block."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as driver:
        try:
            yield driver
        finally:
            driver.send_signal(signal.SIGINT)
            driver.wait()


def statuses(sweep: SweepDir) -> list[str]:
    return read_table(sweep.path, "trials")["status"].tolist()


def taken_up(sweep: SweepDir) -> bool:
    """Whether one of those that had failed runs again: its checkpoint is where the fault was."""
    rows = read_table(sweep.path, "trials")
    again = rows[(rows["status"] == "running") & (rows["attempts"] == 2)]
    return any(sweep.trial(name).checkpoints.joinpath("0", "manifest.json").exists() for name in again["trial_id"])
