//! The OpenAPI document and the landing page.

use serde_json::Value;

use crate::world::World;

/// The routes other programs are written against.
const ROUTES: &[(&str, &str)] = &[
    ("get", "members"),
    ("get", "members/{member}/access"),
    ("post", "members/{member}/unlock"),
    ("get", "members/{member}/timeline"),
    ("get", "members/{member}/explain"),
    ("post", "members/{member}/resume"),
    ("post", "members/{member}/sync"),
    ("get", "members/{member}/devices"),
    ("post", "members/{member}/devices"),
    ("post", "members/{member}/devices/{id}/primary"),
    ("post", "members/{member}/devices/reset"),
    ("put", "members/{member}/permissions"),
    ("get", "integration"),
    ("post", "integration"),
    ("delete", "integration"),
    ("get", "integration/places"),
    ("put", "integration/place"),
    ("get", "integration/groups"),
    ("put", "integration/associations"),
    ("put", "integration/api-key"),
    ("get", "integration/policies"),
    ("put", "integration/policies"),
    ("get", "integration/rights"),
    ("post", "integration/preview"),
    ("post", "integration/sync"),
    ("get", "integration/syncs/{id}"),
    ("get", "integration/held-plans"),
    ("post", "integration/held-plans/{id}/approve"),
    ("post", "integration/held-plans/{id}/discard"),
    ("get", "dead-letters"),
    ("post", "dead-letters/replay"),
];

#[tokio::test]
async fn document_lists_every_route_with_errors_and_security() -> anyhow::Result<()> {
    let world = World::start().await?;
    let document = world.document();
    let version = document["openapi"].as_str().unwrap_or_default();
    assert!(version.starts_with("3.1"), "{version}");
    assert_eq!(
        document["components"]["securitySchemes"]["bearer"]["scheme"],
        "bearer"
    );
    assert!(document["security"][0]["bearer"].is_array());
    for (method, route) in ROUTES {
        let path = format!("/api/v1/gyms/{{gym}}/{route}");
        let operation = &document["paths"][&path][method];
        assert!(operation.is_object(), "{method} {path}");
        assert!(operation["summary"].is_string() || operation["description"].is_string());
        for status in ["400", "401", "403", "404", "500", "503"] {
            let problem = &operation["responses"][status]["content"]["application/problem+json"];
            assert_eq!(
                problem["schema"]["$ref"], "#/components/schemas/Problem",
                "{method} {path}"
            );
        }
    }
    let operations: usize = document["paths"]
        .as_object()
        .expect("paths")
        .values()
        .map(|item| item.as_object().map_or(0, |item| item.len()))
        .sum();
    assert_eq!(
        operations,
        ROUTES.len() + 1,
        "with Kisi's events and nothing else"
    );
    assert_eq!(
        document["paths"]["/kisi/events/{gym}"]["post"]["security"][0],
        serde_json::json!({})
    );
    unresolved(document, document);
    world.stop().await
}

fn unresolved(document: &Value, value: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let pointer = reference.trim_start_matches('#');
                assert!(
                    document.pointer(pointer).is_some(),
                    "{reference} leads nowhere"
                );
            }
            fields
                .values()
                .for_each(|value| unresolved(document, value));
        }
        Value::Array(items) => items.iter().for_each(|value| unresolved(document, value)),
        _ => {}
    }
}

#[tokio::test]
async fn landing_page_links_to_the_document() -> anyhow::Result<()> {
    let world = World::start().await?;
    let page = world.http.get(world.url("/")).send().await?;
    assert_eq!(page.status(), 200);
    assert!(page.text().await?.contains("/api/openapi.json"));
    world.stop().await
}
