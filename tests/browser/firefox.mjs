// Drives Debian's Firefox over WebDriver BiDi (https://w3c.github.io/webdriver-bidi/), with as much of Playwright's `Page`
// as one test body needs to run in both browsers; selectors are CSS.
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { WebSocket } from "ws";

const program = process.env.FIREFOX ?? "/usr/bin/firefox-esr";
export const missing = fs.existsSync(program) ? false : "firefox-esr is not installed";

const PREFS = {
  // every name is this machine
  "network.dns.forceResolve": "127.0.0.1",
  "network.proxy.type": 0,
  "browser.shell.checkDefaultBrowser": false,
  "datareporting.policy.dataSubmissionEnabled": false,
  "devtools.jsonview.enabled": false,
  "app.update.enabled": false,
  "extensions.update.enabled": false,
  "browser.safebrowsing.update.enabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "services.settings.server": "http://127.0.0.1:9/",
};
const WAIT_MS = 10_000;

/** A browser of its own: `newPage()`, `close()`. */
export async function launch(prefs = {}) {
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "authgate-firefox-"));
  const lines = Object.entries({ ...PREFS, ...prefs }).map(([name, value]) => `user_pref("${name}", ${JSON.stringify(value)});`);
  fs.writeFileSync(path.join(profile, "user.js"), lines.join("\n"));
  const args = ["--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"];
  const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, HOME: profile, MOZ_CRASHREPORTER_DISABLE: "1" } });
  const address = await new Promise((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`Firefox ended (${code})`)));
    readline.createInterface({ input: child.stderr }).on("line", (line) => {
      const found = line.match(/WebDriver BiDi listening on (ws:\S+)/);
      if (found) resolve(found[1]);
    });
  });
  const socket = new WebSocket(`${address}/session`);
  await once(socket, "open");
  const open = new Map();
  socket.on("message", (data) => {
    const { id, type, result, error, message } = JSON.parse(data);
    const [resolve, reject] = open.get(id) ?? [];
    open.delete(id);
    if (type === "error") reject?.(new Error(`${error}: ${message}`));
    else resolve?.(result);
  });
  let last = 0;
  const send = (method, params = {}) =>
    new Promise((resolve, reject) => {
      open.set(++last, [resolve, reject]);
      socket.send(JSON.stringify({ id: last, method, params }));
    });
  await send("session.new", { capabilities: { alwaysMatch: { acceptInsecureCerts: true } } });
  return {
    /** A page in a profile of its own. */
    async newPage() {
      const { userContext } = await send("browser.createUserContext", {});
      return new Context(send, userContext).newPage();
    },
    async close() {
      const gone = once(child, "exit");
      child.kill("SIGTERM");
      await gone;
      fs.rmSync(profile, { recursive: true, force: true });
    },
  };
}

class Context {
  constructor(send, userContext) {
    Object.assign(this, { send, userContext });
  }

  async newPage() {
    const { context } = await this.send("browsingContext.create", { type: "tab", userContext: this.userContext });
    return new Page(this, context);
  }

  clearCookies({ name } = {}) {
    const partition = { type: "storageKey", userContext: this.userContext };
    return this.send("storage.deleteCookies", { filter: name ? { name } : {}, partition });
  }

  close() {
    return this.send("browser.removeUserContext", { userContext: this.userContext });
  }
}

class Page {
  constructor(own, context) {
    Object.assign(this, { own, id: context, address: "about:blank" });
  }

  context() {
    return this.own;
  }

  send(method, params) {
    return this.own.send(method, { context: this.id, ...params });
  }

  async goto(url) {
    await this.send("browsingContext.navigate", { url, wait: "complete" });
    await this.settled();
  }

  async reload() {
    await this.send("browsingContext.reload", { wait: "complete" });
    await this.settled();
  }

  async goBack() {
    const before = await this.evaluate(() => performance.timeOrigin);
    await this.send("browsingContext.traverseHistory", { delta: -1 });
    await this.until("another page", () => this.evaluate((before) => performance.timeOrigin !== before && document.readyState === "complete", before));
    await this.settled();
  }

  async settled() {
    this.address = await this.evaluate(() => location.href);
  }

  url() {
    return this.address;
  }

  async evaluate(script, argument) {
    const functionDeclaration = `async (argument) => JSON.stringify(await (${script})(JSON.parse(argument)))`;
    const answer = await this.own.send("script.callFunction", {
      functionDeclaration,
      arguments: [{ type: "string", value: JSON.stringify(argument ?? null) }],
      target: { context: this.id },
      awaitPromise: true,
      userActivation: true,
    });
    if (answer.type === "exception") throw new Error(answer.exceptionDetails.text);
    return answer.result.value === undefined ? undefined : JSON.parse(answer.result.value);
  }

  /** What a script answers once that is true; it is asked again where a page went away under it. */
  async until(what, ask) {
    let problem;
    for (const end = Date.now() + WAIT_MS; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 20))) {
      const answer = await ask().catch((error) => void (problem = error));
      if (answer) return answer;
    }
    const seen = await this.evaluate(() => `${location.href}: ${document.body?.innerText.slice(0, 500)}`).catch(String);
    throw new Error(`never: ${what}${problem ? ` (${problem.message})` : ""}; at ${seen}`);
  }

  waitForFunction(script, argument) {
    return this.until(String(script), () => this.evaluate(script, argument));
  }

  waitForSelector(selector) {
    return this.waitForFunction((selector) => document.querySelector(selector)?.checkVisibility(), selector);
  }

  /** A whole address, or a function that knows it. */
  async waitForURL(wanted) {
    const is = typeof wanted === "function" ? wanted : (url) => url.href === wanted;
    await this.until(`at ${wanted}`, async () => {
      this.address = await this.evaluate(() => document.readyState === "complete" && location.href);
      return this.address && is(new URL(this.address));
    });
  }

  async textContent(selector) {
    await this.waitForSelector(selector);
    return this.evaluate((selector) => document.querySelector(selector).textContent, selector);
  }

  inputValue(selector) {
    return this.evaluate((selector) => document.querySelector(selector).value, selector);
  }

  async fill(selector, text) {
    await this.waitForSelector(selector);
    await this.evaluate((selector) => {
      const field = document.querySelector(selector);
      field.focus();
      field.select();
    }, selector);
    const keys = [...(text || "\uE003")].flatMap((value) => [{ type: "keyDown", value }, { type: "keyUp", value }]);
    await this.send("input.performActions", { actions: [{ type: "key", id: "keys", actions: keys }] });
  }

  async click(selector) {
    await this.waitForSelector(selector);
    const { nodes } = await this.send("browsingContext.locateNodes", { locator: { type: "css", value: selector }, maxNodeCount: 1 });
    await this.evaluate((selector) => document.querySelector(selector).scrollIntoView({ block: "center", behavior: "instant" }), selector);
    const element = { type: "element", element: { sharedId: nodes[0].sharedId } };
    const actions = [{ type: "pointerMove", x: 0, y: 0, origin: element }, { type: "pointerDown", button: 0 }, { type: "pointerUp", button: 0 }];
    await this.send("input.performActions", { actions: [{ type: "pointer", id: "mouse", actions }] });
  }

  async screenshot({ path }) {
    const { data } = await this.send("browsingContext.captureScreenshot", { origin: "document" });
    fs.writeFileSync(path, Buffer.from(data, "base64"));
  }
}
