"""Take the picture of the demo's page in the documentation, with Debian's Chromium and Playwright."""

import argparse
import subprocess
import sys

from playwright.sync_api import sync_playwright


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="what the page shows")
    parser.add_argument("image", help="what is dropped on it")
    parser.add_argument("picture", help="PNG to write")
    parser.add_argument("--width", type=int, default=1280, help="of the window in pixels (390 is a telephone's)")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser")
    arguments = parser.parse_args()
    program = "import sys; from modeling_vit_scratch.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "demo", arguments.checkpoint]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            take(server.stdout.readline().split()[-1], arguments)
        finally:
            server.terminate()


def take(url, arguments):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": arguments.width, "height": 800}, color_scheme="light")
        page.goto(url)
        page.set_input_files("#upload input[type=file]", arguments.image)
        for picture in ("#attention img", "#seen img"):
            page.locator(picture).evaluate("image => image.decode()")
        # The bars of the probabilities grow for a moment.
        page.evaluate("Promise.all(document.getAnimations().map(animation => animation.finished.catch(() => 0)))")
        page.screenshot(path=arguments.picture, full_page=True, animations="disabled")
        browser.close()


if __name__ == "__main__":
    main()
