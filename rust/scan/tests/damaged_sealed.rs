//! Sealed leaves that are wrong under a good checksum: a fold gives an error or some answer, and does not panic.
//!
//! Fuzzing found two: a code that no entry of its dictionary has reached beyond the table of groups, and a leaf with fewer columns than
//! the schema of its version was read beyond its last one.

use std::sync::Arc;

use aurora_page::{
    Column, Compression, DataType, KeyPart, LeafMut, ObjectId, OverflowRef, Page, PageId, Schema,
    SealedRef, Value, crc32c, crc32c_append, encode_row, format_leaf, leaf_capacity, leaf_layout,
    seal_with,
};
use aurora_scan::expr::Expr;
use aurora_scan::{Aggregate, AggregateFunction, Job, Output, Partial, Plan};

const ID: PageId = PageId(9);
const PAGE_BYTES: usize = 2048;
const HEADER: usize = 64;

fn schema() -> Schema {
    let column = |id, name: &str, data_type| Column {
        id,
        name: name.into(),
        data_type,
        nullable: false,
    };
    let columns = vec![
        column(0, "id", DataType::Int64),
        column(1, "kind", DataType::Int32),
        column(2, "name", DataType::Text),
    ];
    let key = vec![KeyPart {
        column: 0,
        descending: false,
    }];
    Schema::new(1, columns, key).expect("a schema")
}

fn sealed() -> Vec<u8> {
    let schema = schema();
    let mut page = Page::empty(ID, PAGE_BYTES);
    let capacity = leaf_capacity(&schema, PAGE_BYTES, 8).expect("rows fit");
    format_leaf(&mut page, ObjectId(5), &leaf_layout(&schema, capacity)).expect("a leaf");
    for n in 0..24i64 {
        // Values far from each other, few of them: they are stored as codes.
        let kind = Value::Int(n % 3 * 500_000_000);
        let row = [Value::Int(n), kind, Value::Text(format!("name {}", n % 4))];
        let mut leaf = LeafMut::new(&mut page).expect("a leaf");
        leaf.insert(n as usize, &encode_row(&schema, &row))
            .expect("room");
    }
    seal_with(&page, Compression::Never)
}

fn jobs() -> Vec<Arc<Job>> {
    let by = |key: &str| {
        let function = AggregateFunction::Sum;
        let of = Some(Expr::column("kind"));
        let plan = Plan {
            filter: Vec::new(),
            output: Output::Groups {
                keys: vec![(key.to_owned(), Expr::column(key))],
                aggregates: vec![("sum".to_owned(), Aggregate { function, of })],
            },
        };
        let bound = plan.bind(&schema()).expect("a plan of the schema");
        Arc::new(Job::new(bound, None, 1 << 20))
    };
    vec![by("kind"), by("name")]
}

#[test]
fn no_wrong_byte_makes_a_fold_panic() {
    let (good, jobs) = (sealed(), jobs());
    let mut read = 0;
    for at in HEADER..good.len() {
        for byte in [0, 1, 2, 0x7f, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            let crc = crc32c_append(crc32c(&bytes[..HEADER - 4]), &bytes[HEADER..]);
            bytes[HEADER - 4..HEADER].copy_from_slice(&crc.to_le_bytes());
            let Ok(sealed) = SealedRef::new(&bytes, ID) else {
                continue;
            };
            for job in &jobs {
                let mut partial = Partial::new(job.clone());
                let mut long = |_: OverflowRef| Err("not here".to_owned());
                if partial.fold_sealed(&sealed, &mut long).is_ok() {
                    read += usize::from(partial.finish().is_ok());
                }
            }
        }
    }
    assert!(read > 1000, "most of them can be read all the same: {read}");
}
