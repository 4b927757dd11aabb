//! Errors as callers see them: the field or the missing step by name, and nothing of the inside.

use kisi_client::KisiError;
use sea_orm::DbErr;
use tonic::Status;

use crate::reconcile::ReconcileError;
use crate::rights::RightsError;

/// The field makes no sense.
pub fn invalid(field: &str, why: &str) -> Status {
    Status::invalid_argument(format!("{field}: {why}"))
}

/// A step of the set-up is missing.
pub fn missing_step(step: &str) -> Status {
    Status::failed_precondition(step)
}

/// Our own trouble; the log has it.
pub fn internal(error: &dyn std::error::Error) -> Status {
    tracing::error!(error = %service_runtime::lifecycle::chain(error), "A call failed");
    Status::internal("kisi-sync failed; try again")
}

pub fn store(error: DbErr) -> Status {
    internal(&error)
}

/// What Kisi said to a key that was saved before.
pub fn kisi(error: KisiError) -> Status {
    match error.status() {
        Some(401) => {
            return missing_step(
                "the Kisi key does not work any more: save another one (RotateApiKey)",
            );
        }
        Some(403) => {
            return missing_step(
                "Kisi does not let the key do this: look at the rights of its owner, and at the Kisi plan",
            );
        }
        _ => {}
    }
    if error.is_transient() || error.is_outcome_unknown() {
        tracing::warn!(error = %error, "Kisi did not answer a call");
        return Status::unavailable("Kisi does not answer; try again");
    }
    tracing::error!(error = %error, "Kisi refused a call");
    Status::unavailable("Kisi refused; try again")
}

/// What Kisi said to a key that is being saved. The key is never repeated.
pub fn new_key(error: KisiError) -> Status {
    match &error {
        KisiError::Settings(_) => invalid("api_key", "Kisi refuses the key"),
        _ if error.is_key_dead() => invalid("api_key", "Kisi refuses the key"),
        _ => kisi(error),
    }
}

pub fn rights(error: RightsError) -> Status {
    match error {
        RightsError::Kisi(error) => kisi(error),
        RightsError::Store(error) => store(error),
        RightsError::Directory(status) => {
            tracing::warn!(error = %status, "membership-events did not answer a call");
            Status::unavailable("membership-events does not answer; try again")
        }
        error => internal(&error),
    }
}

pub fn reconcile(error: ReconcileError) -> Status {
    match error {
        ReconcileError::Kisi(error) => kisi(error),
        ReconcileError::Store(error) => store(error),
        ReconcileError::NotSetUp => missing_step("the first sync has not been started (StartSync)"),
        error => internal(&error),
    }
}
