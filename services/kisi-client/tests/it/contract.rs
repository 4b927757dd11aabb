//! Whether an exchange is one that openapi.yaml allows: path, parameters, headers and body of the
//! request, status, headers and body of the answer. Checked by a JSON Schema 2020-12 validator.

use serde_json::{Map, Value, json};

use crate::recording::Exchange;

pub struct Contract {
    document: Value,
}

impl Contract {
    pub fn published() -> Self {
        let document = serde_yaml_ng::from_str(kisi_simulator::spec::OPENAPI);
        Self {
            document: document.expect("openapi.yaml is YAML"),
        }
    }

    /// The path as it is published, and its operation.
    pub fn operation(&self, method: &str, path: &str) -> Option<(&str, &Value)> {
        let parts: Vec<&str> = path.split('/').collect();
        let (template, item) =
            self.document["paths"]
                .as_object()?
                .iter()
                .find(|(template, _)| {
                    let segments: Vec<&str> = template.split('/').collect();
                    segments.len() == parts.len()
                        && segments
                            .iter()
                            .zip(&parts)
                            .all(|(segment, part)| segment.starts_with('{') || segment == part)
                })?;
        let operation = item.get(method.to_lowercase())?;
        Some((template, operation))
    }

    /// Everything that is wrong with it; nothing, if it may be.
    pub fn complaints(&self, exchange: &Exchange) -> Vec<String> {
        let Some((_, operation)) = self.operation(&exchange.method, &exchange.path) else {
            return vec![format!(
                "no such operation: {} {}",
                exchange.method, exchange.path
            )];
        };
        let mut complaints = self.about_parameters(operation, exchange);
        self.about_request_body(operation, exchange, &mut complaints);
        self.about_answer(operation, exchange, &mut complaints);
        complaints
    }

    fn about_parameters(&self, operation: &Value, exchange: &Exchange) -> Vec<String> {
        let mut complaints = Vec::new();
        let published: Vec<&Value> = array(&operation["parameters"])
            .map(|parameter| self.resolve(parameter))
            .collect();
        for (name, text) in &exchange.query {
            let known = published
                .iter()
                .find(|known| known["in"] == "query" && known["name"] == name.as_str());
            match known {
                Some(known) => complaints
                    .extend(self.invalid(&known["schema"], &typed(text, &known["schema"]))),
                None => complaints.push(format!("no such parameter: {name}")),
            }
        }
        for known in published {
            let name = known["name"].as_str().unwrap_or_default();
            let sent = match known["in"].as_str() {
                Some("header") => exchange.request_headers.get(name).is_some(),
                Some("query") => exchange.query.iter().any(|(sent, _)| sent == name),
                _ => true,
            };
            if !sent && (known["required"] == true || known["in"] == "header") {
                complaints.push(format!("missing: {name}"));
            }
        }
        complaints
    }

    fn about_request_body(
        &self,
        operation: &Value,
        exchange: &Exchange,
        complaints: &mut Vec<String>,
    ) {
        let body = self.resolve(&operation["requestBody"]);
        let schema = &body["content"]["application/json"]["schema"];
        match (&exchange.request_body, schema.is_null()) {
            (Some(sent), false) => complaints.extend(self.invalid(schema, sent)),
            (Some(_), true) => complaints.push("a body where none is published".to_owned()),
            (None, false) if body["required"] == true => complaints.push("no body".to_owned()),
            (None, _) => {}
        }
    }

    fn about_answer(&self, operation: &Value, exchange: &Exchange, complaints: &mut Vec<String>) {
        let Some(answer) = operation["responses"].get(exchange.status.to_string()) else {
            complaints.push(format!("no such status: {}", exchange.status));
            return;
        };
        let answer = self.resolve(answer);
        let schema = &answer["content"]["application/json"]["schema"];
        match (&exchange.answer_body, schema.is_null()) {
            (Some(body), false) => complaints.extend(self.invalid(schema, body)),
            (None, true) => {}
            (sent, _) => complaints.push(format!("answered with a body: {}", sent.is_some())),
        }
        for name in answer["headers"]
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
        {
            if name == "X-Collection-Range" && exchange.answer_headers.get(name).is_none() {
                complaints.push(format!("answered without {name}"));
            }
        }
    }

    fn resolve<'doc>(&'doc self, value: &'doc Value) -> &'doc Value {
        let target = value["$ref"]
            .as_str()
            .and_then(|target| target.strip_prefix('#'));
        target.map_or(value, |pointer| {
            self.document
                .pointer(pointer)
                .expect("a reference that leads somewhere")
        })
    }

    fn invalid(&self, schema: &Value, value: &Value) -> Vec<String> {
        let document = json!({ "allOf": [schema], "components": self.document["components"] });
        jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .should_validate_formats(true)
            .build(&document)
            .expect("a schema of openapi.yaml")
            .iter_errors(value)
            .map(|error| format!("{error} at {}", error.instance_path()))
            .collect()
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A parameter's text as the JSON value it stands for, where the schema wants no text.
fn typed(text: &str, schema: &Value) -> Value {
    if schema["type"] == "string" {
        return text.into();
    }
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}
