"""For apps: all that a waguard daemon can be asked for, its events, and the pages of its sessions. The daemon itself imports none of this.

async with Client() as waguard:
    session = waguard.session("demo")
    await session.connect(wait=Wait.NONE)
    view = await session.wait_connected(timeout_s=300)

What is answered is told by `waguard.core.shown`, what is raised by `waguard.errors`.
"""

from waguard.client.client import URL as URL
from waguard.client.client import Client as Client
from waguard.client.client import Session as Session
from waguard.core.model import Wait as Wait
