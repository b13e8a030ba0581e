// The same test in Chromium and in Firefox (some in WebKit too), over https and over plain http, where browsers know of no secure origin.
import { execFileSync } from "node:child_process";
import { createHash, X509Certificate } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { chromium } from "playwright-core";
import * as firefox from "./firefox.mjs";
import { freePort, PASSWORD, start } from "./lib.mjs";
import * as webkit from "./webkit.mjs";

const certificates = fs.mkdtempSync(path.join(os.tmpdir(), "authgate-certificates-"));
process.on("exit", () => fs.rmSync(certificates, { recursive: true, force: true }));
const made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=example.com"];
execFileSync("openssl", [...made, "-addext", "subjectAltName=DNS:*.example.com", "-keyout", "key.pem", "-out", "chain.pem"], { cwd: certificates, stdio: "ignore" });
const publicKey = new X509Certificate(fs.readFileSync(path.join(certificates, "chain.pem"))).publicKey.export({ type: "spki", format: "der" });
const pin = createHash("sha256").update(publicKey).digest("base64");

const running = {};
async function launchChromium() {
  const names = "--host-resolver-rules=MAP lan.test 127.0.0.1, MAP *.example.com 127.0.0.1";
  // by its key, since Chromium keeps nothing of a site whose certificate it only tolerates
  const trusted = `--ignore-certificate-errors-spki-list=${pin}`;
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", names, trusted];
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
  return {
    async newPage() {
      const page = await (await browser.newContext()).newPage();
      page.setDefaultTimeout(10_000);
      return page;
    },
    close: () => browser.close(),
  };
}

const ENGINES = { Chromium: { launch: launchChromium, missing: false }, Firefox: firefox };
/** Those that can be tried at this machine's own address alone. */
const LOCAL = { ...ENGINES, WebKit: webkit };

export async function closeEngines() {
  for (const browser of Object.values(running)) await (await browser).close();
}

const open = [];
/** What is stopped with the test that it was made for. */
export const ends = (one) => (open.push(one), one);

/** One test in each browser, each with a page in a profile of its own; skipped where the app that it needs is missing. */
export function inEach(title, body, app) {
  for (const name of Object.keys(ENGINES)) inOne(name, title, body, app);
}

/** The same, at this machine's own address: in WebKit too. */
export function inEachLocal(title, body) {
  for (const name of Object.keys(LOCAL)) inOne(name, title, body);
}

export function inOne(name, title, body, app) {
  const { launch, missing } = LOCAL[name];
  test(`${title} (${name})`, { skip: app?.missing || missing, timeout: 120_000 }, async () => {
    running[name] ??= launch();
    const page = await (await running[name]).newPage();
    try {
      await body(page);
    } finally {
      await page.context().close();
      for (const one of open.splice(0).reverse()) await one.stop();
    }
  });
}

/** One test in each browser over https, and over plain http. */
export function overBoth(title, body, app) {
  for (const https of [true, false]) inEach(`${title}, over ${https ? "https" : "plain http"}`, (page) => body(page, https), app);
}

/** An app that answers by these: path -> (request, response). */
export async function serve(pages) {
  const asked = [];
  const server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://app");
    asked.push(`${request.method} ${pathname}`);
    request.resume().on("end", () => {
      const page = pages[pathname] ?? pages["*"];
      if (page) page(request, response);
      else response.writeHead(404).end();
    });
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  return ends({
    address: `127.0.0.1:${server.address().port}`,
    server,
    /** How often this was asked for so far. */
    count: (what) => asked.filter((one) => one === what).length,
    stop: () => (server.close(), server.closeAllConnections()),
  });
}

/** A gateway under a name that is not this machine's own, with ada's and bob's account; `name` is its first label over https. */
export async function gatewayFor(routes, { https, domain = "", name = "app" }) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "authgate-"));
  const port = await freePort();
  const [scheme, host] = https ? ["https", `${name}.example.com`] : ["http", "lan.test"];
  const url = `${scheme}://${host}:${port}`;
  const [chain, key] = ["chain.pem", "key.pem"].map((file) => path.join(certificates, file));
  const tls = https ? `[server.tls]\ncertificates = [{ certificate = "${chain}", key = { file = "${key}" } }]\n` : "";
  const server = `[server]\nlisten = ["${scheme}://127.0.0.1:${port}"]\nadmin_listen = ""\npublic_url = "${url}"\n`;
  const shared = domain && `[session]\ndomain = "${domain}"\n`;
  fs.writeFileSync(path.join(folder, "gateway.toml"), `${server}${tls}${shared}${routes}`);
  const gate = ends(await start(folder));
  for (const person of ["ada", "bob"]) await gate.cli("user", "add", `${person}@example.com`, "--name", person, "--password-stdin");
  return { ...gate, url, port };
}

export async function signInAs(page, url, person, to = "/start") {
  await page.goto(`${url}/.auth/login?callbackUrl=${encodeURIComponent(to)}`);
  await page.fill("[name=email]", `${person}@example.com`);
  await page.fill("[name=password]", PASSWORD);
  await page.click("[data-waiting]");
  await page.waitForURL((place) => place.pathname === to.split(/[?#]/)[0]);
}

export async function signOut(page, url) {
  await page.goto(`${url}/.auth/logout`);
  await page.click("main form button");
  await page.waitForURL((place) => place.pathname === "/.auth/signed-out");
}

export { PASSWORD };
