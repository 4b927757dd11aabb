//! openapi.yaml at run time: which routes exist, which parameters and bodies they take.
//!
//! The document is embedded, so the simulator and the document cannot drift apart unnoticed.
//! Request bodies are checked by JSON Schema 2020-12, which is what OpenAPI 3.1 uses. The lenient
//! validators are the same schemas opened for unknown fields, as Kisi publishes them. Responses
//! are not checked here: an outside validator does that over recorded exchanges.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

/// The document, as shipped with the crate.
pub const OPENAPI: &str = include_str!("../openapi.yaml");

/// The parsed document. Parsed once; a document that does not parse stops the first start.
pub static SPEC: LazyLock<Spec> = LazyLock::new(Spec::parse);

pub struct Spec {
    operations: Vec<Operation>,
}

/// One method on one path.
pub struct Operation {
    pub id: String,
    pub method: String,
    /// As in the document, e.g. `/users/{id}`.
    pub template: String,
    segments: Vec<Segment>,
    pub parameters: Vec<Parameter>,
    /// Whether a request without any credential is published.
    pub anonymous: bool,
    body: Option<Body>,
}

enum Segment {
    Word(String),
    Integer,
    Text,
}

pub struct Parameter {
    pub name: String,
    pub required: bool,
    pub schema: Value,
}

struct Body {
    required: bool,
    strict: jsonschema::Validator,
    lenient: jsonschema::Validator,
}

/// What a path and method lead to.
pub enum Route<'spec> {
    /// The operation, and the text of its `{id}`, if it has one.
    Found(&'spec Operation, Option<String>),
    WrongMethod,
    Unknown,
}

/// Why a body is refused.
#[derive(Debug)]
pub enum BadBody {
    NotJson,
    /// Field to messages, in the order of the schema's complaints.
    Invalid(Map<String, Value>),
}

impl Spec {
    fn parse() -> Self {
        let document: Value =
            serde_yaml_ng::from_str(OPENAPI).expect("the embedded openapi.yaml is YAML");
        let strict = json!({"schemas": document["components"]["schemas"]});
        let lenient = opened(&strict);
        let mut operations = Vec::new();
        for (template, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                if matches!(method.as_str(), "get" | "post" | "patch" | "put" | "delete") {
                    operations.push(Operation::parse(
                        &document, template, method, operation, item, &strict, &lenient,
                    ));
                }
            }
        }
        Self { operations }
    }

    pub fn route(&self, method: &str, path: &str) -> Route<'_> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let mut known_path = false;
        for operation in &self.operations {
            if let Some(id) = operation.matches(&parts) {
                if operation.method == method {
                    return Route::Found(operation, id);
                }
                known_path = true;
            }
        }
        if known_path {
            Route::WrongMethod
        } else {
            Route::Unknown
        }
    }

    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }
}

impl Operation {
    fn parse(
        document: &Value,
        template: &str,
        method: &str,
        operation: &Value,
        item: &Value,
        strict: &Value,
        lenient: &Value,
    ) -> Self {
        let all: Vec<&Value> = [&item["parameters"], &operation["parameters"]]
            .into_iter()
            .filter_map(Value::as_array)
            .flatten()
            .map(|parameter| resolve(document, parameter))
            .collect();
        let segments = template.trim_matches('/').split('/').map(|segment| {
            let Some(name) = segment
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'))
            else {
                return Segment::Word(segment.to_owned());
            };
            let integer = all.iter().any(|parameter| {
                parameter["name"] == name && parameter["schema"]["type"] == "integer"
            });
            if integer {
                Segment::Integer
            } else {
                Segment::Text
            }
        });
        let body = &resolve(document, &operation["requestBody"]);
        let schema = &body["content"]["application/json"]["schema"];
        Self {
            id: operation["operationId"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            method: method.to_uppercase(),
            template: template.to_owned(),
            segments: segments.collect(),
            anonymous: operation["security"]
                .as_array()
                .is_some_and(|ways| ways.iter().any(|way| way == &json!({}))),
            body: (!schema.is_null()).then(|| Body {
                required: body["required"] == true,
                strict: validator(schema, strict),
                lenient: validator(schema, lenient),
            }),
            parameters: all
                .into_iter()
                .filter(|parameter| parameter["in"] == "query")
                .map(|parameter| Parameter {
                    name: parameter["name"].as_str().unwrap_or_default().to_owned(),
                    required: parameter["required"] == true,
                    schema: parameter["schema"].clone(),
                })
                .collect(),
        }
    }

    fn matches(&self, parts: &[&str]) -> Option<Option<String>> {
        if parts.len() != self.segments.len() {
            return None;
        }
        let mut id = None;
        for (segment, part) in self.segments.iter().zip(parts) {
            match segment {
                Segment::Word(word) if word == part => {}
                Segment::Integer if part.parse::<i64>().is_ok_and(|id| id > 0) => {
                    id = Some((*part).to_owned());
                }
                Segment::Text if !part.is_empty() => id = Some((*part).to_owned()),
                _ => return None,
            }
        }
        Some(id)
    }

    /// Checks a body and returns it parsed; `Null` for an absent one where that is allowed.
    pub fn check_body(&self, bytes: &[u8], strict: bool) -> Result<Value, BadBody> {
        let Some(body) = &self.body else {
            return Ok(Value::Null);
        };
        if bytes.is_empty() && !body.required {
            return Ok(Value::Null);
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|_| BadBody::NotJson)?;
        let validator = if strict { &body.strict } else { &body.lenient };
        let mut errors = Map::new();
        for error in validator.iter_errors(&value) {
            for (field, message) in complaints(&error) {
                let messages = errors.entry(field).or_insert_with(|| json!([]));
                if let Some(messages) = messages.as_array_mut() {
                    messages.push(Value::String(message));
                }
            }
        }
        if errors.is_empty() {
            Ok(value)
        } else {
            Err(BadBody::Invalid(errors))
        }
    }
}

/// Field names and messages in the manner of Kisi's 422.
fn complaints(error: &jsonschema::ValidationError<'_>) -> Vec<(String, String)> {
    use jsonschema::error::ValidationErrorKind as Kind;
    let path = error.instance_path().to_string();
    let field = path
        .rsplit('/')
        .next()
        .filter(|field| !field.is_empty())
        .unwrap_or("base");
    match error.kind() {
        Kind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .map(|name| (name.clone(), "is not a field of openapi.yaml".to_owned()))
            .collect(),
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or("base").to_owned();
            vec![(name, "can't be blank".to_owned())]
        }
        Kind::Format { format } if format == "email" => {
            vec![(field.to_owned(), "can't be blank or invalid".to_owned())]
        }
        Kind::Type { .. } => vec![(field.to_owned(), "has the wrong type".to_owned())],
        _ => vec![(field.to_owned(), "is invalid".to_owned())],
    }
}

fn resolve<'doc>(document: &'doc Value, value: &'doc Value) -> &'doc Value {
    match value["$ref"]
        .as_str()
        .and_then(|target| target.strip_prefix('#'))
    {
        Some(pointer) => document.pointer(pointer).unwrap_or(value),
        None => value,
    }
}

fn validator(schema: &Value, components: &Value) -> jsonschema::Validator {
    let document = json!({"allOf": [schema], "components": components});
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .build(&document)
        .expect("the embedded openapi.yaml holds valid schemas")
}

/// The schemas without `additionalProperties: false`. Alternatives that were told apart by being
/// closed may then both match, so `oneOf` becomes `anyOf`.
fn opened(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, value)| !(*name == "additionalProperties" && **value == json!(false)))
            .map(|(name, value)| {
                let name = if name == "oneOf" { "anyOf" } else { name };
                (name.to_owned(), opened(value))
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(opened).collect(),
        other => other.clone(),
    }
}
