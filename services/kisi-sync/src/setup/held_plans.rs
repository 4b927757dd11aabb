//! Held plans as staff see and decide them.

use contracts::integration::v1 as api;
use contracts::wire;
use sea_orm::{EntityTrait, TransactionTrait};
use tonic::Status;

use super::Setup;
use crate::store::{held_plans, instant, members};
use crate::{held, refusal};

impl Setup {
    pub async fn held_plans(&self, gym: &str) -> Result<api::ListHeldPlansResponse, Status> {
        let plans = held::show(&self.shared.db, gym, self.shared.now())
            .await
            .map_err(refusal::store)?;
        Ok(api::ListHeldPlansResponse {
            held_plans: plans.iter().map(held_shown).collect(),
        })
    }

    /// Approves or discards exactly the set of this digest.
    pub async fn decide(
        &self,
        request: &api::DecidePlanRequest,
        approve: bool,
        actor: String,
    ) -> Result<api::HeldPlan, Status> {
        let gym = &request.gym_id;
        let plan = held_plans::Entity::find_by_id(request.id.clone())
            .one(&self.shared.db)
            .await
            .map_err(refusal::store)?
            .filter(|plan| plan.gym_id == *gym)
            .ok_or_else(|| Status::not_found("there is no such held plan"))?;
        match plan.state.as_str() {
            "held" => {}
            "expired" => return Err(no_longer_fits()),
            _ => return Err(refusal::missing_step("the plan was decided on already")),
        }
        // One that nobody was shown yet has no digest.
        if !plan.sealed || plan.digest != request.digest {
            return Err(refusal::missing_step(
                "the plan is not the one that was shown: list the held plans again",
            ));
        }
        let now = self.shared.now();
        let decision = if approve { "approved" } else { "discarded" };
        let cause = members::Cause::new(members::HELD_PLAN, &request.id, Some(&actor));
        let txn = self.shared.db.begin().await.map_err(refusal::store)?;
        let decided = held::decide(&txn, &plan, decision, Some(actor), now).await;
        if !decided.map_err(refusal::store)? {
            return Err(no_longer_fits());
        }
        if approve {
            // Whoever dropped out since it was shown is not part of it, not even where another plan
            // holds her by now.
            let held = held::held_by(&txn, gym, &plan.id).await;
            let held = held.map_err(refusal::store)?;
            let plans = [plan.id.clone()];
            held::release(&txn, gym, &held, &plans)
                .await
                .map_err(refusal::store)?;
            members::mark_pending(&txn, gym, &held, &cause, true, now)
                .await
                .map_err(refusal::store)?;
        }
        txn.commit().await.map_err(refusal::store)?;
        let plan = held_plans::Model {
            state: decision.to_owned(),
            ..plan
        };
        self.shared.outbox.notify_one();
        self.shared.workers.reload(gym);
        Ok(held_shown(&plan))
    }
}

fn no_longer_fits() -> Status {
    refusal::missing_step(
        "the plan no longer fits: what it held is planned anew; list the held plans again",
    )
}

fn held_shown(plan: &held_plans::Model) -> api::HeldPlan {
    api::HeldPlan {
        id: plan.id.clone(),
        digest: plan.digest.clone(),
        class: plan.class.clone(),
        causes: serde_json::from_str(&plan.causes).unwrap_or_default(),
        revokes: plan.revokes,
        grants: plan.grants,
        held_at: Some(wire::timestamp(instant(plan.held_at))),
        expires_at: Some(wire::timestamp(instant(plan.expires_at))),
        state: plan.state.clone(),
    }
}
