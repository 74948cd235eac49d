//! The OpenAPI document: what is said of an operation, and the JSON that is made of it.
//!
//! Query parameters and answers are the schemas of the types that handlers read and write; only what these build by hand, tensors of
//! any type for instance, is described by hand, too. What follows from an operation's form, such as the statuses that it can be refused
//! with, is worked out here and said nowhere else.

use std::collections::BTreeMap;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::error::ErrorJson;
use super::routes::Described;
use crate::auth::Right;

/// The parts of the API, in the order of their documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    Classify,
    Explain,
    Models,
    Inference,
    Management,
    Health,
    Page,
}

impl Tag {
    const ALL: [Self; 7] =
        [Self::Classify, Self::Explain, Self::Models, Self::Inference, Self::Management, Self::Health, Self::Page];

    fn name(self) -> &'static str {
        match self {
            Self::Classify => "Classify and predict",
            Self::Explain => "Explain",
            Self::Models => "Models",
            Self::Inference => "Open Inference Protocol",
            Self::Management => "Model management",
            Self::Health => "Health and metrics",
            Self::Page => "Page and documentation",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Classify => "Pictures in, classes out; and the row form of TensorFlow Serving and KServe V1.",
            Self::Explain => "Why a model answered what it did, and what its layers see.",
            Self::Models => "What there is to use.",
            Self::Inference => "The REST interface of KServe's V2 protocol with Triton's extensions.",
            Self::Management => "Loading and unloading models while the server serves.",
            Self::Health => "What load balancers and monitoring ask. Probes need no key.",
            Self::Page => "The page in the browser, and this document.",
        }
    }
}

/// What a body holds.
#[derive(Debug, Clone)]
enum Content {
    /// JSON of a type's schema.
    Schema(fn(&mut SchemaGenerator) -> Schema),
    /// JSON of a schema written by hand.
    Written(Value),
    /// Bytes, or text that has a format of its own.
    Opaque,
}

/// What bodies may hold, by their media type.
type Contents = Vec<(&'static str, Content)>;

/// An answer that is no refusal.
#[derive(Debug, Clone)]
struct Answer {
    status: u16,
    description: &'static str,
    contents: Contents,
}

/// What the document says of an operation.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    id: &'static str,
    tag: Tag,
    summary: &'static str,
    description: &'static str,
    query: Option<fn(&mut SchemaGenerator) -> Schema>,
    headers: Vec<(&'static str, &'static str)>,
    bodies: Contents,
    body_required: bool,
    answers: Vec<Answer>,
    refusals: Vec<u16>,
}

impl Operation {
    /// An operation that answers 200 without a body, until something else is said.
    pub(super) fn new(id: &'static str, tag: Tag, summary: &'static str) -> Self {
        Self {
            id,
            tag,
            summary,
            description: "",
            query: None,
            headers: Vec::new(),
            bodies: Vec::new(),
            body_required: false,
            answers: vec![Answer { status: 200, description: "It is done.", contents: Vec::new() }],
            refusals: Vec::new(),
        }
    }

    /// The same under another name.
    pub(super) fn renamed(self, id: &'static str, summary: &'static str) -> Self {
        Self { id, summary, ..self }
    }

    /// What is to be known beside the summary, in Markdown's plain text.
    pub(super) fn description(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// Takes the fields of `T` as query parameters.
    pub(super) fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    /// Takes an optional header.
    pub(super) fn header(mut self, name: &'static str, description: &'static str) -> Self {
        self.headers.push((name, description));
        self
    }

    /// Takes pictures in one of their three forms.
    pub(super) fn pictures(mut self) -> Self {
        let images = json!({
            "type": "object",
            "required": ["images"],
            "additionalProperties": false,
            "properties": {"images": {"type": "array", "items": base64("A picture.")}},
        });
        let files = json!({
            "type": "object",
            "additionalProperties": {"type": "string", "contentMediaType": "application/octet-stream"},
            "description": "Files, under any names.",
        });
        self.bodies = vec![
            ("application/octet-stream", Content::Opaque),
            ("image/*", Content::Opaque),
            ("multipart/form-data", Content::Written(files)),
            ("application/json", Content::Written(images)),
        ];
        self.body_required = true;
        self.refusals.extend([415, 429]);
        self
    }

    /// Takes JSON of this schema.
    pub(super) fn json_body(mut self, schema: Value) -> Self {
        self.bodies.push(("application/json", Content::Written(schema)));
        self.body_required = true;
        self
    }

    /// Takes bytes of this media type.
    pub(super) fn bytes_body(mut self, media_type: &'static str) -> Self {
        self.bodies.push((media_type, Content::Opaque));
        self.body_required = true;
        self
    }

    /// Says that the body may be left out.
    pub(super) fn optional_body(mut self) -> Self {
        self.body_required = false;
        self
    }

    /// Answers `T` as JSON.
    pub(super) fn answers<T: JsonSchema + Serialize>(self, description: &'static str) -> Self {
        self.answer(200, description, "application/json", Content::Schema(SchemaGenerator::subschema_for::<T>))
    }

    /// Answers `T` with this status, too.
    pub(super) fn or_answers<T: JsonSchema + Serialize>(self, status: u16, description: &'static str) -> Self {
        self.answer(status, description, "application/json", Content::Schema(SchemaGenerator::subschema_for::<T>))
    }

    /// Answers JSON of this schema.
    pub(super) fn answers_json(self, description: &'static str, schema: Value) -> Self {
        self.answer(200, description, "application/json", Content::Written(schema))
    }

    /// Answers bytes of this media type.
    pub(super) fn answers_bytes(self, description: &'static str, media_type: &'static str) -> Self {
        self.answer(200, description, media_type, Content::Opaque)
    }

    fn answer(mut self, status: u16, description: &'static str, media_type: &'static str, content: Content) -> Self {
        match self.answers.iter_mut().find(|answer| answer.status == status) {
            Some(answer) => {
                answer.description = description;
                answer.contents.push((media_type, content));
            }
            None => self.answers.push(Answer { status, description, contents: vec![(media_type, content)] }),
        }
        self
    }

    /// May be refused with these statuses, beside those that follow from its form.
    pub(super) fn refused_with(mut self, statuses: &[u16]) -> Self {
        self.refusals.extend(statuses);
        self
    }
}

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
