// Apps of docs/recipes.md, "Others, in a line", with the settings of their lines.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after } from "node:test";
import { app, ask, closeBrowser, EMAIL, folder, freePort, newPage, prose, pypi, run, signIn } from "./lib.mjs";

after(closeBrowser);

/** What the app's line says in its last column. */
const setting = (name) => prose("recipes.md", "Others, in a line").match(new RegExp(`^\\| ${name}.*\\| (.*) \\|$`, "m"))[1];

const buildbot = pypi("buildbot[bundle]==4.3.0");
app("Buildbot knows who signed in", buildbot, async (app) => {
  const [port, place] = [await freePort(), folder("buildbot")];
  const auth = setting("Buildbot").match(/`(util\.RemoteUserAuth.*?)`/)[1].replace("...", 'br"(?P<username>[^@]+)@(?P<realm>.+)"');
  const config = `
from buildbot.plugins import schedulers, util, worker
c = BuildmasterConfig = {"title": "own", "buildbotURL": "http://localhost/", "db": {"db_url": "sqlite:///state.sqlite"}, "buildbotNetUsageData": None,
    "workers": [worker.Worker("own", "own")], "protocols": {"pb": {"port": "tcp:0:interface=127.0.0.1"}},
    "builders": [util.BuilderConfig(name="own", workernames=["own"], factory=util.BuildFactory())],
    "schedulers": [schedulers.ForceScheduler(name="own", builderNames=["own"])], "www": {"port": "tcp:${port}:interface=127.0.0.1", "auth": ${auth}}}
`;
  await run(buildbot.bin("buildbot"), ["create-master", place]);
  fs.writeFileSync(path.join(place, "master.cfg"), config);
  await app.serve(port, buildbot.bin("buildbot"), ["start", "--nodaemon"], { cwd: place, env: { PATH: `${path.dirname(buildbot.bin("x"))}:${process.env.PATH}` } });
  const gate = await app.recipe("Others, in a line", port);
  const page = await ask(`${gate.url}/`, { headers: { cookie: gate.cookie } });
  assert.equal(page.status, 200, page.text.slice(0, 500));
  const { user } = JSON.parse(page.text.match(/window\.buildbotFrontendConfig = (.*);$/m)[1]);
  assert.deepEqual([user.username, user.realm], EMAIL.split("@"));
});

const bokeh = pypi("bokeh==3.9.2");
app("Bokeh draws for who signed in, over its WebSocket", bokeh, async (app) => {
  const [port, place] = [await freePort(), folder("bokeh")];
  const program = `
from bokeh.io import curdoc
from bokeh.models import Div
who = curdoc().session_context.request.headers["Remote-User"]
curdoc().add_root(Div(text="Hello " + who))
`;
  fs.writeFileSync(path.join(place, "own.py"), program);
  const gate = await app.recipe("Others, in a line", port);
  const flags = setting("Bokeh").replaceAll("`", "").replace("HOST:PORT", gate.host).split(" ");
  await app.serve(port, bokeh.bin("bokeh"), ["serve", "own.py", `--port=${port}`, "--address=127.0.0.1", ...flags], { cwd: place, env: { HOME: place } });
  const page = await newPage();
  page.setDefaultTimeout(60_000);
  await page.goto(`${gate.url}/own`);
  await signIn(page, EMAIL);
  await page.getByText(`Hello ${EMAIL}`).waitFor();
});

const tensorboard = pypi("tensorboard==2.21.0", "setuptools<80");
app("TensorBoard's page and data pass for who signed in", tensorboard, async (app) => {
  const [port, place] = [await freePort(), folder("tensorboard")];
  await app.serve(port, tensorboard.bin("tensorboard"), [`--logdir=${place}`, "--host=127.0.0.1", `--port=${port}`], { env: { HOME: place } });
  const gate = await app.recipe("Others, in a line", port);
  const get = (at, headers) => ask(gate.url + at, { headers });
  assert.match((await get("/", { cookie: gate.cookie })).text, /<title>TensorBoard/);
  const data = await get("/data/environment", { cookie: gate.cookie });
  assert.deepEqual([data.status, JSON.parse(data.text).version], [200, "2.21.0"]);
  assert.equal((await get("/data/environment", {})).status, 401);
});

const flower = pypi("flower==2.2.0");
app("Flower's page passes for who signed in", flower, async (app) => {
  const [port, place] = [await freePort(), folder("flower")];
  await app.serve(port, flower.bin("celery"), ["--broker=memory://", "flower", "--address=127.0.0.1", `--port=${port}`], { cwd: place, env: { HOME: place } });
  const gate = await app.recipe("Others, in a line", port);
  const page = await ask(`${gate.url}/workers`, { headers: { cookie: gate.cookie } });
  assert.deepEqual([page.status, /<title>.*Flower/.test(page.text)], [200, true], page.text.slice(0, 500));
  assert.equal((await ask(`${gate.url}/workers`)).status, 401);
});
