//! Expressions as bytes: in the catalogue, and in plans on their way to storage nodes.
//!
//! ```text
//! format u8 = 1 | expression
//! expression   tag u8, then by tag:
//!    1 column by name   text              8 arithmetic  operator u8, two expressions   15 coalesce  count, expressions
//!    2 column by id     id u16            9 compare     comparison u8, two             16 cast      type code u8, parameter u16, one
//!    3 literal          see below        10 and         two                            17 round     digits u8, one
//!    4 not              one              11 or          two                            18 call      function u8, count, expressions
//!    5 negate           one              12 in          one, count, literals
//!    6 is null          one              13 case        count, (condition, value) pairs, 0 | 1 and the last value
//! literal      tag u8: 0 null, 1 bool u8, 2 exact i128 and scale u8, 3 float, 4 date i32, 5 time i64,
//!              6 timestamp i64 and zoned u8, 7 text, 8 bytes, 9 uuid
//! text, bytes  varint length, the bytes;  counts are varints;  numbers are little-endian
//! ```
//! Tags are never reused. Depth and lengths are checked, so any bytes give an expression or an error.

use std::sync::Arc;

use aurora_page::{DataType, TIME_US_END, put_varint, read_varint};
use thiserror::Error;

use super::function::Function;
use super::number::POW10_MAX;
use super::{Arithmetic, ColumnName, Comparison, DEPTH_MAX, Expr, Literal};

/// First byte of an encoded expression.
pub const EXPR_FORMAT: u8 = 1;

/// Bytes that are no expression.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("encoded expression, byte {offset}: expected {expected}, got {got}")]
pub struct CodecError {
    /// Where in the bytes.
    pub offset: usize,
    /// What should be there.
    pub expected: &'static str,
    /// What is there.
    pub got: String,
}

impl Expr {
    /// The bytes of the expression.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![EXPR_FORMAT];
        self.put(&mut out);
        out
    }

    /// The expression of these bytes.
    ///
    /// # Errors
    /// Bytes that are none, or of a newer format.
    pub fn decode(bytes: &[u8]) -> Result<Expr, CodecError> {
        let mut reader = Reader { bytes, at: 0 };
        match reader.u8("the format")? {
            EXPR_FORMAT => {}
            other => return Err(reader.wrong("format 1", other.to_string())),
        }
        let expr = reader.expr(1)?;
        if reader.at != bytes.len() {
            let left = bytes.len() - reader.at;
            return Err(reader.wrong("the end", format!("{left} bytes more")));
        }
        Ok(expr)
    }

    fn put(&self, out: &mut Vec<u8>) {
        let one = |out: &mut Vec<u8>, tag: u8, of: &Expr| {
            out.push(tag);
            of.put(out);
        };
        let two = |out: &mut Vec<u8>, tags: &[u8], left: &Expr, right: &Expr| {
            out.extend_from_slice(tags);
            left.put(out);
            right.put(out);
        };
        match self {
            Expr::Column(ColumnName::Name(name)) => {
                out.push(1);
                put_bytes(out, name.as_bytes());
            }
            Expr::Column(ColumnName::Id(id)) => {
                out.push(2);
                out.extend_from_slice(&id.to_le_bytes());
            }
            Expr::Literal(literal) => {
                out.push(3);
                literal.put(out);
            }
            Expr::Not(of) => one(out, 4, of),
            Expr::Negate(of) => one(out, 5, of),
            Expr::IsNull(of) => one(out, 6, of),
            Expr::Arithmetic(operator, left, right) => two(out, &[8, *operator as u8], left, right),
            Expr::Compare(comparison, left, right) => {
                two(out, &[9, *comparison as u8], left, right)
            }
            Expr::And(left, right) => two(out, &[10], left, right),
            Expr::Or(left, right) => two(out, &[11], left, right),
            Expr::In(of, list) => {
                one(out, 12, of);
                put_varint(out, list.len() as u64);
                list.iter().for_each(|literal| literal.put(out));
            }
            Expr::Case(branches, otherwise) => {
                out.push(13);
                put_varint(out, branches.len() as u64);
                for (condition, value) in branches.iter() {
                    two(out, &[], condition, value);
                }
                out.push(u8::from(otherwise.is_some()));
                if let Some(otherwise) = otherwise {
                    otherwise.put(out);
                }
            }
            Expr::Coalesce(of) => {
                out.push(15);
                put_all(out, of);
            }
            Expr::Cast(of, to) => {
                out.extend_from_slice(&[16, to.code()]);
                out.extend_from_slice(&to.param().to_le_bytes());
                of.put(out);
            }
            Expr::Round(of, scale) => {
                out.extend_from_slice(&[17, *scale]);
                of.put(out);
            }
            Expr::Call(function, arguments) => {
                out.extend_from_slice(&[18, *function as u8]);
                put_all(out, arguments);
            }
        }
    }
}

fn put_all(out: &mut Vec<u8>, of: &[Expr]) {
    put_varint(out, of.len() as u64);
    of.iter().for_each(|expr| expr.put(out));
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

impl Literal {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Literal::Null => out.push(0),
            Literal::Bool(v) => out.extend_from_slice(&[1, u8::from(*v)]),
            Literal::Exact { unscaled, scale } => {
                out.push(2);
                out.extend_from_slice(&unscaled.to_le_bytes());
                out.push(*scale);
            }
            Literal::Float(v) => {
                out.push(3);
                out.extend_from_slice(&v.to_le_bytes());
            }
            Literal::Date(v) => {
                out.push(4);
                out.extend_from_slice(&v.to_le_bytes());
            }
            Literal::Time(v) => {
                out.push(5);
                out.extend_from_slice(&v.to_le_bytes());
            }
            Literal::Timestamp { us, zoned } => {
                out.push(6);
                out.extend_from_slice(&us.to_le_bytes());
                out.push(u8::from(*zoned));
            }
            Literal::Text(v) => {
                out.push(7);
                put_bytes(out, v.as_bytes());
            }
            Literal::Bytes(v) => {
                out.push(8);
                put_bytes(out, v);
            }
            Literal::Uuid(v) => {
                out.push(9);
                out.extend_from_slice(v);
            }
        }
    }
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Reader<'_> {
    fn expr(&mut self, depth: usize) -> Result<Expr, CodecError> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("at most 200 levels", "more".into()));
        }
        let below = depth + 1;
        Ok(match self.u8("an expression")? {
            1 => Expr::Column(ColumnName::Name(self.text()?)),
            2 => Expr::Column(ColumnName::Id(u16::from_le_bytes(self.array("an id")?))),
            3 => Expr::Literal(self.literal()?),
            4 => Expr::Not(self.one(below)?),
            5 => Expr::Negate(self.one(below)?),
            6 => Expr::IsNull(self.one(below)?),
            8 => {
                use Arithmetic::{Add, Div, FloorDiv, Mod, Mul, Sub};
                let operator = self.choice("an operator", &[Add, Sub, Mul, Div, FloorDiv, Mod])?;
                Expr::Arithmetic(operator, self.one(below)?, self.one(below)?)
            }
            9 => {
                use Comparison::{Eq, Ge, Gt, Le, Lt, Ne};
                let comparison = self.choice("a comparison", &[Eq, Ne, Lt, Le, Gt, Ge])?;
                Expr::Compare(comparison, self.one(below)?, self.one(below)?)
            }
            10 => Expr::And(self.one(below)?, self.one(below)?),
            11 => Expr::Or(self.one(below)?, self.one(below)?),
            12 => {
                let of = self.one(below)?;
                let count = self.count()?;
                let list: Result<Vec<_>, _> = (0..count).map(|_| self.literal()).collect();
                Expr::In(of, list?.into())
            }
            13 => {
                let count = self.count()?;
                let branches: Result<Vec<_>, _> = (0..count)
                    .map(|_| Ok((self.expr(below)?, self.expr(below)?)))
                    .collect();
                let branches = branches?;
                let otherwise = if self.choice("0 or 1", &[false, true])? {
                    Some(self.one(below)?)
                } else {
                    None
                };
                Expr::Case(branches.into(), otherwise)
            }
            15 => Expr::Coalesce(self.all(below)?),
            16 => {
                let (code, param) = (self.u8("a type code")?, self.array("a type parameter")?);
                let param = u16::from_le_bytes(param);
                let to = DataType::from_code(code, param)
                    .ok_or_else(|| self.wrong("a known type", format!("{code}, {param}")))?;
                Expr::Cast(self.one(below)?, to)
            }
            17 => {
                let scale = self.u8("digits")?;
                Expr::Round(self.one(below)?, scale)
            }
            18 => {
                let code = self.u8("a function")?;
                let function = Function::from_code(code)
                    .ok_or_else(|| self.wrong("a known function", code.to_string()))?;
                Expr::Call(function, self.all(below)?)
            }
            other => return Err(self.wrong("a known expression", other.to_string())),
        })
    }

    fn one(&mut self, depth: usize) -> Result<Arc<Expr>, CodecError> {
        self.expr(depth).map(Arc::new)
    }

    fn all(&mut self, depth: usize) -> Result<Arc<[Expr]>, CodecError> {
        let count = self.count()?;
        let all: Result<Vec<_>, _> = (0..count).map(|_| self.expr(depth)).collect();
        Ok(all?.into())
    }

    fn literal(&mut self) -> Result<Literal, CodecError> {
        Ok(match self.u8("a literal")? {
            0 => Literal::Null,
            1 => Literal::Bool(self.choice("0 or 1", &[false, true])?),
            2 => {
                let unscaled = i128::from_le_bytes(self.array("a number")?);
                let scale = self.u8("a scale")?;
                if scale > POW10_MAX {
                    return Err(self.wrong("a scale of at most 38", scale.to_string()));
                }
                Literal::Exact { unscaled, scale }
            }
            3 => Literal::Float(f64::from_le_bytes(self.array("a float")?)),
            4 => Literal::Date(i32::from_le_bytes(self.array("a date")?)),
            5 => {
                let us = i64::from_le_bytes(self.array("a time")?);
                if !(0..TIME_US_END).contains(&us) {
                    return Err(self.wrong("a time within a day", us.to_string()));
                }
                Literal::Time(us)
            }
            6 => Literal::Timestamp {
                us: i64::from_le_bytes(self.array("a timestamp")?),
                zoned: self.choice("0 or 1", &[false, true])?,
            },
            7 => Literal::Text(self.text()?),
            8 => Literal::Bytes(self.slice()?.to_vec()),
            9 => Literal::Uuid(self.array("a uuid")?),
            other => return Err(self.wrong("a known literal", other.to_string())),
        })
    }

    /// A count of things of a byte at the least.
    fn count(&mut self) -> Result<usize, CodecError> {
        let read = read_varint(self.bytes, &mut self.at);
        let count = read.map_err(|error| self.wrong("a count", error.to_string()))?;
        let left = self.bytes.len() - self.at;
        match usize::try_from(count) {
            Ok(count) if count <= left => Ok(count),
            _ => Err(self.wrong("a count of what follows", count.to_string())),
        }
    }

    fn slice(&mut self) -> Result<&[u8], CodecError> {
        let len = self.count()?;
        self.at += len;
        Ok(&self.bytes[self.at - len..self.at])
    }

    fn text(&mut self) -> Result<String, CodecError> {
        let bytes = self.slice()?.to_vec();
        String::from_utf8(bytes).map_err(|error| self.wrong("UTF-8", error.to_string()))
    }

    fn choice<T: Copy>(&mut self, expected: &'static str, of: &[T]) -> Result<T, CodecError> {
        let code = self.u8(expected)?;
        of.get(usize::from(code))
            .copied()
            .ok_or_else(|| self.wrong(expected, code.to_string()))
    }

    fn u8(&mut self, expected: &'static str) -> Result<u8, CodecError> {
        self.array::<1>(expected).map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], CodecError> {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        match rest.first_chunk() {
            Some(array) => {
                self.at += N;
                Ok(*array)
            }
            None => Err(self.wrong(expected, format!("{} bytes", rest.len()))),
        }
    }

    fn wrong(&self, expected: &'static str, got: String) -> CodecError {
        CodecError {
            offset: self.at,
            expected,
            got,
        }
    }
}
