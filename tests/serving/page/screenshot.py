"""Makes the picture of the page in the README.

python -m tests.serving.page.screenshot http://localhost:8000 PHOTO docs/pictures/page.jpg [KEY]
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.serving.page.browser import browser

QUESTION = "Can you segment the hair in this image?"
MORE = ("Segment the person.", "Where is the hair?")


def main(url: str, photo: str, output: str, key: str = "") -> None:
    """Ask two times, take the picture."""
    with tempfile.TemporaryDirectory() as profile, browser(url, Path(profile)) as page:
        page.driver.set_window_size(1280, 1040)
        page.load(key)
        page.choose(Path(photo).resolve())
        page.ask(QUESTION)
        page.ask(*MORE, mode="force")
        for box in page.all(".mask input")[:2]:
            box.click()
        page.run("document.activeElement.blur()")
        picture = Image.open(io.BytesIO(page.driver.get_screenshot_as_png()))
        picture.convert("RGB").save(output, quality=88)


if __name__ == "__main__":
    main(*sys.argv[1:])
