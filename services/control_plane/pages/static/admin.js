// What a page does beyond htmx. Everything works without it.
"use strict";

const moments = (root) => {
  const locale = document.documentElement.lang;
  const format = new Intl.DateTimeFormat(locale, { dateStyle: "short", timeStyle: "short" });
  for (const node of root.querySelectorAll("time[datetime]")) {
    node.title = node.getAttribute("datetime");
    node.textContent = format.format(new Date(node.title));
  }
};

// A choice takes effect at once; without a script there is a button.
for (const form of document.querySelectorAll(".prefer")) {
  form.querySelector("button").hidden = true;
  form.addEventListener("change", () => form.requestSubmit());
}

for (const button of document.querySelectorAll(".copy")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = button.dataset.done;
  });
}

moments(document);
document.addEventListener("htmx:load", (event) => moments(event.detail.elt));
document.getElementById("notice")?.focus();
