"use strict";
// Dark or light: as the system says, or as was chosen here. Runs before the page is drawn.
(() => {
  const KEY = "mal-trt-theme";
  const TEXT = { auto: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" };
  const remembered = () => {
    try {
      return localStorage.getItem(KEY) || "auto";
    } catch {
      return "auto"; // a browser may refuse to keep anything for files
    }
  };
  const show = (theme) => {
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) button.textContent = TEXT[theme];
  };
  let theme = TEXT[remembered()] ? remembered() : "auto";
  const wanted = new URLSearchParams(location.search).get("theme"); // index.html?theme=dark
  if (TEXT[wanted]) theme = wanted;
  show(theme);
  document.addEventListener("DOMContentLoaded", () => {
    show(theme);
    document.getElementById("theme").addEventListener("click", () => {
      const names = Object.keys(TEXT);
      theme = names[(names.indexOf(theme) + 1) % names.length];
      try {
        localStorage.setItem(KEY, theme);
      } catch {
        // then it lasts as long as the page
      }
      show(theme);
    });
  });
})();
