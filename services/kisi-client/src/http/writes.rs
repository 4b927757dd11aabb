//! The port for changing, one method per route, one request per method.

use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::HttpKisi;
use super::request::Request;
use crate::error::KisiError;
use crate::model::{
    CreatedLogin, EventSet, Integration, IntegrationPatch, NewDeviceLogin, NewEventSet,
    NewEventWebhook, NewGroupAssignment, NewUser, RoleAssignment, UnlockRequest, User, UserPatch,
    Window,
};
use crate::pacing::Slot;
use crate::write::{Deletion, KisiWrite};

impl HttpKisi {
    async fn create<T: DeserializeOwned>(
        &self,
        slot: Slot,
        route: &'static str,
        body: Value,
    ) -> Result<T, KisiError> {
        let request = Request::new(Method::POST, route).body(body);
        self.exchange(slot, &request).await?.read()
    }

    /// Any success will do: PATCH and the like answer 204 without a body.
    async fn act(&self, slot: Slot, request: Request) -> Result<(), KisiError> {
        self.exchange(slot, &request).await?.accepted()
    }

    async fn delete(
        &self,
        slot: Slot,
        route: &'static str,
        id: i64,
    ) -> Result<Deletion, KisiError> {
        let request = Request::on(Method::DELETE, route, id);
        let answer = self.exchange(slot, &request).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(Deletion::AlreadyGone);
        }
        answer.accepted().map(|()| Deletion::Deleted)
    }
}

fn patch(route: &'static str, id: i64, body: Value) -> Request {
    Request::on(Method::PATCH, route, id).body(body)
}

#[async_trait]
impl KisiWrite for HttpKisi {
    async fn create_user(&self, slot: Slot, user: &NewUser) -> Result<User, KisiError> {
        self.create(slot, "/users", json!({ "user": user })).await
    }

    async fn update_user(
        &self,
        slot: Slot,
        user_id: i64,
        user: &UserPatch,
    ) -> Result<(), KisiError> {
        if *user == UserPatch::default() {
            return Ok(());
        }
        let body = json!({ "user": user });
        self.act(slot, patch("/users/{id}", user_id, body)).await
    }

    async fn delete_user(&self, slot: Slot, user_id: i64) -> Result<Deletion, KisiError> {
        self.delete(slot, "/users/{id}", user_id).await
    }

    async fn create_role_assignment(
        &self,
        slot: Slot,
        assignment: &NewGroupAssignment,
    ) -> Result<RoleAssignment, KisiError> {
        let mut body = json!({
            "applies_to_type": "Group",
            "applies_to_id": assignment.group_id,
            "assignee_type": "User",
            "assignee_id": assignment.user_id,
            "role_id": assignment.role_id,
            "notify": false,
        });
        if let Some(valid_from) = assignment.window.valid_from {
            body["valid_from"] = json!(valid_from);
        }
        if let Some(valid_until) = assignment.window.valid_until {
            body["valid_until"] = json!(valid_until);
        }
        let body = json!({ "role_assignment": body });
        self.create(slot, "/role_assignments", body).await
    }

    async fn update_role_assignment_window(
        &self,
        slot: Slot,
        assignment_id: i64,
        window: Window,
    ) -> Result<(), KisiError> {
        // Both ends, a null included: a window that loses its end must lose it there too.
        let body = json!({ "role_assignment": {
            "notify": false,
            "valid_from": window.valid_from,
            "valid_until": window.valid_until,
        }});
        self.act(slot, patch("/role_assignments/{id}", assignment_id, body))
            .await
    }

    async fn delete_role_assignment(
        &self,
        slot: Slot,
        assignment_id: i64,
    ) -> Result<Deletion, KisiError> {
        self.delete(slot, "/role_assignments/{id}", assignment_id)
            .await
    }

    async fn create_device_login(
        &self,
        slot: Slot,
        login: &NewDeviceLogin,
    ) -> Result<CreatedLogin, KisiError> {
        let body = json!({ "login": {
            "type": "device",
            "email": login.email,
            "device_brand": login.device_brand,
            "device_model": login.device_model,
            "os_name": login.os_name,
            "expire": false,
        }});
        self.create(slot, "/logins", body).await
    }

    async fn promote_login(&self, slot: Slot, login_id: i64) -> Result<(), KisiError> {
        let request = Request::on(Method::POST, "/logins/{id}/promote", login_id);
        self.act(slot, request).await
    }

    async fn delete_login(&self, slot: Slot, login_id: i64) -> Result<Deletion, KisiError> {
        self.delete(slot, "/logins/{id}", login_id).await
    }

    async fn unlock(
        &self,
        slot: Slot,
        lock_id: i64,
        unlock: &UnlockRequest,
    ) -> Result<(), KisiError> {
        let mut body = Map::new();
        if let Some(location) = &unlock.location {
            body.insert("context".to_owned(), json!({ "location": location }));
        }
        if let Some(proof) = &unlock.proximity_proof {
            body.insert("lock".to_owned(), json!({ "proximity_proof": proof }));
        }
        let request =
            Request::on(Method::POST, "/locks/{id}/unlock", lock_id).body(Value::Object(body));
        self.act(slot, request).await
    }

    async fn create_event_webhook(
        &self,
        slot: Slot,
        webhook: &NewEventWebhook,
    ) -> Result<Integration, KisiError> {
        let body = json!({ "integration": {
            "name": webhook.name,
            "type": "event_webhook",
            "url": webhook.url,
            "enabled": true,
            "enabled_events": webhook.enabled_events,
            "signature_key": webhook.signature_key.expose_secret(),
        }});
        self.create(slot, "/integrations", body).await
    }

    async fn update_integration(
        &self,
        slot: Slot,
        integration_id: i64,
        changes: &IntegrationPatch,
    ) -> Result<(), KisiError> {
        let mut body = Map::new();
        if let Some(enabled) = changes.enabled {
            body.insert("enabled".to_owned(), json!(enabled));
        }
        if let Some(url) = &changes.url {
            body.insert("url".to_owned(), json!(url));
        }
        if let Some(events) = &changes.enabled_events {
            body.insert("enabled_events".to_owned(), json!(events));
        }
        if let Some(key) = &changes.signature_key {
            body.insert("signature_key".to_owned(), json!(key.expose_secret()));
        }
        if body.is_empty() {
            return Ok(());
        }
        let body = json!({ "integration": body });
        self.act(slot, patch("/integrations/{id}", integration_id, body))
            .await
    }

    async fn delete_integration(
        &self,
        slot: Slot,
        integration_id: i64,
    ) -> Result<Deletion, KisiError> {
        self.delete(slot, "/integrations/{id}", integration_id)
            .await
    }

    async fn create_event_set(&self, slot: Slot, set: &NewEventSet) -> Result<EventSet, KisiError> {
        let mut body = json!({ "event_set": set });
        body["event_set"]["interval"] = json!(format!("{}/{}", set.from, set.until));
        if matches!(slot, Slot::Held(_)) {
            return self.create(slot, "/event_sets", body).await;
        }
        let mut gate = self.pacer.event_set_gate().await;
        let created = self.create(slot, "/event_sets", body).await;
        *gate = Some(Instant::now());
        created
    }
}
