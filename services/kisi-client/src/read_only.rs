//! A dry run: reads go through, writes are told and kept back.
//!
//! A write answers [`KisiError::NotSent`] rather than an invented object: an id that Kisi never
//! gave must not find its way into a table. So the caller's `apply` runs to its end, each step
//! with this outcome.

use async_trait::async_trait;

use crate::error::KisiError;
use crate::listing::Listing;
use crate::model::{
    AssignmentFilter, CreatedLogin, CurrentUser, EventSet, Group, GroupFilter, GroupLink,
    GroupLock, Integration, IntegrationPatch, Lock, Login, NewDeviceLogin, NewEventSet,
    NewEventWebhook, NewGroupAssignment, NewUser, Organization, Place, Role, RoleAssignment,
    UnlockRequest, User, UserFilter, UserPatch, Window,
};
use crate::pacing::{Lane, Slot};
use crate::read::KisiRead;
use crate::write::{Deletion, KisiWrite};

/// Around any Kisi: what would be changed is told to `tell`, and nothing is sent.
pub struct ReadOnly<W> {
    inner: W,
    tell: Box<dyn Fn(&str) + Send + Sync>,
}

impl<W> ReadOnly<W> {
    /// Each write is told as one line of ids, windows and field names, without personal data.
    pub fn new(inner: W, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self {
            inner,
            tell: Box::new(tell),
        }
    }

    fn keep_back<T>(&self, step: String) -> Result<T, KisiError> {
        (self.tell)(&step);
        Err(KisiError::NotSent { step })
    }
}

impl<W> std::fmt::Debug for ReadOnly<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadOnly").finish_non_exhaustive()
    }
}

#[async_trait]
impl<W: KisiRead> KisiRead for ReadOnly<W> {
    async fn current_login(&self, lane: Lane) -> Result<Login, KisiError> {
        self.inner.current_login(lane).await
    }

    async fn current_user(&self, lane: Lane) -> Result<CurrentUser, KisiError> {
        self.inner.current_user(lane).await
    }

    async fn current_organization(&self, lane: Lane) -> Result<Organization, KisiError> {
        self.inner.current_organization(lane).await
    }

    async fn list_places(&self, lane: Lane) -> Result<Listing<Place>, KisiError> {
        self.inner.list_places(lane).await
    }

    async fn list_groups(
        &self,
        lane: Lane,
        filter: &GroupFilter,
    ) -> Result<Listing<Group>, KisiError> {
        self.inner.list_groups(lane, filter).await
    }

    async fn find_group(&self, lane: Lane, group_id: i64) -> Result<Option<Group>, KisiError> {
        self.inner.find_group(lane, group_id).await
    }

    async fn list_group_locks(
        &self,
        lane: Lane,
        group_id: i64,
    ) -> Result<Listing<GroupLock>, KisiError> {
        self.inner.list_group_locks(lane, group_id).await
    }

    async fn list_locks(
        &self,
        lane: Lane,
        place_id: Option<i64>,
    ) -> Result<Listing<Lock>, KisiError> {
        self.inner.list_locks(lane, place_id).await
    }

    async fn list_roles(&self, lane: Lane) -> Result<Vec<Role>, KisiError> {
        self.inner.list_roles(lane).await
    }

    async fn list_users(
        &self,
        lane: Lane,
        filter: &UserFilter,
    ) -> Result<Listing<User>, KisiError> {
        self.inner.list_users(lane, filter).await
    }

    async fn list_all_users(
        &self,
        lane: Lane,
        at_most: u64,
    ) -> Result<Option<Listing<User>>, KisiError> {
        self.inner.list_all_users(lane, at_most).await
    }

    async fn list_users_by_email(&self, lane: Lane, email: &str) -> Result<Vec<User>, KisiError> {
        self.inner.list_users_by_email(lane, email).await
    }

    async fn list_users_by_id(&self, lane: Lane, ids: &[i64]) -> Result<Vec<User>, KisiError> {
        self.inner.list_users_by_id(lane, ids).await
    }

    async fn find_user(&self, lane: Lane, user_id: i64) -> Result<Option<User>, KisiError> {
        self.inner.find_user(lane, user_id).await
    }

    async fn list_role_assignments(
        &self,
        lane: Lane,
        filter: AssignmentFilter,
    ) -> Result<Listing<RoleAssignment>, KisiError> {
        self.inner.list_role_assignments(lane, filter).await
    }

    async fn find_role_assignment(
        &self,
        lane: Lane,
        assignment_id: i64,
    ) -> Result<Option<RoleAssignment>, KisiError> {
        self.inner.find_role_assignment(lane, assignment_id).await
    }

    async fn list_group_links(&self, lane: Lane) -> Result<Listing<GroupLink>, KisiError> {
        self.inner.list_group_links(lane).await
    }

    async fn list_logins(&self, lane: Lane, user_id: i64) -> Result<Listing<Login>, KisiError> {
        self.inner.list_logins(lane, user_id).await
    }

    async fn list_integrations(&self, lane: Lane) -> Result<Listing<Integration>, KisiError> {
        self.inner.list_integrations(lane).await
    }

    async fn find_integration(
        &self,
        lane: Lane,
        integration_id: i64,
    ) -> Result<Option<Integration>, KisiError> {
        self.inner.find_integration(lane, integration_id).await
    }

    async fn find_event_set(
        &self,
        lane: Lane,
        event_set_id: i64,
        cursor: Option<&str>,
    ) -> Result<Option<EventSet>, KisiError> {
        self.inner.find_event_set(lane, event_set_id, cursor).await
    }
}

#[async_trait]
impl<W: Send + Sync> KisiWrite for ReadOnly<W> {
    async fn create_user(&self, _slot: Slot, user: &NewUser) -> Result<User, KisiError> {
        self.keep_back(format!(
            "create a user with {} metadata keys",
            user.metadata.len()
        ))
    }

    async fn update_user(
        &self,
        _slot: Slot,
        user_id: i64,
        patch: &UserPatch,
    ) -> Result<(), KisiError> {
        self.keep_back(format!("update user {user_id}: {}", patch.field_names()))
    }

    async fn delete_user(&self, _slot: Slot, user_id: i64) -> Result<Deletion, KisiError> {
        self.keep_back(format!("delete user {user_id}"))
    }

    async fn create_role_assignment(
        &self,
        _slot: Slot,
        assignment: &NewGroupAssignment,
    ) -> Result<RoleAssignment, KisiError> {
        self.keep_back(format!(
            "grant {} on group {} to user {}, {}",
            assignment.role_id, assignment.group_id, assignment.user_id, assignment.window
        ))
    }

    async fn update_role_assignment_window(
        &self,
        _slot: Slot,
        assignment_id: i64,
        window: Window,
    ) -> Result<(), KisiError> {
        self.keep_back(format!("move assignment {assignment_id} to {window}"))
    }

    async fn delete_role_assignment(
        &self,
        _slot: Slot,
        assignment_id: i64,
    ) -> Result<Deletion, KisiError> {
        self.keep_back(format!("revoke assignment {assignment_id}"))
    }

    async fn create_device_login(
        &self,
        _slot: Slot,
        _login: &NewDeviceLogin,
    ) -> Result<CreatedLogin, KisiError> {
        self.keep_back("create a device login".to_owned())
    }

    async fn promote_login(&self, _slot: Slot, login_id: i64) -> Result<(), KisiError> {
        self.keep_back(format!("make login {login_id} primary"))
    }

    async fn delete_login(&self, _slot: Slot, login_id: i64) -> Result<Deletion, KisiError> {
        self.keep_back(format!("delete login {login_id}"))
    }

    async fn unlock(
        &self,
        _slot: Slot,
        lock_id: i64,
        _request: &UnlockRequest,
    ) -> Result<(), KisiError> {
        self.keep_back(format!("unlock lock {lock_id}"))
    }

    async fn create_event_webhook(
        &self,
        _slot: Slot,
        webhook: &NewEventWebhook,
    ) -> Result<Integration, KisiError> {
        self.keep_back(format!(
            "create an event webhook for {} events",
            webhook.enabled_events.len()
        ))
    }

    async fn update_integration(
        &self,
        _slot: Slot,
        integration_id: i64,
        _patch: &IntegrationPatch,
    ) -> Result<(), KisiError> {
        self.keep_back(format!("update integration {integration_id}"))
    }

    async fn delete_integration(
        &self,
        _slot: Slot,
        integration_id: i64,
    ) -> Result<Deletion, KisiError> {
        self.keep_back(format!("delete integration {integration_id}"))
    }

    async fn create_event_set(
        &self,
        _slot: Slot,
        set: &NewEventSet,
    ) -> Result<EventSet, KisiError> {
        self.keep_back(format!("collect events from {} to {}", set.from, set.until))
    }
}
