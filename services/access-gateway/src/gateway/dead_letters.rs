//! Messages that could not be handled: listed with their causes, and given to their own consumers
//! again. Their bodies are not shown: they may hold what only a service may see.
//!
//! `_` stands for the messages that belong to no gym, such as a provider's, and is for services.

use contracts::integration::v1 as wire;
use contracts::wire::timestamp;
use event_bus::dead_letter::{DeadLetter, DeadLetterError, DeadLetterFilter, DeadLetters};
use service_runtime::identity::{Caller, Role};

use super::Gateway;
use crate::permit::{self, Scope};
use crate::refusal::Refusal;

const NO_GYM: &str = "_";
const USUAL: i32 = 50;
const MOST: i32 = 500;
/// Letters looked at in one go when all are replayed.
const AT_ONCE: usize = 100;

impl Gateway {
    /// The gym's dead letters, oldest first.
    pub async fn list_dead_letters(
        &self,
        caller: &Caller,
        request: wire::ListDeadLettersRequest,
    ) -> Result<wire::ListDeadLettersResponse, Refusal> {
        let filter = permitted(caller, &request.gym_id, Scope::Read)?;
        let size = match request.page_size {
            0 => USUAL,
            size @ 1..=MOST => size,
            _ => return Err(Refusal::field("page_size", "1 to 500 is expected")),
        };
        let after = match request.page_token.as_str() {
            "" => 0,
            token => token.parse().map_err(|_| {
                Refusal::field("page_token", "a next_page_token of this list is expected")
            })?,
        };
        let size = usize::try_from(size).unwrap_or_default();
        let letters = self.dead_letters()?.list(&filter, after, size).await;
        let letters = letters.map_err(unreadable)?;
        let next_page_token = match letters.last() {
            Some(last) if letters.len() == size => last.sequence.to_string(),
            _ => String::new(),
        };
        Ok(wire::ListDeadLettersResponse {
            dead_letters: letters.into_iter().map(shown).collect(),
            next_page_token,
        })
    }

    /// Replays those that are named, or all of the gym's; answers how many there were.
    pub async fn replay_dead_letters(
        &self,
        caller: &Caller,
        request: wire::ReplayDeadLettersRequest,
    ) -> Result<wire::ReplayDeadLettersResponse, Refusal> {
        let filter = permitted(caller, &request.gym_id, Scope::Configure)?;
        let dead_letters = self.dead_letters()?;
        let mut replayed = 0;
        if request.ids.is_empty() {
            // What dies again meanwhile comes behind those that are there now, and stays.
            let began = self.now();
            let mut after = 0;
            loop {
                let letters = dead_letters.list(&filter, after, AT_ONCE).await;
                let letters = letters.map_err(unreadable)?;
                let page = letters.len();
                let old = letters.into_iter().take_while(|letter| letter.at <= began);
                let old: Vec<u64> = old.map(|letter| letter.sequence).collect();
                for sequence in &old {
                    after = *sequence;
                    replayed += replay(dead_letters, after).await?;
                }
                if page < AT_ONCE || old.len() < page {
                    break;
                }
            }
            return Ok(wire::ReplayDeadLettersResponse { replayed });
        }
        // All are looked at before any is touched.
        let mut sequences = Vec::with_capacity(request.ids.len());
        for (place, id) in request.ids.iter().enumerate() {
            // Sequences begin at 1.
            let sequence = u64::try_from(*id).unwrap_or_default();
            let letter = match sequence {
                0 => None,
                _ => dead_letters.find(sequence).await.map_err(unreadable)?,
            };
            let is_theirs = letter
                .is_some_and(|letter| letter.gym.as_deref().unwrap_or(NO_GYM) == request.gym_id);
            if !is_theirs {
                return Err(Refusal::field(
                    &format!("ids[{place}]"),
                    "the gym has no such dead letter; list them again",
                ));
            }
            sequences.push(sequence);
        }
        for sequence in sequences {
            replayed += replay(dead_letters, sequence).await?;
        }
        Ok(wire::ReplayDeadLettersResponse { replayed })
    }

    /// The bus is there.
    pub fn offer_dead_letters(&self, dead_letters: DeadLetters) {
        // Offered once; a second time it is the same.
        let _ = self.dead_letters.set(dead_letters);
    }

    fn dead_letters(&self) -> Result<&DeadLetters, Refusal> {
        self.dead_letters.get().ok_or(Refusal::NotCaughtUp)
    }
}

fn permitted(caller: &Caller, gym: &str, scope: Scope) -> Result<DeadLetterFilter, Refusal> {
    if gym == NO_GYM && caller.role != Role::Service {
        return Err(Refusal::Forbidden("this is for services only".to_owned()));
    }
    permit::staff(caller, gym, scope)?;
    Ok(DeadLetterFilter {
        gym: Some(gym.to_owned()),
        ..DeadLetterFilter::default()
    })
}

/// 1, or 0 for one that somebody else replayed meanwhile.
async fn replay(dead_letters: &DeadLetters, sequence: u64) -> Result<i64, Refusal> {
    let ack = dead_letters.replay(sequence).await.map_err(unreadable)?;
    Ok(ack.map_or(0, |_| 1))
}

fn unreadable(error: DeadLetterError) -> Refusal {
    tracing::warn!(
        "Dead letters are not to be had: {}",
        service_runtime::lifecycle::chain(&error)
    );
    Refusal::BusAway
}

fn shown(letter: DeadLetter) -> wire::DeadLetter {
    wire::DeadLetter {
        id: i64::try_from(letter.sequence).unwrap_or(i64::MAX),
        stream: letter.stream,
        consumer: letter.consumer,
        cause: letter.cause,
        attempts: i32::try_from(letter.attempts).unwrap_or(i32::MAX),
        at: Some(timestamp(letter.at)),
        message_id: letter.envelope.ce_id,
    }
}
