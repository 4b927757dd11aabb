//! Which plan opens which group: the whole set at a time.

use std::collections::{BTreeMap, BTreeSet};

use contracts::integration::v1 as api;
use kisi_client::{HttpKisi, KisiRead, Lane};
use sea_orm::TransactionTrait;
use tonic::Status;

use super::preview::stored;
use super::{NewPass, Setup};
use crate::store::integrations;
use crate::{doors, integration_state as state, refusal};

impl Setup {
    /// Reads a set: a plan once, whole ids.
    pub(super) fn parse(
        associations: &[api::Association],
    ) -> Result<BTreeMap<String, i64>, Status> {
        let mut set = BTreeMap::new();
        for association in associations {
            if !crate::desired::is_id(&association.plan_id) {
                return Err(refusal::invalid("associations.plan_id", "it is no id"));
            }
            let group = association.group_id;
            if set.insert(association.plan_id.clone(), group).is_some() {
                return Err(refusal::invalid(
                    "associations.plan_id",
                    "a plan stands twice, and has one group",
                ));
            }
        }
        Ok(set)
    }

    pub(super) async fn require_groups(
        &self,
        kisi: &HttpKisi,
        set: &BTreeMap<String, i64>,
    ) -> Result<(), Status> {
        let groups: BTreeSet<i64> = set.values().copied().collect();
        for group in groups {
            let found = kisi.find_group(Lane::SetUp, group).await;
            if found.map_err(refusal::kisi)?.is_none() {
                return Err(refusal::invalid(
                    "associations.group_id",
                    "Kisi has no such group",
                ));
            }
        }
        Ok(())
    }

    /// What the mapping opens, for pages.
    async fn show_doors(&self, kisi: &HttpKisi, row: &integrations::Model) -> Result<(), Status> {
        let looked = doors::list(kisi, Lane::SetUp, row).await;
        let mut looked = looked.map_err(refusal::kisi)?;
        if let Some((_, error)) = looked.failed.pop() {
            return Err(refusal::kisi(error));
        }
        let txn = self.shared.db.begin().await.map_err(refusal::store)?;
        doors::save(&txn, &row.gym_id, &looked, self.shared.now())
            .await
            .map_err(refusal::store)?;
        txn.commit().await.map_err(refusal::store)?;
        self.shared.outbox.notify_one();
        Ok(())
    }

    pub async fn set_associations(
        &self,
        gym: &str,
        associations: &[api::Association],
        digest: Option<String>,
        actor: &str,
    ) -> Result<api::Integration, Status> {
        let row = self.enabled(gym).await?;
        if row.place_id.is_none() {
            return Err(refusal::missing_step("no place is selected (SelectPlace)"));
        }
        let set = Self::parse(associations)?;
        let digest = self.confirmed(gym, digest, &set).await?;
        let kisi = self.kisi(&row)?;
        self.require_groups(&kisi, &set).await?;
        let text = stored(&set)?;
        let pass = NewPass {
            activation: "associations",
            digest,
            actor,
        };
        let (row, _) = self
            .changed_with_pass(gym, pass, |row| {
                let is_other = row.associations != text;
                row.associations = text;
                state::settle_attention(row, |matter| {
                    matter.what == "group_missing"
                        && !set
                            .values()
                            .any(|group| group.to_string() == matter.subject)
                })?;
                Ok(is_other && row.activated)
            })
            .await?;
        if let Err(error) = self.show_doors(&kisi, &row).await {
            // The mapping holds all the same, and the next pass looks at its doors.
            tracing::warn!(gym.id = %gym, error = %error, "The doors of gym {gym} are shown later");
        }
        self.show(gym).await
    }
}
