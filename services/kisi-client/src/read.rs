//! The port for looking at Kisi.
//!
//! **Flow.** Every request waits for its turn at the pacer of the key's user; lists read page
//! after page, each page a turn of its own, so that a revoke can go out between two pages.
//! **Guarantees.** A read is repeated by itself after a lost answer, a 5xx or a 429, a bounded
//! number of times. A missing object is `Ok(None)`.
//! **Assumptions.** One Kisi user, one pacer.
//! **Caveats.** 404 may also mean "not visible to this key". A [`Listing`] that is not
//! `complete` must never yield a removal.
//! **Errors.** As in [`KisiError`].

use async_trait::async_trait;

use crate::error::KisiError;
use crate::listing::Listing;
use crate::model::{
    AssignmentFilter, CurrentUser, EventSet, Group, GroupFilter, GroupLink, GroupLock, Integration,
    Lock, Login, Organization, Place, Role, RoleAssignment, User, UserFilter,
};
use crate::pacing::Lane;

#[async_trait]
pub trait KisiRead: Send + Sync {
    /// `GET /login`: the cheapest check of a key.
    async fn current_login(&self, lane: Lane) -> Result<Login, KisiError>;

    /// `GET /user`: whose key it is, and of which organization.
    async fn current_user(&self, lane: Lane) -> Result<CurrentUser, KisiError>;

    /// `GET /organization`.
    async fn current_organization(&self, lane: Lane) -> Result<Organization, KisiError>;

    /// `GET /places`.
    async fn list_places(&self, lane: Lane) -> Result<Listing<Place>, KisiError>;

    /// `GET /groups`.
    async fn list_groups(
        &self,
        lane: Lane,
        filter: &GroupFilter,
    ) -> Result<Listing<Group>, KisiError>;

    /// `GET /groups/{id}`; None when it is gone.
    async fn find_group(&self, lane: Lane, group_id: i64) -> Result<Option<Group>, KisiError>;

    /// `GET /group_locks`: the doors of one group.
    async fn list_group_locks(
        &self,
        lane: Lane,
        group_id: i64,
    ) -> Result<Listing<GroupLock>, KisiError>;

    /// `GET /locks`: the doors of one place, or all; with a member's login only those she may open.
    async fn list_locks(
        &self,
        lane: Lane,
        place_id: Option<i64>,
    ) -> Result<Listing<Lock>, KisiError>;

    /// `GET /roles`: every role, without paging.
    async fn list_roles(&self, lane: Lane) -> Result<Vec<Role>, KisiError>;

    /// `GET /users`.
    async fn list_users(&self, lane: Lane, filter: &UserFilter)
    -> Result<Listing<User>, KisiError>;

    /// `GET /users` of the whole organization, pages of 100; None, after one request, when there are
    /// more than `at_most` or than Kisi lets anyone page through.
    async fn list_all_users(
        &self,
        lane: Lane,
        at_most: u64,
    ) -> Result<Option<Listing<User>>, KisiError>;

    /// The users with exactly this e-mail, compared by us without case. More than one is a
    /// matter for a person; the first hit of a search is never taken on trust.
    async fn list_users_by_email(&self, lane: Lane, email: &str) -> Result<Vec<User>, KisiError>;

    /// Those of at most 100 users that one page names. That ids are separated by commas is not
    /// published, so whoever is missing may still be there.
    async fn list_users_by_id(&self, lane: Lane, ids: &[i64]) -> Result<Vec<User>, KisiError>;

    /// `GET /users/{id}`; None when it is gone.
    async fn find_user(&self, lane: Lane, user_id: i64) -> Result<Option<User>, KisiError>;

    /// `GET /role_assignments` of a group, a user, a place or the organization, pages of 250.
    async fn list_role_assignments(
        &self,
        lane: Lane,
        filter: AssignmentFilter,
    ) -> Result<Listing<RoleAssignment>, KisiError>;

    /// `GET /role_assignments/{id}`; None when it is gone.
    async fn find_role_assignment(
        &self,
        lane: Lane,
        assignment_id: i64,
    ) -> Result<Option<RoleAssignment>, KisiError>;

    /// `GET /group_links`: access links of the organization's groups.
    async fn list_group_links(&self, lane: Lane) -> Result<Listing<GroupLink>, KisiError>;

    /// `GET /logins` of a user.
    async fn list_logins(&self, lane: Lane, user_id: i64) -> Result<Listing<Login>, KisiError>;

    /// `GET /integrations`. Rows of a list carry no url; see [`KisiRead::find_integration`].
    async fn list_integrations(&self, lane: Lane) -> Result<Listing<Integration>, KisiError>;

    /// `GET /integrations/{id}`; None when it is gone.
    async fn find_integration(
        &self,
        lane: Lane,
        integration_id: i64,
    ) -> Result<Option<Integration>, KisiError>;

    /// `GET /event_sets/{id}`: its state, and once finished the page that begins at `cursor`.
    async fn find_event_set(
        &self,
        lane: Lane,
        event_set_id: i64,
        cursor: Option<&str>,
    ) -> Result<Option<EventSet>, KisiError>;
}
