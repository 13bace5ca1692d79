// How a program tells what its client was told: one JSON object for each request that it made, on standard output. telling.py says it for Python.

const { TOLLGATE_GATEWAY, TOLLGATE_KEY, TOLLGATE_UNKNOWN_KEY, TOLLGATE_EMPTY_KEY, TOLLGATE_MODELS, TOLLGATE_EMBEDDING_MODEL } = process.env;

export const GATEWAY = TOLLGATE_GATEWAY;
export const KEY = TOLLGATE_KEY;
export const UNKNOWN_KEY = TOLLGATE_UNKNOWN_KEY;
export const EMPTY_KEY = TOLLGATE_EMPTY_KEY;
export const MODELS = JSON.parse(TOLLGATE_MODELS);
export const EMBEDDING_MODEL = TOLLGATE_EMBEDDING_MODEL;
export const NO_MODEL = "no-such-model";
export const PROMPT = "Hello. [[sim output_tokens=12 cached_tokens=3]]";

const tell = (what) => process.stdout.write(JSON.stringify(what) + "\n");

export const answered = (call, model, { read, cached, written, said }) =>
  tell({ call, model, usage: [read, cached, written], said: Boolean(said) });

export async function refused(call, ask) {
  try {
    await ask();
  } catch (error) {
    return tell({ call, error: error.constructor.name, status: error.status ?? null });
  }
  throw new Error(`${call} was answered`);
}
