const hash = location.hash;
const several = document.querySelectorAll("[type=password]").length > 1;
for (const form of document.forms) {
  const to = form.elements.callbackUrl;
  const shown = [];
  form.addEventListener("submit", () => {
    if (to && hash && !to.value.includes("#")) to.value = (to.value || "/") + hash;
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
}
addEventListener("pageshow", (event) => event.persisted && location.reload());
