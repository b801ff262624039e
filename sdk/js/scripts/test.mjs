/**
 * Check types, generated files, and the packages as npm would publish them; then run the tests.
 * Words choose test files, --package=client one package.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";

const ROOT = new URL("..", import.meta.url).pathname;

function run(...command) {
  const done = spawnSync(process.execPath, command, { cwd: ROOT, stdio: "inherit" });
  if (done.status !== 0) process.exit(done.status ?? 1);
}

/** The file that npm would publish, in a folder of its own. */
function pack(name) {
  const folder = mkdtempSync(join(tmpdir(), "watchout-pack-"));
  const npm = process.env.npm_execpath;
  const command = npm?.endsWith(".js") ? [process.execPath, npm] : ["npm"];
  const [program, ...rest] = [...command, "pack", "--json", "--workspace", name, "--pack-destination", folder];
  const done = spawnSync(program, rest, { cwd: ROOT, encoding: "utf8" });
  if (done.status !== 0) throw new Error(done.stderr);
  return { folder, tarball: join(folder, JSON.parse(done.stdout)[0].filename) };
}

const words = process.argv.slice(2);
const packages = words.filter((each) => each.startsWith("--package=")).map((each) => each.slice("--package=".length));
const only = words.filter((each) => !each.startsWith("--package="));
const names = ["client", "react"].filter((each) => existsSync(`${ROOT}/${each}/package.json`));
for (const each of packages) if (!names.includes(each)) throw new Error(`there is no package ${each}, only ${names.join(", ")}`);
run("scripts/generate.mjs", "--check");
for (const name of packages.length > 0 ? packages : names) {
  if (only.length === 0) {
    if (existsSync(`${ROOT}/${name}/tsconfig.test.json`)) run("node_modules/typescript/bin/tsc", "-p", `${name}/tsconfig.test.json`);
    const { folder, tarball } = pack(name);
    run("node_modules/publint/src/cli.js", tarball, "--strict");
    run("node_modules/@arethetypeswrong/cli/dist/index.js", tarball, "--profile", "esm-only", "--quiet");
    rmSync(folder, { recursive: true });
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
