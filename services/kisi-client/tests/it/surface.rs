//! Every request that the client can make, and every answer it must read, against openapi.yaml.

use std::collections::BTreeSet;

use kisi_client::model::{
    AssignmentFilter, GroupFilter, GroupScope, IntegrationPatch, Location, NewDeviceLogin,
    NewEventSet, NewEventWebhook, NewGroupAssignment, NewUser, UnlockRequest, UserFilter,
    UserPatch, Window,
};
use kisi_client::{Deletion, Kisi, KisiError, KisiRead, Lane};
use serde_json::json;

use crate::contract::Contract;
use crate::recording::{Exchange, Recording};

/// Objects that are there before.
pub struct Seeded {
    pub place_id: i64,
    pub group_id: i64,
    pub lock_id: i64,
}

/// Calls each method at least once, with and without what is optional, and leaves nothing behind.
pub async fn call_everything(kisi: &dyn Kisi, seeded: &Seeded) -> Result<(), KisiError> {
    let look = Lane::SetUp;
    kisi.current_login(look).await?;
    kisi.current_user(look).await?;
    kisi.current_organization(look).await?;
    assert!(kisi.list_places(look).await?.complete);
    kisi.list_groups(look, &GroupFilter::default()).await?;
    for scope in [GroupScope::Organization, GroupScope::Place] {
        let filter = GroupFilter {
            scope: Some(scope),
            place_id: Some(seeded.place_id),
        };
        kisi.list_groups(look, &filter).await?;
    }
    kisi.find_group(look, seeded.group_id)
        .await?
        .expect("the group");
    assert!(kisi.list_group_locks(look, seeded.group_id).await?.complete);
    kisi.list_group_links(look).await?;
    kisi.list_locks(look, None).await?;
    kisi.list_locks(look, Some(seeded.place_id)).await?;
    assert!(
        kisi.list_roles(look)
            .await?
            .iter()
            .any(|role| role.id == "group_basic")
    );

    let metadata = json!({"gymflow_member_id": "m_42"});
    let metadata = metadata.as_object().cloned().unwrap_or_default();
    let email = "Grace.Hopper@example.com";
    let new_user = NewUser::managed(email, Some("Grace Example".to_owned()), metadata.clone());
    let user = kisi.create_user(Lane::Grant.into(), &new_user).await?;
    let asked = "Ada.Example@example.com";
    for name in [Some("Ada Example".to_owned()), None] {
        let invited = NewUser::regular(asked, name, metadata.clone());
        let invited = kisi.create_user(Lane::Grant.into(), &invited).await?;
        let deletion = kisi.delete_user(Lane::Grant.into(), invited.id).await?;
        assert_eq!(deletion, Deletion::Deleted);
    }
    kisi.list_all_users(look, 1_000).await?;
    kisi.list_users_by_email(look, &email.to_lowercase())
        .await?;
    let filter = UserFilter {
        email: None,
        query: Some("grace".to_owned()),
        group_id: Some(seeded.group_id),
    };
    kisi.list_users(look, &filter).await?;
    kisi.list_users_by_id(look, &[user.id, user.id + 1]).await?;
    kisi.find_user(look, user.id).await?.expect("the user");
    let patch = UserPatch {
        name: Some("Grace E. Example".to_owned()),
        metadata: Some(metadata),
        access_enabled: Some(true),
    };
    kisi.update_user(Lane::SetUp.into(), user.id, &patch)
        .await?;

    grants(kisi, user.id, seeded.group_id).await?;
    logins_and_doors(kisi, user.id, email, seeded).await?;
    events(kisi).await?;

    let deletion = kisi.delete_user(Lane::Reconcile.into(), user.id).await?;
    assert_eq!(deletion, Deletion::Deleted);
    Ok(())
}

async fn grants(kisi: &dyn Kisi, user_id: i64, group_id: i64) -> Result<(), KisiError> {
    let window = Window {
        valid_from: "2026-03-01T06:00:00Z".parse().ok(),
        valid_until: "2036-04-01T00:00:00.25Z".parse().ok(),
    };
    for window in [window, Window::default()] {
        let grant = NewGroupAssignment::basic(group_id, user_id, window);
        let row = kisi
            .create_role_assignment(Lane::Grant.into(), &grant)
            .await?;
        for window in [Window::default(), window] {
            kisi.update_role_assignment_window(Lane::Grant.into(), row.id, window)
                .await?;
        }
        for filter in [
            AssignmentFilter::Group(group_id),
            AssignmentFilter::User(user_id),
            AssignmentFilter::Place(812),
            AssignmentFilter::Organization(3289),
        ] {
            kisi.list_role_assignments(Lane::Reconcile, filter).await?;
        }
        kisi.find_role_assignment(Lane::Reconcile, row.id)
            .await?
            .expect("the row");
        let deletion = kisi
            .delete_role_assignment(Lane::Revoke.into(), row.id)
            .await?;
        assert_eq!(deletion, Deletion::Deleted);
    }
    Ok(())
}

async fn logins_and_doors(
    kisi: &dyn Kisi,
    user_id: i64,
    email: &str,
    seeded: &Seeded,
) -> Result<(), KisiError> {
    let login = NewDeviceLogin {
        email: email.to_owned(),
        device_brand: "Gymflow".to_owned(),
        device_model: "members app".to_owned(),
        os_name: "iOS".to_owned(),
    };
    let created = kisi.create_device_login(Lane::SetUp.into(), &login).await?;
    kisi.list_logins(Lane::SetUp, user_id).await?;
    kisi.promote_login(Lane::SetUp.into(), created.login.id)
        .await?;
    let deletion = kisi
        .delete_login(Lane::SetUp.into(), created.login.id)
        .await?;
    assert_eq!(deletion, Deletion::Deleted);
    let near = UnlockRequest {
        location: Some(Location {
            longitude: -0.12,
            latitude: 51.5,
        }),
        proximity_proof: Some("1234".to_owned()),
    };
    for request in [UnlockRequest::default(), near] {
        kisi.unlock(Lane::Grant.into(), seeded.lock_id, &request)
            .await?;
    }
    Ok(())
}

async fn events(kisi: &dyn Kisi) -> Result<(), KisiError> {
    let webhook = NewEventWebhook {
        name: "Gymflow".to_owned(),
        url: "https://access.example.com/kisi/events/g1"
            .parse()
            .expect("a URL"),
        enabled_events: vec![
            "role_assignment.destroy".to_owned(),
            "lock.unlock".to_owned(),
        ],
        signature_key: "a signature key".to_owned().into(),
    };
    let made = kisi
        .create_event_webhook(Lane::SetUp.into(), &webhook)
        .await?;
    kisi.list_integrations(Lane::Reconcile).await?;
    kisi.find_integration(Lane::Reconcile, made.id)
        .await?
        .expect("the webhook");
    let patch = IntegrationPatch {
        enabled: Some(true),
        url: Some(webhook.url.clone()),
        enabled_events: Some(webhook.enabled_events.clone()),
        signature_key: Some("another key".to_owned().into()),
    };
    let switch_on = IntegrationPatch {
        enabled: Some(true),
        ..IntegrationPatch::default()
    };
    for patch in [patch, switch_on] {
        kisi.update_integration(Lane::SetUp.into(), made.id, &patch)
            .await?;
    }
    let deletion = kisi.delete_integration(Lane::SetUp.into(), made.id).await?;
    assert_eq!(deletion, Deletion::Deleted);

    let set = NewEventSet {
        from: "2026-02-01T00:00:00Z".parse().expect("an instant"),
        until: "2026-03-01T00:00:00Z".parse().expect("an instant"),
        event_type: Some("lock.unlock".to_owned()),
        event_object_type: Some("Lock".to_owned()),
        event_object_id: Some(1234),
    };
    let set = kisi.create_event_set(Lane::Reconcile.into(), &set).await?;
    kisi.find_event_set(Lane::Reconcile, set.id, None)
        .await?
        .expect("the set");
    Ok(())
}

/// Fails with everything that openapi.yaml does not allow.
pub fn assert_allowed(exchanges: &[Exchange]) {
    let contract = Contract::published();
    let complaints: Vec<String> = exchanges
        .iter()
        .flat_map(|exchange| {
            let shown = format!("{} {} {}", exchange.method, exchange.path, exchange.status);
            contract
                .complaints(exchange)
                .into_iter()
                .map(move |complaint| format!("{shown}: {complaint}"))
        })
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The operations that took part, as published.
fn operations(exchanges: &[Exchange]) -> BTreeSet<String> {
    let contract = Contract::published();
    exchanges
        .iter()
        .filter_map(|exchange| {
            let (template, _) = contract.operation(&exchange.method, &exchange.path)?;
            Some(format!("{} {template}", exchange.method))
        })
        .collect()
}

#[tokio::test]
async fn the_whole_surface_is_allowed_by_openapi_and_its_printed_examples_are_read() {
    let recording = Recording::start().await;
    let kisi = recording.client("secret", 1000.0);
    let seeded = Seeded {
        place_id: 812,
        group_id: 45274,
        lock_id: 1234,
    };
    call_everything(&kisi, &seeded)
        .await
        .expect("every example is read");
    let page = kisi.find_event_set(Lane::Reconcile, 77, Some("next")).await;
    page.expect("a page").expect("the set");

    let exchanges = recording.exchanges();
    assert_allowed(&exchanges);
    assert_eq!(
        operations(&exchanges).len(),
        32,
        "{:#?}",
        operations(&exchanges)
    );
}
