// Programs that are no browsers, through the gateway with an API token: npm, rclone, git, skopeo, MLflow's client, gRPC.
// Each app stands behind its recipe in docs/recipes.md.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { app, ask, block, debian, EMAIL, folder, freePort, npm, pypi, run } from "./lib.mjs";

const grpc = createRequire(new URL("../browser/package.json", import.meta.url))("@grpc/grpc-js");

// node-fetch's own tag `cjs`, which Verdaccio asks for, is not in every registry
const verdaccio = npm("verdaccio@6", { "node-fetch": "2.7.0" });
app("npm publishes, tags and installs a scoped package through Verdaccio", verdaccio, async (app) => {
  const [port, place] = [await freePort(), folder("verdaccio")];
  const config = `storage: ${place}/storage\nuplinks: {}\nlog: { type: stdout, level: warn }\n${block("recipes.md", "npm: Verdaccio", "yaml")}`;
  fs.writeFileSync(path.join(place, "config.yaml"), config);
  await app.serve(port, verdaccio.bin("verdaccio"), ["--config", path.join(place, "config.yaml"), "--listen", `127.0.0.1:${port}`], { env: { HOME: place } });
  const gate = await app.recipe("npm: Verdaccio", port);

  const npmrc = block("recipes.md", "npm: Verdaccio", "ini").replaceAll(/https?:\/\/npm\.example\.com/g, gate.url).replace("npm.example.com", gate.host);
  const made = path.join(place, "thing");
  fs.mkdirSync(made);
  fs.writeFileSync(path.join(made, "package.json"), JSON.stringify({ name: "@scope/thing", version: "1.0.0", main: "index.js" }));
  fs.writeFileSync(path.join(made, "index.js"), "module.exports = 42;\n");
  const settings = (token) => {
    const file = path.join(place, `npmrc-${token ? "token" : "none"}`);
    fs.writeFileSync(file, token ? npmrc.replace("agt_...", token) : `registry=${gate.url}/\n`);
    return { NPM_CONFIG_USERCONFIG: file, NPM_CONFIG_CACHE: path.join(place, "cache"), NPM_CONFIG_AUDIT: "false", NPM_CONFIG_UPDATE_NOTIFIER: "false" };
  };
  const env = settings(gate.token);
  await run("npm", ["publish"], { cwd: made, env });
  await run("npm", ["dist-tag", "add", "@scope/thing@1.0.0", "beta"], { cwd: made, env });
  const user = path.join(place, "user");
  fs.mkdirSync(user);
  fs.writeFileSync(path.join(user, "package.json"), "{}");
  await run("npm", ["install", "@scope/thing@beta"], { cwd: user, env });
  assert.equal((await run("node", ["-p", "require('@scope/thing')"], { cwd: user })).trim(), "42");
  await assert.rejects(run("npm", ["view", "@scope/thing"], { cwd: user, env: settings("") }), /401/);
});

// what people call their files, and rclone sends as they are
const ODD = ["50% off.txt", "a#b.txt", "what?.txt", "a;b=c.txt", ".~lock.x.odt#", "100%25.txt", "%2e%2e.txt", "a+b&c=d.txt", "Grüße 日本.txt", "it's \"so\" [1] {2}.txt"];
app("rclone copies, lists, moves and fetches ten odd names over WebDAV", debian("rclone"), async (app) => {
  const [port, place] = [await freePort(), folder("rclone")];
  for (const name of ["served", "own", "back"]) fs.mkdirSync(path.join(place, name));
  await app.serve(port, "rclone", ["serve", "webdav", path.join(place, "served"), "--addr", `127.0.0.1:${port}`]);
  const gate = await app.recipe("WebDAV: rclone, davfs2, cadaver", port);
  const env = { RCLONE_CONFIG: path.join(place, "rclone.conf") };
  const rclone = (...args) => run("rclone", [...args, "--retries", "1", "--low-level-retries", "1"], { env });
  await rclone("config", "create", "--obscure", "files", "webdav", `url=${gate.url}`, "vendor=other", `user=${EMAIL}`, `pass=${gate.token}`);
  for (const name of ODD) fs.writeFileSync(path.join(place, "own", name), `this is ${name}`);

  const list = (folder) => fs.readdirSync(path.join(place, folder)).toSorted();
  await rclone("copy", path.join(place, "own"), "files:album");
  assert.deepEqual(list("served/album"), ODD.toSorted());
  assert.deepEqual((await rclone("lsf", "files:album")).trimEnd().split("\n").toSorted(), ODD.toSorted());
  for (const name of ODD) await rclone("moveto", `files:album/${name}`, `files:moved/new ${name}`);
  await rclone("copy", "files:moved", path.join(place, "back"));
  assert.deepEqual(list("back"), ODD.map((name) => `new ${name}`).toSorted());
  for (const name of ODD) assert.equal(fs.readFileSync(path.join(place, "back", `new ${name}`), "utf8"), `this is ${name}`);
  await rclone("config", "create", "--obscure", "wrong", "webdav", `url=${gate.url}`, "vendor=other", `user=${EMAIL}`, "pass=agt_wrong");
  await assert.rejects(rclone("lsf", "wrong:"), /401/);
});

app("git clones and pushes over HTTP", debian("git", "nginx", "fcgiwrap"), async (app) => {
  const [port, place] = [await freePort(), folder("git")];
  fs.chmodSync(place, 0o755);
  await run("git", ["init", "--quiet", "--bare", path.join(place, "project.git")]);
  const socket = path.join(place, "fcgi.sock");
  // the repository is its user's, who may be another than nginx's
  await app.serve(socket, "fcgiwrap", ["-s", `unix:${socket}`]);
  fs.chmodSync(socket, 0o666);
  const site = block("recipes.md", "git over HTTP", "nginx")
    .replace("127.0.0.1:8081", `127.0.0.1:${port}`)
    .replace("/run/fcgiwrap.socket", socket)
    .replace("/srv/git", place);
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${place}/${name};`).join(" ");
  fs.writeFileSync(path.join(place, "nginx.conf"), `daemon off; pid ${place}/pid; error_log stderr; events {} http { access_log off; ${paths}\n${site}\n}`);
  await app.serve(port, "nginx", ["-p", place, "-c", path.join(place, "nginx.conf")]);
  const gate = await app.recipe("git over HTTP", port);

  const url = (token) => gate.url.replace("://", `://ada%40example.com:${token}@`) + "/project.git";
  const env = { GIT_CONFIG_GLOBAL: "/dev/null", GIT_TERMINAL_PROMPT: "0", HOME: place };
  for (const who of ["AUTHOR", "COMMITTER"]) Object.assign(env, { [`GIT_${who}_NAME`]: "Ada", [`GIT_${who}_EMAIL`]: EMAIL });
  const git = (...args) => run("git", args, { cwd: place, env });
  await git("clone", "--quiet", url(gate.token), "first");
  fs.writeFileSync(path.join(place, "first/große datei.bin"), Buffer.alloc(3_000_000, "0123456789"));
  await git("-C", "first", "add", "-A");
  await git("-C", "first", "commit", "--quiet", "-m", "one");
  await git("-C", "first", "push", "--quiet", "origin", "HEAD:refs/heads/feature/x");
  await git("clone", "--quiet", "--branch", "feature/x", url(gate.token), "second");
  assert.deepEqual(fs.readFileSync(path.join(place, "second/große datei.bin")), fs.readFileSync(path.join(place, "first/große datei.bin")));
  await assert.rejects(git("clone", url("agt_wrong"), "third"), /Authentication failed/);
});

app("skopeo pushes an image to a Docker registry and pulls it again", debian("docker-registry", "skopeo"), async (app) => {
  const [port, place] = [await freePort(), folder("registry")];
  const config = `version: 0.1\nstorage: { filesystem: { rootdirectory: ${place}/store } }\nhttp: { addr: "127.0.0.1:${port}" }\n`;
  fs.writeFileSync(path.join(place, "config.yml"), config);
  await app.serve(port, "docker-registry", ["serve", path.join(place, "config.yml")]);
  const gate = await app.recipe("Docker registry", port);

  // an image of one layer that is an empty archive, as `dir:` lays it out; skopeo would compress it on the way
  const image = path.join(place, "image");
  fs.mkdirSync(image);
  const keep = (bytes) => {
    const digest = createHash("sha256").update(bytes).digest("hex");
    fs.writeFileSync(path.join(image, digest), bytes);
    return { size: bytes.length, digest: `sha256:${digest}` };
  };
  const archive = Buffer.alloc(10_240);
  const layer = keep(gzipSync(archive));
  const diff_ids = [`sha256:${createHash("sha256").update(archive).digest("hex")}`];
  const about = { architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids }, config: {} };
  const settings = keep(Buffer.from(JSON.stringify(about)));
  const kind = "application/vnd.docker";
  const manifest = {
    schemaVersion: 2,
    mediaType: `${kind}.distribution.manifest.v2+json`,
    config: { mediaType: `${kind}.container.image.v1+json`, ...settings },
    layers: [{ mediaType: `${kind}.image.rootfs.diff.tar.gzip`, ...layer }],
  };
  fs.writeFileSync(path.join(image, "manifest.json"), JSON.stringify(manifest));
  fs.writeFileSync(path.join(image, "version"), "Directory Transport Version: 1.1\n");
  const copy = (from, to, ...more) => run("skopeo", ["--insecure-policy", "copy", ...more, from, to], { env: { HOME: place, XDG_RUNTIME_DIR: place } });
  const remote = `docker://${gate.host}/team/tool:1`;
  await copy(`dir:${image}`, remote, "--dest-tls-verify=false", `--dest-creds=${EMAIL}:${gate.token}`);
  await copy(remote, `dir:${place}/back`, "--src-tls-verify=false", `--src-creds=${EMAIL}:${gate.token}`);
  assert.ok(fs.existsSync(path.join(place, "back", layer.digest.slice(7))));
  await assert.rejects(copy(remote, `dir:${place}/no`, "--src-tls-verify=false", `--src-creds=${EMAIL}:agt_wrong`), /unauthorized|401/i);
});

const mlflow = pypi("mlflow==3.17.2");
app("MLflow's client logs runs and artifacts with odd names", mlflow, async (app) => {
  const [port, place] = [await freePort(), folder("mlflow")];
  const gate = await app.recipe("MLflow", port);
  const shown = block("recipes.md", "MLflow", "sh").split("\n")[0].replace(/ +#.*/, "").replace("mlflow.example.com", gate.host).replace("5000", port);
  const more = ["--workers", "1", "--backend-store-uri", `sqlite:///${place}/mlflow.db`, "--artifacts-destination", path.join(place, "artifacts")];
  await app.serve(port, mlflow.bin("mlflow"), [...shown.split(" ").slice(1), ...more], { cwd: place, env: { PATH: `${path.dirname(mlflow.bin("x"))}:${process.env.PATH}` } });
  fs.writeFileSync(path.join(place, "a;b #1.txt"), "seven");
  const program = `
import mlflow, sys
mlflow.set_experiment("first / second; third")
with mlflow.start_run() as run:
    mlflow.log_metric("m", 7)
    mlflow.log_artifact(sys.argv[1])
path = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="a;b #1.txt")
print(open(path).read(), mlflow.get_run(run.info.run_id).data.metrics["m"])
`;
  const client = (token) => run(mlflow.bin("python"), ["-c", program, path.join(place, "a;b #1.txt")], { cwd: place, env: { MLFLOW_TRACKING_URI: gate.url, MLFLOW_TRACKING_TOKEN: token, MLFLOW_HTTP_REQUEST_MAX_RETRIES: "0" } });
  assert.match(await client(gate.token), /^seven 7\.0$/m);
  await assert.rejects(client("agt_wrong"), /signed_out/);
});

app("a gRPC service finds who asks in its metadata", {}, async (app) => {
  const place = folder("grpc");
  const bytes = { requestSerialize: (b) => b, requestDeserialize: (b) => b, responseSerialize: (b) => b, responseDeserialize: (b) => b };
  const words = { Say: { path: "/own.Words/Say", requestStream: false, responseStream: false, ...bytes } };
  const server = new grpc.Server();
  server.addService(words, { Say: (call, done) => done(null, Buffer.from(`${call.request} ${call.metadata.get("remote-user")}`)) });
  const port = await new Promise((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => (error ? reject(error) : resolve(port))),
  );
  await run("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", `${place}/key.pem`, "-out", `${place}/cert.pem`, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
  const own = await freePort();
  const tls = `public_url = "https://localhost:${own}"\n[server.tls]\ncertificates = [{ certificate = "${place}/cert.pem", key = { file = "${place}/key.pem" } }]`;
  const gate = await app.recipe("gRPC", port, { server: tls, listen: `https://127.0.0.1:${own}` });
  const client = new (grpc.makeGenericClientConstructor(words))(`localhost:${own}`, grpc.credentials.createSsl(fs.readFileSync(`${place}/cert.pem`)));
  const say = (authorization) => {
    const metadata = new grpc.Metadata();
    if (authorization) metadata.set("authorization", authorization);
    return new Promise((resolve) => client.Say(Buffer.from("hello"), metadata, (error, answer) => resolve(error ? error.code : `${answer}`)));
  };
  try {
    assert.equal(await say(`Bearer ${gate.token}`), `hello ${EMAIL}`);
    assert.equal(await say(), grpc.status.UNAUTHENTICATED);
  } finally {
    client.close();
    server.forceShutdown();
  }
});

const rabbit = debian("rabbitmq-server");
app("RabbitMQ's default vhost answers behind the gateway, its own Authorization beside our token", rabbit, async (app) => {
  const [port, amqp, dist, epmd, place] = [await freePort(), await freePort(), await freePort(), await freePort(), folder("rabbit")];
  const plugins = path.join(place, "plugins");
  fs.writeFileSync(plugins, "[rabbitmq_management].\n");
  const settings = `listeners.tcp.1 = 127.0.0.1:${amqp}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = ${port}\n`;
  fs.writeFileSync(path.join(place, "rabbitmq.conf"), settings);
  const env = {
    HOME: place,
    ERL_EPMD_PORT: epmd,
    ERL_EPMD_ADDRESS: "127.0.0.1",
    RABBITMQ_NODENAME: "tests@localhost",
    RABBITMQ_DIST_PORT: dist,
    RABBITMQ_CONFIG_FILE: path.join(place, "rabbitmq.conf"),
    RABBITMQ_MNESIA_BASE: path.join(place, "mnesia"),
    RABBITMQ_LOG_BASE: path.join(place, "log"),
    RABBITMQ_LOGS: "-",
    RABBITMQ_PID_FILE: path.join(place, "pid"),
    RABBITMQ_ENABLED_PLUGINS_FILE: plugins,
    RABBITMQ_CONF_ENV_FILE: "/dev/null",
  };
  const home = fs.readdirSync("/usr/lib/rabbitmq/lib").find((name) => name.startsWith("rabbitmq_server"));
  await app.serve(port, `/usr/lib/rabbitmq/lib/${home}/sbin/rabbitmq-server`, [], { env });
  const gate = await app.recipe("RabbitMQ's management", port);
  const guest = `Basic ${Buffer.from("guest:guest").toString("base64")}`;
  const call = (method, target, headers, body) => ask(gate.url + target, { method, headers: { authorization: guest, "content-type": "application/json", ...headers }, body });
  for (const ours of [{ cookie: gate.cookie }, { "x-authgate-token": gate.token }]) {
    const made = await call("PUT", "/api/queues/%2F/q1", ours, "{}");
    assert.ok([201, 204].includes(made.status), `${made.status} ${made.text}`);
    const seen = await call("GET", "/api/queues/%2F/q1", ours);
    assert.deepEqual([seen.status, JSON.parse(seen.text).vhost], [200, "/"]);
  }
  assert.equal((await call("GET", "/api/queues/%2F/q1", {})).status, 401);
});

const radicale = pypi("radicale==3.9.0");
app("Radicale keeps a calendar of who asks, with odd names, for a client that waits to be asked", radicale, async (app) => {
  const [port, place] = [await freePort(), folder("radicale")];
  fs.writeFileSync(path.join(place, "shown"), block("recipes.md", "Radicale (CalDAV, CardDAV)", "ini"));
  fs.writeFileSync(path.join(place, "own"), `[server]\nhosts = 127.0.0.1:${port}\n[storage]\nfilesystem_folder = ${place}/kept\n`);
  await app.serve(port, radicale.bin("radicale"), ["-C", `${place}/shown:${place}/own`]);
  const gate = await app.recipe("Radicale (CalDAV, CardDAV)", port);
  const basic = (token) => ({ authorization: `Basic ${Buffer.from(`${EMAIL}:${token}`).toString("base64")}` });
  const dav = (method, at, body, headers = basic(gate.token)) => ask(`${gate.url}/${EMAIL}/${at}`, { method, headers, body });
  assert.equal((await dav("MKCALENDAR", "calendar/")).status, 201);
  // a client that escapes a slash in an id escapes it twice
  const event = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:own", "BEGIN:VEVENT", "UID:ev/1", "DTSTAMP:20261130T120000Z", "DTSTART:20261201T120000Z", "SUMMARY:Tea", "END:VEVENT", "END:VCALENDAR", ""].join("\r\n");
  for (const name of ["ev%252F1.ics", "50%25.ics"]) {
    const put = await dav("PUT", `calendar/${name}`, event.replace("ev/1", name));
    assert.equal(put.status, 201, `${name}: ${put.text}`);
    assert.match((await dav("GET", `calendar/${name}`)).text, /SUMMARY:Tea/);
  }
  assert.deepEqual(fs.readdirSync(`${place}/kept/collection-root/${EMAIL}/calendar`).filter((name) => name.endsWith(".ics")).toSorted(), ["50%.ics", "ev%2F1.ics"]);
  assert.equal((await ask(`${gate.url}/bob@example.com/calendar/`, { method: "PROPFIND", headers: basic(gate.token) })).status, 403);
  const asked = await dav("PROPFIND", "calendar/", undefined, {});
  assert.deepEqual([asked.status, /^Basic/.test(asked.headers["www-authenticate"])], [401, true]);
  const page = await ask(`${gate.url}/.web/`, { headers: { cookie: gate.cookie } });
  assert.equal(page.status, 200, page.text);
});
