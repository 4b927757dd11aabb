//! The port for looking, one method per route.

use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;

use super::HttpKisi;
use super::pages::{PAGE, USERS_PAGE};
use super::request::Request;
use crate::error::KisiError;
use crate::listing::Listing;
use crate::model::{
    AssignmentFilter, CurrentUser, EventSet, Group, GroupFilter, GroupLink, GroupLock, Integration,
    Lock, Login, Organization, Place, Role, RoleAssignment, User, UserFilter,
};
use crate::pacing::Lane;
use crate::read::KisiRead;

/// What Kisi gives of an event set when nothing is asked for; no maximum is published.
const EVENTS_PAGE: u64 = 50;

impl HttpKisi {
    async fn read<T: DeserializeOwned>(
        &self,
        lane: Lane,
        request: Request,
    ) -> Result<T, KisiError> {
        self.exchange(lane.into(), &request).await?.read()
    }

    /// None on 404.
    async fn find<T: DeserializeOwned>(
        &self,
        lane: Lane,
        request: Request,
    ) -> Result<Option<T>, KisiError> {
        let answer = self.exchange(lane.into(), &request).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        answer.read().map(Some)
    }
}

fn get(route: &'static str) -> Request {
    Request::new(Method::GET, route)
}

fn get_on(route: &'static str, id: i64) -> Request {
    Request::on(Method::GET, route, id)
}

#[async_trait]
impl KisiRead for HttpKisi {
    async fn current_login(&self, lane: Lane) -> Result<Login, KisiError> {
        self.read(lane, get("/login")).await
    }

    async fn current_user(&self, lane: Lane) -> Result<CurrentUser, KisiError> {
        self.read(lane, get("/user")).await
    }

    async fn current_organization(&self, lane: Lane) -> Result<Organization, KisiError> {
        self.read(lane, get("/organization")).await
    }

    async fn list_places(&self, lane: Lane) -> Result<Listing<Place>, KisiError> {
        self.list(lane, PAGE, || get("/places")).await
    }

    async fn list_groups(
        &self,
        lane: Lane,
        filter: &GroupFilter,
    ) -> Result<Listing<Group>, KisiError> {
        self.list(lane, PAGE, || {
            let mut request = get("/groups");
            if let Some(scope) = filter.scope {
                request = request.query("scope", scope.as_str());
            }
            if let Some(place_id) = filter.place_id {
                request = request.query("place_id", place_id);
            }
            request
        })
        .await
    }

    async fn find_group(&self, lane: Lane, group_id: i64) -> Result<Option<Group>, KisiError> {
        self.find(lane, get_on("/groups/{id}", group_id)).await
    }

    async fn list_group_locks(
        &self,
        lane: Lane,
        group_id: i64,
    ) -> Result<Listing<GroupLock>, KisiError> {
        self.list(lane, PAGE, || {
            get("/group_locks").query("group_id", group_id)
        })
        .await
    }

    async fn list_locks(
        &self,
        lane: Lane,
        place_id: Option<i64>,
    ) -> Result<Listing<Lock>, KisiError> {
        self.list(lane, PAGE, || match place_id {
            Some(place_id) => get("/locks").query("place_id", place_id),
            None => get("/locks"),
        })
        .await
    }

    async fn list_roles(&self, lane: Lane) -> Result<Vec<Role>, KisiError> {
        self.read(lane, get("/roles")).await
    }

    async fn list_users(
        &self,
        lane: Lane,
        filter: &UserFilter,
    ) -> Result<Listing<User>, KisiError> {
        self.list(lane, USERS_PAGE, || {
            let mut request = get("/users");
            if let Some(email) = &filter.email {
                request = request.query("email", email);
            }
            if let Some(query) = &filter.query {
                request = request.query("query", query);
            }
            if let Some(group_id) = filter.group_id {
                request = request.query("group_id", group_id);
            }
            request
        })
        .await
    }

    async fn list_all_users(
        &self,
        lane: Lane,
        at_most: u64,
    ) -> Result<Option<Listing<User>>, KisiError> {
        let listed = self.list_up_to(lane, USERS_PAGE, at_most, || get("/users"));
        match listed.await {
            Ok(listing) => Ok(Some(listing)),
            Err(KisiError::BeyondOffsetLimit { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list_users_by_email(&self, lane: Lane, email: &str) -> Result<Vec<User>, KisiError> {
        let filter = UserFilter {
            email: Some(email.to_owned()),
            ..UserFilter::default()
        };
        let mut users = self.list_users(lane, &filter).await?.items;
        users.retain(|user| user.has_email(email));
        Ok(users)
    }

    async fn list_users_by_id(&self, lane: Lane, ids: &[i64]) -> Result<Vec<User>, KisiError> {
        let text: Vec<String> = ids.iter().map(i64::to_string).collect();
        let request = get("/users")
            .query("ids", text.join(","))
            .query("limit", USERS_PAGE)
            .query("offset", 0);
        let mut users: Vec<User> = self.read(lane, request).await?;
        users.retain(|user| ids.contains(&user.id));
        Ok(users)
    }

    async fn find_user(&self, lane: Lane, user_id: i64) -> Result<Option<User>, KisiError> {
        self.find(lane, get_on("/users/{id}", user_id)).await
    }

    async fn list_role_assignments(
        &self,
        lane: Lane,
        filter: AssignmentFilter,
    ) -> Result<Listing<RoleAssignment>, KisiError> {
        self.list(lane, PAGE, || {
            let on = |kind: &'static str, id: i64| {
                get("/role_assignments")
                    .query("applies_to_type", kind)
                    .query("applies_to_id", id)
            };
            match filter {
                AssignmentFilter::Group(id) => on("Group", id),
                AssignmentFilter::Place(id) => on("Place", id),
                AssignmentFilter::Organization(id) => on("Organization", id),
                AssignmentFilter::User(id) => get("/role_assignments")
                    .query("assignee_type", "User")
                    .query("assignee_id", id),
            }
        })
        .await
    }

    async fn find_role_assignment(
        &self,
        lane: Lane,
        assignment_id: i64,
    ) -> Result<Option<RoleAssignment>, KisiError> {
        self.find(lane, get_on("/role_assignments/{id}", assignment_id))
            .await
    }

    async fn list_group_links(&self, lane: Lane) -> Result<Listing<GroupLink>, KisiError> {
        self.list(lane, PAGE, || get("/group_links")).await
    }

    async fn list_logins(&self, lane: Lane, user_id: i64) -> Result<Listing<Login>, KisiError> {
        self.list(lane, PAGE, || {
            get("/logins")
                .query("scope", "all")
                .query("user_id", user_id)
        })
        .await
    }

    async fn list_integrations(&self, lane: Lane) -> Result<Listing<Integration>, KisiError> {
        self.list(lane, PAGE, || get("/integrations")).await
    }

    async fn find_integration(
        &self,
        lane: Lane,
        integration_id: i64,
    ) -> Result<Option<Integration>, KisiError> {
        self.find(lane, get_on("/integrations/{id}", integration_id))
            .await
    }

    async fn find_event_set(
        &self,
        lane: Lane,
        event_set_id: i64,
        cursor: Option<&str>,
    ) -> Result<Option<EventSet>, KisiError> {
        let mut request = get_on("/event_sets/{id}", event_set_id).query("limit", EVENTS_PAGE);
        if let Some(cursor) = cursor {
            request = request.query("cursor", cursor);
        }
        self.find(lane, request).await
    }
}
