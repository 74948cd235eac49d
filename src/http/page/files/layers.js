// The layers of a model, asked for once: a version's layers never change.

import { get, modelPath } from "/page/api.js";

const known = new Map();

/** The answer of `/architecture` for this model and version. */
export function layersOf(choice) {
  const path = `${modelPath(choice)}/architecture`;
  // What "newest" means changes, so only what a version was named for is kept.
  if (!choice.version) return get(path);
  if (!known.has(path)) {
    const asked = get(path);
    known.set(path, asked);
    asked.catch(() => known.delete(path));
  }
  return known.get(path);
}
