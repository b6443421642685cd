//! Commit tokens: a caller that does not know whether its commit happened asks by the token that it gave.
//!
//! A token is a row of `aurora.tokens`, written in the MTR of its commit. Rows are purged by age, a part of the table
//! at a time.

use aurora_page::{KeyBuf, LeafRef, Lsn, Value, ValueRef, encode_row};
use aurora_proto::Volume;

use crate::btree::{Pages, descend, descend_with};
use crate::edit::Edit;
use crate::engine::Engine;
use crate::error::{Attempt, EngineError};
use crate::table::Table;
use crate::txn::Commit;

/// Most bytes of a token.
pub const TOKEN_BYTES_MAX: usize = 64;

const TIME: usize = 1;

/// Leaves that one purge looks at, and tokens that it deletes.
const PURGE_LEAVES: usize = 64;
const PURGE_TOKENS: usize = 512;

/// What a purge has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Purged {
    /// Tokens deleted.
    pub tokens: usize,
    /// Whether the end of the tokens was reached; the next purge begins at the start again.
    pub done: bool,
}

/// Writes the token's row. A token that was used before fails, unless it is too old to be remembered.
pub(crate) fn insert(edit: &mut Edit<'_>, token: &str) -> Attempt<()> {
    check(token)?;
    let table = edit.system.tokens.clone();
    let row = [Value::Text(token.to_owned()), Value::Int(edit.time_us)];
    let key = table.key_of(&row)?;
    let found = edit.find(&table, &key)?;
    match found.rank {
        Err(rank) => edit.insert_at(&table, &key, &found, rank, &encode_row(&table.schema, &row)),
        Ok(rank) => {
            let time_us = time_at(&LeafRef::new(&*edit.page(found.leaf)?)?, rank);
            Err(EngineError::TokenUsed {
                token: token.to_owned(),
                time_us,
                seen: edit.at,
            }
            .into())
        }
    }
}

fn time_at(leaf: &LeafRef<'_>, rank: usize) -> i64 {
    match leaf.value_at(rank, TIME) {
        ValueRef::Int(time_us) => time_us,
        _ => 0,
    }
}

fn check(token: &str) -> Result<(), EngineError> {
    match token.len() {
        1..=TOKEN_BYTES_MAX => Ok(()),
        got => Err(EngineError::Token {
            limit: TOKEN_BYTES_MAX,
            got,
        }),
    }
}

fn key_of(table: &Table, token: &str) -> Attempt<KeyBuf> {
    Ok(table.key(&[Value::Text(token.to_owned())])?)
}

impl<V: Volume> Engine<V> {
    /// Whether a commit with this token has happened. The time is the commit's own, and no other commit has it; the LSN
    /// is one by which the commit is in: the answer is certain once the VDL has reached it [15].
    pub fn token_status(&self, token: &str) -> Attempt<Option<Commit>> {
        check(token)?;
        let table = &self.system.tokens;
        let key = key_of(table, token)?;
        let view = self.view(self.published());
        let mut newest = Lsn::NONE;
        let page = descend(&view, table, &key, &mut newest)?;
        let leaf = LeafRef::new(&page)?;
        let found = leaf.search(&key).ok();
        Ok(found.map(|rank| Commit {
            lsn: newest,
            time_us: time_at(&leaf, rank),
            after: newest,
        }))
    }

    /// Deletes tokens of commits before `before_us`, going on where the last purge stopped.
    pub fn purge_tokens(&self, before_us: i64, now_us: i64) -> Attempt<Purged> {
        let from = self.committing.lock().purge_from.clone();
        let (old, next) = self.old_tokens(from, before_us)?;
        let table = self.system.tokens.clone();
        let delete = |edit: &mut Edit<'_>, _: &_| {
            let mut deleted = 0;
            for key in &old {
                let found = edit.find(&table, key)?;
                if let Ok(rank) = found.rank {
                    edit.delete_at(&table, &found, rank)?;
                    deleted += 1;
                }
            }
            Ok(deleted)
        };
        let (tokens, _) = self.mutate_system(now_us, delete, |_, _, _| {})?;
        let done = next.is_none();
        self.committing.lock().purge_from = next.unwrap_or_default();
        Ok(Purged { tokens, done })
    }

    /// Keys of tokens that are old enough, and where to go on; `None` at the end.
    fn old_tokens(&self, from: KeyBuf, before_us: i64) -> Attempt<(Vec<KeyBuf>, Option<KeyBuf>)> {
        let (table, view) = (&self.system.tokens, self.view(self.published()));
        let (mut old, mut from) = (Vec::new(), from);
        for _ in 0..PURGE_LEAVES {
            let (page, fences) = descend_with(
                &view,
                table,
                |inner| inner.child_for(&from).0,
                &mut Lsn::default(),
            )?;
            let leaf = LeafRef::new(&page)?;
            let ranks = leaf.lower_bound(&from)..leaf.len();
            old.extend(
                ranks
                    .filter(|rank| time_at(&leaf, *rank) < before_us)
                    .map(|rank| leaf.key_at(rank)),
            );
            match fences.upper {
                Some(upper) => from = upper,
                None => return Ok((old, None)),
            }
            if old.len() >= PURGE_TOKENS {
                break;
            }
        }
        Ok((old, Some(from)))
    }
}
