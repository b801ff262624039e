// The web app's one process: Better Auth at /api/auth, and everything else from Vite (development) or dist/ (production).
//   PORT                 5173
//   DATABASE_FILE        auth.db beside this file: SQLite of Node itself (22.13 or newer); watchout reads the same file
//   BETTER_AUTH_SECRET   made on the first start and kept in .secret beside this file
//   WATCHOUT_URL         http://localhost:3000, told to the page
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import http from "node:http";
import { DatabaseSync } from "node:sqlite";
import { fileURLToPath } from "node:url";
import { betterAuth } from "better-auth";
import { getMigrations } from "better-auth/db/migration";
import { toNodeHandler } from "better-auth/node";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const port = Number(process.env.PORT ?? 5173);
const origin = `http://localhost:${port}`;
const watchout = process.env.WATCHOUT_URL ?? "http://localhost:3000";

function secret() {
  if (process.env.BETTER_AUTH_SECRET) return process.env.BETTER_AUTH_SECRET;
  const file = here(".secret");
  if (!existsSync(file)) writeFileSync(file, randomBytes(32).toString("base64"), { mode: 0o600 });
  return readFileSync(file, "utf8");
}

const database = new DatabaseSync(process.env.DATABASE_FILE ?? here("auth.db"));
database.exec("PRAGMA journal_mode = WAL"); // watchout reads while this process writes

export const auth = betterAuth({
  baseURL: origin,
  secret: secret(),
  database,
  emailAndPassword: { enabled: true },
});
await (await getMigrations(auth.options)).runMigrations();
const authenticate = toNodeHandler(auth);

async function pages() {
  if (process.env.NODE_ENV === "production") {
    const { default: sirv } = await import("sirv");
    return sirv(here("dist"), { single: true });
  }
  const { createServer } = await import("vite");
  return (await createServer({ root: here("."), server: { middlewareMode: true } })).middlewares;
}

const page = await pages();
const server = http.createServer((request, response) => {
  const path = request.url ?? "/";
  if (path.startsWith("/api/auth/")) return authenticate(request, response);
  if (path === "/config.json") {
    response.writeHead(200, { "content-type": "application/json" });
    return response.end(JSON.stringify({ watchout }));
  }
  return page(request, response, () => response.writeHead(404).end());
});
server.listen(port, "localhost", () => console.log(`the web app is at ${origin}`));
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(0));
