/**
 * Compile each package of the workspace: one module per source file, with source maps and types.
 *
 * Private members begin with `_`; they get short names, which saves a tenth of the size of an app's bundle.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";

const LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const ROOT = new URL("..", import.meta.url).pathname;
const { workspaces } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
for (const name of workspaces) {
  const folder = join(ROOT, name);
  if (!existsSync(join(folder, "tsconfig.json"))) continue;
  rmSync(join(folder, "dist"), { recursive: true, force: true });
  const tsc = join(ROOT, "node_modules/typescript/bin/tsc");
  const types = spawnSync(process.execPath, [tsc, "-p", join(folder, "tsconfig.json"), "--emitDeclarationOnly"], { stdio: "inherit" });
  if (types.status !== 0) process.exit(1);
  const sources = readdirSync(join(folder, "src"), { recursive: true }).filter((each) => /\.tsx?$/.test(each));
  // One name for one member in all modules: a class and its base class share an object. The core's come first.
  const core = (each) => Number(each.startsWith("browser/")) - 0.5;
  const text = sources.toSorted((one, two) => core(one) - core(two)).map((each) => readFileSync(join(folder, "src", each), "utf8")).join("\n");
  const members = [...new Set(text.match(/\b_[a-z]\w*/g))];
  const mangleCache = Object.fromEntries(members.map((each, at) => [each, `_${LETTERS[at] ?? at.toString(36)}`]));
  await build({
    entryPoints: sources.map((each) => join(folder, "src", each)), outbase: join(folder, "src"), outdir: join(folder, "dist"),
    format: "esm", target: "es2022", jsx: "automatic", sourcemap: true, mangleProps: /^_[a-z]/, mangleCache, logLevel: "warning",
  });
}
// The page's worker is one file without imports, so that it can be put where a bundler does not find it.
await build({
  entryPoints: [join(ROOT, "client/src/browser/worker.ts")], outfile: join(ROOT, "client/dist/browser/worker.js"),
  bundle: true, format: "esm", target: "es2022", sourcemap: true, logLevel: "warning",
});
