// Vercel AI SDK: tools and `generateObject`, by Responses and by Chat Completions. Prints `ok`.

import assert from "node:assert";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [baseURL, folder] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { generateObject, generateText, streamText, tool } = await load("ai");
const { createOpenAI } = await load("@ai-sdk/openai");
const { z } = await load("zod");

const openai = createOpenAI({ baseURL, apiKey: "none" });
const forecast = z.strictObject({ day: z.number().int().min(1).max(7), isLong: z.boolean() });
const called = [];
const tools = {
  forecast: tool({
    description: "A forecast.",
    inputSchema: forecast,
    execute: async (input) => {
      called.push(input);
      return "rain";
    },
  }),
};

for (const model of [openai.responses("demo"), openai.chat("demo")]) {
  const asked = { model, prompt: "Tomorrow?", maxRetries: 0, maxOutputTokens: 400 };
  const one = { ...asked, tools, toolChoice: { type: "tool", toolName: "forecast" } };
  const answer = await generateText(one);
  assert.equal(answer.toolCalls.length, 1);
  assert.equal(answer.toolResults[0].output, "rain");
  assert.equal(answer.finishReason, "tool-calls");

  const streamed = streamText(one);
  const kinds = [];
  for await (const part of streamed.fullStream) {
    assert.notEqual(part.type, "error", JSON.stringify(part));
    kinds.push(part.type);
  }
  assert.ok(kinds.includes("tool-call") && kinds.includes("tool-result"), kinds.join());

  const made = await generateObject({ ...asked, schema: forecast });
  forecast.parse(made.object);
}
assert.equal(called.length, 4);
called.forEach((input) => forecast.parse(input));
process.stdout.write("ok\n");
