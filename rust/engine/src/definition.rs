//! What the catalogue keeps of a table beside its columns and key: indexes, constraints, defaults.
//!
//! On disk, little-endian:
//!
//! ```text
//! format u8 = 1 | sections
//! section      tag u8 | length u32 | content
//! tag 1        an index: id u64 | root u64 | unique u8 | state u8 | ready after u64 | name | parts u16 | parts
//!   part       column id u16 | descending u8
//! name         length u16 | UTF-8
//! ```
//! A tag that is not known belongs to a newer version: the table is not touched by this one.

use aurora_page::{Lsn, ObjectId, PageId};

use crate::error::EngineError;

const FORMAT: u8 = 1;

mod tag {
    pub const INDEX: u8 = 1;
}

/// Whether an index can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IndexState {
    /// Writers keep it; rows that are older are still being added.
    Building,
    /// It has every row, at read points after this LSN.
    Ready(Lsn),
}

/// One column of an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexPart {
    /// The column's id, which stays when others come and go.
    pub column: u16,
    /// Largest first.
    pub descending: bool,
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

/// Everything of a table beside columns and key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Definition {
    /// Its indexes, in the order in which they were made.
    pub indexes: Vec<IndexDef>,
}

impl Definition {
    /// The form on disk.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        for index in &self.indexes {
            section(&mut out, tag::INDEX, |out| index.encode(out));
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
                other => {
                    let got = format!("tag {other}, of a newer version of aurora-engine");
                    return Err(reader.wrong(offset, "a tag from 1 to 1", got));
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
            out.push(u8::from(part.descending));
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
                Ok(IndexPart {
                    column: reader.u16("a column id")?,
                    descending: reader.flag("descending, 0 or 1")?,
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
        let part = |column, descending| IndexPart { column, descending };
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
                index(78, "größe", true, IndexState::Building),
            ],
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
        let mut definition = sample();
        definition.indexes.truncate(1);
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
        let bytes = sample().encode();
        for cut in 1..bytes.len() {
            let shorter = Definition::decode("t", &bytes[..cut]);
            // A cut between two sections leaves a definition with fewer indexes.
            if let Ok(shorter) = shorter {
                assert!(shorter.indexes.len() < 2);
            }
        }
        assert!(Definition::decode("t", &[]).is_err());
        let error = Definition::decode("t", &[FORMAT, 99, 0, 0, 0, 0]).unwrap_err();
        assert!(error.to_string().contains("table \"t\""), "{error}");
        assert!(error.to_string().contains("newer version"), "{error}");
    }
}
