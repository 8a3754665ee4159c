// Language and colours: chosen at the top of every page, remembered by the browser.

import * as w from "./words.js";

const by = (id) => document.getElementById(id);
const remember = (key, value) => { try { localStorage.setItem(key, value); } catch { /* private mode */ } };
const recall = (key) => { try { return localStorage.getItem(key); } catch { return null; } };

// `spoken()`: the page's fixed words are there, in another language; `painted()`: what has colours
// drawn in must be drawn anew. Begins at once, with the choices of last time.
export function languageAndColours(spoken, painted = () => {}) {
  function speak(language) {
    w.choose(language);
    by("language").value = w.language;
    for (const node of document.querySelectorAll("[data-t]")) node.textContent = w.t(node.dataset.t);
    for (const node of document.querySelectorAll("[data-tp]")) node.placeholder = w.t(node.dataset.tp);
    for (const node of document.querySelectorAll("[data-tl]")) node.setAttribute("aria-label", w.t(node.dataset.tl));
    document.querySelector(".skip").textContent = w.t("skip");
    spoken();
  }

  function paint(theme) {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    by("theme").value = theme;
  }

  by("language").addEventListener("change", (e) => { remember("language", e.target.value); speak(e.target.value); });
  by("theme").addEventListener("change", (e) => { remember("theme", e.target.value); paint(e.target.value); painted(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", painted);
  paint(recall("theme") ?? "auto");
  speak(recall("language") ?? w.preferred());
}
