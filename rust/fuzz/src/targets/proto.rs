//! Manifests.

use std::collections::BTreeMap;

use aurora_page::crc32c;
use aurora_proto::{ClusterId, Manifest, Membership, NewCluster, NodeId, NodeInfo};

use super::Target;

const GOLDEN: &[u8] = include_bytes!("../../../proto/tests/golden/manifest-1.bin");
/// Groups that a manifest may list: equal ones in a row are stored once, so a few bytes may mean all of them.
const GROUPS_MAX: usize = 1 << 20;

pub fn targets() -> Vec<Target> {
    let info = |n: u16| NodeInfo {
        id: NodeId(n),
        az: format!("az{}", n / 2 + 1),
        path: format!("node{n}"),
        device: 7,
        incarnation: 1,
    };
    let mut new = Manifest::create(NewCluster {
        cluster: ClusterId(77),
        origin: aurora_page::VolumeId(1),
        region: "here".into(),
        page_bytes: 32768,
        segment_pages: 1 << 15,
        window: 1000,
        nodes: (0..6).map(info).collect(),
        config: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        created_us: 5,
    });
    new.pgs.push(new.pgs[0].clone());
    let samples = vec![GOLDEN.to_vec(), new.encode(), new.recovering().encode()];
    let read = |bytes: &[u8]| {
        if let Ok(manifest) = Manifest::decode(bytes) {
            let _ = (manifest.members(), manifest.histories().count());
            let _ = manifest.recovering();
            assert_eq!(Manifest::decode(&manifest.encode()).ok(), Some(manifest));
        }
    };
    // The manifest, the next one, and the one that was read again.
    let allowed = (4 << 20) + 4 * GROUPS_MAX * size_of::<Membership>() * 2;
    vec![
        Target::new("manifest", samples, read)
            .stamped(stamp)
            .allowed(allowed),
    ]
}

/// Length, CRC of the body, CRC of the header.
fn stamp(bytes: &mut [u8]) {
    let Some((header, body)) = bytes.split_at_mut_checked(24) else {
        return;
    };
    header[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
    header[16..20].copy_from_slice(&crc32c(body).to_le_bytes());
    let crc = crc32c(&header[..20]);
    header[20..24].copy_from_slice(&crc.to_le_bytes());
}
