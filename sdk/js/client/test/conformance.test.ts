import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { meaningOfClose } from "../dist/index.js";
import { type Dialogue, play } from "./dialogue.js";

const file = JSON.parse(readFileSync(new URL("../../../conformance/dialogues.json", import.meta.url), "utf8")) as {
  dialogues: Dialogue[];
  closeCodes: { code: number; errorCode?: string; means: string }[];
};

for (const dialogue of file.dialogues) test(dialogue.name, () => play(dialogue));

test("each close code means what the file says", () => {
  for (const { code, errorCode, means } of file.closeCodes) assert.equal(meaningOfClose(code, errorCode), means, `${code} ${errorCode}`);
});
