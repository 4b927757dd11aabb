//! Held plans as staff see and decide them.

use contracts::integration::v1 as api;
use contracts::wire;
use sea_orm::{ActiveModelTrait, ActiveValue, EntityTrait, IntoActiveModel, TransactionTrait};
use tonic::Status;

use super::Setup;
use crate::store::{held_plans, instant, members};
use crate::{held, integration_state as state, refusal};

impl Setup {
    pub async fn held_plans(&self, gym: &str) -> Result<api::ListHeldPlansResponse, Status> {
        let plans = held::show(&self.shared.db, gym)
            .await
            .map_err(refusal::store)?;
        Ok(api::ListHeldPlansResponse {
            held_plans: plans
                .iter()
                .filter(|plan| plan.state == "held")
                .map(held_shown)
                .collect(),
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
        if plan.state != "held" {
            return Err(refusal::missing_step("the plan was decided on already"));
        }
        if plan.digest != request.digest {
            return Err(refusal::missing_step(
                "the plan is not the one that was shown: list the held plans again",
            ));
        }
        let members: Vec<String> = serde_json::from_str(&plan.members).unwrap_or_default();
        let now = self.shared.now();
        let txn = self.shared.db.begin().await.map_err(refusal::store)?;
        let mut row = plan.into_active_model();
        row.state = ActiveValue::Set(if approve { "approved" } else { "discarded" }.to_owned());
        let cause = members::Cause::new("held_plan", &request.id, Some(&actor));
        row.decided_by = ActiveValue::Set(Some(actor));
        let plan = row.update(&txn).await.map_err(refusal::store)?;
        if approve {
            held::mark(&txn, gym, &members, None)
                .await
                .map_err(refusal::store)?;
            members::mark_pending(&txn, gym, &members, &cause, true, now)
                .await
                .map_err(refusal::store)?;
        }
        let id = plan.id.clone();
        state::change(&txn, gym, now, |row| {
            state::settle_attention(row, |matter| {
                matter.what == "plan_held" && matter.subject == id
            })
        })
        .await
        .map_err(refusal::store)?;
        txn.commit().await.map_err(refusal::store)?;
        self.shared.outbox.notify_one();
        self.shared.workers.reload(gym);
        Ok(held_shown(&plan))
    }
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
