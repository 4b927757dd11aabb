//! The port for changing Kisi.
//!
//! **Flow.** Each method is exactly one request (none for an empty patch, which Kisi would
//! refuse), after waiting for its turn: by lane
//! (`Lane::Revoke.into()`), or with a [`crate::Turn`] that the caller took beforehand in order
//! to check, at the last moment, that the change is still wanted (`turn.into()`).
//! **Guarantees.** A write is never repeated after it may have been applied. A 429 was not
//! applied: by lane it is tried again in the same lane, a bounded number of times; with a turn it
//! comes back at once, because only the caller can check again.
//! **Assumptions.** One Kisi user, one pacer.
//! **Caveats.** `()` means that Kisi said 204, not that it did as asked: read a PATCH back.
//! Success says that Kisi accepted, and nothing of what a reader does.
//! **Errors.** [`KisiError::is_outcome_unknown`] is settled by a look, never by a second write.

use async_trait::async_trait;

use crate::error::KisiError;
use crate::model::{
    CreatedLogin, EventSet, Integration, IntegrationPatch, NewDeviceLogin, NewEventSet,
    NewEventWebhook, NewGroupAssignment, NewUser, RoleAssignment, UnlockRequest, User, UserPatch,
    Window,
};
use crate::pacing::Slot;

/// How a DELETE ended. Either way the object is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// 204: this request removed it.
    Deleted,
    /// 404: somebody else had, or it was never visible to this key.
    AlreadyGone,
}

#[async_trait]
pub trait KisiWrite: Send + Sync {
    /// `POST /users`. A taken e-mail is [`KisiError::is_already_exists`]: search again.
    async fn create_user(&self, slot: Slot, user: &NewUser) -> Result<User, KisiError>;

    /// `PATCH /users/{id}`.
    async fn update_user(
        &self,
        slot: Slot,
        user_id: i64,
        patch: &UserPatch,
    ) -> Result<(), KisiError>;

    /// `DELETE /users/{id}`. Assignments and logins go with the user.
    async fn delete_user(&self, slot: Slot, user_id: i64) -> Result<Deletion, KisiError>;

    /// `POST /role_assignments`, `notify: false`. A second grant may be 409, 422 or a new row.
    async fn create_role_assignment(
        &self,
        slot: Slot,
        assignment: &NewGroupAssignment,
    ) -> Result<RoleAssignment, KisiError>;

    /// `PATCH /role_assignments/{id}` of the window alone. Half documented: read it back, and
    /// replace the row if the window did not move.
    async fn update_role_assignment_window(
        &self,
        slot: Slot,
        assignment_id: i64,
        window: Window,
    ) -> Result<(), KisiError>;

    /// `DELETE /role_assignments/{id}`.
    async fn delete_role_assignment(
        &self,
        slot: Slot,
        assignment_id: i64,
    ) -> Result<Deletion, KisiError>;

    /// `POST /logins` on a member's behalf. Every call makes a new login: reuse.
    async fn create_device_login(
        &self,
        slot: Slot,
        login: &NewDeviceLogin,
    ) -> Result<CreatedLogin, KisiError>;

    /// `POST /logins/{id}/promote`: makes it the user's primary device.
    async fn promote_login(&self, slot: Slot, login_id: i64) -> Result<(), KisiError>;

    /// `DELETE /logins/{id}`.
    async fn delete_login(&self, slot: Slot, login_id: i64) -> Result<Deletion, KisiError>;

    /// `POST /locks/{id}/unlock`, as the owner of this key. A 503 or a lost answer leaves open
    /// whether the door opened.
    async fn unlock(
        &self,
        slot: Slot,
        lock_id: i64,
        request: &UnlockRequest,
    ) -> Result<(), KisiError>;

    /// `POST /integrations` for an event webhook.
    async fn create_event_webhook(
        &self,
        slot: Slot,
        webhook: &NewEventWebhook,
    ) -> Result<Integration, KisiError>;

    /// `PATCH /integrations/{id}`.
    async fn update_integration(
        &self,
        slot: Slot,
        integration_id: i64,
        patch: &IntegrationPatch,
    ) -> Result<(), KisiError>;

    /// `DELETE /integrations/{id}`.
    async fn delete_integration(
        &self,
        slot: Slot,
        integration_id: i64,
    ) -> Result<Deletion, KisiError>;

    /// `POST /event_sets`. Kisi takes one a second: by lane it waits for that before its turn,
    /// with a turn the distance is the caller's to keep.
    async fn create_event_set(&self, slot: Slot, set: &NewEventSet) -> Result<EventSet, KisiError>;
}
