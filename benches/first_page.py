#!/usr/bin/env python3
"""From nothing to the first protected page: the commands, the lines of configuration and the seconds.

An app listens already. In an empty folder the first account is made, the gateway started on three lines of configuration, and
then a page is asked for: without a session (303 to the login page), after signing in (the app's own page). Also how
long a start takes with a store that exists, from exec to "ready" in the log.

    benches/first_page.py [--rounds 7] [--json FILE]
"""

import argparse
import http.client
import statistics
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path

from harness import BINARY, PASSWORD, Bench, free_port, keep, listens


def get(port, path, headers, method="GET", body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def ready(folder, port):
    """Starts it; gives the process and the seconds from exec to its word that it is ready."""
    began = time.perf_counter()
    child = subprocess.Popen([BINARY, "run"], cwd=folder, stderr=subprocess.PIPE, text=True)
    for line in child.stderr:
        if '"ready"' in line:
            return child, time.perf_counter() - began
    raise SystemExit("it did not start")


def stop(child):
    child.terminate()
    child.communicate(timeout=30)


def once(app):
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        lines = ["[server]", f'listen = ["127.0.0.1:{port}"]', 'admin_listen = ""', "[[route]]", f'upstream = "http://127.0.0.1:{app}"']
        Path(folder, "gateway.toml").write_text("\n".join(lines))
        command = [BINARY, "user", "add", "ada@example.com", "--password-stdin"]
        subprocess.run(command, cwd=folder, input=PASSWORD + "\n", text=True, check=True, stdout=subprocess.DEVNULL)
        child, _ = ready(folder, port)
        status, headers, _ = get(port, "/", {"Accept": "text/html"})
        assert status == 303 and headers["Location"].startswith("/.auth/login"), status
        form = urllib.parse.urlencode({"email": "ada@example.com", "password": PASSWORD})
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        status, headers, _ = get(port, "/.auth/login", kind, "POST", form)
        assert status == 303, status
        status, _, page = get(port, "/", {"Cookie": headers["Set-Cookie"].split(";")[0]})
        assert status == 200 and page.startswith(b"xxx"), status
        whole = time.perf_counter() - began
        stop(child)
        child, start = ready(folder, port)
        stop(child)
    return whole, start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json")
    options = parser.parse_args()
    with Bench() as bench:
        backend = bench.backend()
        assert listens(backend.port)
        seen = [once(backend.port) for _ in range(options.rounds)]
    whole, start = (statistics.median(one[at] for one in seen) for at in (0, 1))
    slowest = max(one[1] for one in seen)
    print(f"nothing to the first protected page: {whole:.2f} s; start with an existing store: {start * 1000:.0f} ms, slowest {slowest * 1000:.0f} ms")
    figures = {"first_page_seconds": whole, "start_ms": start * 1000, "slowest_start_ms": slowest * 1000}
    keep(figures, options.json)


main()
