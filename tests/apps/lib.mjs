// Programs of others, unmodified, behind the gateway by their recipe in docs/recipes.md. What comes from PyPI and npm is
// installed once, below target/apps; Debian's packages are installed by tests/run. Without a program its tests are skipped.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import https from "node:https";
import { createRequire } from "node:module";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { binary, PASSWORD, start } from "../browser/lib.mjs";

export { browser, closeBrowser, freePort, newPage, PASSWORD, relay, signIn } from "../browser/lib.mjs";
export const { WebSocket, WebSocketServer } = createRequire(new URL("../browser/package.json", import.meta.url))("ws");

const root = path.resolve(import.meta.dirname, "../..");
const kept = path.join(process.env.CARGO_TARGET_DIR ?? path.join(root, "target"), "apps");
export const EMAIL = "ada@example.com";

/** A folder that is gone when this process is. */
export function folder(name) {
  const made = fs.mkdtempSync(path.join(os.tmpdir(), `authgate-${name}-`));
  process.on("exit", () => fs.rmSync(made, { recursive: true, force: true }));
  return made;
}

/** Runs an installer in a new folder that is kept if it succeeds; gives the folder, and why there is none. */
function installed(name, make) {
  const place = path.join(kept, name.replaceAll("/", "-"));
  if (fs.existsSync(path.join(place, ".whole"))) return { place };
  fs.rmSync(place, { recursive: true, force: true });
  fs.mkdirSync(place, { recursive: true });
  for (const [command, ...args] of make(place)) {
    const { status, error, stderr } = spawnSync(command, args, { cwd: place, encoding: "utf8", timeout: 240_000 });
    if (status !== 0) return { missing: `cannot be installed: ${error?.message ?? stderr.trim().split("\n").at(-1)}` };
  }
  fs.writeFileSync(path.join(place, ".whole"), "");
  return { place };
}

/** A PyPI package in an environment of its own: `bin(name)`, or `missing`: why not. */
export function pypi(...packages) {
  const { place, missing } = installed(packages[0], (place) => [
    ["python3", "-m", "venv", place],
    [path.join(place, "bin/pip"), "install", "--quiet", "--no-compile", "--disable-pip-version-check", ...packages],
  ]);
  return { missing, bin: (name) => path.join(place, "bin", name) };
}

/** An npm package, with what its own dependencies are overridden by. */
export function npm(named, overrides = {}) {
  const { place, missing } = installed(named, (place) => {
    fs.writeFileSync(path.join(place, "package.json"), JSON.stringify({ private: true, overrides }));
    return [["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", named]];
  });
  return { missing, bin: (name) => path.join(place, "node_modules/.bin", name) };
}

/** Programs that Debian's packages brought. */
export function debian(...programs) {
  const places = `${process.env.PATH}:/usr/sbin:/sbin`.split(":");
  const lost = programs.find((name) => !places.some((place) => fs.existsSync(path.join(place, name))));
  return { missing: lost && `${lost} is not installed` };
}

/** What stands below a heading of a page in docs/, or before all headings. */
export function prose(page, heading) {
  const text = fs.readFileSync(path.join(root, "docs", page), "utf8");
  return (heading ? text.split(`\n## ${heading}\n`)[1] : text)?.split("\n## ")[0];
}

/** Its first block of a language. */
export function block(page, heading, language) {
  const found = prose(page, heading)?.match(new RegExp(`^\`\`\`${language}\n([^]*?)^\`\`\``, "m"));
  if (!found) throw new Error(`docs/${page} has no ${language} block under "${heading}"`);
  return found[1];
}

/** The gateway of a recipe, its app on this port, with ada's account: `token` and `cookie` are hers. */
async function recipe(heading, port, { server, listen } = {}) {
  const gate = await gatewayOf(block("recipes.md", heading, "toml"), port, server, listen);
  return { ...gate, host: new URL(gate.url).host, cookie: listen ? undefined : await cookieOf(gate.url) };
}

export async function gatewayOf(text, port, server = "", listen = "127.0.0.1:0", admin = "") {
  const place = folder("gateway");
  const rules = text
    .replace(/^\[server\]\n(\S+ = .*\n)*/m, "")
    .replace(/^(servers = \["|upstream = "http:\/\/)(h2c:\/\/)?127\.0\.0\.1:\d+/gm, `$1$2127.0.0.1:${port}`);
  fs.writeFileSync(path.join(place, "gateway.toml"), `[server]\nlisten = ["${listen}"]\nadmin_listen = "${admin}"\n${server}\n${rules}`);
  const own = (...args) => run(binary, args, { cwd: place, input: `${PASSWORD}\n` });
  await own("user", "add", EMAIL, "--name", "Ada", "--group", "admin", "--password-stdin");
  const token = (await own("token", "create", EMAIL, "--name", "apps")).match(/agt_\S+/)[0];
  return { ...(await start(place)), token };
}

/** Signs in, as a program does. */
export async function cookieOf(url, extra = {}, email = EMAIL) {
  const body = JSON.stringify({ email, password: PASSWORD });
  const answer = await ask(`${url}/.auth/login`, { method: "POST", headers: { "content-type": "application/json", ...extra }, body });
  if (answer.status !== 200) throw new Error(`sign-in: ${answer.status} ${answer.text}`);
  return answer.headers["set-cookie"].map((line) => line.split(";")[0]).join("; ");
}

/** One request, its path and fields as they are given. */
export async function ask(url, { method = "GET", headers = {}, body } = {}) {
  const [, scheme, host, port, target] = url.match(/^(https?):\/\/([^:/]+):(\d+)(.*)$/);
  const options = { host, port, path: target || "/", method, headers, agent: false, rejectUnauthorized: false };
  const request = (scheme === "https" ? https : http).request(options);
  request.end(body);
  const [answer] = await once(request, "response");
  const parts = [];
  for await (const part of answer) parts.push(part);
  return { status: answer.statusCode, headers: answer.headers, text: Buffer.concat(parts).toString() };
}

const running = [];
process.on("exit", () => running.forEach((child) => end(child)));
process.setMaxListeners(100); // one for each folder
function end(child) {
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // it has ended
  }
}

/** Starts a program that serves; waits until `port` (or the Unix socket of that name) takes connections. */
export async function serve(port, command, args, options = {}) {
  const log = path.join(folder("log"), "log");
  const out = fs.openSync(log, "w");
  const child = spawn(command, args, { stdio: ["ignore", out, out], detached: true, ...options, env: { ...process.env, ...options.env } });
  fs.closeSync(out);
  running.push(child);
  child.once("error", () => {});
  const said = () => fs.readFileSync(log, "utf8").slice(-2000);
  for (const until = Date.now() + 180_000; !(await connects(port)); await new Promise(setImmediate)) {
    if (child.exitCode !== null || child.pid === undefined) throw new Error(`${command} ended:\n${said()}`);
    if (Date.now() > until) throw new Error(`${command} does not listen:\n${said()}`);
  }
  return { child, said, stop: () => end(child) };
}

function connects(port) {
  return new Promise((resolve) => {
    const socket = net.connect(typeof port === "number" ? { port, host: "127.0.0.1" } : { path: port });
    socket.once("connect", () => (socket.destroy(), resolve(true))).once("error", () => setTimeout(resolve, 20, false));
  });
}

/** Runs a program to its end; gives what it wrote, or fails with it. */
export async function run(command, args, options = {}) {
  const { input, env, ...rest } = options;
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"], ...rest, env: { ...process.env, ...env } });
  child.stdin.end(input);
  let out = "";
  child.stdout.on("data", (data) => (out += data));
  child.stderr.on("data", (data) => (out += data));
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${code}:\n${out}`);
  return out;
}

/** Until something is so that has no event. */
export async function until(what, so) {
  for (const end = Date.now() + 180_000; !(await so()); await new Promise((resolve) => setTimeout(resolve, 50))) {
    if (Date.now() > end) throw new Error(`never: ${what}`);
  }
}

/** A WebSocket: sends a text, gives the first message. */
export async function echo(url, headers, text) {
  const socket = new WebSocket(url, { headers, rejectUnauthorized: false });
  await once(socket, "open");
  socket.send(text);
  const [message] = await once(socket, "message");
  socket.terminate();
  return String(message);
}

/** A test of one app, or why it is skipped; what it starts with `app.serve` and `app.recipe` ends with it. */
export function app(title, { missing }, body) {
  test(title, { skip: missing, timeout: 300_000 }, async () => {
    const ends = [];
    try {
      await body({
        serve: async (...args) => {
          const server = await serve(...args);
          ends.push(() => server.stop());
          return server;
        },
        recipe: async (...args) => {
          const gate = await recipe(...args);
          ends.push(() => gate.stop());
          return gate;
        },
      });
    } finally {
      for (const end of ends.reverse()) await end();
    }
  });
}
