"""A served report, and how it is asked."""

import http.client
import json
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit


@contextmanager
def running(server):
    """Run a server in a thread of its own."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(url, method="GET", path="", content=None, **headers):
    """Send a request; returns status and text."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    body = content if content is None or isinstance(content, bytes) else json.dumps(content)
    if body is not None:
        headers.setdefault("Content-Type", "application/json")
    connection.request(method, parts.path + path, body, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def wait_for(url, job, states=("done", "failed", "cancelled")):
    """Ask for a job until it is in one of the states."""
    for _ in range(3000):
        found = json.loads(ask(url, path=f"jobs/{job}")[1])
        if found["state"] in states:
            return found
        time.sleep(0.02)
    raise TimeoutError(found)


def line(url, start, end, num=5, surface=0):
    """Evaluate a line; returns the job when it has ended."""
    content = {"surface": surface, "start": start, "end": end, "num": num}
    status, text = ask(url, "POST", "lines", content)
    assert status == 202, text
    return wait_for(url, json.loads(text)["number"])
