//! What the catalogue keeps of a table beside its columns and key: indexes, constraints, defaults.
//!
//! On disk, little-endian:
//!
//! ```text
//! format u8 = 1 | sections
//! section      tag u8 | length u32 | content
//! tag 1        an index: id u64 | root u64 | unique u8 | state u8 | ready after u64 | name | parts u16 | parts
//!   part       column id u16 | flags u8: 1 descending, 2 with a mark for null, 4 an expression:
//!              then, instead of the column, length u32 | expression, its columns by id
//! tag 2        a check: name | length u32 | expression, its columns by id
//! tag 3        the auto-increment column: column id u16
//! tag 4        a foreign key: name | parent's name | on delete u8 | columns u16 | column ids u16
//! tag 5        a table with foreign keys to this one: name
//! tag 32       statistics: at u64 | time u64 | rows u64 | columns u16 | columns
//!   column     id u16 | type code u8 | parameter u16 | nulls u64 | distinct u64 | least | greatest: length u32 | value
//! name         length u16 | UTF-8
//! ```
//! A tag that is not known belongs to a newer version: the table is not touched by this one.

use aurora_page::{DataType, Lsn, ObjectId, PageId};

use crate::error::EngineError;
use crate::statistics::{ColumnStatistics, Statistics};

const FORMAT: u8 = 1;

mod tag {
    pub const INDEX: u8 = 1;
    pub const CHECK: u8 = 2;
    pub const AUTO: u8 = 3;
    pub const REFERENCE: u8 = 4;
    pub const REFERENCED: u8 = 5;
    pub const STATISTICS: u8 = 32;
}

/// Whether an index can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IndexState {
    /// Writers keep it; rows that are older are still being added.
    Building,
    /// It has every row, at read points after this LSN.
    Ready(Lsn),
}

/// One column of an index, or an expression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexPart {
    /// The column's id, which stays when others come and go; 0 for an expression.
    pub column: u16,
    /// The encoded expression, if it is one; its columns are named by id.
    pub expr: Option<Vec<u8>>,
    /// Largest first.
    pub descending: bool,
    /// Its keys have a mark for null although the column takes none any more: they are as they were made.
    pub null_mark: bool,
}

/// An index as the catalogue has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IndexDef {
    /// Its number, of the same sequence as those of tables.
    pub id: ObjectId,
    /// The root page of its tree.
    pub root: PageId,
    /// Its name, unique within the table.
    pub name: String,
    /// Its columns, most significant first.
    pub parts: Vec<IndexPart>,
    /// Whether two rows may not have the same values, unless one of them is null.
    pub unique: bool,
    /// Whether it can be read.
    pub state: IndexState,
}

/// A condition that no row may make false.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckDef {
    /// Its name, unique within the table.
    pub name: String,
    /// The encoded expression; its columns are named by id.
    pub expr: Vec<u8>,
}

/// What becomes of rows whose parent is deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnDelete {
    /// The parent stays: deleting it is an error.
    Restrict,
    /// They are deleted too.
    Cascade,
    /// Their columns become null.
    SetNull,
}

/// A foreign key: the columns hold the primary key of a row of the parent, or a null.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReferenceDef {
    /// Its name, unique within the table, and that of the table's index by the columns.
    pub name: String,
    /// The parent's name. Tables that are linked by a foreign key keep their names; a number changes when its table is
    /// truncated.
    pub parent: String,
    /// What becomes of the rows when their parent is deleted.
    pub on_delete: OnDelete,
    /// Ids of the columns, in the order of the parent's key.
    pub columns: Vec<u16>,
}

/// Everything of a table beside columns and key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Definition {
    /// Its indexes, in the order in which they were made.
    pub indexes: Vec<IndexDef>,
    /// Its checks.
    pub checks: Vec<CheckDef>,
    /// The id of the column that is numbered where a row does not say.
    pub auto: Option<u16>,
    /// Its foreign keys.
    pub references: Vec<ReferenceDef>,
    /// Names of the tables with foreign keys to this one, each once.
    pub referenced: Vec<String>,
    /// What the last analysis has found.
    pub statistics: Option<Statistics>,
}

impl Definition {
    /// The form on disk.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        for index in &self.indexes {
            section(&mut out, tag::INDEX, |out| index.encode(out));
        }
        for check in &self.checks {
            section(&mut out, tag::CHECK, |out| {
                put_name(out, &check.name);
                out.extend_from_slice(&(check.expr.len() as u32).to_le_bytes());
                out.extend_from_slice(&check.expr);
            });
        }
        if let Some(column) = &self.auto {
            section(&mut out, tag::AUTO, |out| {
                out.extend_from_slice(&column.to_le_bytes());
            });
        }
        for reference in &self.references {
            section(&mut out, tag::REFERENCE, |out| reference.encode(out));
        }
        for name in &self.referenced {
            section(&mut out, tag::REFERENCED, |out| put_name(out, name));
        }
        if let Some(statistics) = &self.statistics {
            section(&mut out, tag::STATISTICS, |out| statistics.encode(out));
        }
        out
    }

    /// Reads the form on disk; `table` is named in errors.
    pub(crate) fn decode(table: &str, bytes: &[u8]) -> Result<Definition, EngineError> {
        let mut reader = Reader {
            table,
            bytes,
            offset: 0,
        };
        let format = reader.u8("a format byte")?;
        if format != FORMAT {
            return Err(reader.wrong(0, "definition format 1", format!("format {format}")));
        }
        let mut definition = Definition::default();
        while reader.offset < bytes.len() {
            let offset = reader.offset;
            let tag = reader.u8("a tag")?;
            let length = reader.u32("a length")? as usize;
            let end = reader.offset.saturating_add(length);
            match tag {
                tag::INDEX => definition.indexes.push(IndexDef::decode(&mut reader)?),
                tag::CHECK => {
                    let name = reader.name("a check's name")?;
                    let length = reader.u32("a length")? as usize;
                    let expr = reader.take(length, "an expression")?.to_vec();
                    definition.checks.push(CheckDef { name, expr });
                }
                tag::AUTO => definition.auto = Some(reader.u16("a column id")?),
                tag::REFERENCE => definition
                    .references
                    .push(ReferenceDef::decode(&mut reader)?),
                tag::REFERENCED => definition.referenced.push(reader.name("a table's name")?),
                tag::STATISTICS => definition.statistics = Some(Statistics::decode(&mut reader)?),
                other => {
                    let got = format!("tag {other}, of a newer version of aurora-engine");
                    return Err(reader.wrong(offset, "a tag from 1 to 5, or 32", got));
                }
            }
            if reader.offset != end {
                let got = format!("{} bytes", reader.offset.abs_diff(end));
                return Err(reader.wrong(offset, "a section as long as it says", got));
            }
        }
        Ok(definition)
    }
}

impl IndexPart {
    /// Whether it is the column of this id.
    pub fn is_column(&self, id: u16) -> bool {
        self.expr.is_none() && self.column == id
    }
}

impl IndexDef {
    fn encode(&self, out: &mut Vec<u8>) {
        let (state, after) = match self.state {
            IndexState::Building => (0, Lsn::NONE),
            IndexState::Ready(after) => (1, after),
        };
        out.extend_from_slice(&self.id.0.to_le_bytes());
        out.extend_from_slice(&self.root.0.to_le_bytes());
        out.extend_from_slice(&[u8::from(self.unique), state]);
        out.extend_from_slice(&after.0.to_le_bytes());
        put_name(out, &self.name);
        out.extend_from_slice(&(self.parts.len() as u16).to_le_bytes());
        for part in &self.parts {
            out.extend_from_slice(&part.column.to_le_bytes());
            let is_expr = u8::from(part.expr.is_some());
            out.push(u8::from(part.descending) | u8::from(part.null_mark) << 1 | is_expr << 2);
            if let Some(expr) = &part.expr {
                out.extend_from_slice(&(expr.len() as u32).to_le_bytes());
                out.extend_from_slice(expr);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<IndexDef, EngineError> {
        let (id, root) = (
            ObjectId(reader.u64("an object")?),
            PageId(reader.u64("a page")?),
        );
        let unique = reader.flag("unique, 0 or 1")?;
        let ready = reader.flag("a state, 0 or 1")?;
        let after = Lsn(reader.u64("an LSN")?);
        let name = reader.name("an index's name")?;
        let parts = (0..reader.u16("a number of columns")?)
            .map(|_| {
                let column = reader.u16("a column id")?;
                let flags = reader.flags("a part's flags, 0 to 7", 7)?;
                let mut expr = || {
                    let length = reader.u32("a length")? as usize;
                    Ok::<_, EngineError>(reader.take(length, "an expression")?.to_vec())
                };
                Ok(IndexPart {
                    column,
                    expr: (flags & 4 != 0).then(&mut expr).transpose()?,
                    descending: flags & 1 != 0,
                    null_mark: flags & 2 != 0,
                })
            })
            .collect::<Result<_, EngineError>>()?;
        let state = if ready {
            IndexState::Ready(after)
        } else {
            IndexState::Building
        };
        Ok(IndexDef {
            id,
            root,
            name,
            parts,
            unique,
            state,
        })
    }
}

impl ReferenceDef {
    fn encode(&self, out: &mut Vec<u8>) {
        put_name(out, &self.name);
        put_name(out, &self.parent);
        out.push(match self.on_delete {
            OnDelete::Restrict => 0,
            OnDelete::Cascade => 1,
            OnDelete::SetNull => 2,
        });
        out.extend_from_slice(&(self.columns.len() as u16).to_le_bytes());
        for column in &self.columns {
            out.extend_from_slice(&column.to_le_bytes());
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<ReferenceDef, EngineError> {
        let name = reader.name("a foreign key's name")?;
        let parent = reader.name("a table's name")?;
        let offset = reader.offset;
        let on_delete = match reader.u8("what to do on delete, 0 to 2")? {
            0 => OnDelete::Restrict,
            1 => OnDelete::Cascade,
            2 => OnDelete::SetNull,
            other => return Err(reader.wrong(offset, "0 to 2", other.to_string())),
        };
        let columns = (0..reader.u16("a number of columns")?)
            .map(|_| reader.u16("a column id"))
            .collect::<Result<_, EngineError>>()?;
        Ok(ReferenceDef {
            name,
            parent,
            on_delete,
            columns,
        })
    }
}

impl Statistics {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.at.0.to_le_bytes());
        out.extend_from_slice(&self.time_us.to_le_bytes());
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.extend_from_slice(&(self.columns.len() as u16).to_le_bytes());
        for column in &self.columns {
            out.extend_from_slice(&column.column.to_le_bytes());
            out.push(column.data_type.code());
            out.extend_from_slice(&column.data_type.param().to_le_bytes());
            out.extend_from_slice(&column.nulls.to_le_bytes());
            out.extend_from_slice(&column.distinct.to_le_bytes());
            for bound in [&column.bounds.0, &column.bounds.1] {
                out.extend_from_slice(&(bound.len() as u32).to_le_bytes());
                out.extend_from_slice(bound);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Statistics, EngineError> {
        let at = Lsn(reader.u64("an LSN")?);
        let time_us = reader.u64("a time")? as i64;
        let rows = reader.u64("a number of rows")?;
        let columns = (0..reader.u16("a number of columns")?)
            .map(|_| ColumnStatistics::decode(reader))
            .collect::<Result<_, EngineError>>()?;
        Ok(Statistics {
            at,
            time_us,
            rows,
            columns,
        })
    }
}

impl ColumnStatistics {
    fn decode(reader: &mut Reader<'_>) -> Result<ColumnStatistics, EngineError> {
        let column = reader.u16("a column id")?;
        let offset = reader.offset;
        let (code, param) = (reader.u8("a type code")?, reader.u16("a type parameter")?);
        let data_type = DataType::from_code(code, param).ok_or_else(|| {
            let got = format!("code {code}, parameter {param}");
            reader.wrong(offset, "a known type", got)
        })?;
        let nulls = reader.u64("a number of nulls")?;
        let distinct = reader.u64("a number of values")?;
        let mut bound = || {
            let length = reader.u32("the length of a value")? as usize;
            Ok::<_, EngineError>(reader.take(length, "a value")?.to_vec())
        };
        let bounds = (bound()?, bound()?);
        Ok(ColumnStatistics {
            column,
            data_type,
            nulls,
            distinct,
            bounds,
        })
    }
}

fn section(out: &mut Vec<u8>, tag: u8, content: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    content(out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(&(name.len() as u16).to_le_bytes());
    out.extend_from_slice(name.as_bytes());
}

/// Reads an encoded definition from front to back.
struct Reader<'a> {
    table: &'a str,
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, expected: &str) -> Result<&'a [u8], EngineError> {
        let rest = &self.bytes[self.offset..];
        let Some(taken) = rest.get(..len) else {
            let got = format!("the end after {} bytes", rest.len());
            return Err(self.wrong(self.offset, expected, got));
        };
        self.offset += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, expected: &str) -> Result<[u8; N], EngineError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, expected)?);
        Ok(array)
    }

    fn u8(&mut self, expected: &str) -> Result<u8, EngineError> {
        self.array::<1>(expected).map(|[byte]| byte)
    }

    fn u16(&mut self, expected: &str) -> Result<u16, EngineError> {
        self.array(expected).map(u16::from_le_bytes)
    }

    fn u32(&mut self, expected: &str) -> Result<u32, EngineError> {
        self.array(expected).map(u32::from_le_bytes)
    }

    fn u64(&mut self, expected: &str) -> Result<u64, EngineError> {
        self.array(expected).map(u64::from_le_bytes)
    }

    fn flag(&mut self, expected: &str) -> Result<bool, EngineError> {
        let offset = self.offset;
        match self.u8(expected)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.wrong(offset, expected, other.to_string())),
        }
    }

    fn flags(&mut self, expected: &str, max: u8) -> Result<u8, EngineError> {
        let offset = self.offset;
        match self.u8(expected)? {
            flags if flags <= max => Ok(flags),
            other => Err(self.wrong(offset, expected, other.to_string())),
        }
    }

    fn name(&mut self, expected: &str) -> Result<String, EngineError> {
        let offset = self.offset;
        let len = usize::from(self.u16(expected)?);
        let bytes = self.take(len, expected)?;
        String::from_utf8(bytes.to_vec())
            .map_err(|error| self.wrong(offset, "UTF-8", error.utf8_error().to_string()))
    }

    fn wrong(&self, offset: usize, expected: &str, got: String) -> EngineError {
        EngineError::Definition {
            table: self.table.to_owned(),
            offset,
            expected: expected.to_owned(),
            got,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Definition {
        let part = |column, descending| IndexPart {
            column,
            expr: None,
            descending,
            null_mark: false,
        };
        let index = |id, name: &str, unique, state| IndexDef {
            id: ObjectId(id),
            root: PageId(id + 100),
            name: name.to_owned(),
            parts: vec![part(3, true), part(1, false)],
            unique,
            state,
        };
        Definition {
            indexes: vec![
                index(77, "by_owner", false, IndexState::Ready(Lsn(5))),
                IndexDef {
                    parts: vec![
                        IndexPart {
                            expr: Some(vec![4, 5]),
                            ..part(0, true)
                        },
                        IndexPart {
                            null_mark: true,
                            ..part(1, false)
                        },
                    ],
                    ..index(78, "größe", true, IndexState::Building)
                },
            ],
            checks: vec![CheckDef {
                name: "positive".to_owned(),
                expr: vec![1, 2, 3],
            }],
            auto: Some(1),
            references: vec![ReferenceDef {
                name: "owner".to_owned(),
                parent: "owners".to_owned(),
                on_delete: OnDelete::SetNull,
                columns: vec![3],
            }],
            referenced: vec!["child".to_owned()],
            statistics: Some(Statistics {
                at: Lsn(9),
                time_us: 10,
                rows: 11,
                columns: vec![ColumnStatistics {
                    column: 3,
                    data_type: DataType::Int16,
                    nulls: 4,
                    distinct: 5,
                    bounds: (vec![0, 1, 0], vec![0, 2, 0]),
                }],
            }),
        }
    }

    #[test]
    fn a_definition_comes_back_as_it_was() {
        for definition in [Definition::default(), sample()] {
            let bytes = definition.encode();
            assert_eq!(Definition::decode("t", &bytes).unwrap(), definition);
        }
    }

    /// The form on disk does not change unnoticed.
    #[test]
    fn the_form_on_disk_is_this() {
        let mut indexes = sample().indexes;
        indexes.truncate(1);
        let definition = Definition {
            indexes,
            ..Definition::default()
        };
        let mut expected = vec![1, tag::INDEX, 42, 0, 0, 0];
        expected.extend_from_slice(&77u64.to_le_bytes());
        expected.extend_from_slice(&177u64.to_le_bytes());
        expected.extend_from_slice(&[0, 1]);
        expected.extend_from_slice(&5u64.to_le_bytes());
        expected.extend_from_slice(b"\x08\0by_owner");
        expected.extend_from_slice(&[2, 0, 3, 0, 1, 1, 0, 0]);
        expected[2] = (expected.len() - 6) as u8;
        assert_eq!(definition.encode(), expected);
    }

    #[test]
    fn damage_is_an_error_that_names_the_table() {
        let mut definition = sample();
        definition.statistics = None;
        let bytes = definition.encode();
        for cut in 1..bytes.len() {
            let shorter = Definition::decode("t", &bytes[..cut]);
            // A cut between two sections leaves a definition with fewer of them.
            if let Ok(shorter) = shorter {
                assert!(shorter.referenced.is_empty());
            }
        }
        assert!(Definition::decode("t", &[]).is_err());
        let error = Definition::decode("t", &[FORMAT, 99, 0, 0, 0, 0]).unwrap_err();
        assert!(error.to_string().contains("table \"t\""), "{error}");
        assert!(error.to_string().contains("newer version"), "{error}");
    }
}
