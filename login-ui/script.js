const hash = location.hash;
const several = document.querySelectorAll("[type=password]").length > 1;
const tabs = window.BroadcastChannel && new BroadcastChannel("authgate");
let sent = 0;
for (const form of document.forms) {
  const to = form.elements.callbackUrl;
  const shown = [];
  form.addEventListener("submit", (event) => {
    // the second click of two: what it would send was sent
    if (Date.now() - sent < 2000) return event.preventDefault();
    sent = Date.now();
    if (to) {
      const place = (to.value || "/") + hash;
      // one that is refused for its fragment would lose the whole way
      const fits = place.length <= 4096 && !hash.includes("\\") && encodeURIComponent(place).length < 6000;
      if (hash && !to.value.includes("#") && fits) to.value = place;
      if (tabs) tabs.postMessage("signing in");
    }
    for (const field of shown) field.type = "password";
  });
  for (const field of form.querySelectorAll("[type=password]")) {
    shown.push(field);
    const show = document.createElement("button");
    show.type = "button";
    show.className = "plain";
    show.textContent = "Show password";
    show.setAttribute("aria-pressed", "false");
    if (several) show.setAttribute("aria-label", "Show password: " + field.labels[0].textContent);
    show.onclick = () => {
      const on = field.type === "password";
      field.type = on ? "text" : "password";
      show.setAttribute("aria-pressed", on);
    };
    const caps = document.createElement("p");
    caps.className = "hint";
    caps.setAttribute("role", "status");
    field.addEventListener("keydown", (event) => {
      const on = event.getModifierState && event.getModifierState("CapsLock");
      caps.textContent = on ? "Caps Lock is on." : "";
    });
    field.after(caps, show);
  }
  // the app led on to another origin, where the pages' policy lets no form lead: one is signed in, and goes there
  if (to) {
    addEventListener("securitypolicyviolation", (event) => {
      if (event.effectiveDirective === "form-action") location.replace(to.value || "/");
    });
  }
  // somebody signed in in another tab: this one goes on by itself, unless something was typed here
  if (to && tabs && form.querySelector("[autocomplete=current-password]")) {
    let typed = false;
    form.addEventListener("keydown", () => (typed = true));
    tabs.onmessage = () =>
      addEventListener("visibilitychange", () => {
        if (document.hidden || typed) return;
        location.replace(form.action.split("?")[0] + "?callbackUrl=" + encodeURIComponent(to.value + hash));
      });
  }
}
addEventListener("pageshow", (event) => event.persisted && location.reload());
