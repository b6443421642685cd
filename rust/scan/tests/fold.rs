//! Kernels on pages against row-wise evaluation: the same rows as a plain leaf, sealed, cut into ranks, and one by one give the
//! same result, whatever the schema, the rows and the expressions.

#[path = "../../page/tests/typed/mod.rs"]
mod typed;

use std::sync::Arc;

use aurora_page::{
    Column, Compression, DataType, LeafMut, LeafRef, ObjectId, OverflowRef, Page, PageId, Schema,
    SealedRef, Value, encode_key, encode_row, format_leaf, leaf_capacity, leaf_layout, seal_with,
};
use aurora_scan::expr::{Arithmetic, Comparison, Expr, Literal};
use aurora_scan::{
    Aggregate, AggregateFunction, BoundPlan, Interpolation, Job, Output, Partial, Plan, ScanError,
    Share, TopN, sort_rows,
};
use proptest::prelude::*;

const PAGE_BYTES: usize = 32 * 1024;
const ID: PageId = PageId(9);
const MEMORY: usize = 1 << 30;

fn leaf_of(schema: &Schema, rows: &[Vec<Value>], delete_every: usize) -> Page {
    let mut page = Page::empty(ID, PAGE_BYTES);
    let capacity = leaf_capacity(schema, PAGE_BYTES, 40).unwrap().min(300);
    format_leaf(&mut page, ObjectId(1), &leaf_layout(schema, capacity)).unwrap();
    for row in rows {
        let Ok(key) = encode_key(schema, row) else {
            continue;
        };
        let bytes = encode_row(schema, row);
        let mut leaf = LeafMut::new(&mut page).unwrap();
        if let Err(rank) = leaf.view().search(&key)
            && leaf.view().fits(&bytes)
        {
            leaf.insert(rank, &bytes).unwrap();
        }
    }
    // Dead slots, whose values stay where they were.
    let mut rank = 0;
    while delete_every > 1 && rank < LeafRef::new(&page).unwrap().len() {
        LeafMut::new(&mut page).unwrap().delete(rank).unwrap();
        rank += delete_every;
    }
    page
}

fn no_long(reference: OverflowRef) -> Result<Vec<u8>, String> {
    Err(format!("{reference:?} was asked for"))
}

/// A constant that can be compared with a column: a value of it, or one near it, and for decimals of another scale.
fn literal_of(column: &Column) -> BoxedStrategy<Literal> {
    let data_type = column.data_type;
    (typed::value_of(data_type), -1..=1i128, 0..3u8)
        .prop_map(move |(value, by, digits)| match (value, data_type) {
            (Value::Bool(v), _) => Literal::Bool(v),
            (Value::Int(v), _) => Literal::Exact {
                unscaled: (i128::from(v) + by) * 10i128.pow(digits.into()) + i128::from(digits),
                scale: digits,
            },
            (Value::Decimal(v), DataType::Decimal { scale, .. }) => Literal::Exact {
                unscaled: v.saturating_add(by),
                scale,
            },
            (Value::Float32(v), _) => Literal::Float(v.into()),
            (Value::Float64(v), _) => Literal::Float(v),
            (Value::Date(v), _) => Literal::Date(v),
            (Value::Time(v), _) => Literal::Time(v),
            (Value::Timestamp(us), DataType::Timestamp { zoned }) => {
                Literal::Timestamp { us, zoned }
            }
            (Value::Text(v), _) => Literal::Text(v),
            (Value::Bytes(v), _) => Literal::Bytes(v),
            (Value::Uuid(v), _) => Literal::Uuid(v),
            _ => Literal::Null,
        })
        .boxed()
}

fn comparison() -> impl Strategy<Value = Comparison> {
    prop::sample::select(vec![
        Comparison::Eq,
        Comparison::Ne,
        Comparison::Lt,
        Comparison::Le,
        Comparison::Gt,
        Comparison::Ge,
    ])
}

fn condition(schema: &Schema) -> BoxedStrategy<Expr> {
    let columns = schema.columns().to_vec();
    let simple = prop::sample::select(columns).prop_flat_map(|column| {
        let name = column.name.clone();
        let list = prop::collection::vec(literal_of(&column), 0..4);
        (
            comparison(),
            literal_of(&column),
            list,
            0..6u8,
            any::<bool>(),
        )
            .prop_map(move |(comparison, literal, list, which, mirrored)| {
                let (column, literal) = (Expr::column(name.clone()), Expr::Literal(literal));
                match which {
                    0 => Expr::IsNull(Arc::new(column)),
                    1 => Expr::In(Arc::new(column), list.into()),
                    2 => Expr::Not(Arc::new(column.compare(comparison, literal))),
                    _ if mirrored => literal.compare(comparison, column),
                    _ => column.compare(comparison, literal),
                }
            })
    });
    simple
        .prop_recursive(2, 4, 2, |inner| {
            (inner.clone(), inner, any::<bool>())
                .prop_map(|(a, b, and)| if and { a.and(b) } else { a.or(b) })
        })
        .boxed()
}

fn value_expr(schema: &Schema) -> BoxedStrategy<Expr> {
    let columns = schema.columns().to_vec();
    let leaf = prop::sample::select(columns).prop_map(|column| Expr::column(column.name));
    let constant = (-3..100i128, 0..3u8)
        .prop_map(|(unscaled, scale)| Expr::Literal(Literal::Exact { unscaled, scale }));
    prop_oneof![4 => leaf, 1 => constant]
        .prop_recursive(2, 6, 2, |inner| {
            let operator = prop::sample::select(vec![
                Arithmetic::Add,
                Arithmetic::Sub,
                Arithmetic::Mul,
                Arithmetic::Mod,
            ]);
            (operator, inner.clone(), inner).prop_map(|(o, a, b)| a.arithmetic(o, b))
        })
        .boxed()
}

fn share(of: f64) -> Share {
    Share::new(of).unwrap()
}

fn function() -> impl Strategy<Value = AggregateFunction> {
    prop::sample::select(vec![
        AggregateFunction::Len,
        AggregateFunction::Count,
        AggregateFunction::Sum,
        AggregateFunction::Min,
        AggregateFunction::Max,
        AggregateFunction::Mean,
        AggregateFunction::CountDistinct,
        AggregateFunction::Variance,
        AggregateFunction::StdDev,
        AggregateFunction::ApproxDistinct,
        AggregateFunction::Quantile(share(0.3), Interpolation::Linear),
        AggregateFunction::Quantile(share(0.9), Interpolation::Nearest),
        AggregateFunction::ApproxQuantile(share(0.5)),
    ])
}

#[derive(Debug, Clone)]
struct Case {
    schema: Schema,
    rows: Vec<Vec<Value>>,
    filter: Vec<Expr>,
    keys: Vec<Expr>,
    aggregates: Vec<(AggregateFunction, Expr)>,
    delete_every: usize,
}

fn case() -> impl Strategy<Value = Case> {
    typed::schema(6).prop_flat_map(|schema| {
        // Rows out of few, so that dictionaries, equal keys and constant columns come about.
        let rows = prop::collection::vec(typed::row(&schema), 1..12).prop_flat_map(|pool| {
            let picked = prop::collection::vec(
                prop::collection::vec(any::<prop::sample::Index>(), 6),
                0..120,
            );
            picked.prop_map(move |picks| {
                picks
                    .iter()
                    .map(|pick| {
                        (0..pool[0].len())
                            .map(|column| pool[pick[column].index(pool.len())][column].clone())
                            .collect()
                    })
                    .collect::<Vec<Vec<Value>>>()
            })
        });
        (
            rows,
            prop::collection::vec(condition(&schema), 0..3),
            prop::collection::vec(value_expr(&schema), 0..3),
            prop::collection::vec((function(), value_expr(&schema)), 0..4),
            prop::sample::select(vec![0usize, 2, 5]),
            Just(schema),
        )
            .prop_map(
                |(rows, filter, keys, aggregates, delete_every, schema)| Case {
                    schema,
                    rows,
                    filter,
                    keys,
                    aggregates,
                    delete_every,
                },
            )
    })
}

impl Case {
    /// The plan, without what its types do not allow.
    fn plan(&self, grouped: bool) -> Option<BoundPlan> {
        let binds = |expr: &&Expr| {
            expr.bind(&self.schema)
                .is_ok_and(|bound| bound.data_type().is_some())
        };
        let filter = self
            .filter
            .iter()
            .filter(|expr| {
                expr.bind(&self.schema)
                    .is_ok_and(|bound| bound.expect_condition().is_ok())
            })
            .cloned()
            .collect();
        let keys: Vec<(String, Expr)> = self
            .keys
            .iter()
            .filter(binds)
            .enumerate()
            .map(|(index, expr)| (format!("k{index}"), expr.clone()))
            .collect();
        let output = if grouped {
            let one = |index: usize, function, of: Option<Expr>| {
                (format!("a{index}"), Aggregate { function, of })
            };
            let mut aggregates = vec![one(0, AggregateFunction::Len, None)];
            for (function, of) in &self.aggregates {
                let more = one(aggregates.len(), *function, Some(of.clone()));
                let alone = Output::Groups {
                    keys: Vec::new(),
                    aggregates: vec![more.clone()],
                };
                let plan = Plan {
                    filter: Vec::new(),
                    output: alone,
                };
                if plan.bind(&self.schema).is_ok() {
                    aggregates.push(more);
                }
            }
            Output::Groups { keys, aggregates }
        } else if keys.is_empty() {
            return None;
        } else {
            Output::Rows(keys)
        };
        Some(Plan { filter, output }.bind(&self.schema).unwrap())
    }
}

/// The result in an order of its own, to be compared.
fn sorted(partial: Result<Partial, ScanError>) -> Result<Vec<String>, String> {
    let rows = partial
        .and_then(Partial::finish)
        .map_err(|error| match error {
            // Which of several rows without a value is met first depends on the way.
            ScanError::Eval { .. } => "eval".to_owned(),
            other => other.to_string(),
        })?;
    let mut texts: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
    texts.sort();
    Ok(texts)
}

fn fold(
    job: &Arc<Job>,
    with: impl FnOnce(&mut Partial) -> Result<(), ScanError>,
) -> Result<Partial, ScanError> {
    let mut partial = Partial::new(job.clone());
    with(&mut partial)?;
    Ok(partial)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn pages_give_what_rows_give(case in case(), grouped in prop::bool::weighted(0.8)) {
        let Some(plan) = case.plan(grouped) else { return Ok(()) };
        let job = Arc::new(Job::new(plan, None, MEMORY));
        let page = leaf_of(&case.schema, &case.rows, case.delete_every);
        let leaf = LeafRef::new(&page).unwrap();
        let rows: Vec<Vec<Value>> = (0..leaf.len()).map(|rank| leaf.row(rank)).collect();
        let expected = sorted(fold(&job, |partial| {
            rows.iter().try_for_each(|row| partial.fold_row(row, &mut no_long))
        }));
        let plain = sorted(fold(&job, |partial| partial.fold_leaf(&leaf, None, &mut no_long)));
        prop_assert_eq!(&plain, &expected, "plain");
        let bytes = seal_with(&page, Compression::Never);
        let sealed = SealedRef::new(&bytes, ID).unwrap();
        let packed = sorted(fold(&job, |partial| partial.fold_sealed(&sealed, &mut no_long)));
        prop_assert_eq!(&packed, &expected, "sealed");
        let middle = leaf.len() / 3;
        let parts = sorted((|| {
            let mut first = fold(&job, |partial| partial.fold_leaf(&leaf, Some(middle..leaf.len()), &mut no_long))?;
            let second = fold(&job, |partial| partial.fold_leaf(&leaf, Some(0..middle), &mut no_long))?;
            first.merge(second)?;
            Ok(first)
        })());
        prop_assert_eq!(&parts, &expected, "in two parts");
        let passing = job.passing_ranks(&leaf, 0..leaf.len(), &mut no_long);
        if let Ok(passing) = passing {
            let passes: Result<Vec<bool>, _> = rows.iter().map(|row| job.passes(row, &mut no_long)).collect();
            if let Ok(passes) = passes {
                let expected: Vec<usize> = (0..rows.len()).filter(|rank| passes[*rank]).collect();
                prop_assert_eq!(passing, expected);
            }
        }
    }
}

fn numbers(count: i64) -> (Schema, Page) {
    let schema = typed_schema();
    let rows: Vec<Vec<Value>> = (0..count)
        .map(|n| {
            vec![
                Value::Int(n),
                Value::Int(n % 7),
                Value::Text(format!("t{}", n % 3)),
            ]
        })
        .collect();
    let page = leaf_of(&schema, &rows, 0);
    (schema, page)
}

fn typed_schema() -> Schema {
    let column = |id: u16, name: &str, data_type| Column {
        id,
        name: name.into(),
        data_type,
        nullable: false,
    };
    let columns = vec![
        column(1, "id", DataType::Int64),
        column(2, "n", DataType::Int32),
        column(3, "t", DataType::Text),
    ];
    let key = vec![aurora_page::KeyPart {
        column: 0,
        descending: false,
    }];
    Schema::new(1, columns, key).unwrap()
}

#[test]
fn zone_maps_skip_pages_that_cannot_pass() {
    let (schema, page) = numbers(200);
    let bytes = seal_with(&page, Compression::Never);
    let sealed = SealedRef::new(&bytes, ID).unwrap();
    let leaf = LeafRef::new(&page).unwrap();
    let count = |condition: Expr| {
        let plan = Plan {
            filter: vec![condition],
            output: Output::Groups {
                keys: Vec::new(),
                aggregates: vec![(
                    "n".into(),
                    Aggregate {
                        function: AggregateFunction::Len,
                        of: None,
                    },
                )],
            },
        };
        let job = Arc::new(Job::new(plan.bind(&schema).unwrap(), None, MEMORY));
        let mut partial = Partial::new(job);
        partial.fold_sealed(&sealed, &mut no_long).unwrap();
        partial.fold_leaf(&leaf, None, &mut no_long).unwrap();
        let skipped = partial.counters.pages_skipped;
        (partial.finish().unwrap()[0][0].clone(), skipped)
    };
    let id = |comparison, n| Expr::column("id").compare(comparison, Expr::int(n));
    assert_eq!(count(id(Comparison::Lt, 0)), (Value::Int(0), 2));
    assert_eq!(count(id(Comparison::Gt, 199)), (Value::Int(0), 2));
    assert_eq!(count(id(Comparison::Ge, 199)), (Value::Int(2), 0));
    assert_eq!(count(id(Comparison::Eq, 1000)), (Value::Int(0), 2));
    let text = |comparison, t: &str| Expr::column("t").compare(comparison, Expr::text(t));
    assert_eq!(count(text(Comparison::Eq, "u")), (Value::Int(0), 2));
    assert_eq!(count(text(Comparison::Eq, "t1")), (Value::Int(134), 0));
    assert_eq!(count(text(Comparison::Lt, "t")), (Value::Int(0), 2));
    assert_eq!(count(text(Comparison::Lt, "t0")), (Value::Int(0), 0));
}

#[test]
fn the_first_rows_are_those_of_a_full_sort() {
    let (schema, page) = numbers(300);
    let leaf = LeafRef::new(&page).unwrap();
    let plan = Plan {
        filter: Vec::new(),
        output: Output::Rows(vec![
            ("n".into(), Expr::column("n")),
            ("id".into(), Expr::column("id")),
        ]),
    };
    let run = |top: Option<TopN>| {
        let job = Arc::new(Job::new(plan.bind(&schema).unwrap(), top, MEMORY));
        let mut partial = Partial::new(job);
        for _ in 0..12 {
            partial.fold_leaf(&leaf, None, &mut no_long).unwrap();
        }
        partial.finish().unwrap()
    };
    let by = vec![(0, true), (1, false)];
    let mut all = run(None);
    sort_rows(&mut all, &by);
    all.truncate(50);
    assert_eq!(run(Some(TopN { by, rows: 50 })), all);
}

#[test]
fn memory_is_bounded() {
    let (schema, page) = numbers(300);
    let plan = Plan {
        filter: Vec::new(),
        output: Output::Groups {
            keys: vec![("id".into(), Expr::column("id"))],
            aggregates: Vec::new(),
        },
    };
    let job = Arc::new(Job::new(plan.bind(&schema).unwrap(), None, 10_000));
    let leaf = LeafRef::new(&page).unwrap();
    let error = Partial::new(job)
        .fold_leaf(&leaf, None, &mut no_long)
        .unwrap_err();
    assert!(matches!(error, ScanError::Memory { limit: 10_000, got } if got > 10_000));
}
