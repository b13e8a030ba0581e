const hash = location.hash;
// each part is independent: some of them throw if cookies are blocked
const part = (run) => {
  try {
    return run();
  } catch {}
};
const several = document.querySelectorAll("[type=password]").length > 1;
const tabs = part(() => new BroadcastChannel("authgate"));
let sent = 0;

// a double click submits once, since the first submission may be queued; the fragment is added to the callback URL
function submits(form, to) {
  // the input changed, so submitting again is intended
  form.addEventListener("input", () => (sent = 0));
  form.addEventListener("submit", (event) => {
    const button = form.querySelector("[data-waiting]");
    if (Date.now() - sent < (button ? 12000 : 2000)) return event.preventDefault();
    sent = Date.now();
    if (button) button.textContent = button.dataset.waiting;
    if (to) {
      const place = (to.value || "/") + hash;
      // a URL that is rejected because of its fragment would lose the whole callback
      const fits = place.length <= 4096 && !hash.includes("\\") && encodeURIComponent(place).length < 6000;
      if (hash && !to.value.includes("#") && fits) to.value = place;
      if (tabs) tabs.postMessage("signing in");
    }
  });
}

function showsPassword(form, field) {
  const show = document.createElement("button");
  show.type = "button";
  show.className = "plain";
  const set = (on) => {
    field.type = on ? "text" : "password";
    show.textContent = (on ? "Hide" : "Show") + " password";
    if (several) show.setAttribute("aria-label", show.textContent + ": " + field.labels[0].textContent);
  };
  set(false);
  show.onclick = () => set(field.type === "password");
  form.addEventListener("submit", () => set(false));
  field.after(show);
}

function warnsOfCapsLock(field) {
  const caps = document.createElement("p");
  caps.className = "hint";
  caps.setAttribute("role", "status");
  field.addEventListener("keydown", (event) => {
    const on = event.getModifierState && event.getModifierState("CapsLock");
    caps.textContent = on ? "Caps Lock is on." : "";
  });
  field.after(caps);
}

// the app redirected to another origin, which the page's form-action policy blocks: sign-in has succeeded, so go there
function leavesForOtherOrigins(to) {
  addEventListener("securitypolicyviolation", (event) => {
    if (event.effectiveDirective === "form-action") location.replace(to.value || "/");
  });
}

// after a sign-in in another tab this one continues automatically, unless something was typed here
function followsOtherTabs(form, to) {
  let typed = false;
  form.addEventListener("keydown", () => (typed = true));
  tabs.onmessage = () =>
    addEventListener("visibilitychange", () => {
      if (document.hidden || typed) return;
      location.replace(form.action.split("?")[0] + "?callbackUrl=" + encodeURIComponent(to.value + hash));
    });
}

// the fragment of the place to return to, on links to providers, too
function keepsFragment(link) {
  const url = new URL(link.href);
  const place = url.searchParams.get("callbackUrl") || "/";
  if (!hash || hash.length > 2000 || hash.includes("\\") || place.includes("#")) return;
  url.searchParams.set("callbackUrl", place + hash);
  link.href = url.href;
}

for (const link of document.querySelectorAll("[data-provider]")) part(() => keepsFragment(link));
for (const form of document.forms) {
  const to = form.elements.callbackUrl;
  part(() => submits(form, to));
  for (const field of form.querySelectorAll("[type=password]")) {
    part(() => showsPassword(form, field));
    part(() => warnsOfCapsLock(field));
  }
  if (to) part(() => leavesForOtherOrigins(to));
  const isLogin = form.querySelector("[autocomplete=current-password]") && !form.elements.pending;
  if (to && tabs && isLogin) part(() => followsOtherTabs(form, to));
}
addEventListener("pageshow", (event) => event.persisted && location.reload());
