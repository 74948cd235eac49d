// A JSON schema as a nested list: names, kinds and what they mean.

import { el, prose } from "/page/dom.js";

/** How deep schemas are followed: enough for all that the API has, and an end to those that contain themselves. */
const DEEPEST = 6;

/** The schema that a reference names, within `document`. */
export function resolve(document, schema) {
  const path = schema?.$ref;
  if (!path) return schema ?? {};
  return path.slice(2).split("/").reduce((at, name) => at?.[name.replaceAll("~1", "/").replaceAll("~0", "~")], document) ?? {};
}

/** What kind of value a schema lets through, in a word or a few. */
function kindOf(document, given) {
  const schema = resolve(document, given);
  const alternatives = schema.anyOf ?? schema.oneOf;
  if (alternatives) return alternatives.map((it) => kindOf(document, it)).join(" or ");
  if (schema.enum) return schema.enum.map((it) => JSON.stringify(it)).join(", ");
  const types = [schema.type ?? (schema.properties ? "object" : "any")].flat();
  const words = types.map((type) => {
    if (type === "array") return schema.items ? `list of ${kindOf(document, schema.items)}` : "list";
    if (type === "string" && schema.contentEncoding) return schema.contentEncoding;
    return type;
  });
  const limits = [
    schema.minimum > 0 ? `from ${schema.minimum}` : "",
    schema.maximum !== undefined ? `to ${schema.maximum}` : "",
    schema.default !== undefined && schema.default !== null ? `default ${JSON.stringify(schema.default)}` : "",
  ].filter(Boolean);
  return [words.join(" or "), ...limits].join(", ");
}

/** The parts of a schema that have fields of their own, through lists, maps and alternatives. */
function withFields(document, given) {
  const schema = resolve(document, given);
  if (schema.properties) return [schema];
  const inner = [schema.items, ...(schema.anyOf ?? []), ...(schema.oneOf ?? [])];
  if (typeof schema.additionalProperties === "object") inner.push(schema.additionalProperties);
  return inner.filter(Boolean).flatMap((it) => withFields(document, it));
}

/** The fields of a schema as a list, or its kind where it has none. */
export function schemaList(document, schema) {
  const fields = listOf(document, schema, 0);
  if (fields) {
    fields.className = "schema";
    return fields;
  }
  const description = resolve(document, schema).description;
  return el("p", { className: "quiet" }, ...prose([kindOf(document, schema), description].filter(Boolean).join(": ")));
}

function listOf(document, schema, depth) {
  const parts = depth < DEEPEST ? withFields(document, schema) : [];
  const rows = parts.flatMap((part) => Object.entries(part.properties).map(([name, field]) => {
    const optional = (part.required ?? []).includes(name) ? "" : ", optional";
    const description = field.description ?? resolve(document, field).description;
    return el("li", {},
      el("span", { className: "name", textContent: name }),
      el("span", { className: "kind", textContent: ` ${kindOf(document, field)}${optional}` }),
      ...(description ? [". ", ...prose(description)] : []),
      listOf(document, field, depth + 1));
  }));
  return rows.length ? el("ul", {}, ...rows) : null;
}

export { kindOf };
