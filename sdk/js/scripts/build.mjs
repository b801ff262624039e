/**
 * Compile each package of the workspace: one module per source file, with source maps and types.
 *
 * Private members begin with `_`; they get short names, which saves a tenth of the size of an app's bundle.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";

/**
 * A short name for each private member. Two members have the same one when no object can have both: they are never in one
 * module, and not in two whose classes are base classes of each other, which count as one module.
 */
function shortNames(modules) {
  const isRelated = (text) => /\bextends [A-Z]|class Emitter/.test(text);
  const groups = [modules.filter(isRelated).join("\n"), ...modules.filter((each) => !isRelated(each))];
  const namesOf = groups.map((each) => new Set(each.match(/\b_[a-z]\w*/g)));
  const all = groups.join("\n").match(/\b_[a-z]\w*/g) ?? [];
  const counts = new Map();
  for (const each of all) counts.set(each, (counts.get(each) ?? 0) + 1);
  const short = {};
  for (const [name] of [...counts].sort(([, one], [, two]) => two - one)) {
    const others = new Set(namesOf.filter((each) => each.has(name)).flatMap((each) => [...each]).map((each) => short[each]));
    short[name] = [...LETTERS].map((each) => `_${each}`).find((each) => !others.has(each)) ?? `_${Object.keys(short).length.toString(36)}`;
  }
  return short;
}

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
  const mangleCache = shortNames(sources.map((each) => readFileSync(join(folder, "src", each), "utf8")));
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
