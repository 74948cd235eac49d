// Calls to the server, with the API key where one is given. Every failure is an ApiError that says in a sentence what went wrong.

const KEY = "convoy-key";

/** What the server, or the way to it, refused. `status` is 0 where there was no answer. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Remembers the key for this tab; an empty one is forgotten. */
export function setKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;

/** Asks, and returns the answer when it is a good one. `options` are fetch's. */
export async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  const key = sessionStorage.getItem(KEY);
  if (key) headers.set("authorization", `Bearer ${key}`);
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    // Also what a key becomes that has characters which no header can have.
    throw new ApiError(0, error instanceof TypeError && key && !/^[\x21-\x7e]+$/.test(key)
      ? "the API key has characters that no key has"
      : "the server does not answer");
  }
  if (answer.ok) return answer;
  throw new ApiError(answer.status, await reason(answer));
}

/** What a refusal says of itself. A proxy in between may answer anything. */
async function reason(answer) {
  try {
    const { error } = await answer.json();
    if (typeof error === "string") return error;
  } catch {
    // Not JSON: the status alone has to do.
  }
  return `the answer is status ${answer.status}`;
}

/** `GET path` as JSON. */
export const get = async (path) => (await ask(path)).json();

/** Posts a picture and returns the answer's JSON. `query` leaves out what is empty. */
export async function post(path, picture, query = {}, signal) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const search = given.length ? `?${new URLSearchParams(given)}` : "";
  const headers = { "content-type": "application/octet-stream", accept: "application/json" };
  return (await ask(path + search, { method: "POST", body: picture, headers, signal })).json();
}

/** The path of a model, of a version where one is given. */
export function modelPath({ model, version }) {
  const path = `/v1/models/${encodeURIComponent(model)}`;
  return version ? `${path}/versions/${encodeURIComponent(version)}` : path;
}

/** A failure as a sentence of the page. */
export function sentence(error) {
  if (!(error instanceof ApiError)) console.error(error);
  const text = error.message || String(error);
  const hint = error.status === 401 ? " Give the API key under “Key”, above." : "";
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".") + hint;
}
