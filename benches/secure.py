"""Requests over TLS: what a handshake, a request in HTTP/1.1 and one in HTTP/2 cost each gateway.

The gateways of peers.py with a listener for TLS beside the plain one: the same certificate (P-256), TLS 1.3, no session
tickets in use (h2load makes full handshakes). Rows without auth forward every request: nginx and HAProxy without their
rules, authgate on a public route.
"""

import re
import subprocess

import load
from harness import cost_of, free_port, listens, say
from peers import AUTHGATE, HAPROXY, HAPROXY_LOG, LUA_MODULES, SECRET, World

HTTP1, HTTP2, HANDSHAKES = ("--h1", "-c64"), ("-c16", "-m8"), ("--h1", "-c500", "-n500")
HANDSHAKE_RUNS = 2
LISTEN = 'listen = ["127.0.0.1:{port}", "https://127.0.0.1:{tls}"]'
CERTIFICATES = """[server.tls]
certificates = [{{ certificate = "{chain}", key = {{ file = "{key}" }} }}]
"""
PUBLIC = '[[route]]\naccess = "public"\nupstream = "app"\n'
NO_AUTH = ", no auth"


class SecureWorld(World):
    """The same servers, with a port for TLS in `tls_port`."""

    def __init__(self, bench, up, ws):
        super().__init__(bench, up, ws)
        self.chain, self.key = bench.dir / "chain.pem", bench.dir / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=127.0.0.1", "-newkey", "ec"]
            + ["-pkeyopt", "ec_paramgen_curve:P-256", "-addext", "subjectAltName=IP:127.0.0.1"]
            + ["-keyout", self.key, "-out", self.chain],
            check=True,
            capture_output=True,
        )
        self.key.chmod(0o600)

    def over_tls(self, peer, port):
        peer.tls_port = port
        assert listens(port), peer.name
        return peer

    def secure_nginx(self, with_auth):
        tls = free_port()
        further = f"""listen 127.0.0.1:{tls} ssl http2 reuseport backlog=8192; ssl_protocols TLSv1.3;
          ssl_certificate {self.chain}; ssl_certificate_key {self.key}; http2_max_requests 1000000000;"""
        if with_auth:
            inside, modules = 'rewrite_by_lua_block { require("session").admit() }', LUA_MODULES
            pid, port = self.nginx("nginx-lua-tls", inside, outside=self.lua(), further=further, modules=modules)
            return self.over_tls(self.jwt_peer("nginx Lua, token cache", [pid], port), tls)
        pid, port = self.nginx("nginx-tls", further=further)
        return self.over_tls(self.jwt_peer("nginx" + NO_AUTH, [pid], port, checks=False), tls)

    def secure_haproxy(self, with_auth):
        port, tls, name = free_port(), free_port(), "haproxy-auth-tls" if with_auth else "haproxy-tls"
        pem = self.bench.write(f"{name}.pem", self.chain.read_text() + self.key.read_text())
        text = HAPROXY.format(log=HAPROXY_LOG, port=port, up=self.up, ws=self.ws, secret=SECRET)
        if not with_auth:
            text = re.sub(r"(?m)^  http-request .*\n", "", text)
        bind = f"  bind 127.0.0.1:{tls} ssl crt {pem} alpn h2,http/1.1 ssl-min-ver TLSv1.3 backlog 8192\n"
        path = self.bench.write(f"{name}.cfg", text.replace("frontend f\n", "frontend f\n" + bind))
        pid = self.bench.start(name, ["haproxy", "-f", path, "-db"], lambda: listens(port))
        peer = self.jwt_peer("HAProxy jwt_verify" if with_auth else "HAProxy" + NO_AUTH, [pid], port, checks=with_auth)
        return self.over_tls(peer, tls)

    def secure_authgate(self, with_auth, name="authgate"):
        self.tls = free_port()
        self.template = AUTHGATE.replace('listen = ["127.0.0.1:{port}"]', LISTEN).replace("[limits]", CERTIFICATES + "[limits]")
        if not with_auth:
            head, _ = self.template.split('[[route]]\npath = "/ws/**"')
            self.template = head + PUBLIC
        peer = self.authgate(name if with_auth else name + NO_AUTH)
        if not with_auth:
            peer.refused, peer.checks = {}, False
        return self.over_tls(peer, self.tls)

    def serve(self, name, state, token="", max_age="20d"):
        values = {"up": self.up, "ws": self.ws, "state": state, "token": token, "max_age": max_age}
        values |= {"tls": self.tls, "chain": self.chain, "key": self.key}
        return self.bench.authgate(self.template, name, **values)


def h2load(peer, *arguments):
    """The load; gives the requests that were answered. One that is not answered 2xx is a fault."""
    command = ["h2load", "-t1", *arguments, "-H", f"cookie: {peer.cookie}", f"https://127.0.0.1:{peer.tls_port}/"]
    out = subprocess.check_output(command, text=True)
    done, failed = (int(re.search(rf"requests: .*?(\d+) {what}", out)[1]) for what in ("done", "failed"))
    good = int(re.search(r"status codes: (\d+) 2xx", out)[1])
    assert done and not failed and good >= done, out
    return done


def slice_of(peer, seconds, kind):
    """One slice of load. One that others on the machine disturbed is measured again, once."""
    for _ in range(load.TRIES):
        with cost_of(*peer.pids) as cost:
            if kind is HANDSHAKES:
                requests = sum(h2load(peer, *kind) for _ in range(HANDSHAKE_RUNS))
            else:
                requests = h2load(peer, *kind, f"-D{seconds}")
        if cost.foreign_percent <= load.FOREIGN_PERCENT_MAX:
            break
    return {
        "requests": requests,
        "per_second": requests / cost.seconds,
        "cpu_us": cost.cpu_microseconds / requests,
        "foreign_percent": cost.foreign_percent,
    }


def rounds_of(peers, rounds, seconds, kind):
    """All peers in turn, each round in another order: [{name: slice}, ...]."""
    for peer in peers:
        slice_of(peer, 1, kind)
    seen = []
    for number in range(rounds):
        at = number % len(peers)
        order = peers[at:] + peers[:at]
        order = order[::-1] if number % 2 else order
        seen.append({peer.name: slice_of(peer, seconds, kind) for peer in order})
        say(f"h2load {' '.join(kind)}: round {number + 1} of {rounds}")
    return seen


def all_of(world):
    """Each gateway without auth and with; only those that do the job."""
    makers = (world.secure_authgate, world.secure_nginx, world.secure_haproxy)
    peers = [make(with_auth) for with_auth in (False, True) for make in makers]
    for peer in peers:
        load.check(peer)
    return peers
