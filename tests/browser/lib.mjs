// Starts the real binary and a real browser for one test file.
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { chromium } from "playwright-core";

export const PASSWORD = "correct horse battery staple";

export const binary = process.env.AUTHGATE_BIN ?? path.resolve(import.meta.dirname, "../../target/debug/authgate");

/** A gateway with these routes in a folder of its own; see `start`. */
export async function gateway(routes, extra = "", port = 0) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "authgate-"));
  const text = `[server]\nlisten = ["127.0.0.1:${port}"]\nadmin_listen = ""\n${extra}\n${routes}`;
  fs.writeFileSync(path.join(folder, "gateway.toml"), text);
  return start(folder);
}

/** Serves a folder's gateway.toml: `url`, the first account's `invite` link, `stop()`, `cli(...)`. */
export async function start(folder) {
  const child = spawn(binary, ["run"], { cwd: folder, stdio: ["ignore", "inherit", "pipe"] });
  const lines = [];
  const found = { invite: null, address: null };
  const ready = new Promise((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`the gateway ended (${code}):\n${lines.join("\n")}`)));
    readline.createInterface({ input: child.stderr }).on("line", (line) => {
      lines.push(line);
      const link = line.match(/\S+(\/\.auth\/invite\/\S+)/);
      if (link && !line.startsWith("{")) found.invite = link[1];
      if (!line.startsWith("{")) return;
      const event = JSON.parse(line);
      if (event.message === "listening") found.address = event.address;
      if (event.message === "ready") resolve();
    });
  });
  await ready;
  return {
    url: found.address,
    invite: found.invite && found.address + found.invite,
    lines,
    async cli(...args) {
      const command = spawn(binary, args, { cwd: folder, stdio: ["pipe", "pipe", "pipe"] });
      // for --password-stdin
      command.stdin.on("error", () => {}).end(`${PASSWORD}\n`);
      let out = "";
      command.stdout.on("data", (data) => (out += data));
      command.stderr.on("data", (data) => (out += data));
      const [code] = await once(command, "close");
      if (code !== 0) throw new Error(`authgate ${args.join(" ")} ended with ${code}: ${out}`);
      return out;
    },
    async stop() {
      child.removeAllListeners("exit");
      child.kill("SIGTERM");
      await once(child, "exit");
      fs.rmSync(folder, { recursive: true });
    },
  };
}

/** Makes the first account by its printed link, without a browser. */
export async function firstAccount(gate, email = "ada@example.com") {
  const answer = await fetch(gate.invite, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ email, name: "Ada", password: PASSWORD }),
  });
  if (answer.status !== 200) throw new Error(`invite: ${answer.status} ${await answer.text()}`);
}

let shared;
export async function browser() {
  shared ??= await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      // a name that is neither https nor loopback: what browsers say of a request is less there
      "--host-resolver-rules=MAP lan.test 127.0.0.1, MAP *.example.com 127.0.0.1",
    ],
  });
  return shared;
}

export async function closeBrowser() {
  await shared?.close();
}

/** A page in a browser profile of its own; what a policy forbids is gathered in `page.violations`. */
export async function newPage(options = {}) {
  const context = await (await browser()).newContext(options);
  const page = await context.newPage();
  page.violations = [];
  page.on("console", (message) => {
    if (/Content.Security.Policy|Refused to/i.test(message.text())) page.violations.push(message.text());
  });
  page.setDefaultTimeout(10_000);
  return page;
}

/** Keeps a picture where SCREENSHOTS says, for people to look at. */
export async function shot(page, name) {
  const folder = process.env.SCREENSHOTS;
  if (folder) await page.screenshot({ path: path.join(folder, `${name}.png`), fullPage: true });
}

export async function signIn(page, email = "ada@example.com", password = PASSWORD) {
  await page.fill("[name=email]", email);
  await page.fill("[name=password]", password);
  await page.click("button:text-is('Sign in')");
}

/** A program of an installed package. */
export const bin = (name) => path.join(import.meta.dirname, "node_modules/.bin", name);

/** A program that serves, once a line of its output matches `ready`; its match is `found`. */
export async function program(command, args, ready, options = {}) {
  const env = { ...process.env, NEXT_TELEMETRY_DISABLED: "1", NODE_ENV: "production" };
  // a group of its own: some of these start further processes
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"], detached: true, env, ...options });
  const lines = [];
  const found = await new Promise((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`${command} ended (${code}):\n${lines.join("\n")}`)));
    readline.createInterface({ input: child.stdout }).on("line", (line) => {
      lines.push(line);
      const match = line.match(ready);
      if (match) resolve(match);
    });
  });
  return {
    found,
    async stop() {
      child.removeAllListeners("exit");
      if (child.exitCode !== null) return;
      process.kill(-child.pid, "SIGKILL");
      await once(child, "exit");
    },
  };
}

/** What stands between gateway and backend and counts what reaches the backend. */
export async function relay(port) {
  const counted = { connections: 0, bytes: 0 };
  const server = net.createServer((from) => {
    counted.connections += 1;
    const to = net.connect(port, "127.0.0.1");
    from.on("data", (data) => (counted.bytes += data.length));
    from.pipe(to).pipe(from);
    const end = () => (from.destroy(), to.destroy());
    for (const socket of [from, to]) socket.on("error", end).on("close", end);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { counted, address: `127.0.0.1:${server.address().port}`, stop: () => server.close() };
}

export async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}
