#!/usr/bin/env python3
"""CPU time per request and requests per second: authgate beside plain nginx and HAProxy's jwt_verify.

Needs python3, nginx, haproxy, wrk and a release build. One nginx serves as the backend of all; each
gateway gets two threads, one log line per request to a file, and the same load in turn, round after round.
Before anything is measured each gateway must forward a good token with the identity and no forged one, and
(nginx apart, which does not look) refuse a request without a token and with a broken one.

    benches/compare.py [--rounds 5] [--seconds 3] [--connections 64]
"""

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECRET = "0123456789abcdef0123456789abcdef"
USER = {"sub": "usr_benchmark", "email": "ada@example.com", "name": "Ada", "role": "staff"}
PASSWORD = "correct horse battery staple"
IDENTITY = {"X-User-Id": "sub", "X-User-Email": "email", "X-User-Name": "name", "X-User-Role": "role"}

NGINX = """worker_processes {workers}; daemon off; pid {dir}/{name}.pid; error_log {dir}/{name}.err;
events {{ worker_connections 4096; }}
http {{
  access_log {log}; keepalive_requests 1000000000; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  {body}
}}
"""
BACKEND = """server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ add_header X-Seen "$http_x_user_id|$http_x_user_email|$http_x_user_name|$http_x_user_role";
      default_type text/plain; return 200 "{text}"; }} }}"""
PLAIN = """upstream up {{ server 127.0.0.1:{up}; keepalive 128; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}"""
HAPROXY = """global
  nbthread 2
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  timeout client 300s
  timeout server 300s
  timeout connect 5s
  http-reuse always
frontend f
  bind 127.0.0.1:{port} backlog 4096
  http-request set-var(txn.tok) req.cook(session)
  http-request deny deny_status 401 unless {{ var(txn.tok) -m found }}
  http-request deny deny_status 401 unless {{ var(txn.tok),jwt_header_query('$.alg') -m str HS256 }}
  http-request deny deny_status 401 unless {{ var(txn.tok),jwt_verify("HS256","{secret}") 1 }}
  http-request deny deny_status 401 unless {{ var(txn.tok),jwt_payload_query('$.iss') -m str bench }}
  http-request set-var(txn.exp) var(txn.tok),jwt_payload_query('$.exp','int')
  http-request set-var(txn.now) date
  http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int le 0 }}
  http-request set-header X-User-Id %[var(txn.tok),jwt_payload_query('$.sub')]
  http-request set-header X-User-Email %[var(txn.tok),jwt_payload_query('$.email')]
  http-request set-header X-User-Name %[var(txn.tok),jwt_payload_query('$.name')]
  http-request set-header X-User-Role %[var(txn.tok),jwt_payload_query('$.role')]
  default_backend app
backend app
  server a 127.0.0.1:{up}
"""
AUTHGATE = """[server]
listen = ["127.0.0.1:{port}"]
admin_listen = ""
state_dir = "{dir}/{name}"
[[upstream]]
name = "app"
servers = ["127.0.0.1:{up}"]
{token}
[upstream.identity]
X-User-Id = "{{id}}"
X-User-Email = "{{email}}"
X-User-Name = "{{name}}"
X-User-Role = "{{groups}}"
[[route]]
upstream = "app"
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token():
    claims = USER | {"iss": "bench", "exp": int(time.time()) + 3600}
    head = ".".join(b64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{head}.{b64(hmac.new(SECRET.encode(), head.encode(), hashlib.sha256).digest())}"


def ask(port, headers, method="GET", path="/", body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    answer.text = answer.read().decode()
    connection.close()
    return answer


def family(pid):
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu_nanoseconds(pid):
    """Time on a processor of all threads of a process and its children (proc(5): schedstat)."""
    tasks = (task for one in family(pid) for task in Path(f"/proc/{one}/task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


class Bench:
    def __init__(self, folder):
        self.dir = folder
        self.children = []
        self.up = free_port()
        text = "x" * 1024
        self.nginx("backend", BACKEND.format(port=self.up, text=text), log="off")

    def start(self, name, command, port, **options):
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
        self.children.append(child)
        end = time.monotonic() + 20
        while True:
            if child.poll() is not None:
                raise SystemExit(f"{name} ended with {child.returncode}")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return child.pid
            except OSError:
                if time.monotonic() > end:
                    raise

    def write(self, name, text):
        path = self.dir / name
        path.write_text(text)
        return str(path)

    def nginx(self, name, body, log=None):
        log = log or f"{self.dir}/{name}.log"
        port = int(re.search(r"listen 127.0.0.1:(\d+)", body)[1])
        config = self.write(f"{name}.conf", NGINX.format(name=name, workers=2, dir=self.dir, log=log, body=body))
        return self.start(name, ["nginx", "-e", f"{self.dir}/{name}.err", "-c", config], port)

    def plain(self):
        port = free_port()
        pid = self.nginx("nginx", PLAIN.format(port=port, up=self.up))
        return {"name": "nginx, no auth", "pid": pid, "port": port, "cookie": f"theme=dark; session={token()}"}

    def haproxy(self):
        port = free_port()
        config = HAPROXY.format(port=port, up=self.up, secret=SECRET, dir=self.dir)
        log = open(self.dir / "haproxy.log", "wb")
        pid = self.start("haproxy", ["haproxy", "-f", self.write("haproxy.cfg", config), "-db"], port, stdout=log)
        return {"name": "HAProxy jwt_verify", "pid": pid, "port": port, "cookie": f"theme=dark; session={token()}"}

    def authgate(self, name="authgate", token=""):
        port = free_port()
        log = self.dir / f"{name}.log"
        text = AUTHGATE.format(port=port, up=self.up, dir=self.dir, name=name, token=token)
        config = self.write(f"{name}.toml", text)
        binary = os.environ.get("AUTHGATE_BIN", str(ROOT / "target/release/authgate"))
        with open(log, "wb") as out:
            pid = self.start("authgate", [binary, "--config", config], port, stderr=out)
        link = None
        while not link:
            link = re.search(r"(/\.auth/invite/\S+?)[\s\"]", log.read_text())
        body = json.dumps({"email": USER["email"], "name": USER["name"], "password": PASSWORD})
        headers = {"Host": f"127.0.0.1:{port}", "Content-Type": "application/json"}
        answer = ask(port, headers, "POST", link[1], body)
        assert answer.status == 200, answer.text
        subprocess.run([binary, "--config", config, "user", "set", USER["email"], "--group", USER["role"]], check=True)
        cookie = answer.headers["Set-Cookie"].split(";")[0]
        while not ask(port, {"Cookie": cookie}).headers["X-Seen"].endswith("|staff"):
            pass
        return {"name": name, "pid": pid, "port": port, "cookie": f"theme=dark; {cookie}"}

    def authgate_token(self):
        """The same with a token for the backend in each request, signed with a shared secret."""
        secret = self.write("secret", SECRET)
        return self.authgate("authgate, token", f'token = {{ secret = {{ file = "{secret}" }} }}')

    def stop(self):
        for child in reversed(self.children):
            child.send_signal(signal.SIGTERM)
        for child in self.children:
            child.wait(20)


def check(gateway):
    """What a gateway that does the job answers; nginx, which looks at nothing, only has to forward."""
    forged = {name: "forged" for name in IDENTITY}
    good = ask(gateway["port"], forged | {"Cookie": gateway["cookie"]})
    assert good.status == 200 and len(good.text) == 1024, gateway["name"]
    if "no auth" in gateway["name"]:
        return
    seen = good.headers["X-Seen"].split("|")
    assert "forged" not in good.headers["X-Seen"] and seen[1:] == [USER[of] for of in ("email", "name", "role")], seen
    for cookie in ("theme=dark", gateway["cookie"] + "x"):
        answer = ask(gateway["port"], forged | {"Cookie": cookie})
        assert answer.status == 401 and not answer.headers["X-Seen"], (gateway["name"], cookie)


def load(gateway, seconds, connections):
    before = cpu_nanoseconds(gateway["pid"])
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-H", f"Cookie: {gateway['cookie']}"]
    out = subprocess.check_output(command + [f"http://127.0.0.1:{gateway['port']}/"], text=True)
    used = cpu_nanoseconds(gateway["pid"]) - before
    assert "Non-2xx" not in out and "Socket errors" not in out, out
    requests, took = re.search(r"(\d+) requests in ([\d.]+)s", out).groups()
    return used / 1000 / int(requests), int(requests) / float(took)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="authgate-bench-"))
    bench = Bench(folder)
    try:
        gateways = [bench.plain(), bench.haproxy(), bench.authgate(), bench.authgate_token()]
        for gateway in gateways:
            check(gateway)
            load(gateway, 1, options.connections)
        seen = {gateway["name"]: [] for gateway in gateways}
        for _ in range(options.rounds):
            for gateway in gateways:
                seen[gateway["name"]].append(load(gateway, options.seconds, options.connections))
    finally:
        bench.stop()
        shutil.rmtree(folder)
    base = seen["HAProxy jwt_verify"]
    print(f"{'':20}{'CPU us/request':>16}{'requests/s':>12}{'CPU to HAProxy':>16}{'req/s to HAProxy':>18}")
    for name, rounds in seen.items():
        cpu, rate = (statistics.median(one[at] for one in rounds) for at in (0, 1))
        ratios = [statistics.median(one[at] / two[at] for one, two in zip(rounds, base)) for at in (0, 1)]
        print(f"{name:20}{cpu:16.1f}{rate:12.0f}{ratios[0]:16.2f}{ratios[1]:18.2f}")
    pairs = zip(seen["authgate, token"], seen["authgate"])
    more = statistics.median(with_token[0] / without[0] for with_token, without in pairs)
    print(f"CPU of `token`: {more:.3f} of authgate without")


main()
