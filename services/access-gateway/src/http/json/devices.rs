//! JSON of the phones' routes.

use contracts::access::v1 as wire;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::instant;

/// A phone to enrol, in its own words: 1 to 100 characters each.
#[derive(Debug, Deserialize, ToSchema)]
pub struct EnrolBody {
    /// Such as `Apple`.
    pub brand: String,
    /// Such as `iPhone 17`.
    pub model: String,
    /// Such as `iOS 20.1`.
    pub os_name: String,
}

/// A phone.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceBody {
    /// For `…/devices/{id}/primary`.
    pub device_id: String,
    /// Its maker.
    pub brand: String,
    /// What the maker calls it.
    pub model: String,
    /// Its system.
    pub os_name: String,
    /// Whether doors open by this one.
    pub primary: bool,
    /// When it was enrolled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub enrolled_at: Option<String>,
}

impl From<wire::Device> for DeviceBody {
    fn from(device: wire::Device) -> Self {
        Self {
            device_id: device.device_id,
            brand: device.brand,
            model: device.model,
            os_name: device.os_name,
            primary: device.primary,
            enrolled_at: instant(device.enrolled_at),
        }
    }
}

/// A member's phones.
#[derive(Debug, Serialize, ToSchema)]
pub struct DevicesBody {
    /// Those that were enrolled here.
    pub devices: Vec<DeviceBody>,
}

impl From<wire::ListDevicesResponse> for DevicesBody {
    fn from(list: wire::ListDevicesResponse) -> Self {
        Self {
            devices: super::list(list.devices),
        }
    }
}

/// A phone that was just enrolled, with what its app signs in to Kisi with. Shown this once.
#[derive(Serialize, ToSchema)]
pub struct EnrolledBody {
    /// The phone.
    pub device: DeviceBody,
    /// The secret of its login at Kisi.
    pub secret: String,
    /// For Kisi's SDK, where Kisi gave one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phone_key: String,
    /// For Kisi's SDK, where Kisi gave one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub online_certificate: String,
}

impl From<wire::EnrolDeviceResponse> for EnrolledBody {
    fn from(enrolled: wire::EnrolDeviceResponse) -> Self {
        Self {
            device: enrolled.device.unwrap_or_default().into(),
            secret: enrolled.secret,
            phone_key: enrolled.phone_key,
            online_certificate: enrolled.online_certificate,
        }
    }
}
