//! The endpoints file changes under the running service.

use std::os::unix::fs::symlink;

use testkit::eventually;

use crate::harness::{DEADLINE, Harness, SECRET, endpoints, fixture};

const REFUSED: &str = "billing_webhook_endpoints_reloads_total{outcome=\"refused\"}";

/// Kubernetes mounts `endpoints.yaml -> ..data/endpoints.yaml` and `..data -> ..2026_01`, and swaps
/// the second link.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_secret_counts_when_the_mounted_folder_is_swapped() {
    let mounted = tempfile::tempdir().expect("a folder");
    let mount = mounted.path().to_owned();
    let version = |name: &str, secret: &str| {
        let folder = mount.join(name);
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("endpoints.yaml"), endpoints(secret)).expect("written");
    };
    version("..1", SECRET);
    symlink("..1", mount.join("..data")).expect("a link");
    symlink("..data/endpoints.yaml", mount.join("endpoints.yaml")).expect("a link");
    let harness = Harness::start_with(|config| {
        config.billing_endpoints_file = mount.join("endpoints.yaml");
    })
    .await;
    let body = fixture("stripe/a1_old_invoice.payment_failed.json");
    assert_eq!(harness.post_signed(SECRET, &body).await.status(), 200);

    version("..2", "whsec_next");
    symlink("..2", mount.join("..data_tmp")).expect("a link");
    std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("swapped");
    std::fs::remove_dir_all(mount.join("..1")).expect("removed");
    eventually("the new secret counts", DEADLINE, async || {
        harness.post_signed("whsec_next", &body).await.status() == 200
    })
    .await;
    assert_eq!(harness.post_signed(SECRET, &body).await.status(), 400);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_keeps_the_old_one_and_says_so_until_it_is_good_again() {
    let harness = Harness::start().await;
    let body = fixture("stripe/a1_old_invoice.payment_failed.json");
    let good = endpoints("whsec_next");
    for bad in [
        "endpoints: [nonsense".to_owned(),
        String::new(),
        good.replace("livemode", "live_mode"),
    ] {
        let refused = harness.counted(REFUSED).await;
        std::fs::write(&harness.endpoints_file, bad).expect("written");
        eventually("the bad file is noticed", DEADLINE, async || {
            harness.counted(REFUSED).await > refused
        })
        .await;
        assert_eq!(harness.post_signed(SECRET, &body).await.status(), 200);
    }
    let refused = harness.counted(REFUSED).await;
    std::fs::remove_file(&harness.endpoints_file).expect("removed");
    eventually("its absence is noticed", DEADLINE, async || {
        harness.counted(REFUSED).await > refused
    })
    .await;
    assert_eq!(harness.post_signed(SECRET, &body).await.status(), 200);

    std::fs::write(&harness.endpoints_file, good).expect("written");
    eventually("the good one counts", DEADLINE, async || {
        harness.post_signed("whsec_next", &body).await.status() == 200
    })
    .await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_in_a_file_of_its_own_counts_when_it_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, secret) = (folder.path().join("e.yaml"), folder.path().join("secret"));
    let text = format!(
        "endpoints:\n- {{ id: main, provider: stripe, account: acct_default, secret_files: [{}] }}\n",
        secret.display()
    );
    std::fs::write(&file, text).expect("written");
    std::fs::write(&secret, "whsec_first\n").expect("written");
    let harness = Harness::start_with(|config| config.billing_endpoints_file = file).await;
    let body = fixture("stripe/a1_old_invoice.payment_failed.json");
    assert_eq!(
        harness.post_signed("whsec_first", &body).await.status(),
        200
    );
    let refused = harness.counted(REFUSED).await;
    std::fs::remove_file(&secret).expect("removed");
    eventually("its absence is noticed", DEADLINE, async || {
        harness.counted(REFUSED).await > refused
    })
    .await;
    assert_eq!(
        harness.post_signed("whsec_first", &body).await.status(),
        200
    );
    std::fs::write(&secret, "whsec_second").expect("written");
    eventually("the new secret counts", DEADLINE, async || {
        harness.post_signed("whsec_second", &body).await.status() == 200
    })
    .await;
    assert_eq!(
        harness.post_signed("whsec_first", &body).await.status(),
        400
    );
    harness.stop().await;
}
