"""Chats with unread messages, beside whatever bot owns the page.

pip install playwright
WAGUARD_TOKEN=$(waguard token demo) python playwright_unread.py
"""

import os
import sys

from playwright.sync_api import sync_playwright

ENDPOINT = sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:8717/v1/sessions/demo/cdp"
UNREAD = """() => window.require("WAWebCollections").Chat.getModelsArray()
  .filter(chat => chat.unreadCount > 0)
  .map(chat => [chat.unreadCount, chat.formattedTitle])"""

with sync_playwright() as playwright:
    headers = {"Authorization": f"Bearer {os.environ['WAGUARD_TOKEN']}"}
    browser = playwright.chromium.connect_over_cdp(ENDPOINT, headers=headers)
    (page,) = browser.contexts[0].pages
    for count, title in page.evaluate(UNREAD):
        print(count, title, sep="\t")
    browser.close()  # for us alone
