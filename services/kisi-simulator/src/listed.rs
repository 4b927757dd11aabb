//! How each kind of row is listed: its id, and the text it is sorted by.

use crate::paging::Listed;
use crate::rows::{
    Group, GroupLink, GroupLock, Integration, Lock, Login, Organization, Place, User,
};

macro_rules! listed_by_name {
    ($($row:ty),+) => {$(
        impl Listed for $row {
            fn id(&self) -> i64 {
                self.id
            }

            fn key(&self, _sort: &str) -> String {
                self.name.clone()
            }
        }
    )+};
}

listed_by_name!(Group, GroupLink, Integration, Lock, Organization, Place);

impl Listed for User {
    fn id(&self) -> i64 {
        self.id
    }

    fn key(&self, sort: &str) -> String {
        match sort {
            "access_enabled" => self.access_enabled.to_string(),
            "unlock" => self
                .last_accessed_at
                .map(|at| at.to_string())
                .unwrap_or_default(),
            _ => self.name.clone(),
        }
    }
}

impl Listed for GroupLock {
    fn id(&self) -> i64 {
        self.id
    }

    fn key(&self, _sort: &str) -> String {
        String::new()
    }
}

impl Listed for Login {
    fn id(&self) -> i64 {
        self.id
    }

    fn key(&self, _sort: &str) -> String {
        self.name.clone().unwrap_or_default()
    }
}
