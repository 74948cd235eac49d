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

/** How long an answer is waited for, in seconds: of what the server has at hand, of a picture's classes, which may have come over a slow line
 * and waited for others, and of what is worked out beside that, behind all of it. */
const PATIENCE = 20;
export const CLASSIFYING = 120;
export const EXPLAINING = 300;

/** Asks, and returns what `read` makes of the answer when it is a good one. `options` are fetch's, and `patience` in seconds. */
export async function ask(path, read, { patience = PATIENCE, ...options } = {}) {
  const headers = new Headers(options.headers);
  const key = sessionStorage.getItem(KEY);
  if (key) {
    // No header can hold others, and the browser's own words for that are of no help.
    if (!/^[\x21-\x7e]+$/.test(key)) throw new ApiError(0, "the API key has characters that no key has: give it again under “Key”, above");
    headers.set("authorization", `Bearer ${key}`);
  }
  const limit = AbortSignal.timeout(1000 * patience);
  const signal = options.signal ? AbortSignal.any([options.signal, limit]) : limit;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, signal });
    if (answer.ok) return await read(answer);
  } catch (error) {
    if (options.signal?.aborted && options.signal.reason?.name !== "TimeoutError") throw error;
    if (limit.aborted) throw new ApiError(0, `the server has not answered for ${patience} seconds`);
    if (error instanceof SyntaxError) throw new ApiError(0, "the answer is none of this server’s: something in between gave it");
    if (!(await areReadable(options.body))) throw new ApiError(0, "the file cannot be read any more: was it changed, moved or deleted?");
    throw new ApiError(0, "the server does not answer");
  }
  throw new ApiError(answer.status, await reason(answer));
}

/** Whether the files that were to be sent are still what was picked. */
async function areReadable(body) {
  const parts = body instanceof FormData ? [...body.values()] : [body];
  try {
    for (const part of parts) if (part instanceof Blob) await part.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
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

const json = (answer) => answer.json();

/** `GET path` as JSON. */
export const get = (path, signal, patience) => ask(path, json, { signal, patience });

/** Posts a picture, or several as form data, and returns the answer's JSON. `query` leaves out what is empty. */
export async function post(path, body, query, signal, patience) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const search = given.length ? `?${new URLSearchParams(given)}` : "";
  const headers = { accept: "application/json" };
  // The browser says itself what divides the parts of form data.
  if (!(body instanceof FormData)) headers["content-type"] = "application/octet-stream";
  return ask(path + search, json, { method: "POST", body, headers, signal, patience });
}

/** The path of a model, of a version where one is given. */
export function modelPath({ model, version }) {
  const path = `/v1/models/${encodeURIComponent(model)}`;
  return version ? `${path}/versions/${encodeURIComponent(version)}` : path;
}

/** The layers of a model. Asked for each time: a model that was loaded again may have others. */
export const architecture = (choice, signal) => get(`${modelPath(choice)}/architecture`, signal);

/** Whether a layer may have maps to look at: one whose shape is not known does, too, until the server says otherwise. */
export const mayHaveMaps = ({ output_shape: sizes }) => !sizes || sizes.length === 3;

/** A failure as a sentence of the page. */
export function sentence(error) {
  if (!(error instanceof ApiError)) console.error(error);
  const text = error.message || String(error);
  const hint = error.status === 401 ? " Give the API key under “Key”, above." : "";
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".") + hint;
}
