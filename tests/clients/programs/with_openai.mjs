// The official OpenAI client for Node, with its own retries.

import OpenAI from "openai";
import { EMBEDDING_MODEL, EMPTY_KEY, GATEWAY, KEY, MODELS, NO_MODEL, PROMPT, UNKNOWN_KEY, answered, refused } from "./telling.mjs";

const SCHEMA = {
  type: "object",
  properties: { name: { type: "string" }, moons: { type: "integer" } },
  required: ["name", "moons"],
  additionalProperties: false,
};
const WEATHER_SCHEMA = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const TOOL = { type: "function", function: { name: "weather", description: "Tells the weather.", parameters: WEATHER_SCHEMA } };
const HELLO = [{ role: "system", content: "Be brief." }, { role: "user", content: PROMPT }];
const WEATHER = [{ role: "user", content: "How is the weather in Bonn?" }];

const clientOf = (apiKey) => new OpenAI({ baseURL: `${GATEWAY}/v1`, apiKey });

function told(call, model, usage, said) {
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  answered(call, model, { read: usage.prompt_tokens - cached, cached, written: usage.completion_tokens, said });
}

async function chats(client, model) {
  const answer = await client.chat.completions.create({ model, messages: HELLO, max_tokens: 50 });
  told("chat", model, answer.usage, answer.choices[0].message.content);

  let text = "";
  let usage;
  for await (const chunk of await client.chat.completions.create({
    model, messages: HELLO, stream: true, stream_options: { include_usage: true },
  })) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  told("chat stream", model, usage, text);

  const parsed = await client.chat.completions.parse({
    model, messages: [{ role: "user", content: "A planet." }],
    response_format: { type: "json_schema", json_schema: { name: "planet", strict: true, schema: SCHEMA } },
  });
  told("chat schema", model, parsed.usage, typeof JSON.parse(parsed.choices[0].message.content).name === "string");
}

async function tools(client, model) {
  const answer = await client.chat.completions.create({ model, messages: WEATHER, tools: [TOOL], tool_choice: "required" });
  const [call] = answer.choices[0].message.tool_calls;
  told("tool", model, answer.usage, call.function.name === "weather");

  const result = { role: "tool", tool_call_id: call.id, content: "rain" };
  const again = await client.chat.completions.create({
    model, messages: [...WEATHER, answer.choices[0].message, result], tools: [TOOL],
  });
  told("tool result", model, again.usage, again.choices[0].finish_reason === "stop");

  // It calls the function by itself and asks again, so there are two requests.
  const asked = [];
  const runner = client.chat.completions.runTools({
    model, messages: WEATHER,
    tools: [{ type: "function", function: { ...TOOL.function, parse: JSON.parse, function: ({ city }) => asked.push(city) && "rain" } }],
  });
  const said = await runner.finalContent();
  const completions = runner.allChatCompletions();
  completions.forEach((each, number) => told(`tool run ${number}`, model, each.usage, said && asked.length === 1));
}

async function responses(client, model) {
  for (const streamed of [false, true]) {
    const request = { model, input: PROMPT, instructions: "Be brief." };
    const response = streamed ? await client.responses.stream(request).finalResponse() : await client.responses.create(request);
    const { input_tokens: input, output_tokens: written, input_tokens_details: details } = response.usage;
    const cached = details.cached_tokens;
    answered(streamed ? "response stream" : "response", model, { read: input - cached, cached, written, said: response.output_text });
  }
}

const client = clientOf(KEY);
for (const model of Object.values(MODELS)) {
  await chats(client, model);
  await tools(client, model);
  await responses(client, model);
}
const found = await client.embeddings.create({ model: EMBEDDING_MODEL, input: ["one", "two"] });
answered("embeddings", EMBEDDING_MODEL, { read: found.usage.prompt_tokens, cached: 0, written: 0, said: found.data.length === 2 });
for (const [call, key, model] of [
  ["unknown key", UNKNOWN_KEY, MODELS.openai], ["no money", EMPTY_KEY, MODELS.openai], ["no model", KEY, NO_MODEL],
]) {
  await refused(call, () => clientOf(key).chat.completions.create({ model, messages: HELLO }));
}
