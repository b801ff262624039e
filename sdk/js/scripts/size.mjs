/** Bundle the client as an app would, and return its size. */
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

/** Return the bytes, gzip, of the bundled and minified client. */
export async function bundledSize() {
  const dist = new URL("../client/dist/", import.meta.url).pathname;
  const stdin = { contents: `export { Watchout, WatchoutError } from "./index.js";`, resolveDir: dist };
  const { outputFiles } = await build({ stdin, bundle: true, minify: true, format: "esm", target: "es2022", write: false });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}
if (process.argv[1]?.endsWith("size.mjs")) console.log(await bundledSize());
