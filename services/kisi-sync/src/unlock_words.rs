//! Kisi's codes for a refused unlock, in words that a member can act on: the alert, the way back
//! in, the sentence. Branches on the code and not on the status, which nobody publishes per code.

/// Alert code, kind of action (empty: none but trying again), sentence.
pub fn of(code: &str) -> (&'static str, &'static str, &'static str) {
    match code {
        "afc496" | "fcd8ef" => (
            "other",
            "contact_gym",
            "You have no access to this door: ask at the desk.",
        ),
        "fcd8ff" => (
            "suspended_in_kisi",
            "contact_gym",
            "Your access is suspended: ask at the desk.",
        ),
        "f35ade" => (
            "membership_ended",
            "pay",
            "Your access to this door has ended.",
        ),
        "f358de" => (
            "membership_not_started",
            "wait_until",
            "Your access to this door has not begun yet.",
        ),
        "f398de" | "f298bf" => (
            "other",
            "contact_gym",
            "Your right to this door is not valid: ask at the desk.",
        ),
        "34ffaa" => (
            "outside_hours",
            "wait_until",
            "This door is closed to you at this hour.",
        ),
        "f01337" => (
            "other",
            "contact_gym",
            "This door does not open from the app: use your card, or ask at the desk.",
        ),
        "bbc93f" => (
            "other",
            "fix_phone",
            "This door does not open from the app: hold your phone to the reader.",
        ),
        "34bd8f" => (
            "not_primary_device",
            "fix_phone",
            "This phone is not your primary one: make it your primary phone.",
        ),
        "a3995f" | "bbb99f" | "bbb93f" => (
            "other",
            "fix_phone",
            "You are too far from the door: come closer and try again.",
        ),
        "bb4faa" | "bb5bff" => (
            "other",
            "fix_phone",
            "Stand in front of the reader with Bluetooth on, and try again.",
        ),
        "bb4bff" | "bb4fff" => (
            "missing_permission_bluetooth",
            "fix_phone",
            "Switch Bluetooth on and allow it for the app.",
        ),
        "a3799f" | "a3793f" | "a7793f" => (
            "missing_permission_location",
            "fix_phone",
            "Switch location on and allow it for the app.",
        ),
        "fad001" | "fad002" => (
            "locked_down",
            "contact_gym",
            "The door is locked down: ask the staff.",
        ),
        "fad110" => (
            "other",
            "",
            "The door is open at this hour already: push it.",
        ),
        "fad137" | "fad146" => (
            "locked_down",
            "contact_gym",
            "The alarm is set: ask the staff.",
        ),
        "fad10e" | "ff420a" | "fad105" | "fad108" => (
            "door_offline",
            "contact_gym",
            "The door is not set up: ask the staff.",
        ),
        "fac001" | "fac002" | "fac003" | "fac004" | "ecc123" | "fbc000" | "fad10f" | "fad106"
        | "fad107" | "fad112" => (
            "door_offline",
            "",
            "The door does not answer: look whether it has opened, and try again soon.",
        ),
        _ => (
            "other",
            "contact_gym",
            "Kisi did not open the door: ask at the desk.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn codes_become_alerts_with_a_way_back_in() {
        assert_eq!(of("f35ade").0, "membership_ended");
        assert_eq!(of("34bd8f").0, "not_primary_device");
        assert_eq!(of("fac001").0, "door_offline");
        assert_eq!(of("no such code").0, "other");
    }
}
