/** Bundle the client as an app would, and return its size. */
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

/** Return the bytes, gzip, of the bundled and minified client. */
export async function bundledSize() {
  const entry = new URL("../client/dist/index.js", import.meta.url).pathname;
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, minify: true, format: "esm", target: "es2022", write: false });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}
if (process.argv[1]?.endsWith("size.mjs")) console.log(await bundledSize());
