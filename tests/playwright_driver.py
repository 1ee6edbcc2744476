"""Playwright for Python at the relay: does what drivers.mjs does, in the same words. Run by test_relay_drivers.py."""

import json
import sys
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Browser, Error, Page, sync_playwright


def used(page: Page, name: str) -> dict[str, Any]:
    exposed: list[str] = []
    page.expose_function(f"tell_{name}", lambda told: exposed.append(told))  # noqa: PLW0108 (it takes no builtin)
    page.evaluate("tell => window[tell]('from the page')", f"tell_{name}")
    with page.expect_console_message(lambda message: message.text == name):
        page.evaluate("text => console.log(text)", name)
    return {
        "evaluate": page.evaluate("6 * 7"),
        "exposed": exposed,
        "console": name,
        "intercepted": page.evaluate("path => fetch(path).then(answer => answer.text())", f"/{name}"),
        "screenshot": page.screenshot()[1:4].decode(),
        "half": page.evaluate(r"'\ud83d alone'"),
    }


def failing(act: Callable[[], object]) -> str:
    try:
        act()
    except Error as error:
        return error.message
    return "went well"


def chosen(page: Page, file: str) -> Any:
    page.evaluate("document.body.innerHTML = '<input type=file>'")
    page.set_input_files("input", file)
    return page.evaluate("document.querySelector('input').files[0].text()")


def alone(browser: Browser, name: str, file: str, home: str) -> dict[str, Any]:
    (context,) = browser.contexts
    before = len(context.pages)
    page = context.new_page()
    page.route(f"**/{name}", lambda route: route.fulfill(body=f"to {name}"))
    told = used(page, name)
    told["chosen"] = chosen(page, file)
    page.goto(home)
    told |= {
        "reloaded": page.url.startswith(home),
        "elsewhere": failing(lambda: page.goto("file:///etc/passwd")),
        "pages": [before, len(context.pages)],
    }
    page.close()
    told["closed"] = page.is_closed()
    told["again"] = context.new_page().evaluate("6 * 7")
    mine = browser.new_context()
    told["own"] = mine.new_page().evaluate("1 + 1")
    mine.close()
    browser.close()
    return told


def beside(browser: Browser, name: str) -> dict[str, Any]:
    (page,) = browser.contexts[0].pages
    return {**used(page, name), "refused": failing(page.reload)}


def main(endpoint: str, token: str, home: str) -> None:
    with sync_playwright() as playwright:
        for line in sys.stdin:
            asked = json.loads(line)
            headers = {"Authorization": f"Bearer {token}"}
            browser = playwright.chromium.connect_over_cdp(endpoint, headers=headers)
            name, is_alone = asked["name"], asked["do"] == "alone"
            told = alone(browser, name, asked["file"], home) if is_alone else beside(browser, name)
            print(json.dumps({"event": "done", "of": asked["do"], "result": told}), flush=True)  # noqa: T201


main(*sys.argv[1:])
