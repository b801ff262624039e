/** Dark or light: as the system is set, unless the user chose. */

import { Cell } from "./cell";

export type Theme = "auto" | "dark" | "light";
const KEY = "watchout.theme";

function read(): Theme {
  try {
    const kept = localStorage.getItem(KEY);
    return kept === "dark" || kept === "light" ? kept : "auto";
  } catch {
    return "auto";
  }
}

export const theme = new Cell<Theme>(read());

const systemIsLight = matchMedia("(prefers-color-scheme: light)");

function show(): void {
  const system = systemIsLight.matches ? "light" : "dark";
  document.documentElement.dataset.theme = theme.value === "auto" ? system : theme.value;
}

show();
systemIsLight.addEventListener("change", show);
theme.follow(() => {
  show();
  try {
    localStorage.setItem(KEY, theme.value);
  } catch {
    // then the choice lasts for this page only
  }
});
