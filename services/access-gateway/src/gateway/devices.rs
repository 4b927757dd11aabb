//! A member's phones. kisi-sync enrols and withdraws them; a secret passes through here once, to
//! the app that asked, and is kept and logged nowhere.

use std::time::Duration;

use contracts::access::v1 as wire;
use service_runtime::identity::Caller;

use super::Gateway;
use crate::permit::{self, Scope, check_ids};
use crate::refusal::Refusal;
use crate::upstream::{kisi_refused, within};

/// Enrolling looks at the logins that are there, may withdraw one and makes one, at Kisi's pace.
const LIMIT: Duration = Duration::from_secs(30);

impl Gateway {
    /// Enrols a phone, for the member or by staff who act for them.
    pub async fn enrol_device(
        &self,
        caller: &Caller,
        request: wire::EnrolDeviceRequest,
    ) -> Result<wire::EnrolDeviceResponse, Refusal> {
        permit::member(caller, &request.gym_id, &request.member_id, Scope::Override)?;
        let mut kisi = self.upstream.kisi();
        let answer = kisi.enrol_device(within(LIMIT, caller, request)).await;
        Ok(answer.map_err(kisi_refused)?.into_inner())
    }

    /// The phones that were enrolled here.
    pub async fn list_devices(
        &self,
        caller: &Caller,
        request: wire::GetAccessStatusRequest,
    ) -> Result<wire::ListDevicesResponse, Refusal> {
        permit::member(caller, &request.gym_id, &request.member_id, Scope::Read)?;
        let mut kisi = self.upstream.kisi();
        let answer = kisi.list_devices(within(LIMIT, caller, request)).await;
        Ok(answer.map_err(kisi_refused)?.into_inner())
    }

    /// Makes one of them the phone that opens doors.
    pub async fn make_primary(
        &self,
        caller: &Caller,
        request: wire::DeviceRequest,
    ) -> Result<wire::Device, Refusal> {
        permit::member(caller, &request.gym_id, &request.member_id, Scope::Override)?;
        check_ids(&[("device_id", &request.device_id)])?;
        let mut kisi = self.upstream.kisi();
        let answer = kisi.make_primary(within(LIMIT, caller, request)).await;
        Ok(answer.map_err(kisi_refused)?.into_inner())
    }

    /// Withdraws all of them: for staff, when a phone is lost or a member is locked out by one.
    pub async fn reset_devices(
        &self,
        caller: &Caller,
        request: wire::GetAccessStatusRequest,
    ) -> Result<wire::ListDevicesResponse, Refusal> {
        check_ids(&[
            ("gym_id", &request.gym_id),
            ("member_id", &request.member_id),
        ])?;
        permit::staff(caller, &request.gym_id, Scope::Override)?;
        let mut kisi = self.upstream.kisi();
        let answer = kisi.reset_devices(within(LIMIT, caller, request)).await;
        Ok(answer.map_err(kisi_refused)?.into_inner())
    }
}
