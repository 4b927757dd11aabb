//! Query parameters, checked against openapi.yaml.
//!
//! A parameter that does not fit is a 400 (`{"code","error"}`); so is an unknown one in strict
//! mode. `limit` and `offset` above their maximum follow the setting `over_maximum`.

use serde_json::Value;

use crate::answer::Answer;
use crate::settings::{OverMaximum, Settings};
use crate::spec::Operation;

/// Filters that mean nothing alone.
const PAIRS: [(&str, &str); 2] = [
    ("assignee_type", "assignee_id"),
    ("applies_to_type", "applies_to_id"),
];

/// Checked parameters, defaults included.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    pairs: Vec<(String, String)>,
}

impl Parameters {
    /// Parses and checks the query of a request to `operation`.
    pub fn check(operation: &Operation, query: &str, settings: &Settings) -> Result<Self, Answer> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let Some(parameter) = operation.parameters.iter().find(|known| known.name == name)
            else {
                if settings.strict {
                    return Err(refusal(&name, "is not a parameter of openapi.yaml"));
                }
                continue;
            };
            let value = checked(&name, &value, &parameter.schema, settings)?;
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(refusal(&name, "is given twice"));
            }
            pairs.push((name.into_owned(), value));
        }
        let parameters = Self { pairs };
        for parameter in &operation.parameters {
            if parameter.required && parameters.text(&parameter.name).is_none() {
                return Err(refusal(&parameter.name, "is missing"));
            }
        }
        for (kind, id) in PAIRS {
            if parameters.text(kind).is_some() != parameters.text(id).is_some() {
                return Err(refusal(kind, &format!("and {id} come only together")));
            }
        }
        Ok(parameters.with_defaults(operation))
    }

    fn with_defaults(mut self, operation: &Operation) -> Self {
        for parameter in &operation.parameters {
            if self.text(&parameter.name).is_none() {
                match &parameter.schema["default"] {
                    Value::Null => {}
                    Value::String(text) => self.pairs.push((parameter.name.clone(), text.clone())),
                    other => self.pairs.push((parameter.name.clone(), other.to_string())),
                }
            }
        }
        self
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn integer(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }

    pub fn boolean(&self, name: &str) -> Option<bool> {
        self.text(name)?.parse().ok()
    }

    /// A user id, or `me`.
    pub fn user(&self, name: &str, me: i64) -> Option<i64> {
        match self.text(name)? {
            "me" => Some(me),
            text => Some(text.parse().unwrap_or(-1)),
        }
    }
}

fn checked(name: &str, value: &str, schema: &Value, settings: &Settings) -> Result<String, Answer> {
    if let Some(words) = schema["enum"].as_array()
        && !words.iter().any(|word| word == value)
    {
        return Err(refusal(name, "is not one of the allowed values"));
    }
    if schema["pattern"].is_string() && !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refusal(name, "is not a number"));
    }
    if schema["type"] == "boolean" && !matches!(value, "true" | "false") {
        return Err(refusal(name, "is not a boolean"));
    }
    if schema["type"].is_array() && value != "me" && value.parse::<i64>().is_err() {
        return Err(refusal(name, "is neither an id nor `me`"));
    }
    if schema["type"] != "integer" {
        return Ok(value.to_owned());
    }
    let Ok(number) = value.parse::<i64>() else {
        return Err(refusal(name, "is not a number"));
    };
    if schema["minimum"]
        .as_i64()
        .is_some_and(|minimum| number < minimum)
    {
        return Err(refusal(name, "is too small"));
    }
    match schema["maximum"].as_i64() {
        Some(maximum) if number > maximum => match settings.over_maximum {
            OverMaximum::Clamp => Ok(maximum.to_string()),
            OverMaximum::Refuse => Err(refusal(name, &format!("is more than {maximum}"))),
        },
        _ => Ok(number.to_string()),
    }
}

fn refusal(name: &str, what: &str) -> Answer {
    Answer::bad_request(&format!("The parameter {name} {what}."))
}
