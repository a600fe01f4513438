"""A service in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request


class Running:
    """A service in a process of its own, which can be killed and started again at the same address."""

    def __init__(self, *arguments, port=0):
        self.arguments = [str(argument) for argument in arguments]
        self.port = port
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "fieldmark", "serve", *self.arguments]
        command += ["--port", str(self.port), "--json", "--no-open"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        told = json.loads(self.process.stdout.readline())
        self.url = told["url"].rstrip("/")
        self.port = int(self.url.rpartition(":")[2])
        return self

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self._gone()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        self._gone()

    def _gone(self):
        self.process.wait(20)
        self.process.stdout.close()

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.loads(answer.read())

    def put(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), method="PUT")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def labels(self):
        """The label of each photo, None where it has none."""
        table = self.get("/api/v1/table")
        return {
            key: None if number < 0 else table["labels"][number]
            for key, number in zip(table["keys"], table["label"], strict=True)
        }


def wait_for(holds, seconds=10.0):
    """Until something holds; what it last gave."""
    end = time.monotonic() + seconds
    while True:
        found = holds()
        if found or time.monotonic() > end:
            assert found
            return found
        time.sleep(0.1)
