//! The OpenAPI document: the routes as utoipa collected them, and what is the same for all of them:
//! the security scheme and the errors.

use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::info::InfoBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, OpenApi, Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::problem::{ProblemBody, ProblemField};
use super::routes;

const SCHEME: &str = "bearer";

/// Errors any route of a kind may answer: status, whom it concerns, what it means.
const ERRORS: [(&str, For, &str); 12] = [
    (
        "400",
        For::All,
        "A field makes no sense; `errors` names it.",
    ),
    (
        "401",
        For::All,
        "No token, or a bad one; for Kisi's events: the signature.",
    ),
    (
        "403",
        For::All,
        "Another gym's, another member's, a missing scope, switched off by policy; or Kisi's signature does not fit.",
    ),
    ("404", For::All, "There is no such thing."),
    (
        "409",
        For::Writes,
        "The state of things does not allow it, or a digest no longer fits.",
    ),
    ("413", For::Bodies, "The body is too large."),
    ("415", For::Bodies, "The body is not `application/json`."),
    ("429", For::Tokens, "Too many requests."),
    (
        "500",
        For::All,
        "Something went wrong here; it has been recorded.",
    ),
    ("501", For::All, "Not available yet; `detail` names what."),
    (
        "503",
        For::All,
        "Not caught up, or a part of the system does not answer; see `Retry-After`.",
    ),
    (
        "504",
        For::All,
        "A part of the system did not answer in time.",
    ),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    All,
    Tokens,
    Writes,
    Bodies,
}

/// The document, OpenAPI 3.1.
pub fn document() -> OpenApi {
    let mut document = routes::api()
        .merge(routes::kisi_events::routes())
        .into_openapi();
    document.info = InfoBuilder::new()
        .title("Gymflow access")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Doors follow memberships. Bearer JWTs carry `role`: a `member` reaches their own page, \
             `staff` their own gym by `scope` (`read`, `override`, `configure`, `approve`), a \
             `service` everything.",
        ))
        .build();
    let components = document.components.get_or_insert_with(Components::new);
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .build();
    components.add_security_scheme(SCHEME, SecurityScheme::Http(scheme));
    components
        .schemas
        .insert(ProblemBody::name().into_owned(), ProblemBody::schema());
    components
        .schemas
        .insert(ProblemField::name().into_owned(), ProblemField::schema());
    document.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>(
        SCHEME,
        [],
    )]);
    for item in document.paths.paths.values_mut() {
        for (operation, writes) in [
            (&mut item.get, false),
            (&mut item.post, true),
            (&mut item.put, true),
            (&mut item.delete, true),
        ] {
            if let Some(operation) = operation {
                describe_errors(operation, writes);
            }
        }
    }
    document
}

fn describe_errors(operation: &mut Operation, writes: bool) {
    let with_token = operation.security.is_none();
    let with_body = operation.request_body.is_some();
    for (status, concerns, meaning) in ERRORS {
        let applies = match concerns {
            For::All => true,
            For::Tokens => with_token,
            For::Writes => writes,
            For::Bodies => with_body,
        };
        if applies {
            let problem = ContentBuilder::new()
                .schema(Some(Ref::from_schema_name("Problem")))
                .build();
            let response = ResponseBuilder::new()
                .description(meaning)
                .content(service_runtime::problem::MEDIA_TYPE, problem)
                .build();
            let responses = &mut operation.responses.responses;
            responses
                .entry(status.to_owned())
                .or_insert(RefOr::T(response));
        }
    }
}
