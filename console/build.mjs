// Builds the console into gateway/http/console, which is committed: `node build.mjs`.
// `node build.mjs --check` builds in memory and fails when what is committed differs.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const sdk = join(here, "../sdk/js/client/src");
const target = join(here, "../gateway/http/console");
/** Most bytes of all files in gzip. */
const BUDGET = 60_000;

const common = {
  absWorkingDir: here,
  bundle: true,
  minify: true,
  write: false,
  metafile: true,
  format: "esm",
  target: ["es2022", "safari16"],
  charset: "utf8",
  legalComments: "none", // they are in licences.txt
  // Not from the tsconfig.json that is nearest to each file: the bytes depend on the sources alone.
  tsconfigRaw: { compilerOptions: { jsx: "react-jsx", jsxImportSource: "preact", useDefineForClassFields: false } },
  // The client is bundled from its source; its runtime is this bundle's.
  alias: { "@watchout/client": sdk },
  mangleProps: /^_[a-z]/, // private members of the client, as its own build does
};

/** A name that changes with the content, so that browsers may keep the file for ever. */
function hashed(name, content) {
  const digest = createHash("sha256").update(content).digest();
  const letters = [...digest.subarray(0, 8)].map((byte) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[byte & 31]).join("");
  return name.replace(/(\.[a-z]+)$/, `-${letters}$1`);
}

async function bundled(entry, more = {}) {
  const made = await build({ ...common, entryPoints: [entry], ...more });
  return { text: made.outputFiles[0].text, inputs: Object.keys(made.metafile.inputs) };
}

/** The licence of every package of which code is in the bundle. */
function licences(inputs) {
  const packages = new Set(inputs.map((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1]).filter(Boolean));
  const parts = [...packages].sort().map((name) => {
    const folder = join(here, "node_modules", name);
    const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    if (file === undefined) throw new Error(`${name} brings no licence text`);
    return `${name} ${version} (${license})\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
  });
  return `The console of watchout contains code of these packages.\n\n${parts.join(`\n${"-".repeat(80)}\n\n`)}`;
}

async function files() {
  const made = new Map();
  const add = (name, text) => (made.set(name, text), name);
  const worker = await bundled(join(sdk, "browser/worker.ts"));
  const workerName = add(hashed("worker.js", worker.text), worker.text);
  const main = await bundled("src/main.tsx", { define: { WORKER_FILE: JSON.stringify(workerName) } });
  const style = await bundled("src/style.css");
  const icon = readFileSync(join(here, "src/icon.svg"), "utf8").trim();
  const names = {
    main: add(hashed("main.js", main.text), main.text),
    style: add(hashed("style.css", style.text), style.text),
    icon: add(hashed("icon.svg", icon), icon),
  };
  add("licences.txt", licences([...main.inputs, ...worker.inputs]));
  const page = readFileSync(join(here, "src/index.html"), "utf8");
  add("index.html", page.replace(/\{\{(\w+)\}\}/g, (_, name) => `console/${names[name]}`));
  return made;
}

function present() {
  if (!existsSync(target)) return new Map();
  return new Map(readdirSync(target).map((name) => [name, readFileSync(join(target, name), "utf8")]));
}

const made = await files();
const packed = [...made].filter(([name]) => name !== "licences.txt").map(([name, text]) => [name, gzipSync(text, { level: 9 }).length]);
const size = packed.reduce((sum, [, bytes]) => sum + bytes, 0);
if (size > BUDGET) throw new Error(`the bundle has ${size} bytes in gzip, expected at most ${BUDGET}: ${JSON.stringify(packed)}`);

if (process.argv.includes("--check")) {
  const there = present();
  const differing = [...new Set([...made.keys(), ...there.keys()])].filter((name) => made.get(name) !== there.get(name));
  if (differing.length) {
    console.error(`${relative(process.cwd(), target)} is not what console/ builds (make console): ${differing.sort().join(", ")}`);
    process.exit(1);
  }
} else {
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  for (const [name, text] of made) writeFileSync(join(target, name), text);
}
console.log(`${size} bytes in gzip: ${packed.map(([name, bytes]) => `${name} ${bytes}`).join(", ")}`);
