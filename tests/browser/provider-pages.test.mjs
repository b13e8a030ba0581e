// The gateway's pages with six providers: their policy in Chromium and Firefox, accessibility, size.
import assert from "node:assert/strict";
import fs from "node:fs";
import { after, before, test } from "node:test";
import { closeEngines, ends, inEach } from "./engines.mjs";
import { closeBrowser, firstAccount, gateway, newPage, PASSWORD, shot, signIn } from "./lib.mjs";
import { agree, openId } from "./openid.mjs";

const WHOAMI = `[[route]]\nupstream = "builtin:whoami"\n`;
const axeSource = fs.readFileSync(new URL("./node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
// each with an icon of its own; nothing is asked of them before someone signs in
const KINDS = ["google", "github", "gitlab", "microsoft"];
const tenant = 'tenant = "00000000-0000-0000-0000-000000000000"';
const own = (kind) => `[[provider]]
name = "${kind}"
kind = "${kind}"
label = "${kind}"
client_id = "x"
client_secret = { env = "OPENID_SECRET" }
${kind === "microsoft" ? tenant : ""}
`;
const NAMES = ["google", "github", "gitlab", "microsoft", "op", "مزود"];

let op, gate;
before(async () => {
  op = await openId("op");
  const tables = NAMES.map((label, at) => {
    if (KINDS.includes(label)) return own(label);
    const table = op.table('sign_up = "open"\n').replace(/label = .*/, `label = "${label}"`);
    return label === "op" ? table : table.replace('name = "op"', `name = "other-${at}"`);
  });
  gate = await gateway(`[sign_up]\nmode = "open"\n${tables.join("")}${WHOAMI}`);
  await firstAccount(gate);
  await op.knows(gate);
});
after(async () => {
  await gate?.stop();
  op?.stop();
  await closeBrowser();
  await closeEngines();
});

inEach("a provider's button works under the pages' own policy, and so does adding one on the account page", async (page) => {
  const own = ends(await gateway(op.table('sign_up = "open"\n', "second") + WHOAMI));
  await firstAccount(own);
  await op.knows(own, { client: "second" });
  const problems = [];
  page.on?.("console", (message) => ["error", "warning"].includes(message.type()) && message.location().url.startsWith(own.url) && problems.push(message.text()));
  page.on?.("pageerror", (error) => problems.push(String(error)));
  // kept where the next page of the same site can read it
  const watch = () =>
    page.evaluate(() => {
      addEventListener("securitypolicyviolation", (event) => (localStorage.violated = `${event.effectiveDirective} ${event.blockedURI}`));
    });
  await page.goto(`${own.url}/app?x=1`);
  await watch();
  await page.click("a[data-provider]");
  await agree(page, "grace");
  await page.waitForURL(`${own.url}/app?x=1`);
  await page.goto(`${own.url}/.auth/logout`);
  await page.click("main form button");
  await page.waitForURL(`${own.url}/.auth/signed-out`);
  await page.goto(`${own.url}/.auth/login?callbackUrl=%2F.auth%2Faccount`);
  await page.fill("[name=email]", "ada@example.com");
  await page.fill("[name=password]", PASSWORD);
  await page.click("[data-waiting]");
  await page.waitForURL(`${own.url}/.auth/account`);
  await watch();
  // still signed in there, as somebody who has an account here
  await page.click("form[action='/.auth/account/link/op'] button");
  await page.waitForSelector("a[href='/.auth/account']");
  assert.match(await page.textContent("main"), /belongs to another account/);
  assert.equal(await page.evaluate(() => localStorage.violated ?? null), null);
  // Chromium mentions every 403
  assert.deepEqual(problems.filter((text) => !/status of 403/.test(text)), []);
});

test("no page with six providers breaks an accessibility rule: light, dark, from right to left, at 320 pixels", async () => {
  const invite = new URL((await gate.cli("invite")).match(/\S+\/invite\/\S+/)[0]).pathname;
  const kinds = [
    { colorScheme: "light", width: 1280 },
    { colorScheme: "dark", width: 320 },
    { colorScheme: "light", width: 320, dir: "rtl" },
    { colorScheme: "dark", width: 1280, dir: "rtl" },
  ];
  for (const { colorScheme, width, dir } of kinds) {
    const page = await newPage({ colorScheme, viewport: { width, height: 800 }, bypassCSP: true });
    for (const path of ["/.auth/login", "/.auth/login?error=OAuthSignin", "/.auth/signup", invite, "/.auth/account"]) {
      await page.goto(gate.url + path);
      if (path === "/.auth/account") {
        await signIn(page);
        await page.waitForURL(gate.url + path);
      } else {
        assert.equal(await page.locator("a[data-provider]").count(), 6, path);
      }
      if (dir) await page.evaluate((dir) => (document.documentElement.dir = dir), dir);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${path} at ${width}: ${overflow} pixels too wide`);
      await page.evaluate(axeSource);
      const { violations } = await page.evaluate(() => window.axe.run());
      assert.deepEqual(violations.map((one) => `${one.id}: ${one.nodes[0].html}`), [], `${path} ${colorScheme} ${width} ${dir}`);
      await shot(page, `six${path.replaceAll(/\W/g, "_").slice(0, 20)}-${colorScheme}-${width}-${dir}`);
    }
    await page.context().close();
  }
});

test("no collision page and no mark of the last way breaks an accessibility rule either", async () => {
  const kinds = [
    { colorScheme: "dark", width: 320, dir: "rtl" },
    { colorScheme: "light", width: 1280 },
  ];
  for (const { colorScheme, width, dir } of kinds) {
    const login = `bea-${width}`;
    await gate.cli("user", "add", `${login}@example.com`, "--password-stdin");
    const page = await newPage({ colorScheme, viewport: { width, height: 800 }, bypassCSP: true });
    const isFine = async (what) => {
      if (dir) await page.evaluate((dir) => (document.documentElement.dir = dir), dir);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${what} at ${width}: ${overflow} pixels too wide`);
      await page.evaluate(axeSource);
      const { violations } = await page.evaluate(() => window.axe.run());
      assert.deepEqual(violations.map((one) => `${one.id}: ${one.nodes[0].html}`), [], `${what} ${width}`);
      await shot(page, `${what}-${colorScheme}-${width}-${dir}`);
    };
    await page.goto(`${gate.url}/app`);
    await page.click("a[href*='oauth/op']");
    await agree(page, login);
    await page.waitForSelector("[name=password]");
    assert.equal(await page.locator("button[name=with]").count(), 5, "all but the one just used");
    await isFine("collision");
    await page.fill("[name=password]", PASSWORD);
    await page.click("[data-waiting]");
    await page.waitForURL(`${gate.url}/app`);
    // at the provider they are still signed in
    for (const again of [false, true]) {
      await page.context().clearCookies({ name: "authgate" });
      await page.goto(`${gate.url}/app`);
      assert.equal(await page.locator("#last-used").count(), again ? 1 : 0, "the last way was a password at first");
      if (again) break;
      await page.click("a[href*='oauth/op']");
      await page.waitForURL(`${gate.url}/app`);
    }
    // the mark describes the link, whose name is its label
    const session = await page.context().newCDPSession(page);
    const { nodes } = await session.send("Accessibility.getFullAXTree");
    const links = nodes.filter((node) => node.role?.value === "link").map((node) => [node.name.value, node.description?.value ?? ""]);
    const expected = NAMES.map((name) => [`Continue with ${name}`, name === "op" ? "Last used" : ""]);
    assert.deepEqual(links.slice(0, NAMES.length), expected);
    await isFine("last-used");
    await page.context().close();
  }
});

test("the login page with six providers, its stylesheet and its script are at most 6 kB as they are sent", async () => {
  const gzip = async (path) => {
    const response = await fetch(gate.url + path, { headers: { "accept-encoding": "gzip", accept: "text/html" } });
    assert.equal(response.headers.get("content-encoding"), "gzip", path);
    return Number(response.headers.get("content-length"));
  };
  const login = "/.auth/login?callbackUrl=%2Fsome%2Fdeep%2Fpage%3Ftab%3D1";
  const html = await (await fetch(gate.url + login)).text();
  assert.equal(html.match(/data-provider/g).length, 6);
  const files = [...html.matchAll(/(?:href|src)="(\/\.auth\/assets\/[^"]+\.(?:css|js))"/g)].map((match) => match[1]);
  assert.equal(files.length, 2);
  let total = await gzip(login);
  for (const file of files) total += await gzip(file);
  assert.ok(total <= 6000, `${total} bytes`);
});
