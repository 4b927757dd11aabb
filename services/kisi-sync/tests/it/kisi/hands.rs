//! What people and other programs do at Kisi past us.

use serde_json::{Value, json};

use super::{GROUP, Kisi, OTHER_GROUP, SECOND_KEY};

impl Kisi {
    /// Gives a right as the key's owner does in Kisi's pages, which nothing tells from ours.
    pub async fn add_by_hand(&self, email: &str, group: i64) -> i64 {
        let change = json!({ "action": "add_assignment", "group_id": group, "email": email });
        self.control("hands", &change).await["assignment_id"]
            .as_i64()
            .unwrap()
    }

    /// Makes a user with no right; answers the id.
    pub async fn add_user_by_hand(&self, email: &str) -> i64 {
        let right = self.add_by_hand(email, OTHER_GROUP).await;
        self.remove_by_hand(right).await;
        let state = self.simulator.shared().lock();
        let made = state.world.users.values().find(|user| user.email == email);
        made.unwrap().id
    }

    /// What people do in Kisi's own pages, as the simulator's control side names it.
    pub async fn by_hand(&self, change: Value) -> Value {
        self.control("hands", &change).await
    }

    /// The door of [`GROUP`] is in this group too.
    pub fn share_front_door(&self, group: i64) {
        let mut state = self.simulator.shared().lock();
        let held = state.world.group_locks.values();
        let mut held = held.filter(|held| held.group_id == GROUP).cloned();
        let mut link = held.next().unwrap();
        link.id = state.world.next_id();
        link.group_id = group;
        state.world.group_locks.insert(link.id, link);
    }

    pub async fn remove_by_hand(&self, assignment: i64) {
        let change = json!({ "action": "remove_assignment", "assignment_id": assignment });
        self.control("hands", &change).await;
    }

    /// Deletes a user with the key's rights; unlike the control side's hand it makes an event.
    pub async fn delete_user_by_api(&self, user: i64) {
        let answer = self
            .http
            .delete(format!("{}/users/{user}", self.url()))
            .header("authorization", format!("KISI-LOGIN {SECOND_KEY}"))
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// Puts an end on a right, as somebody does in Kisi's pages.
    pub async fn set_window_by_hand(&self, assignment: i64, until: &str) {
        let change = json!({
            "action": "set_window", "assignment_id": assignment, "valid_until": until,
        });
        self.control("hands", &change).await;
    }
}
