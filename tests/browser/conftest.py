"""Debian's Chromium, headless; what it shows is kept in .pocketbert/screenshots, which git ignores."""

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import ROOT
from tests.flows.conftest import Session, make_miniature, make_up

SCREENSHOTS = ROOT / ".pocketbert/screenshots"
_WAIT_MS = 120_000


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Servers of its own, with a minutely schedule."""
    root = make_miniature(tmp_path_factory.mktemp("pages") / "project")
    schedules = root / "prefect.yaml"
    minutely = schedules.read_text(encoding="utf-8").replace("interval: 600", 'cron: "* * * * *"')
    schedules.write_text(minutely, encoding="utf-8")
    with make_up(root) as session:
        yield session


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        reason = "there is no chromium: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        # Its own sandbox does not start for root, as in a container; the pages are ours.
        expect.set_options(timeout=_WAIT_MS)
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    shown = browser.new_page(viewport={"width": 1200, "height": 900})
    shown.set_default_timeout(_WAIT_MS)
    yield shown
    shown.close()


@pytest.fixture
def screenshot(page: Page) -> Callable[[str], None]:
    def take(name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{name}.png")

    return take
