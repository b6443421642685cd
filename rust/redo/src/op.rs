//! What a record does to its page: by ranks and positions, never by byte offsets.
//!
//! ```text
//!   op bytes  tag u8 | small fields as varints | one payload to the end (row, changes, key, layout, bytes, list)
//! ```
//! The payload is last and needs no length, so a one-column update of an `int64` is 13 bytes.

use aurora_page::{ExtentState, ObjectId, PageId};
use bytes::Bytes;
use smallvec::SmallVec;

use crate::RedoError;
use crate::list::{EntriesRef, RowsRef};
use crate::varint::{Reader, put_u64};

/// Name of a blob: sealed pages that all copies hold beside the log, given by bulk load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub u128);

impl std::fmt::Display for BlobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A change of one page. Borrowed: parsing copies nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// Starts the life of a leaf; `layout` describes its columns and capacity, so that no catalogue is needed.
    FormatLeaf {
        /// Owner.
        object: ObjectId,
        /// Of the rows.
        schema_version: u32,
        /// From `leaf_layout`.
        layout: &'a [u8],
    },
    /// Starts the life of an inner page.
    FormatInner {
        /// Owner.
        object: ObjectId,
        /// Height above the leaves.
        level: u8,
        /// First child.
        leftmost: PageId,
    },
    /// Starts the life of an overflow page, with its whole content.
    FormatOverflow {
        /// Owner.
        object: ObjectId,
        /// Next page of the chain; 0 ends it.
        next: PageId,
        /// Its chunk.
        bytes: &'a [u8],
    },
    /// Starts the life of an extent map.
    FormatExtentMap {
        /// Number in the volume of the first extent it describes.
        first_extent: u64,
        /// How many.
        count: u32,
    },
    /// Starts a page's life with page `index` of a blob.
    Reference {
        /// Owner.
        object: ObjectId,
        /// The blob.
        blob: BlobId,
        /// Page in it.
        index: u32,
    },
    /// A row comes in at `rank`.
    LeafInsert {
        /// Place in key order.
        rank: u16,
        /// Encoded row.
        row: &'a [u8],
    },
    /// Columns of a row change; its key does not.
    LeafUpdate {
        /// Place in key order.
        rank: u16,
        /// Encoded changes.
        changes: &'a [u8],
    },
    /// A row goes.
    LeafDelete {
        /// Place in key order.
        rank: u16,
    },
    /// Rows at `rank` and above go: the left half of a split.
    LeafTruncate {
        /// First row that goes.
        rank: u16,
    },
    /// Rows follow the last one: the right half of a split, or a merge.
    LeafAppend {
        /// In key order.
        rows: RowsRef<'a>,
    },
    /// The leaf's rows become rows of a later schema: columns come, go and widen.
    LeafUpgrade {
        /// From `leaf_upgrade`: the layout, and values for columns that the rows have not.
        content: &'a [u8],
    },
    /// A separator comes in, with the child to its right.
    InnerInsert {
        /// Place among the separators.
        pos: u16,
        /// Separator.
        key: &'a [u8],
        /// Right of it.
        child: PageId,
    },
    /// A separator and the child to its right go.
    InnerRemove {
        /// Place among the separators.
        pos: u16,
    },
    /// Separators at `pos` and above go, each with the child to its right.
    InnerTruncate {
        /// First separator that goes.
        pos: u16,
    },
    /// Separators follow the last one.
    InnerAppend {
        /// In key order.
        entries: EntriesRef<'a>,
    },
    /// One child is replaced by another.
    InnerSetChild {
        /// Place among the children, 0 is the leftmost.
        pos: u16,
        /// The new one.
        child: PageId,
    },
    /// Extents change owner, load and state. Which of their pages are in use stays as long as the owner does; a free
    /// extent has none. Extents are named by their index in the map page.
    ExtentSet {
        /// Index of the first extent.
        first: u32,
        /// How many.
        count: u32,
        /// Owner, 0 for none.
        owner: ObjectId,
        /// Of which load.
        load: u32,
        /// New state.
        state: ExtentState,
    },
    /// A page of an extent is taken.
    ExtentUse {
        /// Index of the extent in the map page.
        extent: u32,
        /// Page within it.
        bit: u8,
    },
    /// A page of an extent is given back.
    ExtentRelease {
        /// Index of the extent in the map page.
        extent: u32,
        /// Page within it.
        bit: u8,
    },
    /// Ends a page's life.
    Free,
}

/// Tags are part of the log format: never reuse a number.
mod tag {
    pub const FORMAT_LEAF: u8 = 1;
    pub const FORMAT_INNER: u8 = 2;
    pub const FORMAT_OVERFLOW: u8 = 3;
    pub const FORMAT_EXTENT_MAP: u8 = 4;
    pub const REFERENCE: u8 = 5;
    pub const LAST_STARTING_LIFE: u8 = REFERENCE;
    pub const LEAF_INSERT: u8 = 16;
    pub const LEAF_UPDATE: u8 = 17;
    pub const LEAF_DELETE: u8 = 18;
    pub const LEAF_TRUNCATE: u8 = 19;
    pub const LEAF_APPEND: u8 = 20;
    pub const LEAF_UPGRADE: u8 = 21;
    pub const INNER_INSERT: u8 = 32;
    pub const INNER_REMOVE: u8 = 33;
    pub const INNER_TRUNCATE: u8 = 34;
    pub const INNER_APPEND: u8 = 35;
    pub const INNER_SET_CHILD: u8 = 36;
    pub const EXTENT_SET: u8 = 48;
    pub const EXTENT_USE: u8 = 49;
    pub const EXTENT_RELEASE: u8 = 50;
    pub const FREE: u8 = 64;
}

/// Tag and small fields; the longest (`Reference`) has 1 + 10 + 5 + 16 bytes.
type Head = SmallVec<[u8; 36]>;

impl<'a> Op<'a> {
    /// Does this op start a page's life? Its record has no previous LSN then, and any older content is irrelevant.
    pub fn starts_life(&self) -> bool {
        self.tag() <= tag::LAST_STARTING_LIFE
    }

    /// [`Op::starts_life`] of encoded bytes, by looking at the tag only.
    #[inline]
    pub fn bytes_start_life(bytes: &[u8]) -> bool {
        matches!(
            bytes.first(),
            Some(tag::FORMAT_LEAF..=tag::LAST_STARTING_LIFE)
        )
    }

    /// The blob that encoded bytes refer to, if they do: whether they do is told by the tag only.
    #[inline]
    pub fn blob_in(bytes: &[u8]) -> Option<BlobId> {
        if bytes.first() != Some(&tag::REFERENCE) {
            return None;
        }
        match Op::parse(bytes) {
            Ok(Op::Reference { blob, .. }) => Some(blob),
            _ => None,
        }
    }

    fn tag(&self) -> u8 {
        match self {
            Op::FormatLeaf { .. } => tag::FORMAT_LEAF,
            Op::FormatInner { .. } => tag::FORMAT_INNER,
            Op::FormatOverflow { .. } => tag::FORMAT_OVERFLOW,
            Op::FormatExtentMap { .. } => tag::FORMAT_EXTENT_MAP,
            Op::Reference { .. } => tag::REFERENCE,
            Op::LeafInsert { .. } => tag::LEAF_INSERT,
            Op::LeafUpdate { .. } => tag::LEAF_UPDATE,
            Op::LeafDelete { .. } => tag::LEAF_DELETE,
            Op::LeafTruncate { .. } => tag::LEAF_TRUNCATE,
            Op::LeafAppend { .. } => tag::LEAF_APPEND,
            Op::LeafUpgrade { .. } => tag::LEAF_UPGRADE,
            Op::InnerInsert { .. } => tag::INNER_INSERT,
            Op::InnerRemove { .. } => tag::INNER_REMOVE,
            Op::InnerTruncate { .. } => tag::INNER_TRUNCATE,
            Op::InnerAppend { .. } => tag::INNER_APPEND,
            Op::InnerSetChild { .. } => tag::INNER_SET_CHILD,
            Op::ExtentSet { .. } => tag::EXTENT_SET,
            Op::ExtentUse { .. } => tag::EXTENT_USE,
            Op::ExtentRelease { .. } => tag::EXTENT_RELEASE,
            Op::Free => tag::FREE,
        }
    }

    fn fields(&self, head: &mut Head) {
        let mut put = |value: u64| put_u64(head, value);
        match *self {
            Op::FormatLeaf {
                object,
                schema_version,
                ..
            } => {
                put(object.0);
                put(schema_version.into());
            }
            Op::FormatInner {
                object,
                level,
                leftmost,
            } => {
                put(object.0);
                put(level.into());
                put(leftmost.0);
            }
            Op::FormatOverflow { object, next, .. } => {
                put(object.0);
                put(next.0);
            }
            Op::FormatExtentMap {
                first_extent,
                count,
            } => {
                put(first_extent);
                put(count.into());
            }
            Op::Reference { object, index, .. } => {
                put(object.0);
                put(index.into());
            }
            Op::LeafInsert { rank, .. } | Op::LeafUpdate { rank, .. } => put(rank.into()),
            Op::LeafDelete { rank } | Op::LeafTruncate { rank } => put(rank.into()),
            Op::InnerInsert { pos, child, .. } | Op::InnerSetChild { pos, child } => {
                put(pos.into());
                put(child.0);
            }
            Op::InnerRemove { pos } | Op::InnerTruncate { pos } => put(pos.into()),
            Op::ExtentSet {
                first,
                count,
                owner,
                load,
                state,
            } => {
                put(first.into());
                put(count.into());
                put(owner.0);
                put(load.into());
                put((state as u8).into());
            }
            Op::ExtentUse { extent, bit } | Op::ExtentRelease { extent, bit } => {
                put(extent.into());
                put(bit.into());
            }
            Op::LeafAppend { .. } | Op::LeafUpgrade { .. } | Op::InnerAppend { .. } | Op::Free => {}
        }
    }

    fn payload(&self) -> &'a [u8] {
        match *self {
            Op::FormatLeaf { layout, .. } => layout,
            Op::FormatOverflow { bytes, .. } => bytes,
            Op::LeafInsert { row, .. } => row,
            Op::LeafUpdate { changes, .. } => changes,
            Op::LeafAppend { rows } => rows.bytes(),
            Op::LeafUpgrade { content } => content,
            Op::InnerInsert { key, .. } => key,
            Op::InnerAppend { entries } => entries.bytes(),
            _ => &[],
        }
    }

    /// The op's bytes, in exactly one allocation.
    pub fn encode(&self) -> Bytes {
        let mut head = Head::new();
        head.push(self.tag());
        self.fields(&mut head);
        if let Op::Reference { blob, .. } = self {
            head.extend_from_slice(&blob.0.to_le_bytes());
        }
        let payload = self.payload();
        let mut out = Vec::with_capacity(head.len() + payload.len());
        out.extend_from_slice(&head);
        out.extend_from_slice(payload);
        Bytes::from(out)
    }

    /// Reads an op. Lists are checked to their end, so walking them later cannot fail; rows, changes and keys are
    /// checked by the page that they are applied to.
    pub fn parse(bytes: &'a [u8]) -> Result<Op<'a>, RedoError> {
        let mut r = Reader::new("op", bytes);
        let op = match r.u8()? {
            tag @ ..=tag::LAST_STARTING_LIFE => parse_format(tag, &mut r)?,
            tag @ tag::LEAF_INSERT..=tag::LEAF_UPGRADE => parse_leaf(tag, &mut r)?,
            tag @ tag::INNER_INSERT..=tag::INNER_SET_CHILD => parse_inner(tag, &mut r)?,
            tag @ tag::EXTENT_SET..=tag::EXTENT_RELEASE => parse_extent(tag, &mut r)?,
            tag::FREE => Op::Free,
            other => return Err(unknown_tag(other)),
        };
        r.finish()?;
        Ok(op)
    }
}

fn unknown_tag(got: u8) -> RedoError {
    RedoError::Unknown {
        what: "op",
        field: "tag",
        expected: "1-5, 16-21, 32-36, 48-50 or 64",
        got: got.into(),
    }
}

fn parse_format<'a>(tag: u8, r: &mut Reader<'a>) -> Result<Op<'a>, RedoError> {
    if tag == tag::FORMAT_EXTENT_MAP {
        return Ok(Op::FormatExtentMap {
            first_extent: r.u64()?,
            count: r.narrow("extent count")?,
        });
    }
    if tag == 0 {
        return Err(unknown_tag(tag));
    }
    let object = ObjectId(r.u64()?);
    Ok(match tag {
        tag::FORMAT_LEAF => Op::FormatLeaf {
            object,
            schema_version: r.narrow("schema version")?,
            layout: r.rest(),
        },
        tag::FORMAT_INNER => Op::FormatInner {
            object,
            level: r.narrow("level")?,
            leftmost: PageId(r.u64()?),
        },
        tag::FORMAT_OVERFLOW => Op::FormatOverflow {
            object,
            next: PageId(r.u64()?),
            bytes: r.rest(),
        },
        _ => {
            let index = r.narrow("blob index")?;
            let mut id = [0; 16];
            id.copy_from_slice(r.bytes(16)?);
            Op::Reference {
                object,
                index,
                blob: BlobId(u128::from_le_bytes(id)),
            }
        }
    })
}

fn parse_leaf<'a>(tag: u8, r: &mut Reader<'a>) -> Result<Op<'a>, RedoError> {
    if tag == tag::LEAF_APPEND {
        return Ok(Op::LeafAppend {
            rows: RowsRef::parse(r.rest())?,
        });
    }
    if tag == tag::LEAF_UPGRADE {
        return Ok(Op::LeafUpgrade { content: r.rest() });
    }
    let rank = r.narrow("rank")?;
    Ok(match tag {
        tag::LEAF_INSERT => Op::LeafInsert {
            rank,
            row: r.rest(),
        },
        tag::LEAF_UPDATE => Op::LeafUpdate {
            rank,
            changes: r.rest(),
        },
        tag::LEAF_DELETE => Op::LeafDelete { rank },
        _ => Op::LeafTruncate { rank },
    })
}

fn parse_inner<'a>(tag: u8, r: &mut Reader<'a>) -> Result<Op<'a>, RedoError> {
    if tag == tag::INNER_APPEND {
        return Ok(Op::InnerAppend {
            entries: EntriesRef::parse(r.rest())?,
        });
    }
    let pos = r.narrow("position")?;
    Ok(match tag {
        tag::INNER_INSERT => Op::InnerInsert {
            pos,
            child: PageId(r.u64()?),
            key: r.rest(),
        },
        tag::INNER_REMOVE => Op::InnerRemove { pos },
        tag::INNER_TRUNCATE => Op::InnerTruncate { pos },
        _ => Op::InnerSetChild {
            pos,
            child: PageId(r.u64()?),
        },
    })
}

fn parse_extent<'a>(tag: u8, r: &mut Reader<'a>) -> Result<Op<'a>, RedoError> {
    let extent = r.narrow("extent")?;
    Ok(match tag {
        tag::EXTENT_USE => Op::ExtentUse {
            extent,
            bit: r.narrow("page of the extent")?,
        },
        tag::EXTENT_RELEASE => Op::ExtentRelease {
            extent,
            bit: r.narrow("page of the extent")?,
        },
        _ => {
            let (count, owner, load) = (
                r.narrow("extent count")?,
                ObjectId(r.u64()?),
                r.narrow("load")?,
            );
            let code: u8 = r.narrow("extent state")?;
            let state = ExtentState::from_code(code).ok_or(RedoError::OutOfRange {
                what: "op",
                field: "extent state",
                got: code.into(),
            })?;
            Op::ExtentSet {
                first: extent,
                count,
                owner,
                load,
                state,
            }
        }
    })
}
