"""A receiver of webhooks: it checks the signature of each message, and takes each once, though one may come again.

pip install standardwebhooks
WEBHOOK_SECRET=whsec_... python webhook_receiver.py 8080        # the secret is what waguard webhook create has printed
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

WEBHOOK = Webhook(os.environ["WEBHOOK_SECRET"])
TAKEN: set[str] = set()
"""In a CRM: a unique column of the table that it writes what has happened to."""


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            message = WEBHOOK.verify(body, dict(self.headers))
        except WebhookVerificationError:
            self._answer(401)
            return
        if (number := self.headers["webhook-id"]) not in TAKEN:
            print(message["type"], message["data"].get("client"), message["data"].get("fields"), flush=True)
            TAKEN.add(number)
        self._answer(204)  # only now: until then waguard sends it again

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
