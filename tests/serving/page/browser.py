"""A real headless Chromium on the page of a running server."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

SECONDS = 120
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--window-size=1280,940", "--hide-scrollbars"),
)


class Page:
    """The page, driven as a person does: by its fields and buttons."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def load(self, key: str = "") -> None:
        """Open it afresh and type a key."""
        self.driver.get(f"{self.url}/v1/segment/ui")
        if key:
            self.type_key(key)
            self.until(lambda: self.text("model") == "lisa", "the model's name is shown")

    def type_key(self, key: str) -> None:
        """Type a key and leave the field."""
        self.find("key").clear()
        self.find("key").send_keys(key + "\t")

    def find(self, name: str) -> WebElement:
        """The element with this id."""
        return self.driver.find_element(By.ID, name)

    def text(self, name: str) -> str:
        """Its visible text."""
        return self.find(name).text

    def all(self, selector: str) -> list[WebElement]:
        """Elements by CSS selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def choose(self, file: Path) -> None:
        """Choose a file, and wait until it is shown."""
        self.find("file").send_keys(str(file))
        self.until(lambda: file.name in self.text("about"), "the image is shown")

    def ask(self, *questions: str, mode: str = "generate") -> None:
        """Ask, and wait until nothing is running any more."""
        # Not typed: a long question would take a minute.
        self.run("arguments[0].value = arguments[1]", self.find("questions"), "\n".join(questions))
        self.all(f"input[value={mode}]")[0].click()
        self.find("send").click()
        self.until(self.finished, "the answers are there")

    def finished(self) -> bool:
        """Whether no answer is being written."""
        return self.find("send").is_displayed() and not self.all(".running")

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page."""
        return self.driver.execute_script(script, *arguments)

    def canvas(self) -> npt.NDArray[np.uint8]:
        """What the photo's canvas shows, uint8 [height, width, 3]."""
        url = self.run("return document.getElementById('photo').toDataURL()")
        file = io.BytesIO(base64.b64decode(url.partition(",")[2]))
        return np.asarray(Image.open(file).convert("RGB"))

    def until(self, holds: Any, what: str) -> None:
        """Wait for a condition; fails by name."""
        WebDriverWait(self.driver, SECONDS).until(lambda _: holds(), f"not in time: {what}")

    def complaints(self) -> list[str]:
        """What the browser's console says since the last call, refusals by the server aside."""
        lines = [line["message"] for line in self.driver.get_log("browser")]
        ours = ("the server responded with a status", "Multiple readback operations")
        return [line for line in lines if not any(text in line for text in ours)]


@contextmanager
def browser(url: str, profile: Path) -> Iterator[Page]:
    """Chromium with an empty profile; the test is skipped where it is not installed."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium chromium-driver)")
    options = ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    try:
        yield Page(chrome, url)
    finally:
        chrome.quit()
