//! The end of an integration: what Kisi holds is kept, or taken back first.

use std::collections::{BTreeMap, BTreeSet};

use contracts::integration::v1 as api;
use sea_orm::{DbErr, TransactionTrait};
use tonic::Status;

use super::Setup;
use service_runtime::lifecycle::chain;

use crate::event_webhook::Webhook;
use crate::store::{applied_grants, integrations, members};
use crate::{held, refusal};

impl Setup {
    /// `keep` leaves what Kisi holds; `revoke` takes ours back first.
    pub async fn disable(
        &self,
        gym: &str,
        access: &str,
        digest: Option<String>,
        actor: &str,
    ) -> Result<api::Integration, Status> {
        let row = self.enabled(gym).await?;
        match access {
            "keep" => {}
            "revoke" => {
                let digest = self.confirmed(gym, digest, &BTreeMap::new()).await?;
                let kisi = self.kisi(&row)?;
                let planned = self.plan_of(row.clone(), &kisi, &BTreeMap::new()).await?;
                if digest != Some(planned.plan.digest()) {
                    return Err(refusal::missing_step(
                        "revoking is confirmed by the digest of a preview without associations (PreviewSync)",
                    ));
                }
                self.revoke_all(gym, &row, actor).await?;
            }
            _ => {
                return Err(refusal::invalid(
                    "access",
                    "one of keep, revoke is expected",
                ));
            }
        }
        self.end_events(gym, &row, actor).await;
        self.changed(gym, |row| {
            row.enabled = false;
            row.activated = false;
            row.synced = false;
            row.key_status = "none".to_owned();
            row.sealed_key = Vec::new();
            row.associations = "{}".to_owned();
            row.attention = "[]".to_owned();
            row.place_id = None;
            Ok(())
        })
        .await?;
        crate::worker::keep_in_step(&self.shared)
            .await
            .map_err(refusal::store)?;
        self.show(gym).await
    }

    /// A webhook that stays behind is refused here, and Kisi switches it off.
    pub(super) async fn end_events(&self, gym: &str, row: &integrations::Model, actor: &str) {
        let Ok(kisi) = self.kisi(row) else { return };
        let mut webhook = Webhook {
            shared: &self.shared,
            gym,
            kisi: &kisi,
            cause: members::Cause::new("call", "DisableIntegration", Some(actor)),
            requests: 0,
        };
        if let Err(error) = webhook.remove().await {
            tracing::warn!(gym.id = %gym, error = %chain(&error),
                "The event webhook of gym {gym} stays behind at Kisi");
        }
    }

    /// The associations go, and with them every right of ours, each by the path of all others.
    async fn revoke_all(
        &self,
        gym: &str,
        row: &integrations::Model,
        actor: &str,
    ) -> Result<(), Status> {
        self.changed(gym, |row| {
            row.associations = "{}".to_owned();
            Ok(())
        })
        .await?;
        let rows = applied_grants::of_gym(&self.shared.db, row.organization(), gym)
            .await
            .map_err(refusal::store)?;
        let holders: BTreeSet<String> = rows.into_iter().map(|row| row.member_id).collect();
        let holders: Vec<String> = holders.into_iter().collect();
        let now = self.shared.now();
        let cause = members::Cause::new("call", "DisableIntegration", Some(actor));
        // Those too who were held, or kept by a plan that was discarded.
        let marked = async {
            held::end_all(&self.shared.db, gym, now).await?;
            let txn = self.shared.db.begin().await?;
            held::release_from_all(&txn, gym, &holders).await?;
            members::mark_pending(&txn, gym, &holders, &cause, true, now).await?;
            txn.commit().await
        };
        let marked: Result<(), DbErr> = marked.await;
        marked.map_err(refusal::store)?;
        let (reply, mut settled) = tokio::sync::mpsc::unbounded_channel();
        for member in &holders {
            let job = crate::worker::Job::of_sync(member, reply.clone());
            self.shared.workers.wake(gym, job);
        }
        drop(reply);
        while settled.recv().await.is_some() {}
        let left = applied_grants::of_gym(&self.shared.db, row.organization(), gym)
            .await
            .map_err(refusal::store)?;
        if left.is_empty() {
            Ok(())
        } else {
            Err(Status::unavailable(
                "not every right could be taken back yet; try again",
            ))
        }
    }
}
