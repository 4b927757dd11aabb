//! What happened in a gym, as plain data. Members, plans, invoices and payments are numbers.

/// Minutes since 1970.
pub type Minute = i64;
/// Days since 1970-01-01, of the gym's calendar.
pub type Day = i32;

/// What every invoice asks for.
pub const DUE: i64 = 3_500;

#[derive(Clone, Debug)]
pub struct Story {
    pub zone: String,
    pub first: Day,
    pub days: i32,
    pub grace: Minute,
    /// Else a debt closes the indebted membership alone.
    pub debts_follow_the_payer: bool,
    pub contracts: Vec<Contract>,
    pub overrides: Vec<Override>,
}

#[derive(Clone, Debug)]
pub struct Contract {
    pub plan: u8,
    pub holders: Vec<u8>,
    /// `None`: the first holder.
    pub payer: Option<u8>,
    pub starts: Day,
    /// The last day with access.
    pub ends: Option<Day>,
    pub next_plan: Option<(u8, Day)>,
    /// Whether its billing reference names the subscription; else metadata alone link it.
    pub names_subscription: bool,
    /// In the order in which it counts.
    pub said: Vec<Saying>,
}

impl Contract {
    pub fn payer(&self) -> u8 {
        self.payer.unwrap_or(self.holders[0])
    }
}

#[derive(Clone, Debug)]
pub struct Override {
    pub member: u8,
    /// Else let in.
    pub bars: bool,
    pub from: Minute,
    pub until: Minute,
}

#[derive(Clone, Debug)]
pub struct Saying {
    pub at: Minute,
    /// When we hear of it; later than `at` for what providers say, now and then.
    pub heard: Minute,
    pub what: Said,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    // The club's.
    Pause {
        id: u8,
        from: Day,
        until: Option<Day>,
    },
    /// Without an id: every pause in force, the provider's too.
    Resume {
        id: Option<u8>,
    },
    Cancel {
        ends: Option<Day>,
    },
    TakeBack,
    /// Another subscription of the next number.
    NewReference,
    /// Money at the desk; without an invoice it names no debt.
    Desk {
        invoice: Option<u8>,
        amount: i64,
    },
    /// Money at the desk for a direct debit.
    DeskForDebit {
        debit: u8,
    },
    Forgive {
        invoice: u8,
        by_staff: bool,
    },
    ForgiveDebit {
        debit: u8,
    },
    // A provider's, of a subscription.
    Paused {
        subscription: u8,
        until: Option<Minute>,
    },
    Resumed {
        subscription: u8,
    },
    Cancelled {
        subscription: u8,
    },
    // A provider's, of an invoice. A payment belongs to one invoice.
    Failed {
        invoice: u8,
        subscription: u8,
    },
    Paid {
        invoice: u8,
        payment: Option<u8>,
        amount: i64,
        settles: bool,
        subscription: u8,
    },
    /// With a payment it names that alone, else the invoice.
    Reversed {
        invoice: u8,
        payment: Option<u8>,
    },
    Refunded {
        invoice: u8,
        payment: u8,
    },
    // A provider's that names payments alone.
    DebitFailed {
        debit: u8,
    },
    DebitPaid {
        debit: u8,
    },
    DebitReversed {
        debit: u8,
    },
}

impl Said {
    pub fn is_the_clubs(&self) -> bool {
        matches!(
            self,
            Self::Pause { .. }
                | Self::Resume { .. }
                | Self::Cancel { .. }
                | Self::TakeBack
                | Self::NewReference
                | Self::Desk { .. }
                | Self::DeskForDebit { .. }
                | Self::ForgiveDebit { .. }
                | Self::Forgive { by_staff: true, .. }
        )
    }

    /// What counts later of what was said in the same minute: a provider's pause after its resume,
    /// and what staff resume last.
    pub fn rank(&self) -> u8 {
        match self {
            Self::Resume { .. } => 2,
            Self::Paused { .. } => 1,
            _ => 0,
        }
    }

    /// Of which subscription it is.
    pub fn subscription(&self) -> Option<u8> {
        match self {
            Self::Paused { subscription, .. }
            | Self::Resumed { subscription }
            | Self::Cancelled { subscription }
            | Self::Failed { subscription, .. }
            | Self::Paid { subscription, .. } => Some(*subscription),
            _ => None,
        }
    }
}

/// What one member may do at an instant, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Each plan that opens, and when that ends for good, as far as that is known.
    pub plans: std::collections::BTreeMap<u8, Option<Minute>>,
    pub reasons: Vec<&'static str>,
    pub held: Vec<Held>,
}

/// One membership of the member's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub contract: usize,
    pub plan: u8,
    pub status: &'static str,
    pub reasons: Vec<&'static str>,
    pub opens: bool,
    pub starts: Day,
    pub ends: Option<Day>,
    pub paused_until: Option<Minute>,
    pub overdue_since: Option<Minute>,
}
