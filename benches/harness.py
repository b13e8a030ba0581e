"""What all benchmarks share: processes that end with the bench, the gateway, its clients, and what it cost.

    with Bench() as bench:
        backend = bench.backend()
        gateway = bench.authgate(CONFIG, up=backend.port)
        cookie = gateway.first_account()
        with cost_of(gateway.pid) as cost: ...
        print(cost.cpu_microseconds, pss_kib(gateway.pid))

The build of the profile `dist` is taken; AUTHGATE_BIN names another one.
"""

import contextlib
import http.client
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = os.environ.get("AUTHGATE_BIN", str(ROOT / "target/dist/authgate"))
USER = {"sub": "9b2d6f0e-3c1a-4f57-9a34-1f2e5c7d8b90", "email": "ada@example.com", "name": "Ada", "role": "staff"}
PASSWORD = "correct horse battery staple"
IDENTITY = {"X-User-Id": "sub", "X-User-Email": "email", "X-User-Name": "name", "X-User-Role": "role"}
PATIENCE_SECONDS = 60

NGINX = """{modules}
worker_processes {workers}; daemon off; pid {dir}/pid; error_log {dir}/error.log crit;
events {{ worker_connections {connections}; }}
http {{
  access_log {log}; keepalive_timeout 300s; keepalive_requests 1000000000; server_tokens off;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  {body}
}}
"""
BACKEND = """server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ add_header X-Seen "{seen}"; default_type text/plain; return 200 "{text}"; }} }}"""


def say(text):
    """Progress goes to standard error: standard output belongs to results."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def keep(figures, file):
    """Writes figures for whoever reads them by program; without a file it does nothing."""
    if file:
        Path(file).write_text(json.dumps(figures, indent=2))


def free_port():
    """Below the range that outgoing connections take their ports from, so that none of them takes it first."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port


def descriptors():
    """Raises this process's limit of open files, which its children inherit, as far as it goes; gives it."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for wanted in (65536, most):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, most)))
            return wanted
    return most


def ask(port, headers, method="GET", path="/", body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.text = answer.read().decode()
    return answer


def family(pid):
    """A process and all that it started."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu_nanoseconds(*pids):
    """Time on a processor of all threads of the processes and their children (proc(5): schedstat)."""
    total = 0
    for pid in pids:
        for one in family(pid):
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{one}/task").iterdir():
                    total += int((task / "schedstat").read_text().split()[0])
    return total


def pss_kib(*pids):
    """Proportional set size of the processes and their children (proc(5): smaps_rollup)."""
    rolled = (Path(f"/proc/{one}/smaps_rollup").read_text() for pid in pids for one in family(pid))
    return sum(int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) for text in rolled)


def busy_seconds():
    """Processor time that the whole machine has spent, without idling and waiting (proc(5): stat)."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split(None, 9)[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Cost:
    """Processor time of some processes, and the share of the machine that others used meanwhile."""

    def __init__(self, pids):
        self.pids = pids
        self.before = self.now()

    def now(self):
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        ours = cpu_nanoseconds(os.getpid()) / 1e9 + ended.ru_utime + ended.ru_stime
        return cpu_nanoseconds(*self.pids), ours, busy_seconds(), time.monotonic()

    def stop(self):
        used, ours, busy, took = (after - before for after, before in zip(self.now(), self.before))
        self.cpu_microseconds, self.seconds = used / 1000, took
        self.foreign_percent = max(0.0, (busy - ours) / took / os.cpu_count() * 100)


@contextlib.contextmanager
def cost_of(*pids):
    cost = Cost(pids)
    yield cost
    cost.stop()


class Gateway:
    """authgate, serving. `port` is its listener; `log` the file with its lines."""

    def __init__(self, bench, pid, port, config, log):
        self.bench, self.pid, self.port, self.config, self.log = bench, pid, port, config, log
        self.headers = {"Host": f"127.0.0.1:{port}", "Content-Type": "application/json"}

    def first_account(self, user=USER):
        """Makes the first account by the link in the log; gives its session cookie (`name=value`)."""
        link = re.search(r"(/\.auth/invite/\S+?)[\s\"]", self.log.read_text())[1]
        body = {"email": user["email"], "name": user["name"], "password": PASSWORD}
        answer = ask(self.port, self.headers, "POST", link, json.dumps(body))
        assert answer.status == 200, answer.text
        return answer.headers["Set-Cookie"].split(";")[0]

    def sign_in(self, email, password=PASSWORD):
        body = json.dumps({"email": email, "password": password})
        answer = ask(self.port, self.headers, "POST", "/.auth/login", body)
        assert answer.status == 200, answer.text
        return answer.headers["Set-Cookie"].split(";")[0]

    def command(self, *arguments, text=""):
        """Runs one of the command line's commands beside the gateway; gives its output."""
        line = [self.bench.binary, "--config", self.config, *arguments]
        return subprocess.run(line, check=True, capture_output=True, text=True, input=text).stdout


class Bench:
    """A folder and processes that end with it; `binary` is the authgate that it starts."""

    def __init__(self, binary=BINARY):
        self.binary = binary
        self.dir = Path(tempfile.mkdtemp(prefix="authgate-bench-"))
        self.dir.chmod(0o755)  # nginx's workers are nobody
        self.children = []

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
        return self

    def __exit__(self, *_):
        self.stop(*[child.pid for child in self.children])
        shutil.rmtree(self.dir, ignore_errors=True)

    def write(self, name, text):
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def start(self, name, command, ready, **options):
        """Starts a program; gives its process id once `ready` says yes. Its words go to `<name>.log`."""
        path = self.dir / f"{name}.log"
        with open(path, "wb") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log} | options
            child = subprocess.Popen(command, **streams)
        self.children.append(child)
        end = time.monotonic() + PATIENCE_SECONDS
        while not ready():
            if child.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{name} did not start: {path.read_text(errors='replace')[-2000:]}")
            time.sleep(0.01)
        return child.pid

    def stop(self, *pids):
        """Ends programs that `start` started."""
        mine = [child for child in self.children if child.pid in pids]
        for child in reversed(mine):
            child.send_signal(signal.SIGTERM)
        for child in mine:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.children = [child for child in self.children if child not in mine]

    def nginx(self, name, body, port, log="off", workers=2, modules=()):
        folder = self.dir / name
        lines = "\n".join(f"load_module /usr/lib/nginx/modules/{module};" for module in modules)
        fields = {"workers": workers, "connections": descriptors(), "modules": lines}
        config = self.write(f"{name}/nginx.conf", NGINX.format(dir=folder, log=log, body=body, **fields))
        return self.start(name, ["nginx", "-e", f"{folder}/error.log", "-c", config], lambda: listens(port))

    def backend(self, bytes_long=128):
        """nginx with one worker: the identity headers that arrive come back in X-Seen."""
        port = free_port()
        seen = "|".join(f"$http_{header.lower().replace('-', '_')}" for header in IDENTITY)
        body = BACKEND.format(port=port, seen=seen, text="x" * bytes_long)
        return Backend(self.nginx(f"backend-{port}", body, port, workers=1), port)

    def authgate(self, config, name="authgate", environment=None, **values):
        """Serves `config` (its braces doubled), in which {port}, {dir} and further `values` are filled in."""
        port, folder = free_port(), self.dir / name
        file = self.write(f"{name}/gateway.toml", config.format(port=port, dir=folder, **values))
        log = self.dir / f"{name}.log"
        pid = self.start(
            name,
            [self.binary, "--config", file],
            lambda: '"ready"' in log.read_text(),
            stdout=subprocess.DEVNULL,
            env=os.environ | (environment or {}),
        )
        return Gateway(self, pid, port, file, log)


class Backend:
    def __init__(self, pid, port):
        self.pid, self.port = pid, port


def listens(port):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def wrk(port, cookie, seconds, connections, path="/"):
    """The load; gives requests, requests a second and the median latency. An answer that is not 2xx is a fault."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-H", f"Cookie: {cookie}"]
    out = subprocess.check_output([*command, f"http://127.0.0.1:{port}{path}"], text=True)
    assert "Non-2xx" not in out and "Socket errors" not in out, out
    requests, took = re.search(r"(\d+) requests in ([\d.]+)s", out).groups()
    half, ninety_nine = (microseconds(re.search(rf"^\s+{part}%\s+(\S+)", out, re.MULTILINE)[1]) for part in (50, 99))
    return {"requests": int(requests), "per_second": int(requests) / float(took), "p50_us": half, "p99_us": ninety_nine}


def microseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}[unit]
