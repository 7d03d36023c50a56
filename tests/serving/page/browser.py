"""A real headless Chromium on the page of a running server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
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
        field = self.find("questions")
        field.clear()
        field.send_keys("\n".join(questions))
        self.all(f"input[value={mode}]")[0].click()
        self.find("send").click()
        self.until(self.finished, "the answers are there")

    def finished(self) -> bool:
        """Whether no answer is being written."""
        return self.find("send").is_displayed() and not self.all(".running")

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page."""
        return self.driver.execute_script(script, *arguments)

    def pixels(self, name: str = "photo") -> tuple[int, int, list[int]]:
        """Width, height and RGBA bytes of a canvas."""
        script = """
            const canvas = document.getElementById(arguments[0]);
            const pen = canvas.getContext("2d");
            const data = pen.getImageData(0, 0, canvas.width, canvas.height).data;
            return JSON.stringify([canvas.width, canvas.height, Array.from(data)]);"""
        width, height, data = json.loads(self.run(script, name))
        return width, height, data

    def until(self, holds: Any, what: str) -> None:
        """Wait for a condition; fails by name."""
        WebDriverWait(self.driver, SECONDS).until(lambda _: holds(), f"not in time: {what}")

    def complaints(self) -> list[str]:
        """Errors of the browser's console since the last call, refusals by the server aside."""
        lines = [line["message"] for line in self.driver.get_log("browser")]
        return [line for line in lines if "the server responded with a status" not in line]


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
