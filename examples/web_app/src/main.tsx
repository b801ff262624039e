import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";

const { watchout } = (await (await fetch("/config.json")).json()) as { watchout: string };

createRoot(document.getElementById("app")!).render(
  <StrictMode>
    <App watchout={watchout} />
  </StrictMode>,
);
