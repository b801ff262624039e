/** Compile each package of the workspace: one module per source file, with types and source maps. */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";

const ROOT = new URL("..", import.meta.url);
const { workspaces } = JSON.parse(readFileSync(new URL("package.json", ROOT), "utf8"));
for (const name of workspaces) {
  if (!existsSync(new URL(`${name}/tsconfig.json`, ROOT))) continue;
  rmSync(new URL(`${name}/dist`, ROOT), { recursive: true, force: true });
  const tsc = new URL("node_modules/typescript/bin/tsc", ROOT);
  const done = spawnSync(process.execPath, [tsc.pathname, "-p", `${name}/tsconfig.json`], { cwd: ROOT, stdio: "inherit" });
  if (done.status !== 0) process.exit(1);
}
