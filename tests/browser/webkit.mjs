// Drives Debian's WebKitGTK over WebDriver (https://www.w3.org/TR/webdriver/), with as much of Playwright's `Page` as
// firefox.mjs has. It knows no names of our own: tests in it are at 127.0.0.1.
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { freePort } from "./lib.mjs";

const found = (name) => fs.existsSync(`/usr/bin/${name}`);
const lost = Object.entries({ WebKitWebDriver: "webkit2gtk-driver", Xvfb: "xvfb" }).find(([name]) => !found(name));
export const missing = lost ? `${lost[1]} is not installed` : false;
const WAIT_MS = 10_000;
const ELEMENT = "element-6066-11e4-a52e-4f735466cecf";

/** A browser of its own, with a screen of its own: `newPage()`, one context at a time, and `close()`. */
export async function launch() {
  const home = fs.mkdtempSync(path.join(os.tmpdir(), "authgate-webkit-"));
  const screen = spawn("Xvfb", ["-displayfd", "3", "-screen", "0", "1280x1024x24", "-nolisten", "tcp"], { stdio: ["ignore", "ignore", "ignore", "pipe"] });
  const [display] = await once(screen.stdio[3], "data");
  const port = await freePort();
  const env = { ...process.env, DISPLAY: `:${String(display).trim()}`, HOME: home, XDG_RUNTIME_DIR: home, WEBKIT_DISABLE_COMPOSITING_MODE: "1", NO_AT_BRIDGE: "1", GDK_BACKEND: "x11" };
  const driver = spawn("WebKitWebDriver", [`--port=${port}`], { stdio: "ignore", detached: true, env });
  const send = async (method, command, body) => {
    const answer = await fetch(`http://127.0.0.1:${port}${command}`, { method, body: body && JSON.stringify(body) });
    const { value } = await answer.json();
    if (!answer.ok) throw new Error(`${command}: ${value.error}: ${value.message}`);
    return value;
  };
  await until("WebKitWebDriver", () => send("GET", "/status"));
  return {
    async newPage() {
      const { sessionId } = await send("POST", "/session", { capabilities: { alwaysMatch: { acceptInsecureCerts: true } } });
      const call = (method, command, body) => send(method, `/session/${sessionId}${command}`, body);
      return new Page(call, await call("GET", "/window"));
    },
    async close() {
      const gone = [once(driver, "exit"), once(screen, "exit")];
      process.kill(-driver.pid, "SIGTERM");
      screen.kill();
      await Promise.all(gone);
      fs.rmSync(home, { recursive: true, force: true });
    },
  };
}

async function until(what, ask, seen = () => "") {
  let problem;
  for (const end = Date.now() + WAIT_MS; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 20))) {
    const answer = await ask().catch((error) => void (problem = error));
    if (answer) return answer;
  }
  throw new Error(`never: ${what}${problem ? ` (${problem.message})` : ""} ${await seen()}`);
}

class Page {
  constructor(call, handle) {
    Object.assign(this, { call, handle, address: "about:blank" });
  }

  context() {
    return {
      newPage: async () => new Page(this.call, (await this.call("POST", "/window/new", { type: "window" })).handle),
      close: () => this.call("DELETE", ""),
    };
  }

  async send(method, command, body) {
    await this.call("POST", "/window", { handle: this.handle });
    return this.call(method, command, body);
  }

  async settled() {
    this.address = await this.send("GET", "/url");
  }

  async goto(url) {
    await this.send("POST", "/url", { url });
    await this.settled();
  }

  async reload() {
    await this.send("POST", "/refresh", {});
    await this.settled();
  }

  async goBack() {
    await this.send("POST", "/back", {});
    await this.settled();
  }

  url() {
    return this.address;
  }

  async evaluate(script, argument) {
    const source = `const [argument, done] = arguments; (async () => (${script})(argument))().then((value) => done({ value }), (error) => done({ error: String(error) }));`;
    const { value, error } = await this.send("POST", "/execute/async", { script: source, args: [argument ?? null] });
    if (error) throw new Error(error);
    return value;
  }

  waitForFunction(script, argument) {
    return until(String(script), () => this.evaluate(script, argument), () => this.evaluate(() => `at ${location.href}: ${document.body?.innerText.slice(0, 500)}`).catch(String));
  }

  waitForSelector(selector) {
    return this.waitForFunction((selector) => document.querySelector(selector)?.getClientRects().length > 0, selector);
  }

  /** A whole address, or a function that knows it. */
  async waitForURL(wanted) {
    const is = typeof wanted === "function" ? wanted : (url) => url.href === wanted;
    await until(`at ${wanted}`, async () => {
      this.address = await this.evaluate(() => document.readyState === "complete" && location.href);
      return this.address && is(new URL(this.address));
    }, () => this.address);
  }

  async textContent(selector) {
    await this.waitForSelector(selector);
    return this.evaluate((selector) => document.querySelector(selector).textContent, selector);
  }

  inputValue(selector) {
    return this.evaluate((selector) => document.querySelector(selector).value, selector);
  }

  async element(selector) {
    await this.waitForSelector(selector);
    const found = await this.send("POST", "/element", { using: "css selector", value: selector });
    return `/element/${found[ELEMENT]}`;
  }

  async fill(selector, text) {
    const element = await this.element(selector);
    await this.send("POST", `${element}/clear`, {});
    if (text) await this.send("POST", `${element}/value`, { text });
  }

  async click(selector) {
    await this.send("POST", `${await this.element(selector)}/click`, {});
  }
}
