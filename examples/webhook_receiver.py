"""Be notified when a job has ended: a receiver that verifies what comes, on this machine."""

import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from openai import InvalidWebhookSignatureError, OpenAI

client = OpenAI(
    base_url=os.environ.get("TOKENPOST_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("TOKENPOST_API_KEY", "none"),
)
model = os.environ.get("TOKENPOST_MODEL", "smollm2")


class Receiver(BaseHTTPRequestHandler):
    """Receives the endpoint's events."""

    def do_POST(self):
        # What is signed is the body byte for byte: verify before anything reads it.
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            event = client.webhooks.unwrap(body, dict(self.headers), secret=endpoint.signing_secret)
        except InvalidWebhookSignatureError:
            self.send_response(401)
            self.end_headers()
            return
        # Answer first, work later: the sender waits 15 seconds.
        self.send_response(204)
        self.end_headers()
        print(event.type, event.data.id)
        if event.type == "response.completed":
            print(client.responses.retrieve(event.data.id).output_text)
        is_notified.set()

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Receiver)
endpoint = client.webhooks.create(
    name="example",
    url=f"http://127.0.0.1:{server.server_port}/",
    event_types=["response.completed", "response.failed", "response.incomplete", "response.cancelled"],
)
is_notified = threading.Event()
threading.Thread(target=server.serve_forever, daemon=True).start()
try:
    job = client.responses.create(
        model=model, input="Tell me a story.", temperature=0.2, max_output_tokens=200, background=True
    )
    print("posted", job.id)
    is_notified.wait(60)
finally:
    client.webhooks.delete(endpoint.id)
    server.shutdown()
