// What the pages cannot do without a script: stream an answer in the playground, copy a key, and read what stands in the fragment of an
// address, which no server gets to see. Everything is written as text, never as HTML; htmx does the rest.
"use strict";

const at = (id) => document.getElementById(id);

// Copying.
for (const button of document.querySelectorAll("button[data-copies]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(at(button.dataset.copies).textContent);
    button.textContent = "Copied";
  });
}

// Signing in: `make run` prints an address with a token in its fragment, and an issuer sends back with a code in it.
if (at("back")) {
  const found = new URLSearchParams(location.hash.slice(1));
  history.replaceState(null, "", location.pathname + location.search);
  if (found.has("token")) {
    at("with-token").open = true;
    at("token").value = found.get("token");
    at("token").form.querySelector("button").focus();
  } else if (found.has("code")) {
    at("back").elements.state.value = found.get("state");
    at("back").elements.code.value = found.get("code");
    at("back").submit();
  } else if (found.has("error")) {
    at("issuer-error").textContent = `The issuer says: ${found.get("error")}. Begin again.`;
    at("issuer-error").hidden = false;
  }
}

// The playground.
const form = at("playground");
if (form) {
  let messages = [];
  let running = null;

  const add = (who) => {
    const article = at("turn").content.firstElementChild.cloneNode(true);
    article.querySelector("h2").textContent = who;
    at("conversation").append(article);
    return article;
  };

  // Whole lines of a stream, as they come.
  const lines = async function* (body) {
    let rest = "";
    for await (const part of body.pipeThrough(new TextDecoderStream())) {
      const found = (rest + part).split("\n");
      rest = found.pop();
      yield* found;
    }
  };

  const LAST = "data: [DONE]";
  const textOf = (line) => {
    if (!line.startsWith("data: {")) return "";
    const event = JSON.parse(line.slice(6));
    if (event.error) throw new Error(event.error.message);
    return event.choices?.[0]?.delta?.content ?? "";
  };

  // Ours is a page that says it, the gateway's is OpenAI's form.
  const refusalOf = async (answer) => {
    const text = await answer.text();
    try {
      return JSON.parse(text).error.message;
    } catch {
      const said = new DOMParser().parseFromString(text, "text/html").querySelector(".refused, h1");
      return said ? said.textContent.trim() : answer.statusText;
    }
  };

  const ask = async (article) => {
    const said = article.querySelector(".said");
    const system = form.elements.system.value.trim();
    const most = form.elements.max_tokens.valueAsNumber;
    const body = {
      model: form.elements.model.value,
      mode: form.elements.mode.value,
      messages: [...(system ? [{role: "system", content: system}] : []), ...messages],
      ...(Number.isInteger(most) && {max_tokens: most}),
    };
    const answer = await fetch(form.action, {
      method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body), signal: running.signal,
    });
    if (!answer.ok) throw new Error(await refusalOf(answer));
    const priced = () => htmx.ajax("GET", form.dataset.prices + answer.headers.get("x-request-id"), article.querySelector(".cost"));
    let isWhole = false;
    try {
      for await (const line of lines(answer.body)) {
        said.textContent += textOf(line);
        isWhole ||= line.trimEnd() === LAST;
      }
    } finally {
      priced();
    }
    if (!isWhole) throw new Error("(the answer broke off)");
    messages.push({role: "assistant", content: said.textContent});
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const message = form.elements.message.value.trim();
    if (!message || running) return;
    running = new AbortController();
    at("send").disabled = true;
    at("stop").hidden = false;
    messages.push({role: "user", content: message});
    add("You").querySelector(".said").textContent = message;
    form.elements.message.value = "";
    const article = add(form.elements.model.value);
    try {
      await ask(article);
    } catch (error) {
      if (messages.at(-1).role === "user") messages.pop();
      article.querySelector(".said").append(error.name === "AbortError" ? " (stopped)" : ` ${error.message}`);
      if (error.name !== "AbortError") article.classList.add("refused");
    }
    running = null;
    at("send").disabled = false;
    at("stop").hidden = true;
    form.elements.message.focus();
  });
  at("stop").addEventListener("click", () => running?.abort());
  at("anew").addEventListener("click", () => { messages = []; at("conversation").replaceChildren(); });
  form.elements.message.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
}
