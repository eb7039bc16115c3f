// Before anything is shown: dark or light, as chosen here before or as the system has it.
{
  let chosen = null;
  try { chosen = localStorage.getItem("mal-trt-theme"); } catch { /* no storage: the system decides */ }
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => { document.documentElement.dataset.theme = chosen ?? (dark.matches ? "dark" : "light"); };
  dark.addEventListener("change", apply);
  addEventListener("mal-trt-theme", () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("mal-trt-theme", chosen); } catch { /* for this time only */ }
    apply();
  });
  apply();
}
