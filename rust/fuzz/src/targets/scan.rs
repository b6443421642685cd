//! Expressions as bytes, and folds over sealed leaves as they come from disk.

use std::sync::Arc;

use aurora_page::{Compression, OverflowRef, PageId, SealedRef, seal_with};
use aurora_scan::expr::{Comparison, Expr, Literal};
use aurora_scan::{Aggregate, AggregateFunction, Job, Output, Partial, Plan};

use super::samples::{leaf, schema};
use super::{Target, page, u64_at};

/// Bytes that groups may take.
const MEMORY: usize = 1 << 20;

pub fn targets() -> Vec<Target> {
    let jobs = jobs();
    let sealed = vec![
        seal_with(&leaf(), Compression::Never),
        seal_with(&leaf(), Compression::Lz4),
    ];
    vec![
        Target::new(
            "expression",
            expressions().iter().map(Expr::encode).collect(),
            |bytes| {
                if let Ok(expr) = Expr::decode(bytes) {
                    let _ = expr.bind(&schema());
                    assert_eq!(
                        Expr::decode(&expr.encode()).map(|e| e.encode()),
                        Ok(expr.encode())
                    );
                }
            },
        ),
        Target::new("fold", sealed, move |bytes| fold(&jobs, bytes))
            .stamped(page::stamp)
            .allowed(16 << 20),
    ]
}

fn exact(unscaled: i128, scale: u8) -> Expr {
    Expr::Literal(Literal::Exact { unscaled, scale })
}

fn expressions() -> Vec<Expr> {
    let column = |name: &str| Expr::column(name);
    let text = |text: &str| Literal::Text(text.into());
    vec![
        column("id").compare(Comparison::Lt, exact(30, 0)),
        column("price")
            .compare(Comparison::Ge, exact(1234, 2))
            .and(Expr::Not(Arc::new(Expr::IsNull(Arc::new(column("day")))))),
        Expr::In(
            Arc::new(column("name")),
            vec![text("name 1"), text("name 2"), Literal::Null].into(),
        ),
        Expr::Case(
            vec![(column("flag"), Expr::Round(Arc::new(column("price")), 1))].into(),
            Some(Arc::new(Expr::Negate(Arc::new(column("price"))))),
        ),
        Expr::Coalesce(vec![column("small"), exact(0, 0)].into()),
    ]
}

fn jobs() -> Vec<Arc<Job>> {
    let all = [
        AggregateFunction::Len,
        AggregateFunction::Count,
        AggregateFunction::Sum,
        AggregateFunction::Min,
        AggregateFunction::Max,
        AggregateFunction::CountDistinct,
    ];
    let aggregates = |of: &str| {
        let named = all.into_iter().map(|function| {
            let counts_rows = function == AggregateFunction::Len;
            let of = (!counts_rows).then(|| Expr::column(of));
            (function.name().to_owned(), Aggregate { function, of })
        });
        named.collect::<Vec<_>>()
    };
    let columns = schema();
    let names = columns.columns().iter().map(|column| column.name.clone());
    let rows = names
        .map(|name| (name.clone(), Expr::column(name)))
        .collect();
    let keys = vec![("name".to_owned(), Expr::column("name"))];
    let plans = [
        Plan {
            filter: vec![expressions()[0].clone(), expressions()[1].clone()],
            output: Output::Groups {
                keys: Vec::new(),
                aggregates: aggregates("price"),
            },
        },
        Plan {
            filter: vec![expressions()[2].clone()],
            output: Output::Groups {
                keys,
                aggregates: aggregates("small"),
            },
        },
        Plan {
            filter: Vec::new(),
            output: Output::Rows(rows),
        },
    ];
    let bound = plans.map(|plan| plan.bind(&schema()).expect("a plan of the schema"));
    bound
        .map(|plan| Arc::new(Job::new(plan, None, MEMORY)))
        .into()
}

fn fold(jobs: &[Arc<Job>], bytes: &[u8]) {
    let Ok(sealed) = SealedRef::new(bytes, PageId(u64_at(bytes, 8))) else {
        return;
    };
    for job in jobs {
        let mut partial = Partial::new(job.clone());
        let mut long = |_: OverflowRef| Err("not here".to_owned());
        if partial.fold_sealed(&sealed, &mut long).is_ok() {
            let _ = partial.finish();
        }
    }
}
