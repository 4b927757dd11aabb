//! From an operation of openapi.yaml to what it does. A route that the document has and this match
//! does not would answer 404, and a test walks the document to see that none does.

mod assignments;
mod events;
mod groups;
mod integrations;
mod logins;
mod organization;
mod unlock;
mod users;

pub use assignments::sweep;
pub use logins::random_hex;
pub use unlock::opens;

use crate::answer::{Answer, Outcome};
use crate::context::{Call, Context};

/// Answers a checked request of a known caller.
pub fn answer(cx: &mut Context<'_>, call: &Call) -> Outcome {
    match call.operation.id.as_str() {
        "fetchOrganizations" => organization::list(cx),
        "fetchCurrentOrganization" => organization::current(cx),
        "fetchCurrentUser" => organization::current_user(cx),
        "fetchPlaces" => organization::list_places(cx, call),
        "fetchPlace" => organization::place(cx, call),
        "fetchLocks" => organization::list_locks(cx, call),
        "fetchLock" => organization::lock(cx, call),
        "fetchRoles" => Ok(organization::list_roles()),
        "fetchRole" => organization::role(call),
        "unlockLock" => unlock::unlock(cx, call),
        "fetchGroups" => groups::list(cx, call),
        "createGroup" => groups::create(cx, call),
        "fetchGroup" => groups::fetch(cx, call),
        "updateGroup" => groups::update(cx, call),
        "deleteGroup" => groups::delete(cx, call),
        "fetchGroupLocks" => groups::list_locks(cx, call),
        "createGroupLock" => groups::create_lock(cx, call),
        "fetchGroupLock" => groups::fetch_lock(cx, call),
        "deleteGroupLock" => groups::delete_lock(cx, call),
        "fetchGroupLinks" => groups::list_links(cx, call),
        "fetchUsers" => users::list(cx, call),
        "createUser" => users::create(cx, call, "user"),
        "fetchUser" => users::fetch(cx, call),
        "updateUser" => users::update(cx, call, "user"),
        "deleteUser" => users::delete(cx, call),
        "fetchMembers" => users::list_members(cx, call),
        "createMember" => users::create(cx, call, "member"),
        "fetchMember" => users::fetch_member(cx, call),
        "updateMember" => users::update(cx, call, "member"),
        "deleteMember" => users::delete(cx, call),
        "fetchRoleAssignments" => assignments::list(cx, call),
        "createRoleAssignment" => assignments::create(cx, call),
        "fetchRoleAssignment" => assignments::fetch(cx, call),
        "updateRoleAssignment" => assignments::update(cx, call),
        "deleteRoleAssignment" => assignments::delete(cx, call),
        "fetchLogins" => logins::list(cx, call),
        "createLogin" => logins::create(cx, call),
        "deleteLogin" => logins::delete(cx, call),
        "promoteLogin" => logins::promote(cx, call),
        "fetchCurrentLogin" => logins::current(cx),
        "fetchIntegrations" => integrations::list(cx, call),
        "createIntegration" => integrations::create(cx, call),
        "fetchIntegration" => integrations::fetch(cx, call),
        "updateIntegration" => integrations::update(cx, call),
        "deleteIntegration" => integrations::delete(cx, call),
        "createEventSet" => events::create(cx, call),
        "fetchEventSet" => events::fetch(cx, call),
        _ => Err(Answer::unknown_route()),
    }
}
