//! The OpenAPI document: the JSON that is made of what is said of the operations.
//!
//! Query parameters and answers are the schemas of the types that handlers read and write; only what these build by hand, tensors of
//! any type for instance, is described by hand, too. What follows from an operation's form, such as the statuses that it can be refused
//! with, is worked out here and said nowhere else.

mod operation;

use std::collections::BTreeMap;

use schemars::Schema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use self::operation::{Answer, Content};
pub(super) use self::operation::{Operation, Tag};
use super::error::ErrorJson;
use super::routes::Described;
use crate::auth::Right;

/// What `/openapi.json` is.
pub(super) fn operation() -> Operation {
    Operation::new("openapi", Tag::Page, "The OpenAPI document of this server")
        .answers_json("This document.", json!({"type": "object", "required": ["openapi", "info", "paths"]}))
}

/// The schema of base64.
pub(super) fn base64(description: &str) -> Value {
    json!({"type": "string", "contentEncoding": "base64", "description": description})
}

/// Why a request can be refused, by status.
const REFUSALS: [(u16, &str); 12] = [
    (400, "Something in the request is wrong; the sentence says what."),
    (401, "No API key, or none that is known."),
    (403, "The key has not the right that is needed."),
    (404, "There is no such model, version or layer."),
    (409, "The model's file has changed since it was loaded: it must be loaded again first."),
    (413, "The body, a picture's pixels, a tensor or the number of pictures is over its limit."),
    (415, "Not a picture that is decoded here, or an encoding that is not taken."),
    (429, "The queue is full, the timeout cannot be met, or there is no room for the body. `Retry-After` has seconds."),
    (500, "The server failed; the sentence ends in the id under which its log has the cause."),
    (501, "Not offered."),
    (503, "Loading, unavailable or shutting down. `Retry-After` has seconds, where it passes by itself."),
    (504, "The timeout passed before the answer."),
];

/// The document of these operations.
pub(super) fn document<'a>(operations: impl Iterator<Item = &'a Described>) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let error = schemas.subschema_for::<ErrorJson>();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut needs_keys = false;
    for described in operations {
        needs_keys |= described.right.is_some();
        let method = described.method.as_str().to_ascii_lowercase();
        let item = paths.entry(&described.path).or_default();
        item.insert(method, described.to_json(&mut schemas));
    }
    let refusals: Map<String, Value> = REFUSALS
        .iter()
        .map(|(status, description)| {
            let content = json!({"application/json": {"schema": error}});
            (status.to_string(), json!({"description": description, "content": content}))
        })
        .collect();
    let mut components = json!({"schemas": schemas.take_definitions(true), "responses": refusals});
    if needs_keys {
        components["securitySchemes"] =
            json!({"key": {"type": "http", "scheme": "bearer", "description": "An API key."}});
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "convoy",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": env!("CARGO_PKG_DESCRIPTION"),
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "tags": Tag::ALL.map(|tag| json!({"name": tag.name(), "description": tag.description()})),
        "paths": paths,
        "components": components,
    })
}

impl Described {
    fn to_json(&self, schemas: &mut SchemaGenerator) -> Value {
        let operation = &self.operation;
        // An operation is at one path for the newest version and at another for one that is named.
        let id =
            if self.path.contains("{version}") { format!("{}_version", operation.id) } else { operation.id.into() };
        let mut parameters: Vec<Value> = self.path_parameters().collect();
        parameters.extend(operation.query.into_iter().flat_map(query_parameters));
        parameters.extend(operation.headers.iter().map(|(name, description)| {
            json!({"name": name, "in": "header", "description": description, "schema": {"type": "string"}})
        }));
        let mut responses = Map::new();
        for status in self.refusals() {
            responses.insert(status.to_string(), json!({"$ref": format!("#/components/responses/{status}")}));
        }
        for Answer { status, description, contents } in &operation.answers {
            let mut answer = json!({ "description": description });
            if !contents.is_empty() {
                answer["content"] = contents_json(contents, schemas);
            }
            responses.insert(status.to_string(), answer);
        }
        let mut json = json!({
            "operationId": id,
            "tags": [operation.tag.name()],
            "summary": operation.summary,
            "responses": responses,
        });
        if !operation.description.is_empty() {
            json["description"] = operation.description.into();
        }
        if !parameters.is_empty() {
            json["parameters"] = parameters.into();
        }
        if !operation.bodies.is_empty() {
            let content = contents_json(&operation.bodies, schemas);
            json["requestBody"] = json!({"required": operation.body_required, "content": content});
        }
        if let Some(right) = self.right {
            json["security"] = json!([{"key": [right.as_str()]}]);
        }
        json
    }

    fn path_parameters(&self) -> impl Iterator<Item = Value> {
        let names = self.path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
        names.map(|name| {
            let (description, schema) = match name {
                "version" => ("The version's number.", json!({"type": "integer", "minimum": 1})),
                "model" => ("The model's name.", json!({"type": "string"})),
                _ => ("The file's name.", json!({"type": "string"})),
            };
            json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema})
        })
    }

    /// The statuses that it can be refused with.
    fn refusals(&self) -> Vec<u16> {
        let operation = &self.operation;
        let mut statuses = operation.refusals.clone();
        if !operation.bodies.is_empty() {
            statuses.extend([400, 413, 415, 429]);
        }
        if operation.query.is_some() {
            statuses.push(400);
        }
        if self.path.contains("{model}") {
            statuses.extend([400, 404, 503]);
        }
        if self.right.is_some() {
            statuses.push(401);
        }
        if self.right == Some(Right::Admin) {
            statuses.push(403);
        }
        statuses.push(500);
        statuses
    }
}

fn contents_json(contents: &[(&'static str, Content)], schemas: &mut SchemaGenerator) -> Value {
    let json = |(media_type, content): &(&'static str, Content)| {
        let content = match content {
            Content::Schema(schema) => json!({ "schema": schema(schemas) }),
            Content::Written(schema) => json!({ "schema": schema }),
            Content::Opaque => json!({}),
        };
        ((*media_type).to_owned(), content)
    };
    contents.iter().map(json).collect::<Map<String, Value>>().into()
}

/// The fields of a query's type as parameters.
fn query_parameters(schema: fn(&mut SchemaGenerator) -> Schema) -> Vec<Value> {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let schema = schema(&mut settings.into_generator()).to_value();
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let Some(fields) = schema["properties"].as_object() else { return Vec::new() };
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.as_object().cloned().unwrap_or_default();
        // OpenAPI has the sentence beside the schema; and what may be left out of a query is never null.
        let description = schema.remove("description");
        schema.retain(|key, value| key != "default" || !value.is_null());
        if let Some(Value::Array(types)) = schema.get_mut("type") {
            types.retain(|kind| kind != "null");
            if let [kind] = types.as_slice() {
                let kind = kind.clone();
                schema.insert("type".to_owned(), kind);
            }
        }
        let required = required.iter().any(|field| field == name);
        json!({"name": name, "in": "query", "required": required, "description": description, "schema": schema})
    };
    fields.iter().map(parameter).collect()
}
