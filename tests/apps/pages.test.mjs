// Apps with pages: in Chromium where what matters happens in the page, by plain requests where one answer shows it.
// Each app stands behind its recipe in docs/recipes.md.
import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import path from "node:path";
import { after } from "node:test";
import { closeEngines, ends, gatewayFor, overBoth, signInAs, signOut } from "../browser/engines.mjs";
import { app, ask, block, closeBrowser, debian, EMAIL, folder, freePort, newPage, npm, prose, pypi, run, serve, signIn, until, WebSocket } from "./lib.mjs";

after(closeBrowser);
after(closeEngines);

/** The app's page for ada, in a profile of its own. */
async function open(gate, at = "/") {
  const page = await newPage({ acceptDownloads: true });
  page.setDefaultTimeout(60_000);
  await page.goto(gate.url + at);
  await signIn(page, EMAIL);
  await page.waitForURL((url) => !url.pathname.startsWith("/.auth/"));
  return page;
}

const jupyter = pypi("jupyterlab==4.6.6");
app("JupyterLab opens, saves and gives a file whose name is all odd characters", jupyter, async (app) => {
  const NAME = "50% #1;v2?.txt";
  const [port, place] = [await freePort(), folder("jupyter")];
  const files = path.join(place, "files");
  fs.mkdirSync(files);
  fs.writeFileSync(path.join(files, NAME), "before");
  fs.writeFileSync(path.join(place, "jupyter_server_config.py"), block("recipes.md", "JupyterLab", "python"));
  const args = [`--port=${port}`, "--no-browser", "--allow-root", `--ServerApp.root_dir=${files}`];
  await app.serve(port, jupyter.bin("jupyter-lab"), args, { cwd: place, env: { HOME: place, JUPYTER_CONFIG_DIR: place } });
  const gate = await app.recipe("JupyterLab", port);

  const page = await open(gate, "/lab");
  await page.dblclick(`.jp-DirListing-item:has-text("${NAME}")`);
  const text = page.locator(".jp-FileEditor .cm-content");
  await text.filter({ hasText: "before" }).click();
  await page.keyboard.press("Control+a");
  await page.keyboard.type("after");
  const [saved] = await Promise.all([
    page.waitForResponse((answer) => answer.request().method() === "PUT" && answer.url().includes("/api/contents/")),
    page.keyboard.press("Control+s"),
  ]);
  assert.equal(saved.status(), 200, saved.url());
  assert.equal(fs.readFileSync(path.join(files, NAME), "utf8"), "after");
  await page.click(`.jp-DirListing-item:has-text("${NAME}")`, { button: "right" });
  const [download] = await Promise.all([page.waitForEvent("download"), page.click(".lm-Menu-item[data-command='filebrowser:download']")]);
  assert.equal(download.suggestedFilename(), NAME.replace("?", "_")); // Chromium's own choice
  assert.equal(fs.readFileSync(await download.path(), "utf8"), "after");
  // who works there is who signed in
  const me = await ask(`${gate.url}/api/me`, { headers: { cookie: gate.cookie } });
  assert.equal(JSON.parse(me.text).identity.username, EMAIL);
});

const streamlit = pypi("streamlit==1.67.0");
app("Streamlit greets who signed in, over its WebSocket", streamlit, async (app) => {
  const [port, place] = [await freePort(), folder("streamlit")];
  fs.writeFileSync(path.join(place, "app.py"), block("recipes.md", "Streamlit", "python"));
  const args = ["run", "app.py", "--server.address=127.0.0.1", `--server.port=${port}`, "--server.headless=true", "--browser.gatherUsageStats=false"];
  await app.serve(port, streamlit.bin("streamlit"), args, { cwd: place, env: { HOME: place } });
  const gate = await app.recipe("Streamlit", port);
  const page = await open(gate);
  await page.getByText(`Hello ${EMAIL}`).waitFor();
});

const nicegui = pypi("nicegui==3.18.0");
app("NiceGUI greets who signed in", nicegui, async (app) => {
  const [port, place] = [await freePort(), folder("nicegui")];
  fs.writeFileSync(path.join(place, "app.py"), block("recipes.md", "NiceGUI", "python").replace("port=8080", `port=${port}`));
  await app.serve(port, nicegui.bin("python"), ["app.py"], { cwd: place, env: { HOME: place, MPLCONFIGDIR: place } });
  const gate = await app.recipe("NiceGUI", port);
  const page = await open(gate);
  await page.getByText(`Hello ${EMAIL}`).waitFor();
});

const octoprint = pypi("OctoPrint==1.11.8");
let printer;
after(() => printer?.stop());

/** The port of the one OctoPrint, set up by its recipe, once it answers. */
async function octoprintPort() {
  if (!printer) {
    const [port, place] = [await freePort(), folder("octoprint")];
    const config = `${block("recipes.md", "OctoPrint", "yaml")}server:\n  firstRun: false\n  onlineCheck: { enabled: false }\n  pluginBlacklist: { enabled: false }\n`;
    fs.writeFileSync(path.join(place, "config.yaml"), config);
    const args = ["serve", "--iknowwhatimdoing", "--basedir", place, "--host", "127.0.0.1", "--port", port];
    printer = { ...(await serve(port, octoprint.bin("octoprint"), args, { env: { HOME: place } })), port };
  }
  // while it starts, a server that only says so has its port, and not always in HTTP
  await until("OctoPrint itself answers", async () => {
    const answer = await ask(`http://127.0.0.1:${printer.port}/api/currentuser`).catch(() => undefined);
    return answer?.headers["content-type"]?.startsWith("application/json");
  });
  return printer.port;
}

/** A proxy in front of a server: who asked for what with which entity tag, and what the response had. */
async function recorder(port) {
  const seen = [];
  const server = http.createServer((request, response) => {
    const { url: path, method, headers } = request;
    const onward = http.request({ host: "127.0.0.1", port, path, method, headers }, (answer) => {
      seen.push({ person: headers["remote-user"], path, shown: headers["if-none-match"], status: answer.statusCode, given: answer.headers.etag });
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  ends({ stop: () => (server.close(), server.closeAllConnections()) });
  return { port: server.address().port, seen };
}

overBoth(
  "OctoPrint knows who signed in, and after ada does not take bob for her, nor shows him what she had",
  async (page, https) => {
    const { port, seen } = await recorder(await octoprintPort());
    const gate = await gatewayFor(block("recipes.md", "OctoPrint", "toml").replace("5000", port), { https });
    for (const person of ["ada", "bob", "ada"]) {
      await signInAs(page, gate.url, person, "/api/currentuser");
      for (const _ of [1, 2]) {
        await page.goto(`${gate.url}/api/currentuser`);
        const { name } = JSON.parse(await page.evaluate(() => document.body.innerText));
        assert.equal(name, `${person}@example.com`);
        // once its page was asked for, it goes by a cookie of its own
        assert.equal(await page.evaluate(async () => (await fetch("/")).status), 200);
        assert.equal(await page.evaluate(async () => (await fetch("/api/settings")).status), 200);
      }
      await signOut(page, gate.url);
    }
    // what its settings are differs from person to person: each visit asks for them, and over https, where the cache is
    // cleared, without the entity tag that somebody else was given
    const settings = seen.filter(({ path }) => path === "/api/settings");
    const asked = settings.map(({ person, shown, status }) => `${person} ${shown ? "again" : "anew"} ${status}`);
    const twice = ["ada", "bob", "ada"].flatMap((person) => [`${person}@example.com anew 200`, `${person}@example.com again 304`]);
    if (https) assert.deepEqual(asked, twice);
    else assert.deepEqual(settings.map(({ person }) => person), twice.map((line) => line.split(" ")[0]));
  },
  octoprint,
);

const tiddlywiki = npm("tiddlywiki@5.4.1");
app("TiddlyWiki saves what ada writes, under its own odd names", tiddlywiki, async (app) => {
  const [port, place] = [await freePort(), folder("tiddlywiki")];
  const wiki = path.join(place, "wiki");
  fs.mkdirSync(wiki);
  const plugins = ["tiddlywiki/tiddlyweb", "tiddlywiki/filesystem"];
  fs.writeFileSync(path.join(wiki, "tiddlywiki.info"), JSON.stringify({ plugins, themes: ["tiddlywiki/vanilla"] }));
  const shown = block("recipes.md", "TiddlyWiki", "sh").trim().replaceAll("'", "").replace("8080", port);
  await app.serve(port, tiddlywiki.bin("tiddlywiki"), shown.split(" ").slice(1), { cwd: place });
  const gate = await app.recipe("TiddlyWiki", port);
  const fields = { cookie: gate.cookie, "content-type": "application/json", "x-requested-with": "TiddlyWiki" };
  const status = JSON.parse((await ask(`${gate.url}/status`, { headers: fields })).text);
  assert.deepEqual([status.username, status.read_only], [EMAIL, false]);
  // its first save
  const tiddler = `${gate.url}/recipes/default/tiddlers/${encodeURIComponent("$:/StoryList")}`;
  const saved = await ask(tiddler, { method: "PUT", headers: fields, body: JSON.stringify({ title: "$:/StoryList", text: "", fields: { list: "A/B" } }) });
  assert.equal(saved.status, 204, saved.text);
  const kept = await ask(tiddler, { headers: fields });
  assert.deepEqual([kept.status, kept.text.includes('"A/B"')], [200, true], kept.text);
});

const calibre = pypi("calibreweb==0.6.27");
app("calibre-web shows its shelf to who signed in, and its catalogue to a reader with a token", calibre, async (app) => {
  const [port, place] = [await freePort(), folder("calibre")];
  const start = () => app.serve(port, calibre.bin("cps"), ["-p", path.join(place, "app.db"), "-i", "127.0.0.1", "-o", path.join(place, "log")], { cwd: place, env: { HOME: place, CALIBRE_PORT: port } });
  // what its first start makes, and an empty library as calibre makes one; then the settings of the recipe
  await (await start()).stop();
  const settings = `
import os, sqlite3, sys, calibreweb
sys.path.insert(0, calibreweb.__path__[0])
sys.argv = ["cps"]
from sqlalchemy import create_engine, text
from cps import db
with create_engine("sqlite:///metadata.db").execution_options(schema_translate_map={"calibre": None}).begin() as library:
    db.Base.metadata.create_all(library)
    library.execute(text("INSERT INTO library_id (uuid) VALUES ('own')"))
own = sqlite3.connect("app.db")
own.execute("UPDATE settings SET config_calibre_dir = ?, config_allow_reverse_proxy_header_login = 1, config_reverse_proxy_login_header_name = ?", (os.getcwd(), sys.stdin.read()))
own.execute("UPDATE user SET name = '${EMAIL}' WHERE id = 1")
own.commit()
`;
  const [, header] = prose("recipes.md", "calibre-web").match(/header name `([^`]+)`/);
  await run(calibre.bin("python"), ["-c", settings], { cwd: place, input: header });
  await start();
  const gate = await app.recipe("calibre-web", port);
  const shelf = await ask(`${gate.url}/me`, { headers: { cookie: gate.cookie } });
  assert.deepEqual([shelf.status, shelf.text.includes(EMAIL)], [200, true], shelf.text.slice(0, 500));
  const basic = (token) => ({ authorization: `Basic ${Buffer.from(`${EMAIL}:${token}`).toString("base64")}` });
  const catalogue = await ask(`${gate.url}/opds`, { headers: basic(gate.token) });
  assert.deepEqual([catalogue.status, /<feed/.test(catalogue.text)], [200, true], catalogue.text.slice(0, 500));
  for (const headers of [{}, basic("agt_wrong")]) {
    const asked = await ask(`${gate.url}/opds`, { headers });
    assert.deepEqual([asked.status, /^Basic/.test(asked.headers["www-authenticate"])], [401, true]);
  }
});

app("Syncthing's page opens under its own name", debian("syncthing"), async (app) => {
  const [port, place] = [await freePort(), folder("syncthing")];
  const env = { HOME: place, STNODEFAULTFOLDER: "1", STNOUPGRADE: "1", STNORESTART: "1" };
  await app.serve(port, "syncthing", ["serve", "--no-browser", `--home=${place}`, `--gui-address=127.0.0.1:${port}`], { env });
  const gate = await app.recipe("Syncthing", port);
  const page = await ask(`${gate.url}/`, { headers: { cookie: gate.cookie } });
  assert.deepEqual([page.status, /Syncthing/.test(page.text)], [200, true], page.text.slice(0, 200));
});

app("Transmission's page and its own protocol pass under its own name", debian("transmission-daemon"), async (app) => {
  const [port, peer, place] = [await freePort(), await freePort(), folder("transmission")];
  const args = ["--foreground", "--config-dir", place, "--download-dir", place, "--port", port, "--rpc-bind-address", "127.0.0.1", "--peerport", peer, "--no-portmap", "--no-dht", "--no-lpd", "--no-auth"];
  await app.serve(port, "transmission-daemon", args, { env: { HOME: place } });
  const gate = await app.recipe("Transmission", port);
  const call = (headers) => ask(`${gate.url}/transmission/rpc`, { method: "POST", headers: { cookie: gate.cookie, ...headers }, body: '{"method":"session-get"}' });
  // it answers 409 with the field that it wants to see
  const first = await call({});
  assert.equal(first.status, 409, first.text);
  const second = await call({ "x-transmission-session-id": first.headers["x-transmission-session-id"] });
  assert.deepEqual([second.status, JSON.parse(second.text).result], [200, "success"]);
});

app("noVNC's screen is a WebSocket that passes for who signed in", debian("websockify"), async (app) => {
  const [port, place] = [await freePort(), folder("novnc")];
  fs.writeFileSync(path.join(place, "vnc.html"), "<title>noVNC</title>");
  const screen = net.createServer((socket) => socket.on("error", () => {}).write("RFB 003.008\n"));
  await once(screen.listen(0, "127.0.0.1"), "listening");
  try {
    await app.serve(port, "websockify", ["--web", place, `127.0.0.1:${port}`, `127.0.0.1:${screen.address().port}`]);
    const gate = await app.recipe("noVNC", port);
    assert.match((await ask(`${gate.url}/vnc.html`, { headers: { cookie: gate.cookie } })).text, /noVNC/);
    const greeting = async (headers) => {
      const socket = new WebSocket(`${gate.url.replace("http", "ws")}/websockify`, ["binary"], { headers: { origin: gate.url, ...headers } });
      const [message] = await once(socket, "message");
      socket.terminate();
      return String(message);
    };
    assert.equal(await greeting({ cookie: gate.cookie }), "RFB 003.008\n");
    await assert.rejects(greeting({}), /401/);
  } finally {
    screen.close();
  }
});
