//! The manifest's bytes.
//!
//! ```text
//!   magic 8 "AURORAMF" | format u32 | body length u32 | body CRC-32C u32 | header CRC-32C u32 | body (postcard)
//! ```
//! The header has a CRC of its own, so that format and length are trusted before the body is looked at, and a newer
//! format is told apart from damage. Equal memberships in a row are stored once with their count.

use std::collections::BTreeMap;

use aurora_page::{Lsn, VolumeId};
use aurora_redo::{History, RedoError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::manifest::{Abandoned, ClusterId, Manifest, NodeInfo, Snapshot, VolumeState};
use crate::membership::Membership;
use crate::quorum::{NodeId, NodeSet};

/// First bytes of every manifest.
pub const MAGIC: [u8; 8] = *b"AURORAMF";
/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

const FORMAT_AT: usize = MAGIC.len();
const LENGTH_AT: usize = FORMAT_AT + 4;
const BODY_CRC_AT: usize = LENGTH_AT + 4;
const HEADER_CRC_AT: usize = BODY_CRC_AT + 4;
const HEADER_BYTES: usize = HEADER_CRC_AT + 4;

/// Protection groups that a manifest may list: 10 PiB in segments of 10 GiB.
pub(crate) const PGS_MAX: u64 = 1 << 20;

/// Why bytes are not a manifest.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ManifestError {
    /// Not a manifest at all.
    #[error("not a manifest: expected magic {expected:02x?}, got {got:02x?}")]
    Magic {
        /// The magic of a manifest.
        expected: [u8; 8],
        /// The first bytes.
        got: Vec<u8>,
    },
    /// Written by a newer version.
    #[error("the manifest has format {got}, this version reads formats up to {expected}")]
    NewerFormat {
        /// The newest format that is understood.
        expected: u32,
        /// The format found.
        got: u32,
    },
    /// Cut short, or followed by something else.
    #[error("the manifest should have {expected} bytes, it has {got}")]
    Length {
        /// Bytes it should have.
        expected: usize,
        /// Bytes it has.
        got: usize,
    },
    /// Damaged.
    #[error("the manifest's {part} is damaged: expected CRC {expected:08x}, got {got:08x}")]
    Crc {
        /// Header or body.
        part: &'static str,
        /// The CRC stored.
        expected: u32,
        /// The CRC of the bytes.
        got: u32,
    },
    /// The body does not parse though its CRC is right.
    #[error("the manifest's body does not parse: {0}")]
    Body(String),
    /// The History does not parse.
    #[error("the manifest's history: {0}")]
    History(String),
    /// A field has a value that cannot be.
    #[error("the manifest's {field}: expected {expected}, got {got}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        got: String,
    },
}

impl From<RedoError> for ManifestError {
    fn from(error: RedoError) -> ManifestError {
        ManifestError::History(error.to_string())
    }
}

/// A History, since when and until when it was the present one, and which nodes had all of it.
#[derive(Serialize, Deserialize)]
struct AbandonedBody {
    history: Vec<u8>,
    since_us: i64,
    until_us: i64,
    complete: Vec<(u16, u64)>,
}

/// The body as it is stored: only plain types, so that the format does not change behind our back.
#[derive(Serialize, Deserialize)]
struct Body {
    cluster: u128,
    version: u64,
    epoch: u64,
    state: VolumeState,
    origin: u64,
    history: Vec<u8>,
    history_since_us: i64,
    abandoned: Vec<AbandonedBody>,
    snapshots: Vec<(String, Vec<u8>, u64, i64)>,
    region: String,
    page_bytes: u32,
    segment_pages: u64,
    window: u64,
    nodes: Vec<NodeInfo>,
    pgs: Vec<(u64, Membership)>,
    collection_floor: u64,
    config: BTreeMap<String, String>,
    created_us: i64,
}

impl Manifest {
    /// The manifest's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let body = postcard::to_stdvec(&to_body(self))
            .expect("a Vec takes every byte and the body has plain types");
        let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    /// Reads what [`Manifest::encode`] wrote [7].
    pub fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        let magic = bytes.get(..MAGIC.len()).unwrap_or(bytes);
        if magic != MAGIC {
            return Err(ManifestError::Magic {
                expected: MAGIC,
                got: magic.to_vec(),
            });
        }
        let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(ManifestError::Length {
                expected: HEADER_BYTES,
                got: bytes.len(),
            });
        };
        check_crc(
            "header",
            u32_at(header, HEADER_CRC_AT),
            &header[..HEADER_CRC_AT],
        )?;
        let format = u32_at(header, FORMAT_AT);
        if format > FORMAT {
            return Err(ManifestError::NewerFormat {
                expected: FORMAT,
                got: format,
            });
        }
        let expected = u32_at(header, LENGTH_AT) as usize;
        if body.len() != expected {
            return Err(ManifestError::Length {
                expected: HEADER_BYTES + expected,
                got: bytes.len(),
            });
        }
        check_crc("body", u32_at(header, BODY_CRC_AT), body)?;
        from_body(
            postcard::from_bytes(body).map_err(|error| ManifestError::Body(error.to_string()))?,
        )
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn check_crc(part: &'static str, expected: u32, bytes: &[u8]) -> Result<(), ManifestError> {
    let got = crc32c::crc32c(bytes);
    if got == expected {
        Ok(())
    } else {
        Err(ManifestError::Crc {
            part,
            expected,
            got,
        })
    }
}

fn to_body(m: &Manifest) -> Body {
    Body {
        cluster: m.cluster.0,
        version: m.version,
        epoch: m.epoch,
        state: m.state,
        origin: m.origin.0,
        history: m.history.encode(),
        history_since_us: m.history_since_us,
        abandoned: m
            .abandoned
            .iter()
            .map(|a| AbandonedBody {
                history: a.history.encode(),
                since_us: a.since_us,
                until_us: a.until_us,
                complete: a
                    .complete
                    .iter()
                    .map(|(node, inc)| (node.0, *inc))
                    .collect(),
            })
            .collect(),
        snapshots: m
            .snapshots
            .iter()
            .map(|s| (s.name.clone(), s.history.encode(), s.lsn.0, s.created_us))
            .collect(),
        region: m.region.clone(),
        page_bytes: m.page_bytes,
        segment_pages: m.segment_pages,
        window: m.window,
        nodes: m.nodes.clone(),
        pgs: run_lengths(&m.pgs),
        collection_floor: m.collection_floor.0,
        config: m.config.clone(),
        created_us: m.created_us,
    }
}

fn run_lengths(pgs: &[Membership]) -> Vec<(u64, Membership)> {
    pgs.chunk_by(|a, b| a == b)
        .map(|run| (run.len() as u64, run[0].clone()))
        .collect()
}

fn from_body(body: Body) -> Result<Manifest, ManifestError> {
    check_fields(&body)?;
    let abandoned = body.abandoned.iter().map(|past| {
        Ok(Abandoned {
            history: History::decode(&past.history)?,
            since_us: past.since_us,
            until_us: past.until_us,
            complete: past
                .complete
                .iter()
                .map(|(id, inc)| (NodeId(*id), *inc))
                .collect(),
        })
    });
    let snapshots = body
        .snapshots
        .iter()
        .map(|(name, history, lsn, created_us)| {
            Ok(Snapshot {
                name: name.clone(),
                history: History::decode(history)?,
                lsn: Lsn(*lsn),
                created_us: *created_us,
            })
        });
    Ok(Manifest {
        cluster: ClusterId(body.cluster),
        version: body.version,
        epoch: body.epoch,
        state: body.state,
        origin: VolumeId(body.origin),
        history: History::decode(&body.history)?,
        history_since_us: body.history_since_us,
        abandoned: abandoned.collect::<Result<_, ManifestError>>()?,
        snapshots: snapshots.collect::<Result<_, ManifestError>>()?,
        region: body.region,
        page_bytes: body.page_bytes,
        segment_pages: body.segment_pages,
        window: body.window,
        nodes: body.nodes,
        pgs: body
            .pgs
            .into_iter()
            .flat_map(|(n, members)| std::iter::repeat_n(members, n as usize))
            .collect(),
        collection_floor: Lsn(body.collection_floor),
        config: body.config,
        created_us: body.created_us,
    })
}

fn check_fields(body: &Body) -> Result<(), ManifestError> {
    let field = |field, expected: &str, got: String| {
        Err(ManifestError::Field {
            field,
            expected: expected.to_owned(),
            got,
        })
    };
    if !body.page_bytes.is_power_of_two() {
        return field("page_bytes", "a power of two", body.page_bytes.to_string());
    }
    if body.segment_pages == 0 {
        return field("segment_pages", "at least 1", "0".to_owned());
    }
    let mut known = NodeSet::EMPTY;
    for node in &body.nodes {
        if node.id.0 >= NodeId::LIMIT || !known.insert(node.id) {
            return field("nodes", "different ids below 64", node.id.to_string());
        }
    }
    let mut count = 0u64;
    for (run, members) in &body.pgs {
        count = count.saturating_add(*run);
        let ids = members.places.iter().flat_map(|place| place.node_ids());
        if let Some(bad) = ids
            .into_iter()
            .find(|id| id.0 >= NodeId::LIMIT || !known.contains(*id))
        {
            return field("members", "listed nodes", bad.to_string());
        }
        if members.places.is_empty() || members.moves().count() > Membership::MOVES_MAX {
            return field(
                "members",
                "at least one place and few moves",
                format!("{members:?}"),
            );
        }
    }
    if count > PGS_MAX {
        return field("pgs", "at most 2^20", count.to_string());
    }
    Ok(())
}
