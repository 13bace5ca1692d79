// The official Google client for Node.

import { GoogleGenAI } from "@google/genai";
import { EMPTY_KEY, GATEWAY, KEY, MODELS, NO_MODEL, PROMPT, UNKNOWN_KEY, answered, refused } from "./telling.mjs";

const TOOLS = [{
  functionDeclarations: [{
    name: "weather",
    description: "Tells the weather of a city.",
    parametersJsonSchema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  }],
}];

const clientOf = (apiKey) => new GoogleGenAI({ apiKey, httpOptions: { baseUrl: GATEWAY } });

function told(call, model, usage, said) {
  const cached = usage.cachedContentTokenCount ?? 0;
  const written = (usage.candidatesTokenCount ?? 0) + (usage.thoughtsTokenCount ?? 0);
  answered(call, model, { read: usage.promptTokenCount - cached, cached, written, said });
}

async function converse(client, model) {
  const config = { systemInstruction: "Be brief.", maxOutputTokens: 50 };
  const answer = await client.models.generateContent({ model, contents: PROMPT, config });
  told("generate", model, answer.usageMetadata, answer.text);

  let text = "";
  let usage;
  for await (const chunk of await client.models.generateContentStream({ model, contents: PROMPT, config })) {
    text += chunk.text ?? "";
    usage = chunk.usageMetadata ?? usage;
  }
  told("generate stream", model, usage, text);

  const chat = client.chats.create({ model, config: { tools: TOOLS } });
  const called = await chat.sendMessage({ message: "How is the weather in Bonn?" });
  const [call] = called.functionCalls;
  told("function", model, called.usageMetadata, call.name === "weather");
  const result = { functionResponse: { id: call.id, name: call.name, response: { output: "rain" } } };
  const again = await chat.sendMessage({ message: [result] });
  told("function result", model, again.usageMetadata, again.text);
}

const client = clientOf(KEY);
for (const model of Object.values(MODELS)) await converse(client, model);
for (const [call, key, model] of [
  ["unknown key", UNKNOWN_KEY, MODELS.gemini], ["no money", EMPTY_KEY, MODELS.gemini], ["no model", KEY, NO_MODEL],
]) {
  await refused(call, () => clientOf(key).models.generateContent({ model, contents: PROMPT }));
}
