/** Dark or light: as the system says, unless the user chose. */

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

function show(): void {
  const { documentElement } = document;
  if (theme.value === "auto") delete documentElement.dataset.theme;
  else documentElement.dataset.theme = theme.value;
}

show();
theme.follow(() => {
  show();
  try {
    localStorage.setItem(KEY, theme.value);
  } catch {
    // it then holds for this page only
  }
});
