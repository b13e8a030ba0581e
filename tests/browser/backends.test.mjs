// Two backends that are not ours, each behind the gateway: Node-RED and a Next.js app.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { bin, closeBrowser, firstAccount, freePort, gateway, newPage, program, relay, shot, signIn } from "./lib.mjs";

const here = import.meta.dirname;
/** A backend behind a relay behind a gateway, with one account. */
async function behind(port, routes = "[[route]]\nupstream = \"app\"\n") {
  const between = await relay(port);
  const gate = await gateway(`[[upstream]]\nname = "app"\nservers = ["${between.address}"]\n${routes}`);
  await firstAccount(gate);
  return { gate, between };
}

async function signedIn(gate) {
  const page = await newPage({ acceptDownloads: true });
  await page.goto(`${gate.url}/`);
  assert.equal(new URL(page.url()).pathname, "/.auth/login");
  await signIn(page);
  await page.waitForURL(`${gate.url}/**`);
  return page;
}

/** Opens a WebSocket in the page, sends, and gives what comes back or how it closed. */
const overSocket = (page, url, text) =>
  page.evaluate(
    ([url, text]) =>
      new Promise((resolve) => {
        const socket = new WebSocket(url);
        socket.onopen = () => socket.send(text);
        socket.onmessage = ({ data }) => (socket.close(), resolve(data));
        socket.onerror = () => resolve("refused");
      }),
    [url, text],
  );

const FLOW = [
  { id: "tab", type: "tab", label: "tests" },
  { id: "in", z: "tab", type: "http in", url: "/take", method: "post", upload: true, wires: [["count"]] },
  {
    id: "count",
    z: "tab",
    type: "function",
    func: "const f = msg.req.files[0]; msg.payload = { name: f.originalname, size: f.buffer.length, by: msg.req.headers['remote-email'] }; return msg;",
    wires: [["out"]],
  },
  { id: "give", z: "tab", type: "http in", url: "/give", method: "get", upload: false, wires: [["bytes"]] },
  { id: "bytes", z: "tab", type: "function", func: "msg.payload = Buffer.alloc(3000000, 7); return msg;", wires: [["out"]] },
  { id: "out", z: "tab", type: "http response", wires: [] },
  { id: "listener", type: "websocket-listener", path: "/echo", wholemsg: "false" },
  { id: "wsin", z: "tab", type: "websocket in", server: "listener", wires: [["wsout"]] },
  { id: "wsout", z: "tab", type: "websocket out", server: "listener", wires: [] },
];

let red, redApp, redFolder;
let next, nextApp;
before(async () => {
  redFolder = fs.mkdtempSync(path.join(os.tmpdir(), "node-red-"));
  const port = await freePort();
  const settings = path.join(redFolder, "settings.js");
  fs.writeFileSync(settings, `module.exports = { uiPort: ${port}, uiHost: "127.0.0.1", telemetry: { enabled: false } };`);
  fs.writeFileSync(path.join(redFolder, "flows.json"), JSON.stringify(FLOW));
  red = await program(bin("node-red"), ["-s", settings, "-u", redFolder, "flows.json"], /Started flows/);
  redApp = await behind(port);
  const app = path.join(here, "next-app");
  const build = await program(bin("next"), ["build"], /server-rendered on demand/, { cwd: app });
  await build.stop();
  next = await program(bin("next"), ["start", "-H", "127.0.0.1", "-p", "0"], /http:\/\/[^:]+:(\d+)/, { cwd: app });
  nextApp = await behind(Number(next.found[1]));
});
after(async () => {
  for (const one of [redApp, nextApp]) {
    await one?.gate.stop();
    one?.between.stop();
  }
  await red?.stop();
  await next?.stop();
  fs.rmSync(redFolder, { recursive: true, force: true });
  await closeBrowser();
});

test("without a session nothing reaches a backend", async () => {
  for (const { gate, between } of [redApp, nextApp]) {
    const tries = [
      ["GET", "/"],
      ["GET", "/flows"],
      ["POST", "/flows"],
      ["GET", "/api/events"],
      ["POST", "/api/upload"],
      ["GET", "/comms"],
      ["OPTIONS", "/"],
      ["PUT", "/_next/x"],
    ];
    for (const [method, at] of tries) {
      const answer = await fetch(gate.url + at, { method, redirect: "manual" });
      assert.equal(answer.status, 401, `${method} ${at}`);
    }
    const page = await newPage();
    await page.goto(`${gate.url}/.auth/login`);
    assert.equal(await overSocket(page, `${gate.url.replace("http", "ws")}/comms`, "x"), "refused");
    await page.context().close();
    assert.deepEqual(between.counted, { connections: 0, bytes: 0 });
    await (await signedIn(gate)).context().close();
    assert.ok(between.counted.bytes > 0, "the relay counts what reaches the backend");
  }
});

test("Node-RED: the editor loads and its WebSocket connects", async () => {
  const page = await newPage();
  const first = new Promise((resolve) => {
    page.on("websocket", (socket) => {
      if (new URL(socket.url()).pathname === "/comms") socket.on("framereceived", () => resolve(socket));
    });
  });
  await page.goto(`${redApp.gate.url}/`);
  await signIn(page);
  await page.waitForSelector("#red-ui-workspace-chart");
  assert.ok(!(await first).isClosed());
  await shot(page, "node-red");
  await page.context().close();
});

test("Node-RED: upload, download and a WebSocket of the flow, with the identity", async () => {
  const page = await signedIn(redApp.gate);
  const took = await page.evaluate(async () => {
    const form = new FormData();
    form.set("file", new Blob([new Uint8Array(2_000_000)]), "zeros.bin");
    return (await fetch("/take", { method: "POST", body: form })).json();
  });
  assert.deepEqual(took, { name: "zeros.bin", size: 2_000_000, by: "ada@example.com" });
  const gave = await page.evaluate(async () => {
    const answer = await fetch("/give");
    const bytes = new Uint8Array(await answer.arrayBuffer());
    if (!answer.ok) return new TextDecoder().decode(bytes);
    return [bytes.length, bytes.every((byte) => byte === 7)];
  });
  assert.deepEqual(gave, [3_000_000, true]);
  const echo = `${redApp.gate.url.replace("http", "ws")}/echo`;
  assert.equal(await overSocket(page, echo, "hello through the gateway"), "hello through the gateway");
  await page.context().close();
});

test("Next.js: a page and a server action, with the identity", async () => {
  const page = await signedIn(nextApp.gate);
  assert.equal(await page.textContent("h1"), "Notes of Ada");
  await page.fill("[name=note]", "water the plants");
  await page.click("button:text-is('Add')");
  await page.waitForSelector("li:text-is('water the plants (ada@example.com)')");
  await shot(page, "next");
  await page.context().close();
});

test("Next.js: upload and download", async () => {
  const page = await signedIn(nextApp.gate);
  const bytes = Buffer.alloc(8 << 20, "authgate");
  await page.setInputFiles("[name=file]", { name: "notes.bin", mimeType: "application/octet-stream", buffer: bytes });
  await page.click("button:text-is('Upload')");
  await page.waitForURL(`${nextApp.gate.url}/api/upload`);
  assert.deepEqual(JSON.parse(await page.textContent("body")), {
    name: "notes.bin",
    size: bytes.length,
    sha256: createHash("sha256").update(bytes).digest("hex"),
  });
  await page.goto(`${nextApp.gate.url}/`);
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("a[download]")]);
  const got = fs.readFileSync(await download.path());
  assert.equal(download.suggestedFilename(), "parts.bin");
  assert.equal(got.length, 256 * 65536);
  for (let part = 0; part < 256; part++) assert.equal(got[part * 65536], part);
  await page.context().close();
});

test("Next.js: an event stream arrives event by event", async () => {
  const page = await signedIn(nextApp.gate);
  await page.waitForSelector("output:text-is('event-1 event-2 event-3')");
  await page.context().close();
});
