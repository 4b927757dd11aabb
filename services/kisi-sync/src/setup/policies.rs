//! The gym's choices, as words.

use contracts::integration::v1 as api;
use tonic::Status;

use super::Setup;
use crate::refusal;

impl Setup {
    pub async fn set_policies(
        &self,
        gym: &str,
        policies: Option<api::Policies>,
    ) -> Result<api::Integration, Status> {
        self.enabled(gym).await?;
        let policies = policies.ok_or_else(|| refusal::invalid("policies", "they are missing"))?;
        let word = |field: &str, word: &str, allowed: &[&str]| match word {
            "" => Ok(None),
            word if allowed.contains(&word) => Ok(Some(word.to_owned())),
            _ => Err(refusal::invalid(
                field,
                &format!("one of {} is expected", allowed.join(", ")),
            )),
        };
        let unmanaged = word(
            "policies.unmanaged",
            &policies.unmanaged,
            &["leave", "adopt"],
        )?;
        let resume = word(
            "policies.member_resume",
            &policies.member_resume,
            &["request", "immediate", "off"],
        )?;
        let user_mode = word(
            "policies.user_mode",
            &policies.user_mode,
            &["managed", "regular"],
        )?;
        self.changed(gym, |row| {
            if let Some(word) = unmanaged {
                row.unmanaged_policy = word;
            }
            if let Some(word) = resume {
                row.member_resume = word;
            }
            if let Some(word) = user_mode {
                row.user_mode = word;
            }
            Ok(())
        })
        .await?;
        self.show(gym).await
    }
}
