/**
 * Write client/src/messages.ts from ../schema/messages.json; with --check, only say whether it differs.
 *
 * It knows the keywords that the schema uses and fails at any other, so that nothing of the schema is left out silently.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const SCHEMA = new URL("../../schema/messages.json", import.meta.url);
const TARGET = new URL("../client/src/messages.ts", import.meta.url);
/** Keywords that TypeScript's types cannot say: the server checks them. */
const UNTYPED = new Set(["description", "pattern", "minimum", "maximum", "minLength", "maxLength", "maxItems"]);
const KNOWN = new Set([...UNTYPED, "type", "const", "enum", "$ref", "oneOf", "anyOf", "items", "properties", "required"]);

function typeOf(schema, indent = "") {
  for (const word of Object.keys(schema)) if (!KNOWN.has(word)) throw new Error(`no type for the keyword ${word}`);
  if (schema.$ref !== undefined) return schema.$ref.replace("#/$defs/", "");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum !== undefined) return schema.enum.map((each) => JSON.stringify(each)).join(" | ");
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices !== undefined) return choices.map((each) => typeOf(each)).join(" | ");
  if (schema.type === "array") return `readonly ${typeOf(schema.items)}[]`;
  if (schema.type === "object" && schema.properties === undefined) return "Readonly<Record<string, unknown>>";
  if (schema.type === "object") return objectOf(schema, indent);
  if (schema.type === "integer" || schema.type === "number") return "number";
  if (["string", "boolean", "null"].includes(schema.type)) return schema.type;
  throw new Error(`no type for ${JSON.stringify(schema)}`);
}

function objectOf(schema, indent) {
  const required = new Set(schema.required ?? []);
  const lines = Object.entries(schema.properties).map(([name, value]) => {
    const comment = value.description === undefined ? "" : `${indent}  /** ${value.description} */\n`;
    return `${comment}${indent}  readonly ${name}${required.has(name) ? "" : "?"}: ${typeOf(value, `${indent}  `)};\n`;
  });
  return `{\n${lines.join("")}${indent}}`;
}

/** Return the TypeScript source for a schema. */
export function generate(schema) {
  const parts = ["/** Messages of the edge protocol. Generated from sdk/schema/messages.json by `npm run generate`. */\n"];
  for (const [name, value] of Object.entries(schema.$defs)) {
    const body = value.properties === undefined ? `type ${name} = ${typeOf(value)};` : `interface ${name} ${typeOf(value)}`;
    parts.push(`/** ${value.description ?? name} */\nexport ${body}\n`);
  }
  return parts.join("\n");
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const wanted = generate(JSON.parse(readFileSync(SCHEMA, "utf8")));
  if (!process.argv.includes("--check")) writeFileSync(TARGET, wanted);
  else if (readFileSync(TARGET, "utf8") !== wanted) {
    console.error("client/src/messages.ts differs from sdk/schema/messages.json: run `npm run generate`");
    process.exit(1);
  }
}
