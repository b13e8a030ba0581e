// The gateway's own pages in a real browser, with and without scripts.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { PASSWORD, closeBrowser, firstAccount, freePort, gateway, newPage, shot, signIn, start } from "./lib.mjs";

const WHOAMI = `[[route]]\nupstream = "builtin:whoami"\n`;
const axeSource = fs.readFileSync(new URL("./node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

let gate;
before(async () => {
  gate = await gateway(WHOAMI, `[sign_up]\nmode = "open"\n[throttle]\nmax_retries = 50\n`);
  await firstAccount(gate);
});
after(async () => {
  await gate.stop();
  await closeBrowser();
});

for (const javaScriptEnabled of [true, false]) {
  const how = javaScriptEnabled ? "with scripts" : "without scripts";

  test(`from the printed link to whoami, ${how}`, async () => {
    const own = await gateway(WHOAMI);
    const page = await newPage({ javaScriptEnabled });
    await page.goto(`${own.url}/hello?x=1`);
    assert.equal(new URL(page.url()).pathname, "/.auth/login");
    await shot(page, `login-${javaScriptEnabled}`);
    await page.goto(own.invite);
    await shot(page, `invite-${javaScriptEnabled}`);
    await page.fill("[name=email]", "ada@example.com");
    await page.fill("[name=name]", "Ada");
    await page.fill("[name=password]", PASSWORD);
    await page.click("button:text-is('Create account')");
    await page.waitForURL(`${own.url}/`);
    assert.match(await page.textContent("body"), /ada@example\.com/);
    await shot(page, `whoami-${javaScriptEnabled}`);
    await page.goto(own.invite);
    assert.match(await page.textContent("main"), /is not valid/);
    assert.deepEqual(page.violations, []);
    await page.context().close();
    await own.stop();
  });

  test(`callbackUrl keeps path and query, ${how}`, async () => {
    const page = await newPage({ javaScriptEnabled });
    await page.goto(`${gate.url}/deep/page?a=%2F&b=x+y`);
    await signIn(page);
    await page.waitForURL(`${gate.url}/deep/page?a=%2F&b=x+y`);
    await page.context().close();
  });

  test(`a wrong password is told in an alert and the e-mail stays, ${how}`, async () => {
    const page = await newPage({ javaScriptEnabled });
    await page.goto(`${gate.url}/`);
    await signIn(page, "ada@example.com", "wrong password altogether");
    await page.waitForSelector("[role=alert]");
    assert.equal(await page.textContent("[role=alert]"), "Incorrect e-mail or password.");
    assert.equal(await page.inputValue("[name=email]"), "ada@example.com");
    assert.equal(await page.inputValue("[name=password]"), "");
    await shot(page, `wrong-${javaScriptEnabled}`);
    await signIn(page);
    await page.waitForURL(`${gate.url}/`);
    await page.context().close();
  });

  test(`signing out ends the session, ${how}`, async () => {
    const page = await newPage({ javaScriptEnabled });
    await page.goto(`${gate.url}/`);
    await signIn(page);
    await page.waitForURL(`${gate.url}/`);
    await page.goto(`${gate.url}/.auth/logout`);
    await page.click("button:text-is('Sign out')");
    await page.waitForURL(`${gate.url}/.auth/signed-out`);
    await page.goto(`${gate.url}/`);
    assert.equal(new URL(page.url()).pathname, "/.auth/login");
    await page.context().close();
  });

  test(`signing up, then signing in, ${how}`, async () => {
    const email = `new-${javaScriptEnabled}@example.com`;
    const page = await newPage({ javaScriptEnabled });
    await page.goto(`${gate.url}/.auth/login`);
    await page.click("text=Create an account");
    await page.fill("[name=email]", email);
    await page.fill("[name=password]", "short");
    await page.click("button:text-is('Create account')");
    await page.waitForSelector("[role=alert]");
    await shot(page, `signup-error-${javaScriptEnabled}`);
    assert.equal(await page.inputValue("[name=email]"), email);
    assert.equal(await page.evaluate(() => document.activeElement.id), "password");
    await page.fill("[name=password]", PASSWORD);
    await page.click("button:text-is('Create account')");
    await page.waitForSelector("[role=status]");
    await signIn(page, email);
    await page.waitForURL(`${gate.url}/`);
    await page.context().close();
  });

  test(`the account page changes the password and ends other sessions, ${how}`, async () => {
    const email = `account-${javaScriptEnabled}@example.com`;
    const made = await fetch(`${gate.url}/.auth/signup`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ email, password: PASSWORD, name: "Bea" }),
    });
    assert.equal(made.status, 201);
    const [page, other] = [await newPage({ javaScriptEnabled }), await newPage()];
    for (const one of [page, other]) {
      await one.goto(`${gate.url}/.auth/account`);
      await signIn(one, email);
      await one.waitForURL(`${gate.url}/.auth/account`);
    }
    await page.reload();
    assert.equal(await page.locator("li").count(), 2);
    await shot(page, `account-${javaScriptEnabled}`);
    await page.fill("#current", "not the password at all");
    await page.fill("#new", "another quite long sentence");
    await page.click("button:text-is('Change password')");
    await page.waitForSelector("form[action$='/password'] [role=alert]");
    assert.equal(await page.locator("[aria-invalid]").count(), 1);
    assert.equal(await page.evaluate(() => document.activeElement.id), "current");
    await page.fill("#current", PASSWORD);
    await page.fill("#new", "another quite long sentence");
    await page.click("button:text-is('Change password')");
    await page.waitForSelector("[role=status]");
    assert.equal(await page.locator("li").count(), 1);
    await other.goto(`${gate.url}/.auth/account`);
    assert.equal(new URL(other.url()).pathname, "/.auth/login");
    await signIn(other, email, "another quite long sentence");
    await other.waitForURL(`${gate.url}/.auth/account`);
    await page.fill("[name=picture]", "ftp://example.com/a.png");
    await page.fill("[name=name]", "Beatrix");
    await page.click("button:text-is('Save profile')");
    await page.waitForSelector("form[action$='/profile'] [role=alert]");
    assert.equal(await page.inputValue("[name=name]"), "Beatrix");
    assert.equal(await page.inputValue("[name=picture]"), "ftp://example.com/a.png");
    await page.fill("[name=picture]", "");
    await page.click("button:text-is('Save profile')");
    await page.waitForSelector("[role=status]");
    assert.equal(await page.inputValue("[name=name]"), "Beatrix");
    const ask = async (token) => (await fetch(`${gate.url}/x`, { headers: { authorization: `Bearer ${token}` } })).status;
    await page.fill("#token", "backup");
    await page.fill("#scopes", "GET /x\nPOST /notes/*");
    await page.fill("#proof", "not the password at all");
    await page.click("button:text-is('Create token')");
    await page.waitForSelector("form[action$='/tokens'] [role=alert]");
    // the one field that is wrong is marked and at hand; what was typed into the others stays
    assert.equal(await page.locator("[aria-invalid]").count(), 1);
    assert.equal(await page.evaluate(() => document.activeElement.id), "proof");
    assert.equal(await page.inputValue("#token"), "backup");
    assert.equal(await page.inputValue("#scopes"), "GET /x\nPOST /notes/*");
    await page.fill("#days", "5");
    await page.fill("#proof", "another quite long sentence");
    await page.click("button:text-is('Create token')");
    const token = await page.textContent("[role=status] code");
    assert.match(token, /^agt_[\w-]{43}$/);
    assert.equal(await ask(token), 200);
    await shot(page, `tokens-${javaScriptEnabled}`);
    await page.goto(`${gate.url}/.auth/account`);
    assert.ok(!(await page.content()).includes(token));
    await page.click("[aria-label='Revoke backup']");
    await page.waitForSelector("[role=status]:text-is('That token was revoked.')");
    assert.equal(await ask(token), 401);
    await page.click("button:text-is('Sign out everywhere')");
    await page.waitForURL(`${gate.url}/.auth/signed-out`);
    await other.goto(`${gate.url}/.auth/account`);
    assert.equal(new URL(other.url()).pathname, "/.auth/login");
    await page.context().close();
    await other.context().close();
  });
}

test("over plain http of a host name, where browsers send no fetch metadata, every form of ours works", async () => {
  const lan = gate.url.replace("127.0.0.1", "lan.test");
  const page = await newPage();
  const told = [];
  page.on("request", (request) => request.method() === "POST" && told.push(request.allHeaders()));
  await page.goto(`${lan}/.auth/account`);
  await signIn(page);
  await page.waitForURL(`${lan}/.auth/account`);
  await page.fill("#name", "Ada Lovelace");
  await page.click("button:text-is('Save profile')");
  await page.waitForSelector("[role=status]");
  await page.click("button:text-is('Sign out everywhere')");
  await page.waitForURL(`${lan}/.auth/signed-out`);
  for (const fields of await Promise.all(told)) {
    assert.deepEqual([fields.origin, fields["sec-fetch-site"]], [lan, undefined]);
  }
  assert.equal(told.length, 3);
  await page.context().close();
});

for (const javaScriptEnabled of [true, false]) {
  const how = javaScriptEnabled ? "with scripts" : "without scripts";

  // every address that an account may have can be typed: browsers' own check knows ASCII alone before the @
  test(`an address with spaces around it, capitals and letters beyond ASCII signs in, ${how}`, async () => {
    const email = `zoë-${javaScriptEnabled}@bücher.example.com`;
    const page = await newPage({ javaScriptEnabled });
    await page.goto(`${gate.url}/.auth/signup`);
    await page.fill("[name=email]", email);
    await page.fill("[name=password]", PASSWORD);
    await page.click("button:text-is('Create account')");
    await page.waitForSelector("[role=status]");
    await signIn(page, `  ${email.toUpperCase()} `);
    await page.waitForURL(`${gate.url}/`);
    await page.context().close();
  });

  test(`a form whose session ended is sent by reloading, once signed in in another tab, ${how}`, async () => {
    const page = await newPage({ javaScriptEnabled });
    await page.goto(`${gate.url}/.auth/account`);
    await signIn(page);
    await page.waitForURL(`${gate.url}/.auth/account`);
    await page.fill("#name", `Ada ${javaScriptEnabled}`);
    await page.context().clearCookies({ name: "authgate" });
    await page.click("button:text-is('Save profile')");
    await page.waitForSelector("text=the form was not sent");
    const opened = page.context().waitForEvent("page");
    await page.click("a:text-is('Sign in in a new tab')");
    const tab = await opened;
    await signIn(tab);
    await tab.waitForURL(`${gate.url}/.auth/account`);
    assert.notEqual(await tab.inputValue("#name"), `Ada ${javaScriptEnabled}`);
    await page.reload();
    await page.waitForSelector("[role=status]:text-is('Your profile was saved.')");
    assert.equal(await page.inputValue("#name"), `Ada ${javaScriptEnabled}`);
    await page.context().close();
  });

  test(`after a wrong password the page's own address still leads to where one was going, ${how}`, async () => {
    const page = await newPage({ javaScriptEnabled });
    await page.goto(`${gate.url}/deep?x=1`);
    await signIn(page, "ada@example.com", "wrong password altogether");
    await page.waitForSelector("[role=alert]");
    await page.goto(page.url());
    await signIn(page);
    await page.waitForURL(`${gate.url}/deep?x=1`);
    await page.context().close();
  });
}

test("while a sign-in waits for its turn the button says so, and another click sends nothing", async () => {
  const page = await newPage();
  let sent = 0;
  page.on("request", (request) => request.method() === "POST" && (sent += 1));
  await page.goto(`${gate.url}/.auth/login?callbackUrl=%2Fwaited`);
  await page.fill("[name=email]", "ada@example.com");
  await page.fill("[name=password]", PASSWORD);
  const said = await page.locator("button:text-is('Sign in')").evaluate((button) => {
    button.click();
    const said = button.textContent;
    button.click();
    return said;
  });
  assert.equal(said, "Signing in...");
  await page.waitForURL(`${gate.url}/waited`);
  assert.equal(sent, 1);
  await page.context().close();
});

test("a double click sends a form once", async () => {
  const invite = new URL((await gate.cli("invite", "--email", "twice@example.com")).match(/\S+\/invite\/\S+/)[0]).pathname;
  const page = await newPage();
  let sent = 0;
  page.on("request", (request) => request.method() === "POST" && (sent += 1));
  await page.goto(gate.url + invite);
  // at hand: the address is given
  assert.equal(await page.evaluate(() => document.activeElement.id), "name");
  await page.fill("[name=password]", PASSWORD);
  const box = await page.locator("button:text-is('Create account')").boundingBox();
  await page.mouse.dblclick(box.x + 20, box.y + 20, { delay: 10 });
  await page.waitForURL(`${gate.url}/`);
  assert.equal(sent, 1);
  await page.context().close();
});

test("once somebody signs in in one tab, another goes on by itself, unless something was typed there", async () => {
  const page = await newPage();
  const [idle, typed] = [await page.context().newPage(), await page.context().newPage()];
  await page.goto(`${gate.url}/`);
  await idle.goto(`${gate.url}/idle?x=1#part`);
  await typed.goto(`${gate.url}/typed`);
  await typed.press("[name=email]", "a");
  for (const tab of [idle, typed]) {
    await tab.evaluate(() => new BroadcastChannel("authgate").addEventListener("message", () => (document.title = "told")));
  }
  await signIn(page);
  await page.waitForURL(`${gate.url}/`);
  // headless tabs are never hidden
  for (const tab of [typed, idle]) {
    await tab.waitForFunction(() => document.title === "told");
    await tab.evaluate(() => document.dispatchEvent(new Event("visibilitychange", { bubbles: true }))).catch(() => {});
  }
  await idle.waitForURL(`${gate.url}/idle?x=1#part`);
  assert.equal(new URL(typed.url()).pathname, "/.auth/login");
  await page.context().close();
});

test("text of twice the size, forced colours and names from right to left fit at 390 pixels", async () => {
  const email = "a.very.long.address.that.somebody.really.has.at.work@a-long-label.of-a-department.example.com";
  const made = await fetch(`${gate.url}/.auth/signup`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ email, password: PASSWORD, name: "محمد بن عبد الله 👩‍👩‍👧‍👦" }),
  });
  assert.equal(made.status, 201);
  const page = await newPage({ viewport: { width: 390, height: 800 }, bypassCSP: true, forcedColors: "active" });
  const judge = async (name) => {
    await page.addStyleTag({ content: "html{font-size:200%}" });
    const wide = await page.evaluate(() => {
      const right = innerWidth - parseFloat(getComputedStyle(document.body).paddingRight);
      return [...document.querySelectorAll("body *")]
        .filter((one) => one.checkVisibility() && one.getBoundingClientRect().right > right + 1)
        .map((one) => one.outerHTML.slice(0, 80));
    });
    assert.deepEqual(wide, [], name);
    await shot(page, `large-${name}`);
  };
  await page.goto(`${gate.url}/.auth/account`);
  await judge("login");
  await signIn(page, email, "wrong password altogether");
  await page.waitForSelector("[role=alert]");
  await judge("wrong");
  await signIn(page, email);
  await page.waitForURL(`${gate.url}/.auth/account`);
  await judge("account");
  await page.goto(`${gate.url}/`);
  await judge("whoami");
  await page.context().close();
});

// the pages' own policy is asked about the redirect, too, and knows ports apart
test("with a shared domain, signing in at one host leads back to another, at any port", async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "authgate-"));
  const port = await freePort();
  const made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=example.com"];
  execFileSync("openssl", [...made, "-addext", "subjectAltName=DNS:*.example.com", "-keyout", "key.pem", "-out", "chain.pem"], { cwd: folder, stdio: "ignore" });
  fs.chmodSync(path.join(folder, "key.pem"), 0o600);
  fs.writeFileSync(
    path.join(folder, "gateway.toml"),
    `[server]\nlisten = ["https://127.0.0.1:${port}"]\nadmin_listen = ""\npublic_url = "https://login.example.com:${port}"\n` +
      `[server.tls]\ncertificates = [{ certificate = "chain.pem", key = { file = "key.pem" } }]\n[session]\ndomain = "example.com"\n${WHOAMI}`,
  );
  const own = await start(folder);
  const page = await newPage({ ignoreHTTPSErrors: true });
  await page.goto(`https://login.example.com:${port}${new URL(own.invite).pathname}`);
  await page.fill("[name=email]", "ada@example.com");
  await page.fill("[name=password]", PASSWORD);
  await page.click("button:text-is('Create account')");
  await page.waitForURL(`https://login.example.com:${port}/`);
  await page.context().clearCookies();
  await page.goto(`https://app.example.com:${port}/x?y=1#part`);
  assert.equal(new URL(page.url()).host, `login.example.com:${port}`);
  await signIn(page);
  await page.waitForURL(`https://app.example.com:${port}/x?y=1#part`);
  assert.deepEqual(page.violations, []);
  await page.context().close();
  await own.stop();
});

// as apps do that sign in elsewhere by themselves: Chromium holds redirects behind a form to form-action, too
test("an app that leads on to another origin is reached by signing in", async () => {
  const app = http.createServer((request, response) => {
    const away = { location: `http://lan.test:${app.address().port}/there` };
    if (request.url === "/there") response.end("elsewhere");
    else response.writeHead(302, away).end();
  });
  app.listen(0, "127.0.0.1");
  await once(app, "listening");
  const own = await gateway(`[[route]]\nupstream = "http://127.0.0.1:${app.address().port}"\n`);
  await firstAccount(own);
  const page = await newPage();
  await page.goto(`${own.url}/x?y=1`);
  await signIn(page);
  await page.waitForURL(`http://lan.test:${app.address().port}/there`);
  const invite = new URL((await own.cli("invite", "--email", "bea@example.com")).match(/\S+\/invite\/\S+/)[0]).pathname;
  await page.goto(own.url + invite);
  await page.fill("[name=password]", PASSWORD);
  await page.click("button:text-is('Create account')");
  await page.waitForURL(`http://lan.test:${app.address().port}/there`);
  await page.context().close();
  await own.stop();
  app.close();
});

test("the fragment survives signing in where scripts run", async () => {
  const page = await newPage();
  await page.goto(`${gate.url}/app?x=1#/dash/42`);
  await signIn(page);
  await page.waitForURL(`${gate.url}/app?x=1#/dash/42`);
  await page.context().close();
});

test("whoami tells the identity over a WebSocket too", async () => {
  const page = await newPage();
  await page.goto(`${gate.url}/`);
  await signIn(page);
  await page.waitForURL(`${gate.url}/`);
  const first = await page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const socket = new WebSocket(location.origin.replace("http", "ws") + "/socket");
        const got = [];
        socket.onmessage = (event) => {
          got.push(event.data);
          if (got.length === 1) socket.send("echo this");
          else resolve(got);
        };
        socket.onerror = () => reject(new Error("socket failed"));
      }),
  );
  assert.match(first[0], /"remote-email","ada@example\.com"/i);
  assert.equal(first[1], "echo this");
  await page.context().close();
});

test("a session ended elsewhere closes the open WebSocket with 4403", async () => {
  const page = await newPage();
  await page.goto(`${gate.url}/`);
  await signIn(page);
  await page.waitForURL(`${gate.url}/`);
  const code = await page.evaluate(
    () =>
      new Promise((resolve) => {
        const socket = new WebSocket(location.origin.replace("http", "ws") + "/socket");
        socket.onclose = (event) => resolve(event.code);
        socket.onmessage = () => fetch("/.auth/logout", { method: "POST" });
      }),
  );
  assert.equal(code, 4403);
  await page.context().close();
});

test("a form of another origin changes nothing", async () => {
  const page = await newPage();
  await page.goto(`${gate.url}/`);
  await signIn(page);
  await page.waitForURL(`${gate.url}/`);
  const foreign = gate.url.replace("127.0.0.1", "localhost");
  await page.goto(`${foreign}/.auth/login`);
  const [answer] = await Promise.all([
    page.waitForResponse((response) => response.url() === `${gate.url}/.auth/logout`),
    page.evaluate((url) => {
      const form = document.createElement("form");
      form.method = "post";
      form.action = url;
      document.body.append(form);
      HTMLFormElement.prototype.submit.call(form);
    }, `${gate.url}/.auth/logout`).catch(() => {}),
  ]).catch(() => [null]);
  // the page's own policy already stops it; were it sent, the gateway would refuse it
  if (answer) assert.equal(answer.status(), 403);
  await page.goto(`${gate.url}/.auth/account`);
  assert.equal(new URL(page.url()).pathname, "/.auth/account");
  await page.context().close();
});

test("no page breaks an accessibility rule, in light and dark, at 320 and 1280 pixels", async () => {
  const invite = new URL((await gate.cli("invite")).match(/\S+\/invite\/\S+/)[0]).pathname;
  const paths = ["/.auth/login", "/.auth/signup", invite, "/.auth/logout", "/.auth/signed-out", "/.auth/nothing", "/.auth/invite/x"];
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [320, 1280]) {
      const page = await newPage({ colorScheme, viewport: { width, height: 800 }, bypassCSP: true });
      for (const path of [...paths, "/.auth/account"]) {
        await page.goto(gate.url + path);
        if (path === "/.auth/account") {
          await signIn(page);
          await page.waitForURL(gate.url + path);
        }
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(overflow <= 0, `${path} at ${width}: ${overflow} pixels too wide`);
        await page.evaluate(axeSource);
        const { violations } = await page.evaluate(() => window.axe.run());
        assert.deepEqual(violations.map((one) => `${one.id}: ${one.nodes[0].html}`), [], `${path} ${colorScheme} ${width}`);
        await shot(page, `${path.replaceAll("/", "_").slice(0, 20)}-${colorScheme}-${width}`);
      }
      await page.context().close();
    }
  }
});

test("browsers have nothing to say about the forms, and whoami breaks no accessibility rule", async () => {
  const page = await newPage({ bypassCSP: true });
  const told = [];
  page.on("console", (message) => message.text().includes("[DOM]") && told.push(message.text()));
  for (const path of ["/.auth/signup", "/.auth/account"]) await page.goto(gate.url + path);
  await signIn(page);
  await page.waitForURL(`${gate.url}/.auth/account`);
  await page.goto(`${gate.url}/`);
  assert.deepEqual(told, []);
  await page.evaluate(axeSource);
  const { violations } = await page.evaluate(() => window.axe.run());
  assert.deepEqual(violations.map((one) => `${one.id}: ${one.nodes[0].html}`), []);
  await page.context().close();
});

test("login page, stylesheet and script are at most 6 kB compressed, and password managers know the fields", async () => {
  const gzip = async (path) => {
    const response = await fetch(gate.url + path, { headers: { "accept-encoding": "gzip", accept: "text/html" } });
    assert.equal(response.headers.get("content-encoding"), "gzip", path);
    return Number(response.headers.get("content-length"));
  };
  const html = await (await fetch(`${gate.url}/.auth/login`)).text();
  const files = [...html.matchAll(/(?:href|src)="(\/\.auth\/assets\/[^"]+\.(?:css|js))"/g)].map((match) => match[1]);
  assert.equal(files.length, 2);
  let total = await gzip("/.auth/login");
  for (const file of files) total += await gzip(file);
  assert.ok(total <= 6000, `${total} bytes`);
  assert.match(html, /name="email" inputmode="email" autocomplete="username"/);
  assert.match(html, /name="password" type="password" autocomplete="current-password"/);
});
