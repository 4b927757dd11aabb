//! What goes back over the wire, and the two envelopes of a refusal.
//!
//! 422 always carries `errors` (field to messages) and no code; every other refusal carries
//! `error` and `code`.

use serde_json::{Map, Value, json};

/// One HTTP answer before it meets axum.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// Either way it is an answer; `?` ends a handler early with a refusal.
pub type Outcome = Result<Answer, Answer>;

impl Answer {
    pub fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            headers: vec![("content-type", "application/json".to_owned())],
            body: body.to_string().into_bytes(),
        }
    }

    pub fn ok(body: &Value) -> Self {
        Self::json(200, body)
    }

    /// 204, as PATCH and DELETE answer.
    pub fn no_content() -> Self {
        Self {
            status: 204,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub fn html(status: u16, title: &str) -> Self {
        Self {
            status,
            headers: vec![("content-type", "text/html".to_owned())],
            body: format!("<html><head><title>{status} {title}</title></head><body><center><h1>{status} {title}</h1></center></body></html>\n")
                .into_bytes(),
        }
    }

    /// The envelope of everything but 422.
    pub fn error(status: u16, code: &str, error: &str) -> Self {
        Self::json(status, &json!({"code": code, "error": error}))
    }

    pub fn bad_request(error: &str) -> Self {
        Self::error(400, "000400", error)
    }

    pub fn unauthorized() -> Self {
        Self::error(
            401,
            "000401",
            "You need to sign in before you can continue.",
        )
    }

    pub fn forbidden() -> Self {
        Self::error(403, "afc496", "Access denied.")
    }

    pub fn not_found() -> Self {
        Self::error(404, "000404", "The requested resource could not be found.")
    }

    pub fn unknown_route() -> Self {
        Self::error(
            404,
            "000404",
            "The endpoint does not exist, please check your request.",
        )
    }

    pub fn conflict(error: &str) -> Self {
        Self::error(409, "000409", error)
    }

    /// The envelope of 422.
    pub fn unprocessable(field: &str, message: &str) -> Self {
        let mut errors = Map::new();
        errors.insert(field.to_owned(), json!([message]));
        Self::unprocessable_fields(errors)
    }

    pub fn unprocessable_fields(errors: Map<String, Value>) -> Self {
        Self::json(422, &json!({"errors": errors}))
    }

    pub fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}
