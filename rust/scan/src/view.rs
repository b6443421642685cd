//! A page as the kernels see it, sealed or plain: columns of lanes by position.
//!
//! A *position* is a rank of a sealed leaf or a slot of a plain one; dead slots have positions too, and are never selected.

use aurora_page::{
    ColumnMap, DataType, LeafRef, MapError, PackedArray, Schema, SealedColumn, SealedData,
    SealedRef, ValueRef,
};

/// A page.
#[derive(Clone, Copy)]
pub enum PageView<'a> {
    /// In plain form.
    Leaf(&'a LeafRef<'a>),
    /// Sealed.
    Sealed(&'a SealedRef<'a>),
}

/// Fixed-width values that can be read without looking at each other.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lanes<'a> {
    /// `base + unsigned`, in the type's own arithmetic.
    Offset {
        base: i128,
        width: usize,
        bytes: &'a [u8],
    },
    /// The values themselves, signed, as wide as the type.
    Native { width: usize, bytes: &'a [u8] },
    /// `values[codes]`, values as wide as the type.
    Dictionary {
        codes: PackedArray<'a>,
        values: PackedArray<'a>,
        len: usize,
    },
}

/// A column of a page.
pub(crate) struct ColumnView<'a> {
    pub(crate) data_type: DataType,
    pub(crate) zone: (u64, u64),
    pub(crate) nulls: Option<&'a [u8]>,
    pub(crate) lanes: Option<Lanes<'a>>,
    pub(crate) sealed: Option<SealedColumn<'a>>,
}

impl<'a> PageView<'a> {
    /// Rows.
    pub fn rows(&self) -> usize {
        match self {
            PageView::Leaf(leaf) => leaf.len(),
            PageView::Sealed(sealed) => sealed.len(),
        }
    }

    /// Columns of the page: id, type, whether they may be null.
    fn stored(&self) -> Vec<(u16, DataType, bool)> {
        match self {
            PageView::Leaf(leaf) => (0..leaf.column_count())
                .map(|column| {
                    let nullable = leaf.column_nullable(column);
                    (leaf.column_id(column), leaf.column_type(column), nullable)
                })
                .collect(),
            PageView::Sealed(sealed) => (0..sealed.column_count())
                .map(|column| {
                    let column = sealed.column(column);
                    (column.id, column.data_type, column.nulls.is_some())
                })
                .collect(),
        }
    }

    fn schema_version(&self) -> u32 {
        match self {
            PageView::Leaf(leaf) => leaf.schema_version(),
            PageView::Sealed(sealed) => sealed.header().schema_version,
        }
    }

    /// How the page's columns become those of a schema; `None` if they are.
    pub(crate) fn map(&self, schema: &Schema) -> Result<Option<ColumnMap>, MapError> {
        if self.schema_version() == schema.version && self.is_of(schema) {
            return Ok(None);
        }
        ColumnMap::new(schema, self.stored()).map(Some)
    }

    /// Whether the page has the columns of a schema. One of its version has, unless it is damaged in a way that its checksum
    /// does not tell; that must not make anybody read a column that is not there.
    fn is_of(&self, schema: &Schema) -> bool {
        let columns = schema.columns().iter().enumerate();
        let mut columns = columns.map(|(index, column)| (index, column.id, column.data_type));
        let count = schema.columns().len();
        match self {
            PageView::Leaf(leaf) => {
                leaf.column_count() == count
                    && columns.all(|(index, id, data_type)| {
                        (leaf.column_id(index), leaf.column_type(index)) == (id, data_type)
                    })
            }
            PageView::Sealed(sealed) => {
                sealed.column_count() == count
                    && columns.all(|(index, id, data_type)| {
                        let column = sealed.column(index);
                        (column.id, column.data_type) == (id, data_type)
                    })
            }
        }
    }

    pub(crate) fn column(&self, index: usize) -> ColumnView<'a> {
        match self {
            PageView::Leaf(leaf) => {
                let data_type = leaf.column_type(index);
                let lanes = data_type.fixed_width().map(|width| Lanes::Native {
                    width,
                    bytes: leaf.fixed_column(index),
                });
                ColumnView {
                    data_type,
                    zone: leaf.zone(index),
                    nulls: leaf.null_bitmap(index),
                    lanes,
                    sealed: None,
                }
            }
            PageView::Sealed(sealed) => {
                let column = sealed.column(index);
                ColumnView {
                    data_type: column.data_type,
                    zone: column.zone,
                    nulls: column.nulls,
                    lanes: lanes_of(&column),
                    sealed: Some(column),
                }
            }
        }
    }

    /// The value at a position of a column, null if the page does not have the column.
    pub(crate) fn value(&self, position: usize, place: Option<usize>) -> ValueRef<'a> {
        match (self, place) {
            (_, None) => ValueRef::Null,
            (PageView::Leaf(leaf), Some(column)) => leaf.value(position as u16, column),
            (PageView::Sealed(sealed), Some(column)) => sealed.value(position, column),
        }
    }
}

fn lanes_of<'a>(column: &SealedColumn<'a>) -> Option<Lanes<'a>> {
    let native = column.data_type.fixed_width()?;
    Some(match column.data {
        SealedData::Packed { base, offsets } if offsets.width() == native => {
            debug_assert_eq!(base, 0, "lanes of full width are the values");
            Lanes::Native {
                width: native,
                bytes: offsets.bytes(),
            }
        }
        SealedData::Packed { base, offsets } => Lanes::Offset {
            base,
            width: offsets.width(),
            bytes: offsets.bytes(),
        },
        SealedData::Dictionary { codes, values, len } => Lanes::Dictionary { codes, values, len },
        SealedData::Var { .. } | SealedData::VarDictionary { .. } => return None,
    })
}

#[inline(always)]
fn chunk<const W: usize>(bytes: &[u8], at: usize) -> [u8; W] {
    bytes.as_chunks::<W>().0.get(at).copied().unwrap_or([0; W])
}

/// Sign-extends the low bytes of a number.
pub(crate) fn extend(bits: u128, width: usize) -> i128 {
    let shift = 128 - 8 * width.clamp(1, 16) as u32;
    ((bits << shift) as i128) >> shift
}

impl Lanes<'_> {
    /// The value at a position, as a signed number.
    #[inline]
    pub(crate) fn get(&self, at: usize) -> i128 {
        match *self {
            Lanes::Offset { base, width, bytes } => base.wrapping_add(match width {
                0 => 0,
                1 => u8::from_le_bytes(chunk(bytes, at)).into(),
                2 => u16::from_le_bytes(chunk(bytes, at)).into(),
                4 => u32::from_le_bytes(chunk(bytes, at)).into(),
                8 => u64::from_le_bytes(chunk(bytes, at)).into(),
                _ => i128::from_le_bytes(chunk(bytes, at)),
            }),
            Lanes::Native { width, bytes } => match width {
                1 => i8::from_le_bytes(chunk(bytes, at)).into(),
                2 => i16::from_le_bytes(chunk(bytes, at)).into(),
                4 => i32::from_le_bytes(chunk(bytes, at)).into(),
                8 => i64::from_le_bytes(chunk(bytes, at)).into(),
                _ => i128::from_le_bytes(chunk(bytes, at)),
            },
            Lanes::Dictionary { codes, values, .. } => {
                let code = codes.get(at) as usize;
                extend(values.get(code), values.width())
            }
        }
    }

    /// The low 64 bits of the values at these positions.
    pub(crate) fn gather(&self, positions: &[u16], out: &mut Vec<i64>) {
        out.clear();
        out.reserve(positions.len());
        macro_rules! each {
            ($type:ty, $bytes:expr, $base:expr) => {{
                let (lanes, _) = $bytes.as_chunks::<{ size_of::<$type>() }>();
                let base: i64 = $base;
                out.extend(positions.iter().map(|at| {
                    let lane = lanes.get(usize::from(*at)).copied().unwrap_or_default();
                    base.wrapping_add(<$type>::from_le_bytes(lane) as i64)
                }));
            }};
        }
        match *self {
            Lanes::Offset { base, width, bytes } => {
                let base = base as i64;
                match width {
                    0 => out.resize(positions.len(), base),
                    1 => each!(u8, bytes, base),
                    2 => each!(u16, bytes, base),
                    4 => each!(u32, bytes, base),
                    8 => each!(u64, bytes, base),
                    _ => each!(i128, bytes, base),
                }
            }
            Lanes::Native { width, bytes } => match width {
                1 => each!(i8, bytes, 0),
                2 => each!(i16, bytes, 0),
                4 => each!(i32, bytes, 0),
                8 => each!(i64, bytes, 0),
                _ => each!(i128, bytes, 0),
            },
            Lanes::Dictionary { .. } => {
                out.extend(positions.iter().map(|at| self.get(usize::from(*at)) as i64));
            }
        }
    }
}
