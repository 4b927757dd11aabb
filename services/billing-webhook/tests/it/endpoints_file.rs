//! The endpoints file changes under the running service.

use testkit::eventually;

use crate::harness::{DEADLINE, Harness, SECRET, endpoints, fixture};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_secret_counts_and_a_bad_file_keeps_the_old_one() {
    let harness = Harness::start().await;
    let body = fixture("stripe/a1_old_invoice.payment_failed.json");

    // By a symlink swap, as Kubernetes does.
    let folder = harness.endpoints_file.parent().expect("a folder");
    let next = folder.join("next.yaml");
    std::fs::write(&next, endpoints("whsec_next")).expect("written");
    let link = folder.join("link.yaml");
    std::os::unix::fs::symlink(&next, &link).expect("a link");
    std::fs::rename(&link, &harness.endpoints_file).expect("swapped");
    eventually("the new secret counts", DEADLINE, async || {
        harness.post_signed("whsec_next", &body).await.status() == 200
    })
    .await;
    assert_eq!(harness.post_signed(SECRET, &body).await.status(), 400);

    std::fs::write(&next, "endpoints: [nonsense").expect("written");
    eventually("the bad file is noticed", DEADLINE, async || {
        let url = format!("http://{}/metrics", harness.health);
        let metrics = harness.http.get(url).send().await.expect("metrics");
        let text = metrics.text().await.expect("text");
        text.lines().any(|line| {
            line.contains("reloads_total{outcome=\"refused\"}") && !line.ends_with(" 0")
        })
    })
    .await;
    assert_eq!(harness.post_signed("whsec_next", &body).await.status(), 200);
    harness.stop().await;
}
