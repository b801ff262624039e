/** Check the packages as npm would publish them, then run the tests. */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { build } from "esbuild";

const ROOT = new URL("..", import.meta.url).pathname;

function run(...command) {
  const done = spawnSync(process.execPath, command, { cwd: ROOT, stdio: "inherit" });
  if (done.status !== 0) process.exit(done.status ?? 1);
}

const only = process.argv.slice(2);
for (const name of ["client", "react"].filter((each) => existsSync(`${ROOT}/${each}/package.json`))) {
  if (only.length === 0) {
    run("node_modules/publint/src/cli.js", name, "--strict");
    run("node_modules/@arethetypeswrong/cli/dist/index.js", "--pack", name, "--profile", "esm-only", "--quiet");
  }
  const tests = readdirSync(`${ROOT}/${name}/test`).filter((each) => /\.tsx?$/.test(each));
  if (tests.length === 0) continue;
  rmSync(`${ROOT}/${name}/.test`, { recursive: true, force: true });
  await build({
    entryPoints: tests.map((each) => `${ROOT}/${name}/test/${each}`), outdir: `${ROOT}/${name}/.test`,
    format: "esm", platform: "node", sourcemap: "inline", logLevel: "warning",
  });
  const chosen = tests.filter((each) => /\.test\.tsx?$/.test(each) && (only.length === 0 || only.some((word) => each.includes(word))));
  if (chosen.length > 0) run("--test", "--enable-source-maps", ...chosen.map((each) => `${name}/.test/${each.replace(/\.tsx?$/, ".js")}`));
}
