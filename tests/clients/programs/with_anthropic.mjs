// The official Anthropic client for Node, with its own retries.

import Anthropic from "@anthropic-ai/sdk";
import { EMPTY_KEY, GATEWAY, KEY, MODELS, NO_MODEL, PROMPT, UNKNOWN_KEY, answered, refused } from "./telling.mjs";

const TOOL = {
  name: "weather",
  description: "Tells the weather of a city.",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
const HELLO = [{ role: "user", content: PROMPT }];
const WEATHER = [{ role: "user", content: "How is the weather in Bonn?" }];

const clientOf = (apiKey) => new Anthropic({ baseURL: GATEWAY, apiKey, authToken: null });

function told(call, model, usage, said) {
  answered(call, model, {
    read: usage.input_tokens, cached: usage.cache_read_input_tokens ?? 0, written: usage.output_tokens, said,
  });
}

async function converse(client, model) {
  const answer = await client.messages.create({ model, max_tokens: 50, system: "Be brief.", messages: HELLO });
  told("message", model, answer.usage, answer.content[0].text);

  const whole = await client.messages.stream({ model, max_tokens: 50, messages: HELLO }).finalMessage();
  told("message stream", model, whole.usage, whole.content[0].text);

  const called = await client.messages.create({
    model, max_tokens: 200, messages: WEATHER, tools: [TOOL], tool_choice: { type: "any" },
  });
  const call = called.content.find((block) => block.type === "tool_use");
  told("tool", model, called.usage, call.name === "weather");

  const result = { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: "rain" }] };
  const again = await client.messages.create({
    model, max_tokens: 50, tools: [TOOL], messages: [...WEATHER, { role: "assistant", content: called.content }, result],
  });
  told("tool result", model, again.usage, again.stop_reason === "end_turn");

  const streamed = await client.messages.stream({
    model, max_tokens: 200, messages: WEATHER, tools: [TOOL], tool_choice: { type: "any" },
  }).finalMessage();
  told("tool stream", model, streamed.usage, "city" in streamed.content.find((block) => block.type === "tool_use").input);
}

const client = clientOf(KEY);
for (const model of Object.values(MODELS)) await converse(client, model);
for (const [call, key, model] of [
  ["unknown key", UNKNOWN_KEY, MODELS.anthropic], ["no money", EMPTY_KEY, MODELS.anthropic], ["no model", KEY, NO_MODEL],
]) {
  await refused(call, () => clientOf(key).messages.create({ model, max_tokens: 9, messages: HELLO }));
}
