//! What is said of an operation where its route is.

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Value, json};

use super::base64;

/// The parts of the API, in the order of their documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Tag {
    Classify,
    Explain,
    Models,
    Inference,
    Management,
    Health,
    Page,
}

impl Tag {
    pub(super) const ALL: [Self; 7] =
        [Self::Classify, Self::Explain, Self::Models, Self::Inference, Self::Management, Self::Health, Self::Page];

    pub(super) fn name(self) -> &'static str {
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

    pub(super) fn description(self) -> &'static str {
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
pub(super) enum Content {
    /// JSON of a type's schema.
    Schema(fn(&mut SchemaGenerator) -> Schema),
    /// JSON of a schema written by hand.
    Written(Value),
    /// Bytes, or text that has a format of its own.
    Opaque,
}

/// What bodies may hold, by their media type.
pub(super) type Contents = Vec<(&'static str, Content)>;

/// An answer that is no refusal.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) description: &'static str,
    pub(super) contents: Contents,
}

/// What the document says of an operation.
#[derive(Debug, Clone)]
pub(in crate::http) struct Operation {
    pub(super) id: &'static str,
    pub(super) tag: Tag,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    pub(super) query: Option<fn(&mut SchemaGenerator) -> Schema>,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) bodies: Contents,
    pub(super) body_required: bool,
    pub(super) answers: Vec<Answer>,
    pub(super) refusals: Vec<u16>,
}

impl Operation {
    /// An operation that answers 200 without a body, until something else is said.
    pub(in crate::http) fn new(id: &'static str, tag: Tag, summary: &'static str) -> Self {
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
    pub(in crate::http) fn renamed(self, id: &'static str, summary: &'static str) -> Self {
        Self { id, summary, ..self }
    }

    /// What is to be known beside the summary, in Markdown's plain text.
    pub(in crate::http) fn description(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// Takes the fields of `T` as query parameters.
    pub(in crate::http) fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    /// Takes an optional header.
    pub(in crate::http) fn header(mut self, name: &'static str, description: &'static str) -> Self {
        self.headers.push((name, description));
        self
    }

    /// Takes pictures in one of their three forms.
    pub(in crate::http) fn pictures(mut self) -> Self {
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
    pub(in crate::http) fn json_body(mut self, schema: Value) -> Self {
        self.bodies.push(("application/json", Content::Written(schema)));
        self.body_required = true;
        self
    }

    /// Takes bytes of this media type.
    pub(in crate::http) fn bytes_body(mut self, media_type: &'static str) -> Self {
        self.bodies.push((media_type, Content::Opaque));
        self.body_required = true;
        self
    }

    /// Says that the body may be left out.
    pub(in crate::http) fn optional_body(mut self) -> Self {
        self.body_required = false;
        self
    }

    /// Answers `T` as JSON.
    pub(in crate::http) fn answers<T: JsonSchema + Serialize>(self, description: &'static str) -> Self {
        self.answer(200, description, "application/json", Content::Schema(SchemaGenerator::subschema_for::<T>))
    }

    /// Answers `T` with this status, too.
    pub(in crate::http) fn or_answers<T: JsonSchema + Serialize>(self, status: u16, description: &'static str) -> Self {
        self.answer(status, description, "application/json", Content::Schema(SchemaGenerator::subschema_for::<T>))
    }

    /// Answers JSON of this schema.
    pub(in crate::http) fn answers_json(self, description: &'static str, schema: Value) -> Self {
        self.answer(200, description, "application/json", Content::Written(schema))
    }

    /// Answers bytes of this media type.
    pub(in crate::http) fn answers_bytes(self, description: &'static str, media_type: &'static str) -> Self {
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
    pub(in crate::http) fn refused_with(mut self, statuses: &[u16]) -> Self {
        self.refusals.extend(statuses);
        self
    }
}
