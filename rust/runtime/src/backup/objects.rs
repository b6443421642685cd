//! Reading what is in a backup, checked, and what can be wrong with it.

use aurora_proto::Manifest;
use aurora_store::StoreError;

use super::BackupOptions;
use super::format::{
    BackupManifest, FORMAT_NAME, FormatObject, MANIFESTS, ObjectEntry, manifest_name,
    manifest_number,
};
use super::pack::{self, FORMAT, unpack};
use super::place::{ObjectPlace, PlaceError};
use crate::Error;
use crate::clock::wall_us;

/// Why a step of the backup did not go well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("{name}: {error}")]
    Place { name: String, error: PlaceError },
    #[error("object {name} is damaged {damage}")]
    Damaged { name: String, damage: pack::Damaged },
    /// Whatever lies there must not be written to.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Cluster(#[from] Error),
    #[error("packing: {0}")]
    Pack(#[from] std::io::Error),
}

impl Failed {
    /// For whoever asked for this backup.
    pub(crate) fn of(self, options: &BackupOptions) -> Error {
        match self {
            Failed::Cluster(error) => error,
            other => options.failed(other),
        }
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Failed {
        Failed::Cluster(error.into())
    }
}

impl From<aurora_redo::RedoError> for Failed {
    fn from(error: aurora_redo::RedoError) -> Failed {
        Failed::Refused(format!("a History in a manifest: {error}"))
    }
}

pub(crate) fn at(name: &str) -> impl FnOnce(PlaceError) -> Failed + '_ {
    move |error| Failed::Place {
        name: name.into(),
        error,
    }
}

pub(super) fn format_object(manifest: &Manifest, options: &BackupOptions) -> FormatObject {
    FormatObject {
        format: FORMAT,
        cluster: manifest.cluster.to_string(),
        page_bytes: manifest.page_bytes,
        segment_pages: manifest.segment_pages,
        created_us: wall_us(),
        compression: "zstd".into(),
        encryption: options.key().map(|_| "aes-256-gcm".into()),
        key_check: options.key().map(super::Key::check),
    }
}

/// Reads the object `format`.
pub(crate) fn read_format(bytes: &[u8]) -> Result<FormatObject, Failed> {
    let refused = |detail: String| Failed::Refused(format!("{FORMAT_NAME}: {detail}"));
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|e| refused(e.to_string()))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(got) if got != u64::from(FORMAT) => Err(refused(format!(
            "expected backup format {FORMAT}, got {got}: another release of aurora-engine reads it"
        ))),
        _ => serde_json::from_value(value).map_err(|e| refused(e.to_string())),
    }
}

/// Says whose backup it is. Whoever was first has said it.
pub(super) fn begin(
    place: &dyn ObjectPlace,
    wanted: &FormatObject,
) -> Result<FormatObject, Failed> {
    let json = serde_json::to_vec_pretty(wanted).map_err(std::io::Error::other)?;
    match place.put(FORMAT_NAME, json, true) {
        Ok(()) => Ok(wanted.clone()),
        Err(error) => match place.get(FORMAT_NAME) {
            Ok(bytes) => read_format(&bytes),
            Err(_) => Err(at(FORMAT_NAME)(error)),
        },
    }
}

pub(super) fn check_format(found: &FormatObject, wanted: &FormatObject) -> Result<(), Failed> {
    if found.cluster != wanted.cluster {
        return Err(Failed::Refused(format!(
            "expected the backup of cluster {}, got that of cluster {}: choose another place",
            wanted.cluster, found.cluster
        )));
    }
    check_key(found, wanted.key_check.as_deref()).map_err(Failed::Refused)
}

/// Whether this is the key of a backup; what was expected and got, where it is not.
pub(crate) fn check_key(found: &FormatObject, got: Option<&str>) -> Result<(), String> {
    let said = |check: Option<&str>| {
        check.map_or("no key".into(), |check| {
            format!("the key with check {check}")
        })
    };
    let expected = found.key_check.as_deref();
    match expected == got {
        true => Ok(()),
        false => Err(format!("expected {}, got {}", said(expected), said(got))),
    }
}

/// The content of an object, checked against what the manifest says of it.
pub(crate) fn read_object(
    place: &dyn ObjectPlace,
    options: &BackupOptions,
    name: &str,
    entry: Option<&ObjectEntry>,
) -> Result<Vec<u8>, Failed> {
    let object = place.get(name).map_err(at(name))?;
    let damaged = |damage| Failed::Damaged {
        name: name.into(),
        damage,
    };
    let (raw, packed) = unpack(name, options.key(), &object).map_err(damaged)?;
    let got = ObjectEntry::from(packed);
    match entry {
        Some(expected) if *expected != got => Err(Failed::Damaged {
            name: name.into(),
            damage: pack::Damaged {
                at: 0,
                expected: format!("sha-256 {}", expected.sha256),
                got: format!("sha-256 {}", got.sha256),
            },
        }),
        _ => Ok(raw),
    }
}

pub(super) fn read_manifest(
    place: &dyn ObjectPlace,
    options: &BackupOptions,
    number: u64,
) -> Result<BackupManifest, Failed> {
    let name = manifest_name(number);
    let json = read_object(place, options, &name, None)?;
    let damaged = |error: serde_json::Error| Failed::Damaged {
        name: name.clone(),
        damage: pack::Damaged {
            at: 0,
            expected: "a manifest".into(),
            got: error.to_string(),
        },
    };
    serde_json::from_slice(&json).map_err(damaged)
}

/// The newest manifest in full, and the one that is whole which it is a change of.
pub(crate) fn newest(
    place: &dyn ObjectPlace,
    options: &BackupOptions,
) -> Result<Option<(BackupManifest, BackupManifest)>, Failed> {
    let names = place.list(MANIFESTS).map_err(at("manifests"))?;
    let Some(number) = names.iter().filter_map(|name| manifest_number(name)).max() else {
        return Ok(None);
    };
    let found = read_manifest(place, options, number)?;
    match found.on {
        None => Ok(Some((found.clone(), found))),
        Some(on) => {
            let whole = read_manifest(place, options, on)?;
            Ok(Some((found.upon(&whole), whole)))
        }
    }
}
