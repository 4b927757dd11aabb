//! The service as a stranger meets it: a client in another language, generated from the protos,
//! tells each rule as a story against the real program. The stories are in `tests/stories`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sea_orm::{ConnectionTrait, DbBackend, Statement};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

use crate::world::{World, on_both};

/// All stories together.
const LIMIT: Duration = Duration::from_secs(300);

/// How one story went, as `tell.py` prints it.
#[derive(Deserialize)]
struct Told {
    story: String,
    told: bool,
    seconds: f64,
    words: String,
}

on_both! {
    async fn every_rule_holds_for_a_client_in_another_language(world: World) {
        world.stop_all().await;
        world.start_process().await;
        let stories = tell(world).await;
        assert!(stories.len() > 90, "only {} stories were told", stories.len());
        for slow in stories.iter().filter(|story| story.seconds > 5.0) {
            eprintln!("{} took {} s", slow.story, slow.seconds);
        }
        let failed: Vec<_> = stories.iter().filter(|story| !story.told).collect();
        let words: String = failed
            .iter()
            .map(|failed| format!("\n{}\n{}", failed.story, failed.words))
            .collect();
        assert!(failed.is_empty(), "{} stories failed:{words}", failed.len());
        if world.is_postgres() {
            nobody_is_left_in_a_transaction(world).await;
        }
    }
}

/// Calls were cut off wherever they stood, and connections go from one call to the next.
async fn nobody_is_left_in_a_transaction(world: &World) {
    let store = world.store().await;
    let what = "no connection is left in a transaction";
    testkit::eventually(what, Duration::from_secs(20), async || {
        let sql = "select 1 as found from pg_stat_activity
                   where datname = current_database() and state like 'idle in transaction%'";
        let look = Statement::from_string(DbBackend::Postgres, sql);
        let found = store.reads().query_one_raw(look).await;
        found.expect("a look").is_none()
    })
    .await;
}

async fn tell(world: &World) -> Vec<Told> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var("GYMFLOW_PYTHON").unwrap_or_else(|_| "python3".into());
    let tools = std::env::var_os("GYMFLOW_PYTHONPATH")
        .map_or_else(|| root.join("../../.tools/py"), PathBuf::from);
    let stories = Command::new(python)
        .env("PYTHONPATH", tools)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(root.join("tests/stories/tell.py"))
        .arg(world.address().to_string())
        .arg(world.nats.url())
        .arg(root.join("../../proto"))
        .arg(tokens(world))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, stories)
        .await
        .expect("the stories come to an end")
        .expect("python3");
    let text = String::from_utf8(output.stdout).expect("text");
    let stories: Result<Vec<Told>, _> = text.lines().map(serde_json::from_str).collect();
    let stories = stories.unwrap_or_else(|error| panic!("{error}: {text}"));
    // Python's own words: a package that is missing, a story that cannot be read.
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!stories.is_empty(), "run `make tools`: {words}");
    stories
}

/// Who may call, and who may not.
fn tokens(world: &World) -> String {
    let old = {
        let mut claims = testkit::jwt::claims("service", "old", None, None);
        claims["exp"] = 1_700_000_000.into();
        world.tokens.sign(&claims)
    };
    let stranger = testkit::TokenIssuer::new().expect("keys");
    json!({
        "service": world.tokens.service("stories"),
        "staff": world.tokens.staff("iron", "u_1", "read override configure approve"),
        "member": world.tokens.member("iron", "ann"),
        "old": old,
        "forged": stranger.service("stories"),
        "nonsense": "nonsense",
    })
    .to_string()
}
